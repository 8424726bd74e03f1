"""Data sets on which methods are compared: images, detected cells, their reference, controls.

Real ones lie in a folder given by the user; simulated ones are made once into a scratch folder and
labelled as simulated wherever they are shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from sklearn.metrics import roc_auc_score

import maskless as mx
from maskless.compare.controls import control_tables
from maskless.compare.reference import Matched, match_reference
from maskless.images import ImageSet
from maskless.segmentation import measure_masks, segment_image

REAL = ("spleen", "codex")
SIMULATED = ("simulated sparse", "simulated medium", "simulated spleen", "simulated dense")
SETS = (*REAL, *SIMULATED)
Table = NDArray[np.float32]


@dataclass(frozen=True)
class DataSet:
    """Images, all detected cells, and those that a reference labels."""

    name: str
    images: ImageSet
    cells: AnnData
    matched: Matched
    folder: Path
    masks: str

    @property
    def centres_yx(self) -> NDArray[np.float64]:
        return self.cells.obs[["y", "x"]].to_numpy(dtype=np.float64)[self.matched.rows_p]


def open_set(name: str, data: Path, scratch: Path) -> DataSet:
    """Read (or simulate), clean, detect and match."""
    without: tuple[str, ...] = ()
    if name == "spleen":
        folder = data / "spleen_imc"
        paths = [folder / region for region in ("r2", "r4", "r8", "r10")]
        reference, label = "{image}/cells_labelled.csv", "cell_type"
        masks, without = "{image}/mask_labelled.tif", ("background/non-cell",)
    elif name == "codex":
        folder = data / "codex_lymph_node"
        paths, label, masks = [folder / "image.ome.tif"], "label_id", "../{image}/mask.tif"
        labelled = scratch / "codex.csv"
        pd.read_csv(folder / "cells.csv").dropna().to_csv(labelled, index=False)
        reference = str(labelled)
    else:
        density = name.rsplit(maxsplit=1)[-1]
        folder = scratch / f"simulated_{density}"
        if not (folder / "simulation.json").exists():
            mx.simulate(folder, "demo", images=8, size_px=300, density=density, seed=11)
        paths = sorted(folder.glob("simulated_*"))
        reference, label, masks = "{image}/cells_truth.csv", "cell_type", "{image}/mask.tif"
    panel, um = folder / "panel.csv", 1.0 if name == "codex" else None
    images = mx.clean(mx.read_images(paths, panel=panel, um_per_pixel=um))
    cells = mx.detect(images)
    given = reference if Path(reference).is_absolute() else str(folder / reference)
    matched = match_reference(cells, images, given, label, without=without)
    return DataSet(name, images, cells, matched, folder, str(folder / masks))


def controls(data: DataSet) -> dict[str, Table]:
    """What needs no encoder: discs, rings, pixels, reference masks, our masks, soft Voronoi."""
    tables = control_tables(data.images, data.matched, data.centres_yx, data.masks)
    tables["watershed masks"] = _over_images(data, _segmented)
    tables["soft Voronoi of the centres"] = _over_images(data, _owned)
    return tables


def _over_images(data: DataSet, measure) -> Table:
    table = np.zeros((len(data.matched.rows_p), len(data.images.panel.markers)), np.float32)
    for name in data.matched.images:
        rows = np.flatnonzero(data.matched.image_p == name)
        table[rows] = measure(data, name, data.centres_yx[rows])
    return table


def _all_centres(data: DataSet, name: str) -> NDArray[np.float64]:
    here = data.cells.obs["image"].astype(str).to_numpy() == name
    return data.cells.obs[["y", "x"]].to_numpy(dtype=np.float64)[here]


def _segmented(data: DataSet, name: str, centres_yx: NDArray[np.float64]) -> Table:
    """The segmentation benchmark: nuclei grown from all centres, widened, mean intensity."""
    image, all_yx = data.images[name], _all_centres(data, name)
    labels = segment_image(
        image, data.images.panel, mx.SegmentSettings(), mx.DetectSettings(), all_yx[:, ::-1]
    )
    found = measure_masks(np.asarray(image.pixels_cyx)[data.images.panel.used], labels)
    means = np.zeros((len(all_yx), found.means_nc.shape[1]), np.float32)
    means[found.label_n - 1] = found.means_nc
    return means[cKDTree(all_yx).query(centres_yx)[1]]


def _owned(data: DataSet, name: str, centres_yx: NDArray[np.float64]) -> Table:
    """Means weighted by nearness: to the centre (sigma 4 um), rather than to others (1.5 um)."""
    image = data.images[name]
    pixels = np.asarray(image.pixels_cyx, np.float32)[data.images.panel.used]
    tree, um = cKDTree(_all_centres(data, name)), image.um_per_pixel
    around = np.arange(-10, 11)
    offsets = np.stack(np.meshgrid(around, around, indexing="ij"), -1).reshape(-1, 2)
    means = np.empty((len(centres_yx), len(pixels)), np.float32)
    for n, centre in enumerate(centres_yx):
        places = np.rint(centre).astype(int) + offsets
        places = places[((places >= 0) & (places < pixels.shape[1:])).all(1)]
        own = ((places - centre) ** 2).sum(1) * um**2
        others = tree.query(places, k=min(6, tree.n))[0] ** 2 * um**2
        share = 1 / np.exp(np.minimum((own[:, None] - others) / (2 * 1.5**2), 50)).sum(1)
        weight = share * np.exp(-own / (2 * 4**2))
        means[n] = pixels[:, places[:, 0], places[:, 1]] @ (weight / weight.sum())
    return means


def positivity_auc(data: DataSet, table_pc: Table) -> float:
    """Mean over markers of the AUC with which a value a marker finds truly positive cells."""
    parts = []
    for name in data.matched.images:
        levels = pd.read_csv(data.folder / name / "levels_truth.csv").set_index("cell_id")
        ids = data.matched.id_p[data.matched.image_p == name]
        parts.append(levels.reindex(columns=data.images.panel.markers).loc[ids])
    levels = pd.concat(parts)
    found = []
    for column, marker in enumerate(levels.columns):
        positive = levels[marker].to_numpy() > 0
        if 0.01 < positive.mean() < 0.99:
            found.append(roc_auc_score(positive, table_pc[:, column]))
    return float(np.mean(found))
