"""Communities: what the algorithm guarantees, and planted ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix, random_array
from scipy.sparse.csgraph import connected_components
from sklearn.metrics import adjusted_rand_score

from maskless.analysis import leiden, modularity
from maskless.errors import InputError


def random_graph(n: int, density: float, seed: int) -> csr_matrix:
    half = random_array((n, n), density=density, rng=np.random.default_rng(seed))
    return csr_matrix(half + half.T, dtype=np.float32)


def planted_graph(sizes: list[int], inside: float, outside: float, seed: int) -> csr_matrix:
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    chance = np.where(truth[:, None] == truth[None], inside, outside)
    upper = np.triu(rng.random(chance.shape) < chance, 1).astype(np.float32)
    return csr_matrix(upper + upper.T)


def dense_modularity(graph: csr_matrix, labels: NDArray[np.int32], resolution: float) -> float:
    adjacency = graph.toarray().astype(float)
    strength = adjacency.sum(1)
    total = strength.sum()
    same = labels[:, None] == labels[None]
    expected = resolution * np.outer(strength, strength) / total
    return float(((adjacency - expected) * same).sum() / total)


def ring_of_cliques(cliques: int, size: int) -> csr_matrix:
    rows, columns = [], []
    for c in range(cliques):
        members = range(c * size, (c + 1) * size)
        pairs = [(i, j) for i in members for j in members if i < j]
        pairs.append((c * size, (c + 1) * size % (cliques * size) + 1))
        rows += [p[0] for p in pairs]
        columns += [p[1] for p in pairs]
    half = coo_matrix(
        (np.ones(len(rows), np.float32), (rows, columns)), shape=(cliques * size,) * 2
    )
    return csr_matrix(half + half.T)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 60),
    density=st.floats(0, 0.3),
    seed=st.integers(0, 1000),
    resolution=st.floats(0.1, 4),
)
def test_laws(n: int, density: float, seed: int, resolution: float) -> None:
    graph = random_graph(n, density, seed)
    labels = leiden(graph, resolution, seed)
    assert labels.dtype == np.int32
    sizes = np.bincount(labels)
    assert (sizes > 0).all()
    assert (np.diff(sizes) <= 0).all()
    for label in range(len(sizes)):
        inside = graph[labels == label][:, labels == label]
        assert connected_components(inside)[0] == 1
    np.testing.assert_array_equal(labels, leiden(graph, resolution, seed))
    if graph.nnz:
        quality = modularity(graph, labels, resolution)
        assert quality == pytest.approx(dense_modularity(graph, labels, resolution), abs=1e-6)
        assert quality >= modularity(graph, np.arange(n), resolution) - 1e-6


@pytest.mark.parametrize("refine", [True, False])
def test_modularity_never_falls_between_iterations(refine: bool) -> None:
    graph = random_graph(300, 0.02, 1)
    labels, quality = np.arange(300), -1.0
    for seed in range(6):
        labels = leiden(graph, seed=seed, iterations=1, refine=refine, initial=labels)
        reached = modularity(graph, labels)
        assert reached >= quality - 1e-7
        quality = reached
    assert leiden(graph, iterations=None).max() > 0


@pytest.mark.parametrize("refine", [True, False])
def test_planted_communities_are_found(refine: bool) -> None:
    sizes = [200, 150, 100, 60, 40]
    truth = np.repeat(np.arange(5), sizes)
    graph = planted_graph(sizes, 0.25, 0.01, 0)
    labels = leiden(graph, refine=refine)
    assert adjusted_rand_score(truth, labels) > 0.98
    assert modularity(graph, labels) >= modularity(graph, truth) - 1e-3


def test_best_partition_of_cliques_is_exact() -> None:
    labels = leiden(ring_of_cliques(12, 6), iterations=None)
    truth = np.repeat(np.arange(12), 6)
    assert adjusted_rand_score(truth, labels) == 1.0


def test_higher_resolution_gives_more_communities() -> None:
    graph = random_graph(300, 0.03, 2)
    counts = [leiden(graph, resolution).max() + 1 for resolution in (0.3, 1.0, 3.0)]
    assert counts[0] < counts[1] < counts[2]


def test_a_start_is_improved_and_bad_starts_are_left() -> None:
    graph = planted_graph([80, 80], 0.3, 0.01, 3)
    truth = np.repeat([0, 1], 80)
    together = leiden(graph, initial=np.zeros(160, int))
    assert adjusted_rand_score(truth, together) == 1.0
    kept = leiden(graph, initial=truth + 7)
    assert modularity(graph, kept) >= modularity(graph, truth) - 1e-7


def test_disconnected_and_isolated_nodes() -> None:
    graph = planted_graph([30, 30], 0.5, 0.0, 4)
    wider = csr_matrix(
        (graph.data, graph.indices, [*graph.indptr, *[graph.indptr[-1]] * 5]), (65, 65)
    )
    labels = leiden(wider)
    assert labels.max() + 1 == 7
    assert (np.bincount(labels)[2:] == 1).all()
    # disconnected nodes that start as one community are parted
    parted = leiden(wider, initial=np.zeros(65, int))
    np.testing.assert_array_equal(np.bincount(parted), [30, 30, 1, 1, 1, 1, 1])


@pytest.mark.parametrize("n", [0, 1, 5])
def test_graph_without_edges(n: int) -> None:
    graph = csr_matrix((n, n), dtype=np.float32)
    np.testing.assert_array_equal(leiden(graph), np.arange(n))
    assert modularity(graph, np.arange(n)) == 0.0


def test_bad_graphs_are_told() -> None:
    with pytest.raises(InputError, match="square"):
        leiden(csr_matrix((3, 4)))
    with pytest.raises(InputError, match="symmetric"):
        leiden(csr_matrix(np.triu(np.ones((3, 3)))))
    with pytest.raises(InputError, match="negative"):
        leiden(csr_matrix(-np.ones((3, 3))))
    with pytest.raises(InputError, match="one integer"):
        modularity(csr_matrix(np.ones((3, 3))), np.zeros(2, int))
