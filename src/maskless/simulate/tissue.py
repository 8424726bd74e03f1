"""Tissue whose truth is known: cells are placed, typed, shaped, stained and looked at.

Axes: N = cells, M = channels of the panel, Y = rows, X = columns. Everything is drawn from
``SeedSequence(seed)`` split by image and by patient, so an image does not depend on the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom

from maskless.images.image import Image
from maskless.simulate.draw import Outlines, Raster, pattern_planes, rasterise
from maskless.simulate.instrument import count_ions, spillover_matrix
from maskless.simulate.model import Expression, Preset, Tissue

Scalar = TypeVar("Scalar", bound=np.generic)

_MARGIN_UM = 12.0  # cells are placed that far beyond the image, so that its edge looks cut
_COARSE_UM = 4.0  # smooth fields are drawn on a grid of this pitch
_LEAST_CELL_UM2 = 12.0  # cells of which less is seen are taken out
_LEAST_NUCLEUS_UM2 = 6.0  # cells of whose nucleus less is seen count as fragments
_GRAIN = {"granular": 0.9, "membrane": 0.5, "cap": 0.5}  # patchiness; log standard deviation
_NONSPECIFIC_SPREAD = 0.8  # log standard deviation, by cell and marker


@dataclass(frozen=True)
class Truth:
    """What is really there in a simulated image, one entry a cell unless said otherwise.

    Attributes
    ----------
    centres_yx
        Middle of the visible nucleus in pixels, shape (N, 2), float64.
    mask_yx
        Cell of each pixel, 1 to N, 0 = none or a fragment; shape (Y, X), int32.
    area_px
        Pixels of the cell in the mask, shape (N,).
    cell_type, subtype, zone
        Names, arrays of str, shape (N,).
    levels_nm
        Level of each channel's marker in each cell, 0 = the cell does not express it; float32.
    state
        The continuous state that moves some levels, shape (N,), standard normal.
    patient
        Name of the simulated patient.
    """

    centres_yx: NDArray[np.float64]
    mask_yx: NDArray[np.int32]
    area_px: NDArray[np.intp]
    cell_type: NDArray[np.str_]
    subtype: NDArray[np.str_]
    zone: NDArray[np.str_]
    levels_nm: NDArray[np.float32]
    state: NDArray[np.float64]
    patient: str

    @property
    def positive_nm(self) -> NDArray[np.bool_]:
        """Whether a cell truly expresses a marker, shape (N, M)."""
        return self.levels_nm > 0


def image_name(index: int) -> str:
    """Name of the image with this number, counted from 0."""
    return f"simulated_{index + 1:03d}"


def simulate_image(preset: Preset, seed: int, index: int) -> tuple[Image, Truth]:
    """One image of the cohort and its truth; it depends on preset, seed and index only."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, index)))
    patient = index // preset.images_per_patient
    patient_rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, patient)))
    spread = preset.tissue.patient_spread
    abundance = np.exp(patient_rng.normal(0, spread, len(preset.types)))
    staining = np.exp(patient_rng.normal(0, spread / 3, len(preset.markers)))

    um = preset.um_per_pixel
    margin_px = int(np.ceil(_MARGIN_UM / um))
    shape_yx = (preset.size_px, preset.size_px)
    extent_um = (preset.size_px + 2 * margin_px) * um
    zone_field = _smooth(rng, extent_um, preset.tissue.zone_um)
    zones = _zones(rng, zone_field, preset.tissue)

    centres_yx, zone = _place(rng, extent_um, zones, preset)
    kind = _types(rng, centres_yx, zone, extent_um, abundance, preset)
    outlines = _shapes(rng, centres_yx / um - margin_px, kind, preset)
    levels_nm, state = _levels(rng, kind, staining, preset)
    outlines, raster, keep = _settle(outlines, shape_yx, _LEAST_CELL_UM2 / um**2)
    kind, zone, levels_nm, state = kind[keep], zone[keep], levels_nm[keep], state[keep]

    signal_cyx = _signal(rng, raster, outlines, levels_nm, preset)
    counts_cyx = count_ions(
        signal_cyx,
        np.array([m.background for m in preset.markers]),
        spillover_matrix([m.metal for m in preset.markers], preset.instrument.spillover),
        preset.instrument,
        um,
        rng,
    )
    names = tuple(m.name for m in preset.markers)
    image = Image(image_name(index), counts_cyx, names, um)
    listed, centres_yx, mask_yx = _seen(raster, _LEAST_NUCLEUS_UM2 / um**2, len(kind))
    truth = Truth(
        centres_yx=centres_yx,
        mask_yx=mask_yx,
        area_px=np.bincount(mask_yx.ravel(), minlength=len(listed) + 1)[1:],
        cell_type=np.array([preset.types[k].name for k in kind[listed]], dtype=np.str_),
        subtype=np.array([_subtype(preset, k) for k in kind[listed]], dtype=np.str_),
        zone=np.array([preset.tissue.zones[z].name for z in zone[listed]], dtype=np.str_),
        levels_nm=levels_nm[listed],
        state=state[listed],
        patient=f"patient_{patient + 1:02d}",
    )
    return image, truth


