"""Maps of made embeddings by maskless and by umap-learn, in one run.

``python benchmarks/umap_layout.py [--cells 10000 30000 100000] [--seeds 0 1] [--plots FOLDER]``
``python benchmarks/umap_layout.py --placed 100000 [--seeds 0 1]``
``python benchmarks/umap_layout.py --all-cells 300000 1000000``

The first compares, in turns, on embeddings with planted types (`planted.py`, 256 dimensions), both
from the points and from the same given neighbours (15, and the cell itself, which umap-learn
counts), 200 epochs, least distance 0.1, all compiled before:

- CPU seconds (all threads) and wall seconds, medians over seeds, and how many times ours;
- kept 15, kept 30: share of the true nearest neighbours (exact, of 2,000 cells) that are among as
  many nearest in the map;
- trust: trustworthiness for 15 neighbours, of 500 cells (1: no stranger near a cell in the map);
- triplets: share of 200,000 random triplets whose nearer one is nearer in the map too (the
  arrangement at large);
- types: share of cells of whose 15 nearest in the map most are of its type.

Last, the power of the number of cells by which CPU seconds grow. `--rate 10` adds umap-learn with
10 instead of 5 pushes for each pull, which is nearer to what maskless does.

The second lays out 30,000 cells, places the rest, and measures both kinds apart. The third lays
out all cells and tells time and peak memory.

Needs umap-learn beside maskless.
"""

from __future__ import annotations

import argparse
import math
import resource
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from planted import Planted, make
from scipy.spatial import cKDTree

from maskless.analysis import Neighbours, nearest_neighbours, umap
from maskless.config import UmapSettings

K, EPOCHS = 15, 200
SAMPLE, TRUSTED, TRIPLETS = 2000, 500, 200_000
PLANTED = Planted(seed=11)  # not the types that the layout was tuned on

Points = NDArray[np.float32]


class Truth:
    """What maps are measured by: exact neighbours of some cells, and types."""

    def __init__(
        self, points: Points, types: NDArray[np.integer], cells: NDArray[np.int64]
    ) -> None:
        rng = np.random.default_rng(0)
        self.points, self.types = points, types
        self.sample = np.sort(rng.choice(cells, min(SAMPLE, len(cells)), replace=False))
        self.near = np.empty((len(self.sample), 2 * K), np.int64)
        self.sorted = np.empty((TRUSTED, len(points)), np.float32)
        norm = np.einsum("nd,nd->n", points, points)
        for start in range(0, len(self.sample), 250):
            rows = self.sample[start : start + 250]
            squared = norm - 2 * points[rows] @ points.T
            squared[np.arange(len(rows)), rows] = np.inf
            near = np.argpartition(squared, 2 * K, axis=1)[:, : 2 * K]
            order = np.argsort(np.take_along_axis(squared, near, 1), axis=1)
            self.near[start : start + 250] = np.take_along_axis(near, order, 1)
            for row in range(max(0, min(len(rows), TRUSTED - start))):
                self.sorted[start + row] = np.sort(squared[row])
        self.norm = norm
        self.triplets = rng.choice(cells, (3, TRIPLETS))

    def measure(self, map_n2: Points) -> dict[str, float]:
        found = cKDTree(map_n2).query(map_n2[self.sample], 2 * K + 1)[1]
        found = np.array(
            [row[row != cell][: 2 * K] for row, cell in zip(found, self.sample, strict=True)]
        )
        measured = {
            f"kept {k}": statistics.mean(
                len(np.intersect1d(a[:k], b[:k])) / k for a, b in zip(found, self.near, strict=True)
            )
            for k in (K, 2 * K)
        }
        n, beyond = len(self.points), 0
        for row, cell in enumerate(self.sample[:TRUSTED]):
            others = found[row, :K]
            squared = self.norm[others] - 2 * self.points[others] @ self.points[cell]
            ranks = np.searchsorted(self.sorted[row], squared * (1 - 1e-6)) + 1
            beyond += int(np.maximum(ranks - K, 0).sum())
        rows = min(TRUSTED, len(self.sample))
        measured["trust"] = 1 - 2 * beyond / (rows * K * (2 * n - 3 * K - 1))
        a, b, c = self.triplets
        nearer = [
            ((space[a] - space[b]) ** 2).sum(1) < ((space[a] - space[c]) ** 2).sum(1)
            for space in (self.points, map_n2)
        ]
        measured["triplets"] = float((nearer[0] == nearer[1]).mean())
        same = self.types[found[:, :K]] == self.types[self.sample, None]
        measured["types"] = float((same.mean(1) > 0.5).mean())
        return measured


def ours(points: Points, seed: int, given: Neighbours | None) -> Points:
    settings = UmapSettings(k=K, epochs=EPOCHS, min_dist=0.1, max_cells=len(points))
    return umap(points, settings, seed=seed, neighbours=given)


