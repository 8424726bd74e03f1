"""Damaged TIFF and OME-Zarr files: one clear InputError each, never a foreign exception."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.images import Channel, Panel, read_images

NAMES = [f"M{i}" for i in range(6)]
PANEL = Panel(tuple(Channel(name, position=i) for i, name in enumerate(NAMES)))


@pytest.fixture(scope="module")
def pixels_cyx() -> NDArray[np.uint16]:
    return np.random.default_rng(1).integers(1, 900, (6, 20, 30), dtype=np.uint16)


def write_ome(path: Path, pixels: NDArray[Any], **kwargs: Any) -> Path:
    told = {"axes": "CYX", "Channel": {"Name": NAMES}, "PhysicalSizeX": 1.0}
    tifffile.imwrite(path, pixels, ome=True, photometric="minisblack", metadata=told, **kwargs)
    return path


def write_pages(path: Path, pixels: NDArray[Any]) -> Path:
    """Pages one after the other, each with its directory: what instruments write."""
    with tifffile.TiffWriter(path) as writer:
        for plane in pixels:
            writer.write(plane, metadata=None, contiguous=False)
    return path


def load(path: Path) -> Any:
    (image,) = read_images(path, PANEL, um_per_pixel=1.0)
    return image


def refused(path: Path, said: str | None = None) -> None:
    with pytest.raises(InputError, match=said) as caught:
        load(path)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kind", ["ome", "pages", "shaped"])
def test_cut_at_random_offsets(
    tmp_path: Path, pixels_cyx: NDArray[np.uint16], kind: str, compression: str | None
) -> None:
    path = tmp_path / "a.tif"
    if kind == "ome":
        write_ome(path, pixels_cyx, compression=compression)
    elif kind == "pages":
        write_pages(path, pixels_cyx)
    else:
        tifffile.imwrite(path, pixels_cyx, photometric="minisblack", compression=compression)
    whole = path.read_bytes()
    np.testing.assert_array_equal(load(path).pixels_cyx, pixels_cyx)
    rng = np.random.default_rng(0)
    for size in {0, 1, 4, 8, len(whole) - 1, *rng.integers(0, len(whole), 25).tolist()}:
        path.write_bytes(whole[:size])
        try:
            image = load(path)
        except InputError as error:
            assert "a.tif" in str(error)  # noqa: PT017
        else:  # what was cut off was not needed
            np.testing.assert_array_equal(image.pixels_cyx, pixels_cyx)


def test_cut_at_every_page(tmp_path: Path, pixels_cyx: NDArray[np.uint16]) -> None:
    path = write_pages(tmp_path / "a.tif", pixels_cyx)
    whole = path.read_bytes()
    with tifffile.TiffFile(path) as opened:
        starts = [page.offset for page in opened.pages][1:]
    for start in starts:
        path.write_bytes(whole[:start])
        refused(path, "cut")


def test_fewer_pages_than_told(tmp_path: Path, pixels_cyx: NDArray[np.uint16]) -> None:
    """A file whose chain of pages was closed early is whole as a TIFF, but not as OME-TIFF."""
    path = write_ome(tmp_path / "a.ome.tif", pixels_cyx)
    with tifffile.TiffFile(path) as opened:
        third = opened.pages[2]
        place = third.offset + 2 + len(third.tags) * 12
    raw = bytearray(path.read_bytes())
    raw[place : place + 4] = struct.pack("<I", 0)
    path.write_bytes(raw)
    refused(path, "expected 6 pages.*found 3")
    plain = write_pages(tmp_path / "b.tif", pixels_cyx[:4])
    refused(plain, "4 channels")


def test_loop_of_pages(tmp_path: Path, pixels_cyx: NDArray[np.uint16]) -> None:
    path = write_pages(tmp_path / "a.tif", pixels_cyx)
    with tifffile.TiffFile(path) as opened:
        first, last = opened.pages[0], opened.pages[-1]
        place = last.offset + 2 + len(last.tags) * 12
        start = first.offset
    raw = bytearray(path.read_bytes())
    raw[place : place + 4] = struct.pack("<I", start)
    path.write_bytes(raw)
    refused(path, "loop|pages")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 10**6), st.integers(0, 255))
def test_any_changed_byte_gives_an_image_or_our_error(
    tmp_path: Path, pixels_cyx: NDArray[np.uint16], place: int, value: int
) -> None:
    path = tmp_path / "a.ome.tif"
    if not (tmp_path / "kept").exists():
        write_ome(tmp_path / "kept", pixels_cyx, compression="zlib")
    raw = bytearray((tmp_path / "kept").read_bytes())
    # Directories and XML are hit as often as pixels.
    raw[place % len(raw) if place % 2 else place % 3000] = value
    path.write_bytes(raw)
    try:
        image = load(path)
    except InputError:
        return
    assert image.pixels_cyx.shape[0] == 6


CHANGES: dict[str, tuple[Callable[[str], str], str]] = {
    "axis z": (lambda x: x.replace('SizeZ="1"', 'SizeZ="5"'), "axis Z"),
    "axis t": (lambda x: x.replace('SizeT="1"', 'SizeT="2"'), "axis T"),
    "x and y swapped": (
        lambda x: x.replace('SizeX="30"', 'SizeX="20"').replace('SizeY="20"', 'SizeY="30"'),
        "axes",
    ),
    "more channels": (lambda x: x.replace('SizeC="6"', 'SizeC="9"'), "contradicts"),
    "no size": (lambda x: x.replace('SizeX="30"', ""), "size of the image"),
    "zero": (lambda x: x.replace('SizeX="30"', 'SizeX="0"'), "empty"),
    "order": (lambda x: x.replace('"XYCZT"', '"CXYZT"'), "DimensionOrder"),
    "too many planes": (lambda x: x.replace('PlaneCount="6"', 'PlaneCount="7"'), "outside"),
    "wrong page": (lambda x: x.replace('IFD="0"', 'IFD="3"'), "pages are missing"),
    "malformed": (lambda x: x.replace("</Pixels>", ""), "malformed"),
    "cut": (lambda x: x[:-40], "malformed"),
    "no image": (lambda x: re.sub("<Image.*</Image>", "", x), "no image"),
    "not a number": (lambda x: x.replace('PlaneCount="6"', 'PlaneCount="six"'), "cannot be read"),
    "bomb": (
        lambda x: '<!DOCTYPE b [<!ENTITY a "x"><!ENTITY b "&a;&a;">]>' + x[x.index("<OME") :],
        "unsafe",
    ),
    "other file": (
        lambda x: x.replace(
            'PlaneCount="6"/>', 'PlaneCount="6"><UUID FileName="b.tif">urn:uuid:1</UUID></TiffData>'
        ),
        "several files",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_wrong_ome_xml(tmp_path: Path, pixels_cyx: NDArray[np.uint16], change: str) -> None:
    with tifffile.TiffFile(write_ome(tmp_path / "right.ome.tif", pixels_cyx)) as opened:
        xml = opened.ome_metadata
    function, said = CHANGES[change]
    assert xml is not None
    changed = function(xml)
    assert changed != xml
    path = tmp_path / "wrong.tif"
    with tifffile.TiffWriter(path) as writer:
        for i, plane in enumerate(pixels_cyx):
            told = changed.encode() if i == 0 else None
            writer.write(plane, description=told, metadata=None, contiguous=False)
    refused(path, said)


def test_renamed_file_is_still_itself(tmp_path: Path, pixels_cyx: NDArray[np.uint16]) -> None:
    path = write_ome(tmp_path / "a.ome.tif", pixels_cyx)
    path.rename(tmp_path / "b.ome.tif")
    np.testing.assert_array_equal(load(tmp_path / "b.ome.tif").pixels_cyx, pixels_cyx)


@pytest.mark.parametrize("axes", ["ZYX", "TYX", "TCYX", "ZCYX"])
def test_wrong_axes(tmp_path: Path, axes: str) -> None:
    path = tmp_path / "a.tif"
    shape = (6, 20, 30) if len(axes) == 3 else (2, 6, 20, 30)
    tifffile.imwrite(
        path, np.ones(shape, np.uint16), photometric="minisblack", metadata={"axes": axes}
    )
    refused(path, "axes of the TIFF")


def test_pages_that_differ(tmp_path: Path, pixels_cyx: NDArray[np.uint16]) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for plane in pixels_cyx[:5]:
            writer.write(plane, metadata=None, contiguous=False)
        writer.write(pixels_cyx[5, :10], metadata=None, contiguous=False)
    refused(path, "another size")
    with tifffile.TiffWriter(path) as writer:
        for plane in pixels_cyx[:5]:
            writer.write(plane, metadata=None, contiguous=False)
        writer.write(pixels_cyx[5].astype(np.float32), metadata=None, contiguous=False)
    refused(path, "kind of pixel")


def test_files_that_are_no_images(tmp_path: Path) -> None:
    for name, content in {
        "empty.tif": b"",
        "text.tif": b"this is not a TIFF at all",
        "png.tif": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "header.tif": b"II*\0" + bytes(4),
        "image.png": b"\x89PNG\r\n\x1a\n",
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        refused(path)
    refused(tmp_path / "missing.tif", "no such file")
    (tmp_path / "nothing").mkdir()
    refused(tmp_path / "nothing", "no image was found")
    (tmp_path / "not.zarr").mkdir()
    refused(tmp_path / "not.zarr", "not a Zarr group")


def test_nan_and_negative_pixels(tmp_path: Path, pixels_cyx: NDArray[np.uint16]) -> None:
    floats = pixels_cyx.astype(np.float32)
    floats[3, :2, :4] = np.nan
    images = read_images(write_ome(tmp_path / "a.ome.tif", floats))
    with pytest.raises(InputError, match=r"channel M3.*8 of 600 pixels"):
        images["a"]
    signed = pixels_cyx.astype(np.int32)
    signed[2, 0, :5] = -1
    image = load(write_ome(tmp_path / "b.ome.tif", signed))
    assert image.problems == ("5 pixels of channel M2 are negative.",)


def test_complex_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((6, 4, 5), np.complex64), photometric="minisblack")
    refused(path, "plain numbers")


def write_zarr(path: Path, pixels: NDArray[Any], version: int = 2, **kwargs: Any) -> Path:
    group = zarr.open_group(str(path), mode="w", zarr_format=version)
    array = group.create_array(
        "0",
        shape=pixels.shape,
        chunks=(1, 10, 30),
        dtype=pixels.dtype,
        config={"write_empty_chunks": True},
        **kwargs,
    )
    array[:] = pixels
    axes = [{"name": a, "type": "channel" if a == "c" else "space"} for a in "cyx"]
    told = {
        "multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}],
        "omero": {"channels": [{"label": name} for name in NAMES]},
    }
    group.attrs.update(told if version == 2 else {"ome": {"version": "0.5", **told}})
    return path


def chunks_of(path: Path) -> list[Path]:
    named = {".zarray", "zarr.json", ".zattrs", ".zgroup"}
    return sorted(p for p in (path / "0").rglob("*") if p.is_file() and p.name not in named)


@pytest.mark.parametrize("version", [2, 3])
def test_missing_chunks_are_counted(
    tmp_path: Path, pixels_cyx: NDArray[np.uint16], version: int
) -> None:
    path = write_zarr(tmp_path / "a.zarr", pixels_cyx, version)
    chunks = chunks_of(path)
    assert len(chunks) == 12
    for chunk in chunks:
        kept = chunk.read_bytes()
        chunk.unlink()
        image = load(path)
        assert "1 of 12 chunks are not stored, so 300 of 600 pixels" in image.problems[0]
        chunk.write_bytes(kept)
    np.testing.assert_array_equal(load(path).pixels_cyx, pixels_cyx)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("codec", ["blosc", "zstd", "zlib"])
def test_cut_chunks(
    tmp_path: Path, pixels_cyx: NDArray[np.uint16], version: int, codec: str
) -> None:
    v2 = {"id": codec}
    v3 = {"blosc": "BloscCodec", "zstd": "ZstdCodec", "zlib": "GzipCodec"}[codec]
    path = write_zarr(
        tmp_path / "a.zarr",
        pixels_cyx,
        version,
        compressors=v2 if version == 2 else getattr(zarr.codecs, v3)(),
    )
    np.testing.assert_array_equal(load(path).pixels_cyx, pixels_cyx)
    chunk = chunks_of(path)[5]
    kept = chunk.read_bytes()
    for size in np.linspace(1, len(kept) - 1, 9).astype(int):
        chunk.write_bytes(kept[:size])
        with pytest.raises(InputError):
            load(path)


def test_missing_chunks_of_other_channels_do_not_matter(
    tmp_path: Path, pixels_cyx: NDArray[np.uint16]
) -> None:
    path = write_zarr(tmp_path / "a.zarr", pixels_cyx)
    chunks_of(path)[0].unlink()
    (image,) = read_images(path, Panel((Channel("M5"),)), um_per_pixel=1.0)
    assert [p for p in image.problems if "chunk" in p] == []
    np.testing.assert_array_equal(image.pixels_cyx, pixels_cyx[5:])


def test_sharded_zarr(tmp_path: Path, pixels_cyx: NDArray[np.uint16]) -> None:
    path = write_zarr(tmp_path / "a.zarr", pixels_cyx, 3, shards=(2, 20, 30))
    np.testing.assert_array_equal(load(path).pixels_cyx, pixels_cyx)
    chunks_of(path)[1].unlink()
    assert "1 of 3 chunks" in load(path).problems[0]


def test_zarr_never_unpickles(tmp_path: Path, pixels_cyx: NDArray[np.uint16]) -> None:
    path = write_zarr(tmp_path / "a.zarr", pixels_cyx)
    place = path / "0" / ".zarray"
    told = json.loads(place.read_text())
    for key, value in (("compressor", {"id": "pickle"}), ("filters", [{"id": "pickle"}])):
        place.write_text(json.dumps({**told, key: value}))
        refused(path, "codec")
    place.write_text(json.dumps({**told, "dtype": "|O"}))
    refused(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a.pop("multiscales"), "not an OME-Zarr image"),
        (lambda a: a["multiscales"][0].pop("axes"), "axes"),
        (lambda a: a["multiscales"][0]["axes"].reverse(), None),
        (lambda a: a["multiscales"][0]["axes"][0].update(name="z"), "axes"),
        (lambda a: a["multiscales"][0]["datasets"].clear(), "cannot be read"),
        (lambda a: a["multiscales"][0]["datasets"][0].update(path="../a.zarr/0"), "outside itself"),
        (lambda a: a["multiscales"][0]["datasets"][0].update(path="1"), "lacks an array"),
        (lambda a: a["omero"]["channels"].pop(), "contradicts"),
        (lambda a: a["omero"].update(channels=5), "cannot be read"),
    ],
)
def test_wrong_zarr_metadata(
    tmp_path: Path,
    pixels_cyx: NDArray[np.uint16],
    change: Callable[[Any], Any],
    said: str | None,
) -> None:
    path = write_zarr(tmp_path / "a.zarr", pixels_cyx)
    told = json.loads((path / ".zattrs").read_text())
    change(told)
    (path / ".zattrs").write_text(json.dumps(told))
    if said is None:  # axes x, y, c then fit nobody's idea of channels: 30 of them
        said = "contradicts"
    refused(path, said)


@pytest.mark.parametrize("name", [".zattrs", "0/.zarray"])
@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"shape": "x"}'])
def test_damaged_zarr_json(
    tmp_path: Path, pixels_cyx: NDArray[np.uint16], name: str, content: str
) -> None:
    path = write_zarr(tmp_path / "a.zarr", pixels_cyx)
    (path / name).write_text(content)
    with pytest.raises(InputError):
        load(path)
