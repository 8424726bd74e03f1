"""UMAP of the cells: by cluster, by image, by any column, by marker."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.report.colors import ACTIVATION_MAP
from maskless.report.groups import Groups, groups_of, marker_values
from maskless.report.style import (
    INK,
    axes_at,
    bare,
    color_bar,
    legend_size,
    new_figure,
    plain,
    styled,
    swatches,
    text_at,
    title_at,
)

if TYPE_CHECKING:
    from anndata import AnnData

Floats = NDArray[np.float64]

MOST_POINTS = 200_000
_MOST_IN_PANELS = 600_000  # points of all panels together
_SIDE = 5.6  # inches
_MOST_LEVELS = 60
_MOST_MIXED = 20  # colours that can still be told apart where they lie mixed


@styled
def umap(
    cells: AnnData, color: str = "cluster", *, title: str | None = None, seed: int = 0
) -> Figure:
    """UMAP of the cells, one point a cell.

    Parameters
    ----------
    cells
        With ``obsm["X_umap"]``; cells without a finite place are left out.
    color
        A column of ``obs`` ("cluster", "image", ...; numbers get a colour scale), or the name of
        a marker. A column goes before a marker of the same name.
    title
        Instead of a plain one.
    seed
        Draws the 200,000 cells shown where there are more, and the order of the points.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        No UMAP, or neither column nor marker has this name.
    """
    shown, points = _points(cells, seed)
    note = _note(len(shown), cells.n_obs)
    if color in cells.obs and _is_category(cells, color):
        heading = title or f"UMAP of cells by {plain(color)}"
        return _by_category(groups_of(cells, color), shown, points, heading, note)
    if color in cells.obs:
        values = cells.obs[color].to_numpy(dtype=np.float64)
        finite = values[np.isfinite(values)]
        limits = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        meaning = plain(color)
    else:
        values = _marker(cells, color)
        limits = _robust(values)
        meaning = f"activation of {plain(color)}\n(darkest: 99th percentile of cells and above)"
    figure = new_figure(_SIDE + 0.4, _SIDE + 1.4)
    title_at(figure, title or f"UMAP of cells by {plain(color)}", note)
    axes = axes_at(figure, 0.2, 0.65, _SIDE, _SIDE)
    _frame(axes, points, _SIDE)
    norm = Normalize(limits[0], max(limits[1], limits[0] + 1e-6))
    _draw_values(axes, points, values[shown], norm, _SIDE)
    color_bar(figure, 0.3, 0.75 + _SIDE, norm, ACTIVATION_MAP, meaning)
    return figure


@styled
def umap_panels(
    cells: AnnData,
    markers: Sequence[str] | None = None,
    *,
    layer: str | None = None,
    seed: int = 0,
) -> Figure:
    """UMAP of the cells once a marker, coloured by its activation.

    Parameters
    ----------
    cells
        With ``obsm["X_umap"]``.
    markers
        Names; all used markers if not given.
    layer
        A layer instead of ``X``.
    seed
        As for :func:`umap`.

    Returns
    -------
    matplotlib.figure.Figure
        Each panel runs from 0 (grey) to the marker's 99th percentile (dark), printed above it.
        Cells with more activation are drawn later, so that rare ones can be seen. There are at
        most 600,000 points in all panels together.
    """
    shown, points = _points(cells, seed)
    values_nm, names = marker_values(cells, layer)
    chosen = list(markers) if markers is not None else list(names)
    if not chosen:
        raise InputError("no marker was named")
    # Small panels show no more, and a point costs the same time in each of them.
    most = max(_MOST_IN_PANELS // len(chosen), 5_000)
    shown, points = shown[:most], points[:most]
    columns = min(max(3, math.ceil(math.sqrt(1.4 * len(chosen)))), 7)
    rows = math.ceil(len(chosen) / columns)
    side = min(2.5, 11.5 / columns)
    pitch = side + 0.34
    figure = new_figure(columns * (side + 0.12) + 0.3, 0.7 + rows * pitch + 0.75)
    what = "activation" if layer is None else plain(layer)
    title_at(figure, f"UMAP of cells by {what} of each marker", _note(len(shown), cells.n_obs))
    for i, name in enumerate(chosen):
        values = values_nm[:, names.index(name)] if name in names else _marker(cells, name, layer)
        low, high = _robust(values)
        left = 0.18 + (i % columns) * (side + 0.12)
        top = 0.92 + (i // columns) * pitch
        axes = axes_at(figure, left, top, side, side)
        _frame(axes, points, side, named=False)
        _draw_values(axes, points, values[shown], Normalize(low, high), side)
        axes.set_title(plain(name, 22 if side > 2 else 14), size=9, loc="left", pad=2)
        axes.set_title(f"0 – {high:.2g}", size=7.5, loc="right", pad=2, color="#55555c")
    color_bar(
        figure,
        0.25,
        0.75 + rows * pitch,
        Normalize(0, 1),
        ACTIVATION_MAP,
        f"{what}, from 0 to the number above each panel (99th percentile of cells)",
        ticks=((0, 1), ("0", "marker's highest")),
    )
    return figure


def _points(cells: AnnData, seed: int) -> tuple[NDArray[np.intp], Floats]:
    """Rows of the cells to draw, in the order of drawing, and their places."""
    if "X_umap" not in cells.obsm:
        raise InputError("these cells have no UMAP", do="Run the umap stage first")
    places = np.asarray(cells.obsm["X_umap"], dtype=np.float64)[:, :2]
    good = np.flatnonzero(np.isfinite(places).all(axis=1))
    # In random order no category lies on top of the others.
    shown = np.random.default_rng(seed).permutation(good)[:MOST_POINTS]
    return shown, places[shown]


def _note(shown: int, total: int) -> str:
    if shown == total:
        return f"{total:,} cells, one point each"
    return f"{shown:,} of {total:,} cells, one point each"


def _is_category(cells: AnnData, column: str) -> bool:
    import pandas as pd

    dtype = cells.obs[column].dtype
    return not pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_bool_dtype(dtype)


def _marker(cells: AnnData, name: str, layer: str | None = None) -> Floats:
    if name not in cells.var_names:
        raise InputError(
            f"there is neither a column nor a marker named {name!r}",
            expected=f"one of {', '.join(map(str, [*cells.obs.columns, *cells.var_names]))}",
        )
    if layer is not None and layer not in cells.layers:
        raise InputError(f"the cells have no layer {layer!r}")
    column = cells[:, [name]].X if layer is None else cells[:, [name]].layers[layer]
    dense = column.toarray() if hasattr(column, "toarray") else column
    return np.asarray(dense, dtype=np.float64).ravel()


def _robust(values: Floats) -> tuple[float, float]:
    """From 0 to the 99th percentile; to the maximum where fewer cells than that are positive."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    high = float(np.quantile(finite, 0.99))
    if high <= 1e-6:
        high = float(finite.max())
    return 0.0, high if high > 1e-6 else 1.0


