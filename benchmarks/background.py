"""Background removal: agreement with ilastik, and signal found in simulated tissue beside peers.

    python benchmarks/background.py --data data            # all parts
    python benchmarks/background.py --parts ilastik --data data
    python benchmarks/background.py --parts simulated --densities spleen --images 1
    python benchmarks/background.py --parts cost

``ilastik``: probabilities of the real project in ``data/ilastik_project`` against those that
ilastik exported. ``simulated``: for each pixel the expected ions of cells that express the marker
are known; signal is where they are at least a tenth of those of a clearly positive cell. ``cells``:
how well cell types are told apart by disc means, with removal and without. ``cost``: CPU seconds
for a million pixels, one thread.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from sklearn.metrics import roc_auc_score

from maskless.analysis.probes import knn_probe, linear_probe
from maskless.cells.intensity import disc_means
from maskless.images.background.automatic import Histogram, stabilised_mean
from maskless.images.background.classifier import _train, marker_features
from maskless.images.background.ilastik_project import read_ilastik_project
from maskless.images.hot_pixels import remove_hot_pixels
from maskless.images.image import Image
from maskless.simulate import get_preset, simulate_image

Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]

SIGNAL_FROM = 0.1  # of the expected ions of a clearly positive cell
STROKES = 12  # brush strokes of either kind, 3 x 12 pixels


def compare_with_ilastik(data: Path) -> None:
    """Mean absolute difference and agreement of the winning class, image by image."""
    import h5py
    import tifffile

    folder = data / "ilastik_project"
    project = read_ilastik_project(folder / "TestData.ilp")
    total = same = far = 0
    difference = 0.0
    for file in sorted((folder / "ilastik").glob("*_s2.h5")):
        with h5py.File(file) as content:
            image_cyx = content[file.stem][0].transpose(2, 0, 1)
        exported = tifffile.imread(file.with_name(f"{file.stem}_Probabilities.tiff")) / 65535
        found = project.probabilities(image_cyx)
        apart = np.abs(found - exported)
        total += apart[..., 0].size
        same += int((found.argmax(-1) == exported.argmax(-1)).sum())
        far += int((apart.max(-1) > 0.001).sum())
        difference += float(apart.mean(-1).sum())
    print(f"ilastik: {total} pixels of 15 images, {len(project.forest.roots)} trees")
    print(
        f"  mean absolute difference {difference / total:.2e} (rounding to 16 bits: up to 7.6e-06)"
    )
    print(f"  winning class agrees in {same / total:.4%}; {far} pixels differ by more than 0.001")


def simulated(
    preset: str, density: str, images: int, size: int, seed: int
) -> Iterator[tuple[str, list[Plane], list[Mask]]]:
    """For each marker its counts in the images and where its signal is."""
    noisy = get_preset(preset, images=images, size_px=size, density=density)
    gains = {m.name: min(1000.0, 8000.0 / max(m.counts, 1.0)) for m in noisy.markers}
    pure = replace(
        noisy,
        instrument=replace(noisy.instrument, spillover=0.0, hot_pixels=0.0),
        markers=tuple(
            replace(m, counts=m.counts * gains[m.name], background=0.0, nonspecific=0.0)
            for m in noisy.markers
        ),
    )
    counts, signal = [], []
    for index in range(images):
        pixels_cyx = simulate_image(noisy, seed, index)[0].pixels_cyx
        counts.append(remove_hot_pixels(pixels_cyx.astype(np.float32))[0])
        signal.append(simulate_image(pure, seed, index)[0].pixels_cyx)
    for c, marker in enumerate(noisy.markers):
        if marker.kind != "marker" or marker.pattern == "none":
            continue
        least = SIGNAL_FROM * marker.counts * gains[marker.name]
        yield marker.name, [i[c] for i in counts], [i[c] >= least for i in signal]


def otsu(values: NDArray[np.floating]) -> float:
    """Otsu's threshold."""
    counts, edges = np.histogram(values, 256)
    middle = (edges[1:] + edges[:-1]) / 2
    weight, moment = np.cumsum(counts), np.cumsum(counts * middle)
    with np.errstate(all="ignore"):
        between = (moment[-1] * weight / weight[-1] - moment) ** 2
        between = between / (weight * (weight[-1] - weight))
    return float(middle[np.nanargmax(np.where(np.isfinite(between), between, -1))])


def nearest_counts(plane_yx: Plane, k: int = 25) -> Plane:
    """MAUI's score: minus the mean distance of a count to the k nearest; least where there is none.

    Baranski et al. 2021, doi:10.1371/journal.pcbi.1008887.
    """
    score_yx = np.full(plane_yx.shape, -1e3, np.float32)
    places = np.argwhere(plane_yx > 0)
    times = np.minimum(plane_yx[plane_yx > 0].astype(int), k + 1)
    every = np.repeat(places, times, axis=0)
    if len(every) > k:
        distances, _ = cKDTree(every).query(places, k + 1)
        score_yx[tuple(places.T)] = -distances[:, 1:].mean(1)
    return score_yx


