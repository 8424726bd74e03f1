"""Linear and nearest-neighbour probes."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from maskless.analysis.probes import _vote, knn_probe, linear_probe, tissue_blocks
from maskless.errors import InputError


@pytest.fixture(scope="module")
def planted():
    rng = np.random.default_rng(0)
    labels = rng.choice(["a", "b", "c"], 600, p=[0.6, 0.3, 0.1])
    middle = {"a": [0, 0, 0], "b": [5, 0, 0], "c": [0, 5, 0]}
    features = np.array([middle[name] for name in labels]) + rng.normal(size=(600, 3))
    return features, labels, np.arange(600) % 4


@pytest.mark.parametrize("probe", [linear_probe, knn_probe])
def test_planted_classes_are_read_and_noise_is_not(probe, planted):
    features, labels, groups = planted
    good = probe(features, labels, groups, seeds=(0, 1))
    assert min(good.balanced_accuracy) > 0.93
    assert len(good.macro_f1) == 2
    assert set(good.by_group) == {"0", "1", "2", "3"}
    noise = probe(np.random.default_rng(1).normal(size=(600, 3)), labels, groups, seeds=(0,))
    assert noise.balanced_accuracy[0] < 0.45
    assert probe(features, labels, groups, seeds=(0, 1)) == good


@pytest.mark.parametrize("probe", [linear_probe, knn_probe])
def test_a_group_never_helps_to_predict_itself(probe):
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(4), 100)
    labels = rng.integers(0, 2, 400)
    # What tells the class inside one group says the opposite in the other groups.
    sign = np.where(groups % 2 == 0, 1, -1)
    features = (sign * (2 * labels - 1))[:, None] * 3 + rng.normal(size=(400, 1))
    scores = probe(features, labels, groups, seeds=(0,), folds=4)
    assert scores.balanced_accuracy[0] < 0.6


def test_scale_of_a_feature_does_not_matter(planted):
    features, labels, groups = planted
    scaled = features * [1, 1000, 1e-3] + 5
    assert knn_probe(scaled, labels, groups, seeds=(0,)).macro_f1[0] == pytest.approx(
        knn_probe(features, labels, groups, seeds=(0,)).macro_f1[0], abs=0.02
    )


def test_vote_is_that_of_scikit_learn():
    rng = np.random.default_rng(3)
    train, test = (rng.normal(size=(n, 4)).astype(np.float32) for n in (300, 1500))
    number = rng.integers(0, 3, 300)
    expected = KNeighborsClassifier(7).fit(train, number).predict(test)
    assert np.mean(_vote(train, number, test, 3, 7) == expected) > 0.999


def test_blocks_cut_an_image_into_equal_parts():
    xy = np.random.default_rng(4).uniform(0, 100, (1000, 2))
    blocks = tissue_blocks(xy, 3)
    size = np.bincount(blocks)
    assert len(size) == 9
    assert size.max() - size.min() <= 2
    assert xy[blocks < 3, 0].max() < xy[blocks >= 6, 0].min()


def test_bad_input_is_told(planted):
    features, labels, groups = planted
    with pytest.raises(InputError, match="two groups"):
        linear_probe(features, labels, np.zeros(600))
    with pytest.raises(InputError, match="do not fit"):
        knn_probe(features[:10], labels, groups)
    with pytest.raises(InputError, match="not finite"):
        knn_probe(features * np.nan, labels, groups)
