"""A study against reference labels: the confusion matrix, and its scores beside every control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any, Protocol

import numpy as np
from matplotlib.figure import Figure

from maskless.report.style import (
    axes_at,
    new_figure,
    plain,
    shade,
    styled,
    text_at,
    title_at,
    widest,
)

_CELL, _ROW = 0.52, 0.24
_OWN, _CONTROL = "#d55e00", "#55555c"


class Confusion(Protocol):
    """What the matrix shows."""

    @property
    def labels(self) -> Sequence[str]:
        """Names that were given."""

    @property
    def reference(self) -> Sequence[str]:
        """Classes of the reference."""

    @property
    def shares_lr(self) -> Any:
        """Shares of each class, columns add up to 1."""


@styled
def comparison(
    confusion: Confusion,
    scores: Mapping[str, Mapping[str, float]],
    titles: Mapping[str, str],
    naming: str,
    sentence: str = "",
) -> Figure:
    """Draw a confusion matrix and, below, one panel a score with all representations.

    Parameters
    ----------
    confusion
        Given names by reference classes; shown as shares of each class, as in Gutwein et al. 2024.
    scores
        By representation, then by name of the score; ``NAME_sd`` is its spread over seeds. Names
        that begin with "maskless" are ours.
    titles
        Scores to show, and what they are called.
    naming
        How the clusters got their names.
    sentence
        Below the title.

    Returns
    -------
    matplotlib.figure.Figure
    """
    names = [plain(name, 40) for name in scores]
    given = [plain(name, 26) for name in confusion.labels]
    true = [plain(name, 26) for name in confusion.reference]
    left = 0.35 + max(widest(names, 8.5), widest(given, 8.5))
    across = 4 * 1.75
    lines = wrap(sentence, 105)
    top = 0.75 + 0.16 * len(lines)
    below = top + _CELL * 0.62 * len(given) + 0.45 + widest(true, 8.5) * 0.75
    rows = -(-len(titles) // 4)
    panel = _ROW * len(names)
    height = below + 0.45 + rows * (panel + 0.75)
    width = left + max(across, _CELL * len(true)) + 0.3
    figure = new_figure(width, height)
    title_at(figure, "Agreement with the reference")
    text_at(figure, 0.12, 0.33, "\n".join(lines), size=8.5, color="#55555c")

    axes = axes_at(figure, left, top, _CELL * len(true), _CELL * 0.62 * len(given))
    shares = np.asarray(confusion.shares_lr)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(true)), labels=true, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(given)), labels=given)
    axes.tick_params(length=0)
    axes.set_title(f"% of each reference class (columns); {naming}", loc="left", size=8.5)
    for r, row in enumerate(shares):
        for c, share in enumerate(row):
            color = shade("#08306b") if share > 0.5 else "#222226"
            axes.text(c, r, f"{100 * share:.0f}", ha="center", va="center_baseline", color=color)

    colors = [_OWN if name.startswith("maskless") else _CONTROL for name in scores]
    places = np.arange(len(names))
    for number, (key, title) in enumerate(titles.items()):
        row, column = divmod(number, 4)
        box = (left + column * 1.75, below + 0.45 + row * (panel + 0.75), 1.55, panel)
        axes = axes_at(figure, *box)
        values = np.array([found.get(key, np.nan) for found in scores.values()])
        spread = np.array([found.get(f"{key}_sd", 0.0) for found in scores.values()])
        axes.hlines(places, values - spread, values + spread, colors=colors, linewidth=1.2)
        axes.scatter(values, places, c=colors, s=16, zorder=3)
        axes.axvline(np.nanmax(values), color="#c4c4ca", linewidth=0.6, zorder=0)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_yticks(places, labels=names if column == 0 else [""] * len(names))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", color="#ececf0", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_title("\n".join(wrap(title, 18)), size=8.5, loc="left")
    return figure
