"""A study beside reference labels: matching, controls, scores, files, errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from maskless.cells_file import read_cells, write_cells
from maskless.compare import compare, compare_study
from maskless.compare.controls import mask_means, raw_pixels
from maskless.compare.reference import Counts, Matched, match_reference
from maskless.compare.scores import held_out_names
from maskless.compare.trained import other_seeds, paper_preset, random_encoders, trained_encoder
from maskless.encoder import load_encoder
from maskless.errors import InputError
from maskless.images.image import Image
from maskless.running import run_study
from maskless.segmentation import segment_study
from maskless.simulate import simulate
from maskless.stages import study_images
from maskless.study import Study
from studies import make_study

CONTROLS = {
    "disc mean",
    "disc + rings",
    "raw pixels",
    "random encoder",
    "random encoder, features",
}


@pytest.fixture(scope="module")
def tissue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("raw") / "tissue", "demo", images=2, size_px=128)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tissue: Path) -> Study:
    made = make_study(tmp_path_factory.mktemp("studies") / "study", tissue)
    run_study(made.folder, last="cluster")
    return made


def truth(tissue: Path) -> pd.DataFrame:
    parts = [
        pd.read_csv(folder / "cells_truth.csv").assign(image=folder.name)
        for folder in sorted(tissue.glob("simulated_*"))
    ]
    return pd.concat(parts, ignore_index=True)


def match(study: Study, reference: Path | str, label: str = "cell_type", **options) -> Matched:
    return match_reference(
        read_cells(study.cells_file), study_images(study), str(reference), label, **options
    )


def test_a_study_is_compared_with_truth_and_every_control(study: Study, tissue: Path) -> None:
    files = str(tissue / "{image}")
    text = compare_study(
        study.folder,
        f"{files}/cells_truth.csv",
        "cell_type",
        masks=f"{files}/mask.tif",
        beside=[study.folder],
        seeds=2,
        trainings=2,
        paper=True,
        paper_steps=2,
    )
    record = json.loads((study.folder / "comparison.json").read_text())
    assert CONTROLS | {"mask mean", "study: embedding", "paper's preset"} < record["scores"].keys()
    several = record["scores_by_encoder"]["maskless: embedding"]
    assert len(several) == len(record["scores_by_encoder"]["random encoder"]) == 2
    mean = np.mean([scores["ari"] for scores in several])
    assert record["scores"]["maskless: embedding"]["ari"] == pytest.approx(mean)
    assert record["simulated"]
    assert record["sentence"].startswith("Simulated tissue")
    for name, scores in record["scores"].items():
        assert all(np.isfinite(value) for value in scores.values()), name
        assert name in text
    # The masks are the truth here, and cells differ by their markers.
    assert record["scores"]["mask mean"]["linear_macro_f1"] > 0.6
    counts = np.array(record["confusion"]["counts"])
    assert counts.sum() == sum(cells["matched"] for cells in record["cells"].values())
    assert record["rediscovery"].keys() == set(record["confusion"]["reference"])
    assert record["split"] == "image"
    assert record["sentence"] in text
    for kind in ("png", "svg"):
        assert (study.figures_folder / f"comparison.{kind}").stat().st_size > 10_000
    for key in record["scores"]:
        assert key in (study.figures_folder / "comparison.svg").read_text()


def test_encoders_trained_beside_the_studys_own_are_used_again(
    study: Study, tissue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells, images = read_cells(study.cells_file), study_images(study)
    training = other_seeds(study, 1)[0]
    first = trained_encoder(study, images, cells, training)
    monkeypatch.setattr("maskless.pipeline.train_with_history", None)
    again = trained_encoder(study, images, cells, training)
    assert torch.equal(first.stem_weight, again.stem_weight)
    own = load_encoder(study.encoder_folder)
    assert not torch.equal(own.stem_weight, again.stem_weight)
    random = random_encoders(study, 2)
    assert random[0].seed != random[1].seed
    assert {other.train.steps for other in random} == {0}
    assert paper_preset(study, 7).train.steps == 7
    assert paper_preset(study, None).train.steps == study.config.train.steps


def test_masks_of_the_studys_segmentation_are_a_control(study: Study, tissue: Path) -> None:
    segment_study(study.folder)
    files = str(tissue / "{image}")
    compare_study(study.folder, f"{files}/cells_truth.csv", "cell_type", seeds=1)
    record = json.loads((study.folder / "comparison.json").read_text())
    assert record["scores"]["segmentation: mask mean"]["linear_macro_f1"] > 0.4


def test_one_table_and_one_table_an_image_are_the_same(
    study: Study, tissue: Path, tmp_path: Path
) -> None:
    file = tmp_path / "all.csv"
    truth(tissue).sample(frac=1, random_state=0).to_csv(file, sep=";", index=False)
    one, many = match(study, file), match(study, tissue / "{image}" / "cells_truth.csv")
    assert one.by_image == many.by_image
    for pairs in (one, many):
        assert len(np.unique(pairs.rows_p)) == len(pairs.rows_p)
    assert dict(zip(one.rows_p, one.label_p, strict=True)) == dict(
        zip(many.rows_p, many.label_p, strict=True)
    )


def test_labels_left_out_and_images_without_a_table(
    study: Study, tissue: Path, tmp_path: Path
) -> None:
    table = truth(tissue)
    first = table[table["image"] == "simulated_001"]
    first.to_csv(tmp_path / "simulated_001.csv", index=False)
    found = match(study, tmp_path / "{image}.csv", without=["B cell"])
    assert found.images == ("simulated_001",)
    assert "B cell" not in found.label_p
    assert found.counts.reference == (first["cell_type"] != "B cell").sum()
    assert found.counts.matched == len(found.rows_p) <= found.counts.study
    assert set(found.group_p) == {f"block {number}" for number in range(4)}


def test_radius_is_in_micrometres(study: Study, tissue: Path) -> None:
    reference = tissue / "{image}" / "cells_truth.csv"
    near, far = (match(study, reference, radius_um=radius) for radius in (0.5, 4.0))
    assert near.counts.matched < far.counts.matched


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns=["image"]), "in which image"),
        (lambda table: table.drop(columns=["x", "cell_type"]), r"lacks columns.*x, cell_type"),
        (lambda table: table.assign(image="elsewhere"), "no image in common"),
        (lambda table: table.assign(x="left"), "lack x, y or cell_type"),
        (lambda table: table.assign(x=table["x"] + 1e4), "no cell of the study lies within"),
    ],
)
def test_references_that_do_not_fit(
    study: Study, tissue: Path, tmp_path: Path, change, message: str
) -> None:
    file = tmp_path / "reference.csv"
    change(truth(tissue)).to_csv(file, index=False)
    with pytest.raises(InputError, match=message):
        match(study, file)


def test_files_that_are_not_there(
    study: Study, tissue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="unreadable"):
        match(study, tmp_path / "none.csv")
    with pytest.raises(InputError, match="no image of the study has a table"):
        match(study, tmp_path / "{image}.csv")
    monkeypatch.chdir(tissue.parent)  # from where both paths start
    monkeypatch.delattr(compare, "trained_encoder")  # it is told before any training
    files = f"{tissue.name}/{{image}}"
    with pytest.raises(InputError, match="no mask or table of this image"):
        compare_study(
            study.folder,
            f"{files}/cells_truth.csv",
            "cell_type",
            masks=f"{files}/none.tif",
            trainings=2,
        )


def test_studies_that_cannot_be_compared(study: Study, tissue: Path, tmp_path: Path) -> None:
    reference = str(tissue / "{image}" / "cells_truth.csv")
    fresh = make_study(tmp_path / "fresh", tissue)
    run_study(fresh.folder, last="detect")
    with pytest.raises(InputError, match="no clusters that are up to date"):
        compare_study(fresh.folder, reference, "cell_type")
    other = Study.open(shutil.copytree(study.folder, tmp_path / "other"))
    cells = read_cells(other.cells_file)
    cells.obs["x"] += 1
    write_cells(cells, other.cells_file)
    with pytest.raises(InputError, match="other cells"):
        compare_study(study.folder, reference, "cell_type", beside=[other.folder])


def test_names_that_people_gave_are_compared(study: Study, tissue: Path, tmp_path: Path) -> None:
    named = Study.open(shutil.copytree(study.folder, tmp_path / "named"))
    cells = read_cells(named.cells_file)
    cells.obs["phenotype"] = pd.Categorical(["B cell"] * cells.n_obs)
    write_cells(cells, named.cells_file)
    compare_study(named.folder, str(tissue / "{image}" / "cells_truth.csv"), "cell_type", seeds=1)
    record = json.loads((named.folder / "comparison.json").read_text())
    assert record["naming"] == "clusters named by people"
    assert record["rediscovery"].pop("B cell") == 1
    assert set(record["rediscovery"].values()) == {0}


def test_held_out_names_come_from_the_other_half() -> None:
    group = np.array(["one"] * 4 + ["two"] * 4)
    label = np.array(["B", "B", "T", "T", "B", "B", "T", "T"])
    cluster = np.array(["0", "0", "1", "1", "0", "1", "1", "2"])
    matched = Matched(np.arange(8), group, label, np.arange(8), group, {"one": Counts(8, 8, 8)})
    assert held_out_names(cluster, matched, 0).tolist() == ["B", "B", "B", "B", "B", "T", "T", "-1"]


def test_means_over_masks_and_raw_pixels() -> None:
    pixels = np.arange(2 * 8 * 8, dtype=np.float32).reshape(2, 8, 8)
    image = Image("i", pixels, ("a", "b"), 1.0)
    mask = np.zeros((8, 8), np.int32)
    mask[2:4, 2:4], mask[6, 6] = 7, 3
    means = mask_means(image, mask, np.array([3, 7]))
    np.testing.assert_allclose(means, [[54, 118], [pixels[0, 2:4, 2:4].mean(), 64 + 22.5]])
    with pytest.raises(InputError, match="lacks 1 of 2 cells"):
        mask_means(image, mask, np.array([3, 5]))
    flat = Image("i", np.ones((2, 20, 20), np.float32), ("a", "b"), 0.5)
    assert raw_pixels(flat, np.array([[0.0, 0.0], [19.0, 10.0]])).tolist() == [[1.0] * 32] * 2
