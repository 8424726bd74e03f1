"""Views gathered by the GPU's kernel: those of the processor; in the interpreter without a GPU."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
import torch

from cells.test_views import MARKERS, SETTINGS, by_scipy, made_atlas, some_cells
from maskless.cells import views_gpu
from maskless.cells.atlas import Atlas
from maskless.cells.views import Augmentations, draw_augmentations, gather_views
from maskless.cells.views_gpu import DeviceAtlas, gather_views_on
from maskless.errors import InputError
from maskless.images.image import Channel, Image, ImageSet, Panel

if not (sys.platform == "linux" and os.uname().machine == "x86_64"):
    pytest.importorskip("triton", reason="Triton is for Linux on x86-64")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 1e-3)])
@pytest.mark.parametrize(("size", "markers"), [(12, 5), (15, 34)])
def test_equal_to_scipy(dtype: str, tolerance: float, size: int, markers: int) -> None:
    images, atlas = made_atlas(dtype=dtype, markers=markers)
    index, centres = some_cells(images, 6)
    quiet = SETTINGS.model_copy(update={"noise": 0.0})
    how = draw_augmentations(np.random.default_rng(2), 6, markers, quiet)
    views = gather_views_on(DeviceAtlas.of(atlas, DEVICE), index, centres, size, how)
    assert (views.dtype, views.device.type) == (torch.float32, DEVICE.type)
    for v in range(6):
        expected = by_scipy(
            images[index[v]],
            centres[v],
            size,
            how.matrices_v22[v],
            how.shift_um_vyx[v],
            how.gain_vc[v],
        )
        np.testing.assert_allclose(views[v].cpu().numpy(), expected, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("markers", [1, 8, 19])
def test_equal_to_the_processors_noise_and_all(dtype: str, markers: int) -> None:
    images, atlas = made_atlas(um=(0.5, 0.976), dtype=dtype, markers=markers)
    index, centres = some_cells(images, 6)
    how = draw_augmentations(np.random.default_rng(3), 6, markers, SETTINGS)
    expected = gather_views(atlas, index, centres, 14, how)
    views = gather_views_on(DeviceAtlas.of(atlas, DEVICE), index, centres, 14, how)
    np.testing.assert_allclose(views.cpu().numpy(), expected, atol=2e-5)


def test_plain_crops_of_odd_size_are_the_pixels_also_in_the_corners() -> None:
    images, atlas = made_atlas()
    centres = np.array([[16.0, 30.0], [0.0, 0.0], [32.0, 60.0]])
    views = gather_views_on(DeviceAtlas.of(atlas, DEVICE), np.ones(3, int), centres, 13)
    expected = gather_views(atlas, np.ones(3, int), centres, 13)
    np.testing.assert_array_equal(views.cpu().numpy(), expected)
    np.testing.assert_array_equal(views[0].cpu().numpy(), images[1].pixels_cyx[:, 10:23, 24:37])


def test_a_tall_atlas_keeps_sub_pixel_places() -> None:
    # 70,000 rows: float32 coordinates of the whole atlas would be wrong by 0.004 pixels.
    rows = np.mod(np.arange(70_000, dtype=np.float32), 64.0)
    pixels = np.repeat(rows[None, :, None], 14, axis=2)
    panel = Panel((Channel("A"),))
    images = ImageSet.from_images([Image("tall", pixels, panel.names, 1.0)], panel)
    atlas = Atlas.build(images, 1.0, 8.0, dtype="float32")
    centre = 69_921.3
    place = np.array([[centre, 6.0]])
    views = gather_views_on(DeviceAtlas.of(atlas, DEVICE), np.zeros(1, int), place, 12)
    expected = np.mod(centre, 64.0) + np.arange(12) - 5.5
    np.testing.assert_allclose(views[0, 0, :, 0].cpu().numpy(), expected, atol=1e-5)


def test_a_view_at_the_very_border_of_its_block_reads_nothing_beyond() -> None:
    _, whole = made_atlas(shapes=((20, 20),), um=(1.0,))
    bare = Atlas(
        markers=whole.markers,
        image_names=whole.image_names,
        pixel_um=1.0,
        values=whole.block(0)[:14, :14].ravel().copy(),
        offset_i=np.zeros(1, np.int64),
        rows_i=np.array([14]),
        columns_i=np.array([14]),
        margin_i=np.zeros(1, np.int64),
        factor_i=np.ones(1, np.int64),
        um_per_pixel_i=np.ones(1),
    )
    turned = np.array([[[0.6, -0.4], [0.4, 0.6]]])
    reach = 5.5  # of a view of 12 pixels with such a matrix
    centres = np.array([[reach, reach]])
    how = Augmentations(matrices_v22=turned)
    found = gather_views_on(DeviceAtlas.of(bare, DEVICE), np.zeros(1, int), centres, 12, how)
    expected = gather_views(bare, np.zeros(1, int), centres, 12, how)
    np.testing.assert_allclose(found.cpu().numpy(), expected, atol=1e-5)


def test_no_views_and_wrong_ones() -> None:
    _, atlas = made_atlas()
    device_atlas = DeviceAtlas.of(atlas, DEVICE)
    none = gather_views_on(device_atlas, np.zeros(0, int), np.zeros((0, 2)), 12)
    assert none.shape == (0, MARKERS, 12, 12)
    with pytest.raises(InputError, match="outside its image"):
        gather_views_on(device_atlas, np.zeros(1, int), np.array([[-3.0, 5.0]]), 12)


def test_where_the_kernel_cannot_run_the_processor_gathers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views_gpu, "why_no_kernels", lambda device: "Triton is not installed")
    images, atlas = made_atlas()
    index, centres = some_cells(images, 4)
    views = gather_views_on(DeviceAtlas.of(atlas, DEVICE), index, centres, 12)
    np.testing.assert_array_equal(views.cpu().numpy(), gather_views(atlas, index, centres, 12))


def test_large_atlases_are_copied_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    _, atlas = made_atlas(dtype="float16")
    whole = DeviceAtlas.of(atlas, DEVICE).values_pc
    monkeypatch.setattr(views_gpu, "_COPIED_VALUES", 1000)
    assert torch.equal(whole, DeviceAtlas.of(atlas, DEVICE).values_pc)
    assert whole.shape == (atlas.values.size // MARKERS, 8)
    assert not whole[:, MARKERS:].any()
