"""Embedding of cells with a trained encoder, one image in memory at a time.

Axes: N = cells, C = markers, K = features of a marker, E = length of the embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from maskless.cells.atlas import Atlas
from maskless.cells.views import gather_views, view_reach_um, view_size_px
from maskless.cells.views_gpu import DeviceAtlas, gather_views_on
from maskless.encoder.model import Encoder
from maskless.errors import InputError
from maskless.gpu import choose_device
from maskless.progress import track
from maskless.storage import mapped_array

if TYPE_CHECKING:
    from maskless.config import EmbedSettings
    from maskless.images.image import Image, ImageSet, Panel

# Matrix products round differently for different numbers of rows, so every product has this many:
# a cell's numbers then do not depend on which and how many others are embedded with it.
_ROWS = {"cpu": 64, "cuda": 4096}
_GATHERED = {"cpu": 1024, "cuda": 4096}


@dataclass(frozen=True)
class Embedded:
    """What the encoder says of each cell.

    Attributes
    ----------
    features_nck
        Interpretability stage, shape (N, C, K), float32.
    embedding_ne
        Embeddings, shape (N, E), float32.
    activations_nc
        Calibrated activation of each marker, shape (N, C), float32.
    """

    features_nck: NDArray[np.float32]
    embedding_ne: NDArray[np.float32]
    activations_nc: NDArray[np.float32]


def embed_image(
    encoder: Encoder,
    image: Image,
    panel: Panel,
    centres_yx: NDArray[np.floating],
    settings: EmbedSettings,
) -> Embedded:
    """Embed the cells of one image.

    Parameters
    ----------
    encoder
        A trained (or untrained) encoder; it sees its own markers of the panel, in its order.
    image
        A cleaned image.
    panel
        Its channels.
    centres_yx
        y and x of the cells in pixels of the image, shape (N, 2).
    settings
        Size of the views.

    Raises
    ------
    InputError
        If the panel lacks markers of the encoder, or a centre lies outside the image.
    """
    check_markers(encoder, panel)
    result = _empty(encoder, len(centres_yx))
    encoder = _ready(encoder, torch.device("cpu"))
    _embed_into(result, np.arange(len(centres_yx)), encoder, image, panel, centres_yx, settings)
    return result


def embed_cells(
    encoder: Encoder,
    images: ImageSet,
    image_index_n: NDArray[np.integer],
    centres_yx: NDArray[np.floating],
    settings: EmbedSettings,
    *,
    device: str = "auto",
    scratch: Path | None = None,
    on_image: Callable[[Image, NDArray[np.intp]], None] | None = None,
) -> Embedded:
    """Embed the cells of a cohort; only images that have cells are loaded, one at a time.

    Parameters
    ----------
    encoder
        A trained (or untrained) encoder.
    images
        Cleaned images.
    image_index_n
        Image of each cell, its position in ``images.names``, in any order.
    centres_yx
        y and x of the cells in pixels of their image, shape (N, 2).
    settings
        Size of the views.
    device
        Where to compute; see :func:`maskless.gpu.choose_device`.
    scratch
        Folder for the results, as mapped files that the caller removes; None = in memory. With it,
        memory stays near one image however many cells there are.
    on_image
        Called with each image while it is in memory, and the rows of its cells.

    Returns
    -------
    Rows in the order of the cells given; each row depends on its own view alone.

    Raises
    ------
    InputError
        If the panel lacks markers of the encoder, or a cell does not fit its image.
    """
    check_markers(encoder, images.panel)
    image_index_n, centres_yx = np.asarray(image_index_n), np.asarray(centres_yx).reshape(-1, 2)
    if len(image_index_n) and not (image_index_n.min() >= 0 and image_index_n.max() < len(images)):
        raise InputError("an image index does not fit the images", found=image_index_n.max())
    result = _empty(encoder, len(image_index_n), scratch)
    encoder = _ready(encoder, choose_device(device))
    for index in track(np.unique(image_index_n).tolist(), "embed (images)"):
        rows = np.flatnonzero(image_index_n == index)
        image = images[images.names[index]]
        _embed_into(result, rows, encoder, image, images.panel, centres_yx[rows], settings)
        if on_image is not None:
            on_image(image, rows)
    return result


def check_markers(encoder: Encoder, panel: Panel) -> None:
    """Raise an InputError that tells the difference if the panel lacks markers of the encoder."""
    lacking = [marker for marker in encoder.markers if marker not in panel.names]
    if lacking:
        further = [marker for marker in panel.markers if marker not in encoder.markers]
        raise InputError(
            "the panel does not fit the encoder",
            expected=f"also {', '.join(lacking)}",
            found=f"instead {', '.join(further)}" if further else "no other markers",
            do="Give channels their names in the encoder's panel, or train anew",
        )


def _empty(encoder: Encoder, cells: int, scratch: Path | None = None) -> Embedded:
    markers = len(encoder.markers)
    return Embedded(
        mapped_array((cells, markers, encoder.features_per_marker), scratch, "features"),
        mapped_array((cells, len(encoder.bias)), scratch, "embedding"),
        mapped_array((cells, markers), scratch, "activations"),
    )


def _ready(encoder: Encoder, device: torch.device) -> Encoder:
    """A copy of an encoder in eval mode on a device.

    GPUs compute in float32 here: embedding takes little time, and activations were calibrated so.
    """
    ready = deepcopy(encoder).eval().to(device)
    if device.type == "cuda" and ready.path == "triton":
        ready.path = "triton-float32"
    return ready


def _embed_into(
    result: Embedded,
    rows_n: NDArray[np.integer],
    encoder: Encoder,
    image: Image,
    panel: Panel,
    centres_yx: NDArray[np.floating],
    settings: EmbedSettings,
) -> None:
    """Fill the rows of one image's cells."""
    size_px = view_size_px(settings.view_um, encoder.pixel_um)
    reach_um = view_reach_um([size_px * encoder.pixel_um])
    atlas = Atlas.of_image(image, panel, encoder.pixel_um, reach_um, encoder.markers)
    device = encoder.bias.device
    on_device = DeviceAtlas.of(atlas, device) if device.type == "cuda" else None
    length, gathered = _ROWS[device.type], _GATHERED[device.type]
    with torch.inference_mode():
        for start in range(0, len(rows_n), gathered):
            centres = centres_yx[start : start + gathered]
            which = (np.zeros(len(centres), np.int64), centres, size_px)
            if on_device is not None:
                views = gather_views_on(on_device, *which)
            else:
                views = torch.from_numpy(gather_views(atlas, *which))
            for first in range(0, len(views), length):
                piece = views[first : first + length]
                rows = rows_n[start + first : start + first + len(piece)]
                full = functional.pad(piece, (0,) * 7 + (length - len(piece),))
                features = encoder.features(full)
                for into, found in (
                    (result.features_nck, features),
                    (result.embedding_ne, encoder.embed_of(features)),
                    (result.activations_nc, encoder.activations_of(features)),
                ):
                    into[rows] = found[: len(piece)].cpu().numpy()
