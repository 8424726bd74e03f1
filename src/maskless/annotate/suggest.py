"""Suggestions of names from a table of markers that a type should and should not have.

A suggestion is only ever shown, with its evidence; a person names.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskless.errors import InputError

TABLE_NAME = "marker_table.csv"
_HEADING = ("type", "broad", "present", "absent")
_MOST = 3
_LEAST_SCORE = 0.3
# z-scores beyond this are all the same: clearly there, clearly not.
_CLEAR = 1.5
# Spellings of one marker, in the form that `_key` gives.
_SAME = {
    "CD3E": "CD3",
    "CD8A": "CD8",
    "CD8ALPHA": "CD8",
    "CK": "PANCK",
    "PANCYTOKERATIN": "PANCK",
    "PANKERATIN": "PANCK",
    "CYTOKERATIN": "PANCK",
    "KERATIN": "PANCK",
    "ASMA": "SMA",
    "ALPHASMA": "SMA",
    "VIMENTIN": "VIM",
    "ECADHERIN": "ECAD",
    "MYELOPEROXIDASE": "MPO",
    "HLADRDPDQ": "HLADR",
    "MASTCELLTRYPTASE": "TRYPTASE",
}


@dataclass(frozen=True)
class CellType:
    """A row of the marker table."""

    name: str
    broad: str
    present: tuple[str, ...]
    absent: tuple[str, ...]


def load_table(folder: Path) -> tuple[list[CellType], str]:
    """The study's own marker_table.csv, or the one that comes with maskless.

    Returns
    -------
    types, source

    Raises
    ------
    InputError
        If the study's table lacks columns.
    """
    own = folder / TABLE_NAME
    if own.is_file():
        return parse_table(own.read_text(encoding="utf-8-sig"), own), str(own)
    text = (files("maskless.annotate") / TABLE_NAME).read_text(encoding="utf-8")
    return parse_table(text, None), "the table that comes with maskless"


def parse_table(text: str, file: Path | None) -> list[CellType]:
    """Read a marker table: columns type, broad, present, absent; markers parted by spaces or ;."""
    reader = csv.DictReader(io.StringIO(text))
    heading = [name.strip().lower() for name in reader.fieldnames or []]
    if "type" not in heading or "present" not in heading:
        raise InputError(
            "the marker table lacks columns",
            file=file,
            expected=", ".join(_HEADING),
            found=", ".join(heading) or "nothing",
        )
    types = []
    for line in reader:
        row = {str(k).strip().lower(): str(v or "").strip() for k, v in line.items() if k}
        present, absent = (
            tuple(word for word in re.split(r"[\s;,]+", row.get(column, "")) if word)
            for column in ("present", "absent")
        )
        if row["type"] and present:
            types.append(CellType(row["type"], row.get("broad", ""), present, absent))
    return types


def suggestions(
    types: Sequence[CellType], z_gm: NDArray[np.float64], markers: Sequence[str]
) -> list[list[dict[str, Any]]]:
    """The best matching types of each group.

    Parameters
    ----------
    types
        Rows of the table. Types of which the panel has no marker that should be present are out.
    z_gm
        Means of groups in standard deviations over groups, shape (groups, markers).
    markers
        Names of the columns.

    Returns
    -------
    list
        For each group up to three: name, broad, score (-1 to 1), and the evidence: for each marker
        its z, whether it should be there, and whether it fits; and the markers the panel lacks.
    """
    place = {_key(name): i for i, name in reversed(list(enumerate(markers)))}
    found: list[list[dict[str, Any]]] = []
    for z in z_gm:
        ranked: list[dict[str, Any]] = []
        for cell_type in types:
            wanted = [(name, True) for name in cell_type.present]
            wanted += [(name, False) for name in cell_type.absent]
            known = [
                (name, want, float(z[place[_key(name)]]))
                for name, want in wanted
                if _key(name) in place
            ]
            there = [_fit(value) for _, want, value in known if want]
            gone = [max(_fit(value), 0.0) for _, want, value in known if not want]
            if not there:
                continue
            # What the panel cannot show leaves doubt: half of the missing evidence is taken off.
            sure = 0.5 + 0.5 * len(there) / len(cell_type.present)
            score = sure * float(np.mean(there)) - (float(np.mean(gone)) if gone else 0.0)
            if score >= _LEAST_SCORE:
                evidence = [
                    {"marker": n, "wanted": w, "z": round(v, 2), "fits": (v > 0) == w}
                    for n, w, v in known
                ]
                missing = [name for name, _ in wanted if _key(name) not in place]
                ranked.append(
                    {
                        "name": cell_type.name,
                        "broad": cell_type.broad,
                        "score": round(score, 3),
                        "evidence": evidence,
                        "missing": missing,
                    }
                )
        ranked.sort(key=lambda row: -row["score"])
        found.append(ranked[:_MOST])
    return found


def _fit(z: float) -> float:
    return max(-1.0, min(1.0, z / _CLEAR))


def _key(marker: str) -> str:
    plain = re.sub(r"[^A-Z0-9]", "", marker.upper())
    return _SAME.get(plain, plain)
