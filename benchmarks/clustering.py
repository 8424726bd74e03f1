"""Clusters of made embeddings by maskless, PhenoGraph 1.5.7, scanpy and PARC, in one run.

``python benchmarks/clustering.py [--n 12500 25000 50000 100000] [--seed 7] [--rounds 1]``
``python benchmarks/clustering.py --ours-only --n 100000 300000 1000000 1800000``
``python benchmarks/clustering.py --communities --n 100000``
``python benchmarks/clustering.py --points points.npy --labels labels.npy``

Every method gets the same points (``planted.py``: 256 dimensions, k = 30; or a file's) in a process
of its own and is warmed on a few thousand of them, so that compilation is not counted; the cost of
a first call, which compiles, is printed once. Columns:

- CPU s: seconds of all threads and child processes, from points to labels; wall s;
- GB: greatest resident memory of the process (points and libraries included, children not);
- recall: share of the true 30 nearest neighbours among those found, 1,000 cells checked (exact by
  construction for PhenoGraph; PARC does not tell its neighbours);
- Q: modularity (resolution 1) of the labels on one common graph: Jaccard, of exact neighbours up to
  100,000 cells, of ours above; Q own: on our own graph;
- ARI, AMI: agreement with the planted types (labels of -1 in a file are left out).

Then how many times our CPU seconds each of the others needs, and the exponent of growth. The third
form compares community detection alone on the same graph with igraph and leidenalg. Points are
memory-mapped, so 1.8 million cells need 1.8 GB on disk (``--folder``) and count as resident.

Peers: ``pip install phenograph==1.5.7 scanpy igraph leidenalg parc``; one that is missing is
left out with a word. CPU seconds of child processes are read from /proc, so this runs on Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from clustering_methods import (
    METHODS,
    Clock,
    Facts,
    K,
    Points,
    communities_of_igraph,
    communities_of_ours,
    run_ours,
)
from numpy.typing import NDArray
from planted import Planted, make
from scipy.sparse import csr_matrix, load_npz, save_npz

WARM = 12_000
EXACT_UP_TO = 100_000

PEERS = {"phenograph": "phenograph", "scanpy": "scanpy", "parc": "parc"}
COMMUNITIES = {
    "ours, 1 start": None,
    "ours, 2 starts": None,
    "igraph": "igraph",
    "leidenalg": "leidenalg",
}


def work(method: str, points_file: Path, out: Path, keep_graph: bool) -> None:
    """In a process of its own: warm, run, write labels, print facts."""
    points = np.load(points_file, mmap_mode="r")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if method != "phenograph":
            METHODS[method](np.array(points[:WARM]))
        if not method.startswith("ours"):
            points = np.array(points)  # not all peers take a memory map
        labels, facts = METHODS[method](points)
    graph = facts.pop("graph", None)
    if keep_graph and graph is not None:
        save_npz(out.with_suffix(".npz"), graph, compressed=False)
    np.save(out, labels)
    print(json.dumps(facts))


def detect(method: str, graph_file: Path, out: Path) -> None:
    """In a process of its own: communities of a given graph."""
    graph = csr_matrix(load_npz(graph_file))
    if method.startswith("ours"):
        labels, facts = communities_of_ours(graph, 1 if "1" in method else 2)
    else:
        labels, facts = communities_of_igraph(graph, method)
    np.save(out, labels)
    print(json.dumps(facts))


def start(arguments: list[str], **environment: str) -> Facts:
    """Run this file as a worker."""
    ran = subprocess.run(
        [sys.executable, __file__, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | environment,
    )
    facts: Facts = json.loads(ran.stdout.strip().splitlines()[-1])
    return facts


def missing(package: str | None) -> bool:
    """Tell whether a peer is missing, and say so."""
    if package is None or importlib.util.find_spec(package):
        return False
    print(f"left out: {package} is not here (pip install {package})")
    return True


def score(labels: NDArray[Any], types: NDArray[Any] | None, graph: csr_matrix | None) -> Facts:
    """Agreement with the planted types, modularity, number of clusters of 10 cells and more."""
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

    from maskless.analysis import modularity

    facts: Facts = {"clusters": int((np.unique(labels, return_counts=True)[1] >= 10).sum())}
    if types is not None:
        known = types >= 0
        facts["ari"] = adjusted_rand_score(types[known], labels[known])
        facts["ami"] = adjusted_mutual_info_score(types[known], labels[known])
    if graph is not None:
        facts["q"] = modularity(graph, labels)
    return facts


def common_graph(points: Points) -> csr_matrix:
    """Jaccard graph of exact neighbours."""
    from maskless.analysis import jaccard_graph, nearest_neighbours

    return jaccard_graph(nearest_neighbours(points, K, exact=True))


COLUMNS = ("cpu", "wall", "gb", "recall", "q", "ari", "ami", "clusters")
FORMATS = ("9.1f", "9.1f", "7.2f", "7.4f", "8.5f", "7.4f", "7.4f", "9d")


def line(name: str, facts: Facts) -> str:
    """One row of the table."""
    cells = []
    for column, form in zip(COLUMNS, FORMATS, strict=True):
        width = int(form.split(".")[0].rstrip("df"))
        cells.append(f"{facts[column]:{form}}" if column in facts else " " * (width - 1) + "-")
    return f"{name:16s}" + "".join(cells)


def compare(options: argparse.Namespace, folder: Path) -> None:
    """All methods at every number of cells."""
    methods = ["ours"] if options.ours_only else ["ours", "ours, power 2", *PEERS]
    if options.methods:
        methods = options.methods
    methods = [method for method in methods if not missing(PEERS.get(method))]
    rows: list[Facts] = []
    for n in options.n if options.points is None else [0]:
        points_file, types = files(options, folder, n)
        n = len(np.load(points_file, mmap_mode="r"))
        print(f"\n{n} cells\n{'':16s}" + "".join(f"{c:>{w}s}" for c, w in headers()), flush=True)
        shown: list[tuple[str, Facts]] = []
        for turn in range(options.rounds):
            for method in methods:
                out = folder / f"labels_{method.replace(' ', '_')}_{turn}.npy"
                keep = ["--keep-graph"] if turn == 0 and method == "ours" else []
                facts = start(["--worker", method, str(points_file), str(out), *keep])
                facts |= {"method": method, "n": n, "labels": str(out)}
                shown.append((method, facts))
        graph = None
        if n <= EXACT_UP_TO:
            graph = common_graph(np.load(points_file))
        elif "ours" in methods:
            graph = csr_matrix(load_npz(folder / "labels_ours_0.npz"))
        for method, facts in shown:
            facts |= score(np.load(facts["labels"]), types, graph)
            print(line(method, facts), flush=True)
            rows.append(facts)
        for method in methods[1:]:
            ratio = [
                theirs["cpu"] / ours["cpu"]
                for (_, ours), (_, theirs) in zip(
                    [s for s in shown if s[0] == "ours"],
                    [s for s in shown if s[0] == method],
                    strict=False,
                )
            ]
            if ratio:
                print(f"CPU seconds, {method} / ours: {statistics.median(ratio):.1f}")
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1))
        if options.points is None:
            points_file.unlink()
    growth(rows)


def growth(rows: list[Facts]) -> None:
    """Exponent of CPU seconds: over all sizes (least squares) and between the two largest."""
    for method in dict.fromkeys(row["method"] for row in rows):
        seconds: dict[int, list[float]] = {}
        for row in rows:
            if row["method"] == method:
                seconds.setdefault(row["n"], []).append(row["cpu"])
        if len(seconds) < 2:
            continue
        logs = np.array([[math.log(n), math.log(min(s))] for n, s in sorted(seconds.items())])
        slope = np.polyfit(logs[:, 0], logs[:, 1], 1)[0]
        last = (logs[-1, 1] - logs[-2, 1]) / (logs[-1, 0] - logs[-2, 0])
        print(f"growth of {method}: n^{slope:.2f} over all, n^{last:.2f} between the largest two")


def headers() -> list[tuple[str, int]]:
    """Names and widths of the columns."""
    names = ("CPU s", "wall s", "GB", "recall", "Q", "ARI", "AMI", "clusters")
    return [
        (name, int(form.split(".")[0].rstrip("df")))
        for name, form in zip(names, FORMATS, strict=True)
    ]


def files(
    options: argparse.Namespace, folder: Path, n: int
) -> tuple[Path, NDArray[np.integer[Any]] | None]:
    """The points' file, made if none is given, and their types."""
    if options.points is not None:
        return options.points, np.load(options.labels) if options.labels else None
    path = folder / f"points_{n}.npy"
    planted = Planted(seed=options.seed)
    held = np.lib.format.open_memmap(path, "w+", np.float32, (n, planted.dimensions))
    _, types = make(n, planted, held)
    held.flush()
    return path, types


