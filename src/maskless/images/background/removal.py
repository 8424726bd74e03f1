"""Background removal as one correction of the clean stage, whichever way it is found.

Axes: C = channels, Y = rows, X = columns, K = classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from maskless.errors import InputError, SettingsError
from maskless.images.background.automatic import AutomaticSignal, Histogram, stabilised_mean
from maskless.images.background.exported import read_exported_probabilities
from maskless.images.background.files import IMAGE, MARKER, named_file
from maskless.images.background.ilastik_project import IlastikProject, read_ilastik_project
from maskless.images.counts import counts_of
from maskless.images.image import Image, ImageSet, Panel
from maskless.progress import track

if TYPE_CHECKING:
    from maskless.config import CleanSettings
    from maskless.images.corrections import Correction

Signal = Callable[[Image, NDArray[np.float32], Sequence[str]], Iterator[NDArray[np.float32]]]
"""From an image, its counts (C, Y, X) and names of markers to the probability that a pixel of each
marker in turn is signal, shape (Y, X)."""

EXAMPLES = {
    "classifier": "labels/{image}.tif",
    "ilastik": "project.ilp",
    "probabilities": "{image}_Probabilities.tiff",
}
"""Ways that need files, and how these may be called."""


@dataclass(frozen=True)
class BackgroundRemoval:
    """Removes background from counts; a correction, see :mod:`maskless.images.corrections`.

    Attributes
    ----------
    way
        The setting ``background_removal``.
    markers
        Names of the channels that are changed.
    signal
        Tells signal from background.
    weight
        ``"mask"``: pixels with a probability of signal up to 0.5 become 0, the others stay.
        ``"probability"``: counts are multiplied with it.
    """

    way: str
    markers: tuple[str, ...]
    signal: Signal
    weight: Literal["mask", "probability"]

    def __call__(
        self, image: Image, counts_cyx: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], list[str]]:
        """Counts without background, and markers of which nothing is left."""
        result_cyx = counts_cyx.copy()
        emptied = []
        signals = self.signal(image, counts_cyx, self.markers)
        for marker, signal_yx in zip(self.markers, signals, strict=True):
            channel = image.channels.index(marker)
            result_cyx[channel] *= signal_yx > 0.5 if self.weight == "mask" else signal_yx
            if counts_cyx[channel].any() and not result_cyx[channel].any():
                emptied.append(marker)
        told = f"all of {', '.join(emptied)} was taken for background (clean.background_removal)"
        return result_cyx, [told] if emptied else []

    def to_dict(self) -> dict[str, Any]:
        """What was done, as plain types for JSON."""
        found: dict[str, Any] = {
            "way": self.way,
            "weight": self.weight,
            "markers": list(self.markers),
        }
        if isinstance(self.signal, AutomaticSignal):
            found["cuts"] = {name: [cut.at, cut.slope] for name, cut in self.signal.cuts.items()}
        return found


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
    _check(settings)
    markers = _markers(images, settings, folder)
    signal: Signal
    if settings.background_removal == "automatic":
        signal = _automatic(images, settings, before, markers)
    elif settings.background_removal == "classifier":
        from maskless.images.background.classifier import train_classifiers

        signal = train_classifiers(images, settings, before, markers, folder, seed)
    elif settings.background_removal == "ilastik":
        signal = _ilastik(images.panel, settings, markers, folder)
    else:
        for file in background_files(settings, images.panel, images.names, folder):
            if not file.is_file():
                raise InputError(
                    "there are no exported probabilities of an image",
                    file=file,
                    do="Correct clean.background_files",
                )
        signal = ExportedSignal(str(settings.background_files), settings.background_class, folder)
    return BackgroundRemoval(
        settings.background_removal, markers, signal, settings.background_weight
    )


def background_files(
    settings: CleanSettings, panel: Panel, images: Sequence[str], folder: Path
) -> list[Path]:
    """Every file that the settings may mean, whether it is there or not, without doubles."""
    if settings.background_removal not in EXAMPLES or not settings.background_files:
        return []
    markers = settings.background_markers or _default_markers(panel)
    return list(
        dict.fromkeys(
            named_file(settings.background_files, folder, image, marker)
            for image in images
            for marker in markers
        )
    )


def _check(settings: CleanSettings) -> None:
    way, pattern = settings.background_removal, settings.background_files
    if way not in EXAMPLES:
        return
    if not pattern:
        raise SettingsError(
            f"clean.background_removal = {way!r} needs clean.background_files, such as "
            f"{EXAMPLES[way]!r}"
        )
    if way != "ilastik" and IMAGE not in pattern:
        raise SettingsError(
            f"clean.background_files must hold {IMAGE}, as in {EXAMPLES[way]!r}; it is {pattern!r}"
        )
    if way == "ilastik" and IMAGE in pattern:
        raise SettingsError(
            f"clean.background_files cannot hold {IMAGE}: an ilastik project is for all images; "
            f"it is {pattern!r}"
        )


def _default_markers(panel: Panel) -> tuple[str, ...]:
    return tuple(name for name in panel.markers if name not in panel.nuclear)


def _markers(images: ImageSet, settings: CleanSettings, folder: Path) -> tuple[str, ...]:
    """Those named; else all but nuclear ones, and where each has files those that have some."""
    for name in settings.background_markers:
        images.panel.index(name)
    if settings.background_markers:
        return settings.background_markers
    markers = _default_markers(images.panel)
    pattern = settings.background_files
    if settings.background_removal not in EXAMPLES or pattern is None or MARKER not in pattern:
        return markers
    found = tuple(
        m
        for m in markers
        if any(named_file(pattern, folder, name, m).is_file() for name in images.names)
    )
    if not found:
        raise InputError(
            "no marker has a file for its background",
            file=named_file(pattern, folder, IMAGE, MARKER),
            do="Correct clean.background_files",
        )
    return found


def _automatic(
    images: ImageSet,
    settings: CleanSettings,
    before: Sequence[Correction],
    markers: Sequence[str],
) -> AutomaticSignal:
    """One pass over the cohort; in memory are one image and the histograms."""
    histograms = {marker: Histogram() for marker in markers}
    highest = 0.0
    for image in track(images, "clean (find background)", total=len(images)):
        counts_cyx, _ = counts_of(image, settings, before)
        for marker, histogram in histograms.items():
            plane_yx = counts_cyx[image.channels.index(marker)]
            if plane_yx.any():  # an aborted acquisition says nothing about the marker
                histogram.add(stabilised_mean(plane_yx, image.um_per_pixel))
                highest = max(highest, float(plane_yx.max()))
    if 0 < highest <= 1:
        raise InputError(
            "these images are no counts, by whose noise background could be told from signal",
            expected="pixels of many counts somewhere",
            found=f"nothing above {highest:g} in all images",
            do="Give the raw counts, or choose another clean.background_removal",
        )
    return AutomaticSignal({marker: h.cut() for marker, h in histograms.items()})


@dataclass(frozen=True)
class IlastikSignal:
    """Probability of signal by ilastik projects.

    Attributes
    ----------
    projects
        By marker; one and the same object where all share it.
    channels
        What a project is shown, by marker.
    background
        Number of the class that is no signal, from 0, by marker.
    """

    projects: dict[str, IlastikProject]
    channels: dict[str, tuple[str, ...]]
    background: dict[str, int]

    def __call__(
        self, image: Image, counts_cyx: NDArray[np.float32], markers: Sequence[str]
    ) -> Iterator[NDArray[np.float32]]:
        """Probability of signal of each of the markers in turn, shape (Y, X)."""
        last: tuple[IlastikProject, tuple[str, ...]] | None = None
        for marker in markers:
            asked = self.projects[marker], self.channels[marker]
            if last is None or asked[0] is not last[0] or asked[1] != last[1]:
                shown = [image.channels.index(name) for name in asked[1]]
                found_yxk = asked[0].probabilities(counts_cyx[shown], image.name)
                last = asked
            yield 1 - found_yxk[..., self.background[marker]]


def _ilastik(
    panel: Panel, settings: CleanSettings, markers: Sequence[str], folder: Path
) -> IlastikSignal:
    for name in settings.background_channels:
        panel.index(name)
    files = {m: named_file(str(settings.background_files), folder, marker=m) for m in markers}
    read = {file: read_ilastik_project(file) for file in dict.fromkeys(files.values())}
    projects = {m: read[file] for m, file in files.items()}
    channels = {}
    for marker, project in projects.items():
        shown = settings.background_channels
        if not shown:
            shown = (marker,) if project.channels == 1 else panel.names
        if len(shown) != project.channels:
            raise InputError(
                "this ilastik project was trained on another number of channels",
                file=project.file,
                expected=project.channels,
                found=f"{len(shown)} ({', '.join(shown)})",
                do="Name what it was shown, in order, in clean.background_channels",
            )
        channels[marker] = shown
    return IlastikSignal(
        projects,
        channels,
        {
            m: class_number(settings.background_class, p.classes, p.file)
            for m, p in projects.items()
        },
    )


@dataclass(frozen=True)
class ExportedSignal:
    """Probability of signal as exported, a file an image (and marker)."""

    pattern: str
    background: int | str
    folder: Path

    def __call__(
        self, image: Image, counts_cyx: NDArray[np.float32], markers: Sequence[str]
    ) -> Iterator[NDArray[np.float32]]:
        """Probability of signal of each of the markers in turn, shape (Y, X)."""
        last: Path | None = None
        for marker in markers:
            file = named_file(self.pattern, self.folder, image.name, marker)
            if file != last:
                rows, columns = counts_cyx.shape[1:]
                found_yxk = read_exported_probabilities(file, (rows, columns), image.name)
                names = tuple(str(i + 1) for i in range(found_yxk.shape[2]))
                signal_yx = 1 - found_yxk[..., class_number(self.background, names, file)]
                last = file
            yield signal_yx


def class_number(wanted: int | str, names: Sequence[str], file: Path) -> int:
    """Number, from 0, of the class that is background.

    Parameters
    ----------
    wanted
        Its name, or its number from 1.
    names
        Of all classes, in order.
    file
        For the error.

    Raises
    ------
    InputError
        If there is no such class, or several have its name.
    """
    lower = [name.strip().lower() for name in names]
    text = str(wanted).strip().lower()
    if lower.count(text) == 1:
        return lower.index(text)
    if text.isdecimal() and 1 <= int(text) <= len(names):
        return int(text) - 1
    raise InputError(
        f"which class is background cannot be told: there is no {wanted!r}, or more than one",
        file=file,
        expected=f"one of {', '.join(names)}, or a number from 1 to {len(names)}",
        do="Say which in clean.background_class",
    )
