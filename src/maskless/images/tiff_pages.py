"""TIFF from below: is every page and every block of pixels really in the file?

tifffile logs and goes on where a file is cut; here the chain of pages and the places of all blocks
are checked against the size of the file before any pixel is read.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from maskless.errors import InputError
from maskless.images.header import Pixels, check_dtype, check_size

_DO = "The file is incomplete: copy it again from where it came from"
_MOST_PAGES = 100_000


def open_tiff(path: Path) -> tifffile.TiffFile:
    """Open a TIFF whose chain of pages is whole; call it inside ``guarded``.

    Raises
    ------
    InputError
        If the file is missing, empty, not a TIFF, or cut so that a page is missing.
    """
    if not path.is_file():
        raise InputError("no such file", file=path)
    if path.stat().st_size == 0:
        raise InputError("the file is empty (0 bytes)", file=path)
    try:
        opened = tifffile.TiffFile(path)
    except tifffile.TiffFileError as error:
        raise InputError("this is not a TIFF file, or it is cut", file=path, found=error) from error
    try:
        pages = _count_pages(path)
        if pages != len(opened.pages):
            raise InputError(
                "pages of the TIFF cannot be read",
                file=path,
                expected=f"{pages} pages",
                found=len(opened.pages),
                do=_DO,
            )
    except BaseException:
        opened.close()
        raise
    return opened


def _count_pages(path: Path) -> int:
    """Follow the chain of page directories to its end."""
    size = path.stat().st_size
    with path.open("rb") as handle:
        start = handle.read(16)
        order = "<" if start[:2] == b"II" else ">"
        big = len(start) == 16 and struct.unpack(order + "H", start[2:4])[0] == 43
        offset_format, offset_size = (order + "Q", 8) if big else (order + "I", 4)
        count_format, count_size, tag_size = (order + "Q", 8, 20) if big else (order + "H", 2, 12)
        offset = struct.unpack_from(offset_format, start.ljust(16, b"\0"), 8 if big else 4)[0]
        seen: set[int] = set()
        while offset:
            if offset in seen or len(seen) > _MOST_PAGES:
                raise InputError("the pages of the TIFF form a loop", file=path)
            seen.add(offset)
            handle.seek(offset)
            raw = handle.read(count_size)
            tags = struct.unpack(count_format, raw)[0] if len(raw) == count_size else -1
            end = offset + count_size + tags * tag_size
            if tags < 0 or end + offset_size > size:
                raise InputError(
                    f"the TIFF is cut: page {len(seen)} is not in the file",
                    file=path,
                    expected=f"more than {max(end, offset)} bytes",
                    found=f"{size} bytes",
                    do=_DO,
                )
            handle.seek(end)
            offset = struct.unpack(offset_format, handle.read(offset_size))[0]
    return len(seen)


def check_page(opened: tifffile.TiffFile, index: int, path: Path) -> Any:
    """Page `index`, if all its blocks of pixels lie inside the file.

    Raises
    ------
    InputError
        If a block is missing or reaches beyond the end of the file.
    """
    page: Any = opened.pages[index]
    if not isinstance(page, tifffile.TiffPage):
        page = page.aspage()
    if page.dtype is None:
        raise InputError(f"page {index + 1} of the TIFF has an unknown kind of pixel", file=path)
    check_dtype(np.dtype(page.dtype), path)
    check_size((page.imagelength, page.imagewidth), path)
    expected = math.prod(page.chunked) if page.chunked else 1
    offsets, counts = page.dataoffsets, page.databytecounts
    size = opened.filehandle.size
    bad = sum(
        offset <= 0 or count <= 0 or offset + count > size
        for offset, count in zip(offsets, counts, strict=False)
    )
    bad += max(0, expected - min(len(offsets), len(counts)))
    if page.compression == 1 and not bad and sum(counts) < page.nbytes:
        bad = 1
    if bad:
        raise InputError(
            f"the TIFF is cut or damaged: {bad} of {expected} blocks of page {index + 1} "
            "are not in the file",
            file=path,
            do=_DO,
        )
    return page


def read_planes(
    path: Path, planes: Sequence[tuple[int, int | None]], shape_yx: tuple[int, int]
) -> Pixels:
    """Read planes, each a page and, for interleaved pages, a sample; shape (planes, Y, X)."""
    pixels_cyx: Pixels | None = None
    with open_tiff(path) as opened:
        last: tuple[int, Pixels] | None = None
        for i, (index, sample) in enumerate(planes):
            if last is None or last[0] != index:
                last = index, _page_samples(check_page(opened, index, path))
            plane_yx = last[1][sample or 0]
            if plane_yx.shape != shape_yx:
                raise InputError(
                    f"page {index + 1} of the TIFF has another size than the first",
                    file=path,
                    expected=f"{shape_yx[1]} x {shape_yx[0]} pixels",
                    found=f"{plane_yx.shape[1]} x {plane_yx.shape[0]}",
                )
            if pixels_cyx is None:
                pixels_cyx = np.empty((len(planes), *shape_yx), dtype=plane_yx.dtype)
            elif plane_yx.dtype != pixels_cyx.dtype:
                raise InputError(
                    f"page {index + 1} of the TIFF has another kind of pixel than the first",
                    file=path,
                    expected=pixels_cyx.dtype,
                    found=plane_yx.dtype,
                )
            pixels_cyx[i] = plane_yx
    if pixels_cyx is None:
        raise InputError("no channel is left to read", file=path)
    return pixels_cyx


def _page_samples(page: Any) -> Pixels:
    """Pixels of a page with samples first, shape (S, Y, X)."""
    array: Pixels = page.asarray()
    if page.axes == "YX":
        return array[None]
    if page.axes == "YXS":
        return np.moveaxis(array, -1, 0)
    if page.axes == "SYX":
        return array
    raise ValueError(f"a page with axes {page.axes}")
