"""Pairs of cells that two methods found: one to one, within a radius.

Axes: N, M = cells of either side; P = pairs. Points are x, y (or y, x on both sides) in one unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maskless.errors import InputError, SettingsError


@dataclass(frozen=True)
class Matches:
    """One-to-one pairs of points.

    Attributes
    ----------
    a, b
        Index of each pair's points, shape (P,), rising in `a`.
    distance_px
        Distance of each pair, shape (P,), float64.
    unmatched_a, unmatched_b
        Indices of the points without a partner.
    """

    a: NDArray[np.intp]
    b: NDArray[np.intp]
    distance_px: NDArray[np.float64]
    unmatched_a: NDArray[np.intp]
    unmatched_b: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.a)

    @property
    def f1(self) -> float:
        """Harmonic mean of the matched shares of both sides; 1 where both are empty."""
        total = 2 * len(self.a) + len(self.unmatched_a) + len(self.unmatched_b)
        return 2 * len(self.a) / total if total else 1.0


def match_centres(xy_a: ArrayLike, xy_b: ArrayLike, radius_px: float) -> Matches:
    """Pair points one to one, nearest pairs first.

    The nearest pair of all is taken, then the nearest of the points left, and so on. Ties are
    broken by the index in `xy_a`, then in `xy_b`, so the result is always the same.

    Parameters
    ----------
    xy_a, xy_b
        Shapes (N, 2) and (M, 2); either may be empty.
    radius_px
        Largest distance of a pair, in the unit of the points.

    Raises
    ------
    InputError
        If the points are not finite or not of shape (N, 2).
    SettingsError
        If the radius is not a positive number.
    """
    from scipy.spatial import cKDTree

    points_a, points_b = _points(xy_a, "first"), _points(xy_b, "second")
    if not (np.isfinite(radius_px) and radius_px > 0):
        raise SettingsError(f"the radius of matching must be positive, not {radius_px}")
    near = cKDTree(points_a).sparse_distance_matrix(
        cKDTree(points_b), radius_px, output_type="ndarray"
    )
    order = np.lexsort((near["j"], near["i"], near["v"]))
    a, b = near["i"][order].astype(np.intp), near["j"][order].astype(np.intp)
    distance = near["v"][order].astype(np.float64)
    taken_a: list[NDArray[np.intp]] = []
    taken_b: list[NDArray[np.intp]] = []
    taken_distance: list[NDArray[np.float64]] = []
    # A pair that stands first for both its points is what the greedy order takes; so all such
    # pairs can be taken at once.
    while len(a):
        first = np.intersect1d(
            np.unique(a, return_index=True)[1], np.unique(b, return_index=True)[1]
        )
        taken_a.append(a[first])
        taken_b.append(b[first])
        taken_distance.append(distance[first])
        left = ~(np.isin(a, a[first]) | np.isin(b, b[first]))
        a, b, distance = a[left], b[left], distance[left]
    if taken_a:
        a, b = np.concatenate(taken_a), np.concatenate(taken_b)
        distance = np.concatenate(taken_distance)
        rising = np.argsort(a)
        a, b, distance = a[rising], b[rising], distance[rising]
    return Matches(
        a,
        b,
        distance,
        np.setdiff1d(np.arange(len(points_a), dtype=np.intp), a),
        np.setdiff1d(np.arange(len(points_b), dtype=np.intp), b),
    )


def _points(xy: ArrayLike, which: str) -> NDArray[np.float64]:
    points = np.asarray(xy, dtype=np.float64)
    if points.size == 0:
        return np.empty((0, 2))
    if points.ndim != 2 or points.shape[1] != 2:
        raise InputError(
            f"the {which} points have the wrong shape", expected="(n, 2)", found=points.shape
        )
    if not np.isfinite(points).all():
        raise InputError(f"the {which} points hold values that are not finite")
    return points
