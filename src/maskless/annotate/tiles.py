"""Tissue for the page: planes of images as bytes, halved again and again, cut into tiles.

The browser colours them; a byte b stands for the intensity ``b / 255 * top`` of its channel, the
same top in all images, so that contrast means the same everywhere.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskless.annotate.places import Clustering
from maskless.errors import InputError

TILE_PX = 256
_CACHE_BYTES = 512 * 2**20
_LOOKED_AT = 8
_HEADROOM = 1.5
_EDGE_PX = 20


@dataclass(frozen=True)
class ImageInfo:
    """Name, size and pixel size of an image."""

    name: str
    rows: int
    columns: int
    um_per_pixel: float
    file: Path | None


@dataclass(frozen=True)
class Contrast:
    """Intensity of byte 255, and those that are black and full colour unless a person says so."""

    top: float
    low: float
    high: float


class Tiles:
    """Tiles of a study's cleaned images.

    Parameters
    ----------
    images
        In the order of the cells' images.
    channels
        Names of the planes in each image.
    """

    def __init__(self, images: tuple[ImageInfo, ...], channels: tuple[str, ...]) -> None:
        self.images = images
        self.channels = channels
        self._contrasts: dict[int, Contrast] = {}
        self._planes: OrderedDict[tuple[int, int], list[NDArray[np.uint8]]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def available(self) -> bool:
        """Whether there are pixels to show."""
        return bool(self.channels) and any(image.file for image in self.images)

    def contrast(self, channel: int) -> Contrast:
        """Scale of a channel, from up to eight images spread over the study."""
        from maskless.images.zarr_store import open_image_zarr
        from maskless.report.pixels import contrast_limits

        with self._lock:
            if channel not in self._contrasts:
                there = [i.file for i in self.images if i.file]
                step = max(1, -(-len(there) // _LOOKED_AT))
                loaded = (open_image_zarr(file, [channel]) for file in there[::step])
                low, high = contrast_limits(loaded, [self.channels[channel]])[0]
                self._contrasts[channel] = Contrast(
                    float(max(high, 1e-6)) * _HEADROOM, float(low), float(high)
                )
            return self._contrasts[channel]

    def plane(self, image: int, channel: int, level: int = 0) -> NDArray[np.uint8]:
        """A plane as bytes, shrunk `level` times by two.

        Raises
        ------
        InputError
            If there is no such image, channel or level, or its file cannot be read.
        """
        if not (0 <= image < len(self.images) and 0 <= channel < len(self.channels)):
            raise InputError("there is no such image or channel", found=f"{image}, {channel}")
        top = self.contrast(channel).top
        with self._lock:
            key = (image, channel)
            if key not in self._planes:
                self._planes[key] = self._load(image, channel, top)
                self._shrink_cache()
            self._planes.move_to_end(key)
            levels = self._planes[key]
        if not 0 <= level < len(levels):
            raise InputError("there is no such level of the image", found=level)
        return levels[level]

    def levels(self, image: int) -> int:
        """How many levels an image has: halved until one tile holds it."""
        info, count = self.images[image], 1
        while max(info.rows, info.columns) >> (count - 1) > TILE_PX:
            count += 1
        return count

    def tile(self, image: int, channel: int, level: int, row: int, column: int) -> bytes:
        """Bytes of a tile, row by row; tiles at the right and lower edge are smaller."""
        plane = self.plane(image, channel, level)
        y, x = row * TILE_PX, column * TILE_PX
        if not (0 <= y < plane.shape[0] and 0 <= x < plane.shape[1]):
            raise InputError("there is no such tile", found=f"{row}, {column}")
        return plane[y : y + TILE_PX, x : x + TILE_PX].tobytes()

    def _load(self, image: int, channel: int, top: float) -> list[NDArray[np.uint8]]:
        from maskless.images.zarr_store import open_image_zarr

        info = self.images[image]
        if info.file is None:
            raise InputError("the pixels of this image are not there", image=info.name)
        plane = np.nan_to_num(open_image_zarr(info.file, [channel]).pixels_cyx[0].astype("f4"))
        levels = []
        for level in range(self.levels(image)):
            if level:
                plane = _halved(plane)
            levels.append(np.rint(np.clip(plane / top, 0, 1) * 255).astype(np.uint8))
        return levels

    def _shrink_cache(self) -> None:
        def size() -> int:
            return sum(p.nbytes for levels in self._planes.values() for p in levels)

        while len(self._planes) > 1 and size() > _CACHE_BYTES:
            self._planes.popitem(last=False)


def tiles_of(images_folder: Path, inventory: dict[str, Any], clustering: Clustering) -> Tiles:
    """Tiles of a study; images whose pixels are not there are shown by their cells alone.

    Parameters
    ----------
    images_folder
        Holds NAME.zarr for each image.
    inventory
        Content of images.json; empty where there is none.
    clustering
        Says which images have cells, and where.
    """
    told = {entry["name"]: entry for entry in inventory.get("images", [])}
    infos = []
    for number, name in enumerate(clustering.images):
        file = images_folder / f"{name}.zarr"
        entry = told.get(name)
        # A name in cells.h5ad must not lead out of the folder.
        if entry and file.parent == images_folder and "\0" not in name and file.is_dir():
            rows, columns = entry["shape_yx"]
            infos.append(ImageInfo(name, rows, columns, float(entry["um_per_pixel"]), file))
        else:
            yx = clustering.yx_n2[clustering.images_n == number]
            rows, columns = (int(v) + _EDGE_PX for v in yx.max(axis=0)) if len(yx) else (1, 1)
            infos.append(ImageInfo(name, rows, columns, 1.0, None))
    channels = tuple(str(channel["name"]) for channel in inventory.get("panel", []))
    return Tiles(tuple(infos), channels)


def _halved(plane_yx: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of blocks of 2 x 2 pixels; an odd last row or column is repeated."""
    rows, columns = plane_yx.shape
    padded = np.pad(plane_yx, ((0, rows % 2), (0, columns % 2)), mode="edge")
    return np.asarray(
        (padded[::2, ::2] + padded[1::2, ::2] + padded[::2, 1::2] + padded[1::2, 1::2]) / 4
    )
