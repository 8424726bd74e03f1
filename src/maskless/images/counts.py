"""The steps before scaling: linear counts, checked and without artefacts.

Axes: C = channels, Y = rows, X = columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.images.hot_pixels import remove_hot_pixels
from maskless.images.image import Image

if TYPE_CHECKING:
    from maskless.config import CleanSettings
    from maskless.images.corrections import Correction

_MANY_HOT_PIXELS = 0.01


def counts_of(
    image: Image, settings: CleanSettings, corrections: Sequence[Correction] = ()
) -> tuple[NDArray[np.float32], list[str]]:
    """Check an image and take the artefacts out of it.

    Scaling is fitted to what this returns, so both see the same pixels.

    Parameters
    ----------
    image
        Raw, any number type.
    settings
        Which steps, how strict.
    corrections
        From :func:`maskless.images.corrections.prepare_corrections`.

    Returns
    -------
    counts_cyx
        float32, >= 0, shape (channels, rows, columns).
    problems
        What was repaired, a sentence each.

    Raises
    ------
    InputError
        If the image has no pixels, or some are NaN or infinite; what the corrections raise.
    """
    counts_cyx, problems = _checked(image)
    if settings.hot_pixels:
        counts_cyx, changed = remove_hot_pixels(counts_cyx, settings.hot_pixel_threshold)
        share = changed / counts_cyx[0].size
        problems += [
            f"{100 * share[i]:.1f} % of the pixels of {image.channels[i]} were lowered as hot "
            "pixels, too many to be artefacts: clean.hot_pixel_threshold may be too low"
            for i in np.flatnonzero(share > _MANY_HOT_PIXELS)
        ]
    for correct in corrections:
        counts_cyx, found = correct(image, counts_cyx)
        problems += found
    return counts_cyx, problems


def _checked(image: Image) -> tuple[NDArray[np.float32], list[str]]:
    """Float32 pixels >= 0, and what had to be repaired."""
    pixels_cyx = image.pixels_cyx
    if pixels_cyx.ndim != 3 or pixels_cyx.size == 0:
        raise InputError(
            "this image has no pixels",
            image=image.name,
            file=image.source,
            expected="channels x rows x columns",
            found=pixels_cyx.shape,
        )
    counts_cyx = np.empty(pixels_cyx.shape, dtype=np.float32)
    problems = []
    for channel, plane_yx in enumerate(pixels_cyx):
        counts_cyx[channel] = plane_yx
        strange = int(np.count_nonzero(~np.isfinite(counts_cyx[channel])))
        if strange:
            raise InputError(
                f"{strange} pixels are NaN or infinite",
                image=image.name,
                channel=image.channels[channel],
                file=image.source,
                do="Leave this image out, or give these pixels a value",
            )
        negative = int(np.count_nonzero(counts_cyx[channel] < 0))
        if negative:
            np.maximum(counts_cyx[channel], 0, out=counts_cyx[channel])
            problems.append(
                f"{negative} negative pixels of {image.channels[channel]} were set to 0"
            )
    return counts_cyx, problems
