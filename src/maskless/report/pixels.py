"""Pixels for figures: contrast that stays the same, pictures of a size that can be drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.images.image import Image
from maskless.report.groups import nuclear_markers, telling_markers
from maskless.report.style import plain

if TYPE_CHECKING:
    from anndata import AnnData

MOST_MARKERS = 6
# Cleaned images are scaled so that about 1 is bright: what stays below this is not blown up.
_LEAST_HIGH = 0.3


def chosen_markers(cells: AnnData, markers: Sequence[str], groupby: str) -> tuple[str, ...]:
    """The markers to draw: those given, or the most telling ones.

    Raises
    ------
    InputError
        Unknown markers, or more than six.
    """
    if not markers:
        return telling_markers(cells, groupby, MOST_MARKERS)
    chosen = tuple(dict.fromkeys(markers))
    if len(chosen) > MOST_MARKERS:
        raise InputError(
            "too many markers for one composite",
            expected=f"at most {MOST_MARKERS}",
            found=str(len(chosen)),
        )
    for name in chosen:
        if name not in cells.var_names:
            raise InputError(
                "there is no such marker to draw",
                channel=name,
                expected=f"one of {', '.join(map(str, cells.var_names))}",
            )
    return chosen


def composite_colors(cells: AnnData, markers: Sequence[str]) -> list[str]:
    """Colours of the markers of a composite, nuclear channels as ``var`` says."""
    from maskless.report.colors import marker_colors

    return marker_colors(markers, nuclear_markers(cells))


def planes_of(image: Image, markers: Sequence[str]) -> NDArray[np.float32]:
    """The named channels of an image as float32, shape (markers, rows, columns)."""
    for name in markers:
        if name not in image.channels:
            raise InputError("the image lacks a channel", image=image.name, channel=name)
    picked = [image.channels.index(name) for name in markers]
    return np.nan_to_num(image.pixels_cyx[picked].astype(np.float32, copy=False))


def contrast_limits(
    images: Iterable[Image], markers: Sequence[str], most_pixels: int = 60_000
) -> NDArray[np.float64]:
    """Intensities that are black and full colour, the same for all pictures of a figure.

    Parameters
    ----------
    images
        Loaded one after the other.
    markers
        Channel names.
    most_pixels
        Looked at in each image, on a regular grid.

    Returns
    -------
    array, shape (markers, 2)
        60th and 99.7th percentile over the images; at least 0.3 apart. Black up to there, most
        tissue shows a marker only where it is, and colours do not add up to white.
    """
    seen: list[NDArray[np.float32]] = []
    for image in images:
        planes = planes_of(image, markers)
        step = max(1, int(np.ceil(np.sqrt(planes[0].size / most_pixels))))
        seen.append(planes[:, ::step, ::step].reshape(len(planes), -1))
    if not seen or not markers:
        return np.tile([0.0, 1.0], (len(markers), 1))
    pixels = np.concatenate(seen, axis=1)
    low, high = np.percentile(pixels, [60, 99.7], axis=1)
    return np.column_stack([low, np.maximum(high, low + _LEAST_HIGH)])


def shrink(planes_cyx: NDArray[np.float32], most: int = 1200) -> tuple[NDArray[np.float32], int]:
    """Average blocks of pixels until neither edge is longer than `most`.

    Returns
    -------
    planes_cyx, factor
        Rows and columns that fill no whole block are cut off.
    """
    rows, columns = planes_cyx.shape[1:]
    factor = max(1, -(-max(rows, columns) // most))
    if factor == 1 or min(rows, columns) < factor:
        return planes_cyx, 1
    cut = planes_cyx[:, : rows // factor * factor, : columns // factor * factor]
    blocks = cut.reshape(len(cut), rows // factor, factor, columns // factor, factor)
    return np.asarray(blocks.mean(axis=(2, 4)), dtype=np.float32), factor


def legend_texts(markers: Sequence[str], limits_m2: NDArray[np.float64]) -> list[str]:
    """Marker names with the intensities that are black and full colour."""
    return [
        f"{plain(name, 20)}  {low:.2g} – {high:.2g}"
        for name, (low, high) in zip(markers, limits_m2, strict=True)
    ]
