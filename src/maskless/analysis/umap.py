"""UMAP: a map of cells in two dimensions that keeps their neighbours.

McInnes, Healy & Melville 2018, arXiv:1802.03426: neighbours weighted by
exp(-(d - nearest) / width), joined to a symmetric graph, laid out by stochastic gradient descent
with negative samples. For each use of an edge, umap-learn pulls each end twice (once for each
direction) and pushes it five times; here it is pulled once, and pushed by eight others that count
five eighths each: as strong, with less chance. Made embeddings keep more of their neighbours so
than in umap-learn's maps (benchmarks/umap_layout.py).

An epoch moves the points in several rounds. Within a round each point reads where all others
stood before it, and random numbers belong to fixed blocks of points, so that the map is the same
with any number of threads.
"""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from maskless.analysis.neighbours import Neighbours, nearest_among, nearest_neighbours
from maskless.analysis.parallel import (
    parallel_map,
    row_ranges,
    single_threaded_torch,
)
from maskless.analysis.umap_kernels import (
    BLOCK,
    PUSHES,
    fuzzy_union,
    move_points,
    neighbour_weights,
)
from maskless.config import UmapSettings
from maskless.errors import InputError
from maskless.progress import track
from maskless.threads import thread_count

_NEGATIVES = 5
_ROUNDS = 4
_PLACING_EPOCHS = 30
_PCA_SAMPLE = 25_000


def umap(
    points_nd: ArrayLike,
    settings: UmapSettings | None = None,
    seed: int = 0,
    neighbours: Neighbours | None = None,
) -> NDArray[np.float32]:
    """Map cells to two dimensions.

    At most ``settings.max_cells`` random cells are laid out together; each further cell is placed
    at the weighted mean of its nearest ones among them and moved for a few more epochs.

    Parameters
    ----------
    points_nd
        n cells in d dimensions, finite.
    settings
        Neighbours, least distance, epochs, cells to lay out; None: the defaults.
    seed
        Fixes every random choice.
    neighbours
        Neighbours of all the cells, if they were searched before. Used if there are at least
        ``settings.k`` of them and all cells are laid out together.

    Returns
    -------
    NDArray
        (n, 2) float32.
    """
    settings = settings or UmapSettings()
    points = np.asarray(points_nd)
    n = len(points)
    if neighbours is not None and neighbours.n != n:
        raise InputError("the neighbours are those of other cells", expected=n, found=neighbours.n)
    if n < 2:
        return np.zeros((n, 2), np.float32)
    chosen = np.arange(n)
    if n > settings.max_cells:
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.choice(n, settings.max_cells, replace=False))
        points, rest = points[chosen], np.delete(points, chosen, axis=0)
        neighbours = None
    k = min(settings.k, len(points) - 1)
    if neighbours is None or neighbours.k < k:
        neighbours = nearest_neighbours(points, k, seed=seed)
    laid_out = umap_layout(
        neighbours.first(k),
        initial_n2=principal_map(points, seed),
        min_dist=settings.min_dist,
        epochs=settings.epochs,
        seed=seed,
    )
    if len(chosen) == n:
        return laid_out
    among = nearest_among(points, rest, k, seed=seed)
    mapped = np.empty((n, 2), np.float32)
    is_rest = np.ones(n, np.bool_)
    is_rest[chosen] = False
    mapped[chosen] = laid_out
    mapped[is_rest] = place_among(laid_out, among, settings.min_dist, seed=seed)
    return mapped


