from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from maskless.images.background import forest as module
from maskless.images.background.forest import Forest, forest_of


def trained() -> tuple[RandomForestClassifier, np.ndarray]:
    rng = np.random.default_rng(0)
    points = rng.integers(0, 6, (2000, 5)).astype(np.float32)  # many values equal to thresholds
    labels = (points[:, 0] + points[:, 1] * points[:, 2] > 9).astype(int) + (points[:, 3] > 4)
    made = RandomForestClassifier(12, max_depth=8, random_state=1, class_weight="balanced")
    return made.fit(points, labels), np.concatenate([points, points + np.float32(0.5)])


def test_probabilities_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    peer, points = trained()
    found = forest_of(peer).probabilities(points.T)
    np.testing.assert_allclose(found, peer.predict_proba(points), atol=1e-6)
    monkeypatch.setattr(module, "_LEAST_PIXELS", 700)
    monkeypatch.setattr("maskless.threads.thread_count", lambda: 3)
    np.testing.assert_array_equal(forest_of(peer).probabilities(points.T), found)


def test_another_number_of_features_is_refused() -> None:
    with pytest.raises(ValueError, match="4 features, not 5"):
        forest_of(trained()[0]).probabilities(np.zeros((4, 3), np.float32))


def test_a_feature_below_the_threshold_takes_the_first_child() -> None:
    stump = Forest(
        roots=np.array([0], np.int32),
        columns=np.array([0, -1, -1], np.int32),
        thresholds=np.array([2.0, 0, 0]),
        children=np.array([[1, 2], [0, 0], [0, 0]], np.int32),
        shares=np.array([[0, 0], [1, 0], [0.25, 0.75]]),
        features=1,
    )
    found = stump.probabilities(np.array([[1.9, 2.0, np.nan]], np.float32))
    np.testing.assert_array_equal(found, [[1, 0], [0.25, 0.75], [0.25, 0.75]])
