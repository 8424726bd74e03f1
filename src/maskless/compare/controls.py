"""What stands beside the embedding: representations of the same cells.

Axes: P = cells, C = markers in use, D = dimensions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maskless.cells import disc_means
from maskless.cells.given import find_given, read_mask
from maskless.cells.intensity import ring_means
from maskless.compare.reference import Matched
from maskless.encoder import Encoder
from maskless.errors import InputError
from maskless.images.image import Image, ImageSet
from maskless.progress import track
from maskless.segmentation import measure_masks
from maskless.training import Embedded, embed_cells

if TYPE_CHECKING:
    from maskless.config import EmbedSettings

DISC_UM = 4.0
RINGS_UM = (0.0, 2.0, 4.0, 6.0)
RAW_UM = 8.0

Table = NDArray[np.float32]


def control_tables(
    images: ImageSet,
    matched: Matched,
    centres_yx: NDArray[np.float64],
    masks: str | None,
) -> dict[str, Table]:
    """Every control of the matched cells that takes no encoder, by name.

    Parameters
    ----------
    images
        Cleaned images of the study.
    matched
        The cells.
    centres_yx
        Where the study has them, pixels, (P, 2).
    masks
        Path with ``{image}`` of label masks whose numbers are the reference's cell_id, from the
        working folder or beside the images; None = no means over masks.

    Returns
    -------
    dict
        Tables (P, D): disc mean, disc + rings, raw pixels, mask mean (with masks).
    """
    parts: dict[str, list[tuple[NDArray[np.intp], Table]]] = {}
    used = images.panel.used
    for name in track(matched.images, "controls (images)"):
        rows = np.flatnonzero(matched.image_p == name)
        whole = images[name]
        pixels_cyx = np.asarray(whole.pixels_cyx, np.float32)[used]
        image = Image(name, pixels_cyx, images.panel.markers, whole.um_per_pixel)
        disc = disc_means(pixels_cyx, centres_yx[rows], DISC_UM / image.um_per_pixel)
        edges_px = [edge / image.um_per_pixel for edge in RINGS_UM]
        rings = ring_means(pixels_cyx, centres_yx[rows], edges_px)
        made = {
            "disc mean": disc,
            "disc + rings": np.concatenate([disc, rings.reshape(len(rows), -1)], axis=1),
            "raw pixels": raw_pixels(image, centres_yx[rows]),
        }
        if masks is not None:
            mask_yx = read_mask(find_given(masks, whole, setting="--masks"), whole)
            made["mask mean"] = mask_means(image, mask_yx, matched.id_p[rows])
        for key, table in made.items():
            parts.setdefault(key, []).append((rows, table))
    return {key: _in_order(pieces) for key, pieces in parts.items()}


def embed_matched(
    encoder: Encoder,
    images: ImageSet,
    matched: Matched,
    centres_yx: NDArray[np.float64],
    settings: EmbedSettings,
    device: str = "auto",
) -> Embedded:
    """Embed the matched cells with an encoder; arguments as for :func:`control_tables`."""
    place = {name: index for index, name in enumerate(images.names)}
    image_index = np.array([place[name] for name in matched.image_p])
    return embed_cells(encoder, images, image_index, centres_yx, settings, device=device)


def mask_means(image: Image, mask_yx: NDArray[Any], ids_p: NDArray[np.intp]) -> Table:
    """Mean of each channel over the mask of each cell, (P, C).

    Raises
    ------
    InputError
        If the mask lacks a cell of the reference.
    """
    found = measure_masks(image.pixels_cyx, mask_yx)
    row = np.searchsorted(found.label_n, ids_p)
    row[row == len(found.label_n)] = 0
    lacking = found.label_n[row] != ids_p if len(found.label_n) else np.ones(len(ids_p), np.bool_)
    if lacking.any():
        raise InputError(
            f"the mask lacks {int(lacking.sum())} of {len(ids_p)} cells of the reference",
            image=image.name,
            expected="labels equal to the column cell_id",
            found=f"no cell {ids_p[lacking.argmax()]}",
        )
    return found.means_nc[row]


def raw_pixels(image: Image, centres_yx: NDArray[np.float64]) -> Table:
    """A window of 8 um about each centre in 4 x 4 parts, (P, 16 C)."""
    part = max(round(RAW_UM / 4 / image.um_per_pixel), 1)
    start = np.rint(centres_yx).astype(int)  # of the window, in the padded image
    padded = np.pad(image.pixels_cyx, ((0, 0), (2 * part,) * 2, (2 * part,) * 2), mode="reflect")
    windows = np.stack([padded[:, y : y + 4 * part, x : x + 4 * part] for y, x in start])
    parts = windows.reshape(len(start), len(padded), 4, part, 4, part).mean(axis=(3, 5))
    return np.asarray(parts.reshape(len(start), -1), np.float32)


def _in_order(pieces: list[tuple[NDArray[np.intp], Table]]) -> Table:
    """Tables of images, rows in the order of the cells."""
    rows = np.concatenate([rows for rows, _ in pieces])
    return np.concatenate([table for _, table in pieces])[np.argsort(rows, kind="stable")]
