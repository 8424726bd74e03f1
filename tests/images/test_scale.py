from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from maskless.config import CleanSettings
from maskless.errors import InputError
from maskless.images import scale
from maskless.images.image import Channel, Image, ImageSet, Panel
from maskless.images.scale import Scaling, fit_scaling

PANEL = Panel((Channel("CD3"), Channel("CD20"), Channel("Xe131", kind="background", used=False)))


def image(name: str, seed: int = 0, size: tuple[int, int] = (30, 40)) -> Image:
    generator = np.random.default_rng(seed)
    pixels_cyx = np.stack(
        [generator.poisson(rate, size).astype(np.uint16) for rate in (1.0, 30.0, 100.0)]
    )
    return Image(name, pixels_cyx, PANEL.names, 1.0)


def one_channel(pixels_yx: NDArray[np.generic], **settings: object) -> Scaling:
    panel = Panel((Channel("A"),))
    images = ImageSet.from_images([Image("i", pixels_yx[np.newaxis], ("A",), 1.0)], panel)
    return fit_scaling(images, CleanSettings(**settings), seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["arcsinh", "percentile"])
def test_the_cohorts_percentile_becomes_one(method: str) -> None:
    images = ImageSet.from_images([image("a", 1), image("b", 2)], PANEL)
    settings = CleanSettings(scaling=method, hot_pixels=False, percentile=99)  # type: ignore[arg-type]
    scaling = fit_scaling(images, settings, seed=0)
    scaled = np.concatenate(
        [scaling.apply(i.pixels_cyx.astype(np.float32)).reshape(3, -1) for i in images], axis=1
    )
    np.testing.assert_allclose(np.percentile(scaled, 99, axis=1), 1, rtol=1e-5)


def test_the_order_of_images_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "COHORT_SAMPLE_PIXELS", 900)  # fewer than there are
    cohort = [image(name, seed) for seed, name in enumerate("abc")]
    forward = fit_scaling(ImageSet.from_images(cohort, PANEL), CleanSettings(), seed=3)
    backward = fit_scaling(ImageSet.from_images(cohort[::-1], PANEL), CleanSettings(), seed=3)
    other_seed = fit_scaling(ImageSet.from_images(cohort, PANEL), CleanSettings(), seed=4)
    assert forward == backward
    assert forward != other_seed


def test_a_large_image_weighs_no_more_than_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "COHORT_SAMPLE_PIXELS", 800)
    panel = Panel((Channel("A"),))
    ramp_yx = np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)
    small = Image("small", ramp_yx[np.newaxis], ("A",), 1.0)
    large = Image("large", np.ones((1, 200, 200), dtype=np.float32), ("A",), 1.0)
    settings = CleanSettings(scaling="percentile", percentile=60, hot_pixels=False)
    alone = fit_scaling(ImageSet.from_images([small], panel), settings, 0).tops[0]
    both = fit_scaling(ImageSet.from_images([small, large], panel), settings, 0).tops[0]
    assert alone == pytest.approx(0.6, abs=0.01)
    assert both == pytest.approx(1.0)  # half of the sample is 1; were small all, 0.6


@given(
    hnp.arrays(np.float32, (1, 6, 6), elements=st.floats(0, 1e6, width=32)),
    st.sampled_from(["arcsinh", "percentile", "none"]),
)
def test_scaling_is_monotone_finite_and_keeps_zero(
    counts_cyx: NDArray[np.float32], method: str
) -> None:
    scaling = one_channel(counts_cyx[0], scaling=method)
    scaled = scaling.apply(counts_cyx)
    order = np.argsort(counts_cyx.ravel(), kind="stable")
    assert scaled.dtype == np.float32
    assert np.isfinite(scaled).all()
    assert (np.diff(scaled.ravel()[order]) >= 0).all()
    assert (scaled[counts_cyx == 0] == 0).all()


@given(st.floats(1e-3, 1e3))
def test_the_unit_of_the_counts_does_not_matter(factor: float) -> None:
    counts_cyx = np.random.default_rng(0).gamma(0.5, 20, (1, 20, 20)).astype(np.float32)
    other_cyx = (counts_cyx * factor).astype(np.float32)
    scaled, other = (one_channel(c[0], hot_pixels=False).apply(c) for c in (counts_cyx, other_cyx))
    np.testing.assert_allclose(scaled, other, rtol=1e-4, atol=1e-6)


def test_constant_and_empty_channels_are_named_and_harmless() -> None:
    pixels_cyx = np.stack([np.zeros((5, 5)), np.full((5, 5), 7), np.arange(25).reshape(5, 5)])
    images = ImageSet.from_images([Image("i", pixels_cyx, PANEL.names, 1.0)], PANEL)
    scaling = fit_scaling(images, CleanSettings(), seed=0)
    assert scaling.empty == ("CD3", "CD20")
    assert scaling.tops[:2] == (1.0, 1.0)
    scaled = scaling.apply(pixels_cyx.astype(np.float32))
    assert (scaled[0] == 0).all()
    assert np.isfinite(scaled).all()


