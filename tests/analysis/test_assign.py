"""Votes of neighbours, cells left out with their image, what votes are worth; whitening."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskless.analysis import nearest_neighbours
from maskless.analysis.assign import Calibration, left_out_neighbours, nearness, vote
from maskless.analysis.whitening import MOST_DIRECTIONS, Whitening
from maskless.errors import InputError


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_a_vote_is_what_counting_one_by_one_gives(k: int, labels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    voted, weight = rng.integers(-1, labels, (7, k)), rng.random((7, k)) + 0.01
    winner, share = vote(voted, weight, labels)
    for row in range(7):
        sums = [weight[row][voted[row] == label].sum() for label in range(labels)]
        assert winner[row] == int(np.argmax(sums))
        assert share[row] == pytest.approx(max(sums) / weight[row].sum(), rel=1e-5)


def test_nearer_voters_weigh_more() -> None:
    weights = nearness(np.array([[0.0, 1.0, 2.0], [0.0, 0.0, 0.0]], np.float32))
    assert weights[0].tolist() == pytest.approx([1, 0.8, 0.5])
    assert weights[1].tolist() == [1, 1, 1]


def test_neighbours_of_left_out_cells_lie_in_other_images() -> None:
    rng = np.random.default_rng(0)
    points, images = rng.normal(size=(300, 4)), np.repeat([f"i{i}" for i in range(12)], 25)
    rows, found = left_out_neighbours(points, images, 5)
    assert sorted(rows) == list(range(300))
    assert (images[found.indices_nk] != images[rows][:, None]).all()
    every = nearest_neighbours(points, 299)
    for row, indices in list(zip(rows, found.indices_nk, strict=True))[::29]:
        part = {images[i] for i in range(300)} - {images[i] for i in indices}
        others = [i for i in every.indices_nk[row] if images[i] not in part]
        assert set(indices) <= set(others[:5]) | set(indices)
        assert found.indices_nk.shape == (300, 5)
    few, again = left_out_neighbours(points, images, 5, most=40, seed=3)
    assert len(few) == again.n == 40
    with pytest.raises(InputError, match="a single image"):
        left_out_neighbours(points, np.zeros(300), 5)
    with pytest.raises(InputError, match="too few cells"):
        left_out_neighbours(points[:6], np.arange(6) % 2, 5)


@given(st.integers(0, 2**32 - 1))
def test_a_calibration_rises_and_keeps_the_mean(seed: int) -> None:
    rng = np.random.default_rng(seed)
    share = rng.random(2000).astype(np.float32)
    right = rng.random(2000) < share**2
    curve = Calibration.fit(share, right)
    found = curve.of(np.linspace(0, 1, 50))
    assert (np.diff(found) >= 0).all()
    assert found.min() > 0
    assert found.max() < 1
    assert curve.of(share).mean() == pytest.approx(right.mean(), abs=0.03)
    assert abs(float(curve.of([0.9])[0]) - 0.81) < 0.15


def test_a_calibration_of_nothing_is_the_share_itself() -> None:
    assert Calibration.fit([], []).of([0.25, 1.0]).tolist() == [0.25, 1.0]


def test_whitened_clusters_have_unit_spread_and_the_noisy_axis_counts_less() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 2000)
    points = rng.normal(size=(4000, 3)) * [10, 1, 0.5] + labels[:, None] * [0, 6, 0]
    space = Whitening.fit(points, labels)
    placed = space.of(points)
    apart = placed - np.stack([placed[labels == i].mean(axis=0) for i in (0, 1)])[labels]
    assert np.allclose(apart.std(axis=0), 1, atol=0.8)
    noisy, telling = (
        np.linalg.norm(space.of(points[:1] + step) - space.of(points[:1]))
        for step in (np.array([6.0, 0, 0]), np.array([0, 6.0, 0]))
    )
    assert telling > 3 * noisy


@pytest.mark.parametrize("labels", [np.zeros(50, int), np.arange(50)])
def test_whitening_of_odd_tables(labels: np.ndarray) -> None:
    points = np.random.default_rng(0).normal(size=(50, 60)).astype(np.float32)
    points[:, 3] = 7
    placed = Whitening.fit(points, labels).of(points)
    assert placed.shape == (50, MOST_DIRECTIONS)
    assert np.isfinite(placed).all()
    same = Whitening.fit(np.ones((5, 4)), np.zeros(5, int)).of(np.ones((5, 4)))
    assert not same.any()
