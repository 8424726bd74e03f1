"""The way of the data as functions: images and AnnData in, AnnData out, as in scverse packages.

Each function is one stage with nothing on disk; :mod:`maskless.stages` puts a study around them.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

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
from maskless.storage import mapped_array, remove

if TYPE_CHECKING:
    from anndata import AnnData

    from maskless.encoder import Encoder
    from maskless.images import Image, ImageSet
    from maskless.training.checkpoint import Record

DISC_RADIUS_UM = 4.0
RESPONSE_GAINS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
_RESPONSE_CELLS = 16
UNKNOWN = "-1"
UNNAMED = "unnamed"


def train(
    images: ImageSet,
    cells: AnnData,
    encoder: EncoderSettings | None = None,
    settings: TrainSettings | None = None,
    *,
    embed_view_um: float = EmbedSettings().view_um,
    seed: int = 0,
    device: str = "auto",
    checkpoint: Path | None = None,
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
    embed_view_um
        Edge of the views that will be embedded; activations are calibrated on such views.
    seed
        Fixes weights, batches and augmentations.
    device
        "auto" (a GPU where there is one), "cpu" or "cuda".
    checkpoint
        File to save to and to go on from.

    Returns
    -------
    Encoder
        With calibrated activations.

    Raises
    ------
    InputError
        Fewer than 2 cells, or cells that do not fit the images.
    TrainingError
        If the loss is not finite.
    """
    trained, _ = train_with_history(
        images,
        cells,
        encoder or EncoderSettings(),
        settings or TrainSettings(),
        embed_view_um=embed_view_um,
        seed=seed,
        device=device,
        checkpoint=checkpoint,
    )
    return trained


def train_with_history(
    images: ImageSet,
    cells: AnnData,
    encoder: EncoderSettings,
    settings: TrainSettings,
    *,
    embed_view_um: float,
    seed: int,
    device: str = "auto",
    checkpoint: Path | None = None,
    scratch: Path | None = None,
) -> tuple[Encoder, list[Record]]:
    """As :func:`train`, with one entry (step, loss, learning_rate) a step beside the encoder.

    The pixels of all images are mapped from a file in the folder `scratch`, which is removed
    afterwards, so that cohorts larger than the memory can be trained on; None keeps them in memory.
    """
    from maskless.cells import Atlas
    from maskless.training import needed_margin_um, train_encoder

    image_index, centres_yx = _positions(cells, images)
    margin_um = needed_margin_um(settings, embed_view_um)
    try:
        return train_encoder(
            Atlas.build(images, settings.pixel_um, margin_um, scratch),
            image_index,
            centres_yx,
            encoder,
            settings,
            seed,
            embed_view_um=embed_view_um,
            device=device,
            checkpoint=checkpoint,
        )
    finally:
        if scratch is not None:
            remove(scratch)


def embed(
    encoder: Encoder,
    images: ImageSet,
    cells: AnnData,
    settings: EmbedSettings | None = None,
    *,
    device: str = "auto",
    scratch: Path | None = None,
) -> AnnData:
    """Embed every cell; one image is in memory at a time.

    Parameters
    ----------
    encoder
        With calibrated activations, as :func:`train` gives it.
    images
        Cleaned images; their panel holds the encoder's markers.
    cells
        ``obs`` with image, y, x (pixels), as :func:`maskless.detect` gives it; not changed.
    settings
        Size of the views.
    device
        "auto" (a GPU where there is one), "cpu" or "cuda".
    scratch
        Folder for the results, as mapped files; None = in memory. The caller removes it when the
        cells are written. With it, memory stays near one image however many cells there are.

    Returns
    -------
    AnnData
        New: ``X`` (cells, channels) activations, 0 for channels that the encoder does not see;
        ``layers["disc_mean"]`` mean in a disc of 4 um; ``obsm["X_features"]`` (cells, markers x
        features); ``obsm["X_embedding"]`` (cells, N); ``var["positive_above"]``;
        ``uns["maskless"]["response"]`` activation of cells whose pixels are scaled.

    Raises
    ------
    InputError
        If the panel lacks markers of the encoder, or cells do not fit the images.
    """
    from anndata import AnnData

    from maskless.cells import disc_means
    from maskless.training import embed_cells

    image_index, centres_yx = _positions(cells, images)
    disc_mean = mapped_array((cells.n_obs, cells.n_vars), scratch, "disc_mean")

    def measure_discs(image: Image, rows: NDArray[np.integer[Any]]) -> None:
        pixels_cyx = np.asarray(image.pixels_cyx, dtype=np.float32)
        radius_px = DISC_RADIUS_UM / image.um_per_pixel
        disc_mean[rows] = disc_means(pixels_cyx, centres_yx[rows], radius_px)

    found = embed_cells(
        encoder,
        images,
        image_index,
        centres_yx,
        settings or EmbedSettings(),
        device=device,
        scratch=scratch,
        on_image=measure_discs,
    )
    columns = [images.panel.index(marker) for marker in encoder.markers]
    activations = mapped_array(disc_mean.shape, scratch, "X")
    for column, values_n in zip(columns, found.activations_nc.T, strict=True):
        activations[:, column] = values_n
    positive_above = np.zeros(cells.n_vars, dtype=np.float32)
    positive_above[columns] = encoder.activation.positive_above.numpy()
    embedded = AnnData(
        X=activations,
        obs=cells.obs[["image", "y", "x"]].copy(),
        var=cells.var.assign(positive_above=positive_above),
        layers={"disc_mean": disc_mean},
        obsm={
            "X_embedding": found.embedding_ne,
            "X_features": found.features_nck.reshape(cells.n_obs, -1),
            "spatial": np.asarray(cells.obsm["spatial"]),
        },
        uns=deepcopy(dict(cells.uns)),
    )
    embedded.uns.setdefault("maskless", {})["response"] = _response(
        encoder, images, image_index, centres_yx, found.activations_nc, settings or EmbedSettings()
    )
    return embedded


