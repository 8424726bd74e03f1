"""Nearest neighbours of many points through inverted lists of int8 codes.

1. Codes: centre, keep the principal axes that hold 95 % of the variance, turn them randomly so
   that every axis carries the same spread, round to int8 with one scale.
2. Lists: k-means of a sample; each point belongs to the list of its nearest centre.
3. Candidates: each query is compared with the points of the lists whose centres are nearest to it,
   then (points among themselves) with the neighbours of its neighbours.
4. The best candidates are ranked by the exact distance of the points themselves.

All sums of codes are exact integers, work is cut by rows, and ties go to the candidate seen
first, so results do not depend on the number of threads.

Letters of axes: n points, m queries, d dimensions, c centres (lists), p candidates in a pool.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from maskless.analysis.candidates import (
    empty_pools,
    offer,
    offer_neighbours_of_neighbours,
    rank_exactly,
)
from maskless.analysis.parallel import (
    parallel_map,
    row_ranges,
    single_threaded_torch,
)
from maskless.analysis.products import PAD, int8_products
from maskless.threads import thread_count

LIST_SIZE = 1024
LEAST_CODE_DIMENSIONS = 64
MOST_CODE_DIMENSIONS = 512
BREADTH = 20
_SAMPLE = 20_000
_ROWS = 512
_COLUMNS = 2048
_CODING_ROWS = 8192
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
    lists
        Times the usual number of lists is searched.
    """

    variance: float
    extra: int
    lists: int


USUAL = Effort(0.95, 16, 1)
THOROUGH = Effort(1.0, 80, 3)


def lists_to_search(n: int) -> int:
    """Number of lists that each query is compared with; it grows so that recall does not fall."""
    return max(12, round(12 * float((n / 100_000) ** 0.42)))


