"""Spillover matrices as CSV, in the layout of CATALYST: rows emit, columns receive.

::

    "","Dy161Di","Dy162Di","Dy163Di"
    "Dy161Di",1,0.0286,0.0095
    "Dy162Di",0.0147,1,0.0404
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from maskless.errors import InputError
from maskless.images.names import isotope
from maskless.images.spillover_matrix import SpilloverMatrix
from maskless.storage import write_text

_LARGEST_BYTES = 10_000_000


def read_spillover(path: str | Path) -> SpilloverMatrix:
    """Read a spillover matrix.

    Parameters
    ----------
    path
        CSV, first row = receiving channels, first column = emitting metals; commas, semicolons
        (then decimal commas too) or tabs; metals as Dy161, 161Dy or Dy161Di. R's ``write.csv`` and
        ``write.table`` both write such files.

    Raises
    ------
    InputError
        If the file cannot be read, or see :class:`maskless.SpilloverMatrix`.
    """
    path = Path(path)
    text = _text(path)
    first = text.splitlines()[0] if text else ""
    delimiter = max(",;\t", key=first.count)
    try:
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if any(row)]
    except csv.Error as error:
        raise InputError("this is not a readable CSV file", file=path, found=error) from error
    if len(rows) < 2 or len(rows[0]) < 2:
        raise InputError(
            "this is not a spillover matrix",
            file=path,
            expected="a first row of receiving channels, then a row for each emitting metal",
            found=first[:100] or "nothing",
        )
    # write.table leaves the place above the row names out.
    header = rows[0] if len(rows[0]) == len(rows[1]) - 1 else rows[0][1:]
    shares = np.empty((len(rows) - 1, len(header)))
    for e, row in enumerate(rows[1:]):
        if len(row) != len(header) + 1:
            raise InputError(
                f"row {row[0]!r} of the spillover matrix has another length than the first row",
                file=path,
                expected=f"{len(header)} shares",
                found=len(row) - 1,
            )
        for r, cell in enumerate(row[1:]):
            shares[e, r] = _share(cell, path, row[0], header[r], delimiter)
    return SpilloverMatrix(tuple(row[0] for row in rows[1:]), tuple(header), shares, path)


def write_spillover(matrix: SpilloverMatrix, path: str | Path) -> None:
    """Write a matrix as CATALYST users have it; :func:`read_spillover` gives it back exactly.

    Raises
    ------
    StudyError
        If the file cannot be written.
    """
    target = io.StringIO()
    writer = csv.writer(target, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    writer.writerow(["", *map(_channel, matrix.receivers)])
    for name, shares in zip(matrix.emitters, matrix.shares_er.tolist(), strict=True):
        writer.writerow([_channel(name), *(int(s) if s in (0, 1) else s for s in shares)])
    write_text(Path(path), target.getvalue())


def _channel(metal: str) -> str:
    return f"{metal}Di" if isotope(metal) else metal


def _share(cell: str, path: Path, emitter: str, receiver: str, delimiter: str) -> float:
    text = cell.strip()
    if delimiter != ",":
        text = text.replace(",", ".")
    if text.casefold() in ("", "na", "nan"):
        return float("nan")
    try:
        return float(text)
    except ValueError:
        raise InputError(
            f"the share of {emitter} in {receiver} is no number",
            file=path,
            found=cell[:40],
            do="Write shares as 0.04, without a percent sign",
        ) from None


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise InputError("this file is too large to be a spillover matrix", file=path)
        raw = path.read_bytes()
    except FileNotFoundError:
        raise InputError(
            "no such file", file=path, do="Give the path of a spillover matrix (CSV)"
        ) from None
    except OSError as error:
        raise InputError(
            "the spillover matrix cannot be read", file=path, found=error.strerror
        ) from error
    try:
        utf16 = raw.startswith((b"\xff\xfe", b"\xfe\xff"))
        return raw.decode("utf-16" if utf16 else "utf-8-sig").lstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(
            "the spillover matrix is not UTF-8 text", file=path, do="Save it as 'CSV UTF-8'"
        ) from error
