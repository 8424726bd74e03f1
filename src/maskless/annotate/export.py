"""Names of cells into ``obs["phenotype"]`` of cells.h5ad, the rest of the file untouched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskless.cells_file import write_columns

PHENOTYPE, BROAD = "phenotype", "phenotype_broad"


def write_phenotypes(
    file: Path,
    codes_n: NDArray[np.int32],
    names: list[str],
    broad: tuple[NDArray[np.int32], list[str]] | None = None,
) -> None:
    """Write a name for each cell, atomically: the file is copied, changed and renamed.

    Parameters
    ----------
    file
        cells.h5ad.
    codes_n, names
        For each cell the position of its name.
    broad
        The same for broad classes, kept in ``obs["phenotype_broad"]``; None = no such column.

    Raises
    ------
    InputError
        If the file does not hold these cells.
    StudyError
        If it cannot be written.
    """
    import pandas as pd

    columns: dict[str, Any] = {PHENOTYPE: pd.Categorical.from_codes(codes_n, names)}
    columns[BROAD] = pd.Categorical.from_codes(*broad) if broad is not None else None
    write_columns(file, columns, len(codes_n))
