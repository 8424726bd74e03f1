"""One-to-one matching of centres."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from maskless.analysis.matching import match_centres
from maskless.errors import InputError, SettingsError

points = st.integers(0, 25).flatmap(
    lambda n: arrays(np.float64, (n, 2), elements=st.integers(0, 12).map(float))
)


def greedy(a, b, radius):
    """The slow obvious way."""
    distance = np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1)).reshape(len(a), len(b))
    pairs = sorted(
        (distance[i, j], i, j)
        for i in range(len(a))
        for j in range(len(b))
        if distance[i, j] <= radius
    )
    left_a, left_b, taken = set(range(len(a))), set(range(len(b))), []
    for _, i, j in pairs:
        if i in left_a and j in left_b:
            left_a.remove(i)
            left_b.remove(j)
            taken.append((i, j))
    return sorted(taken)


@settings(max_examples=150, deadline=None)
@given(points, points, st.sampled_from([1.0, 2.5, 30.0]))
def test_equal_to_the_slow_greedy_way(a, b, radius):
    found = match_centres(a, b, radius)
    assert list(zip(found.a.tolist(), found.b.tolist(), strict=True)) == greedy(a, b, radius)
    assert sorted([*found.a, *found.unmatched_a]) == list(range(len(a)))
    assert sorted([*found.b, *found.unmatched_b]) == list(range(len(b)))
    assert (found.distance_px <= radius).all()


def test_shifted_points_find_their_own_and_far_ones_nobody():
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(0, 200, 10), np.arange(0, 200, 10)), -1).reshape(-1, 2)
    moved = grid + rng.uniform(-2, 2, grid.shape)
    order = rng.permutation(len(grid))
    found = match_centres(grid, np.vstack([moved[order], [[500.0, 500.0]]]), 4.0)
    assert len(found) == len(grid)
    assert np.array_equal(order[found.b], found.a)
    assert found.unmatched_b.tolist() == [len(grid)]
    assert 0.99 < found.f1 < 1


def test_identical_and_empty_sets():
    same = np.array([[1.0, 2.0], [5.0, 5.0]])
    assert match_centres(same, same, 1.0).f1 == 1
    assert match_centres(same, np.empty((0, 2)), 1.0).f1 == 0
    assert match_centres([], [], 1.0).f1 == 1


def test_bad_input_is_told():
    with pytest.raises(InputError, match="wrong shape"):
        match_centres(np.zeros((3, 3)), np.zeros((3, 2)), 1.0)
    with pytest.raises(InputError, match="not finite"):
        match_centres(np.zeros((3, 2)), np.full((3, 2), np.nan), 1.0)
    with pytest.raises(SettingsError, match="radius"):
        match_centres(np.zeros((3, 2)), np.zeros((3, 2)), 0.0)
