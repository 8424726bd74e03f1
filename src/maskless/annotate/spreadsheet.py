"""The table that laboratories keep: one row a cluster with the name it was given, as CSV.

A text that a spreadsheet would take for a formula gets an apostrophe in front when it is written,
and loses it when it is read, so that it comes back exactly.
"""

from __future__ import annotations

import csv
import io
import re
from typing import Any

from maskless.annotate.labels import Group, Labels
from maskless.csv_tables import csv_rows
from maskless.errors import InputError

_TEXTS = ("name", "broad", "notes", "color")
_COLUMNS = ("cluster", "cells", *_TEXTS, "unsure")
# Headings that people use, in small letters.
_KNOWN = {
    "cluster": ("cluster", "clusters", "cluster_id", "cluster id", "id", "group", "phenograph"),
    "name": ("name", "phenotype", "cell type", "cell_type", "celltype", "label", "annotation"),
    "broad": ("broad", "broad class", "broad_class", "class", "lineage", "category"),
    "notes": ("notes", "note", "comment", "comments", "remarks"),
    "color": ("color", "colour"),
    "unsure": ("unsure", "doubtful", "uncertain"),
}
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'")
_IN_IMAGE = "name in "
_YES = {"1", "true", "yes", "x", "y", "unsure"}


def to_csv(labels: Labels) -> str:
    """The groups that have cells, one row each: cluster, cells, name, broad, notes, color, unsure.

    Names that hold in one image only follow in columns called "name in IMAGE".
    """
    images = sorted({i for group in labels.groups.values() for i, n in group.by_image.items() if n})
    out = io.StringIO(newline="")
    # Quotes around all: Python before 3.13 leaves a lone "\r" bare, and readers end lines there.
    writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow([*_COLUMNS, *(formula_safe(_IN_IMAGE + image) for image in images)])
    for place, name in enumerate(labels.ids):
        count, group = int(labels.counts[place]), labels.groups[name]
        if count:
            texts = [formula_safe(getattr(group, column)) for column in _TEXTS]
            here = [formula_safe(group.by_image.get(image, "")) for image in images]
            writer.writerow([name, count, *texts, "yes" if group.unsure else "", *here])
    return out.getvalue()


def from_csv(text: str, labels: Labels) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Read such a table.

    Parameters
    ----------
    text
        CSV with commas, semicolons or tabs, with or without byte order mark, with a heading.
    labels
        What the names are for.

    Returns
    -------
    fields, unknown
        What changes for each group, and clusters of the table that are not there. Columns that the
        table does not have are left as they are.

    Raises
    ------
    InputError
        If it is no table with columns for clusters and names, or a cluster stands there twice.
    """
    lines = csv_rows(text)
    columns = _columns(lines[0])
    fields: dict[str, dict[str, Any]] = {}
    unknown: list[str] = []
    for number, line in enumerate(lines[1:], start=2):
        cells = {field: line[place] for field, place in columns.items() if place < len(line)}
        cluster = _plain(cells.get("cluster", "").strip())
        if cluster not in labels.groups:  # some programs make 3.0 of 3
            cluster = re.sub(r"^(-?\d+)\.0$", r"\1", cluster)
        if not cluster:
            continue
        if cluster in fields:
            raise InputError(
                f"cluster {cluster!r} stands twice in the table", found=f"row {number}"
            )
        if cluster not in labels.groups:
            unknown.append(cluster)
            continue
        values: dict[str, Any] = {f: _plain(cells[f]) for f in _TEXTS if f in cells}
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", values.get("color", "")):
            values.pop("color", None)
        if "unsure" in cells:
            values["unsure"] = cells["unsure"].strip().lower() in _YES
        group = labels.groups[cluster]
        here = {f[len(_IN_IMAGE) :]: _plain(v) for f, v in cells.items() if f.startswith(_IN_IMAGE)}
        values["by_image"] = {i: n for i, n in {**group.by_image, **here}.items() if n}
        fields[cluster] = _changed(values, group)
    if not fields:
        raise InputError(
            "no cluster of the table is in this study",
            expected=f"clusters such as {', '.join(labels.ids[:5])}",
            found=", ".join(unknown[:5]) or "an empty table",
        )
    return {name: values for name, values in fields.items() if values}, unknown


def _changed(values: dict[str, Any], group: Group) -> dict[str, Any]:
    return {field: value for field, value in values.items() if value != getattr(group, field)}


def _columns(heading: list[str]) -> dict[str, int]:
    columns: dict[str, int] = {}
    for place, title in enumerate(heading):
        word = title.strip()
        for field, known in _KNOWN.items():
            if word.lower() in known:
                columns.setdefault(field, place)
        if _plain(title).startswith(_IN_IMAGE):
            columns[_plain(title)] = place
    for needed in ("cluster", "name"):
        if needed not in columns:
            raise InputError(
                f"the table has no column for the {needed}",
                expected=" or ".join(_KNOWN[needed][:4]),
                found=", ".join(heading)[:200],
            )
    return columns


def formula_safe(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _plain(text: str) -> str:
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA) else text
