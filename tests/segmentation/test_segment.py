"""The segmentation benchmark of images and of a study on disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

import maskless as mx
from maskless.cells_file import read_cells
from maskless.config import ClusterSettings, SegmentSettings, UmapSettings, load_config, to_toml
from maskless.errors import InputError, SettingsError, StudyError
from maskless.running import run_study
from maskless.segmentation import on_disk, segment_study, segmentation_state, table
from maskless.simulate import simulate
from maskless.stages import study_images
from maskless.study import Study
from studies import make_study

QUICK = {"cluster": ClusterSettings(k=10, min_size=5), "umap": UmapSettings(epochs=10)}


@pytest.fixture(scope="module")
def tissue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("raw") / "tissue", "demo", images=2, size_px=128)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tissue: Path) -> Study:
    study = make_study(tmp_path_factory.mktemp("studies") / "study", tissue)
    run_study(study.folder, last="detect")
    segment_study(study.folder)
    return study


@pytest.fixture
def study(made: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A copy; what is drawn from here on are placeholders, for figures take long."""

    def draw(cells, images, labels_of, settings, folder: Path, *, seed: int) -> dict[str, str]:
        (folder / "heatmap_z.png").write_bytes(f"{labels_of(next(iter(images))).sum()}".encode())
        return {"heatmap_z": "drawn quickly"}

    monkeypatch.setattr("maskless.segmentation.figures.draw_segmentation", draw)
    return Study.open(Path(shutil.copytree(made.folder, tmp_path / "study")))


def change(study: Study, table: str, **values: object) -> None:
    config = load_config(study.folder / "study.toml")
    changed = getattr(config, table).model_copy(update=values)
    text = to_toml(config.model_copy(update={table: changed}))
    (study.folder / "study.toml").write_text(text, encoding="utf-8")


