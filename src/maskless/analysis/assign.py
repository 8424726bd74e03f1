"""Labels for cells that come later: the vote of their nearest labelled cells, and what it is worth.

n = labelled cells, m = new cells, k = voters, s = labelled cells that stand in for new ones.

What a vote is worth is measured on the labelled cells: each of a sample is taken for new, with all
cells of its image left out, so that neighbours in the same tissue do not flatter it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maskless.analysis.neighbours import Neighbours, nearest_among
from maskless.analysis.parallel import row_ranges
from maskless.errors import InputError

MOST_LEFT_OUT = 20_000
"""Labelled cells that stand in for new ones, at most."""

_FOLDS = 8
_ROWS = 65_536


def vote(
    labels_mk: NDArray[np.integer[Any]], weights_mk: NDArray[np.floating[Any]], labels: int
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The label with the largest weight among the voters of each cell.

    Parameters
    ----------
    labels_mk
        Labels of the voters, from 0; those below 0 do not vote.
    weights_mk
        What each vote weighs, >= 0.
    labels
        How many labels there are, 1 or more.

    Returns
    -------
    winner_m, share_m
        The winner (the lowest of equal ones), and its share of the weight of all k voters.
    """
    m, k = labels_mk.shape
    winner_m = np.empty(m, np.intp)
    share_m = np.empty(m, np.float32)
    for start, stop in row_ranges(m, max(1, _ROWS * 32 // max(labels, k))):
        voted, weight = labels_mk[start:stop], np.asarray(weights_mk[start:stop], np.float64)
        slots = voted + np.arange(stop - start)[:, None] * labels
        votes = np.bincount(
            np.where(voted < 0, 0, slots).ravel(),
            np.where(voted < 0, 0.0, weight).ravel(),
            (stop - start) * labels,
        ).reshape(stop - start, labels)
        winner_m[start:stop] = votes.argmax(axis=1)
        total = weight.sum(axis=1)
        share_m[start:stop] = votes.max(axis=1) / np.where(total > 0, total, 1)
    return winner_m, share_m


def nearness(distances_mk: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weights of votes: 1 for a voter at no distance, falling to 1/2 for the farthest."""
    farthest = np.maximum(distances_mk[:, -1:], np.float32(1e-12))
    return np.asarray(1 / (1 + (distances_mk / farthest) ** 2), np.float32)


def left_out_neighbours(
    points_nd: ArrayLike,
    groups_n: ArrayLike,
    k: int,
    *,
    most: int = MOST_LEFT_OUT,
    seed: int = 0,
) -> tuple[NDArray[np.intp], Neighbours]:
    """Nearest neighbours of labelled cells in other images than their own.

    Parameters
    ----------
    points_nd
        Labelled cells.
    groups_n
        What is left out together: the image (or patient) of each cell. Where there are more than
        8, they are dealt out to 8 parts of about equal numbers of cells.
    k
        Neighbours; every part must leave that many cells.
    most
        Cells that are looked at, drawn at random if there are more.
    seed
        Of the draw and the search.

    Returns
    -------
    rows_s, neighbours
        Which cells, and their neighbours (rows of `points_nd`).

    Raises
    ------
    InputError
        If there is a single group, or too few cells are left.
    """
    points = np.asarray(points_nd, np.float32)
    parts = _parts(np.asarray(groups_n))
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(points), min(most, len(points)), replace=False))
    rows, indices, distances = [], [], []
    for part in range(int(parts.max()) + 1):
        mine = chosen[parts[chosen] == part]
        others = np.flatnonzero(parts != part)
        if len(others) < k:
            raise InputError(
                "too few cells are left when one image is left out",
                expected=f"at least {k}",
                found=len(others),
                do="Take fewer voters, or name more images",
            )
        found = nearest_among(points[others], points[mine], k, seed=seed)
        rows.append(mine)
        indices.append(others[found.indices_nk].astype(np.int32))
        distances.append(found.distances_nk)
    return np.concatenate(rows), Neighbours(np.concatenate(indices), np.concatenate(distances))


def _parts(groups_n: NDArray[Any]) -> NDArray[np.intp]:
    """Part of each cell: groups from the largest on, each to the part with the fewest cells."""
    names, code_n, counts = np.unique(groups_n, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise InputError("there is a single image, so none can be left out", found=len(names))
    filled = np.zeros(min(_FOLDS, len(names)), np.int64)
    part_of = np.empty(len(names), np.intp)
    for group in np.argsort(-counts, kind="stable"):
        part_of[group] = filled.argmin()
        filled[part_of[group]] += counts[group]
    return part_of[code_n]


@dataclass(frozen=True, eq=False)
class Calibration:
    """How often votes were right, by their share: rising, straight lines between the points.

    Attributes
    ----------
    shares, right
        Points of the curve, each rising.
    """

    shares: NDArray[np.float64]
    right: NDArray[np.float64]

    @classmethod
    def fit(cls, share_s: ArrayLike, right_s: ArrayLike) -> Calibration:
        """Isotonic regression (pool adjacent violators) of what was right on the share.

        Each point of the curve stands for one block of cells and is drawn a little to the mean, as
        if one more cell had been seen, so that nothing is called certain.
        """
        from sklearn.isotonic import IsotonicRegression

        share = np.asarray(share_s, np.float64)
        right = np.asarray(right_s, np.float64)
        if not len(share):
            return cls(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
        fitted = IsotonicRegression(y_min=0, y_max=1).fit(share, right).predict(share)
        block = np.unique(fitted, return_inverse=True)[1]
        size = np.bincount(block)
        centre = np.bincount(block, share) / size
        smoothed = (np.bincount(block, right) + right.mean()) / (size + 1)
        return cls(centre, np.maximum.accumulate(smoothed))

    def of(self, share_m: ArrayLike) -> NDArray[np.float32]:
        """How often such votes were right."""
        share = np.asarray(share_m, np.float64)
        return np.asarray(np.interp(share, self.shares, self.right), np.float32)
