"""Masks as outlines on the nuclear signal."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.images.image import Image, Panel
from maskless.report.colors import composite
from maskless.report.pixels import planes_of
from maskless.report.style import (
    axes_at,
    bare,
    new_figure,
    plain,
    scale_bar,
    styled,
    text_at,
    title_at,
)

_WIDEST = 4.6  # inches, of one panel
_OUTLINE, _FRAME = "#ff8c00", "#00d8ff"


@styled
def mask_overlay(
    labels_yx: NDArray[Any], image: Image, panel: Panel, *, window_um: float = 100.0
) -> Figure:
    """Outlines of masks on the nuclear signal, whole and close up.

    Parameters
    ----------
    labels_yx
        Whole numbers, 0 = none, of the image's size.
    image
        Cleaned.
    panel
        Says which channels are nuclear; their mean is shown.
    window_um
        Edge of the part that is shown close up, where masks are most.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        If no channel of the panel is nuclear, or the masks do not have the image's size.
    """
    if not panel.nuclear:
        raise InputError(
            "no channel is marked as nuclear", do="Mark one as nuclear in the panel or settings"
        )
    if labels_yx.shape != image.pixels_cyx.shape[1:]:
        raise InputError(
            "the masks do not have the size of the image",
            image=image.name,
            expected=image.pixels_cyx.shape[1:],
            found=labels_yx.shape,
        )
    plane = planes_of(image, panel.nuclear).mean(axis=0, keepdims=True)
    low, high = np.percentile(plane, [1, 99.7])
    picture = composite(plane, ["#ffffff"], np.array([[low, max(high, low + 0.1)]]))
    rows, columns = labels_yx.shape
    scale = _WIDEST / max(rows, columns)
    width, height = max(columns * scale, 0.8), max(rows * scale, 0.8)
    edge = max(int(min(window_um / image.um_per_pixel, rows, columns)), 1)
    top, left = _fullest(labels_yx, edge)
    figure = new_figure(0.15 + width + 0.2 + _WIDEST + 0.15, 0.68 + max(height, _WIDEST) + 0.4)
    count = len(np.unique(labels_yx[labels_yx > 0]))
    nuclear = ", ".join(plain(name, 16) for name in panel.nuclear[:4])
    title_at(
        figure,
        f"Masks of the segmentation benchmark: {plain(image.name, 50)}",
        f"{count:,} masks on the mean of {nuclear}; right: the part in the frame, close up",
    )
    whole = axes_at(figure, 0.15, 0.68, width, height)
    close = axes_at(figure, 0.15 + width + 0.2, 0.68, _WIDEST, _WIDEST)
    window = labels_yx[top : top + edge, left : left + edge]
    for axes, shown_yx, corner_xy, thickness in (
        (whole, labels_yx, (0, 0), 0.25),
        (close, window, (left, top), 0.9),
    ):
        axes.imshow(picture, interpolation="none")
        ends = list(outlines(shown_yx) + np.array(corner_xy))
        lines = LineCollection(ends, colors=_OUTLINE, linewidths=thickness)
        lines.set_rasterized(axes is whole)
        axes.add_collection(lines)
    whole.add_patch(
        Rectangle((left - 0.5, top - 0.5), edge, edge, fill=False, edgecolor=_FRAME, linewidth=1)
    )
    bare(whole)
    scale_bar(whole, image.um_per_pixel)
    close.set_xlim(left - 0.5, left + edge - 0.5)
    close.set_ylim(top + edge - 0.5, top - 0.5)
    bare(close, frame=True)
    for spine in close.spines.values():
        spine.set(color=_FRAME, linewidth=1.5)
    scale_bar(close, image.um_per_pixel)
    text_at(
        figure,
        0.15,
        0.68 + max(height, _WIDEST) + 0.1,
        "each mask is measured as a whole: what neighbours shed into it counts as its own",
        size=8.5,
    )
    return figure


def outlines(labels_yx: NDArray[Any]) -> NDArray[np.float64]:
    """Edges of pixels that part two labels, shape (edges, 2 ends, 2): x, y."""
    ends = []
    for axis in (0, 1):
        pixel = np.argwhere(np.diff(labels_yx, axis=axis) != 0).astype(np.float64)
        # The edge lies half a pixel further along the axis, and is one pixel long across it.
        along = np.eye(2)[axis] / 2
        across = np.eye(2)[1 - axis] / 2
        ends.append(np.stack([pixel + along - across, pixel + along + across], axis=1))
    return np.concatenate(ends)[:, :, ::-1]


def _fullest(labels_yx: NDArray[Any], edge: int) -> tuple[int, int]:
    """Top and left of the square with most masks, on a grid of half squares."""
    rows, columns = labels_yx.shape
    tops = [*range(0, rows - edge, max(edge // 2, 1)), rows - edge]
    lefts = [*range(0, columns - edge, max(edge // 2, 1)), columns - edge]
    counts = {
        (top, left): len(np.unique(labels_yx[top : top + edge, left : left + edge]))
        for top in tops
        for left in lefts
    }
    return max(counts, key=lambda place: counts[place])
