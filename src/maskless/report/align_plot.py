"""What alignment did: the density of each stain in every image, before and after."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from maskless.images.align import Alignment
from maskless.images.image import ImageSet
from maskless.images.scale import Scaling
from maskless.report.style import (
    axes_at,
    new_figure,
    plain,
    styled,
    swatches,
    text_at,
    title_at,
)

MOST_CHANNELS = 8
_MOST_IMAGES = 24
_PIXELS = 40_000
_MOST_NAMED = 12
_WIDTH, _HEIGHT, _GAP = 2.6, 0.95, 0.3
_TICKS = (0, 1, 10, 100, 1000, 10_000)


@styled
def alignment_figure(images: ImageSet, alignment: Alignment, scaling: Scaling) -> Figure:
    """Draw densities of the stains whose factors differ most, a line an image.

    Parameters
    ----------
    images
        Cleaned; at most 24 are drawn, spread over the cohort.
    alignment, scaling
        With which they were cleaned; both are undone to show counts as they were.

    Returns
    -------
    Figure
        Left before, right after; the dotted line is the level that all were brought to.
    """
    names = [name for name in images.names if name in alignment.groups]
    if len(names) > _MOST_IMAGES:
        picked = np.linspace(0, len(names) - 1, _MOST_IMAGES).round().astype(int)
        names = [names[i] for i in picked]
    factors_gc = np.array(list(alignment.factors.values()))
    spread_c = np.log(factors_gc).std(axis=0)
    spread_c[~np.isfinite(np.array(alignment.targets))] = -1
    shown = [int(c) for c in np.argsort(-spread_c, kind="stable")[:MOST_CHANNELS]]
    shown = [c for c in shown if spread_c[c] >= 0]
    groups = list(dict.fromkeys(alignment.groups[name] for name in names))
    counts = {name: _counts(images[name].pixels_cyx, scaling, shown) for name in names}
    left, top = 1.15, 0.95
    figure = new_figure(left + 2 * _WIDTH + 1.6, top + len(shown) * (_HEIGHT + _GAP) + 0.55)
    title_at(
        figure,
        "What alignment did",
        f"density of smoothed counts, a line an image, coloured by {plain(alignment.by)}; "
        "dotted: the common level",
    )
    for place, word in enumerate(("before", "after")):
        text_at(figure, left + place * (_WIDTH + 0.2), top - 0.22, word, weight="bold")
    if alignment.by != "image" and len(groups) <= _MOST_NAMED:
        colors = [to_hex(_color(i, len(groups))) for i in range(len(groups))]
        names_of = [plain(group) for group in groups]
        swatches(figure, left + 2 * _WIDTH + 0.4, top, names_of, colors, most_rows=_MOST_NAMED)
    for row, c in enumerate(shown):
        y = top + row * (_HEIGHT + _GAP)
        highest = float(np.arcsinh(3 * max(v[row].max(initial=1.0) for v in counts.values())))
        for place in (0, 1):
            axes = axes_at(figure, left + place * (_WIDTH + 0.2), y, _WIDTH, _HEIGHT)
            for name in names:
                group = alignment.groups[name]
                factor = alignment.factors[group][c]
                values = counts[name][row] / (factor if place == 0 else 1.0)
                edges = np.linspace(0, highest, 70)
                heights, _ = np.histogram(np.arcsinh(values), bins=edges)
                density = ndimage.gaussian_filter1d(heights / max(heights.sum(), 1), 1.5)
                axes.plot(
                    (edges[1:] + edges[:-1]) / 2,
                    np.sqrt(density),
                    linewidth=0.8,
                    color=_color(groups.index(group), len(groups)),
                )
            axes.axvline(
                float(np.arcsinh(alignment.targets[c])),
                color="#222226",
                linewidth=0.8,
                linestyle=":",
            )
            ticks = [t for t in _TICKS if np.arcsinh(t) <= 0.95 * highest]
            last = row == len(shown) - 1
            axes.set_xticks(np.arcsinh(ticks).tolist(), [f"{t:,}" for t in ticks], size=7)
            axes.tick_params(pad=1.5)
            axes.set_xlim(0, highest)
            axes.set_yticks([])
            if last:
                axes.set_xlabel("counts (arcsinh)")
        text_at(figure, 0.12, y + _HEIGHT / 2, plain(alignment.channels[c], 16), va="center")
        low, high = factors_gc[:, c].min(), factors_gc[:, c].max()
        text_at(
            figure,
            0.12,
            y + _HEIGHT / 2 + 0.18,
            f"× {low:.2f} to {high:.2f}",
            size=7.5,
            va="center",
            color="#55555c",
        )
    return figure


def _counts(
    pixels_cyx: NDArray[Any], scaling: Scaling, channels: list[int]
) -> list[NDArray[np.float64]]:
    """Smoothed linear counts of some pixels of each channel."""
    found = []
    for c in channels:
        plane_yx = np.asarray(pixels_cyx[c], dtype=np.float64)
        linear_n = scaling.only([scaling.channels[c]]).linear(plane_yx.reshape(-1, 1))
        smooth_yx = ndimage.gaussian_filter(linear_n.reshape(plane_yx.shape), 1.0)
        step = max(1, smooth_yx.size // _PIXELS)
        found.append(smooth_yx.ravel()[::step])
    return found


def _color(place: int, count: int) -> Any:
    from matplotlib import colormaps

    return colormaps["viridis"](place / max(count - 1, 1) * 0.9)
