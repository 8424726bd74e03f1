"""Numbers behind the figures: cells in groups, means of markers, words for groups.

Axes: n = cells, g = groups, m = markers that are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from maskless.errors import InputError, SettingsError

if TYPE_CHECKING:
    from anndata import AnnData

Values = Literal["z", "0-1", "raw"]
Floats = NDArray[np.float64]

_UNKNOWN = "-1"
_MISSING = "(none)"
# In standard deviations of all cells: what is called high, and very high.
_HIGH, _VERY_HIGH = 0.75, 1.75


@dataclass(frozen=True)
class Groups:
    """Cells sorted into groups by a column of ``obs``; groups without cells are left out.

    Attributes
    ----------
    column
        The column's name.
    names
        Clusters by number, other columns in the order of their categories; unknown ones last.
    codes_n
        For each cell the position of its group in `names`.
    counts_g
        Cells in each group.
    unknown_g
        Which groups are no real ones: cluster "-1", cells without a value.
    positions_g
        Place of each group among all categories, so that its colour does not depend on which
        groups have cells.
    """

    column: str
    names: tuple[str, ...]
    codes_n: NDArray[np.intp]
    counts_g: NDArray[np.intp]
    unknown_g: NDArray[np.bool_]
    positions_g: NDArray[np.intp]

    @property
    def labels(self) -> tuple[str, ...]:
        """Names to print: "-1" becomes "unknown"."""
        return tuple("unknown" if name == _UNKNOWN else name for name in self.names)

    @property
    def colors(self) -> list[str]:
        """A colour for each group, see :func:`maskless.report.colors.cluster_colors`."""
        from maskless.report.colors import cluster_colors

        numbers = [
            name if name.isascii() and name.isdecimal() else str(position)
            for name, position in zip(self.names, self.positions_g, strict=True)
        ]
        return cluster_colors(numbers, self.unknown_g.tolist())


def groups_of(cells: AnnData, column: str) -> Groups:
    """Sort cells into groups by a column of ``obs``.

    Raises
    ------
    InputError
        If there is no such column.
    """
    import pandas as pd

    if column not in cells.obs:
        raise InputError(
            f"the cells have no column {column!r}",
            expected=f"one of {', '.join(map(str, cells.obs.columns)) or 'none'}",
        )
    values = cells.obs[column]
    if isinstance(values.dtype, pd.CategoricalDtype):
        every = [str(v) for v in values.cat.categories]
        codes = np.asarray(values.cat.codes, dtype=np.intp)
    else:
        texts = values.astype(object).where(values.notna(), None)
        every = sorted({str(v) for v in texts if v is not None})
        place = {name: i for i, name in enumerate(every)}
        codes = np.array([-1 if v is None else place[str(v)] for v in texts], dtype=np.intp)
    codes = np.where(codes < 0, len(every), codes)
    every = [*every, _MISSING]
    counts = np.bincount(codes, minlength=len(every))
    order = [i for i in _ordered(every) if counts[i]]
    new = np.full(len(every), -1, dtype=np.intp)
    new[order] = np.arange(len(order))
    return Groups(
        column,
        tuple(every[i] for i in order),
        new[codes],
        counts[order].astype(np.intp),
        np.array([_is_unknown(every[i]) for i in order], dtype=np.bool_),
        np.array(order, dtype=np.intp),
    )


def _is_unknown(name: str) -> bool:
    return name in (_UNKNOWN, _MISSING, "unnamed", "unknown", "nan")


def _ordered(names: list[str]) -> list[int]:
    known = [i for i, name in enumerate(names) if not _is_unknown(name)]
    if all(names[i].isascii() and names[i].isdecimal() for i in known):
        known.sort(key=lambda i: int(names[i]))
    return known + [i for i, name in enumerate(names) if _is_unknown(name)]


def used_markers(cells: AnnData) -> NDArray[np.intp]:
    """Columns of X that hold markers the encoder sees (all, where ``var`` does not say).

    Raises
    ------
    InputError
        If there is none.
    """
    if "used" in cells.var:
        used = np.flatnonzero(cells.var["used"].to_numpy(dtype=bool))
    else:
        used = np.arange(cells.n_vars)
    if not len(used):
        raise InputError(
            "no marker is used", do="Mark channels as used in the panel, so that there is one"
        )
    return used.astype(np.intp)


def marker_values(cells: AnnData, layer: str | None = None) -> tuple[Floats, tuple[str, ...]]:
    """Values of the used markers.

    Parameters
    ----------
    cells
        One row a cell.
    layer
        A layer instead of ``X`` (the activations).

    Returns
    -------
    values_nm, markers
        Shape (cells, markers), and the markers' names.

    Raises
    ------
    InputError
        If there is no such layer, or no marker is used.
    """
    used = used_markers(cells)
    if layer is not None and layer not in cells.layers:
        raise InputError(
            f"the cells have no layer {layer!r}",
            expected=f"one of {', '.join(cells.layers) or 'none'}",
        )
    matrix: Any = cells.X if layer is None else cells.layers[layer]
    if matrix is None:
        raise InputError("these cells have no activations", do="Run the embed stage first")
    part = matrix[:, used]
    dense = part.toarray() if hasattr(part, "toarray") else part
    return np.asarray(dense, dtype=np.float64), tuple(str(cells.var_names[i]) for i in used)


def positive_above(cells: AnnData) -> Floats:
    """Activation above which a cell counts as positive, one a used marker; 0 where not said."""
    used = used_markers(cells)
    if "positive_above" not in cells.var:
        return np.zeros(len(used))
    column = cells.var["positive_above"].to_numpy(dtype=np.float64)[used]
    return np.asarray(np.nan_to_num(column, nan=0.0))


def group_means(values_nm: Floats, groups: Groups) -> Floats:
    """Mean of each marker in each group, shape (groups, markers); NaN where nothing is finite."""
    size = len(groups.names)
    means = np.full((size, values_nm.shape[1]), np.nan)
    for marker, column in enumerate(values_nm.T):
        good = np.isfinite(column)
        codes = groups.codes_n[good]
        total = np.bincount(codes, weights=column[good], minlength=size)
        count = np.bincount(codes, minlength=size)
        np.divide(total, count, out=means[:, marker], where=count > 0)
    return means


def scale_means(means_gm: Floats, known_g: NDArray[np.bool_], values: Values) -> Floats:
    """Bring the means of each marker to one of the scales of the heat maps.

    Parameters
    ----------
    means_gm
        Mean of each marker in each group.
    known_g
        The groups that set the scale; the others are only shown on it.
    values
        ``"raw"`` as they are; ``"0-1"`` from the marker's lowest to its highest group;
        ``"z"`` in standard deviations of the marker's group means, from their mean.

    Returns
    -------
    array, shape (groups, markers)
        Markers that are the same in all groups become 0.
    """
    if values not in ("z", "0-1", "raw"):
        raise SettingsError(f'values must be "z", "0-1" or "raw", not {values!r}')
    if values == "raw":
        return means_gm
    basis = means_gm[known_g] if known_g.any() else means_gm
    empty = ~np.isfinite(basis).any(axis=0)
    basis = np.where(empty, 0.0, basis)
    if values == "0-1":
        start = np.nanmin(basis, axis=0)
        width = np.nanmax(basis, axis=0) - start
    else:
        start, width = np.nanmean(basis, axis=0), np.nanstd(basis, axis=0)
    flat = width <= 1e-9 * np.maximum(1.0, np.abs(start))
    scaled = (means_gm - start) / np.where(flat, 1.0, width)
    scaled = np.where(flat & np.isfinite(scaled), 0.0, scaled)
    return np.clip(scaled, 0, 1) if values == "0-1" else scaled


def effects(values_nm: Floats, groups: Groups) -> Floats:
    """How far each group lies from all other cells, in standard deviations of all cells.

    Returns
    -------
    array, shape (groups, markers)
        (mean inside - mean outside) / standard deviation; 0 with one group or a constant marker.
    """
    values = np.nan_to_num(values_nm, nan=0.0, posinf=0.0, neginf=0.0)
    inside = group_means(values, groups)
    counts = groups.counts_g[:, None].astype(np.float64)
    total, rest = values.sum(axis=0), max(len(values), 1) - counts
    outside = np.divide(
        total - inside * counts,
        rest,
        out=inside.copy(),
        where=np.broadcast_to(rest > 0, inside.shape),
    )
    spread = values.std(axis=0) if len(values) else np.ones(values.shape[1])
    return np.asarray((inside - outside) / np.where(spread > 1e-9, spread, np.inf))


def describe_groups(cells: AnnData, groupby: str = "cluster", most: int = 4) -> dict[str, str]:
    """The markers that stand out in each group, in words such as "CD20 very high, CD45 high".

    Parameters
    ----------
    cells
        With activations in ``X``.
    groupby
        Column of ``obs``.
    most
        Markers named at most.

    Returns
    -------
    dict
        Group to words; compared with all other cells. Low markers are named where none is high.
    """
    groups = groups_of(cells, groupby)
    values_nm, markers = marker_values(cells)
    words = {}
    for name, row in zip(groups.names, effects(values_nm, groups), strict=True):
        order = [m for m in np.argsort(-row, kind="stable")[:most] if row[m] >= _HIGH]
        parts = [f"{markers[m]} {'very high' if row[m] >= _VERY_HIGH else 'high'}" for m in order]
        if not parts:
            lowest = [m for m in np.argsort(row, kind="stable")[:most] if row[m] <= -_HIGH]
            parts = [f"{markers[m]} low" for m in lowest]
        if len(groups.names) == 1:
            words[name] = "the only group: nothing to compare with"
        else:
            words[name] = ", ".join(parts) or "no marker stands out"
    return words


def nuclear_markers(cells: AnnData) -> list[str]:
    """Names of the nuclear channels that ``var`` knows."""
    if "kind" not in cells.var:
        return []
    return [str(n) for n in cells.var_names[cells.var["kind"].astype(str) == "nuclear"]]


def telling_markers(cells: AnnData, groupby: str = "cluster", most: int = 6) -> tuple[str, ...]:
    """Choose markers for composites: those that tell groups apart, and one nuclear channel.

    Markers are taken one at a time by their variance between groups (in units of the variance of
    all cells), after taking away what those before tell already, so that two markers of the same
    cells are not both chosen.

    Returns
    -------
    tuple of str
        At most `most`, the nuclear channel last.
    """
    groups = groups_of(cells, groupby)
    values_nm, markers = marker_values(cells)
    nuclear = nuclear_markers(cells)
    differences = effects(values_nm, groups)[~groups.unknown_g]
    if len(differences) < 2:
        differences = np.nan_to_num(values_nm).std(axis=0)[None]
    else:
        # A marker counts where it is present; without this, what one group lacks would win.
        differences = np.where(differences > 0, differences, 0.3 * differences)
        # A marker of many cells tells more than one of few, but not in proportion.
        counts = groups.counts_g[~groups.unknown_g, None]
        # A stain in one rare cluster only is many standard deviations there, and tells little.
        differences = np.minimum(differences, 2.0) * counts.astype(np.float64) ** 0.5
    differences[:, [m for m, name in enumerate(markers) if name in nuclear]] = 0
    chosen: list[int] = []
    for _ in range(min(most - bool(nuclear), len(markers))):
        power = (differences**2).sum(axis=0)
        power[chosen] = -1
        best = int(power.argmax())
        if power[best] <= 1e-12:
            break
        chosen.append(best)
        direction = differences[:, best] / np.linalg.norm(differences[:, best])
        # Only most of it is taken away: similar markers may come back, after others.
        differences = differences - 0.9 * np.outer(direction, direction @ differences)
    names = [markers[m] for m in chosen] or [n for n in markers if n not in nuclear][:1]
    used_nuclear = [name for name in nuclear if name in markers] or nuclear
    return (*names, *used_nuclear[:1])
