"""Features of pixels: Gaussian filters and what is made of them, as ilastik 1.4 computes them.

Axes: C = channels, F = features, Y = rows, X = columns. Float32; each plane by itself, in 2D.

For a scale above 1 pixel the plane is first smoothed with sigma sqrt(scale^2 - 1), and the filter
then has sigma 1; up to 1 both have the scale itself. Kernels end at 3.5 sigma for this smoothing
and at 2 sigma for the filter; beyond its border a plane goes on as its mirror image, the last pixel
not repeated. Kernels are scaled so that derivatives of polynomials come out right on the grid
(Koethe's VIGRA, 1998-2004, and Peter's fastfilters, 2016, do so; both MIT).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numba import njit
from numpy.typing import NDArray

from maskless.errors import InputError

FeatureKind = Literal[
    "GaussianSmoothing",
    "LaplacianOfGaussian",
    "GaussianGradientMagnitude",
    "DifferenceOfGaussians",
    "StructureTensorEigenvalues",
    "HessianOfGaussianEigenvalues",
]
FEATURE_KINDS: tuple[FeatureKind, ...] = get_args(FeatureKind)

_PRESMOOTH_WINDOW = 3.5
_FILTER_WINDOW = 2.0
_PAIRS = ("StructureTensorEigenvalues", "HessianOfGaussianEigenvalues")
_INNER = 0.5  # of the structure tensor: sigma of the gradients, times the filter's sigma
_NARROW = 0.66  # of the difference of Gaussians: sigma of the narrow one, times the filter's
_FILTER_REACH = 4  # rows that a filter of sigma 1 looks at, on each side, at most

_STRIP_BYTES = 96 * 2**20


@dataclass(frozen=True)
class Feature:
    """One filter at one scale; eigenvalues are two features, the larger first.

    Attributes
    ----------
    kind
        One of FEATURE_KINDS.
    scale
        Sigma in pixels.
    """

    kind: FeatureKind
    scale: float

    @property
    def planes(self) -> int:
        """How many planes it gives for one channel."""
        return 2 if self.kind in _PAIRS else 1


def gaussian_kernel(order: int, sigma: float, window: float) -> NDArray[np.float32]:
    """Gaussian or its first or second derivative, to correlate with.

    Parameters
    ----------
    order
        0, 1 or 2.
    sigma
        In pixels, above 0.
    window
        The kernel ends at this many sigma, rounded to whole pixels.

    Returns
    -------
    kernel
        Odd length. Order 0 sums to 1; order 1 and 2 give the derivative of x and x^2 / 2 as 1.
    """
    radius = math.floor(window * sigma + 0.5)
    x = np.arange(-radius, radius + 1, dtype=np.float64)
    kernel = np.exp(-0.5 * (x / sigma) ** 2)
    if order == 0:
        return np.asarray(kernel / kernel.sum(), dtype=np.float32)
    if radius == 0:  # a single pixel has no slope
        return np.zeros(1, dtype=np.float32)
    if order == 1:
        kernel *= x
        return np.asarray(kernel / (kernel @ x), dtype=np.float32)
    kernel *= (x / sigma) ** 2 - 1
    kernel -= kernel.mean()  # a plane that is the same everywhere has no curvature
    return np.asarray(kernel / (kernel @ (0.5 * x**2)), dtype=np.float32)


def smooth(plane_yx: NDArray[np.float32], kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Correlate along both axes; beyond its border the plane goes on as its mirror image.

    Parameters
    ----------
    plane_yx
        Shape (rows, columns).
    kernel
        Odd length; symmetric.
    """
    return _both(np.ascontiguousarray(plane_yx, dtype=np.float32), kernel, kernel)


def feature_count(features: Sequence[Feature], channels: int) -> int:
    """Planes that :func:`feature_strips` gives."""
    return channels * sum(feature.planes for feature in features)


def least_size(features: Sequence[Feature]) -> int:
    """Rows and columns that an image must have for these features (as ilastik asks for)."""
    return max((math.ceil(_PRESMOOTH_WINDOW * f.scale) + 1 for f in features), default=1)


