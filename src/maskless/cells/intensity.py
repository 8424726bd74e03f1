"""Mean intensities around the centres of cells: the controls that need no encoder.

Axes: N = cells, C = channels, R = rings.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor

import numpy as np
from numba import njit
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.threads import share_rows

_CELLS_A_THREAD = 256


def disc_means(
    pixels_cyx: NDArray[np.floating], centres_yx: NDArray[np.floating], radius_px: float
) -> NDArray[np.float32]:
    """Mean of each channel over the pixels within a radius of each centre.

    Discs cut by the edge of the image average what is inside. A disc too small to hold the
    middle of any pixel takes the pixel in which the centre lies.

    Parameters
    ----------
    pixels_cyx
        One image.
    centres_yx
        y and x in pixels, shape (N, 2).
    radius_px
        Radius in pixels.

    Returns
    -------
    Means, shape (N, C), float32.

    Raises
    ------
    InputError
        If a centre lies outside the image or is not finite.
    """
    return ring_means(pixels_cyx, centres_yx, (0.0, radius_px))[:, 0]


def ring_means(
    pixels_cyx: NDArray[np.floating],
    centres_yx: NDArray[np.floating],
    edges_px: Sequence[float],
) -> NDArray[np.float32]:
    """Mean of each channel over rings around each centre.

    Ring r holds the pixels farther than ``edges_px[r]`` and not farther than ``edges_px[r + 1]``;
    the first also holds its inner edge. A ring without any pixel takes the ring inside it, the
    first the pixel in which the centre lies.

    Parameters
    ----------
    pixels_cyx
        One image.
    centres_yx
        y and x in pixels, shape (N, 2).
    edges_px
        Rising radii in pixels, one more than rings.

    Returns
    -------
    Means, shape (N, R, C), float32.

    Raises
    ------
    InputError
        If a centre lies outside the image or is not finite, or the radii do not rise.
    """
    edges = np.asarray(edges_px, np.float64)
    if len(edges) < 2 or edges[0] < 0 or not (np.diff(edges) > 0).all():
        raise InputError(
            "the radii of rings do not rise", expected="0 or more, rising", found=list(edges_px)
        )
    centres = np.ascontiguousarray(centres_yx, np.float64).reshape(-1, 2)
    rows, columns = pixels_cyx.shape[1:]
    inside_n = ((centres >= -0.5) & (centres <= np.array([rows, columns]) - 0.5)).all(axis=1)
    if not inside_n.all():
        raise InputError(
            "the centre of a cell lies outside the image",
            expected=f"y up to {rows - 1}, x up to {columns - 1}",
            found=centres[np.flatnonzero(~inside_n)[0]].tolist(),
        )
    pixels = np.ascontiguousarray(pixels_cyx, np.float32)
    means_nrc = np.empty((len(centres), len(edges) - 1, len(pixels)), np.float32)
    share_rows(
        lambda rows: _ring_means(pixels, centres[rows], edges, means_nrc[rows]),
        len(centres),
        _CELLS_A_THREAD,
    )
    return means_nrc


@njit(nogil=True, cache=True)
def _ring_means(
    pixels_cyx: NDArray[np.float32],
    centres_yx: NDArray[np.float64],
    edges: NDArray[np.float64],
    means_nrc: NDArray[np.float32],
) -> None:
    n_channels, rows, columns = pixels_cyx.shape
    n_rings = len(edges) - 1
    for n in range(len(centres_yx)):
        y, x = centres_yx[n, 0], centres_yx[n, 1]
        top, bottom = max(0, ceil(y - edges[-1])), min(rows - 1, floor(y + edges[-1]))
        left, right = max(0, ceil(x - edges[-1])), min(columns - 1, floor(x + edges[-1]))
        sums_rc = np.zeros((n_rings, n_channels), np.float64)
        counts_r = np.zeros(n_rings, np.int64)
        for i in range(top, bottom + 1):
            for j in range(left, right + 1):
                distance = ((i - y) ** 2 + (j - x) ** 2) ** 0.5
                ring = 0
                while ring < n_rings and distance > edges[ring + 1]:
                    ring += 1
                if ring == n_rings or distance < edges[0]:
                    continue
                counts_r[ring] += 1
                for c in range(n_channels):
                    sums_rc[ring, c] += pixels_cyx[c, i, j]
        middle_y = min(max(floor(y + 0.5), 0), rows - 1)
        middle_x = min(max(floor(x + 0.5), 0), columns - 1)
        for r in range(n_rings):
            for c in range(n_channels):
                if counts_r[r] > 0:
                    means_nrc[n, r, c] = sums_rc[r, c] / counts_r[r]
                elif r > 0:
                    means_nrc[n, r, c] = means_nrc[n, r - 1, c]
                else:
                    means_nrc[n, r, c] = pixels_cyx[c, middle_y, middle_x]
