from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import affine_transform

from maskless.cells.atlas import Atlas
from maskless.cells.views import (
    Augmentations,
    draw_augmentations,
    gather_views,
    view_reach_um,
    view_size_px,
)
from maskless.config import TrainSettings
from maskless.errors import InputError, SettingsError
from maskless.images.image import Channel, Image, ImageSet, Panel

SETTINGS = TrainSettings(jitter_um=1.5, marker_dropout=0.0)
MARKERS = 5


def made_atlas(
    shapes=((50, 40), (33, 61)), um=(1.0, 1.0), dtype="float32", view_um=16.0, markers=MARKERS
):
    panel = Panel(tuple(Channel(f"m{i}") for i in range(markers)))
    rng = np.random.default_rng(0)
    images = [
        Image(f"i{i}", rng.random((markers, *shape), dtype=np.float32) - 0.2, panel.names, um[i])
        for i, shape in enumerate(shapes)
    ]
    margin_um = view_reach_um([view_um], SETTINGS)
    return images, Atlas.build(ImageSet.from_images(images, panel), 1.0, margin_um, dtype=dtype)


def some_cells(images, n, seed=1):
    rng = np.random.default_rng(seed)
    index = rng.integers(0, len(images), n)
    shapes = np.array([image.pixels_cyx.shape[1:] for image in images])[index]
    return index, rng.random((n, 2)) * (shapes - 1)


def by_scipy(image, centre, size, matrix, shift, gain):
    half = (size - 1) / 2
    offset = centre + shift - matrix @ [half, half]
    planes = [
        affine_transform(plane, matrix, offset, (size, size), order=1, mode="mirror")
        for plane in image.pixels_cyx.astype(np.float64)
    ]
    return np.stack(planes) * gain[:, None, None]


# Views are written in tiles of 8 markers x 8 pixels: whole ones, moved back, and too few.
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 2e-6), ("float16", 1e-3)])
@pytest.mark.parametrize(("size", "markers"), [(12, 5), (14, 8), (16, 12), (15, 34), (2, 9)])
def test_equal_to_scipy(dtype, tolerance, size, markers):
    images, atlas = made_atlas(dtype=dtype, markers=markers)
    index, centres = some_cells(images, 40)
    how = draw_augmentations(
        np.random.default_rng(2), 40, markers, SETTINGS.model_copy(update={"noise": 0.0})
    )
    views = gather_views(atlas, index, centres, size, how)
    assert views.dtype == np.float32
    for v in range(40):
        expected = by_scipy(
            images[index[v]],
            centres[v],
            size,
            how.matrices_v22[v],
            how.shift_um_vyx[v],
            how.gain_vc[v],
        )
        np.testing.assert_allclose(views[v], expected, atol=tolerance)


def test_what_is_left_of_the_scale_goes_into_the_matrix():
    images, atlas = made_atlas(shapes=((60, 50),), um=(0.976,))
    centres = np.array([[30.0, 20.25]])
    views = gather_views(atlas, np.zeros(1, int), centres, 16)
    expected = by_scipy(images[0], centres[0], 16, np.eye(2) / 0.976, 0.0, np.ones(MARKERS))
    np.testing.assert_allclose(views[0], expected, atol=1e-5)


def test_a_plain_crop_of_odd_size_is_the_pixels():
    images, atlas = made_atlas()
    views = gather_views(atlas, np.array([1]), np.array([[16.0, 30.0]]), 13)
    np.testing.assert_array_equal(views[0], images[1].pixels_cyx[:, 10:23, 24:37])