def feature_strips(
    planes_cyx: NDArray[np.float32], features: Sequence[Feature]
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Features of all pixels, some rows at a time, so that memory does not grow with the image.

    Parameters
    ----------
    planes_cyx
        Shape (channels, rows, columns).
    features
        Which, in order.

    Yields
    ------
    rows
        Which rows these are.
    features_fyx
        Shape (features, those rows, columns): for each feature all channels in turn; eigenvalues
        of one channel are neighbours. The same values however the rows are cut.

    Raises
    ------
    InputError
        If the image is smaller than the widest filter.
    """
    channels, height, width = planes_cyx.shape
    least = least_size(features)
    if min(height, width) < least:
        raise InputError(
            "this image is too small for the pixel features",
            expected=f"at least {least} x {least} pixels",
            found=f"{height} x {width}",
        )
    count = feature_count(features, channels)
    halo = _FILTER_REACH + max(
        (math.floor(_PRESMOOTH_WINDOW * _presmooth_sigma(f.scale) + 0.5) for f in features),
        default=0,
    )
    rows = max(16, _STRIP_BYTES // (4 * count * width))
    for start in range(0, height, rows):
        stop = min(height, start + rows)
        first, last = max(0, start - halo), min(height, stop + halo)
        features_fyx = np.empty((count, stop - start, width), dtype=np.float32)
        for channel in range(channels):
            around_yx = np.ascontiguousarray(planes_cyx[channel, first:last], dtype=np.float32)
            inside = slice(start - first, stop - first)
            _fill(features_fyx, around_yx, inside, features, channel, channels)
        yield slice(start, stop), features_fyx


def _fill(
    features_fyx: NDArray[np.float32],
    around_yx: NDArray[np.float32],
    inside: slice,
    features: Sequence[Feature],
    channel: int,
    channels: int,
) -> None:
    """Write all features of one channel to their places."""
    bank: _Bank | None = None
    for scale in sorted({feature.scale for feature in features}):
        bank = _Bank(around_yx, scale)
        place = 0
        for feature in features:
            if feature.scale == scale:
                at = place + channel * feature.planes
                for offset, plane_yx in enumerate(bank.planes(feature.kind)):
                    features_fyx[at + offset] = plane_yx[inside]
            place += feature.planes * channels


def _presmooth_sigma(scale: float) -> float:
    return math.sqrt(scale**2 - 1) if scale > 1 else scale


class _Bank:
    """All filters of one plane at one scale; passes that several need are made once."""

    def __init__(self, plane_yx: NDArray[np.float32], scale: float) -> None:
        wide = gaussian_kernel(0, _presmooth_sigma(scale), _PRESMOOTH_WINDOW)
        self._plane_yx = _both(plane_yx, wide, wide)
        self._sigma = min(scale, 1.0)
        self._done: dict[tuple[int, int], NDArray[np.float32]] = {}

    def planes(self, kind: FeatureKind) -> tuple[NDArray[np.float32], ...]:
        if kind == "GaussianSmoothing":
            return (self._derivative(0, 0),)
        if kind == "LaplacianOfGaussian":
            return (self._derivative(0, 2) + self._derivative(2, 0),)
        if kind == "GaussianGradientMagnitude":
            x_yx, y_yx = self._derivative(0, 1), self._derivative(1, 0)
            return (np.sqrt(x_yx * x_yx + y_yx * y_yx),)
        if kind == "DifferenceOfGaussians":
            narrow = gaussian_kernel(0, _NARROW * self._sigma, _FILTER_WINDOW)
            return (self._derivative(0, 0) - _both(self._plane_yx, narrow, narrow),)
        if kind == "HessianOfGaussianEigenvalues":
            return _eigenvalues(
                self._derivative(0, 2), self._derivative(1, 1), self._derivative(2, 0)
            )
        # ilastik asks for gradients at its scale, averaged at half of it; what its filters really
        # do, and so its forests were trained on, is the other way round.
        flat, slope = (
            gaussian_kernel(order, _INNER * self._sigma, _FILTER_WINDOW) for order in (0, 1)
        )
        x_yx, y_yx = _both(self._plane_yx, flat, slope), _both(self._plane_yx, slope, flat)
        average = gaussian_kernel(0, self._sigma, _FILTER_WINDOW)
        xx, xy, yy = (_both(a, average, average) for a in (x_yx * x_yx, x_yx * y_yx, y_yx * y_yx))
        return _eigenvalues(xx, xy, yy)

    def _derivative(self, y_order: int, x_order: int) -> NDArray[np.float32]:
        key = (y_order, x_order)
        if key not in self._done:
            y, x = (gaussian_kernel(order, self._sigma, _FILTER_WINDOW) for order in key)
            self._done[key] = _both(self._plane_yx, y, x)
        return self._done[key]


def _both(
    plane_yx: NDArray[np.float32], y_kernel: NDArray[np.float32], x_kernel: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Correlate along x, then along y."""
    between_yx = np.empty_like(plane_yx)
    _along_x(plane_yx, x_kernel, between_yx)
    result_yx = np.empty_like(plane_yx)
    _along_y(between_yx, y_kernel, result_yx)
    return result_yx


def _eigenvalues(
    xx: NDArray[np.float32], xy: NDArray[np.float32], yy: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Larger and smaller eigenvalue of the symmetric 2 x 2 matrix at each pixel."""
    middle, half = np.float32(0.5) * (xx + yy), np.float32(0.5) * (xx - yy)
    root: NDArray[np.float32] = np.sqrt(half * half + xy * xy)
    return middle + root, middle - root


@njit(nogil=True, cache=True)
def _mirrored(at: int, size: int) -> int:
    """Place that stands for one beyond the border."""
    period = max(2 * size - 2, 1)
    at = abs(at) % period
    return period - at if at >= size else at


@njit(nogil=True, cache=True)
def _along_x(plane_yx: Any, kernel: Any, result_yx: Any) -> None:
    rows, columns = plane_yx.shape
    radius = len(kernel) // 2
    padded = np.empty(columns + 2 * radius, np.float32)
    for y in range(rows):
        for x in range(-radius, columns + radius):
            padded[x + radius] = plane_yx[y, _mirrored(x, columns)]
        row = result_yx[y]
        row[:] = np.float32(0)
        for k in range(len(kernel)):
            weight = kernel[k]
            for x in range(columns):
                row[x] += weight * padded[x + k]


@njit(nogil=True, cache=True)
def _along_y(plane_yx: Any, kernel: Any, result_yx: Any) -> None:
    rows, columns = plane_yx.shape
    radius = len(kernel) // 2
    for y in range(rows):
        row = result_yx[y]
        row[:] = np.float32(0)
        for k in range(len(kernel)):
            weight = kernel[k]
            from_row = plane_yx[_mirrored(y + k - radius, rows)]
            for x in range(columns):
                row[x] += weight * from_row[x]
