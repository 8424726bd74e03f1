"""Where the cells of the feature grid lie in the view, and how much each counts in the pooling.

Positions are in pixels of the view: pixel centres at 0 .. S-1, the view's centre at (S-1)/2.
The grid is that of a 3 x 3 stem (padding 1, stride 1 or 2) and of 2 x 2 average pools that keep the
incomplete last row (ceil mode), so sizes need not be multiples of anything.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def grid_positions(size: int, stride: int, halvings: int) -> tuple[Array, Array]:
    """Centres (px) of the grid cells along one edge of a view, and how many stem cells each holds.

    Parameters
    ----------
    size
        Edge of the view, pixels.
    stride
        Of the stem: its output ``o`` is centred on input pixel ``o * stride``.
    halvings
        Number of 2 x 2 pools.

    Returns
    -------
    positions, counts
        float64 ``(cells,)`` each.
    """
    positions = np.arange(0, size, stride, dtype=np.float64)
    counts = np.ones_like(positions)
    for _ in range(halvings):
        starts = np.arange(0, len(positions), 2)
        cells = np.add.reduceat(np.ones_like(positions), starts)
        positions = np.add.reduceat(positions, starts) / cells
        counts = np.add.reduceat(counts, starts)
    return positions, counts


@lru_cache(maxsize=256)
def edge_weights(size: int, stride: int, halvings: int, sigma_px: float | None) -> Array:
    """Weights of the grid cells along one edge, adding up to 1.

    With `sigma_px`, a Gaussian about the view's centre is laid over the *pixels* and each pixel
    reads the grid by linear interpolation (extrapolation past the last cell). So the weighted mean
    position is the view's centre exactly, also where the grid itself is off-centre: a stride-2 stem
    on an even edge has its cells at 0, 2, .., S-2. Without `sigma_px`, the mean over stem cells.

    Returns
    -------
    float64 ``(cells,)``, not writable.
    """
    weights: Array
    positions, counts = grid_positions(size, stride, halvings)
    if sigma_px is None:
        weights = counts / counts.sum()
    elif len(positions) == 1:
        weights = np.ones(1)
    else:
        pixels = np.arange(size, dtype=np.float64)
        # In units of the nearest pixel's distance, so that a tiny sigma cannot underflow to 0 / 0.
        squares = (pixels - (size - 1) / 2) ** 2
        gauss = np.exp(-(squares - squares.min()) / (2 * sigma_px**2))
        gauss /= gauss.sum()
        left = np.clip(np.searchsorted(positions, pixels, "right") - 1, 0, len(positions) - 2)
        share = (pixels - positions[left]) / (positions[left + 1] - positions[left])
        weights = np.zeros_like(positions)
        np.add.at(weights, left, gauss * (1 - share))
        np.add.at(weights, left + 1, gauss * share)
    weights.flags.writeable = False
    return weights
