"""What is known of each image, such as its patient: STUDY/images.csv, to colour and to count by.

One row an image, a column ``image`` and any others: ``image,patient,tissue``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maskless.annotate.places import Clustering
from maskless.annotate.study_cells import MOST_CATEGORIES, Column
from maskless.csv_tables import IMAGE_TABLE, read_image_table
from maskless.errors import InputError

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
    file = folder / IMAGE_TABLE
    if not file.is_file():
        return {}
    titles, told = read_image_table(file)
    if not set(told) & set(clustering.images):
        raise InputError(
            "no image of the table is in this study",
            file=file,
            expected=", ".join(clustering.images[:5]),
            found=", ".join(list(told)[:5]) or "nothing",
        )
    columns = {}
    for title in titles:
        values = [told.get(image, {}).get(title) or NONE for image in clustering.images]
        names = tuple(dict.fromkeys(values))
        if 1 < len(names) <= MOST_CATEGORIES:
            codes = np.array([names.index(value) for value in values], np.int32)
            columns[title] = Column(codes[clustering.images_n], names)
    return columns
