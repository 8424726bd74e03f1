"""From raw counts to cleaned pixels: what is done to an image, and in which order.

1. Check: NaN and infinite pixels are errors, negative pixels become 0 (a recorded problem).
2. Hot pixels.
3. Spillover, if a matrix is given.
4. Background: pixels that are no signal become 0, if that was asked for.
5. Scale: the same factors for the whole cohort.

Steps 1 to 4 are :func:`maskless.images.counts.counts_of`; scaling is fitted to what they return.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from maskless.errors import InputError
from maskless.images.corrections import Correction, prepare_corrections
from maskless.images.counts import counts_of
from maskless.images.image import Image, ImageSet
from maskless.images.scale import Scaling, fit_scaling

if TYPE_CHECKING:
    from maskless.config import CleanSettings
    from maskless.images.spillover_correction import Spillover


def clean_image(
    image: Image,
    settings: CleanSettings,
    scaling: Scaling,
    corrections: Sequence[Correction] = (),
) -> Image:
    """Clean one image: every step above.

    Parameters
    ----------
    image
        Raw, any number type.
    settings
        Which steps, how strict.
    scaling
        Of the image's cohort, from :func:`fit_scaling`.
    corrections
        From :func:`maskless.images.corrections.prepare_corrections`, those of the scaling.

    Returns
    -------
    cleaned
        pixels_cyx float32, >= 0, about 1 = bright in the cohort; repairs added to its problems.

    Raises
    ------
    InputError
        If pixels are NaN or infinite, or the channels are not those of the scaling.
    """
    if image.channels != scaling.channels:
        raise InputError(
            "the channels of this image are not those that the scaling was made for",
            image=image.name,
            expected=", ".join(scaling.channels),
            found=", ".join(image.channels),
        )
    counts_cyx, problems = counts_of(image, settings, corrections)
    return replace(
        image, pixels_cyx=scaling.apply(counts_cyx), problems=(*image.problems, *problems)
    )


def clean(
    images: ImageSet,
    settings: CleanSettings | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    *,
    spillover: Spillover | None = None,
) -> ImageSet:
    """Clean a cohort: fit the scaling in one pass now, clean each image when it is loaded.

    Parameters
    ----------
    images
        Raw images.
    settings
        Which steps, how strict; the defaults if None.
    seed
        Chooses the pixels that the scaling is fitted to, and the trees of a classifier.
    folder
        That relative paths in the settings start from; the working folder if not given.
    spillover
        Matrix to compensate with: its file (CSV), a :class:`maskless.SpilloverMatrix`, or shares in
        the order of the panel, row = emitting, column = receiving channel; None takes the file that
        the settings name, if any. What it lacks is a problem of each image.

    Returns
    -------
    cleaned
        Lazy, the same names and panel.

    Raises
    ------
    InputError
        See :func:`fit_scaling` and :func:`prepare_corrections`; :func:`clean_image` when an image
        is loaded.
    """
    # Settings are checked by a package that arrays do without.
    from maskless.config import CleanSettings
    from maskless.images.spillover_correction import Compensation

    chosen = CleanSettings() if settings is None else settings
    start = None if folder is None else Path(folder)
    corrections = prepare_corrections(images, chosen, start, seed, spillover)
    scaling = fit_scaling(images, chosen, seed, corrections)
    of_all = [p for c in corrections if isinstance(c, Compensation) for p in c.matrix.problems]

    def cleaned(image: Image) -> Image:
        done = clean_image(image, chosen, scaling, corrections)
        return replace(done, problems=(*done.problems, *of_all))

    return images.map(cleaned)
