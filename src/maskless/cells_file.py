"""cells.h5ad: read with clear errors, written whole and with the same bytes for the same content.

The stages stamp the file: ``uns["maskless"]["stages"]`` holds for each stage whose results are in
it the fingerprint of what they were made from.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskless.errors import InputError
from maskless.storage import atomic_path

if TYPE_CHECKING:
    from anndata import AnnData

_FIRST = ("image", "y", "x", "cluster", "phenotype")


def read_cells(path: Path) -> AnnData:
    """Read cells.h5ad.

    Raises
    ------
    InputError
        If the file is missing, cut or no AnnData.
    """
    import anndata

    if not path.is_file():
        raise InputError("no such file", file=path, do="Run the stages before: maskless run STUDY")
    try:
        return anndata.read_h5ad(path)
    except Exception as error:  # h5py and anndata raise many kinds for a damaged file
        raise InputError(
            "this is not a readable AnnData file",
            file=path,
            found=f"{type(error).__name__}: {error}",
            do="Delete it and run the study again",
        ) from error


def write_cells(cells: AnnData, path: Path) -> None:
    """Write cells.h5ad atomically, its parts in a fixed order so that bytes do not vary."""
    import anndata

    columns = [c for c in _FIRST if c in cells.obs]
    columns += sorted(c for c in cells.obs if c not in _FIRST)
    ordered = anndata.AnnData(
        X=cells.X,
        obs=cells.obs[columns],
        var=cells.var,
        layers={key: cells.layers[key] for key in sorted(cells.layers)},
        obsm={key: cells.obsm[key] for key in sorted(cells.obsm)},
        obsp={key: cells.obsp[key] for key in sorted(cells.obsp)},
        varm={key: cells.varm[key] for key in sorted(cells.varm)},
        uns=_sorted(cells.uns),
    )
    with atomic_path(path) as temporary:
        ordered.write_h5ad(temporary, compression="lzf")


def write_columns(path: Path, columns: Mapping[str, Any], cells: int) -> None:
    """Change columns of ``obs``, atomically, the rest of the file untouched.

    Parameters
    ----------
    path
        cells.h5ad; it is copied, changed and renamed.
    columns
        Name to values (pandas categorical or array), or None to take the column away.
    cells
        How many cells the file should have.

    Raises
    ------
    InputError
        If the file does not hold so many cells.
    StudyError
        If it cannot be written.
    """
    import h5py
    from anndata.io import write_elem

    with atomic_path(path) as temporary:
        shutil.copyfile(path, temporary)
        with h5py.File(temporary, "r+") as content:
            obs = content["obs"]
            found = len(obs[_text(obs.attrs["_index"])])
            if found != cells:
                raise InputError(
                    "these are not the cells that were named",
                    file=path,
                    expected=f"{cells} cells",
                    found=str(found),
                )
            order = [_text(name) for name in obs.attrs["column-order"]]
            for name, values in columns.items():
                if values is not None:
                    write_elem(obs, name, values)
                    order += [] if name in order else [name]
                elif name in obs:
                    del obs[name]
                    order.remove(name)
            kept = np.array(order, dtype=object)
            obs.attrs.create("column-order", kept, dtype=h5py.string_dtype())


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def stage_stamps(path: Path) -> dict[str, str]:
    """Fingerprints of the stages whose results are in cells.h5ad; empty if it cannot be read."""
    import h5py

    if not path.is_file():
        return {}
    try:
        with h5py.File(path, "r") as file:
            group = file["uns/maskless/stages"]
            return {stage: group[stage].asstr()[()] for stage in group}
    except (OSError, KeyError, AttributeError):
        return {}


def stamp(
    cells: AnnData,
    stage: str,
    fingerprint: str,
    *,
    seed: int,
    versions: Mapping[str, str],
    settings: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> None:
    """Record in ``uns["maskless"]`` what a stage was run with.

    Parameters
    ----------
    cells
        Changed in place.
    stage, fingerprint
        The stage whose results are in `cells` now, and what they were made from.
    seed, versions, settings, facts
        Stored beside it; settings and facts as JSON, since AnnData has no place for their types.
    """
    record = cells.uns.setdefault("maskless", {})
    record.setdefault("stages", {})[stage] = fingerprint
    record["seed"] = seed
    record["versions"] = dict(versions)
    record["settings"] = json.dumps(settings, sort_keys=True)
    record.setdefault("facts", {})[stage] = json.dumps(facts, sort_keys=True)


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return value