def point_size(n_points: int, side: float) -> tuple[float, float]:
    """Area (square points) and opacity of points that fill about a third of a square.

    Parameters
    ----------
    n_points
        How many will be drawn.
    side
        Edge of the axes in inches.
    """
    area = 0.33 * (72 * side) ** 2 / max(n_points, 1)
    if side < _SIDE / 2:  # points of small panels must not drown between pixels
        area *= 1.8
    return float(np.clip(area, 0.2, 14)), 0.9 if n_points < 20_000 else 0.7


def _frame(axes: Axes, points: Floats, side: float, *, named: bool = True) -> None:
    """Equal scales, room for all points, no ticks (UMAP's numbers mean nothing)."""
    bare(axes, frame=True)
    for spine in axes.spines.values():
        spine.set_color("#c8c8ce")
    low = points.min(axis=0) if len(points) else np.zeros(2)
    high = points.max(axis=0) if len(points) else np.ones(2)
    half = max(float((high - low).max()) / 2, 1e-3) * 1.04
    centre = (low + high) / 2
    axes.set_xlim(centre[0] - half, centre[0] + half)
    axes.set_ylim(centre[1] - half, centre[1] + half)
    if named:
        axes.set_xlabel("UMAP 1", loc="left", size=8)
        axes.set_ylabel("UMAP 2", loc="bottom", size=8)
    axes.set_box_aspect(1)


