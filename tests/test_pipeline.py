"""The Python API: images and AnnData in, AnnData out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from anndata import AnnData

import maskless as mx
from maskless.errors import InputError
from maskless.simulate import simulate_images

ENCODER = mx.EncoderSettings(width=2, blocks=(1,), embedding=32)
TRAIN = mx.TrainSettings(steps=6, cells_per_step=16)


@pytest.fixture(scope="module")
def images() -> Any:
    return mx.clean(simulate_images("demo", images=2, size_px=96).images)


@pytest.fixture(scope="module")
def detected(images: Any) -> AnnData:
    return mx.detect(images)


@pytest.fixture(scope="module")
def cells(images: Any, detected: AnnData) -> AnnData:
    encoder = mx.train(images, detected, ENCODER, TRAIN)
    embedded = mx.embed(encoder, images, detected)
    mx.cluster(embedded, k=10, min_size=5)
    mx.umap(embedded, epochs=20)
    return embedded


def test_the_whole_way(cells: AnnData, detected: AnnData) -> None:
    assert cells.n_obs == detected.n_obs
    assert list(cells.obs_names) == list(detected.obs_names)
    assert cells.obs["cluster"].nunique() > 1
    assert np.isfinite(cells.obsm["X_umap"]).all()


def test_embedding_does_not_change_what_it_is_given(images: Any, detected: AnnData) -> None:
    before = (list(detected.obs), list(detected.obsm), dict(detected.uns))
    mx.embed(mx.train(images, detected, ENCODER, TRAIN), images, detected)
    assert (list(detected.obs), list(detected.obsm), dict(detected.uns)) == before


def test_cells_in_any_order_get_the_same_numbers(images: Any, detected: AnnData) -> None:
    encoder = mx.train(images, detected, ENCODER, TRAIN)
    straight = mx.embed(encoder, images, detected)
    shuffled = mx.embed(encoder, images, detected[::-1].copy())
    np.testing.assert_array_equal(straight.obsm["X_embedding"], shuffled.obsm["X_embedding"][::-1])
    np.testing.assert_array_equal(straight.layers["disc_mean"], shuffled.layers["disc_mean"][::-1])


def test_the_encoder_alone_explains_the_embedding(images: Any, detected: AnnData) -> None:
    encoder = mx.train(images, detected, ENCODER, TRAIN)
    views = np.random.default_rng(0).random((3, len(encoder.markers), 16, 16), dtype=np.float32)
    total = encoder.contributions(views).sum(1) + encoder.bias
    np.testing.assert_allclose(total, encoder.embed(views), rtol=1e-5, atol=1e-6)


def test_clustering_without_embeddings_says_what_to_do(detected: AnnData) -> None:
    with pytest.raises(InputError, match=r"no embeddings.*maskless\.embed"):
        mx.cluster(detected.copy())


def test_cells_of_another_cohort_are_refused(images: Any, detected: AnnData) -> None:
    strange = detected.copy()
    strange.obs["image"] = strange.obs["image"].cat.rename_categories(lambda name: f"other {name}")
    with pytest.raises(InputError, match="an image that is not there"):
        mx.train(images, strange, ENCODER, TRAIN)


@pytest.fixture
def threads_kept() -> Iterator[None]:
    """Numba's OpenMP, which squidpy starts, changes torch's threads, and so the rounding."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.scverse
@pytest.mark.usefixtures("threads_kept")
@pytest.mark.filterwarnings("default")  # the packages' own deprecations are not ours to mend
def test_scanpy_and_squidpy_work_on_the_result(cells: AnnData, tmp_path: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sc = pytest.importorskip("scanpy", reason="needs the scverse extra")
        sq = pytest.importorskip("squidpy", reason="needs the scverse extra")
    cells.write_h5ad(tmp_path / "cells.h5ad")
    opened = sc.read_h5ad(tmp_path / "cells.h5ad")
    assert opened.shape == cells.shape
    sc.pp.neighbors(opened, use_rep="X_embedding", n_neighbors=5)
    sc.tl.rank_genes_groups(opened, "cluster", method="wilcoxon")
    assert set(opened.uns["rank_genes_groups"]["names"].dtype.names) == set(
        cells.obs["cluster"].cat.categories
    )
    axes = sc.pl.umap(opened, color=["cluster", "CD20"], show=False)
    assert len(axes) == 2
    sc.pl.matrixplot(opened, ["CD3", "CD20"], groupby="cluster", show=False)
    sq.gr.spatial_neighbors(opened, coord_type="generic", n_neighs=6, library_key="image")
    sq.gr.nhood_enrichment(opened, cluster_key="cluster", n_perms=20, show_progress_bar=False)
    groups = cells.obs["cluster"].cat.categories
    assert opened.uns["cluster_nhood_enrichment"]["zscore"].shape == (len(groups), len(groups))
