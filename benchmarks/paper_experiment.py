"""The experiment of Gutwein et al. 2024 on simulated bone marrow: the way from pixels to Figure 4.

    python benchmarks/paper_experiment.py --images 24 --size 400 --figure confusion.png

A cohort with the paper's 34 markers and seven types is SIMULATED, so its truth is known. Cells are
detected, an encoder is trained without labels, PhenoGraph clusters the embeddings. The majority
truth in the other half of the patients stands in for experts. The benchmark is the segmentation
workflow on the same images: watershed masks, mean intensities, PhenoGraph, names in the same way.
Shares are of each BENCHMARK class, as in the paper; those of the truth stand beside them. At last
the cells named T are clustered again, and their subtypes looked for.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from sklearn.metrics import adjusted_rand_score

import maskless as mx
from maskless.analysis.agreement import class_scores, confusion, majority_names
from maskless.analysis.matching import match_centres
from maskless.config import resolve
from maskless.segmentation import measure_masks, segment_image
from maskless.simulate import simulate_images

# Gutwein 2024, Figure 4: per cent of the benchmark's class that was given the same type.
PAPER = {
    "T": 92.05,
    "tumour": 88.33,
    "granulocyte": 86.23,
    "B": 81.05,
    "MO/DC/NK": 80.97,
    "progenitor": 70.61,
    "other": 68.02,
}
Text = NDArray[np.str_]


def named(clusters: Text, truth: Text, patient: Text, seed: int) -> Text:
    """Each half of the patients takes the names that the clusters have in the other half."""
    patients = np.random.default_rng(seed).permutation(np.unique(patient))
    half = np.isin(patient, patients[: len(patients) // 2])
    names = np.full(len(clusters), "other", dtype="U32")
    for voting in (half, ~half):
        known = truth[voting] != ""
        given = majority_names(clusters[voting][known], truth[voting][known])
        names[~voting] = [given.get(cluster, "other") for cluster in clusters[~voting]]
    return names


def clusters_of(points: NDArray[np.float32], k: int, seed: int) -> Text:
    return mx.phenograph(points, k=k, seed=seed).astype(str)


def embedding(images, cells: AnnData, preset: str, steps: int | None, seed: int):
    config = resolve({"preset": preset, **({"train": {"steps": steps}} if steps else {})})
    start = time.process_time()
    encoder = mx.train(images, cells, config.encoder, config.train, seed=seed)
    trained = time.process_time() - start
    found = mx.embed(encoder, images, cells, config.embed)
    print(f"{preset}: {config.train.steps} steps, {trained:.0f} CPU s of training", flush=True)
    return found.obsm["X_embedding"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--size", type=int, default=400)
    parser.add_argument("--density", type=float, default=107.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--k", type=int, default=30)
    parser.add_argument("--paper-steps", type=int, default=0, help="0 = without the paper's preset")
    parser.add_argument("--figure", type=Path)
    chosen = parser.parse_args()
    from dataclasses import replace

    from maskless.simulate.bone_marrow import BONE_MARROW

    preset = replace(BONE_MARROW, images_per_patient=2)
    made = simulate_images(
        preset, images=chosen.images, size_px=chosen.size, density=chosen.density, seed=chosen.seed
    )
    images = mx.clean(made.images)
    cells = mx.detect(images)
    print(f"{cells.n_obs} cells detected in {len(images)} simulated images", flush=True)

    # Truth of each detected cell ("" = none within 4 um), and the mean over its watershed mask.
    image_n = cells.obs["image"].astype(str).to_numpy()
    truth, subtype = np.full(cells.n_obs, "", "U32"), np.full(cells.n_obs, "", "U32")
    patient = np.full(cells.n_obs, "", "U32")
    means = np.zeros((cells.n_obs, len(images.panel.markers)), np.float32)
    for name, its in made.truth.items():
        rows = np.flatnonzero(image_n == name)
        xy = cells.obs[["x", "y"]].to_numpy(dtype=np.float64)[rows]
        pairs = match_centres(xy, its.centres_yx[:, ::-1], 4.0 / preset.um_per_pixel)
        truth[rows[pairs.a]] = np.asarray(its.cell_type, dtype=str)[pairs.b]
        subtype[rows[pairs.a]] = np.asarray(its.subtype, dtype=str)[pairs.b]
        patient[rows] = its.patient
        image = images[name]
        labels = segment_image(image, images.panel, mx.SegmentSettings(), mx.DetectSettings(), xy)
        found = measure_masks(np.asarray(image.pixels_cyx)[images.panel.used], labels)
        at = cKDTree(xy).query(found.centres_xy)[1] if len(xy) else []
        means[rows[at]] = found.means_nc
    real = truth != ""

    ways = {"segmentation benchmark": means}
    ways["maskless, default"] = embedding(images, cells, "default", None, chosen.seed)
    untrained = mx.train(images, cells, settings=mx.TrainSettings(steps=0), seed=chosen.seed)
    random = mx.embed(untrained, images, cells)
    ways["random encoder"] = random.obsm["X_embedding"]
    ways["disc mean"] = random.layers["disc_mean"][:, images.panel.used]
    if chosen.paper_steps:
        ways["maskless, paper's preset"] = embedding(
            images, cells, "paper", chosen.paper_steps, chosen.seed
        )
    given: dict[str, Text] = {}
    print("\nagainst the simulated truth, named clusters:")
    titles = ("clusters", "macro-F1", "bal. acc.", "ARI", "T subtypes F1", "T ARI")
    print(f"{'':<28}" + "".join(f"{title:>15}" for title in titles))
    for way, points in ways.items():
        found = clusters_of(points, chosen.k, chosen.seed)
        given[way] = named(found, truth, patient, chosen.seed)
        scores = class_scores(given[way][real], truth[real])
        ari = adjusted_rand_score(truth[real], found[real])
        # T cells again: those named T, clustered among themselves.
        rows = np.flatnonzero(given[way] == "T")
        again = clusters_of(points[rows], chosen.k, chosen.seed)
        t_cell = truth[rows] == "T"
        sub = named(again, np.where(t_cell, subtype[rows], ""), patient[rows], chosen.seed)
        of_t = class_scores(sub[t_cell], subtype[rows][t_cell])
        sub_ari = adjusted_rand_score(subtype[rows][t_cell], again[t_cell])
        shown = (scores.macro_f1, scores.balanced_accuracy, ari, of_t.macro_f1, sub_ari)
        line = "".join(f"{score:>15.3f}" for score in shown)
        print(f"{way:<28}{len(set(found)):>15}{line}", flush=True)
    ours, bench = given["maskless, default"], given["segmentation benchmark"]
    table = confusion(ours, bench)
    of_truth = {
        way: confusion(names[real], truth[real]).rediscovery() for way, names in given.items()
    }
    print("\nper cent of a class given the same type:")
    print(f"{'type':<14}{'paper, of benchmark':>20}{'ours, of benchmark':>20}", end="")
    print("".join(f"{way + ', of truth':>38}" for way in given))
    for kind, published in PAPER.items():
        line = f"{kind:<14}{published:>20.1f}{100 * table.rediscovery().get(kind, 0):>20.1f}"
        print(line + "".join(f"{100 * of_truth[w].get(kind, 0):>38.1f}" for w in given))
    if chosen.figure:
        from maskless.report.comparison_plot import comparison

        figure = comparison(
            table, {}, {}, "simulated bone marrow; columns: segmentation benchmark, rows: maskless"
        )
        figure.savefig(chosen.figure, dpi=150)


if __name__ == "__main__":
    main()
