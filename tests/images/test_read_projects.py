"""Outputs of other programs: SpatialData stores, MCMICRO projects, what an .mcd tells beside."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import readimc
import tifffile
import zarr
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.images import Image, ImageSet, read_images, read_panoramas
from maskless.images.image import Channel, Panel

Pixels = NDArray[Any]


def store(folder: Path, names: list[str]) -> Path:
    root = zarr.open_group(str(folder), mode="w", zarr_format=3)
    root.attrs["spatialdata_attrs"] = {"version": "0.2"}
    for name in names:
        group = root.require_group("images").create_group(name)
        group.create_array("0", shape=(2, 8, 6), dtype="uint16", chunks=(1, 8, 6))[:] = 3
        group.attrs["ome"] = {
            "omero": {"channels": [{"label": "CD20"}, {"label": "DNA1"}]},
            "multiscales": [
                {
                    "axes": [{"name": a} for a in "cyx"],
                    "datasets": [{"path": "0", "coordinateTransformations": []}],
                }
            ],
        }
    return folder


def test_every_image_of_a_spatialdata_store(tmp_path: Path) -> None:
    path = store(tmp_path / "a.zarr", ["r2", "r10"])
    images = read_images(path, um_per_pixel=1.0)
    assert images.names == ("r10", "r2")
    assert images["r2"].channels == ("CD20", "DNA1")
    two = read_images([path, store(tmp_path / "b.zarr", ["r2"])], um_per_pixel=1.0)
    assert set(two.names) == {"r10", "a.zarr_r2", "b.zarr_r2"}


def test_a_half_written_spatialdata_store(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"SpatialData store has no images.*a\.zarr"):
        read_images(store(tmp_path / "a.zarr", []))
    path = store(tmp_path / "b.zarr", ["r2"])
    (path / "images" / "r2" / "0" / "zarr.json").unlink()
    with pytest.raises(InputError, match=r"lacks an array.*r2"):
        read_images(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the packages that write it
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_store_that_spatialdata_wrote(tmp_path: Path) -> None:
    spatialdata = pytest.importorskip("spatialdata")
    from spatialdata.models import Image2DModel, Labels2DModel

    pixels_cyx = np.random.default_rng(0).integers(1, 9, (2, 41, 23)).astype(np.uint16)
    labels = Labels2DModel.parse(pixels_cyx[0].astype(np.int64), dims=("y", "x"))
    image = Image2DModel.parse(
        pixels_cyx, dims=("c", "y", "x"), c_coords=["CD20", "DNA1"], scale_factors=[2]
    )
    made = spatialdata.SpatialData(images={"r2": image}, labels={"cells": labels})
    made.write(tmp_path / "a.zarr")
    (found,) = read_images(tmp_path / "a.zarr", um_per_pixel=0.5)
    np.testing.assert_array_equal(found.pixels_cyx, pixels_cyx)
    assert found.channels == ("CD20", "DNA1")
    assert found.problems == ()


def mcmicro(folder: Path, pixels_cyx: Pixels, names: list[str], told: list[str]) -> Path:
    for inner in ("registration", "dearray/masks", "quantification"):
        (folder / inner).mkdir(parents=True)
    tifffile.imwrite(
        folder / "registration" / "slide.ome.tif",
        pixels_cyx,
        ome=True,
        photometric="minisblack",
        metadata={"axes": "CYX", "Channel": {"Name": told}, "PhysicalSizeX": 0.65},
    )
    rows = "".join(f"{i},1,{name}\n" for i, name in enumerate(names, start=1))
    (folder / "markers.csv").write_text(f"channel_number,cycle_number,marker_name\n{rows}")
    return folder


def test_markers_csv_names_the_channels(tmp_path: Path) -> None:
    pixels_cyx = np.arange(60, dtype=np.uint16).reshape(3, 4, 5)
    names = ["DNA_1", "CD3", "CD20"]
    path = mcmicro(tmp_path / "a", pixels_cyx, names, ["Channel:0:0", "1", "CD8"])
    images = read_images(path)
    assert images.names == ("slide",)
    assert images.panel.names == tuple(names)
    image = images["slide"]
    assert image.um_per_pixel == 0.65
    assert image.problems == (
        "1 channels are called otherwise in markers.csv, whose names were taken (CD8 is CD20).",
    )
    np.testing.assert_array_equal(image.pixels_cyx, pixels_cyx)
    # As a panel of its own it names unnamed files as well.
    plain = tmp_path / "plain.tif"
    tifffile.imwrite(plain, pixels_cyx, photometric="minisblack")
    (again,) = read_images(plain, panel=path / "markers.csv", um_per_pixel=1.0)
    assert again.channels == tuple(names)


def test_cores_of_a_microarray_are_the_images(tmp_path: Path) -> None:
    pixels_cyx = np.ones((2, 4, 5), np.uint16)
    path = mcmicro(tmp_path / "a", pixels_cyx, ["DNA1", "CD3"], ["0", "1"])
    for core in ("1", "10", "2"):
        tifffile.imwrite(path / "dearray" / f"{core}.tif", pixels_cyx, photometric="minisblack")
    tifffile.imwrite(path / "dearray" / "masks" / "1_mask.tif", pixels_cyx[0])
    assert read_images(path, um_per_pixel=0.65).names == ("1", "2", "10")


def test_markers_csv_that_does_not_fit(tmp_path: Path) -> None:
    pixels_cyx = np.ones((2, 4, 5), np.uint16)
    path = mcmicro(tmp_path / "a", pixels_cyx, ["DNA1", "CD3", "CD8"], ["0", "1"])
    with pytest.raises(InputError, match=r"channels of markers\.csv.*expected 3, DNA1.*found 2"):
        read_images(path)
    (path / "registration" / "slide.ome.tif").unlink()
    with pytest.raises(InputError, match="MCMICRO project has no images"):
        read_images(path)


def test_panoramas_and_what_was_told_of_acquisitions(real_data: Path) -> None:
    path = sorted((real_data / "imc_raw_mcd" / "raw").glob("*/*.mcd"))[1]
    images = read_images(path)
    about = images[images.names[0]].about
    assert about["description"] == "ROI_001"
    assert about["started"].startswith("2021-03-05T")
    assert (about["laser power"], about["laser Hz"]) == ("5", "200")
    assert about["panorama"] == "Panorama_001"
    (panorama,) = read_panoramas(path)
    with readimc.MCDFile(path) as opened:
        (slide,) = opened.slides
        first = slide.panoramas[0]
        expected = opened.read_panorama(first)
    np.testing.assert_array_equal(panorama.pixels_yxc, expected[..., :3])
    assert panorama.corners_um.shape == (4, 2)


def test_a_cut_panorama_is_one_line(real_data: Path, tmp_path: Path) -> None:
    source = sorted((real_data / "imc_raw_mcd" / "raw").glob("*/*.mcd"))[0]
    (tmp_path / "a.mcd").write_bytes(source.read_bytes().replace(b"\x89PNG", b"\x89JNG"))
    with pytest.raises(InputError, match=r"panorama 1 .*damaged.*a\.mcd"):
        read_panoramas(tmp_path / "a.mcd")


def counted(images: ImageSet) -> list[int]:
    """Bytes of one pass over a cohort at its highest, and of all images together."""
    tracemalloc.start()
    try:
        total = sum(np.asarray(image.pixels_cyx).nbytes for image in images)
        return [tracemalloc.get_traced_memory()[1], total]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("count", [2, 12])
def test_a_pass_holds_one_image_however_many_there_are(tmp_path: Path, count: int) -> None:
    from maskless.config import CleanSettings
    from maskless.images.clean import clean

    pixels_cyx = np.random.default_rng(0).poisson(3, (4, 256, 256)).astype(np.uint16)
    told = {"axes": "CYX", "Channel": {"Name": ["A", "B", "C", "DNA1"]}, "PhysicalSizeX": 1.0}
    for number in range(count):
        tifffile.imwrite(
            tmp_path / f"r{number}.ome.tif",
            pixels_cyx,
            ome=True,
            photometric="minisblack",
            metadata=told,
            compression="zlib",
        )
    images = read_images(tmp_path)
    next(iter(images))  # what libraries keep for good is loaded
    peak, total = counted(images)
    assert total == count * pixels_cyx.nbytes
    assert peak < 5 * pixels_cyx.nbytes  # the same limit for 2 and for 12
    cleaned = images.map(lambda image: image)
    peak, _ = counted(clean(cleaned, CleanSettings(scaling="none")))
    assert peak < 16 * pixels_cyx.nbytes  # float32 copies of one image


def test_images_are_loaded_one_after_the_other() -> None:
    loads: list[str] = []

    def loader(name: str) -> Any:
        def load() -> Image:
            loads.append(name)
            return Image(name, np.ones((1, 3, 3)), ("DNA1",), 1.0)

        return load

    images = ImageSet(Panel((Channel("DNA1"),)), {n: loader(n) for n in ("a", "b", "c")})
    seen = [(image.name, list(loads)) for image in images]
    assert seen == [("a", ["a"]), ("b", ["a", "b"]), ("c", ["a", "b", "c"])]
