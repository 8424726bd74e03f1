"""Shares of the markers in the distance of two groups: exact, additive, and where they belong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskless.config import EncoderSettings
from maskless.encoder import (
    Encoder,
    Explanation,
    explain_clusters,
    explain_difference,
    marker_shares,
)
from maskless.errors import InputError

MARKERS = ("CD3", "CD20", "CD68", "DNA")


def make(markers: tuple[str, ...] = MARKERS) -> Encoder:
    return Encoder(markers, EncoderSettings(width=4, embedding=32), seed=2)


def random_features(cells: int, seed: int, markers: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(cells, markers, 4)).astype(np.float32)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 1000), st.floats(1e-3, 1e3))
def test_shares_add_up_to_1_and_explain_the_distance(
    n_a: int, n_b: int, seed: int, scale: float
) -> None:
    encoder = make()
    a, b = random_features(n_a, seed), random_features(n_b, seed + 1)
    found = explain_difference(encoder, scale * a, scale * b)
    assert found.shares.shape == (4,)
    assert found.shares.sum() == pytest.approx(1, abs=1e-12)
    # The plain way: embed every cell, average, subtract; project each marker's part on that.
    with torch.no_grad():
        parts = [encoder.contributions_of(scale * torch.from_numpy(x)).double() for x in (a, b)]
        means = [encoder.embed_of(scale * torch.from_numpy(x)).double().mean(0) for x in (a, b)]
    difference = (means[0] - means[1]).numpy()
    by_marker = (parts[0].mean(0) - parts[1].mean(0)).numpy()
    np.testing.assert_allclose(
        found.shares, by_marker @ difference / (difference @ difference), rtol=1e-3, atol=1e-4
    )
    np.testing.assert_allclose(found.mean_a, means[0].numpy(), rtol=1e-4, atol=1e-4 * scale)
    np.testing.assert_allclose(found.mean_b, means[1].numpy(), rtol=1e-4, atol=1e-4 * scale)
    assert found.distance == pytest.approx(np.linalg.norm(difference), rel=1e-4)


def test_a_difference_in_one_marker_is_all_its_own() -> None:
    a = random_features(30, 0)
    b = a.copy()
    b[:, 2] += 1.0
    found = explain_difference(make(), a, torch.from_numpy(b))
    np.testing.assert_allclose(found.shares, [0, 0, 1, 0], atol=1e-12)
    assert found.ranked()[0][0] == "CD68"
    assert [name for name, _ in found.ranked()[:1]] == ["CD68"]
    np.testing.assert_array_equal(found.shares, marker_shares(make(), a, b))


def test_swapping_the_groups_keeps_the_shares() -> None:
    a, b = random_features(7, 0), random_features(9, 1)
    np.testing.assert_allclose(marker_shares(make(), a, b), marker_shares(make(), b, a))


def test_a_marker_that_pulls_the_groups_together_has_a_negative_share() -> None:
    encoder = make()
    with torch.no_grad():
        encoder.fusion_weight[1] = -0.5 * encoder.fusion_weight[0]
    a, b = random_features(1, 0), random_features(1, 0)
    b[:, :2] += 1.0
    shares = marker_shares(encoder, a, b)
    np.testing.assert_allclose(shares, [2, -1, 0, 0], atol=1e-6)


def test_flat_features_as_in_a_table_are_the_same() -> None:
    a, b = random_features(7, 0), random_features(9, 1)
    np.testing.assert_array_equal(
        marker_shares(make(), a, b), marker_shares(make(), a.reshape(7, -1), b.reshape(9, -1))
    )


def test_each_cluster_is_compared_with_all_other_cells() -> None:
    encoder, features = make(), random_features(60, 3)
    labels = np.array(["10", "2", "-1"])[np.arange(60) % 3]
    found = explain_clusters(encoder, features, labels)
    assert list(found) == ["-1", "10", "2"]
    for name, explanation in found.items():
        assert isinstance(explanation, Explanation)
        assert explanation.markers == MARKERS
        plain = explain_difference(encoder, features[labels == name], features[labels != name])
        np.testing.assert_allclose(explanation.shares, plain.shares, rtol=1e-9, atol=1e-12)
        assert explanation.distance == pytest.approx(plain.distance)


def test_shares_from_pixels_follow_the_marker_that_differs() -> None:
    encoder = make()
    rng = np.random.default_rng(0)
    a = rng.random((20, 4, 16, 16)).astype(np.float32)
    b = a.copy()
    b[:, 0] = 0
    shares = marker_shares(encoder, encoder.features(a), encoder.features(b))
    np.testing.assert_allclose(shares, [1, 0, 0, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (random_features(5, 0), random_features(5, 0), "same mean embedding"),
        (random_features(0, 0), random_features(5, 0), "no cells"),
        (random_features(5, 0), random_features(5, 0, 3), r"found \(5, 3, 4\)"),
        (random_features(5, 0), np.full((5, 4, 4), np.nan), "NaN"),
        (random_features(5, 0), np.zeros(16), r"expected \(cells, 4 markers, 4 features\)"),
    ],
)
def test_groups_that_cannot_be_compared_are_refused(
    a: np.ndarray, b: np.ndarray, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        explain_difference(make(), a, b)


def test_the_same_cells_in_another_order_are_the_same() -> None:
    a = random_features(1000, 0)
    with pytest.raises(InputError, match="same mean embedding"):
        explain_difference(make(), a, a[::-1])


@pytest.mark.parametrize(("labels", "message"), [(["a"] * 4, "1 cluster"), (["a"], "one label a")])
def test_labels_that_make_no_clusters_are_refused(labels: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        explain_clusters(make(), random_features(4, 0), labels)
