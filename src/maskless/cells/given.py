"""Cells that somebody else found: label masks and tables of centres."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskless.errors import InputError, SettingsError
from maskless.images.image import Image

PLACEHOLDER = "{image}"


def find_given(
    pattern: str, image: Image, base: Path | None = None, setting: str = "detect.files"
) -> Path:
    """Find the mask or table of one image.

    Parameters
    ----------
    pattern
        A path with ``{image}`` in it, which becomes the image's name. If relative it is looked for
        in `base` (else the working folder), in the folder of the image's file, and the one above.
    image
        Whose file.
    base
        The study's folder.
    setting
        Where the pattern comes from, for the error.

    Raises
    ------
    SettingsError
        If the pattern holds no ``{image}``.
    InputError
        If there is no such file.
    """
    if PLACEHOLDER not in pattern:
        raise SettingsError(
            f"{setting} must hold {PLACEHOLDER}, as in 'masks/{PLACEHOLDER}.tif'; it is {pattern!r}"
        )
    relative = Path(pattern.replace(PLACEHOLDER, image.name))
    folders = [Path() if base is None else base]
    if image.source is not None:
        folders += [image.source.parent, image.source.parent.parent]
    candidates = list(dict.fromkeys(folder / relative for folder in folders))
    for path in candidates:
        if path.is_file():
            return path
    raise InputError(
        "there is no mask or table of this image",
        image=image.name,
        expected="one of " + ", ".join(str(path) for path in candidates),
        do=f"Correct {setting}",
    )


def centres_from_mask(path: Path, image: Image) -> NDArray[np.float64]:
    """Centroids of the labels of a mask.

    Parameters
    ----------
    path
        TIFF of whole numbers, one plane of the image's size; 0 is no cell.
    image
        That the mask belongs to.

    Returns
    -------
    centres_xy
        Shape (cells, 2), pixels, sorted by y, then x.

    Raises
    ------
    InputError
        If the file is unreadable, is no label mask, or does not have the image's size.
    """
    return centres_of_labels(read_mask(path, image))


def centres_of_labels(labels_yx: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    """Centroids x, y of the labels above 0 (any numbers, gaps allowed), sorted by y, then x."""
    rows, columns = np.nonzero(labels_yx)
    # labels may be any large numbers: count over their ranks
    _, cell = np.unique(labels_yx[rows, columns], return_inverse=True)
    areas = np.bincount(cell)
    return in_reading_order(
        np.column_stack(
            [np.bincount(cell, weights=columns) / areas, np.bincount(cell, weights=rows) / areas]
        )
    )


def centres_from_table(path: Path, image: Image) -> NDArray[np.float64]:
    """Centres from a table with the columns x and y.

    Parameters
    ----------
    path
        CSV (comma, semicolon or tab) with a header; x and y in pixels of the image, the centre of
        the first pixel being (0, 0). Other columns are left alone.
    image
        That the table belongs to.

    Returns
    -------
    centres_xy
        Shape (cells, 2), pixels, sorted by y, then x.

    Raises
    ------
    InputError
        If the file is unreadable, a column is missing or not numeric, or points lie outside the
        image.
    """
    import pandas as pd

    try:
        header = path.read_text(encoding="utf-8-sig").split("\n", 1)[0]
        separator = max(",;\t", key=header.count)
        table = pd.read_csv(path, sep=separator, encoding="utf-8-sig", index_col=False)
    except (OSError, ValueError) as error:  # pandas' and Unicode errors are ValueErrors
        raise InputError(
            "this table of centres is unreadable", file=path, image=image.name, found=error
        ) from error
    places = {str(column).strip().lower(): column for column in table.columns}
    if not {"x", "y"} <= places.keys():
        raise InputError(
            "this table of centres lacks a column",
            file=path,
            image=image.name,
            expected="columns x and y, in pixels",
            found=", ".join(str(column) for column in table.columns),
        )
    centres_xy = np.column_stack(
        [
            pd.to_numeric(table[places[axis]], errors="coerce").to_numpy(dtype=np.float64)
            for axis in "xy"
        ]
    )
    bad = ~np.isfinite(centres_xy).all(axis=1)
    if bad.any():
        raise InputError(
            f"{int(bad.sum())} of {len(bad)} centres have no number as x or y",
            file=path,
            image=image.name,
            found=f"the first on line {int(bad.argmax()) + 2}",
        )
    rows, columns = image.pixels_cyx.shape[1:]
    outside = ~(
        (centres_xy >= -0.5).all(axis=1)
        & (centres_xy < np.array([columns, rows]) - 0.5).all(axis=1)
    )
    if outside.any():
        x, y = centres_xy[outside.argmax()]
        raise InputError(
            f"{int(outside.sum())} of {len(centres_xy)} centres lie outside the image",
            file=path,
            image=image.name,
            expected=f"pixels of an image of {_size((rows, columns))}",
            found=f"x = {x:g}, y = {y:g}",
            do="Check that x and y are in pixels, and not exchanged",
        )
    return in_reading_order(centres_xy)


def in_reading_order(centres_xy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sorted by y, then x."""
    return centres_xy[np.lexsort((centres_xy[:, 0], centres_xy[:, 1]))]


def read_mask(path: Path, image: Image) -> NDArray[Any]:
    """Read a label mask, (y, x) whole numbers, of the size of its image.

    Raises
    ------
    InputError
        If the file is unreadable, is no label mask, or does not have the image's size.
    """
    import tifffile

    try:
        labels_yx = np.squeeze(tifffile.imread(path))
    except Exception as error:  # a damaged TIFF raises nearly anything
        raise InputError(
            "this mask is unreadable", file=path, image=image.name, found=repr(error)
        ) from error
    if (
        labels_yx.ndim != 2
        or not np.issubdtype(labels_yx.dtype, np.integer)
        or (labels_yx < 0).any()
    ):
        raise InputError(
            "this is no label mask",
            file=path,
            image=image.name,
            expected="one plane of whole numbers, 0 = no cell",
            found=f"shape {labels_yx.shape}, type {labels_yx.dtype}",
        )
    if labels_yx.shape != image.pixels_cyx.shape[1:]:
        raise InputError(
            "the mask does not have the size of its image",
            file=path,
            image=image.name,
            expected=_size(image.pixels_cyx.shape[1:]),
            found=_size(labels_yx.shape),
        )
    return labels_yx


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} rows x {shape[1]} columns"