def _subtype(preset: Preset, kind: int) -> str:
    return preset.types[kind].subtype or preset.types[kind].name


def _smooth(rng: np.random.Generator, extent_um: float, sigma_um: float) -> NDArray[np.float64]:
    """A smooth random field of mean 0 and standard deviation 1 on the coarse grid."""
    size = int(np.ceil(extent_um / _COARSE_UM)) + 1
    plane = gaussian_filter(rng.normal(size=(size, size)), sigma_um / _COARSE_UM, mode="reflect")
    return np.asarray((plane - plane.mean()) / max(float(plane.std()), 1e-9))


def _at(field: NDArray[Scalar], points_um: NDArray[np.float64]) -> NDArray[Scalar]:
    """Values of a coarse field at points (y, x), nearest grid point."""
    at = np.rint(points_um / _COARSE_UM).astype(np.intp)
    return field[at[:, 0], at[:, 1]]


def _zones(
    rng: np.random.Generator, field: NDArray[np.float64], tissue: Tissue
) -> NDArray[np.intp]:
    """Zone of each point of the coarse grid: highest values are the first zone."""
    share = np.array([z.share for z in tissue.zones]) * np.exp(
        rng.normal(0, 0.25, len(tissue.zones))
    )
    limits = np.quantile(field, 1 - np.cumsum(share / share.sum())[:-1])
    return np.asarray((field[..., None] < limits).sum(-1), dtype=np.intp)


@njit(cache=True)
def _keep_apart(
    points_yx: NDArray[np.float64], distance: NDArray[np.float64], most: int, cell: float
) -> NDArray[np.bool_]:
    """Take points in turn unless one taken before is nearer than the point's own distance."""
    rows = int(points_yx[:, 0].max() / cell) + 1
    columns = int(points_yx[:, 1].max() / cell) + 1
    head = np.full((rows, columns), -1, np.int64)
    behind = np.full(len(points_yx), -1, np.int64)
    taken = np.zeros(len(points_yx), np.bool_)
    count = 0
    for i in range(len(points_yx)):
        if count == most:
            break
        row, column = int(points_yx[i, 0] / cell), int(points_yx[i, 1] / cell)
        free = True
        for r in range(max(0, row - 1), min(rows, row + 2)):
            for c in range(max(0, column - 1), min(columns, column + 2)):
                j = head[r, c]
                while j >= 0 and free:
                    dy = points_yx[i, 0] - points_yx[j, 0]
                    dx = points_yx[i, 1] - points_yx[j, 1]
                    free = dy * dy + dx * dx >= distance[i] * distance[i]
                    j = behind[j]
        if free:
            taken[i] = True
            behind[i] = head[row, column]
            head[row, column] = i
            count += 1
    return taken


