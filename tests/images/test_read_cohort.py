"""Cohorts: folders, names, panels, and what happens when one image does not fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.images import Channel, Panel, read_images, read_panel, source_files
from maskless.images.header import FileChannel, Header
from maskless.images.match import match_panel

Maker = Callable[..., Path]


def save(path: Path, names: Sequence[str], value: int = 1, um: float | None = 1.0) -> Path:
    """An OME-TIFF whose channel i has the pixels value + i."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.stack([np.full((5, 7), value + i, np.uint16) for i in range(len(names))])
    told: dict[str, Any] = {"axes": "CYX", "Channel": {"Name": list(names)}}
    if um:
        told["PhysicalSizeX"] = um
    tifffile.imwrite(path, pixels, ome=True, photometric="minisblack", metadata=told)
    return path


def header(labels: Sequence[str | tuple[str, str]]) -> Header:
    channels = tuple(
        FileChannel.from_label(c) if isinstance(c, str) else FileChannel(*c) for c in labels
    )
    path = Path("a.tif")

    def load(indices: Sequence[int]) -> tuple[NDArray[Any], tuple[str, ...]]:
        raise NotImplementedError

    return Header("a", path, (path,), channels, 1.0, load)


def panel_of(*rows: tuple[str, str]) -> Panel:
    return Panel(tuple(Channel(name, metal) for name, metal in rows))


@pytest.mark.parametrize(
    ("labels", "rows", "expected"),
    [
        (["CD3", "CD4"], [("CD4", ""), ("CD3", "")], (1, 0)),
        (["cd-3", "CD 4"], [("CD4", ""), ("CD3", "")], (1, 0)),
        (["CD3", "cd3"], [("cd3", ""), ("CD3", "")], (1, 0)),
        (["α-SMA", "HLA-DR"], [("alphaSMA", ""), ("hladr", "")], (0, 1)),
        (["CD11b_Sm149", "149Sm"], [("149Sm", ""), ("CD11b", "")], (1, 0)),
        (["CD11b_Sm149", "CD20_Dy161"], [("CD20", "Dy161"), ("Other", "Sm149")], (1, 0)),
        (["127I_I127", "DNA1_Ir191"], [("127I", "I127"), ("DNA", "Ir191")], (0, 1)),
        (["152Sm-CD45_152Sm", "CD4"], [("CD45", ""), ("CD4", "Gd156")], (0, 1)),
        ([("Laminin_681((851))Sm147", "Sm147")], [("Laminin", "")], (0,)),
        ([("", "Dy161"), ("Label", "Dy162")], [("CD20", "161Dy"), ("CD8", "Dy162")], (0, 1)),
        (["AF647", "DAPI"], [("CD20", "AF647"), ("DNA", "dapi")], (0, 1)),
        (["DNA_Ir191", "DNA_Ir193"], [("DNA", "Ir193"), ("dna", "Ir191")], (1, 0)),
        (["", ""], [("CD20", ""), ("CD8", "")], (0, 1)),
        (["Channel 1", "Channel 2"], [("CD20", ""), ("CD8", "")], (0, 1)),
        (["CD45", "CD4"], [("CD4", "")], (1,)),
    ],
)
def test_matching(
    labels: Sequence[Any], rows: Sequence[tuple[str, str]], expected: tuple[int, ...]
) -> None:
    indices, problems = match_panel(panel_of(*rows), header(labels))
    assert indices == expected
    assert any("does not name" in p for p in problems) == (labels[0] == "Channel 1")


