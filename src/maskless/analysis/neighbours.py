"""The k nearest neighbours of every point, of other points, and a check of how many were found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maskless.analysis.candidates import FAR, empty_pools, offer, rank_exactly
from maskless.analysis.neighbour_lists import THOROUGH, USUAL, NeighbourLists
from maskless.analysis.parallel import parallel_map, row_ranges, single_threaded_torch
from maskless.analysis.products import PAD, float_products
from maskless.errors import InputError
from maskless.progress import log

Metric = Literal["euclidean", "cosine"]

EXACT_UP_TO = 20_000
"""Up to this many points every pair is compared."""

LEAST_RECALL = 0.95
"""Below this, measured on a sample, the approximate search is done again more thoroughly."""

_EXTRA_CANDIDATES = 16
_RECALL_SAMPLE = 200
_ROWS = 512
_COLUMNS = 2048


@dataclass(frozen=True)
class Neighbours:
    """Nearest neighbours, each row sorted by (distance, index).

    Attributes
    ----------
    indices_nk
        int32 row numbers of the neighbours.
    distances_nk
        float32 distances to them.
    order_n
        An order of the points (int32) in which near ones stand together, or None. Work that
        follows it finds more in the processor's cache.
    """

    indices_nk: NDArray[np.int32]
    distances_nk: NDArray[np.float32]
    order_n: NDArray[np.int32] | None = None

    @property
    def n(self) -> int:
        """Number of points."""
        return len(self.indices_nk)

    @property
    def k(self) -> int:
        """Number of neighbours of each point."""
        return int(self.indices_nk.shape[1])

    def first(self, k: int) -> Neighbours:
        """Keep the k nearest of each point only.

        Raises
        ------
        InputError
            If there are fewer than k.
        """
        if k > self.k:
            raise InputError(
                "too few neighbours were searched", expected=f"at least {k}", found=self.k
            )
        return Neighbours(
            np.ascontiguousarray(self.indices_nk[:, :k]),
            np.ascontiguousarray(self.distances_nk[:, :k]),
            self.order_n,
        )


def nearest_neighbours(
    points_nd: ArrayLike,
    k: int,
    metric: Metric = "euclidean",
    seed: int = 0,
    exact: bool | None = None,
) -> Neighbours:
    """Find the k nearest other points of every point.

    Up to 20,000 points all pairs are compared in float32; above, candidates come from inverted
    lists (:mod:`maskless.analysis.neighbour_lists`) and are ranked by exact distance. About 99 % of
    the true neighbours are found; 200 points are checked, and if it is less than 95 % (data without
    structure in many dimensions) a more thorough search follows. The result is the same with any
    number of threads.

    Parameters
    ----------
    points_nd
        n points in d dimensions, finite.
    k
        Number of neighbours, less than n. A point is never its own neighbour, not even where
        several points are the same.
    metric
        ``"euclidean"``, or ``"cosine"``: one less the cosine.
    seed
        Of the random choices of the approximate search.
    exact
        Compare all pairs (True), never (False), or by the number of points (None).

    Raises
    ------
    InputError
        If there are no more points than neighbours, values are not finite, or a point has
        length zero and therefore no direction (cosine).
    """
    points = _prepare(points_nd, metric)
    _check_k(k)
    n = len(points)
    if n <= k:
        raise InputError(
            f"fewer cells ({n}) than neighbours ({k}) and one",
            do="Take more cells or a smaller k",
        )
    rooted = metric == "euclidean"
    if exact is None:
        exact = n <= EXACT_UP_TO
    if exact:
        indices, distances = _compare_all(points, points, k, skip_self=True, rooted=rooted)
    else:
        for effort in (USUAL, THOROUGH):
            lists = NeighbourLists(points, seed, effort)
            indices, distances = lists.neighbours(k, rooted)
            _complete(points, points, indices, distances, skip_self=True, rooted=rooted)
            found = Neighbours(indices, _halved(distances, metric), lists.order_n)
            recall = check_recall(points, found, metric, _RECALL_SAMPLE, seed)
            log(f"nearest neighbours: {recall:.1%} of the true ones found (200 cells checked)")
            if recall >= LEAST_RECALL:
                break
        return found
    return Neighbours(indices, _halved(distances, metric))


def nearest_among(
    points_nd: ArrayLike,
    queries_md: ArrayLike,
    k: int,
    metric: Metric = "euclidean",
    seed: int = 0,
    exact: bool | None = None,
) -> Neighbours:
    """Find the k nearest of `points_nd` for every query; parameters as in nearest_neighbours.

    Raises
    ------
    InputError
        If there are fewer points than neighbours, dimensions differ, or values are not finite.
    """
    points, queries = _prepare(points_nd, metric), _prepare(queries_md, metric)
    _check_k(k)
    if points.shape[1] != queries.shape[1]:
        raise InputError(
            "the new points have another number of dimensions",
            expected=points.shape[1],
            found=queries.shape[1],
        )
    if len(points) < k:
        raise InputError(
            f"fewer cells ({len(points)}) than neighbours ({k})",
            do="Take more cells or a smaller k",
        )
    rooted = metric == "euclidean"
    if exact is None:
        exact = len(points) <= EXACT_UP_TO
    if exact or not len(queries):
        indices, distances = _compare_all(points, queries, k, skip_self=False, rooted=rooted)
    else:
        indices, distances = NeighbourLists(points, seed).nearest(queries, k, rooted)
        _complete(points, queries, indices, distances, skip_self=False, rooted=rooted)
    return Neighbours(indices, _halved(distances, metric))


def check_recall(
    points_nd: ArrayLike,
    neighbours: Neighbours,
    metric: Metric = "euclidean",
    sample: int = 1000,
    seed: int = 0,
) -> float:
    """Measure the share of the true nearest neighbours that `neighbours` holds, on a sample.

    A neighbour counts as true if it is no farther than the true k-th one, so that equal
    distances do not matter.

    Parameters
    ----------
    points_nd
        The points that were searched.
    neighbours
        What was found.
    metric
        As it was searched.
    sample
        How many random points to check, each against all others.
    seed
        Of the choice of points.

    Returns
    -------
    float
        Recall between 0 and 1.
    """
    points = _prepare(points_nd, metric)
    n, k, rooted = neighbours.n, neighbours.k, metric == "euclidean"
    rows = np.sort(np.random.default_rng(seed).choice(n, min(n, sample), replace=False))
    # One more than k, for the point itself (or a point in the same place) is among them.
    _, distances = _compare_all(points, points[rows], k + 1, skip_self=False, rooted=rooted)
    farthest = _halved(distances, metric)[:, -1]
    return float((neighbours.distances_nk[rows] <= farthest[:, None] * (1 + 1e-5)).mean())


def _check_k(k: int) -> None:
    if k < 1:
        raise InputError("the number of neighbours must be 1 or more", found=k)


def _prepare(points_nd: ArrayLike, metric: Metric) -> NDArray[np.float32]:
    """Check points; float32, contiguous, of unit length for the cosine."""
    if metric not in ("euclidean", "cosine"):
        raise InputError("unknown metric", expected="euclidean or cosine", found=metric)
    given = np.asarray(points_nd)
    if given.ndim != 2 or given.shape[1] < 1 or given.dtype.kind not in "fiub":
        raise InputError(
            "points must be a table of numbers",
            expected="(cells, dimensions)",
            found=f"{given.dtype} of shape {given.shape}",
        )
    if len(given) >= 2**31 - PAD:
        raise InputError("too many cells for one search", found=len(given))
    with np.errstate(over="ignore"):
        points = np.ascontiguousarray(given, np.float32)
    for start, stop in row_ranges(len(points), 65_536):
        block = points[start:stop]
        # 1e15: squares must stay far from the end of float32's range
        bad = ~(np.abs(block) < 1e15).all(axis=1)
        if bad.any():
            raise InputError(
                "points hold values that are not finite, or beyond 1e15",
                found=f"first in row {start + int(bad.argmax())}",
            )
    if metric == "cosine":
        length = np.linalg.norm(points, axis=1, keepdims=True)
        if (length == 0).any():
            raise InputError(
                "a point of length zero has no direction, so no cosine distance",
                found=f"row {int((length == 0).argmax())}",
            )
        points = points / length
    return points


def _halved(distances_nk: NDArray[np.float32], metric: Metric) -> NDArray[np.float32]:
    # |a - b|**2 = 2 - 2 cos for points of unit length
    return distances_nk / np.float32(2) if metric == "cosine" else distances_nk


def _compare_all(
    points: NDArray[np.float32],
    queries: NDArray[np.float32],
    k: int,
    *,
    skip_self: bool,
    rooted: bool,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Nearest of all points: float32 products choose k + 10 candidates, exact distances rank."""
    n, m = len(points), len(queries)
    # Centred, the products lose the fewest digits.
    mean = points.mean(axis=0, dtype=np.float64).astype(np.float32) if n else np.float32(0)
    spare = -n % PAD
    centred = np.zeros((n + spare, points.shape[1]), np.float32)
    np.subtract(points, mean, out=centred[:n])
    half_norm = np.full(n + spare, FAR, np.float32)
    half_norm[:n] = np.einsum("nd,nd->n", centred[:n], centred[:n]) / 2
    indices = np.full((m, k), -1, np.int32)
    distances = np.full((m, k), np.inf, np.float32)
    same = np.arange(n, dtype=np.int32)
    numbers = np.arange(m, dtype=np.int32)
    pools = empty_pools(m, min(k + _EXTRA_CANDIDATES, n))

    def search_rows(rows: tuple[int, int]) -> None:
        start, stop = rows
        block = queries[start:stop] - mean
        for a, b in row_ranges(n, _COLUMNS):
            end = a + -(-(b - a) // PAD) * PAD
            products = float_products(block, centred[a:end])
            offer(products, half_norm[a:end], b - a, a, numbers[start:stop], *pools, skip_self)
        rank_exactly(
            points, same, queries, numbers, pools[1], start, stop, indices, distances, rooted
        )

    with single_threaded_torch():
        parallel_map(search_rows, row_ranges(m, _ROWS))
    return indices, distances


def _complete(
    points: NDArray[np.float32],
    queries: NDArray[np.float32],
    indices_mk: NDArray[np.int32],
    distances_mk: NDArray[np.float32],
    *,
    skip_self: bool,
    rooted: bool,
) -> None:
    """Compare those queries with all points that found fewer than k in their lists."""
    k = indices_mk.shape[1]
    rows = np.flatnonzero(indices_mk[:, -1] < 0)
    if not len(rows):
        return
    found, distances = _compare_all(
        points, queries[rows], k + skip_self, skip_self=False, rooted=rooted
    )
    if skip_self:
        # The query itself goes; where equal points hid it, the farthest goes.
        itself = found == rows[:, None]
        itself[~itself.any(axis=1), -1] = True
        found = found[~itself].reshape(-1, k)
        distances = distances[~itself].reshape(-1, k)
    indices_mk[rows], distances_mk[rows] = found, distances
