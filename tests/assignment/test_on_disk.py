"""`maskless assign` on disk: a study of new images, stale and fresh like any other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from maskless.annotate.labels import Change
from maskless.annotate.store import LabelStore
from maskless.annotate.study_cells import load_cells
from maskless.assignment.names import names_of
from maskless.assignment.on_disk import assign_study
from maskless.cells_file import read_cells
from maskless.errors import InputError, StudyError
from maskless.freshness import is_fresh
from maskless.info import describe
from maskless.report import figures
from maskless.running import run_study
from maskless.simulate import simulate
from maskless.study import STAGES, Study
from studies import make_study

KNOWN, NEW = ("simulated_001", "simulated_002"), "simulated_003"


@pytest.fixture(scope="module")
def tissue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("raw") / "tissue", "demo", images=3, size_px=128)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tissue: Path) -> Path:
    folder = tmp_path_factory.mktemp("studies") / "known"
    images = {"paths": [str(tissue / name) for name in KNOWN], "panel": str(tissue / "panel.csv")}
    make_study(folder, tissue, images=images, assign={"k": 8})
    run_study(folder, last="umap")
    name_clusters(folder, "ann")
    return folder


@pytest.fixture
def known(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "known"))


@pytest.fixture(autouse=True)
def quick_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskless.report.draw_all", lambda *a, **k: {})


def name_clusters(folder: Path, who: str, stem: str = "type ") -> None:
    """Even clusters one name, each odd one its own."""
    cells = load_cells(folder / "cells.h5ad")
    store = LabelStore(folder / "labels.sqlite", cells.clustering)
    ids = cells.clustering.ids
    fields = {c: {"name": f"{stem}{c if int(c) % 2 else 'even'}"} for c in ids if c != "-1"}
    store.add(who, "name", "names", Change(fields), revision=None)
    store.close()


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_new_images_are_named_and_the_study_is_left_alone(
    known: Path, tissue: Path, tmp_path: Path
) -> None:
    before = content(known)
    told = assign_study(known, [tissue / NEW], tmp_path / "new")
    assert content(known) == before
    study = Study.open(tmp_path / "new")
    assert all(is_fresh(study, stage) for stage in STAGES)
    assert "report" in describe(study.folder)
    cells, reference = read_cells(study.cells_file), read_cells(known / "cells.h5ad")
    assert list(cells.obs)[:5] == list(reference.obs)[:5]
    assert {"confidence", "vote", "unlike"} < set(cells.obs)
    assert set(cells.obs["phenotype"]) <= {"type even", "unknown", "unnamed"} | {
        f"type {i}" for i in range(99)
    }
    named = cells.obs["phenotype"].astype(str).str.match(r"type \d")
    assert (cells.obs["cluster"][named] == cells.obs["phenotype"][named].str[5:]).all()
    assert cells.var.equals(reference.var)
    for key in ("X_embedding", "X_features", "X_umap", "spatial"):
        assert cells.obsm[key].shape[0] == cells.n_obs
    assert cells.obsp["connectivities"].shape == (cells.n_obs, cells.n_obs)
    assert cells.uns["maskless"]["assign"]["names"] == "named by ann"
    weights = "encoder/encoder.safetensors"
    assert (study.folder / weights).read_bytes() == before[weights]
    scaling = [
        json.loads((f / "images" / "scaling.json").read_text()) for f in (known, study.folder)
    ]
    assert scaling[0]["scaling"] == scaling[1]["scaling"]
    assert [r["stage"] for r in study.records()] == list(STAGES)
    assert "mean confidence" in told
    # The same call again has nothing to do; raw images of the study are not needed.
    assign_study(known, [tissue / NEW], tmp_path / "new")
    assert len(Study.open(tmp_path / "new").records()) == len(STAGES)


def test_the_studys_own_images_get_their_own_names_back(
    known: Path, tissue: Path, tmp_path: Path
) -> None:
    assign_study(known, [tissue / name for name in KNOWN], tmp_path / "again")
    cells, reference = (
        read_cells(tmp_path / "again" / "cells.h5ad"),
        read_cells(known / "cells.h5ad"),
    )
    np.testing.assert_allclose(
        cells.obsm["X_embedding"], reference.obsm["X_embedding"], rtol=1e-4, atol=1e-4
    )
    seen = (cells.obs["phenotype"] != "unknown").to_numpy()
    same = cells.obs["cluster"].astype(str) == reference.obs["cluster"].astype(str)
    assert seen.mean() > 0.9
    assert same[seen].mean() > 0.7


def test_new_names_make_only_clusters_and_report_stale(
    known: Path, tissue: Path, tmp_path: Path
) -> None:
    assign_study(known, [tissue / NEW], tmp_path / "new")
    name_clusters(known, "ann", "kind ")
    study = Study.open(tmp_path / "new")
    assert [s for s in STAGES if not is_fresh(study, s)] == ["cluster", "report"]
    run_study(study.folder)
    assert "kind even" in set(read_cells(study.cells_file).obs["phenotype"])
    shutil.rmtree(known)
    with pytest.raises(StudyError, match="which is not there"):
        run_study(study.folder)


def test_a_stopped_assignment_goes_on(
    known: Path, tissue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("maskless.stages.assign_cells", stop)
        with pytest.raises(KeyboardInterrupt):
            assign_study(known, [tissue / NEW], tmp_path / "new")
    assert "cluster" not in read_cells(tmp_path / "new" / "cells.h5ad").obs
    assign_study(known, [tissue / NEW], tmp_path / "new")
    assign_study(known, [tissue / NEW], tmp_path / "straight")
    stopped, straight = (tmp_path / n / "cells.h5ad" for n in ("new", "straight"))
    assert stopped.read_bytes() == straight.read_bytes()


def test_whose_names_are_taken(known: Path, tissue: Path, tmp_path: Path) -> None:
    name_clusters(known, "bob", "bob ")
    study = Study.open(known)
    with pytest.raises(InputError, match=r"ann, bob.*--expert"):
        assign_study(known, [tissue / NEW], tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert "bob even" in names_of(study, "bob").names
    with pytest.raises(InputError, match="'eve' has given no names"):
        names_of(study, "eve")
    (known / "labels.sqlite").unlink()
    assert not names_of(study).given
    (known / "labels.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises((InputError, StudyError), match=r"labels\.sqlite"):
        names_of(study)


def test_names_are_read_from_a_folder_that_cannot_be_written(known: Path) -> None:
    known.chmod(0o500)
    try:
        assert names_of(Study.open(known)).told == "named by ann"
    finally:
        known.chmod(0o700)


def test_another_panel_is_refused_with_the_difference(
    known: Path, tissue: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    panel = (tissue / "panel.csv").read_text()
    assert "CD20" in panel
    (other / "panel.csv").write_text(panel.replace("CD20", "CD99"))
    image = next((tissue / NEW).glob("image*.tif*"))
    with tifffile.TiffFile(image) as file:
        pixels, names = file.asarray(), file.ome_metadata or ""
    tifffile.imwrite(other / "a.tif", pixels)
    with pytest.raises(InputError, match=r"do not name their channels.*found .*CD99"):
        assign_study(known, [other / "a.tif"], tmp_path / "new", um_per_pixel=1.0)
    named = names.replace("CD20", "CD99").encode()
    tifffile.imwrite(other / "b.ome.tif", pixels, description=named, metadata=None)
    with pytest.raises(InputError, match=r"without .*CD20.* with .*CD99.* besides"):
        assign_study(known, [other / "b.ome.tif"], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_studies_that_cannot_name_others(known: Path, tissue: Path, tmp_path: Path) -> None:
    assign_study(known, [tissue / NEW], tmp_path / "new")
    with pytest.raises(StudyError, match="has its names from another study"):
        assign_study(tmp_path / "new", [tissue / NEW], tmp_path / "third")
    with pytest.raises(StudyError, match="holds another study already"):
        assign_study(known, [tissue / KNOWN[0]], tmp_path / "new")
    with pytest.raises(StudyError, match="Change expert"):
        assign_study(known, [tissue / NEW], tmp_path / "new", expert="ann")
    toml = known / "study.toml"
    toml.write_text(toml.read_text().replace("\nresolution = 1.0", "\nresolution = 2.0"))
    with pytest.raises(StudyError, match=r"not up to date \(cluster\)"):
        assign_study(known, [tissue / NEW], tmp_path / "late")


def test_the_figure_and_the_warnings_are_in_the_report(
    known: Path, tissue: Path, tmp_path: Path
) -> None:
    assign_study(known, [tissue / NEW], tmp_path / "new")
    cells = read_cells(tmp_path / "new" / "cells.h5ad")
    cells.uns["maskless"]["assign"]["warnings"] = np.array(["CD20 <moved>"], dtype=object)
    plans = figures._plans(cells, None, None, None, Study.open(known).config.report, 0)
    assert "assignment" in plans
    drawn = plans["assignment"].draw()
    texts = [t.get_text() for axes in drawn.axes for t in axes.get_yticklabels()]
    assert NEW in texts
    assert "CD20" in texts


def test_background_is_cut_where_the_study_cut_it(
    known: Path, tissue: Path, tmp_path: Path
) -> None:
    from maskless.assignment.on_disk import reference_corrections
    from maskless.images.background import BackgroundRemoval
    from maskless.images.background.automatic import AutomaticSignal, Cut

    study = Study.open(known)
    own = BackgroundRemoval("automatic", ("CD20",), AutomaticSignal({"CD20": Cut(9, 9)}), "mask")
    assert reference_corrections(study, (own,)) == (own,)
    content = json.loads(study.scaling_file.read_text())
    content["background"] = {"cuts": {"CD20": [1.5, 2.0]}}
    study.scaling_file.write_text(json.dumps(content))
    (found,) = reference_corrections(study, (own,))
    assert found.signal == AutomaticSignal({"CD20": Cut(1.5, 2.0)})
    assert found.markers == ("CD20",)
    toml = known / "study.toml"
    changed = toml.read_text().replace(
        'background_removal = "none"', 'background_removal = "classifier"'
    )
    toml.write_text(changed)
    with pytest.raises(StudyError, match="classifier that was trained on labels"):
        assign_study(known, [tissue / NEW], tmp_path / "new")
