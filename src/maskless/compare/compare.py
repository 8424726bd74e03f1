"""`maskless compare`: a study against reference labels, every control beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maskless.analysis.agreement import Confusion, confusion
from maskless.compare.controls import Table, control_tables, embed_matched
from maskless.compare.reference import Matched, match_reference, simulated_by
from maskless.compare.scores import TITLES, Scores, held_out_names, score_clusters, score_tables
from maskless.compare.trained import (
    Training,
    other_seeds,
    paper_preset,
    random_encoders,
    trained_encoder,
)
from maskless.errors import InputError
from maskless.freshness import is_fresh
from maskless.progress import log
from maskless.storage import write_json
from maskless.study import Study, versions

if TYPE_CHECKING:
    from anndata import AnnData

OWN, EMBEDDING, OWN_CLUSTERS = "maskless", "maskless: embedding", "maskless: clusters of the study"
PAPER, RANDOM, SEGMENTATION = "paper's preset", "random encoder", "segmentation: mask mean"
_UNNAMED = "unnamed"


def compare_study(
    folder: Path,
    reference: str,
    label: str,
    *,
    radius_um: float = 4.0,
    without: Sequence[str] = (),
    masks: str | None = None,
    beside: Sequence[Path] = (),
    seeds: int = 3,
    trainings: int = 1,
    paper: bool = False,
    paper_steps: int | None = None,
) -> str:
    """Compare a study with reference labels, and the controls with it on the same cells.

    Writes ``comparison.json`` and ``figures/comparison.png`` and ``.svg`` into the study; encoders
    that it trains beside the study's own stay in ``compare/`` and are used again.

    Parameters
    ----------
    folder
        Of the study, with clusters.
    reference, label, radius_um, without
        See :func:`maskless.compare.reference.match_reference`.
    masks
        Label masks of the reference, a path with ``{image}``, for the control "mask mean".
    beside
        Further studies of the same cells (the paper's preset, say), for their embeddings.
    seeds
        How many seeds of clusters and splits, and how many random encoders.
    trainings
        How many encoders, the study's own among them, each trained with another seed.
    paper
        Train the paper's preset on the same cells, as a further control.
    paper_steps
        Optimiser steps of the paper's preset; as many as the study's own if None.

    Returns
    -------
    str
        Table and sentence.

    Raises
    ------
    InputError
        If the study has no fresh clusters, or reference, masks or other studies do not fit.
    """
    from maskless.report import comparison, save
    from maskless.stages import study_images

    study = Study.open(folder)
    cells = _clustered(study)
    images = study_images(study)
    matched = match_reference(cells, images, reference, label, without=without, radius_um=radius_um)
    counts = matched.counts
    log(
        f"matched {counts.matched} of {counts.study} cells with {counts.reference} of the reference"
    )
    centres_yx = cells.obs[["y", "x"]].to_numpy(dtype=np.float64)[matched.rows_p]
    # Before any training: files that do not fit are told at once.
    controls = control_tables(images, matched, centres_yx, masks)
    tables: dict[str, list[Table]] = {k: [v] for k, v in _own_tables(cells, matched).items()}

    def add(names: Sequence[str], encoders: Sequence[Training]) -> None:
        for training in encoders:
            encoder = trained_encoder(study, images, cells, training)
            found = embed_matched(
                encoder, images, matched, centres_yx, study.config.embed, study.config.device
            )
            several = (found.embedding_ne, _flat(found.features_nck), found.activations_nc)
            for name, table in zip(names, several, strict=False):
                tables.setdefault(name, []).append(table)

    add(list(tables), other_seeds(study, trainings - 1))
    if paper:
        add([PAPER], [paper_preset(study, paper_steps)])
    for other in beside:
        tables[f"{other.name}: embedding"] = [_embedding_beside(other, cells)[matched.rows_p]]
    tables |= {name: [table] for name, table in controls.items()}
    segmented = _segmentation(study, matched, centres_yx)
    if segmented is not None:
        tables[SEGMENTATION] = [segmented]
    add([RANDOM, f"{RANDOM}, features"], random_encoders(study, seeds))
    seed_list = range(study.config.seed, study.config.seed + seeds)
    clusters = cells.obs["cluster"].astype(str).to_numpy(dtype=np.str_)[matched.rows_p]
    results: dict[str, Scores] = {OWN_CLUSTERS: score_clusters(clusters, matched, seed_list)}
    by_encoder: dict[str, list[Scores]] = {}
    for name, several in tables.items():
        log(f"scoring {name} {several[0].shape}")
        results[name], by_encoder[name] = score_tables(
            several, matched, study.config.cluster, seed_list, paired=len(several) > 1
        )
    named, naming = _names(cells, clusters, matched, study.config.seed)
    found = confusion(named, matched.label_p)
    sentence = _sentence(results)
    made = simulated_by(reference)
    if made is not None:
        sentence = f"Simulated tissue: the reference is the simulation's truth. {sentence}"
    record = _record(matched, results, found, naming, sentence, reference, label, list(seed_list))
    record["scores_by_encoder"] = {k: v for k, v in by_encoder.items() if len(v) > 1}
    record["simulated"] = made is not None
    write_json(study.folder / "comparison.json", record)
    figure = comparison(found, results, TITLES, naming, sentence)
    for kind in ("png", "svg"):
        save(figure, study.figures_folder / f"comparison.{kind}")
    lines = [_table(results), "", *_rediscovered(found, naming), "", sentence]
    return "\n".join([*lines, f"figure: {study.figures_folder / 'comparison.png'}"])


def _clustered(study: Study) -> AnnData:
    from maskless.cells_file import read_cells

    cells = read_cells(study.cells_file)
    if "cluster" not in cells.obs or not is_fresh(study, "cluster"):
        raise InputError(
            "the study has no clusters that are up to date",
            file=study.cells_file,
            do=f"Run: maskless run {study.folder}",
        )
    return cells


def _own_tables(cells: AnnData, matched: Matched) -> dict[str, NDArray[np.float32]]:
    used = np.flatnonzero(cells.var["used"].to_numpy(dtype=bool))
    rows = matched.rows_p
    return {
        EMBEDDING: np.asarray(cells.obsm["X_embedding"], np.float32)[rows],
        f"{OWN}: features": np.asarray(cells.obsm["X_features"], np.float32)[rows],
        f"{OWN}: activations": np.asarray(cells.X, np.float32)[rows][:, used],
    }


def _segmentation(study: Study, matched: Matched, centres_yx: NDArray[np.float64]) -> Table | None:
    """Means over the masks of `maskless segment`, of each cell the nearest; None without them."""
    from scipy.spatial import cKDTree

    from maskless.segmentation import read_segmentation, segmentation_state

    if segmentation_state(study) != "up to date":
        return None
    masks = read_segmentation(study)
    used = masks.var["used"].to_numpy(dtype=bool)
    means = np.asarray(masks.X, np.float32)[:, used]
    table = np.zeros((len(centres_yx), means.shape[1]), np.float32)
    of_image = masks.obs["image"].astype(str).to_numpy()
    for name in matched.images:
        rows, its = np.flatnonzero(matched.image_p == name), np.flatnonzero(of_image == name)
        if len(its):
            near = cKDTree(masks.obs[["y", "x"]].to_numpy(float)[its]).query(centres_yx[rows])[1]
            table[rows] = means[its[near]]
    return table


def _flat(features_nck: NDArray[np.float32]) -> Table:
    return features_nck.reshape(len(features_nck), -1)


def _embedding_beside(folder: Path, cells: AnnData) -> NDArray[np.float32]:
    """Embeddings of another study, whose cells must be the same."""
    other = _clustered(Study.open(folder))
    same = other.n_obs == cells.n_obs and all(
        np.array_equal(other.obs[column].to_numpy(), cells.obs[column].to_numpy())
        for column in ("y", "x")
    )
    if not same or list(other.obs["image"]) != list(cells.obs["image"]):
        raise InputError(
            "the study beside this one has other cells",
            file=folder,
            expected=f"the same {cells.n_obs} cells",
            found=f"{other.n_obs} cells",
            do="Make it with the same images and the same [detect]",
        )
    return np.asarray(other.obsm["X_embedding"], np.float32)


def _names(
    cells: AnnData, clusters: NDArray[np.str_], matched: Matched, seed: int
) -> tuple[NDArray[np.str_], str]:
    """Names of the cells and how they came about: people's if there are any."""
    given = cells.obs["phenotype"].astype(str).to_numpy(dtype=np.str_)[matched.rows_p]
    if (given != _UNNAMED).any():
        return given, "clusters named by people"
    return held_out_names(clusters, matched, seed), (
        "clusters named by the majority of the reference in the other half of the images"
    )


def _sentence(results: dict[str, Scores]) -> str:
    """Say whether the embedding is ahead of every control, and where not."""
    controls = [name for name in results if not name.startswith(OWN)]
    maskless = [name for name in controls if "mask mean" not in name]

    def best(key: str, among: list[str]) -> str:
        return max(among, key=lambda name: results[name][key])

    def ahead_of(among: list[str]) -> list[str]:
        own = results[EMBEDDING]
        return [key for key in TITLES if own[key] > results[best(key, among)][key]]

    ahead = ahead_of(controls)
    said = f"The embedding is ahead of every control in {len(ahead)} of {len(TITLES)} scores"
    if len(maskless) < len(controls):
        said += f", and of all that have no masks in {len(ahead_of(maskless))}"
    behind = [
        f"{title} ({results[EMBEDDING][key]:.3f}, {best(key, controls)} "
        f"{results[best(key, controls)][key]:.3f})"
        for key, title in TITLES.items()
        if key not in ahead
    ]
    return f"{said}; behind the best in {', '.join(behind)}." if behind else f"{said}."


def _table(results: dict[str, Scores]) -> str:
    short = ["F1", "ARI", "AMI", "linear F1", "linear acc.", "kNN F1", "kNN acc."]
    width = max(len(name) for name in results) + 2
    lines = ["".ljust(width) + "".join(title.rjust(15) for title in short)]
    for name, scores in results.items():
        texts = []
        for key in TITLES:
            spread = scores.get(f"{key}_sd")
            text = f"{scores[key]:.3f}" if key in scores else "-"
            texts.append(text + (f" ±{spread:.3f}" if spread is not None else ""))
        lines.append(name.ljust(width) + "".join(text.rjust(15) for text in texts))
    return "\n".join(lines)


def _rediscovered(found: Confusion, naming: str) -> list[str]:
    shares = [f"{name} {share:.1%}" for name, share in found.rediscovery().items()]
    return [f"rediscovered ({naming}):", "  " + ", ".join(shares)]


def _record(
    matched: Matched,
    results: dict[str, Scores],
    found: Confusion,
    naming: str,
    sentence: str,
    reference: str,
    label: str,
    seeds: list[int],
) -> dict[str, Any]:
    return {
        "reference": reference,
        "label": label,
        "seeds": seeds,
        "versions": versions(),
        "cells": {name: vars(counts) for name, counts in matched.by_image.items()},
        "split": "image" if len(matched.images) > 1 else "blocks of tissue",
        "scores": results,
        "naming": naming,
        "rediscovery": found.rediscovery(),
        "confusion": {
            "given": list(found.labels),
            "reference": list(found.reference),
            "counts": found.counts_lr.tolist(),
        },
        "sentence": sentence,
    }
