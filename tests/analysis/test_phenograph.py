"""PhenoGraph as a whole: planted clusters, seeds, threads, labels for later cells."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from maskless.analysis import (
    assign_by_neighbours,
    jaccard_graph,
    modularity,
    nearest_neighbours,
    phenograph,
    phenograph_graph,
)
from maskless.errors import InputError


def planted(
    sizes: list[int], dimensions: int = 20, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centres = np.random.default_rng(99).normal(0, 3, (len(sizes), dimensions))
    points = centres[truth] + rng.normal(size=(len(truth), dimensions))
    return points.astype(np.float32), truth


def test_planted_clusters_are_recovered() -> None:
    points, truth = planted([500, 300, 200, 100, 20])
    labels = phenograph(points, k=15)
    assert labels.dtype == np.int32
    unknown = labels == -1
    np.testing.assert_array_equal(unknown, truth == 4)  # 20 cells: fewer than min_size
    np.testing.assert_array_equal(labels[~unknown], truth[~unknown])  # by falling size
    assert phenograph(points, k=15, min_size=1).max() == 4


def test_graph_and_modularity_belong_together() -> None:
    points, _ = planted([200, 200, 100])
    found = phenograph_graph(points, k=10, min_size=1, seed=2)
    expected = jaccard_graph(nearest_neighbours(points, 10))
    assert (found.graph != expected).nnz == 0
    assert found.modularity == pytest.approx(modularity(found.graph, found.labels_n), abs=1e-9)


def test_given_neighbours_are_used() -> None:
    points, _ = planted([200, 100])
    more = nearest_neighbours(points, 30)
    np.testing.assert_array_equal(
        phenograph_graph(points, k=12, neighbours=more).labels_n, phenograph(points, k=12)
    )
    with pytest.raises(InputError, match="other cells"):
        phenograph_graph(points[1:], k=12, neighbours=more)


def test_same_seed_same_labels_with_any_number_of_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    points = np.random.default_rng(1).normal(size=(3000, 6)).astype(np.float32)
    lists = [nearest_neighbours(points, 10, exact=exact) for exact in (True, False)]
    for neighbours in lists:
        results = []
        for threads in ("1", "2"):
            monkeypatch.setenv("OMP_NUM_THREADS", threads)
            found = phenograph_graph(points, k=10, seed=5, neighbours=neighbours)
            results.append(found.labels_n)
        np.testing.assert_array_equal(*results)


def test_order_of_rows_matters_little_when_clusters_are_clear() -> None:
    points, truth = planted([400, 300, 200])
    turned = np.random.default_rng(0).permutation(len(points))
    labels = phenograph(points[turned], k=20)
    assert adjusted_rand_score(truth[turned], labels) == 1.0


def test_fewer_cells_than_neighbours() -> None:
    with pytest.raises(InputError, match="fewer cells"):
        phenograph(np.zeros((30, 4)), k=30)
    with pytest.raises(InputError, match="resolution"):
        phenograph(np.zeros((40, 4)), k=30, resolution=0)


def test_cells_in_one_place() -> None:
    labels = phenograph(np.zeros((200, 4)), k=8)
    assert len(labels) == 200
    assert set(labels.tolist()) <= set(range(-1, 200))


def test_later_cells_get_the_labels_of_their_neighbours() -> None:
    points, truth = planted([300, 200, 100])
    later, later_truth = planted([30, 20, 10], seed=5)
    labels, confidence = assign_by_neighbours(points, truth, later, k=9)
    np.testing.assert_array_equal(labels, later_truth)
    assert labels.dtype == np.int32
    assert confidence.dtype == np.float32
    assert confidence.min() > 0.9


def test_vote_and_confidence() -> None:
    points = np.array([[0.0], [1.0], [2.0], [3.0]])
    labels, confidence = assign_by_neighbours(points, [7, 7, -1, -1], [[-1.0], [2.9], [1.4]], k=4)
    np.testing.assert_array_equal(labels, [7, -1, 7])  # equal votes: the nearer voters win
    np.testing.assert_allclose(confidence, 0.5)
    labels, confidence = assign_by_neighbours(points, [7, 7, -1, -1], [[1.6]], k=3)
    np.testing.assert_array_equal(labels, [-1])
    np.testing.assert_allclose(confidence, 2 / 3)
    with pytest.raises(InputError, match="one integer"):
        assign_by_neighbours(points, [1, 2], points, k=1)
    empty = assign_by_neighbours(points, [7, 7, -1, -1], np.zeros((0, 1)), k=2)
    assert [len(part) for part in empty] == [0, 0]
