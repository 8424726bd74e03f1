"""Outlines of cells and where a marker lies in them.

Axes: N = cells, H = harmonics of an outline, Y = rows, X = columns, D = depth (0 = the cell that
owns the pixel, 1 = the next one, which may lie under it).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from maskless.simulate.model import Pattern

Floats = NDArray[np.float32]

MEMBRANE_UM = 0.75
"""Sigma of a membrane across, before the point spread."""


@dataclass(frozen=True)
class Outlines:
    """Shapes of cells in pixels.

    Attributes
    ----------
    centres_yx, nuclei_yx
        Middle of each cell and of its nucleus, shape (N, 2), float64.
    radius, nucleus_radius
        Shape (N,), float64; a nucleus radius of 0 = no nucleus in the section.
    angle, stretch
        Direction of the long axis (radians) and square root of long by short axis, shape (N,).
    bumps_nh, phases_nh
        Harmonics 2, 3, ... of the outline: share of the radius, and phase. Shape (N, H).
    height
        How far a cell lies above others, in pixels of outline, shape (N,).
    """

    centres_yx: NDArray[np.float64]
    nuclei_yx: NDArray[np.float64]
    radius: NDArray[np.float64]
    nucleus_radius: NDArray[np.float64]
    angle: NDArray[np.float64]
    stretch: NDArray[np.float64]
    bumps_nh: NDArray[np.float64]
    phases_nh: NDArray[np.float64]
    height: NDArray[np.float64]

    def take(self, keep: NDArray[np.bool_]) -> Outlines:
        """Only the cells where `keep` is true."""
        return Outlines(**{name: value[keep] for name, value in vars(self).items()})


@dataclass(frozen=True)
class Raster:
    """Cells on the pixel grid, the two uppermost of each pixel.

    Attributes
    ----------
    owner_dyx
        Index of the cell, -1 = none; shape (2, Y, X), int32.
    outside_dyx
        Distance outwards from the outline in pixels (negative inside), float32.
    nucleus_dyx
        The same from the nucleus' outline.
    """

    owner_dyx: NDArray[np.int32]
    outside_dyx: Floats
    nucleus_dyx: Floats


@njit(cache=True)
def _rasterise(
    centres_yx: NDArray[np.float64],
    nuclei_yx: NDArray[np.float64],
    radius: NDArray[np.float64],
    nucleus_radius: NDArray[np.float64],
    angle: NDArray[np.float64],
    stretch: NDArray[np.float64],
    bumps_nh: NDArray[np.float64],
    phases_nh: NDArray[np.float64],
    height: NDArray[np.float64],
    rows: int,
    columns: int,
) -> tuple[NDArray[np.int32], Floats, Floats]:
    far = np.float32(1e6)
    owner = np.full((2, rows, columns), -1, np.int32)
    score = np.full((2, rows, columns), far, np.float32)
    outside = np.full((2, rows, columns), far, np.float32)
    nucleus = np.full((2, rows, columns), far, np.float32)
    for n in range(radius.shape[0]):
        bump = 0.0
        for h in range(bumps_nh.shape[1]):
            bump += abs(bumps_nh[n, h])
        reach = radius[n] * stretch[n] * (1.0 + bump) + 1.0
        top = max(0, int(np.floor(centres_yx[n, 0] - reach)))
        bottom = min(rows, int(np.ceil(centres_yx[n, 0] + reach)) + 1)
        left = max(0, int(np.floor(centres_yx[n, 1] - reach)))
        right = min(columns, int(np.ceil(centres_yx[n, 1] + reach)) + 1)
        cosine, sine = np.cos(angle[n]), np.sin(angle[n])
        for y in range(top, bottom):
            for x in range(left, right):
                dy, dx = y - centres_yx[n, 0], x - centres_yx[n, 1]
                u = (cosine * dx + sine * dy) / stretch[n]
                v = (-sine * dx + cosine * dy) * stretch[n]
                theta = np.arctan2(v, u)
                wave = 0.0
                for h in range(bumps_nh.shape[1]):
                    wave += bumps_nh[n, h] * np.cos((h + 2) * theta + phases_nh[n, h])
                away = np.sqrt(u * u + v * v) - radius[n] * (1.0 + wave)
                if away >= 0.0:
                    continue
                value = np.float32(away - height[n])
                if value >= score[1, y, x]:
                    continue
                away_nucleus = 1e6
                if nucleus_radius[n] > 0.0:
                    dy, dx = y - nuclei_yx[n, 0], x - nuclei_yx[n, 1]
                    u = (cosine * dx + sine * dy) / stretch[n]
                    v = (-sine * dx + cosine * dy) * stretch[n]
                    away_nucleus = np.sqrt(u * u + v * v) - nucleus_radius[n] * (1.0 + 0.7 * wave)
                depth = 1
                if value < score[0, y, x]:
                    owner[1, y, x] = owner[0, y, x]
                    score[1, y, x] = score[0, y, x]
                    outside[1, y, x] = outside[0, y, x]
                    nucleus[1, y, x] = nucleus[0, y, x]
                    depth = 0
                owner[depth, y, x] = n
                score[depth, y, x] = value
                outside[depth, y, x] = away
                nucleus[depth, y, x] = away_nucleus
    return owner, outside, nucleus


def rasterise(outlines: Outlines, shape_yx: tuple[int, int]) -> Raster:
    """Lay cells on the pixel grid; where they overlap, the deeper inside owns the pixel."""
    owner, outside, nucleus = _rasterise(
        outlines.centres_yx,
        outlines.nuclei_yx,
        outlines.radius,
        outlines.nucleus_radius,
        outlines.angle,
        outlines.stretch,
        outlines.bumps_nh,
        outlines.phases_nh,
        outlines.height,
        shape_yx[0],
        shape_yx[1],
    )
    return Raster(owner, outside, nucleus)


def pattern_planes(
    raster: Raster, outlines: Outlines, um_per_pixel: float
) -> dict[Pattern, Floats]:
    """How strongly each pattern is present, shape (2, Y, X) each, 0 to about 1.

    ``"granular"`` is ``"cytoplasm"`` here; its speckles are drawn for each marker.
    """
    inside = raster.owner_dyx >= 0
    # A squeezed cell ends half-way to its neighbour's outline, not at its own.
    edge = -raster.outside_dyx
    between = 0.5 * (raster.outside_dyx[1] - raster.outside_dyx[0])
    edge[0] = np.minimum(edge[0], np.where(inside[1], np.maximum(between, 0), np.inf))
    membrane = np.exp(-0.5 * (edge * um_per_pixel / MEMBRANE_UM) ** 2) + 0.12
    in_nucleus = np.clip(0.5 - raster.nucleus_dyx, 0, 1)
    dome = 0.55 + 0.45 * np.clip(-raster.nucleus_dyx * um_per_pixel / 2.5, 0, 1)
    raw: dict[Pattern, NDArray[np.floating]] = {
        "nuclear": in_nucleus * dome,
        "membrane": membrane,
        "cytoplasm": 1 - 0.75 * in_nucleus,
        "cell": np.ones_like(edge),
        "cap": _cap(raster, outlines, um_per_pixel),
    }
    planes = {name: np.where(inside, p, 0).astype(np.float32) for name, p in raw.items()}
    planes["granular"] = planes["cytoplasm"]
    return planes


def _cap(raster: Raster, outlines: Outlines, um_per_pixel: float) -> NDArray[np.float64]:
    """One side of the cell, away from the nucleus, with a sigma of 1.3 um."""
    towards = outlines.centres_yx - outlines.nuclei_yx
    length = np.maximum(np.hypot(towards[:, 0], towards[:, 1]), 1e-6)
    cap_yx = outlines.centres_yx + towards / length[:, None] * 0.6 * outlines.radius[:, None]
    rows, columns = raster.owner_dyx.shape[1:]
    y, x = np.mgrid[:rows, :columns]
    owner = np.maximum(raster.owner_dyx, 0)
    if len(cap_yx) == 0:
        return np.zeros(owner.shape)
    squared = (y - cap_yx[owner, 0]) ** 2 + (x - cap_yx[owner, 1]) ** 2
    return np.asarray(2.0 * np.exp(-0.5 * squared * (um_per_pixel / 1.3) ** 2) + 0.05)
