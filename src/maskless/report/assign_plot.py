"""New images beside the study that named them: brightness of each marker, cells unlike any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from maskless.errors import InputError
from maskless.report.style import axes_at, new_figure, plain, styled, swatches, title_at, widest

if TYPE_CHECKING:
    from anndata import AnnData

_ROW = 0.23
_MOST_IMAGES = 40
_MOVED, _STILL, _USUAL = "#d55e00", "#55555c", "#dfe3ee"


@styled
def assignment(cells: AnnData) -> Figure:
    """Draw what :func:`maskless.assign` measured of new images.

    Parameters
    ----------
    cells
        With ``uns["maskless"]["assign"]``.

    Returns
    -------
    matplotlib.figure.Figure
        Left, the brightness of each marker in each new image, as a multiple of the study's cells
        that are alike in all other markers; shaded is what images of the study differ by (twice
        their spread). Right, the share of unknown cells of each new image; shaded up to the
        largest of the study's own images.

    Raises
    ------
    InputError
        If these cells were not named by a study.
    """
    found = cells.uns.get("maskless", {}).get("assign")
    if not isinstance(found, Mapping):
        raise InputError("these cells were not named by a study", do="Call maskless.assign first")
    shares = found["unknown"]["share"].sort_values(ascending=False, kind="stable")
    shown = shares.iloc[:_MOST_IMAGES]
    names = [plain(name, 28) for name in shown.index]
    markers: Any = found.get("markers")
    left = 0.3 + (widest([plain(m) for m in markers.index]) if markers is not None else 0)
    width = 3.4 if markers is not None else 0.0
    beside = left + width + 0.75 + widest(names)
    rows = max(len(markers) if markers is not None else 0, len(names))
    figure = new_figure(beside + 2.6, 0.95 + rows * _ROW + 0.65)
    title_at(
        figure,
        "New images beside the study",
        "Each dot is a new image; shaded is what images of the study do among themselves",
    )
    if markers is not None:
        _markers(figure, left, width, markers)
    axes = axes_at(figure, beside, 0.95, 2.3, len(names) * _ROW)
    usual = 100 * float(found["usual_unknown"]["share"].max())
    values = 100 * shown.to_numpy(dtype=float)
    axes.axvspan(0, usual, color=_USUAL, linewidth=0)
    colors = [_MOVED if value > 3 * max(usual, 1e-9) else _STILL for value in values]
    axes.barh(range(len(values)), values, height=0.6, color=colors)
    axes.set_xlim(0, 1.15 * max(values.max(initial=0), usual, 0.1))
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_yticks(range(len(values)), labels=names)
    axes.tick_params(axis="y", length=0)
    more = f" ({_MOST_IMAGES} of {len(shares)} images)" if len(shares) > len(shown) else ""
    axes.set_title(f"cells unlike any in the study, %{more}", loc="left", size=8.5)
    return figure


def _markers(figure: Figure, left: float, width: float, markers: Any) -> None:
    order = np.argsort(-np.abs(np.log(markers["ratio"].to_numpy(float))), kind="stable")
    table = markers.iloc[order]
    axes = axes_at(figure, left, 0.95, width, len(table) * _ROW)
    per_image = table[[c for c in table.columns if c.startswith("in ")]].to_numpy(float)
    places = np.arange(len(table))
    spread = table["usual"].to_numpy(float) ** 2
    axes.barh(places, spread - 1 / spread, left=1 / spread, height=0.8, color=_USUAL)
    moved = table["moved"].to_numpy(bool)
    for place, values in enumerate(per_image):
        color = _MOVED if moved[place] else _STILL
        axes.scatter(values, np.full(len(values), place), s=12, color=color, alpha=0.75, zorder=3)
        if moved[place]:
            ratio = float(table["ratio"].iloc[place])
            said = f"{ratio:.2f}" if ratio < 1 else f"{ratio:.1f}"
            axes.annotate(
                f"x {said}",
                (1.02, place),
                xycoords=("axes fraction", "data"),
                va="center",
                size=8,
                color=_MOVED,
                annotation_clip=False,
            )
    axes.axvline(1, color="#9a9aa2", linewidth=0.7, zorder=1)
    low = min(0.5, float(np.nanmin(per_image)) / 1.2, float((1 / spread).min()))
    high = max(2.0, float(np.nanmax(per_image)) * 1.2, float(spread.max()))
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    ticks = [t for t in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if low <= t <= high]
    axes.set_xticks(ticks, labels=[f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.set_yticks(places, labels=[plain(m) for m in table.index])
    axes.tick_params(axis="y", length=0)
    axes.set_title("brightness, times the study", loc="left", size=8.5)
    swatches(
        figure,
        left,
        0.95 + len(table) * _ROW + 0.35,
        ["moved", "as usual"],
        [_MOVED, _STILL],
        most_rows=2,
    )
