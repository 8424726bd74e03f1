"""Nearest neighbours by comparing every query with every point."""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from maskless.analysis.candidates import OTHERS, empty_pools, lowest_keys, offer_products
from maskless.analysis.parallel import parallel_map, row_ranges, single_threaded_torch
from maskless.analysis.ranking import rank_exactly

_EXTRA_CANDIDATES = 16
_ROWS = 512
_COLUMNS = 2048
_CENTRED_BY = 1000
_PART = 32 * _COLUMNS


def compare_all(
    points_nd: NDArray[np.float32],
    queries_md: NDArray[np.float32],
    k: int,
    *,
    skip_self: bool,
    rooted: bool,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Find the k nearest of all points: float32 products choose k + 16, exact distances rank.

    Work is cut by queries and by parts of the points, the same way for any number of threads, and
    no copy of the points is made.

    Parameters
    ----------
    points_nd, queries_md
        Finite.
    k
        Neighbours of each query, at most n.
    skip_self
        The queries are the points, and none is its own neighbour.
    rooted
        Give distances, not their squares.

    Returns
    -------
    indices : NDArray
        int32 (m, k).
    distances : NDArray
        float32 (m, k).
    """
    n, m = len(points_nd), len(queries_md)
    # Centred, the products lose the fewest digits; some points tell the centre well enough.
    some = points_nd[:: max(1, n // _CENTRED_BY)]
    mean = some.mean(axis=0, dtype=np.float64).astype(np.float32) if n else np.float32(0)
    numbers = np.arange(max(n, m), dtype=np.int32)
    size = min(k + _EXTRA_CANDIDATES, n)

    def search(work: tuple[tuple[int, int], tuple[int, int]]) -> NDArray[np.int64]:
        (start, stop), (first, last) = work
        pools = empty_pools(stop - start, size)
        queries = queries_md[start:stop] - mean
        query_norms = _half_norms(queries)
        for a, b in row_ranges(last - first, _COLUMNS):
            block = points_nd[first + a : first + b] - mean
            products = torch.from_numpy(queries) @ torch.from_numpy(block).t()
            offer_products(
                products.numpy(),
                _half_norms(block),
                query_norms,
                first + a,
                pools,
                start if skip_self else OTHERS,
            )
        return lowest_keys(pools)

    row_parts, point_parts = row_ranges(m, _ROWS), row_ranges(n, _PART)
    with single_threaded_torch():
        found = parallel_map(search, list(product(row_parts, point_parts)))
    indices = np.full((m, k), -1, np.int32)
    distances = np.full((m, k), np.inf, np.float32)
    for part, (start, stop) in enumerate(row_parts):
        keys = found[part * len(point_parts) : (part + 1) * len(point_parts)]
        rank_exactly(
            points_nd,
            numbers,
            queries_md[start:stop],
            numbers,
            np.sort(np.concatenate(keys, axis=1), axis=1)[:, :size],
            0,
            stop - start,
            indices[start:stop],
            distances[start:stop],
            rooted,
        )
    return indices, distances


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def _half_norms(points_nd: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.empty(len(points_nd), np.float32)
    for i in range(len(points_nd)):
        total = np.float32(0)
        for value in points_nd[i]:
            total += value * value
        norms[i] = total / np.float32(2)
    return norms
