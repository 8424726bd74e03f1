"""What compensation does to labelled cells: a marker in cells that should not have it.

``python benchmarks/spillover_tissue.py data/spleen_imc beads.csv.gz spots/``

The spleen has CD20 on Dy161 and CD8a on Dy162. For each region with labels: mean counts of CD8a
over the masks of B cells and of CD8 T cells, and the correlation of CD20 and CD8a among B cells,
as counted and after compensation with a matrix from each of the single stains that are given.
These come from other instruments than the images, and the labels were made from intensities
without compensation.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from scipy import ndimage

from maskless.config import CleanSettings
from maskless.images import compensate, estimate_spillover, read_images
from maskless.images.counts import counts_of

MARKERS = ("CD20", "CD8a")
TYPES = ("B", "CD8")


def main() -> None:
    """Print a line for each region and matrix."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("stains", type=Path, nargs="+")
    given = parser.parse_args()
    images = read_images(given.folder)
    places = [images.panel.index(name) for name in MARKERS]
    matrices = {
        path.name: estimate_spillover(path).matrix.adapted(images.panel).shares_cc
        for path in given.stains
    }
    print(f"{'region':<8}{'matrix':<26}{'in B':>7}{'in CD8 T':>10}{'ratio':>7}{'correlation':>13}")
    for region in images.names:
        table = given.folder / region / "cells_labelled.csv"
        if not table.is_file():
            continue
        cells = pd.read_csv(table)
        mask = tifffile.imread(table.with_name("mask_labelled.tif"))
        labels = cells["cell_type"].astype(str)
        is_b, is_cd8 = (labels.str.startswith(name).to_numpy() for name in TYPES)
        counts_cyx, _ = counts_of(images[region], CleanSettings())
        for name, matrix in {"none": None, **matrices}.items():
            clean_cyx = counts_cyx if matrix is None else compensate(counts_cyx, matrix)
            cd20, cd8 = (ndimage.mean(clean_cyx[c], mask, cells["cell_id"]) for c in places)
            in_b, in_t = cd8[is_b].mean(), cd8[is_cd8].mean()
            together = np.corrcoef(cd20[is_b], cd8[is_b])[0, 1]
            numbers = f"{in_b:>7.2f}{in_t:>10.2f}{in_t / in_b:>7.1f}{together:>13.2f}"
            print(f"{region:<8}{name:<26}{numbers}")


if __name__ == "__main__":
    main()
