"""New cells get cluster and name by the vote of the most similar cells of a study.

As PhenoGraph assigns cells that come later (Levine et al. 2015, doi:10.1016/j.cell.2015.05.047),
with three things beside the vote: what it is worth, whether the cell is like anything that was
seen, and whether the staining has moved. All three are measured on the study itself, with one
image left out at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maskless.analysis.assign import Calibration, left_out_neighbours, nearness, vote
from maskless.analysis.neighbours import Neighbours, nearest_among
from maskless.analysis.probes import tissue_blocks
from maskless.analysis.whitening import Whitening
from maskless.assignment.shift import MarkerShift, marker_shifts
from maskless.config import AssignSettings
from maskless.errors import InputError, SettingsError
from maskless.pipeline import UNKNOWN, UNNAMED, embeddings
from maskless.progress import log

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame

    from maskless.images import Scaling

UNLIKE = "unknown"
"""Phenotype of cells that are unlike everything in the study."""

_NEAREST = 5
"""Being unlike is judged by the distance to this neighbour: nearer ones catch more of a type that
was not there (``benchmarks/README.md``)."""

_MANY_UNKNOWN = 3.0
"""Times the usual share of unknown cells at which the report warns."""


def assign(
    cells: AnnData,
    reference: AnnData,
    *,
    k: int = AssignSettings().k,
    unknown: float = AssignSettings().unknown,
    scaling: Scaling | None = None,
    seed: int = 0,
) -> None:
    """Give cells the clusters and names of a study; changes `cells` in place.

    Parameters
    ----------
    cells
        New cells, embedded with the study's encoder from images that were scaled as the study's.
    reference
        The study's cells: ``obs["cluster"]``, ``obs["phenotype"]``, ``obs["image"]`` and the same
        embedding.
    k
        Voters: the most similar cells of the study.
    unknown
        Share of the study's own cells that would be called unlike it, each judged without its
        image. 0 = call none unknown.
    scaling
        Of the study's images, so that changes of brightness are told in linear intensities.
    seed
        Of the cells that are sampled to measure what votes are worth.

    Returns
    -------
    None
        New in ``obs``: ``cluster``; ``phenotype`` ("unknown" where a cell is unlike everything);
        ``confidence``, how often votes of this share were right in the study with the image left
        out, 0 for unknown cells; ``vote``, the winner's share; ``unlike``, the distance to the
        fifth neighbour in units of the largest usual one (unknown above 1). In
        ``uns["maskless"]["assign"]``: what was measured, ratios of all markers, and ``warnings``.

    Raises
    ------
    InputError
        If the two do not have the same markers and embeddings, the study has no clusters, or fewer
        cells than voters.
    """
    import pandas as pd

    if not 0 <= unknown < 1:
        raise SettingsError(f"the share of unknown cells must be at least 0 and below 1, {unknown}")
    check_fit(cells, reference)
    cluster_n, clusters = _coded(reference.obs["cluster"])
    name_n, names = _coded(reference.obs["phenotype"])
    named = any(name != UNNAMED for name in names)
    space = Whitening.fit(embeddings(reference), cluster_n)
    points, new_points = space.of(embeddings(reference)), space.of(embeddings(cells))
    log(f"assign: {len(new_points)} cells by the vote of {k} among {len(points)}")
    voters = nearest_among(points, new_points, k, seed=seed)

    groups = _groups(reference)
    rows, left = left_out_neighbours(points, groups, k, seed=seed)
    # What a vote is worth is asked for names; for clusters where there are no names yet.
    asked_n, asked = (name_n, names) if named else (cluster_n, clusters)
    won_s, share_s = _vote(asked_n, len(asked), left)
    right_s = won_s == asked_n[rows]
    calibration = Calibration.fit(share_s, right_s)

    nearest = min(_NEAREST, k) - 1
    limit = float(np.quantile(left.distances_nk[:, nearest], 1 - unknown)) if unknown else np.inf
    unlike_m = (voters.distances_nk[:, nearest] / np.float32(max(limit, 1e-12))).astype(np.float32)
    strange = unlike_m > 1

    won_m, share_m = _vote(asked_n, len(asked), voters)
    cluster_m = won_m
    if named:  # the cluster is voted by those who voted for the name, so that the two agree
        agree = np.where(
            name_n[voters.indices_nk] == won_m[:, None], cluster_n[voters.indices_nk], -1
        )
        cluster_m, _ = vote(agree, nearness(voters.distances_nk), len(clusters))
    _put(cells.obs, "cluster", np.where(strange, -1, cluster_m), clusters, UNKNOWN)
    phenotype_m = won_m if named else np.zeros_like(won_m)
    _put(cells.obs, "phenotype", np.where(strange, -1, phenotype_m), names, UNLIKE)
    cells.obs["confidence"] = np.where(strange, np.float32(0), calibration.of(share_m))
    cells.obs["vote"] = share_m
    cells.obs["unlike"] = unlike_m if unknown else np.zeros_like(unlike_m)

    usual = _shares(left.distances_nk[:, nearest] > limit, groups[rows])
    images = reference.obs["image"].astype(str).to_numpy(np.str_)
    new_images = cells.obs["image"].astype(str).to_numpy(np.str_)
    shares = _shares(strange, new_images)
    # Cells of a kind that was not there say nothing about staining, unless nearly all are such.
    judged = np.isin(new_images, [name for name, share in shares.items() if share > 0.5]) | ~strange
    shifts = _shifts(cells[judged], new_images[judged], reference, images, scaling, seed)
    warnings = [shift.sentence() for shift in shifts if shift.moved or shift.odd_images]
    warnings += _unknown_warnings(shares, usual, unknown)
    for warning in warnings:
        log(f"warning: {warning}")
    cells.uns.setdefault("maskless", {})["assign"] = {
        "k": k,
        "unknown_share": unknown,
        "limit": limit if unknown else 0.0,
        "right_when_left_out": float(right_s.mean()),
        "calibration": {"shares": calibration.shares, "right": calibration.right},
        "usual_unknown": pd.Series(usual, dtype=float).to_frame("share"),
        "unknown": pd.Series(shares, dtype=float).to_frame("share"),
        **({"markers": _table(shifts)} if shifts else {}),
        "warnings": np.array(warnings, dtype=object),
    }


def check_fit(cells: AnnData, reference: AnnData) -> None:
    """Raise an InputError that tells the difference if the two cannot be compared."""
    import pandas as pd

    lacking = [c for c in ("cluster", "phenotype", "image") if c not in reference.obs]
    if lacking:
        raise InputError(
            "the study's cells have no names to give",
            expected=f"obs with {', '.join(lacking)}",
            do="Cluster them first: maskless run STUDY",
        )
    difference = panel_difference(_used(reference), _used(cells))
    if difference:
        raise InputError(
            "the new cells were measured with other markers than the study",
            found=difference,
            do="Use images of the same panel",
        )
    lengths = embeddings(reference).shape[1], embeddings(cells).shape[1]
    if lengths[0] != lengths[1]:
        raise InputError(
            "the embeddings come from different encoders",
            expected=f"{lengths[0]} numbers a cell",
            found=lengths[1],
            do="Embed the new cells with the study's encoder",
        )
    if pd.isna(reference.obs["cluster"]).any():
        raise InputError("some cells of the study have no cluster")


def panel_difference(study: list[str], new: list[str]) -> str:
    """How the markers of new images differ from a study's, in words; empty if they do not."""
    parts = []
    if lost := [name for name in study if name not in new]:
        parts.append(f"without {', '.join(lost)}")
    if more := [name for name in new if name not in study]:
        parts.append(f"with {', '.join(more)} besides")
    return " and ".join(parts)


