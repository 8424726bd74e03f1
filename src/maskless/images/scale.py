"""One scale for a whole cohort: about 1 is bright in every channel, 0 stays 0.

Axes: C = channels, Y = rows, X = columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.images.counts import counts_of
from maskless.images.image import ImageSet
from maskless.progress import track

if TYPE_CHECKING:
    from maskless.config import CleanSettings
    from maskless.images.corrections import Correction

METHODS = ("arcsinh", "percentile", "z", "none")

COHORT_SAMPLE_PIXELS = 1_000_000
"""Pixels that the scaling is fitted to, in all images together."""

AUTO_COFACTOR_DIVISOR = 5.0
"""cofactor = bright level / this: linear up to a fifth of bright, logarithmic above.

Chosen on labelled cells of IMC spleen (held-out regions) and CODEX lymph node: disc means of pixels
scaled so told cell types apart slightly better than with any fixed cofactor or any quantile of the
non-zero pixels. It also makes the result independent of the unit of the counts."""

RARE_SHARE = 0.03
RARE_PERCENTILE = 90.0
"""Where fewer than RARE_SHARE of the pixels are not 0, a percentile of all pixels would call
single counts bright; then it is this percentile of the non-zero pixels, if that is higher."""

_TINY = 1e-30  # differences that float32 could not divide by


@dataclass(frozen=True)
class Scaling:
    """How counts of a cohort become scaled pixels.

    Attributes
    ----------
    method
        ``"arcsinh"``: arcsinh(x / cofactor) / top; ``"percentile"`` and ``"none"``: x / top;
        ``"z"``: (x - zero) / top, 0 below.
    channels
        Names, in the order of the image's planes.
    cofactors
        In counts, one a channel; 1 where the method needs none.
    percentile
        Of the cohort's pixels, which becomes 1.
    tops
        The divisor of each channel, after arcsinh.
    empty
        Names of channels that hold one and the same value in the whole cohort; their top is 1.
    zeros
        For ``"z"``: counts that become 0, the cohort's mean of each channel; top is then its
        standard deviation. Both are of counts cut at the percentile, so that few bright pixels do
        not set them.
    """

    method: str
    channels: tuple[str, ...]
    cofactors: tuple[float, ...]
    percentile: float
    tops: tuple[float, ...]
    empty: tuple[str, ...] = ()
    zeros: tuple[float, ...] = ()

    def apply(self, counts_cyx: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scale an image of this cohort.

        Parameters
        ----------
        counts_cyx
            >= 0, shape (channels, rows, columns).

        Returns
        -------
        pixels_cyx
            float32, >= 0, same shape; rises with the counts.
        """
        scaled_cyx = np.array(counts_cyx, dtype=np.float32)
        zeros = self.zeros or (0.0,) * len(self.tops)
        for plane_yx, cofactor, top, zero in zip(
            scaled_cyx, self.cofactors, self.tops, zeros, strict=True
        ):
            if zero:
                plane_yx -= np.float32(zero)
                np.maximum(plane_yx, 0, out=plane_yx)
            if self.method == "arcsinh":
                plane_yx /= np.float32(cofactor)
                np.arcsinh(plane_yx, out=plane_yx)
            plane_yx /= np.float32(top)
        return scaled_cyx

    def only(self, channels: Sequence[str]) -> Scaling:
        """The scaling of some channels, in their order."""
        places = [self.channels.index(name) for name in channels]
        return replace(
            self,
            channels=tuple(channels),
            cofactors=tuple(self.cofactors[i] for i in places),
            tops=tuple(self.tops[i] for i in places),
            zeros=tuple(self.zeros[i] for i in places) if self.zeros else (),
            empty=tuple(name for name in self.empty if name in channels),
        )

    def scaled(self, counts_nc: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Scale a table of counts, one column a channel, as :meth:`apply` does pixels."""
        return self.apply(np.asarray(counts_nc, np.float32).T[:, :, None])[:, :, 0].T

    def linear(self, pixels_nc: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Counts that scaled pixels stand for, one column a channel: the opposite of `scaled`."""
        counts_nc = np.array(pixels_nc, dtype=np.float64)
        for place, column in enumerate(counts_nc.T):
            column *= self.tops[place]
            if self.method == "arcsinh":
                np.sinh(column, out=column)
                column *= self.cofactors[place]
            if self.zeros:
                column += self.zeros[place]
        return counts_nc

    def to_dict(self) -> dict[str, Any]:
        """As plain types for JSON; :meth:`from_dict` gives the same scaling back."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Scaling:
        """Read what :meth:`to_dict` wrote.

        Raises
        ------
        InputError
            If a key is missing, or the values do not make a scaling.
        """
        try:
            scaling = cls(
                method=str(content["method"]),
                channels=tuple(str(name) for name in content["channels"]),
                cofactors=tuple(float(value) for value in content["cofactors"]),
                percentile=float(content["percentile"]),
                tops=tuple(float(value) for value in content["tops"]),
                empty=tuple(str(name) for name in content["empty"]),
                zeros=tuple(float(value) for value in content.get("zeros", ())),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError("this is not a stored scaling", found=repr(error)) from None
        factors = (*scaling.cofactors, *scaling.tops)
        if (
            scaling.method not in METHODS
            or not len(scaling.channels) == len(scaling.cofactors) == len(scaling.tops)
            or len(scaling.zeros) not in (0, len(scaling.channels))
            or not all(np.isfinite(value) and value >= 0 for value in scaling.zeros)
            or not all(np.isfinite(value) and value > 0 for value in factors)
        ):
            raise InputError(
                "this stored scaling is damaged",
                expected="a known method, and a cofactor and a top above 0 for each channel",
            )
        return scaling


def fit_scaling(
    images: ImageSet,
    settings: CleanSettings,
    seed: int,
    corrections: Sequence[Correction] = (),
) -> Scaling:
    """Find the scale of a cohort in one pass; the peak memory is one image and the sample.

    Every image gives an equal share of the sample, at random places, and an image smaller than
    its share gives all its pixels. Images that are 0 throughout (aborted acquisitions) give none.
    The places depend on the seed and the image's name, so the order of the images does not matter.

    Parameters
    ----------
    images
        Raw images.
    settings
        Method, cofactor, percentile, and the filters that come before.
    seed
        Of the places.
    corrections
        From :func:`maskless.images.corrections.prepare_corrections`.

    Returns
    -------
    scaling
        One for all images.

    Raises
    ------
    InputError
        If there are no images, pixels are NaN or infinite, or an image's channels differ from the
        panel's.
    """
    if not len(images):
        raise InputError("there are no images to clean")
    names = images.panel.names
    share = max(1, COHORT_SAMPLE_PIXELS // len(images))
    samples: list[NDArray[np.float32]] = []
    lowest = np.full(len(names), np.inf)
    highest = np.zeros(len(names))
    for image in track(images, "clean (fit scale)", total=len(images)):
        if len(image.pixels_cyx) != len(names):
            raise InputError(
                "this image does not have the channels of the panel",
                image=image.name,
                expected=f"{len(names)} channels",
                found=len(image.pixels_cyx),
            )
        counts_cyx, _ = counts_of(image, settings, corrections)
        counts_cn = counts_cyx.reshape(len(names), -1)
        lowest = np.minimum(lowest, counts_cn.min(axis=1))
        highest = np.maximum(highest, counts_cn.max(axis=1))
        if counts_cn.any():
            samples.append(counts_cn[:, _places(counts_cn.shape[1], share, image.name, seed)])
    sample_cn = np.concatenate(samples, axis=1) if samples else np.zeros((len(names), 1))

    constant = highest - lowest < _TINY
    bright = np.array(
        [
            1.0 if constant[i] else _bright_level(sample_cn[i], settings.percentile, highest[i])
            for i in range(len(names))
        ]
    )
    cofactors = np.ones(len(names))
    tops = np.ones(len(names))
    if settings.scaling == "arcsinh":
        cofactors = (
            bright / AUTO_COFACTOR_DIVISOR
            if settings.cofactor == "auto"
            else np.full(len(names), float(settings.cofactor))
        )
        tops = np.arcsinh(bright / cofactors)
    elif settings.scaling == "percentile":
        tops = bright
    zeros = np.zeros(len(names))
    if settings.scaling == "z":
        cut_cn = np.minimum(sample_cn, bright[:, None]).astype(np.float64)
        zeros, tops = cut_cn.mean(axis=1), cut_cn.std(axis=1)
        tops[tops < _TINY] = 1.0
    cofactors[constant] = tops[constant] = 1.0
    zeros[constant] = 0.0
    return Scaling(
        method=settings.scaling,
        channels=names,
        cofactors=tuple(cofactors.tolist()),
        percentile=settings.percentile,
        tops=tuple(tops.tolist()),
        empty=tuple(name for name, same in zip(names, constant, strict=True) if same),
        zeros=tuple(zeros.tolist()) if settings.scaling == "z" else (),
    )


def _bright_level(counts_n: NDArray[np.floating[Any]], percentile: float, highest: float) -> float:
    """Counts that are called bright; above 0 if `highest` is."""
    level = float(np.percentile(counts_n, percentile))
    stained = counts_n[counts_n > 0]
    if len(stained) and (level == 0 or len(stained) < RARE_SHARE * len(counts_n)):
        level = max(level, float(np.percentile(stained, RARE_PERCENTILE)))
    return level if level > 0 else float(highest)  # the few stained pixels were not in the sample


def _places(n_pixels: int, share: int, name: str, seed: int) -> NDArray[np.intp]:
    """Which pixels of an image are in the sample."""
    if n_pixels <= share:
        return np.arange(n_pixels)
    digest = int.from_bytes(hashlib.sha256(name.encode("utf-8")).digest()[:8], "little")
    generator = np.random.default_rng(np.random.SeedSequence([seed, digest]))
    return generator.choice(n_pixels, size=share, replace=False, shuffle=False)