def _place(
    rng: np.random.Generator, extent_um: float, zones: NDArray[np.intp], preset: Preset
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Middles of cells in um, (N, 2), and their zones; denser where the zone is denser."""
    density = np.array([z.density for z in preset.tissue.zones])
    share = np.bincount(zones.ravel(), minlength=len(density)) / zones.size
    per_um2 = preset.density / 1e4 / (1 - preset.tissue.fragments)
    density = density / (density * share).sum() * per_um2
    expected = per_um2 * extent_um**2
    most = int(rng.poisson(expected))
    candidates = rng.uniform(0, extent_um, (int(12 * expected) + 20, 2))
    rate = density / max(density.max(), 1e-12)
    zone = _at(zones, candidates)
    candidates = candidates[rng.random(len(candidates)) < rate[zone]]
    zone = _at(zones, candidates)
    if len(candidates) == 0:
        return candidates, zone
    # Random packing jams at 0.547 of the area; three quarters of that distance leaves overlaps.
    apart = 0.75 * np.sqrt(0.6965 / np.maximum(density[zone], 1e-6))
    taken = _keep_apart(candidates, apart, most, float(apart.max()))
    return candidates[taken], zone[taken]


def _types(
    rng: np.random.Generator,
    centres_um: NDArray[np.float64],
    zone: NDArray[np.intp],
    extent_um: float,
    abundance: NDArray[np.float64],
    preset: Preset,
) -> NDArray[np.intp]:
    """Type of each cell: the zone's composition, the patient's, and clumps of like cells."""
    weight_zt = np.array(
        [
            [z.composition.get(_subtype(preset, t), 0.0) for t in range(len(preset.types))]
            for z in preset.tissue.zones
        ]
    )
    with np.errstate(divide="ignore"):
        score_nt = np.log(weight_zt * abundance)[zone]
    for t in range(len(preset.types)):
        clump = _smooth(rng, extent_um, 10.0)
        score_nt[:, t] += preset.tissue.clumping * _at(clump, centres_um)
    return np.asarray(np.argmax(score_nt + rng.gumbel(size=score_nt.shape), axis=1))


def _shapes(
    rng: np.random.Generator,
    centres_yx: NDArray[np.float64],
    kind: NDArray[np.intp],
    preset: Preset,
) -> Outlines:
    """Outlines in pixels: sizes vary, the section cuts nuclei at any height, some miss them."""
    n = len(kind)
    um = preset.um_per_pixel

    def of(name: str) -> NDArray[np.float64]:
        return np.array([getattr(t, name) for t in preset.types], dtype=np.float64)[kind]

    size = np.exp(rng.normal(0, 0.08, n))
    cut = np.sqrt(1 - rng.uniform(0, 0.75, n) ** 2)  # a ball cut at a random height
    nucleus = of("nucleus_um") * size * cut
    radius = nucleus + of("rim_um") * size
    nucleus[rng.random(n) < preset.tissue.fragments] = 0.0
    aside = rng.uniform(0, 2 * np.pi, n)
    shift = of("eccentric_um") * rng.uniform(0.5, 1.2, n)
    offset = np.stack([np.sin(aside), np.cos(aside)], axis=1) * shift[:, None]
    bumps_nh = rng.normal(0, 1, (n, 5)) * of("irregularity")[:, None] / np.sqrt(np.arange(1, 6))
    return Outlines(
        centres_yx=centres_yx,
        nuclei_yx=centres_yx + offset / um,
        radius=radius / um,
        nucleus_radius=nucleus / um,
        angle=rng.uniform(0, np.pi, n),
        stretch=np.sqrt(np.maximum(of("elongation") * np.exp(rng.normal(0, 0.12, n)), 1.0)),
        bumps_nh=bumps_nh,
        phases_nh=rng.uniform(0, 2 * np.pi, bumps_nh.shape),
        height=rng.uniform(0, 1.0, n) / um,
    )


def _levels(
    rng: np.random.Generator,
    kind: NDArray[np.intp],
    staining: NDArray[np.float64],
    preset: Preset,
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Levels (N, M) and continuous state (N,) of each cell."""
    n, types, markers = len(kind), len(preset.types), len(preset.markers)
    table = np.zeros((4, types, markers))
    for t, cell_type in enumerate(preset.types):
        for m, marker in enumerate(preset.markers):
            default = 1.0 if marker.kind == "nuclear" else 0.0
            given = cell_type.expression.get(marker.name, default)
            e = given if isinstance(given, Expression) else Expression(float(given))
            spread = 0.25 if marker.kind == "nuclear" else e.spread
            table[:, t, m] = e.level, e.fraction, spread, e.gradient
    level, fraction, spread, gradient = table[:, kind]
    state = rng.normal(size=n)
    common = rng.normal(0, preset.tissue.thickness_spread, n)
    log_level = spread * rng.normal(size=(n, markers)) + gradient * state[:, None]
    levels_nm = level * staining * np.exp(log_level + common[:, None])
    levels_nm[rng.random((n, markers)) >= fraction] = 0.0
    return levels_nm.astype(np.float32), state


def _settle(
    outlines: Outlines, shape_yx: tuple[int, int], least_px: float
) -> tuple[Outlines, Raster, NDArray[np.intp]]:
    """Take out cells of which too little is seen, until none is left; give kept indices."""
    keep = np.arange(len(outlines.radius))
    while True:
        raster = rasterise(outlines, shape_yx)
        owner = raster.owner_dyx[0]
        seen = np.bincount(owner[owner >= 0], minlength=len(keep)) >= least_px
        if seen.all():
            return outlines, raster, keep
        outlines, keep = outlines.take(seen), keep[seen]


def _signal(
    rng: np.random.Generator,
    raster: Raster,
    outlines: Outlines,
    levels_nm: NDArray[np.float32],
    preset: Preset,
) -> NDArray[np.float32]:
    """Expected ions of each channel before the instrument, shape (C, Y, X)."""
    shape_yx = raster.owner_dyx.shape[1:]
    um = preset.um_per_pixel
    planes = pattern_planes(raster, outlines, um)
    grain = gaussian_filter(rng.normal(size=shape_yx), 0.8 / um)
    grain /= max(float(grain.std()), 1e-9)
    fibres = _fibres(rng, shape_yx, um)
    visible = np.array([1.0, preset.tissue.overlap], dtype=np.float32)
    signal_cyx = np.zeros((len(preset.markers), *shape_yx), dtype=np.float32)
    for m, marker in enumerate(preset.markers):
        shift = rng.integers(0, shape_yx[0], 2)
        speckle = np.roll(grain, shift, axis=(0, 1))
        if marker.pattern == "none":
            continue
        if marker.pattern == "fibre":
            plane = fibres.copy()
        else:
            levels = levels_nm[:, m]
            if marker.kind != "nuclear":
                sticking = np.exp(rng.normal(0, _NONSPECIFIC_SPREAD, len(levels)))
                levels = levels + np.float32(marker.nonspecific) * sticking.astype(np.float32)
            by_owner = np.append(levels, 0.0).astype(np.float32)  # owner -1 reads the last entry
            each = planes[marker.pattern] * by_owner[raster.owner_dyx]
            plane = np.tensordot(visible, each, axes=1)
        strength = _GRAIN.get(marker.pattern, 0.3)
        texture = np.exp(strength * speckle - 0.5 * strength**2)
        signal_cyx[m] = marker.counts * plane * texture
    return signal_cyx


def _fibres(
    rng: np.random.Generator, shape_yx: tuple[int, ...], um_per_pixel: float
) -> NDArray[np.float32]:
    """Thin winding lines between the cells, gathered in places, about 1 where they are."""
    extent_um = shape_yx[0] * um_per_pixel
    lines = _smooth(rng, extent_um, 9.0)
    where = _smooth(rng, extent_um, 30.0)
    size = shape_yx[0]
    factor = size / (lines.shape[0] - 1)
    fine = zoom(lines, factor, order=3, mode="nearest")[:size, :size]
    gate = zoom(where, factor, order=1, mode="nearest")[:size, :size]
    slope = np.hypot(*np.gradient(fine)) / um_per_pixel
    distance_um = np.abs(fine) / np.maximum(slope, 1e-3)
    ridge = np.exp(-0.5 * (distance_um / 1.0) ** 2) * np.clip(gate, 0, 1)
    return np.asarray(ridge, dtype=np.float32)


def _seen(
    raster: Raster, least_nucleus_px: float, n: int
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.int32]]:
    """Indices of the cells whose nucleus is seen, its middle (y, x), and the label mask."""
    owner = raster.owner_dyx[0]
    in_nucleus = (owner >= 0) & (raster.nucleus_dyx[0] < 0)
    y, x = np.nonzero(in_nucleus)
    at = owner[in_nucleus]
    count = np.bincount(at, minlength=n)
    listed = np.flatnonzero(count >= least_nucleus_px)
    middle = np.stack([np.bincount(at, weights=v, minlength=n)[listed] for v in (y, x)], axis=1)
    label = np.zeros(n + 1, dtype=np.int32)  # owner -1 reads the last entry
    label[listed] = np.arange(1, len(listed) + 1)
    return listed, middle / count[listed][:, None], label[owner]
