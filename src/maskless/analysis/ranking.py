"""Compiled kernels that take the candidates of each query and rank them by exact distance.

Letters of axes: n points, m queries, d dimensions, w candidates, k neighbours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from maskless.analysis.candidates import EMPTY
from maskless.analysis.integer_vectors import push_eight
from maskless.prefetch import prefetch

_AHEAD = 3  # so many candidates ahead, points are fetched from memory
_LINE = 16  # float32 in a cache line


@njit(nogil=True, cache=True)
def insert(row_p: NDArray[np.int64], key: Any) -> None:
    """Put a key that is below the last one of a rising row in its place; the last one goes."""
    place = row_p.shape[0]
    while place > 8:
        place -= 8
        push_eight(row_p, place, key)
    place -= 1
    while place > 0 and row_p[place - 1] > key:
        row_p[place] = row_p[place - 1]
        place -= 1
    if row_p[place] > key:
        row_p[place] = key


@njit(nogil=True, cache=True)
def rank_exactly(  # type: ignore[no-untyped-def]
    points_nd: NDArray[np.float32],
    order_n: NDArray[np.int32],
    queries_md: NDArray[np.float32],
    query_order_m: NDArray[np.int32],
    keys_mw: NDArray[np.int64],
    start: int,
    stop: int,
    indices_mk: NDArray[np.int32],
    distances_mk: NDArray[np.float32],
    rooted: bool,
):
    """Write the k nearest of the candidates by exact float32 distance, ties by the lower index.

    Candidate number c is the point ``order_n[c]``; query number q is ``query_order_m[q]``.
    Distances are squared ones unless `rooted`.
    """
    wanted = keys_mw.shape[1]
    ranked = np.empty(indices_mk.shape[1], np.int64)
    exact = np.empty(wanted, np.float32)
    for query in range(start, stop):
        row = query_order_m[query]
        held = 0
        while held < wanted and keys_mw[query, held] != EMPTY:
            held += 1
        _rank(
            points_nd,
            order_n,
            queries_md[row],
            keys_mw[query],
            held,
            exact,
            ranked,
            indices_mk[row],
            distances_mk[row],
            rooted,
        )


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def _rank(  # type: ignore[no-untyped-def]
    points_nd: NDArray[np.float32],
    order_n: NDArray[np.int32],
    query_d: NDArray[np.float32],
    keys_w: NDArray[np.int64],
    held: int,
    exact_w: NDArray[np.float32],
    ranked_k: NDArray[np.int64],
    index_k: NDArray[np.int32],
    distance_k: NDArray[np.float32],
    rooted: bool,
):
    dimensions = points_nd.shape[1]
    for t in range(held):
        if t + _AHEAD < held:
            ahead = order_n[keys_w[t + _AHEAD] & 0xFFFFFFFF]
            for d in range(0, dimensions, _LINE):
                prefetch(points_nd, ahead * dimensions + d)
        candidate = order_n[keys_w[t] & 0xFFFFFFFF]
        total = np.float32(0)
        for d in range(dimensions):
            difference = query_d[d] - points_nd[candidate, d]
            total += difference * difference
        exact_w[t] = np.sqrt(total) if rooted else total
    ranked_k[:] = EMPTY
    for t in range(held):
        candidate = order_n[keys_w[t] & 0xFFFFFFFF]
        key = (np.int64(np.float32(exact_w[t]).view(np.int32)) << 32) | np.int64(candidate)
        if key < ranked_k[-1]:
            insert(ranked_k, key)
    for t in range(min(held, len(ranked_k))):
        index_k[t] = np.int32(ranked_k[t] & 0xFFFFFFFF)
        distance_k[t] = np.int32(ranked_k[t] >> 32).view(np.float32)
