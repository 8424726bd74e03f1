"""All images of a cohort in one flat store, laid out for gathering views of cells.

Axes: I = images, Y = rows, X = columns, C = markers, N = cells.

Each image is a block (rows, columns, markers), channels last, so that a view reads all markers
of a pixel at once. Images finer than the views are area-averaged by a whole factor first, what
is left of the scale goes into each view's matrix. Every block has a margin of its own: no view
reads another image, and no pixel needs a test for the border.

The margin mirrors the image about its outermost pixels (scipy's ``mode="mirror"``). Repeating
the outermost pixels instead would draw one bright pixel out into a bright streak, and zeros
would put a dark edge where the tissue merely left the field; a mirrored cell is as large, as
bright and as far away as a real one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from maskless.errors import InputError, SettingsError
from maskless.progress import track
from maskless.storage import atomic_path

if TYPE_CHECKING:
    from maskless.images.image import Image, ImageSet, Panel

_LARGEST_HALF = float(np.finfo(np.float16).max)
_FILE = "atlas.bin"


@dataclass(frozen=True)
class Atlas:
    """Pixels of all images, ready for :func:`maskless.cells.gather_views`.

    Attributes
    ----------
    markers
        Names of the markers held, those of the panel that are used.
    image_names
        Names of the images; position i here is what an image index means.
    pixel_um
        Edge of a pixel of the views in micrometres.
    values
        All blocks one after another, shape (values,), float16 or float32.
    offset_i
        Where the block of each image starts in `values`, int64.
    rows_i, columns_i
        Shape of each block with its margin, in pixels of the atlas.
    margin_i
        Width of each margin in pixels of the atlas.
    factor_i
        How many pixels of the image make one of the atlas along an edge.
    um_per_pixel_i
        Edge of a pixel of the original image in micrometres.
    """

    markers: tuple[str, ...]
    image_names: tuple[str, ...]
    pixel_um: float
    values: NDArray[np.floating]
    offset_i: NDArray[np.int64]
    rows_i: NDArray[np.int64]
    columns_i: NDArray[np.int64]
    margin_i: NDArray[np.int64]
    factor_i: NDArray[np.int64]
    um_per_pixel_i: NDArray[np.float64]

    @classmethod
    def build(
        cls,
        images: ImageSet,
        pixel_um: float,
        margin_um: float,
        folder: Path | None = None,
        dtype: Literal["float16", "float32"] = "float16",
    ) -> Atlas:
        """Lay out all images of a cohort; one original image is in memory at a time.

        Parameters
        ----------
        images
            Cleaned images.
        pixel_um
            Edge of a pixel of the views in micrometres.
        margin_um
            Farthest that a view reaches from the centre of its cell, in micrometres; see
            :func:`maskless.cells.view_reach_um`.
        folder
            Where to keep the pixels in a memory-mapped file instead of in memory.
        dtype
            float16 keeps a relative precision of 0.0005.

        Raises
        ------
        InputError
            If there is no image, no marker in use, or an image does not fit.
        """
        if len(images) == 0:
            raise InputError("there are no images", expected="at least one")
        loaded = track(images, "gather images", total=len(images))
        channels = images.panel.used.tolist()
        return cls._build(loaded, images.panel, channels, pixel_um, margin_um, folder, dtype)

    @classmethod
    def of_image(
        cls,
        image: Image,
        panel: Panel,
        pixel_um: float,
        margin_um: float,
        markers: Sequence[str] | None = None,
        dtype: Literal["float16", "float32"] = "float16",
    ) -> Atlas:
        """An atlas of one cleaned image, for embedding image by image; see :meth:`build`.

        `markers` names the channels of the panel to hold, in this order; None = those in use.
        """
        channels = [panel.index(name) for name in (panel.markers if markers is None else markers)]
        return cls._build([image], panel, channels, pixel_um, margin_um, None, dtype)

    @classmethod
    def _build(
        cls,
        images: Iterable[Image],
        panel: Panel,
        channels: Sequence[int],
        pixel_um: float,
        margin_um: float,
        folder: Path | None,
        dtype: str,
    ) -> Atlas:
        if not (pixel_um > 0 and margin_um >= 0):
            raise SettingsError(
                f"pixel_um is {pixel_um} and margin_um is {margin_um}; "
                "expected more than 0, and 0 or more"
            )
        if not channels:
            raise InputError("no channel of the panel is used", do="Mark markers as used")
        names: list[str] = []
        shapes: list[tuple[int, int, int, int]] = []
        sizes_um: list[float] = []

        def blocks() -> Iterable[NDArray[np.floating]]:
            for image in images:
                factor = averaging_factor(image.um_per_pixel, pixel_um)
                margin = ceil(margin_um / (image.um_per_pixel * factor)) + 2
                block_yxc = _block(image, panel, channels, factor, margin, dtype)
                names.append(image.name)
                shapes.append((block_yxc.shape[0], block_yxc.shape[1], margin, factor))
                sizes_um.append(image.um_per_pixel)
                yield block_yxc.reshape(-1)

        values = (
            _in_memory(blocks(), dtype) if folder is None else _in_file(blocks(), folder, dtype)
        )
        rows, columns, margins, factors = np.array(shapes, dtype=np.int64).T.copy()
        block_sizes = rows * columns * len(channels)
        return cls(
            markers=tuple(panel.names[channel] for channel in channels),
            image_names=tuple(names),
            pixel_um=float(pixel_um),
            values=values,
            offset_i=np.concatenate([[0], np.cumsum(block_sizes)[:-1]]).astype(np.int64),
            rows_i=rows,
            columns_i=columns,
            margin_i=margins,
            factor_i=factors,
            um_per_pixel_i=np.array(sizes_um, dtype=np.float64),
        )

    @property
    def step_i(self) -> NDArray[np.float64]:
        """Pixels of the atlas in one pixel of a view, shape (images,)."""
        return self.pixel_um / (self.um_per_pixel_i * self.factor_i)

    def position(
        self, image_index_n: NDArray[np.integer], centres_yx: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """Where points of the images lie in their blocks, in pixels of the atlas.

        A pixel of the atlas averages `factor` pixels along an edge, so its centre lies
        (factor - 1) / 2 pixels of the image beyond the first of them.

        Parameters
        ----------
        image_index_n
            Image of each point.
        centres_yx
            y and x in pixels of the image, shape (points, 2).
        """
        factor_n1 = self.factor_i[image_index_n, None]
        margin_n1 = self.margin_i[image_index_n, None]
        return np.asarray(
            (np.asarray(centres_yx, np.float64) - (factor_n1 - 1) / 2) / factor_n1 + margin_n1
        )

    def block(self, image_index: int) -> NDArray[np.floating]:
        """Pixels of one image with its margin, shape (rows, columns, markers)."""
        i = image_index
        shape = (int(self.rows_i[i]), int(self.columns_i[i]), len(self.markers))
        start = int(self.offset_i[i])
        return self.values[start : start + shape[0] * shape[1] * shape[2]].reshape(shape)


def averaging_factor(um_per_pixel: float, pixel_um: float) -> int:
    """How many pixels of an image are averaged along an edge: the nearest whole number."""
    return max(1, int(pixel_um / um_per_pixel + 0.5))


def _block(
    image: Image, panel: Panel, channels: Sequence[int], factor: int, margin: int, dtype: str
) -> NDArray[np.floating]:
    """Averaged, mirrored and turned to channels last."""
    if image.pixels_cyx.shape[0] != len(panel.channels):
        raise InputError(
            "the image does not have the channels of the panel",
            image=image.name,
            expected=len(panel.channels),
            found=image.pixels_cyx.shape[0],
        )
    if image.pixels_cyx.shape[1] == 0 or image.pixels_cyx.shape[2] == 0:
        raise InputError("the image has no pixels", image=image.name)
    planes = []
    for channel in channels:
        plane_yx = _average(np.asarray(image.pixels_cyx[channel], np.float32), factor)
        highest = float(np.abs(plane_yx).max())
        if not highest <= _LARGEST_HALF:
            raise InputError(
                "pixels are not finite or too large to be gathered",
                image=image.name,
                channel=panel.channels[channel].name,
                expected=f"numbers up to {_LARGEST_HALF:.0f}",
                found=highest,
                do="Clean the images with a scaling first",
            )
        planes.append(np.pad(plane_yx, margin, mode="reflect").astype(dtype))
    return np.ascontiguousarray(np.stack(planes, axis=-1))


def _average(plane_yx: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Mean of each factor x factor square; squares cut by the edge average what is inside."""
    for axis in (0, 1) if factor > 1 else ():
        length = plane_yx.shape[axis]
        starts = np.arange(0, length, factor)
        counts = np.minimum(factor, length - starts).astype(np.float32)
        sums = np.add.reduceat(plane_yx, starts, axis=axis)
        plane_yx = sums / (counts[:, None] if axis == 0 else counts)
    return plane_yx


def _in_memory(blocks: Iterable[NDArray[np.floating]], dtype: str) -> NDArray[np.floating]:
    """Blocks in one array that grows in place, so that it is never there twice."""
    values: NDArray[np.floating] = np.empty(0, dtype=dtype)
    for block in blocks:
        start = len(values)
        values.resize(start + len(block), refcheck=False)
        values[start:] = block
    return values


def _in_file(
    blocks: Iterable[NDArray[np.floating]], folder: Path, dtype: str
) -> NDArray[np.floating]:
    """Blocks in a file, mapped so that the operating system reads what is asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / _FILE
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        for block in blocks:
            block.tofile(file)
    # Copy on write: the file never changes, and compiled code sees an ordinary array.
    return np.memmap(target, dtype=dtype, mode="c").view(np.ndarray)
