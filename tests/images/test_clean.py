from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from maskless.config import CleanSettings
from maskless.errors import InputError
from maskless.images.clean import clean, clean_image
from maskless.images.image import Channel, Image, ImageSet, Panel
from maskless.images.scale import fit_scaling

PANEL = Panel((Channel("A"), Channel("B")))


def image(name: str = "one", **changes: object) -> Image:
    pixels_cyx = np.random.default_rng(5).poisson(20, (2, 12, 9)).astype(np.float64)
    made = Image(name, pixels_cyx, PANEL.names, 1.0, Path("one.tif"), ("found earlier",))
    return replace(made, **changes)  # type: ignore[arg-type]


def cleaned(raw: Image, settings: CleanSettings | None = None) -> Image:
    return clean(ImageSet.from_images([raw], PANEL), settings)[raw.name]


def test_cleaned_pixels_are_float32_at_least_0_and_about_1_when_bright() -> None:
    result = cleaned(image())
    assert result.pixels_cyx.dtype == np.float32
    assert result.pixels_cyx.min() >= 0
    assert 0.9 < result.pixels_cyx.max() < 1.2
    assert (result.name, result.channels, result.source) == ("one", ("A", "B"), Path("one.tif"))
    assert result.problems == ("found earlier",)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_errors_naming_image_and_channel(value: float) -> None:
    raw = image()
    raw.pixels_cyx[1, 3, 4] = value
    with pytest.raises(InputError, match=r"1 pixels are NaN or infinite.*image one.*channel B"):
        cleaned(raw)


def test_negative_pixels_become_0_and_are_recorded() -> None:
    raw = image()
    raw.pixels_cyx[0, :2, 0] = -3
    result = cleaned(raw)
    assert (result.pixels_cyx[0, :2, 0] == 0).all()
    assert result.problems == ("found earlier", "2 negative pixels of A were set to 0")
    assert raw.pixels_cyx[0, 0, 0] == -3  # the input is left alone


def test_hot_pixels_go_before_the_scale_is_fitted() -> None:
    raw = image()
    raw.pixels_cyx[0, 5, 5] = 1e6
    with_filter = cleaned(raw)
    without = cleaned(raw, CleanSettings(hot_pixels=False))
    assert with_filter.pixels_cyx[0].max() < 1.3
    assert np.median(without.pixels_cyx[0]) < 0.5 * np.median(with_filter.pixels_cyx[0])
    assert with_filter.problems == ("found earlier",)


def test_a_filter_that_eats_the_image_is_reported() -> None:
    raw = image(pixels_cyx=np.random.default_rng(0).normal(4000, 300, (2, 50, 50)))
    problems = cleaned(raw, CleanSettings(hot_pixel_threshold=50)).problems
    assert len(problems) == 3
    assert "hot pixels" in problems[1]
    assert "of A" in problems[1]


def test_cleaning_is_lazy() -> None:
    loaded = []

    def load() -> Image:
        loaded.append("one")
        return image()

    images = clean(ImageSet(PANEL, {"one": load}))
    assert loaded == ["one"]  # once, for the scale
    first, second = images["one"], images["one"]
    assert len(loaded) == 3
    np.testing.assert_array_equal(first.pixels_cyx, second.pixels_cyx)


def test_a_scaling_of_other_channels_is_refused() -> None:
    images = ImageSet.from_images([image()], PANEL)
    scaling = fit_scaling(images, CleanSettings(), 0)
    with pytest.raises(InputError, match=r"image one.*expected A, B, found B, A"):
        clean_image(image(channels=("B", "A")), CleanSettings(), scaling)


@pytest.mark.parametrize("shape", [(2, 0, 5), (2, 9)])
def test_an_image_without_pixels_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="no pixels"):
        cleaned(image(pixels_cyx=np.zeros(shape)))


def test_real_counts(real_data: Path) -> None:
    pixels_cyx = tifffile.imread(real_data / "spleen_imc" / "r2" / "image.ome.tif")
    panel = Panel(tuple(Channel(f"c{i}") for i in range(len(pixels_cyx))))
    raw = Image("r2", pixels_cyx, panel.names, 1.0)
    result = clean(ImageSet.from_images([raw], panel))["r2"]
    share_bright = (result.pixels_cyx > 1).mean(axis=(1, 2))
    assert (share_bright < 0.02).all()
    assert (result.pixels_cyx.max(axis=(1, 2)) > 0.99).all()
    assert result.pixels_cyx.max() < 5  # hot pixels of 7,000 counts are gone
