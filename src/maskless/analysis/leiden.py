"""Communities of a weighted graph by the Leiden algorithm, serial, seeded and reproducible.

Traag, Waltman & van Eck 2019, doi:10.1038/s41598-019-41695-z, for modularity with a resolution:

    Q = sum_ij (A_ij - resolution * k_i k_j / 2m) [c_i = c_j] / 2m
    k_i = sum_j A_ij,  2m = sum_i k_i

One iteration moves nodes between communities until none gains, refines each community into
well-connected parts, makes the parts nodes, and goes on with those. The refinement takes the best
part instead of a random one. Without refinement this is the Louvain algorithm.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix, issparse

from maskless.analysis.leiden_kernels import (
    connected_parts,
    merge_nodes,
    move_nodes,
    partition_modularity,
    refined_parts,
    renumber,
    strengths_of,
)
from maskless.errors import InputError

_LEAST_RUNS = 64


def leiden(
    graph: csr_matrix,
    resolution: float = 1.0,
    seed: int = 0,
    iterations: int | None = 2,
    refine: bool = True,
    initial: ArrayLike | None = None,
) -> NDArray[np.int32]:
    """Find communities of high modularity.

    Parameters
    ----------
    graph
        (n, n) sparse, symmetric, weights not negative. Nodes without edges are allowed.
    resolution
        Above 1 gives more and smaller communities, below 1 fewer and larger ones.
    seed
        Of the order in which nodes are visited.
    iterations
        At most this many; None: until modularity rises no more.
    refine
        Leiden if True (communities are connected), Louvain if False.
    initial
        Labels to start from; each node alone if None.

    Returns
    -------
    NDArray
        int32 labels (n,), 0.. by falling size (ties: the lowest member first).

    Raises
    ------
    InputError
        If the graph is not square and symmetric with finite weights of at least zero.
    """
    checked = _check_graph(graph)
    start = None
    if initial is not None:
        start = np.unique(_check_labels(initial, checked.shape[0]), return_inverse=True)[1]
    return by_falling_size(
        find_communities(checked, resolution, seed, iterations, refine, start)[0]
    )


def modularity(graph: csr_matrix, labels: ArrayLike, resolution: float = 1.0) -> float:
    """Compute the weighted modularity of a partition (0 for a graph without edges).

    Parameters
    ----------
    graph
        (n, n) sparse, symmetric, weights not negative.
    labels
        (n,) integers; each value is a community, negative ones too.
    resolution
        As of :func:`leiden`.
    """
    checked = _check_graph(graph)
    given = _check_labels(labels, checked.shape[0])
    numbers = np.unique(given, return_inverse=True)[1].astype(np.int32)
    return float(
        partition_modularity(
            checked.indptr, checked.indices, checked.data, numbers, float(resolution)
        )
    )


def by_falling_size(labels_n: NDArray[Any]) -> NDArray[np.int32]:
    """Number communities 0.. by falling size, of equal ones that with the lowest member first."""
    _, first, numbers, sizes = np.unique(
        labels_n, return_index=True, return_inverse=True, return_counts=True
    )
    rank = np.empty(len(sizes), np.int32)
    rank[np.lexsort((first, -sizes))] = np.arange(len(sizes), dtype=np.int32)
    return rank[numbers]


def find_communities(
    graph: csr_matrix,
    resolution: float,
    seed: int,
    iterations: int | None,
    refine: bool = True,
    initial: NDArray[Any] | None = None,
    run: int = 1,
) -> tuple[NDArray[np.int32], float]:
    """Leiden without checks: labels and their modularity.

    Nodes are visited in random order, but in runs of `run` rows that follow one another: where
    near nodes stand together, this finds more in the processor's cache.
    """
    starts, columns, weights = graph.indptr, graph.indices, graph.data
    strengths = strengths_of(starts, weights)
    n, total = len(strengths), float(strengths.sum())
    labels = np.arange(n, dtype=np.int32) if initial is None else initial.astype(np.int32)
    if n == 0 or total == 0:
        return labels, 0.0
    quality, done = 0.0, 0
    while iterations is None or done < iterations:
        rng = np.random.default_rng([seed, done])
        found = _iterate(graph, strengths, labels, resolution / total, refine, rng, run)
        reached = float(partition_modularity(starts, columns, weights, found, resolution))
        done += 1
        # The first iteration always counts: it may part communities that hold together by nothing.
        if reached <= quality + 1e-9 and done > 1:
            break
        labels, quality = found, reached
    if done == 0:
        quality = float(partition_modularity(starts, columns, weights, labels, resolution))
    return labels, quality


def _iterate(
    graph: csr_matrix,
    strengths: NDArray[np.float64],
    initial: NDArray[np.int32],
    factor: float,
    refine: bool,
    rng: np.random.Generator,
    run: int,
) -> NDArray[np.int32]:
    """One iteration through all levels, from the partition `initial`; factor = resolution / 2m."""
    starts, columns, weights = graph.indptr, graph.indices, graph.data
    node_of = np.arange(len(strengths), dtype=np.int32)
    labels, _ = renumber(initial)
    while True:
        n = len(strengths)
        order = _visiting_order(n, rng, run)
        move_nodes(starts, columns, weights, strengths, labels, factor, order)
        labels, count = renumber(labels)
        if count == n:
            return np.asarray(labels[node_of])
        parts = labels
        if refine:
            order = _visiting_order(n, rng, run)
            parts, count = renumber(
                refined_parts(starts, columns, weights, strengths, labels, factor, order)
            )
            if count == n:  # nothing merged: merge what is connected
                parts, count = renumber(connected_parts(starts, columns, labels))
                if count == n:
                    return np.asarray(parts[node_of])
        starts, columns, weights = merge_nodes(starts, columns, weights, parts, count)
        strengths = np.bincount(parts, strengths, count).astype(np.float64)
        merged_labels = np.empty(count, np.int32)
        merged_labels[parts] = labels
        labels = merged_labels
        node_of = parts[node_of]


def _visiting_order(n: int, rng: np.random.Generator, run: int) -> NDArray[np.int32]:
    """Random order of runs of rows; a graph of few nodes has shorter runs."""
    run = max(1, min(run, n // _LEAST_RUNS))
    first = rng.permutation(-(-n // run)) * run
    order = (first[:, None] + np.arange(run)).ravel()
    return order[order < n].astype(np.int32)


def _check_graph(graph: csr_matrix) -> csr_matrix:
    if not issparse(graph) or graph.shape[0] != graph.shape[1]:
        raise InputError("a graph must be a square sparse matrix")
    checked = csr_matrix(graph, dtype=np.float32, copy=True)
    checked.sum_duplicates()
    checked.eliminate_zeros()  # the kernels take an entry for an edge
    if not np.isfinite(checked.data).all() or (checked.data < 0).any():
        raise InputError("the weights of a graph must be finite and not negative")
    difference = abs(checked - checked.T)
    if difference.nnz and difference.max() > 1e-5 * checked.data.max():
        raise InputError("the graph is not symmetric", do="Use (graph + graph.T) / 2")
    return checked


def _check_labels(labels: ArrayLike, n: int) -> NDArray[Any]:
    given = np.asarray(labels)
    if given.shape != (n,) or given.dtype.kind not in "iu":
        raise InputError(
            "labels must be one integer for each node", expected=(n,), found=given.shape
        )
    return given
