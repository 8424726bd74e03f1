"""Which markers part two clusters, as shares that add up to 100 %."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import ArrayLike, NDArray

from maskless.errors import InputError
from maskless.report.style import axes_at, new_figure, plain, styled, title_at, widest

MOST_BARS = 15
_HIGHER_A, _HIGHER_B, _NEUTRAL = "#d55e00", "#0072b2", "#77777f"


class Explanation(Protocol):
    """What :func:`explain` draws."""

    @property
    def markers(self) -> Sequence[str]:
        """Names, one a share."""

    @property
    def shares(self) -> Any:
        """Share of each marker, in any unit; scaled to a sum of 100 %."""


def rounded_percent(shares: NDArray[np.float64], decimals: int = 1) -> NDArray[np.float64]:
    """Percentages rounded so that the printed numbers still add up to 100 (largest remainders).

    Parameters
    ----------
    shares
        Any numbers with a sum that is not 0; single ones may be negative.
    decimals
        Digits after the point.

    Raises
    ------
    InputError
        If the sum is 0 or not finite.
    """
    total = float(shares.sum())
    if not np.isfinite(total) or abs(total) < 1e-300:
        raise InputError(
            "the shares add up to nothing: the two clusters lie at the same place",
            do="Compare two clusters that differ",
        )
    units = 100 * 10**decimals * shares / total
    whole = np.floor(units)
    missing = round(100 * 10**decimals - whole.sum())
    whole[np.argsort(-(units - whole), kind="stable")[:missing]] += 1
    return np.asarray(whole / 10**decimals)


@styled
def explain(
    explanation: Explanation,
    title: str = "What parts the two clusters",
    *,
    activations: tuple[ArrayLike, ArrayLike] | None = None,
    names: tuple[str, str] = ("the first", "the second"),
) -> Figure:
    """Bars of the markers' shares of the distance between two clusters.

    Parameters
    ----------
    explanation
        With ``markers`` and ``shares``.
    title
        Above the bars.
    activations
        Mean activation of each marker in the first and in the second cluster, (markers,) each:
        the bars take the colour of the cluster that has more of the marker.
    names
        Of the two clusters, for the legend of these colours.

    Returns
    -------
    matplotlib.figure.Figure
        The 15 largest shares, all others in one bar; the printed numbers add up to 100.0 %.

    Raises
    ------
    InputError
        No markers, shares that add up to 0, or activations that do not fit.
    """
    shares = np.asarray(explanation.shares, dtype=np.float64)
    markers = list(explanation.markers)
    if not markers or shares.shape != (len(markers),):
        raise InputError(
            "markers and shares of the explanation do not fit",
            expected=f"{len(markers)} shares",
            found=f"{shares.shape}",
        )
    order = np.argsort(-np.abs(shares), kind="stable")
    top = order[:MOST_BARS]
    values, labels = shares[top], [plain(markers[m], 26) for m in top]
    colors, legend = _directions(activations, names, len(markers), top)
    if len(order) > MOST_BARS:
        rest = order[MOST_BARS:]
        values = np.append(values, shares[rest].sum())
        labels.append(f"{len(rest)} other markers" if len(rest) > 1 else "1 other marker")
        colors.append("#c4c4ca")
    percent = rounded_percent(values)
    bar = 0.27
    left = 0.3 + widest(labels, 8.5)
    figure = new_figure(left + 5.2, 0.75 + len(labels) * bar + 0.85)
    title_at(figure, plain(title, 90), "share of the distance between them; all add up to 100 %")
    axes = axes_at(figure, left, 0.68, 4.4, len(labels) * bar)
    rows = np.arange(len(labels))
    axes.barh(rows, percent, height=0.72, color=colors, linewidth=0)
    axes.set_yticks(rows, labels=labels, size=8.5)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(labels) - 0.45, -0.55)
    axes.axvline(0, color="#55555c", linewidth=0.6)
    low, high = min(float(percent.min()), 0.0), max(float(percent.max()), 1.0)
    axes.set_xlim(low * 1.25, high * 1.05)
    axes.set_xlabel("share, %")
    for row, value in zip(rows, percent, strict=True):
        axes.annotate(
            f"{value:.1f}",
            (value, row),
            xytext=(3 if value >= 0 else -3, 0),
            textcoords="offset points",
            ha="left" if value >= 0 else "right",
            va="center_baseline",
            size=8,
            annotation_clip=False,
        )
    if legend:
        axes.legend(
            handles=[Patch(color=color, label=text) for color, text in legend],
            loc="upper right",
            bbox_to_anchor=(1.0, -0.42 / (len(labels) * bar)),
            ncols=2,
            borderaxespad=0,
        )
    return figure


def _directions(
    activations: tuple[ArrayLike, ArrayLike] | None,
    names: tuple[str, str],
    n_markers: int,
    shown: NDArray[np.intp],
) -> tuple[list[str], list[tuple[str, str]]]:
    """A colour for each bar, and what the colours mean."""
    if activations is None:
        return [_NEUTRAL] * len(shown), []
    a, b = (np.asarray(values, dtype=np.float64) for values in activations)
    if a.shape != (n_markers,) or b.shape != (n_markers,):
        raise InputError(
            "activations and markers of the explanation do not fit",
            expected=f"twice {n_markers}",
            found=f"{a.shape} and {b.shape}",
        )
    colors = [_HIGHER_A if a[m] > b[m] else _HIGHER_B for m in shown]
    return colors, [
        (_HIGHER_A, f"more active in {plain(names[0])}"),
        (_HIGHER_B, f"more active in {plain(names[1])}"),
    ]
