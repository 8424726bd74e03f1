"""Images and their panel: the data that every later stage reads.

Axes: C = channels, Y = rows, X = columns. Names carry them: ``pixels_cyx``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from maskless.errors import InputError

Kind = Literal["marker", "nuclear", "background", "element"]
KINDS: tuple[str, ...] = get_args(Kind)


@dataclass(frozen=True)
class Channel:
    """One row of a panel.

    Attributes
    ----------
    name
        What the channel shows, such as ``"CD20"``; unique in its panel.
    metal
        Isotope or fluorophore, such as ``"Dy161"``; empty where unknown.
    kind
        ``"marker"``; ``"nuclear"`` (DNA, histone: where nuclei are looked for); ``"background"``
        (background metal or empty channel); ``"element"`` (tissue element such as P or Na).
    used
        Whether the encoder sees it. Background and elements are left out.
    position
        Place (from 0) of the channel in files that do not name their channels, if the panel
        tells it.
    """

    name: str
    metal: str = ""
    kind: Kind = "marker"
    used: bool = True
    position: int | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Panel:
    """The channels of a cohort, in the order in which every image carries them."""

    channels: tuple[Channel, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the channels, in order."""
        return tuple(channel.name for channel in self.channels)

    @property
    def used(self) -> NDArray[np.intp]:
        """Indices of the channels that the encoder sees, shape (markers,)."""
        return np.array([i for i, c in enumerate(self.channels) if c.used], dtype=np.intp)

    @property
    def markers(self) -> tuple[str, ...]:
        """Names of the channels that the encoder sees."""
        return tuple(c.name for c in self.channels if c.used)

    @property
    def nuclear(self) -> tuple[str, ...]:
        """Names of the channels in which nuclei are looked for."""
        return tuple(c.name for c in self.channels if c.kind == "nuclear")

    def index(self, name: str) -> int:
        """Position of a channel by its name; raises InputError where there is none."""
        try:
            return self.names.index(name)
        except ValueError:
            raise InputError(
                "no such channel in the panel",
                channel=name,
                expected=f"one of {', '.join(self.names)}",
            ) from None

    def with_use(self, *, background: Sequence[str] = (), nuclear: Sequence[str] = ()) -> Panel:
        """The same panel with channels named by the user as background or nuclear."""
        for name in (*background, *nuclear):
            self.index(name)
        return Panel(
            tuple(
                replace(c, kind="background", used=False)
                if c.name in background
                else replace(c, kind="nuclear", used=True)
                if c.name in nuclear
                else c
                for c in self.channels
            )
        )


@dataclass(frozen=True)
class Image:
    """One multiplex image in memory.

    Attributes
    ----------
    name
        Unique in its cohort; also the name of its folder in the study.
    pixels_cyx
        Shape (channels, rows, columns), in the order of the cohort's panel.
    channels
        Names of the channels, one for each plane.
    um_per_pixel
        Edge of a pixel in micrometres.
    source
        The file it was read from.
    problems
        What was found and not repaired in silence, one plain sentence each.
    about
        What its file tells about how it was made (description, times, laser, panorama), by name.
    """

    name: str
    pixels_cyx: NDArray[np.generic]
    channels: tuple[str, ...]
    um_per_pixel: float
    source: Path | None = None
    problems: tuple[str, ...] = ()
    about: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageSet:
    """Images of one cohort, loaded one at a time when asked for.

    Iterating loads each image, so the peak memory of a pass is one image.

    Attributes
    ----------
    panel
        The channels that every image carries, in this order.
    loaders
        For each image name a function that reads it.
    sources
        For each image name the files that it is read from; empty for images made in memory.
    """

    panel: Panel
    loaders: Mapping[str, Callable[[], Image]] = field(repr=False)
    sources: Mapping[str, tuple[Path, ...]] = field(default_factory=dict, repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the images, in order."""
        return tuple(self.loaders)

    def __len__(self) -> int:
        return len(self.loaders)

    def __iter__(self) -> Iterator[Image]:
        for load in self.loaders.values():
            yield load()

    def __getitem__(self, name: str) -> Image:
        try:
            return self.loaders[name]()
        except KeyError:
            raise InputError(
                "no such image", image=name, expected=f"one of {', '.join(self.names)}"
            ) from None

    def map(self, function: Callable[[Image], Image], panel: Panel | None = None) -> ImageSet:
        """A set whose images pass through `function` when they are loaded."""

        def chain(load: Callable[[], Image]) -> Callable[[], Image]:
            return lambda: function(load())

        return ImageSet(
            panel or self.panel,
            {name: chain(load) for name, load in self.loaders.items()},
            self.sources,
        )

    @classmethod
    def from_images(cls, images: Sequence[Image], panel: Panel) -> ImageSet:
        """A set of images that are already in memory."""

        def hold(image: Image) -> Callable[[], Image]:
            return lambda: image

        return cls(panel, {image.name: hold(image) for image in images})
