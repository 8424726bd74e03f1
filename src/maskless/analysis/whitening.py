"""Coordinates in which every direction counts as much as it tells clusters apart.

The distance of two embeddings is ruled by the directions in which cells of one and the same
cluster differ most (how bright a stain is). Measured in units of the spread within clusters, near
cells are of the same kind more often, and cells of a kind that was not there stand out
(``benchmarks/README.md``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maskless.analysis.parallel import row_ranges

MOST_DIRECTIONS = 40
_SHRINKAGE = 0.05
_MOST_ROWS = 200_000
_ROWS = 16_384


@dataclass(frozen=True, eq=False)
class Whitening:
    """A linear map: (points - mean) @ turn.

    Attributes
    ----------
    mean_d, turn_de
        float32; e = at most 40 directions.
    """

    mean_d: NDArray[np.float32]
    turn_de: NDArray[np.float32]

    @classmethod
    def fit(cls, points_nd: ArrayLike, labels_n: NDArray[np.integer[Any]]) -> Whitening:
        """Find the directions of largest variance, and the spread within clusters along them.

        Parameters
        ----------
        points_nd
            Cells, 1 or more.
        labels_n
            Cluster of each, from 0.
        """
        points = np.asarray(points_nd)
        some = slice(None, None, max(1, -(-len(points) // _MOST_ROWS)))
        sample, labels = np.asarray(points[some], np.float64), np.asarray(labels_n)[some]
        mean = sample.mean(axis=0)
        sample = sample - mean
        total = sample.T @ sample / len(sample)
        values, vectors = np.linalg.eigh(total)
        kept = np.flatnonzero(values > 1e-9 * max(float(values[-1]), 1e-30))[::-1][:MOST_DIRECTIONS]
        if not len(kept):
            kept = np.array([len(values) - 1])
        turn = vectors[:, kept]
        size = int(labels.max()) + 1
        counts = np.bincount(labels, minlength=size)
        turned = sample @ turn
        centres = np.stack(
            [np.bincount(labels, column, size) / np.maximum(counts, 1) for column in turned.T], 1
        )
        apart = turned - centres[labels]
        within = apart.T @ apart / len(apart)
        level = float(np.trace(within)) / len(within)
        within += np.eye(len(within)) * (_SHRINKAGE * level if level > 1e-30 else 1.0)
        turn = turn @ np.linalg.cholesky(np.linalg.inv(within))
        return cls(mean.astype(np.float32), np.ascontiguousarray(turn, np.float32))

    def of(self, points_nd: ArrayLike) -> NDArray[np.float32]:
        """Points in these coordinates, (n, e) float32, some at a time."""
        points = np.asarray(points_nd)
        placed = np.empty((len(points), self.turn_de.shape[1]), np.float32)
        for start, stop in row_ranges(len(points), _ROWS):
            placed[start:stop] = (
                np.asarray(points[start:stop], np.float32) - self.mean_d
            ) @ self.turn_de
        return placed
