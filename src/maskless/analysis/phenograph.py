"""PhenoGraph: clusters of cells that share neighbours, and labels for cells that come later.

Levine et al. 2015, doi:10.1016/j.cell.2015.05.047: nearest neighbours, Jaccard graph, communities
of high modularity, small communities left unknown. The authors used Louvain's algorithm; here it is
Leiden's, which reaches at least the same modularity and whose communities are connected, while
Louvain's may fall apart (Traag et al. 2019, doi:10.1038/s41598-019-41695-z).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from maskless.analysis.assign import vote
from maskless.analysis.jaccard import jaccard_in_order, reorder
from maskless.analysis.leiden import by_falling_size, find_communities
from maskless.analysis.neighbours import (
    Device,
    Neighbours,
    nearest_among,
    nearest_neighbours,
)
from maskless.analysis.parallel import parallel_map
from maskless.errors import InputError

UNKNOWN = -1
_MOST_STARTS = 8
_CELLS_FOR_ALL_STARTS = 100_000
_RUNS = 400
"""Runs of cells that are visited in random order: long ones for the cache, yet enough of them.

Visited in the order of the lists throughout, communities grow along it and end worse."""


class PhenoGraph(NamedTuple):
    """What PhenoGraph found.

    Attributes
    ----------
    labels_n
        int32: 0.. by falling size, -1 in clusters that are too small.
    graph
        (n, n) Jaccard graph, float32, symmetric.
    modularity
        Of all communities, the small ones included.
    """

    labels_n: NDArray[np.int32]
    graph: csr_matrix
    modularity: float


def phenograph(
    points_nd: ArrayLike,
    k: int = 30,
    resolution: float = 1.0,
    min_size: int = 50,
    seed: int = 0,
    power: float = 1.0,
    device: Device = "cpu",
) -> NDArray[np.int32]:
    """Cluster cells; see :func:`phenograph_graph`, which gives the graph as well.

    Returns
    -------
    NDArray
        int32 labels (n,): 0.. by falling size, -1 in clusters of fewer than `min_size` cells.
    """
    return phenograph_graph(
        points_nd, k, resolution, min_size, seed, power=power, device=device
    ).labels_n


def phenograph_graph(
    points_nd: ArrayLike,
    k: int = 30,
    resolution: float = 1.0,
    min_size: int = 50,
    seed: int = 0,
    neighbours: Neighbours | None = None,
    power: float = 1.0,
    device: Device = "cpu",
) -> PhenoGraph:
    """Cluster cells with PhenoGraph and keep the graph.

    Up to 50,000 cells the best of several starts is taken. The result is the same with any number
    of threads.

    Parameters
    ----------
    points_nd
        n cells in d dimensions, finite; more than `k` cells.
    k
        Nearest neighbours.
    resolution
        Of the modularity: higher gives more clusters.
    min_size
        Cells in smaller clusters become -1.
    seed
        Fixes every random choice.
    neighbours
        At least `k` neighbours of these cells, if they were searched before.
    power
        Jaccard weights are raised to it. 1 is PhenoGraph; 2 lets weak edges between clusters count
        less, which finds more of the small ones and measured better (``benchmarks/README.md``).
    device
        Where neighbours are searched: ``"cuda"`` compares all pairs with cuML (RAPIDS), on an
        NVIDIA GPU. Graph and communities come from the CPU.

    Raises
    ------
    InputError
        As :func:`maskless.analysis.nearest_neighbours`; if `resolution` or `power` is not above
        zero.
    SettingsError
        If `device` is "cuda" and cuML or a GPU is missing.
    """
    if not resolution > 0:
        raise InputError("the resolution must be above zero", found=resolution)
    if not power > 0:
        raise InputError("the power of the weights must be above zero", found=power)
    if neighbours is None:
        neighbours = nearest_neighbours(points_nd, k, seed=seed, device=device)
    elif neighbours.n != len(np.asarray(points_nd)):
        raise InputError(
            "the neighbours are those of other cells",
            expected=len(np.asarray(points_nd)),
            found=neighbours.n,
        )
    neighbours = neighbours.first(k)
    order = neighbours.order_n
    if order is None:
        order = np.arange(neighbours.n, dtype=np.int32)
    graph = jaccard_in_order(neighbours, power)
    found, quality = best_communities(graph, resolution, seed)
    communities = np.empty_like(found)
    communities[order] = found
    labels = by_falling_size(communities)
    sizes = np.bincount(labels)
    labels[sizes[labels] < min_size] = UNKNOWN
    return PhenoGraph(labels, reorder(graph, order), quality)


def divide(
    points_nd: ArrayLike,
    k: int = 30,
    resolution: float = 1.0,
    min_size: int = 50,
    seed: int = 0,
    power: float = 1.0,
    on_step: Callable[[float, str], None] | None = None,
) -> NDArray[np.int32]:
    """PhenoGraph on the cells of one group, which may take long: says what it is doing.

    Parameters
    ----------
    points_nd
        The cells of the group.
    k, resolution, min_size, seed, power
        As of :func:`phenograph_graph`.
    on_step
        Is told the share that is done, and what comes next.

    Returns
    -------
    NDArray
        int32 labels (n,): parts from 0 by falling size, -1 in parts that are too small.
    """
    tell = on_step or (lambda share, step: None)
    tell(0.0, "looking for neighbours")
    neighbours = nearest_neighbours(points_nd, k, seed=seed)
    tell(0.6, "looking for communities")
    return phenograph_graph(points_nd, k, resolution, min_size, seed, neighbours, power).labels_n


def subcluster(
    points_nd: ArrayLike,
    labels_n: ArrayLike,
    of: int | str,
    k: int = 30,
    resolution: float = 1.0,
    min_size: int = 50,
    seed: int = 0,
    power: float = 1.0,
) -> NDArray[np.str_]:
    """Run PhenoGraph again on the cells of one cluster.

    Parameters
    ----------
    points_nd
        All cells.
    labels_n
        Their labels, integers or text.
    of
        The label to divide.
    k, resolution, min_size, seed, power
        As of :func:`phenograph_graph`.

    Returns
    -------
    NDArray
        Labels (n,) as text. Those of `of` become "of.0", "of.1" ... by falling size, or "-1" in
        parts that are too small; all others stay.

    Raises
    ------
    InputError
        If no cell has the label, there are not more such cells than `k`, or there is not one label
        for each cell.
    """
    points, labels = np.asarray(points_nd), np.asarray(labels_n)
    if labels.shape != points.shape[:1] or labels.dtype.kind not in "iuUOS":
        raise InputError(
            "labels must be one integer or text for each cell",
            expected=points.shape[:1],
            found=f"{labels.dtype} of shape {labels.shape}",
        )
    names = labels.astype(str)
    inside = np.flatnonzero(names == str(of))
    if not len(inside):
        raise InputError(
            f"no cell has the label {str(of)!r}",
            do=f"Choose one of {', '.join(sorted(set(names.tolist()))[:20])}",
        )
    parts = divide(points[inside], k, resolution, min_size, seed, power)
    given = names.astype(object)
    given[inside] = [str(UNKNOWN) if part == UNKNOWN else f"{of}.{part}" for part in parts]
    return given.astype(str)


def assign_by_neighbours(
    points_nd: ArrayLike,
    labels_n: ArrayLike,
    new_points_md: ArrayLike,
    k: int = 30,
    seed: int = 0,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Label new cells by the vote of their k nearest labelled ones.

    Parameters
    ----------
    points_nd
        Labelled cells.
    labels_n
        Their integer labels; -1 (unknown) votes like any other.
    new_points_md
        Cells to label.
    k
        Voters. Of labels with equal votes, the one with the nearer voters wins.
    seed
        Of the search for neighbours.

    Returns
    -------
    labels : NDArray
        int32 (m,).
    confidence : NDArray
        float32 (m,): the winner's share of the votes.

    Raises
    ------
    InputError
        If tables do not fit each other, values are not finite, or there are fewer than k cells.
    """
    labels = np.asarray(labels_n)
    if labels.shape != (len(np.asarray(points_nd)),) or labels.dtype.kind not in "iu":
        raise InputError(
            "labels must be one integer for each cell",
            expected=(len(np.asarray(points_nd)),),
            found=f"{labels.dtype} of shape {labels.shape}",
        )
    voters = nearest_among(points_nd, new_points_md, k, seed=seed)
    names, numbers = np.unique(labels, return_inverse=True)
    voted_mk = numbers[voters.indices_nk]
    # The bonuses of all k voters together are less than one vote.
    vote_k = 1 + np.arange(k, 0, -1) / (k * (k + 1))
    winner, _ = vote(voted_mk, np.broadcast_to(vote_k, voted_mk.shape), len(names))
    confidence = (voted_mk == winner[:, None]).mean(axis=1, dtype=np.float32)
    return names[winner].astype(np.int32), confidence


def best_communities(
    graph: csr_matrix, resolution: float, seed: int, starts: int | None = None
) -> tuple[NDArray[np.int32], float]:
    """Take the highest modularity of some starts: of 8 for few cells down to 1 for many.

    Near cells should have near rows (:func:`maskless.analysis.jaccard.jaccard_in_order`).
    """
    if starts is None:
        starts = min(_MOST_STARTS, max(1, _CELLS_FOR_ALL_STARTS // max(1, graph.shape[0])))
    seeds = np.random.SeedSequence(seed).generate_state(starts)
    run = max(1, graph.shape[0] // _RUNS)
    results = parallel_map(
        lambda i: find_communities(graph, resolution, int(seeds[i]), 2, run=run),
        range(starts),
        "communities",
    )
    return max(results, key=lambda result: result[1])  # the first of equal ones
