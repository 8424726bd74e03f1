"""The embedded detector: nuclei are blobs of one size, found by a difference of Gaussians.

Axes: Y = rows, X = columns; N = nuclei. NumPy and SciPy only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from maskless.errors import InputError, SettingsError
from maskless.images.hot_pixels import neighbour_maximum
from maskless.images.otsu import otsu_threshold

if TYPE_CHECKING:
    from maskless.config import DetectSettings

WIDER = 1.6
"""Sigma of the second Gaussian over the first: the ratio that is closest to a Laplacian
(Marr and Hildreth 1980, doi:10.1098/rspb.1980.0020)."""

DARK_PERCENTILE, BRIGHT_PERCENTILE = 1.0, 99.8
_HIGHEST = 1.5  # times bright: what is brighter still is cut off
_NARROWEST_SIGMA_PX = 0.6  # below this a sampled Gaussian is no Gaussian


def default_settings() -> DetectSettings:
    """Settings of a detection that names none."""
    # Settings are checked by a package that arrays do without.
    from maskless.config import DetectSettings

    return DetectSettings()


def detect_nuclei(
    plane_yx: NDArray[Any],
    um_per_pixel: float = 1.0,
    settings: DetectSettings | None = None,
) -> NDArray[np.float64]:
    """Find the centres of nuclei in one plane.

    The plane is stretched between two percentiles, its square root taken (nuclei differ in
    brightness by orders of magnitude), and blobs of the expected radius are looked for: local
    maxima of a difference of two Gaussians, at least a distance apart, the higher one winning.
    Kept are peaks that are not too low beside the others and that stand in the foreground.

    Parameters
    ----------
    plane_yx
        Shape (rows, columns), any number type, finite. Raw counts or cleaned pixels.
    um_per_pixel
        Edge of a pixel, micrometres.
    settings
        Radius, distance and thresholds (all but `method`, `files` and `cellpose_model`).

    Returns
    -------
    centres_xy
        float64, shape (N, 2): x, y in pixels, pixel centres at whole numbers; sorted by y, then x.
        All lie inside the image, nuclei cut by its edge included.

    Raises
    ------
    InputError
        If the plane is not two-dimensional, has no pixels, or holds NaN or infinite values.
    SettingsError
        If `um_per_pixel` is not a number above 0.
    """
    chosen = settings or default_settings()
    if not (np.isfinite(um_per_pixel) and um_per_pixel > 0):
        raise SettingsError(f"um_per_pixel must be a number above 0, not {um_per_pixel}")
    smooth_yx, response_yx = nuclear_response(plane_yx, um_per_pixel, chosen)
    peaks_yx = _separate_peaks(response_yx, chosen.min_distance_um / um_per_pixel)
    if len(peaks_yx) == 0:
        return np.zeros((0, 2))
    rows, columns = peaks_yx.T
    heights = response_yx[rows, columns]
    strong = heights > chosen.peak_threshold * np.percentile(heights, 90)
    stained = smooth_yx[rows, columns] > chosen.foreground * otsu_threshold(smooth_yx)
    centres_yx = _refined(response_yx, peaks_yx[strong & stained])
    order = np.lexsort((centres_yx[:, 1], centres_yx[:, 0]))
    return np.ascontiguousarray(centres_yx[order, ::-1])


def nuclear_response(
    plane_yx: NDArray[Any], um_per_pixel: float, settings: DetectSettings
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Smooth a nuclear plane to the size of nuclei, and tell how far each pixel stands out.

    Parameters
    ----------
    plane_yx, um_per_pixel, settings
        See :func:`detect_nuclei`.

    Returns
    -------
    smooth_yx, response_yx
        The stretched plane smoothed, and the difference of Gaussians: above 0 inside of blobs.

    Raises
    ------
    InputError
        See :func:`detect_nuclei`.
    """
    signal_yx = _stretched(plane_yx)
    sigma_px = max(settings.nuclear_radius_um / np.sqrt(2) / um_per_pixel, _NARROWEST_SIGMA_PX)
    smooth_yx = ndimage.gaussian_filter(signal_yx, sigma_px)
    return smooth_yx, smooth_yx - ndimage.gaussian_filter(signal_yx, WIDER * sigma_px)


