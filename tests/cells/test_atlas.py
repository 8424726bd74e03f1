import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskless.cells.atlas import Atlas, averaging_factor
from maskless.cells.views import gather_views
from maskless.errors import InputError, SettingsError
from maskless.images.image import Channel, Image, ImageSet, Panel

PANEL = Panel((Channel("A"), Channel("bg", kind="background", used=False), Channel("B")))


def image(name="one", shape=(30, 20), um=1.0, seed=0, fill=None):
    rng = np.random.default_rng(seed)
    pixels = rng.random((3, *shape), dtype=np.float32)
    if fill is not None:
        pixels[:] = fill
    return Image(name, pixels, PANEL.names, um)


def image_set(*images):
    return ImageSet.from_images(images, PANEL)


def test_holds_the_used_markers_of_each_image_channels_last():
    images = [image("one"), image("two", (12, 41), seed=1)]
    atlas = Atlas.build(image_set(*images), 1.0, 8.0, dtype="float32")
    assert atlas.markers == ("A", "B")
    assert atlas.image_names == ("one", "two")
    for index, each in enumerate(images):
        block = atlas.block(index)
        margin = atlas.margin_i[index]
        inside = block[margin:-margin, margin:-margin]
        np.testing.assert_array_equal(inside, each.pixels_cyx[[0, 2]].transpose(1, 2, 0))


def test_margin_mirrors_the_image():
    one = image()
    atlas = Atlas.build(image_set(one), 1.0, 5.0, dtype="float32")
    margin = atlas.margin_i[0]
    mirrored = np.pad(one.pixels_cyx[0], margin, mode="reflect")
    np.testing.assert_array_equal(atlas.block(0)[:, :, 0], mirrored)


def test_margin_invents_no_brightness_beyond_that_of_the_image():
    pixels = np.zeros((3, 40, 40), np.float32)
    pixels[:, 0, 20] = 1.0  # one bright pixel at the edge
    atlas = Atlas.build(image_set(Image("edge", pixels, PANEL.names, 1.0)), 1.0, 10.0)
    assert atlas.block(0)[:, :, 0].sum() == 1.0  # it is the mirror's axis, and not repeated


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (2, 3)])
def test_images_smaller_than_their_margin(shape):
    atlas = Atlas.build(image_set(image(shape=shape)), 1.0, 12.0)
    views = gather_views(atlas, np.zeros(1, int), np.zeros((1, 2)), 16)
    assert np.isfinite(views).all()


def test_finer_images_are_area_averaged():
    one = image(shape=(31, 20), um=0.5)
    atlas = Atlas.build(image_set(one), 1.0, 8.0, dtype="float32")
    assert atlas.factor_i.tolist() == [2]
    assert atlas.step_i.tolist() == [1.0]
    margin = atlas.margin_i[0]
    inside = atlas.block(0)[margin:-margin, margin:-margin, 0]
    assert inside.shape == (16, 10)
    expected = one.pixels_cyx[0, :30].reshape(15, 2, 10, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(inside[:15], expected, rtol=1e-6)
    last = one.pixels_cyx[0, 30].reshape(10, 2).mean(axis=1)  # half a square is inside
    np.testing.assert_allclose(inside[15], last, rtol=1e-6)


@pytest.mark.parametrize(
    ("um", "factor"), [(0.488, 2), (0.5, 2), (0.65, 2), (0.9, 1), (1.0, 1), (2.0, 1), (0.33, 3)]
)
def test_averaging_factor_is_the_nearest_whole_number(um, factor):
    assert averaging_factor(um, 1.0) == factor


@settings(deadline=None, max_examples=30)
@given(
    um=st.sampled_from([0.2, 0.325, 0.488, 0.5, 0.65, 1.0, 1.7]),
    y=st.integers(20, 100),
    x=st.integers(20, 100),
)
def test_a_ramp_keeps_its_place_at_any_resolution(um, y, x):
    # The value of a pixel is its own place, so a wrong half pixel shows anywhere.
    rows, columns = np.mgrid[:120, :120].astype(np.float32)
    pixels = np.stack([rows, rows, columns])
    atlas = Atlas.build(
        image_set(Image("ramp", pixels, PANEL.names, um)), 1.0, 4.0, dtype="float32"
    )
    views = gather_views(atlas, np.zeros(1, int), np.array([[y, x]]), 6)
    np.testing.assert_allclose(views[0].mean(axis=(1, 2)), [y, x], rtol=1e-5)
    np.testing.assert_allclose(np.diff(views[0, 0], axis=0), 1.0 / um, rtol=1e-3)


def test_a_file_instead_of_memory_holds_the_same(tmp_path):
    images = image_set(image("one"), image("two", (12, 41), seed=1))
    atlas = Atlas.build(images, 1.0, 8.0)
    mapped = Atlas.build(images, 1.0, 8.0, folder=tmp_path / "atlas")
    np.testing.assert_array_equal(atlas.values, mapped.values)
    assert [path.name for path in (tmp_path / "atlas").iterdir()] == ["atlas.bin"]
    centres = np.array([[3.0, 4.0], [10.0, 40.0]])
    np.testing.assert_array_equal(
        gather_views(atlas, np.array([0, 1]), centres, 12),
        gather_views(mapped, np.array([0, 1]), centres, 12),
    )


def test_a_failing_image_leaves_no_file(tmp_path):
    images = image_set(image("one"), image("bad", fill=np.nan))
    with pytest.raises(InputError, match="bad"):
        Atlas.build(images, 1.0, 8.0, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_one_image_with_markers_in_another_order():
    one = image()
    atlas = Atlas.of_image(one, PANEL, 1.0, 8.0, ("B", "A"), dtype="float32")
    swapped = Atlas.of_image(one, PANEL, 1.0, 8.0, dtype="float32")
    np.testing.assert_array_equal(atlas.block(0)[:, :, ::-1], swapped.block(0))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e5])
def test_pixels_that_cannot_be_kept_are_told(value):
    one = image()
    one.pixels_cyx[2, 4, 5] = value
    with pytest.raises(InputError, match=r"image one, channel B"):
        Atlas.build(image_set(one), 1.0, 8.0)


def test_wrong_input_is_told():
    with pytest.raises(InputError, match="no images"):
        Atlas.build(image_set(), 1.0, 8.0)
    with pytest.raises(InputError, match="no channel of the panel is used"):
        nothing = Panel((Channel("bg", used=False),))
        Atlas.build(ImageSet.from_images([image()], nothing), 1.0, 8.0)
    with pytest.raises(InputError, match="channels of the panel"):
        Atlas.build(ImageSet.from_images([image()], Panel((Channel("A"),))), 1.0, 8.0)
    with pytest.raises(InputError, match="no pixels"):
        Atlas.build(image_set(image(shape=(0, 5))), 1.0, 8.0)
    with pytest.raises(SettingsError, match="pixel_um"):
        Atlas.build(image_set(image()), 0.0, 8.0)
