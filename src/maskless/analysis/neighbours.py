"""The k nearest neighbours of every point, of other points, and a check of how many were found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from maskless.analysis.all_pairs import compare_all
from maskless.analysis.neighbour_lists import THOROUGH, USUAL, NeighbourLists
from maskless.analysis.parallel import parallel_map, row_ranges
from maskless.analysis.rapids import compare_all_on_gpu, rapids_name
from maskless.errors import InputError, SettingsError
from maskless.progress import log

Metric = Literal["euclidean", "cosine"]
Device = Literal["cpu", "cuda"]

EXACT_UP_TO = 10_000
"""Up to this many points every pair is compared."""

LEAST_RECALL = 0.95
"""Below this, measured on a sample, the approximate search is done again more thoroughly."""

_CHECKED = 64
_CHECKED_ROWS = 8192


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
    device: Device = "cpu",
) -> Neighbours:
    """Find the k nearest other points of every point.

    Up to 10,000 points all pairs are compared in float32; above, candidates come from inverted
    lists (:mod:`maskless.analysis.neighbour_lists`) and are ranked by exact distance. How many
    lists are searched and how many candidates are ranked follows from the neighbours of 128 points,
    so that about 98 % of all are found whatever the number of points. 64 points are checked against
    all, and if less than 95 % of their neighbours were found (data without structure in many
    dimensions), a more thorough search follows. The result is the same with any number of threads.

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
    device
        ``"cuda"``: compare all pairs, however many, on an NVIDIA GPU with cuML (RAPIDS).

    Raises
    ------
    InputError
        If there are no more points than neighbours, values are not finite, or a point has
        length zero and therefore no direction (cosine).
    SettingsError
        If `device` is "cuda" and cuML or a GPU is missing, or finds too few.
    """
    if device not in ("cpu", "cuda"):
        raise SettingsError(f'device is "{device}"; expected "cpu" or "cuda"')
    points = _prepare(points_nd, metric)
    _check_k(k)
    n = len(points)
    if n <= k:
        raise InputError(
            f"fewer cells ({n}) than neighbours ({k}) and one",
            do="Take more cells or a smaller k",
        )
    rooted = metric == "euclidean"
    if device == "cuda":
        return _with_rapids(points, k, metric, seed)
    if exact is None:
        exact = n <= EXACT_UP_TO
    if exact:
        indices, distances = compare_all(points, points, k, skip_self=True, rooted=rooted)
    else:
        rows = np.random.default_rng(seed).choice(n, min(n, _CHECKED), replace=False)
        _, true_distances = _find_others(points, rows, k, rooted)
        for effort in (USUAL, THOROUGH):
            lists = NeighbourLists(points, k, seed, effort)
            indices, distances = lists.neighbours(rooted)
            incomplete = np.flatnonzero(indices[:, -1] < 0)
            if len(incomplete):
                indices[incomplete], distances[incomplete] = _find_others(
                    points, incomplete, k, rooted
                )
            recall = _share_near(distances[rows], true_distances[:, -1])
            log(f"nearest neighbours: {recall:.1%} of the true ones found ({_CHECKED} checked)")
            if recall >= LEAST_RECALL:
                break
        return Neighbours(indices, _halved(distances, metric), lists.order_n)
    return Neighbours(indices, _halved(distances, metric))


def _with_rapids(points: NDArray[np.float32], k: int, metric: Metric, seed: int) -> Neighbours:
    log(f"nearest neighbours: all pairs compared by {rapids_name()}")
    indices, distances = compare_all_on_gpu(points, k, rooted=metric == "euclidean")
    # As on the CPU, what follows is faster with near cells side by side.
    order = NeighbourLists(points, k, seed).order_n if len(points) > EXACT_UP_TO else None
    found = Neighbours(indices, _halved(distances, metric), order)
    recall = check_recall(points, found, metric, _CHECKED, seed)
    log(f"nearest neighbours: {recall:.1%} of the true ones found ({_CHECKED} checked)")
    if recall < LEAST_RECALL:
        raise SettingsError(
            f'device is "cuda", but cuML found only {recall:.1%} of the nearest neighbours. '
            'Take "cpu"'
        )
    return found


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
        indices, distances = compare_all(points, queries, k, skip_self=False, rooted=rooted)
    else:
        indices, distances = NeighbourLists(points, k, seed).nearest(queries, rooted)
        incomplete = np.flatnonzero(indices[:, -1] < 0)
        if len(incomplete):
            indices[incomplete], distances[incomplete] = compare_all(
                points, queries[incomplete], k, skip_self=False, rooted=rooted
            )
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
    _, distances = _find_others(points, rows, k, rooted)
    return _share_near(neighbours.distances_nk[rows], _halved(distances, metric)[:, -1])


def _share_near(distances_sk: NDArray[np.float32], farthest_s: NDArray[np.float32]) -> float:
    return float((distances_sk <= farthest_s[:, None] * (1 + 1e-5)).mean())


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
    if len(given) >= 2**31 - 1:
        raise InputError("too many cells for one search", found=len(given))
    with np.errstate(over="ignore"):
        points = np.ascontiguousarray(given, np.float32)
    first_bad = min(
        parallel_map(
            lambda rows: _first_bad(points, *rows), row_ranges(len(points), _CHECKED_ROWS)
        ),
        default=len(points),
    )
    if first_bad < len(points):
        raise InputError(
            "points hold values that are not finite, or beyond 1e15",
            found=f"first in row {first_bad}",
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


def _find_others(
    points: NDArray[np.float32], rows_s: NDArray[np.intp], k: int, rooted: bool
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Compare some of the points with all others."""
    found, distances = compare_all(points, points[rows_s], k + 1, skip_self=False, rooted=rooted)
    # The point itself goes; where equal points hid it, the farthest goes.
    itself = found == rows_s[:, None]
    itself[~itself.any(axis=1), -1] = True
    return found[~itself].reshape(-1, k), distances[~itself].reshape(-1, k)


@njit(nogil=True, cache=True)
def _first_bad(points_nd: NDArray[np.float32], start: int, stop: int) -> Any:
    """First of these rows with a value that is not below 1e15; the number of rows if there is none.

    Squares must stay far from the end of float32's range.
    """
    dimensions = points_nd.shape[1]
    for i in range(start, stop):
        good = True
        for d in range(dimensions):
            good &= np.abs(points_nd[i, d]) < np.float32(1e15)
        if not good:
            return i
    return len(points_nd)
