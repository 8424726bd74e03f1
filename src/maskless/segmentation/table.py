"""The cells of the segmentation benchmark: masks of a cohort, measured and clustered.

Axes: Y = rows, X = columns.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maskless.cells import detect_image, make_cells, nuclear_plane
from maskless.cells.given import find_given, read_mask
from maskless.errors import InputError, SettingsError
from maskless.images.image import Image, ImageSet, Panel
from maskless.progress import log, track
from maskless.segmentation.masks import Labels, expand_labels, nuclear_masks
from maskless.segmentation.measure import measure_masks

if TYPE_CHECKING:
    from anndata import AnnData

    from maskless.config import ClusterSettings, DetectSettings, SegmentSettings, UmapSettings


def segment(
    images: ImageSet,
    settings: SegmentSettings | None = None,
    *,
    cells: AnnData | None = None,
    detect: DetectSettings | None = None,
    cluster: ClusterSettings | None = None,
    umap: UmapSettings | None = None,
    seed: int = 0,
    base: Path | None = None,
) -> AnnData:
    """Run the segmentation benchmark: masks, mean intensity over each, PhenoGraph, UMAP.

    The way of Windhager et al. 2023 (doi:10.1038/s41596-023-00881-0), with the same images,
    clusters and layout as the mask-free way, to be compared with it.

    Parameters
    ----------
    images
        Cleaned images; one is in memory at a time.
    settings
        Which masks, and how far they are widened.
    cells
        ``obs`` with image, x, y (pixels): the centres from which nuclei are grown; they are
        detected if not given.
    detect
        Radius of nuclei, and how centres are detected.
    cluster, umap
        As for the mask-free cells.
    seed
        Of clusters and UMAP.
    base
        Where relative paths in the settings start.

    Returns
    -------
    AnnData
        One row a mask. ``X`` (cells, channels): mean intensity over the mask; ``obs``: image,
        y, x (centre of mass, pixels), cluster, phenotype, area (pixels), label (its number);
        ``obsm["X_umap"]``, ``obsm["spatial"]`` (um), ``obsp["connectivities"]``.

    Raises
    ------
    InputError
        If masks or centres do not fit their images, or there are not more cells than neighbours.
    SettingsError
        If the method needs a setting that is not there.
    MissingExtraError
        If Cellpose is asked for and not installed.
    """
    from maskless.config import ClusterSettings, DetectSettings, SegmentSettings, UmapSettings

    chosen, detection = settings or SegmentSettings(), detect or DetectSettings()

    def labels_of(image: Image) -> Labels:
        centres_xy = None if cells is None else centres_in(cells, image.name)
        return segment_image(image, images.panel, chosen, detection, centres_xy, base)

    found = measure_cohort(images, labels_of)
    group(found, cluster or ClusterSettings(), umap or UmapSettings(), seed)
    return found


def segment_image(
    image: Image,
    panel: Panel,
    settings: SegmentSettings,
    detect: DetectSettings,
    centres_xy: NDArray[np.floating] | None = None,
    base: Path | None = None,
) -> Labels:
    """Make the masks of one image; see :func:`segment`.

    Returns
    -------
    labels_yx
        int32, 0 = no cell. With the method "watershed" centre i has label i + 1; given masks
        keep their numbers.
    """
    if settings.method == "masks":
        nuclei_yx = _given(image, settings, base)
    elif settings.method == "cellpose":
        from maskless.cells.cellpose import masks_with_cellpose

        model = settings.cellpose_model or detect.cellpose_model
        if model is None:
            raise SettingsError(
                'segment.method = "cellpose" needs segment.cellpose_model, a weights file or '
                "model name"
            )
        chosen = detect.model_copy(update={"cellpose_model": model})
        found_yx = masks_with_cellpose(
            nuclear_plane(image, panel), image.um_per_pixel, chosen, base
        )
        nuclei_yx = found_yx.astype(np.int32)
    else:
        if centres_xy is None:
            centres_xy = detect_image(image, panel, detect, base)
        plane_yx = nuclear_plane(image, panel)
        nuclei_yx = nuclear_masks(plane_yx, image.um_per_pixel, centres_xy, detect)
    return expand_labels(nuclei_yx, settings.expand_um / image.um_per_pixel)


def _given(image: Image, settings: SegmentSettings, base: Path | None) -> Labels:
    if settings.files is None:
        raise SettingsError(
            'segment.method = "masks" needs segment.files, a path with {image} in it'
        )
    path = find_given(settings.files, image, base, "segment.files")
    labels_yx = read_mask(path, image)
    if labels_yx.max(initial=0) > np.iinfo(np.int32).max:
        raise InputError(
            "the numbers of this mask are too large",
            file=path,
            image=image.name,
            expected=f"at most {np.iinfo(np.int32).max}",
            found=labels_yx.max(),
        )
    return labels_yx.astype(np.int32)


def centres_in(cells: AnnData, name: str) -> NDArray[np.float64]:
    """Centres of the cells of one image: x, y in pixels, in the order of the table."""
    here = cells.obs["image"].astype(str).to_numpy() == name
    return np.asarray(cells.obs[["x", "y"]].to_numpy(dtype=np.float64)[here])


def measure_cohort(images: ImageSet, labels_of: Callable[[Image], Labels]) -> AnnData:
    """Measure the masks of each image.

    Parameters
    ----------
    images
        Cleaned.
    labels_of
        Gives the masks of an image.

    Returns
    -------
    AnnData
        What :func:`segment` returns, without clusters and UMAP.
    """
    measured, um_per_pixel = {}, {}
    for image in track(images, "segment (images)", total=len(images)):
        measured[image.name] = measure_masks(image.pixels_cyx, labels_of(image))
        um_per_pixel[image.name] = image.um_per_pixel
        if not len(measured[image.name].label_n):
            log(f"segment: no masks in image {image.name}")
    centres = {name: found.centres_xy for name, found in measured.items()}
    cells = make_cells(centres, images.panel, um_per_pixel)
    cells.X = np.concatenate([found.means_nc for found in measured.values()])
    cells.obs["area"] = np.concatenate([found.area_px for found in measured.values()])
    cells.obs["label"] = np.concatenate([found.label_n for found in measured.values()])
    return cells


def group(cells: AnnData, cluster: ClusterSettings, umap: UmapSettings, seed: int) -> None:
    """Cluster and lay out cells by the markers in use, in place, as mask-free cells are."""
    from anndata import AnnData

    from maskless import pipeline

    means_nc = np.asarray(cells.X)[:, cells.var["used"].to_numpy(dtype=bool)]
    if cells.n_obs <= cluster.k:
        raise InputError(
            "there are fewer masks than neighbours",
            expected=f"more than k = {cluster.k} masks",
            found=cells.n_obs,
            do="Lower k under [cluster] in study.toml, or add images",
        )
    points = AnnData(obs=cells.obs[["image"]].copy(), obsm={"X_embedding": means_nc})
    pipeline.cluster(points, **cluster.model_dump(), seed=seed)
    pipeline.umap(points, **umap.model_dump(), seed=seed)
    cells.obs[["cluster", "phenotype"]] = points.obs[["cluster", "phenotype"]]
    cells.obsm["X_umap"] = points.obsm["X_umap"]
    cells.obsp["connectivities"] = points.obsp["connectivities"]
    cells.uns["maskless"]["modularity"] = points.uns["maskless"]["modularity"]
