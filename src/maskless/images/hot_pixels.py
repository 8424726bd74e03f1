"""Single pixels far above all their neighbours: detector artefacts, not biology.

Axes: C = channels, Y = rows, X = columns.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", bound=np.generic)


def remove_hot_pixels(
    pixels_cyx: NDArray[Number], threshold: float = 50.0
) -> tuple[NDArray[Number], NDArray[np.int64]]:
    """Lower each pixel that exceeds all its 8 neighbours by more than `threshold`.

    Such a pixel becomes the maximum of its neighbours (at a border: of those that exist). Every
    pixel is judged by the pixels as they came in, so two hot pixels side by side shield each other.

    Parameters
    ----------
    pixels_cyx
        Shape (channels, rows, columns), any number type, finite.
    threshold
        In the units of the pixels (counts).

    Returns
    -------
    cleaned_cyx
        A copy, same type.
    changed
        How many pixels of each channel were lowered, shape (channels,).

    Notes
    -----
    The filter of steinbock (Windhager et al. 2023, doi:10.1038/s41596-023-00881-0).
    """
    cleaned_cyx = pixels_cyx.copy()
    changed = np.zeros(len(pixels_cyx), dtype=np.int64)
    if pixels_cyx.shape[1] * pixels_cyx.shape[2] < 2:
        return cleaned_cyx, changed  # a lone pixel has no neighbours to be judged by
    for channel, plane_yx in enumerate(pixels_cyx):
        highest_yx = neighbour_maximum(plane_yx)
        hot = np.nonzero(plane_yx > highest_yx)
        # float64 holds the difference of any two counts; unsigned numbers would wrap around
        excess = plane_yx[hot].astype(np.float64) - highest_yx[hot].astype(np.float64)
        rows, columns = hot[0][excess > threshold], hot[1][excess > threshold]
        cleaned_cyx[channel, rows, columns] = highest_yx[rows, columns]
        changed[channel] = len(rows)
    return cleaned_cyx, changed


def neighbour_maximum(plane_yx: NDArray[Number]) -> NDArray[Number]:
    """Largest of the up to 8 neighbours of each pixel, the pixel itself left out.

    Parameters
    ----------
    plane_yx
        Shape (rows, columns), at least two pixels.

    Returns
    -------
    maximum_yx
        Same shape and type.
    """
    triple_yx = plane_yx.copy()  # maximum of left, centre and right
    np.maximum(triple_yx[:, 1:], plane_yx[:, :-1], out=triple_yx[:, 1:])
    np.maximum(triple_yx[:, :-1], plane_yx[:, 1:], out=triple_yx[:, :-1])

    maximum_yx = np.full_like(plane_yx, plane_yx.min())
    for target, source in (
        (maximum_yx[1:], triple_yx[:-1]),
        (maximum_yx[:-1], triple_yx[1:]),
        (maximum_yx[:, 1:], plane_yx[:, :-1]),
        (maximum_yx[:, :-1], plane_yx[:, 1:]),
    ):
        np.maximum(target, source, out=target)
    return maximum_yx
