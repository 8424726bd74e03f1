"""The study's own images: what was written is read back, or an error says what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from maskless.errors import InputError, StudyError
from maskless.images import (
    Channel,
    Image,
    Panel,
    open_image_zarr,
    read_images,
    write_image_zarr,
    zarr_attributes,
)

PANEL = Panel((Channel("α/β", "Dy161"), Channel("P", kind="element", used=False), Channel("DNA")))


def image_of(pixels_cyx: NDArray[Any], **kwargs: Any) -> Image:
    return Image("r1", pixels_cyx, PANEL.names, 0.488, Path("raw/a.tif"), ("3 pixels.",), **kwargs)


@pytest.fixture
def image() -> Image:
    pixels_cyx = np.random.default_rng(0).random((3, 600, 530), dtype=np.float32)
    pixels_cyx[1] = 0  # an empty channel is stored as well
    return image_of(pixels_cyx)


def chunks_of(path: Path) -> list[Path]:
    return sorted(p for p in (path / "0").rglob("*") if p.is_file() and p.name[0] != ".")


def test_round_trip(tmp_path: Path, image: Image) -> None:
    path = tmp_path / "images" / "r1.zarr"
    write_image_zarr(image, PANEL, path, {"hash": "abc"})
    again = open_image_zarr(path)
    np.testing.assert_array_equal(again.pixels_cyx, image.pixels_cyx)
    assert again.pixels_cyx.dtype == np.float32
    assert (again.name, again.channels) == ("r1", PANEL.names)
    assert (again.um_per_pixel, again.problems) == (0.488, ("3 pixels.",))
    assert zarr_attributes(path) == {"hash": "abc"}
    some = open_image_zarr(path, channels=[2, 0])
    np.testing.assert_array_equal(some.pixels_cyx, image.pixels_cyx[[2, 0]])
    assert some.channels == ("DNA", "α/β")
    with pytest.raises(InputError, match="0 to 2"):
        open_image_zarr(path, channels=[3])
    assert [p.name for p in path.parent.iterdir()] == ["r1.zarr"]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (30, 7)])
def test_dtypes_and_shapes(tmp_path: Path, dtype: Any, shape: tuple[int, int]) -> None:
    pixels = np.arange(3 * shape[0] * shape[1]).reshape(3, *shape).astype(dtype)
    write_image_zarr(image_of(pixels), PANEL, tmp_path / "a.zarr")
    again = open_image_zarr(tmp_path / "a.zarr").pixels_cyx
    np.testing.assert_array_equal(again, pixels)
    assert again.dtype == dtype


def test_it_is_ome_zarr_04(tmp_path: Path, image: Image) -> None:
    path = tmp_path / "r1.zarr"
    write_image_zarr(image, PANEL, path)
    group = zarr.open_group(str(path), mode="r")
    assert group.metadata.zarr_format == 2
    told: Any = dict(group.attrs)
    (scales,) = told["multiscales"]
    assert scales["version"] == "0.4"
    assert [a["name"] for a in scales["axes"]] == ["c", "y", "x"]
    assert [a.get("unit") for a in scales["axes"]] == [None, "micrometer", "micrometer"]
    (dataset,) = scales["datasets"]
    assert dataset["coordinateTransformations"] == [{"type": "scale", "scale": [1, 0.488, 0.488]}]
    assert [c["label"] for c in told["omero"]["channels"]] == list(PANEL.names)
    np.testing.assert_array_equal(group["0"][:], image.pixels_cyx)
    (read,) = read_images(path, PANEL)
    np.testing.assert_array_equal(read.pixels_cyx, image.pixels_cyx)
    assert read.um_per_pixel == 0.488


def test_every_removed_chunk_is_noticed(
    tmp_path: Path, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskless.images.zarr_store.CHUNK_PX", 512)
    path = tmp_path / "r1.zarr"
    write_image_zarr(image, PANEL, path)
    chunks = chunks_of(path)
    assert len(chunks) == 3 * 2 * 2
    for chunk in chunks:
        kept = chunk.read_bytes()
        chunk.unlink()
        with pytest.raises(InputError, match="1 of 12 chunks are missing"):
            open_image_zarr(path)
        with pytest.raises(InputError, match="chunks are not stored"):
            read_images(path, PANEL)["r1"]
        chunk.write_bytes(b"")
        with pytest.raises(InputError):
            open_image_zarr(path)
        chunk.write_bytes(kept[:-1])
        with pytest.raises(InputError, match="damaged"):
            open_image_zarr(path)
        changed = bytearray(kept)
        changed[len(kept) // 2] ^= 16
        chunk.write_bytes(changed)
        with pytest.raises(InputError, match="damaged"):
            open_image_zarr(path)
        chunk.write_bytes(kept)
    np.testing.assert_array_equal(open_image_zarr(path).pixels_cyx, image.pixels_cyx)


def test_every_removed_json_is_noticed(tmp_path: Path, image: Image) -> None:
    path = tmp_path / "r1.zarr"
    write_image_zarr(image, PANEL, path)
    for name in (".zattrs", "0/.zarray"):
        kept = (path / name).read_bytes()
        (path / name).unlink()
        with pytest.raises(InputError):
            open_image_zarr(path)
        (path / name).write_bytes(kept[: len(kept) // 2])
        with pytest.raises(InputError):
            open_image_zarr(path)
        (path / name).write_bytes(kept)
    with pytest.raises(InputError, match="no such folder"):
        open_image_zarr(tmp_path / "none.zarr")


def test_writing_is_whole_or_absent(
    tmp_path: Path, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r1.zarr"
    write_image_zarr(image, PANEL, path, {"run": 1})

    def fail(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("maskless.images.zarr_store._metadata", fail)
    with pytest.raises(StudyError, match="No space left"):
        write_image_zarr(image, PANEL, path, {"run": 2})
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["r1.zarr"]
    assert zarr_attributes(path) == {"run": 1}
    write_image_zarr(image, PANEL, path, {"run": 3})
    assert zarr_attributes(path) == {"run": 3}
    assert [p.name for p in tmp_path.iterdir()] == ["r1.zarr"]


def test_same_image_same_bytes(tmp_path: Path, image: Image) -> None:
    for name in ("a.zarr", "b.zarr"):
        write_image_zarr(image, PANEL, tmp_path / name)
    files = [p.relative_to(tmp_path / "a.zarr") for p in (tmp_path / "a.zarr").rglob("*")]
    assert len(files) > 12
    for file in files:
        if (tmp_path / "a.zarr" / file).is_file():
            first, second = (tmp_path / name / file for name in ("a.zarr", "b.zarr"))
            assert first.read_bytes() == second.read_bytes()


def test_image_and_panel_must_fit(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    wrong = Image("a", np.ones((3, 4, 5)), ("x", "P", "DNA"), 1.0)
    with pytest.raises(InputError, match="channels of the panel"):
        write_image_zarr(wrong, PANEL, path)
    with pytest.raises(InputError, match="one plane for each"):
        write_image_zarr(image_of(np.ones((2, 4, 5))), PANEL, path)
    with pytest.raises(InputError, match="empty"):
        write_image_zarr(image_of(np.ones((3, 0, 5))), PANEL, path)
    with pytest.raises(InputError, match="plain numbers"):
        write_image_zarr(image_of(np.ones((3, 4, 5), complex)), PANEL, path)
    assert list(tmp_path.iterdir()) == []


def test_foreign_zarr_is_not_taken_for_ours(tmp_path: Path) -> None:
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    array = group.create_array("0", shape=(1, 4, 5), chunks=(1, 4, 5), dtype="f4")
    array[:] = 1
    axes = [{"name": a} for a in "cyx"]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [{"path": "0"}]}]
    with pytest.raises(InputError, match="not written by"):
        open_image_zarr(tmp_path / "a.zarr")
