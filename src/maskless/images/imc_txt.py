"""Text files of imaging mass cytometry: one line a pixel, one column a channel.

A file that was cut is told by its last line, which then lacks its end: that pixel is dropped, since
its last number may be cut as well, and counted as missing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.images.header import FileChannel, Header, Pixels, check_size, guarded
from maskless.images.names import isotope

_BEFORE = ("Start_push", "End_push", "Pushes_duration", "X", "Y", "Z")
_CHANNEL = re.compile(r"(?P<label>.*)\((?P<metal>[a-zA-Z]+[0-9]+)[^0-9()]*\)")
_LARGEST_EDGE = 100_000


def looks_like_imc(path: Path) -> bool:
    """Whether a ``.txt`` in a folder is meant as an acquisition: its first words, or nothing."""
    with path.open("rb") as handle:
        start = handle.read(32).removeprefix(b"\xef\xbb\xbf")
    return start.startswith(b"Start_push") or b"Start_push".startswith(start)


def txt_header(path: Path, name: str, shape_yx: tuple[int, int] | None = None) -> Header:
    """Header of a text file.

    Parameters
    ----------
    path, name
        The file and what its image is called.
    shape_yx
        Rows and columns where an ``.mcd`` tells them; else the largest coordinates do.

    Raises
    ------
    InputError
        If it is not such a file or holds no pixel.
    """
    with guarded(path, "the text file cannot be read"):
        if not path.is_file():
            raise InputError("no such file", file=path)
        with path.open("rb") as handle:
            first = handle.readline(1_000_000)
            second = handle.readline(1_000_000)
        if not first:
            raise InputError("the file is empty (0 bytes)", file=path)
        columns = _decoded(first).rstrip("\r\n").split("\t")
        if tuple(columns[:6]) != _BEFORE or len(columns) < 7 or not first.endswith(b"\n"):
            raise InputError(
                "this is not a text file of imaging mass cytometry, or it is cut",
                file=path,
                expected=f"a first line with {', '.join(_BEFORE)} and channels",
                found=_decoded(first)[:100],
            )
        if not second.strip():
            raise InputError("the image is empty", file=path, found="no pixels", do="Leave it out")
        channels = tuple(_channel(column, path) for column in columns[6:])

    def load(indices: Sequence[int]) -> tuple[Pixels, tuple[str, ...]]:
        with guarded(path, "the text file cannot be read", name):
            return _read(path, name, len(columns), indices, shape_yx)

    return Header(name, path, (path,), channels, 1.0, load, shape_yx)


def _channel(column: str, path: Path) -> FileChannel:
    match = _CHANNEL.fullmatch(column.strip())
    if match is None:
        raise InputError(
            "a column of the text file names no channel",
            file=path,
            channel=column,
            expected="LABEL(METAL), as in CD20_Dy161(Dy161Di)",
        )
    metal = match.group("metal")
    metal = isotope(metal) or metal
    return FileChannel(" ".join(match.group("label").split()) or metal, metal)


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace")


def _read(
    path: Path, name: str, n_columns: int, indices: Sequence[int], shape_yx: tuple[int, int] | None
) -> tuple[Pixels, tuple[str, ...]]:
    lines, whole = _count_lines(path)
    problems = []
    if not whole:
        problems.append(
            "The file ends inside a line: it is cut, and the pixel of that line was dropped."
        )
    if lines < 1:
        raise InputError("the image is empty", file=path, image=name, found="no whole line")
    try:
        table: NDArray[np.float32] = np.loadtxt(
            path,
            dtype=np.float32,
            delimiter="\t",
            skiprows=1,
            max_rows=lines,
            ndmin=2,
            comments=None,
            encoding="latin-1",
        )
    except ValueError as error:
        raise InputError(
            "a line of the text file cannot be read",
            file=path,
            image=name,
            expected=f"{n_columns} numbers",
            found=error,
        ) from error
    if table.shape[1] != n_columns:
        raise InputError(
            "the lines of the text file do not fit its first line",
            file=path,
            image=name,
            expected=f"{n_columns} columns",
            found=table.shape[1],
        )
    values_nc = table[:, [6 + i for i in indices]]
    pixels_cyx, found = place_pixels(table[:, 3], table[:, 4], values_nc, shape_yx, path, name)
    return pixels_cyx, (*problems, *found)


def _count_lines(path: Path) -> tuple[int, bool]:
    """Lines with pixels that have an end, and whether the file ends with one."""
    lines, last = -1, b""
    blank = 0
    with path.open("rb") as handle:
        for line in handle:
            last = line
            if line.endswith(b"\n"):
                lines += 1
                blank += not line.strip()
    return lines - blank, last.endswith(b"\n")


def place_pixels(
    x_n: NDArray[np.float32],
    y_n: NDArray[np.float32],
    values_nc: NDArray[np.float32],
    shape_yx: tuple[int, int] | None,
    path: Path,
    name: str,
) -> tuple[Pixels, tuple[str, ...]]:
    """An image from a list of pixels; missing ones are 0 and counted, doubled ones counted.

    Parameters
    ----------
    x_n, y_n
        Coordinates in pixels, from 0.
    values_nc
        Values, shape (pixels, channels).
    shape_yx
        Rows and columns; None takes the largest coordinates.
    path, name
        For messages.

    Returns
    -------
    pixels_cyx, problems
        Shape (channels, rows, columns); of pixels that occur twice the last one counts.

    Raises
    ------
    InputError
        If a coordinate is not a whole number or outside the image.
    """
    for axis, coordinate_n in (("X", x_n), ("Y", y_n)):
        bad = ~np.isfinite(coordinate_n) | (coordinate_n < 0) | (coordinate_n > _LARGEST_EDGE)
        bad |= coordinate_n != np.floor(coordinate_n)
        size = shape_yx and shape_yx["YX".index(axis)]
        if size:
            bad |= coordinate_n >= size
        if bad.any():
            raise InputError(
                "pixels lie outside the image",
                file=path,
                image=name,
                expected=f"{axis} = 0 to {size - 1 if size else _LARGEST_EDGE}",
                found=f"{axis} = {coordinate_n[bad][0]:g} and {int(bad.sum()) - 1} more",
            )
    rows, columns = shape_yx or (int(y_n.max()) + 1, int(x_n.max()) + 1)
    check_size((rows, columns), path, name)
    flat_n = y_n.astype(np.int64) * columns + x_n.astype(np.int64)
    times = np.bincount(flat_n, minlength=rows * columns)
    missing, doubled = int((times == 0).sum()), int((times > 1).sum())
    pixels_cp = np.zeros((values_nc.shape[1], rows * columns), dtype=np.float32)
    if doubled:  # NumPy does not promise which of two assignments wins
        last_n = np.full(rows * columns, -1, dtype=np.int64)
        np.maximum.at(last_n, flat_n, np.arange(flat_n.size))
        flat_n, values_nc = np.flatnonzero(last_n >= 0), values_nc[last_n[last_n >= 0]]
    pixels_cp[:, flat_n] = values_nc.T
    problems = []
    if missing:
        problems.append(
            f"{missing} of {rows * columns} pixels are missing (the acquisition was aborted or the "
            "file is cut); they were set to 0."
        )
    if doubled:
        problems.append(f"{doubled} pixels occur more than once; the last value was taken.")
    return pixels_cp.reshape(-1, rows, columns), tuple(problems)
