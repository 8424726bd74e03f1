"""The experiment of Gutwein et al. 2024 on simulated bone marrow: the way from pixels to Figure 4.

    python benchmarks/paper_experiment.py --images 24 --paper-steps 300 --figure confusion.png

A cohort with the paper's 34 markers and seven types is SIMULATED, so its truth is known. Cells are
detected, an encoder is trained without labels, PhenoGraph clusters the embeddings. The majority
truth in the other half of the patients stands in for experts. The benchmark is the segmentation
workflow on the same images: watershed masks, mean intensities, PhenoGraph, names in the same way.
Shares are of each BENCHMARK class, as in the paper; those of the truth stand beside them. At last
the cells named T are clustered again, and their subtypes looked for. The paper's own encoder and
LARS stand beside the default, for as many steps as asked: its own 5,000 take hours on a processor.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
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
from maskless.images import ImageSet
from maskless.report.comparison_plot import comparison
from maskless.segmentation import measure_masks, segment_image
from maskless.simulate import Simulation, simulate_images
from maskless.simulate.bone_marrow import BONE_MARROW

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
TITLES = {
    "macro_f1": "macro-F1 against the truth",
    "ari": "ARI against the truth",
    "t_macro_f1": "T subtypes: macro-F1",
    "t_ari": "T subtypes: ARI",
}
Text = NDArray[np.str_]
Points = NDArray[np.float32]


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


@dataclass(frozen=True)
class Known:
    """What is known of each detected cell; "" = no true cell within 4 um."""

    type_n: Text
    subtype_n: Text
    patient_n: Text


def truth_and_means(made: Simulation, images: ImageSet, cells: AnnData) -> tuple[Known, Points]:
    """Truth of each detected cell, and the mean intensities over its watershed mask."""
    image_n = cells.obs["image"].astype(str).to_numpy()
    kind, subtype, patient = (np.full(cells.n_obs, "", "U32") for _ in range(3))
    means = np.zeros((cells.n_obs, len(images.panel.markers)), np.float32)
    for name, its in made.truth.items():
        rows = np.flatnonzero(image_n == name)
        xy = cells.obs[["x", "y"]].to_numpy(dtype=np.float64)[rows]
        image = images[name]
        pairs = match_centres(xy, its.centres_yx[:, ::-1], 4.0 / image.um_per_pixel)
        kind[rows[pairs.a]] = np.asarray(its.cell_type, dtype=str)[pairs.b]
        subtype[rows[pairs.a]] = np.asarray(its.subtype, dtype=str)[pairs.b]
        patient[rows] = its.patient
        labels = segment_image(image, images.panel, mx.SegmentSettings(), mx.DetectSettings(), xy)
        found = measure_masks(np.asarray(image.pixels_cyx)[images.panel.used], labels)
        at = cKDTree(xy).query(found.centres_xy)[1] if len(xy) else []
        means[rows[at]] = found.means_nc
    return Known(kind, subtype, patient), means


def embedding(images: ImageSet, cells: AnnData, preset: str, seed: int, **train: int) -> AnnData:
    """Cells embedded with a preset, some settings of its training changed."""
    config = resolve({"preset": preset, "train": train})
    start = time.process_time()
    encoder = mx.train(images, cells, config.encoder, config.train, seed=seed)
    trained = time.process_time() - start
    how = f"{config.train.steps} steps of {config.train.cells_per_step} cells"
    print(f"{preset}: {how}, {trained:.0f} CPU s of training", flush=True)
    return mx.embed(encoder, images, cells, config.embed)


def scored(points: Points, truth: Known, k: int, seed: int) -> tuple[Text, dict[str, float]]:
    """Names of the cells, and scores of clusters and of the T cells' clusters among themselves."""
    real = truth.type_n != ""
    found = mx.phenograph(points, k=k, seed=seed).astype(str)
    names = named(found, truth.type_n, truth.patient_n, seed)
    scores = class_scores(names[real], truth.type_n[real])
    ari = adjusted_rand_score(truth.type_n[real], found[real])
    rows = np.flatnonzero(names == "T")
    again = mx.phenograph(points[rows], k=k, seed=seed).astype(str)
    t_cell, subtype = truth.type_n[rows] == "T", truth.subtype_n[rows]
    sub = named(again, np.where(t_cell, subtype, ""), truth.patient_n[rows], seed)
    of_t = class_scores(sub[t_cell], subtype[t_cell])
    return names, {
        "clusters": len(set(found)),
        "macro_f1": scores.macro_f1,
        "ari": ari,
        "t_macro_f1": of_t.macro_f1,
        "t_ari": adjusted_rand_score(subtype[t_cell], again[t_cell]),
        "balanced_accuracy": scores.balanced_accuracy,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--size", type=int, default=400)
    parser.add_argument("--density", type=float, default=107.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--k", type=int, default=30)
    parser.add_argument("--paper-steps", type=int, default=0, help="0 = without the paper's preset")
    parser.add_argument("--paper-cells", type=int, default=768, help="cells of each of its steps")
    parser.add_argument("--figure", type=Path)
    chosen = parser.parse_args()
    made = simulate_images(
        replace(BONE_MARROW, images_per_patient=2),
        images=chosen.images,
        size_px=chosen.size,
        density=chosen.density,
        seed=chosen.seed,
    )
    images = mx.clean(made.images)
    cells = mx.detect(images)
    print(f"{cells.n_obs} cells detected in {len(images)} simulated images", flush=True)
    truth, means = truth_and_means(made, images, cells)

    default = embedding(images, cells, "default", chosen.seed)
    ways = {"maskless, default": default.obsm["X_embedding"]}
    if chosen.paper_steps:
        ways["maskless, paper's preset"] = embedding(
            images,
            cells,
            "paper",
            chosen.seed,
            steps=chosen.paper_steps,
            cells_per_step=chosen.paper_cells,
        ).obsm["X_embedding"]
    ways["segmentation benchmark"] = means
    ways["disc mean"] = default.layers["disc_mean"][:, images.panel.used]
    ways["random encoder"] = embedding(images, cells, "default", chosen.seed, steps=0).obsm[
        "X_embedding"
    ]
    given: dict[str, Text] = {}
    scores: dict[str, dict[str, float]] = {}
    print("\nagainst the simulated truth, named clusters:")
    titles = ("clusters", "macro-F1", "ARI", "T subtypes F1", "T ARI", "bal. accuracy")
    print(f"{'':<28}" + "".join(f"{title:>15}" for title in titles))
    for way, points in ways.items():
        given[way], scores[way] = scored(points, truth, chosen.k, chosen.seed)
        clusters, *others = scores[way].values()
        line = "".join(f"{score:>15.3f}" for score in others)
        print(f"{way:<28}{clusters:>15}{line}", flush=True)
    real = truth.type_n != ""
    ours, bench = given["maskless, default"], given["segmentation benchmark"]
    table = confusion(ours, bench)
    of_truth = {
        way: confusion(names[real], truth.type_n[real]).rediscovery()
        for way, names in given.items()
    }
    print("\nper cent of a class given the same type:")
    print(f"{'type':<14}{'paper, of benchmark':>20}{'ours, of benchmark':>20}", end="")
    print("".join(f"{way + ', of truth':>38}" for way in given))
    for kind, published in PAPER.items():
        line = f"{kind:<14}{published:>20.1f}{100 * table.rediscovery().get(kind, 0):>20.1f}"
        print(line + "".join(f"{100 * of_truth[w].get(kind, 0):>38.1f}" for w in given))
    if chosen.figure:
        figure = comparison(
            table,
            scores,
            TITLES,
            "given by maskless (rows)",
            "SIMULATED bone marrow. The matrix has the segmentation benchmark as reference, as in "
            "Gutwein et al. 2024, Figure 4; the scores are against the simulated truth.",
        )
        figure.savefig(chosen.figure, dpi=150)


if __name__ == "__main__":
    main()
