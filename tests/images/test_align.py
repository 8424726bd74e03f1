from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from maskless.config import CleanSettings
from maskless.errors import InputError
from maskless.images import Channel, Image, ImageSet, Panel, fit_scaling
from maskless.images.align import LARGEST, Alignment, levels_of, prepare_alignment, sample_column
from maskless.images.clean import clean
from maskless.report.align_plot import alignment_figure

PANEL = Panel((Channel("CD3"), Channel("DNA1", kind="nuclear"), Channel("Xe", used=False)))


def tissue(name: str, gain: float, share: float = 0.3, seed: int = 0) -> Image:
    """Blobs of one brightness; `gain` is the stain's, `share` how many cells have CD3."""
    rng = np.random.default_rng(seed)
    signal_cyx = np.zeros((3, 120, 120))
    places = rng.integers(0, 120, (2, 250))
    for channel, some in ((0, share), (1, 1.0)):
        here = places[:, rng.random(250) < some]
        signal_cyx[channel][tuple(here)] = 800
        signal_cyx[channel] = ndimage.gaussian_filter(signal_cyx[channel], 1.5)
    counts_cyx = rng.poisson(gain * signal_cyx + 0.2).astype(np.uint16)
    return Image(name, counts_cyx, PANEL.names, 1.0)


def cohort() -> ImageSet:
    return ImageSet.from_images(
        [tissue(f"r{i}", 1.0 if i % 2 else 0.5, 0.1 + 0.1 * i, i) for i in range(4)], PANEL
    )


def table(folder: Path, text: str = "image,batch\nr0,A\nr1,B\nr2,A\nr3,B\n") -> Path:
    (folder / "images.csv").write_text(text, encoding="utf-8")
    return folder


def test_batches_are_brought_to_one_level_whatever_the_share_of_cells(tmp_path: Path) -> None:
    found = prepare_alignment(cohort(), CleanSettings(align="batch"), (), table(tmp_path))
    factors = np.array([found.factors[batch] for batch in "AB"])
    np.testing.assert_allclose(factors[0] / factors[1], [2, 2, 1], rtol=0.2)
    assert factors[:, 2].tolist() == [1, 1]
    cleaned = clean(cohort(), CleanSettings(align="batch", scaling="none"), folder=tmp_path)
    levels = np.array([levels_of(image.pixels_cyx, 1.0)[:2] for image in cleaned])
    plain = clean(cohort(), CleanSettings(scaling="none"))
    before = np.array([levels_of(image.pixels_cyx, 1.0)[:2] for image in plain])
    assert (levels.std(axis=0) / levels.mean(axis=0) < 0.15).all()
    assert (before.std(axis=0) / before.mean(axis=0) > 0.3).all()


def test_images_one_by_one_and_new_ones_onto_the_cohort() -> None:
    settings = CleanSettings(align="image")
    known = prepare_alignment(cohort(), settings)
    new = tissue("new", 0.7, seed=9)
    counts_cyx = new.pixels_cyx.astype(np.float32)
    moved_cyx, told = known(new, counts_cyx)
    assert told == []
    np.testing.assert_allclose(levels_of(moved_cyx, 1.0)[:2], known.targets[:2], rtol=1e-3)
    others = ImageSet.from_images([new], PANEL)
    onto = prepare_alignment(others, settings, onto=known)
    assert onto.targets == known.targets
    np.testing.assert_allclose(onto(new, counts_cyx)[0], moved_cyx, rtol=1e-5)


def test_too_large_factors_are_held_back_and_told() -> None:
    images = ImageSet.from_images(
        [tissue("r0", 0.05), tissue("r1", 1.0, seed=1), tissue("r2", 1.0, seed=2)], PANEL
    )
    found = prepare_alignment(images, CleanSettings(align="image"))
    _, told = found(images["r0"], images["r0"].pixels_cyx.astype(np.float32))
    assert found.factors["r0"][1] == LARGEST
    assert "held back at a factor of 3: " in told[0]


def test_an_image_without_a_batch_is_left_alone_and_told(tmp_path: Path) -> None:
    found = prepare_alignment(
        cohort(), CleanSettings(align="batch"), (), table(tmp_path, "image,batch\nr0,A\nr1,B\n")
    )
    counts_cyx = tissue("r2", 1.0).pixels_cyx.astype(np.float32)
    same_cyx, told = found(tissue("r2", 1.0), counts_cyx)
    np.testing.assert_array_equal(same_cyx, counts_cyx)
    assert told == ["not aligned: images.csv does not tell its batch"]


def test_empty_and_noisy_channels_are_left_alone() -> None:
    empty = replace(tissue("r0", 1.0), pixels_cyx=np.zeros((3, 40, 40), np.uint16))
    images = ImageSet.from_images([empty, tissue("r1", 1.0)], PANEL)
    found = prepare_alignment(images, CleanSettings(align="image"))
    assert found.factors["r0"] == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, r"no table of the images to align by.*images\.csv"),
        ("image,patient\nr0,A\n", "no column batch"),
        ("name,batch\nr0,A\n", "no column image"),
        ("image,batch\nother,A\n", "no image has a batch"),
        ("", "no column"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        table(tmp_path, text)
    with pytest.raises(InputError, match=said):
        sample_column(tmp_path / "images.csv", "batch", ("r0", "r1"))


def test_tables_of_every_dialect(tmp_path: Path) -> None:
    file = tmp_path / "images.csv"
    for delimiter in ",;\t":
        rows = [["Image", " batch "], ["r0", "Tag 1"], ["r1", ""]]
        text = "\r\n".join(delimiter.join(row) for row in rows)
        file.write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert sample_column(file, "batch", ("r0", "r1")) == {"r0": "Tag 1"}


def test_goes_through_json_and_back() -> None:
    found = prepare_alignment(cohort(), CleanSettings(align="image"))
    again = Alignment.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
    np.testing.assert_array_equal(again.targets, found.targets)
    assert again.factors == found.factors
    with pytest.raises(InputError, match="not a stored alignment"):
        Alignment.from_dict({"by": "image"})


def test_the_figure_draws_every_dialect_of_scaling(tmp_path: Path) -> None:
    for scaling in ("arcsinh", "z"):
        settings = CleanSettings(align="image", scaling=scaling)
        alignment = prepare_alignment(cohort(), settings)
        fitted = fit_scaling(cohort(), settings, 0, (alignment,))
        figure = alignment_figure(clean(cohort(), settings), alignment, fitted)
        assert len(figure.axes) == 4  # two channels, before and after


def test_a_study_aligns_by_a_column_and_is_stale_when_it_changes(tmp_path: Path) -> None:
    from maskless.freshness import is_fresh
    from maskless.running import run_study
    from maskless.simulate import simulate
    from maskless.storage import read_json
    from studies import make_study

    raw = simulate(tmp_path / "tissue", "demo", images=2, size_px=96)
    study = make_study(tmp_path / "study", raw, clean={"align": "batch"})
    with pytest.raises(InputError, match="no table of the images"):
        run_study(study.folder, last="clean")
    names = [entry["name"] for entry in read_json(study.inventory_file)["images"]]
    table(study.folder, f"image,batch\n{names[0]},A\n{names[1]},B\n")
    run_study(study.folder, last="clean")
    assert is_fresh(study, "clean")
    assert set(read_json(study.scaling_file)["alignment"]["factors"]) == {"A", "B"}
    table(study.folder, f"image,batch\n{names[0]},A\n{names[1]},A\n")
    assert not is_fresh(study, "clean")
