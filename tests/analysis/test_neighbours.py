"""The search for neighbours, beside every pair compared in double precision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from maskless.analysis import Neighbours, check_recall, nearest_among, nearest_neighbours
from maskless.errors import InputError


def blobs(n: int, dimensions: int, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 2, (12, dimensions))
    return (centres[rng.integers(0, 12, n)] + rng.normal(size=(n, dimensions))).astype(np.float32)


def by_all_pairs(points: NDArray[np.float32], k: int, metric: str) -> NDArray[np.float64]:
    distances = cdist(points.astype(float), points.astype(float), metric)
    np.fill_diagonal(distances, np.inf)
    return np.sort(distances, axis=1)[:, :k]


def assert_sound(found: Neighbours, n: int, k: int) -> None:
    assert found.indices_nk.shape == found.distances_nk.shape == (n, k)
    assert found.indices_nk.dtype == np.int32
    assert found.distances_nk.dtype == np.float32
    assert found.indices_nk.min() >= 0
    assert found.indices_nk.max() < n
    assert not (found.indices_nk == np.arange(n)[:, None]).any()
    for row, distances in zip(found.indices_nk, found.distances_nk, strict=True):
        assert len(set(row.tolist())) == k
        pairs = list(zip(distances.tolist(), row.tolist(), strict=True))
        assert pairs == sorted(pairs)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("dimensions", [1, 3, 40])
def test_exact_search_equals_all_pairs(metric: str, dimensions: int) -> None:
    points = blobs(700, dimensions) + 100  # far from the origin: centring must not matter
    found = nearest_neighbours(points, 9, metric)  # type: ignore[arg-type]
    assert_sound(found, 700, 9)
    np.testing.assert_allclose(
        found.distances_nk, by_all_pairs(points, 9, metric), rtol=1e-3, atol=1e-6
    )


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(2, 40),
    dimensions=st.integers(1, 4),
    seed=st.integers(0, 1000),
    exact=st.booleans(),
    data=st.data(),
)
def test_any_points_even_with_many_equal_ones(
    n: int, dimensions: int, seed: int, exact: bool, data: st.DataObject
) -> None:
    points = np.random.default_rng(seed).integers(0, 3, (n, dimensions)).astype(np.float32)
    k = data.draw(st.integers(1, n - 1))
    found = nearest_neighbours(points, k, exact=exact)
    assert_sound(found, n, k)
    np.testing.assert_allclose(
        found.distances_nk, by_all_pairs(points, k, "euclidean"), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("dimensions", [5, 64, 200])
def test_lists_find_nearly_all(dimensions: int) -> None:
    points = blobs(6000, dimensions)
    found = nearest_neighbours(points, 15, exact=False)
    assert_sound(found, 6000, 15)
    assert check_recall(points, found, sample=300) > 0.98
    true = nearest_neighbours(points, 15, exact=True)
    shared = [
        len(np.intersect1d(a, b)) for a, b in zip(found.indices_nk, true.indices_nk, strict=True)
    ]
    assert np.mean(shared) / 15 > 0.98


def test_recall_is_low_for_wrong_neighbours() -> None:
    points = blobs(500, 8)
    true = nearest_neighbours(points, 5)
    assert check_recall(points, true) == 1.0
    far = Neighbours(true.indices_nk, true.distances_nk * 3)
    assert check_recall(points, far) < 0.1


def test_lists_of_equal_points() -> None:
    points = np.zeros((5000, 6), np.float32)
    points[:10] = np.eye(10, 6)
    found = nearest_neighbours(points, 4, exact=False)
    assert_sound(found, 5000, 4)
    assert (found.distances_nk[10:] == 0).all()


def test_result_does_not_depend_on_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    points = blobs(4000, 30)
    results = []
    for threads in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        results.append(nearest_neighbours(points, 10, exact=False, seed=3))
    first, second = results
    np.testing.assert_array_equal(first.indices_nk, second.indices_nk)
    np.testing.assert_array_equal(first.distances_nk, second.distances_nk)


@pytest.mark.parametrize("exact", [True, False])
def test_neighbours_among_others(exact: bool) -> None:
    points, queries = blobs(4000, 20), blobs(300, 20, seed=1)
    found = nearest_among(points, queries, 6, exact=exact)
    true = np.sort(cdist(queries, points), axis=1)[:, :6]
    share = (found.distances_nk <= true[:, -1:] * (1 + 1e-5)).mean()
    assert share == 1 if exact else share > 0.98
    own = nearest_among(points, points[:50], 1, exact=exact)
    assert (own.indices_nk[:, 0] == np.arange(50)).all()


def test_more_queries_than_points() -> None:
    points, queries = blobs(100, 5), blobs(900, 5, seed=1)
    found = nearest_among(points, queries, 4)
    true = np.sort(cdist(queries, points), axis=1)[:, :4]
    np.testing.assert_allclose(found.distances_nk, true, rtol=1e-4)


def test_order_is_a_permutation() -> None:
    order = nearest_neighbours(blobs(3000, 10), 5, exact=False).order_n
    assert order is not None
    np.testing.assert_array_equal(np.sort(order), np.arange(3000))


def test_first_neighbours() -> None:
    found = nearest_neighbours(blobs(50, 3), 8)
    np.testing.assert_array_equal(found.first(3).indices_nk, found.indices_nk[:, :3])
    with pytest.raises(InputError, match="too few neighbours"):
        found.first(9)


def test_bad_input_is_told() -> None:
    points = blobs(20, 3)
    with pytest.raises(InputError, match=r"fewer cells \(20\) than neighbours \(20\)"):
        nearest_neighbours(points, 20)
    with pytest.raises(InputError, match="1 or more"):
        nearest_neighbours(points, 0)
    with pytest.raises(InputError, match="table of numbers"):
        nearest_neighbours(points[:, 0], 3)
    with pytest.raises(InputError, match="metric"):
        nearest_neighbours(points, 3, "manhattan")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="dimensions"):
        nearest_among(points, points[:, :2], 3)
    with pytest.raises(InputError, match="fewer cells"):
        nearest_among(points, points, 21)
    for bad in (np.nan, np.inf, 1e30):
        points[7, 1] = bad
        with pytest.raises(InputError, match="row 7"):
            nearest_neighbours(points, 3)
    points[7] = 0
    with pytest.raises(InputError, match="no direction"):
        nearest_neighbours(points, 3, "cosine")
