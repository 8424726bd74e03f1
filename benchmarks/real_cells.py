"""Means of real cells over given masks, with the labels that people gave them, for benchmarks.

    python benchmarks/real_cells.py data/spleen_imc points.npy labels.npy
    python benchmarks/real_cells.py data/codex_lymph_node points.npy labels.npy
    python benchmarks/clustering.py --points points.npy --labels labels.npy

A folder holds ``panel.csv`` (channel, name, perhaps kind) and, itself or in subfolders, regions:
``image.ome.tif`` (channel, y, x), a mask and a table of labelled cells. A point is, for each
channel that is not background, asinh of the mean over the cell divided by the channel's median of
means that are not zero, clipped at the 99.9th percentile of the region.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

TABLES = (
    ("cells_labelled.csv", "mask_labelled.tif", "cell_type"),
    ("cells.csv", "mask.tif", "label_id"),
)
NO_CELLS = ("background/non-cell", "background")


def read_region(
    folder: Path, channels: NDArray[np.intp]
) -> tuple[NDArray[np.float32], NDArray[np.str_]] | None:
    """Points and labels of the labelled cells of one region; None if nothing is labelled."""
    for table_name, mask_name, column in TABLES:
        if not (folder / table_name).exists():
            continue
        table = pd.read_csv(folder / table_name).dropna(subset=[column])
        table = table[~table[column].astype(str).isin(NO_CELLS)]
        image = tifffile.imread(folder / "image.ome.tif").astype(np.float64)
        mask = tifffile.imread(folder / mask_name)
        cells = table["cell_id"].to_numpy()
        means = np.stack([ndimage.mean(image[c], mask, cells) for c in channels], axis=1)
        scale = [np.median(column[column > 0]) for column in means.T]
        points = np.arcsinh(means / scale)
        points = np.minimum(points, np.quantile(points, 0.999, axis=0))
        return points.astype(np.float32), table[column].astype(str).to_numpy()
    return None


def main() -> None:
    """Write points and labels of all regions of a folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("points", type=Path)
    parser.add_argument("labels", type=Path)
    options = parser.parse_args()
    panel = pd.read_csv(options.folder / "panel.csv")
    kept = np.ones(len(panel), bool)
    if "kind" in panel:
        kept = ~panel["kind"].astype(str).str.contains("background").to_numpy()
    regions = [options.folder, *sorted(path for path in options.folder.iterdir() if path.is_dir())]
    read = [read_region(region, np.flatnonzero(kept)) for region in regions]
    found = [region for region in read if region is not None]
    labels = np.concatenate([labels for _, labels in found])
    np.save(options.points, np.concatenate([points for points, _ in found]))
    np.save(options.labels, np.unique(labels, return_inverse=True)[1].astype(np.int16))
    names, counts = np.unique(labels, return_counts=True)
    print(f"{len(labels)} cells, {kept.sum()} channels, {len(found)} regions")
    print(", ".join(f"{name} {count}" for name, count in zip(names, counts, strict=True)))


if __name__ == "__main__":
    main()
