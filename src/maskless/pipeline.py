"""The way of the data as functions: images and AnnData in, AnnData out, as in scverse packages.

Each function is one stage with nothing on disk; :mod:`maskless.stages` puts a study around them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maskless.config import (
    ClusterSettings,
    EmbedSettings,
    EncoderSettings,
    TrainSettings,
    UmapSettings,
)
from maskless.errors import InputError

if TYPE_CHECKING:
    from anndata import AnnData

    from maskless.encoder import Encoder
    from maskless.images import ImageSet

DISC_RADIUS_UM = 4.0
UNKNOWN = "-1"
UNNAMED = "unnamed"


def centres_of(cells: AnnData, names: tuple[str, ...]) -> dict[str, NDArray[np.float64]]:
    """Centres of the cells of each image: (n, 2) as y, x in pixels, in the order of the rows."""
    image = cells.obs["image"].astype(str).to_numpy()
    yx = cells.obs[["y", "x"]].to_numpy(dtype=np.float64)
    unknown = sorted(set(image) - set(names))
    if unknown:
        raise InputError(
            "cells lie in an image that is not there", image=unknown[0], expected=", ".join(names)
        )
    return {name: yx[image == name] for name in names}


def train(
    images: ImageSet,
    cells: AnnData,
    encoder: EncoderSettings | None = None,
    settings: TrainSettings | None = None,
    *,
    seed: int = 0,
    checkpoint: Path | None = None,
    on_history: Callable[[list[dict[str, float]]], None] | None = None,
) -> Encoder:
    """Train an encoder on cells, without labels and without masks.

    Parameters
    ----------
    images
        Cleaned images.
    cells
        ``obs`` with image, y, x (pixels).
    encoder, settings
        Architecture and training; the defaults of study.toml if not given.
    seed
        Fixes weights, batches and augmentations.
    checkpoint
        Folder to save to and to go on from.
    on_history
        Called at the end with one entry (step, loss, learning_rate) a step.

    Returns
    -------
    Encoder
        With calibrated activations.

    Raises
    ------
    InputError
        Fewer than 2 cells, or an image smaller than a view.
    TrainingError
        If the loss is not finite.
    """
    from maskless.cells import Atlas
    from maskless.training import train_encoder

    encoder = encoder or EncoderSettings()
    settings = settings or TrainSettings()
    centres = centres_of(cells, images.names)
    atlas = Atlas.from_images(
        images, settings.pixel_um, margin_um=max(settings.view_um) + settings.jitter_um
    )
    trained, history = train_encoder(
        atlas, centres, encoder, settings, seed=seed, checkpoint=checkpoint
    )
    if on_history is not None:
        on_history(history)
    return trained


def embed(
    encoder: Encoder, images: ImageSet, cells: AnnData, settings: EmbedSettings | None = None
) -> AnnData:
    """Embed every cell; one image is in memory at a time.

    Returns
    -------
    AnnData
        New, with ``X`` (activations), ``layers["disc_mean"]``, ``obsm["X_features"]``,
        ``obsm["X_embedding"]`` and ``var["positive_above"]``.
    """
    raise NotImplementedError


def cluster(
    cells: AnnData,
    *,
    k: int = ClusterSettings().k,
    resolution: float = ClusterSettings().resolution,
    min_size: int = ClusterSettings().min_size,
    seed: int = 0,
) -> None:
    """PhenoGraph on ``obsm["X_embedding"]``; changes `cells` in place.

    Parameters
    ----------
    cells
        With embeddings.
    k
        Nearest neighbours.
    resolution
        Of the modularity.
    min_size
        Smaller clusters become "-1" (unknown).
    seed
        Fixes the order in which communities are looked for.

    Raises
    ------
    InputError
        If there are no embeddings, or not more cells than `k`.
    """
    import pandas as pd

    from maskless.analysis import phenograph_graph

    labels, graph, modularity = phenograph_graph(
        _embeddings(cells), k=k, resolution=resolution, min_size=min_size, seed=seed
    )
    order = [str(c) for c in sorted(set(labels.tolist()) - {-1})]
    order += [UNKNOWN] if (labels < 0).any() else []
    cells.obs["cluster"] = pd.Categorical(labels.astype(str), categories=order)
    cells.obs["phenotype"] = pd.Categorical([UNNAMED] * cells.n_obs, categories=[UNNAMED])
    cells.obsp["connectivities"] = graph
    cells.uns.setdefault("maskless", {})["modularity"] = float(modularity)


def umap(
    cells: AnnData,
    *,
    k: int = UmapSettings().k,
    min_dist: float = UmapSettings().min_dist,
    epochs: int = UmapSettings().epochs,
    max_cells: int = UmapSettings().max_cells,
    seed: int = 0,
) -> None:
    """UMAP of ``obsm["X_embedding"]`` into ``obsm["X_umap"]``; changes `cells` in place."""
    from maskless.analysis import umap as lay_out

    settings = UmapSettings(k=k, min_dist=min_dist, epochs=epochs, max_cells=max_cells)
    cells.obsm["X_umap"] = lay_out(_embeddings(cells), settings, seed=seed)


def _embeddings(cells: AnnData) -> NDArray[Any]:
    if "X_embedding" not in cells.obsm:
        raise InputError(
            "these cells have no embeddings",
            expected='obsm["X_embedding"]',
            do="Call maskless.embed first",
        )
    return np.asarray(cells.obsm["X_embedding"], dtype=np.float32)
