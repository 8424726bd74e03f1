from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from maskless.images.hot_pixels import neighbour_maximum, remove_hot_pixels

counts = hnp.arrays(
    st.sampled_from([np.uint8, np.uint16, np.float32]),
    st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)),
    elements=st.integers(0, 255),
)


def slow_filter(plane_yx: NDArray[np.generic], threshold: float) -> NDArray[np.generic]:
    """steinbock's own lines, a pixel at a time."""
    out = plane_yx.copy()
    rows, columns = plane_yx.shape
    for y in range(rows):
        for x in range(columns):
            around = [
                plane_yx[v, u]
                for v in range(max(0, y - 1), min(rows, y + 2))
                for u in range(max(0, x - 1), min(columns, x + 2))
                if (v, u) != (y, x)
            ]
            if around and float(plane_yx[y, x]) - float(max(around)) > threshold:
                out[y, x] = max(around)
    return out


@given(counts, st.floats(0, 200))
def test_equals_the_slow_filter_and_never_raises_a_value(
    pixels_cyx: NDArray[np.generic], threshold: float
) -> None:
    cleaned_cyx, changed = remove_hot_pixels(pixels_cyx, threshold)
    assert cleaned_cyx.dtype == pixels_cyx.dtype
    assert (cleaned_cyx <= pixels_cyx).all()
    np.testing.assert_array_equal(changed, (cleaned_cyx != pixels_cyx).sum(axis=(1, 2)))
    for before_yx, after_yx in zip(pixels_cyx, cleaned_cyx, strict=True):
        np.testing.assert_array_equal(after_yx, slow_filter(before_yx, threshold))


def test_equals_scipy_away_from_borders() -> None:
    plane_yx = np.random.default_rng(0).poisson(3, (40, 31)).astype(np.uint16)
    ring = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]])
    expected_yx = ndimage.maximum_filter(plane_yx, footprint=ring, mode="mirror")
    np.testing.assert_array_equal(neighbour_maximum(plane_yx), expected_yx)


def test_counting_noise_is_spared_and_faint_bursts_are_found() -> None:
    rng = np.random.default_rng(3)
    smooth_yx = ndimage.gaussian_filter(rng.random((300, 300)) ** 8, 1.5)
    counts_yx = rng.poisson(400 * smooth_yx / smooth_yx.max() + 0.3).astype(np.float32)
    assert remove_hot_pixels(counts_yx[None])[1].tolist() == [0]
    places = rng.integers(0, 300, (2, 40))
    damaged_yx = counts_yx.copy()
    around = neighbour_maximum(counts_yx)[tuple(places)]
    damaged_yx[tuple(places)] = 3 * around + 20
    cleaned_cyx, _ = remove_hot_pixels(damaged_yx[None])
    found = cleaned_cyx[0][tuple(places)] < damaged_yx[tuple(places)]
    assert found.mean() > 0.8  # but for those that stand side by side


def test_poisson_counts_of_any_level_are_hardly_ever_hot() -> None:
    levels = np.repeat([0.1, 1.0, 5.0, 20.0, 200.0, 2000.0], 100)[:, None]
    counts_yx = np.random.default_rng(0).poisson(levels * np.ones(500)).astype(np.uint16)
    assert remove_hot_pixels(counts_yx[None])[1][0] == 0
    assert remove_hot_pixels(counts_yx[None], 50)[1][0] > 0


def test_the_threshold_must_be_exceeded() -> None:
    pixels_cyx = np.zeros((1, 5, 5), dtype=np.uint16)
    pixels_cyx[0, 2, 2] = 50
    assert remove_hot_pixels(pixels_cyx, 50)[1].tolist() == [0]
    assert remove_hot_pixels(pixels_cyx, 49)[1].tolist() == [1]


def test_the_input_is_left_alone() -> None:
    pixels_cyx = np.zeros((1, 3, 3), dtype=np.uint16)
    pixels_cyx[0, 1, 1] = 1000
    remove_hot_pixels(pixels_cyx)
    assert pixels_cyx[0, 1, 1] == 1000


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float64])
def test_differences_do_not_wrap_around(dtype: type[np.generic]) -> None:
    pixels_cyx = np.full((1, 3, 3), 100, dtype=dtype)
    pixels_cyx[0, 1, 1] = 20  # far below its neighbours: not hot
    assert remove_hot_pixels(pixels_cyx, 50)[1].tolist() == [0]
