"""Points as int8 codes whose distances are those of the points, nearly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from maskless.analysis.parallel import parallel_map, row_ranges

LEAST_CODE_DIMENSIONS = 64
MOST_CODE_DIMENSIONS = 512
_SAMPLE = 5000
_CODING_ROWS = 8192


@dataclass(frozen=True)
class Coder:
    """Turn points into codes: centre, keep the principal axes, turn, round with one scale.

    The random turn gives every axis the same spread.
    """

    mean_d: NDArray[np.float32]
    axes_de: torch.Tensor

    @classmethod
    def fit(
        cls, points_nd: NDArray[np.float32], variance: float, rng: np.random.Generator
    ) -> Coder:
        """Find centre, axes that hold this share of the variance, and scale from a sample."""
        n, dimensions = points_nd.shape
        rows = np.sort(rng.choice(n, min(n, _SAMPLE), replace=False))
        sample = points_nd[rows]
        mean = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
        centred = torch.from_numpy(sample - mean).double()
        variances, axes = torch.linalg.eigh(centred.T @ centred)
        held = variances.flip(0).clamp(min=0).cumsum(0)
        needed = int((held < variance * held[-1]).sum()) + 1
        needed = min(max(-(-needed // 32) * 32, LEAST_CODE_DIMENSIONS), MOST_CODE_DIMENSIONS)
        kept = min(dimensions, needed)
        # Fewer dimensions are spread over more axes: their rounding errors then average out.
        coded = max(kept, LEAST_CODE_DIMENSIONS)
        turn = torch.linalg.qr(torch.from_numpy(rng.normal(size=(coded, coded))))[0][:kept]
        turn = axes.flip(1)[:, :kept] @ turn
        spread = (centred @ turn).abs().numpy()
        largest = float(np.quantile(spread, 0.9999))
        if largest == 0.0:  # nearly all points are the same
            largest = float(spread.max()) or 1.0
        return cls(mean, (turn * (127.0 / largest)).float().contiguous())

    def encode(self, points_nd: NDArray[np.float32]) -> NDArray[np.int8]:
        """Code points; spare axes make a multiple of 32."""
        coded = self.axes_de.shape[1]
        codes = np.zeros((len(points_nd), -(-coded // 32) * 32), np.int8)

        def encode_rows(rows: tuple[int, int]) -> None:
            start, stop = rows
            turned = torch.from_numpy(points_nd[start:stop] - self.mean_d) @ self.axes_de
            codes[start:stop, :coded] = turned.round_().clamp_(-127, 127).numpy()

        parallel_map(encode_rows, row_ranges(len(points_nd), _CODING_ROWS))
        return codes
