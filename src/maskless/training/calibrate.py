"""What follows training: activations calibrated, the embedding composed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskless.cells.atlas import Atlas
from maskless.cells.views import gather_views, view_size_px
from maskless.encoder.activation import fit_activation
from maskless.encoder.model import Encoder
from maskless.training.fusion import compose_fusion

_VIEWS = 4000
_BATCH = 256
_STREAM = 0xCA1


def calibrate(
    encoder: Encoder,
    atlas: Atlas,
    image_index_n: NDArray[np.integer],
    centres_yx: NDArray[np.floating],
    view_um: float,
    seed: int,
    fusion: Literal["levels", "trained"],
) -> None:
    """Fit activations and embedding to views of up to 4,000 cells and as many random places.

    Parameters
    ----------
    encoder
        Its activations change, and its fusion if that is to be composed.
    atlas
        Images, with a margin of at least half a view.
    image_index_n, centres_yx
        Image of each cell, and its centre in pixels of that image.
    view_um
        Edge of the views that are to be embedded, in micrometres.
    seed
        Fixes which cells and places are taken.
    fusion
        "levels": compose it, see :mod:`maskless.training.fusion`; "trained": leave it.
    """
    size_px = view_size_px(view_um, atlas.pixel_um)
    rng = np.random.default_rng(np.random.SeedSequence((seed, _STREAM)))
    cells = np.sort(rng.permutation(len(image_index_n))[:_VIEWS])
    places = _random_places(atlas, rng)
    training = encoder.training
    encoder.eval()
    if fusion == "levels" and len(cells) > 1:
        views = _views(atlas, image_index_n[cells], centres_yx[cells], size_px)
        compose_fusion(encoder, views, seed)
    fit_activation(
        encoder,
        _views(atlas, image_index_n[cells], centres_yx[cells], size_px),
        _views(atlas, *places, size_px),
    )
    encoder.train(training)


def _random_places(
    atlas: Atlas, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Places spread evenly over the area of all images: image, and y, x in its pixels."""
    shape_i2 = np.stack([atlas.rows_i, atlas.columns_i], axis=1) - 2 * atlas.margin_i[:, None]
    area_i = shape_i2.prod(axis=1) * (atlas.um_per_pixel_i * atlas.factor_i) ** 2
    image_n = np.sort(rng.choice(len(area_i), _VIEWS, p=area_i / area_i.sum()))
    factor_n1 = atlas.factor_i[image_n, None]
    place_n2 = rng.random((_VIEWS, 2)) * (shape_i2[image_n] - 1)
    return image_n, place_n2 * factor_n1 + (factor_n1 - 1) / 2


def _views(
    atlas: Atlas,
    image_index_n: NDArray[np.integer],
    centres_yx: NDArray[np.floating],
    size_px: int,
) -> Iterator[Tensor]:
    for start in range(0, len(image_index_n), _BATCH):
        some = slice(start, start + _BATCH)
        yield torch.from_numpy(gather_views(atlas, image_index_n[some], centres_yx[some], size_px))
