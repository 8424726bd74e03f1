from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from maskless.cells.given import (
    centres_from_mask,
    centres_from_table,
    centres_of_labels,
    find_given,
)
from maskless.errors import InputError, SettingsError
from maskless.images.image import Image


def image(rows: int = 40, columns: int = 20, source: Path | None = None) -> Image:
    return Image("r2", np.zeros((1, rows, columns)), ("A",), 1.0, source)


@given(
    hnp.arrays(
        np.uint32,
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        elements=st.sampled_from([0, 1, 2, 7, 2**32 - 1]),
    )
)
def test_centroids_equal_scipys(labels_yx: NDArray[np.uint32]) -> None:
    labels = np.unique(labels_yx[labels_yx > 0])
    expected = np.array(
        ndimage.center_of_mass(np.ones(labels_yx.shape), labels_yx, labels)
    ).reshape(-1, 2)
    found_xy = centres_of_labels(labels_yx)
    assert found_xy.shape == (len(labels), 2)
    np.testing.assert_allclose(np.sort(found_xy[:, 1]), np.sort(expected[:, 0]))
    assert {(round(x, 6), round(y, 6)) for x, y in found_xy} == {
        (round(x, 6), round(y, 6)) for y, x in expected
    }


def test_a_mask_gives_x_and_y(tmp_path: Path) -> None:
    mask_yx = np.zeros((40, 20), dtype=np.uint16)
    mask_yx[29:32, 6:9] = 300
    tifffile.imwrite(tmp_path / "mask.tif", mask_yx)
    np.testing.assert_allclose(centres_from_mask(tmp_path / "mask.tif", image()), [[7, 30]])


def test_a_mask_without_cells_gives_none(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "mask.tif", np.zeros((40, 20), dtype=np.uint8))
    assert centres_from_mask(tmp_path / "mask.tif", image()).shape == (0, 2)


def test_a_mask_of_another_size_is_an_error(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "mask.tif", np.zeros((20, 40), dtype=np.uint8))
    with pytest.raises(
        InputError, match=r"mask\.tif, image r2.*expected 40 rows x 20 columns, found 20 rows x 40"
    ):
        centres_from_mask(tmp_path / "mask.tif", image())


@pytest.mark.parametrize(
    "content",
    [
        np.zeros((40, 20), dtype=np.float32),
        np.full((40, 20), -1, dtype=np.int16),
        np.zeros((3, 40, 20), dtype=np.uint8),
    ],
)
def test_what_is_no_label_mask_is_an_error(content: NDArray[np.generic], tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "mask.tif", content, photometric="minisblack")
    with pytest.raises(InputError, match="no label mask"):
        centres_from_mask(tmp_path / "mask.tif", image())


@pytest.mark.parametrize("content", [b"", b"II*\0", b"no picture"])
def test_an_unreadable_mask_is_an_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "mask.tif").write_bytes(content)
    with pytest.raises(InputError, match="unreadable"):
        centres_from_mask(tmp_path / "mask.tif", image())


@pytest.mark.parametrize(
    "text",
    [
        "x,y\n7,30\n3.5,2\n",
        "cell_id,y,x,area_px\n1,30,7,50\n2,2,3.5,60\n",
        "\ufeffX;Y;type\r\n7;30;B cell, naive\r\n3.5;2;T\r\n",
        "y\tx\n30\t7\n2\t3.5\n",
    ],
)
def test_tables_in_several_dialects(text: str, tmp_path: Path) -> None:
    (tmp_path / "cells.csv").write_bytes(text.encode("utf-8"))
    found_xy = centres_from_table(tmp_path / "cells.csv", image())
    np.testing.assert_array_equal(found_xy, [[3.5, 2], [7, 30]])


def test_a_table_without_cells_gives_none(tmp_path: Path) -> None:
    (tmp_path / "cells.csv").write_text("x,y\n")
    assert centres_from_table(tmp_path / "cells.csv", image()).shape == (0, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cell_id,row,column\n1,2,3\n", "expected columns x and y.*found cell_id, row, column"),
        ("x,y\n1,2\n,4\nnan,4\n", "2 of 3 centres have no number.*line 3"),
        ("x,y\n1,two\n", "1 of 1 centres have no number"),
        ("x,y\n7,30\n30,7\n25,1\n", "2 of 3 centres lie outside.*found x = 30, y = 7"),
        ("x,y\n-0.6,3\n", "outside"),
        ("x,y\ninf,3\n", "no number"),
        ("", "unreadable"),
        ('x,y\n"1,2\n', "unreadable"),
    ],
)
def test_bad_tables_are_errors_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "cells.csv").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        centres_from_table(tmp_path / "cells.csv", image())
    assert "\n" not in str(caught.value)
    assert "cells.csv" in str(caught.value)


def test_a_table_in_another_encoding_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "cells.csv").write_bytes(b"x,y,n\xe4me\n1,2,3\n")
    with pytest.raises(InputError, match="unreadable"):
        centres_from_table(tmp_path / "cells.csv", image())


def test_points_on_the_edge_of_the_outer_pixels_are_inside(tmp_path: Path) -> None:
    (tmp_path / "cells.csv").write_text("x,y\n-0.5,-0.5\n19.4,39.4\n")
    assert len(centres_from_table(tmp_path / "cells.csv", image())) == 2


def test_files_are_looked_for_in_the_study_then_beside_the_image(tmp_path: Path) -> None:
    source = tmp_path / "raw" / "r2" / "image.ome.tif"
    study = tmp_path / "study"
    places = [
        (study / "r2" / "objects.csv", "{image}/objects.csv"),
        (tmp_path / "raw" / "r2" / "objects.csv", "{image}/objects.csv"),
        (tmp_path / "raw" / "r2" / "r2.csv", "{image}.csv"),
    ]
    for path, _ in places:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    taken = image(source=source)
    assert find_given("{image}/objects.csv", taken, study) == places[0][0]
    places[0][0].unlink()
    assert find_given("{image}/objects.csv", taken, study) == places[1][0]
    assert find_given("{image}.csv", taken, study) == places[2][0]
    assert find_given(f"{tmp_path}/raw/{{image}}/r2.csv", taken, study) == places[2][0]
    with pytest.raises(InputError, match=r"image r2.*masks"):
        find_given("masks/{image}.tif", taken, study)


def test_a_pattern_without_the_image_is_an_error() -> None:
    with pytest.raises(SettingsError, match=r"\{image\}"):
        find_given("mask.tif", image())


def test_real_masks_agree_with_their_tables(real_data: Path) -> None:
    folder = real_data / "codex_lymph_node"
    shape = tifffile.imread(folder / "mask.tif").shape
    taken = image(*shape)
    from_mask = centres_from_mask(folder / "mask.tif", taken)
    from_table = centres_from_table(folder / "cells.csv", taken)
    assert len(from_mask) == 3640
    np.testing.assert_allclose(np.sort(from_mask, axis=0), np.sort(from_table, axis=0), atol=0.006)
