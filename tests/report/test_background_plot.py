"""Figure of markers before and after background removal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import maskless as mx
from maskless.config import CleanSettings
from maskless.errors import InputError
from maskless.images.image import Channel, Image, ImageSet, Panel
from maskless.report.background_plot import MOST_MARKERS, background_figure, sample_background

PANEL = Panel(tuple(Channel(name) for name in ("A", "B $x$", "Nothing")))
AUTOMATIC = CleanSettings(background_removal="automatic")


def cohort() -> ImageSet:
    images = []
    for number in range(3):
        rng = np.random.default_rng(number)
        field = gaussian_filter(rng.normal(size=(2, 90, 70)), (0, 3, 3))
        expected = np.zeros((3, 90, 70))
        expected[:2] = 0.5 + 10 * (field > np.quantile(field, 0.8))
        images.append(Image(f"i{number}", rng.poisson(expected), PANEL.names, 4.0))
    return ImageSet.from_images(images, PANEL)


def test_a_sample_tells_what_is_left_of_the_whole_image() -> None:
    cleaned = mx.clean(cohort(), AUTOMATIC)["i2"]
    sample = sample_background(cohort(), cleaned, PANEL.names, AUTOMATIC)
    assert sample.before_myx.shape == (3, 50, 50)  # 200 um
    assert (sample.after_myx <= sample.before_myx).all()
    raw = cohort()["i2"].pixels_cyx
    kept = cleaned.pixels_cyx > 0
    assert sample.kept_counts[0] == pytest.approx(raw[0][kept[0]].sum() / raw[0].sum())
    assert sample.kept_pixels[1] == pytest.approx(kept[1].sum() / (raw[1] > 0).sum())
    assert np.isnan(sample.kept_counts[2])


def test_the_figure_shows_each_marker_twice(tmp_path: Path) -> None:
    figure = mx.plot.background(cohort(), AUTOMATIC, image="i1")
    texts = [text.get_text() for text in figure.texts]
    assert "Background removed in i1" in texts
    assert "empty" in texts
    assert sum(text.startswith("kept: ") for text in texts) == 2
    assert len(figure.axes) == 6
    first, second = (np.asarray(axes.images[0].get_array()) for axes in figure.axes[:2])
    assert (second[first == 0] == 0).all()
    assert 0 < (second > 0).sum() < (first > 0).sum()
    for suffix in (".png", ".svg"):
        mx.plot.save(figure, tmp_path / f"figure{suffix}")
        assert (tmp_path / f"figure{suffix}").stat().st_size > 1000


def test_of_many_markers_those_that_lost_most_are_shown() -> None:
    cleaned = mx.clean(cohort(), AUTOMATIC)["i0"]
    sample = sample_background(cohort(), cleaned, PANEL.names * 20, AUTOMATIC)
    assert len(background_figure(sample).axes) == 2 * MOST_MARKERS


def test_without_removal_there_is_nothing_to_draw() -> None:
    with pytest.raises(InputError, match="no background is removed"):
        mx.plot.background(cohort(), CleanSettings())
    with pytest.raises(InputError, match="no such image"):
        mx.plot.background(cohort(), AUTOMATIC, image="none")
