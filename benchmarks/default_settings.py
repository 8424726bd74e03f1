"""Why the default is what it is: settings of training compared on cells that people labelled.

    python benchmarks/default_settings.py data/spleen_imc --steps 200

Centres are those of the labelled cells, so that detection plays no part. Each setting is trained
without labels on all regions that have them; probes are split by region. The untrained encoder of
the same shape, the disc mean and the paper's preset (shortened to the same steps) stand beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

import maskless as mx
from maskless.analysis.agreement import cluster_scores
from maskless.analysis.matching import match_centres
from maskless.analysis.probes import knn_probe, linear_probe
from maskless.config import PRESETS, resolve

TABLE = "cells_labelled.csv"
NO_CELL = "background/non-cell"
WIDE, NONE = (0.5, 2.0), (0.99, 1.01)
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "pooling sigma 3 um": {"encoder": {"pooling_radius_um": 3.0}},
    "gain 0.5 to 2": {"train": {"gain": WIDE}},
    "no gain": {"train": {"gain": NONE}},
    "both as before": {"encoder": {"pooling_radius_um": 3.0}, "train": {"gain": WIDE}},
    "smaller views": {"train": {"view_um": (12, 12, 10, 8)}, "embed": {"view_um": 12}},
    "paper, shortened": {
        "encoder": PRESETS["paper"]["encoder"],
        "train": {
            key: value
            for key, value in PRESETS["paper"]["train"].items()
            if key not in ("steps", "cells_per_step")
        },
    },
}


def labelled_cells(folder: Path) -> tuple[Any, AnnData, np.ndarray]:
    """Cleaned images, cells at the labelled centres, and their labels."""
    paths = sorted(path.parent for path in folder.glob(f"*/{TABLE}"))
    images = mx.clean(mx.read_images(paths, panel=folder / "panel.csv"))
    cells = mx.detect(
        images, mx.DetectSettings(method="centres", files="{image}/" + TABLE), base=folder
    )
    label = np.full(cells.n_obs, NO_CELL, dtype=object)
    for path in paths:
        table = pd.read_csv(path / TABLE)
        rows = np.flatnonzero(cells.obs["image"] == path.name)
        xy = cells.obs[["x", "y"]].to_numpy(float)[rows]
        pairs = match_centres(xy, table[["x", "y"]].to_numpy(float), 1.0)
        label[rows[pairs.a]] = table["cell_type"].to_numpy()[pairs.b]
    return images, cells, label


def scores(points: np.ndarray, label: np.ndarray, groups: np.ndarray) -> Iterator[float]:
    """Linear and kNN macro-F1, ARI and held-out macro-F1 of PhenoGraph's clusters."""
    seeds = (0, 1)
    yield float(np.mean(linear_probe(points, label, groups, seeds).macro_f1))
    yield float(np.mean(knn_probe(points, label, groups, seeds).macro_f1))
    found = cluster_scores(mx.phenograph(points), label, groups=groups, seeds=seeds)
    yield found["ari"]
    yield found["held_out_macro_f1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="*", choices=sorted(SETTINGS), default=list(SETTINGS))
    arguments = parser.parse_args()
    images, cells, label = labelled_cells(arguments.folder)
    real = label != NO_CELL
    groups = cells.obs["image"].astype(str).to_numpy()[real]

    def show(name: str, points: np.ndarray) -> None:
        row = "".join(f"{score:>10.3f}" for score in scores(points[real], label[real], groups))
        print(f"{name:<36}{row}", flush=True)

    print(f"{'':<36}{'linear':>10}{'kNN':>10}{'ARI':>10}{'held-out':>10}")
    for seed in arguments.seeds:
        for name in arguments.only:
            tables = SETTINGS[name]
            for steps in (0, arguments.steps):
                train = {**tables.get("train", {}), "steps": steps}
                config = resolve({**tables, "train": train})
                encoder = mx.train(
                    images,
                    cells,
                    config.encoder,
                    config.train,
                    embed_view_um=config.embed.view_um,
                    seed=seed,
                )
                found = mx.embed(encoder, images, cells, config.embed)
                show(f"{name}, {steps} steps, seed {seed}", found.obsm["X_embedding"])
    show("disc mean", found.layers["disc_mean"][:, found.var["used"].to_numpy()])


if __name__ == "__main__":
    main()