def umap_layout(
    neighbours: Neighbours,
    initial_n2: ArrayLike | None = None,
    min_dist: float = 0.1,
    epochs: int = 200,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Lay out cells whose neighbours are known.

    Parameters
    ----------
    neighbours
        k neighbours of each of n cells.
    initial_n2
        Where the cells start (:func:`principal_map`); None: anywhere at random, which loses the
        arrangement of the clusters.
    min_dist
        Least distance of cells in the map, 0 to 3.
    epochs
        Rounds of gradient descent.
    seed
        Of the negative samples, and of the random start.

    Returns
    -------
    NDArray
        (n, 2) float32.

    Raises
    ------
    InputError
        If `initial_n2` does not fit or is not finite, or `min_dist` is out of range.
    """
    n = neighbours.n
    if initial_n2 is None:
        layout = np.random.default_rng(seed).uniform(-10, 10, (n, 2)).astype(np.float32)
    else:
        layout = np.array(initial_n2, np.float32, order="C")
    if layout.shape != (n, 2) or not np.isfinite(layout).all():
        raise InputError(
            "where the cells start must be two finite numbers a cell",
            expected=(n, 2),
            found=layout.shape,
        )
    # Rows in an order that keeps near cells together, every fourth of them for each round: a round
    # reads one stretch of memory and finds most neighbours in the processor's cache.
    order_n = np.arange(n) if neighbours.order_n is None else neighbours.order_n
    order_n = np.concatenate([order_n[turn::_ROUNDS] for turn in range(_ROUNDS)])
    row_n = np.empty(n, np.int32)
    row_n[order_n] = np.arange(n, dtype=np.int32)
    weights_nk = _weights(neighbours)[order_n]
    starts, columns, weights = fuzzy_union(row_n[neighbours.indices_nk[order_n]], weights_nk)
    chances = _chances(weights, epochs)
    heads = layout[order_n]
    _descend(starts, columns, chances, heads, heads, min_dist, 1.0, epochs, _ROUNDS, seed)
    layout[order_n] = heads
    return layout


def place_among(
    laid_out_n2: NDArray[np.float32],
    among: Neighbours,
    min_dist: float = 0.1,
    epochs: int = _PLACING_EPOCHS,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Place further cells in a map, which does not change.

    Parameters
    ----------
    laid_out_n2
        The map, (n, 2) float32.
    among
        Nearest of the n cells for each further cell (:func:`nearest_among`).
    min_dist, epochs, seed
        As of :func:`umap_layout`.

    Returns
    -------
    NDArray
        (m, 2) float32.
    """
    weights = _weights(among)
    share = weights / weights.sum(axis=1, keepdims=True)
    placed: NDArray[np.float32] = np.empty((among.n, 2), np.float32)
    np.einsum("mk,mkc->mc", share, laid_out_n2[among.indices_nk], out=placed)
    starts = np.arange(among.n + 1, dtype=np.int64) * among.k
    chances = _chances(weights.ravel(), epochs)
    columns = np.ascontiguousarray(among.indices_nk).ravel()
    # A tenth of the first step: the cells are nearly where they belong.
    _descend(starts, columns, chances, placed, laid_out_n2, min_dist, 0.1, epochs, 1, seed)
    return placed


def principal_map(points_nd: ArrayLike, seed: int = 0) -> NDArray[np.float32]:
    """Map cells by their two first principal components, scaled to +-10, for UMAP to start from.

    The sign is such that the component's largest loading is positive. A little noise parts cells
    in the same place.
    """
    points = np.asarray(points_nd, np.float32)
    n = len(points)
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(n, min(n, _PCA_SAMPLE), replace=False))
    mapped = np.zeros((n, 2), np.float32)
    with single_threaded_torch():
        sample = torch.from_numpy(points[rows]).double()
        mean = sample.mean(0)
        sample -= mean
        axes = torch.linalg.eigh(sample.T @ sample)[1].flip(1)[:, :2]
        largest = axes.abs().argmax(0)
        axes = axes * axes[largest, torch.arange(axes.shape[1])].sign()
        shift, narrow = (mean @ axes).float(), axes.float()
        for start, stop in row_ranges(n, 65_536):
            block = torch.from_numpy(points[start:stop]) @ narrow - shift
            mapped[start:stop, : axes.shape[1]] = block.numpy()
    extent = float(np.abs(mapped).max()) if n else 0.0
    if extent > 0:
        mapped *= np.float32(10 / extent)
    return mapped + rng.normal(0, 1e-4, mapped.shape).astype(np.float32)


