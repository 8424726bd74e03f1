from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from maskless.errors import InputError
from maskless.images.background import filters
from maskless.images.background.filters import (
    FEATURE_KINDS,
    Feature,
    feature_count,
    feature_strips,
    gaussian_kernel,
    least_size,
)

ALL = [Feature(kind, scale) for kind in FEATURE_KINDS for scale in (0.7, 1.0, 3.5)]


def features_of(planes_cyx: NDArray[np.float32], features: list[Feature]) -> NDArray[np.float32]:
    return np.concatenate([strip for _, strip in feature_strips(planes_cyx, features)], axis=1)


def noise(channels: int = 2, shape: tuple[int, int] = (70, 41)) -> NDArray[np.float32]:
    return np.random.default_rng(3).poisson(5, (channels, *shape)).astype(np.float32)


@given(sigma=st.floats(0.4, 12), window=st.floats(1.5, 4))
def test_kernels_give_derivatives_of_polynomials(sigma: float, window: float) -> None:
    x = np.arange(-60, 61, dtype=float)
    for order in (0, 1, 2):
        kernel = gaussian_kernel(order, sigma, window)
        if len(kernel) == 1:
            continue
        middle = x[60 - len(kernel) // 2 : 61 + len(kernel) // 2]
        applied = [float(kernel @ p) for p in (np.ones_like(middle), middle, middle**2 / 2)]
        assert applied[order] == pytest.approx(1, abs=2e-4)
        assert applied[:order] == pytest.approx([0] * order, abs=2e-4)


def test_smoothing_is_the_one_of_scipy_with_these_kernels() -> None:
    plane_yx = noise(1)[0]
    wide = gaussian_kernel(0, np.sqrt(3.5**2 - 1), 3.5)
    narrow = gaussian_kernel(0, 1.0, 2.0)
    expected = plane_yx.astype(float)
    for kernel in (wide, narrow):
        for axis in (0, 1):
            expected = correlate1d(expected, kernel, axis=axis, mode="mirror")
    found = features_of(plane_yx[None], [Feature("GaussianSmoothing", 3.5)])
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)


def test_a_plane_gives_its_own_slope_and_curvature() -> None:
    y, x = np.mgrid[:60, :60].astype(np.float32)
    planes = (3 * x + 4 * y)[None], ((x - 30) ** 2 + 2 * (y - 30) ** 2)[None]
    middle = (slice(None), slice(20, 40), slice(20, 40))
    slope = features_of(planes[0], [Feature("GaussianGradientMagnitude", 2.0)])
    np.testing.assert_allclose(slope[middle], 5, rtol=1e-4)
    tensor = features_of(planes[0], [Feature("StructureTensorEigenvalues", 2.0)])
    np.testing.assert_allclose(tensor[0][20:40, 20:40], 25, rtol=1e-4)
    np.testing.assert_allclose(tensor[1][20:40, 20:40], 0, atol=2e-3)
    hessian = features_of(planes[1], [Feature("HessianOfGaussianEigenvalues", 2.0)])
    np.testing.assert_allclose(hessian[0][20:40, 20:40], 4, rtol=1e-3)
    np.testing.assert_allclose(hessian[1][20:40, 20:40], 2, rtol=1e-3)
    laplacian = features_of(planes[1], [Feature("LaplacianOfGaussian", 2.0)])
    np.testing.assert_allclose(laplacian[middle], 6, rtol=1e-3)


def test_the_order_is_feature_then_channel_then_eigenvalue() -> None:
    planes_cyx = noise(3)
    together = features_of(planes_cyx, ALL)
    assert len(together) == feature_count(ALL, 3)
    place = 0
    for feature in ALL:
        for channel in range(3):
            alone = features_of(planes_cyx[channel : channel + 1], [feature])
            np.testing.assert_array_equal(together[place : place + feature.planes], alone)
            place += feature.planes


def test_values_do_not_depend_on_how_the_rows_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    planes_cyx = noise(1, (150, 31))
    whole = features_of(planes_cyx, ALL)
    monkeypatch.setattr(filters, "_STRIP_BYTES", 1)
    strips = list(feature_strips(planes_cyx, ALL))
    assert len(strips) > 5
    np.testing.assert_array_equal(np.concatenate([s for _, s in strips], axis=1), whole)


def test_an_image_smaller_than_the_widest_filter_is_an_error() -> None:
    assert least_size(ALL) == 14
    features_of(noise(1, (14, 14)), ALL)
    with pytest.raises(InputError, match="at least 14 x 14 pixels, found 13 x 20"):
        features_of(noise(1, (13, 20)), ALL)