def test_a_rare_marker_is_not_scaled_by_its_noise() -> None:
    pixels_yx = np.zeros((100, 100), dtype=np.uint16)
    pixels_yx[0, :40] = 1  # 0.4 % single counts and 0.25 % signal: the percentile says 1
    pixels_yx[50:55, 50:55] = 20
    scaling = one_channel(pixels_yx, hot_pixels=False)
    scaled = scaling.apply(pixels_yx[np.newaxis].astype(np.float32))[0]
    assert scaled[52, 52] == pytest.approx(1)
    assert scaled[0, 0] < 0.2


def test_stained_pixels_that_the_sample_missed_still_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "COHORT_SAMPLE_PIXELS", 1)
    pixels_yx = np.zeros((50, 50), dtype=np.uint16)
    pixels_yx[7, 9] = 12
    scaling = one_channel(pixels_yx, hot_pixels=False)
    assert scaling.empty == ()
    assert scaling.apply(pixels_yx[np.newaxis].astype(np.float32)).max() == pytest.approx(1)


def test_an_aborted_acquisition_does_not_dim_the_cohort() -> None:
    aborted = Image("z", np.zeros((3, 300, 300), dtype=np.uint16), PANEL.names, 1.0)
    alone = ImageSet.from_images([image("a")], PANEL)
    both = ImageSet.from_images([image("a"), aborted], PANEL)
    first, second = (fit_scaling(images, CleanSettings(), 0) for images in (alone, both))
    assert first.tops == second.tops
    assert first.cofactors == second.cofactors


def test_a_given_cofactor_is_used() -> None:
    scaling = one_channel(np.arange(100).reshape(10, 10), cofactor=5, hot_pixels=False)
    assert scaling.cofactors == (5.0,)
    assert scaling.tops[0] == pytest.approx(np.arcsinh(np.percentile(np.arange(100), 99.7) / 5))


def test_goes_through_json_and_back() -> None:
    scaling = fit_scaling(ImageSet.from_images([image("a")], PANEL), CleanSettings(), seed=0)
    assert Scaling.from_dict(json.loads(json.dumps(scaling.to_dict()))) == scaling


@pytest.mark.parametrize(
    "damage",
    [
        {"tops": [1.0]},
        {"tops": [1.0, 0.0, 1.0]},
        {"cofactors": [1.0, float("nan"), 1.0]},
        {"method": "cube"},
        {"channels": None},
        {"percentile": "high"},
    ],
)
def test_a_damaged_scaling_is_refused(damage: dict[str, object]) -> None:
    whole = fit_scaling(ImageSet.from_images([image("a")], PANEL), CleanSettings(), 0).to_dict()
    with pytest.raises(InputError, match="scaling"):
        Scaling.from_dict(whole | damage)
    with pytest.raises(InputError, match="scaling"):
        Scaling.from_dict({k: v for k, v in whole.items() if k not in damage})


def test_an_image_with_other_channels_is_named() -> None:
    odd = Image("odd", np.zeros((2, 4, 4)), ("CD3", "CD20"), 1.0)
    with pytest.raises(InputError, match="image odd"):
        fit_scaling(ImageSet.from_images([image("a"), odd], PANEL), CleanSettings(), 0)


def test_no_images_is_an_error() -> None:
    with pytest.raises(InputError, match="no images"):
        fit_scaling(ImageSet(PANEL, {}), CleanSettings(), 0)


def test_z_counts_standard_deviations_above_the_mean_of_the_cohort() -> None:
    images = [image("one", 1), image("two", 2)]
    settings = CleanSettings(scaling="z", percentile=100)
    scaling = fit_scaling(ImageSet.from_images(images, PANEL), settings, 0)
    counts_n = np.concatenate([i.pixels_cyx[0].ravel() for i in images]).astype(np.float64)
    expected = np.maximum((counts_n - counts_n.mean()) / counts_n.std(), 0)
    found = np.concatenate(
        [scaling.apply(i.pixels_cyx.astype(np.float32))[0].ravel() for i in images]
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)
    again = Scaling.from_dict(json.loads(json.dumps(scaling.to_dict())))
    assert again == scaling


@pytest.mark.parametrize("method", ["arcsinh", "percentile", "none", "z"])
def test_scaling_can_be_undone(method: str) -> None:
    made = image("one")
    settings = CleanSettings(scaling=method)  # type: ignore[arg-type]
    scaling = fit_scaling(ImageSet.from_images([made], PANEL), settings, 0)
    counts_cyx = made.pixels_cyx.astype(np.float32)
    pixels_cyx = scaling.apply(counts_cyx)
    linear = scaling.linear(pixels_cyx.reshape(len(counts_cyx), -1).T).T
    shown = pixels_cyx.reshape(len(counts_cyx), -1) > 0
    np.testing.assert_allclose(
        linear[shown], counts_cyx.reshape(len(counts_cyx), -1)[shown], rtol=1e-4
    )
