"""Cells as FCS 3.1, the format of cytometry programs: one event a cell.

Spidlen et al. 2010, doi:10.1002/cyto.a.20825. A file holds a header of 58 bytes with the places of
its parts, a text of keywords, and the events as little-endian float32.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maskless._version import __version__
from maskless.errors import InputError
from maskless.exporting.table import cell_columns, used_activations
from maskless.storage import atomic_path

if TYPE_CHECKING:
    from anndata import AnnData

_SEPARATOR = "\x0c"  # cannot be in a name, once control characters are gone
_HEADER = 58
_LARGEST_PLACE = 99_999_999


def write_fcs(cells: AnnData, target: Path) -> list[Path]:
    """Write cells as FCS files, one an image, or one for all.

    Parameters are x, y (pixels), x_um, y_um, the other numbers of ``obs``, cluster and phenotype as
    numbers, and the activation of each marker that is used. The keywords CLUSTERS, PHENOTYPES and
    IMAGES say what the numbers stand for ("0=B cell; 1=T cell").

    Parameters
    ----------
    cells
        As in cells.h5ad.
    target
        A folder for a file an image; a file for all cells, if its name ends with ``.fcs``.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    StudyError
        If they cannot be written.
    """
    values: dict[str, NDArray[Any]] = {}
    keywords: dict[str, str] = {}
    columns = cell_columns(cells)
    images = columns.pop("image")
    del columns["cell"]
    for name, column in {**columns, "image": images}.items():
        if column.dtype.kind in "fiub":
            values[name] = column
        elif name in ("cluster", "phenotype", "subcluster", "image"):
            names, codes = _numbered(column)
            values[name] = codes
            keywords[f"{name.upper()}S"] = "; ".join(f"{i}={n}" for i, n in enumerate(names))
    markers, activations = used_activations(cells)
    events = np.column_stack([*(np.asarray(v, np.float32) for v in values.values()), activations])
    labels = [*values, *markers]
    if target.suffix.lower() == ".fcs":
        with atomic_path(target) as temporary:
            temporary.write_bytes(fcs_bytes(events, labels, keywords))
        return [target]
    from maskless.report.figures import file_stems

    names = list(dict.fromkeys(images.tolist()))
    with atomic_path(target) as folder:
        folder.mkdir()
        for name, stem in file_stems(names).items():
            content = fcs_bytes(events[images == name], labels, {**keywords, "$FIL": f"{stem}.fcs"})
            (folder / f"{stem}.fcs").write_bytes(content)
    return sorted(target.glob("*.fcs"))


def fcs_bytes(
    events_np: NDArray[np.float32], names: Sequence[str], keywords: Mapping[str, str]
) -> bytes:
    """A whole FCS 3.1 file.

    Parameters
    ----------
    events_np
        One row an event, one column a parameter; finite.
    names
        Of the parameters. Commas and control characters are replaced, doubles numbered.
    keywords
        Further ones; values must not be empty.

    Raises
    ------
    InputError
        If a value is not finite.
    """
    events = np.ascontiguousarray(events_np, "<f4")
    if not np.isfinite(events).all():
        raise InputError("a value is NaN or infinite, which FCS programs do not read")
    text = {
        "$BEGINANALYSIS": "0",
        "$ENDANALYSIS": "0",
        "$BEGINSTEXT": "0",
        "$ENDSTEXT": "0",
        "$BYTEORD": "1,2,3,4",
        "$DATATYPE": "F",
        "$MODE": "L",
        "$NEXTDATA": "0",
        "$TOT": str(len(events)),
        "$PAR": str(events.shape[1]),
        "$SYS": f"maskless {__version__}",
        **{key: _clean(value) for key, value in keywords.items() if value},
    }
    highest = events.max(axis=0, initial=0)
    for number, (short, name) in enumerate(zip(_short(names), names, strict=True), start=1):
        text |= {
            f"$P{number}N": short,
            f"$P{number}S": _clean(name),
            f"$P{number}B": "32",
            f"$P{number}E": "0,0",
            f"$P{number}R": str(max(1, int(np.ceil(highest[number - 1])) + 1)),
        }
    # The places stand in the text whose length they depend on: they always take 12 digits.
    size = len(_encoded({**text, "$BEGINDATA": "0" * 12, "$ENDDATA": "0" * 12}))
    begin = _HEADER + size
    end = begin + events.nbytes - 1 if events.nbytes else begin
    body = _encoded({**text, "$BEGINDATA": f"{begin:012d}", "$ENDDATA": f"{end:012d}"})
    places = [_HEADER, begin - 1, *((begin, end) if end <= _LARGEST_PLACE else (0, 0)), 0, 0]
    header = b"FCS3.1    " + b"".join(f"{place:>8d}".encode() for place in places)
    return header + body + events.tobytes() + b"00000000"  # no checksum


def _encoded(text: Mapping[str, str]) -> bytes:
    parts = (part for pair in text.items() for part in pair)
    return (_SEPARATOR + _SEPARATOR.join(parts) + _SEPARATOR).encode()


def _clean(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f]", " ", text).strip() or "_"


def _short(names: Sequence[str]) -> list[str]:
    """Short names of parameters: no commas, each once."""
    taken: set[str] = set()
    found = []
    for name in names:
        base = _clean(name).replace(",", "_")
        short, number = base, 2
        while short.lower() in taken:
            short, number = f"{base}_{number}", number + 1
        taken.add(short.lower())
        found.append(short)
    return found


def _numbered(column: NDArray[Any]) -> tuple[list[str], NDArray[np.float32]]:
    """Names and their numbers; names that are numbers keep them, so cluster 4 is 4."""
    names = sorted(set(column.tolist()))
    whole = all(re.fullmatch(r"-?\d{1,7}", name) for name in names)
    if whole:
        return [], column.astype(np.float32)
    place = {name: i for i, name in enumerate(names)}
    return names, np.array([place[name] for name in column.tolist()], np.float32)
