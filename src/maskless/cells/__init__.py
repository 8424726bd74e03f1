"""Cells: where they are, what surrounds them, how bright they are."""

from maskless.cells.atlas import Atlas
from maskless.cells.detect import detect, detect_image, nuclear_plane
from maskless.cells.difference_of_gaussians import detect_nuclei
from maskless.cells.intensity import disc_means, ring_means
from maskless.cells.table import make_cells
from maskless.cells.views import (
    Augmentations,
    draw_augmentations,
    gather_views,
    view_reach_um,
    view_size_px,
)
from maskless.cells.views_gpu import DeviceAtlas, gather_views_on

__all__ = [
    "Atlas",
    "Augmentations",
    "DeviceAtlas",
    "detect",
    "detect_image",
    "detect_nuclei",
    "disc_means",
    "draw_augmentations",
    "gather_views",
    "gather_views_on",
    "make_cells",
    "nuclear_plane",
    "ring_means",
    "view_reach_um",
    "view_size_px",
]