def umap_learn(points: Points, seed: int, given: Neighbours | None, rate: int = 5) -> Points:
    from umap import UMAP

    known = (None, None, None)
    if given is not None:
        own = np.arange(len(points), dtype=np.int32)[:, None]
        indices = np.hstack([own, given.indices_nk])
        distances = np.hstack([np.zeros_like(own, np.float32), given.distances_nk])
        known = (indices, distances, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layout = UMAP(
            n_neighbors=K + 1,
            n_epochs=EPOCHS,
            min_dist=0.1,
            random_state=seed,
            precomputed_knn=known,
            negative_sample_rate=rate,
        )
        return np.asarray(layout.fit_transform(points), np.float32)


def timed(work: Callable[[], Points]) -> tuple[Points, float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    made = work()
    return made, time.process_time() - cpu, time.perf_counter() - wall


def line(name: str, cpu: float, wall: float, times: float, measured: dict[str, float]) -> None:
    told = "  ".join(f"{key} {value:.4f}" for key, value in measured.items())
    print(f"  {name:32s} CPU {cpu:7.1f} s  wall {wall:7.1f} s  x {times:5.1f}  {told}", flush=True)


def compare(n: int, seeds: list[int], plots: Path | None, rate: int | None) -> dict[str, float]:
    points, types = make(n, PLANTED)
    truth = Truth(points, types, np.arange(n))
    given = nearest_neighbours(points, K)
    ways: dict[str, Callable[[int], Points]] = {
        "maskless, from points": lambda seed: ours(points, seed, None),
        "umap-learn, from points": lambda seed: umap_learn(points, seed, None),
        "maskless, given neighbours": lambda seed: ours(points, seed, given),
        "umap-learn, given neighbours": lambda seed: umap_learn(points, seed, given),
    }
    if rate is not None:
        ways[f"umap-learn, given, {rate} pushes"] = lambda seed: umap_learn(
            points, seed, given, rate
        )
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    quality: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for seed in seeds:
        for name, way in ways.items():
            made, cpu, wall = timed(lambda way=way, seed=seed: way(seed))
            taken[name].append((cpu, wall))
            quality[name].append(truth.measure(made))
            if plots is not None and seed == seeds[0]:
                draw(made, types, plots / f"{n} {name}.png".replace(",", ""), f"{n:,}, {name}")
    print(f"{n:,} cells, seeds {' '.join(map(str, seeds))}")
    medians = {}
    for name in ways:
        cpu, wall = (statistics.median(column) for column in zip(*taken[name], strict=True))
        medians[name] = cpu
        base = medians["maskless, given neighbours" if "given" in name else "maskless, from points"]
        keys = quality[name][0]
        means = {key: statistics.mean(each[key] for each in quality[name]) for key in keys}
        line(name, cpu, wall, cpu / base, means)
    return medians


def draw(map_n2: Points, types: NDArray[np.integer], path: Path, title: str) -> None:
    from matplotlib.figure import Figure

    path.parent.mkdir(parents=True, exist_ok=True)
    figure = Figure((10, 10), dpi=100)
    axes = figure.add_axes((0, 0, 1, 0.97))
    order = np.random.default_rng(0).permutation(len(map_n2))
    axes.scatter(*map_n2[order].T, s=60_000 / len(order) / 10, c=types[order], cmap="tab20", lw=0)
    axes.set_title(title)
    axes.set_axis_off()
    axes.set_aspect("equal")
    figure.savefig(path)


def placed(n: int, seeds: list[int]) -> None:
    """Cells that are placed beside those that are laid out."""
    points, types = make(n, PLANTED)
    laid_out = 30_000
    print(f"{laid_out:,} of {n:,} cells laid out, the rest placed")
    for seed in seeds:
        settings = UmapSettings(k=K, epochs=EPOCHS, max_cells=laid_out)
        made, cpu, wall = timed(lambda settings=settings, seed=seed: umap(points, settings, seed))
        chosen = np.random.default_rng(seed).choice(n, laid_out, replace=False)
        rest = np.setdiff1d(np.arange(n), chosen)
        for name, cells in (("laid out", np.sort(chosen)), ("placed", rest)):
            line(f"{name}, seed {seed}", cpu, wall, 1.0, Truth(points, types, cells).measure(made))


def all_cells(n: int) -> None:
    points, _ = make(n, PLANTED)
    given, knn_cpu, knn_wall = timed(lambda: nearest_neighbours(points, K))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    _, cpu, wall = timed(lambda: ours(points, 0, given))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{n:,} cells laid out together: neighbours CPU {knn_cpu:.0f} s, wall {knn_wall:.0f} s;"
        f" map CPU {cpu:.0f} s, wall {wall:.0f} s; peak memory {before:.2f} GiB after the"
        f" neighbours, {peak:.2f} GiB after the map (points {points.nbytes / 2**30:.2f})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--plots", type=Path)
    parser.add_argument("--rate", type=int)
    parser.add_argument("--placed", type=int, nargs="+")
    parser.add_argument("--all-cells", type=int, nargs="+")
    given = parser.parse_args()
    small, _ = make(6000, PLANTED)
    for n in (1000, 6000):
        ours(small[:n], 0, None)  # compiles
        nearest_neighbours(small[:n], K, exact=False)
    if given.placed or given.all_cells:
        for n in given.placed or ():
            umap(small, UmapSettings(max_cells=2000, epochs=2))
            placed(n, given.seeds)
        for n in given.all_cells or ():
            all_cells(n)
        return
    try:
        umap_learn(small, 0, None)
        umap_learn(small, 0, nearest_neighbours(small, K))
    except ImportError:
        parser.exit(1, "this benchmark compares with umap-learn: pip install umap-learn\n")
    medians = [compare(n, given.seeds, given.plots, given.rate) for n in given.cells]
    if len(medians) > 1:
        ratio = math.log(given.cells[-1] / given.cells[0])
        for name in medians[0]:
            power = math.log(medians[-1][name] / medians[0][name]) / ratio
            print(f"  {name:32s} grows as n^{power:.2f}")


if __name__ == "__main__":
    main()
