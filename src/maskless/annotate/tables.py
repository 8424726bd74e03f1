"""Numbers behind the page's heat map: means, positive cells and trees of groups by markers.

n = cells, g = groups, m = markers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskless.report.groups import scale_means

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GroupTable:
    """Groups by markers.

    Attributes
    ----------
    counts_g
        Cells.
    means_gm, positive_gm
        Mean activation, and share of cells above the marker's threshold; 0 in empty groups.
    images_gi
        Cells of each group in each image.
    """

    counts_g: NDArray[np.int64]
    means_gm: Floats
    positive_gm: Floats
    images_gi: NDArray[np.int64]


def group_table(
    codes_n: NDArray[np.integer[Any]],
    groups: int,
    activations_nm: NDArray[np.float32],
    positive_above_m: Floats,
    images_n: NDArray[np.integer[Any]],
    images: int,
) -> GroupTable:
    """Sum up cells by group.

    Parameters
    ----------
    codes_n, groups
        For each cell the position of its group, and how many groups there are.
    activations_nm, positive_above_m
        Of the cells, and above which a cell is positive.
    images_n, images
        For each cell the position of its image, and how many there are.
    """
    counts = np.bincount(codes_n, minlength=groups)
    size = np.maximum(counts, 1)[:, None]
    markers = activations_nm.shape[1]
    means, positive = np.zeros((groups, markers)), np.zeros((groups, markers))
    for m in range(markers):
        column = np.ascontiguousarray(activations_nm[:, m])
        means[:, m] = np.bincount(codes_n, weights=column, minlength=groups)
        positive[:, m] = np.bincount(codes_n[column > positive_above_m[m]], minlength=groups)
    pairs = np.bincount(codes_n.astype(np.int64) * images + images_n, minlength=groups * images)
    return GroupTable(
        counts.astype(np.int64), means / size, positive / size, pairs.reshape(groups, images)
    )


def as_json(
    table: GroupTable, names: Sequence[str], unknown_g: NDArray[np.bool_], markers: Sequence[str]
) -> dict[str, Any]:
    """The groups that have cells, on three scales, with the order of two trees.

    Parameters
    ----------
    table, names
        Groups.
    unknown_g
        Groups that are no real ones: they set no scale and stand last.
    markers
        Names of the columns.
    """
    there = np.flatnonzero(table.counts_g > 0)
    known = ~unknown_g[there]
    means = table.means_gm[there]
    z = scale_means(means, known, "z")
    rows, row_tree = _order(z[known])
    columns, column_tree = _order(z[known].T if known.sum() > 1 else np.zeros((0, 0)))
    order = [*np.flatnonzero(known)[rows].tolist(), *np.flatnonzero(~known).tolist()]
    return {
        "ids": [names[int(i)] for i in there],
        "markers": list(markers),
        "counts": table.counts_g[there].tolist(),
        "raw": _rounded(means),
        "z": _rounded(z),
        "0-1": _rounded(scale_means(means, known, "0-1")),
        "positive": _rounded(table.positive_gm[there]),
        "images": table.images_gi[there].tolist(),
        "rows": order,
        "columns": columns if columns else list(range(len(markers))),
        "row_tree": row_tree,
        "column_tree": column_tree,
    }


def _order(points: Floats) -> tuple[list[int], list[list[list[float]]]]:
    """Order of leaves, and the tree's brackets as (position, height) corners."""
    from scipy.cluster.hierarchy import dendrogram, linkage

    if len(points) < 2:
        return list(range(len(points))), []
    links = linkage(np.nan_to_num(points), method="average", optimal_ordering=True)
    tree = dendrogram(links, no_plot=True)
    highest = max(float(links[:, 2].max()), 1e-12)
    brackets = [
        [[round((x - 5) / 10, 3), round(y / highest, 4)] for x, y in zip(xs, ys, strict=True)]
        for xs, ys in zip(tree["icoord"], tree["dcoord"], strict=True)
    ]
    return [int(i) for i in tree["leaves"]], brackets


def _rounded(values: Floats) -> list[list[float]]:
    return [[round(float(v), 4) for v in row] for row in np.nan_to_num(values)]