def _draw_values(axes: Axes, points: Floats, values: Floats, norm: Normalize, side: float) -> None:
    order = np.argsort(np.nan_to_num(values, nan=-np.inf), kind="stable")
    size, alpha = point_size(len(points), side)
    axes.scatter(
        points[order, 0],
        points[order, 1],
        c=np.nan_to_num(values[order]),
        s=size,
        alpha=alpha,
        cmap=ACTIVATION_MAP,
        norm=norm,
        linewidths=0,
        rasterized=True,
    )


def _by_category(
    groups: Groups, shown: NDArray[np.intp], points: Floats, title: str, note: str
) -> Figure:
    """Points in the colours of their groups; numbered clusters get their number on the spot."""
    groups, more = _few(groups)
    if groups.column != "cluster" and len(groups.names) > _MOST_MIXED:
        return _one_by_one(groups, shown, points, title, note)
    codes = groups.codes_n[shown]
    labels = [plain(label, 26) for label in groups.labels]
    texts = [f"{label}  ({count:,})" for label, count in zip(labels, groups.counts_g, strict=True)]
    most_rows = 32
    width, _ = legend_size(texts, most_rows)
    figure = new_figure(_SIDE + 0.75 + width, _SIDE + 1.1)
    title_at(figure, title, note + (f"; {more}" if more else ""))
    axes = axes_at(figure, 0.35, 0.65, _SIDE, _SIDE)
    _frame(axes, points, _SIDE)
    size, alpha = point_size(len(points), _SIDE)
    colors = groups.colors
    unknown_first = np.argsort(~groups.unknown_g[codes], kind="stable")
    axes.scatter(
        points[unknown_first, 0],
        points[unknown_first, 1],
        c=np.array(colors)[codes[unknown_first]] if len(codes) else None,
        s=size,
        alpha=alpha,
        linewidths=0,
        rasterized=True,
    )
    text_at(figure, _SIDE + 0.6, 0.65, f"{plain(groups.column)} (cells)", size=8.5)
    swatches(figure, _SIDE + 0.6, 0.88, texts, colors, most_rows=most_rows)
    if groups.column != "image":
        _label_groups(axes, groups, codes, points, labels)
    return figure


