"""Made embeddings with planted clusters, for benchmarks of clustering and layout.

Cells of 40 types in 9 lineages, of log-normal abundance (the rarest 0.05 %). Types of one lineage
vary along shared directions, unequally, with heavy tails; some pass continuously into their nearest
relative; a smooth curvature and noise lift the cells out of the linear subspace. About 20 intrinsic
dimensions of 256. It is made in parts that depend on the seed and their number only, so that the
first cells are the same whatever the number of cells.

    python benchmarks/planted.py 1800000 points.npy labels.npy --seed 7

Letters of axes: n cells, d dimensions of the embedding, t types, h hidden dimensions.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LINEAGES = 9
HIDDEN = 64
SHARED = 32  # directions along which the cells of a lineage vary
PART = 50_000
RAREST = 0.0005


@dataclass(frozen=True)
class Planted:
    """What to make.

    Attributes
    ----------
    seed
        Of everything.
    types
        Number of planted clusters.
    dimensions
        Of the embedding.
    lineage_distance
        Of the lineages' centres from the middle.
    type_distance
        Least and greatest distance of a type's centre from its lineage's.
    """

    seed: int = 7
    types: int = 40
    dimensions: int = 256
    lineage_distance: float = 1.2
    type_distance: tuple[float, float] = (0.5, 1.2)


@dataclass(frozen=True)
class _Type:
    share: float
    centre_h: NDArray[np.float64]
    spread_eh: NDArray[np.float64]
    relative_h: NDArray[np.float64] | None  # centre of the type it passes into
    passing: float  # share of its cells that are on the way


def make(
    n: int, planted: Planted = Planted(), out_nd: NDArray[np.float32] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """Make points (n, dimensions) and their types (n,); `out_nd` receives the points if given."""
    rng = np.random.default_rng(planted.seed)
    types = _make_types(planted, rng)
    turn_hd = np.linalg.qr(rng.normal(size=(planted.dimensions, HIDDEN)))[0].T.astype(np.float32)
    curve_hd = (rng.normal(size=(HIDDEN, planted.dimensions)) / 8).astype(np.float32)
    points = np.empty((n, planted.dimensions), np.float32) if out_nd is None else out_nd
    labels = np.empty(n, np.int16)
    for part, start in enumerate(range(0, n, PART)):
        stop = min(n, start + PART)
        made, labels_part = _make_part(types, np.random.default_rng([planted.seed, part]))
        hidden = made[: stop - start]
        labels[start:stop] = labels_part[: stop - start]
        block = hidden @ turn_hd + np.float32(0.35) * np.tanh(hidden @ curve_hd)
        noise = np.random.default_rng([planted.seed, part, 1])
        block += np.float32(0.05) * noise.standard_normal(block.shape, np.float32)
        points[start:stop] = block
    return points, labels


def _make_types(planted: Planted, rng: np.random.Generator) -> list[_Type]:
    count = planted.types
    lineage_t = rng.integers(0, LINEAGES, count)
    lineage_t[:LINEAGES] = np.arange(LINEAGES)
    share_t = np.exp(rng.normal(0, 1.25, count))
    share_t = np.maximum(share_t / share_t.sum(), RAREST)
    share_t[share_t.argmin()] = RAREST
    share_t /= share_t.sum()
    axes = [np.linalg.qr(rng.normal(size=(HIDDEN, SHARED)))[0] for _ in range(LINEAGES)]
    middles = rng.normal(size=(LINEAGES, HIDDEN))
    middles *= planted.lineage_distance / np.linalg.norm(middles, axis=1, keepdims=True)
    centres, spreads = [], []
    for t in range(count):
        shared = axes[lineage_t[t]]
        off = shared @ rng.normal(size=SHARED)
        off *= rng.uniform(*planted.type_distance) / np.linalg.norm(off)
        centres.append(middles[lineage_t[t]] + off)
        kept = int(rng.integers(15, 31))
        tilted = shared[:, rng.permutation(SHARED)[:kept]] + 0.1 * rng.normal(size=(HIDDEN, kept))
        widths = rng.uniform(0.7, 1.3) * 0.75 * rng.permutation(np.arange(1, kept + 1)) ** -0.35
        spreads.append((np.linalg.qr(tilted)[0] * widths).T)
    types = []
    for t in range(count):
        kin = np.flatnonzero((lineage_t == lineage_t[t]) & (np.arange(count) != t))
        relative, passing = None, 0.0
        if len(kin) and rng.random() < 0.35:
            distances = [float(np.linalg.norm(centres[other] - centres[t])) for other in kin]
            relative = centres[kin[int(np.argmin(distances))]]
            passing = float(rng.uniform(0.1, 0.3))
        types.append(_Type(float(share_t[t]), centres[t], spreads[t], relative, passing))
    return types


def _make_part(
    types: list[_Type], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """Hidden coordinates and types of a whole part."""
    labels = rng.choice(len(types), PART, p=[kind.share for kind in types]).astype(np.int16)
    hidden = np.empty((PART, HIDDEN), np.float32)
    for number, kind in enumerate(types):
        rows = np.flatnonzero(labels == number)
        tails = rng.standard_t(8, size=(len(rows), len(kind.spread_eh)))
        cells = kind.centre_h + tails @ kind.spread_eh
        if kind.relative_h is not None:
            on_the_way = rng.random(len(rows)) < kind.passing
            way = np.where(on_the_way, rng.random(len(rows)) * 0.5, 0.0)
            cells += way[:, None] * (kind.relative_h - kind.centre_h)
        hidden[rows] = cells
    return hidden, labels


def main() -> None:
    """Write points and labels to two files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("n", type=int)
    parser.add_argument("points", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    planted = Planted(seed=options.seed)
    shape = (options.n, planted.dimensions)
    points = np.lib.format.open_memmap(options.points, "w+", np.float32, shape)
    _, labels = make(options.n, planted, points)
    points.flush()
    np.save(options.labels, labels)


if __name__ == "__main__":
    main()