def brush_classifier(counts: list[Plane], truth: list[Mask], seed: int) -> list[Plane] | None:
    """Forest trained on strokes over the first image; None where it shows no signal to label."""
    rng = np.random.default_rng(seed)
    labels_yx = np.zeros(counts[0].shape, np.uint8)
    for kind, where in ((1, ~truth[0]), (2, truth[0])):
        places = np.argwhere(where)
        if len(places) < 200:
            return None
        for y, x in places[rng.integers(0, len(places), STROKES)]:
            stroke = slice(max(y - 1, 0), y + 2), slice(max(x - 6, 0), x + 6)
            labels_yx[stroke] = np.where(where[stroke], kind, labels_yx[stroke])
    features = [
        np.concatenate([f for _, f in marker_features(_image(plane), plane[None], "m")], axis=1)
        for plane in counts
    ]
    known = [(features[0][:, labels_yx > 0], labels_yx[labels_yx > 0])]
    forest = _train(known, "m", seed, Path("strokes"))
    return [
        forest.probabilities(f.reshape(len(f), -1))[:, 1].reshape(f.shape[1:]) for f in features
    ]


def _image(plane_yx: Plane) -> Image:
    return Image("made", plane_yx[None], ("m",), 1.0)


def f1(found: list[Mask], truth: list[Mask]) -> float:
    """Of all pixels of all images."""
    hit = sum(int((a & b).sum()) for a, b in zip(found, truth, strict=True))
    return 2 * hit / max(1, sum(int(a.sum() + b.sum()) for a, b in zip(found, truth, strict=True)))


def best_f1(scores: list[Plane], truth: list[Mask]) -> float:
    """With the threshold that is best for the truth."""
    values = np.concatenate([s.ravel() for s in scores])
    cuts = np.unique(np.quantile(values, np.linspace(0, 0.999, 120)))
    return max(f1([s > cut for s in scores], truth) for cut in cuts)


def auc(scores: list[Plane], truth: list[Mask]) -> float:
    """Area under the curve over all pixels."""
    return float(
        roc_auc_score(
            np.concatenate([t.ravel() for t in truth]), np.concatenate([s.ravel() for s in scores])
        )
    )


def score_marker(counts: list[Plane], truth: list[Mask], seed: int) -> dict[str, float]:
    """F1 and AUC of every way for one marker."""
    means = [stabilised_mean(plane, 1.0) for plane in counts]
    histogram = Histogram()
    alone = []
    for mean in means:
        histogram.add(mean)
        own = Histogram()
        own.add(mean)
        alone.append(own.cut())
    cut = histogram.cut()
    smoothed = [gaussian_filter(plane, 1.0) for plane in counts]
    near = [nearest_counts(plane) for plane in counts]
    pairs = zip(means, alone, strict=True)
    found = {
        "F1 automatic": f1([cut.probability(m) > 0.5 for m in means], truth),
        "F1 automatic, each image": f1([c.probability(m) > 0.5 for m, c in pairs], truth),
        "F1 Otsu on counts": f1([p > otsu(p) for p in counts], truth),
        "F1 Otsu on smoothed": f1([s > otsu(s) for s in smoothed], truth),
        "F1 Otsu on stabilised": f1([m > otsu(m) for m in means], truth),
        "F1 MAUI, best threshold": best_f1(near, truth),
        "F1 automatic, best cut": best_f1(means, truth),
        "AUC automatic": auc(means, truth),
        "AUC counts": auc(counts, truth),
        "AUC MAUI": auc(near, truth),
    }
    brushed = brush_classifier(counts, truth, seed)
    if brushed is not None:
        found["F1 classifier"] = f1([p > 0.5 for p in brushed], truth)
        found["AUC classifier"] = auc(brushed, truth)
    return found


def compare_on_simulated(options: argparse.Namespace) -> None:
    """Print means over markers, density by density."""
    rows: dict[str, list[dict[str, float]]] = {}
    by_share: dict[str, list[dict[str, float]]] = {}
    images, size, seed = options.images, options.size, options.seed
    for preset in options.presets:
        for density in options.densities:
            for _, counts, truth in simulated(preset, density, images, size, seed):
                share = float(np.mean(truth))
                if share < 0.002:
                    continue
                found = score_marker(counts, truth, seed)
                rows.setdefault(f"{preset}, {density}", []).append(found)
                kind = "rare <3%" if share < 0.03 else "3 - 30%" if share < 0.3 else "over 30%"
                by_share.setdefault(kind, []).append(found)
    every = [found for group in rows.values() for found in group]
    print(f"simulated: {len(every)} markers, {images} images of {size} x {size} each (means)")
    groups = {**rows, **by_share, "all": every}
    print(
        "  "
        + " " * 26
        + "".join(f"{name.replace('bone_marrow', 'marrow')[:15]:>16}" for name in groups)
    )
    for key in dict.fromkeys(key for found in every for key in found):
        means = [[f[key] for f in group if key in f] for group in groups.values()]
        cells = "".join(f"{np.mean(m):16.3f}" if m else f"{'-':>16}" for m in means)
        print(f"  {key:<26}{cells}")


