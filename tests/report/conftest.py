from __future__ import annotations

from collections.abc import Callable, Sequence

import anndata
import numpy as np
import pandas as pd
import pytest

from maskless.images.image import Channel, Image, ImageSet, Panel


def made_cells(
    n_clusters: int = 12,
    n_markers: int = 20,
    n_cells: int = 600,
    image_names: Sequence[str] = ("one", "two"),
    unknown: bool = True,
    seed: int = 0,
) -> tuple[anndata.AnnData, ImageSet]:
    """Cluster i has much of marker i (modulo markers); the last marker but one is nuclear,
    the last is a background channel that is not used."""
    rng = np.random.default_rng(seed)
    names = [f"M{i}" for i in range(n_markers - 2)] + ["DNA", "Empty"]
    kinds = ["marker"] * (n_markers - 2) + ["nuclear", "background"]
    panel = Panel(
        tuple(
            Channel(name, "", kind, kind != "background")  # type: ignore[arg-type]
            for name, kind in zip(names, kinds, strict=True)
        )
    )
    labels = rng.permutation(np.arange(n_cells) % max(n_clusters, 1))
    activations = np.abs(rng.normal(0, 0.1, (n_cells, n_markers))).astype(np.float32)
    activations[np.arange(n_cells), labels % (n_markers - 2)] += 1
    activations[:, -2] += 0.5
    activations[:, -1] = 0
    cluster = labels.astype(str).astype(object)
    if unknown:
        cluster[::10] = "-1"
    rows, columns = 70, 110
    obs = pd.DataFrame(
        {
            "image": pd.Categorical(
                rng.choice(list(image_names), n_cells), categories=list(image_names)
            ),
            "y": rng.uniform(0, rows - 1, n_cells).astype(np.float32),
            "x": rng.uniform(0, columns - 1, n_cells).astype(np.float32),
            "cluster": pd.Categorical(cluster),
            "size": rng.random(n_cells),
        },
        index=[f"cell:{i}" for i in range(n_cells)],
    )
    var = pd.DataFrame(
        {"name": names, "kind": kinds, "used": [k != "background" for k in kinds]}, index=names
    )
    cells = anndata.AnnData(X=activations, obs=obs, var=var)
    cells.layers["disc_mean"] = activations * 2
    centres = rng.normal(0, 6, (max(n_clusters, 1), 2))
    cells.obsm["X_umap"] = (centres[labels] + rng.normal(0, 1, (n_cells, 2))).astype(np.float32)
    cells.obsm["X_embedding"] = activations[:, :8]
    cells.obsm["spatial"] = obs[["x", "y"]].to_numpy()
    images = [
        Image(name, rng.random((n_markers, rows, columns), dtype=np.float32), panel.names, 1.0)
        for name in image_names
    ]
    return cells, ImageSet.from_images(images, panel)


@pytest.fixture(scope="session")
def make() -> Callable[..., tuple[anndata.AnnData, ImageSet]]:
    return made_cells


@pytest.fixture(scope="session")
def made() -> tuple[anndata.AnnData, ImageSet]:
    """12 clusters, 20 channels, 2 images; not to be changed by a test."""
    return made_cells()
