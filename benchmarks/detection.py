"""Centres of nuclei beside human experts, programs, Cellpose and an object classifier.

``python benchmarks/detection.py DATA [--rounds 5] [--spleen odd|even|all] [--cellpose WEIGHTS]``
(``--sets pancreas spleen --regions 1`` for less)

DATA holds ``codex_expert_masks``, ``spleen_imc`` and ``imc_pancreas_crops``. Printed are F1 scores
of centres that are paired one to one, nearest first and no farther apart than 4 um (CODEX) or 3 um,
and CPU seconds a megapixel on one thread (median of the rounds; Cellpose once).

CODEX: one tile of 0.377 um a pixel, shown to the detector at 0.5 and 1.0 um, against each of two
experts, the experts against each other, and beside them the masks of eleven programs that come with
the tile. Spleen: objects that a classifier, trained by a person, calls cells; settings may be tried
on every second region (``even``) and are reported on the others (``odd``). Pancreas: three crops of
100 x 100 pixels, 362 cells.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from maskless.analysis.matching import match_centres
from maskless.cells.cellpose import detect_with_cellpose
from maskless.cells.detect import nuclear_plane
from maskless.cells.difference_of_gaussians import detect_nuclei
from maskless.cells.given import centres_of_labels
from maskless.config import DetectSettings
from maskless.images import read_images

CODEX_UM = 0.37745
TILE = "R001_X003_Y004"
Plane = NDArray[Any]
Centres = NDArray[np.float64]
Detector = Callable[[Plane, float], Centres]


class Case(NamedTuple):
    """A nuclear plane and where its nuclei are, in um from the corner of the image."""

    plane_yx: Plane
    um_per_pixel: float
    true_xy: Centres


class Way(NamedTuple):
    """A detector, and how often it is timed."""

    name: str
    find: Detector
    rounds: int


def found_um(way: Way, plane_yx: Plane, um_per_pixel: float) -> tuple[Centres, float]:
    """Centres in um from the corner of the image, and CPU seconds a megapixel."""
    seconds = []
    for _ in range(way.rounds):
        start = time.process_time()
        found_xy = way.find(plane_yx, um_per_pixel)
        seconds.append(time.process_time() - start)
    return (found_xy + 0.5) * um_per_pixel, statistics.median(seconds) / plane_yx.size * 1e6


def rescaled(plane_yx: Plane, um_per_pixel: float) -> tuple[Plane, float]:
    """The CODEX plane at another pixel size, and the size that came out."""
    factor = CODEX_UM / um_per_pixel
    smooth_yx = ndimage.gaussian_filter(plane_yx.astype(np.float32), max(0.0, 0.4 / factor - 0.4))
    zoomed_yx = ndimage.zoom(smooth_yx, factor, order=1, grid_mode=True, mode="nearest")
    return zoomed_yx, CODEX_UM * plane_yx.shape[0] / zoomed_yx.shape[0]


def codex(data: Path, ways: list[Way]) -> None:
    """Scores against two experts and beside programs."""
    place = data / "codex_expert_masks" / TILE
    masks = {
        path.stem.removeprefix("mask_"): (centres_of_labels(tifffile.imread(path)) + 0.5) * CODEX_UM
        for path in sorted(place.glob("mask_*.tif"))
    }
    plane_yx = tifffile.imread(place / "image.ome.tif")[0]
    one, two = masks.pop("expert1"), masks.pop("expert2")
    print(f"\nCODEX tile, {len(one)} and {len(two)} cells by experts; within 4 um")
    print(f"{'':30}{'expert 1':>9}{'expert 2':>9}{'mean':>7}{'centres':>9}{'CPU s/MP':>10}")

    def line(name: str, centres_xy: Centres, seconds: str = "") -> None:
        scores = [match_centres(centres_xy, expert, 4.0).f1 for expert in (one, two)]
        print(
            f"{name:30}{scores[0]:9.3f}{scores[1]:9.3f}{np.mean(scores):7.3f}"
            f"{len(centres_xy):9}{seconds:>10}",
            flush=True,
        )

    print(f"{'the experts with each other':30}{match_centres(one, two, 4.0).f1:25.3f}")
    for way in ways:
        for um in (0.5, 1.0) if way.rounds > 1 else (0.5,):
            small_yx, exact_um = rescaled(plane_yx, um)
            found_xy, seconds = found_um(way, small_yx, exact_um)
            line(f"{way.name}, {um} um", found_xy, f"{seconds:.2f}")
    for name, centres_xy in masks.items():
        line(name, centres_xy)


def spleen(data: Path, which: str) -> list[Case]:
    """Regions with the objects that are cells."""
    images = read_images(data / "spleen_imc")
    chosen = {"odd": images.names[1::2], "even": images.names[::2], "all": images.names}[which]
    cases = []
    for name in chosen:
        file = data / "spleen_imc" / name / "objects.csv"
        table = np.genfromtxt(file, delimiter=",", names=True, dtype=None, encoding="utf-8")
        table = table[table["is_cell"]]
        true_xy = np.column_stack([table["x"], table["y"]]) + 0.5
        cases.append(Case(nuclear_plane(images[name], images.panel), 1.0, true_xy))
    return cases


def pancreas(data: Path) -> list[Case]:
    """Crops with masks of cells."""
    images = read_images(data / "imc_pancreas_crops", um_per_pixel=1.0)
    cases = []
    for image in images:
        mask = next(iter(sorted((data / "imc_pancreas_crops" / image.name).glob("mask*"))))
        true_xy = centres_of_labels(tifffile.imread(mask)) + 0.5
        cases.append(Case(nuclear_plane(image, images.panel), 1.0, true_xy))
    return cases


def report(title: str, cases: list[Case], ways: list[Way]) -> None:
    """Scores over all cases together."""
    print(f"\n{title}, {sum(len(case.true_xy) for case in cases)} cells; within 3 um")
    print(f"{'':30}{'F1':>7}{'recall':>9}{'precision':>11}{'CPU s/MP':>10}")
    for way in ways:
        pairs = found = true = 0
        seconds = []
        for case in cases:
            found_xy, cost = found_um(way, case.plane_yx, case.um_per_pixel)
            pairs += len(match_centres(found_xy, case.true_xy, 3.0))
            found, true = found + len(found_xy), true + len(case.true_xy)
            seconds.append(cost)
        print(
            f"{way.name:30}{2 * pairs / (found + true):7.3f}{pairs / true:9.3f}"
            f"{pairs / found:11.3f}{statistics.median(seconds):10.2f}",
            flush=True,
        )


def main(
    data: Path,
    rounds: int,
    which: str,
    weights: Path | None,
    sets: list[str],
    regions: int | None,
) -> None:
    """Print every table."""

    def embedded(radius_um: float) -> Detector:
        settings = DetectSettings(nuclear_radius_um=radius_um)
        return lambda plane_yx, um: detect_nuclei(plane_yx, um, settings)

    ways = [Way("maskless (radius 2.2 um)", embedded(2.2), rounds)]
    if weights is not None:
        asked = DetectSettings(method="cellpose", cellpose_model=str(weights))
        ways.append(
            Way(
                f"Cellpose, {weights.name}",
                lambda plane_yx, um: detect_with_cellpose(plane_yx, um, asked),
                1,
            )
        )
    others = [Way(f"maskless, radius {r} um", embedded(r), rounds) for r in (2.0, 2.4)]
    if "pancreas" in sets:
        report("pancreas", pancreas(data), [*ways, *others])
    if "spleen" in sets:
        cases = spleen(data, which)[:regions]
        report(f"spleen, {len(cases)} {which} regions", cases, [*ways, *others])
    if "codex" in sets:
        codex(data, ways)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--spleen", choices=("odd", "even", "all"), default="odd")
    parser.add_argument("--cellpose", type=Path, help="weights, such as CP_TU")
    parser.add_argument("--regions", type=int, help="of spleen, at most")
    names = ("pancreas", "spleen", "codex")
    parser.add_argument("--sets", nargs="+", choices=names, default=list(names))
    given = parser.parse_args()
    main(given.data, given.rounds, given.spleen, given.cellpose, given.sets, given.regions)
