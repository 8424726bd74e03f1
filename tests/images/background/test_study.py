"""Background removal in a study: files belong to the fingerprint, what was done is written down."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from maskless.errors import InputError
from maskless.freshness import expected, is_fresh
from maskless.running import run_study
from maskless.simulate import simulate
from maskless.stages import background_sample, study_images
from maskless.storage import read_json
from maskless.study import Study
from studies import make_study


def write_labels(folder: Path, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 3, (96, 96), dtype=np.uint8)
    labels[np.random.default_rng(seed + 1).random(labels.shape) > 0.05] = 0
    folder.mkdir(exist_ok=True)
    tifffile.imwrite(folder / "simulated_001.tif", labels)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    tissue = simulate(tmp_path_factory.mktemp("raw") / "tissue", "demo", images=2, size_px=96)
    made = make_study(
        tmp_path_factory.mktemp("studies") / "study",
        tissue,
        clean={
            "background_removal": "classifier",
            "background_files": "labels/{image}.tif",
            "background_markers": ["CD20", "CD3"],
        },
    )
    write_labels(made.folder / "labels", 0)
    run_study(made.folder, last="clean")
    return made


def test_what_was_done_is_written_down(study: Study) -> None:
    assert read_json(study.scaling_file)["background"] == {
        "way": "classifier",
        "weight": "mask",
        "markers": ["CD20", "CD3"],
    }
    record = json.loads(study.log_file.read_text().splitlines()[-1])
    assert record["stage"] == "clean"
    assert record["background_removal"] == "classifier"
    sample = background_sample(study)
    assert sample is not None
    assert sample.markers == ("CD20", "CD3")
    assert (sample.kept_counts < 1).all()
    image = study_images(study)["simulated_002"]
    assert (image.pixels_cyx[image.channels.index("CD20")] == 0).mean() > 0.2


def test_other_labels_make_the_stage_stale(study: Study) -> None:
    assert is_fresh(study, "clean")
    before = expected(study, "clean")
    write_labels(study.folder / "labels", 5)
    assert not is_fresh(study, "clean")
    write_labels(study.folder / "labels", 0)
    assert expected(study, "clean") == before
    (study.folder / "labels" / "simulated_001.tif").unlink()
    assert not is_fresh(study, "clean")
    with pytest.raises(InputError, match="labels of both kinds"):
        run_study(study.folder, last="clean")
    write_labels(study.folder / "labels", 0)
