"""What the page shows of cells.h5ad: small parts in memory, embeddings and features on demand.

n = cells, m = markers that the encoder sees, d = length of an embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskless.annotate.places import Clustering
from maskless.errors import InputError

_BLOCK_ROWS = 16_384
MOST_CATEGORIES = 400


@dataclass(frozen=True, eq=False)
class Column:
    """A categorical column of ``obs``, such as the patient."""

    codes_n: NDArray[np.int32]
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class StudyCells:
    """Cells of a study.

    Attributes
    ----------
    file
        cells.h5ad.
    clustering
        Clusters, images and places.
    umap_n2
        float32; NaN-free.
    activations_nm, markers
        Activations of the markers that are used, float32, and their names.
    positive_above_m
        Activation above which a cell counts as positive.
    nuclear
        Names of nuclear channels.
    columns
        Other categorical columns to colour by.
    """

    file: Path
    clustering: Clustering
    umap_n2: NDArray[np.float32]
    activations_nm: NDArray[np.float32]
    markers: tuple[str, ...]
    positive_above_m: NDArray[np.float64]
    nuclear: tuple[str, ...]
    columns: dict[str, Column] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of cells."""
        return len(self.clustering.codes_n)

    def rows_of(
        self, key: str, rows: NDArray[np.integer[Any]]
    ) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Rows of an ``obsm`` array in blocks, each with the part of `rows` it belongs to.

        Parameters
        ----------
        key
            Such as ``"X_embedding"``.
        rows
            In growing order.

        Raises
        ------
        InputError
            If the file has no such array.
        """
        import h5py

        with h5py.File(self.file, "r") as content:
            if f"obsm/{key}" not in content:
                raise InputError(
                    f"the cells have no {key}", file=self.file, do="Run: maskless run STUDY"
                )
            array = content[f"obsm/{key}"]
            edges = np.arange(0, self.count + _BLOCK_ROWS, _BLOCK_ROWS)
            places = np.searchsorted(rows, edges)
            for start, first, last in zip(edges, places, places[1:], strict=False):
                if last > first:
                    block = array[start : start + _BLOCK_ROWS]
                    yield slice(first, last), block[rows[first:last] - start].astype(np.float32)

    def neighbours(self, row: int, most: int = 8) -> list[int]:
        """Cells nearest to a cell in PhenoGraph's graph, the strongest edge first."""
        import h5py

        with h5py.File(self.file, "r") as content:
            if "obsp/connectivities" not in content:
                return []
            graph = content["obsp/connectivities"]
            start, stop = (int(i) for i in graph["indptr"][row : row + 2])
            weights, cells = graph["data"][start:stop], graph["indices"][start:stop]
        order = np.argsort(-weights, kind="stable")[:most]
        return [int(cell) for cell in cells[order]]


def load_cells(file: Path) -> StudyCells:
    """Read what the page needs at once.

    Raises
    ------
    InputError
        If the file is missing or damaged, or clusters, activations or UMAP are not there yet.
    """
    import h5py

    if not file.is_file():
        raise InputError("no such file", file=file, do="Run the study first: maskless run STUDY")
    try:
        with h5py.File(file, "r") as content:
            return _load(file, content)
    except (OSError, KeyError, AttributeError, TypeError) as error:
        raise InputError(
            "this is not a readable AnnData file",
            file=file,
            found=f"{type(error).__name__}: {error}",
            do="Delete it and run the study again",
        ) from error


def _load(file: Path, content: Any) -> StudyCells:
    from anndata.io import read_elem

    for place, what in (
        ("obs/cluster", "clusters"),
        ("obsm/X_umap", "UMAP"),
        ("X", "activations"),
    ):
        if place not in content:
            raise InputError(
                f"the cells have no {what} yet", file=file, do="Run: maskless run STUDY"
            )
    obs = content["obs"]
    clusters = _column(read_elem(obs["cluster"]))
    images = _column(read_elem(obs["image"]))
    yx_n2 = np.column_stack([obs["y"][:], obs["x"][:]]).astype(np.float32)
    clustering = Clustering(clusters.names, clusters.codes_n, images.names, images.codes_n, yx_n2)
    if not len(yx_n2):
        raise InputError("there are no cells to name", file=file)
    var = read_elem(content["var"])
    used = (
        np.flatnonzero(var["used"].to_numpy(dtype=bool))
        if "used" in var
        else np.arange(len(var.index))
    )
    if not len(used):
        raise InputError("no marker is used", file=file)
    matrix = content["X"][:].astype(np.float32, copy=False)
    kinds = var["kind"].astype(str).to_numpy() if "kind" in var else np.full(len(var.index), "")
    above = (
        np.nan_to_num(var["positive_above"].to_numpy(dtype=np.float64)[used])
        if "positive_above" in var
        else np.zeros(len(used))
    )
    columns = {}
    for name in obs:
        if name in ("_index", "cluster", "image", "x", "y", "phenotype", "phenotype_broad"):
            continue
        if obs[name].attrs.get("encoding-type") == "categorical":
            column = _column(read_elem(obs[name]))
            if 1 < len(column.names) <= MOST_CATEGORIES:
                columns[name] = column
    return StudyCells(
        file,
        clustering,
        np.nan_to_num(content["obsm/X_umap"][:, :2]).astype(np.float32),
        np.nan_to_num(matrix[:, used]) if len(used) < matrix.shape[1] else np.nan_to_num(matrix),
        tuple(str(var.index[i]) for i in used),
        above,
        tuple(str(n) for n, kind in zip(var.index, kinds, strict=True) if kind == "nuclear"),
        columns,
    )


def _column(values: Any) -> Column:
    """Codes and names; cells without a value get the name "(none)"."""
    import pandas as pd

    categorical = pd.Categorical(values)
    names = [str(name) for name in categorical.categories]
    codes = np.asarray(categorical.codes, dtype=np.int32)
    if (codes < 0).any():
        codes = np.where(codes < 0, len(names), codes).astype(np.int32)
        names.append("(none)")
    return Column(codes, tuple(names))
