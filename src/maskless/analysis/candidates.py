"""Compiled kernels that keep, for each query, the nearest candidates seen so far.

A pool is a row of int64 keys in rising order, EMPTY where there is no candidate yet. The upper
half of a key is the candidate's distance, the lower half its number: one comparison of integers
ranks by distance, then number, so it does not matter in which order candidates are offered.

"Distance" is here what ranks the candidates of one query: the squared distance less a constant for
codes (int32), half the squared distance for points (the bits of a float32 that is not negative,
which rise with it).

Loops are written for 32-bit arithmetic: numba widens to 64 bits unless told otherwise.

Letters of axes: n points, m queries, d dimensions, p candidates in a pool, l candidates offered.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from maskless.analysis.integer_vectors import (
    GROUP,
    LANES,
    MOVED_UP,
    QUERIES,
    WORDS,
    compare_block,
    lowest_bit,
    push_eight,
)
from maskless.prefetch import prefetch

EMPTY = np.int64(2**63 - 1)
_AHEAD = 3  # so many candidates ahead, points are fetched from memory
_LINE = 16  # float32 in a cache line
_FARTHEST = 2**31 - 1  # the distance in EMPTY, and that of the places that fill up a block


def empty_pools(queries: int, size: int) -> NDArray[np.int64]:
    """Make pools without candidates."""
    return np.full((queries, size), EMPTY, np.int64)


def numbers_of(pools_mp: NDArray[np.int64]) -> NDArray[np.int32]:
    """Numbers of the candidates in pools, -1 where there is none."""
    return (pools_mp & 0xFFFFFFFF).astype(np.int32)


@njit(nogil=True, cache=True)
def insert(pool_p: NDArray[np.int64], key: Any) -> None:
    """Put a key that is below the last one in its place; the last one goes."""
    place = pool_p.shape[0]
    while place > 8:
        place -= 8
        push_eight(pool_p, place, key)
    place -= 1
    while place > 0 and pool_p[place - 1] > key:
        pool_p[place] = pool_p[place - 1]
        place -= 1
    if pool_p[place] > key:
        pool_p[place] = key


@njit(nogil=True, cache=True)
def squared_norms(codes_nd: NDArray[np.int8]) -> NDArray[np.int32]:
    """Sum the squares of each code."""
    n, dimensions = codes_nd.shape
    norms = np.empty(n, np.int32)
    for i in range(n):
        total = np.int32(0)
        for d in range(dimensions):
            total = np.int32(total + np.int32(np.int32(codes_nd[i, d]) * np.int32(codes_nd[i, d])))
        norms[i] = total
    return norms


@njit(nogil=True, cache=True)
def pack(
    codes_nd: NDArray[np.int8], starts_c: NDArray[np.int64], blocks_c: NDArray[np.int64]
) -> Any:
    """Lay out lists of codes for :func:`offer_codes`: 16 codes side by side, a few axes at a time.

    List c is codes ``starts_c[c]`` to ``starts_c[c + 1]``; it fills blocks ``blocks_c[c]`` to
    ``blocks_c[c + 1]`` of 16, the last one with codes that are farther than any.

    Returns
    -------
    packed : NDArray
        int8, flat: axes ``g s`` and the g - 1 that follow of code `lane` of block b are numbers
        ``16 d b + 16 g s + g lane`` and the next, g being GROUP.
    norms : NDArray
        int32, flat: squared norms, which also take back that queries are moved up.
    """
    dimensions = codes_nd.shape[1]
    blocks = blocks_c[-1]
    packed = np.zeros(blocks * LANES * dimensions, np.int8)
    norms = np.full(blocks * LANES, _FARTHEST, np.int32)
    for c in range(starts_c.shape[0] - 1):
        for i in range(starts_c[c], starts_c[c + 1]):
            slot = blocks_c[c] * LANES + i - starts_c[c]
            place = slot // LANES * LANES * dimensions + GROUP * (slot % LANES)
            total = np.int32(0)
            for d in range(0, dimensions, GROUP):
                for e in range(GROUP):
                    code = np.int32(codes_nd[i, d + e])
                    packed[place + LANES * d + e] = code
                    total = np.int32(total + np.int32(code * np.int32(code + 2 * MOVED_UP)))
            norms[slot] = total
    return packed, norms


@njit(nogil=True, cache=True)
def offer_codes(  # type: ignore[no-untyped-def]
    codes_md: NDArray[np.int8],
    query_q: NDArray[np.int32],
    packed: NDArray[np.int8],
    norms: NDArray[np.int32],
    first_block: int,
    stop_block: int,
    first: int,
    pools_mp: NDArray[np.int64],
    skip_self: bool,
):
    """Offer a packed list, whose candidates are numbered from `first`, to the queries `query_q`.

    Some queries at a time are compared with 16 candidates at a time. With `skip_self` a query and
    a candidate of the same number are the same point.
    """
    dimensions = codes_md.shape[1]
    size = pools_mp.shape[1]
    number = query_q.shape[0]
    some = np.zeros(QUERIES * dimensions, np.uint8 if GROUP == 4 else np.int16)
    farthest = np.empty(QUERIES, np.int32)
    distances = np.empty(QUERIES * LANES, np.int32)
    near = np.empty(WORDS, np.uint64)
    for start in range(0, number, QUERIES):
        for row in range(QUERIES):
            farthest[row] = -_FARTHEST
            if start + row < number:
                query = query_q[start + row]
                for d in range(dimensions):
                    some[row * dimensions + d] = np.int32(codes_md[query, d]) + MOVED_UP
                farthest[row] = _bound(pools_mp[query, size - 1])
        for block in range(first_block, stop_block):
            compare_block(packed, norms, block, some, dimensions, farthest, distances, near)
            for word in range(WORDS):
                left = near[word]
                while left != 0:
                    bit = word * 64 + lowest_bit(left)
                    left &= left - np.uint64(1)
                    query = query_q[start + bit // LANES]
                    candidate = first + (block - first_block) * LANES + bit % LANES
                    key = (np.int64(distances[bit]) << 32) | candidate
                    pool = pools_mp[query]
                    if key < pool[size - 1] and not (skip_self and candidate == query):
                        insert(pool, key)
                        farthest[bit // LANES] = _bound(pool[size - 1])


@njit(nogil=True, cache=True)
def _bound(key: int) -> Any:
    """Distances below this may get in before `key`; that of the places that fill up never does."""
    return np.int32(min(key >> 32, _FARTHEST - 1) + 1)


@njit(nogil=True, cache=True, fastmath={"nnan", "nsz"})
def offer_products(  # type: ignore[no-untyped-def]
    products_ml: NDArray[np.float32],
    half_norm_l: NDArray[np.float32],
    half_norm_m: NDArray[np.float32],
    first: int,
    query_m: NDArray[np.int32],
    pools_mp: NDArray[np.int64],
    skip_self: bool,
):
    """Offer points ``first ..`` by their products with the queries, whose numbers are `query_m`."""
    size = pools_mp.shape[1]
    length = half_norm_l.shape[0]
    for row in range(products_ml.shape[0]):
        pool = pools_mp[row]
        product = products_ml[row]
        own = np.float32(half_norm_m[row])
        itself = query_m[row] - first if skip_self else -1
        worst = _distance_of(pool[size - 1])
        for start in range(0, length, 32):
            stop = min(start + 32, length)
            least = np.float32(3.0e38)
            for j in range(start, stop):
                value = own + (half_norm_l[j] - product[j])
                least = value if value < least else least
            if least <= worst:
                for j in range(start, stop):
                    value = max(own + (half_norm_l[j] - product[j]), np.float32(0))
                    if value <= worst and j != itself:
                        key = (np.int64(np.float32(value).view(np.int32)) << 32) | (first + j)
                        if key < pool[size - 1]:
                            insert(pool, key)
                            worst = _distance_of(pool[size - 1])


@njit(nogil=True, cache=True)
def _distance_of(key: int) -> Any:
    """Float32 in the upper half of a key; infinity for EMPTY."""
    if key == EMPTY:
        return np.float32(np.inf)
    return np.int32(key >> 32).view(np.float32)


@njit(nogil=True, cache=True)
def offer_neighbours_of_neighbours(  # type: ignore[no-untyped-def]
    codes_nd: NDArray[np.int8],
    norm_n: NDArray[np.int32],
    before_nb: NDArray[np.int32],
    pools_np: NDArray[np.int64],
    start: int,
    stop: int,
):
    """Offer the first b neighbours of each of the first b neighbours.

    `before_nb` are the nearest from before the round, -1 behind the last, so that results do not
    depend on which rows are done first.
    """
    n, size = pools_np.shape
    breadth = before_nb.shape[1]
    dimensions = codes_nd.shape[1]
    seen_by = np.full(n, -1, np.int32)
    fresh = np.empty(breadth * breadth + 1, np.int32)
    for query in range(start, stop):
        pool = pools_np[query]
        seen_by[query] = query
        for key in pool:
            if key != EMPTY:
                seen_by[key & 0xFFFFFFFF] = query
        count = 0
        for middle in before_nb[query]:
            if middle < 0:
                break
            for candidate in before_nb[middle]:
                if candidate < 0:
                    break
                fresh[count] = candidate
                count += seen_by[candidate] != query
                seen_by[candidate] = query
        code = codes_nd[query]
        for candidate in fresh[:count]:
            other = codes_nd[candidate]
            total = np.int32(0)
            for d in range(dimensions):
                total = np.int32(total + np.int32(np.int32(code[d]) * np.int32(other[d])))
            key = (np.int64(norm_n[candidate] - 2 * total) << 32) | np.int64(candidate)
            if key < pool[size - 1]:
                insert(pool, key)


@njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def rank_exactly(  # type: ignore[no-untyped-def]
    points_nd: NDArray[np.float32],
    order_n: NDArray[np.int32],
    queries_md: NDArray[np.float32],
    query_order_m: NDArray[np.int32],
    pools_mp: NDArray[np.int64],
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
    k = indices_mk.shape[1]
    size = pools_mp.shape[1]
    dimensions = points_nd.shape[1]
    for query in range(start, stop):
        row = query_order_m[query]
        index = indices_mk[row]
        distance = distances_mk[row]
        filled = 0
        pool = pools_mp[query]
        for t in range(size):
            if pool[t] == EMPTY:
                break
            if t + _AHEAD < size and pool[t + _AHEAD] != EMPTY:
                ahead = order_n[pool[t + _AHEAD] & 0xFFFFFFFF]
                for d in range(0, dimensions, _LINE):
                    prefetch(points_nd, ahead * dimensions + d)
            candidate = order_n[pool[t] & 0xFFFFFFFF]
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
