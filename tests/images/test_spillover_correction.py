"""Spillover in the clean stage: its place among the steps, its record, what makes it stale."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import anndata
import numpy as np
import pytest

import maskless as mx
from maskless.config import CleanSettings
from maskless.errors import InputError
from maskless.freshness import is_fresh
from maskless.images.clean import clean
from maskless.images.image import Channel, Image, ImageSet, Panel
from maskless.images.spillover_csv import write_spillover
from maskless.images.spillover_matrix import SpilloverMatrix
from maskless.info import describe
from maskless.running import run_study
from maskless.simulate import simulate, spillover_matrix
from maskless.stages import spillover_sample
from maskless.storage import read_json
from studies import make_study

PANEL = Panel((Channel("A", "Dy161"), Channel("B", "Dy162"), Channel("C", "Er166")))
MATRIX = SpilloverMatrix(("Dy161", "Dy162"), ("Dy161", "Dy162"), np.array([[1, 0.1], [0.05, 1]]))
UNSCALED = CleanSettings(scaling="none")


def images() -> ImageSet:
    pixels_cyx = np.random.default_rng(2).poisson(30, (3, 20, 15)).astype(np.uint16)
    pixels_cyx[1] = np.random.default_rng(3).poisson(3, (20, 15))
    return ImageSet.from_images([Image("one", pixels_cyx, PANEL.names, 1.0)], PANEL)


def test_counts_are_compensated_before_they_are_scaled() -> None:
    raw_cyx = images()["one"].pixels_cyx
    expected_cyx = mx.compensate(raw_cyx, MATRIX.adapted(PANEL).shares_cc)
    found = clean(images(), UNSCALED, spillover=MATRIX)["one"]
    assert found.pixels_cyx.dtype == np.float32
    np.testing.assert_allclose(found.pixels_cyx, expected_cyx, rtol=1e-6)
    assert (found.pixels_cyx[1] == 0).any()
    # the scale is that of compensated counts
    scaled = clean(images(), CleanSettings(scaling="percentile"), spillover=MATRIX)["one"]
    assert 0.95 < np.percentile(scaled.pixels_cyx[1], 99.7) < 1.05


def test_hot_pixels_go_first() -> None:
    raw = images()
    raw["one"].pixels_cyx[0, 5, 5] = 5000  # it would spill 500 counts out of B
    found = clean(raw, UNSCALED, spillover=MATRIX)["one"]
    around_yx = np.median(found.pixels_cyx[1, 4:7, 4:7])
    assert found.pixels_cyx[1, 5, 5] < around_yx + 15
    assert found.pixels_cyx[0, 5, 5] < 60


def test_a_matrix_may_be_a_file_an_array_or_named_by_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "matrix.csv"
    write_spillover(MATRIX, path)
    wanted = clean(images(), spillover=MATRIX)["one"].pixels_cyx
    for spillover in (path, str(path), MATRIX.adapted(PANEL).shares_cc):
        assert np.array_equal(clean(images(), spillover=spillover)["one"].pixels_cyx, wanted)
    named = clean(images(), CleanSettings(spillover=str(path)))["one"]
    assert np.array_equal(named.pixels_cyx, wanted)
    assert not np.array_equal(clean(images())["one"].pixels_cyx, wanted)


def test_neighbours_that_the_matrix_lacks_are_a_problem_of_the_image() -> None:
    panel = Panel((*PANEL.channels[:2], Channel("C", "Dy163")))
    raw = ImageSet(panel, images().loaders)
    assert "Dy162 into Dy163" in clean(raw, spillover=MATRIX)["one"].problems[0]
    assert clean(images(), spillover=MATRIX)["one"].problems == ()


@pytest.mark.parametrize(
    ("spillover", "message"),
    [
        ("nowhere.csv", r"no such file.*nowhere\.csv"),
        (np.eye(2), r"does not fit the panel.*\(3, 3\).*\(2, 2\)"),
        (np.eye(3) * 2, "diagonal.*is not 1.*channel 0"),
        (SpilloverMatrix(("Pt198",), ("Pt198",), np.eye(1)), "none of the panel's metals"),
    ],
)
def test_a_matrix_that_does_not_fit_is_refused_at_once(spillover: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        clean(images(), spillover=spillover)  # type: ignore[arg-type]


def test_a_study_compensates_records_it_and_follows_the_file(tmp_path: Path) -> None:
    tissue = simulate(tmp_path / "tissue", "demo", images=1, size_px=64)
    study = make_study(tmp_path / "study", tissue, clean={"spillover": "matrix.csv"})
    with pytest.raises(InputError, match=r"no such file.*matrix\.csv"):
        run_study(study.folder, last="clean")
    metals = tuple(c["metal"] for c in read_json(study.inventory_file)["panel"] if c["metal"])
    kept = [i for i, metal in enumerate(metals) if metal != "Dy162"]
    matrix = SpilloverMatrix(tuple(metals[i] for i in kept), metals, spillover_matrix(metals)[kept])
    write_spillover(matrix, study.folder / "matrix.csv")
    with pytest.raises(InputError, match=r"lacks.*Dy162 into Dy161"):
        run_study(study.folder, last="clean", strict=True)
    run_study(study.folder, last="detect")
    record = next(r for r in study.records() if r["stage"] == "clean")
    assert record["spillover_pairs"] > 4
    assert len(record["spillover_sha256"]) == 64
    stored = json.loads(anndata.read_h5ad(study.cells_file).uns["maskless"]["spillover"])
    assert len(stored["shares"]) == len(read_json(study.inventory_file)["panel"])
    assert "Dy162 into Dy161" in stored["problems"][0]
    told = describe(study.folder)
    assert "spillover compensated: " in told
    assert "The spillover matrix lacks" in told
    sample = spillover_sample(study)
    assert sample is not None
    assert sample.after_cp.sum() < sample.before_cp.sum()
    assert is_fresh(study, "clean")
    (study.folder / "matrix.csv").write_text((study.folder / "matrix.csv").read_text() + "\n")
    assert not is_fresh(study, "clean")
    (study.folder / "matrix.csv").unlink()
    assert not is_fresh(study, "clean")
    shutil.rmtree(tissue)
    assert spillover_sample(study) is None  # no figure then, and no error