def test_a_tall_atlas_keeps_sub_pixel_places():
    # 70,000 rows: float32 coordinates of the whole atlas would be wrong by 0.004 pixels.
    rows = np.mod(np.arange(70_000, dtype=np.float32), 64.0)
    pixels = np.repeat(rows[None, :, None], 14, axis=2)
    panel = Panel((Channel("A"),))
    images = ImageSet.from_images([Image("tall", pixels, panel.names, 1.0)], panel)
    atlas = Atlas.build(images, 1.0, 8.0, dtype="float32")
    centre = 69_921.3
    views = gather_views(atlas, np.zeros(1, int), np.array([[centre, 6.0]]), 12)
    expected = np.mod(centre, 64.0) + np.arange(12) - 5.5
    np.testing.assert_allclose(views[0, 0, :, 0], expected, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(st.floats(-1.0, 1.0, width=16), st.floats(0, 60000, width=16))
def test_halves_are_decoded_exactly(small, large):
    values = np.zeros((1, 12, 12), np.float32)
    values[0, 5, 5], values[0, 6, 6] = small, large
    panel = Panel((Channel("A"),))
    images = ImageSet.from_images([Image("a", values, panel.names, 1.0)], panel)
    atlas = Atlas.build(images, 1.0, 8.0)
    view = gather_views(atlas, np.zeros(1, int), np.array([[6.0, 6.0]]), 13)[0, 0]
    assert view[5, 5] == np.float32(small)
    assert view[6, 6] == np.float32(large)


def test_any_number_of_markers_gives_the_same_as_one_by_one():
    images, atlas = made_atlas(markers=19)
    index, centres = some_cells(images, 50)
    how = draw_augmentations(np.random.default_rng(2), 50, 19, SETTINGS)
    how = replace(how, noise_sigma_v=None)
    views = gather_views(atlas, index, centres, 13, how)
    for marker in (0, 7, 8, 11, 18):
        one = Panel((Channel("one"),))
        planes = [
            Image(image.name, image.pixels_cyx[marker : marker + 1], one.names, 1.0)
            for image in images
        ]
        margin_um = view_reach_um([16.0], SETTINGS)
        alone = Atlas.build(ImageSet.from_images(planes, one), 1.0, margin_um, dtype="float32")
        gain_vc = how.gain_vc[:, marker : marker + 1].copy()
        found = gather_views(alone, index, centres, 13, replace(how, gain_vc=gain_vc))
        np.testing.assert_allclose(found[:, 0], views[:, marker], rtol=0, atol=1e-6)


def test_noise_follows_the_table_and_the_order_of_the_pixels():
    for markers in (MARKERS, 12):
        images, atlas = made_atlas(markers=markers)
        index, centres = some_cells(images, 2)
        how = Augmentations(
            noise_sigma_v=np.array([1, 0], np.float32), noise_start_v=np.array([1 << 19, 7])
        )
        plain = gather_views(atlas, index, centres, 14)
        noise = gather_views(atlas, index, centres, 14, how) - plain
        whole = np.random.default_rng(20240517).standard_normal(1 << 20, dtype=np.float32)
        expected = whole[1 << 19 :][: markers * 14 * 14].reshape(markers, 14, 14)
        np.testing.assert_allclose(noise[0], expected, atol=1e-6)
        assert not noise[1].any()


def test_noise_has_its_sigma_and_differs_between_views_and_markers():
    images, atlas = made_atlas()
    index, centres = some_cells(images, 300)
    rng = np.random.default_rng(3)
    how = Augmentations(
        noise_sigma_v=np.full(300, 0.1, np.float32), noise_start_v=rng.integers(0, 1 << 20, 300)
    )
    noise = gather_views(atlas, index, centres, 16, how) - gather_views(atlas, index, centres, 16)
    flat = noise.reshape(300, -1)
    np.testing.assert_allclose(flat.std(axis=1), 0.1, rtol=0.12)
    assert abs(noise.mean()) < 0.001
    marker = noise.transpose(1, 0, 2, 3).reshape(MARKERS, -1)
    correlation = np.corrcoef(np.concatenate([marker, flat.reshape(MARKERS, -1)]))
    assert np.abs(correlation[:MARKERS, :MARKERS] - np.eye(MARKERS)).max() < 0.02
    assert np.abs(np.corrcoef(flat[:50]) - np.eye(50)).max() < 0.15


def test_noise_read_beyond_the_end_of_the_table_wraps():
    images, atlas = made_atlas()
    index, centres = some_cells(images, 2)
    start = np.array([(1 << 20) - 3, 0])
    how = Augmentations(noise_sigma_v=np.ones(2, np.float32), noise_start_v=start)
    noise = gather_views(atlas, index, centres, 16, how) - gather_views(atlas, index, centres, 16)
    flat = noise.reshape(2, -1)
    np.testing.assert_allclose(flat[0, 3 : 3 + 100], flat[1, :100], atol=1e-5)


def test_draws_follow_the_settings():
    rng = np.random.default_rng(0)
    how = draw_augmentations(rng, 4000, 3, SETTINGS)
    zoom = 1 / np.sqrt(np.abs(np.linalg.det(how.matrices_v22)))
    assert zoom.min() >= 0.9
    assert zoom.max() <= 1.1
    mirrored = np.linalg.det(how.matrices_v22) < 0
    assert 0.45 < mirrored.mean() < 0.55
    angle = np.arctan2(how.matrices_v22[:, 1, 0], how.matrices_v22[:, 0, 0])
    assert np.histogram(angle, 8, (-np.pi, np.pi))[0].min() > 400
    assert how.gain_vc.min() >= 0.5
    assert how.gain_vc.max() <= 2.0
    assert abs(np.corrcoef(how.gain_vc.T)[0, 1]) < 0.05
    assert how.noise_sigma_v.max() <= 0.1
    assert np.linalg.norm(how.shift_um_vyx, axis=1).max() <= 1.5


def test_augmentations_can_be_switched_off():
    nothing = TrainSettings(
        rotate=False,
        flip=False,
        zoom=(1, 1),
        gain=(1, 1),
        noise=0.0,
        jitter_um=0.0,
        marker_dropout=0.0,
    )
    how = draw_augmentations(np.random.default_rng(0), 6, 3, nothing)
    np.testing.assert_array_equal(how.matrices_v22, np.broadcast_to(np.eye(2), (6, 2, 2)))
    assert how.gain_vc is None
    assert how.noise_sigma_v is None
    assert how.shift_um_vyx is None
    common = TrainSettings(gain_per_marker=False, marker_dropout=0.0)
    gain_vc = draw_augmentations(np.random.default_rng(0), 6, 3, common).gain_vc
    assert (gain_vc == gain_vc[:, :1]).all()
    assert len(np.unique(gain_vc)) == 6


@pytest.mark.parametrize("gain", [(1.0, 1.0), (0.5, 2.0)])
def test_views_hide_a_share_of_the_markers(gain):
    settings = TrainSettings(gain=gain, marker_dropout=0.3)
    gain_vc = draw_augmentations(np.random.default_rng(0), 2000, 4, settings).gain_vc
    assert 0.25 < (gain_vc == 0).mean() < 0.32
    assert (gain_vc > 0).any(axis=1).all()
    shown = gain_vc[gain_vc > 0]
    assert shown.min() >= gain[0]
    assert shown.max() <= gain[1]
    assert abs(np.corrcoef((gain_vc > 0).T)[0, 1]) < 0.07


def test_views_fit_the_margin_that_was_asked_for():
    # Cells in the very corners, drawn many times, at the largest size.
    _, atlas = made_atlas(view_um=16.0)
    corners = np.array([[-0.5, -0.5], [49.5, 39.5]] * 500)
    how = draw_augmentations(np.random.default_rng(5), 1000, MARKERS, SETTINGS)
    views = gather_views(atlas, np.zeros(1000, int), corners, 16, how)
    assert np.isfinite(views).all()


def test_wrong_places_are_told():
    _, atlas = made_atlas()
    with pytest.raises(InputError, match=r"outside its image \(image i0\)"):
        gather_views(atlas, np.array([0]), np.array([[10.0, 40.0]]), 16)
    with pytest.raises(InputError, match="outside"):
        gather_views(atlas, np.array([0]), np.array([[np.nan, 4.0]]), 16)
    with pytest.raises(InputError, match="image index"):
        gather_views(atlas, np.array([2]), np.array([[1.0, 4.0]]), 16)
    with pytest.raises(InputError, match="margin_um"):
        gather_views(atlas, np.array([0]), np.array([[1.0, 4.0]]), 40)
    with pytest.raises(InputError, match="wrong size"):
        gather_views(atlas, np.array([0]), np.array([[1.0, 4.0]]), 41)


def test_no_views():
    _, atlas = made_atlas()
    assert gather_views(atlas, np.empty(0, int), np.empty((0, 2)), 16).shape == (0, 5, 16, 16)


def test_sizes_in_um():
    assert view_size_px(16.0, 1.0) == 16
    assert view_size_px(16.0, 0.5) == 32
    with pytest.raises(SettingsError, match="80 pixels"):
        view_size_px(16.0, 0.2)


@pytest.mark.parametrize("markers", [MARKERS, 12])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_number_of_threads_changes_nothing(threads, markers, monkeypatch):
    images, atlas = made_atlas(dtype="float16", markers=markers)
    how = draw_augmentations(np.random.default_rng(2), 333, markers, SETTINGS)
    cells = some_cells(images, 333)
    expected = gather_views(atlas, *cells, 16, how)
    monkeypatch.setattr("maskless.threads.thread_count", lambda: threads)
    np.testing.assert_array_equal(gather_views(atlas, *cells, 16, how), expected)


def test_a_view_does_not_depend_on_the_others():
    images, atlas = made_atlas(markers=12)
    index, centres = some_cells(images, 100)
    views = gather_views(atlas, index, centres, 16)
    np.testing.assert_array_equal(gather_views(atlas, index[7:9], centres[7:9], 16), views[7:9])


def test_views_of_real_cells_show_their_nucleus(real_data):
    tifffile = pytest.importorskip("tifffile")
    folder = real_data / "spleen_imc" / "r2"
    pixels = tifffile.imread(folder / "image.ome.tif").astype(np.float32)
    table = np.genfromtxt(folder / "objects.csv", delimiter=",", names=True, dtype=None)
    centres = np.stack([table["y"], table["x"]], axis=1)[:300].astype(float)
    dna = pixels[20:21]
    panel = Panel((Channel("DNA1"),))
    images = ImageSet.from_images([Image("r2", dna, panel.names, 1.0)], panel)
    atlas = Atlas.build(images, 1.0, 12.0)
    views = gather_views(atlas, np.zeros(len(centres), int), centres, 13)
    rows, columns = np.rint(centres).astype(int).T
    # The middle of a view is the pixel at the centre, between its neighbours.
    whole = gather_views(atlas, np.zeros(len(centres), int), np.rint(centres), 13)
    np.testing.assert_array_equal(whole[:, 0, 6, 6], np.float16(dna[0, rows, columns]))
    middle, corners = views[:, 0, 5:8, 5:8].mean(), views[:, 0, ::12, ::12].mean()
    assert middle > 1.2 * corners
