"""Label masks of cells: nuclei grown from seeds, and the rim around them.

Axes: Y = rows, X = columns; N = seeds. NumPy, SciPy and Numba only.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from maskless.cells.difference_of_gaussians import nuclear_response
from maskless.errors import InputError

if TYPE_CHECKING:
    from maskless.config import DetectSettings

Labels = NDArray[np.int32]


def nuclear_masks(
    plane_yx: NDArray[Any],
    um_per_pixel: float,
    centres_xy: NDArray[np.floating[Any]],
    settings: DetectSettings,
) -> Labels:
    """Grow a nucleus around each centre.

    A nucleus ends where the difference of Gaussians, by which the embedded detector finds it,
    falls to 0 (an edge, Marr and Hildreth 1980, doi:10.1098/rspb.1980.0020); touching ones are
    parted by a watershed of that difference.

    Parameters
    ----------
    plane_yx
        Nuclear plane, see :func:`maskless.cells.nuclear_plane`.
    um_per_pixel
        Edge of a pixel.
    centres_xy
        x and y in pixels, shape (N, 2); inside the image.
    settings
        Of the detector: the radius of nuclei.

    Returns
    -------
    labels_yx
        int32, 0 = no nucleus; centre i becomes label i + 1. Each has its own pixel at least, but
        of several centres in one pixel only the first has a label.

    Raises
    ------
    InputError
        If the plane is not finite, or a centre lies outside.
    """
    _, response_yx = nuclear_response(plane_yx, um_per_pixel, settings)
    seeds_yx = seed_labels(centres_xy, response_yx.shape)
    inside_yx = (response_yx > 0) | (seeds_yx > 0)
    return watershed(-response_yx, seeds_yx, inside_yx)


def seed_labels(centres_xy: NDArray[np.floating[Any]], shape_yx: tuple[int, ...]) -> Labels:
    """One labelled pixel a centre; of several centres in one pixel the first.

    Raises
    ------
    InputError
        If a centre lies outside.
    """
    seeds_yx = np.zeros(shape_yx, dtype=np.int32)
    columns, rows = np.floor(np.asarray(centres_xy).reshape(-1, 2).T + 0.5).astype(np.intp)
    outside = (rows < 0) | (columns < 0) | (rows >= shape_yx[0]) | (columns >= shape_yx[1])
    if outside.any():
        raise InputError(
            "the centre of a cell lies outside the image",
            expected=f"x up to {shape_yx[1] - 1}, y up to {shape_yx[0] - 1}",
            found=np.asarray(centres_xy)[outside][0].tolist(),
        )
    # The last one written stays, so the first comes last.
    seeds_yx[rows[::-1], columns[::-1]] = np.arange(len(rows), 0, -1)
    return seeds_yx


def watershed(
    heights_yx: NDArray[np.floating[Any]], seeds_yx: Labels, inside_yx: NDArray[np.bool_]
) -> Labels:
    """Flood a landscape from seeds, lowest pixels first (Meyer 1991).

    Parameters
    ----------
    heights_yx
        The landscape, finite.
    seeds_yx
        Labels above 0 where floods begin.
    inside_yx
        Where water may flow; seeds lie inside.

    Returns
    -------
    labels_yx
        The flood that reached each pixel first, over the edges of pixels; 0 where none did. Equal
        to ``skimage.segmentation.watershed(heights, seeds, mask=inside)``.
    """
    labels_yx = np.where(inside_yx, seeds_yx, 0).astype(np.int32)
    _flood(np.ascontiguousarray(heights_yx, np.float64), labels_yx, np.asarray(inside_yx))
    return labels_yx


def expand_labels(labels_yx: Labels, distance_px: float) -> Labels:
    """Give each pixel that lies within a distance of a label to the nearest one.

    As ``skimage.segmentation.expand_labels``: labels do not overlap, and none shrinks.

    Parameters
    ----------
    labels_yx
        0 = none.
    distance_px
        Largest distance from a pixel of the label; 0 changes nothing.
    """
    if not labels_yx.any() or distance_px <= 0:
        return labels_yx.copy()
    distance_yx, nearest = ndimage.distance_transform_edt(labels_yx == 0, return_indices=True)
    return np.where(distance_yx <= distance_px, labels_yx[tuple(nearest)], 0).astype(np.int32)


@njit(cache=True)  # type: ignore[untyped-decorator,unused-ignore]
def _flood(
    heights_yx: NDArray[np.float64], labels_yx: NDArray[np.int32], inside_yx: NDArray[np.bool_]
) -> None:
    rows, columns = heights_yx.shape
    heap = [(0.0, 0, 0)]  # height, age, pixel; typed by its first entry
    heap.clear()
    age = 0
    for i in range(rows):
        for j in range(columns):
            if labels_yx[i, j] > 0:
                heappush(heap, (heights_yx[i, j], 0, i * columns + j))
    while len(heap) > 0:
        _, _, pixel = heappop(heap)
        i, j = pixel // columns, pixel % columns
        for step in range(4):
            y = i + (-1, 0, 0, 1)[step]
            x = j + (0, -1, 1, 0)[step]
            if 0 <= y < rows and 0 <= x < columns and inside_yx[y, x] and labels_yx[y, x] == 0:
                labels_yx[y, x] = labels_yx[i, j]
                age += 1
                heappush(heap, (heights_yx[y, x], age, y * columns + x))
