"""PhenoGraph's graph: cells joined to their neighbours, weighted by how many neighbours they share.

Levine et al. 2015, doi:10.1016/j.cell.2015.05.047. With N(i) the k neighbours of i, the edge from
i to each j in N(i) weighs J(i, j) = |N(i) & N(j)| / |N(i) | N(j)|; edges of weight zero are dropped
and the graph is the mean of itself and its transpose. J is symmetric, so an edge in both
directions keeps J, one in a single direction gets J / 2: no transpose is needed. J may be raised to
a power first, which lets weak edges count less.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from maskless.analysis.candidates import EMPTY
from maskless.analysis.neighbours import Neighbours
from maskless.analysis.parallel import parallel_map, row_ranges
from maskless.analysis.ranking import insert
from maskless.threads import thread_count

_MOVED_ROWS = 16_384
_LONG_ROW = 256


def jaccard_graph(neighbours: Neighbours, power: float = 1.0) -> csr_matrix:
    """Build the symmetric Jaccard graph of cells and their neighbours.

    Parameters
    ----------
    neighbours
        k neighbours of each of n cells; distances are not used.
    power
        J is raised to it; above 1, weak edges count less.

    Returns
    -------
    csr_matrix
        (n, n), float32, symmetric, weights in (0, 1], sorted indices.
    """
    order = neighbours.order_n
    graph = jaccard_in_order(neighbours, power)
    return reorder(graph, np.arange(neighbours.n, dtype=np.int32) if order is None else order)


def jaccard_in_order(neighbours: Neighbours, power: float = 1.0) -> csr_matrix:
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
    counts = np.arange(k + 1)
    weight_of = ((counts / (2.0 * k - counts)) ** power).astype(np.float32)
    starts, columns, weights = _join(indices, shared, mutual, weight_of)
    return csr_matrix((weights, columns, starts), shape=(n, n))


def reorder(graph: csr_matrix, order_n: NDArray[np.int32]) -> csr_matrix:
    """Move row and column r of a graph to ``order_n[r]``, with sorted indices."""
    n = graph.shape[0]
    order = np.ascontiguousarray(order_n, np.int32)
    starts = np.zeros(n + 1, np.int64)
    starts[1 + order] = np.diff(graph.indptr)
    np.cumsum(starts, out=starts)
    columns, weights = np.empty_like(graph.indices), np.empty_like(graph.data)
    parallel_map(
        lambda rows: _move_rows(
            graph.indptr, graph.indices, graph.data, order, starts, columns, weights, *rows
        ),
        row_ranges(n, _MOVED_ROWS),
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
            other = np.uint32(indices_nk[i, s])
            count = np.int32(0)
            mutual = False
            for t in range(k):
                neighbour = np.uint32(indices_nk[other, t])
                count = np.int32(count + np.int32(stamp[neighbour] == i))
                mutual |= neighbour == i
            shared_nk[i, s] = count
            mutual_nk[i, s] = mutual


@njit(nogil=True, cache=True)
def _join(
    indices_nk: NDArray[np.int32],
    shared_nk: NDArray[np.int16],
    mutual_nk: NDArray[np.bool_],
    weight_of: NDArray[np.float32],
) -> Any:
    """Rows, columns and weights of the graph; `weight_of` so many shared neighbours."""
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
            if shared_nk[i, s] > 0:
                j = indices_nk[i, s]
                weight = weight_of[shared_nk[i, s]]
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
def _move_rows(  # type: ignore[no-untyped-def]
    starts: NDArray[Any],
    columns: NDArray[np.int32],
    weights: NDArray[np.float32],
    order_n: NDArray[np.int32],
    new_starts: NDArray[np.int64],
    new_columns: NDArray[np.int32],
    new_weights: NDArray[np.float32],
    start: int,
    stop: int,
):
    keys = np.empty(_LONG_ROW, np.int64)
    for r in range(start, stop):
        begin, first = starts[r], new_starts[order_n[r]]
        length = starts[r + 1] - begin
        if length > _LONG_ROW:
            moved = order_n[columns[begin : begin + length]]
            for place, e in enumerate(np.argsort(moved)):
                new_columns[first + place] = moved[e]
                new_weights[first + place] = weights[begin + e]
            continue
        for e in range(length):
            end = -8 & (e + 8)
            if e % 8 == 0:
                keys[e:end] = EMPTY
            column = order_n[np.uint32(columns[begin + e])]
            insert(keys[:end], (np.int64(column) << 32) | e)
        for place in range(length):
            new_columns[first + place] = keys[place] >> 32
            new_weights[first + place] = weights[begin + np.uint32(keys[place])]