def cluster(
    cells: AnnData,
    *,
    k: int = ClusterSettings().k,
    resolution: float = ClusterSettings().resolution,
    min_size: int = ClusterSettings().min_size,
    power: float = ClusterSettings().power,
    device: Literal["cpu", "cuda"] = ClusterSettings().device,
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
    power
        Of the Jaccard weights: 1 is PhenoGraph, 2 lets weak edges count less.
    device
        Where neighbours are searched: the CPU, or an NVIDIA GPU with cuML (RAPIDS).
    seed
        Fixes the order in which communities are looked for.

    Raises
    ------
    InputError
        If there are no embeddings, or not more cells than `k`.
    SettingsError
        If `device` is "cuda" and cuML or a GPU is missing.
    """
    import pandas as pd

    from maskless.analysis import phenograph_graph
    from maskless.analysis.rapids import rapids_name

    found = phenograph_graph(
        embeddings(cells), k, resolution, min_size, seed, power=power, device=device
    )
    labels = found.labels_n
    order = [str(c) for c in sorted(set(labels.tolist()) - {-1})]
    order += [UNKNOWN] if (labels < 0).any() else []
    cells.obs["cluster"] = pd.Categorical(labels.astype(str), categories=order)
    cells.obs["phenotype"] = pd.Categorical([UNNAMED] * cells.n_obs, categories=[UNNAMED])
    cells.obsp["connectivities"] = found.graph
    about = cells.uns.setdefault("maskless", {})
    about["modularity"] = found.modularity
    about["neighbours"] = "cpu" if device == "cpu" else rapids_name()


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
    cells.obsm["X_umap"] = lay_out(embeddings(cells), settings, seed=seed)


def _positions(cells: AnnData, images: ImageSet) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Image of each cell (position in ``images.names``) and its centre as y, x in pixels."""
    place = {name: index for index, name in enumerate(images.names)}
    names = cells.obs["image"].astype(str).to_numpy()
    unknown = sorted(set(names) - set(place))
    if unknown:
        raise InputError(
            "cells lie in an image that is not there",
            image=unknown[0],
            expected=f"one of {', '.join(place)}",
        )
    image_index = np.array([place[name] for name in names], dtype=np.int64)
    return image_index, cells.obs[["y", "x"]].to_numpy(dtype=np.float64)


def _response(
    encoder: Encoder,
    images: ImageSet,
    image_index: NDArray[np.int64],
    centres_yx: NDArray[np.float64],
    activations_nc: NDArray[np.float32],
    settings: EmbedSettings,
) -> dict[str, NDArray[Any]]:
    """How each marker's activation rises when the pixels of its most positive cells are scaled.

    Promise of the encoder: 0 = background, rising with expression. Shown for every study.
    """
    from maskless.cells import Atlas, gather_views
    from maskless.cells.views import view_reach_um, view_size_px
    from maskless.encoder import response_curve

    size_px = view_size_px(settings.view_um, encoder.pixel_um)
    reach_um = view_reach_um([size_px * encoder.pixel_um])
    # One marker at a time: orders of all markers together are larger than an image.
    best = np.stack(
        [np.argsort(-values_n, kind="stable")[:_RESPONSE_CELLS] for values_n in activations_nc.T],
        axis=1,
    )
    chosen = np.unique(best)
    views: list[NDArray[np.float32]] = []
    order: list[NDArray[np.int64]] = []
    for index in np.unique(image_index[chosen]):
        rows = chosen[image_index[chosen] == index]
        atlas = Atlas.of_image(
            images[images.names[index]], images.panel, encoder.pixel_um, reach_um, encoder.markers
        )
        views.append(gather_views(atlas, np.zeros(len(rows), np.int64), centres_yx[rows], size_px))
        order.append(rows)
    row_of = {int(row): place for place, row in enumerate(np.concatenate(order))}
    views_bchw = np.concatenate(views)
    curves = [
        response_curve(
            encoder,
            views_bchw[[row_of[int(row)] for row in best[:, number]]],
            marker,
            RESPONSE_GAINS,
        )
        for number, marker in enumerate(encoder.markers)
    ]
    return {
        "markers": np.array(encoder.markers, dtype=object),
        "gains": np.array(RESPONSE_GAINS),
        "activations": np.array(curves, dtype=np.float64),
    }


def embeddings(cells: AnnData) -> NDArray[Any]:
    """The embeddings of cells, float32; raises InputError where there are none."""
    if "X_embedding" not in cells.obsm:
        raise InputError(
            "these cells have no embeddings",
            expected='obsm["X_embedding"]',
            do="Call maskless.embed first",
        )
    return np.asarray(cells.obsm["X_embedding"], dtype=np.float32)
