"""The Poisson-aware filter of hot pixels beside steinbock's, where their places are known.

``python benchmarks/hot_pixels.py [DATA] [--rounds 5]``

Simulated: counts of the simulator's tissue, to which bursts of 10 to 1,000 counts are added at
0.03 % of the pixels. Recall is the share of bursts that are lowered (faint: below 50 counts),
precision the share of lowered pixels that are bursts. Real (with DATA, which holds ``spleen_imc``):
the same bursts added to raw spleen, whose own hot pixels count as mistakes, as nobody knows them;
so the share of other pixels that are lowered tells more than precision. CPU seconds an image.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from maskless.images import read_images
from maskless.images.hot_pixels import remove_hot_pixels
from maskless.simulate import simulate_image
from maskless.simulate.presets import get_preset

RULES: dict[str, float | Literal["poisson"]] = {"steinbock, 50 counts": 50.0, "poisson": "poisson"}
SHARE = 3e-4
FAINT = 50.0
BRIGHT_MEAN = 20.0


def with_bursts(
    counts_cyx: NDArray[Any], seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Counts with bursts added, and how many counts each pixel got."""
    rng = np.random.default_rng(seed)
    added_cyx = np.exp(rng.uniform(np.log(10), np.log(1000), counts_cyx.shape))
    added_cyx[rng.random(counts_cyx.shape) >= SHARE] = 0
    return (counts_cyx + rng.poisson(added_cyx)).astype(np.float32), added_cyx


def scores(
    images: list[NDArray[np.float32]], rule: float | Literal["poisson"], rounds: int
) -> tuple[float, ...]:
    """Recall of all and of faint bursts, precision, others lowered in dim and bright channels."""
    hits = bursts = faint_hits = faint = lowered = 0
    others = np.zeros((2, 2))
    seconds = []
    for seed, counts_cyx in enumerate(images):
        spoilt_cyx, added_cyx = with_bursts(counts_cyx, seed)
        for _ in range(rounds):
            start = time.process_time()
            cleaned_cyx, _ = remove_hot_pixels(spoilt_cyx, rule)
            seconds.append(time.process_time() - start)
        found_cyx = cleaned_cyx < spoilt_cyx
        burst_cyx, faint_cyx = added_cyx > 0, (added_cyx > 0) & (added_cyx < FAINT)
        hits += int((found_cyx & burst_cyx).sum())
        bursts += int(burst_cyx.sum())
        faint_hits += int((found_cyx & faint_cyx).sum())
        faint += int(faint_cyx.sum())
        lowered += int(found_cyx.sum())
        for found_yx, burst_yx, counts_yx in zip(found_cyx, burst_cyx, counts_cyx, strict=True):
            bright = int(counts_yx.mean() > BRIGHT_MEAN)
            others[bright] += (found_yx & ~burst_yx).sum(), (~burst_yx).sum()
    dim, bright_share = (float(a / b) if b else float("nan") for a, b in others)
    return (
        hits / bursts,
        faint_hits / faint,
        hits / max(lowered, 1),
        dim,
        bright_share,
        statistics.median(seconds),
    )


def table(title: str, images: list[NDArray[np.float32]], rounds: int) -> None:
    """Print a line a rule."""
    print(title)
    print(
        f"{'':22}{'recall':>8}{'faint':>8}{'precision':>11}{'others lowered: dim':>22}"
        f"{'bright channels':>17}{'CPU s':>8}"
    )
    for name, rule in RULES.items():
        recall, faint, precision, dim, bright, seconds = scores(images, rule, rounds)
        print(
            f"{name:22}{recall:8.3f}{faint:8.3f}{precision:11.3f}{dim:22.4%}{bright:17.4%}"
            f"{seconds:8.3f}"
        )


def main(data: Path | None, rounds: int) -> None:
    """Print both tables."""
    preset = get_preset("bone_marrow", images=3, size_px=500)
    clean = replace(preset, instrument=replace(preset.instrument, hot_pixels=0.0))
    made = [
        simulate_image(clean, seed=0, index=i)[0].pixels_cyx.astype(np.float32) for i in range(2)
    ]
    table("simulated bone marrow, no hot pixels of its own", made, rounds)
    if data is not None:
        images = read_images(data / "spleen_imc")
        real = [
            image.pixels_cyx[images.panel.used].astype(np.float32)
            for image in (images[name] for name in ("r2", "r8", "r20"))
        ]
        table("\nspleen r2, r8, r20, raw, with its own hot pixels", real, rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    main(given.data, given.rounds)
