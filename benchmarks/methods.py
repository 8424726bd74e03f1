"""The study of methods: what makes an embedding good, on real and simulated tissue.

    python benchmarks/methods.py data --sets spleen codex --rows controls default "random encoder"
    python benchmarks/methods.py data --results methods.jsonl    # everything; goes on if stopped

Cells are detected and matched with the reference; encoders are trained without labels on all cells
of the set. Clusters are PhenoGraph, named on one half of the images (blocks of tissue where there
is one image) and scored on the other; probes are split in the same way. Every control stands in the
same table. The settings of the default were chosen on these sets: expect less on others.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from method_losses import training_with
from method_sets import SETS, DataSet, Table, controls, open_set, positivity_auc

import maskless as mx
from maskless.compare.scores import score_table
from maskless.config import PRESETS, ClusterSettings, resolve

FULL, NO_GAIN, OFF = (0.5, 2.0), (1.0, 1.0), (0.0, 0.0)
PAPER = {
    "encoder": PRESETS["paper"]["encoder"],
    "train": {**PRESETS["paper"]["train"], "steps": 300, "cells_per_step": 128},
}
# What differs from the default, a row each.
FROM_DEFAULT: dict[str, dict[str, Any]] = {
    "default": {},
    "random encoder": {"train": {"steps": 0}},
    "paper's preset, 300 steps": PAPER,
    "paper's preset, untrained": {**PAPER, "train": {**PAPER["train"], "steps": 0}},
    "all markers shown": {"train": {"marker_dropout": 0.0}},
    "a quarter hidden": {"train": {"marker_dropout": 0.25}},
    "three quarters hidden": {"train": {"marker_dropout": 0.75}},
    "half hidden, 300 steps": {"train": {"steps": 300}},
    "half hidden, 3,000 steps": {"train": {"steps": 3000}},
    "half hidden, gain 0.7 to 1.4": {"train": {"gain": (0.7, 1.4)}},
    "half hidden, width 16": {"encoder": {"width": 16}},
    "half hidden, surroundings beyond 4 to 8 um": {"train": {"surroundings_um": (4.0, 8.0)}},
}
# What differs from an earlier default, which showed all markers in each view.
EARLIER = {"marker_dropout": 0.0, "steps": 300}
FROM_EARLIER: dict[str, dict[str, Any]] = {
    "all shown, 300 steps": {},
    "own surroundings": {"train": {"surroundings_um": OFF}},
    "surroundings beyond 2.5 to 4 um": {"train": {"surroundings_um": (2.5, 4.0)}},
    "surroundings beyond 4 to 8 um": {"train": {"surroundings_um": (4.0, 8.0)}},
    "no jitter": {"train": {"jitter_um": 0.0}},
    "gain 0.5 to 2": {"train": {"gain": FULL}},
    "one gain a view, 0.5 to 2": {"train": {"gain": FULL, "gain_per_marker": False}},
    "no gain": {"train": {"gain": NO_GAIN}},
    "no noise": {"train": {"noise": 0.0}},
    "noise to 0.3": {"train": {"noise": 0.3}},
    "no rotation": {"train": {"rotate": False}},
    "views 12, 12, 10, 8 um": {
        "train": {"view_um": (12.0, 12.0, 10.0, 8.0)},
        "embed": {"view_um": 12.0},
    },
    "two views": {"train": {"view_um": (16.0, 14.0)}},
    "temperature 0.1": {"train": {"temperature": 0.1}},
    "temperature 0.5": {"train": {"temperature": 0.5}},
    "VICReg": {"loss": "vicreg"},
    "BYOL": {"loss": "byol"},
    "no projection head": {"train": {"projection": False}},
    "LARS 4.6": {
        "train": {"optimizer": "lars", "learning_rate": 4.6, "weight_decay": 1e-6},
    },
    "100 steps": {"train": {"steps": 100}},
    "1,000 steps x 256 cells": {"train": {"steps": 1000, "cells_per_step": 256}},
    "width 4": {"encoder": {"width": 4}},
    "width 16": {"encoder": {"width": 16}},
    "one block": {"encoder": {"blocks": (1,)}},
    "two stages": {"encoder": {"blocks": (1, 1)}},
    "stem stride 1": {"encoder": {"stem_stride": 1}},
    "kernel 5": {"encoder": {"kernel": 5}},
    "no norm": {"encoder": {"norm": "none"}},
    "mean pooling": {"encoder": {"pooling": "mean"}},
    "pooling sigma 3 um": {"encoder": {"pooling_radius_um": 3.0}},
    "fusion as trained": {"train": {"fusion": "trained"}},
}
ROWS = FROM_DEFAULT | {
    name: {**tables, "train": EARLIER | tables.get("train", {})}
    for name, tables in FROM_EARLIER.items()
}
SHOWN = ("linear_macro_f1", "knn_macro_f1", "held_out_macro_f1", "ari", "ami")


def trained(data: DataSet, name: str, seed: int) -> tuple[dict[str, Table], float]:
    """Embedding, features and activations of the matched cells, and CPU seconds of training."""
    tables = dict(ROWS[name])
    loss = tables.pop("loss", "nt_xent")
    config = resolve(tables)
    start = time.process_time()
    with training_with(loss):
        encoder = mx.train(
            data.images,
            data.cells,
            config.encoder,
            config.train,
            embed_view_um=config.embed.view_um,
            seed=seed,
        )
    seconds = time.process_time() - start
    chosen = data.cells[data.matched.rows_p].copy()
    found = mx.embed(encoder, data.images, chosen, config.embed)
    return {
        "": found.obsm["X_embedding"],
        ", features": found.obsm["X_features"],
        ", activations": np.asarray(found.X)[:, data.images.panel.used],
    }, seconds


def results(data: DataSet, rows: list[str], seeds: list[int]) -> Iterator[dict[str, Any]]:
    """Scores of each control and row."""

    def scored(name: str, table: Table, seed: int, **more: Any) -> dict[str, Any]:
        scores = score_table(table, data.matched, ClusterSettings(), [seed, seed + 1])
        if data.name.startswith("simulated") and table.shape[1] == len(data.images.panel.markers):
            more["auc"] = positivity_auc(data, table)
        kept = {key: round(scores[key], 4) for key in SHOWN}
        return {"set": data.name, "row": name, "seed": seed, **kept, **more}

    if "controls" in rows:
        for name, table in controls(data).items():
            for seed in seeds:
                yield scored(name, table, seed)
    for name in (row for row in rows if row != "controls"):
        for seed in seeds:
            tables, seconds = trained(data, name, seed)
            for what, table in tables.items():
                if not what or name in ("default", "random encoder"):
                    yield scored(name + what, table, seed, train_cpu_s=round(seconds, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="folder of the real images")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    every = ["controls", *ROWS]
    parser.add_argument("--rows", nargs="+", choices=every, default=every)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--results", type=Path, default=Path("methods.jsonl"))
    parser.add_argument("--scratch", type=Path, default=Path("methods-scratch"))
    arguments = parser.parse_args()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    lines = arguments.results.read_text().splitlines() if arguments.results.exists() else []
    done = {(r["set"], r["row"], r["seed"]) for r in map(json.loads, lines)}
    for name in arguments.sets:
        data = open_set(name, arguments.data, arguments.scratch)
        print(f"{name}: {len(data.matched.rows_p)} labelled cells", flush=True)
        for seed in arguments.seeds:
            left = [
                row
                for row in arguments.rows
                if (name, "disc mean" if row == "controls" else row, seed) not in done
            ]
            for result in results(data, left, [seed]):
                with arguments.results.open("a") as file:
                    file.write(json.dumps(result) + "\n")
                shown = "".join(f"{result[key]:>8.3f}" for key in SHOWN)
                print(f"{result['row']:<36}{seed:>3}{shown}", flush=True)


if __name__ == "__main__":
    main()
