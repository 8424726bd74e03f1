"""Panels: from ``panel.csv``, and from the channels that files name.

Columns of ``panel.csv`` (header in any case; comma, semicolon or tab; UTF-8 with or without BOM):

===========  =====================================================================================
``name``     what the channel shows; where it is empty, the metal is taken (``marker_name`` in the
             ``markers.csv`` of MCMICRO)
``channel``  optional: place in the file (from 0), or the metal or label the file has for it
``metal``    optional: isotope or fluorophore
``kind``     optional: marker, nuclear (DNA), background (empty), element; empty cells and panels
             without the column follow the rules in :mod:`maskless.images.kinds`
``used``     optional: 1 or 0, whether the encoder sees the channel
``keep``     optional (steinbock): rows with 0 are not in the images and are left out
``deepcell`` optional (steinbock): 1 marks nuclear channels, where there is no column ``kind``
===========  =====================================================================================
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from maskless.errors import InputError
from maskless.images.image import Channel, Kind, Panel
from maskless.images.kinds import recognise, written_kind
from maskless.images.names import isotope, isotope_in, spelling, target_spelling

_YES = frozenset({"1", "1.0", "true", "yes", "y", "x"})
_NO = frozenset({"0", "0.0", "false", "no", "n"})
_COLUMNS = {
    "markername": "name",
    "metaltag": "metal",
    "isotope": "metal",
    "fluorophore": "metal",
    "type": "kind",
}
_LARGEST_BYTES = 10_000_000


@dataclass(frozen=True)
class _Row:
    line: int
    name: str
    metal: str
    position: int | None
    kind: Kind | None
    used: bool | None


def read_panel(path: str | Path) -> Panel:
    """Read a panel from a CSV file; the columns are told in :mod:`maskless.images.panel`.

    Raises
    ------
    InputError
        If the file cannot be read, has no column ``name``, names a channel, metal or place twice,
        or holds a value that is not understood. The rows are named by their line in the file.
    """
    path = Path(path)
    rows = [row for row in _rows(path) if row is not None]
    if not rows:
        raise InputError("the panel has no channels", file=path)
    _refuse_duplicates(path, rows)
    recognised = recognise(
        [r.name for r in rows],
        [r.metal for r in rows],
        nuclear_known=any(r.kind == "nuclear" for r in rows),
    )
    channels = []
    for row, guess in zip(rows, recognised, strict=True):
        kind = row.kind or guess
        used = row.used if row.used is not None else kind in ("marker", "nuclear")
        channels.append(Channel(row.name, row.metal, kind, used, row.position))
    return Panel(tuple(channels))


def panel_of_file(labels: Sequence[str], metals: Sequence[str], file: Path) -> Panel:
    """The panel of an image that names its channels; labels may be empty where metals are not.

    Labels that occur twice get their metal behind them, which tells them apart.

    Raises
    ------
    InputError
        If a channel has neither label nor metal, or two channels cannot be told apart.
    """
    names = [label or metal for label, metal in zip(labels, metals, strict=True)]
    if not all(names):
        raise InputError(
            "the channels are not named in the file",
            file=file,
            channel=f"at position {names.index('')}",
            do="Give a panel.csv with the columns channel (position from 0) and name",
        )
    names = [
        f"{name}_{metal}" if names.count(name) > 1 and metal and metal != name else name
        for name, metal in zip(names, metals, strict=True)
    ]
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                "two channels of the file have the same name",
                file=file,
                channel=name,
                do="Give a panel.csv with the columns channel (position from 0) and name",
            )
    kinds = recognise(names, metals)
    return Panel(
        tuple(
            Channel(name, metal, kind, kind in ("marker", "nuclear"))
            for name, metal, kind in zip(names, metals, kinds, strict=True)
        )
    )


def channels_by_name(panel: Panel, names: Sequence[str]) -> tuple[str, ...]:
    """Names of the panel's channels that a person may have written in another spelling.

    Raises
    ------
    InputError
        If a name fits no channel, or more than one.
    """
    found = []
    for name in names:
        fits = [c.name for c in panel.channels if c.name == name]
        fits = fits or [c.name for c in panel.channels if spelling(c.name) == spelling(name)]
        metal = isotope(name, any_case=True)
        fits = fits or [c.name for c in panel.channels if metal and c.metal == metal]
        fits = fits or [c.name for c in panel.channels if target_spelling(c.name) == spelling(name)]
        if len(fits) != 1:
            raise InputError(
                "no such channel in the panel" if not fits else "the channel is ambiguous",
                channel=name,
                expected=f"one of {', '.join(panel.names)}",
                found=", ".join(fits) or None,
            )
        found.append(fits[0])
    return tuple(found)


def _rows(path: Path) -> Iterator[_Row | None]:
    text, delimiter = _text(path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        header = [_COLUMNS.get(spelling(cell), spelling(cell)) for cell in next(reader)]
        for column in ("name", "channel", "metal", "kind", "used", "keep"):
            if header.count(column) > 1:
                raise InputError(f"the panel has two columns {column!r}", file=path)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield _row(path, reader.line_num, header, cells)
    except csv.Error as error:
        raise InputError("the panel is not a readable CSV file", file=path, found=error) from error


def _text(path: Path) -> tuple[str, str]:
    """Content of the file and its delimiter."""
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise InputError("this file is too large to be a panel", file=path)
        raw = path.read_bytes()
    except FileNotFoundError:
        raise InputError("no such file", file=path, do="Give the path of a panel.csv") from None
    except OSError as error:
        raise InputError("the panel cannot be read", file=path, found=error.strerror) from error
    try:
        utf16 = raw.startswith((b"\xff\xfe", b"\xfe\xff"))
        text = raw.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            "the panel is not UTF-8 text", file=path, do="Save it as 'CSV UTF-8'"
        ) from error
    text = text.lstrip()
    if not text:
        raise InputError("the panel is empty", file=path)
    first = text.splitlines()[0]
    for delimiter in (",", ";", "\t"):
        columns = next(csv.reader([first], delimiter=delimiter))
        if "name" in [_COLUMNS.get(spelling(column), spelling(column)) for column in columns]:
            return text, delimiter
    raise InputError(
        "the panel has no column 'name'",
        file=path,
        expected="a header such as channel,name,metal,kind",
        found=first[:200],
    )


def _row(path: Path, line: int, header: Sequence[str], cells: Sequence[str]) -> _Row | None:
    if len(cells) > len(header) and any(cell.strip() for cell in cells[len(header) :]):
        raise InputError(
            f"row {line} of the panel has more cells than the header",
            file=path,
            expected=len(header),
            found=len(cells),
            do="Put names that hold the separator in quotes",
        )
    row = {
        column: " ".join(unicodedata.normalize("NFC", cell).split())
        for column, cell in zip(header, cells, strict=False)
    }
    if _yes_or_no(path, line, "keep", row.get("keep", "")) is False:
        return None
    metal = row.get("metal", "")
    metal = isotope(metal, any_case=True) or metal
    position, metal = _place(path, line, row.get("channel", ""), row.get("name", ""), metal)
    name = row.get("name", "") or metal
    if not name:
        raise InputError(f"row {line} of the panel has no name", file=path)
    kind: Kind | None = None
    if written := row.get("kind", ""):
        kind = written_kind(written)
        if kind is None:
            raise InputError(
                f"row {line} of the panel has an unknown kind",
                file=path,
                channel=name,
                expected="marker, nuclear, background or element",
                found=written,
            )
    elif "kind" not in header and row.get("deepcell", "") in ("1", "1.0"):
        kind = "nuclear"
    used = _yes_or_no(path, line, "used", row.get("used", ""))
    return _Row(line, name, metal or isotope_in(name), position, kind, used)


def _place(path: Path, line: int, cell: str, name: str, metal: str) -> tuple[int | None, str]:
    """What the column ``channel`` tells: a position, or a metal or label."""
    if not cell:
        return None, metal
    if re.fullmatch(r"[0-9]{1,6}(\.0)?", cell):
        return int(float(cell)), metal
    if re.fullmatch(r"-[0-9]+(\.0)?|[0-9]+\.[0-9]+", cell):
        raise InputError(
            f"row {line} of the panel has an impossible position",
            file=path,
            expected="0, 1, 2, ...",
            found=cell,
        )
    label = isotope(cell, any_case=True) or cell
    if not metal or spelling(label) == spelling(metal):
        # A label that only repeats the name says nothing about a metal.
        return None, metal or ("" if spelling(label) == spelling(name) else label)
    if {spelling(label), target_spelling(label)} & {spelling(name)} or isotope_in(label) == metal:
        return None, metal
    raise InputError(
        f"row {line} of the panel contradicts itself: channel and metal differ",
        file=path,
        channel=name or None,
        found=f"channel {cell}, metal {metal}",
    )


def _yes_or_no(path: Path, line: int, column: str, text: str) -> bool | None:
    if not text:
        return None
    if text.casefold() in _YES:
        return True
    if text.casefold() in _NO:
        return False
    raise InputError(
        f"row {line} of the panel has an unknown value of {column}",
        file=path,
        expected="1 or 0",
        found=text,
    )


def _refuse_duplicates(path: Path, rows: Sequence[_Row]) -> None:
    seen: dict[tuple[str, object], _Row] = {}
    for row in rows:
        keys: list[tuple[str, object]] = [
            ("name", unicodedata.normalize("NFKC", row.name.casefold()))
        ]
        if isotope(row.metal):  # fluorophores do repeat, cycle after cycle
            keys.append(("metal", row.metal))
        if row.position is not None:
            keys.append(("position", row.position))
        for what, value in keys:
            if (what, value) in seen:
                shown = row.name if what == "name" else value
                raise InputError(
                    f"rows {seen[what, value].line} and {row.line} of the panel "
                    f"have the same {what}",
                    file=path,
                    channel=row.name,
                    found=shown,
                    do="Every channel needs a name, metal and position of its own",
                )
            seen[what, value] = row
