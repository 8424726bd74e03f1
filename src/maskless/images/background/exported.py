"""Probabilities that ilastik exported, as HDF5 or TIFF.

Axes: Y = rows, X = columns, K = classes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.images.header import guarded

_HDF5 = (".h5", ".hdf5", ".ilastikh5")
_LARGEST_FACTOR = 8


def read_exported_probabilities(
    path: Path, shape_yx: tuple[int, int], image: str | None = None
) -> NDArray[np.float32]:
    """Read the probabilities of one image.

    Parameters
    ----------
    path
        ``.h5`` or ``.tiff`` that ilastik exported: float, or whole numbers whose largest is 1.
    shape_yx
        Of the image. A file that is a whole factor larger (steinbock has ilastik work on images
        enlarged twice) is averaged over blocks.
    image
        Name, for errors.

    Returns
    -------
    probabilities_yxk
        float32, 0 to 1; one plane a class.

    Raises
    ------
    InputError
        If the file is missing, unreadable, not of the image's size, or holds no probabilities.
    """
    if not path.is_file():
        raise InputError(
            "there are no exported probabilities of this image",
            file=path,
            image=image,
            do="Correct clean.background_files",
        )
    with guarded(path, "these probabilities are unreadable", image):
        values, axes = _hdf5(path, image) if path.suffix.lower() in _HDF5 else _tiff(path)
    values_yxk = _arranged(values, axes, path, image)
    if values_yxk.dtype.kind in "ui":
        largest = np.float32(np.iinfo(values_yxk.dtype).max)
        probabilities_yxk = values_yxk.astype(np.float32) / largest
    else:
        probabilities_yxk = values_yxk.astype(np.float32)
    low, high = float(probabilities_yxk.min()), float(probabilities_yxk.max())
    if not (low >= 0 and high <= 1.0001):  # also catches NaN
        raise InputError(
            "these are no probabilities",
            file=path,
            image=image,
            expected="0 to 1",
            found=f"{low:g} to {high:g}",
        )
    return _at_size(probabilities_yxk, shape_yx, path, image)


def _tiff(path: Path) -> tuple[NDArray[Any], str]:
    import tifffile

    with tifffile.TiffFile(path) as opened:
        series = opened.series[0]
        return np.asarray(series.asarray()), series.axes.lower().replace("s", "c")


def _hdf5(path: Path, image: str | None) -> tuple[NDArray[Any], str]:
    import h5py

    found: list[Any] = []
    with h5py.File(path, "r") as content:
        content.visititems(
            lambda _, item: (
                found.append(item) if isinstance(item, h5py.Dataset) and item.ndim >= 2 else None
            )
        )
        if len(found) != 1:
            raise InputError(
                "which dataset holds the probabilities cannot be told",
                file=path,
                image=image,
                expected="one dataset of 2 or more axes",
                found=len(found),
            )
        tags = found[0].attrs.get("axistags")
        axes = ""
        if tags is not None:
            axes = "".join(str(axis["key"]) for axis in json.loads(tags)["axes"])
        return np.asarray(found[0][()]), axes


def _arranged(values: NDArray[Any], axes: str, path: Path, image: str | None) -> NDArray[Any]:
    """Values as (Y, X, K); axes of length 1 that are none of these are dropped."""
    if len(axes) != values.ndim or not {"x", "y"} <= set(axes):
        # Nothing says what they are: ilastik's order is rows, columns, classes.
        axes = "yx" + "c" * (values.ndim - 2) if values.ndim <= 3 else ""
    extra = [i for i, axis in enumerate(axes) if axis not in "yxc"]
    # Pages of a TIFF whose meaning is not told ("q", "i", "z") are classes if there is no "c".
    if "c" not in axes and len(pages := [i for i in extra if values.shape[i] > 1]) == 1:
        axes = axes[: pages[0]] + "c" + axes[pages[0] + 1 :]
        extra.remove(pages[0])
    if not axes or any(values.shape[i] != 1 for i in extra) or axes.count("c") > 1:
        raise InputError(
            "the axes of these probabilities are not rows, columns and classes",
            file=path,
            image=image,
            found=f"shape {values.shape}, axes {axes or 'not told'}",
        )
    values = values.squeeze(axis=tuple(extra))
    axes = "".join(axis for axis in axes if axis in "yxc")
    if "c" not in axes:
        values, axes = values[..., None], f"{axes}c"
    return np.asarray(values.transpose([axes.index(axis) for axis in "yxc"]))


def _at_size(
    values_yxk: NDArray[np.float32], shape_yx: tuple[int, int], path: Path, image: str | None
) -> NDArray[np.float32]:
    rows, columns, classes = values_yxk.shape
    factor = rows // shape_yx[0]
    if not 1 <= factor <= _LARGEST_FACTOR or (rows, columns) != (
        factor * shape_yx[0],
        factor * shape_yx[1],
    ):
        raise InputError(
            "these probabilities do not have the size of their image",
            file=path,
            image=image,
            expected=f"{shape_yx[0]} rows x {shape_yx[1]} columns, or a whole multiple",
            found=f"{rows} rows x {columns} columns",
        )
    if factor == 1:
        return values_yxk
    blocks = values_yxk.reshape(shape_yx[0], factor, shape_yx[1], factor, classes)
    return np.asarray(blocks.mean(axis=(1, 3)), dtype=np.float32)
