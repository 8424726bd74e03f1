"""What compensation did: two channels against each other, before and after.

Axes: C = channels, P = sampled pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.images.counts import counts_of
from maskless.images.image import ImageSet
from maskless.images.names import isotope_in
from maskless.images.spillover import compensate
from maskless.images.spillover_correction import Spillover, prepare_spillover
from maskless.images.spillover_matrix import cause_of_spill
from maskless.report.style import axes_at, new_figure, plain, styled, text_at, title_at

if TYPE_CHECKING:
    from maskless.config import CleanSettings

MOST_PAIRS = 6
_MOST_IMAGES = 12
_PIXELS = 200_000
_COFACTOR = 5.0  # of the axes, counts
_BINS = 48
_LEAST_TAKEN = 0.01  # of a channel's counts, to be worth a picture
_TICKS = (0, 1, 10, 100, 1000, 10_000, 100_000)
_CAUSES = {
    "isotope": " (the isotope's impurity)",
    "abundance": " (neighbouring mass)",
    "oxide": " (oxide)",
    "": "",
}


@dataclass(frozen=True)
class SpilloverSample:
    """Pixels of a cohort before and after compensation.

    Attributes
    ----------
    channels, metals
        Names, and isotopes where known.
    shares_cc
        The matrix, row = emitting, column = receiving channel.
    before_cp, after_cp
        Linear counts without hot pixels.
    """

    channels: tuple[str, ...]
    metals: tuple[str, ...]
    shares_cc: NDArray[np.float64]
    before_cp: NDArray[np.float64]
    after_cp: NDArray[np.float64]

    def taken(self) -> NDArray[np.float64]:
        """Share of each column's counts that came from each row's metal; 0 on the diagonal."""
        spilled_cc = self.shares_cc * self.after_cp.mean(axis=1)[:, None]
        np.fill_diagonal(spilled_cc, 0)
        taken_cc: NDArray[np.float64] = spilled_cc / np.maximum(self.before_cp.mean(axis=1), 1e-12)
        return taken_cc

    def pairs(self, most: int = MOST_PAIRS) -> list[tuple[int, int]]:
        """Emitting and receiving channel, where most of what was counted came from elsewhere.

        Each receiver is named once, with the emitter that gave it most; pairs of less than 1 % are
        left out, except for the first.
        """
        taken_cc = self.taken()
        most_c = taken_cc.max(axis=0)
        order = [int(c) for c in np.argsort(-most_c, kind="stable") if most_c[c] > 0]
        order = order[:1] + [c for c in order[1:most] if most_c[c] >= _LEAST_TAKEN]
        return [(int(taken_cc[:, c].argmax()), c) for c in order]


def sample_spillover(
    images: ImageSet, shares_cc: NDArray[Any], settings: CleanSettings, seed: int = 0
) -> SpilloverSample:
    """Draw pixels of a cohort and compensate them.

    Parameters
    ----------
    images
        Raw; at most 12 of them are loaded, one after the other.
    shares_cc
        For their panel.
    settings
        Of hot pixels, which are taken out first.
    seed
        Of the pixels.
    """
    names = images.names
    picked = np.unique(np.linspace(0, len(names) - 1, min(len(names), _MOST_IMAGES)).astype(int))
    parts = []
    for place in picked:
        counts_cyx, _ = counts_of(images[names[place]], settings)
        counts_cp = counts_cyx.reshape(len(counts_cyx), -1)
        share = _PIXELS // len(picked)
        if counts_cp.shape[1] > share:
            generator = np.random.default_rng(np.random.SeedSequence([seed, int(place)]))
            counts_cp = counts_cp[:, generator.choice(counts_cp.shape[1], share, replace=False)]
        parts.append(counts_cp.astype(np.float64))
    before_cp = np.concatenate(parts, axis=1)
    channels = images.panel.channels
    return SpilloverSample(
        tuple(c.name for c in channels),
        tuple(c.metal for c in channels),
        np.asarray(shares_cc, dtype=np.float64),
        before_cp,
        compensate(before_cp, shares_cc),
    )


def spillover(
    images: ImageSet, matrix: Spillover, settings: CleanSettings | None = None, *, seed: int = 0
) -> Figure:
    """Draw what compensation does to a cohort: pairs of channels before and after.

    Parameters
    ----------
    images
        Raw.
    matrix
        As for :func:`maskless.clean`.
    settings
        Of hot pixels; the defaults if None.
    seed
        Of the pixels that are drawn.

    Raises
    ------
    InputError
        If the matrix cannot be used, does not fit the panel, or spills nothing.
    """
    from maskless.config import CleanSettings

    shares_cc = prepare_spillover(images.panel, matrix).matrix.shares_cc
    return spillover_figure(sample_spillover(images, shares_cc, settings or CleanSettings(), seed))


@styled
def spillover_figure(
    sample: SpilloverSample, pairs: Sequence[tuple[int, int]] | None = None
) -> Figure:
    """Pixels before and after compensation, for pairs of channels.

    Parameters
    ----------
    sample
        From :func:`sample_spillover`.
    pairs
        Positions of emitting and receiving channel; those with most spillover if None.

    Returns
    -------
    matplotlib.figure.Figure
        A row for two pairs. Across is the emitting channel, up the receiving one; the dashed line
        is the spillover that the matrix tells.

    Raises
    ------
    InputError
        If the matrix spills nothing.
    """
    chosen = sample.pairs() if pairs is None else list(pairs)
    if not chosen:
        raise InputError("nothing spills, so there is nothing to draw")
    columns = min(2, len(chosen))
    rows = -(-len(chosen) // 2)
    width, height, wide = 1.75, 2.95, 4.75
    figure = new_figure(0.2 + columns * wide, 0.75 + rows * height)
    title_at(
        figure,
        "Spillover before and after compensation",
        f"{sample.before_cp.shape[1]:,} pixels, lighter where there are more; "
        "dashed: what the matrix says is spilled",
    )
    taken_cc = sample.taken()
    for number, (emitter, receiver) in enumerate(chosen):
        left = 0.75 + (number % 2) * wide
        top = 0.95 + (number // 2) * height
        share = float(sample.shares_cc[emitter, receiver])
        cause = _CAUSES[cause_of_spill(sample.metals[emitter], sample.metals[receiver])]
        text_at(
            figure,
            left,
            top - 0.22,
            f"{_named(sample, emitter)} into {_named(sample, receiver)}",
            size=8.5,
            weight="bold",
        )
        text_at(
            figure,
            left,
            top - 0.04,
            f"{100 * share:.2g} % spills{cause}: {100 * taken_cc[emitter, receiver]:.2g} % of "
            f"all counts of {plain(sample.channels[receiver], 16)}",
            size=7.5,
            color="#55555c",
        )
        both = [
            (values[emitter], values[receiver]) for values in (sample.before_cp, sample.after_cp)
        ]
        edges = [_edges(max(float(np.max(pair[axis])) for pair in both)) for axis in (0, 1)]
        tables = [np.histogram2d(*pair, bins=edges)[0] for pair in both]
        norm = LogNorm(1, max(2.0, max(float(table.max()) for table in tables)))
        for half, (table, word) in enumerate(zip(tables, ("before", "after"), strict=True)):
            axes = axes_at(figure, left + half * (width + 0.15), top + 0.3, width, width)
            axes.pcolormesh(
                *map(_scaled, edges),
                np.ma.masked_equal(table.T, 0),
                norm=norm,
                cmap="viridis",
                rasterized=True,
            )
            _spill_line(axes, share, edges)
            axes.set_title(word, size=8.5, pad=3)
            for which, edge in ((axes.xaxis, edges[0]), (axes.yaxis, edges[1])):
                ticks = [t for t in _TICKS if t <= edge[-1] and (t != 1 or edge[-1] < 100)]
                which.set_ticks([_scaled(t) for t in ticks], labels=[f"{t:g}" for t in ticks])
            axes.set_xlabel(plain(sample.channels[emitter], 16), labelpad=1)
            if half:
                axes.tick_params(labelleft=False)
            else:
                axes.set_ylabel(plain(sample.channels[receiver], 16), labelpad=1)
    return figure


def _named(sample: SpilloverSample, channel: int) -> str:
    name, metal = sample.channels[channel], sample.metals[channel]
    return plain(name if not metal or isotope_in(name) == metal else f"{name} ({metal})", 22)


def _edges(highest: float) -> NDArray[np.float64]:
    """Bins of equal width on the axis, but no finer than counts, each of which is in the middle."""
    steps = np.sinh(np.linspace(0, float(_scaled(highest)) + 0.05, _BINS)) * _COFACTOR
    return np.unique(np.concatenate([[0.0, 1.0], np.ceil(steps)])) - 0.5


def _scaled(counts: Any) -> Any:
    return np.arcsinh(np.asarray(counts) / _COFACTOR)


def _spill_line(axes: Axes, share: float, edges: Sequence[NDArray[np.float64]]) -> None:
    emitted = np.sinh(np.linspace(0, float(_scaled(edges[0][-1])), 200)) * _COFACTOR
    axes.plot(_scaled(emitted), _scaled(share * emitted), "--", color="#d55e00", linewidth=1.2)
    axes.set_xlim(*_scaled(edges[0][[0, -1]]))
    axes.set_ylim(*_scaled(edges[1][[0, -1]]))
