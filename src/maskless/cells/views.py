"""Views of cells, each by one affine gather straight from the image.

Axes: V = views, C = markers, S = rows and columns of a view.

Rotation, zoom, flip, shift and crop are one matrix and one bilinear interpolation; gain and
noise are added on the way. Pixel (i, j) of a view shows the place

    centre + shift + step * matrix @ (i - (S - 1) / 2, j - (S - 1) / 2)

in pixels of the atlas, as ``scipy.ndimage.affine_transform(order=1)`` would compute it.
Every view is computed alone, so the number of threads changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskless.cells.atlas import Atlas
from maskless.cells.views_kernel import NOISE, write_views
from maskless.errors import InputError, SettingsError
from maskless.threads import share_rows

if TYPE_CHECKING:
    from maskless.config import TrainSettings

# The encoder promises 12 to 40 pixels; shallow ones take smaller views and say so if they do not.
SMALLEST_VIEW_PX, LARGEST_VIEW_PX = 6, 40
_VIEWS_A_THREAD = 64


@dataclass(frozen=True)
class Augmentations:
    """What is done to each view beside cropping; None = nothing.

    Attributes
    ----------
    matrices_v22
        Rotation, flip and 1 / zoom, acting on (row, column) offsets from the centre of the view.
    shift_um_vyx
        Shift of the centre in micrometres, shape (V, 2).
    gain_vc
        Factor on the intensity of each marker, shape (V, C).
    noise_sigma_v
        Standard deviation of the Gaussian noise added after the gain.
    noise_start_v
        Where each view starts to read the table of normal numbers.
    """

    matrices_v22: NDArray[np.float64] | None = None
    shift_um_vyx: NDArray[np.float64] | None = None
    gain_vc: NDArray[np.float32] | None = None
    noise_sigma_v: NDArray[np.float32] | None = None
    noise_start_v: NDArray[np.int64] | None = None


def view_size_px(view_um: float, pixel_um: float) -> int:
    """Edge of a view in pixels, for its edge and the size of its pixels in micrometres.

    Raises
    ------
    SettingsError
        If that is not between 6 and 40 pixels.
    """
    size_px = round(view_um / pixel_um)
    if not SMALLEST_VIEW_PX <= size_px <= LARGEST_VIEW_PX:
        raise SettingsError(
            f"a view of {view_um} um is {size_px} pixels of {pixel_um} um; expected "
            f"{SMALLEST_VIEW_PX} to {LARGEST_VIEW_PX} pixels. Change the size of views or pixels"
        )
    return size_px


def view_reach_um(view_um: Sequence[float], settings: TrainSettings | None = None) -> float:
    """Farthest that views reach from their centre: half a diagonal, zoomed and shifted.

    Parameters
    ----------
    view_um
        Edges of the views in micrometres.
    settings
        Where the views are augmented: how.
    """
    half_um = max(view_um) / 2
    if settings is None:
        return half_um
    return half_um * sqrt(2) / min(settings.zoom) + settings.jitter_um


def draw_augmentations(
    rng: np.random.Generator, n_views: int, n_markers: int, settings: TrainSettings
) -> Augmentations:
    """Draw a random augmentation for each view.

    Rotation by any angle, both flips with probability one half, zoom and gain uniform between
    their limits, noise of a sigma uniform between 0 and its limit (Gutwein et al. 2024). Markers
    that a view does not show have the gain 0; each view shows at least one.
    """
    angle_v = rng.uniform(0, 2 * np.pi, n_views) if settings.rotate else np.zeros(n_views)
    flip_v2 = np.where(rng.random((n_views, 2)) < 0.5, -1.0, 1.0)
    if not settings.flip:
        flip_v2[:] = 1.0
    step_v = 1 / rng.uniform(*settings.zoom, n_views)
    cosine_v, sine_v = np.cos(angle_v) * step_v, np.sin(angle_v) * step_v
    rotation_v22 = np.stack([cosine_v, -sine_v, sine_v, cosine_v], axis=1).reshape(-1, 2, 2)
    gain_vc = None
    if settings.gain != (1.0, 1.0) or settings.marker_dropout > 0:
        columns = n_markers if settings.gain_per_marker else 1
        gain_vc = rng.uniform(*settings.gain, (n_views, columns)).astype(np.float32)
        gain_vc = np.array(np.broadcast_to(gain_vc, (n_views, n_markers)))
    sigma_v = start_v = None
    if settings.noise > 0:
        sigma_v = rng.uniform(0, settings.noise, n_views).astype(np.float32)
        start_v = rng.integers(0, NOISE, n_views)
    shift_um_vyx = None
    if settings.jitter_um > 0:
        # Even over a disc.
        length_v = settings.jitter_um * np.sqrt(rng.random(n_views))
        way_v = rng.uniform(0, 2 * np.pi, n_views)
        shift_um_vyx = np.stack([length_v * np.sin(way_v), length_v * np.cos(way_v)], axis=1)
    if gain_vc is not None and settings.marker_dropout > 0:
        hidden_vc = rng.random(gain_vc.shape) < settings.marker_dropout
        hidden_vc[hidden_vc.all(axis=1)] = False
        gain_vc[hidden_vc] = 0.0
    return Augmentations(
        rotation_v22 * flip_v2[:, None, :], shift_um_vyx, gain_vc, sigma_v, start_v
    )


def gather_views(
    atlas: Atlas,
    image_index_v: NDArray[np.integer],
    centres_yx: NDArray[np.floating],
    size_px: int,
    augmentations: Augmentations | None = None,
) -> NDArray[np.float32]:
    """Gather views of cells from an atlas.

    Parameters
    ----------
    atlas
        Images.
    image_index_v
        Image of each view, its position in ``atlas.image_names``.
    centres_yx
        Centre of each view, y and x in pixels of its original image, shape (V, 2).
    size_px
        Edge of the views in pixels of ``atlas.pixel_um``.
    augmentations
        What is done to each view; None = plain crops.

    Returns
    -------
    Views, shape (V, C, S, S), float32.

    Raises
    ------
    InputError
        If a centre lies outside its image, or a view reaches beyond the margin of the atlas.
    """
    placed = place_views(atlas, image_index_v, centres_yx, size_px, augmentations)
    n_views, n_markers = placed.gain_vc.shape
    values = atlas.values
    if values.dtype == np.float16:
        values = values.view(np.uint16)
    offset_v, columns_v = atlas.offset_i[placed.image_v], atlas.columns_i[placed.image_v]
    noise = noise_table()
    views_vcss = np.empty((n_views, n_markers, size_px, size_px), np.float32)

    def write(v: slice) -> None:
        write_views(
            values,
            offset_v[v],
            columns_v[v],
            placed.position_v2[v],
            placed.matrices_v22[v],
            placed.gain_vc[v],
            placed.sigma_v[v],
            placed.start_v[v],
            noise,
            size_px,
            views_vcss[v].reshape(-1),
        )

    share_rows(write, n_views, _VIEWS_A_THREAD)
    return views_vcss


class Placed(NamedTuple):
    """Views, checked and in pixels of the atlas, with what is done to each.

    The types and shapes are those that compiled code takes for granted.
    """

    image_v: NDArray[np.int64]
    position_v2: NDArray[np.float64]
    matrices_v22: NDArray[np.float64]
    gain_vc: NDArray[np.float32]
    sigma_v: NDArray[np.float32]
    start_v: NDArray[np.int64]


def place_views(
    atlas: Atlas,
    image_index_v: NDArray[np.integer],
    centres_yx: NDArray[np.floating],
    size_px: int,
    augmentations: Augmentations | None,
) -> Placed:
    """Find out what a gather reads; see :func:`gather_views`."""
    how = augmentations or Augmentations()
    image_v = np.asarray(image_index_v, np.int64)
    n_views, n_markers = len(image_v), len(atlas.markers)
    if n_views and not (image_v.min() >= 0 and image_v.max() < len(atlas.image_names)):
        raise InputError("an image index does not fit the atlas", found=image_v.max())
    step_v = atlas.step_i[image_v]
    position_v2 = atlas.position(image_v, np.asarray(centres_yx).reshape(-1, 2))
    _check_inside(atlas, image_v, position_v2)
    if how.shift_um_vyx is not None:
        position_v2 = position_v2 + how.shift_um_vyx * (step_v / atlas.pixel_um)[:, None]
    matrices_v22 = np.eye(2)[None] if how.matrices_v22 is None else how.matrices_v22
    matrices_v22 = np.ascontiguousarray(matrices_v22 * step_v[:, None, None], np.float64)
    _check_reach(atlas, image_v, position_v2, matrices_v22, size_px)
    # Compiled code takes these types and shapes for granted.
    gain_vc = np.ones((n_views, n_markers), np.float32)
    if how.gain_vc is not None:
        gain_vc[:] = how.gain_vc
    sigma_v, start_v = np.zeros(n_views, np.float32), np.zeros(n_views, np.int64)
    if how.noise_sigma_v is not None and how.noise_start_v is not None:
        sigma_v[:], start_v[:] = how.noise_sigma_v, how.noise_start_v
    return Placed(image_v, position_v2, matrices_v22, gain_vc, sigma_v, start_v)


@lru_cache(maxsize=1)
def noise_table() -> NDArray[np.float32]:
    """Normal numbers that all views read from random starts; the end repeats the start."""
    table = np.random.default_rng(20240517).standard_normal(NOISE, dtype=np.float32)
    return np.concatenate([table, table[:LARGEST_VIEW_PX]])


def _check_inside(
    atlas: Atlas, image_index_v: NDArray[np.int64], position_v2: NDArray[np.float64]
) -> None:
    """Centres lie on their image (half a pixel of the atlas beyond its last pixel at most)."""
    margin_v1 = atlas.margin_i[image_index_v, None]
    shape_v2 = np.stack([atlas.rows_i, atlas.columns_i], axis=1)[image_index_v]
    inside_v2 = (position_v2 >= margin_v1 - 0.5) & (position_v2 <= shape_v2 - margin_v1 - 0.5)
    if not inside_v2.all():
        view = int(np.flatnonzero(~inside_v2.all(axis=1))[0])
        raise InputError(
            "the centre of a cell lies outside its image",
            image=atlas.image_names[image_index_v[view]],
            found=f"cell {view} of those given",
            do="Give y and x in pixels of the image",
        )


def _check_reach(
    atlas: Atlas,
    image_index_v: NDArray[np.int64],
    position_v2: NDArray[np.float64],
    matrices_v22: NDArray[np.float64],
    size_px: int,
) -> None:
    """No view reads beyond its block: compiled code does not test each pixel for it."""
    if not 1 <= size_px <= LARGEST_VIEW_PX:
        raise InputError("a view has a wrong size", expected="1 to 40 pixels", found=size_px)
    reach_v2 = np.abs(matrices_v22).sum(axis=2) * ((size_px - 1) / 2)
    shape_v2 = np.stack([atlas.rows_i, atlas.columns_i], axis=1)[image_index_v]
    fits_v2 = (position_v2 - reach_v2 >= 0) & (position_v2 + reach_v2 < shape_v2 - 1)
    if not fits_v2.all():
        view = int(np.flatnonzero(~fits_v2.all(axis=1))[0])
        raise InputError(
            "a view reaches beyond the margin of the atlas",
            image=atlas.image_names[image_index_v[view]],
            do="Build the atlas with a wider margin_um",
        )
