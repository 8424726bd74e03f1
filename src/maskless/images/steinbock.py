"""steinbock projects: ``img/*.tiff`` without names, ``panel.csv``, ``images.csv``.

Rows of the panel with ``keep`` = 1 are the channels of the images, in that order. Where
``images.csv`` tells the size of an image, the file must have it; where it tells the extent of the
acquisition in micrometres, the pixel size follows.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from maskless.errors import InputError
from maskless.images.header import Header, guarded, micrometres

IMAGES = "img"


def is_steinbock(folder: Path) -> bool:
    """Whether a folder is a steinbock project with images."""
    return (folder / IMAGES).is_dir() and (folder / "panel.csv").is_file()


def image_table(project: Path) -> dict[str, dict[str, str]]:
    """Rows of ``images.csv`` by file name; empty if there is no such file.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    path = project / "images.csv"
    if not path.is_file():
        return {}
    with guarded(path, "images.csv cannot be read"), path.open(encoding="utf-8-sig") as handle:
        rows = list(csv.DictReader(handle))
        return {str(row["image"]): {k: str(v or "") for k, v in row.items()} for row in rows}


def with_table(header: Header, table: Mapping[str, Mapping[str, str]], project: Path) -> Header:
    """A header whose size is checked with, and pixel size taken from, ``images.csv``.

    Raises
    ------
    InputError
        If file and table contradict each other.
    """
    row = table.get(header.source.name)
    if row is None or header.shape_yx is None:
        return header
    told = tuple(row.get(key, "") for key in ("num_channels", "height_px", "width_px"))
    found = tuple(str(n) for n in (len(header.channels), *header.shape_yx))
    if any(t not in ("", f) for t, f in zip(told, found, strict=True)):
        raise InputError(
            "the image does not have the size that images.csv tells",
            file=header.source,
            image=header.name,
            expected=f"{told[0]} channels, {told[1]} rows, {told[2]} columns",
            found=f"{found[0]} channels, {found[1]} rows, {found[2]} columns",
            do="Is the file complete? Else run steinbock's preprocessing again",
        )
    if header.um_per_pixel is not None:
        return header
    sizes = [
        float(row[extent]) / count if row.get(extent) else None
        for extent, count in (
            ("acquisition_width_um", header.shape_yx[1]),
            ("acquisition_height_um", header.shape_yx[0]),
        )
    ]
    um_per_pixel = micrometres(sizes[0], "um", sizes[1], "um", project / "images.csv")
    return replace(header, um_per_pixel=um_per_pixel)
