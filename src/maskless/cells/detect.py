"""Finding the cells of images by the method that is asked for.

Axes: C = channels, Y = rows, X = columns.

All centres inside an image are kept, also those of cells cut by its edge: how a view that reaches
over the edge is filled is for the views to say.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maskless.cells.difference_of_gaussians import (
    BRIGHT_PERCENTILE,
    default_settings,
    detect_nuclei,
)
from maskless.cells.given import centres_from_mask, centres_from_table, find_given
from maskless.errors import InputError, SettingsError
from maskless.images.image import Image, ImageSet, Panel
from maskless.progress import log, track

if TYPE_CHECKING:
    from anndata import AnnData

    from maskless.config import DetectSettings


def nuclear_plane(image: Image, panel: Panel) -> NDArray[np.float32]:
    """The plane in which nuclei are looked for: the mean of the nuclear channels.

    Each channel is first divided by its own bright level in this image, so that a weak histone
    counts as much as a strong DNA. Channels that are 0 throughout are left out.

    Parameters
    ----------
    image
        Cleaned or raw.
    panel
        Of the image's cohort.

    Returns
    -------
    plane_yx
        float32, about 1 where all nuclear channels are bright.

    Raises
    ------
    InputError
        If the panel names no nuclear channel, or the image does not have the panel's channels.
    """
    _require_nuclear(panel)
    if len(image.pixels_cyx) != len(panel.channels):
        raise InputError(
            "this image does not have the channels of the panel",
            image=image.name,
            expected=f"{len(panel.channels)} channels",
            found=len(image.pixels_cyx),
        )
    plane_yx = np.zeros(image.pixels_cyx.shape[1:], dtype=np.float32)
    stained = 0
    for name in panel.nuclear:
        channel_yx = image.pixels_cyx[panel.index(name)].astype(np.float32)
        bright = float(np.percentile(channel_yx, BRIGHT_PERCENTILE)) or float(channel_yx.max())
        if bright > 0:
            plane_yx += channel_yx / np.float32(bright)
            stained += 1
    return plane_yx / np.float32(max(stained, 1))


def detect_image(
    image: Image,
    panel: Panel,
    settings: DetectSettings | None = None,
    base: Path | None = None,
) -> NDArray[np.float64]:
    """Find the cells of one image.

    Parameters
    ----------
    image
        Cleaned; for given masks and centres only its name, size and source matter.
    panel
        Of the image's cohort.
    settings
        The method and its numbers.
    base
        Where relative paths in `settings.files` and `settings.cellpose_model` start.

    Returns
    -------
    centres_xy
        Shape (cells, 2): x, y in pixels, sorted by y, then x; shape (0, 2) where there are none.

    Raises
    ------
    InputError
        If the panel names no nuclear channel, or a given file does not fit.
    SettingsError
        If the method needs `files` or `cellpose_model` and has none.
    MissingExtraError
        If Cellpose is asked for and not installed.
    """
    chosen = settings or default_settings()
    if chosen.method == "dog":
        return detect_nuclei(nuclear_plane(image, panel), image.um_per_pixel, chosen)
    if chosen.method == "cellpose":
        from maskless.cells.cellpose import detect_with_cellpose

        return detect_with_cellpose(nuclear_plane(image, panel), image.um_per_pixel, chosen, base)
    if chosen.files is None:
        raise SettingsError(
            f'detect.method = "{chosen.method}" needs detect.files, a path with {{image}} in it'
        )
    path = find_given(chosen.files, image, base)
    if chosen.method == "masks":
        return centres_from_mask(path, image)
    return centres_from_table(path, image)


def detect(
    images: ImageSet, settings: DetectSettings | None = None, base: Path | None = None
) -> AnnData:
    """Find the cells of a cohort, one image after the other.

    Parameters
    ----------
    images
        Cleaned images.
    settings
        The method and its numbers; the embedded detector if None.
    base
        Where relative paths in the settings start.

    Returns
    -------
    cells
        See :func:`maskless.cells.table.make_cells`; ``uns["maskless"]["detector"]`` holds what
        :func:`detector_record` returns.

    Raises
    ------
    InputError
        If no image has any cell; and as :func:`detect_image`.
    """
    from maskless.cells.table import make_cells

    chosen = settings or default_settings()
    if chosen.method in ("dog", "cellpose"):
        _require_nuclear(images.panel)
    centres_by_image = {}
    um_per_pixel = {}
    for image in track(images, "detect (images)", total=len(images)):
        centres_by_image[image.name] = detect_image(image, images.panel, chosen, base)
        um_per_pixel[image.name] = image.um_per_pixel
        if not len(centres_by_image[image.name]):
            log(f"detect: no cells in image {image.name}")
    cells = make_cells(centres_by_image, images.panel, um_per_pixel)
    cells.uns["maskless"]["detector"] = detector_record(chosen, base)
    return cells


def detector_record(settings: DetectSettings, base: Path | None = None) -> dict[str, Any]:
    """What found the cells, to be stored with them: method, and which weights by their SHA-256."""
    record: dict[str, Any] = {"method": settings.method}
    if settings.method == "cellpose":
        from maskless.cells.cellpose import weights_record

        record |= weights_record(settings, base)
    return record


def _require_nuclear(panel: Panel) -> None:
    if not panel.nuclear:
        raise InputError(
            "the panel names no nuclear channel, so nuclei cannot be looked for",
            found=f"channels {', '.join(panel.names)}",
            do='Name them: nuclear = ["DNA1"] under [images] in study.toml, or --nuclear DNA1',
        )
