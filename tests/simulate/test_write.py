"""Simulated cohorts on disk."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import tifffile

from maskless.errors import SettingsError
from maskless.simulate import simulate, simulate_images
from maskless.simulate import write as write_module


def contents(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("simulated"), images=2, size_px=96, seed=1)


def test_layout_is_that_of_the_real_data(cohort):
    assert set(contents(cohort)) == {"panel.csv", "simulation.json"} | {
        f"{name}/{file}"
        for name in ("simulated_001", "simulated_002")
        for file in ("image.ome.tif", "mask.tif", "cells_truth.csv", "levels_truth.csv")
    }
    with tifffile.TiffFile(cohort / "simulated_001" / "image.ome.tif") as file:
        assert file.series[0].axes == "CYX"
        xml = file.ome_metadata
        pixels = file.asarray()
    with open(cohort / "panel.csv", newline="") as file:
        panel = list(csv.DictReader(file))
    names = [row["name"] for row in panel]
    assert pixels.shape == (len(names), 96, 96)
    assert pixels.dtype == np.uint16
    assert all(f'Name="{name}"' in xml for name in names)
    assert 'PhysicalSizeX="1.0"' in xml
    assert "Simulated" in xml
    assert {row["kind"] for row in panel} == {"marker", "nuclear", "background"}


def test_files_hold_what_memory_holds(cohort):
    memory = simulate_images(images=2, size_px=96, seed=1)
    for name in memory.images.names:
        truth = memory.truth[name]
        pixels = tifffile.imread(cohort / name / "image.ome.tif")
        assert np.array_equal(pixels, memory.images[name].pixels_cyx)
        assert np.array_equal(tifffile.imread(cohort / name / "mask.tif"), truth.mask_yx)
        with open(cohort / name / "cells_truth.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["cell_type"] for row in rows] == truth.cell_type.tolist()
        assert [int(row["cell_id"]) for row in rows] == list(range(1, len(rows) + 1))
        centres = np.array([[float(row["y"]), float(row["x"])] for row in rows])
        assert np.allclose(centres, truth.centres_yx, atol=0.006)
        with open(cohort / name / "levels_truth.csv", newline="") as file:
            levels = list(csv.DictReader(file))
        cd3 = memory.images.panel.index("CD3")
        positive = [float(row["CD3"]) > 0 for row in levels]
        assert positive == truth.positive_nm[:, cd3].tolist()


def test_number_of_workers_changes_no_byte(cohort, tmp_path):
    two = simulate(tmp_path / "two", images=2, size_px=96, seed=1, workers=2)
    assert contents(two) == contents(cohort)


def test_it_says_that_it_is_simulated(cohort):
    about = json.loads((cohort / "simulation.json").read_text())
    assert about["simulated"] is True
    assert about["seed"] == 1


def test_failure_leaves_no_half_image(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("stopped")

    monkeypatch.setattr(write_module, "_levels_table", fail)
    with pytest.raises(RuntimeError, match="stopped"):
        simulate(tmp_path, images=1, size_px=64)
    assert {p.name for p in tmp_path.iterdir()} == {"panel.csv", "simulation.json"}


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"workers": 0}])
def test_wrong_arguments_are_told(tmp_path, wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        simulate(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())
