"""`maskless subcluster` and mx.subcluster: one group divided, all others left alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import maskless as mx
from maskless.cells_file import read_cells
from maskless.errors import InputError, StudyError
from maskless.freshness import is_fresh
from maskless.reporting import SUBCLUSTERS
from maskless.running import run_study
from maskless.simulate import simulate
from maskless.study import Study
from maskless.subclusters import subcluster_study
from studies import make_study


@pytest.fixture
def cells() -> AnnData:
    """T cells of two kinds that only marker b tells, and B cells."""
    rng = np.random.default_rng(0)
    kinds = np.arange(360) % 3
    features = rng.normal(size=(360, 3, 2))
    features[:, 0] += 6 * (kinds == 2)[:, None]
    features[:, 1] += 8 * (kinds == 1)[:, None]
    features[:, 2] *= 20
    points = features.reshape(360, 6)
    obs = pd.DataFrame(
        {
            "cluster": pd.Categorical(np.where(kinds == 2, "1", "0")),
            "phenotype": pd.Categorical(np.where(kinds == 2, "B cell", "T cell")),
        },
        index=[str(i) for i in range(360)],
    )
    var = pd.DataFrame({"used": [True, True, False, True]}, index=["a", "b", "no", "noise"])
    return AnnData(obs=obs, var=var, obsm={"X_embedding": points, "X_features": points})


def test_a_marker_that_noise_hid_divides_a_phenotype(cells: AnnData) -> None:
    kinds = np.arange(360) % 3
    before = cells.obs.copy()
    assert mx.subcluster(cells, "T cell", markers=["b"], k=10, resolution=0.2) is None
    found = cells.obs["subcluster"]
    assert set(found[kinds == 2]) == {"B cell"}
    parts = pd.crosstab(kinds[kinds < 2], found[kinds < 2].astype(str))
    assert (parts.max(axis=0) / parts.sum(axis=0)).min() > 0.95
    assert list(found.cat.categories[:2]) == ["B cell", "T cell.0"]
    pd.testing.assert_frame_equal(cells.obs[["cluster", "phenotype"]], before)
    again = cells.copy()
    mx.subcluster(again, "T cell.0", k=10, resolution=0.2)
    assert any(name.startswith("T cell.0.") for name in again.obs["subcluster"])
    kept = (cells.obs["subcluster"] != "T cell.0").to_numpy()
    assert (again.obs["subcluster"].astype(str) == found.astype(str))[kept].all()


def test_a_cluster_by_its_number_and_the_same_seed_again(cells: AnnData) -> None:
    results = []
    for _ in range(2):
        mine = cells.copy()
        mx.subcluster(mine, "0", k=10, seed=3)
        results.append(mine.obs["subcluster"])
    pd.testing.assert_series_equal(*results)
    assert set(results[0][cells.obs["cluster"] == "1"]) == {"1"}


@pytest.mark.parametrize(
    ("of", "options", "message"),
    [
        ("NK cell", {}, "no cell is 'NK cell'; expected one of .*B cell"),
        ("B cell", {"k": 200}, "too few cells in 'B cell'"),
        ("T cell", {"markers": ["no"]}, "does not see this marker.*no"),
        ("T cell", {"by": "patient"}, "no column 'patient'"),
        ("T cell", {"by": "cluster"}, "no cell is 'T cell'"),
    ],
)
def test_what_cannot_be_divided(cells: AnnData, of: str, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mx.subcluster(cells, of, **options)


def test_small_parts_are_unknown(cells: AnnData) -> None:
    mx.subcluster(cells, "T cell", k=10, min_size=1000)
    assert set(cells.obs["subcluster"]) == {"B cell", "-1"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies") / "study"
    tissue = simulate(folder.parent / "tissue", "demo", images=1, size_px=128)
    make_study(folder, tissue)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("maskless.report.draw_all", lambda *a, **k: {})
        run_study(folder)
    return folder


def test_a_study_gets_the_column_figures_and_a_place_in_the_report(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study_copy(made, tmp_path)
    before = read_cells(study.cells_file)
    told = subcluster_study(study.folder, "0", k=5, min_size=3)
    after = read_cells(study.cells_file)
    assert set(after.obs) == {*before.obs, "subcluster"}
    inside = (before.obs["cluster"] == "0").to_numpy()
    assert after.obs["subcluster"][inside].str.match(r"0\.\d+|-1").all()
    same = after.obs["subcluster"].astype(str) == before.obs["cluster"].astype(str)
    assert same[~inside].all()
    stems = {p.name for p in study.figures_folder.glob("subcluster_0_*")}
    assert stems == {
        f"subcluster_0_{k}.{e}" for k in ("umap", "heatmap", "gallery") for e in ("png", "svg")
    }
    assert "0.0" in told
    assert "Parts of 0 and their markers" in study.report_file.read_text()
    assert study.records()[-1]["stage"] == "subcluster"
    assert all(is_fresh(study, stage) for stage in ("embed", "cluster", "umap", "report"))
    # A second group is added; new clusters take everything away.
    subcluster_study(study.folder, "1", k=5, min_size=3)
    page = study.report_file.read_text()
    assert "Parts of 0 and" in page
    assert "Parts of 1 and" in page
    toml = study.folder / "study.toml"
    toml.write_text(toml.read_text().replace("\nresolution = 1.0", "\nresolution = 1.5"))
    with pytest.raises(StudyError, match="no clusters that are up to date"):
        subcluster_study(study.folder, "0")
    monkeypatch.setattr("maskless.report.draw_all", lambda *a, **k: {})
    run_study(study.folder)
    assert "subcluster" not in read_cells(study.cells_file).obs
    assert "Parts of 0 and" not in study.report_file.read_text()
    assert (study.figures_folder / SUBCLUSTERS).is_file()


def make_study_copy(made: Path, tmp_path: Path) -> Study:
    return Study.open(Path(shutil.copytree(made, tmp_path / "study")))
