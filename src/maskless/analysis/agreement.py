"""How well clusters, names and representations agree with reference labels.

Axes: N = cells, D = dimensions of a representation, L = given labels, R = reference classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maskless.errors import InputError

UNKNOWN = "-1"
"""Name of the cells that PhenoGraph left in clusters too small to count."""


@dataclass(frozen=True)
class Confusion:
    """Counts of cells by given label and reference class.

    Attributes
    ----------
    counts_lr
        Shape (L, R), int64.
    labels, reference
        Sorted names of rows and columns.
    """

    counts_lr: NDArray[np.int64]
    labels: tuple[str, ...]
    reference: tuple[str, ...]

    @property
    def shares_lr(self) -> NDArray[np.float64]:
        """Counts normalised over each reference class: every column adds up to 1."""
        return np.asarray(self.counts_lr / self.counts_lr.sum(axis=0))

    def rediscovery(self) -> dict[str, float]:
        """Share of each reference class that was given the same name (Gutwein 2024, Fig. 4)."""
        shares = self.shares_lr
        return {
            name: float(shares[self.labels.index(name), r]) if name in self.labels else 0.0
            for r, name in enumerate(self.reference)
        }


def confusion(labels: ArrayLike, reference: ArrayLike) -> Confusion:
    """Count cells by given label and reference class.

    Parameters
    ----------
    labels, reference
        One entry a cell, shape (N,); compared as text.

    Raises
    ------
    InputError
        If they are empty or differ in length.
    """
    given, true = paired_text(labels, reference)
    rows, row = np.unique(given, return_inverse=True)
    columns, column = np.unique(true, return_inverse=True)
    counts = np.bincount(row * len(columns) + column, minlength=len(rows) * len(columns))
    return Confusion(
        counts.reshape(len(rows), len(columns)).astype(np.int64),
        tuple(str(name) for name in rows),
        tuple(str(name) for name in columns),
    )


@dataclass(frozen=True)
class ClassScores:
    """Agreement of given names with the reference, each reference class counting the same.

    Attributes
    ----------
    macro_f1
        Mean F1 over the reference classes.
    balanced_accuracy
        Mean share of each reference class that was named right.
    f1
        By reference class.
    """

    macro_f1: float
    balanced_accuracy: float
    f1: dict[str, float]


def class_scores(names: ArrayLike, reference: ArrayLike) -> ClassScores:
    """Score names against the reference; a name that the reference lacks counts as wrong.

    Raises
    ------
    InputError
        If the arrays are empty or differ in length.
    """
    table = confusion(names, reference)
    named = dict(zip(table.labels, table.counts_lr.sum(axis=1), strict=True))
    f1, recall = {}, []
    for r, name in enumerate(table.reference):
        right = table.counts_lr[table.labels.index(name), r] if name in table.labels else 0
        true = table.counts_lr[:, r].sum()
        f1[name] = float(2 * right / (true + named.get(name, 0)))
        recall.append(right / true)
    return ClassScores(float(np.mean(list(f1.values()))), float(np.mean(recall)), f1)


@dataclass(frozen=True)
class BestMatch:
    """Clusters named after the reference.

    Attributes
    ----------
    scores
        Of the cells that were scored.
    names
        Reference class given to each cluster.
    """

    scores: ClassScores
    names: dict[str, str]

    @property
    def macro_f1(self) -> float:
        """Macro-F1 of the named clusters."""
        return self.scores.macro_f1


def majority_names(clusters: ArrayLike, reference: ArrayLike) -> dict[str, str]:
    """Name each cluster after the reference class that most of its cells have.

    Equal votes go to the class that comes first in the alphabet. Cells of cluster ``"-1"`` stay
    unknown.
    """
    table = confusion(clusters, reference)
    winner = table.counts_lr.argmax(axis=1)
    return {
        label: table.reference[w]
        for label, w in zip(table.labels, winner, strict=True)
        if label != UNKNOWN
    }


def best_match_f1(
    clusters: ArrayLike, reference: ArrayLike, naming: ArrayLike | None = None
) -> BestMatch:
    """Name clusters by majority vote and score the names.

    Parameters
    ----------
    clusters, reference
        One entry a cell, shape (N,).
    naming
        True for the cells that vote, shape (N,); the others are scored. Without it all cells
        vote and all are scored, which flatters many small clusters.

    Raises
    ------
    InputError
        If shapes do not fit, or no cell is left to vote or to score.
    """
    given, true = paired_text(clusters, reference)
    votes = np.ones(len(given), dtype=np.bool_)
    scored = votes
    if naming is not None:
        votes = np.asarray(naming, dtype=np.bool_)
        if votes.shape != given.shape:
            raise InputError("naming does not fit", expected=given.shape, found=votes.shape)
        scored = ~votes
        if not votes.any() or not scored.any():
            raise InputError("there must be cells to name clusters from and cells to score")
    names = majority_names(given[votes], true[votes])
    named = np.array([names.get(cluster, UNKNOWN) for cluster in given[scored]], dtype=np.str_)
    return BestMatch(class_scores(named, true[scored]), names)


def held_out_f1(
    clusters: ArrayLike,
    reference: ArrayLike,
    groups: ArrayLike | None = None,
    seeds: Sequence[int] = (0, 1, 2),
) -> list[float]:
    """Macro-F1 with names from one random half, scored on the other half, one value a seed.

    Parameters
    ----------
    clusters, reference
        One entry a cell, shape (N,).
    groups
        Image or patient of each cell: whole groups vote or are scored. Without it cells are
        split.
    seeds
        One split each.

    Raises
    ------
    InputError
        If shapes do not fit or there is a single group.
    """
    given, true = paired_text(clusters, reference)
    unit = np.arange(len(given)) if groups is None else group_numbers(groups, len(given))
    scores = []
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(int(unit.max()) + 1)
        half = np.isin(unit, order[: len(order) // 2])
        scores.append(best_match_f1(given, true, half).macro_f1)
    return scores


def adjusted_rand(labels: ArrayLike, reference: ArrayLike) -> float:
    """Adjusted Rand index (Hubert & Arabie 1985); "-1" counts as a cluster of its own."""
    from sklearn.metrics import adjusted_rand_score

    given, true = paired_text(labels, reference)
    return float(adjusted_rand_score(true, given))


def adjusted_mutual_information(labels: ArrayLike, reference: ArrayLike) -> float:
    """Adjusted mutual information (Vinh 2010); "-1" counts as a cluster of its own."""
    from sklearn.metrics import adjusted_mutual_info_score

    given, true = paired_text(labels, reference)
    return float(adjusted_mutual_info_score(true, given))


def cluster_scores(
    clusters: ArrayLike,
    reference: ArrayLike,
    groups: ArrayLike | None = None,
    seeds: Sequence[int] = (0, 1, 2),
) -> dict[str, float]:
    """All scores of a clustering by name: ari, ami, macro_f1, balanced_accuracy, clusters, ...

    ``held_out_macro_f1`` (mean) and ``held_out_macro_f1_sd`` take the names from half of the
    groups; they are left out if `groups` is not given or holds one group only.
    """
    given, true = paired_text(clusters, reference)
    best = best_match_f1(given, true)
    scores = {
        "ari": adjusted_rand(given, true),
        "ami": adjusted_mutual_information(given, true),
        "macro_f1": best.scores.macro_f1,
        "balanced_accuracy": best.scores.balanced_accuracy,
        "clusters": float(len(best.names)),
        "unknown": float(np.mean(given == UNKNOWN)),
    }
    if groups is not None and len(np.unique(np.asarray(groups))) > 1:
        held_out = held_out_f1(given, true, groups, seeds)
        scores["held_out_macro_f1"] = float(np.mean(held_out))
        scores["held_out_macro_f1_sd"] = float(np.std(held_out))
    return scores


def _text(values: ArrayLike) -> NDArray[np.str_]:
    array = np.asarray(values)
    if array.dtype.kind == "O":
        array = np.array([str(v) for v in array.ravel()]).reshape(array.shape)
    return array.astype(np.str_)


def paired_text(
    labels: ArrayLike, reference: ArrayLike
) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """Both as arrays of str of the same length, at least 1."""
    given, true = _text(labels), _text(reference)
    if given.ndim != 1 or given.shape != true.shape:
        raise InputError(
            "labels and reference must be lists of the same length",
            expected=true.shape,
            found=given.shape,
        )
    if len(given) == 0:
        raise InputError("there are no cells to compare")
    return given, true


def group_numbers(groups: ArrayLike, n: int) -> NDArray[np.intp]:
    """Number of each cell's group, 0, 1, ... in alphabetical order."""
    text = _text(groups)
    if text.shape != (n,):
        raise InputError("groups do not fit the labels", expected=(n,), found=text.shape)
    names, number = np.unique(text, return_inverse=True)
    if len(names) < 2:
        raise InputError(
            "a split by group needs at least two groups",
            found=f"only {names[0]!r}",
            do="Give images or patients, or blocks of tissue from tissue_blocks()",
        )
    return number.astype(np.intp)
