"""What background removal did: each marker before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.images.corrections import prepare_corrections
from maskless.images.counts import counts_of
from maskless.images.image import Image, ImageSet
from maskless.report.pixels import shrink
from maskless.report.style import (
    axes_at,
    bare,
    new_figure,
    plain,
    styled,
    text_at,
    title_at,
)

if TYPE_CHECKING:
    from maskless.config import CleanSettings

MOST_MARKERS = 24
_WINDOW_UM = 200.0
_MOST_EDGE_PX = 320  # of a drawn square
_BRIGHT = 99.5  # percentile of the stained pixels that is white
_LEAST_BRIGHT = 4.0  # counts: single ions are not blown up
_PER_ROW = 3
_EDGE, _BETWEEN, _ASIDE, _HIGH = 1.3, 0.04, 0.22, 1.72  # inches


@dataclass(frozen=True)
class BackgroundSample:
    """A window of one image before and after.

    Attributes
    ----------
    image
        Its name.
    um_per_pixel
        Of the window.
    markers
        Names of the channels whose background was removed.
    before_myx, after_myx
        Counts without hot pixels and spillover, of the window.
    kept_pixels, kept_counts
        Share of the stained pixels, and of the counts, of the whole image that is left; NaN where
        there were none. Shape (markers,).
    """

    image: str
    um_per_pixel: float
    markers: tuple[str, ...]
    before_myx: NDArray[np.float32]
    after_myx: NDArray[np.float32]
    kept_pixels: NDArray[np.float64]
    kept_counts: NDArray[np.float64]


def sample_background(
    images: ImageSet, cleaned: Image, markers: Sequence[str], settings: CleanSettings
) -> BackgroundSample:
    """Compare an image with its cleaned form.

    Parameters
    ----------
    images
        Raw; the one of the cleaned image's name is loaded.
    cleaned
        Without background; in any scale, 0 where nothing is left.
    markers
        Those whose background was removed.
    settings
        Of what comes before: hot pixels. (Spillover only lowers counts; its own figure shows it.)
    """
    raw = images[cleaned.name]
    before_cyx, _ = counts_of(raw, settings)
    places = [raw.channels.index(marker) for marker in markers]
    before_myx = before_cyx[places]
    kept = [cleaned.channels.index(marker) for marker in markers]
    left_myx = cleaned.pixels_cyx[kept].astype(np.float32) > 0
    return _sample(raw, markers, before_myx, np.where(left_myx, before_myx, np.float32(0)))


def _sample(
    image: Image,
    markers: Sequence[str],
    before_myx: NDArray[np.float32],
    after_myx: NDArray[np.float32],
) -> BackgroundSample:
    with np.errstate(invalid="ignore", divide="ignore"):
        kept_pixels = (after_myx > 0).sum(axis=(1, 2)) / (before_myx > 0).sum(axis=(1, 2))
        kept_counts = after_myx.sum(axis=(1, 2), dtype=np.float64) / before_myx.sum(
            axis=(1, 2), dtype=np.float64
        )
    y, x = _window(before_myx, max(8, round(_WINDOW_UM / image.um_per_pixel)))
    return BackgroundSample(
        image.name,
        image.um_per_pixel,
        tuple(markers),
        before_myx[:, y, x],
        after_myx[:, y, x],
        kept_pixels,
        kept_counts,
    )


def _window(planes_myx: NDArray[np.float32], edge: int) -> tuple[slice, slice]:
    """The window in which most markers have most of what they have."""
    rows, columns = planes_myx.shape[1:]
    if rows <= edge and columns <= edge:
        return slice(0, rows), slice(0, columns)
    best, where = -1.0, (0, 0)
    most_m = planes_myx.sum(axis=(1, 2), dtype=np.float64) + 1e-9
    for y in range(0, max(1, rows - edge // 2), max(1, edge // 2)):
        for x in range(0, max(1, columns - edge // 2), max(1, edge // 2)):
            top, left = min(y, max(0, rows - edge)), min(x, max(0, columns - edge))
            inside = planes_myx[:, top : top + edge, left : left + edge]
            found = float(np.sqrt(inside.sum(axis=(1, 2), dtype=np.float64) / most_m).sum())
            if found > best:
                best, where = found, (top, left)
    return slice(where[0], where[0] + edge), slice(where[1], where[1] + edge)


def background(
    images: ImageSet, settings: CleanSettings, *, image: str | None = None, seed: int = 0
) -> Figure:
    """Draw what removing the background does to an image, marker by marker.

    Parameters
    ----------
    images
        Raw.
    settings
        Those of :func:`maskless.clean`, with a ``background_removal``.
    image
        Which; the middle one if None.
    seed
        As for :func:`maskless.clean`.

    Raises
    ------
    InputError
        If the settings remove no background, or there is no such image.
    """
    from maskless.images.background import BackgroundRemoval

    corrections = prepare_corrections(images, settings, seed=seed)
    if not corrections or not isinstance(corrections[-1], BackgroundRemoval):
        raise InputError(
            "no background is removed, so there is nothing to draw",
            do="Set background_removal",
        )
    raw = images[image or images.names[len(images) // 2]]
    before_cyx, _ = counts_of(raw, settings, corrections[:-1])
    after_cyx, _ = corrections[-1](raw, before_cyx)
    places = [raw.channels.index(marker) for marker in corrections[-1].markers]
    return background_figure(
        _sample(raw, corrections[-1].markers, before_cyx[places], after_cyx[places])
    )


@styled
def background_figure(sample: BackgroundSample) -> Figure:
    """Each marker before (left) and after (right), with the same contrast.

    Parameters
    ----------
    sample
        From :func:`sample_background`.

    Returns
    -------
    matplotlib.figure.Figure
        Markers by name as the panel has them; of more than 24 those that lost most.
    """
    order = np.argsort(np.nan_to_num(sample.kept_counts, nan=2.0), kind="stable")[:MOST_MARKERS]
    shown = sorted(int(m) for m in order)
    columns = min(_PER_ROW, len(shown))
    rows = -(-len(shown) // columns)
    wide = 2 * _EDGE + _BETWEEN + _ASIDE
    figure = new_figure(0.2 + max(columns * wide, 5.6), 0.75 + rows * _HIGH)
    height_um, width_um = (edge * sample.um_per_pixel for edge in sample.before_myx.shape[1:])
    subtitle = (
        f"before and after, the same contrast, square root of counts; {width_um:.0f} x "
        f"{height_um:.0f} µm; shares are of the whole image"
    )
    title_at(figure, f"Background removed in {plain(sample.image)}", subtitle)
    for number, m in enumerate(shown):
        left = 0.12 + (number % columns) * wide
        top = 0.72 + (number // columns) * _HIGH
        text_at(figure, left, top, plain(sample.markers[m], 18), size=8.5, weight="bold")
        text_at(
            figure,
            left + 2 * _EDGE,
            top + 0.015,
            _kept(sample, m),
            size=7,
            color="#55555c",
            ha="right",
        )
        pair = np.stack([sample.before_myx[m], sample.after_myx[m]])
        pair, _ = shrink(pair, _MOST_EDGE_PX)
        stained = pair[0][pair[0] > 0]
        high = max(_LEAST_BRIGHT, float(np.percentile(stained, _BRIGHT)) if stained.size else 0.0)
        for half, plane_yx in enumerate(pair):
            axes = axes_at(
                figure, left + half * (_EDGE + _BETWEEN), top + 0.19, _EDGE, _EDGE, anchor="N"
            )
            axes.imshow(
                np.sqrt(plane_yx),
                cmap="inferno",
                vmin=0,
                vmax=np.sqrt(high),
                interpolation="nearest",
            )
            bare(axes)
    return figure


def _kept(sample: BackgroundSample, m: int) -> str:
    if np.isnan(sample.kept_counts[m]):
        return "empty"
    pixels, counts = 100 * sample.kept_pixels[m], 100 * sample.kept_counts[m]
    return f"kept: {counts:.0f} % of counts, {pixels:.0f} % of pixels"
