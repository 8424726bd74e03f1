"""Nearest neighbours of many points through inverted lists of int8 codes.

1. Codes (:mod:`maskless.analysis.codes`).
2. Lists: k-means of a sample; each point belongs to the list of its nearest centre.
3. Effort: the true neighbours of a sample of queries are known; so many lists are searched for
   each query that the given share of them is in there.
4. Candidates: each query is compared with the points of the lists whose centres are nearest to it,
   then (points among themselves) with the neighbours of its neighbours.
5. The best candidates are ranked by the exact distance of the points themselves.

All sums of codes are exact integers, and equal distances are ranked by number, so results do not
depend on the number of threads.

Letters of axes: n points, m queries, d dimensions, c centres (lists), p candidates in a pool.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from maskless.analysis.all_pairs import compare_all
from maskless.analysis.candidates import (
    empty_pools,
    numbers_of,
    offer_codes,
    offer_neighbours_of_neighbours,
    pack,
    rank_exactly,
    squared_norms,
)
from maskless.analysis.codes import Coder
from maskless.analysis.integer_vectors import LANES
from maskless.analysis.parallel import parallel_map, row_ranges, single_threaded_torch
from maskless.progress import log

BREADTH = 20
SAMPLE = 128
"""Queries whose true neighbours tell how many lists to search."""

_ROWS = 4096
_CENTRE_STEPS = 4
_POINTS_PER_CENTRE = 40


@dataclass(frozen=True)
class Effort:
    """How hard to search.

    Attributes
    ----------
    variance
        Share of the variance that the codes keep.
    extra
        Candidates beyond k that are ranked by exact distance.
    missed
        Share of the true neighbours of a sample that may be in other lists than those that are
        searched; the steps after it find some of them again.
    """

    variance: float
    extra: int
    missed: float


USUAL = Effort(0.9, 16, 0.02)
THOROUGH = Effort(1.0, 80, 0.01)


def usual_list_size(n: int) -> int:
    """Points in a list: comparing with centres and with points shall both cost little."""
    return min(512, max(64, round(0.8 * float(n**0.5))))


class Known(NamedTuple):
    """True nearest neighbours of some of the points: their rows (s,) and indices (s, k)."""

    rows_s: NDArray[np.intp]
    indices_sk: NDArray[np.int32]


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
        list_n = self.centres.nearest(codes, 1)[:, 0]
        self.list_n = list_n
        self.order_n = np.argsort(list_n, kind="stable").astype(np.int32)
        self.codes_nd = codes[self.order_n]
        sizes = np.bincount(list_n, minlength=len(self.centres))
        self.starts_c = np.concatenate([[0], np.cumsum(sizes)])
        self.blocks_c = np.concatenate([[0], np.cumsum(-(-sizes // LANES))])
        self.packed, self.norms = pack(self.codes_nd, self.starts_c, self.blocks_c)

    def neighbours(
        self, known: Known, rooted: bool = True
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Nearest other points of each point: indices (n, k) and distances (n, k)."""
        place_n = np.empty(len(self.order_n), np.int32)
        place_n[self.order_n] = np.arange(len(self.order_n), dtype=np.int32)
        searched = self._lists_needed(self.codes_nd[place_n[known.rows_s]], known.indices_sk)
        pools = self._search(self.codes_nd, searched, skip_self=True)
        before = numbers_of(pools[:, :BREADTH])
        norm_n = squared_norms(self.codes_nd)
        parallel_map(
            lambda rows: offer_neighbours_of_neighbours(
                self.codes_nd, norm_n, before, pools, *rows
            ),
            row_ranges(len(pools), max(_ROWS, len(pools) // 64)),
            "neighbours of neighbours",
        )
        return self._rank(self.points_nd, self.order_n, pools, rooted)

    def nearest(
        self, queries_md: NDArray[np.float32], rooted: bool = True
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Nearest points of other points: indices (m, k) and distances (m, k)."""
        with single_threaded_torch():
            codes = self.coder.encode(queries_md)
        rows = np.sort(self._rng.choice(len(codes), min(len(codes), SAMPLE), replace=False))
        true, _ = compare_all(
            self.points_nd, queries_md[rows], self.k, skip_self=False, rooted=False
        )
        # There is no round of neighbours of neighbours here, so more lists are searched.
        searched = 2 * self._lists_needed(codes[rows], true)
        pools = self._search(codes, min(searched, len(self.centres)), skip_self=False)
        return self._rank(queries_md, np.arange(len(codes), dtype=np.int32), pools, rooted)

    def _search(
        self, codes_md: NDArray[np.int8], searched: int, skip_self: bool
    ) -> NDArray[np.int64]:
        """Fill a pool for every code from so many lists.

        Queries that stand together share lists: their pools and lists stay in the cache.
        """
        m = len(codes_md)
        lists = self.centres.nearest(codes_md, searched)
        pools = empty_pools(m, self.k + self.effort.extra)
        log(f"nearest neighbours: {searched} of {len(self.centres)} lists searched for each cell")

        def search_part(part: tuple[int, int]) -> None:
            for columns in (lists[:, :1], lists[:, 1:]):  # the nearest list first: it prunes most
                _offer_lists(
                    codes_md,
                    np.ascontiguousarray(columns[slice(*part)]),
                    part[0],
                    self.packed,
                    self.norms,
                    self.starts_c,
                    self.blocks_c,
                    pools,
                    skip_self,
                )

        parallel_map(search_part, row_ranges(m, _ROWS), "nearest neighbours")
        return pools

    def _lists_needed(self, codes_sd: NDArray[np.int8], indices_sk: NDArray[np.int32]) -> int:
        """Number of lists, nearest first, that hold the share of these true neighbours."""
        place_sc = np.argsort(self.centres.order(codes_sd), axis=1)
        needed = np.take_along_axis(place_sc, self.list_n[indices_sk], axis=1) + 1
        covered = 1 - self.effort.missed
        return int(np.quantile(needed, covered, method="higher"))

    def _rank(
        self,
        queries_md: NDArray[np.float32],
        query_order_m: NDArray[np.int32],
        pools_mp: NDArray[np.int64],
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
                pools_mp,
                *rows,
                indices,
                distances,
                rooted,
            ),
            row_ranges(m, _ROWS),
        )
        return indices, distances


class _Centres:
    """Centres of lists, codes themselves."""

    def __init__(self, codes_cd: NDArray[np.int8]) -> None:
        self.codes_cd = codes_cd
        ends = np.array([0, len(codes_cd)])
        self.packed, self.norms = pack(codes_cd, ends, -(-ends // LANES))

    def __len__(self) -> int:
        return len(self.codes_cd)

    def nearest(self, codes_md: NDArray[np.int8], number: int) -> NDArray[np.int32]:
        """Numbers (m, number) of the nearest centres, nearest first."""
        nearest = np.empty((len(codes_md), number), np.int32)

        def find_rows(rows: tuple[int, int]) -> None:
            start, stop = rows
            pools = empty_pools(stop - start, number)
            numbers = np.arange(stop - start, dtype=np.int32)
            blocks = -(-len(self) // LANES)
            codes = codes_md[start:stop]
            offer_codes(codes, numbers, self.packed, self.norms, 0, blocks, 0, pools, False)
            nearest[start:stop] = numbers_of(pools)

        parallel_map(find_rows, row_ranges(len(codes_md), _ROWS))
        return nearest

    def order(self, codes_md: NDArray[np.int8]) -> NDArray[np.int64]:
        """All centres by rising distance, ties as in `nearest`."""
        products = codes_md.astype(np.int64) @ self.codes_cd.T.astype(np.int64)
        distances = squared_norms(self.codes_cd) - 2 * products
        return np.argsort(distances, axis=1, kind="stable")


def _find_centres(
    codes_nd: NDArray[np.int8], lists: int, rng: np.random.Generator
) -> NDArray[np.int8]:
    """k-means of a sample of the codes, with centres that are codes themselves."""
    n = len(codes_nd)
    sample = codes_nd[np.sort(rng.choice(n, min(n, lists * _POINTS_PER_CENTRE), replace=False))]
    centres = sample[np.sort(rng.choice(len(sample), lists, replace=False))].copy()
    for _ in range(_CENTRE_STEPS):
        nearest = _Centres(centres).nearest(sample, 1)[:, 0]
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
    lists_qc: NDArray[np.int32],
    first_query: int,
    packed: NDArray[np.int8],
    norms: NDArray[np.int32],
    starts_c: NDArray[np.int64],
    blocks_c: NDArray[np.int64],
    pools_mp: NDArray[np.int64],
    skip_self: bool,
):
    """Offer to queries ``first_query ..`` the codes of their lists, list after list."""
    number, columns = lists_qc.shape
    ends = np.zeros(len(starts_c), np.int64)
    for q in range(number):
        for j in range(columns):
            ends[lists_qc[q, j] + 1] += 1
    ends = np.cumsum(ends)
    place = ends[:-1].copy()
    queries = np.empty(number * columns, np.int32)
    for q in range(number):
        for j in range(columns):
            c = lists_qc[q, j]
            queries[place[c]] = first_query + q
            place[c] += 1
    for c in range(len(starts_c) - 1):
        if ends[c + 1] > ends[c]:
            offer_codes(
                codes_md,
                queries[ends[c] : ends[c + 1]],
                packed,
                norms,
                blocks_c[c],
                blocks_c[c + 1],
                starts_c[c],
                pools_mp,
                skip_self,
            )
