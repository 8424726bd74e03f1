"""Clusters by markers: the heat map of the paper, and its bubble form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.report.colors import ACTIVATION_MAP
from maskless.report.groups import (
    Groups,
    Values,
    group_means,
    groups_of,
    marker_values,
    positive_above,
    scale_means,
)
from maskless.report.style import (
    INK,
    axes_at,
    bare,
    color_bar,
    new_figure,
    plain,
    styled,
    title_at,
    widest,
)

if TYPE_CHECKING:
    from anndata import AnnData

Floats = NDArray[np.float64]

_TITLES = {
    "z": "z-score",
    "0-1": "0 to 1 for each marker",
    "raw": "as measured",
}
_TREE, _TOP, _GAP = 0.65, 0.66, 0.06
_COUNTS = 0.7
_LABEL_SIZE = 8.0


@dataclass(frozen=True)
class _Order:
    """Rows and columns as they are shown, with their trees (None where there is none)."""

    rows: list[int]
    columns: list[int]
    row_tree: dict[str, Any] | None
    column_tree: dict[str, Any] | None


@dataclass(frozen=True)
class _Grid:
    """Axes of the map and what stands around it."""

    figure: Figure
    axes: Axes
    below: float  # inches from the top to where legends start
    left: float


@styled
def heatmap(
    cells: AnnData,
    values: Values = "z",
    groupby: str = "cluster",
    layer: str | None = None,
) -> Figure:
    """Mean activation of each used marker in each cluster.

    Parameters
    ----------
    cells
        One row a cell; activations in ``X``.
    values
        ``"z"``: standard deviations from the marker's mean over clusters; ``"0-1"``: from the
        marker's lowest to its highest cluster; ``"raw"``: the mean itself.
    groupby
        Column of ``obs``; "-1" is shown last as "unknown" and sets no scale.
    layer
        A layer instead of ``X``, such as ``"disc_mean"``.

    Returns
    -------
    matplotlib.figure.Figure
        Rows and columns in the order of two trees (average linkage of the z-scores, optimal leaf
        order), which is the same for all three `values`.

    Raises
    ------
    InputError
        No such column or layer, no used marker, no cells.
    """
    groups, means, markers = _means(cells, groupby, layer)
    known = ~groups.unknown_g
    shown = scale_means(means, known, values)
    order = _order(scale_means(means, known, "z"), known)
    what = "activation" if layer is None else plain(layer)
    grid = _grid(
        groups,
        markers,
        order,
        f"Mean {what} of each marker in each {plain(groupby)} ({_TITLES[values]})",
    )
    norm, cmap, label, extend = _scale(shown, values, what, plain(groupby))
    grid.axes.pcolormesh(
        np.ma.masked_invalid(shown[np.ix_(order.rows, order.columns)]),
        norm=norm,
        cmap=cmap.with_extremes(bad="#bbbbbb"),
        edgecolors="white",
        linewidth=0.4,
    )
    if groups.unknown_g.any() and known.any():
        grid.axes.axhline(int(known.sum()), color="white", linewidth=3)
    color_bar(grid.figure, grid.left, grid.below, norm, cmap, label, extend=extend)
    return grid.figure


@styled
def bubble(cells: AnnData, groupby: str = "cluster", layer: str | None = None) -> Figure:
    """Heat map of bubbles: colour = mean of a marker, size = share of positive cells.

    Parameters
    ----------
    cells
        One row a cell. A cell is positive where its activation lies above
        ``var["positive_above"]`` (0 where there is no such column).
    groupby, layer
        As for :func:`heatmap`; the layer sets the colours, ``X`` the sizes.

    Returns
    -------
    matplotlib.figure.Figure
    """
    groups, means, markers = _means(cells, groupby, layer)
    known = ~groups.unknown_g
    shown = scale_means(means, known, "0-1")
    activations_nm, _ = marker_values(cells)
    share = group_means((activations_nm > positive_above(cells)).astype(np.float64), groups)
    order = _order(scale_means(means, known, "z"), known)
    grid = _grid(
        groups, markers, order, f"Mean and share of positive cells of each {plain(groupby)}"
    )
    cmap, norm = ACTIVATION_MAP, Normalize(0, 1)
    box = grid.axes.get_position()
    across, down = grid.figure.get_size_inches()
    pitch = 72 * min(box.width * across / len(order.columns), box.height * down / len(order.rows))
    full = (0.98 * pitch) ** 2
    rows, columns = np.meshgrid(
        np.arange(len(order.rows)), np.arange(len(order.columns)), indexing="ij"
    )
    picked = np.ix_(order.rows, order.columns)
    grid.axes.scatter(
        columns + 0.5,
        rows + 0.5,
        s=full * share[picked],
        c=np.nan_to_num(shown[picked]),
        cmap=cmap,
        norm=norm,
        linewidths=0.25,
        edgecolors="#666666",
        clip_on=False,
        zorder=3,
    )
    grid.axes.set_xticks(np.arange(len(order.columns) + 1), minor=True)
    grid.axes.set_yticks(np.arange(len(order.rows) + 1), minor=True)
    grid.axes.grid(which="minor", color="#ececef", linewidth=0.6)
    grid.axes.tick_params(which="minor", length=0)
    color_bar(
        grid.figure,
        grid.left,
        grid.below,
        norm,
        cmap,
        f"mean activation, from the marker's\nlowest to its highest {plain(groupby)}",
    )
    _bubble_legend(grid, full)
    return grid.figure


def _bubble_legend(grid: _Grid, full: float) -> None:
    left, step = grid.left + 2.6, 0.46
    axes = axes_at(grid.figure, left, grid.below - 0.16, 4 * step, 0.36)
    axes.set_xlim(0, 4)
    axes.set_ylim(0, 1)
    axes.axis("off")
    shares = (0.25, 0.5, 0.75, 1.0)
    axes.scatter(
        np.arange(4) + 0.5,
        np.full(4, 0.55),
        s=full * np.array(shares),
        color="white",
        edgecolors="#444444",
        linewidths=0.7,
        clip_on=False,
    )
    for i, share in enumerate(shares):
        grid.figure.text(
            *_fraction(grid.figure, left + (i + 0.5) * step, grid.below + 0.2),
            f"{share:.0%}",
            size=7.5,
            ha="center",
            va="top",
        )
    grid.figure.text(
        *_fraction(grid.figure, left + 0.1, grid.below + 0.38),
        "share of positive cells",
        size=8,
        va="top",
    )


def _fraction(figure: Figure, left: float, top: float) -> tuple[float, float]:
    across, down = figure.get_size_inches()
    return left / across, 1 - top / down


def _means(
    cells: AnnData, groupby: str, layer: str | None
) -> tuple[Groups, Floats, tuple[str, ...]]:
    groups = groups_of(cells, groupby)
    if not groups.names:
        raise InputError("there are no cells to draw")
    values_nm, markers = marker_values(cells, layer)
    return groups, group_means(values_nm, groups), markers


def _order(z_gm: Floats, known_g: NDArray[np.bool_]) -> _Order:
    z = np.nan_to_num(z_gm)
    known, unknown = np.flatnonzero(known_g), np.flatnonzero(~known_g)
    row_tree = _tree(z[known])
    column_tree = _tree(z[known].T if len(known) > 1 else np.zeros((1, 1)))
    rows = known if row_tree is None else known[row_tree["leaves"]]
    columns = range(z.shape[1]) if column_tree is None else column_tree["leaves"]
    return _Order([*rows.tolist(), *unknown.tolist()], list(columns), row_tree, column_tree)


def _tree(points: Floats) -> dict[str, Any] | None:
    from scipy.cluster.hierarchy import dendrogram, linkage

    if len(points) < 2:
        return None
    links = linkage(points, method="average", metric="euclidean", optimal_ordering=True)
    tree: dict[str, Any] = dendrogram(links, no_plot=True)
    return tree


def _grid(groups: Groups, markers: tuple[str, ...], order: _Order, title: str) -> _Grid:
    """Figure with trees, labels, colour strip and counts around empty axes for the map."""
    n_rows, n_columns = len(order.rows), len(order.columns)
    cell_height = float(np.clip(7.5 / n_rows, 0.155, 0.3))
    cell_width = float(np.clip(8 / n_columns, 0.17, 0.34))
    width, height = n_columns * cell_width, n_rows * cell_height
    labels = [plain(groups.labels[i]) for i in order.rows]
    names = [plain(markers[i], 24) for i in order.columns]
    counts = [f"{groups.counts_g[i]:,}" for i in order.rows]
    label_width = widest(labels, _LABEL_SIZE) + 0.12
    left = 0.15 + (_TREE if order.row_tree else 0) + label_width + 0.2
    name_height = widest(names, _LABEL_SIZE) + 0.15
    top = _TOP + (_TREE if order.column_tree else 0)
    below = top + height + name_height + 0.25
    across = left + width + _GAP + _COUNTS + widest(counts, 7.5) + 0.25
    figure = new_figure(max(across, left + 4.4, 6.8), below + 0.8)
    n_known = int((~groups.unknown_g).sum())
    subtitle = (
        f"{n_known} {'cluster' if groups.column == 'cluster' else 'group'}"
        f"{'' if n_known == 1 else 's'}, {n_columns} "
        f"marker{'' if n_columns == 1 else 's'}, {groups.counts_g.sum():,} cells"
    )
    title_at(figure, title, subtitle)

    axes = axes_at(figure, left, top, width, height)
    axes.set_xlim(0, n_columns)
    axes.set_ylim(n_rows, 0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xticks(np.arange(n_columns) + 0.5, labels=names, rotation=90, size=_LABEL_SIZE)
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0, pad=3)

    strip = axes_at(figure, left - 0.17, top, 0.12, height)
    strip.set_xlim(0, 1)
    strip.set_ylim(n_rows, 0)
    colors = groups.colors
    strip.barh(
        np.arange(n_rows) + 0.5,
        1,
        height=1,
        color=[colors[i] for i in order.rows],
        edgecolor="white",
        linewidth=0.4,
    )
    bare(strip)
    strip.set_yticks(np.arange(n_rows) + 0.5, labels=labels, size=_LABEL_SIZE)
    strip.tick_params(axis="y", length=0, pad=3)

    bars = axes_at(figure, left + width + _GAP, top, _COUNTS, height)
    sizes = groups.counts_g[order.rows]
    bars.barh(np.arange(n_rows) + 0.5, sizes, height=0.72, color="#9a9aa2", linewidth=0)
    bars.set_ylim(n_rows, 0)
    bars.set_xlim(0, sizes.max())
    bare(bars)
    bars.set_title("cells", size=8, loc="left", pad=3)
    for row, (size, text) in enumerate(zip(sizes, counts, strict=True)):
        bars.annotate(
            text,
            (size, row + 0.5),
            xytext=(2, 0),
            textcoords="offset points",
            size=7.5,
            va="center_baseline",
            annotation_clip=False,
        )

    if order.row_tree:
        known = len(order.row_tree["leaves"])
        tree = axes_at(figure, 0.15, top, _TREE - 0.05, known * cell_height)
        _draw_tree(tree, order.row_tree, known, sideways=True)
    if order.column_tree:
        tree = axes_at(figure, left, _TOP, width, _TREE - 0.05)
        _draw_tree(tree, order.column_tree, n_columns, sideways=False)
    return _Grid(figure, axes, below, left)


def _draw_tree(axes: Axes, tree: dict[str, Any], leaves: int, *, sideways: bool) -> None:
    # SciPy places leaf i at 10 i + 5.
    along = np.array(tree["icoord"]) / 10
    height = np.array(tree["dcoord"])
    lines = np.stack([height, along] if sideways else [along, height], axis=-1)
    axes.add_collection(LineCollection(list(lines), colors=INK, linewidths=0.6))
    top = max(float(height.max()), 1e-9) * 1.03
    if sideways:
        axes.set_xlim(top, 0)
        axes.set_ylim(leaves, 0)
    else:
        axes.set_xlim(0, leaves)
        axes.set_ylim(0, top)
    bare(axes)


def _scale(
    shown: Floats, values: Values, what: str, group: str
) -> tuple[Normalize, Colormap, str, Any]:
    """Limits, colour map, meaning and arrows of the colour bar."""
    finite = shown[np.isfinite(shown)]
    largest = float(np.abs(finite).max()) if finite.size else 1.0
    if values == "z":
        limit = min(max(largest, 0.5), 3.0)
        label = f"mean {what}, in standard deviations from\nthe marker's mean over all {group}s"
        extend = "both" if largest > limit else "neither"
        return Normalize(-limit, limit), matplotlib.colormaps["RdBu_r"], label, extend
    cmap = matplotlib.colormaps["viridis"]
    if values == "0-1":
        label = f"mean {what}, from the marker's\nlowest (0) to its highest (1) {group}"
        return Normalize(0, 1), cmap, label, "neither"
    low = min(float(finite.min()), 0.0) if finite.size else 0.0
    high = max(float(finite.max()), low + 1e-6) if finite.size else 1.0
    meaning = "\n0 = no more than background" if what == "activation" else ""
    return Normalize(low, high), cmap, f"mean {what}{meaning}", "neither"
