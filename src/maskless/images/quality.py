"""How good each channel of an image is: noise, positive area, saturation, drift, focus.

Axes: C = channels, Y = rows, X = columns. Measured on raw counts, before anything is taken away.
Finer pixels are first summed to about 1 um, so that images of every resolution compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from maskless.images.hot_pixels import remove_hot_pixels
from maskless.images.image import Image, Panel
from maskless.images.otsu import otsu_threshold

if TYPE_CHECKING:
    from maskless.config import CleanSettings

NOISE_ONLY = 0.05
"""Signal-to-noise below which a channel holds no more than noise.

In 11 spleen regions of raw IMC the background metals lie below (gas, glass, empty masses: 0.00 to
0.04 but for dust), the weakest antibody (CD11b) between 0.17 and 0.47."""

FLAT = 0.2
"""Background channels of less structure show the instrument alone and tell its drift."""

_LARGER_UM = 15.0  # structures of this size, regions and not cells, do not count as detail
_BLOCKS = 20  # of rows, for drift
_LEAST_IN_BLOCK = 0.02  # positive share that a block of rows needs
_LEAST_LEVELS = 5  # below so many different values the highest one is no ceiling


@dataclass(frozen=True)
class ImageQuality:
    """What :func:`measure_quality` found; each tuple has one number a channel.

    Attributes
    ----------
    signal_to_noise
        Variance of the structure over that of the noise; about 0 = noise only, 0 = one value
        throughout.
    positive_share
        Of the area, above Otsu's threshold of the smoothed channel; 0 where there is noise only.
    contrast
        Mean counts in the positive area over those outside; NaN where there is none.
    level
        Median counts of the positive area (of all, where there is noise only), for 1 um2 or so.
    saturated_share
        Of the pixels, at the highest value that the file or the instrument can hold.
    detail_um
        Width of the finest structures: sigma of the Gaussian blob that is as alike to itself one
        and two steps aside; grows out of focus. NaN where there is too little signal.
    drift
        Change from the first to the last rows, -0.5 = half; NaN where it cannot be told.
    hot_pixels
        Share of single pixels far above their neighbours.
    image_drift
        Of the instrument: the change that the channels which `drift_of` names agree on.
    drift_of
        ``"background"`` (flat background metals), ``"stains"`` (the least change that nuclei and
        four fifths of the channels share), or ``""`` where neither can tell.
    """

    channels: tuple[str, ...]
    signal_to_noise: tuple[float, ...]
    positive_share: tuple[float, ...]
    contrast: tuple[float, ...]
    level: tuple[float, ...]
    saturated_share: tuple[float, ...]
    detail_um: tuple[float, ...]
    drift: tuple[float, ...]
    hot_pixels: tuple[float, ...]
    image_drift: float
    drift_of: str

    def to_dict(self) -> dict[str, Any]:
        """As plain types for JSON; numbers that are none become null."""
        return {key: _plain(value) for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ImageQuality:
        """Read what :meth:`to_dict` wrote."""
        told: dict[str, Any] = {}
        for field in fields(cls):
            value = content[field.name]
            if isinstance(value, list | tuple):
                value = tuple(np.nan if item is None else item for item in value)
            told[field.name] = np.nan if value is None else value
        return cls(**told)


def measure_quality(
    image: Image, panel: Panel, settings: CleanSettings | None = None
) -> ImageQuality:
    """Measure every channel of a raw image.

    Parameters
    ----------
    image
        Raw counts, finite.
    panel
        Of its cohort: its background channels tell the drift of the instrument.
    settings
        Threshold of the hot pixels, which are set aside first.

    Notes
    -----
    Signal-to-noise is r / (1 - r), with r the correlation of neighbouring pixels (Frank and Al-Ali
    1975, doi:10.1038/256376a0), of square roots, which give counts the same noise everywhere
    (Anscombe 1948), each row's mean taken away. Otsu's threshold parts positive from other pixels
    as in Windhager et al. 2023, doi:10.1038/s41596-023-00881-0. Drift is the Theil-Sen slope of the
    logarithms over blocks of rows: of their means in flat channels, else of the median positive
    pixel, so that a denser part of the tissue is no drift.
    """
    threshold = "poisson" if settings is None else settings.hot_pixel_threshold
    factor = max(1, round(1.0 / image.um_per_pixel))
    rows: list[tuple[float, ...]] = []
    for plane in np.asarray(image.pixels_cyx):
        plane_yx = plane.astype(np.float32)
        cleaned_cyx, changed = remove_hot_pixels(plane_yx[None], threshold)
        coarse_yx = _summed(cleaned_cyx[0], factor)
        measured = _measured(coarse_yx, image.um_per_pixel * factor)
        rows.append((*measured, _saturated(plane), float(changed[0]) / plane.size))
    noise, share, contrast, level, detail, mean, flat_drift, drift, saturated, hot = (
        tuple(float(value) for value in column) for column in zip(*rows, strict=True)
    )
    flat = [
        i
        for i, channel in enumerate(panel.channels)
        if channel.kind == "background" and noise[i] < FLAT and mean[i] >= 1
    ]
    drifts = np.where([i in flat for i in range(len(noise))], flat_drift, drift)
    image_drift, drift_of = _instrument(drifts, flat, panel)
    return ImageQuality(
        image.channels,
        noise,
        share,
        contrast,
        level,
        saturated,
        detail,
        tuple(float(value) for value in drifts),
        hot,
        image_drift,
        drift_of,
    )


def _instrument(drifts: NDArray[np.float64], flat: list[int], panel: Panel) -> tuple[float, str]:
    """Drift that the flat channels agree on; without them, that nearly all stains share."""
    if len(flat) > 1:
        return float(np.median(drifts[flat])), "background"
    used = drifts[panel.used]
    used = used[np.isfinite(used)]
    nuclear = drifts[[panel.index(name) for name in panel.nuclear]]
    nuclear = nuclear[np.isfinite(nuclear)]
    if not len(nuclear):
        return float("nan"), ""
    # The least of the changes on which nuclei and four fifths of the channels agree.
    low, high = np.percentile(used, [20, 80])
    lowest, highest = min(low, nuclear.min()), max(high, nuclear.max())
    return float(lowest if lowest > 0 else highest if highest < 0 else 0.0), "stains"


def _summed(plane_yx: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Blocks of factor x factor pixels summed; what fills no block is left out."""
    rows, columns = (size // factor for size in plane_yx.shape)
    if factor == 1 or min(rows, columns) < 3:
        return plane_yx
    cut_yx = plane_yx[: rows * factor, : columns * factor]
    blocks = cut_yx.reshape(rows, factor, columns, factor)
    return np.asarray(blocks.sum(axis=(1, 3)), dtype=np.float32)


def _measured(counts_yx: NDArray[np.float32], um_per_pixel: float) -> tuple[float, ...]:
    """Signal-to-noise, share, contrast, level, detail, mean, drift if flat, drift if stained."""
    nan = float("nan")
    mean = float(counts_yx.mean())
    level = float(np.median(counts_yx))
    if counts_yx.max() == counts_yx.min() or min(counts_yx.shape) < 3:
        return 0.0, 0.0, nan, level, nan, mean, nan, nan
    flat_drift = _change(np.array([block.mean() for block in _blocks(counts_yx)]))
    # Divided by its mean the channel has no unit: the square root then fits counts, and harms none.
    root_yx = np.sqrt(np.maximum(counts_yx, 0))
    root_yx -= root_yx.mean(axis=1, keepdims=True)
    variance = float(np.square(root_yx).mean())
    beside = _covariance(root_yx, 1)
    # Above 0, which is kept for channels of one value throughout.
    alike = min(max(beside / variance, 1e-5), 0.999) if variance > 0 else 1e-5
    noise = alike / (1 - alike)
    if noise < NOISE_ONLY:
        return noise, 0.0, nan, level, nan, mean, flat_drift, nan
    detail = _detail_um(root_yx, um_per_pixel)
    smooth_yx = ndimage.gaussian_filter(np.maximum(counts_yx, 0), 1.0 / um_per_pixel)
    positive_yx = np.sqrt(smooth_yx) > otsu_threshold(np.sqrt(smooth_yx))
    inside, outside = counts_yx[positive_yx], counts_yx[~positive_yx]
    if not len(inside):
        return noise, 0.0, nan, level, detail, mean, flat_drift, nan
    contrast = float(inside.mean() / outside.mean()) if outside.any() else nan
    levels = np.array(
        [
            np.median(smooth[positive]) if positive.mean() > _LEAST_IN_BLOCK else np.nan
            for smooth, positive in zip(_blocks(smooth_yx), _blocks(positive_yx), strict=True)
        ]
    )
    return (
        noise,
        float(positive_yx.mean()),
        contrast,
        float(np.median(inside)),
        detail,
        mean,
        flat_drift,
        _change(levels),
    )


def _detail_um(root_yx: NDArray[np.float32], um_per_pixel: float) -> float:
    """Sigma of the blob with this correlation one and two steps aside, noise having none."""
    fine_yx = root_yx - ndimage.uniform_filter(root_yx, round(_LARGER_UM / um_per_pixel))
    beside, further = _covariance(fine_yx, 1), _covariance(fine_yx, 2)
    if not 0 < further < beside:
        return float("nan")
    return um_per_pixel * float(np.sqrt(3 / (4 * np.log(beside / further))))


def _covariance(centred_yx: NDArray[np.float32], step: int) -> float:
    """Mean product of pixels `step` apart, along rows and along columns."""
    down = (centred_yx[:-step] * centred_yx[step:]).mean()
    across = (centred_yx[:, :-step] * centred_yx[:, step:]).mean()
    return float(down + across) / 2


def _blocks(plane_yx: NDArray[Any]) -> list[NDArray[Any]]:
    return np.array_split(plane_yx, min(_BLOCKS, len(plane_yx)), axis=0)


def _change(levels: NDArray[np.float64]) -> float:
    """Relative change from first to last; NaN where fewer than half of the blocks tell."""
    from scipy.stats import theilslopes

    told = np.isfinite(levels) & (levels > 0)
    if told.sum() < max(3, len(levels) / 2):
        return float("nan")
    place = np.linspace(0, 1, len(levels))
    return float(np.expm1(theilslopes(np.log(levels[told]), place[told])[0]))


def _saturated(plane_yx: NDArray[Any]) -> float:
    """Share of pixels at a ceiling: that of the type, or one where the tail ends in a wall.

    Without a ceiling the highest value is rare beside those a little below it.
    """
    highest = float(plane_yx.max())
    at_top = int(np.count_nonzero(plane_yx == plane_yx.max()))
    if plane_yx.dtype.kind in "ui" and highest == np.iinfo(plane_yx.dtype).max:
        return at_top / plane_yx.size
    if at_top < max(10, 1e-5 * plane_yx.size) or highest <= 0:
        return 0.0
    # A grid of pixels tells whether there are levels at all: sorting a whole slide takes long.
    step = max(1, int(np.sqrt(plane_yx.size / 1_000_000)))
    if len(np.unique(plane_yx[::step, ::step])) < _LEAST_LEVELS:
        return 0.0
    next_lower = plane_yx[plane_yx < plane_yx.max()].max()
    below = max(
        int(np.count_nonzero(plane_yx == next_lower)),
        int(np.count_nonzero(plane_yx > 0.95 * highest)) - at_top,
    )
    return at_top / plane_yx.size if at_top > below else 0.0


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return round(value, 6) if np.isfinite(value) else None
    return value
