"""One look for all figures, sizes in inches, and files with the same bytes for the same input.

Figures are made with matplotlib's object API only; nothing here touches pyplot's global state.
"""

from __future__ import annotations

import functools
import math
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import matplotlib
from matplotlib import ft2font
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.textpath import text_to_path

from maskless.storage import atomic_path

DPI = 160
FONT = "DejaVu Sans"  # comes with matplotlib, so that figures are the same everywhere
INK = "#222226"
_LONGEST = 34

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

# Starting from matplotlib's own defaults, a person's matplotlibrc changes nothing.
_STYLE: Any = {
    **{
        key: value
        for key, value in matplotlib.rcParamsDefault.items()
        if not key.startswith(("backend", "interactive", "toolbar", "webagg", "date.epoch"))
    },
    "font.family": [FONT],
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "figure.dpi": 100,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text, for those who edit figures
    "svg.hashsalt": "maskless",
}


def styled(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Run a function with the look of maskless' figures, whatever matplotlib is set to."""

    @functools.wraps(function)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with matplotlib.rc_context(_STYLE):
            return function(*args, **kwargs)

    return run


@functools.cache
def _glyphs() -> frozenset[int]:
    return frozenset(ft2font.FT2Font(findfont(FontProperties(family=FONT))).get_charmap())


def plain(name: object, longest: int = _LONGEST) -> str:
    """A name as it can be printed in a figure.

    Dollar signs start no formula, control and direction marks are dropped, characters the font
    lacks become a box, long names are cut in the middle.
    """
    text = " ".join(str(name).split())
    text = "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co"))
    if len(text) > longest:
        half = (longest - 1) // 2
        text = f"{text[:half]}…{text[-half:]}"
    return "".join(c if ord(c) in _glyphs() else "□" for c in text).replace("$", r"\$")


@functools.lru_cache(maxsize=4096)
def text_width(text: str, size: float = 8.5) -> float:
    """Width of a printed text in inches; `size` in points."""
    font = FontProperties(family=FONT, size=size)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, False)
    return float(width) / 72


def widest(texts: Sequence[str], size: float = 8.5) -> float:
    """Width of the widest text in inches, 0 for none."""
    return max((text_width(text, size) for text in texts), default=0.0)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure; sizes in inches."""
    return Figure(figsize=(width, height))


def axes_at(
    figure: Figure, left: float, top: float, width: float, height: float, **options: Any
) -> Axes:
    """Axes at a place in inches from the figure's top left corner."""
    across, down = figure.get_size_inches()
    return figure.add_axes(
        (left / across, 1 - (top + height) / down, width / across, height / down), **options
    )


def text_at(figure: Figure, left: float, top: float, text: str, **options: Any) -> None:
    """Text at a place in inches from the figure's top left corner."""
    across, down = figure.get_size_inches()
    options.setdefault("va", "top")
    figure.text(left / across, 1 - top / down, text, **options)


def title_at(figure: Figure, title: str, subtitle: str = "", left: float = 0.12) -> None:
    """A title at the top left, with a smaller line below that says how to read the figure."""
    text_at(figure, left, 0.1, title, size=10.5, weight="bold")
    if subtitle:
        text_at(figure, left, 0.33, subtitle, size=8.5, color="#55555c")