def _stretched(plane_yx: NDArray[Any]) -> NDArray[np.float32]:
    """The plane from 0 (dark) over 1 (bright) to at most sqrt(1.5), without hot pixels."""
    signal_yx = np.array(plane_yx, dtype=np.float32)
    if signal_yx.ndim != 2 or signal_yx.size == 0:
        raise InputError(
            "nuclei are looked for in one plane",
            expected="rows x columns",
            found=f"an array of shape {signal_yx.shape}",
        )
    if not np.isfinite(signal_yx).all():
        raise InputError("the nuclear plane holds NaN or infinite values")
    if signal_yx.size > 1:
        highest_yx = neighbour_maximum(signal_yx)
        # A pixel is hot if it is both many times its neighbours and far above them on the scale
        # of this plane: the first spares smooth bright nuclei, the second the noise of few counts.
        middle, bright = np.percentile(signal_yx[::2, ::2], [50, 99])
        limit_yx = np.maximum(4 * highest_yx, highest_yx + 5 / 3 * (bright - middle))
        np.copyto(signal_yx, highest_yx, where=signal_yx > limit_yx)
    dark, bright = np.percentile(signal_yx, [DARK_PERCENTILE, BRIGHT_PERCENTILE])
    if not bright > dark:  # nearly all pixels are the same: stretch what little stands out
        dark, bright = signal_yx.min(), signal_yx.max()
        if not bright > dark:
            return np.zeros_like(signal_yx)
    signal_yx -= dark
    signal_yx /= bright - dark
    return np.sqrt(np.clip(signal_yx, 0, _HIGHEST, out=signal_yx), out=signal_yx)


def _separate_peaks(response_yx: NDArray[np.float32], distance_px: float) -> NDArray[np.intp]:
    """Positive local maxima, none closer than `distance_px` to a higher one that stays."""
    half_width = max(1, int(distance_px / np.sqrt(2)))  # the square inside the circle
    highest_yx = ndimage.maximum_filter(response_yx, size=2 * half_width + 1, mode="nearest")
    peaks_yx = np.argwhere((response_yx == highest_yx) & (response_yx > 0))
    if len(peaks_yx) < 2:
        return peaks_yx
    heights = response_yx[tuple(peaks_yx.T)]
    peaks_yx = peaks_yx[np.argsort(-heights, kind="stable")]
    pairs = cKDTree(peaks_yx).query_pairs(distance_px, output_type="ndarray")  # first < second
    kept = np.ones(len(peaks_yx), dtype=bool)
    for higher, lower in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]:
        if kept[higher]:
            kept[lower] = False
    return peaks_yx[kept]


def _refined(response_yx: NDArray[np.float32], peaks_yx: NDArray[np.intp]) -> NDArray[np.float64]:
    """Peaks to a fraction of a pixel: the summit of a parabola through 3 pixels, each axis."""
    centres_yx = peaks_yx.astype(np.float64)
    for axis, length in enumerate(response_yx.shape):
        inside = (peaks_yx[:, axis] > 0) & (peaks_yx[:, axis] < length - 1)
        here = peaks_yx[inside]
        step = np.eye(2, dtype=np.intp)[axis]
        middle, before, after = (
            response_yx[tuple(place.T)].astype(np.float64)
            for place in (here, here - step, here + step)
        )
        bend = before - 2 * middle + after
        shift = np.where(bend < 0, 0.5 * (before - after) / np.where(bend < 0, bend, 1), 0)
        centres_yx[inside, axis] += np.clip(shift, -0.5, 0.5)
    return centres_yx
