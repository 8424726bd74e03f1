"""Views of cells gathered on a GPU, from an atlas that lies in its memory.

Axes: V = views, C = markers, S = rows and columns of a view, P = pixels of all images.

The same views as :func:`maskless.cells.gather_views` makes, which see. Places are split on the
processor, in float64, into a whole pixel and the rest; the kernel computes with the rest in
float32, so that large images lose nothing: places are exact to 1e-5 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskless.cells.atlas import Atlas
from maskless.cells.views import Augmentations, Placed, gather_views, noise_table, place_views
from maskless.cells.views_kernel import NOISE
from maskless.gpu import on_device, tell_once, why_no_kernels

_SIDE_BY_SIDE = 8  # markers read at once, 16 bytes of float16
_COPIED_VALUES = 1 << 26
_TILE_PIXELS = 64
_CHUNK_MARKERS = 16


@dataclass(frozen=True)
class DeviceAtlas:
    """An atlas whose pixels lie in the memory of a device.

    Attributes
    ----------
    atlas
        The atlas itself.
    values_pc
        Its pixels on the device, shape (P, markers and zeros up to a multiple of 8).
    """

    atlas: Atlas
    values_pc: Tensor

    @classmethod
    def of(cls, atlas: Atlas, device: torch.device | str) -> DeviceAtlas:
        """Copy an atlas to a device; a mapped file passes through memory in pieces."""
        markers = len(atlas.markers)
        wide = -(-markers // _SIDE_BY_SIDE) * _SIDE_BY_SIDE
        pixels_pc = atlas.values.reshape(-1, markers)
        kind = torch.float16 if pixels_pc.dtype == np.float16 else torch.float32
        values_pc = torch.zeros((len(pixels_pc), wide), dtype=kind, device=device)
        rows = max(1, _COPIED_VALUES // markers)
        for start in range(0, len(pixels_pc), rows):
            piece = torch.from_numpy(np.array(pixels_pc[start : start + rows]))
            values_pc[start : start + len(piece), :markers] = piece.to(device)
        return cls(atlas, values_pc)


def gather_views_on(
    device_atlas: DeviceAtlas,
    image_index_v: NDArray[np.integer],
    centres_yx: NDArray[np.floating],
    size_px: int,
    augmentations: Augmentations | None = None,
) -> Tensor:
    """Gather views of cells on the device that an atlas lies on.

    Parameters
    ----------
    device_atlas
        Images.
    image_index_v, centres_yx, size_px, augmentations
        As for :func:`maskless.cells.gather_views`.

    Returns
    -------
    Views on that device, shape (V, C, S, S), float32. They differ from those of
    :func:`maskless.cells.gather_views` by 2e-5 of the images' largest value and its gain at most.
    Where the kernel cannot run, they are gathered on the processor and copied; for a GPU, a line
    says so.

    Raises
    ------
    InputError
        If a centre lies outside its image, or a view reaches beyond the margin of the atlas.
    """
    atlas, device = device_atlas.atlas, device_atlas.values_pc.device
    reason = why_no_kernels(device)
    if reason:
        if device.type != "cpu":
            tell_once(f"views are gathered on the processor, not on the GPU: {reason}")
        views = gather_views(atlas, image_index_v, centres_yx, size_px, augmentations)
        return torch.from_numpy(views).to(device)
    placed = place_views(atlas, image_index_v, centres_yx, size_px, augmentations)
    views_vcss = torch.empty((*placed.gain_vc.shape, size_px, size_px), device=device)
    if len(views_vcss):
        _gather(device_atlas, placed, augmentations is not None, views_vcss)
    return views_vcss


def _gather(device_atlas: DeviceAtlas, placed: Placed, augmented: bool, views_vcss: Tensor) -> None:
    from maskless.cells.views_gpu_kernel import gather

    values_pc, device = device_atlas.values_pc, views_vcss.device
    n_views, n_markers, size, _ = views_vcss.shape
    first_v, bounds_v6, place_v8 = _split(device_atlas.atlas, placed)
    with on_device(device):
        gather[(n_views, -(-(size**2) // _TILE_PIXELS))](
            values_pc,
            torch.from_numpy(first_v).to(device),
            torch.from_numpy(bounds_v6).to(device),
            torch.from_numpy(place_v8).to(device),
            torch.from_numpy(placed.gain_vc).to(device),
            _noise_on(device),
            views_vcss,
            markers=n_markers,
            wide=values_pc.shape[1],
            size=size,
            noise_length=NOISE,
            augmented=augmented,
            tile=_TILE_PIXELS,
            chunk=_CHUNK_MARKERS,
            num_warps=4,
        )


def _split(
    atlas: Atlas, placed: Placed
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """The kernel's numbers: a pixel of each view, and all else relative to it."""
    image_v = placed.image_v
    whole_v2 = np.floor(placed.position_v2).astype(np.int64)
    columns_v, rows_v = atlas.columns_i[image_v], atlas.rows_i[image_v]
    start_v = atlas.offset_i[image_v] // len(atlas.markers)
    first_v = start_v + whole_v2[:, 0] * columns_v + whole_v2[:, 1]
    low_v2, high_v2 = -whole_v2, np.stack([rows_v, columns_v], axis=1) - 2 - whole_v2
    bounds_v6 = [columns_v, low_v2[:, 0], high_v2[:, 0], low_v2[:, 1], high_v2[:, 1]]
    bounds_v6 = [*bounds_v6, placed.start_v & (NOISE - 1)]
    place_v8 = np.zeros((len(image_v), 8), np.float32)
    place_v8[:, :2] = placed.position_v2 - whole_v2
    place_v8[:, 2:6] = placed.matrices_v22.reshape(-1, 4)
    place_v8[:, 6] = placed.sigma_v
    return first_v, np.stack(bounds_v6, axis=1).astype(np.int32), place_v8


@lru_cache
def _noise_on(device: torch.device) -> Tensor:
    return torch.from_numpy(noise_table()).to(device)
