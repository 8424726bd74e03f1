"""Spillover compensation as a correction of the clean stage: one matrix for the cohort's panel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.images.image import Image, Panel
from maskless.images.spillover import compensate
from maskless.images.spillover_csv import read_spillover
from maskless.images.spillover_matrix import Adapted, SpilloverMatrix

Spillover = SpilloverMatrix | NDArray[Any] | Sequence[Sequence[float]] | str | Path


@dataclass(frozen=True)
class Compensation:
    """Compensates images of one panel; a :data:`maskless.images.corrections.Correction`.

    Attributes
    ----------
    matrix
        For the panel.
    """

    matrix: Adapted

    def __call__(
        self, image: Image, counts_cyx: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], list[str]]:
        """Compensate counts; what the matrix lacks is a problem of the cohort, told once."""
        return compensate(counts_cyx, self.matrix.shares_cc, np.float32), []

    def to_dict(self) -> dict[str, Any]:
        """What was applied, as plain types for JSON."""
        shares, pairs, problems = self.matrix
        return {"pairs": pairs, "problems": list(problems), "shares": shares.tolist()}


def prepare_spillover(panel: Panel, spillover: Spillover) -> Compensation:
    """Fit a matrix to a panel.

    Parameters
    ----------
    panel
        Of the cohort.
    spillover
        A matrix, its file, or shares in the order of the panel.

    Raises
    ------
    InputError
        If the file or matrix cannot be used, or does not fit the panel.
    """
    if isinstance(spillover, str | Path):
        spillover = read_spillover(spillover)
    if isinstance(spillover, SpilloverMatrix):
        return Compensation(spillover.adapted(panel))
    shares_cc = np.asarray(spillover, dtype=np.float64)
    expected = (len(panel.channels),) * 2
    if shares_cc.shape != expected:
        raise InputError(
            "the spillover matrix does not fit the panel", expected=expected, found=shares_cc.shape
        )
    places = tuple(f"channel {i}" for i in range(len(shares_cc)))
    SpilloverMatrix(places, places, shares_cc)  # refuses what is no spillover matrix
    return Compensation(Adapted(shares_cc, int(np.count_nonzero(shares_cc)) - len(shares_cc), ()))