def content(folder: Path) -> dict[str, bytes]:
    """Masks and table."""
    files = [folder / "cells.h5ad", *folder.glob("masks/*"), *folder.glob("masks/.*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_table_has_the_layout_of_cells_and_fits_the_masks(study: Study) -> None:
    cells = read_cells(study.folder / "segmentation" / "cells.h5ad")
    centres = read_cells(study.cells_file)
    assert list(cells.obs)[:5] == ["image", "y", "x", "cluster", "phenotype"]
    assert {"area", "label"} < set(cells.obs)
    pd.testing.assert_frame_equal(cells.var, centres.var)
    assert cells.obsm["X_umap"].shape == (cells.n_obs, 2)
    assert cells.obsp["connectivities"].shape == (cells.n_obs, cells.n_obs)
    for image in study_images(study):
        labels = tifffile.imread(study.folder / "segmentation" / "masks" / f"{image.name}.tiff")
        assert labels.dtype == np.uint16
        here = cells[cells.obs["image"] == image.name]
        assert here.obs["area"].sum() == (labels > 0).sum()
        row = here.obs.iloc[3]
        mask = labels == row["label"]
        pixels = np.asarray(image.pixels_cyx, np.float32)
        np.testing.assert_allclose(np.asarray(here.X)[3], pixels[:, mask].mean(axis=1), rtol=1e-5)
        np.testing.assert_allclose([row["y"], row["x"]], np.argwhere(mask).mean(axis=0), rtol=1e-5)
        # Label i + 1 is the study's cell i.
        first = centres.obs[centres.obs["image"] == image.name].iloc[0]
        assert labels[round(first["y"]), round(first["x"])] == 1
    figures = {path.name for path in (study.folder / "segmentation" / "figures").iterdir()}
    assert {"heatmap_z.png", "umap_cluster.svg", "masks_simulated_001.png"} < figures


def test_what_is_fresh_is_not_made_again(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(study.folder / "segmentation")
    assert segmentation_state(study) == "up to date"

    def never(*arguments: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(table, "segment_image", never)
    assert "(up to date)" in segment_study(study.folder)
    # New clusters need no new masks.
    change(study, "cluster", k=12)
    assert segmentation_state(Study.open(study.folder)) == "stale"
    segment_study(study.folder)
    after = content(study.folder / "segmentation")
    for name in before:
        assert (before[name] == after[name]) == name.startswith("masks/"), name
    change(study, "segment", expand_um=2.0)
    with pytest.raises(AssertionError, match="made again"):
        segment_study(study.folder)


def test_a_stopped_benchmark_goes_on_with_the_next_image(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = content(study.folder / "segmentation")
    change(study, "segment", expand_um=2.0)
    segment_study(study.folder)
    change(study, "segment", expand_um=1.0)
    done: list[str] = []
    make = table.segment_image

    def stop_at_the_second(image: mx.Image, *rest: object) -> object:
        if done:
            raise KeyboardInterrupt
        done.append(image.name)
        return make(image, *rest)

    monkeypatch.setattr(table, "segment_image", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        segment_study(study.folder)
    assert segmentation_state(Study.open(study.folder)) == "stale"
    made_later: list[str] = []

    def note(image: mx.Image, *rest: object) -> object:
        made_later.append(image.name)
        return make(image, *rest)

    monkeypatch.setattr(table, "segment_image", note)
    segment_study(study.folder)
    assert sorted(done + made_later) == ["simulated_001", "simulated_002"]
    again = content(study.folder / "segmentation")
    assert not [name for name in again if ".part-" in name]
    assert again.keys() == whole.keys()
    for name in whole:
        assert again[name] == whole[name], name


def test_damaged_and_missing_outputs_are_made_again(study: Study) -> None:
    folder = study.folder / "segmentation"
    whole = content(folder)
    mask = folder / "masks" / "simulated_001.tiff"
    mask.write_bytes(mask.read_bytes()[:-300])
    segment_study(study.folder)
    assert content(folder) == whole
    mask.write_bytes(b"")
    (folder / "masks" / "simulated_002.tiff").unlink()
    (folder / "masks" / "gone.tiff").write_bytes(b"of an image that is no more")
    segment_study(study.folder)
    assert content(folder) == whole
    for lost in ("heatmap_z.png", "figures.json"):
        (folder / "figures" / lost).unlink()
        assert "(up to date)" not in segment_study(study.folder)
        assert (folder / "figures" / "heatmap_z.png").is_file()


def test_given_masks_keep_their_numbers(study: Study, tissue: Path) -> None:
    change(study, "segment", method="masks", files="{image}/mask.tif", expand_um=0.0)
    segment_study(study.folder)
    for name in ("simulated_001", "simulated_002"):
        labels = tifffile.imread(study.folder / "segmentation" / "masks" / f"{name}.tiff")
        np.testing.assert_array_equal(labels, tifffile.imread(tissue / name / "mask.tif"))
    change(study, "segment", files="{image}/none.tif")
    with pytest.raises(InputError, match=r"Correct segment\.files"):
        segment_study(study.folder)


def test_arrays_give_what_the_study_gives(study: Study) -> None:
    config = study.config
    cells = mx.segment(
        study_images(study),
        config.segment,
        detect=config.detect,
        cluster=config.cluster,
        umap=config.umap,
        seed=config.seed,
    )
    on_disk_cells = read_cells(study.folder / "segmentation" / "cells.h5ad")
    np.testing.assert_array_equal(np.asarray(cells.X), np.asarray(on_disk_cells.X))
    assert list(cells.obs["cluster"]) == list(on_disk_cells.obs["cluster"])


def test_cellpose_masks_are_used_as_they_are(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def halves(plane: np.ndarray, um: float, settings: object, base: object) -> np.ndarray:
        labels = np.arange(plane.size).reshape(plane.shape) // 400 + 1
        return labels.astype(np.uint16)

    monkeypatch.setattr("maskless.cells.cellpose.masks_with_cellpose", halves)
    settings = SegmentSettings(method="cellpose", cellpose_model="nuclei", expand_um=0)
    cells = mx.segment(study_images(study), settings, **QUICK)
    assert cells.n_obs == 2 * -(-(128 * 128) // 400)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (SegmentSettings(method="masks"), "needs segment.files"),
        (SegmentSettings(method="masks", files="mask.tif"), "segment.files must hold {image}"),
        (SegmentSettings(method="cellpose"), "needs segment.cellpose_model"),
    ],
)
def test_settings_that_are_missing(study: Study, settings: SegmentSettings, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        mx.segment(study_images(study), settings)


def test_too_few_masks_and_stages_that_are_missing(
    study: Study, tissue: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="fewer masks than neighbours"):
        mx.segment(study_images(study), cluster=ClusterSettings(k=100_000))
    fresh = make_study(tmp_path / "fresh", tissue)
    assert segmentation_state(fresh) is None
    with pytest.raises(StudyError, match="--until detect"):
        segment_study(fresh.folder)


def test_masks_of_more_than_65535_cells_are_kept(tmp_path: Path) -> None:
    labels = np.zeros((9, 9), np.int32)
    labels[4, 4] = 70_000
    image = mx.Image("i", np.zeros((1, 9, 9), np.float32), ("a",), 0.5)
    on_disk._write_mask(tmp_path / "i.tiff", labels, image, "stamp")
    assert tifffile.imread(tmp_path / "i.tiff").dtype == np.uint32
    np.testing.assert_array_equal(on_disk._read_mask(tmp_path / "i.tiff", image), labels)
    assert on_disk._stamped(tmp_path / "i.tiff") == "stamp"
