"""A study from images to report: complete, resumable, the same bytes for the same seed."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest

from maskless.cells_file import read_cells
from maskless.config import ClusterSettings, resolve, to_toml
from maskless.difference import explain_clusters
from maskless.errors import InputError, SettingsError, StudyError
from maskless.freshness import is_fresh, of_clusters
from maskless.info import describe
from maskless.running import run_one_stage, run_study
from maskless.simulate import simulate
from maskless.stages import study_images
from maskless.study import STAGES, Study
from studies import make_study


def change(study: Study, device: str = "auto", **tables: Mapping[str, Any]) -> Study:
    """The same study with other settings in its study.toml."""
    content = {**study.config.model_dump(), "device": device}
    for name, table in tables.items():
        content[name].update(table)
    (study.folder / "study.toml").write_text(to_toml(resolve(content)))
    return Study.open(study.folder)


def stages_run(study: Study) -> list[str]:
    return [record["stage"] for record in study.records()]


@pytest.fixture(scope="module")
def tissue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("raw") / "tissue", "demo", images=2, size_px=96)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, tissue: Path) -> Study:
    """A whole study; tests read it, and copy it before they change it."""
    study = make_study(tmp_path_factory.mktemp("studies") / "study", tissue)
    run_study(study.folder)
    return study


@pytest.fixture
def copy(finished: Study, tmp_path: Path) -> Study:
    shutil.copytree(finished.folder, tmp_path / "study")
    return Study.open(tmp_path / "study")


def test_everything_that_the_design_promises_is_there(finished: Study) -> None:
    for path in ("study.toml", "cells.h5ad", "report.html", "run.jsonl", "encoder/history.csv"):
        assert (finished.folder / path).is_file(), path
    assert (finished.encoder_folder / "encoder.safetensors").is_file()
    assert len(list(finished.images_folder.glob("*.zarr"))) == 2
    for figure in ("heatmap_z", "heatmap_01", "heatmap_raw", "bubble", "umap_cluster", "gallery"):
        for kind in ("png", "svg"):
            assert (finished.figures_folder / f"{figure}.{kind}").stat().st_size > 1000
    assert stages_run(finished) == list(STAGES)
    for record in finished.records():
        assert {"seconds", "peak_mib", "versions", "seed", "fingerprint"} <= set(record)


def test_cells_h5ad_holds_what_the_design_says(finished: Study) -> None:
    cells = anndata.read_h5ad(finished.cells_file)
    markers = int(cells.var["used"].sum())
    assert markers == 16
    assert list(cells.obs.columns) == ["image", "y", "x", "cluster", "phenotype"]
    assert cells.obsm["X_embedding"].shape == (cells.n_obs, 32)
    assert cells.obsm["X_features"].shape == (cells.n_obs, markers * 2)
    assert cells.obsm["X_umap"].shape == (cells.n_obs, 2)
    assert cells.layers["disc_mean"].shape == cells.X.shape
    assert (np.asarray(cells.X) >= 0).all()
    assert (np.asarray(cells.X)[:, ~cells.var["used"].to_numpy()] == 0).all()
    np.testing.assert_allclose(cells.obsm["spatial"], cells.obs[["x", "y"]].to_numpy(), rtol=1e-6)
    graph = cells.obsp["connectivities"]
    assert abs(graph - graph.T).max() < 1e-6
    assert json.loads(cells.uns["maskless"]["settings"])["train"]["steps"] == 8
    assert set(cells.uns["maskless"]["stages"]) == {"detect", "embed", "cluster", "umap"}


def test_activations_rise_when_expression_rises(finished: Study) -> None:
    response = read_cells(finished.cells_file).uns["maskless"]["response"]
    curves = np.asarray(response["activations"])
    assert (np.diff(curves, axis=1) >= -1e-6).all()
    assert (curves[:, 0] == 0).all()
    assert (curves[:, -1] > curves[:, 0]).mean() > 0.8


def test_a_finished_study_is_left_alone(copy: Study) -> None:
    before = copy.cells_file.stat().st_mtime_ns
    assert "up to date" in run_study(copy.folder)
    assert copy.cells_file.stat().st_mtime_ns == before
    assert stages_run(copy) == list(STAGES)


@pytest.mark.parametrize(
    ("tables", "stages"),
    [
        ({"cluster": {"k": 11}}, ["cluster", "report"]),
        ({"umap": {"epochs": 21}}, ["umap", "report"]),
        ({"embed": {"view_um": 14.0}}, ["train", "embed", "cluster", "umap", "report"]),
        ({"report": {"gallery_markers": ("CD3", "CD20")}}, ["report"]),
        ({"train": {"checkpoint_seconds": 5.0}}, []),
    ],
)
def test_only_what_a_setting_touches_is_computed_again(
    copy: Study, tables: dict[str, Any], stages: list[str]
) -> None:
    study = change(copy, **tables)
    run_study(study.folder)
    assert stages_run(study)[len(STAGES) :] == stages


def test_a_lost_output_is_made_again_with_the_same_bytes(copy: Study) -> None:
    before = copy.cells_file.read_bytes()
    copy.cells_file.unlink()
    run_study(copy.folder)
    assert stages_run(copy)[len(STAGES) :] == ["detect", "embed", "cluster", "umap"]
    assert copy.cells_file.read_bytes() == before


def test_a_lost_chunk_is_noticed_and_mended(copy: Study) -> None:
    chunk = sorted(copy.images_folder.glob("*.zarr/0/0/0/0"))[0]
    before = chunk.read_bytes()
    chunk.unlink()
    with pytest.raises(InputError, match="chunk"):
        list(study_images(copy))
    run_study(copy.folder, last="detect")
    assert stages_run(copy)[len(STAGES) :] == ["clean"]
    assert chunk.read_bytes() == before


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(
    finished: Study, tissue: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(tissue, tmp_path / "elsewhere")
    again = make_study(tmp_path / "again", moved)
    run_study(again.folder, last="umap")
    assert again.cells_file.read_bytes() == finished.cells_file.read_bytes()
    other = make_study(tmp_path / "other", moved)
    text = (other.folder / "study.toml").read_text()
    (other.folder / "study.toml").write_text(text.replace("seed = 0", "seed = 1"))
    run_study(other.folder, last="umap")
    assert other.cells_file.read_bytes() != finished.cells_file.read_bytes()


def test_killed_at_any_instant_a_run_goes_on_to_the_same_bytes(
    finished: Study, tissue: Path, tmp_path: Path
) -> None:
    study = make_study(tmp_path / "study", tissue, train={"steps": 8})
    command = [sys.executable, "-m", "maskless.cli", "run", str(study.folder), "--until", "umap"]
    for seconds in (3.0, 5.0, 8.0):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if study.cells_file.exists():
            assert read_cells(study.cells_file).n_obs > 0
    subprocess.run(command, check=True, capture_output=True)
    assert study.cells_file.read_bytes() == finished.cells_file.read_bytes()
    assert not [p.name for p in study.folder.rglob("*.part-*")]


def test_clusters_on_a_gpu_are_other_clusters_and_need_rapids(
    copy: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cuml", None)
    study = change(copy, cluster={"device": "cuda"})
    with pytest.raises(SettingsError, match=r'Take "cpu", or install RAPIDS'):
        run_study(study.folder, last="cluster")
    run_study(change(copy, cluster={"device": "cpu"}).folder, last="umap")
    assert stages_run(copy)[len(STAGES) :] == []
    assert of_clusters(ClusterSettings(k=9)) == {  # as before there were GPUs: nothing is stale
        "k": 9, "resolution": 1.0, "min_size": 50, "power": 1.0
    }  # fmt: skip


def test_a_gpu_that_is_not_there_is_told_before_any_stage_runs(
    copy: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cuml", None)
    wrong = [("cuda:99", "cpu", r"torch .* sees"), ("auto", "cuda", "install RAPIDS")]
    for device, neighbours_on, told in wrong:
        study = change(
            copy, device, detect={"nuclear_radius_um": 2.3}, cluster={"device": neighbours_on}
        )
        with pytest.raises(SettingsError, match=told):
            run_study(study.folder)
        run_study(study.folder, last="clean")  # needs none
    assert stages_run(copy)[len(STAGES) :] == []


def test_a_stage_by_itself_asks_for_those_before(copy: Study) -> None:
    study = change(copy, encoder={"width": 3})
    with pytest.raises(StudyError, match="stage train is not up to date, so cluster cannot run"):
        run_one_stage(study.folder, "cluster")
    assert "done: train" in run_one_stage(study.folder, "train")
    assert "up to date" in run_one_stage(study.folder, "train")


def test_from_computes_fresh_stages_again(copy: Study) -> None:
    before = copy.cells_file.read_bytes()
    run_study(copy.folder, first="cluster", last="umap")
    assert stages_run(copy)[len(STAGES) :] == ["cluster", "umap"]
    assert copy.cells_file.read_bytes() == before


def test_explain_gives_shares_that_add_up(finished: Study) -> None:
    said = explain_clusters(finished.folder, "0", "rest")
    shares = [float(share) for share in re.findall(r"^\S+ +(-?[\d.]+)%", said, re.MULTILINE)]
    assert shares[-1] == 100.0
    assert sum(shares[:-1]) == pytest.approx(100, abs=1.0)
    assert (finished.figures_folder / "explain_0_vs_rest.png").is_file()
    with pytest.raises(InputError, match=r"no cell has cluster 'T cell'.*expected one of 0"):
        explain_clusters(finished.folder, "T cell", "0")


def test_info_tells_what_is_stale(copy: Study) -> None:
    assert describe(copy.folder).count("up to date") == len(STAGES)
    study = change(copy, cluster={"k": 12})
    said = describe(study.folder)
    assert re.search(r"cluster +stale", said)
    assert re.search(r"umap +up to date", said)
    assert re.search(r"report +stale", said)
    assert re.search(r"CD20 +[\d.]+%", said)


def test_a_new_image_makes_everything_stale(finished: Study, tissue: Path, tmp_path: Path) -> None:
    more = shutil.copytree(tissue, tmp_path / "tissue")
    study = make_study(tmp_path / "study", more)
    run_study(study.folder, last="read")
    assert is_fresh(study, "read")
    source = next(more.glob("simulated_*1"))
    shutil.copytree(source, more / "another")
    assert not is_fresh(study, "read")
    run_study(study.folder, last="read")
    assert len(json.loads(study.inventory_file.read_text())["images"]) == 3
