"""mx.assign: clusters, names, confidence and unknown cells for new cells."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import maskless as mx
from maskless.errors import InputError, SettingsError
from maskless.images import Scaling

CENTRES = np.eye(4, 12) * 8
NAMES = ["B cell", "T cell", "T cell", "myeloid"]


def cells_of(kinds: np.ndarray, seed: int, images: int = 3) -> AnnData:
    rng = np.random.default_rng(seed)
    points = CENTRES[kinds] + rng.normal(size=(len(kinds), 12)) * np.r_[3.0, np.ones(11)]
    obs = pd.DataFrame(
        {
            "image": pd.Categorical([f"i{seed}_{i % images}" for i in range(len(kinds))]),
            "y": rng.uniform(0, 100, len(kinds)),
            "x": rng.uniform(0, 100, len(kinds)),
            "cluster": pd.Categorical(kinds.astype(str)),
            "phenotype": pd.Categorical([NAMES[k] for k in kinds]),
        },
        index=[f"{seed}:{i}" for i in range(len(kinds))],
    )
    var = pd.DataFrame({"used": [True] * 5}, index=list("abcde"))
    levels = rng.gamma(20, (0.3 + np.eye(4, 5)[kinds]) / 20)
    return AnnData(obs=obs, var=var, layers={"disc_mean": levels}, obsm={"X_embedding": points})


@pytest.fixture
def reference() -> AnnData:
    return cells_of(np.arange(900) % 4, 1)


def new_cells(kinds: np.ndarray, seed: int = 2) -> AnnData:
    cells = cells_of(kinds, seed, 2)
    cells.obs = cells.obs[["image", "y", "x"]]
    return cells


def test_cells_get_cluster_and_name_of_their_kind(reference: AnnData) -> None:
    kinds = np.arange(400) % 4
    cells = new_cells(kinds)
    assert mx.assign(cells, reference, k=15) is None
    known = cells.obs["phenotype"] != "unknown"
    assert known.mean() > 0.97
    assert (cells.obs["cluster"][known].astype(int) == kinds[known]).mean() > 0.97
    # A cluster that goes with the name, always.
    named = dict(zip("0123", NAMES, strict=True))
    assert all(cells.obs["cluster"][known].map(named) == cells.obs["phenotype"][known])
    right = cells.obs["phenotype"] == np.array(NAMES)[kinds]
    assert abs(cells.obs["confidence"][known].mean() - right[known].mean()) < 0.03
    assert list(cells.obs["cluster"].cat.categories) == ["0", "1", "2", "3", "-1"]
    found = cells.uns["maskless"]["assign"]
    assert found["right_when_left_out"] > 0.95
    assert list(found["markers"].index) == list("abcde")
    assert not found["markers"]["moved"].any()
    assert list(found["warnings"]) == []


def test_a_kind_that_was_not_there_is_unknown(reference: AnnData) -> None:
    without = reference[reference.obs["cluster"] != "3"].copy()
    kinds = np.arange(400) % 4
    cells = new_cells(kinds)
    mx.assign(cells, without, k=15)
    unknown = (cells.obs["phenotype"] == "unknown").to_numpy()
    assert unknown[kinds == 3].mean() > 0.9
    assert unknown[kinds != 3].mean() < 0.03
    assert (cells.obs["cluster"][unknown] == "-1").all()
    assert (cells.obs["confidence"][unknown] == 0).all()
    assert (cells.obs["unlike"][unknown] > 1).all()
    assert "unlike anything in the study" in cells.uns["maskless"]["assign"]["warnings"][0]
    mx.assign(cells, without, k=15, unknown=0)
    assert "unknown" not in set(cells.obs["phenotype"])


def test_a_brighter_marker_is_named_in_counts(reference: AnnData) -> None:
    scaling = Scaling("arcsinh", tuple("abcde"), (0.5,) * 5, 99.0, (1.5,) * 5)
    counts = scaling.linear(reference.layers["disc_mean"])
    np.testing.assert_allclose(scaling.scaled(counts), reference.layers["disc_mean"], rtol=1e-4)
    cells = new_cells(np.arange(400) % 4)
    counts = scaling.linear(cells.layers["disc_mean"])
    counts[:, 2] *= 2
    cells.layers["disc_mean"] = np.arcsinh(counts / 0.5) / 1.5
    mx.assign(cells, reference, k=15, scaling=scaling)
    (warning,) = cells.uns["maskless"]["assign"]["warnings"]
    assert warning.startswith("c is ")
    assert "times brighter than in the study" in warning


def test_clusters_alone_where_nobody_gave_names(reference: AnnData) -> None:
    reference.obs["phenotype"] = pd.Categorical(["unnamed"] * reference.n_obs)
    cells = new_cells(np.arange(80) % 4)
    mx.assign(cells, reference, k=15)
    assert set(cells.obs["phenotype"]) <= {"unnamed", "unknown"}
    assert cells.obs["cluster"].nunique() >= 4
    assert cells.obs["confidence"].mean() > 0.8


def test_one_image_is_cut_into_blocks_and_everything_is_the_same_again(reference: AnnData) -> None:
    reference.obs["image"] = pd.Categorical(["one"] * reference.n_obs)
    results = []
    for _ in range(2):
        cells = new_cells(np.arange(80) % 4)
        mx.assign(cells, reference, k=15)
        results.append(cells.obs)
    pd.testing.assert_frame_equal(*results)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, r: r.obs.drop(columns="cluster", inplace=True), "no names to give"),
        (
            lambda c, r: c.obsm.update(X_embedding=c.obsm["X_embedding"][:, :7]),
            "other encoders|diff",
        ),
        (lambda c, r: c.var.update(pd.DataFrame({"used": [False]}, index=["b"])), "without b"),
        (lambda c, r: c.obsm.pop("X_embedding"), "no embeddings"),
    ],
)
def test_cells_that_do_not_fit(reference: AnnData, change, message: str) -> None:
    cells = new_cells(np.arange(80) % 4)
    change(cells, reference)
    with pytest.raises(InputError, match=message):
        mx.assign(cells, reference, k=15)


def test_senseless_arguments(reference: AnnData) -> None:
    cells = new_cells(np.arange(80) % 4)
    with pytest.raises(SettingsError, match="share of unknown"):
        mx.assign(cells, reference, unknown=1.0)
    with pytest.raises(InputError, match="fewer cells"):
        mx.assign(cells, reference, k=1000)
