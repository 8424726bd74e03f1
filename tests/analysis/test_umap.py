"""The map: neighbours stay near, same seed same map, few and equal cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier

from maskless.analysis import (
    Neighbours,
    nearest_neighbours,
    place_among,
    principal_map,
    umap,
    umap_layout,
)
from maskless.analysis.umap import _force_tables, curve_of
from maskless.analysis.umap_kernels import (
    BLOCK,
    PUSHES,
    _pushes,
    fuzzy_union,
    neighbour_weights,
)
from maskless.config import UmapSettings
from maskless.errors import InputError

QUICK = UmapSettings(epochs=60)


def planted(n: int = 600) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 6, n)
    points = rng.normal(0, 4, (6, 10))[truth] + rng.normal(size=(n, 10))
    return points.astype(np.float32), truth


def kept(map_n2: NDArray[np.float32], points: NDArray[np.float32], k: int = 10) -> float:
    near = nearest_neighbours(map_n2, k).indices_nk
    true = nearest_neighbours(points, k).indices_nk
    return float(np.mean([len(np.intersect1d(a, b)) for a, b in zip(near, true, strict=True)])) / k


def test_clusters_stay_together_and_neighbours_are_kept() -> None:
    points, truth = planted()
    mapped = umap(points, QUICK)
    assert mapped.shape == (600, 2)
    assert mapped.dtype == np.float32
    assert kept(mapped, points) > kept(principal_map(points), points) + 0.05
    score = KNeighborsClassifier(10).fit(mapped[::2], truth[::2]).score(mapped[1::2], truth[1::2])
    assert score > 0.98


def test_same_seed_same_map_with_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    points, _ = planted(2500)
    neighbours = nearest_neighbours(points, 15)
    maps = []
    for threads in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        maps.append(umap_layout(neighbours, principal_map(points), epochs=20, seed=4))
    np.testing.assert_array_equal(*maps)
    other = umap_layout(neighbours, principal_map(points), epochs=20, seed=5)
    assert (other != maps[0]).any()


def test_same_map_with_any_number_of_threads_where_each_has_several_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    n, rng = 10 * BLOCK + 77, np.random.default_rng(0)
    strangers = rng.integers(0, n, (n, 4)).astype(np.int32)
    neighbours = Neighbours(strangers, np.sort(rng.random((n, 4), np.float32), axis=1))
    maps = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        monkeypatch.setattr("maskless.threads.config.NUMBA_NUM_THREADS", int(threads))
        maps.append(umap_layout(neighbours, epochs=3))
    np.testing.assert_array_equal(maps[0], maps[1])
    np.testing.assert_array_equal(maps[0], maps[2])


def test_a_given_order_of_the_cells_does_not_mix_them_up() -> None:
    points, truth = planted()
    found = nearest_neighbours(points, 15)
    order = np.random.default_rng(0).permutation(600).astype(np.int32)
    ordered = Neighbours(found.indices_nk, found.distances_nk, order)
    mapped = umap_layout(ordered, principal_map(points), epochs=60)
    assert kept(mapped, points) > kept(principal_map(points), points) + 0.05
    assert KNeighborsClassifier(10).fit(mapped, truth).score(mapped, truth) > 0.98


def test_pushes_are_those_of_the_table() -> None:
    rng = np.random.default_rng(0)
    pool = rng.normal(size=(2, 30)).astype(np.float32)
    x, y = np.float32(0.3), np.float32(-0.2)
    _, repulsion = _force_tables(0.1)
    dx, dy = x - pool[0, 5 : 5 + PUSHES], y - pool[1, 5 : 5 + PUSHES]
    force = repulsion[(dx * dx + dy * dy).view(np.uint32) >> 16]
    expected = [np.clip(force * along, -4, 4).sum() for along in (dx, dy)]

    @njit
    def pushes(x: Any, y: Any, repulsion: Any, pool_x: Any, pool_y: Any) -> Any:
        return _pushes(pool_x, pool_y, np.uint64(5), x, y, repulsion)

    np.testing.assert_allclose(pushes(x, y, repulsion, pool[0], pool[1]), expected, rtol=1e-5)


def test_cells_beyond_the_limit_are_placed_among_the_others() -> None:
    points, truth = planted(1200)
    settings = UmapSettings(epochs=60, max_cells=400)
    mapped = umap(points, settings, seed=1)
    np.testing.assert_array_equal(mapped, umap(points, settings, seed=1))
    chosen = np.sort(np.random.default_rng(1).choice(1200, 400, replace=False))
    rest = np.delete(np.arange(1200), chosen)
    np.testing.assert_array_equal(mapped[chosen], umap(points[chosen], QUICK, seed=1))
    score = KNeighborsClassifier(5).fit(mapped[chosen], truth[chosen])
    assert score.score(mapped[rest], truth[rest]) > 0.98
    spread = np.unique(mapped[rest], axis=0)
    assert len(spread) == len(rest)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("equal", [True, False])
def test_few_cells(n: int, equal: bool) -> None:
    points = np.zeros((n, 7)) if equal else np.random.default_rng(n).normal(size=(n, 7))
    mapped = umap(points, QUICK)
    assert mapped.shape == (n, 2)
    assert np.isfinite(mapped).all()


def test_cells_in_one_place_and_one_dimension() -> None:
    points = np.repeat(np.arange(4.0), 30)[:, None]
    mapped = umap(points, QUICK)
    assert np.isfinite(mapped).all()


def test_layout_without_a_start() -> None:
    points, _ = planted(300)
    mapped = umap_layout(nearest_neighbours(points, 10), epochs=100)
    assert kept(mapped, points) > 0.2


def test_curve_is_that_of_umap_learn() -> None:
    # umap.umap_.find_ab_params(1.0, min_dist) of umap-learn 0.5.12
    assert curve_of(0.1) == pytest.approx((1.5769434603, 0.8950608780), rel=1e-5)
    for min_dist in (0.0, 0.5, 1.0):
        a, b = curve_of(min_dist)
        assert a > 0
        assert b > 0
    with pytest.raises(InputError, match="min_dist"):
        curve_of(-0.1)


def test_neighbour_weights_and_their_union() -> None:
    points, _ = planted(200)
    found = nearest_neighbours(points, 12)
    weights = np.empty((200, 12), np.float32)
    neighbour_weights(found.distances_nk, weights, float(found.distances_nk.mean()), 0, 200)
    np.testing.assert_allclose(weights.sum(1), np.log2(13), rtol=1e-4)
    np.testing.assert_array_equal(weights[:, 0], 1)
    directed = np.zeros((200, 200))
    directed[np.arange(200)[:, None], found.indices_nk] = weights
    starts, columns, joined = fuzzy_union(found.indices_nk, weights)
    dense = np.zeros((200, 200))
    dense[np.repeat(np.arange(200), np.diff(starts)), columns] = joined
    np.testing.assert_allclose(dense, directed + directed.T - directed * directed.T, atol=1e-6)


def test_principal_map_does_not_depend_on_the_solver_sign() -> None:
    points, _ = planted(300)
    mapped = principal_map(points, seed=3)
    np.testing.assert_array_equal(mapped, principal_map(points, seed=3))
    assert np.abs(mapped).max() == pytest.approx(10, abs=1e-2)
    flipped = principal_map(points * [1.0] * 1, seed=3)
    np.testing.assert_allclose(mapped, flipped, atol=1e-3)


def test_placing_keeps_to_the_neighbours() -> None:
    points, _ = planted(400)
    neighbours = nearest_neighbours(points, 10)
    mapped = umap_layout(neighbours, principal_map(points), epochs=60)
    placed = place_among(mapped, neighbours, seed=0)
    assert np.median(np.linalg.norm(placed - mapped, axis=1)) < 1.0


def test_bad_starts_are_told() -> None:
    points, _ = planted(50)
    neighbours = nearest_neighbours(points, 5)
    with pytest.raises(InputError, match="finite"):
        umap_layout(neighbours, np.full((50, 2), np.nan))
    with pytest.raises(InputError, match="finite"):
        umap_layout(neighbours, np.zeros((49, 2)))
    with pytest.raises(InputError, match="other cells"):
        umap(points[1:], QUICK, neighbours=neighbours)