def compare_cells(options: argparse.Namespace) -> None:
    """What removal does to the cells: disc means of cleaned pixels, with it and without."""
    import pandas as pd

    from maskless.config import CleanSettings
    from maskless.images import clean, read_images
    from maskless.images.image import ImageSet
    from maskless.simulate import simulate_images

    sets: dict[str, tuple[ImageSet, dict[str, tuple[NDArray[np.float64], NDArray[np.str_]]]]] = {}
    for density in options.densities:
        made = simulate_images("demo", images=4, size_px=options.size, density=density, seed=1)
        sets[f"simulated, {density}"] = (
            made.images,
            {name: (t.centres_yx, t.cell_type) for name, t in made.truth.items()},
        )
    folder = options.data / "spleen_imc"
    if folder.is_dir():
        names = ("r2", "r4", "r8", "r10")
        tables = {n: pd.read_csv(folder / n / "cells_labelled.csv") for n in names}
        tables = {n: t[~t["cell_type"].str.contains("ackground")] for n, t in tables.items()}
        sets["IMC spleen (real)"] = (
            read_images([folder / n for n in names], panel=folder / "panel.csv"),
            {
                n: (t[["y", "x"]].to_numpy(), t["cell_type"].to_numpy(str))
                for n, t in tables.items()
            },
        )
    ways = {
        "none": CleanSettings(),
        "automatic, mask": CleanSettings(background_removal="automatic"),
        "automatic, probability": CleanSettings(
            background_removal="automatic", background_weight="probability"
        ),
    }
    print("cells: probes of disc means (4 um), split by image; macro-F1")
    for title, (images, cells) in sets.items():
        used = images.panel.used
        for way, settings in ways.items():
            means, groups = [], []
            for image in clean(images, settings):
                centres_yx, labels = cells[image.name]
                radius_px = 4.0 / image.um_per_pixel
                means.append(disc_means(image.pixels_cyx[used], centres_yx, radius_px))
                groups.append(np.repeat(image.name, len(labels)))
            every = np.concatenate([cells[name][1] for name in images.names])
            scores = [
                probe(np.concatenate(means), every, np.concatenate(groups)).summary()["macro_f1"]
                for probe in (linear_probe, knn_probe)
            ]
            print(f"  {title:<22}{way:<24} linear {scores[0]:.3f}   kNN {scores[1]:.3f}")


def cost(data: Path) -> None:
    """CPU seconds for a million pixels."""
    rng = np.random.default_rng(0)
    plane = rng.poisson(1.0, (1000, 1000)).astype(np.float32)

    def automatic() -> None:
        histogram = Histogram()
        mean = stabilised_mean(plane, 1.0)
        histogram.add(mean)
        histogram.cut().probability(mean)

    labels = rng.integers(1, 3, plane.shape, dtype=np.uint8)
    labels[rng.random(plane.shape) > 0.002] = 0
    known = [
        (
            np.concatenate(
                [f[:, labels[r] > 0] for r, f in marker_features(_image(plane), plane[None], "m")],
                axis=1,
            ),
            labels[labels > 0],
        )
    ]
    forest = _train(known, "m", 0, Path("strokes"))

    def classifier() -> None:
        for _, f in marker_features(_image(plane), plane[None], "m"):
            forest.probabilities(f.reshape(len(f), -1))

    ways: dict[str, Callable[[], object]] = {
        "automatic": automatic,
        "classifier (pure noise: the deepest trees)": classifier,
        "MAUI's filter": lambda: nearest_counts(plane),
    }
    project = data / "ilastik_project" / "TestData.ilp"
    if project.is_file():
        four = rng.poisson(1.0, (4, 1000, 1000))
        read = read_ilastik_project(project)
        ways["ilastik project, its 4 channels together"] = lambda: read.probabilities(four)
    print("cost: CPU s for a million pixels of one channel, median of 3")
    for name, way in ways.items():
        way()
        seconds = []
        for _ in range(3):
            start = time.process_time()
            way()
            seconds.append(time.process_time() - start)
        print(f"  {name:<44}{np.median(seconds):8.3f}")


def main() -> None:
    """Run the parts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="+", default=["ilastik", "simulated", "cells", "cost"])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--presets", nargs="+", default=["demo", "bone_marrow"])
    parser.add_argument("--densities", nargs="+", default=["sparse", "spleen", "dense"])
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    if "ilastik" in options.parts:
        compare_with_ilastik(options.data)
    if "cells" in options.parts:
        compare_cells(options)
    if "cost" in options.parts:
        cost(options.data)
    if "simulated" in options.parts:
        compare_on_simulated(options)


if __name__ == "__main__":
    main()
