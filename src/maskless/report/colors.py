"""Colours of clusters, categories and markers, chosen to stay apart for colour-blind readers.

The list of 60 cluster colours was found by taking, again and again, the colour farthest (CIELAB)
from all before it, the distance being the least of normal, deuteranopic and protanopic vision
(Machado 2009, doi:10.1109/TVCG.2009.113); white and light grey count as taken.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from numpy.typing import NDArray

UNKNOWN_COLOR = "#d2d2d6"

_CLUSTERS = (
    "#0072b2 #e69f00 #009e73 #d55e00 #cc79a7 #56b4e9 #7b3294 #a6761d #1b1464 #b2df3a #e7298a "
    "#40e0d0 #7f0000 #8c8c00 #00f087 #2d78ff #0f4b3c #5a783c #ff3c69 #a5d2a5 #4b3cc3 #b487ff "
    "#960069 #ffa569 #3ce1ff #963c5a #964b0f #4b4b1e #69b44b #d23cc3 #e178d2 #d28787 #d23c3c "
    "#1e4b69 #964bd2 #009696 #780096 #ff693c #ff96b4 #d2d25a #8778d2 #2d7887 #a578b4 #694b87 "
    "#96003c #c3b4e1 #b4b487 #69b496 #3c4bb4 #5ad269 #0078e1 #96785a #875a4b #a5001e #ffc387 "
    "#c396c3 #b43ca5 #78b4ff #3c5ae1 #b4c32d"
)
CLUSTER_COLORS: tuple[str, ...] = tuple(_CLUSTERS.split())

#: For up to six markers on black; magenta and green stay apart for most colour-blind readers.
MARKER_COLORS: tuple[str, ...] = (
    "#ff2fd0",
    "#19e619",
    "#ffd500",
    "#00d8ff",
    "#ff5a1f",
    "#b9a5ff",
)
NUCLEAR_COLOR = "#3f55b4"

# Six lights at once turn white unless weak ones are held back.
_DIM_WEAK = 1.4

#: Light grey (nothing) to dark violet (much): readable for single points on white.
ACTIVATION_MAP = LinearSegmentedColormap.from_list(
    "activation", ["#dcdce0", "#a9cbe0", "#5f9bd0", "#4457b0", "#3a1a6e", "#1c0538"]
)


def cluster_colors(names: Sequence[str], unknown: Sequence[bool] | None = None) -> list[str]:
    """Colours of clusters or categories.

    Parameters
    ----------
    names
        A cluster number keeps its colour in every figure; other names get theirs by position.
    unknown
        Which of them are no cluster and become light grey.

    Returns
    -------
    list of str
        One colour (``"#rrggbb"``) a name.
    """
    unknown = unknown if unknown is not None else [name == "-1" for name in names]
    colors = []
    for position, (name, is_unknown) in enumerate(zip(names, unknown, strict=True)):
        number = int(name) if name.isascii() and name.isdecimal() else position
        colors.append(UNKNOWN_COLOR if is_unknown else CLUSTER_COLORS[number % len(CLUSTER_COLORS)])
    return colors


def marker_colors(markers: Sequence[str], nuclear: Sequence[str]) -> list[str]:
    """Colours of up to six markers of a composite; the first nuclear one is dim blue."""
    free = iter(MARKER_COLORS)
    colors: list[str] = []
    for marker in markers:
        dim = marker in nuclear and NUCLEAR_COLOR not in colors
        colors.append(NUCLEAR_COLOR if dim else next(free))
    return colors


def composite(
    planes_cyx: NDArray[np.floating], colors: Sequence[str], limits_c2: NDArray[np.floating]
) -> NDArray[np.uint8]:
    """Add markers up as coloured lights on black.

    Parameters
    ----------
    planes_cyx
        Intensities, one plane a marker.
    colors
        One a marker.
    limits_c2
        Intensity that is black and intensity that has the full colour, one pair a marker.

    Returns
    -------
    array of uint8, shape (rows, columns, 3)
    """
    rgb = np.zeros((*planes_cyx.shape[1:], 3), dtype=np.float32)
    for plane, color, (low, high) in zip(planes_cyx, colors, limits_c2, strict=True):
        light = np.nan_to_num((plane - low) / max(float(high - low), 1e-6), nan=0.0)
        light = np.clip(light, 0, 1).astype(np.float32) ** _DIM_WEAK
        rgb += light[..., None] * np.array(to_rgb(color), dtype=np.float32)
    # Where lights add up to more than the screen can show, their hue is kept.
    rgb /= np.maximum(rgb.max(axis=2, keepdims=True), 1)
    return np.asarray(np.rint(rgb * 255), dtype=np.uint8)
