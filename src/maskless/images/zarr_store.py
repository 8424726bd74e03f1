"""Images of a study on disk: OME-Zarr 0.4 (Zarr format 2), axes c, y, x.

One chunk holds one channel of up to 512 x 512 pixels. Every chunk is stored, with a checksum, so
that one which is missing or damaged is found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import zarr

from maskless.errors import InputError
from maskless.images.header import Pixels, check_dtype, check_size, guarded
from maskless.images.image import Image, Panel
from maskless.images.ome_zarr import OWN, ZarrImage, read_metadata
from maskless.storage import atomic_path

CHUNK_PX = 1024
_FORMAT = 1
_COMPRESSOR: Mapping[str, Any] = MappingProxyType({"id": "zstd", "level": 3, "checksum": True})
_COLOURS = ("00FFFF", "FF00FF", "FFFF00", "FF0000", "00FF00", "0000FF")
_NOTHING: Mapping[str, Any] = MappingProxyType({})


def write_image_zarr(
    image: Image, panel: Panel, target: Path, attributes: Mapping[str, Any] = _NOTHING
) -> None:
    """Write an image as OME-Zarr; the folder appears whole or not at all.

    Parameters
    ----------
    image
        Its pixels keep their dtype.
    panel
        Its channels are kept beside the pixels.
    target
        Folder to write, replaced if it exists.
    attributes
        JSON values to keep with it, read back by :func:`zarr_attributes`.

    Raises
    ------
    InputError
        If image and panel do not fit.
    StudyError
        If the folder cannot be written.
    """
    pixels_cyx = np.asarray(image.pixels_cyx)
    if pixels_cyx.ndim != 3 or tuple(image.channels) != panel.names:
        raise InputError(
            "the image does not have the channels of the panel",
            image=image.name,
            expected=", ".join(panel.names),
            found=", ".join(image.channels),
        )
    if pixels_cyx.shape[0] != len(panel.channels):
        raise InputError(
            "the image does not have one plane for each channel",
            image=image.name,
            expected=len(panel.channels),
            found=pixels_cyx.shape[0],
        )
    check_size((pixels_cyx.shape[1], pixels_cyx.shape[2]), Path(target), image.name)
    check_dtype(pixels_cyx.dtype, Path(target))
    with atomic_path(Path(target)) as temporary:
        group = zarr.open_group(str(temporary), mode="w", zarr_format=2)
        array = group.create_array(
            "0",
            shape=pixels_cyx.shape,
            chunks=(1, *(min(CHUNK_PX, size) for size in pixels_cyx.shape[1:])),
            dtype=pixels_cyx.dtype,
            compressors=dict(_COMPRESSOR),
            filters=None,
            fill_value=0,
            chunk_key_encoding={"name": "v2", "separator": "/"},
            config={"write_empty_chunks": True},
        )
        array[:] = pixels_cyx
        group.attrs.update(_metadata(image, panel, pixels_cyx, attributes))


def open_image_zarr(path: Path, channels: Sequence[int] | None = None) -> Image:
    """Read an image that :func:`write_image_zarr` wrote.

    Parameters
    ----------
    path
        Its folder.
    channels
        Positions of the channels to read; all if not given.

    Raises
    ------
    InputError
        If it was not written by maskless, or any of its chunks is missing or damaged.
    """
    path = Path(path)
    found = _own(path)
    wanted = list(range(len(found.labels))) if channels is None else [int(c) for c in channels]
    if any(not 0 <= c < len(found.labels) for c in wanted):
        raise InputError(
            "no such channel in the image",
            file=path,
            expected=f"0 to {len(found.labels) - 1}",
            found=", ".join(map(str, wanted)),
        )
    with guarded(path, "the image is damaged"):
        pixels_cyx: Pixels = np.ascontiguousarray(found.read(wanted)[0])
    if found.um_per_pixel is None:
        raise InputError("the image does not tell its pixel size", file=path)
    return Image(
        str(found.own.get("name", path.name.removesuffix(".zarr"))),
        pixels_cyx,
        tuple(found.labels[c] for c in wanted),
        found.um_per_pixel,
        path,
        tuple(str(problem) for problem in found.own.get("problems", [])),
    )


def zarr_attributes(path: Path) -> dict[str, Any]:
    """The `attributes` that were given to :func:`write_image_zarr`.

    Raises
    ------
    InputError
        If the folder was not written by it, or any of its chunks is missing.
    """
    found = _own(Path(path)).own.get("attributes", {})
    return found if isinstance(found, dict) else {}


def zarr_problems(path: Path) -> tuple[str, ...]:
    """The problems of the image that :func:`write_image_zarr` wrote.

    Raises
    ------
    InputError
        As :func:`zarr_attributes`.
    """
    return tuple(str(problem) for problem in _own(Path(path)).own.get("problems", []))


def _own(path: Path) -> ZarrImage:
    with guarded(path, "the image is damaged"):
        found = read_metadata(path)
    if found.own.get("format") != _FORMAT or found.axes != "cyx":
        raise InputError(
            "this OME-Zarr was not written by this version of maskless",
            file=path,
            do="Read it as an input image",
        )
    if found.pixels.missing:
        missing = found.pixels.missing[0]
        raise InputError(
            f"{len(found.pixels.missing)} of {found.pixels.n_chunks} chunks are missing",
            file=path,
            channel=found.labels[missing[0].start],
            do="The image is damaged: delete it and run its stage again",
        )
    return found


def _metadata(
    image: Image, panel: Panel, pixels_cyx: Pixels, attributes: Mapping[str, Any]
) -> dict[str, Any]:
    edge = float(image.um_per_pixel)
    highest = float(pixels_cyx.max()) if pixels_cyx.dtype.kind in "ui" else 1.0
    space = {"type": "space", "unit": "micrometer"}
    return {
        "multiscales": [
            {
                "version": "0.4",
                "name": image.name,
                "axes": [
                    {"name": "c", "type": "channel"},
                    {"name": "y", **space},
                    {"name": "x", **space},
                ],
                "datasets": [
                    {
                        "path": "0",
                        "coordinateTransformations": [
                            {"type": "scale", "scale": [1.0, edge, edge]}
                        ],
                    }
                ],
            }
        ],
        "omero": {
            "version": "0.4",
            "name": image.name,
            "channels": [
                {
                    "label": name,
                    "color": _COLOURS[i % len(_COLOURS)],
                    "active": i < len(_COLOURS),
                    "window": {"min": 0.0, "max": highest, "start": 0.0, "end": highest},
                }
                for i, name in enumerate(panel.names)
            ],
        },
        OWN: {
            "format": _FORMAT,
            "name": image.name,
            "source": image.source.name if image.source else None,
            "problems": list(image.problems),
            "panel": [
                {"name": c.name, "metal": c.metal, "kind": c.kind, "used": c.used}
                for c in panel.channels
            ],
            "attributes": dict(attributes),
        },
    }
