"""Lines: how training went, and how activations answer to expression."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from maskless.errors import InputError
from maskless.report.style import (
    axes_at,
    new_figure,
    plain,
    styled,
    text_at,
    title_at,
    widest,
)

History = Sequence[Mapping[str, Any]]


@styled
def training_curve(history: History | Path | str) -> Figure:
    """Loss and learning rate over the steps of training.

    Parameters
    ----------
    history
        One entry a step with ``step`` and ``loss`` (and ``learning_rate``), or the path of a CSV
        file with these columns.

    Returns
    -------
    matplotlib.figure.Figure
        The loss of each step thin, its running mean over about a thirtieth of training thick.

    Raises
    ------
    InputError
        No steps, or no ``step`` and ``loss`` in them.
    """
    rows = read_history(Path(history)) if isinstance(history, str | Path) else list(history)
    if not rows:
        raise InputError("there are no training steps to draw")
    step, loss = _column(rows, "step"), _column(rows, "loss")
    if not np.isfinite(loss).any():
        raise InputError("the training history has no column of losses", expected="step, loss")
    good = np.isfinite(step) & np.isfinite(loss)
    step, loss = step[good], loss[good]
    smooth = _smooth(loss)
    figure = new_figure(7, 4.6)
    title_at(
        figure,
        "Training",
        f"{len(step):,} steps; loss {smooth[0]:.3g} at first, {smooth[-1]:.3g} at last",
    )
    axes = axes_at(figure, 0.75, 0.68, 6.0, 2.6)
    few = len(step) < 3
    axes.plot(step, loss, color="#9db8d2", linewidth=0.7, marker="o" if few else "", label="step")
    axes.plot(step, smooth, color="#0b3d73", linewidth=1.6, label="running mean")
    axes.legend(loc="upper right")
    axes.set_ylabel("loss (NT-Xent)")
    axes.tick_params(labelbottom=False)
    rate = _column(rows, "learning_rate")[good]
    lower = axes_at(figure, 0.75, 3.42, 6.0, 0.7, sharex=axes)
    if np.isfinite(rate).any():
        lower.plot(step, rate, color="#d55e00", linewidth=1.2, marker="o" if few else "")
        lower.set_ylim(bottom=0)
    lower.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    lower.set_ylabel("learning\nrate")
    lower.set_xlabel("step")
    lower.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    return figure


def read_history(path: Path) -> list[dict[str, Any]]:
    """Rows of a training history in CSV; raises InputError where it cannot be read."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError("this training history cannot be read", file=path, found=error) from error


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    def number(value: Any) -> float:
        try:
            return float(value)
        except (TypeError, ValueError):
            return math.nan

    return np.array([number(row.get(name)) for row in rows], dtype=np.float64)


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Running mean over a thirtieth of the values, over half of that at the ends."""
    half = len(values) // 60
    total = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    start, stop = np.maximum(place - half, 0), np.minimum(place + half + 1, len(values))
    return np.asarray((total[stop] - total[start]) / (stop - start))


@styled
def response_curves(curves: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> Figure:
    """How a marker's mean activation answers when its intensity is multiplied.

    Parameters
    ----------
    curves
        Marker to (gains, activations): the factors on the marker's pixels and the mean activation
        at each.

    Returns
    -------
    matplotlib.figure.Figure
        A panel a marker. Rising curves mean that activation can be read as expression.

    Raises
    ------
    InputError
        No curves, or gains and activations of different length.
    """
    if not curves:
        raise InputError("there are no response curves to draw")
    columns = min(max(3, math.ceil(math.sqrt(1.6 * len(curves)))), 7, max(len(curves), 3))
    rows = math.ceil(len(curves) / columns)
    width, height = min(1.9, 11.0 / columns) - 0.42, 0.95
    figure = new_figure(columns * (width + 0.42) + 0.5, 0.75 + rows * (height + 0.5) + 0.45)
    title_at(
        figure,
        "Response of each marker's activation to its intensity",
        "dotted: the images as they are (factor 1); grey line: activation 0",
    )
    for i, (name, (gains, activations)) in enumerate(curves.items()):
        x = np.asarray(gains, dtype=np.float64)
        y = np.asarray(activations, dtype=np.float64)
        if x.shape != y.shape or x.ndim != 1:
            raise InputError(
                "gains and activations of a response curve do not fit",
                channel=name,
                expected=f"{x.shape}",
                found=f"{y.shape}",
            )
        left = 0.5 + (i % columns) * (width + 0.42)
        top = 0.85 + (i // columns) * (height + 0.5)
        axes = axes_at(figure, left, top, width, height)
        axes.axhline(0, color="#c0c0c6", linewidth=0.6)
        axes.axvline(1, color="#888890", linewidth=0.6, linestyle=":")
        axes.plot(x, y, color="#0b3d73", linewidth=1.3, marker="o", markersize=2.5)
        axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
        axes.tick_params(labelsize=7)
        size = 8.5 if widest([plain(name, 20)], 8.5) < width + 0.35 else 7
        axes.set_title(plain(name, 20), size=size, loc="left", pad=3, x=-0.15)
    bottom = 0.85 + rows * (height + 0.5) - 0.1
    text_at(
        figure, 0.5, bottom, "across: factor on the marker's pixels; up: mean activation", size=8.5
    )
    return figure
