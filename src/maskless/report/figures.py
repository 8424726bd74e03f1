"""The figures of a study: which there are, what they are called, how they are to be read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from maskless.config import ReportSettings
from maskless.errors import InputError
from maskless.images.image import ImageSet
from maskless.progress import log, track
from maskless.report.align_plot import alignment_figure
from maskless.report.assign_plot import assignment
from maskless.report.background_plot import BackgroundSample, background_figure
from maskless.report.curves import History, read_history, response_curves, training_curve
from maskless.report.gallery import gallery
from maskless.report.groups import groups_of
from maskless.report.heatmap import bubble, heatmap
from maskless.report.pixels import chosen_markers, contrast_limits
from maskless.report.quality_plot import quality_figure
from maskless.report.quality_section import quality_of
from maskless.report.spillover_plot import SpilloverSample, spillover_figure
from maskless.report.style import save
from maskless.report.tissue import detection_overlay, tissue
from maskless.report.umap_plots import umap, umap_panels

if TYPE_CHECKING:
    from anndata import AnnData

    from maskless.images.align import Alignment
    from maskless.images.scale import Scaling

MOST_TISSUES = 12
MOST_DETECTIONS = 6


class Drawn(NamedTuple):
    """A figure on disk; the SVG stands beside the PNG."""

    title: str
    caption: str
    png: Path


class _Plan(NamedTuple):
    title: str
    caption: str
    draw: Callable[[], Figure]


_TREES = (
    "Rows are clusters, columns are markers; similar ones stand side by side, as the trees show. "
    "The grey bars count cells. “unknown” are cells in no cluster."
)
_POINTS = (
    "Each point is a cell. Cells whose embeddings are alike lie close together; the axes have no "
    "unit, and distances between far groups mean little. "
)


def draw_all(
    cells: AnnData,
    images: ImageSet | None,
    history: History | Path | None,
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]] | None,
    settings: ReportSettings,
    folder: Path,
    *,
    seed: int = 0,
    spillover: SpilloverSample | None = None,
    background: BackgroundSample | None = None,
    aligned: tuple[Alignment, Scaling] | None = None,
) -> dict[str, Drawn]:
    """Draw every figure that the study has the data for, each as PNG and SVG.

    Parameters
    ----------
    cells
        As in cells.h5ad.
    images
        Cleaned images; without them there are no galleries and maps.
    history
        Of training, see :func:`maskless.report.training_curve`.
    curves
        See :func:`maskless.report.response_curves`.
    settings
        Markers of the composites, a further column to colour by.
    folder
        Where to write; files of the same name are replaced, each whole or not at all.
    seed
        Of galleries and the order of points.
    aligned
        With what the images were aligned and scaled; without it there is no figure of it.
    spillover
        Pixels before and after compensation, where there was any.
    background
        A part of an image before and after background removal, where there was any.

    Returns
    -------
    dict
        File stem (``"heatmap_z"``) to title, caption and PNG path, in the order of a report.
        Figures without data (no UMAP yet, no nuclear channel, ...) are left out.

    Raises
    ------
    InputError
        The settings name a marker or column that is not there.
    StudyError
        If the folder cannot be written to.
    """
    plans = _plans(cells, images, history, curves, settings, seed)
    if aligned is not None and images is not None and len(aligned[0].groups) > 1:
        plans["alignment"] = _Plan(
            "What alignment did",
            "The stains whose factors differ most. Each line is an image; left as measured, right "
            "brought to one level (dotted). Peaks that part by batch before and meet after say it "
            "was the stain; lines that differ in shape say it was the tissue.",
            lambda: alignment_figure(images, *aligned),
        )
    if spillover is not None and (pairs := spillover.pairs()):
        plans["spillover"] = _Plan(
            "Spillover before and after compensation",
            "Where the pixels lie: across the channel that spills, up the one that it spills into "
            "(counts). Spilled ions lie along the dashed line on the left and are gone on the "
            "right; what stands above the line is real, and stays. A cloud that still rises "
            "along the line says that the matrix holds too little.",
            lambda: spillover_figure(spillover, pairs),
        )
    if background is not None and background.markers:
        plans["background"] = _Plan(
            "Background before and after its removal",
            "Each marker twice, with the same contrast: as it was, and what was kept. "
            "What is gone should be noise and haze; cells that are gone on the right say that too "
            "much was taken ([clean] background_removal in study.toml).",
            lambda: background_figure(background),
        )
    drawn: dict[str, Drawn] = {}
    for stem, plan in track(plans.items(), "report (figures)", total=len(plans)):
        figure = plan.draw()
        png = folder / f"{stem}.png"
        save(figure, png)
        save(figure, folder / f"{stem}.svg")
        drawn[stem] = Drawn(plan.title, plan.caption, png)
    return drawn


def _plans(
    cells: AnnData,
    images: ImageSet | None,
    history: History | Path | None,
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]] | None,
    settings: ReportSettings,
    seed: int,
) -> dict[str, _Plan]:
    plans: dict[str, _Plan] = {}
    if settings.label is not None and settings.label not in cells.obs:
        raise InputError(
            f"the cells have no column {settings.label!r} to colour the report by",
            expected=f"one of {', '.join(map(str, cells.obs.columns))}",
            do="Change label in the [report] table of study.toml",
        )
    if "assign" in cells.uns.get("maskless", {}):
        plans["assignment"] = _Plan(
            "New images beside the study that named them",
            "Left: how bright each marker is, beside cells of the study that are alike in all "
            "other markers; far outside the shaded range, staining or instrument have changed. "
            "Right: cells that are unlike anything in the study, which got no name.",
            lambda: assignment(cells),
        )
    clustered = "cluster" in cells.obs and cells.n_obs > 0
    if clustered:
        plans.update(_heatmaps(cells))
    else:
        log("report: no clusters, so no heat maps, galleries and maps")
    if "X_umap" in cells.obsm and cells.n_obs:
        plans.update(_umaps(cells, settings.label, seed))
    if clustered and images is not None and len(images):
        plans.update(_pictures(cells, images, settings, seed))
    quality = quality_of(cells)
    if quality is not None:
        shown = [str(name) for name in cells.var_names[cells.var["used"].to_numpy(dtype=bool)]]
        plans["quality"] = _Plan(
            "Quality of the images",
            "Each square is a marker in an image. Left: how much structure beside noise; dark is "
            "little. Middle: how much of the area is stained. Right: pixels at the ceiling. Below: "
            "does the signal drift while the image is scanned, and how wide are the finest "
            "structures (wide means out of focus)? Dotted lines are limits.",
            lambda: quality_figure(quality, shown),
        )
    if isinstance(history, Path):
        history = read_history(history) if history.is_file() else None
    if not history:
        log("report: no training steps, so no training curve")
    else:
        steps = history
        plans["training"] = _Plan(
            "Training",
            "How hard it was for the encoder to recognise views of the same cell (loss; lower is "
            "better), step by step, and the learning rate below. A curve that has become flat has "
            "learnt what it can with these settings.",
            lambda: training_curve(steps),
        )
    if curves:
        plans["response"] = _Plan(
            "Response curves",
            "Can activation be read as expression? Each marker's pixels were multiplied by a "
            "factor (across); up is the mean activation that came out. A rising curve says yes.",
            lambda: response_curves(curves),
        )
    return plans


def _heatmaps(cells: AnnData) -> dict[str, _Plan]:
    return {
        "heatmap_z": _Plan(
            "Clusters and their markers (z-score)",
            f"{_TREES} Red: more of the marker than the average cluster, blue: less, in standard "
            "deviations over clusters. This shows best what makes a cluster special.",
            lambda: heatmap(cells, "z"),
        ),
        "heatmap_01": _Plan(
            "Clusters and their markers (0 to 1)",
            f"{_TREES} Each marker runs from the cluster with least (0) to the one with most (1).",
            lambda: heatmap(cells, "0-1"),
        ),
        "heatmap_raw": _Plan(
            "Clusters and their markers (activation)",
            f"{_TREES} The mean activation itself; 0 means no more than background. Markers can "
            "be compared with caution only: stains differ in brightness.",
            lambda: heatmap(cells, "raw"),
        ),
        "bubble": _Plan(
            "Clusters and their markers (bubbles)",
            f"{_TREES} The colour of a bubble is the mean, from the marker's lowest to its highest "
            "cluster; its size is the share of cells in which the marker lies above background. "
            "A small dark bubble: few cells, but strong.",
            lambda: bubble(cells),
        ),
    }


def _umaps(cells: AnnData, label: str | None, seed: int) -> dict[str, _Plan]:
    plans: dict[str, _Plan] = {}
    if "cluster" in cells.obs:
        plans["umap_cluster"] = _Plan(
            "UMAP by cluster",
            f"{_POINTS}Numbers name the clusters; light grey are cells in no cluster.",
            lambda: umap(cells, "cluster", seed=seed),
        )
    plans["umap_markers"] = _Plan(
        "UMAP by marker",
        f"{_POINTS}Dark: much of the marker. A marker of a cell type lights up in one place.",
        lambda: umap_panels(cells, seed=seed),
    )
    plans["umap_image"] = _Plan(
        "UMAP by image",
        f"{_POINTS}Images that fill the same places hold the same kinds of cells; a place that "
        "only one image fills says that it differs, through biology or through staining.",
        lambda: umap(cells, "image", seed=seed),
    )
    named = "phenotype" in cells.obs and not groups_of(cells, "phenotype").unknown_g.all()
    if named and label != "phenotype":
        plans["umap_phenotype"] = _Plan(
            "UMAP by phenotype",
            f"{_POINTS}Colours are the names that people gave to the clusters.",
            lambda: umap(cells, "phenotype", seed=seed),
        )
    if label is not None:
        plans["umap_label"] = _Plan(
            f"UMAP by {label}",
            f"{_POINTS}Colours show the column {label} of the cells.",
            lambda: umap(cells, label, seed=seed),
        )
    return plans


def _pictures(
    cells: AnnData, images: ImageSet, settings: ReportSettings, seed: int
) -> dict[str, _Plan]:
    markers = chosen_markers(cells, settings.gallery_markers, "cluster")
    chosen = spread(images.names, MOST_TISSUES)
    limits: list[NDArray[np.float64]] = []

    def contrast() -> NDArray[np.float64]:
        # One pass over the images, when the first figure asks.
        if not limits:
            limits.append(contrast_limits((images[name] for name in chosen), markers))
        return limits[0]

    plans = {
        "gallery": _Plan(
            "Typical cells",
            "Each row shows cells of one cluster, cut from the images with their surroundings; the "
            "ring marks the cell. Colours are markers, with the same contrast in all squares.",
            lambda: gallery(cells, images, markers=markers, seed=seed, limits_m2=contrast()),
        )
    }
    stems = file_stems(chosen)
    for name in chosen:
        plans[f"tissue_{stems[name]}"] = _Plan(
            f"Tissue map of {name}",
            "Left: markers as they look, with the same contrast in all images. Right: each cell "
            "as a disc in the colour of its cluster; light grey is in no cluster."
            f"{_which(len(chosen), len(images))}",
            lambda name=name: tissue(  # type: ignore[misc]
                cells, images[name], markers=markers, limits_m2=contrast()
            ),
        )
    looked_at = spread(chosen, MOST_DETECTIONS) if images.panel.nuclear else ()
    for name in looked_at:
        plans[f"detection_{stems[name]}"] = _Plan(
            f"Nuclei found in {name}",
            "The nuclear signal in grey and a mark on each centre that was found. Nuclei without "
            "a mark were missed; marks without a nucleus were made up."
            f"{_which(len(looked_at), len(images))}",
            lambda name=name: detection_overlay(  # type: ignore[misc]
                cells, images[name], images.panel
            ),
        )
    return plans


def _which(shown: int, total: int) -> str:
    if shown == total:
        return ""
    return f" {shown} of the {total} images are shown, spread over the cohort."


def spread(names: Sequence[str], most: int) -> tuple[str, ...]:
    """At most `most` of the names, the first and the last among them, evenly spread."""
    if len(names) <= most:
        return tuple(names)
    return tuple(names[i] for i in np.linspace(0, len(names) - 1, most).round().astype(int))


def file_stems(names: Sequence[str]) -> dict[str, str]:
    """A safe and unique part of a file name for each image name."""
    stems: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        base = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[:80] or "image"
        stem, number = base, 2
        # Some file systems do not tell capitals from small letters.
        while stem.lower() in taken:
            stem, number = f"{base}_{number}", number + 1
        taken.add(stem.lower())
        stems[name] = stem
    return stems
