"""Tables as people save them: CSV with commas, semicolons or tabs; what is known of each image."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from maskless.errors import InputError

IMAGE_TABLE = "images.csv"
"""In a study's folder: a column ``image`` and any others, ``image,patient,batch``."""


def csv_rows(text: str) -> list[list[str]]:
    """Rows of a table with commas, semicolons or tabs, empty lines left out.

    Raises
    ------
    InputError
        If it cannot be read, or there is nothing in it.
    """
    text = text.removeprefix("\ufeff")
    first = re.split(r"[\r\n]", re.sub(r'"[^"]*"', "", text), maxsplit=1)[0]
    delimiter = max(",;\t", key=first.count)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # notes may be longer than 128 kB
    try:
        rows = [
            row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row
        ]
    except csv.Error as error:
        raise InputError("this is not a readable table", found=str(error)) from error
    if not rows:
        raise InputError("the table is empty", do="Save the sheet as CSV and import that")
    return rows


def read_image_table(file: Path) -> tuple[tuple[str, ...], dict[str, dict[str, str]]]:
    """Read what a table tells of each image.

    Parameters
    ----------
    file
        CSV, UTF-8, with a heading; rows without an image are left out.

    Returns
    -------
    columns, told
        Titles of the columns but ``image``, in their order; by image, the text in each of them.

    Raises
    ------
    InputError
        If the file is not UTF-8, is empty, has no column "image", or has an image twice.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("this is not UTF-8 text", file=file, do="Save it as UTF-8") from None
    if not text.strip():
        raise InputError("the table is empty", file=file, found="no column image")
    lines = csv_rows(text)
    heading = [title.strip() for title in lines[0]]
    lower = [title.lower() for title in heading]
    if "image" not in lower:
        raise InputError(
            "the table has no column for the image",
            file=file,
            expected="image and others, such as patient",
            found=f"no column image, but {', '.join(heading)[:200]}",
        )
    key = lower.index("image")
    told: dict[str, dict[str, str]] = {}
    for line in lines[1:]:
        cells = [text.strip() for text in line] + [""] * (len(heading) - len(line))
        name = cells[key]
        if name in told:
            raise InputError("an image stands twice in the table", file=file, image=name)
        if name:
            told[name] = {title: cells[i] for i, title in enumerate(heading) if i != key and title}
    return tuple(title for i, title in enumerate(heading) if i != key and title), told
