"""Compiled kernels that keep, for each query, the nearest candidates seen so far.

A candidate is an int64 key. The upper half is its distance, the lower half its number: one
comparison of integers ranks by distance, then number, so it does not matter in which order
candidates are offered.

"Distance" is here what ranks the candidates of one query: the squared distance less a constant for
codes (int32), half the squared distance for points (the bits of a float32 that is not negative,
which rise with it).

Keys are gathered in pools that hold more than are wanted. When one is full, the lowest stay
(:func:`keep_lowest`), and the highest of them is the limit that further keys must be below. So most
keys cost one write, and the choice is made among many at once, without branches.

Loops are written for 32-bit arithmetic: numba widens to 64 bits unless told otherwise.

Letters of axes: n points, m queries, d dimensions, p places in a pool, l candidates offered.
"""

from __future__ import annotations

from typing import Any, NamedTuple

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
    move_eight,
)

EMPTY = np.int64(2**63 - 1)
OTHERS = -(2**40)
"""Number of the first query where queries are none of the points."""

_FARTHEST = 2**31 - 1  # the distance in EMPTY, and that of the places that fill up a block
_LINE = 64  # bytes in a line of the cache
_PLACES = 64  # pools have a multiple of these


class Pools(NamedTuple):
    """The nearest candidates of some queries, so far.

    Attributes
    ----------
    keys_mp
        int64: the keys held, in no order, then EMPTY.
    held_m
        int32: how many are held.
    limit_m
        int64: so many as are wanted are held that are not above it.
    wanted
        How many nearest candidates are looked for.
    """

    keys_mp: NDArray[np.int64]
    held_m: NDArray[np.int32]
    limit_m: NDArray[np.int64]
    wanted: int


