"""Names for new images: are they right, is the confidence honest, is what is new called unknown?

    python benchmarks/assign.py data/spleen_imc                     # r2 and r4 name r8 and r10
    python benchmarks/assign.py data/spleen_imc --study r2 r8 --new r4 r10
    python benchmarks/assign.py data/spleen_imc --only shift        # every region against the rest

Clusters of the study's regions are named after the majority of their labels. Labels of the new
regions are only used to score. Beside it: plain votes in the embedding and in means over a disc,
and clustering all regions together with the same naming.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

import maskless as mx
from maskless.analysis import assign_by_neighbours, nearest_among
from maskless.analysis.agreement import class_scores
from maskless.analysis.assign import left_out_neighbours
from maskless.assignment.shift import marker_shifts, usual_ratios
from maskless.cells import disc_means
from maskless.compare.reference import match_reference
from maskless.images import ImageSet, Scaling, clean_image, fit_scaling

NO_CELL = "background/non-cell"
DETECT = mx.DetectSettings(nuclear_radius_um=2.0)
CLEAN = mx.CleanSettings()
K = 30


def cleaned(
    folder: Path, names: Sequence[str], scaling: Scaling | None
) -> tuple[ImageSet, Scaling]:
    raw = mx.read_images([folder / name for name in names], panel=folder / "panel.csv")
    scaling = scaling or fit_scaling(raw, CLEAN, 0)
    return raw.map(lambda image: clean_image(image, CLEAN, scaling)), scaling


def labels(cells: AnnData, images: ImageSet, folder: Path) -> np.ndarray:
    """Label of each cell, empty where it has none."""
    pattern = str(folder / "{image}" / "cells_labelled.csv")
    found = match_reference(cells, images, pattern, "cell_type", without=[NO_CELL])
    label = np.full(cells.n_obs, "", dtype=object)
    label[found.rows_p] = found.label_p
    return label.astype(str)


def majority(clusters: np.ndarray, label: np.ndarray) -> dict[str, str]:
    """The commonest label of each cluster's labelled cells."""
    names = {}
    for cluster in np.unique(clusters):
        here = label[(clusters == cluster) & (label != "")]
        values, counts = np.unique(here, return_counts=True)
        names[cluster] = str(values[counts.argmax()]) if len(values) else "unnamed"
    return names


def score(title: str, given: np.ndarray, label: np.ndarray) -> None:
    there = label != ""
    found = class_scores(given[there], label[there])
    right = (given[there] == label[there]).mean()
    print(f"{title:<52}{found.macro_f1:>9.3f}{right:>10.3f}", flush=True)


def used_levels(cells: AnnData) -> np.ndarray:
    return np.asarray(cells.layers["disc_mean"])[:, cells.var["used"].to_numpy()]


def voted(points: np.ndarray, names: np.ndarray, new: np.ndarray) -> np.ndarray:
    every, codes = np.unique(names, return_inverse=True)
    return every[assign_by_neighbours(points, codes, new, K)[0]]


def text(cells: AnnData, column: str) -> np.ndarray:
    return cells.obs[column].astype(str).to_numpy(str)


def names(study: AnnData, new: AnnData, label: np.ndarray, new_label: np.ndarray, scaling: Scaling):
    print(f"\n{'names of new cells':<52}{'macro-F1':>9}{'accuracy':>10}")
    mx.assign(new, study, scaling=scaling)
    score("maskless assign", text(new, "phenotype"), new_label)
    known = text(new, "phenotype") != "unknown"
    score(
        f"  the {known.mean():.1%} that are not unknown",
        text(new, "phenotype"),
        np.where(known, new_label, ""),
    )
    phenotype = text(study, "phenotype")
    points, new_points = (np.asarray(c.obsm["X_embedding"]) for c in (study, new))
    score("plain vote in the embedding", voted(points, phenotype, new_points), new_label)
    levels, new_levels = used_levels(study), used_levels(new)
    score("control: vote in disc means", voted(levels, phenotype, new_levels), new_label)
    spread = levels.std(axis=0)
    score(
        "control: vote in disc means, scaled to unit spread",
        voted(levels / spread, phenotype, new_levels / spread),
        new_label,
    )
    clusters = mx.phenograph(np.concatenate([points, new_points]), K).astype(str)
    given = majority(clusters[: len(points)], label)
    together = np.array([given.get(c, "unnamed") for c in clusters[len(points) :]])
    score("control: all regions clustered together", together, new_label)
    score("the study's own cells by their clusters (the ceiling)", phenotype, label)
    calibration(new, new_label, together)


def calibration(new: AnnData, label: np.ndarray, together: np.ndarray) -> None:
    print(f"\n{'confidence, tenths of the cells':<34}{'mean':>7}{'as study':>10}{'as label':>10}")
    phenotype, confidence = text(new, "phenotype"), new.obs["confidence"].to_numpy()
    rows = np.flatnonzero((phenotype != "unknown") & (label != ""))
    ordered = rows[np.argsort(confidence[rows], kind="stable")]
    for part in np.array_split(ordered, 10):
        same, right = (phenotype[part] == other[part] for other in (together, label))
        low, high = confidence[part[0]], confidence[part[-1]]
        print(
            f"{f'{low:.3f} to {high:.3f} ({len(part)} cells)':<34}"
            f"{confidence[part].mean():>7.3f}{same.mean():>10.3f}{right.mean():>10.3f}"
        )


