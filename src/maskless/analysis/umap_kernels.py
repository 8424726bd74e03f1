"""Compiled steps of UMAP (:mod:`maskless.analysis.umap` says what they make)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_SEARCH_STEPS = 64


@njit(nogil=True, cache=True)
def neighbour_weights(  # type: ignore[no-untyped-def]
    distances_nk: NDArray[np.float32],
    weights_nk: NDArray[np.float32],
    mean_distance: float,
    start: int,
    stop: int,
):
    """Weigh neighbours as UMAP does: exp(-(d - nearest) / width), widths chosen by bisection.

    The width makes the weights of a cell sum to log2(k + 1).
    """
    k = distances_nk.shape[1]
    target = np.log2(k + 1.0)
    for i in range(start, stop):
        nearest = 0.0
        mean = 0.0
        for j in range(k):
            if nearest == 0.0:
                nearest = np.float64(distances_nk[i, j])
            mean += distances_nk[i, j] / k
        low, high, width = 0.0, np.inf, 1.0
        for _ in range(_SEARCH_STEPS):
            total = 0.0
            for j in range(k):
                beyond = distances_nk[i, j] - nearest
                total += np.exp(-beyond / width) if beyond > 0 else 1.0
            if abs(total - target) < 1e-5:
                break
            if total > target:
                high = width
                width = (low + high) / 2
            else:
                low = width
                width = width * 2 if high == np.inf else (low + high) / 2
        width = max(width, 1e-3 * (mean if nearest > 0 else mean_distance))
        for j in range(k):
            beyond = distances_nk[i, j] - nearest
            weights_nk[i, j] = np.exp(-beyond / width) if beyond > 0 else 1.0


@njit(nogil=True, cache=True)
def fuzzy_union(indices_nk: NDArray[np.int32], weights_nk: NDArray[np.float32]) -> Any:
    """Symmetric graph of weights a + b - ab, as the arrays of a CSR matrix."""
    n, k = indices_nk.shape
    back_nk = np.full((n, k), -1, np.int32)  # where i stands among the neighbours of j
    starts = np.zeros(n + 1, np.int64)
    for i in range(n):
        for s in range(k):
            j = indices_nk[i, s]
            for t in range(k):
                if indices_nk[j, t] == i:
                    back_nk[i, s] = t
                    break
            starts[i + 1] += 1
            if back_nk[i, s] < 0:
                starts[j + 1] += 1
    for i in range(n):
        starts[i + 1] += starts[i]
    columns = np.empty(starts[n], np.int32)
    weights = np.empty(starts[n], np.float32)
    place = starts[:-1].copy()
    for i in range(n):
        for s in range(k):
            j = indices_nk[i, s]
            there = weights_nk[i, s]
            back = np.float32(0)
            if back_nk[i, s] >= 0:
                back = weights_nk[j, back_nk[i, s]]
            columns[place[i]] = j
            weights[place[i]] = there + back - there * back
            place[i] += 1
            if back_nk[i, s] < 0:
                columns[place[j]] = i
                weights[place[j]] = there
                place[j] += 1
    return starts, columns, weights


@njit(nogil=True, cache=True, fastmath={"nnan", "nsz", "contract"})
def move_points(  # type: ignore[no-untyped-def]
    starts: NDArray[np.int64],
    columns: NDArray[np.int32],
    chances: NDArray[np.float32],
    heads_n2: NDArray[np.float32],
    tails_m2: NDArray[np.float32],
    moved_n2: NDArray[np.float32],
    attraction: NDArray[np.float32],
    repulsion: NDArray[np.float32],
    step: np.float32,
    negatives: int,
    epoch: int,
    seed: int,
    start: int,
    stop: int,
    stride: int,
):
    """Move heads ``start, start + stride, ..`` by one epoch of stochastic gradient descent.

    Each edge is used in a share `chances` of the epochs, evenly spaced; it pulls once, and
    `negatives` random others push. Positions of all others are read from `tails_m2`, which does
    not change meanwhile, so heads can be moved in any order.
    """
    others = np.uint64(tails_m2.shape[0])
    four = np.float32(4)
    number = np.empty(1, np.float32)
    bits = number.view(np.uint32)
    for i in range(start, stop, stride):
        x = heads_n2[i, 0]
        y = heads_n2[i, 1]
        state = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(i)
        state = (state ^ (state >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ np.uint64(epoch)) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(29)
        state |= np.uint64(1)
        for e in range(starts[i], starts[i + 1]):
            chance = chances[e]
            if np.int32(chance * np.float32(epoch + 1)) == np.int32(chance * np.float32(epoch)):
                continue
            j = columns[e]
            dx = x - tails_m2[j, 0]
            dy = y - tails_m2[j, 1]
            number[0] = dx * dx + dy * dy
            force = attraction[bits[0] >> np.uint32(16)]
            x += step * min(max(force * dx, -four), four)
            y += step * min(max(force * dy, -four), four)
            for _ in range(negatives):
                state ^= state << np.uint64(13)
                state ^= state >> np.uint64(7)
                state ^= state << np.uint64(17)
                other = np.int64(((state >> np.uint64(32)) * others) >> np.uint64(32))
                dx = x - tails_m2[other, 0]
                dy = y - tails_m2[other, 1]
                number[0] = dx * dx + dy * dy
                force = repulsion[bits[0] >> np.uint32(16)]
                x += step * min(max(force * dx, -four), four)
                y += step * min(max(force * dy, -four), four)
        moved_n2[i, 0] = x
        moved_n2[i, 1] = y
