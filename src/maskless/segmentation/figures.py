"""Figures of the segmentation benchmark: those of a study, and the outlines of the masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from maskless.progress import track
from maskless.report import gallery, heatmap, save, tissue, umap, umap_panels
from maskless.report.figures import MOST_DETECTIONS, MOST_TISSUES, file_stems, spread
from maskless.report.mask_plot import mask_overlay
from maskless.report.pixels import chosen_markers, contrast_limits

if TYPE_CHECKING:
    from anndata import AnnData

    from maskless.config import ReportSettings
    from maskless.images.image import Image, ImageSet
    from maskless.segmentation.masks import Labels

_WHAT = "intensity over the mask"


def draw_segmentation(
    cells: AnnData,
    images: ImageSet,
    labels_of: Callable[[Image], Labels],
    settings: ReportSettings,
    folder: Path,
    *,
    seed: int = 0,
) -> dict[str, str]:
    """Draw every figure of the benchmark, each as PNG and SVG.

    Parameters
    ----------
    cells
        What :func:`maskless.segmentation.segment` returns.
    images
        Cleaned.
    labels_of
        Gives the masks of an image.
    settings
        Markers of the composites.
    folder
        Where to write.
    seed
        Of the gallery and the order of points.

    Returns
    -------
    dict
        File stem to title.
    """
    shown = cells.copy()
    shown.layers[_WHAT] = np.asarray(cells.X)  # named so in the figures: it is no activation
    markers = chosen_markers(shown, settings.gallery_markers, "cluster")
    chosen = spread(images.names, MOST_TISSUES)
    outlined = spread(chosen, MOST_DETECTIONS)
    limits = contrast_limits((images[name] for name in chosen), markers)
    stems = file_stems(chosen)
    plans: dict[str, tuple[str, Callable[[], Figure]]] = {
        "heatmap_z": ("Clusters and their markers", lambda: heatmap(shown, "z", layer=_WHAT)),
        "heatmap_raw": ("Mean intensities", lambda: heatmap(shown, "raw", layer=_WHAT)),
        "umap_cluster": ("UMAP by cluster", lambda: umap(shown, "cluster", seed=seed)),
        "umap_markers": ("UMAP by marker", lambda: umap_panels(shown, layer=_WHAT, seed=seed)),
        "umap_image": ("UMAP by image", lambda: umap(shown, "image", seed=seed)),
        "gallery": (
            "Typical cells",
            lambda: gallery(shown, images, markers=markers, seed=seed, limits_m2=limits),
        ),
    }
    for name in chosen:
        plans[f"tissue_{stems[name]}"] = (
            f"Tissue map of {name}",
            lambda name=name: tissue(  # type: ignore[misc]
                shown, images[name], markers=markers, limits_m2=limits
            ),
        )
    for name in outlined if images.panel.nuclear else ():

        def outlines(name: str = name) -> Figure:
            image = images[name]
            return mask_overlay(labels_of(image), image, images.panel)

        plans[f"masks_{stems[name]}"] = (f"Masks of {name}", outlines)
    for stem, (_, draw) in track(plans.items(), "segment (figures)", total=len(plans)):
        figure = draw()
        for kind in ("png", "svg"):
            save(figure, folder / f"{stem}.{kind}")
    return {stem: title for stem, (title, _) in plans.items()}