def hidden(study: AnnData, new: AnnData, label: np.ndarray, new_label: np.ndarray) -> None:
    """A type is taken out of the study: its clusters, and its labelled cells in others."""
    print(f"\n{'':<28}{'maskless':^20}{'not whitened':^20}{'disc means':^20}")
    print(f"{'type that was hidden':<28}" + 3 * f"{'unknown':>9}{'of others':>11}")
    for kind in np.unique(label[label != ""]):
        kept = (text(study, "phenotype") != kind) & (label != kind)
        if kept.sum() < 200:
            continue
        cells = new.copy()
        mx.assign(cells, study[kept].copy())
        unknown = text(cells, "phenotype") == "unknown"
        mine = new_label == kind
        others = (new_label != "") & ~mine
        told = [unknown]
        for table in (lambda c: np.asarray(c.obsm["X_embedding"]), used_levels):
            points, images = table(study)[kept], text(study, "image")[kept]
            left = left_out_neighbours(points, images, 5)[1].distances_nk[:, -1]
            far = nearest_among(points, table(new), 5).distances_nk[:, -1]
            told.append(far > np.quantile(left, 0.995))
        shares = "".join(f"{t[mine].mean():>9.1%}{t[others].mean():>11.1%}" for t in told)
        print(f"{kind:<28}{shares}", flush=True)


def shift(folder: Path) -> None:
    """Each two regions are new, the others the study; then each marker of the new ones twice."""
    regions = sorted((p.name for p in folder.iterdir() if p.is_dir()), key=lambda n: int(n[1:]))
    images, scaling = cleaned(folder, regions, None)
    cells = mx.detect(images, DETECT)
    levels = np.zeros((cells.n_obs, cells.n_vars), np.float32)
    of_image = text(cells, "image")
    for image in images:
        rows = of_image == image.name
        yx = cells.obs[["y", "x"]].to_numpy(float)[rows]
        pixels = np.asarray(image.pixels_cyx, np.float32)
        levels[rows] = disc_means(pixels, yx, 4.0 / image.um_per_pixel)
    used = cells.var["used"].to_numpy()
    markers = tuple(cells.var_names[used])
    levels = levels[:, used]
    chosen = scaling.only(markers)
    counts = chosen.linear(levels)
    found, alone, named, ratios, other = 0, 0, 0, [], 0
    pairs = list(zip(regions[::2], regions[1::2], strict=False))
    for pair in pairs:
        new = np.isin(of_image, pair)
        usual = usual_ratios(counts[~new], of_image[~new], chosen.scaled)

        def moved(
            factors: np.ndarray, new: np.ndarray = new, usual: np.ndarray = usual
        ) -> dict[str, float]:
            shifts = marker_shifts(
                counts[~new],
                of_image[~new],
                counts[new] * factors,
                of_image[new],
                markers,
                chosen.scaled,
                usual_im=usual,
            )
            return {s.marker: s.ratio for s in shifts if s.moved}

        plain = moved(np.ones(len(markers)))
        named += len(plain)
        print(f"{' '.join(pair)}, nothing changed: {plain or 'nothing named'}", flush=True)
        others: list[str] = []
        for place, marker in enumerate(markers):
            factors = np.ones(len(markers))
            factors[place] = 2
            now = moved(factors)
            found += marker in now
            alone += set(now) - set(plain) <= {marker} and marker in now
            others += [f"{m} for {marker}" for m in set(now) - set(plain) - {marker}]
            ratios += [now[marker]] if marker in now else []
            if marker not in now:
                print(f"  {marker} twice as bright: not named", flush=True)
        other += len(others)
        print(f"  named too: {', '.join(sorted(others)) or 'none'}", flush=True)
    total = len(pairs) * len(markers)
    print(
        f"\n{len(pairs)} pairs of new regions, {len(markers)} markers: one twice as bright is "
        f"named in {found} of {total}, and nothing more than before in {alone}; {other} others.\n"
        f"Factor told: median {np.median(ratios):.2f}, middle half "
        f"{np.quantile(ratios, 0.25):.2f} to {np.quantile(ratios, 0.75):.2f}. "
        f"Unchanged: {named} of {total} named."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--study", nargs="+", default=["r2", "r4"])
    parser.add_argument("--new", nargs="+", default=["r8", "r10"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["names", "hidden", "shift"])
    parser.add_argument("--encoder", type=Path, help="folder of a trained one, of these regions")
    arguments = parser.parse_args()
    if arguments.only != "shift":
        folder = arguments.folder
        images, scaling = cleaned(folder, arguments.study, None)
        new_images, _ = cleaned(folder, arguments.new, scaling)
        study, new = mx.detect(images, DETECT), mx.detect(new_images, DETECT)
        encoder = (
            mx.load_encoder(arguments.encoder)
            if arguments.encoder
            else mx.train(images, study, seed=arguments.seed)
        )
        study, new = mx.embed(encoder, images, study), mx.embed(encoder, new_images, new)
        label, new_label = labels(study, images, folder), labels(new, new_images, folder)
        mx.cluster(study, seed=arguments.seed)
        given = majority(text(study, "cluster"), label)
        study.obs["phenotype"] = pd.Categorical([given[c] for c in text(study, "cluster")])
        print(f"study {arguments.study}, new {arguments.new}, seed {arguments.seed}")
        print(f"{study.n_obs} cells in {len(given)} clusters name {new.n_obs}")
        if arguments.only != "hidden":
            names(study, new, label, new_label, scaling)
        if arguments.only != "names":
            hidden(study, new, label, new_label)
    if arguments.only in (None, "shift"):
        print()
        shift(arguments.folder)


if __name__ == "__main__":
    main()
