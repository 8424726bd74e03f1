"""Cells with labels that somebody gave, and their pairs among the cells of a study.

Axes: P = pairs of a cell of the study and a cell of the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maskless.analysis.matching import match_centres
from maskless.analysis.probes import tissue_blocks
from maskless.cells.given import PLACEHOLDER
from maskless.errors import InputError
from maskless.storage import read_json

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import DataFrame

    from maskless.images import ImageSet

_MADE_BY_SIMULATION = ("simulation.json", "truth.json")


@dataclass(frozen=True)
class Counts:
    """Cells in the images that the reference covers."""

    study: int
    reference: int
    matched: int


@dataclass(frozen=True)
class Matched:
    """Cells of the study that have a partner in the reference.

    Attributes
    ----------
    rows_p
        Rows of cells.h5ad.
    image_p
        Name of the image of each.
    label_p
        The label that the reference gives.
    id_p
        ``cell_id`` of the partner, -1 where the table has none: its number in a mask.
    group_p
        What splits keep together: the image; blocks of tissue where one image has labels.
    by_image
        Cells on either side and pairs, by image.
    """

    rows_p: NDArray[np.intp]
    image_p: NDArray[np.str_]
    label_p: NDArray[np.str_]
    id_p: NDArray[np.intp]
    group_p: NDArray[np.str_]
    by_image: dict[str, Counts]

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the images that the reference covers."""
        return tuple(self.by_image)

    @property
    def counts(self) -> Counts:
        """Cells on either side and pairs in all images together."""
        counts = list(self.by_image.values())
        return Counts(
            sum(c.study for c in counts),
            sum(c.reference for c in counts),
            sum(c.matched for c in counts),
        )


def match_reference(
    cells: AnnData,
    images: ImageSet,
    reference: str,
    label: str,
    *,
    without: Sequence[str] = (),
    radius_um: float = 4.0,
) -> Matched:
    """Pair the cells of a study with those of a reference, one to one, nearest first.

    Parameters
    ----------
    cells
        ``obs`` with image, x, y (pixels).
    images
        Of the study; asked for their pixel size.
    reference
        A table (CSV) with the columns x, y (pixels), `label` and, for several images, image; or a
        path with ``{image}``, one table an image. Images without a table are left out.
    label
        Column of the labels.
    without
        Labels whose cells are left out of the comparison.
    radius_um
        Largest distance of a pair.

    Raises
    ------
    InputError
        If a table is missing, unreadable or lacks a column, or if no cell has a partner.
    """
    of_image = cells.obs["image"].astype(str).to_numpy()
    xy = cells.obs[["x", "y"]].to_numpy(dtype=np.float64)
    tables = _tables(reference, label, list(dict.fromkeys(of_image.tolist())))
    parts: list[tuple[NDArray[Any], ...]] = []
    by_image: dict[str, Counts] = {}
    for name, table in tables.items():
        kept = table[~table[label].isin(list(without))]
        rows = np.flatnonzero(of_image == name)
        radius_px = radius_um / images[name].um_per_pixel
        pairs = match_centres(xy[rows], kept[["x", "y"]].to_numpy(), radius_px)
        labels = kept[label].to_numpy(dtype=np.str_)[pairs.b]
        parts.append((rows[pairs.a], of_image[rows[pairs.a]], labels, kept["id"].iloc[pairs.b]))
        by_image[name] = Counts(len(rows), len(kept), len(pairs))
    if not any(counts.matched for counts in by_image.values()):
        raise InputError(
            f"no cell of the study lies within {radius_um:g} um of a cell of the reference",
            file=reference,
            do="Check that x and y are in pixels and not exchanged, and the names of the images",
        )
    rows_p, image_p, label_p, id_p = (
        np.concatenate([np.asarray(part) for part in column]) for column in zip(*parts, strict=True)
    )
    group_p = image_p.astype(np.str_)
    if len(np.unique(group_p)) == 1:
        group_p = np.char.add("block ", tissue_blocks(xy[rows_p]).astype(np.str_))
    return Matched(
        rows_p,
        image_p.astype(np.str_),
        label_p.astype(np.str_),
        id_p.astype(np.intp),
        group_p,
        by_image,
    )


def simulated_by(reference: str) -> dict[str, Any] | None:
    """What `maskless simulate` left beside a reference that it made; None for any other.

    It is looked for in the reference's folder and the two above.
    """
    folders = [folder for folder in Path(reference).parents if PLACEHOLDER not in str(folder)]
    for folder in folders[:3]:
        for name in _MADE_BY_SIMULATION:
            try:
                content = read_json(folder / name)
            except InputError:
                continue
            if content.get("simulated") is True:
                return content
    return None


def _tables(reference: str, label: str, names: list[str]) -> dict[str, DataFrame]:
    """The table of each image of the study that the reference covers."""
    if PLACEHOLDER in reference:
        paths = {name: Path(reference.replace(PLACEHOLDER, name)) for name in names}
        found = {name: path for name, path in paths.items() if path.is_file()}
        if not found:
            raise InputError(
                "no image of the study has a table of the reference",
                file=reference,
                expected=", ".join(str(path) for path in list(paths.values())[:3]),
            )
        return {name: _read(path, label) for name, path in found.items()}
    table = _read(Path(reference), label)
    if "image" not in table:
        if len(names) > 1:
            raise InputError(
                "the reference does not say in which image its cells lie",
                file=reference,
                expected=f"a column image, or one table an image with {PLACEHOLDER} in its path",
            )
        return {names[0]: table}
    covered = {str(name): part for name, part in table.groupby("image", sort=True)}
    shared = [name for name in names if name in covered]
    if not shared:
        raise InputError(
            "the reference and the study have no image in common",
            file=reference,
            expected=", ".join(names[:5]),
            found=", ".join(list(covered)[:5]),
        )
    return {name: covered[name] for name in shared}


def _read(path: Path, label: str) -> DataFrame:
    import pandas as pd

    try:
        header = path.read_text(encoding="utf-8-sig").split("\n", 1)[0]
        separator = max(",;\t", key=header.count)
        table = pd.read_csv(path, sep=separator, encoding="utf-8-sig", dtype=str, index_col=False)
    except (OSError, ValueError) as error:  # pandas' and Unicode errors are ValueErrors
        raise InputError("this reference is unreadable", file=path, found=error) from error
    lacking = [column for column in ("x", "y", label) if column not in table]
    if lacking:
        raise InputError(
            "the reference lacks columns",
            file=path,
            expected=", ".join(lacking),
            found=", ".join(map(str, table.columns)),
        )
    for axis in "xy":
        table[axis] = pd.to_numeric(table[axis], errors="coerce")
    ids = table["cell_id"] if "cell_id" in table else pd.Series(-1, index=table.index)
    table["id"] = pd.to_numeric(ids, errors="coerce").fillna(-1).astype(np.int64)
    bad = table[["x", "y"]].isna().any(axis=1) | table[label].isna()
    if bad.any():
        raise InputError(
            f"{int(bad.sum())} of {len(bad)} cells of the reference lack x, y or {label}",
            file=path,
            found=f"the first on line {int(bad.to_numpy().argmax()) + 2}",
        )
    return table
