"""What is known of each image, such as its patient: STUDY/images.csv, to colour and to count by.

One row an image, a column ``image`` and any others: ``image,patient,tissue``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maskless.annotate.places import Clustering
from maskless.annotate.spreadsheet import csv_rows
from maskless.annotate.study_cells import MOST_CATEGORIES, Column
from maskless.errors import InputError

TABLE_NAME = "images.csv"
NONE = "(none)"


def image_columns(folder: Path, clustering: Clustering) -> dict[str, Column]:
    """Columns of the study's images.csv, spread over the cells.

    Parameters
    ----------
    folder
        Of the study; without the file there are no columns.
    clustering
        Says in which image a cell lies.

    Returns
    -------
    dict
        Columns with 2 to 400 different values. Images that the table does not have get "(none)".

    Raises
    ------
    InputError
        If the table has no column "image", an image stands there twice, or none is of this study.
    """
    file = folder / TABLE_NAME
    if not file.is_file():
        return {}
    try:
        lines = csv_rows(file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise InputError("this is not UTF-8 text", file=file, do="Save it as UTF-8") from None
    heading = [title.strip() for title in lines[0]]
    if "image" not in (lower := [title.lower() for title in heading]):
        raise InputError(
            "the table has no column for the image",
            file=file,
            expected="image and others, such as patient",
            found=", ".join(heading)[:200],
        )
    key = lower.index("image")
    told: dict[str, list[str]] = {}
    for line in lines[1:]:
        name = line[key].strip() if key < len(line) else ""
        if name in told:
            raise InputError("an image stands twice in the table", file=file, image=name)
        told[name] = line
    if not set(told) & set(clustering.images):
        raise InputError(
            "no image of the table is in this study",
            file=file,
            expected=", ".join(clustering.images[:5]),
            found=", ".join(list(told)[:5]) or "nothing",
        )
    columns = {}
    for place, title in enumerate(heading):
        if place == key or not title:
            continue
        values = [_value(told.get(image, []), place) for image in clustering.images]
        names = tuple(dict.fromkeys(values))
        if 1 < len(names) <= MOST_CATEGORIES:
            codes = np.array([names.index(value) for value in values], np.int32)
            columns[title] = Column(codes[clustering.images_n], names)
    return columns


def _value(line: list[str], place: int) -> str:
    return (line[place].strip() if place < len(line) else "") or NONE
