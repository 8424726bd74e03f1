"""What simulated tissue is made of: markers, cell types, zones, instrument, and a preset of all.

Levels are relative: 1 is a clearly positive cell. A marker's ``counts`` turn a level into ions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from maskless.images.image import Channel, Kind, Panel

Pattern = Literal["nuclear", "membrane", "cytoplasm", "granular", "cell", "cap", "fibre", "none"]


@dataclass(frozen=True)
class Marker:
    """One channel of the simulated panel.

    Attributes
    ----------
    name, metal, kind
        As in :class:`maskless.images.image.Channel`.
    pattern
        Where in a cell the signal lies; ``"fibre"`` lies between cells, ``"none"`` nowhere.
    counts
        Expected ions a pixel at level 1 where the pattern is full.
    background
        Expected ions a pixel everywhere.
    nonspecific
        Median level in cells that do not express it: antibody that sticks, autofluorescence.
    """

    name: str
    metal: str
    pattern: Pattern
    counts: float
    background: float = 0.2
    kind: Kind = "marker"
    nonspecific: float = 0.03


@dataclass(frozen=True)
class Expression:
    """How a cell type expresses a marker.

    Attributes
    ----------
    level
        Median level of the cells that express it.
    fraction
        Share of the cells that express it.
    spread
        Standard deviation of the natural logarithm of the level.
    gradient
        Change of the logarithm for one unit of the cell's continuous state.
    """

    level: float
    fraction: float = 1.0
    spread: float = 0.55
    gradient: float = 0.0


@dataclass(frozen=True)
class CellType:
    """A kind of cell: what it expresses and how it looks.

    Attributes
    ----------
    name, subtype
        The type, and the finer name (the same where there is none).
    expression
        By marker name; a number stands for ``Expression(number)``. Not named = not expressed.
    nucleus_um, rim_um
        Radius of the nucleus, and of the cytoplasm around it.
    elongation
        Long by short axis.
    irregularity
        Size of the bumps of the outline, as a share of the radius.
    eccentric_um
        Distance of the nucleus from the middle of the cell.
    """

    name: str
    expression: Mapping[str, Expression | float]
    subtype: str = ""
    nucleus_um: float = 3.5
    rim_um: float = 0.8
    elongation: float = 1.15
    irregularity: float = 0.09
    eccentric_um: float = 0.3


@dataclass(frozen=True)
class Zone:
    """A neighbourhood of the tissue.

    Attributes
    ----------
    name
        Such as ``"follicle"``.
    share
        Share of the area.
    density
        Relative to the mean density of the tissue.
    composition
        Weights of the cell types, by subtype name.
    """

    name: str
    share: float
    density: float
    composition: Mapping[str, float]


@dataclass(frozen=True)
class Instrument:
    """From expected signal to ion counts.

    Attributes
    ----------
    point_spread_um
        Sigma of the Gaussian point spread.
    halo, halo_um
        Share of the signal that is spread wider (cells out of plane, torn membranes), and how wide.
    spillover
        Scale of the spillover between neighbouring masses; 0 = none.
    hot_pixels
        Expected share of pixels of a channel that are hot.
    channel_gain, image_gain
        Standard deviations of the logarithm of the gain: of each channel of an image, and common
        to all its channels.
    """

    point_spread_um: float = 0.6
    halo: float = 0.2
    halo_um: float = 2.2
    spillover: float = 1.0
    hot_pixels: float = 4e-5
    channel_gain: float = 0.12
    image_gain: float = 0.08


@dataclass(frozen=True)
class Tissue:
    """How cells are placed.

    Attributes
    ----------
    zones
        From the inside of a patch outwards (a follicle, then the zone around it, then the rest).
    zone_um
        Size of the zones: sigma of the smooth field that they are cut from.
    clumping
        How strongly cells of one type gather beyond what the zones say; 0 = not at all.
    overlap
        How much of a cell that lies under another still shows.
    fragments
        Share of cells cut without their nucleus; they give signal and are not in the truth.
    thickness_spread
        Standard deviation of the logarithm of how much of a cell is in the section: what is
        brighter or dimmer in all its markers.
    patient_spread
        Standard deviation of the logarithm of a patient's type abundances and marker levels
        (levels: a third of it).
    """

    zones: tuple[Zone, ...]
    zone_um: float = 28.0
    clumping: float = 0.5
    overlap: float = 0.5
    fragments: float = 0.15
    thickness_spread: float = 0.3
    patient_spread: float = 0.3


@dataclass(frozen=True)
class Preset:
    """A simulated cohort: everything but the seed."""

    name: str
    markers: tuple[Marker, ...]
    types: tuple[CellType, ...]
    tissue: Tissue
    instrument: Instrument = field(default_factory=Instrument)
    images: int = 4
    images_per_patient: int = 2
    size_px: int = 320
    um_per_pixel: float = 1.0
    density: float = 160.0

    @property
    def panel(self) -> Panel:
        """The panel as the readers would give it."""
        return Panel(
            tuple(
                Channel(m.name, m.metal, m.kind, m.kind not in ("background", "element"))
                for m in self.markers
            )
        )
