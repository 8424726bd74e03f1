"""The Jaccard graph, beside sets of neighbours compared one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from maskless.analysis import Neighbours, jaccard_graph, nearest_neighbours


def by_sets(indices: NDArray[np.int32]) -> NDArray[np.float64]:
    n = len(indices)
    sets = [set(row.tolist()) for row in indices]
    directed = np.zeros((n, n))
    for i in range(n):
        for j in sets[i]:
            directed[i, j] = len(sets[i] & sets[j]) / len(sets[i] | sets[j])
    return (directed + directed.T) / 2


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 40), seed=st.integers(0, 1000), ordered=st.booleans(), data=st.data())
def test_graph_equals_sets(n: int, seed: int, ordered: bool, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, n - 1))
    rng = np.random.default_rng(seed)
    indices = np.array(
        [rng.permutation(np.delete(np.arange(n), i))[:k] for i in range(n)], dtype=np.int32
    )
    order = rng.permutation(n).astype(np.int32) if ordered else None
    graph = jaccard_graph(Neighbours(indices, np.ones((n, k), np.float32), order))
    assert graph.dtype == np.float32
    assert graph.has_canonical_format
    assert (graph.data > 0).all()
    np.testing.assert_allclose(graph.toarray(), by_sets(indices), rtol=1e-6)


def test_cells_that_are_everybody_s_neighbour() -> None:
    n = 700  # rows 0 to 2 get n - 3 entries and more
    indices = np.array([[j for j in range(4) if j != i][:3] for i in range(n)], np.int32)
    order = np.random.default_rng(0).permutation(n).astype(np.int32)
    graph = jaccard_graph(Neighbours(indices, np.ones((n, 3), np.float32), order))
    assert graph.has_canonical_format
    np.testing.assert_allclose(graph.toarray(), by_sets(indices), rtol=1e-6)


def test_power_of_weights() -> None:
    points = np.random.default_rng(0).normal(size=(300, 5))
    found = nearest_neighbours(points, 12)
    both = found.indices_nk[:, :, None] == np.arange(300)
    mutual = both.any(1) & both.any(1).T
    plain, squared = jaccard_graph(found).toarray(), jaccard_graph(found, power=2).toarray()
    np.testing.assert_allclose(squared[mutual], plain[mutual] ** 2, rtol=1e-5)
    np.testing.assert_allclose(squared[~mutual], 2 * plain[~mutual] ** 2, rtol=1e-5)


@pytest.mark.parametrize("exact", [True, False])
def test_graph_of_points(exact: bool) -> None:
    points = np.random.default_rng(0).normal(size=(900, 5))
    found = nearest_neighbours(points, 12, exact=exact)
    np.testing.assert_allclose(jaccard_graph(found).toarray(), by_sets(found.indices_nk), rtol=1e-6)
