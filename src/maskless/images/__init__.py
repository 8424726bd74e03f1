"""Images: read from every usual format, cleaned, and kept as OME-Zarr."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# At once, because the module of the same name would otherwise stand in the function's place.
from maskless.images.clean import clean

if TYPE_CHECKING:
    from maskless.images.background import ilastik_probabilities
    from maskless.images.clean import clean_image
    from maskless.images.image import Channel, Image, ImageSet, Panel
    from maskless.images.mcd_about import read_panoramas
    from maskless.images.panel import read_panel
    from maskless.images.read import read_images, source_files
    from maskless.images.scale import Scaling, fit_scaling
    from maskless.images.single_stains import describe_estimate, estimate_spillover
    from maskless.images.spillover import compensate
    from maskless.images.spillover_csv import read_spillover, write_spillover
    from maskless.images.spillover_estimate import SpilloverEstimate
    from maskless.images.spillover_matrix import SpilloverMatrix
    from maskless.images.zarr_store import open_image_zarr, write_image_zarr, zarr_attributes

__all__ = [
    "Channel",
    "Image",
    "ImageSet",
    "Panel",
    "Scaling",
    "SpilloverEstimate",
    "SpilloverMatrix",
    "clean",
    "clean_image",
    "compensate",
    "describe_estimate",
    "estimate_spillover",
    "fit_scaling",
    "ilastik_probabilities",
    "open_image_zarr",
    "read_images",
    "read_panel",
    "read_panoramas",
    "read_spillover",
    "source_files",
    "write_image_zarr",
    "write_spillover",
    "zarr_attributes",
]

# Loaded on first use: images in memory need neither tifffile nor zarr.
_HOMES = {
    "Channel": "image",
    "Image": "image",
    "ImageSet": "image",
    "Panel": "image",
    "Scaling": "scale",
    "SpilloverEstimate": "spillover_estimate",
    "SpilloverMatrix": "spillover_matrix",
    "clean_image": "clean",
    "compensate": "spillover",
    "describe_estimate": "single_stains",
    "estimate_spillover": "single_stains",
    "fit_scaling": "scale",
    "ilastik_probabilities": "background",
    "open_image_zarr": "zarr_store",
    "read_images": "read",
    "read_panel": "panel",
    "read_panoramas": "mcd_about",
    "read_spillover": "spillover_csv",
    "source_files": "read",
    "write_image_zarr": "zarr_store",
    "write_spillover": "spillover_csv",
    "zarr_attributes": "zarr_store",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