def _used(cells: AnnData) -> list[str]:
    used = cells.var["used"].to_numpy(dtype=bool) if "used" in cells.var else slice(None)
    return [str(name) for name in cells.var_names[used]]


def _coded(column: Any) -> tuple[NDArray[np.intp], list[str]]:
    """Codes and names of a column, only those that occur, in the order of its categories."""
    import pandas as pd

    values = pd.Categorical(column.astype(str), categories=_categories(column))
    values = values.remove_unused_categories()
    return np.asarray(values.codes, np.intp), [str(c) for c in values.categories]


def _categories(column: Any) -> list[str]:
    if hasattr(column, "cat"):
        return [str(c) for c in column.cat.categories]
    return sorted(set(column.astype(str)))


def _vote(
    codes_n: NDArray[np.intp], size: int, voters: Neighbours
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    return vote(codes_n[voters.indices_nk], nearness(voters.distances_nk), size)


def _groups(reference: AnnData) -> NDArray[np.str_]:
    """What is left out together: images, or parts of the only one."""
    images: NDArray[np.str_] = reference.obs["image"].astype(str).to_numpy(np.str_)
    if len(np.unique(images)) > 1:
        return images
    return np.asarray(tissue_blocks(reference.obs[["x", "y"]].to_numpy(float)), np.str_)


def _put(
    obs: DataFrame, column: str, codes: NDArray[np.intp], names: list[str], other: str
) -> None:
    import pandas as pd

    every = [*names, *([other] if other not in names else [])]
    obs[column] = pd.Categorical.from_codes(np.where(codes < 0, every.index(other), codes), every)


def _shares(yes: NDArray[np.bool_], groups: NDArray[np.str_]) -> dict[str, float]:
    return {str(name): float(yes[groups == name].mean()) for name in np.unique(groups)}


def _shifts(
    cells: AnnData,
    new_images: NDArray[np.str_],
    reference: AnnData,
    images: NDArray[np.str_],
    scaling: Scaling | None,
    seed: int,
) -> list[MarkerShift]:
    if "disc_mean" not in cells.layers or "disc_mean" not in reference.layers:
        return []
    markers = _used(reference)
    levels, new_levels = (
        np.asarray(table.layers["disc_mean"])[:, [list(table.var_names).index(m) for m in markers]]
        for table in (reference, cells)
    )
    to_levels = None
    if scaling is not None:
        chosen = scaling.only(markers)
        levels, new_levels = chosen.linear(levels), chosen.linear(new_levels)
        to_levels = chosen.scaled
    return marker_shifts(
        levels, images, new_levels, new_images, tuple(markers), to_levels, seed=seed
    )


def _unknown_warnings(
    shares: dict[str, float], usual: dict[str, float], unknown: float
) -> list[str]:
    if not unknown:
        return []
    most = max(*usual.values(), _MANY_UNKNOWN * unknown)
    return [
        f"{share:.1%} of the cells of {name} are unlike anything in the study "
        f"(images of the study, each left out: up to {max(usual.values()):.1%})"
        for name, share in shares.items()
        if share > most
    ]


def _table(shifts: list[MarkerShift]) -> DataFrame:
    """Ratios of all markers, one row each."""
    import pandas as pd

    table = pd.DataFrame(
        {
            "ratio": [shift.ratio for shift in shifts],
            "usual": [shift.usual for shift in shifts],
            "moved": [shift.moved for shift in shifts],
        },
        index=pd.Index([shift.marker for shift in shifts], dtype=object),
    )
    for name in shifts[0].by_image if shifts else ():
        table[f"in {name}"] = [shift.by_image[name] for shift in shifts]
    return table
