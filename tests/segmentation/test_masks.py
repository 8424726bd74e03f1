"""Masks: nuclei grown from seeds, widened, measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from maskless.cells import detect_nuclei, nuclear_plane
from maskless.config import DetectSettings
from maskless.errors import InputError
from maskless.images import read_images
from maskless.segmentation import expand_labels, measure_masks, nuclear_masks, watershed
from maskless.segmentation.masks import seed_labels


def blobs(places: list[tuple[int, int]], size: int = 40) -> NDArray[np.float32]:
    y, x = np.mgrid[:size, :size]
    distances = [np.hypot(y - row, x - column) for row, column in places]
    return (np.min(distances, axis=0) < 3.5).astype(np.float32)


def test_nuclei_are_the_blobs_and_touching_ones_are_parted() -> None:
    plane = blobs([(10, 12), (10, 19), (30, 25)])
    centres_xy = np.array([[12.0, 10.0], [19.0, 10.0], [25.0, 30.0]])
    labels = nuclear_masks(plane, 1.0, centres_xy, DetectSettings(nuclear_radius_um=2.5))
    assert [labels[10, 12], labels[10, 19], labels[30, 25]] == [1, 2, 3]
    assert labels.max() == 3
    assert {int(label) for label in labels[10, 13:18]} <= {1, 2}
    # The third stands alone: its mask is the blob, to the width of a pixel or so.
    both = ((labels == 3) & (plane > 0)[:]).sum()
    assert both / ((labels == 3) | ((plane > 0) & (np.indices((40, 40))[0] > 20))).sum() > 0.6
    assert (labels > 0).mean() < 0.15


@given(st.integers(0, 10_000), st.floats(0, 5))
def test_watershed_and_expansion_keep_their_laws(seed: int, distance_px: float) -> None:
    rng = np.random.default_rng(seed)
    heights = rng.normal(size=(17, 13))
    seeds = np.where(rng.random(heights.shape) < 0.04, rng.integers(1, 9, heights.shape), 0)
    seeds = seeds.astype(np.int32)
    inside = (rng.random(heights.shape) < 0.7) | (seeds > 0)
    flooded = watershed(heights, seeds, inside)
    assert (flooded[seeds > 0] == seeds[seeds > 0]).all()
    assert not flooded[~inside].any()
    assert set(np.unique(flooded)) <= {0, *np.unique(seeds)}
    wider = expand_labels(flooded, distance_px)
    assert (wider[flooded > 0] == flooded[flooded > 0]).all()
    for y, x in np.argwhere((wider > 0) & (flooded == 0)):
        own = np.argwhere(flooded == wider[y, x]) - [y, x]
        every = np.argwhere(flooded > 0) - [y, x]
        nearest = np.hypot(*own.T).min()
        assert nearest <= distance_px
        assert nearest == np.hypot(*every.T).min()


def test_masks_equal_those_of_scikit_image() -> None:
    segmentation = pytest.importorskip("skimage.segmentation")
    rng = np.random.default_rng(0)
    for _ in range(20):
        heights = rng.normal(size=(60, 45))
        seeds = seed_labels(rng.uniform(0, 44, (30, 2)), heights.shape)
        inside = (rng.random(heights.shape) < 0.8) | (seeds > 0)
        flooded = watershed(heights, seeds, inside)
        np.testing.assert_array_equal(flooded, segmentation.watershed(heights, seeds, mask=inside))
        wider, theirs = expand_labels(seeds, 3.5), segmentation.expand_labels(seeds, 3.5)
        np.testing.assert_array_equal(wider > 0, theirs > 0)
        assert (wider == theirs).mean() > 0.97  # pixels equally far from two labels may differ


def test_real_nuclei_have_the_size_that_the_lymphocytes_have(real_data: Path) -> None:
    folder = real_data / "spleen_imc"
    images = read_images(folder / "r4", panel=folder / "panel.csv")
    image = next(iter(images))
    plane = nuclear_plane(image, images.panel)
    centres_xy = detect_nuclei(plane, image.um_per_pixel)
    labels = nuclear_masks(plane, image.um_per_pixel, centres_xy, DetectSettings())
    areas_um2 = np.bincount(labels.ravel())[1:] * image.um_per_pixel**2
    assert len(areas_um2) == len(centres_xy)
    assert areas_um2.min() >= 1
    # The nuclei of this tissue are 6 to 8 um wide.
    assert 25 < np.median(areas_um2) < 50
    # What lies under the masks is nuclear.
    assert plane[labels > 0].mean() > 2 * plane[labels == 0].mean()


def test_seeds_that_share_a_pixel_and_seeds_outside() -> None:
    seeds = seed_labels(np.array([[2.2, 1.0], [1.8, 1.4], [0.0, 0.0]]), (4, 4))
    assert seeds[1, 2] == 1
    assert seeds[0, 0] == 3
    assert 2 not in seeds
    with pytest.raises(InputError, match=r"outside the image.*x up to 3, y up to 4"):
        seed_labels(np.array([[4.0, 0.0]]), (5, 4))


def test_masks_are_measured_where_they_lie() -> None:
    pixels = np.arange(2 * 6 * 8, dtype=np.float32).reshape(2, 6, 8)
    labels = np.zeros((6, 8), np.int32)
    labels[1:3, 4:8], labels[5, 0] = 7, 3
    found = measure_masks(pixels, labels)
    assert found.label_n.tolist() == [3, 7]
    assert found.area_px.tolist() == [1, 8]
    assert found.centres_xy.tolist() == [[0, 5], [5.5, 1.5]]
    np.testing.assert_allclose(found.means_nc[1], pixels[:, 1:3, 4:8].mean(axis=(1, 2)))
    empty = measure_masks(pixels, np.zeros((6, 8), np.int32))
    assert empty.means_nc.shape == (0, 2)
    assert empty.centres_xy.shape == (0, 2)
