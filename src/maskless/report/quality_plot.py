"""One figure of how good the images are: noise, positive area and saturation, drift and focus."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from maskless.images.quality import NOISE_ONLY
from maskless.images.suspicious import BLURRED_UM, SATURATED
from maskless.report.style import axes_at, color_bar, new_figure, plain, styled, title_at, widest

if TYPE_CHECKING:
    import pandas as pd

_CELL = 0.19
_MOST_NAMED = 60  # images: more are too close for names
_WIDEST = 5.0
_WARN = "#d55e00"


@styled
def quality_figure(table: pd.DataFrame, markers: Sequence[str]) -> Figure:
    """Draw the quality of a cohort: markers down, images across.

    Parameters
    ----------
    table
        Of :func:`maskless.images.suspicious.quality_table`.
    markers
        Channels to show, in order.

    Returns
    -------
    Figure
        Left signal-to-noise, right positive area, an orange cross where something is suspicious;
        below drift and focus of each whole image.
    """
    images = list(dict.fromkeys(map(str, table["image"])))
    shown = [str(marker) for marker in markers]
    noise_mi = _matrix(table, "signal_to_noise", shown, images)
    share_mi = 100 * _matrix(table, "positive_share", shown, images)
    saturated_mi = 100 * _matrix(table, "saturated_share", shown, images)
    warned_mi = _warned(table, shown, images)
    names = [plain(marker, 16) for marker in shown]
    image_names = [plain(image, 24) for image in images] if len(images) <= _MOST_NAMED else []
    width = float(np.clip(_CELL * len(images), 1.6, _WIDEST))
    height = _CELL * len(shown)
    left, top = 0.25 + widest(names), 0.75
    below = 0.12 + widest(image_names, 7.5)
    step = width + 0.35
    wide = max(left + 2 * step + 1.7, 7.6)
    figure = new_figure(wide, top + height + 0.75 + 2 * 0.95 + below + 0.2)
    title_at(
        figure,
        "Quality of the images",
        "measured on raw counts; orange crosses and bars are suspicious",
    )
    noise = LogNorm(NOISE_ONLY, max(10.0, float(np.nanmax(noise_mi, initial=1.0))))
    panels = (
        (noise_mi, noise, "cividis", "signal-to-noise"),
        (share_mi, Normalize(0, _ceiling(share_mi)), "cividis", "positive area, %"),
    )
    for place, (values_mi, norm, cmap, label) in enumerate(panels):
        x = left + place * step
        axes = axes_at(figure, x, top, width, height)
        axes.imshow(
            np.maximum(values_mi, norm.vmin or 0) if place == 0 else values_mi,
            norm=norm,
            cmap=cmap,
            aspect="auto",
            interpolation="none",
        )
        axes.set_xticks([])
        axes.set_yticks(range(len(shown)), names if place == 0 else [""] * len(shown))
        axes.tick_params(length=0)
        if place == 0:
            down, across = np.nonzero(warned_mi)
            axes.scatter(across, down, marker="x", s=22, color=_WARN, linewidths=1.6)
        color_bar(
            figure,
            x,
            top + height + 0.1,
            norm,
            colormaps[cmap],
            label,
            width=min(width, 1.9),
            extend="min" if place == 0 else "neither",
        )
    _saturation(figure, left + 2 * step, top, height, saturated_mi)
    whole = table[table["channel"].astype(str) == ""].set_index("image")
    bars_top = top + height + 0.85
    rows = (
        ("drift", 100.0, "change, first to\nlast rows, %", 0.0),
        ("detail_um", 1.0, "finest\nstructures, µm", BLURRED_UM),
    )
    for number, (column, factor, label, limit) in enumerate(rows):
        axes = axes_at(figure, left, bars_top + number * 0.95, width, 0.75)
        values = factor * whole[column].reindex(images).to_numpy(dtype=float)
        warned = _image_warned(table, images, "focus" if column == "detail_um" else "rows")
        _bars(axes, values, warned, limit, label, both=column == "drift")
        if number == 1 and image_names:
            axes.set_xticks(range(len(images)), image_names, rotation=90, size=7.5)
    if not image_names:
        axes.set_xlabel(f"{len(images)} images")
    return figure


def _ceiling(share_mi: NDArray[np.float64]) -> float:
    """A round number of percent above all."""
    highest = float(np.nanmax(share_mi, initial=0.0))
    return float(max(20, 10 * math.ceil(highest / 10)))


def _matrix(
    table: pd.DataFrame, column: str, markers: Sequence[str], images: Sequence[str]
) -> NDArray[np.float64]:
    values = {
        (str(channel), str(image)): float(value)
        for channel, image, value in zip(
            table["channel"], table["image"], table[column], strict=True
        )
    }
    return np.array([[values.get((m, i), math.nan) for i in images] for m in markers])


def _warned(
    table: pd.DataFrame, markers: Sequence[str], images: Sequence[str]
) -> NDArray[np.bool_]:
    told = {
        (str(channel), str(image))
        for channel, image, warning in zip(
            table["channel"], table["image"], table["warning"], strict=True
        )
        if str(warning)
    }
    return np.array([[(m, i) in told for i in images] for m in markers], dtype=bool)


def _image_warned(table: pd.DataFrame, images: Sequence[str], word: str) -> list[bool]:
    """Whether the warning of a whole image has this word."""
    told = {
        str(image): str(warning)
        for image, channel, warning in zip(
            table["image"], table["channel"], table["warning"], strict=True
        )
        if str(channel) == ""
    }
    return [word in told.get(image, "") for image in images]


def _saturation(
    figure: Figure, left: float, top: float, height: float, saturated_mi: NDArray[np.float64]
) -> None:
    """The worst image of each marker as a bar."""
    axes = axes_at(figure, left, top, 1.2, height)
    worst = np.nan_to_num(saturated_mi).max(axis=1, initial=0.0)
    colors = [_WARN if value > 100 * SATURATED else "#8a8a94" for value in worst]
    axes.barh(range(len(worst)), worst, color=colors, height=0.7)
    axes.set_ylim(len(worst) - 0.5, -0.5)
    axes.set_xlim(0, max(0.5, 1.1 * float(worst.max(initial=0.0))))
    axes.set_yticks([])
    axes.set_xlabel("saturated pixels, %,\nin the worst image", size=8)
    axes.axvline(100 * SATURATED, color="#55555c", linewidth=0.7, linestyle=":")


def _bars(
    axes: Axes,
    values: NDArray[np.float64],
    warned: Sequence[bool],
    limit: float,
    label: str,
    *,
    both: bool,
) -> None:
    colors = [_WARN if bad else "#8a8a94" for bad in warned]
    axes.bar(range(len(values)), np.nan_to_num(values), color=colors, width=0.7)
    axes.set_xlim(-0.5, len(values) - 0.5)
    least = 10.0 if both else 1.2 * limit
    highest = max(least, 1.1 * float(np.nanmax(np.abs(values), initial=0.0)))
    axes.set_ylim(-highest if both else 0, highest)
    axes.axhline(limit, color="#55555c", linewidth=0.7, linestyle="-" if both else ":")
    axes.set_xticks([])
    axes.set_ylabel(label, size=7.5)
