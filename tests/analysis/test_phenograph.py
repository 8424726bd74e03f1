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
    subcluster,
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


def test_power_of_weights_reaches_the_graph() -> None:
    points, _ = planted([200, 200, 100])
    found = phenograph_graph(points, k=10, power=2)
    assert (found.graph != jaccard_graph(nearest_neighbours(points, 10), power=2)).nnz == 0


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
    with pytest.raises(InputError, match="power"):
        phenograph(np.zeros((40, 4)), k=30, power=0)


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


def test_subclusters_of_one_cluster() -> None:
    points, truth = planted([300, 200, 150])
    coarse = np.where(truth == 2, 7, 3)  # types 0 and 1 as one cluster
    labels = subcluster(points, coarse, 3, resolution=0.4)
    expected = np.array(["3.0", "3.1", "7"])[truth]
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(
        subcluster(points, coarse.astype(str), "3", resolution=0.4), expected
    )
    small = subcluster(points, coarse, 3, resolution=0.4, min_size=250)
    np.testing.assert_array_equal(small, np.array(["3.0", "-1", "7"])[truth])
    again = subcluster(points, labels, "3.1", k=15, min_size=1)
    np.testing.assert_array_equal(again[truth != 1], expected[truth != 1])
    assert all(name.startswith("3.1.") for name in again[truth == 1])


def test_bad_subclusters_are_told() -> None:
    points, truth = planted([60, 20])
    with pytest.raises(InputError, match="no cell has the label '5'"):
        subcluster(points, truth, 5)
    with pytest.raises(InputError, match=r"fewer cells \(20\)"):
        subcluster(points, truth, 1)
    with pytest.raises(InputError, match="one integer or text"):
        subcluster(points, truth[1:], 1)
