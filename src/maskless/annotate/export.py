"""Names of cells into ``obs["phenotype"]`` of cells.h5ad, the rest of the file untouched."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.storage import atomic_path

PHENOTYPE, BROAD = "phenotype", "phenotype_broad"


def write_phenotypes(
    file: Path,
    codes_n: NDArray[np.int32],
    names: list[str],
    broad: tuple[NDArray[np.int32], list[str]] | None = None,
) -> None:
    """Write a name for each cell, atomically: the file is copied, changed and renamed.

    Parameters
    ----------
    file
        cells.h5ad.
    codes_n, names
        For each cell the position of its name.
    broad
        The same for broad classes, kept in ``obs["phenotype_broad"]``; None = no such column.

    Raises
    ------
    InputError
        If the file does not hold these cells.
    StudyError
        If it cannot be written.
    """
    import h5py

    with atomic_path(file) as temporary:
        shutil.copyfile(file, temporary)
        with h5py.File(temporary, "r+") as content:
            obs = content["obs"]
            index = obs[_text(obs.attrs["_index"])]
            if len(index) != len(codes_n):
                raise InputError(
                    "these are not the cells that were named",
                    file=file,
                    expected=f"{len(codes_n)} cells",
                    found=str(len(index)),
                )
            _put(obs, PHENOTYPE, codes_n, names)
            if broad is not None:
                _put(obs, BROAD, *broad)
            elif BROAD in obs:
                _drop(obs, BROAD)


def _put(obs: Any, column: str, codes_n: NDArray[np.int32], names: list[str]) -> None:
    import pandas as pd
    from anndata.io import write_elem

    write_elem(obs, column, pd.Categorical.from_codes(codes_n, names))
    order = [_text(name) for name in obs.attrs["column-order"]]
    if column not in order:
        _set_order(obs, [*order, column])


def _drop(obs: Any, column: str) -> None:
    del obs[column]
    _set_order(obs, [n for n in map(_text, obs.attrs["column-order"]) if n != column])


def _set_order(obs: Any, order: list[str]) -> None:
    import h5py

    obs.attrs.create("column-order", np.array(order, dtype=object), dtype=h5py.string_dtype())


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
