"""Example cells of a selection: which ones, and their patches as bytes.

n = cells of the selection, m = markers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from maskless.annotate.tiles import Tiles
from maskless.errors import InputError

Kind = Literal["typical", "borderline", "random"]
EDGE_PX = 48
_LOOKED_AT = 20_000
_MOST_IMAGES = 12


def example_cells(
    activations_nm: NDArray[np.float32],
    group_n: NDArray[np.int32],
    images_n: NDArray[np.int32],
    rows: NDArray[np.uint32],
    kind: Kind,
    count: int,
    seed: int = 0,
) -> NDArray[np.uint32]:
    """Choose cells to look at.

    Parameters
    ----------
    activations_nm
        Of all cells; distances are of z-scores.
    group_n, images_n
        Group and image of all cells.
    rows
        The selection, in growing order.
    kind
        "typical": drawn from the tenth nearest to the selection's mean; "borderline": nearest to
        being nearer to the mean of another group; "random".
    count
        At most so many.
    seed
        Fixes every draw.

    Returns
    -------
    array of uint32
        Up to `count` of `rows`, from up to 12 images, so that they come quickly.
    """
    generator = np.random.default_rng(seed)
    if not len(rows):
        return rows
    images = np.unique(images_n[rows])
    if len(images) > _MOST_IMAGES:
        kept = generator.choice(images, _MOST_IMAGES, replace=False)
        rows = rows[np.isin(images_n[rows], kept)]
    if len(rows) > _LOOKED_AT:
        rows = np.sort(generator.choice(rows, _LOOKED_AT, replace=False))
    if kind == "random":
        return np.asarray(generator.permutation(rows)[:count])
    sample = _sample(len(group_n), generator)
    spread = activations_nm[sample].std(axis=0)
    scale = np.where(spread > 1e-9, spread, np.inf)
    points = activations_nm[rows] / scale
    own = points.mean(axis=0)
    distance = np.linalg.norm(points - own, axis=1)
    if kind == "typical":
        nearest = np.argsort(distance, kind="stable")[: max(count, len(rows) // 10)]
        return np.asarray(rows[generator.permutation(nearest)[:count]])
    inside = np.unique(group_n[rows])
    others = [g for g in np.unique(group_n[sample]) if g not in inside]
    if not others:
        return np.asarray(rows[np.argsort(-distance, kind="stable")[:count]])
    means = np.stack(
        [(activations_nm[sample[group_n[sample] == g]] / scale).mean(axis=0) for g in others]
    )
    nearest_other = np.min(
        [np.linalg.norm(points - mean, axis=1) for mean in means.astype(np.float32)], axis=0
    )
    return np.asarray(rows[np.argsort(nearest_other - distance, kind="stable")[:count]])


def patches(
    tiles: Tiles,
    images_n: NDArray[np.int32],
    yx_n2: NDArray[np.float32],
    rows: NDArray[np.uint32],
    channels: Sequence[int],
    view_um: float,
) -> NDArray[np.uint8]:
    """Squares around cells, on the scale of the tiles.

    Parameters
    ----------
    tiles
        Of the study.
    images_n, yx_n2
        Image and centre of all cells.
    rows
        The cells to show.
    channels
        Positions of channels.
    view_um
        Edge of a square.

    Returns
    -------
    array of uint8, shape (rows, channels, 48, 48)
        0 beyond the image's edge and in images whose pixels are not there.
    """
    from maskless.images.image import Image
    from maskless.report.gallery import cut_patch

    out = np.zeros((len(rows), len(channels), EDGE_PX, EDGE_PX), np.uint8)
    names = tuple(str(channel) for channel in channels)
    loaded: dict[int, Any] = {}
    for place in np.argsort(images_n[rows], kind="stable"):
        number = int(images_n[rows[place]])
        info = tiles.images[number]
        if info.file is None or not channels:
            continue
        if number not in loaded:
            try:
                planes = np.stack([tiles.plane(number, channel) for channel in channels])
            except InputError:  # the tissue view says what is wrong with this image
                loaded[number] = None
                continue
            loaded = {number: Image(info.name, planes, names, info.um_per_pixel)}
        if loaded[number] is not None:
            patch = cut_patch(loaded[number], names, yx_n2[rows[place]].astype(float), view_um)
            out[place] = np.rint(patch).astype(np.uint8)
    return out


def _sample(cells: int, generator: np.random.Generator) -> NDArray[np.intp]:
    """Cells that stand for all of them."""
    if cells <= 5 * _LOOKED_AT:
        return np.arange(cells)
    return np.sort(generator.choice(cells, 5 * _LOOKED_AT, replace=False))