def bare(axes: Axes, frame: bool = False) -> None:
    """Take ticks and, unless `frame`, the frame away."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(frame)


def color_bar(
    figure: Figure,
    left: float,
    top: float,
    norm: Normalize,
    cmap: Colormap,
    label: str,
    *,
    width: float = 1.9,
    ticks: tuple[Sequence[float], Sequence[str]] | None = None,
    extend: Literal["neither", "both", "min", "max"] = "neither",
) -> None:
    """A lying colour bar with its meaning below, 0.55 inches high in all."""
    from matplotlib.cm import ScalarMappable

    axes = axes_at(figure, left, top, width, 0.11)
    bar = figure.colorbar(
        ScalarMappable(norm, cmap), cax=axes, orientation="horizontal", extend=extend
    )
    bar.outline.set_linewidth(0.4)
    if ticks is not None:
        bar.set_ticks(list(ticks[0]), labels=list(ticks[1]))
    axes.tick_params(labelsize=7.5, length=2, pad=1.5)
    text_at(figure, left, top + 0.32, label, size=8)


def legend_size(texts: Sequence[str], most_rows: int, size: float = 8) -> tuple[float, int]:
    """Width in inches and rows of :func:`swatches` for these texts."""
    if not texts:
        return 0.0, 0
    columns = math.ceil(len(texts) / max(most_rows, 1))
    rows = math.ceil(len(texts) / columns)
    return columns * (widest(texts, size) + 0.36), rows


def swatches(
    figure: Figure,
    left: float,
    top: float,
    texts: Sequence[str],
    colors: Sequence[str],
    *,
    most_rows: int,
    size: float = 8,
    pitch: float = 0.165,
) -> None:
    """Coloured squares with texts, in columns of at most `most_rows`."""
    width, rows = legend_size(texts, most_rows, size)
    if not rows:
        return
    columns = math.ceil(len(texts) / rows)
    axes = axes_at(figure, left, top, width, rows * pitch)
    axes.set_xlim(0, width)
    axes.set_ylim(rows * pitch, 0)
    axes.axis("off")
    for i, (text, color) in enumerate(zip(texts, colors, strict=True)):
        x, y = (i // rows) * width / columns, (i % rows + 0.5) * pitch
        axes.add_patch(Rectangle((x, y - 0.055), 0.11, 0.11, color=color, linewidth=0))
        axes.text(x + 0.17, y, text, size=size, va="center_baseline")


def scale_bar(axes: Axes, um_per_unit: float, color: str = "white") -> None:
    """Draw a scale bar of a round length into the lower left corner of image axes.

    Parameters
    ----------
    axes
        With limits set; y downwards.
    um_per_unit
        Micrometres in one unit of the axes.
    color
        Of bar and text.
    """
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    width, height = right - left, bottom - top
    length_um = round_length(0.22 * width * um_per_unit)
    length = length_um / um_per_unit
    x, y = left + 0.04 * width, bottom - 0.05 * height
    outline = [withStroke(linewidth=4, foreground="black" if color == "white" else "white")]
    axes.plot(
        [x, x + length],
        [y, y],
        color=color,
        linewidth=2.5,
        solid_capstyle="butt",
        path_effects=outline,
    )
    axes.text(
        x + length / 2,
        y - 0.015 * height,
        f"{length_um:g} µm",
        color=color,
        size=8,
        ha="center",
        va="bottom",
        path_effects=outline,
    )


def round_length(longest: float) -> float:
    """The largest of ... 1, 2, 5, 10, 20, 50 ... that is no longer than `longest` (> 0)."""
    power = 10.0 ** math.floor(math.log10(longest))
    factor = max(f for f in (1, 2, 5) if f * power <= longest * (1 + 1e-9))
    return float(factor * power)


def shade(color: str) -> str:
    """Black or white, whichever can be read on a colour."""
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(color)
    return "#000000" if 0.3 * red + 0.59 * green + 0.11 * blue > 0.5 else "#ffffff"


@styled
def save(figure: Figure, target: Path) -> None:
    """Write a figure as PNG or SVG (by the suffix), whole or not at all, without dates.

    Parameters
    ----------
    figure
        What to write; photographs and clouds of points in it become pixels in SVG too.
    target
        Ends in ``.png`` or ``.svg``.
    """
    kind = target.suffix.lstrip(".").lower()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with atomic_path(target) as temporary:
        figure.savefig(
            temporary,
            format=kind,
            dpi=DPI,
            metadata=metadata,
            bbox_inches="tight",
            pad_inches=0.12,
        )