@dataclass(frozen=True)
class Coder:
    """Turn points into int8 codes whose distances are those of the points, nearly."""

    mean_d: torch.Tensor
    axes_de: torch.Tensor

    @classmethod
    def fit(
        cls, points_nd: NDArray[np.float32], variance: float, rng: np.random.Generator
    ) -> Coder:
        """Find centre, axes and scale from a sample of the points."""
        n, dimensions = points_nd.shape
        rows = np.sort(rng.choice(n, min(n, _SAMPLE), replace=False))
        sample = torch.from_numpy(points_nd[rows]).double()
        mean = sample.mean(0)
        centred = sample - mean
        variances, axes = torch.linalg.eigh(centred.T @ centred)
        held = variances.flip(0).clamp(min=0).cumsum(0)
        needed = int((held < variance * held[-1]).sum()) + 1
        needed = min(max(-(-needed // 32) * 32, LEAST_CODE_DIMENSIONS), MOST_CODE_DIMENSIONS)
        kept = min(dimensions, needed)
        # Fewer dimensions are spread over more axes: their rounding errors then average out.
        coded = max(kept, LEAST_CODE_DIMENSIONS)
        turn = torch.linalg.qr(torch.from_numpy(rng.normal(size=(coded, coded))))[0][:kept]
        turn = axes.flip(1)[:, :kept] @ turn
        spread = (centred @ turn).abs().numpy()
        largest = float(np.quantile(spread, 0.9999))
        if largest == 0.0:  # nearly all points are the same
            largest = float(spread.max()) or 1.0
        return cls(mean.float(), (turn * (127.0 / largest)).float().contiguous())

    def encode(self, points_nd: NDArray[np.float32]) -> NDArray[np.int8]:
        """Code points; PAD spare rows follow, and as many spare axes as make a multiple of 32."""
        n = len(points_nd)
        coded = self.axes_de.shape[1]
        codes = np.zeros((n + PAD, -(-coded // 32) * 32), np.int8)

        def encode_rows(rows: tuple[int, int]) -> None:
            start, stop = rows
            turned = (torch.from_numpy(points_nd[start:stop]) - self.mean_d) @ self.axes_de
            codes[start:stop, :coded] = turned.round_().clamp_(-127, 127).numpy()

        parallel_map(encode_rows, row_ranges(n, _CODING_ROWS))
        return codes


class NeighbourLists:
    """Points in inverted lists, to look for nearest neighbours in.

    Parameters
    ----------
    points_nd
        float32, C-contiguous, finite.
    seed
        Of the random turn and of the k-means sample.
    effort
        How hard to search.

    Attributes
    ----------
    order_n
        int32: the points list by list, so that near ones stand together.
    """

    def __init__(self, points_nd: NDArray[np.float32], seed: int, effort: Effort = USUAL) -> None:
        rng = np.random.default_rng(seed)
        n = len(points_nd)
        self.points_nd = points_nd
        self.effort = effort
        searched = effort.lists * lists_to_search(n)
        with single_threaded_torch():
            self.coder = Coder.fit(points_nd, effort.variance, rng)
            codes = self.coder.encode(points_nd)
            self.centres_cd = _find_centres(codes[:n], max(1, n // LIST_SIZE), rng)
            self.nearest_lists_nc = _nearest_centres(
                codes, n, self.centres_cd, min(searched, len(self.centres_cd))
            )
        self.order_n = np.argsort(self.nearest_lists_nc[:, 0], kind="stable").astype(np.int32)
        self.codes_nd = np.zeros_like(codes)
        self.codes_nd[:n] = codes[self.order_n]
        sizes = np.bincount(self.nearest_lists_nc[:, 0], minlength=len(self.centres_cd))
        self.starts_c = np.concatenate([[0], np.cumsum(sizes)])
        self.half_norm_n = _half_norms(self.codes_nd)

    def neighbours(
        self, k: int, rooted: bool = True
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Nearest other points of each point: indices (n, k) and distances (n, k)."""
        n = len(self.points_nd)
        pools = empty_pools(n, k + self.effort.extra)
        with single_threaded_torch():
            self._search(self.codes_nd, self.nearest_lists_nc[self.order_n], pools, True)
        before = pools[1].copy()

        def offer_rows(rows: tuple[int, int]) -> None:
            offer_neighbours_of_neighbours(
                self.codes_nd, self.half_norm_n, before, *pools, rows[0], rows[1], min(BREADTH, k)
            )

        parallel_map(offer_rows, row_ranges(n, max(4096, n // 256)), "neighbours of neighbours")
        return self._rank(self.points_nd, self.order_n, pools[1], k, rooted)

    def nearest(
        self, queries_md: NDArray[np.float32], k: int, rooted: bool = True
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Nearest points of other points: indices (m, k) and distances (m, k)."""
        m = len(queries_md)
        pools = empty_pools(m, k + self.effort.extra)
        # There is no round of neighbours of neighbours here, so more lists are searched.
        searched = 2 * self.effort.lists * lists_to_search(len(self.points_nd))
        with single_threaded_torch():
            codes = self.coder.encode(queries_md)
            lists = _nearest_centres(codes, m, self.centres_cd, min(searched, len(self.centres_cd)))
            self._search(codes, lists, pools, False)
        return self._rank(queries_md, np.arange(m, dtype=np.int32), pools[1], k, rooted)

    def _search(
        self,
        codes_md: NDArray[np.int8],
        lists_mc: NDArray[np.int32],
        pools: tuple[NDArray[np.float32], NDArray[np.int32]],
        skip_self: bool,
    ) -> None:
        """Compare each query with the points of its lists, list after list.

        Each thread takes its own part of the queries, so no pool is written by two.
        """
        m = len(lists_mc)
        for columns in (lists_mc[:, :1], lists_mc[:, 1:]):  # the nearest list first: it prunes
            queries, ends = _invert(np.ascontiguousarray(columns), len(self.centres_cd))
            cuts = np.linspace(0, m, thread_count() * 4 + 1).astype(int)
            # bind the loop's arrays: the function is called in this turn only
            parallel_map(
                lambda part, queries=queries, ends=ends: self._search_part(  # type: ignore[misc]
                    codes_md, queries, ends, part, pools, skip_self
                ),
                list(pairwise(cuts)),
                "nearest neighbours",
            )

    def _search_part(
        self,
        codes_md: NDArray[np.int8],
        queries: NDArray[np.int32],
        ends: NDArray[np.int64],
        part: tuple[int, int],
        pools: tuple[NDArray[np.float32], NDArray[np.int32]],
        skip_self: bool,
    ) -> None:
        for centre in range(len(self.centres_cd)):
            first, last = self.starts_c[centre], self.starts_c[centre + 1]
            mine = queries[ends[centre] : ends[centre + 1]]
            mine = mine[np.searchsorted(mine, part[0]) : np.searchsorted(mine, part[1])]
            for start in range(0, len(mine), _ROWS):
                rows = mine[start : start + _ROWS]
                query_codes = codes_md[_padded(rows)]
                for a, b in row_ranges(last - first, _COLUMNS):
                    stop = first + a + -(-(b - a) // PAD) * PAD
                    offer(
                        int8_products(query_codes, self.codes_nd[first + a : stop]),
                        self.half_norm_n[first + a : stop],
                        b - a,
                        first + a,
                        rows,
                        *pools,
                        skip_self,
                    )

    def _rank(
        self,
        queries_md: NDArray[np.float32],
        query_order_m: NDArray[np.int32],
        pool_index_mp: NDArray[np.int32],
        k: int,
        rooted: bool,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        m = len(queries_md)
        indices = np.full((m, k), -1, np.int32)
        distances = np.full((m, k), np.inf, np.float32)
        parallel_map(
            lambda rows: rank_exactly(
                self.points_nd,
                self.order_n,
                queries_md,
                query_order_m,
                pool_index_mp,
                *rows,
                indices,
                distances,
                rooted,
            ),
            row_ranges(m, 4096),
        )
        return indices, distances


def _padded(rows: NDArray[np.int32]) -> NDArray[np.int32]:
    spare = -len(rows) % PAD
    return np.concatenate([rows, np.full(spare, rows[0], np.int32)]) if spare else rows


def _find_centres(
    codes_nd: NDArray[np.int8], lists: int, rng: np.random.Generator
) -> NDArray[np.int8]:
    """k-means of a sample of the codes, with centres that are codes themselves."""
    n = len(codes_nd)
    sample = codes_nd[np.sort(rng.choice(n, min(n, lists * _POINTS_PER_CENTRE), replace=False))]
    centres = sample[np.sort(rng.choice(len(sample), lists, replace=False))].copy()
    padded = np.concatenate([sample, np.zeros((PAD, sample.shape[1]), np.int8)])
    for _ in range(_CENTRE_STEPS):
        nearest = _nearest_centres(padded, len(sample), centres, 1)[:, 0]
        sums, counts = _sum_by_centre(sample, nearest, lists)
        centres = np.rint(sums / np.maximum(counts, 1)[:, None]).astype(np.int8)
        empty = np.flatnonzero(counts == 0)
        centres[empty] = sample[rng.choice(len(sample), len(empty), replace=False)]
    return centres


def _nearest_centres(
    codes_nd: NDArray[np.int8], n: int, centres_cd: NDArray[np.int8], number: int
) -> NDArray[np.int32]:
    """Numbers of the nearest centres (n, number) of the first n codes, nearest first."""
    lists = len(centres_cd)
    padded = np.concatenate([centres_cd, np.zeros((-lists % PAD, centres_cd.shape[1]), np.int8)])
    half_norm = _half_norms(padded)
    nearest = np.empty((n, number), np.int32)

    def find_rows(rows: tuple[int, int]) -> None:
        start, stop = rows
        numbers = np.arange(stop - start, dtype=np.int32)
        pools = empty_pools(stop - start, number)
        for a, b in row_ranges(lists, _COLUMNS):
            end = a + -(-(b - a) // PAD) * PAD
            products = int8_products(codes_nd[start + _padded(numbers)], padded[a:end])
            offer(products, half_norm[a:end], b - a, a, numbers, *pools, False)
        nearest[start:stop] = pools[1]

    parallel_map(find_rows, row_ranges(n, _ROWS))
    return nearest


@njit(nogil=True, cache=True)
def _half_norms(codes_nd: NDArray[np.int8]) -> NDArray[np.float32]:
    n, dimensions = codes_nd.shape
    half = np.empty(n, np.float32)
    for i in range(n):
        total = np.int32(0)
        for d in range(dimensions):
            total = np.int32(total + np.int32(np.int32(codes_nd[i, d]) * np.int32(codes_nd[i, d])))
        half[i] = np.float32(total) * np.float32(0.5)
    return half


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
def _invert(lists_mc: NDArray[np.int32], lists: int) -> Any:
    """Queries of each list in rising order, and where each list's queries start."""
    m, columns = lists_mc.shape
    ends = np.zeros(lists + 1, np.int64)
    for i in range(m):
        for j in range(columns):
            ends[lists_mc[i, j] + 1] += 1
    for c in range(lists):
        ends[c + 1] += ends[c]
    place = ends[:-1].copy()
    queries = np.empty(m * columns, np.int32)
    for i in range(m):
        for j in range(columns):
            queries[place[lists_mc[i, j]]] = i
            place[lists_mc[i, j]] += 1
    return queries, ends