def compare_communities(options: argparse.Namespace, folder: Path) -> None:
    """Community detection alone, on the same graph."""
    for n in options.n:
        points_file, types = files(options, folder, n)
        graph = common_graph(np.load(points_file))
        graph_file = folder / "graph.npz"
        save_npz(graph_file, graph, compressed=False)
        print(f"\n{n} cells, {graph.nnz // 2} edges\n{'':16s}    CPU s building        Q     ARI")
        for method, package in COMMUNITIES.items():
            if missing(package):
                continue
            for _ in range(options.rounds):
                facts = start(["--detect", method, str(graph_file), str(folder / "c.npy")])
                facts |= score(np.load(folder / "c.npy"), types, graph)
                print(
                    f"{method:16s}{facts['cpu']:9.2f}{facts.get('building', 0):9.2f}"
                    f"{facts['q']:9.5f}{facts['ari']:8.4f}",
                    flush=True,
                )


def first_call(options: argparse.Namespace, folder: Path) -> None:
    """Cost of the first call of an installation, which compiles, beside the next one."""
    planted = Planted(seed=options.seed)
    path = folder / "first.npy"
    np.save(path, make(WARM, planted)[0])
    cache = str(folder / "compiled")
    costs = [start(["--first", str(path)], NUMBA_CACHE_DIR=cache) for _ in range(2)]
    names = ("first call ever (compiles)", "first call of a later process")
    for name, cost in zip(names, costs, strict=True):
        print(f"{name}, {WARM} cells: {cost['cpu']:.1f} CPU s, {cost['wall']:.1f} s wall")


def main() -> None:
    """Parse, and work or start workers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, nargs="+", default=[12_500, 25_000, 50_000, 100_000])
    parser.add_argument("--seed", type=int, default=7, help="of the made points")
    parser.add_argument("--rounds", type=int, default=1, help="times each method runs")
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS))
    parser.add_argument("--communities", action="store_true", help="community detection alone")
    parser.add_argument("--points", type=Path, help=".npy of points, instead of made ones")
    parser.add_argument("--labels", type=Path, help=".npy of their types, -1 unknown")
    parser.add_argument("--folder", type=Path, help="for made points and labels; kept out of /tmp")
    parser.add_argument("--json", type=Path, help="write all rows here")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--keep-graph", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--detect", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        method, points_file, out = options.worker
        work(method, Path(points_file), Path(out), options.keep_graph)
    elif options.detect:
        method, graph_file, out = options.detect
        detect(method, Path(graph_file), Path(out))
    elif options.first:
        points = np.load(options.first)
        clock = Clock()
        run_ours(points)
        print(json.dumps(clock.read()))
    else:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            if options.communities:
                compare_communities(options, Path(folder))
            else:
                if options.points is None:
                    first_call(options, Path(folder))
                compare(options, Path(folder))


if __name__ == "__main__":
    main()
