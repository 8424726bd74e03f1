"""Tiles and patches show each pixel at its place, of images that are not square."""

from __future__ import annotations

import numpy as np
import pytest

from maskless.annotate.patches import EDGE_PX, example_cells, patches
from maskless.annotate.places import Clustering
from maskless.annotate.tiles import TILE_PX, Tiles, tiles_of
from maskless.errors import InputError
from maskless.images.image import Channel, Image, Panel
from maskless.images.zarr_store import write_image_zarr

ROWS, COLUMNS = 300, 700
X, Y = 7, 30


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Tiles:
    """Channel 0: dim, with one bright cell at x = 7, y = 30. Channel 1: a ramp along x."""
    folder = tmp_path_factory.mktemp("images")
    pixels = np.zeros((2, ROWS, COLUMNS), np.float32)
    pixels[0] = 0.1
    pixels[0, Y - 1 : Y + 2, X - 1 : X + 2] = 0.9
    pixels[1] = np.linspace(0, 1, COLUMNS)
    panel = Panel((Channel("spot"), Channel("ramp")))
    write_image_zarr(Image("wide", pixels, panel.names, 1.0), panel, folder / "wide.zarr")
    yx = np.array([[Y, X], [100, 650], [299, 699]], np.float32)
    place = Clustering(
        ("0",), np.zeros(3, np.int32), ("wide", "gone"), np.array([0, 0, 1], np.int32), yx
    )
    inventory = {
        "images": [{"name": "wide", "shape_yx": [ROWS, COLUMNS], "um_per_pixel": 1.0}],
        "panel": [{"name": "spot"}, {"name": "ramp"}],
    }
    return tiles_of(folder, inventory, place)


def tile(tiles: Tiles, channel: int, level: int, row: int, column: int, width: int) -> np.ndarray:
    content = np.frombuffer(tiles.tile(0, channel, level, row, column), np.uint8)
    return content.reshape(-1, width)


def test_the_bright_cell_is_at_x_7_y_30(tiles: Tiles) -> None:
    first = tile(tiles, 0, 0, 0, 0, TILE_PX)
    y, x = np.nonzero(first > first.min())
    assert (x.min(), x.max(), y.min(), y.max()) == (X - 1, X + 1, Y - 1, Y + 1)
    half = tile(tiles, 0, 1, 0, 0, TILE_PX)
    y, x = np.nonzero(half > half.min())
    assert abs(x.mean() - X / 2) < 1
    assert abs(y.mean() - Y / 2) < 1


def test_tiles_put_together_are_the_plane(tiles: Tiles) -> None:
    for level in range(tiles.levels(0)):
        plane = tiles.plane(0, 1, level)
        shape = (-(-ROWS // 2**level), -(-COLUMNS // 2**level))
        assert plane.shape == shape
        for row in range(-(-shape[0] // TILE_PX)):
            for column in range(-(-shape[1] // TILE_PX)):
                left, upper = column * TILE_PX, row * TILE_PX
                part = plane[upper : upper + TILE_PX, left : left + TILE_PX]
                np.testing.assert_array_equal(
                    tile(tiles, 1, level, row, column, part.shape[1]), part
                )
        assert (np.diff(plane[0].astype(int)) >= 0).all()
    assert max(tiles.plane(0, 1, tiles.levels(0) - 1).shape) <= TILE_PX


@pytest.mark.parametrize(
    "address", [(0, 0, 0, 9, 0), (0, 0, 0, 0, 9), (0, 0, 9, 0, 0), (0, 5, 0, 0, 0), (5, 0, 0, 0, 0)]
)
def test_what_is_not_there_is_said(tiles: Tiles, address: tuple[int, ...]) -> None:
    with pytest.raises(InputError):
        tiles.tile(*address)


def test_an_image_without_pixels_is_said(tiles: Tiles) -> None:
    with pytest.raises(InputError, match="not there"):
        tiles.tile(1, 0, 0, 0, 0)
    assert tiles.images[1].rows > 299  # its cells still have a place


def test_the_middle_of_a_patch_is_the_cell(tiles: Tiles) -> None:
    images, yx = np.array([0, 0, 1], np.int32), np.array([[Y, X], [100, 650], [299, 699]])
    found = patches(tiles, images, yx.astype(np.float32), np.arange(3, dtype=np.uint32), [0, 1], 24)
    assert found.shape == (3, 2, EDGE_PX, EDGE_PX)
    middle = slice(EDGE_PX // 2 - 1, EDGE_PX // 2 + 1)
    assert found[0, 0, middle, middle].min() > 2 * found[0, 0, :, -6:].max()
    assert found[0, 0, :, : EDGE_PX // 5].max() == 0  # beyond the left edge of the image
    assert found[1, 1].mean() > 2 * found[0, 1].mean()
    assert not found[2].any()  # its pixels are not there


def test_examples_are_typical_borderline_or_random() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1], 500).astype(np.int32)
    points = rng.normal(0, 0.3, (1000, 2)).astype(np.float32)
    points[:, 0] += np.where(group == 0, 0, 3)
    images = rng.integers(0, 3, 1000).astype(np.int32)
    rows = np.arange(500, dtype=np.uint32)
    typical = example_cells(points, group, images, rows, "typical", 20)
    border = example_cells(points, group, images, rows, "borderline", 20)
    anyone = example_cells(points, group, images, rows, "random", 20, seed=1)
    assert (group[np.concatenate([typical, border, anyone])] == 0).all()
    own = np.linalg.norm(points[:500] - points[:500].mean(0), axis=1)
    assert own[typical].max() < np.median(own)
    assert points[border, 0].mean() > points[anyone, 0].mean() + 0.3
    again = example_cells(points, group, images, rows, "random", 20, seed=1)
    np.testing.assert_array_equal(anyone, again)
    assert set(example_cells(points, group, images, rows, "random", 20, seed=2)) != set(anyone)
    assert len(example_cells(points, group, images, rows[:0], "typical", 20)) == 0
