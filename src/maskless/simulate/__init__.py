"""Simulated multiplex tissue whose truth is known, for the demo, tests and benchmarks."""

from maskless.simulate.instrument import count_ions, spillover_matrix
from maskless.simulate.model import (
    CellType,
    Expression,
    Instrument,
    Marker,
    Preset,
    Tissue,
    Zone,
)
from maskless.simulate.presets import DENSITIES, PRESETS, get_preset
from maskless.simulate.tissue import Truth, simulate_image
from maskless.simulate.write import Simulation, simulate, simulate_images

__all__ = [
    "DENSITIES",
    "PRESETS",
    "CellType",
    "Expression",
    "Instrument",
    "Marker",
    "Preset",
    "Simulation",
    "Tissue",
    "Truth",
    "Zone",
    "count_ions",
    "get_preset",
    "simulate",
    "simulate_image",
    "simulate_images",
    "spillover_matrix",
]
