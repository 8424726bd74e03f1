"""The page of `maskless annotate` with many made-up cells, in a real browser with software drawing.

    python benchmarks/annotate.py [--cells 100000]

Prints the time to the first view, of a moving frame of the UMAP, until all cells are drawn,
and from typing a name to the server's "saved" (the write is flushed to the disk by then), with the
CPU seconds of server and browser beside them: on a machine that does other work as well, the wall
clock says less than those. Beside the naming: the same request without a browser, and a bare
commit of SQLite with the same settings.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import anndata
import numpy as np
import pandas as pd
import psutil
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


def cpu_seconds(of: list[psutil.Process]) -> float:
    """CPU seconds so far of processes and all that they started."""
    found = {p.pid: p for own in of for p in [own, *own.children(recursive=True)]}
    return sum(sum(p.cpu_times()[:2]) for p in found.values() if p.is_running())


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
        serving = psutil.Process(server.pid)
        took = f"{time.monotonic() - start:8.2f} s wall {cpu_seconds([serving]):8.2f} s CPU"
        print(f"server ready        {took}")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"),
                args=["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"],
            )
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.on("pageerror", lambda error: print("page:", error))
            me = psutil.Process()
            before, start = cpu_seconds([me]), time.monotonic()
            page.goto(address)
            page.wait_for_selector("body[data-ready]", timeout=120_000)
            wall, cpu = time.monotonic() - start, cpu_seconds([me]) - before
            print(f"first view          {wall:8.2f} s wall {cpu:8.2f} s CPU")
            while not page.evaluate("window.umapTest.complete()"):
                page.wait_for_timeout(20)
            wall, cpu = time.monotonic() - start, cpu_seconds([me]) - before
            print(f"all cells drawn     {wall:8.2f} s wall {cpu:8.2f} s CPU")
            page.wait_for_timeout(2000)
            frames = drag(page)
            print(f"between frames      {told(frames)} while dragged")
            for what, call in (("moving frame", "drawMoving"), ("frame of all", "drawAll")):
                times = page.evaluate(f"[...Array(7)].map(() => window.umapTest.{call}())")
                shown = page.evaluate("umapTest.points()") if call == "drawMoving" else "all"
                print(f"{what}        {median(times):8.0f} ms for {shown} points")
            page.wait_for_timeout(3000)
            saves = []
            for number in range(15):
                field = page.locator("#names tbody tr").nth(number).locator("td.name input")
                field.fill(f"type {number}")
                field.press("Enter")
                page.wait_for_timeout(1000)
                saves.append(page.evaluate("window.lastSaveMs"))
            print(f"name saved          {told(saves)} in the page")
            cookies = {c["name"]: c["value"] for c in page.context.cookies()}
            browser.close()
        alone = named_alone(address, cookies)
        print(f"                    {told(alone)} without a browser")
        plain = plain_commits(study)
        print(f"                    {told(plain)} a bare SQLite commit")
    finally:
        server.terminate()
        server.wait()


def told(milliseconds: list[float]) -> str:
    """Median and largest."""
    return f"{median(milliseconds):8.1f} ms (largest {max(milliseconds):.0f})"


def named_alone(address: str, cookies: dict[str, str]) -> list[float]:
    """Milliseconds of naming over HTTP, the answer read."""
    parts = urlsplit(address)
    headers = {
        "Cookie": "; ".join(f"{k}={v}" for k, v in cookies.items()),
        "Origin": f"http://{parts.netloc}",
        "X-Maskless": "1",
    }
    connection = http.client.HTTPConnection(parts.netloc)
    revision, times = 0, []
    for number in range(40):
        fields = {"name": f"type {number}"}
        ask = {"who": "alone", "revision": revision, "groups": ["0"], "fields": fields}
        start = time.perf_counter()
        connection.request("POST", "/api/name", json.dumps(ask), headers)
        answer = json.loads(connection.getresponse().read())
        times.append(1000 * (time.perf_counter() - start))
        revision = answer["revision"]
    return times


def plain_commits(study: Path) -> list[float]:
    """Milliseconds of one insert and commit in a file of the same settings: what the disk takes."""
    file = sqlite3.connect(study / "plain.sqlite", isolation_level=None)
    file.execute("PRAGMA journal_mode=WAL")
    file.execute("PRAGMA synchronous=FULL")
    file.execute("CREATE TABLE names (name TEXT)")
    times = []
    for number in range(40):
        start = time.perf_counter()
        file.execute("INSERT INTO names VALUES (?)", (f"type {number}",))
        times.append(1000 * (time.perf_counter() - start))
    file.close()
    return times


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
