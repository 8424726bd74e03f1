"""Background removal as one correction of the clean stage, whichever way it is found.

Axes: C = channels, Y = rows, X = columns, K = classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from maskless.errors import SettingsError
from maskless.images.image import Image, ImageSet, Panel

if TYPE_CHECKING:
    from maskless.config import CleanSettings
    from maskless.images.corrections import Correction

Signal = Callable[[Image, NDArray[np.float32], str], NDArray[np.float32]]
"""From an image, its counts (C, Y, X) and the name of a marker to the probability that a pixel of
it is signal, shape (Y, X)."""

FILES = {
    "classifier": "labels/{image}.tif",
    "ilastik": "project.ilp",
    "probabilities": "{image}_Probabilities.tiff",
}
"""Ways that need files, with an example of their names."""


@dataclass(frozen=True)
class BackgroundRemoval:
    """Removes background from counts; a correction, see :mod:`maskless.images.corrections`.

    Attributes
    ----------
    markers
        Names of the channels that are changed.
    signal
        Tells signal from background.
    weight
        ``"mask"``: pixels with a probability of signal up to 0.5 become 0, the others stay.
        ``"probability"``: counts are multiplied with it.
    """

    markers: tuple[str, ...]
    signal: Signal
    weight: Literal["mask", "probability"]

    def __call__(
        self, image: Image, counts_cyx: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], list[str]]:
        """Counts without background, and markers of which nothing is left."""
        result_cyx = counts_cyx.copy()
        emptied = []
        for marker in self.markers:
            channel = image.channels.index(marker)
            signal_yx = self.signal(image, counts_cyx, marker)
            factor_yx = signal_yx > 0.5 if self.weight == "mask" else signal_yx
            result_cyx[channel] *= factor_yx
            if counts_cyx[channel].any() and not result_cyx[channel].any():
                emptied.append(marker)
        problems = []
        if emptied:
            problems.append(
                f"all of {', '.join(emptied)} was taken for background (clean.background_removal)"
            )
        return result_cyx, problems


def prepare_background(
    images: ImageSet,
    settings: CleanSettings,
    before: Sequence[Correction],
    folder: Path,
    seed: int,
) -> BackgroundRemoval:
    """Read and fit what removing the background needs.

    Parameters
    ----------
    images
        Raw.
    settings
        Those that begin with background_.
    before
        Corrections that come before this one.
    folder
        That relative paths start from.
    seed
        Of a classifier's trees.

    Raises
    ------
    InputError
        If a file is missing or does not fit the images.
    SettingsError
        If settings contradict each other.
    """
    check_settings(settings)
    markers = removal_markers(images.panel, settings)
    return BackgroundRemoval(markers, _signal(settings), settings.background_weight)


def _signal(settings: CleanSettings) -> Signal:
    raise SettingsError(f"clean.background_removal: {settings.background_removal!r} comes later")


def check_settings(settings: CleanSettings) -> None:
    """Raise SettingsError where the files of a way are not named."""
    way = settings.background_removal
    if way in FILES and not settings.background_files:
        raise SettingsError(
            f"clean.background_removal = {way!r} needs clean.background_files, such as "
            f"{FILES[way]!r}"
        )


def removal_markers(panel: Panel, settings: CleanSettings) -> tuple[str, ...]:
    """Channels whose background is removed.

    Raises
    ------
    InputError
        If a channel that the settings name is not there.
    """
    for name in settings.background_markers:
        panel.index(name)
    if settings.background_markers:
        return settings.background_markers
    return tuple(name for name in panel.markers if name not in panel.nuclear)
