"""Maps of the tissue: markers as they look, cells as sorted, nuclei as found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.images.image import Image, Panel
from maskless.report.colors import composite
from maskless.report.groups import groups_of
from maskless.report.pixels import (
    chosen_markers,
    composite_colors,
    contrast_limits,
    legend_texts,
    planes_of,
    shrink,
)
from maskless.report.style import (
    DPI,
    axes_at,
    bare,
    legend_size,
    new_figure,
    plain,
    scale_bar,
    styled,
    swatches,
    text_at,
    title_at,
)

if TYPE_CHECKING:
    from anndata import AnnData

_WIDEST, _TALLEST = 4.6, 5.8  # inches, of one panel
_CELL_UM = 6.5


@styled
def tissue(
    cells: AnnData,
    image: Image,
    color: str = "cluster",
    markers: Sequence[str] = (),
    *,
    limits_m2: NDArray[np.float64] | None = None,
) -> Figure:
    """An image's markers beside its cells coloured by cluster.

    Parameters
    ----------
    cells
        Of the whole cohort; those of this image are drawn, as discs of 6.5 um.
    image
        Cleaned.
    color
        Column of ``obs`` with categories.
    markers
        Up to six channels; the most telling ones and a nuclear one if empty.
    limits_m2
        Intensities that are black and full colour, a pair a marker; from this image if not given.

    Returns
    -------
    matplotlib.figure.Figure
        y points downwards, as in the image.

    Raises
    ------
    InputError
        Unknown column or marker.
    """
    chosen = chosen_markers(cells, markers, color)
    limits = contrast_limits([image], chosen) if limits_m2 is None else limits_m2
    groups = groups_of(cells, color)
    here = _rows_of(cells, image)
    yx = cells.obs[["y", "x"]].to_numpy(dtype=np.float64)[here]
    codes = groups.codes_n[here]
    colors = composite_colors(cells, chosen)
    present = np.bincount(codes, minlength=len(groups.names))
    shown = np.flatnonzero(present)
    texts = [f"{plain(groups.labels[g], 24)}  ({present[g]:,})" for g in shown]
    marker_texts = legend_texts(chosen, limits)

    planes, factor = shrink(planes_of(image, chosen))
    width, height = _panel_size(image)
    most_rows = max(int((height - 0.25) / 0.165), 16)
    legend_width, legend_rows = legend_size(texts, most_rows)
    columns = max(1, int(width / (legend_size(marker_texts, len(marker_texts))[0] or 1)))
    marker_rows = -(-len(marker_texts) // columns)
    bottom = max(0.95 + height + 0.12 + marker_rows * 0.165, 1.2 + legend_rows * 0.165)
    figure = new_figure(0.15 + 2 * (width + 0.15) + 0.15 + max(legend_width, 1.2), bottom + 0.15)
    title_at(figure, f"Tissue: {plain(image.name, 60)}", f"{len(here):,} cells")
    text_at(figure, 0.15, 0.68, "markers (intensities from black to full colour)", size=8.5)
    left_axes = axes_at(figure, 0.15, 0.9, width, height)
    left_axes.imshow(
        composite(planes, colors, limits),
        extent=_extent(image, factor),
        interpolation=_interpolation(planes),
    )
    _finish(left_axes, image, "white")
    swatches(figure, 0.15, 0.9 + height + 0.1, marker_texts, colors, most_rows=max(marker_rows, 1))

    second = 0.3 + width
    text_at(figure, second, 0.68, f"cells by {plain(color)}", size=8.5)
    right_axes = axes_at(figure, second, 0.9, width, height)
    group_colors = groups.colors
    _discs(right_axes, yx, [group_colors[c] for c in codes], _CELL_UM / image.um_per_pixel)
    _finish(right_axes, image, "black")
    legend_left = second + width + 0.15
    text_at(figure, legend_left, 0.9, f"{plain(color)} (cells here)", size=8.5)
    swatches(
        figure,
        legend_left,
        1.12,
        texts,
        [group_colors[g] for g in shown],
        most_rows=most_rows,
    )
    return figure


@styled
def detection_overlay(
    cells: AnnData, image: Image, panel: Panel, *, window_um: float = 120.0
) -> Figure:
    """The nuclear signal with the centres that were found, whole and close up.

    Parameters
    ----------
    cells
        Of the whole cohort; those of this image are drawn.
    image
        Cleaned.
    panel
        Says which channels are nuclear; their mean is shown.
    window_um
        Edge of the part that is shown close up, where cells lie densest.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If no channel of the panel is nuclear.
    """
    if not panel.nuclear:
        raise InputError(
            "no channel is marked as nuclear", do="Mark one as nuclear in the panel or settings"
        )
    plane = planes_of(image, panel.nuclear).mean(axis=0, keepdims=True)
    rows, columns = plane.shape[1:]
    low, high = np.percentile(plane, [1, 99.7])
    limits = np.array([[low, max(high, low + 0.1)]])
    here = _rows_of(cells, image)
    yx = cells.obs[["y", "x"]].to_numpy(dtype=np.float64)[here]
    width, height = _panel_size(image)
    close = min(width, height) if height <= width else width
    tall = max(height, close)
    nuclear = ", ".join(plain(name, 16) for name in panel.nuclear[:4])
    figure = new_figure(0.15 + width + 0.2 + close + 0.15, 0.95 + tall + 0.4)
    title_at(
        figure,
        f"Nuclei found: {plain(image.name, 60)}",
        f"{len(here):,} centres on the mean of {nuclear}",
    )
    small, factor = shrink(plane)
    axes = axes_at(figure, 0.15, 0.68, width, height)
    axes.imshow(
        composite(small, ["#ffffff"], limits),
        extent=_extent(image, factor),
        interpolation=_interpolation(small),
    )
    size = float(np.clip(2.0 * (72 * width) ** 2 / max(len(here), 1) / 60, 0.4, 6))
    axes.scatter(yx[:, 1], yx[:, 0], s=size, color="#ff8c00", linewidths=0, rasterized=True)
    _finish(axes, image, "white")

    edge = min(window_um / image.um_per_pixel, rows, columns)
    top, left = _densest(yx, edge, rows, columns)
    axes.add_patch(Rectangle((left, top), edge, edge, fill=False, edgecolor="#00d8ff", linewidth=1))
    second = axes_at(figure, 0.15 + width + 0.2, 0.68, close, close)
    second.imshow(
        composite(plane, ["#ffffff"], limits), extent=_extent(image, 1), interpolation="none"
    )
    inside = (
        (yx[:, 0] >= top)
        & (yx[:, 0] <= top + edge)
        & (yx[:, 1] >= left)
        & (yx[:, 1] <= left + edge)
    )
    second.scatter(
        yx[inside, 1],
        yx[inside, 0],
        s=16,
        facecolors="none",
        edgecolors="#ff8c00",
        linewidths=1.0,
    )
    second.set_xlim(left, left + edge)
    second.set_ylim(top + edge, top)
    bare(second, frame=True)
    for spine in second.spines.values():
        spine.set(color="#00d8ff", linewidth=1.5)
    scale_bar(second, image.um_per_pixel)
    text_at(
        figure,
        0.15,
        0.68 + tall + 0.1,
        "right: the part in the frame, close up; each orange ring is a centre",
        size=8.5,
    )
    return figure


def _rows_of(cells: AnnData, image: Image) -> NDArray[np.intp]:
    return np.flatnonzero(cells.obs["image"].astype(str).to_numpy() == image.name)


def _panel_size(image: Image) -> tuple[float, float]:
    rows, columns = image.pixels_cyx.shape[1:]
    scale = min(_WIDEST / max(columns, 1), _TALLEST / max(rows, 1))
    return max(columns * scale, 0.8), max(rows * scale, 0.8)


def _interpolation(planes_cyx: NDArray[np.float32]) -> str:
    """Pixels as they are where they are drawn larger (small SVG files), else averaged."""
    return "none" if max(planes_cyx.shape[1:]) <= 0.9 * _WIDEST * DPI else "antialiased"


def _extent(image: Image, factor: int) -> tuple[float, float, float, float]:
    """Left, right, bottom, top of the drawn pixels; pixel centres are at whole numbers."""
    rows, columns = image.pixels_cyx.shape[1:]
    return (
        -0.5,
        columns // factor * factor - 0.5,
        rows // factor * factor - 0.5,
        -0.5,
    )


def _finish(axes: Axes, image: Image, color: str) -> None:
    rows, columns = image.pixels_cyx.shape[1:]
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_aspect("equal", anchor="NW")
    bare(axes, frame=color == "black")
    scale_bar(axes, image.um_per_pixel, color)


def _discs(axes: Axes, yx: NDArray[np.float64], colors: Sequence[str], diameter_px: float) -> None:
    sizes = np.full(len(yx), diameter_px)
    axes.add_collection(
        EllipseCollection(
            sizes,
            sizes,
            np.zeros(len(yx)),
            units="xy",
            offsets=yx[:, ::-1],
            offset_transform=axes.transData,
            facecolors=list(colors) or "none",
            linewidths=0,
            rasterized=True,
        )
    )


def _densest(yx: NDArray[np.float64], edge: float, rows: int, columns: int) -> tuple[float, float]:
    """Top and left of the square with most centres, on a grid of half squares."""
    tops = np.unique(np.append(np.arange(0, max(rows - edge, 0), edge / 2), rows - edge))
    lefts = np.unique(np.append(np.arange(0, max(columns - edge, 0), edge / 2), columns - edge))
    best, place = -1, (0.0, 0.0)
    for top in tops:
        row = yx[(yx[:, 0] >= top) & (yx[:, 0] < top + edge), 1]
        for left in lefts:
            count = int(((row >= left) & (row < left + edge)).sum())
            if count > best:
                best, place = count, (float(top), float(left))
    return place[0] - 0.5, place[1] - 0.5
