"""Probes: how much of the reference labels a simple classifier reads from a representation.

Axes: N = cells, D = dimensions, K = classes. Splits are by group, never by cell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maskless.analysis.agreement import class_scores, group_numbers, paired_text
from maskless.errors import InputError

Floats = NDArray[np.float32]
Classifier = Callable[[Floats, NDArray[np.intp], Floats, int], NDArray[np.intp]]


@dataclass(frozen=True)
class ProbeScores:
    """Scores of a probe, one value a seed; every cell is predicted once, from other groups.

    Attributes
    ----------
    balanced_accuracy, macro_f1
        One value a seed.
    by_group
        Balanced accuracy within each group, mean over seeds.
    """

    balanced_accuracy: tuple[float, ...]
    macro_f1: tuple[float, ...]
    by_group: dict[str, float]

    def summary(self) -> dict[str, float]:
        """Mean and standard deviation over seeds."""
        return {
            "balanced_accuracy": float(np.mean(self.balanced_accuracy)),
            "balanced_accuracy_sd": float(np.std(self.balanced_accuracy)),
            "macro_f1": float(np.mean(self.macro_f1)),
            "macro_f1_sd": float(np.std(self.macro_f1)),
        }


def linear_probe(
    features_nd: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike,
    seeds: Sequence[int] = (0, 1, 2),
    *,
    max_train: int = 6000,
    folds: int = 4,
) -> ProbeScores:
    """Logistic regression with balanced class weights on z-scored features.

    Parameters
    ----------
    features_nd
        Shape (N, D).
    labels, groups
        Class, and image or patient, of each cell, shape (N,).
    seeds
        Each gives the groups to folds anew and draws the training cells anew.
    max_train
        Training cells in a fold; more are sampled down.
    folds
        Groups are dealt out to so many folds (to as many as there are groups, if fewer).

    Raises
    ------
    InputError
        If shapes do not fit, a value is not finite, or there is a single group.
    """
    return _probe(_logistic, features_nd, labels, groups, seeds, max_train, folds)


def knn_probe(
    features_nd: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike,
    seeds: Sequence[int] = (0, 1, 2),
    *,
    k: int = 20,
    max_train: int = 20_000,
    folds: int = 4,
) -> ProbeScores:
    """Vote of the `k` nearest training cells on z-scored features; see :func:`linear_probe`."""

    def vote(
        train_nd: Floats, train_class: NDArray[np.intp], test_nd: Floats, classes: int
    ) -> NDArray[np.intp]:
        return _vote(train_nd, train_class, test_nd, classes, k)

    return _probe(vote, features_nd, labels, groups, seeds, max_train, folds)


def tissue_blocks(xy_px: ArrayLike, blocks: int = 2) -> NDArray[np.intp]:
    """Cut one image into `blocks` x `blocks` parts of equal numbers of cells, as groups.

    Parameters
    ----------
    xy_px
        Centres of cells, shape (N, 2).
    blocks
        Parts along each axis.

    Returns
    -------
    ndarray
        Number of the part of each cell, shape (N,).
    """
    points = np.asarray(xy_px, dtype=np.float64)
    column = _parts(points[:, 0], blocks)
    row = np.zeros(len(points), dtype=np.intp)
    for part in range(blocks):
        here = column == part
        row[here] = _parts(points[here, 1], blocks)
    return np.asarray(column * blocks + row, dtype=np.intp)


def _parts(values: NDArray[np.float64], parts: int) -> NDArray[np.intp]:
    rank = np.empty(len(values), dtype=np.intp)
    rank[np.argsort(values, kind="stable")] = np.arange(len(values))
    return np.asarray(rank * parts // max(len(values), 1), dtype=np.intp)


def _probe(
    classify: Classifier,
    features_nd: ArrayLike,
    labels: ArrayLike,
    groups: ArrayLike,
    seeds: Sequence[int],
    max_train: int,
    folds: int,
) -> ProbeScores:
    features = np.asarray(features_nd, dtype=np.float32)
    true, named_groups = paired_text(labels, groups)
    group = group_numbers(named_groups, len(true))
    if features.ndim != 2 or len(features) != len(true):
        raise InputError(
            "features do not fit the labels", expected=f"({len(true)}, D)", found=features.shape
        )
    if not np.isfinite(features).all():
        raise InputError("features hold values that are not finite")
    classes, number = np.unique(true, return_inverse=True)
    group_names = np.unique(named_groups)
    accuracies, f1s = [], []
    within: dict[str, list[float]] = {str(name): [] for name in group_names}
    for seed in seeds:
        rng = np.random.default_rng(seed)
        deal = np.empty(len(group_names), dtype=np.intp)
        deal[rng.permutation(len(group_names))] = np.arange(len(group_names))
        fold = (deal % min(folds, len(group_names)))[group]
        predicted = np.empty(len(true), dtype=np.intp)
        for f in range(int(fold.max()) + 1):
            test = fold == f
            train = np.flatnonzero(~test)
            if len(train) > max_train:
                train = np.sort(rng.choice(train, max_train, replace=False))
            mean = features[train].mean(axis=0, dtype=np.float64)
            scale = features[train].std(axis=0, dtype=np.float64)
            scale[scale < 1e-8] = 1.0
            train_nd, test_nd = (
                ((features[part] - mean) / scale).astype(np.float32) for part in (train, test)
            )
            predicted[test] = classify(train_nd, number[train], test_nd, len(classes))
        names = classes[predicted]
        scores = class_scores(names, true)
        accuracies.append(scores.balanced_accuracy)
        f1s.append(scores.macro_f1)
        for name in group_names:
            here = named_groups == name
            within[str(name)].append(class_scores(names[here], true[here]).balanced_accuracy)
    return ProbeScores(
        tuple(accuracies), tuple(f1s), {n: float(np.mean(v)) for n, v in within.items()}
    )


def _logistic(
    train_nd: Floats, train_class: NDArray[np.intp], test_nd: Floats, classes: int
) -> NDArray[np.intp]:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    if len(np.unique(train_class)) == 1:
        return np.full(len(test_nd), train_class[0], dtype=np.intp)
    model = LogisticRegression(C=0.1, class_weight="balanced", max_iter=200)
    # Its many small products take 30 times as long when threads wait for one another.
    with threadpool_limits(1), warnings.catch_warnings():
        # Stopped early is good enough for a probe, and the same for all that are compared.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train_nd, train_class)
    return np.asarray(model.predict(test_nd), dtype=np.intp)


def _vote(
    train_nd: Floats, train_class: NDArray[np.intp], test_nd: Floats, classes: int, k: int
) -> NDArray[np.intp]:
    k = min(k, len(train_nd))
    winner = np.empty(len(test_nd), dtype=np.intp)
    squared = (train_nd**2).sum(axis=1)
    for start in range(0, len(test_nd), 1024):
        part = slice(start, start + 1024)
        far = squared - 2 * (test_nd[part] @ train_nd.T)
        near = np.argpartition(far, k - 1, axis=1)[:, :k]
        votes = np.zeros((len(near), classes))
        np.add.at(votes, (np.arange(len(near))[:, None], train_class[near]), 1)
        winner[part] = votes.argmax(axis=1)
    return winner
