"""Simulated tissue: what its truth promises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import center_of_mass, sum_labels
from scipy.spatial import cKDTree

from maskless.errors import SettingsError
from maskless.simulate import PRESETS, Instrument, get_preset, simulate_image, simulate_images

SMALL = get_preset("demo", images=2, size_px=160)


@pytest.fixture(scope="module")
def made():
    return simulate_image(SMALL, 3, 0)


def test_same_seed_same_bytes_and_other_seed_others(made):
    image, truth = made
    again, truth_again = simulate_image(SMALL, 3, 0)
    assert image.pixels_cyx.tobytes() == again.pixels_cyx.tobytes()
    assert truth.levels_nm.tobytes() == truth_again.levels_nm.tobytes()
    assert np.array_equal(truth.mask_yx, truth_again.mask_yx)
    assert not np.array_equal(image.pixels_cyx, simulate_image(SMALL, 4, 0)[0].pixels_cyx)
    assert not np.array_equal(image.pixels_cyx, simulate_image(SMALL, 3, 1)[0].pixels_cyx)


def test_an_image_does_not_depend_on_how_many_there_are():
    few = simulate_images(SMALL, images=1, size_px=64)
    more = simulate_images(SMALL, images=2, size_px=64)
    name = few.images.names[0]
    assert np.array_equal(few.images[name].pixels_cyx, more.images[name].pixels_cyx)
    assert more.images.names == ("simulated_001", "simulated_002")
    assert more.images.panel.names == more.images[name].channels


def test_truth_fits_the_mask(made):
    image, truth = made
    n = len(truth.area_px)
    labels = np.arange(1, n + 1)
    assert np.array_equal(np.unique(truth.mask_yx[truth.mask_yx > 0]), labels)
    assert np.array_equal(truth.area_px, sum_labels(truth.mask_yx > 0, truth.mask_yx, labels))
    at = np.rint(truth.centres_yx).astype(int)
    on_own_cell = truth.mask_yx[at[:, 0], at[:, 1]] == labels
    assert on_own_cell.mean() > 0.95
    middle = np.array(center_of_mass(np.ones_like(truth.mask_yx), truth.mask_yx, labels))
    assert np.median(np.hypot(*(middle - truth.centres_yx).T)) < 1.5
    assert truth.levels_nm.shape == (n, image.pixels_cyx.shape[0])
    assert len(truth.cell_type) == len(truth.subtype) == len(truth.zone) == len(truth.state) == n


def test_markers_light_up_in_the_cells_that_express_them(made):
    image, truth = made
    mask = truth.mask_yx
    for name in ("CD20", "CD3", "CD68", "HistoneH3"):
        c = image.channels.index(name)
        mean = sum_labels(image.pixels_cyx[c], mask, np.arange(1, len(truth.area_px) + 1))
        mean = mean / truth.area_px
        outside = image.pixels_cyx[c][mask == 0].mean()
        positive = truth.positive_nm[:, c]
        assert mean[positive].mean() > 2.5 * outside
        if not positive.all():
            assert mean[positive].mean() > 2 * mean[~positive].mean()


def test_membrane_and_nucleus_lie_in_different_places(made):
    image, truth = made
    at = np.rint(truth.centres_yx).astype(int)
    b_cells = truth.cell_type == "B cell"
    cd20 = image.pixels_cyx[image.channels.index("CD20")].astype(float)
    histone = image.pixels_cyx[image.channels.index("HistoneH3")].astype(float)
    inside = np.isin(truth.mask_yx, np.flatnonzero(b_cells) + 1)
    at = at[b_cells]
    assert histone[at[:, 0], at[:, 1]].mean() > 1.3 * histone[inside].mean()
    assert cd20[at[:, 0], at[:, 1]].mean() < 0.8 * cd20[inside].mean()


def test_it_is_as_dense_and_dim_as_real_spleen(real_data):
    tifffile = pytest.importorskip("tifffile")
    pd = pytest.importorskip("pandas")
    folder = real_data / "spleen_imc" / "r2"
    cells = pd.read_csv(folder / "cells_labelled.csv")
    real = tifffile.imread(folder / "image.ome.tif")
    names = pd.read_csv(real_data / "spleen_imc" / "panel.csv")["name"].tolist()
    cells = cells[(cells["cell_type"] != "background/non-cell") & (cells["area_px"] >= 12)]
    image, truth = simulate_image(get_preset("demo"), 1, 0)

    def nearest(points):
        return np.median(cKDTree(points).query(points, 2)[0][:, 1])

    assert abs(nearest(cells[["y", "x"]].to_numpy()) - nearest(truth.centres_yx)) < 1
    per_area = len(cells) / real[0].size, len(truth.area_px) / image.pixels_cyx[0].size
    assert 0.75 < per_area[1] / per_area[0] < 1.33
    assert 0.75 < np.median(truth.area_px) / np.median(cells["area_px"]) < 1.33
    for name, limits in (("CD20", (0.4, 2.5)), ("CD45", (0.4, 2.5)), ("HistoneH3", (0.4, 2.5))):
        bright = [
            np.percentile(pixels[channel.index(name)], 99)
            for pixels, channel in ((real, names), (image.pixels_cyx, list(image.channels)))
        ]
        assert limits[0] < bright[1] / bright[0] < limits[1], name


@pytest.mark.parametrize("name", ["sparse", "dense"])
def test_density_is_what_was_asked_for(name):
    from maskless.simulate import DENSITIES

    _, truth = simulate_image(get_preset("demo", size_px=200, density=name), 0, 0)
    found = len(truth.area_px) / 200**2 * 1e4
    assert 0.75 * DENSITIES[name] < found < 1.1 * DENSITIES[name]


def test_pixels_of_half_a_micrometre_show_the_same_tissue_finer():
    preset = replace(get_preset("demo", size_px=160), um_per_pixel=0.5)
    image, truth = simulate_image(preset, 0, 0)
    _, coarse_truth = simulate_image(get_preset("demo", size_px=80), 0, 0)
    assert image.um_per_pixel == 0.5
    assert np.median(truth.area_px) > 2.5 * np.median(coarse_truth.area_px)


def test_patients_differ_and_images_of_one_share_their_effects():
    preset = replace(
        get_preset("demo", images=4, size_px=160),
        instrument=Instrument(channel_gain=0, image_gain=0),
    )
    levels = []
    patients = []
    for index in range(4):
        _, truth = simulate_image(preset, 5, index)
        patients.append(truth.patient)
        nuclear = preset.panel.names.index("HistoneH3")
        levels.append(np.median(np.log(truth.levels_nm[:, nuclear])))
    assert patients == ["patient_01", "patient_01", "patient_02", "patient_02"]
    within = abs(levels[0] - levels[1]) + abs(levels[2] - levels[3])
    assert within < abs(levels[0] + levels[1] - levels[2] - levels[3]) + 0.1


def test_bone_marrow_is_the_cohort_of_the_paper():
    preset = PRESETS["bone_marrow"]
    assert len(preset.panel.used) == 34
    assert {t.name for t in preset.types} == {
        "T",
        "tumour",
        "granulocyte",
        "B",
        "MO/DC/NK",
        "progenitor",
        "other",
    }
    assert len([t for t in preset.types if t.name == "T"]) == 7
    image, truth = simulate_image(get_preset(preset, size_px=300), 0, 0)
    assert set(truth.cell_type) == {t.name for t in preset.types}
    assert image.pixels_cyx.dtype == np.uint16


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_name_only_what_exists(name):
    preset = PRESETS[name]
    markers = {m.name for m in preset.markers}
    subtypes = {t.subtype or t.name for t in preset.types}
    assert len(subtypes) == len(preset.types)
    assert len(markers) == len(preset.markers)
    for cell_type in preset.types:
        assert set(cell_type.expression) <= markers
    for zone in preset.tissue.zones:
        assert set(zone.composition) <= subtypes
    assert sum(z.share for z in preset.tissue.zones) == pytest.approx(1)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"preset": "liver"}, "liver"),
        ({"preset": "demo", "images": 0}, "images"),
        ({"preset": "demo", "size_px": 4}, "size_px"),
        ({"preset": "demo", "density": -1}, "density"),
        ({"preset": "demo", "density": "full"}, "full"),
    ],
)
def test_wrong_arguments_are_told(wrong, says):
    with pytest.raises(SettingsError, match=says):
        get_preset(**wrong)
