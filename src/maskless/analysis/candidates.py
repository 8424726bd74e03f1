"""Compiled kernels that keep, for each query, the nearest candidates seen so far.

A pool is a row of `pool_distance_qp` and `pool_index_qp`: the p nearest candidates in rising
order, -1 where there is none yet. "Distance" here is half the squared one less a constant of the
query, |x|**2 / 2 - q.x, which needs one subtraction after the product.

All loops are written for 32-bit arithmetic: numba widens to 64 bits unless told otherwise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

FAR = np.float32(3.0e38)


def empty_pools(queries: int, size: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Make pools without candidates."""
    return (
        np.full((queries, size), FAR, np.float32),
        np.full((queries, size), -1, np.int32),
    )


@njit(nogil=True, cache=True, fastmath={"nnan", "nsz"})
def offer(  # type: ignore[no-untyped-def]
    products_ml: Any,
    half_norm_l: NDArray[np.float32],
    length: int,
    first: int,
    query_m: NDArray[np.int32],
    pool_distance_qp: NDArray[np.float32],
    pool_index_qp: NDArray[np.int32],
    skip_self: bool,
):
    """Offer candidates ``first .. first + length - 1`` to the pools of the queries `query_m`.

    `products_ml` and `half_norm_l` are readable up to the next multiple of 32 columns. With
    `skip_self` a query and a candidate of the same number are the same point.
    """
    size = pool_distance_qp.shape[1]
    for row in range(query_m.shape[0]):
        query = query_m[row]
        distance = pool_distance_qp[query]
        index = pool_index_qp[query]
        product = products_ml[row]
        worst = distance[size - 1]
        own = query - first if skip_self else -1
        for block in range((length + 31) // 32):
            start = block * 32
            least = FAR
            for t in range(32):
                value = half_norm_l[start + t] - np.float32(product[start + t])
                least = value if value < least else least
            if least < worst:
                for j in range(start, min(start + 32, length)):
                    value = half_norm_l[j] - np.float32(product[j])
                    if value < worst and j != own:
                        place = size - 1
                        while place > 0 and distance[place - 1] > value:
                            distance[place] = distance[place - 1]
                            index[place] = index[place - 1]
                            place -= 1
                        distance[place] = value
                        index[place] = first + j
                        worst = distance[size - 1]


@njit(nogil=True, cache=True)
def offer_neighbours_of_neighbours(  # type: ignore[no-untyped-def]
    codes_nd: NDArray[np.int8],
    half_norm_n: NDArray[np.float32],
    before_np: NDArray[np.int32],
    pool_distance_np: NDArray[np.float32],
    pool_index_np: NDArray[np.int32],
    start: int,
    stop: int,
    breadth: int,
):
    """Offer the first `breadth` neighbours of each of the first `breadth` neighbours.

    `before_np` is a copy of the pools' indices from before the round, so that results do not
    depend on which rows are done first.
    """
    n, size = pool_distance_np.shape
    dimensions = codes_nd.shape[1]
    seen = np.full(n, -1, np.int32)
    for query in range(start, stop):
        distance = pool_distance_np[query]
        index = pool_index_np[query]
        worst = distance[size - 1]
        seen[query] = query
        for a in range(size):
            if index[a] >= 0:
                seen[index[a]] = query
        for a in range(breadth):
            middle = before_np[query, a]
            if middle < 0:
                continue
            for b in range(breadth):
                candidate = before_np[middle, b]
                if candidate < 0 or seen[candidate] == query:
                    continue
                seen[candidate] = query
                total = np.int32(0)
                for d in range(dimensions):
                    total = np.int32(
                        total
                        + np.int32(np.int32(codes_nd[query, d]) * np.int32(codes_nd[candidate, d]))
                    )
                value = half_norm_n[candidate] - np.float32(total)
                if value < worst:
                    place = size - 1
                    while place > 0 and distance[place - 1] > value:
                        distance[place] = distance[place - 1]
                        index[place] = index[place - 1]
                        place -= 1
                    distance[place] = value
                    index[place] = candidate
                    worst = distance[size - 1]


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def rank_exactly(  # type: ignore[no-untyped-def]
    points_nd: NDArray[np.float32],
    order_n: NDArray[np.int32],
    queries_md: NDArray[np.float32],
    query_order_m: NDArray[np.int32],
    pool_index_mp: NDArray[np.int32],
    start: int,
    stop: int,
    indices_mk: NDArray[np.int32],
    distances_mk: NDArray[np.float32],
    rooted: bool,
):
    """Write the k nearest of each pool by exact float32 distance, ties by the lower index.

    Candidate number c is the point ``order_n[c]``; query number q is ``query_order_m[q]``.
    Distances are squared ones unless `rooted`.
    """
    size = pool_index_mp.shape[1]
    k = indices_mk.shape[1]
    dimensions = points_nd.shape[1]
    for query in range(start, stop):
        row = query_order_m[query]
        index = indices_mk[row]
        distance = distances_mk[row]
        filled = 0
        for a in range(size):
            if pool_index_mp[query, a] < 0:
                break
            candidate = order_n[pool_index_mp[query, a]]
            total = np.float32(0)
            for d in range(dimensions):
                difference = queries_md[row, d] - points_nd[candidate, d]
                total += difference * difference
            if rooted:
                total = np.sqrt(total)
            if filled == k and (
                total > distance[k - 1] or (total == distance[k - 1] and candidate > index[k - 1])
            ):
                continue
            place = filled if filled < k else k - 1
            while place > 0 and (
                distance[place - 1] > total
                or (distance[place - 1] == total and index[place - 1] > candidate)
            ):
                distance[place] = distance[place - 1]
                index[place] = index[place - 1]
                place -= 1
            distance[place] = total
            index[place] = candidate
            if filled < k:
                filled += 1
