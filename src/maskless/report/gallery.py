"""Example patches of each cluster, as a person would look at them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.images.image import Image, ImageSet
from maskless.report.colors import composite
from maskless.report.groups import Groups, groups_of, marker_values
from maskless.report.pixels import (
    chosen_markers,
    composite_colors,
    contrast_limits,
    legend_texts,
)
from maskless.report.style import (
    axes_at,
    legend_size,
    new_figure,
    plain,
    round_length,
    shade,
    styled,
    swatches,
    text_at,
    title_at,
    widest,
)

if TYPE_CHECKING:
    from anndata import AnnData

_PATCH = 0.66  # inches
_EDGE = 48  # drawn pixels of a patch
_GAP = 3  # drawn pixels between patches
_MOST_IMAGES = 24
_ROWS_A_BLOCK = 30
_RING_UM = 10.0


@styled
def gallery(
    cells: AnnData,
    images: ImageSet,
    groupby: str = "cluster",
    markers: Sequence[str] = (),
    per_group: int = 8,
    view_um: float = 32.0,
    *,
    seed: int = 0,
    limits_m2: NDArray[np.float64] | None = None,
) -> Figure:
    """Patches around typical cells of each cluster, in up to six marker colours.

    Parameters
    ----------
    cells
        One row a cell.
    images
        Cleaned images; at most about 24 of them are looked at.
    groupby
        Column of ``obs``; one row of patches a group.
    markers
        Up to six channels; the most telling ones and a nuclear one if empty.
    per_group
        Patches a group.
    view_um
        Edge of a patch in micrometres.
    seed
        Draws the cells shown among the tenth of each group that is nearest to its mean embedding.
    limits_m2
        Intensities that are black and full colour, a pair a marker; from the images if not given.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        No cells, unknown or too many markers, cells in an image that is not there.
    """
    chosen = chosen_markers(cells, markers, groupby)
    groups = groups_of(cells, groupby)
    if not groups.names:
        raise InputError("there are no cells to draw")
    picked = typical_cells(cells, groups, per_group, view_um, seed)
    patches, limits = _patches(cells, images, chosen, picked, view_um, limits_m2)
    colors = composite_colors(cells, chosen)
    texts = legend_texts(chosen, limits)

    labels = [f"{plain(label, 18)}" for label in groups.labels]
    counts = [f"{count:,}" for count in groups.counts_g]
    blocks = -(-len(labels) // _ROWS_A_BLOCK)
    rows = -(-len(labels) // blocks)
    per_row = max(map(len, picked))
    label_width = max(widest(labels, 8.5), widest(counts, 7)) + 0.25
    block_width = label_width + per_row * _PATCH + 0.25
    legend_width, _ = legend_size(texts, 6, 8.5)
    width = 0.15 + blocks * block_width
    figure = new_figure(max(width, legend_width + 2.2, 6.0), 0.62 + rows * _PATCH + 1.35)
    title_at(
        figure,
        f"Typical cells of each {plain(groupby)}",
        f"squares of {view_um:g} µm, the cell in the ring ({_RING_UM:g} µm); cells below each name",
    )
    for block in range(blocks):
        left = 0.15 + block * block_width + label_width
        members = range(block * rows, min((block + 1) * rows, len(labels)))
        axes = axes_at(figure, left, 0.62, per_row * _PATCH, len(members) * _PATCH)
        axes.imshow(
            _mosaic([patches[g] for g in members], per_row, colors, limits),
            interpolation="none",
        )
        axes.axis("off")
        places = [(c, r) for r, g in enumerate(members) for c in range(len(picked[g]))]
        centres = np.array(places).reshape(-1, 2) * (_EDGE + _GAP) + (_EDGE - 1) / 2
        ring = 72 * _PATCH * _EDGE / (_EDGE + _GAP) * _RING_UM / view_um
        axes.scatter(
            centres[:, 0],
            centres[:, 1],
            s=ring**2,
            facecolors="none",
            edgecolors="white",
            linewidths=0.5,
        )
        for row, g in enumerate(members):
            middle = 0.62 + (row + 0.5) * _PATCH
            text_at(
                figure,
                left - 0.1,
                middle + 0.02,
                labels[g],
                size=8.5,
                ha="right",
                va="bottom",
                weight="bold",
                color=shade(groups.colors[g]),
                bbox={"boxstyle": "round,pad=0.15", "color": groups.colors[g], "linewidth": 0},
            )
            text_at(figure, left - 0.1, middle + 0.07, counts[g], size=7, ha="right")
    bottom = 0.62 + rows * _PATCH + 0.15
    _bar(figure, 0.15 + label_width, bottom, view_um)
    legend_left = 0.15 + label_width + 1.3
    swatches(figure, legend_left, bottom, texts, colors, most_rows=6, size=8.5)
    return figure


def typical_cells(
    cells: AnnData, groups: Groups, per_group: int, view_um: float, seed: int
) -> list[NDArray[np.intp]]:
    """Rows of typical cells, an array a group.

    Drawn among the tenth (at least three times `per_group`) that is nearest to the group's mean
    embedding (activations, where there is no embedding); no two show the same place.
    """
    if "X_embedding" in cells.obsm:
        points = np.asarray(cells.obsm["X_embedding"], dtype=np.float32)
    else:
        points = marker_values(cells)[0].astype(np.float32)
    spatial = np.asarray(cells.obsm["spatial"]) if "spatial" in cells.obsm else None
    image = cells.obs["image"].astype(str).to_numpy()
    preferred = _preferred(image)
    inside = _inside(image, spatial, view_um / 2)
    seeds = np.random.SeedSequence(seed).spawn(len(groups.names))
    picked = []
    for g, child in enumerate(seeds):
        members = np.flatnonzero(groups.codes_n == g)
        for wanted in (inside, preferred):
            if wanted[members].sum() >= per_group:
                members = members[wanted[members]]
        offset = points[members] - points[members].mean(axis=0)
        distance = np.einsum("ij,ij->i", offset, offset)
        pool = max(3 * per_group, len(members) // 10)
        nearest = members[np.argsort(distance, kind="stable")[:pool]]
        order = np.random.default_rng(child).permutation(nearest)
        chosen: list[int] = []
        for row in order:
            if spatial is None or not _seen(row, chosen, image, spatial, view_um / 2):
                chosen.append(int(row))
            if len(chosen) == per_group:
                break
        picked.append(np.array(chosen, dtype=np.intp))
    return picked


def _preferred(image: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Cells of up to 24 images spread over the cohort: loading all of a big one takes long."""
    names = np.unique(image)
    if len(names) <= _MOST_IMAGES:
        return np.ones(len(image), dtype=np.bool_)
    spread = np.linspace(0, len(names) - 1, _MOST_IMAGES).round().astype(int)
    return np.asarray(np.isin(image, names[spread]))


