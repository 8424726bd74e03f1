"""Random forests as plain arrays, and what they say of pixels.

Axes: P = pixels, F = features, K = classes, T = trees, N = nodes of all trees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from maskless.threads import share_rows

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

_BLOCK = 128  # pixels whose features stay in the cache while all trees are asked
_LEAST_PIXELS = 20_000  # that are worth a thread


@dataclass(frozen=True)
class Forest:
    """Decision trees; every tree's leaf gives the shares of the classes, and trees are averaged.

    Attributes
    ----------
    roots
        First node of each tree, shape (T,), int32.
    columns
        Feature that a node asks for, -1 at a leaf; shape (N,), int32.
    thresholds
        A feature below it goes to the first child, else to the second; (N,), float64.
    children
        Shape (N, 2), int32; always greater than the node's own number, so that every way ends.
    shares
        Of the classes at leaves; (N, K), float64.
    features
        How many it was trained on.
    """

    roots: NDArray[np.int32]
    columns: NDArray[np.int32]
    thresholds: NDArray[np.float64]
    children: NDArray[np.int32]
    shares: NDArray[np.float64]
    features: int

    @property
    def classes(self) -> int:
        """How many."""
        return int(self.shares.shape[1])

    def probabilities(self, features_fp: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probability of each class.

        Parameters
        ----------
        features_fp
            Shape (features, pixels).

        Returns
        -------
        probabilities_pk
            float32, rows sum to 1.

        Raises
        ------
        ValueError
            If there are more or fewer features than the forest was trained on.
        """
        if features_fp.shape[0] != self.features:
            raise ValueError(f"{features_fp.shape[0]} features, not {self.features}")
        result_pk = np.empty((features_fp.shape[1], self.classes), dtype=np.float32)
        features_fp = np.ascontiguousarray(features_fp, dtype=np.float32)

        def work(pixels: slice) -> None:
            _ask(
                features_fp,
                pixels.start,
                pixels.stop,
                self.roots,
                self.columns,
                self.thresholds,
                self.children,
                self.shares,
                result_pk,
            )

        share_rows(work, features_fp.shape[1], _LEAST_PIXELS)
        return result_pk


def forest_of(trained: RandomForestClassifier) -> Forest:
    """The arrays of a forest that scikit-learn trained."""
    parts = [tree.tree_ for tree in trained.estimators_]
    sizes = np.array([part.node_count for part in parts])
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int32)
    children = np.concatenate(
        [
            np.stack([part.children_left, part.children_right], axis=1) + root
            for part, root in zip(parts, roots, strict=True)
        ]
    )
    leaf = np.concatenate([part.children_left < 0 for part in parts])
    shares = np.concatenate([part.value[:, 0, :] for part in parts])
    return Forest(
        roots=roots,
        columns=np.where(leaf, -1, np.concatenate([part.feature for part in parts])).astype(
            np.int32
        ),
        # scikit-learn goes left where a feature is below the threshold or equal to it.
        thresholds=np.nextafter(np.concatenate([part.threshold for part in parts]), np.inf),
        children=np.where(leaf[:, None], 0, children).astype(np.int32),
        shares=shares / shares.sum(axis=1, keepdims=True),
        features=int(trained.n_features_in_),
    )


@njit(nogil=True, cache=True)
def _ask(
    features_fp: Any,
    start: int,
    stop: int,
    roots: Any,
    columns: Any,
    thresholds: Any,
    children: Any,
    shares: Any,
    result_pk: Any,
) -> None:
    """Average the trees for pixels start to stop.

    All pixels of a block go down a tree together, a level at a time: their ways do not wait for
    each other's, as the steps of a single way do. At a leaf a pixel stays.
    """
    count, classes = features_fp.shape[0], shares.shape[1]
    block = np.empty((_BLOCK, count), np.float32)
    at = np.empty(_BLOCK, np.int32)
    sums = np.empty((_BLOCK, classes), np.float64)
    for first in range(start, stop, _BLOCK):
        size = min(_BLOCK, stop - first)
        for f in range(count):
            for p in range(size):
                block[p, f] = features_fp[f, first + p]
        sums[:] = 0.0
        for root in roots:
            at[:size] = root
            moved = True
            while moved:
                moved = False
                for p in range(size):
                    node = at[p]
                    column = columns[node]
                    if column >= 0:
                        right = 1 - np.int32(block[p, column] < thresholds[node])
                        at[p] = children[node, right]
                        moved = True
            for p in range(size):
                for k in range(classes):
                    sums[p, k] += shares[at[p], k]
        for p in range(size):
            for k in range(classes):
                result_pk[first + p, k] = sums[p, k] / len(roots)
