from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

import maskless as mx
from maskless.errors import InputError
from maskless.images.background.ilastik_project import read_ilastik_project

Change = Callable[[h5py.File], None]
FOREST = "PixelClassification/ClassifierForests/Forest0003"


@pytest.fixture
def changed(real_data: Path, tmp_path: Path) -> Callable[[Change], Path]:
    def make(change: Change) -> Path:
        path = tmp_path / "changed.ilp"
        shutil.copyfile(real_data / "ilastik_project" / "TestData.ilp", path)
        with h5py.File(path, "r+") as content:
            change(content)
        return path

    return make


def put(key: str, value: object) -> Change:
    def change(content: h5py.File) -> None:
        del content[key]
        content[key] = value

    return change


def alter(key: str, place: object, value: object) -> Change:
    def change(content: h5py.File) -> None:
        content[key][place] = value

    return change


def remove(*keys: str) -> Change:
    def change(content: h5py.File) -> None:
        for key in keys:
            del content[key]

    return change


def test_probabilities_are_those_that_ilastik_exported(real_data: Path) -> None:
    folder = real_data / "ilastik_project"
    project = folder / "TestData.ilp"
    files = sorted((folder / "ilastik").glob("*_s2.h5"))
    assert len(files) == 15
    for file in files:
        with h5py.File(file) as content:
            image_cyx = content[file.stem][0].transpose(2, 0, 1)
        exported = tifffile.imread(file.with_name(f"{file.stem}_Probabilities.tiff")) / 65535
        found = mx.ilastik_probabilities(project, image_cyx)
        assert found.dtype == np.float32
        assert np.abs(found - exported).mean() < 1e-5
        assert np.abs(found - exported).max() < 0.0101  # one tree of a hundred, at some pixels
        assert (found.argmax(-1) == exported.argmax(-1)).all()
        np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)


def test_the_project_tells_its_classes_and_channels(real_data: Path) -> None:
    project = read_ilastik_project(real_data / "ilastik_project" / "TestData.ilp")
    assert project.classes == ("nucleus", "cytoplasm", "background")
    assert project.channels == 4
    assert len(project.features) == 30
    assert len(project.forest.roots) == 100


def test_pickled_objects_are_never_touched(changed: Callable[[Change], Path]) -> None:
    bomb = np.void(b"cos\nsystem\n(S'exit 1'\ntR.")
    path = changed(put("PixelClassification/ClassifierFactory", bomb))
    assert read_ilastik_project(path).channels == 4


@pytest.mark.parametrize("shape", [(3, 60, 60), (5, 60, 60), (60, 60)])
def test_another_number_of_channels_is_an_error(real_data: Path, shape: tuple[int, ...]) -> None:
    project = real_data / "ilastik_project" / "TestData.ilp"
    with pytest.raises(InputError, match=r"number of channels.*TestData.*expected 4 channels"):
        mx.ilastik_probabilities(project, np.zeros(shape))


def test_an_image_that_is_too_small_is_an_error(real_data: Path) -> None:
    project = real_data / "ilastik_project" / "TestData.ilp"
    with pytest.raises(InputError, match=r"too small.*36 x 36.*found 35 x 60.*TestData"):
        mx.ilastik_probabilities(project, np.zeros((4, 35, 60)))


BAD: dict[str, tuple[Change, str]] = {
    "workflow": (put("workflowName", b"Object Classification"), "found Object Classification"),
    "no workflow": (remove("workflowName"), "found nothing"),
    "version": (put("ilastikVersion", b"1.3.3post3"), r"expected 1\.4\.\*, found 1\.3\.3post3"),
    "no forests": (remove("PixelClassification/ClassifierForests"), "holds no trained forests"),
    "no classifier": (
        remove(*(f"PixelClassification/ClassifierForests/Forest{i:04d}" for i in range(8))),
        "holds no trained forests.*Live Update",
    ),
    "no features": (remove("FeatureSelections/SelectionMatrix"), "no features were chosen"),
    "none chosen": (
        put("FeatureSelections/SelectionMatrix", np.zeros((6, 7), bool)),
        "no features were chosen",
    ),
    "matrix": (put("FeatureSelections/SelectionMatrix", np.ones((6, 3), bool)), "damaged"),
    "feature": (
        alter("FeatureSelections/FeatureIds", 2, b"MyFilter"),
        "not known here.*found MyFilter",
    ),
    "fewer features": (
        put("FeatureSelections/SelectionMatrix", np.ones((6, 7), bool)),
        "do not fit its selection of features",
    ),
    "other labels": (put(f"{FOREST}/_ext_param/labels", np.array([1, 2], "u4")), "differ in kind"),
    "names": (put("PixelClassification/LabelNames", [b"one"]), "labels that have no name"),
    "hyperplanes": (alter(f"{FOREST}/Tree_04/topology", 2, 1), "a tree.*is damaged"),
    "loop": (alter(f"{FOREST}/Tree_04/topology", 4, 2), "a tree.*is damaged"),
    "outside": (alter(f"{FOREST}/Tree_04/topology", 5, 10**6), "a tree.*is damaged"),
    "column": (alter(f"{FOREST}/Tree_04/topology", 6, 160), "a tree.*is damaged"),
    "cut": (put(f"{FOREST}/Tree_04/parameters", np.zeros(3)), "is damaged"),
    "not a number": (alter(f"{FOREST}/Tree_04/parameters", slice(None), np.nan), "is damaged"),
    "texts": (put(f"{FOREST}/Tree_04/topology", b"nothing"), "is damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_damage_and_other_projects_are_one_clear_line(
    changed: Callable[[Change], Path], name: str
) -> None:
    change, message = BAD[name]
    with pytest.raises(InputError, match=message) as caught:
        read_ilastik_project(changed(change))
    assert "changed.ilp" in str(caught.value)


def test_files_that_are_no_project(tmp_path: Path, real_data: Path) -> None:
    (tmp_path / "text.ilp").write_text("no HDF5")
    (tmp_path / "cut.ilp").write_bytes(
        (real_data / "ilastik_project" / "TestData.ilp").read_bytes()[:40_000]
    )
    for name in ("text.ilp", "cut.ilp"):
        with pytest.raises(InputError, match=rf"damaged or no project.*{name}"):
            read_ilastik_project(tmp_path / name)
    with pytest.raises(InputError, match="no such ilastik project"):
        read_ilastik_project(tmp_path / "nothing.ilp")
