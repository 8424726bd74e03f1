"""Spillover compensation beside SciPy's NNLS, pixel by pixel, in one run.

``python benchmarks/spillover.py [--beads beads.csv.gz] [--rounds 5] [--pixels 2000]``

Counts of simulated bone marrow (34 channels, 1000 x 1000 pixels), compensated

- with the simulator's matrix: a mass more, a mass less, the oxide;
- with the matrix estimated from single-stained beads, if they are given (about 8 shares a row).

In turns: `scipy.optimize.nnls` on some pixels, `maskless.compensate` on the whole image on one
thread and on two. Printed are CPU microseconds a pixel, how many times SciPy's that is (median and
least of the rounds' ratios), wall seconds for the whole image, and the largest difference from
SciPy. On two threads the ratio is of wall time, as SciPy has one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from maskless.images import compensate, estimate_spillover
from maskless.simulate import simulate_image, spillover_matrix
from maskless.simulate.presets import get_preset

TILE, SIDE = 500, 1000


def make_image() -> tuple[NDArray[np.uint16], list[str]]:
    """Counts of a simulated image, made of four times the same tile, and their metals."""
    preset = get_preset("bone_marrow", images=1, size_px=TILE)
    kept = [i for i, m in enumerate(preset.markers) if m.kind != "background"][:34]
    image, _ = simulate_image(preset, seed=0, index=0)
    metals = [preset.markers[i].metal for i in kept]
    return np.tile(image.pixels_cyx[kept], (1, SIDE // TILE, SIDE // TILE)), metals


class Round(NamedTuple):
    """Seconds a pixel, of SciPy and of maskless on one thread and on two."""

    scipy_cpu: float
    scipy_wall: float
    one_cpu: float
    one_wall: float
    two_wall: float


def timed(call: Callable[[], Any]) -> tuple[float, float, Any]:
    """CPU and wall seconds, and the result."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = call()
    return time.process_time() - cpu, time.perf_counter() - wall, result


def compare(
    title: str, counts_cyx: NDArray[np.uint16], matrix: NDArray[np.float64], given: Any
) -> None:
    """Time both ways with one matrix."""
    spread = np.ascontiguousarray(matrix.T)
    counts_cp = counts_cyx.reshape(len(matrix), -1)
    pixels = counts_cp.shape[1]
    chosen = np.random.default_rng(0).choice(pixels, given.pixels, replace=False)
    some_pc = np.ascontiguousarray(counts_cp[:, chosen].T, dtype=np.float64)
    compensate(counts_cp[:, :10_000], matrix)  # compiled now
    rounds: list[Round] = []
    for _ in range(given.rounds):
        cpu, wall, found = timed(lambda: [nnls(spread, y)[0] for y in some_pc])
        os.environ["OMP_NUM_THREADS"] = "1"
        one_cpu, one_wall, signal = timed(lambda: compensate(counts_cp, matrix))
        os.environ["OMP_NUM_THREADS"] = "2"
        _, two_wall, again = timed(lambda: compensate(counts_cp, matrix))
        assert np.array_equal(signal, again)
        theirs = cpu / given.pixels, wall / given.pixels
        rounds.append(Round(*theirs, *(s / pixels for s in (one_cpu, one_wall, two_wall))))
    error = max(np.abs(signal[:, p] - y).max() for p, y in zip(chosen, found, strict=True))
    negative = (np.linalg.solve(matrix.T, some_pc.T) < 0).any(axis=0).mean()
    middle = Round(*map(statistics.median, zip(*rounds, strict=True)))
    one = [r.scipy_cpu / r.one_cpu for r in rounds]
    two = [r.scipy_wall / r.two_wall for r in rounds]
    print(f"\n{title}: {np.count_nonzero(matrix) / len(matrix):.1f} shares a row, ", end="")
    print(f"condition {np.linalg.cond(matrix):.2f}, {negative:.0%} of pixels need the constraint")
    print(f"  SciPy                 {1e6 * middle.scipy_cpu:7.2f} us a pixel")
    for threads, seconds, wall, ratios in (
        ("one thread ", middle.one_cpu, middle.one_wall, one),
        ("two threads", middle.two_wall, middle.two_wall, two),
    ):
        print(
            f"  maskless, {threads} {1e6 * seconds:7.2f} us a pixel, "
            f"{statistics.median(ratios):.0f} times as fast (least {min(ratios):.0f}); "
            f"whole image {wall * pixels:.2f} s"
        )
    print(f"  largest difference from SciPy {error:.1e} of {some_pc.max():.0f} counts")


def main() -> None:
    """Run it with each matrix."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--beads", type=Path, help="table of single-stained beads")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pixels", type=int, default=2000, help="that SciPy gets")
    given = parser.parse_args()
    counts_cyx, metals = make_image()
    print(f"{counts_cyx.shape[1]} x {counts_cyx.shape[2]} x {len(metals)}, ", end="")
    print(f"{(counts_cyx == 0).mean():.0%} zeros, mean {counts_cyx.mean():.1f} counts")
    compare("simulator's matrix", counts_cyx, spillover_matrix(metals), given)
    if given.beads:
        beads = estimate_spillover(given.beads).matrix.adapted(metals).shares_cc
        compare("matrix from beads", counts_cyx, beads, given)


if __name__ == "__main__":
    main()