def _one_by_one(
    groups: Groups, shown: NDArray[np.intp], points: Floats, title: str, note: str
) -> Figure:
    """A small panel for each of many groups that lie mixed: its cells upon all others in grey."""
    columns = min(max(3, math.ceil(math.sqrt(1.4 * len(groups.names)))), 8)
    rows = math.ceil(len(groups.names) / columns)
    side = 11.5 / columns
    pitch = side + 0.3
    figure = new_figure(columns * (side + 0.12) + 0.3, 0.75 + rows * pitch + 0.1)
    title_at(figure, title, f"{note}; in each panel one group upon all in grey")
    codes = groups.codes_n[shown]
    size, _ = point_size(min(len(points), 20_000), side)
    for g, (label, color) in enumerate(zip(groups.labels, groups.colors, strict=True)):
        left = 0.18 + (g % columns) * (side + 0.12)
        axes = axes_at(figure, left, 0.9 + (g // columns) * pitch, side, side)
        _frame(axes, points, side, named=False)
        others = points[:4_000]
        color = INK if groups.unknown_g[g] else color
        own = points[codes == g][:8_000]
        for places, ink in ((others, "#dedee2"), (own, color)):
            axes.scatter(
                places[:, 0], places[:, 1], s=size, color=ink, linewidths=0, rasterized=True
            )
        axes.set_title(plain(label, 20 if side > 1.6 else 15), size=8, loc="left", pad=2)
    return figure


def _few(groups: Groups) -> tuple[Groups, str]:
    """At most 60 levels, the smaller ones thrown together: more colours cannot be told apart."""
    known = np.flatnonzero(~groups.unknown_g)
    if len(known) <= _MOST_LEVELS:
        return groups, ""
    by_size = known[np.argsort(-groups.counts_g[known], kind="stable")]
    kept = np.concatenate([np.sort(by_size[:_MOST_LEVELS]), np.flatnonzero(groups.unknown_g)])
    rest = len(groups.names) - len(kept)
    new = np.full(len(groups.names), len(kept))
    new[kept] = np.arange(len(kept))
    return (
        Groups(
            groups.column,
            (*(groups.names[i] for i in kept), f"{rest} others"),
            new[groups.codes_n],
            np.bincount(new, weights=groups.counts_g).astype(np.intp),
            np.append(groups.unknown_g[kept], True),
            np.append(groups.positions_g[kept], len(groups.names)),
        ),
        f"the {rest} smallest of {len(known)} are grey",
    )


def _label_groups(
    axes: Axes, groups: Groups, codes: NDArray[np.intp], points: Floats, labels: list[str]
) -> None:
    """Print each known group's name at the median of its points, moved apart where they meet."""
    present = [g for g in np.flatnonzero(~groups.unknown_g) if (codes == g).any()]
    if not present:
        return
    medians = np.array([np.median(points[codes == g], axis=0) for g in present])
    texts = [labels[g] for g in present]
    size = 9.0 if max(map(len, texts)) <= 3 else 7.5
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    unit = (right - left) / (72 * _SIDE)
    half = np.array([[0.32 * size * max(len(t), 2), 0.62 * size] for t in texts]) * unit
    low, high = np.array([left, bottom]), np.array([right, top])
    placed = _move_apart(medians, half, low, high)
    for text, (x, y), (home_x, home_y), reach in zip(texts, placed, medians, half, strict=True):
        if np.hypot(x - home_x, y - home_y) > 1.5 * reach[1]:
            axes.plot([x, home_x], [y, home_y], color=INK, linewidth=0.5, alpha=0.7)
        axes.text(
            x,
            y,
            text,
            size=size,
            weight="bold",
            ha="center",
            va="center",
            color=INK,
            path_effects=[withStroke(linewidth=2.2, foreground="white")],
        )


def _move_apart(centres: Floats, half: Floats, low: Floats, high: Floats) -> Floats:
    """Move boxes (centres, half sizes) until they no longer overlap, or 300 times."""
    placed = np.clip(centres, low + half, high - half)
    # A bow of a hair's breadth parts boxes that lie exactly upon each other.
    angles = np.arange(len(placed)) * 2.4
    placed = placed + 0.05 * half.min() * np.column_stack([np.cos(angles), np.sin(angles)])
    reach = half[:, None] + half[None]
    for _ in range(300):
        offset = placed[:, None] - placed[None]
        overlap = reach - np.abs(offset)
        meeting = (overlap > 0).all(axis=2)
        np.fill_diagonal(meeting, False)
        if not meeting.any():
            break
        # Along the axis on which they are parted soonest.
        across = overlap[..., 0] < overlap[..., 1]
        push = np.zeros_like(offset)
        side = np.where(offset >= 0, 1.0, -1.0)
        push[..., 0] = np.where(meeting & across, side[..., 0] * overlap[..., 0], 0)
        push[..., 1] = np.where(meeting & ~across, side[..., 1] * overlap[..., 1], 0)
        placed = np.clip(placed + 0.3 * push.sum(axis=1), low + half, high - half)
    return np.asarray(placed)
