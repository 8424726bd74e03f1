"""PhenoGraph again inside one phenotype or cluster, on all markers or on some.

As the paper divides its T cells (Gutwein et al. 2024): the same embedding, cells of one group only.
Restricted to some markers, the cells are compared by these markers' features, each scaled to unit
spread within the group, so that no marker can hide another.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maskless.config import ClusterSettings
from maskless.errors import InputError, StudyError

if TYPE_CHECKING:
    from anndata import AnnData

    from maskless.report import Drawn
    from maskless.study import Study

KEY = "subcluster"
_COLUMNS = ("phenotype", "cluster", KEY)
_UNKNOWN = "-1"


def subcluster(
    cells: AnnData,
    of: str,
    *,
    markers: Sequence[str] = (),
    by: str | None = None,
    k: int = ClusterSettings().k,
    resolution: float = ClusterSettings().resolution,
    min_size: int | None = None,
    power: float = ClusterSettings().power,
    seed: int = 0,
) -> None:
    """Divide the cells of one group; changes `cells` in place.

    Parameters
    ----------
    cells
        With embeddings and the groups.
    of
        A phenotype, a cluster, or a part of an earlier division ("T cell.1").
    markers
        Compare cells by the features of these markers only; all of them, in the embedding, if
        empty.
    by
        Column of ``obs`` that holds `of`; None = the first of phenotype, cluster, subcluster that
        does.
    k, resolution, power, seed
        As of :func:`maskless.cluster`.
    min_size
        Smaller parts become "-1"; None = 2 % of the group, but 10 to 50 cells.

    Returns
    -------
    None
        New: ``obs["subcluster"]``. Cells of the group get "of.0", "of.1" ... by falling size, "-1"
        in parts that are too small; all others keep what they had there, or their value of the
        column `by`.

    Raises
    ------
    InputError
        If no cell is in the group, it has not more than `k` cells, or a marker is unknown.
    """
    import pandas as pd

    from maskless.analysis import divide

    by, rows = group_rows(cells, of, by)
    if len(rows) <= k:
        raise InputError(
            f"there are too few cells in {of!r} to divide",
            expected=f"more than k = {k}",
            found=len(rows),
            do="Choose a larger group or a smaller --k",
        )
    least = min(max(len(rows) // 50, 10), 50) if min_size is None else min_size
    parts = divide(group_points(cells, rows, markers), k, resolution, least, seed, power)
    column = cells.obs[KEY if KEY in cells.obs else by]
    values = column.astype(str).to_numpy(dtype=object)
    values[rows] = [_UNKNOWN if part < 0 else f"{of}.{part}" for part in parts]
    before = column.cat.categories if hasattr(column, "cat") else sorted(set(column.astype(str)))
    new = [f"{of}.{part}" for part in range(int(parts.max()) + 1)]
    order = [name for c in before for name in ([*new] if str(c) == of else [str(c)])]
    order += [*new, _UNKNOWN]
    there = set(values.tolist())
    cells.obs[KEY] = pd.Categorical(values, [n for n in dict.fromkeys(order) if n in there])


def group_rows(cells: AnnData, of: str, by: str | None) -> tuple[str, NDArray[np.intp]]:
    """The column that holds a group, and the rows of its cells; InputError where there are none."""
    columns = [by] if by is not None else [name for name in _COLUMNS if name in cells.obs]
    for column in columns:
        if column not in cells.obs:
            raise InputError(
                f"the cells have no column {column!r}",
                expected=f"one of {', '.join(map(str, cells.obs.columns))}",
            )
        rows = np.flatnonzero(cells.obs[column].astype(str).to_numpy() == of)
        if len(rows):
            return column, rows
    if not columns:
        raise InputError("the cells have no clusters yet", do="Run: maskless run STUDY")
    known = dict.fromkeys(name for c in columns for name in cells.obs[c].astype(str).unique())
    raise InputError(f"no cell is {of!r}", expected=f"one of {', '.join(list(known)[:60])}")


def group_points(
    cells: AnnData, rows: NDArray[np.intp], markers: Sequence[str]
) -> NDArray[np.float32]:
    """What the cells of a group are compared by: embeddings, or features of some markers."""
    from maskless.pipeline import embeddings

    if not markers:
        return embeddings(cells)[rows]
    used = [str(name) for name in cells.var_names[cells.var["used"].to_numpy(dtype=bool)]]
    unknown = [name for name in markers if name not in used]
    if unknown:
        raise InputError(
            "the encoder does not see this marker",
            channel=unknown[0],
            expected=f"one of {', '.join(used)}",
        )
    if "X_features" not in cells.obsm:
        raise InputError("these cells have no features", expected='obsm["X_features"]')
    features = np.asarray(cells.obsm["X_features"], np.float32)
    each = features.shape[1] // len(used)
    columns = [used.index(name) * each + i for name in dict.fromkeys(markers) for i in range(each)]
    points = features[rows][:, columns]
    spread = points.std(axis=0)
    return np.asarray((points - points.mean(axis=0)) / np.where(spread > 1e-6, spread, 1))


def subcluster_study(
    folder: Path,
    of: str,
    *,
    markers: Sequence[str] = (),
    by: str | None = None,
    k: int | None = None,
    resolution: float | None = None,
    min_size: int | None = None,
) -> str:
    """Divide a group of a study's cells, write ``obs["subcluster"]`` and draw what came out.

    Parameters
    ----------
    folder
        Of the study, with clusters.
    of, markers, by
        See :func:`subcluster`; names are those of labels.sqlite, or the exported ones.
    k, resolution
        Instead of those under ``[cluster]`` in study.toml.
    min_size
        See :func:`subcluster`.

    Returns
    -------
    str
        The parts, in plain words.

    Raises
    ------
    MasklessError
        If clusters are not up to date, or as of :func:`subcluster`.
    """
    from maskless.cells_file import read_cells, write_columns
    from maskless.freshness import expected, stamped
    from maskless.reporting import add_subcluster_figures
    from maskless.study import Study, fingerprint, measure, versions

    study = Study.open(folder)
    default = study.config.cluster
    settings: dict[str, Any] = {
        "k": k or default.k,
        "resolution": resolution or default.resolution,
        "min_size": min_size,
        "power": default.power,
    }
    with study.lock(), measure() as usage:
        stamp = stamped(study, "cluster")
        if stamp is None or stamp != expected(study, "cluster", stamped):
            raise StudyError(
                f"{folder} has no clusters that are up to date. Run: maskless run {folder}"
            )
        cells = read_cells(study.cells_file)
        _take_names(study, cells)
        by, rows = group_rows(cells, of, by)
        subcluster(cells, of, markers=markers, by=by, seed=study.config.seed, **settings)
        write_columns(study.cells_file, {KEY: cells.obs[KEY].array}, cells.n_obs)
        drawn = _draw(study, cells, rows, of, markers)
        shown = add_subcluster_figures(study, cells, of, drawn)
    parts = cells.obs[KEY].iloc[rows].value_counts()
    parts = parts[parts > 0]
    study.add_record(
        {
            "stage": KEY,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(usage.seconds, 2),
            "peak_mib": round(usage.peak_mib),
            "seed": study.config.seed,
            "fingerprint": fingerprint(KEY, stamp, of, by, list(markers), settings),
            "of": of,
            "markers": list(markers),
            "parts": {str(name): int(count) for name, count in parts.items()},
            "versions": versions(),
        }
    )
    return _told(cells, rows, of, drawn, shown, study)


def _take_names(study: Study, cells: AnnData) -> None:
    """Names as they are now, also those that were not exported yet."""
    import pandas as pd

    from maskless.assignment.names import LABELS, names_of

    if study.config.assign.study is None and (study.folder / LABELS).exists():
        try:
            names = names_of(study)
        except InputError:  # several people, none exported: clusters can be divided all the same
            return
        cells.obs["phenotype"] = pd.Categorical.from_codes(names.codes_n, list(names.names))


def _draw(
    study: Study, cells: AnnData, rows: NDArray[np.intp], of: str, markers: Sequence[str]
) -> dict[str, Drawn]:
    """UMAP, heat map and gallery of the group alone."""
    from maskless.analysis import umap as lay_out
    from maskless.report import Drawn, gallery, heatmap, save, telling_markers, umap
    from maskless.stages import study_images

    group = cells[rows].copy()
    group.obs[KEY] = group.obs[KEY].cat.remove_unused_categories()
    seed = study.config.seed
    points = group_points(cells, rows, markers)
    if len(rows) > study.config.umap.k:
        group.obsm["X_umap"] = lay_out(points, study.config.umap, seed=seed)
    base = f"{KEY}_{re.sub(r'[^A-Za-z0-9.-]+', '-', of).strip('-') or 'group'}"
    on = f" by {', '.join(markers)}" if markers else ""
    plans: dict[str, tuple[str, str, Any]] = {
        "umap": (
            f"UMAP of {of}, divided{on}",
            "A map of the cells of this group alone; each point is a cell, colours are its parts.",
            lambda: umap(group, KEY, title=f"UMAP of {of} alone, by part", seed=seed),
        ),
        "heatmap": (
            f"Parts of {of} and their markers",
            "Red: more of the marker than the average part of this group, blue: less, in standard "
            "deviations over the parts.",
            lambda: heatmap(group, "z", groupby=KEY),
        ),
        "gallery": (
            f"Typical cells of the parts of {of}",
            "Cells near the mean of their part.",
            lambda: gallery(
                group,
                study_images(study),
                KEY,
                study.config.report.gallery_markers or telling_markers(group, KEY),
                seed=seed,
            ),
        ),
    }
    drawn = {}
    for kind, (title, caption, draw) in plans.items():
        png = study.figures_folder / f"{base}_{kind}.png"
        figure = draw()
        save(figure, png)
        save(figure, png.with_suffix(".svg"))
        drawn[png.stem] = Drawn(title, caption, png)
    return drawn


def _told(
    cells: AnnData,
    rows: NDArray[np.intp],
    of: str,
    drawn: dict[str, Drawn],
    shown: bool,
    study: Study,
) -> str:
    from maskless.report import describe_groups

    group = cells[rows].copy()
    group.obs[KEY] = group.obs[KEY].cat.remove_unused_categories()
    words = describe_groups(group, KEY)
    counts = group.obs[KEY].value_counts(sort=False)
    lines = [f"{of}: {len(rows)} cells in {sum(n != _UNKNOWN for n in counts.index)} parts"]
    for name, count in counts.items():
        lines.append(f"  {name:<20}{count:>7} {count / len(rows):>6.1%}  {words[str(name)]}")
    lines.append(f"figures: {', '.join(str(figure.png) for figure in drawn.values())}")
    if shown:
        lines.append(f"they are in {study.report_file} too")
    return "\n".join(lines)
