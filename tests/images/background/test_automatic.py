from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from maskless.images.background.automatic import NOTHING, Cut, Histogram, stabilised_mean


def cut_of(*planes: NDArray[np.float32], um_per_pixel: float = 1.0) -> Cut:
    histogram = Histogram()
    for plane_yx in planes:
        histogram.add(stabilised_mean(plane_yx, um_per_pixel))
    return histogram.cut()


def spots(
    share: float, counts: float, background: float, seed: int = 0, size: int = 200
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Counts with smooth patches of signal, and where they are."""
    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.normal(size=(size, size)), 4)
    signal_yx = field > np.quantile(field, 1 - share)
    expected = background + counts * gaussian_filter(signal_yx.astype(float), 0.6)
    return rng.poisson(expected).astype(np.float32), signal_yx


@settings(max_examples=25)
@given(level=st.floats(1.0, 200.0))
def test_noise_has_a_standard_deviation_of_1_at_any_level(level: float) -> None:
    plane_yx = np.random.default_rng(1).poisson(level, (300, 300)).astype(np.float32)
    for um_per_pixel in (0.5, 1.0):
        assert stabilised_mean(plane_yx, um_per_pixel).std() == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_patches_of_signal_are_found(share: float) -> None:
    counts_yx, signal_yx = spots(share, 8, 0.5)
    p_yx = cut_of(counts_yx).probability(stabilised_mean(counts_yx, 1.0))
    assert p_yx.min() >= 0
    assert p_yx.max() <= 1
    found = p_yx > 0.5
    f1 = 2 * (found & signal_yx).sum() / (found.sum() + signal_yx.sum())
    assert f1 > (0.75 if share < 0.1 else 0.85)


@pytest.mark.parametrize("level", [0.0, 0.02, 0.5, 30.0])
def test_where_there_is_only_background_nothing_is_signal(level: float) -> None:
    plane_yx = np.random.default_rng(4).poisson(level, (300, 300)).astype(np.float32)
    found = cut_of(plane_yx).probability(stabilised_mean(plane_yx, 1.0)) > 0.5
    assert found.mean() < 1e-3


def test_the_cut_belongs_to_the_cohort() -> None:
    with_signal, signal_yx = spots(0.2, 8, 0.5)
    without, _ = spots(0.2, 0, 0.5, seed=1)
    together = cut_of(with_signal, without)
    assert together == cut_of(without, with_signal)
    assert (together.probability(stabilised_mean(without, 1.0)) > 0.5).mean() < 1e-3
    found = together.probability(stabilised_mean(with_signal, 1.0)) > 0.5
    assert (found & signal_yx).sum() > 0.85 * signal_yx.sum()


def test_no_pixels_no_signal() -> None:
    assert Histogram().cut() == NOTHING
    assert NOTHING.probability(np.array([[5e5]], np.float32)).max() < 1e-6


def test_probability_rises_with_the_mean() -> None:
    p = Cut(10.0, 2.0).probability(np.array([0, 9, 10, 11, 1e6], np.float32))
    assert (np.diff(p) > 0).all()
    assert p[2] == 0.5
