"""The tables of docs/methods.md, from the results of the study of methods.

    python benchmarks/method_tables.py methods.jsonl

Scores in each cell: linear probe, kNN probe, named clusters (macro-F1), ARI. One change at a time:
training seed 0. Seeds: mean and range (highest less lowest) over the training seeds that were run.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from method_sets import REAL, SETS
from methods import FROM_DEFAULT, FROM_EARLIER, ROWS

SHOWN = ("linear_macro_f1", "knn_macro_f1", "held_out_macro_f1", "ari")
CHANGED = ("simulated dense", *REAL)
CONTROLS = (
    "default",
    "default, features",
    "default, activations",
    "disc mean",
    "disc + rings",
    "raw pixels",
    "soft Voronoi of the centres",
    "watershed masks",
    "mask mean",
    "random encoder",
    "random encoder, features",
    "paper's preset, 300 steps",
    "paper's preset, untrained",
)
Scores = dict[int, list[float]]  # by training seed


def read(path: Path) -> dict[tuple[str, str], Scores]:
    found: dict[tuple[str, str], Scores] = defaultdict(dict)
    for line in path.read_text().splitlines():
        result = json.loads(line)
        place = found[result["set"], result["row"]]
        place[result["seed"]] = [result[key] for key in SHOWN]
    return found


def table(rows: Iterable[str], sets: Iterable[str], cell: Callable[[str, str], str]) -> str:
    sets = list(sets)
    lines = ["| | " + " | ".join(sets) + " |", "|---" * (len(sets) + 1) + "|"]
    for row in rows:
        name = f"**{row}**" if row == "default" else row
        lines.append(f"| {name} | " + " | ".join(cell(name_, row) for name_ in sets) + " |")
    return "\n".join(lines)


def short(scores: Iterable[float]) -> str:
    return " ".join(f"{score:.3f}".removeprefix("0") for score in scores)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=Path)
    found = read(parser.parse_args().results)

    def first_two(name: str, row: str) -> str:
        scores = found[name, row]
        return short(np.mean([scores[s] for s in (0, 1) if s in scores], 0)) if scores else ""

    def first(name: str, row: str) -> str:
        return short(found[name, row].get(0, []))

    def spread(name: str, row: str) -> str:
        scores = np.array(list(found[name, row].values()))
        if len(scores) < 2:
            return ""
        return f"{len(scores)}: {short(scores.mean(0))}, range {short(np.ptp(scores, 0))}"

    print("Controls, seeds 0 and 1\n\n" + table(CONTROLS, SETS, first_two))
    for title, rows in (("the default", FROM_DEFAULT), ("an earlier default", FROM_EARLIER)):
        changes = [row for row in rows if any(found[name, row] for name in CHANGED)]
        changes = [row for row in changes if row == "default" or row not in CONTROLS]
        print(f"\nChanges to {title}\n\n" + table(changes, CHANGED, first))
    several = [row for row in ROWS if any(len(found[name, row]) > 1 for name in CHANGED)]
    print("\nTraining seeds\n\n" + table(several, CHANGED, spread))


if __name__ == "__main__":
    main()