@functools.cache
def curve_of(min_dist: float) -> tuple[float, float]:
    """Fit a and b of 1 / (1 + a d**(2 b)) to the wanted fall-off of nearness, as umap-learn does.

    Raises
    ------
    InputError
        If `min_dist` is not between 0 and 3 (three times UMAP's spread of 1).
    """
    from scipy.optimize import curve_fit

    if not 0 <= min_dist < 3:
        raise InputError("min_dist must be at least 0 and below 3", found=min_dist)
    distance = np.linspace(0, 3, 300)
    wanted = np.where(distance < min_dist, 1.0, np.exp(min_dist - distance))
    (a, b), _ = curve_fit(lambda d, a, b: 1 / (1 + a * d ** (2 * b)), distance, wanted)
    return float(a), float(b)


def _weights(neighbours: Neighbours) -> NDArray[np.float32]:
    weights = np.empty_like(neighbours.distances_nk)
    mean = float(neighbours.distances_nk.mean(dtype=np.float64)) if neighbours.n else 0.0
    parallel_map(
        lambda rows: neighbour_weights(neighbours.distances_nk, weights, mean, *rows),
        row_ranges(neighbours.n, 16_384),
    )
    return weights


def _chances(weights: NDArray[np.float32], epochs: int) -> NDArray[np.float32]:
    """Share of the epochs in which each edge is used; edges used less than once are dropped."""
    chances = (weights / weights.max()).astype(np.float32) if len(weights) else weights
    chances[chances < 1 / epochs] = 0
    return chances


def _force_tables(min_dist: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Attraction and repulsion by the upper 16 bits of the squared distance as float32."""
    a, b = curve_of(min_dist)
    middle = (np.arange(32_768, dtype=np.uint32) << np.uint32(16)) | np.uint32(0x8000)
    with np.errstate(invalid="ignore"):  # the last patterns are not numbers
        squared = middle.view(np.float32).astype(np.float64)
    squared[~np.isfinite(squared)] = np.finfo(np.float32).max
    power = squared**b
    attraction = -2 * a * b * power / squared / (a * power + 1)
    repulsion = 2 * b / ((0.001 + squared) * (a * power + 1))
    return attraction.astype(np.float32), repulsion.astype(np.float32)


def _descend(
    starts: NDArray[np.int64],
    columns: NDArray[np.int32],
    chances: NDArray[np.float32],
    heads_n2: NDArray[np.float32],
    tails_m2: NDArray[np.float32],
    min_dist: float,
    first_step: float,
    epochs: int,
    rounds: int,
    seed: int,
) -> None:
    """Move `heads_n2`; where heads and tails are one array, the points move each other.

    Each round moves one of so many equal stretches of the heads.
    """
    attraction, repulsion = _force_tables(min_dist)
    weight = np.float32(_NEGATIVES / PUSHES)
    moved_n2 = np.empty_like(heads_n2)
    bounds = [len(heads_n2) * turn // rounds for turn in range(rounds + 1)]
    with ThreadPoolExecutor(thread_count()) as executor:
        for epoch in track(range(epochs), "map (epochs)"):
            step = np.float32(first_step * (1 - epoch / epochs))
            for first, last in pairwise(bounds):

                def move(rows: tuple[int, int], epoch: int = epoch, step: Any = step) -> None:
                    move_points(
                        starts, columns, chances, heads_n2, tails_m2, moved_n2,
                        attraction, repulsion, step, weight, epoch, seed, *rows,
                    )  # fmt: skip

                blocks = -(-(last - first) // BLOCK)
                rows = BLOCK * max(1, blocks // (4 * thread_count()))
                parts = [(first + a, first + b) for a, b in row_ranges(last - first, rows)]
                list(executor.map(move, parts))
                heads_n2[first:last] = moved_n2[first:last]
