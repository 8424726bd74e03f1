"""Every format gives the same image: same pixels, same place, same channels, same pixel size."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.images import Channel, Image, Panel, read_images, source_files, write_image_zarr

PANEL = Panel(
    (Channel("CD20", "Dy161", position=0), Channel("DNA1", "Ir191", "nuclear", position=1))
)
Pixels = NDArray[np.float32]
Maker = Callable[..., Path]


def ome(path: Path, pixels: NDArray[Any], **metadata: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    settled = {
        "axes": "CYX",
        "Channel": {"Name": ["CD20", "DNA1"]},
        "PhysicalSizeX": 0.5,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 0.5,
        "PhysicalSizeYUnit": "µm",
    } | metadata
    tifffile.imwrite(
        path,
        pixels,
        ome=True,
        photometric="minisblack",
        metadata={key: value for key, value in settled.items() if value is not None},
    )
    return path


def _ome_tiff(folder: Path, pixels: Pixels, **_: Maker) -> Path:
    return ome(folder / "bright.ome.tif", pixels)


def _ome_big(folder: Path, pixels: Pixels, **_: Maker) -> Path:
    path = folder / "bright.ome.tif"
    tifffile.imwrite(
        path,
        pixels,
        ome=True,
        bigtiff=True,
        byteorder=">",
        compression="zlib",
        tile=(16, 16),
        photometric="minisblack",
        metadata={"axes": "CYX", "PhysicalSizeX": 500, "PhysicalSizeXUnit": "nm"},
    )
    return path


def _ome_pyramid(folder: Path, pixels: Pixels, **_: Maker) -> Path:
    path = folder / "bright.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        settled = {"axes": "CYX", "PhysicalSizeX": 0.5, "Channel": {"Name": ["CD20", "DNA1"]}}
        writer.write(pixels, subifds=1, photometric="minisblack", metadata=settled)
        writer.write(pixels[:, ::2, ::2], subfiletype=1, photometric="minisblack")
    return path


def _ome_interleaved(folder: Path, pixels: Pixels, **_: Maker) -> Path:
    path = folder / "bright.ome.tif"
    tifffile.imwrite(
        path,
        np.ascontiguousarray(pixels.transpose(1, 2, 0)),
        ome=True,
        photometric="minisblack",
        planarconfig="contig",
        metadata={"axes": "YXS", "PhysicalSizeX": 0.5},
    )
    return path


def _pages(folder: Path, pixels: Pixels, **_: Maker) -> Path:
    path = folder / "bright.tif"
    with tifffile.TiffWriter(path) as writer:
        for plane in pixels:
            writer.write(plane, metadata=None, contiguous=False)
    return path


def _shaped(folder: Path, pixels: Pixels, **_: Maker) -> Path:
    tifffile.imwrite(folder / "bright.tif", pixels, photometric="minisblack")
    return folder / "bright.tif"


def _channels_last(folder: Path, pixels: Pixels, **_: Maker) -> Path:
    last = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    path = folder / "bright.tif"
    tifffile.imwrite(path, last, photometric="minisblack", metadata={"axes": "YXC"})
    return path


def _imagej(folder: Path, pixels: Pixels, **_: Maker) -> Path:
    tifffile.imwrite(
        folder / "bright.tif",
        pixels[None, :, None].transpose(0, 2, 1, 3, 4),
        imagej=True,
        resolution=(2.0, 2.0),
        metadata={"axes": "TZCYX", "unit": "um", "Labels": ["CD20", "DNA1"]},
    )
    return folder / "bright.tif"


def _mibi(folder: Path, pixels: Pixels, **_: Maker) -> Path:
    path = folder / "bright.tiff"
    with tifffile.TiffWriter(path) as writer:
        for plane, name, mass in zip(pixels, ("CD20", "DNA1"), (161, 191), strict=True):
            told = {"image.type": "SIMS", "channel.mass": mass, "channel.target": name}
            writer.write(
                plane,
                description=json.dumps(told),
                resolution=(20000, 20000),
                resolutionunit="CENTIMETER",
                metadata=None,
                contiguous=False,
            )
        optical = json.dumps({"image.type": "Optical"})
        writer.write(np.zeros((4, 5), np.uint8), description=optical, metadata=None)
    return path


def _channel_folder(folder: Path, pixels: Pixels, **_: Maker) -> Path:
    place = folder / "bright" / "TIFs"
    place.mkdir(parents=True)
    # Alphabetical order is not the order of the panel.
    for plane, name in zip(pixels, ("Dy161_CD20", "191Ir-DNA1_191Ir"), strict=True):
        tifffile.imwrite(place / f"{name}.tiff", plane)
    tifffile.imwrite(place / "mask.tiff", np.ones(pixels.shape[1:], np.uint16))
    return place


def _one_image_folder(folder: Path, pixels: Pixels, **_: Maker) -> Path:
    place = folder / "cohort" / "bright"
    ome(place / "image.ome.tif", pixels)
    labels = np.ones(pixels.shape[1:], np.int32)
    for name in ("mask.tif", "mask_nuclei.tif", "region.tif", "class_labelled.tif", "x_mask.tiff"):
        tifffile.imwrite(place / name, labels)
    (place / "cells.csv").write_text("cell_id,y,x\n")
    return folder / "cohort"


def _steinbock(folder: Path, pixels: Pixels, **_: Maker) -> Path:
    project = folder / "project"
    (project / "img").mkdir(parents=True)
    (project / "masks").mkdir()
    tifffile.imwrite(project / "masks" / "bright.tiff", np.ones(pixels.shape[1:], np.uint16))
    stack = np.ascontiguousarray(pixels[None, None])
    tifffile.imwrite(project / "img" / "bright.tiff", stack, imagej=True)
    (project / "panel.csv").write_text("channel,name,keep\nDy161,CD20,1\nXe131,,0\nIr191,DNA1,1\n")
    (project / "images.csv").write_text(
        "image,width_px,height_px,num_channels,acquisition_width_um,acquisition_height_um\n"
        "bright.tiff,23,41,2,11.5,20.5\n"
    )
    return project


def _mcd(folder: Path, pixels: Pixels, *, make_mcd: Maker, **_: Maker) -> Path:
    return make_mcd(folder / "bright.mcd", [pixels])


def _txt(folder: Path, pixels: Pixels, *, make_txt: Maker, **_: Maker) -> Path:
    return make_txt(folder / "bright.txt", pixels)


def _own_zarr(folder: Path, pixels: Pixels, **_: Maker) -> Path:
    path = folder / "bright.zarr"
    write_image_zarr(Image("bright", pixels, PANEL.names, 0.5), PANEL, path)
    return path


def _foreign_zarr(folder: Path, pixels: Pixels, version: str, axes: str = "tczyx") -> Path:
    path = folder / "bright.ome.zarr"
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    full = pixels[None, :, None] if axes == "tczyx" else np.moveaxis(pixels, 0, axes.index("c"))
    array = group.create_array(
        "s0",
        shape=full.shape,
        chunks=tuple(min(16, n) for n in full.shape),
        dtype=full.dtype,
        config={"write_empty_chunks": True},
    )
    array[:] = full
    kinds = {"t": "time", "c": "channel"}
    told: list[dict[str, Any]] = [{"name": a, "type": kinds.get(a, "space")} for a in axes]
    for axis in told:
        if axis["type"] == "space":
            axis["unit"] = "micrometer"
    scale = [0.25 if a in "yx" else 1.0 for a in axes]
    again = [2.0 if a in "yx" else 1.0 for a in axes]
    multiscales = {
        "axes": told,
        "datasets": [
            {"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        ],
        "coordinateTransformations": [{"type": "scale", "scale": again}],
        "version": version,
    }
    content = {
        "multiscales": [multiscales],
        "omero": {"channels": [{"label": "CD20"}, {"label": "DNA1"}]},
    }
    group.attrs.update(content if version == "0.4" else {"ome": {"version": version, **content}})
    return path


def _zarr_04(folder: Path, pixels: Pixels, **_: Maker) -> Path:
    return _foreign_zarr(folder, pixels, "0.4")


def _zarr_05(folder: Path, pixels: Pixels, **_: Maker) -> Path:
    return _foreign_zarr(folder, pixels, "0.5", axes="yxc")


def _spatialdata(folder: Path, pixels: Pixels, **_: Maker) -> Path:
    """As spatialdata 0.7 writes it: an OME-Zarr of format 3 in images/, units that are none."""
    store = folder / "store.zarr"
    zarr.open_group(str(store), mode="w", zarr_format=3).attrs["spatialdata_attrs"] = {
        "version": "0.2"
    }
    made = _foreign_zarr(folder, pixels, "0.5", axes="cyx")
    (store / "images").mkdir()
    place = made.rename(store / "images" / "bright")
    group = zarr.open_group(str(place))
    told = dict(group.attrs["ome"])  # type: ignore[arg-type]
    for axis in told["multiscales"][0]["axes"]:
        axis.pop("unit", None)
    system = {"name": "global", "axes": told["multiscales"][0]["axes"]}
    told["multiscales"][0]["coordinateTransformations"] = [
        {"type": "scale", "scale": [1.0, 0.5, 0.5], "input": {"name": "cyx"}, "output": system},
        {"type": "affine", "affine": [[1, 0], [0, 1]], "input": {}, "output": {"name": "other"}},
    ]
    group.attrs["ome"] = told
    group.attrs["spatialdata_attrs"] = {"version": "0.3"}
    (store / "labels").mkdir()
    return store


def _mcmicro(folder: Path, pixels: Pixels, **_: Maker) -> Path:
    project = folder / "project"
    for inner in ("registration", "segmentation/unmicst-bright", "qc"):
        (project / inner).mkdir(parents=True)
    ome(project / "registration" / "bright.ome.tif", pixels, Channel={"Name": ["0", "1"]})
    tifffile.imwrite(
        project / "segmentation" / "unmicst-bright" / "cell.ome.tif",
        np.ones(pixels.shape[1:], np.uint16),
    )
    (project / "markers.csv").write_text(
        "channel_number,cycle_number,marker_name\n1,1,CD20\n2,1,DNA1\n"
    )
    return project


FORMATS = [
    _ome_tiff, _ome_big, _ome_pyramid, _ome_interleaved, _pages, _shaped, _channels_last, _imagej,
    _mibi, _channel_folder, _one_image_folder, _steinbock, _mcd, _txt, _own_zarr, _zarr_04,
    _zarr_05, _spatialdata, _mcmicro,
]  # fmt: skip
NO_SIZE = {_spatialdata, _pages, _shaped, _channels_last, _channel_folder}
MICROMETRE = {_mcd, _txt}


@pytest.mark.parametrize("make", FORMATS, ids=lambda make: make.__name__.strip("_"))
def test_a_bright_pixel_stays_where_it_is(
    make: Callable[..., Path],
    tmp_path: Path,
    bright_cyx: Pixels,
    make_mcd: Maker,
    make_txt: Maker,
) -> None:
    path = make(tmp_path, bright_cyx, make_mcd=make_mcd, make_txt=make_txt)
    if make in NO_SIZE:
        with pytest.raises(InputError, match="--um-per-pixel"):
            read_images(path, PANEL)
    images = read_images(path, PANEL, um_per_pixel=0.5 if make in NO_SIZE else None)
    name = "bright_001" if make is _mcd else "bright"
    assert images.names == (name,)
    image = images[name]
    assert image.channels == ("CD20", "DNA1")
    assert image.pixels_cyx.dtype == np.float32
    assert image.pixels_cyx.dtype.isnative
    np.testing.assert_array_equal(image.pixels_cyx, bright_cyx)
    assert image.pixels_cyx[0, 30, 7] == 100
    assert image.um_per_pixel == (1.0 if make in MICROMETRE else 0.5)
    assert image.problems == ()
    files = source_files(images)[name]
    assert files
    assert all(file.is_file() for file in files)
    assert source_files(images.map(lambda one: one)) == source_files(images)


@pytest.mark.parametrize("make", FORMATS, ids=lambda make: make.__name__.strip("_"))
def test_channels_come_in_the_order_of_the_panel(
    make: Callable[..., Path],
    tmp_path: Path,
    bright_cyx: Pixels,
    make_mcd: Maker,
    make_txt: Maker,
) -> None:
    path = make(tmp_path, bright_cyx, make_mcd=make_mcd, make_txt=make_txt)
    only_dna = Panel((Channel("dna-1", "Ir191", "nuclear", position=1),))
    (image,) = read_images(path, only_dna, um_per_pixel=0.5)
    np.testing.assert_array_equal(image.pixels_cyx, bright_cyx[1:])
    assert any("CD20" in p or "unnamed" in p for p in image.problems)
    assert any("left out" in p for p in image.problems)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float64])
def test_pixels_keep_their_dtype(tmp_path: Path, bright_cyx: Pixels, dtype: Any) -> None:
    path = ome(tmp_path / "a.ome.tif", bright_cyx.astype(dtype))
    (image,) = read_images(path)
    assert image.pixels_cyx.dtype == dtype


@pytest.mark.parametrize(
    ("size", "unit", "expected"),
    [(0.5, "µm", 0.5), (500, "nm", 0.5), (0.0005, "mm", 0.5), (5e-5, "cm", 0.5), (5000, "Å", 0.5)],
)
def test_units_of_the_pixel_size(
    tmp_path: Path, bright_cyx: Pixels, size: float, unit: str, expected: float
) -> None:
    path = ome(
        tmp_path / "a.ome.tif",
        bright_cyx,
        PhysicalSizeX=size,
        PhysicalSizeY=size,
        PhysicalSizeXUnit=unit,
        PhysicalSizeYUnit=unit,
    )
    assert read_images(path)["a"].um_per_pixel == pytest.approx(expected)


def test_pixel_sizes_that_cannot_be_used(tmp_path: Path, bright_cyx: Pixels) -> None:
    with pytest.raises(InputError, match="not square"):
        read_images(ome(tmp_path / "a.ome.tif", bright_cyx, PhysicalSizeY=0.7))
    with pytest.raises(InputError, match="makes no sense"):
        read_images(ome(tmp_path / "b.ome.tif", bright_cyx, PhysicalSizeX=-1))
    path = ome(tmp_path / "c.ome.tif", bright_cyx, PhysicalSizeX=None, PhysicalSizeY=None)
    with pytest.raises(InputError, match="um_per_pixel"):
        read_images(path)
    assert read_images(path, um_per_pixel=0.4)["c"].um_per_pixel == 0.4
    for wrong in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="makes no sense"):
            read_images(path, um_per_pixel=wrong)
    pixel = {"PhysicalSizeXUnit": "pixel", "PhysicalSizeYUnit": "pixel"}
    with pytest.raises(InputError, match="um_per_pixel"):
        read_images(ome(tmp_path / "d.ome.tif", bright_cyx, **pixel))


def test_a_given_pixel_size_overrules_and_says_so(tmp_path: Path, bright_cyx: Pixels) -> None:
    (image,) = read_images(ome(tmp_path / "a.ome.tif", bright_cyx), um_per_pixel=0.8)
    assert image.um_per_pixel == 0.8
    assert "0.5 um" in image.problems[0]


def test_series_are_images_of_their_own(tmp_path: Path, bright_cyx: Pixels) -> None:
    path = tmp_path / "two.ome.tif"
    told = {"axes": "CYX", "Channel": {"Name": ["CD20", "DNA1"]}, "PhysicalSizeX": 1.0}
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(bright_cyx, photometric="minisblack", metadata=told)
        writer.write(bright_cyx[:, :31] * 2, photometric="minisblack", metadata=told)
    images = read_images(path)
    assert images.names == ("two_001", "two_002")
    np.testing.assert_array_equal(images["two_002"].pixels_cyx, bright_cyx[:, :31] * 2)
