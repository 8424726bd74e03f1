"""Imaging mass cytometry: what readimc is silent about is an error or a counted problem here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import readimc
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.images import read_images

Pixels = NDArray[np.float32]
Maker = Callable[..., Path]


@pytest.fixture
def counts_cyx() -> Pixels:
    """Two channels, 6 rows, 5 columns, all counts different, three decimals as in text files."""
    rng = np.random.default_rng(3)
    return np.round(rng.uniform(1, 50, (2, 6, 5)), 3).astype(np.float32)


def test_acquisitions_equal_readimc(tmp_path: Path, counts_cyx: Pixels, make_mcd: Maker) -> None:
    path = make_mcd(tmp_path / "a.mcd", [counts_cyx, counts_cyx[:, :4] * 2])
    images = read_images(path)
    assert images.names == ("a_001", "a_002")
    assert images.panel.names == ("CD20_Dy161", "DNA1_Ir191")
    with readimc.MCDFile(path) as opened:
        for acquisition, image in zip(opened.slides[0].acquisitions, images, strict=True):
            np.testing.assert_array_equal(opened.read_acquisition(acquisition), image.pixels_cyx)
            assert image.problems == ()


def test_aborted_acquisition_is_counted(
    tmp_path: Path, counts_cyx: Pixels, make_mcd: Maker
) -> None:
    (image,) = read_images(make_mcd(tmp_path / "a.mcd", [counts_cyx], keep=range(17)))
    assert image.problems[0].startswith("13 of 30 pixels are missing")
    np.testing.assert_array_equal(image.pixels_cyx[:, :3], counts_cyx[:, :3])
    assert not image.pixels_cyx[:, 4:].any()


def test_doubled_pixels_are_counted_and_the_last_one_counts(
    tmp_path: Path, counts_cyx: Pixels, make_mcd: Maker
) -> None:
    def change(table: Pixels) -> None:
        table[-2:, 3:] = 7

    path = make_mcd(tmp_path / "a.mcd", [counts_cyx], repeat=[0, 8], change_pixels=change)
    (image,) = read_images(path)
    assert image.problems == ("2 pixels occur more than once; the last value was taken.",)
    assert (image.pixels_cyx[:, 0, 0] == 7).all()
    assert (image.pixels_cyx[:, 1, 3] == 7).all()
    assert (image.pixels_cyx == 7).sum() == 4


@pytest.mark.parametrize("column", [0, 1])
@pytest.mark.parametrize("value", [-1, 6, 1e6, 0.5, np.nan])
def test_pixels_outside_the_image(
    tmp_path: Path, counts_cyx: Pixels, make_mcd: Maker, column: int, value: float
) -> None:
    def change(table: Pixels) -> None:
        table[4, column] = value

    images = read_images(make_mcd(tmp_path / "a.mcd", [counts_cyx], change_pixels=change))
    with pytest.raises(InputError, match="outside the image"):
        images["a_001"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_names_the_channel(
    tmp_path: Path, counts_cyx: Pixels, make_mcd: Maker, value: float
) -> None:
    def change(table: Pixels) -> None:
        table[4:6, 4] = value

    images = read_images(make_mcd(tmp_path / "a.mcd", [counts_cyx], change_pixels=change))
    with pytest.raises(InputError, match=r"DNA1_Ir191.*2 of 30 pixels"):
        images["a_001"]


def test_negative_pixels_are_told(tmp_path: Path, counts_cyx: Pixels, make_mcd: Maker) -> None:
    def change(table: Pixels) -> None:
        table[4:7, 3] = -2

    (image,) = read_images(make_mcd(tmp_path / "a.mcd", [counts_cyx], change_pixels=change))
    assert image.problems == ("3 pixels of channel CD20_Dy161 are negative.",)
    assert image.pixels_cyx.min() == -2


def test_no_signal_is_told(tmp_path: Path, counts_cyx: Pixels, make_mcd: Maker) -> None:
    (image,) = read_images(make_mcd(tmp_path / "a.mcd", [counts_cyx * 0]))
    assert "all pixels are zero" in image.problems[0]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"ValueBytes": 8}, "kind of pixel"),
        ({"SegmentDataFormat": "Double"}, "kind of pixel"),
        ({"DataEndOffset": 10**9}, "cut or misplaced"),
        ({"DataEndOffset": 65}, "cut or misplaced"),
        ({"DataStartOffset": -4}, "cut or misplaced"),
        ({"DataStartOffset": 64, "DataEndOffset": 64}, "empty"),
        ({"MaxX": 0}, "empty"),
        ({"MaxY": "many"}, "does not tell MaxY"),
    ],
)
def test_wrong_headers(
    tmp_path: Path,
    counts_cyx: Pixels,
    make_mcd: Maker,
    make_txt: Maker,
    told: dict[str, object],
    said: str,
) -> None:
    path = make_mcd(tmp_path / "a.mcd", [counts_cyx], told=told)
    with pytest.raises(InputError, match=said) as caught:
        read_images(path)
    assert "a.mcd" in str(caught.value)
    # With its text file beside it, the same acquisition is read from there, and says so.
    make_txt(tmp_path / "a_ROI_001_1.txt", counts_cyx)
    (image,) = read_images(tmp_path)
    assert image.name == "a_001"
    np.testing.assert_array_equal(image.pixels_cyx, counts_cyx)
    assert "a_ROI_001_1.txt was read" in image.problems[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda xml: xml.replace("</Acquisition>", "</Oops>"), "malformed"),
        (lambda xml: xml.replace("<ID>1</ID><Acq", "<ID>x</ID><Acq"), "cannot be read"),
        (lambda xml: xml.replace("<MCDSchema", "<NoSchema"), "no XML"),
        (lambda xml: xml.replace("Dy(161)", "Dysprosium"), "unknown name"),
        (lambda xml: xml.replace(">Z<", ">W<"), "channels of the acquisition are wrong"),
        (
            lambda xml: xml.replace("X</ChannelName><ChannelLabel>", "&lol;</ChannelName>"),
            "malformed",
        ),
    ],
)
def test_wrong_xml(
    tmp_path: Path,
    counts_cyx: Pixels,
    make_mcd: Maker,
    make_txt: Maker,
    change: Callable[[str], str],
    said: str,
) -> None:
    path = make_mcd(tmp_path / "a.mcd", [counts_cyx], change_xml=change)
    with pytest.raises(InputError, match=said):
        read_images(path)
    make_txt(tmp_path / "a_ROI_001_1.txt", counts_cyx)
    (image,) = read_images(path)
    np.testing.assert_array_equal(image.pixels_cyx, counts_cyx)
    assert image.problems


def test_xml_bomb(tmp_path: Path, counts_cyx: Pixels, make_mcd: Maker) -> None:
    bomb = '<!DOCTYPE b [<!ENTITY a "boom"><!ENTITY b "&a;&a;&a;&a;">]>'

    def change(xml: str) -> str:
        start = xml.index("<Slide>")
        return xml[:start] + bomb + "<X>&b;</X>" + xml[start:]

    with pytest.raises(InputError, match="XML"):
        read_images(make_mcd(tmp_path / "a.mcd", [counts_cyx], change_xml=change))


def test_mcd_cut_anywhere(
    tmp_path: Path, counts_cyx: Pixels, make_mcd: Maker, make_txt: Maker
) -> None:
    whole = make_mcd(tmp_path / "whole.mcd", [counts_cyx]).read_bytes()
    (tmp_path / "whole.mcd").unlink()
    path = tmp_path / "a.mcd"
    make_txt(tmp_path / "kept.txt", counts_cyx)
    text = (tmp_path / "kept.txt").read_bytes()
    (tmp_path / "kept.txt").unlink()
    for size in sorted({0, 1, len(whole) - 1, *np.linspace(0, len(whole) - 1, 12).astype(int)}):
        (tmp_path / "a_ROI_1.txt").unlink(missing_ok=True)
        path.write_bytes(whole[:size])
        with pytest.raises(InputError) as caught:
            read_images(path)
        assert "a.mcd" in str(caught.value)
        (tmp_path / "a_ROI_1.txt").write_bytes(text)
        (image,) = read_images(path)
        np.testing.assert_array_equal(image.pixels_cyx, counts_cyx)


def test_unreadable_pixels_come_from_the_text(
    tmp_path: Path, counts_cyx: Pixels, make_mcd: Maker, make_txt: Maker
) -> None:
    def change(table: Pixels) -> None:
        table[4, 3] = np.nan

    make_mcd(tmp_path / "a.mcd", [counts_cyx], change_pixels=change)
    make_txt(tmp_path / "a_1.txt", counts_cyx)
    (image,) = read_images(tmp_path)
    np.testing.assert_array_equal(image.pixels_cyx, counts_cyx)
    assert "NaN" in image.problems[0]
    assert "a_1.txt was read" in image.problems[0]


def test_both_present_and_different_is_told(
    tmp_path: Path, counts_cyx: Pixels, make_mcd: Maker, make_txt: Maker
) -> None:
    make_mcd(tmp_path / "a.mcd", [counts_cyx])
    other = counts_cyx.copy()
    other[0, :2, 0] += 1
    make_txt(tmp_path / "a_1.txt", other)
    (image,) = read_images(tmp_path)
    np.testing.assert_array_equal(image.pixels_cyx, counts_cyx)
    assert image.problems == (
        "2 of 30 pixels differ between the .mcd and a_1.txt; the .mcd was taken.",
    )


def test_text_of_an_unlisted_acquisition_is_an_image(
    tmp_path: Path, counts_cyx: Pixels, make_mcd: Maker, make_txt: Maker
) -> None:
    make_mcd(tmp_path / "a.mcd", [counts_cyx])
    make_txt(tmp_path / "a_ROI_002_2.txt", counts_cyx)
    make_mcd(tmp_path / "a_b.mcd", [counts_cyx])
    make_txt(tmp_path / "a_b_ROI_001_1.txt", counts_cyx)
    make_txt(tmp_path / "z.txt", counts_cyx)
    (tmp_path / "LICENSE.txt").write_text("not pixels\n")
    images = read_images(tmp_path)
    assert images.names == ("a_b_001", "a_001", "a_002", "z")
    assert images["a_b_001"].problems == ()
    assert "does not list" in images["a_002"].problems[0]


def cut(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "cut.txt"
    path.write_bytes(text.encode())
    return path


def test_text_cut_inside_a_line_or_number(
    tmp_path: Path, counts_cyx: Pixels, make_txt: Maker
) -> None:
    text = make_txt(tmp_path / "whole.txt", counts_cyx).read_text()
    last = text.rstrip("\n").rfind("\n") + 1
    for end in (len(text) - 1, len(text) - 3, last + 30, last + 3):
        (image,) = read_images(cut(tmp_path, text[:end]))
        assert "cut" in image.problems[0], end
        assert image.problems[1].startswith("1 of 30 pixels are missing")
        np.testing.assert_array_equal(image.pixels_cyx[:, :5], counts_cyx[:, :5])
        assert not image.pixels_cyx[:, 5, 4].any()


def test_text_without_some_lines_is_counted(
    tmp_path: Path, counts_cyx: Pixels, make_txt: Maker, make_mcd: Maker
) -> None:
    lines = make_txt(tmp_path / "whole.txt", counts_cyx).read_text().splitlines(keepends=True)
    (image,) = read_images(cut(tmp_path, "".join(lines[:-3])))
    assert image.problems[0].startswith("3 of 30 pixels are missing")
    (image,) = read_images(cut(tmp_path, "".join(lines[:5] + lines[7:])))
    assert image.problems[0].startswith("2 of 30 pixels are missing")
    # A whole row lost at the end cannot be seen, unless an .mcd tells the size.
    folder = tmp_path / "both"
    folder.mkdir()
    make_mcd(folder / "a.mcd", [counts_cyx], told={"ValueBytes": 8})
    (folder / "a_1.txt").write_text("".join(lines[:-5]))
    (image,) = read_images(folder)
    assert image.pixels_cyx.shape == counts_cyx.shape
    assert any(p.startswith("5 of 30 pixels are missing") for p in image.problems)


def test_texts_that_cannot_be_used(tmp_path: Path, counts_cyx: Pixels, make_txt: Maker) -> None:
    text = make_txt(tmp_path / "whole.txt", counts_cyx).read_text()
    header, first, *rest = text.splitlines(keepends=True)
    at_once = {
        "": "empty",
        "hello\n": "not a text file of imaging",
        header[:30]: "not a text file of imaging",
        header: "empty",
        header.replace("(Dy161Di)", "") + first: "names no channel",
    }
    for content, said in at_once.items():
        with pytest.raises(InputError, match=said):
            read_images(cut(tmp_path, content))
    when_loaded = {
        header + first[:8] + "\n" + "".join(rest): "cannot be read",
        header + first.replace("\t0\t", "\tNA\t", 1) + "".join(rest): "cannot be read",
        header + first.replace("\t0\t0\t0\t", "\t-1\t0\t0\t", 1) + "".join(rest): "outside",
        header + first.replace("\t0\t0\t0\t", "\t0.5\t0\t0\t", 1) + "".join(rest): "outside",
        header + first.rsplit("\t", 1)[0] + "\tnan\n" + "".join(rest): "NaN",
        header + "".join(line.rstrip("\n") + "\t1\n" for line in [first, *rest]): "do not fit",
    }
    for content, said in when_loaded.items():
        images = read_images(cut(tmp_path, content))
        with pytest.raises(InputError, match=said):
            images["cut"]


def test_text_with_windows_line_ends_and_bom(
    tmp_path: Path, counts_cyx: Pixels, make_txt: Maker
) -> None:
    text = make_txt(tmp_path / "whole.txt", counts_cyx).read_text()
    path = cut(tmp_path, "\ufeff" + text.replace("\n", "\r\n"))
    (image,) = read_images(path)
    np.testing.assert_array_equal(image.pixels_cyx, counts_cyx)
    assert image.problems == ()


def test_real_acquisitions_equal_their_texts(real_data: Path) -> None:
    raw = real_data / "imc_raw_mcd" / "raw"
    panel = real_data / "imc_raw_mcd" / "steinbock" / "panel.csv"
    images = read_images(raw, panel)
    assert len(images) == 15
    assert images.names[0] == "20210305_NE_mockData1_001"
    assert images.panel.names == ("Ag107", "Cytokeratin 5", "Laminin", "YBX1", "H3K27Ac")
    from_text = read_images(sorted(raw.glob("*/*.txt")), panel)
    for image, text in zip(images, from_text, strict=True):
        assert image.problems == ()
        assert image.um_per_pixel == 1.0
        np.testing.assert_allclose(image.pixels_cyx, text.pixels_cyx, atol=6e-4)
    first = raw / "20210305_NE_mockData1" / "20210305_NE_mockData1.mcd"
    with readimc.MCDFile(first) as opened:
        for acquisition in opened.slides[0].acquisitions:
            image = images[f"20210305_NE_mockData1_{acquisition.id:03d}"]
            np.testing.assert_array_equal(opened.read_acquisition(acquisition), image.pixels_cyx)