def _inside(
    image: NDArray[np.object_], spatial: NDArray[np.floating] | None, half_um: float
) -> NDArray[np.bool_]:
    """Cells whose square does not reach beyond the outermost cells of their image."""
    inside = np.ones(len(image), dtype=np.bool_)
    if spatial is None:
        return inside
    for name in np.unique(image):
        rows = image == name
        xy = spatial[rows]
        inside[rows] = ((xy >= half_um) & (xy <= xy.max(axis=0) - half_um)).all(axis=1)
    return inside


def _seen(
    row: int,
    chosen: list[int],
    image: NDArray[np.object_],
    spatial: NDArray[np.floating],
    least_um: float,
) -> bool:
    return any(
        image[row] == image[other] and np.hypot(*(spatial[row] - spatial[other])) < least_um
        for other in chosen
    )


def _patches(
    cells: AnnData,
    images: ImageSet,
    markers: Sequence[str],
    picked: list[NDArray[np.intp]],
    view_um: float,
    limits_m2: NDArray[np.float64] | None,
) -> tuple[list[NDArray[np.float32]], NDArray[np.float64]]:
    """Patches (cells, markers, edge, edge) of each group, and the contrast; one image a time."""
    rows = np.concatenate(picked)
    image = cells.obs["image"].astype(str).to_numpy()
    yx = cells.obs[["y", "x"]].to_numpy(dtype=np.float64)
    patches = np.zeros((len(rows), len(markers), _EDGE, _EDGE), dtype=np.float32)
    samples: list[NDArray[np.float64]] = []
    needed = sorted(set(image[rows]))
    missing = sorted(set(needed) - set(images.names))
    if missing:
        raise InputError("cells lie in an image that is not there", image=missing[0])
    for name in needed:
        loaded = images[name]
        samples.append(contrast_limits([loaded], markers))
        for place in np.flatnonzero(image[rows] == name):
            patches[place] = cut_patch(loaded, markers, yx[rows[place]], view_um)
    if limits_m2 is None:
        limits_m2 = np.median(samples, axis=0)
    splits = np.cumsum([len(p) for p in picked])[:-1]
    return np.split(patches, splits), limits_m2


def cut_patch(
    image: Image, markers: Sequence[str], yx: NDArray[np.float64], view_um: float
) -> NDArray[np.float32]:
    """A square of `view_um` around a cell, bilinear, 48 pixels wide; 0 beyond the image's edge.

    Parameters
    ----------
    image
        Where the cell lies.
    markers
        Channels to cut.
    yx
        Centre, in pixels.
    view_um
        Edge of the square in micrometres.

    Returns
    -------
    array of float32, shape (markers, 48, 48)
    """
    from scipy.ndimage import map_coordinates

    half = view_um / image.um_per_pixel / 2
    reach = int(np.ceil(half)) + 2
    centre = np.rint(yx).astype(int)
    rows, columns = image.pixels_cyx.shape[1:]
    top, left = max(centre[0] - reach, 0), max(centre[1] - reach, 0)
    window = (
        slice(top, min(centre[0] + reach + 1, rows)),
        slice(left, min(centre[1] + reach + 1, columns)),
    )
    steps = (np.arange(_EDGE) + 0.5) / _EDGE * 2 * half - half
    grid = np.meshgrid(yx[0] + steps - top, yx[1] + steps - left, indexing="ij")
    picked = [image.channels.index(name) for name in markers]
    part = np.nan_to_num(image.pixels_cyx[picked][:, *window].astype(np.float32))
    return np.stack([map_coordinates(plane, grid, order=1, mode="constant") for plane in part])


def _mosaic(
    groups: list[NDArray[np.float32]],
    per_row: int,
    colors: Sequence[str],
    limits_m2: NDArray[np.float64],
) -> NDArray[np.uint8]:
    """Patches side by side on white, one row a group."""
    pitch = _EDGE + _GAP
    canvas = np.full((len(groups) * pitch, per_row * pitch, 3), 255, dtype=np.uint8)
    for row, patches in enumerate(groups):
        for column, patch in enumerate(patches):
            y, x = row * pitch, column * pitch
            canvas[y : y + _EDGE, x : x + _EDGE] = composite(patch, colors, limits_m2)
    return canvas


def _bar(figure: Figure, left: float, top: float, view_um: float) -> None:
    patch = _PATCH * _EDGE / (_EDGE + _GAP)
    length_um = round_length(view_um)
    length = patch * length_um / view_um
    axes = axes_at(figure, left, top, length, 0.05)
    axes.set_facecolor("#222226")
    axes.set_xticks([])
    axes.set_yticks([])
    text_at(figure, left, top + 0.1, f"{length_um:g} µm", size=8)
