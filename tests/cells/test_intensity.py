import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskless.cells.intensity import disc_means, ring_means
from maskless.errors import InputError

PIXELS = np.random.default_rng(0).random((3, 21, 17), dtype=np.float32)


def slowly(centre, low, high, first):
    rows, columns = np.mgrid[:21, :17]
    distance = np.hypot(rows - centre[0], columns - centre[1])
    ring = (distance <= high) & ((distance >= low) if first else (distance > low))
    return PIXELS[:, ring].mean(axis=1) if ring.any() else None


@settings(deadline=None, max_examples=60)
@given(st.floats(-0.5, 20.5), st.floats(-0.5, 16.5), st.floats(1.0, 9.0))
def test_disc_is_the_mean_of_the_pixels_inside(y, x, radius):
    found = disc_means(PIXELS, np.array([[y, x]]), radius)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], slowly((y, x), 0, radius, True), rtol=1e-5)


@settings(deadline=None, max_examples=60)
@given(st.floats(-0.5, 20.5), st.floats(-0.5, 16.5))
def test_rings_are_the_means_between_their_radii(y, x):
    edges = (0, 2, 4, 6.5)
    found = ring_means(PIXELS, np.array([[y, x]]), edges)
    assert found.shape == (1, 3, 3)
    for ring in range(3):
        expected = slowly((y, x), edges[ring], edges[ring + 1], ring == 0)
        np.testing.assert_allclose(found[0, ring], expected, rtol=1e-5)


def test_rows_are_cells_and_do_not_depend_on_their_order():
    centres = np.random.default_rng(1).random((50, 2)) * [20, 16]
    found = disc_means(PIXELS, centres, 4.0)
    np.testing.assert_array_equal(disc_means(PIXELS, centres[::-1], 4.0)[::-1], found)


def test_row_and_column_are_not_swapped():
    pixels = np.zeros((1, 40, 60), np.float32)
    pixels[0, 7, 30] = 1.0
    assert disc_means(pixels, np.array([[7, 30], [30, 7]]), 0.6)[:, 0].tolist() == [1.0, 0.0]


def test_a_tiny_disc_takes_its_pixel():
    np.testing.assert_array_equal(
        disc_means(PIXELS, np.array([[3.4, 5.4]]), 0.1)[0], PIXELS[:, 3, 5]
    )


def test_a_ring_wholly_outside_takes_the_one_inside_it():
    tiny = np.full((1, 3, 3), 2.0, np.float32)
    assert ring_means(tiny, np.array([[1.0, 1.0]]), (0, 2, 5, 9)).ravel().tolist() == [2.0] * 3


def test_no_cells():
    assert disc_means(PIXELS, np.empty((0, 2)), 4.0).shape == (0, 3)


def test_any_type_of_pixels():
    whole = (PIXELS * 100).astype(np.uint16)
    centres = np.array([[5.0, 5.0]])
    np.testing.assert_array_equal(
        disc_means(whole, centres, 3.0), disc_means(whole.astype(np.float64), centres, 3.0)
    )


@pytest.mark.parametrize("centre", [(21.0, 3.0), (3.0, 17.0), (-1.0, 3.0), (np.nan, 3.0)])
def test_centres_outside_are_told(centre):
    with pytest.raises(InputError, match="outside the image"):
        disc_means(PIXELS, np.array([centre]), 4.0)


@pytest.mark.parametrize("edges", [(0, 0), (4,), (3, 2), (-1, 2)])
def test_radii_that_do_not_rise_are_told(edges):
    with pytest.raises(InputError, match="rising"):
        ring_means(PIXELS, np.array([[3.0, 3.0]]), edges)
