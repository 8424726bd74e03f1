"""Embedding a cohort: cells a second, and memory as the cohort grows.

``python benchmarks/embed.py [--images 4 16 64] [--cells 2700] [--markers 34]``

Images of 500 x 500 pixels with cells at random places, made anew each time that one is asked for;
an untrained encoder of the default preset. Each size of cohort runs in a process of its own through
`maskless.pipeline.embed`, with its results in mapped files, as a study does. Memory is what the
process holds of its own (anonymous pages), sampled while it works, above that before the embedding;
the results on disk are said beside it. One thread.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import torch

from maskless.config import resolve
from maskless.images.image import Channel, Image, ImageSet, Panel
from maskless.pipeline import embed, train

EDGE = 500


def make_images(count: int, markers: int) -> ImageSet:
    names = tuple(f"m{i}" for i in range(markers))

    def load(number: int) -> Image:
        rng = np.random.default_rng(number)
        pixels = rng.random((markers, EDGE, EDGE), dtype=np.float32)
        return Image(f"image{number:04d}", pixels, names, 1.0)

    loaders = {f"image{i:04d}": (lambda i=i: load(i)) for i in range(count)}
    return ImageSet(Panel(tuple(Channel(name) for name in names)), loaders)


def make_cells(images: ImageSet, count: int) -> anndata.AnnData:
    names = np.repeat(images.names, count)
    xy = np.random.default_rng(0).uniform(0, EDGE - 1, (len(names), 2))
    obs = pd.DataFrame({"image": pd.Categorical(names), "y": xy[:, 1], "x": xy[:, 0]})
    obs.index = obs.index.astype(str)
    var = pd.DataFrame({"used": True}, index=list(images.panel.names))
    return anndata.AnnData(obs=obs, var=var, obsm={"spatial": xy})


def own_mib() -> float:
    """Pages of this process that no file backs, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def one(images_count: int, cells_count: int, markers: int) -> None:
    torch.set_num_threads(1)
    images = make_images(images_count, markers)
    config = resolve({"train": {"steps": 0}})
    first = make_images(1, markers)
    few = make_cells(first, 300)
    encoder = train(first, few, config.encoder, config.train, device="cpu")
    embed(encoder, first, few, config.embed, device="cpu")  # compiles
    cells = make_cells(images, cells_count)
    before, done, seen = own_mib(), threading.Event(), [0.0]

    def watch() -> None:
        while not done.wait(0.01):
            seen.append(own_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time(), time.perf_counter()
        found = embed(encoder, images, cells, config.embed, device="cpu", scratch=Path(folder))
        cpu, wall = time.process_time() - start[0], time.perf_counter() - start[1]
        disk = sum(path.stat().st_size for path in Path(folder).iterdir()) / 2**20
        n = found.n_obs
        del found
    done.set()
    watcher.join()
    print(
        f"{images_count:6d} images {n:9d} cells  CPU {cpu:7.1f} s  wall {wall:7.1f} s"
        f"  {n / cpu:7.0f} cells a CPU s  memory +{max(seen) - before:5.0f} MiB"
        f"  results {disk:7.0f} MiB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--cells", type=int, default=2700, help="in an image")
    parser.add_argument("--markers", type=int, default=34)
    given = parser.parse_args()
    if not Path("/proc/self/status").exists():
        raise SystemExit("this benchmark reads memory from /proc: it runs on Linux only")
    if len(given.images) == 1:
        one(given.images[0], given.cells, given.markers)
        return
    size_mib = given.markers * EDGE**2 * 4 / 2**20
    print(f"an image of {given.markers} markers takes {size_mib:.0f} MiB as float32")
    for count in given.images:
        command = [sys.executable, __file__, "--images", str(count)]
        command += ["--cells", str(given.cells), "--markers", str(given.markers)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
