"""Single pixels far above all their neighbours: detector artefacts, not biology.

Axes: C = channels, Y = rows, X = columns.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", bound=np.generic)

STEINBOCK_THRESHOLD = 50.0

PEAK = 2.0
"""Structures are blurred over several pixels, so one may be expected to reach this many times its
brightest neighbour, and no more."""

_SIGMAS, _LEAST = 5.0, 3.0
"""Of counting noise: expecting 2 m + 1 counts, one in 250,000 pixels or fewer is that bright by
chance, at any m."""


def remove_hot_pixels(
    pixels_cyx: NDArray[Number], threshold: float | Literal["poisson"] = "poisson"
) -> tuple[NDArray[Number], NDArray[np.int64]]:
    """Lower each pixel that exceeds all its 8 neighbours by more than they can explain.

    Such a pixel becomes the maximum of its neighbours (at a border: of those that exist). Every
    pixel is judged by the pixels as they came in, so two hot pixels side by side shield each other.

    Parameters
    ----------
    pixels_cyx
        Shape (channels, rows, columns), any number type, finite.
    threshold
        ``"poisson"``: a pixel beside neighbours of at most m counts is hot above 2 m and five times
        the counting noise of 2 m + 1 counts, so bright tissue is spared and a burst of 20 counts in
        an empty place is found. A number: the same excess everywhere, in counts.

    Returns
    -------
    cleaned_cyx
        A copy, same type.
    changed
        How many pixels of each channel were lowered, shape (channels,).

    Notes
    -----
    With a threshold of 50, the filter of steinbock (Windhager et al. 2023,
    doi:10.1038/s41596-023-00881-0).
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
        limit = _explained(highest_yx[hot]) if threshold == "poisson" else threshold
        rows, columns = hot[0][excess > limit], hot[1][excess > limit]
        cleaned_cyx[channel, rows, columns] = highest_yx[rows, columns]
        changed[channel] = len(rows)
    return cleaned_cyx, changed


def _explained(highest_n: NDArray[Any]) -> NDArray[np.float64]:
    """Excess over the brightest neighbour that tissue and counting noise explain."""
    counts_n = np.maximum(highest_n.astype(np.float64), 0)
    noise_n = np.sqrt(PEAK * counts_n + 1)
    return (PEAK - 1) * counts_n + _SIGMAS * noise_n + _LEAST


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
