"""Why groups lie apart and what makes a cell: exact shares of the markers.

n = cells, C = markers of the encoder, K = features of a marker. Only mean features are needed,
since the fusion is linear; they are read in blocks and the mean over all cells is kept.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maskless.annotate.study_cells import StudyCells
from maskless.errors import InputError

if TYPE_CHECKING:
    from maskless.encoder import Encoder

Floats = NDArray[np.float64]


class Why:
    """Explains differences with a study's encoder.

    Parameters
    ----------
    cells
        With features.
    encoder_folder
        Of the study.
    """

    def __init__(self, cells: StudyCells, encoder_folder: Path) -> None:
        self._cells = cells
        self._folder = encoder_folder
        self._encoder: Encoder | None = None
        self._total: Floats | None = None
        self._lock = threading.Lock()

    def prepare(self) -> None:
        """Load the encoder and sum up all features, so that the first question is quick."""
        self._loaded()
        self._all()

    def groups(self, first: NDArray[Any], second: NDArray[Any] | None) -> list[dict[str, Any]]:
        """Shares of the markers in the distance of two groups of cells, the largest first.

        Parameters
        ----------
        first, second
            Rows in growing order; None = all other cells.

        Returns
        -------
        list of dict
            marker, share (they add up to 1), mean activations a and b.

        Raises
        ------
        InputError
            If a group has no cells, the two cannot be told apart, or the encoder does not fit.
        """
        from maskless.encoder import explain_difference

        rest = second is None
        if second is None:
            mask = np.ones(self._cells.count, bool)
            mask[first] = False
            second = np.flatnonzero(mask)
        if not len(first) or not len(second):
            raise InputError("a group to compare has no cells")
        encoder = self._loaded()
        sum_a = self._sum(first)
        sum_b = self._all() - sum_a if rest else self._sum(second)
        found = explain_difference(encoder, (sum_a / len(first))[None], (sum_b / len(second))[None])
        return self._rows(found, self._mean(first), self._mean(second))

    def cell(self, row: int, beside: NDArray[Any] | None = None) -> list[dict[str, Any]]:
        """Contributions of the markers to how a cell differs from the mean of cells.

        Parameters
        ----------
        row
            The cell.
        beside
            Rows to compare with; None = all cells.
        """
        from maskless.encoder import explain_difference

        encoder = self._loaded()
        one = np.array([row], np.uint32)
        if beside is None:
            mean = self._all() / self._cells.count
            activations = self._cells.activations_nm.mean(axis=0, dtype=np.float64)
        else:
            mean, activations = self._sum(beside) / max(len(beside), 1), self._mean(beside)
        found = explain_difference(encoder, self._sum(one)[None], mean[None])
        return self._rows(found, self._mean(one), activations)

    def _rows(self, found: Any, mean_a: Floats, mean_b: Floats) -> list[dict[str, Any]]:
        place = {name: i for i, name in enumerate(self._cells.markers)}
        return [
            {
                "marker": marker,
                "share": share,
                "a": float(mean_a[place[marker]]) if marker in place else None,
                "b": float(mean_b[place[marker]]) if marker in place else None,
            }
            for marker, share in found.ranked()
        ]

    def _mean(self, rows: NDArray[Any]) -> Floats:
        return np.asarray(self._cells.activations_nm[rows].mean(axis=0, dtype=np.float64))

    def _sum(self, rows: NDArray[Any]) -> Floats:
        total: Floats | None = None
        for _, block in self._cells.rows_of("X_features", rows):
            part = block.sum(axis=0, dtype=np.float64)
            total = part if total is None else total + part
        if total is None:
            raise InputError("a group to compare has no cells")
        return total

    def _all(self) -> Floats:
        with self._lock:
            if self._total is None:
                self._total = self._sum(np.arange(self._cells.count, dtype=np.uint32))
            return self._total

    def _loaded(self) -> Encoder:
        from maskless.encoder import load_encoder

        with self._lock:
            if self._encoder is None:
                self._encoder = load_encoder(self._folder)
            return self._encoder
