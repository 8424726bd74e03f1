"""Corrections of linear counts that need more than one image's pixels: files, or the cohort.

They come after hot pixels and before scaling, in the order in which :func:`prepare_corrections`
lists them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from maskless.images.image import Image, ImageSet

if TYPE_CHECKING:
    from maskless.config import CleanSettings
    from maskless.images.align import Alignment
    from maskless.images.spillover_correction import Spillover

Correction = Callable[[Image, NDArray[np.float32]], tuple[NDArray[np.float32], list[str]]]
"""From an image (whose pixels are still raw) and its counts, float32, shape (C, Y, X), to
corrected counts and what is to be recorded as the image's problems."""


def prepare_corrections(
    images: ImageSet,
    settings: CleanSettings,
    folder: Path | None = None,
    seed: int = 0,
    spillover: Spillover | None = None,
    onto: Alignment | None = None,
) -> tuple[Correction, ...]:
    """Read and fit whatever the corrections need.

    Parameters
    ----------
    images
        Raw.
    settings
        Which corrections.
    folder
        That relative paths in the settings start from; the working folder if None.
    seed
        Of what is fitted.
    spillover
        Matrix to compensate with, instead of the file that the settings name.
    onto
        Alignment of another cohort, to whose levels these images are brought.

    Returns
    -------
    corrections
        To be applied one after the other; empty where the settings ask for none.

    Raises
    ------
    InputError
        If a file that the settings name is missing or does not fit the images.
    SettingsError
        If settings contradict each other.
    """
    corrections: list[Correction] = []
    if spillover is None and settings.spillover is not None:
        spillover = (folder or Path()) / settings.spillover
    if spillover is not None:
        from maskless.images.spillover_correction import prepare_spillover

        corrections.append(prepare_spillover(images.panel, spillover))
    if settings.background_removal != "none":
        from maskless.images.background import prepare_background

        corrections.append(
            prepare_background(images, settings, tuple(corrections), folder or Path(), seed)
        )
    if settings.align != "none":
        from maskless.images.align import prepare_alignment

        corrections.append(prepare_alignment(images, settings, tuple(corrections), folder, onto))
    return tuple(corrections)
