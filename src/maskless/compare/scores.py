"""Scores of clusters and of representations against reference labels, with their spread.

Axes: P = cells, D = dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maskless.analysis import phenograph
from maskless.analysis.agreement import UNKNOWN, cluster_scores, group_numbers, majority_names
from maskless.analysis.probes import knn_probe, linear_probe
from maskless.compare.reference import Matched

if TYPE_CHECKING:
    from maskless.config import ClusterSettings

Scores = dict[str, float]

TITLES = {
    "held_out_macro_f1": "clusters: macro-F1",
    "ari": "clusters: ARI",
    "ami": "clusters: AMI",
    "linear_macro_f1": "linear probe: macro-F1",
    "linear_balanced_accuracy": "linear probe: balanced accuracy",
    "knn_macro_f1": "kNN probe: macro-F1",
    "knn_balanced_accuracy": "kNN probe: balanced accuracy",
}
"""What the table shows; clusters are named on half of the groups and scored on the others."""


def score_clusters(clusters_p: NDArray[np.str_], matched: Matched, seeds: Sequence[int]) -> Scores:
    """Score clusters that are there; the spread is that of the halves that name them."""
    return cluster_scores(clusters_p, matched.label_p, matched.group_p, seeds)


def score_table(
    table_pd: NDArray[np.float32],
    matched: Matched,
    settings: ClusterSettings,
    seeds: Sequence[int],
) -> Scores:
    """Score a representation: PhenoGraph with the study's settings, and both probes.

    Parameters
    ----------
    table_pd
        One row a matched cell.
    matched
        Labels, and the groups that splits keep together.
    settings
        Of the study's clusters.
    seeds
        Of clusters, splits and training cells: mean and standard deviation (``_sd``) over them.

    Returns
    -------
    dict
        Scores by name.
    """
    by_seed = [
        cluster_scores(
            phenograph(table_pd, **settings.model_dump(), seed=seed),
            matched.label_p,
            matched.group_p,
            [seed],
        )
        for seed in seeds
    ]
    scores = _mean_and_spread(by_seed)
    for name, probe in (("linear", linear_probe), ("knn", knn_probe)):
        summary = probe(table_pd, matched.label_p, matched.group_p, seeds).summary()
        scores |= {f"{name}_{key}": value for key, value in summary.items()}
    return scores


def score_tables(
    tables: Sequence[NDArray[np.float32]],
    matched: Matched,
    settings: ClusterSettings,
    seeds: Sequence[int],
    *,
    paired: bool = False,
) -> tuple[Scores, list[Scores]]:
    """Score a representation of which there are several, by encoders of different seeds.

    Parameters
    ----------
    tables
        One an encoder, each as for :func:`score_table`.
    matched, settings, seeds
        See :func:`score_table`.
    paired
        Encoder i takes only seed i (of clusters and splits), instead of all of them.

    Returns
    -------
    scores, by_table
        Mean over the tables, with the standard deviation over them (``_sd``); and those of each.
        The spread of a single table is that over seeds of clusters and splits.
    """
    by_table = [
        score_table(table, matched, settings, [seeds[t % len(seeds)]] if paired else seeds)
        for t, table in enumerate(tables)
    ]
    if len(by_table) == 1:
        return by_table[0], by_table
    return _mean_and_spread(by_table), by_table


def _mean_and_spread(several: Sequence[Scores]) -> Scores:
    """Mean of each score, and its standard deviation; spreads that are there are left out."""
    scores: Scores = {}
    for key in (key for key in several[0] if not key.endswith("_sd")):
        values = [found[key] for found in several]
        scores |= {key: float(np.mean(values)), f"{key}_sd": float(np.std(values))}
    return scores


def held_out_names(clusters_p: NDArray[np.str_], matched: Matched, seed: int) -> NDArray[np.str_]:
    """Name each cell after its cluster, each half of the groups with names from the other half.

    The names stand in for those of experts; a cluster that the other half lacks is "-1", unknown.
    """
    group = group_numbers(matched.group_p, len(clusters_p))
    order = np.random.default_rng(seed).permutation(int(group.max()) + 1)
    half = np.isin(group, order[: len(order) // 2])
    named = np.full(len(clusters_p), UNKNOWN, dtype=np.dtype("U64"))
    for voting in (half, ~half):
        names = majority_names(clusters_p[voting], matched.label_p[voting])
        named[~voting] = [names.get(cluster, UNKNOWN) for cluster in clusters_p[~voting]]
    return named
