"""`maskless explain`: which markers part two clusters of a study."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.freshness import is_fresh
from maskless.study import Study

if TYPE_CHECKING:
    from anndata import AnnData

REST = "rest"


def explain_clusters(folder: Path, first: str, second: str, by: str = "cluster") -> str:
    """Split the distance of two clusters' mean embeddings over the markers, exactly.

    Parameters
    ----------
    folder
        Of the study.
    first, second
        Values of the column `by`; `second` may be "rest".
    by
        Column of ``obs``.

    Returns
    -------
    str
        A table of shares that add up to 100 %; the same as a figure in the study's figures.

    Raises
    ------
    InputError
        If there is no such column or value.
    """
    from maskless.cells_file import read_cells
    from maskless.encoder import explain_difference, load_encoder
    from maskless.report import explain as plot
    from maskless.report import save

    study = Study.open(folder)
    cells = read_cells(study.cells_file)
    if "X_features" not in cells.obsm or not is_fresh(study, "embed"):
        raise InputError(
            "the cells are not embedded with the encoder that is there",
            file=study.cells_file,
            do=f"Run: maskless run {folder}",
        )
    rows_a = _rows(cells, by, first, study.cells_file)
    rows_b = ~rows_a if second == REST else _rows(cells, by, second, study.cells_file)
    encoder = load_encoder(study.encoder_folder)
    features = np.asarray(cells.obsm["X_features"]).reshape(
        cells.n_obs, len(encoder.markers), encoder.features_per_marker
    )
    found = explain_difference(encoder, features[rows_a], features[rows_b])
    other = "all other cells" if second == REST else f"{by} {second}"
    title = f"What parts {by} {first} from {other}"
    stem = "explain_" + "_vs_".join(
        re.sub(r"[^A-Za-z0-9.-]+", "-", name) or "cluster" for name in (first, second)
    )
    columns = [list(cells.var_names).index(marker) for marker in found.markers]
    activations = np.asarray(cells.X)[:, columns]
    means_a, means_b = (activations[rows].mean(axis=0) for rows in (rows_a, rows_b))
    figure = plot(found, title, activations=(means_a, means_b), names=(f"{by} {first}", other))
    for kind in ("png", "svg"):
        save(figure, study.figures_folder / f"{stem}.{kind}")
    lines = [
        f"{title} ({rows_a.sum()} and {rows_b.sum()} cells)",
        f"{'marker':<16}{'share':>9}{'mean in ' + first:>14}{'mean in ' + second:>14}",
    ]
    for marker, share in found.ranked():
        place = found.markers.index(marker)
        lines.append(f"{marker:<16}{share:>8.1%}{means_a[place]:>14.3f}{means_b[place]:>14.3f}")
    lines.append(f"{'sum':<16}{found.shares.sum():>8.1%}")
    lines.append(f"figure: {study.figures_folder / stem}.png")
    return "\n".join(lines)


def _rows(cells: AnnData, by: str, value: str, file: Path) -> NDArray[np.bool_]:
    if by not in cells.obs:
        raise InputError(
            f"the cells have no column {by!r}",
            file=file,
            expected=f"one of {', '.join(map(str, cells.obs.columns))}",
        )
    column = cells.obs[by].astype(str).to_numpy()
    rows: NDArray[np.bool_] = column == value
    if not rows.any():
        known = sorted(set(column), key=lambda name: (len(name), name))
        raise InputError(
            f"no cell has {by} {value!r}",
            file=file,
            expected=f"one of {', '.join(known[:60])}",
        )
    return rows
