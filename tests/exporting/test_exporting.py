"""Cells for other programs: every number comes back, x stays x, formulas stay text."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st

from maskless.cells_file import write_cells
from maskless.errors import InputError, MissingExtraError, SettingsError, StudyError
from maskless.exporting import export_study
from maskless.exporting.fcs import fcs_bytes, write_fcs
from maskless.exporting.spatial import write_spatialdata
from maskless.exporting.table import write_csv
from maskless.images import Channel, Image, ImageSet, Panel
from maskless.study import Study
from studies import QUICK

PANEL = Panel((Channel("CD3", "", "marker", True), Channel("empty", "", "background", False)))


def cells_of(images: tuple[str, ...] = ("a", "b")) -> AnnData:
    """Three cells in each image; the first at x = 7, y = 30."""
    n = 3 * len(images)
    obs = pd.DataFrame(
        {
            "image": pd.Categorical(np.repeat(images, 3)),
            "y": np.array([30, 5, 6] * len(images), np.float32),
            "x": np.array([7, 8, 9.5] * len(images), np.float32),
            "cluster": pd.Categorical(["0", "-1", "12"] * len(images)),
            "phenotype": pd.Categorical(["=cmd()", "B cell, mature", 'T "cell"'] * len(images)),
            "confidence": np.linspace(0, 1, n, dtype=np.float32),
        },
        index=[f"{image}:{i}" for image in images for i in range(3)],
    )
    var = pd.DataFrame({"used": [True, False]}, index=["CD3", "empty"])
    x = np.arange(2 * n, dtype=np.float32).reshape(n, 2) / 7
    spatial = obs[["x", "y"]].to_numpy() * 0.5
    return AnnData(X=x, obs=obs, var=var, obsm={"spatial": spatial})


def image_set() -> ImageSet:
    images = {}
    for name in ("a", "b"):
        pixels = np.zeros((2, 40, 12), np.float32)
        pixels[0, 30, 7] = 9
        images[name] = Image(name, pixels, PANEL.names, 0.5)
    return ImageSet(PANEL, {name: lambda name=name: images[name] for name in images})


def test_csv_holds_every_cell_and_no_formula(tmp_path: Path) -> None:
    cells = cells_of()
    write_csv(cells, tmp_path / "cells.csv")
    with (tmp_path / "cells.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *["cell", "image", "x", "y", "x_um", "y_um", "cluster", "phenotype", "confidence", "CD3"]
    ]
    assert [row["phenotype"] for row in rows[:3]] == ["'=cmd()", "B cell, mature", 'T "cell"']
    assert rows[0]["x"] == "7"
    assert rows[0]["y"] == "30"
    assert rows[0]["x_um"] == "3.5"
    assert rows[1]["cluster"] == "'-1"
    np.testing.assert_allclose([float(r["CD3"]) for r in rows], cells.X[:, 0], rtol=1e-5)


def parsed(content: bytes) -> tuple[dict[str, str], np.ndarray]:
    """An FCS 3.1 file, read as the standard says."""
    assert content[:10] == b"FCS3.1    "
    start, end, begin, last = (int(content[10 + 8 * i : 18 + 8 * i]) for i in range(4))
    text = content[start : end + 1].decode()
    separator = text[0]
    parts = text[1:-1].split(separator)
    assert text[-1] == separator
    keys = dict(zip(parts[::2], parts[1::2], strict=True))
    assert (int(keys["$BEGINDATA"]), int(keys["$ENDDATA"])) == (begin, last) or begin == 0
    shape = int(keys["$TOT"]), int(keys["$PAR"])
    data = content[int(keys["$BEGINDATA"]) :][: 4 * shape[0] * shape[1]]
    return keys, np.frombuffer(data, "<f4").reshape(shape)


@given(
    st.integers(0, 5),
    st.lists(st.text(min_size=0, max_size=8), min_size=1, max_size=4),
    st.text(max_size=20),
)
def test_fcs_comes_back_whatever_the_names(events: int, names: list[str], note: str) -> None:
    names = [name.encode("utf-8", "ignore").decode() for name in names]
    note = note.encode("utf-8", "ignore").decode()
    table = np.arange(events * len(names), dtype=np.float32).reshape(events, len(names)) - 3
    keys, found = parsed(fcs_bytes(table, names, {"NOTE": note}))
    np.testing.assert_array_equal(found, table)
    short = [keys[f"$P{i + 1}N"] for i in range(len(names))]
    assert len({name.lower() for name in short}) == len(names)
    assert not any("," in name for name in short)
    assert all(keys.values())


def test_fcs_of_cells_one_file_an_image_or_one_for_all(tmp_path: Path) -> None:
    cells = cells_of(("a", "b/c"))
    files = write_fcs(cells, tmp_path / "out")
    assert [file.name for file in files] == ["a.fcs", "b_c.fcs"]
    keys, events = parsed(files[0].read_bytes())
    names = [keys[f"$P{i + 1}S"] for i in range(int(keys["$PAR"]))]
    assert names == [
        *["x", "y", "x_um", "y_um", "cluster", "phenotype", "confidence", "image", "CD3"]
    ]
    assert events[0, :4].tolist() == [7, 30, 3.5, 15]
    assert events[:, 4].tolist() == [0, -1, 12]
    assert keys["PHENOTYPES"] == '0==cmd(); 1=B cell, mature; 2=T "cell"'
    assert "CLUSTERS" not in keys
    (one,) = write_fcs(cells, tmp_path / "all.fcs")
    assert parsed(one.read_bytes())[1].shape == (6, 9)
    cells.X[0, 0] = np.nan
    with pytest.raises(InputError, match="NaN"):
        write_fcs(cells, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_fcs_is_read_by_another_program(tmp_path: Path) -> None:
    flowio = pytest.importorskip("flowio")
    (file,) = write_fcs(cells_of(), tmp_path / "all.fcs")
    data = flowio.FlowData(str(file))
    assert data.event_count == 6
    np.testing.assert_allclose(
        np.reshape(data.events, (6, -1)), parsed(file.read_bytes())[1], rtol=1e-6
    )


@pytest.mark.filterwarnings("ignore")  # of spatialdata and what it stands on
def test_a_bright_cell_stays_where_it_is_in_spatialdata(tmp_path: Path) -> None:
    spatialdata = pytest.importorskip("spatialdata")
    write_spatialdata(cells_of(), image_set(), tmp_path / "store.zarr")
    store = spatialdata.read_zarr(tmp_path / "store.zarr")
    point = store["a_cells"].geometry.iloc[0]
    assert (point.x, point.y) == (7, 30)
    pixels = store["a_image"]
    assert list(pixels.coords["c"].values) == ["CD3", "empty"]
    assert float(np.asarray(pixels)[0, int(point.y), int(point.x)]) == 9
    moved = spatialdata.transform(store["a_cells"], to_coordinate_system="a")
    assert (moved.geometry.iloc[0].x, moved.geometry.iloc[0].y) == (3.5, 15)
    table = store["cells"]
    assert table.obs["region"].tolist() == ["a_cells"] * 3 + ["b_cells"] * 3
    np.testing.assert_allclose(table.obsm["spatial"][0], [3.5, 15])
    assert set(table.obs["phenotype"]) == set(cells_of().obs["phenotype"])


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "spatialdata", None)
    with pytest.raises(MissingExtraError, match=r"maskless\[scverse\]"):
        write_spatialdata(cells_of(), image_set(), tmp_path / "store.zarr")


def test_export_of_a_study(tmp_path: Path) -> None:
    from maskless.config import resolve

    study = Study.create(tmp_path / "study", resolve({**QUICK, "images": {"paths": ["x"]}}))
    with pytest.raises(InputError, match="no such file"):
        export_study(study.folder, "csv", tmp_path / "a.csv")
    write_cells(cells_of(), study.cells_file)
    assert "6 cells" in export_study(study.folder, "csv", tmp_path / "a.csv")
    assert "2 FCS files" in export_study(study.folder, "fcs", tmp_path / "fcs")
    with pytest.raises(StudyError, match="is there already"):
        export_study(study.folder, "csv", tmp_path / "a.csv")
    with pytest.raises(SettingsError, match="expected one of csv, fcs, spatialdata"):
        export_study(study.folder, "xlsx", tmp_path / "a.xlsx")
