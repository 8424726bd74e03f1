"""PhenoGraph's graph: cells joined to their neighbours, weighted by how many neighbours they share.

Levine et al. 2015, doi:10.1016/j.cell.2015.05.047. With N(i) the k neighbours of i, the edge from
i to each j in N(i) weighs J(i, j) = |N(i) & N(j)| / |N(i) | N(j)|; edges of weight zero are dropped
and the graph is the mean of itself and its transpose. J is symmetric, so an edge in both
directions keeps J, one in a single direction gets J / 2: no transpose is needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from maskless.analysis.neighbours import Neighbours
from maskless.analysis.parallel import parallel_map, row_ranges
from maskless.threads import thread_count


def jaccard_graph(neighbours: Neighbours) -> csr_matrix:
    """Build the symmetric Jaccard graph of cells and their neighbours.

    Parameters
    ----------
    neighbours
        k neighbours of each of n cells; distances are not used.

    Returns
    -------
    csr_matrix
        (n, n), float32, symmetric, weights in (0, 1], sorted indices.
    """
    order = neighbours.order_n
    graph = jaccard_in_order(neighbours)
    return reorder(graph, np.arange(neighbours.n, dtype=np.int32) if order is None else order)


def jaccard_in_order(neighbours: Neighbours) -> csr_matrix:
    """Build the same graph with its rows in the neighbours' own order, indices not sorted.

    Row r of it is the cell ``neighbours.order_n[r]``.
    """
    indices = np.ascontiguousarray(neighbours.indices_nk, np.int32)
    n, k = indices.shape
    if neighbours.order_n is not None:
        place = np.empty(n, np.int32)
        place[neighbours.order_n] = np.arange(n, dtype=np.int32)
        indices = place[indices[neighbours.order_n]]
    shared = np.empty((n, k), np.int16)
    mutual = np.empty((n, k), np.bool_)
    parallel_map(
        lambda rows: _count_shared(indices, shared, mutual, *rows),
        row_ranges(n, max(8192, n // (4 * thread_count()))),
    )
    starts, columns, weights = _join(indices, shared, mutual)
    return csr_matrix((weights, columns, starts), shape=(n, n))


def reorder(graph: csr_matrix, order_n: NDArray[np.int32]) -> csr_matrix:
    """Move row and column r of a symmetric graph to ``order_n[r]``, with sorted indices."""
    starts, columns, weights = _reorder(
        graph.indptr, graph.indices, graph.data, np.ascontiguousarray(order_n, np.int32)
    )
    moved = csr_matrix((weights, columns, starts), shape=graph.shape)
    moved.has_sorted_indices = True
    return moved


@njit(nogil=True, cache=True)
def _count_shared(  # type: ignore[no-untyped-def]
    indices_nk: NDArray[np.int32],
    shared_nk: NDArray[np.int16],
    mutual_nk: NDArray[np.bool_],
    start: int,
    stop: int,
):
    n, k = indices_nk.shape
    stamp = np.full(n, -1, np.int32)  # stamp[j] == i: j is a neighbour of i
    for i in range(start, stop):
        for s in range(k):
            stamp[indices_nk[i, s]] = i
        for s in range(k):
            others = indices_nk[indices_nk[i, s]]
            count = 0
            mutual = False
            for t in range(k):
                count += stamp[others[t]] == i
                mutual |= others[t] == i
            shared_nk[i, s] = count
            mutual_nk[i, s] = mutual


@njit(nogil=True, cache=True)
def _join(
    indices_nk: NDArray[np.int32], shared_nk: NDArray[np.int16], mutual_nk: NDArray[np.bool_]
) -> Any:
    n, k = indices_nk.shape
    starts = np.zeros(n + 1, np.int64)
    for i in range(n):
        for s in range(k):
            if shared_nk[i, s] > 0:
                starts[i + 1] += 1
                if not mutual_nk[i, s]:
                    starts[indices_nk[i, s] + 1] += 1
    for i in range(n):
        starts[i + 1] += starts[i]
    columns = np.empty(starts[n], np.int32)
    weights = np.empty(starts[n], np.float32)
    place = starts[:-1].copy()
    for i in range(n):
        for s in range(k):
            count = np.int64(shared_nk[i, s])
            if count > 0:
                j = indices_nk[i, s]
                weight = count / (2.0 * k - count)
                if mutual_nk[i, s]:
                    columns[place[i]] = j
                    weights[place[i]] = weight
                    place[i] += 1
                else:
                    columns[place[i]] = j
                    weights[place[i]] = weight / 2
                    place[i] += 1
                    columns[place[j]] = i
                    weights[place[j]] = weight / 2
                    place[j] += 1
    return starts, columns, weights


@njit(nogil=True, cache=True)
def _reorder(
    starts: NDArray[Any],
    columns: NDArray[np.int32],
    weights: NDArray[np.float32],
    order_n: NDArray[np.int32],
) -> Any:
    n = len(order_n)
    place_of = np.empty(n, np.int32)
    new_starts = np.zeros(n + 1, np.int64)
    for r in range(n):
        place_of[order_n[r]] = r
        new_starts[order_n[r] + 1] = starts[r + 1] - starts[r]
    for i in range(n):
        new_starts[i + 1] += new_starts[i]
    place = new_starts[:-1].copy()
    new_columns = np.empty_like(columns)
    new_weights = np.empty_like(weights)
    # Columns are written in rising order into every row: the graph is its own transpose.
    for j in range(n):
        r = place_of[j]
        for e in range(starts[r], starts[r + 1]):
            i = order_n[columns[e]]
            new_columns[place[i]] = j
            new_weights[place[i]] = weights[e]
            place[i] += 1
    return new_starts, new_columns, new_weights
