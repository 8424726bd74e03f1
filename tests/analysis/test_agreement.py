"""Agreement of clusters and names with a reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score

from maskless.analysis.agreement import (
    adjusted_mutual_information,
    adjusted_rand,
    best_match_f1,
    class_scores,
    cluster_scores,
    confusion,
    held_out_f1,
    majority_names,
)
from maskless.errors import InputError

labelled = st.integers(1, 60).flatmap(
    lambda n: st.tuples(*[st.lists(st.sampled_from("abc"), min_size=n, max_size=n)] * 2)
)


@settings(max_examples=80, deadline=None)
@given(labelled)
def test_confusion_counts_every_cell_and_columns_add_up_to_one(pair):
    names, reference = pair
    table = confusion(names, reference)
    assert table.counts_lr.sum() == len(names)
    assert np.allclose(table.shares_lr.sum(axis=0), 1)
    for name, share in table.rediscovery().items():
        of_class = [
            given == name for given, true in zip(names, reference, strict=True) if true == name
        ]
        assert share == pytest.approx(np.mean(of_class))


@settings(max_examples=80, deadline=None)
@given(labelled)
def test_scores_are_those_of_scikit_learn(pair):
    names, reference = np.array(pair[0]), np.array(pair[1])
    classes = np.unique(reference)
    scores = class_scores(names, reference)
    expected = f1_score(reference, names, labels=classes, average="macro", zero_division=0)
    assert scores.macro_f1 == pytest.approx(expected)
    named = np.where(np.isin(names, classes), names, "none")
    by_class = [np.mean(named[reference == c] == c) for c in classes]
    assert scores.balanced_accuracy == pytest.approx(np.mean(by_class))
    if len(classes) > 1 and set(names) <= set(classes):
        assert scores.balanced_accuracy == pytest.approx(balanced_accuracy_score(reference, names))


def test_rediscovery_is_normalised_over_the_reference():
    reference = ["T"] * 4 + ["B"] * 2
    given_names = ["T", "T", "T", "B", "B", "other"]
    assert confusion(given_names, reference).rediscovery() == {"B": 0.5, "T": 0.75}


def test_clusters_take_the_name_of_most_of_their_cells():
    reference = np.array(["T", "T", "B", "B", "B", "B", "T"])
    clusters = np.array([0, 0, 0, 1, 1, 1, -1])
    assert majority_names(clusters, reference) == {"0": "T", "1": "B"}
    best = best_match_f1(clusters, reference)
    assert best.scores.f1["B"] == pytest.approx(2 * 3 / (3 + 4))
    assert best.scores.f1["T"] == pytest.approx(2 * 2 / (3 + 3))
    assert best.macro_f1 == pytest.approx(np.mean(list(best.scores.f1.values())))


def test_perfect_and_meaningless_clusters():
    rng = np.random.default_rng(0)
    reference = rng.choice(["T", "B", "M"], 900)
    perfect = np.unique(reference, return_inverse=True)[1]
    groups = np.arange(900) % 4
    scores = cluster_scores(perfect, reference, groups)
    for name in ("ari", "ami", "macro_f1", "balanced_accuracy", "held_out_macro_f1"):
        assert scores[name] == pytest.approx(1)
    assert scores["clusters"] == 3
    noise = cluster_scores(rng.integers(0, 3, 900), reference, groups)
    assert abs(noise["ari"]) < 0.02
    assert abs(noise["ami"]) < 0.02
    assert noise["held_out_macro_f1"] < 0.45


def test_naming_and_scoring_on_the_same_cells_flatters_many_clusters():
    rng = np.random.default_rng(1)
    reference = rng.choice(["T", "B"], 400)
    each_its_own = np.arange(400)
    assert best_match_f1(each_its_own, reference).macro_f1 == 1
    assert max(held_out_f1(each_its_own, reference)) == 0


def test_naming_cells_are_not_scored():
    reference = np.array(["T", "B", "T", "B"])
    clusters = np.array([0, 1, 1, 0])
    naming = np.array([True, True, False, False])
    assert best_match_f1(clusters, reference, naming).macro_f1 == 0
    with pytest.raises(InputError, match="cells to score"):
        best_match_f1(clusters, reference, np.ones(4, bool))


def test_indices_do_not_see_names():
    reference = ["a", "a", "b", "b", "b"]
    assert adjusted_rand([1, 1, 0, 0, 0], reference) == pytest.approx(1)
    assert adjusted_mutual_information(["x", "x", "y", "y", "y"], reference) == pytest.approx(1)


def test_bad_input_is_told():
    with pytest.raises(InputError, match="same length"):
        confusion([1, 2], [1])
    with pytest.raises(InputError, match="no cells"):
        confusion([], [])
    with pytest.raises(InputError, match="two groups"):
        held_out_f1([0, 1], ["a", "b"], groups=["r1", "r1"])
