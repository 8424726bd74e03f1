"""The way over cuML, with a stand-in of NumPy that has the signatures of its documentation.

It shows that the pieces fit; cuML itself has not been run.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.metrics import adjusted_rand_score

import maskless as mx
from maskless.analysis import Neighbours, nearest_neighbours, phenograph, phenograph_graph, rapids
from maskless.errors import SettingsError


class StandIn:
    """cuml.neighbors.NearestNeighbors, as cuML 26.10 documents it."""

    asked: list[int]

    def __init__(
        self,
        *,
        n_neighbors: int = 5,
        radius: float = 1.0,
        algorithm: str = "auto",
        metric: str = "euclidean",
        p: float = 2,
        algo_params: dict[str, Any] | None = None,
        metric_params: dict[str, Any] | None = None,
        n_jobs: int | None = None,
        verbose: bool = False,
        output_type: str | None = None,
    ) -> None:
        assert (algorithm, metric, output_type) == ("brute", "euclidean", "numpy")
        self.n_neighbors = n_neighbors

    def fit(self, X: NDArray[np.float32], y: None = None) -> StandIn:  # noqa: N803
        assert X.dtype == np.float32
        self.points = X
        return self

    def kneighbors(
        self,
        X: NDArray[np.float32] | None = None,  # noqa: N803
        n_neighbors: int | None = None,
        return_distance: bool = True,
        *,
        two_pass_precision: bool = False,
    ) -> Any:
        if X is None or self.n_neighbors > len(self.points):
            raise ValueError("n_neighbors must be <= number of samples in index")
        self.asked.append(len(X))
        distances = self.distances(X)
        indices = np.argsort(distances, axis=1, kind="stable")[:, : self.n_neighbors]
        return (np.take_along_axis(distances, indices, 1), indices) if return_distance else indices

    def distances(self, queries: NDArray[np.float32]) -> NDArray[Any]:
        return np.asarray(cdist(queries, self.points), np.float32)


class Rounded(StandIn):
    """Loses so many digits that a point need not be the nearest to itself."""

    def distances(self, queries: NDArray[np.float32]) -> NDArray[Any]:
        true = cdist(queries, self.points)
        lost = np.random.default_rng(0).normal(0, 1e-3 * true.mean(), true.shape)
        return true + np.where(true == 0, true.mean() / 2, lost)


class Blind(StandIn):
    """Finds the farthest."""

    def distances(self, queries: NDArray[np.float32]) -> NDArray[Any]:
        return -cdist(queries, self.points)


class Lost(StandIn):
    def kneighbors(self, X: NDArray[np.float32], **_: Any) -> Any:  # type: ignore[override]  # noqa: N803
        return np.full((len(X), self.n_neighbors), -1)


class Full(StandIn):
    def fit(self, X: NDArray[np.float32], y: None = None) -> StandIn:  # noqa: N803
        raise MemoryError("std::bad_alloc: out_of_memory:\n CUDA error")


def install(
    monkeypatch: pytest.MonkeyPatch, model: type[StandIn] = StandIn, gpus: int = 1
) -> list[int]:
    model.asked = []
    cuml, neighbors, cupy = (ModuleType(n) for n in ("cuml", "cuml.neighbors", "cupy"))
    runtime = SimpleNamespace(
        getDeviceCount=lambda: gpus,
        getDevice=lambda: 0,
        getDeviceProperties=lambda device: {"name": b"Stand-in GPU"},
    )
    parts: list[tuple[Any, dict[str, Any]]] = [
        (cuml, {"__version__": "26.10.00", "neighbors": neighbors}),
        (neighbors, {"NearestNeighbors": model}),
        (cupy, {"asarray": np.asarray, "cuda": SimpleNamespace(runtime=runtime)}),
    ]
    for module, names in parts:
        vars(module).update(names)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return model.asked


def planted(sizes: list[int], seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centres = rng.normal(0, 3, (len(sizes), 20))
    return (centres[truth] + rng.normal(size=(len(truth), 20))).astype(np.float32), truth


def assert_same(found: Neighbours, true: Neighbours) -> None:
    np.testing.assert_array_equal(found.indices_nk, true.indices_nk)
    np.testing.assert_array_equal(found.distances_nk, true.distances_nk)
    assert found.indices_nk.dtype == np.int32
    assert found.distances_nk.dtype == np.float32


@pytest.mark.parametrize("model", [StandIn, Rounded])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_neighbours_are_those_of_the_exact_search(
    model: type[StandIn], metric: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rapids, "_QUERIES", 250)
    asked = install(monkeypatch, model)
    points = planted([300, 200, 100])[0] + 50  # far from the origin
    found = nearest_neighbours(points, 9, metric, device="cuda")
    assert_same(found, nearest_neighbours(points, 9, metric, exact=True))
    assert asked == [250, 250, 100]


@pytest.mark.parametrize("n", [2, 12, 40])
def test_few_and_equal_points(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    points = np.random.default_rng(n).integers(0, 2, (n, 2)).astype(np.float32)
    found = nearest_neighbours(points, min(5, n - 1), device="cuda")
    true = nearest_neighbours(points, min(5, n - 1))
    np.testing.assert_array_equal(found.distances_nk, true.distances_nk)
    assert not (found.indices_nk == np.arange(n)[:, None]).any()
    assert all(len(set(row)) == len(row) for row in found.indices_nk.tolist())


def test_many_points_keep_near_ones_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskless.analysis.neighbours.EXACT_UP_TO", 500)
    install(monkeypatch)
    points, truth = planted([400, 300, 200, 20])
    found = nearest_neighbours(points, 15, device="cuda")
    true = nearest_neighbours(points, 15, exact=True)
    assert_same(found, true)
    assert found.order_n is not None
    np.testing.assert_array_equal(np.sort(found.order_n), np.arange(len(points)))
    labels = phenograph(points, 15, device="cuda")
    np.testing.assert_array_equal(labels == -1, truth == 3)  # fewer cells than min_size
    assert adjusted_rand_score(truth[truth < 3], labels[truth < 3]) == 1.0


def test_clusters_are_those_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    points, _ = planted([300, 200, 150])
    found = phenograph_graph(points, 15, device="cuda", power=2)
    true = phenograph_graph(points, 15, power=2)
    np.testing.assert_array_equal(found.labels_n, true.labels_n)
    assert (found.graph != true.graph).nnz == 0
    assert found.modularity == true.modularity


def test_cells_tell_where_their_neighbours_come_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from anndata import AnnData

    asked = install(monkeypatch)
    points, _ = planted([150, 100])
    cells = AnnData(obsm={"X_embedding": points})
    mx.cluster(cells, k=10)
    assert cells.uns["maskless"]["neighbours"] == "cpu"
    assert not asked
    monkeypatch.setattr("maskless.progress._mode", "plain")
    mx.cluster(cells, k=10, device="cuda")
    assert cells.uns["maskless"]["neighbours"] == "cuML 26.10.00 on Stand-in GPU"
    told = capsys.readouterr().err
    assert "all pairs compared by cuML 26.10.00 on Stand-in GPU" in told
    assert "100.0% of the true ones found" in told
    assert asked == [250]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (Blind, "found only 0.0% of the nearest"),
        (Lost, "are not numbers of cells"),
        (Full, "out_of_memory: CUDA error. Take"),
    ],
)
def test_wrong_answers_are_told(
    model: type[StandIn], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, model)
    with pytest.raises(SettingsError, match=words) as caught:
        nearest_neighbours(planted([200, 100])[0], 5, device="cuda")
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    points, _ = planted([40])
    monkeypatch.setitem(sys.modules, "cuml", None)
    with pytest.raises(SettingsError, match=r"cuML cannot be used: .*cuml.*install RAPIDS"):
        phenograph(points, 5, device="cuda")
    install(monkeypatch, gpus=0)
    with pytest.raises(SettingsError, match="there is no NVIDIA GPU"):
        phenograph(points, 5, device="cuda")
    with pytest.raises(SettingsError, match='expected "cpu" or "cuda"'):
        phenograph(points, 5, device="auto")  # type: ignore[arg-type]
