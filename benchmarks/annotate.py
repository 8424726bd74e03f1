"""The page of `maskless annotate` with many made-up cells, in a real browser with software drawing.

    python benchmarks/annotate.py [--cells 100000]

Prints milliseconds: to the first view, of a moving frame of the UMAP, until all cells are drawn,
and from typing a name to the server's "saved" (the write is flushed to the disk by then).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import anndata
import numpy as np
import pandas as pd
from playwright.sync_api import Page, sync_playwright

from maskless.config import resolve
from maskless.study import Study

CLUSTERS, MARKERS = 40, 30


def made_up(folder: Path, cells: int) -> None:
    """A study without images: clusters with activations, places and a UMAP."""
    rng = np.random.default_rng(0)
    Study.create(folder, resolve({"images": {"paths": ["nowhere"]}}))
    codes = rng.integers(0, CLUSTERS, cells)
    middles = rng.uniform(-12, 12, (CLUSTERS, 2))
    profile = rng.gamma(0.6, 1.0, (CLUSTERS, MARKERS))
    images = np.sort(rng.integers(0, max(1, cells // 10_000), cells))
    x = profile[codes] * rng.uniform(0.5, 1.5, (cells, 1))
    table = anndata.AnnData(
        x.astype(np.float32),
        obs=pd.DataFrame(
            {
                "image": pd.Categorical([f"image_{i:03d}" for i in images]),
                "y": rng.uniform(0, 1000, cells),
                "x": rng.uniform(0, 1000, cells),
                "cluster": pd.Categorical(codes.astype(str)),
                "patient": pd.Categorical([f"patient {i % 9}" for i in images]),
            },
            index=[str(i) for i in range(cells)],
        ),
        var=pd.DataFrame(index=[f"M{i}" for i in range(MARKERS)]),
    )
    spots = middles[codes] + rng.normal(0, 0.7, (cells, 2))
    table.obsm["X_umap"] = spots.astype(np.float32)
    table.write_h5ad(folder / "cells.h5ad", compression="lzf")


def drag(page: Page) -> list[float]:
    """Milliseconds between frames while the UMAP is dragged to and fro for a while."""
    page.evaluate(
        "window.frames_ = []; let last = performance.now();"
        "const tick = () => { const now = performance.now(); window.frames_.push(now - last);"
        " last = now; requestAnimationFrame(tick); }; requestAnimationFrame(tick);"
    )
    box = page.locator("#umap-over").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 150, box["y"] + 150)
    page.mouse.down()
    for number in range(60):
        page.mouse.move(box["x"] + 150 + 40 * (number % 5), box["y"] + 150 + number)
    page.mouse.up()
    return [float(took) for took in page.evaluate("window.frames_.slice(-20)")]


def measure(study: Path) -> None:
    """Open the page, move, name; print what it takes."""
    command = [sys.executable, "-m", "maskless", "annotate", str(study), "--no-browser"]
    start = time.monotonic()
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        server.stdout.readline()
        address = server.stdout.readline().strip()
        print(f"server ready      {time.monotonic() - start:8.2f} s")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"),
                args=["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
            )
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.on("pageerror", lambda error: print("page:", error))
            start = time.monotonic()
            page.goto(address)
            page.wait_for_selector("body[data-ready]", timeout=120_000)
            print(f"first view        {time.monotonic() - start:8.2f} s")
            while not page.evaluate("window.umapTest.complete()"):
                page.wait_for_timeout(20)
            print(f"all cells drawn   {time.monotonic() - start:8.2f} s")
            page.wait_for_timeout(2000)
            frames = drag(page)
            print(f"moving frame      {median(frames):8.0f} ms (largest {max(frames):.0f})")
            print(f"points while moving {page.evaluate('window.umapTest.points()'):,}")
            page.wait_for_timeout(3000)
            saves = []
            for number in range(9):
                field = page.locator("#names tbody tr").nth(number).locator("td.name input")
                field.fill(f"type {number}")
                field.press("Enter")
                page.wait_for_timeout(1000)
                saves.append(page.evaluate("window.lastSaveMs"))
            print(f"name saved        {median(saves):8.0f} ms (largest {max(saves):.0f})")
            browser.close()
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    """Make the cells and measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cells", type=int, default=100_000)
    cells = parser.parse_args().cells
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study"
        made_up(study, cells)
        print(f"cells             {cells:8,}")
        measure(study)


if __name__ == "__main__":
    main()
