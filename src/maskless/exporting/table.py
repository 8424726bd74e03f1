"""Cells as CSV: one row a cell, for spreadsheets, R and everything else."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maskless.annotate.spreadsheet import formula_safe
from maskless.storage import atomic_path

if TYPE_CHECKING:
    from anndata import AnnData

_FIRST = ("image", "cluster", "phenotype")
_ROWS = 16_384


def write_csv(cells: AnnData, target: Path) -> None:
    """Write cells as CSV (UTF-8, commas, Unix line ends), atomically.

    Columns: cell, image, x, y (pixels; the middle of the first pixel is 0, 0), x_um, y_um, cluster
    and phenotype, the other columns of ``obs``, then the activation of each marker that is used.
    Texts that a spreadsheet would take for a formula get an apostrophe in front.

    Parameters
    ----------
    cells
        As in cells.h5ad.
    target
        The file.

    Raises
    ------
    StudyError
        If it cannot be written.
    """
    columns = cell_columns(cells)
    markers, activations = used_activations(cells)
    heads = [formula_safe(name) for name in (*columns, *markers)]
    with atomic_path(target) as temporary, temporary.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(heads)
        for start in range(0, cells.n_obs, _ROWS):
            part = slice(start, start + _ROWS)
            texts = [_texts(values[part]) for values in columns.values()]
            texts += [_texts(column) for column in activations[part].T]
            writer.writerows(zip(*texts, strict=True))


def cell_columns(cells: AnnData) -> dict[str, NDArray[Any]]:
    """Everything about cells but activations, by name of the column."""
    obs = cells.obs
    xy_um = np.asarray(cells.obsm["spatial"], np.float64)
    columns: dict[str, NDArray[Any]] = {
        "cell": np.asarray(cells.obs_names, dtype=object),
        "image": obs["image"].astype(str).to_numpy(dtype=object),
        "x": obs["x"].to_numpy(),
        "y": obs["y"].to_numpy(),
        "x_um": xy_um[:, 0],
        "y_um": xy_um[:, 1],
    }
    for name in (*_FIRST[1:], *(n for n in obs if n not in (*_FIRST, "x", "y"))):
        if name in obs:
            values = obs[name]
            numeric = getattr(values.dtype, "kind", "O") in "fiub"
            plain = values if numeric else values.astype(str).astype(object)
            columns[str(name)] = plain.to_numpy()
    return columns


def used_activations(cells: AnnData) -> tuple[list[str], NDArray[np.float32]]:
    """Names of the markers that the encoder sees, and their activations, (cells, markers)."""
    used = np.flatnonzero(cells.var["used"].to_numpy(dtype=bool))
    values = np.asarray(cells.X[:, used], np.float32)
    return [str(cells.var_names[column]) for column in used], values


def _texts(values: NDArray[Any]) -> list[str]:
    if values.dtype.kind == "f":
        return [f"{value:.6g}" for value in values.tolist()]
    if values.dtype.kind in "iub":
        return [str(value) for value in values.tolist()]
    return [formula_safe(str(value)) for value in values.tolist()]
