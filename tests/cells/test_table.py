from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from maskless.cells import make_cells
from maskless.errors import InputError
from maskless.images.image import Channel, Panel

PANEL = Panel(
    (
        Channel("CD3 / ε", "Er170"),
        Channel("DNA1", "Ir191", "nuclear"),
        Channel("Xe131", kind="background", used=False),
    )
)
CENTRES = {
    "b": np.array([[7.0, 30.0], [2.5, 31.0]]),
    "none": np.zeros((0, 2)),
    "a": np.array([[1.0, 1.0]]),
}
UM_PER_PIXEL = {"b": 1.0, "none": 1.0, "a": 0.5}


@pytest.fixture
def cells() -> anndata.AnnData:
    return make_cells(CENTRES, PANEL, UM_PER_PIXEL)


def test_rows_are_cells_in_the_cohorts_order(cells: anndata.AnnData) -> None:
    assert cells.obs_names.tolist() == ["b:0", "b:1", "a:0"]
    assert cells.obs["image"].tolist() == ["b", "b", "a"]
    assert cells.obs["image"].cat.categories.tolist() == ["b", "none", "a"]
    assert cells.obs["x"].tolist() == [7, 2.5, 1]
    assert cells.obs["y"].tolist() == [30, 31, 1]
    assert (cells.obs[["y", "x"]].dtypes == np.float32).all()
    np.testing.assert_array_equal(cells.obsm["spatial"], [[7, 30], [2.5, 31], [0.5, 0.5]])
    assert cells.uns["maskless"]["images_without_cells"].tolist() == ["none"]


def test_columns_are_all_channels(cells: anndata.AnnData) -> None:
    assert cells.var_names.tolist() == ["CD3 / ε", "DNA1", "Xe131"]
    assert cells.var["name"].tolist() == cells.var_names.tolist()
    assert cells.var["channel"].tolist() == [0, 1, 2]
    assert cells.var["metal"].tolist() == ["Er170", "Ir191", ""]
    assert cells.var["kind"].tolist() == ["marker", "nuclear", "background"]
    assert cells.var["used"].tolist() == [True, True, False]


def test_text_is_categorical_so_that_other_readers_open_it(cells: anndata.AnnData) -> None:
    for table in (cells.obs, cells.var):
        for column in table.select_dtypes(exclude=["number", "bool"]):
            assert isinstance(table[column].dtype, pd.CategoricalDtype), column


def test_goes_through_h5ad_and_back(cells: anndata.AnnData, tmp_path: Path) -> None:
    cells.write_h5ad(tmp_path / "cells.h5ad")
    again = anndata.read_h5ad(tmp_path / "cells.h5ad")
    pd.testing.assert_frame_equal(again.obs, cells.obs)
    pd.testing.assert_frame_equal(again.var, cells.var)
    np.testing.assert_array_equal(again.obsm["spatial"], cells.obsm["spatial"])
    assert again.uns["maskless"]["images_without_cells"].tolist() == ["none"]


def test_two_writes_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first.h5ad", "second.h5ad"):
        make_cells(CENTRES, PANEL, UM_PER_PIXEL).write_h5ad(tmp_path / name)
    assert (tmp_path / "first.h5ad").read_bytes() == (tmp_path / "second.h5ad").read_bytes()


def test_one_cell_is_enough() -> None:
    assert make_cells({"a": CENTRES["a"]}, PANEL, UM_PER_PIXEL).shape == (1, 3)


def test_no_cells_at_all_is_an_error() -> None:
    with pytest.raises(InputError, match="no cells were found in any of 1 images"):
        make_cells({"none": CENTRES["none"]}, PANEL, UM_PER_PIXEL)


@pytest.mark.parametrize("bad", [np.array([[1.0, np.nan]]), np.zeros((2, 3)), np.zeros(4)])
def test_what_are_no_centres_is_an_error(bad: np.ndarray) -> None:
    with pytest.raises(InputError, match="image b"):
        make_cells({"a": CENTRES["a"], "b": bad}, PANEL, UM_PER_PIXEL)


def test_the_numeric_part_of_the_package_does_without_tables() -> None:
    code = (
        "import sys; from maskless.cells import detect_nuclei, Atlas; "
        "print([m for m in ('anndata', 'pandas', 'zarr', 'tifffile') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
