"""Figure of pairs of channels before and after compensation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData

import maskless as mx
from maskless.config import CleanSettings, ReportSettings
from maskless.errors import InputError
from maskless.images.image import Channel, Image, ImageSet, Panel
from maskless.report import draw_all
from maskless.report.spillover_plot import sample_spillover, spillover_figure

PANEL = Panel(
    (Channel("A", "Dy161"), Channel("B", "Dy162"), Channel("C $x_1$", "Er166"), Channel("D", ""))
)
SHARES = np.eye(4)
SHARES[0, 1], SHARES[1, 0], SHARES[2, 3] = 0.1, 0.02, 0.001


def cohort(n: int = 3) -> ImageSet:
    images = []
    for i in range(n):
        rng = np.random.default_rng(i)
        true_cp = np.zeros((4, 900))
        true_cp[:, :] = rng.gamma(0.5, [[100], [5], [50], [30]], (4, 900))
        counts_cyx = rng.poisson(SHARES.T @ true_cp).reshape(4, 30, 30)
        images.append(Image(f"i{i}", counts_cyx, PANEL.names, 1.0))
    return ImageSet.from_images(images, PANEL)


def test_pairs_are_those_from_which_a_channel_has_most_of_its_counts() -> None:
    sample = sample_spillover(cohort(), SHARES, CleanSettings(hot_pixels=False))
    assert sample.before_cp.shape == (4, 2700)
    assert (sample.after_cp <= sample.before_cp + 1e-9).all()
    assert sample.pairs() == [(0, 1)]  # B into A is below 1 %, C into D too
    assert 0.4 < sample.taken()[0, 1] < 0.8
    again = sample_spillover(cohort(), SHARES, CleanSettings(hot_pixels=False))
    assert np.array_equal(again.before_cp, sample.before_cp)


def test_the_figure_says_what_was_spilled_and_is_written(tmp_path: Path) -> None:
    figure = mx.plot.spillover(cohort(), SHARES)
    texts = [text.get_text() for text in figure.texts]
    assert "A (Dy161) into B (Dy162)" in texts
    assert any(text.startswith("10 % spills (the isotope's impurity)") for text in texts)
    assert len(figure.axes) == 2
    for suffix in (".png", ".svg"):
        mx.plot.save(figure, tmp_path / f"figure{suffix}")
        assert (tmp_path / f"figure{suffix}").stat().st_size > 1000


def test_pairs_of_ones_own_and_empty_images() -> None:
    sample = sample_spillover(cohort(), SHARES, CleanSettings())
    assert len(spillover_figure(sample, [(0, 1), (1, 0), (2, 3)]).axes) == 6
    empty = ImageSet.from_images([Image("e", np.zeros((4, 5, 5)), PANEL.names, 1.0)], PANEL)
    sample = sample_spillover(empty, SHARES, CleanSettings())
    assert sample.pairs() == []
    spillover_figure(sample, [(0, 1)])
    with pytest.raises(InputError, match="nothing spills"):
        mx.plot.spillover(cohort(), np.eye(4))


def test_the_report_shows_it_where_there_was_compensation(
    make: Callable[..., tuple[AnnData, ImageSet]], tmp_path: Path
) -> None:
    cells, _ = make(n_clusters=3, n_markers=5, n_cells=40)
    del cells.obs["cluster"], cells.obsm["X_umap"]
    sample = sample_spillover(cohort(), SHARES, CleanSettings())
    drawn = draw_all(cells, None, None, None, ReportSettings(), tmp_path, spillover=sample)
    assert set(drawn) == {"spillover"}
    assert drawn["spillover"].png.is_file()
    nothing = sample_spillover(cohort(), np.eye(4), CleanSettings())
    assert draw_all(cells, None, None, None, ReportSettings(), tmp_path, spillover=nothing) == {}
