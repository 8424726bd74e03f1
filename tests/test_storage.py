"""Writing is whole or absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maskless.errors import InputError, StudyError
from maskless.storage import (
    atomic_path,
    mapped_array,
    read_json,
    remove_leftovers,
    write_json,
    write_text,
)


def everything_in(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


def test_a_file_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "a.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert everything_in(tmp_path) == {"deep", "deep/a.txt"}


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert everything_in(tmp_path) == {"a.txt"}


def test_a_folder_replaces_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "image.zarr"
    for content in ("first", "second"):
        with atomic_path(target) as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert everything_in(tmp_path) == {"image.zarr", "image.zarr/second"}


def test_a_file_never_replaces_a_folder(tmp_path: Path) -> None:
    (tmp_path / "spots").mkdir()
    (tmp_path / "spots" / "precious.txt").write_text("mine")
    with pytest.raises(StudyError, match="a folder of this name is there"):
        write_text(tmp_path / "spots", "new")
    assert everything_in(tmp_path) == {"spots", "spots/precious.txt"}


def test_a_failing_folder_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "image.zarr") as temporary:
        temporary.mkdir()
        (temporary / "chunk").write_text("x")
        raise KeyboardInterrupt
    assert everything_in(tmp_path) == set()


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"a\.txt.*No space left"), atomic_path(tmp_path / "a.txt"):
        raise OSError(28, "No space left on device")


def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="cannot write"):
        write_text(tmp_path / "file" / "below.txt", "x")


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("")
    (tmp_path / ".cells.h5ad.part-1234abcd").write_text("half")
    (tmp_path / ".image.zarr.part-1234abcd").mkdir()
    remove_leftovers(tmp_path)
    assert everything_in(tmp_path) == {"kept.txt"}


def test_json_round_trip(tmp_path: Path) -> None:
    content = {"b": 1, "a": [1.5, "µm", None]}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content
    assert list(read_json(tmp_path / "a.json")) == ["b", "a"]


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff"])
def test_damaged_json_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"a\.json"):
        read_json(path)


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (0, 4)])
def test_a_mapped_array_is_zeros_that_land_in_its_file(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    array = mapped_array(shape, tmp_path / "deep", "points")
    assert array.shape == shape
    assert array.dtype == np.float32
    assert not array.any()
    array[:] = 7
    if array.size:
        assert (np.fromfile(tmp_path / "deep" / "points.bin", np.float32) == 7).all()
    assert not (mapped_array(shape, None, "points")).any()


def test_a_mapped_array_says_where_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StudyError, match="file"):
        mapped_array((3,), tmp_path / "file", "points")
