"""One threshold between two classes of values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def otsu_threshold(values: NDArray[np.floating[Any]], bins: int = 256) -> float:
    """The threshold that parts values into two classes of greatest variance between them.

    Parameters
    ----------
    values
        Any shape, not empty, finite.
    bins
        Of the histogram.

    Returns
    -------
    threshold
        The middle of a bin; the value itself if all are the same.

    Notes
    -----
    Otsu 1979, doi:10.1109/TSMC.1979.4310076.
    """
    values = values.astype(np.float64)  # bins of a narrow range can be empty steps in float32
    low, high = float(values.min()), float(values.max())
    if not high - low > bins * np.spacing(max(abs(low), abs(high))):
        return low
    counts, edges = np.histogram(values, bins=bins, range=(low, high))
    middles = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1]
    sum_below = np.cumsum(counts * middles)
    above = values.size - below
    # the first bin holds the minimum and the last the maximum: neither class is ever empty
    difference = sum_below[:-1] / below - (sum_below[-1] - sum_below[:-1]) / above
    return float(middles[np.argmax(below * above * difference**2)])