@pytest.mark.parametrize(
    ("labels", "rows", "said"),
    [
        (["CD3", "CD4"], [("CD8", "")], "not in the file.*channel CD8.*expected CD8.*CD3, CD4"),
        (["CD3", "cd-3"], [("Cd3", "")], "several channels"),
        (["DNA_Ir191", "DNA_Ir193"], [("DNA", "")], "several channels"),
        (["CD3_Er170", "CD4_Gd156"], [("CD3", "Gd156")], "different channels"),
        (["CD3_Er170"], [("CD3", "Er168")], "different channels"),
        (["CD3"], [("CD3", ""), ("cd3", "")], "same channel of the file"),
        (["", ""], [("CD3", "")], "expected 1 channels as in the panel, found 2"),
    ],
)
def test_ambiguity_is_refused(
    labels: Sequence[str], rows: Sequence[tuple[str, str]], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        match_panel(panel_of(*rows), header(labels))


def test_positions_choose_among_unnamed_channels() -> None:
    panel = Panel((Channel("B", position=3), Channel("A", position=0)))
    indices, problems = match_panel(panel, header([""] * 5))
    assert indices == (3, 0)
    assert "3 channels of the file" in problems[0]
    with pytest.raises(InputError, match="positions 0 to 2"):
        match_panel(panel, header([""] * 3))


def test_folder_in_natural_order_with_its_panel(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        save(tmp_path / f"r{number}.ome.tif", ["B_Dy161", "A_Ir191"], number)
    (tmp_path / "panel.csv").write_text("name,metal\nA,Ir191\nB,Dy161\n")
    images = read_images(tmp_path)
    assert images.names == ("r1", "r2", "r10")
    assert images.panel.names == ("A", "B")
    assert images["r2"].pixels_cyx[:, 0, 0].tolist() == [3, 2]
    assert (tmp_path / "panel.csv").resolve() in source_files(images)["r2"]
    # A panel that is given comes before the one that lies there.
    assert read_images(tmp_path, panel_of(("B", ""))).panel.names == ("B",)


def test_different_panels_in_the_folders(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / name / "x.ome.tif", ["A", "B"])
        (tmp_path / name / "panel.csv").write_text("name\nA\n" if name == "a" else "name\nB\n")
    with pytest.raises(InputError, match="different panels"):
        read_images([tmp_path / "a", tmp_path / "b"])


def test_without_a_panel_all_files_must_agree(tmp_path: Path) -> None:
    first = save(tmp_path / "1.ome.tif", ["CD3", "DNA1"])
    again = save(tmp_path / "2.ome.tif", ["DNA1", "CD3"], 5)
    images = read_images([first, again])
    assert images.panel.names == ("CD3", "DNA1")
    assert images.panel.nuclear == ("DNA1",)
    assert images["2"].pixels_cyx[:, 0, 0].tolist() == [6, 5]
    odd = save(tmp_path / "3.ome.tif", ["CD3", "DNA2"])
    with pytest.raises(InputError, match="image 3, channel DNA1"):
        read_images([first, again, odd])
    more = save(tmp_path / "4.ome.tif", ["CD3", "DNA1", "CD8"])
    with pytest.raises(InputError, match="image 4, channel CD8"):
        read_images([first, again, more])
    images = read_images([first, more], panel_of(("CD3", ""), ("DNA1", "")))
    assert images["4"].problems == (
        "1 channels of the file are not in the panel and were left out: CD8.",
    )


def test_files_that_name_channels_badly(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="same name"):
        read_images(save(tmp_path / "a.ome.tif", ["CD3", "CD3"]))
    images = read_images(save(tmp_path / "b.ome.tif", ["CD3", "DNA_Ir191", "DNA_Ir193"]))
    assert images.panel.names == ("CD3", "DNA_Ir191", "DNA_Ir193")
    tifffile.imwrite(tmp_path / "c.tif", np.ones((3, 4, 5), np.uint8), photometric="minisblack")
    with pytest.raises(InputError, match="not named"):
        read_images(tmp_path / "c.tif", um_per_pixel=1)


def test_same_labels_are_told_apart_by_metal(tmp_path: Path, make_mcd: Maker) -> None:
    pixels = np.ones((2, 3, 4), np.float32)
    channels = [("Ir(191)", "DNA"), ("Ir(193)", "DNA")]
    images = read_images(make_mcd(tmp_path / "a.mcd", [pixels], channels=channels))
    assert images.panel.names == ("DNA_Ir191", "DNA_Ir193")


def test_background_and_nuclear_by_any_spelling(tmp_path: Path) -> None:
    path = save(tmp_path / "a.ome.tif", ["CD3_Er170", "Histone-X", "CD8"])
    images = read_images(path, background=["cd8"], nuclear=["histone x", "Er170"])
    kinds = [c.kind for c in images.panel.channels]
    assert kinds == ["nuclear", "nuclear", "background"]
    assert images.panel.markers == ("CD3_Er170", "Histone-X")
    with pytest.raises(InputError, match="CD99"):
        read_images(path, background=["CD99"])


def test_same_names_get_their_folder(tmp_path: Path) -> None:
    paths = [save(tmp_path / name / "roi.ome.tif", ["A", "B"]) for name in ("p1", "p2")]
    other = save(tmp_path / "p1" / "other.ome.tif", ["A", "B"])
    assert read_images(tmp_path).names == ("other", "p1_roi", "p2_roi")
    assert read_images([*paths, other]).names == ("p1_roi", "p2_roi", "other")
    # The same file twice is one image.
    assert read_images([tmp_path, *paths]).names == ("other", "p1_roi", "p2_roi")
    save(tmp_path / "q" / "p1_roi.ome.tif", ["A", "B"])
    names = read_images(tmp_path).names
    assert len(set(names)) == 4


def test_image_ome_tif_is_named_by_its_folder(tmp_path: Path) -> None:
    save(tmp_path / "r1" / "image.ome.tif", ["A", "B"])
    assert read_images(tmp_path / "r1").names == ("r1",)
    assert read_images(tmp_path / "r1" / "image.ome.tif").names == ("r1",)


def test_one_channel_among_images_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.ome.tif", ["A", "B"])
    tifffile.imwrite(tmp_path / "nuclei.tif", np.ones((5, 7), np.uint16))
    with pytest.raises(InputError, match=r"nuclei\.tif"):
        read_images(tmp_path)


def test_channel_files_must_fit(tmp_path: Path) -> None:
    for name in ("CD3", "DNA1"):
        tifffile.imwrite(tmp_path / f"{name}.tif", np.ones((5, 7), np.uint16))
    images = read_images(tmp_path, um_per_pixel=0.5)
    assert images.names == (tmp_path.name,)
    assert images.panel.names == ("CD3", "DNA1")
    tifffile.imwrite(tmp_path / "DNA2.tif", np.ones((7, 5), np.uint16))
    with pytest.raises(InputError, match=r"different sizes.*DNA2"):
        read_images(tmp_path, um_per_pixel=0.5)
    (tmp_path / "DNA2.tif").write_bytes(b"")
    with pytest.raises(InputError, match=r"DNA2\.tif.*empty|empty.*DNA2\.tif"):
        read_images(tmp_path, um_per_pixel=0.5)


def test_on_error_leaves_out_and_goes_on(tmp_path: Path) -> None:
    save(tmp_path / "a.ome.tif", ["A", "B"])
    save(tmp_path / "b.ome.tif", ["A", "C"])
    save(tmp_path / "c.ome.tif", ["A", "B"], um=None)
    (tmp_path / "d.ome.tif").write_bytes(b"")
    save(tmp_path / "e.ome.tif", ["B", "A"])
    told: dict[str, InputError] = {}
    images = read_images([tmp_path, tmp_path / "f.tif"], on_error=told.__setitem__)
    assert images.names == ("a", "e")
    assert set(told) == {"b", "c", "d", "f.tif"}
    assert all(isinstance(error, InputError) for error in told.values())
    with pytest.raises(InputError):
        read_images(tmp_path)
    with pytest.raises(InputError, match="no image can be"):
        read_images(tmp_path / "d.ome.tif", on_error=told.__setitem__)


def test_what_is_given_must_make_sense(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no image was given"):
        read_images([])
    with pytest.raises(InputError, match="no such file"):
        read_images(tmp_path / "a", panel=tmp_path / "none.csv")


def test_a_study_in_the_folder_is_no_input(tmp_path: Path) -> None:
    save(tmp_path / "a.ome.tif", ["A", "B"])
    save(tmp_path / "study" / "figures" / "b.ome.tif", ["A", "C"])
    (tmp_path / "study" / "study.toml").write_text("")
    save(tmp_path / "masks_deepcell" / "a.ome.tif", ["x"])
    assert read_images(tmp_path).names == ("a",)


def test_headers_are_read_at_once_and_pixels_later(tmp_path: Path) -> None:
    path = save(tmp_path / "a.ome.tif", ["A", "B"])
    images = read_images(path)
    assert images["a"].pixels_cyx.shape == (2, 5, 7)
    save(path, ["A", "B", "C"])
    images["a"]  # still has A and B where they were
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(InputError):
        images["a"]
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        images["a"]


def steinbock(folder: Path, images_csv: str | None) -> Path:
    (folder / "img").mkdir(parents=True)
    stack = np.arange(2 * 5 * 7, dtype=np.float32).reshape(2, 5, 7)
    tifffile.imwrite(folder / "img" / "a.tiff", stack, imagej=True)
    (folder / "panel.csv").write_text("channel,name,keep\nDy161,CD20,1\nIr191,DNA,1\n")
    if images_csv is not None:
        (folder / "images.csv").write_text(images_csv)
    return folder


def test_steinbock_projects(tmp_path: Path) -> None:
    head = "image,width_px,height_px,num_channels,acquisition_width_um,acquisition_height_um\n"
    project = steinbock(tmp_path / "whole", head + "a.tiff,7,5,2,7.0,5.0\n")
    for path in (project, project / "img"):
        images = read_images(path)
        assert images.names == ("a",)
        assert images["a"].um_per_pixel == 1.0
        assert images.panel.names == ("CD20", "DNA")
    with pytest.raises(InputError, match=r"images\.csv tells"):
        read_images(steinbock(tmp_path / "cut", head + "a.tiff,7,5,34,7.0,5.0\n"))
    with pytest.raises(InputError, match="um_per_pixel"):
        read_images(steinbock(tmp_path / "no_table", None))
    with pytest.raises(InputError, match=r"images\.csv"):
        read_images(steinbock(tmp_path / "wrong_table", "name\nx\n"))


def test_steinbock_from_real_acquisitions(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "imc_raw_mcd"
    panel = read_panel(source / "steinbock" / "panel.csv")
    raw = read_images(source / "raw" / "20210305_NE_mockData5", panel)
    (tmp_path / "img").mkdir()
    for image in raw:
        path = tmp_path / "img" / f"{image.name}.tiff"
        tifffile.imwrite(path, image.pixels_cyx[None, None], imagej=True)
    for name in ("panel.csv", "images.csv"):
        (tmp_path / name).write_bytes((source / "steinbock" / name).read_bytes())
    images = read_images(tmp_path)
    assert images.names == raw.names
    assert images.panel.names == panel.names
    for image, other in zip(images, raw, strict=True):
        assert image.um_per_pixel == 1.0
        np.testing.assert_array_equal(image.pixels_cyx, other.pixels_cyx)


def test_real_spleen(real_data: Path) -> None:
    folder = real_data / "spleen_imc"
    images = read_images(folder)
    assert images.names == tuple(f"r{n}" for n in (2, 4, 8, 10, 14, 18, 20, 24, 26, 28, 30))
    assert images.panel == read_panel(folder / "panel.csv")
    for image in (images["r2"], images["r30"]):
        raw = tifffile.imread(folder / image.name / "image.ome.tif")
        np.testing.assert_array_equal(image.pixels_cyx, raw)
        assert image.pixels_cyx.dtype == np.uint16
        assert len(image.channels) == 25
        assert image.um_per_pixel == 1.0
        assert image.problems == ()
    named = read_images(folder / "r2" / "image.ome.tif")
    assert named.panel.channels[13].name == "CD20_Dy161"
    kinds = [c.kind for c in named.panel.channels]
    assert kinds == [c.kind for c in images.panel.channels]


def test_real_mibi(real_data: Path) -> None:
    path = real_data / "mibi_dcis" / "Point2203_pt1072_31606.ome.tif"
    with pytest.raises(InputError, match="--um-per-pixel"):
        read_images(path)
    images = read_images(path, um_per_pixel=0.488)
    (image,) = images
    assert image.pixels_cyx.shape == (41, 1024, 1024)
    assert image.pixels_cyx.dtype == np.uint8
    assert image.um_per_pixel == 0.488
    assert images.panel == read_panel(real_data / "mibi_dcis" / "panel.csv")
    np.testing.assert_array_equal(image.pixels_cyx[3], tifffile.imread(path, key=3))


def test_other_real_images(real_data: Path) -> None:
    crops = read_images(real_data / "imc_pancreas_crops")
    assert crops.names == ("E34", "G01", "J02")
    assert crops.panel.nuclear == ("H3",)
    maui = read_images(real_data / "maui_mibi", um_per_pixel=0.4)
    left_out = {c.name for c in maui.panel.channels if not c.used}
    assert left_out == {"Au", "Background", "C", "Ca", "Fe", "Na", "Si", "Ta"}
    assert maui.panel.nuclear == ("dsDNA",)
    spots = read_images(real_data / "spillover" / "imcRtools_single_spots")
    assert [image.pixels_cyx.shape for image in spots] == [(4, 1, 100)] * 4
