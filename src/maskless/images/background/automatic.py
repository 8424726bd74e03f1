"""Signal and background told apart by counts alone, with no labels.

Axes: C = channels, Y = rows, X = columns.

Counts of ions follow Poisson's law: the noise grows with the signal, and single pixels say little.
So the counts are averaged over a Gaussian window of 1 um and brought to a scale on which this mean
has a standard deviation of 1 whatever its level (Anscombe 1948, doi:10.1093/biomet/35.3-4.246). On
this scale the pixels of a cohort make one histogram a marker. It is cut where Otsu's criterion
(1979, doi:10.1109/TSMC.1979.4310076) says, but never less than 5 standard deviations above the
background: where a marker is rare, Otsu would cut through the noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from maskless.images.background.filters import gaussian_kernel, smooth
from maskless.images.image import Image

WINDOW_UM = 1.0
"""Sigma of the local mean; at least 1 pixel."""

LEAST_ABOVE = 5.0
"""Standard deviations above the background that signal lies at least."""

_BIN = 0.1  # of the histograms, in standard deviations
_MOST = 1e5  # standard deviations; a histogram reaches no farther
_MODE_SIGMA = 4.0  # bins by which a histogram is smoothed before its modes are looked for
_LEAST_MODE = 0.1  # of the highest mode: lower ones are taken for ripples
_KERNEL_WINDOW = 3.0


@dataclass(frozen=True)
class Cut:
    """Where signal begins on the scale of :func:`stabilised_mean`.

    Attributes
    ----------
    at
        As likely signal as background.
    slope
        By how much the logarithm of their odds grows with one unit of the scale.
    """

    at: float
    slope: float

    def probability(self, mean_yx: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probability of signal."""
        exponent = np.clip((mean_yx - np.float32(self.at)) * np.float32(self.slope), -30, 30)
        return np.asarray(1 / (1 + np.exp(-exponent)), dtype=np.float32)


NOTHING = Cut(1e9, 1.0)
"""No signal anywhere."""


def stabilised_mean(counts_yx: NDArray[np.float32], um_per_pixel: float) -> NDArray[np.float32]:
    """Local mean of counts on a scale where Poisson's noise has a standard deviation of about 1.

    Parameters
    ----------
    counts_yx
        Linear, >= 0, shape (rows, columns).
    um_per_pixel
        Edge of a pixel.

    Returns
    -------
    mean_yx
        2 sqrt(n m + 3/8), where m is the local mean and n how many pixels it is worth; float32.
    """
    kernel = gaussian_kernel(0, max(1.0, WINDOW_UM / um_per_pixel), _KERNEL_WINDOW)
    pixels = np.float32(1 / float((kernel**2).sum()) ** 2)
    mean_yx = smooth(counts_yx, kernel)
    return np.asarray(2 * np.sqrt(pixels * mean_yx + np.float32(0.375)), dtype=np.float32)


class Histogram:
    """Values of :func:`stabilised_mean` of one marker, collected image by image."""

    def __init__(self) -> None:
        self._counts = np.zeros(0, dtype=np.int64)

    def add(self, mean_yx: NDArray[np.float32]) -> None:
        """Count further pixels."""
        within = np.minimum(mean_yx.ravel(), np.float32(_MOST))
        found = np.bincount((within / np.float32(_BIN)).astype(np.int64))
        longer, shorter = sorted((self._counts, found), key=len, reverse=True)
        self._counts = longer.copy()
        self._counts[: len(shorter)] += shorter

    def cut(self) -> Cut:
        """Where signal begins."""
        middle = np.asarray((np.arange(len(self._counts)) + 0.5) * _BIN, dtype=np.float64)
        share = np.asarray(self._counts / max(1, int(self._counts.sum())), dtype=np.float64)
        if np.count_nonzero(share) < 2:
            return NOTHING
        least = background_level(share) + LEAST_ABOVE
        at = max(otsu(share, middle), least)
        at = least + (at - least) * float(share[middle < at].sum())
        below = middle < at
        if share[~below].sum() == 0:
            return Cut(at, 1.0)
        means = [float(np.average(middle[s], weights=share[s])) for s in (below, ~below)]
        spread = np.where(below, middle - means[0], middle - means[1])
        variance = max(1.0, float(share @ spread**2))
        return Cut(at, (means[1] - means[0]) / variance)


def otsu(share: NDArray[np.float64], middle: NDArray[np.float64]) -> float:
    """Cut that makes the variance between the two sides of a histogram largest."""
    weight, moment = np.cumsum(share), np.cumsum(share * middle)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (moment[-1] * weight - moment) ** 2 / (weight * (1 - weight))
    between[~np.isfinite(between)] = -1.0
    return float(middle[np.argmax(between)]) + _BIN / 2


def background_level(share: NDArray[np.float64]) -> float:
    """Lowest mode of a histogram that is not a mere ripple."""
    # The first bin of all holds what is 0: beyond it there is nothing to be smoothed with.
    curve = gaussian_filter1d(np.pad(share, int(4 * _MODE_SIGMA)), _MODE_SIGMA, mode="constant")
    rising, falling = curve[1:-1] > curve[:-2], curve[1:-1] >= curve[2:]
    modes = np.flatnonzero(rising & falling & (curve[1:-1] > _LEAST_MODE * curve.max())) + 1
    return (float(modes[0]) - int(4 * _MODE_SIGMA) + 0.5) * _BIN


@dataclass(frozen=True)
class AutomaticSignal:
    """Probability of signal by the cuts of a cohort.

    Attributes
    ----------
    cuts
        By marker.
    """

    cuts: dict[str, Cut]

    def __call__(
        self, image: Image, counts_cyx: NDArray[np.float32], markers: Sequence[str]
    ) -> Iterator[NDArray[np.float32]]:
        """Probability of signal of each of the markers in turn, shape (Y, X)."""
        for marker in markers:
            mean_yx = stabilised_mean(counts_cyx[image.channels.index(marker)], image.um_per_pixel)
            yield self.cuts[marker].probability(mean_yx)
