"""Nearest neighbours of many points through inverted lists of int8 codes.

1. Codes (:mod:`maskless.analysis.codes`).
2. Lists: k-means of a sample; each point belongs to the list of its nearest centre.
3. Effort: a sample of queries is compared with every code, and the nearest codes are ranked by the
   exact distance of their points. So many lists are searched for each query that the given share of
   these neighbours is in there.
4. Candidates: each query is compared with the codes of the lists whose centres are nearest to it,
   of those about the nearest one.
   So many are kept that the given share of the sample's neighbours is among them.
5. The candidates are ranked by the exact distance of the points themselves.

All sums of codes are exact integers, and equal distances are ranked by number, so results do not
depend on the number of threads.

Letters of axes: n points, m queries, d dimensions, c centres (lists), p candidates in a pool.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from maskless.analysis.candidates import (
    OTHERS,
    Lists,
    Pools,
    aligned_codes,
    empty_pools,
    lowest_keys,
    norms_of,
    numbers_of,
    offer_list,
    pack,
    settle,
    tighten,
)
from maskless.analysis.codes import Coder
from maskless.analysis.parallel import parallel_map, row_ranges, single_threaded_torch
from maskless.analysis.ranking import rank_exactly
from maskless.progress import log

SAMPLE = 128
"""Queries whose neighbours tell how many lists to search and how many candidates to keep."""

_DEPTH = 512  # candidates beyond k that are ranked for the sample
_ROWS = 4096
_SEARCHED_ROWS = 1024  # their pools fit into the cache of one core
_MORE = 3  # candidates may be so many more, which lets them be chosen sooner
_CENTRE_STEPS = 4
_POINTS_PER_CENTRE = 40
_AROUND = 8  # times the searched lists: as many about the nearest one are looked through


@dataclass(frozen=True)
class Effort:
    """How hard to search.

    Attributes
    ----------
    variance
        Share of the variance that the codes keep.
    missed
        Share of the neighbours of a sample that may be in other lists than those searched.
    blurred
        Share of them that may be no candidates because codes of other points are nearer.
    most_extra
        Greatest number of candidates beyond k that are ranked by exact distance.
    """

    variance: float
    missed: float
    blurred: float
    most_extra: int


USUAL = Effort(0.9, 0.012, 0.006, 64)
THOROUGH = Effort(1.0, 0.005, 0.001, 96)


def usual_list_size(n: int) -> int:
    """Points in a list: comparing with centres and with points shall both cost little."""
    return min(512, max(64, round(0.8 * float(n**0.5))))


class NeighbourLists:
    """Points in inverted lists, to look for nearest neighbours in.

    Parameters
    ----------
    points_nd
        float32, C-contiguous, finite.
    k
        Neighbours that will be asked for.
    seed
        Of all samples and of the random turn.
    effort
        How hard to search.

    Attributes
    ----------
    order_n
        int32: the points list by list, so that near ones stand together.
    """

    def __init__(
        self, points_nd: NDArray[np.float32], k: int, seed: int, effort: Effort = USUAL
    ) -> None:
        n = len(points_nd)
        self.points_nd, self.k, self.effort = points_nd, k, effort
        self._rng = np.random.default_rng(seed)
        with single_threaded_torch():
            self.coder = Coder.fit(points_nd, effort.variance, self._rng)
            codes = self.coder.encode(points_nd)
        self.centres = _Centres(_find_centres(codes, max(1, n // usual_list_size(n)), self._rng))
        list_n = self.centres.nearest(codes)
        self.list_n = list_n
        self.order_n = np.argsort(list_n, kind="stable").astype(np.int32)
        self.codes_nd = aligned_codes(*codes.shape)
        np.take(codes, self.order_n, axis=0, out=self.codes_nd)
        sizes = np.bincount(list_n, minlength=len(self.centres))
        self.norm_n = norms_of(self.codes_nd)
        self.lists = pack(self.codes_nd, self.norm_n, np.concatenate([[0], np.cumsum(sizes)]))

    def neighbours(self, rooted: bool = True) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Nearest other points of each point: indices (n, k) and distances (n, k)."""
        n = len(self.order_n)
        places = np.sort(self._rng.choice(n, min(n, SAMPLE), replace=False))
        searched, wanted = self._needed(
            self.codes_nd[places], self.points_nd[self.order_n[places]], places
        )
        keys = self._search(self.codes_nd, self.list_n[self.order_n], searched, wanted, 0)
        return self._rank(self.points_nd, self.order_n, keys, rooted)

    def nearest(
        self, queries_md: NDArray[np.float32], rooted: bool = True
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Nearest points of other points: indices (m, k) and distances (m, k)."""
        m = len(queries_md)
        with single_threaded_torch():
            codes = self.coder.encode(queries_md)
        rows = np.sort(self._rng.choice(m, min(m, SAMPLE), replace=False))
        searched, wanted = self._needed(codes[rows], queries_md[rows])
        keys = self._search(codes, self.centres.nearest(codes), searched, wanted, OTHERS)
        return self._rank(queries_md, np.arange(m, dtype=np.int32), keys, rooted)

    def _search(
        self,
        codes_md: NDArray[np.int8],
        nearest_list_m: NDArray[np.int32],
        searched: int,
        wanted: int,
        own: int,
    ) -> NDArray[np.int64]:
        """Candidates of every code from so many lists: keys (m, wanted and a few more).

        Queries that stand together share lists: their pools and lists stay in the cache.
        """
        m = len(codes_md)
        keys = np.empty((m, wanted + _MORE), np.int64)
        log(
            f"nearest neighbours: {searched} of {len(self.centres)} lists searched for each cell, "
            f"{wanted} candidates ranked"
        )

        around_cw = self.centres.around(_AROUND * searched)

        def search_part(part: tuple[int, int]) -> None:
            start, stop = part
            codes = codes_md[start:stop]
            pools = empty_pools(stop - start, wanted)
            first = nearest_list_m[start:stop]  # prunes most
            _offer_lists(
                codes, first[:, None], np.full_like(first, -1), self.lists, pools, own + start
            )
            tighten(pools)
            # Queries that stand together have few nearest lists, and theirs are about those.
            among = np.unique(around_cw[np.unique(first)])
            others = self.centres.some_nearest(codes, searched, among)
            _offer_lists(codes, others, first, self.lists, pools, own + start)
            settle(pools, keys[start:stop])

        parallel_map(search_part, row_ranges(m, _SEARCHED_ROWS), "nearest neighbours")
        return keys

    def _rank(
        self,
        queries_md: NDArray[np.float32],
        query_order_m: NDArray[np.int32],
        keys_mw: NDArray[np.int64],
        rooted: bool,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        m = len(queries_md)
        indices = np.full((m, self.k), -1, np.int32)
        distances = np.full((m, self.k), np.inf, np.float32)
        parallel_map(
            lambda rows: rank_exactly(
                self.points_nd,
                self.order_n,
                queries_md,
                query_order_m,
                keys_mw,
                *rows,
                indices,
                distances,
                rooted,
            ),
            row_ranges(m, _ROWS),
        )
        return indices, distances

    def _needed(
        self,
        codes_sd: NDArray[np.int8],
        queries_sd: NDArray[np.float32],
        own_s: NDArray[np.intp] | None = None,
    ) -> tuple[int, int]:
        """Numbers of lists (nearest first) and of nearest codes that hold the given shares.

        `own_s` are the places of the queries, if they are points themselves.
        """
        sample, n = len(codes_sd), len(self.order_n)
        depth = min(self.k + _DEPTH, n - (own_s is not None))
        pools = empty_pools(sample, depth + (own_s is not None))
        numbers = np.arange(sample, dtype=np.int32)
        for c in range(len(self.centres)):
            offer_list(codes_sd, numbers, self.lists, c, pools, OTHERS)
        keys = lowest_keys(pools)
        if own_s is not None:
            itself = numbers_of(keys) == own_s[:, None]
            itself[~itself.any(axis=1), -1] = True
            keys = keys[~itself].reshape(sample, depth)
        indices = np.empty((sample, self.k), np.int32)
        distances = np.empty((sample, self.k), np.float32)
        rank_exactly(
            self.points_nd,
            self.order_n,
            queries_sd,
            numbers,
            keys,
            0,
            sample,
            indices,
            distances,
            False,
        )
        near = self.order_n[numbers_of(keys)]
        rank = np.concatenate(
            [np.isin(a, b).nonzero()[0] for a, b in zip(near, indices, strict=True)]
        )
        wanted = 1 + int(np.quantile(rank, 1 - self.effort.blurred, method="higher"))
        place_sc = np.argsort(self.centres.order(codes_sd), axis=1)
        lists = np.take_along_axis(place_sc, self.list_n[indices], axis=1) + 1
        searched = int(np.quantile(lists, 1 - self.effort.missed, method="higher"))
        return searched, min(max(wanted, self.k), self.k + self.effort.most_extra)


class _Centres:
    """Centres of lists, codes themselves."""

    def __init__(self, codes_cd: NDArray[np.int8]) -> None:
        self.codes_cd = codes_cd
        self.norm_c = norms_of(codes_cd)
        self._list = pack(codes_cd, self.norm_c, np.array([0, len(codes_cd)]))

    def __len__(self) -> int:
        return len(self.codes_cd)

    def nearest(self, codes_md: NDArray[np.int8]) -> NDArray[np.int32]:
        """Numbers (m,) of the nearest centres."""
        nearest = np.empty(len(codes_md), np.int32)

        def find_rows(rows: tuple[int, int]) -> None:
            nearest[slice(*rows)] = self.some_nearest(codes_md[slice(*rows)], 1)[:, 0]

        parallel_map(find_rows, row_ranges(len(codes_md), _ROWS))
        return nearest

    def some_nearest(
        self, codes_md: NDArray[np.int8], number: int, among: NDArray[np.int32] | None = None
    ) -> NDArray[np.int32]:
        """Numbers (m, number) of the nearest centres, in no order; of all, or of some of them."""
        m = len(codes_md)
        pools = empty_pools(m, number)
        centres = self._list
        if among is not None and 2 * len(among) < len(self):
            centres = pack(
                self.codes_cd[among], self.norm_c[among], np.array([0, len(among)], np.int64)
            )
        else:
            among = None
        offer_list(codes_md, np.arange(m, dtype=np.int32), centres, 0, pools, OTHERS)
        keys = np.empty((m, number), np.int64)
        settle(pools, keys)
        found = numbers_of(keys)
        return found if among is None else among[found]

    def around(self, number: int) -> NDArray[np.int32]:
        """Numbers (c, number) of the centres nearest to each, itself among them."""
        return self.some_nearest(self.codes_cd, min(number, len(self)))

    def order(self, codes_md: NDArray[np.int8]) -> NDArray[np.int64]:
        """All centres by rising distance, ties as in `nearest`."""
        products = codes_md.astype(np.int64) @ self.codes_cd.T.astype(np.int64)
        distances = (self.codes_cd.astype(np.int64) ** 2).sum(axis=1) - 2 * products
        return np.argsort(distances, axis=1, kind="stable")


def _find_centres(
    codes_nd: NDArray[np.int8], lists: int, rng: np.random.Generator
) -> NDArray[np.int8]:
    """k-means of a sample of the codes, with centres that are codes themselves."""
    n = len(codes_nd)
    sample = codes_nd[np.sort(rng.choice(n, min(n, lists * _POINTS_PER_CENTRE), replace=False))]
    centres = sample[np.sort(rng.choice(len(sample), lists, replace=False))].copy()
    for _ in range(_CENTRE_STEPS):
        nearest = _Centres(centres).nearest(sample)
        sums, counts = _sum_by_centre(sample, nearest, lists)
        centres = np.rint(sums / np.maximum(counts, 1)[:, None]).astype(np.int8)
        empty = np.flatnonzero(counts == 0)
        centres[empty] = sample[rng.choice(len(sample), len(empty), replace=False)]
    return centres[_tour(centres)]


@njit(nogil=True, cache=True)
def _tour(codes_cd: NDArray[np.int8]) -> NDArray[np.int32]:
    """Order in which each code is followed by the nearest of those that are left."""
    count, dimensions = codes_cd.shape
    left = np.arange(count).astype(np.int32)
    order = np.empty(count, np.int32)
    here = 0
    for step in range(count):
        order[step] = left[here]
        code = codes_cd[left[here]]
        left[here] = left[count - 1 - step]
        here, least = 0, np.int32(2**31 - 1)
        for t in range(count - 1 - step):
            other = codes_cd[left[t]]
            total = np.int32(0)
            for d in range(dimensions):
                difference = np.int32(np.int32(code[d]) - np.int32(other[d]))
                total = np.int32(total + np.int32(difference * difference))
            if total < least:
                here, least = t, total
    return order


@njit(nogil=True, cache=True)
def _sum_by_centre(codes_nd: NDArray[np.int8], nearest_n: NDArray[np.int32], lists: int) -> Any:
    n, dimensions = codes_nd.shape
    sums = np.zeros((lists, dimensions), np.int64)
    counts = np.zeros(lists, np.int64)
    for i in range(n):
        counts[nearest_n[i]] += 1
        for d in range(dimensions):
            sums[nearest_n[i], d] += codes_nd[i, d]
    return sums, counts


@njit(nogil=True, cache=True)
def _offer_lists(  # type: ignore[no-untyped-def]
    codes_md: NDArray[np.int8],
    lists_mc: NDArray[np.int32],
    done_m: NDArray[np.int32],
    lists: Lists,
    pools: Pools,
    own: int,
):
    """Offer to queries the codes of their lists but one that was done before, list after list."""
    number, columns = lists_mc.shape
    ends = np.zeros(len(lists.starts_c), np.int64)
    for q in range(number):
        for j in range(columns):
            ends[lists_mc[q, j] + 1] += lists_mc[q, j] != done_m[q]
    ends = np.cumsum(ends)
    place = ends[:-1].copy()
    queries = np.empty(number * columns, np.int32)
    for q in range(number):
        for j in range(columns):
            c = lists_mc[q, j]
            if c != done_m[q]:
                queries[place[c]] = q
                place[c] += 1
    for c in range(len(ends) - 1):
        if ends[c + 1] > ends[c]:
            offer_list(codes_md, queries[ends[c] : ends[c + 1]], lists, c, pools, own)