def empty_pools(queries: int, wanted: int) -> Pools:
    """Make pools without candidates."""
    places = 1 if wanted == 1 else -(-(2 * wanted + 16) // _PLACES) * _PLACES
    return Pools(
        np.full((queries, places), EMPTY, np.int64),
        np.zeros(queries, np.int32),
        np.full(queries, EMPTY, np.int64),
        wanted,
    )


def lowest_keys(pools: Pools) -> NDArray[np.int64]:
    """Give the wanted keys (m, wanted) in rising order; EMPTY where there is none."""
    keys = np.sort(pools.keys_mp, axis=1)[:, : pools.wanted]
    short = pools.wanted - keys.shape[1]
    return np.pad(keys, ((0, 0), (0, short)), constant_values=EMPTY) if short > 0 else keys


def numbers_of(keys: NDArray[np.int64]) -> NDArray[np.int32]:
    """Numbers of candidates, -1 where there is none."""
    return (keys & 0xFFFFFFFF).astype(np.int32)


@njit(nogil=True, cache=True)
def keep_lowest(keys_p: NDArray[np.int64], held: int, least: int, most: int) -> Any:
    """Keep at least `least` and at most `most` of the lowest keys, in the order they stand in.

    Returns
    -------
    held : int
        How many are left.
    highest : int
        None that was kept is above, none of the others is below; EMPTY if nothing had to go.
    """
    if held <= most:
        return held, EMPTY
    places = keys_p.shape[0]
    low, high = keys_p[0], keys_p[0]
    for t in range(held):
        low = min(low, keys_p[t])
        high = max(high, keys_p[t])
    count = held
    while count > most:  # keys differ, so it ends
        middle = low + ((high - low) >> 1)
        below = 0
        for t in range(places):
            below += keys_p[t] <= middle
        if below < least:
            low = middle + 1
        else:
            high = middle
            count = below
    place = 0
    for t in range(0, places, 8):
        place += move_eight(keys_p, t, place, high)
    for t in range(place, places):
        keys_p[t] = EMPTY
    return place, high


@njit(nogil=True, cache=True)
def tighten(pools: Pools) -> None:
    """Bring limits down to about the last wanted key."""
    keys_mp, held_m, limit_m, wanted = pools
    for q in range(len(held_m)):
        if held_m[q] > wanted:
            held_m[q], limit_m[q] = keep_lowest(keys_mp[q], held_m[q], wanted, wanted + 2)


@njit(nogil=True, cache=True)
def settle(pools: Pools, keys_mw: NDArray[np.int64]) -> None:
    """Write the wanted keys of each pool, in no order, with EMPTY where there are fewer.

    Rows may have room for some more than are wanted: the choice is made sooner then.
    """
    room = keys_mw.shape[1]
    for q in range(len(pools.held_m)):
        held, _ = keep_lowest(pools.keys_mp[q], pools.held_m[q], min(pools.wanted, room), room)
        keys_mw[q, :held] = pools.keys_mp[q, :held]
        keys_mw[q, held:] = EMPTY


@njit(nogil=True, cache=True)
def norms_of(codes_nd: NDArray[np.int8]) -> NDArray[np.int32]:
    """Sum the squares of each code; also take back that queries are moved up."""
    n, dimensions = codes_nd.shape
    norms = np.empty(n, np.int32)
    for i in range(n):
        total = np.int32(0)
        for d in range(dimensions):
            code = np.int32(codes_nd[i, d])
            total = np.int32(total + np.int32(code * np.int32(code + 2 * MOVED_UP)))
        norms[i] = total
    return norms


class Lists(NamedTuple):
    """Codes in lists, laid out to be compared sixteen at a time.

    Attributes
    ----------
    packed
        int8, flat: axes ``g s`` and the g - 1 that follow of code `lane` of block b are numbers
        ``16 d b + 16 g s + g lane`` and the next, g being GROUP.
    norms
        int32, flat: :func:`norms_of` the codes in the same places.
    starts_c
        List c holds codes ``starts_c[c]`` to ``starts_c[c + 1]``.
    blocks_c
        In blocks ``blocks_c[c]`` to ``blocks_c[c + 1]``, filled up with codes that are farther than
        any.
    """

    packed: NDArray[np.int8]
    norms: NDArray[np.int32]
    starts_c: NDArray[np.int64]
    blocks_c: NDArray[np.int64]


def pack(
    codes_nd: NDArray[np.int8], norm_n: NDArray[np.int32], starts_c: NDArray[np.int64]
) -> Lists:
    """Lay out lists of codes, one after the other."""
    blocks_c = np.concatenate([[0], np.cumsum(-(-np.diff(starts_c) // LANES))])
    packed = aligned_codes(int(blocks_c[-1]) * LANES, codes_nd.shape[1]).ravel()
    packed[:] = 0
    norms = np.full(blocks_c[-1] * LANES, _FARTHEST, np.int32)
    lists = Lists(packed, norms, starts_c, blocks_c)
    _pack(codes_nd, norm_n, lists)
    return lists


def aligned_codes(n: int, dimensions: int) -> NDArray[np.int8]:
    """Room for codes that begin where lines of the cache do."""
    room = np.empty(n * dimensions + _LINE, np.int8)
    first = -room.ctypes.data % _LINE
    return room[first : first + n * dimensions].reshape(n, dimensions)


@njit(nogil=True, cache=True)
def _pack(codes_nd: NDArray[np.int8], norm_n: NDArray[np.int32], lists: Lists) -> None:
    packed, norms, starts_c, blocks_c = lists
    dimensions = codes_nd.shape[1]
    for c in range(starts_c.shape[0] - 1):
        for i in range(starts_c[c], starts_c[c + 1]):
            slot = blocks_c[c] * LANES + i - starts_c[c]
            place = slot // LANES * LANES * dimensions + GROUP * (slot % LANES)
            for d in range(0, dimensions, GROUP):
                for e in range(GROUP):
                    packed[place + LANES * d + e] = codes_nd[i, d + e]
            norms[slot] = norm_n[i]


@njit(nogil=True, cache=True)
def offer_list(  # type: ignore[no-untyped-def]
    codes_md: NDArray[np.int8],
    query_q: NDArray[np.int32],
    lists: Lists,
    c: int,
    pools: Pools,
    own: int,
):
    """Offer the codes of list c to the queries `query_q`.

    Some queries at a time are compared with 16 candidates at a time. Query q is the point
    ``own + q``, which is not offered to it; or none of them, if `own` is OTHERS.
    """
    dimensions = codes_md.shape[1]
    packed, norms, starts_c, blocks_c = lists
    keys_mp, held_m, limit_m, wanted = pools
    places = keys_mp.shape[1]
    most = wanted + (places - wanted) // 4
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
                farthest[row] = _bound(limit_m[query])
        for block in range(blocks_c[c], blocks_c[c + 1]):
            compare_block(packed, norms, block, some, dimensions, farthest, distances, near)
            for word in range(WORDS):
                left = near[word]
                while left != 0:
                    bit = word * 64 + lowest_bit(left)
                    left &= left - np.uint64(1)
                    query = query_q[start + (bit >> 4)]
                    candidate = starts_c[c] + ((block - blocks_c[c]) << 4) + (bit & 15)
                    key = (np.int64(distances[bit]) << 32) | candidate
                    if key >= limit_m[query] or candidate - own == query:
                        continue
                    held = held_m[query]
                    if places == 1:
                        held = 0
                        limit_m[query] = key
                        farthest[bit >> 4] = _bound(key)
                    keys_mp[query, held] = key
                    held += 1
                    if held == places and places > 1:
                        held, limit = keep_lowest(keys_mp[query], held, wanted, most)
                        limit_m[query] = limit
                        farthest[bit >> 4] = _bound(limit)
                    held_m[query] = held


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
    pools: Pools,
    own: int,
):
    """Offer points ``first ..`` by their products with the queries; `own` as in offer_list."""
    keys_mp, held_m, limit_m, wanted = pools
    places = keys_mp.shape[1]
    most = wanted + (places - wanted) // 4
    length = half_norm_l.shape[0]
    for row in range(products_ml.shape[0]):
        product = products_ml[row]
        norm = np.float32(half_norm_m[row])
        itself = row + own - first
        limit = limit_m[row]
        worst = _distance_of(limit)
        held = held_m[row]
        for start in range(0, length, 32):
            stop = min(start + 32, length)
            least = np.float32(3.0e38)
            for j in range(start, stop):
                value = norm + (half_norm_l[j] - product[j])
                least = value if value < least else least
            if least <= worst:
                for j in range(start, stop):
                    value = max(norm + (half_norm_l[j] - product[j]), np.float32(0))
                    if value <= worst and j != itself:
                        key = (np.int64(np.float32(value).view(np.int32)) << 32) | (first + j)
                        if key < limit:
                            if places == 1:
                                held = 0
                            keys_mp[row, held] = key
                            held += 1
                            if held == places:
                                if places > 1:
                                    held, limit = keep_lowest(keys_mp[row], held, wanted, most)
                                else:
                                    limit = key
                                worst = _distance_of(limit)
        held_m[row] = held
        limit_m[row] = limit


@njit(nogil=True, cache=True)
def _distance_of(key: int) -> Any:
    """Float32 in the upper half of a key; infinity for EMPTY."""
    if key == EMPTY:
        return np.float32(np.inf)
    return np.int32(key >> 32).view(np.float32)
