"""What a file says about one image before its pixels are read, and the checks all formats share."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskless.errors import InputError, MasklessError
from maskless.images.names import isotope_in

_reading: ContextVar[bool] = ContextVar("reading", default=False)
# What tifffile would only log is checked here, so it need not be printed as well.
logging.getLogger("tifffile").addFilter(lambda record: not _reading.get())

Pixels = NDArray[np.generic]
LoadPlanes = Callable[[Sequence[int]], tuple[Pixels, tuple[str, ...]]]


@dataclass(frozen=True)
class FileChannel:
    """One channel as the file names it; both fields are empty where it does not."""

    label: str = ""
    metal: str = ""

    @classmethod
    def from_label(cls, label: str) -> FileChannel:
        """A channel whose metal, if any, stands in its label."""
        label = " ".join(label.split())
        return cls(label, isotope_in(label))

    @property
    def text(self) -> str:
        """How messages call it."""
        if self.metal and self.metal != self.label:
            return f"{self.label} ({self.metal})" if self.label else self.metal
        return self.label or "(unnamed)"


@dataclass(frozen=True)
class Header:
    """One image in a file or folder.

    Attributes
    ----------
    name
        Proposed name; made unique later.
    source
        What messages point at.
    files
        All files that the image is read from.
    channels
        In the order of the file.
    um_per_pixel
        As the file tells it, or as its format implies; None where it is unknown.
    load
        Reads the given planes, shape (len(indices), rows, columns), with what was found wrong.
    shape_yx
        Rows and columns; None where only reading tells.
    problems
        What was found wrong so far.
    folder
        Folder whose name tells this image from others of the same name.
    about
        What the file tells about how the image was made, by name.
    """

    name: str
    source: Path
    files: tuple[Path, ...]
    channels: tuple[FileChannel, ...]
    um_per_pixel: float | None
    load: LoadPlanes
    shape_yx: tuple[int, int] | None = None
    problems: tuple[str, ...] = ()
    folder: Path | None = None
    about: Mapping[str, str] = field(default_factory=dict)

    @property
    def named(self) -> bool:
        """Whether the file names any of its channels."""
        return any(channel.label or channel.metal for channel in self.channels)


@contextmanager
def guarded(file: Path, what: str, image: str | None = None) -> Iterator[None]:
    """Turn every foreign exception into one InputError, and keep libraries from printing."""
    token = _reading.set(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except MasklessError:
        raise
    except MemoryError as error:
        raise InputError(
            f"{what}: it does not fit in memory", file=file, image=image, found=error
        ) from error
    except FileNotFoundError as error:
        raise InputError("no such file", file=error.filename or file, image=image) from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(
            what,
            file=file,
            image=image,
            found=reason[:300],
            do="Is the file complete? Copy it again from where it came from",
        ) from error
    finally:
        _reading.reset(token)


def check_size(shape_yx: tuple[int, int], file: Path, image: str | None = None) -> None:
    """Refuse images without pixels."""
    if min(shape_yx) < 1:
        raise InputError(
            "the image is empty",
            file=file,
            image=image,
            found=f"{shape_yx[1]} x {shape_yx[0]} pixels",
            do="Leave it out",
        )


def check_dtype(dtype: np.dtype[np.generic], file: Path) -> None:
    """Refuse pixels that are not plain numbers."""
    if dtype.kind not in "uif":
        raise InputError(
            "the pixels are not plain numbers",
            file=file,
            expected="integers or floating point",
            found=dtype,
        )


def check_pixels(
    pixels_cyx: Pixels, names: Sequence[str], file: Path, image: str
) -> tuple[str, ...]:
    """Refuse NaN and infinite pixels, and tell of negative ones and of images without signal.

    Raises
    ------
    InputError
        Naming the first channel with NaN or infinity, and how many pixels are.
    """
    problems = []
    if pixels_cyx.dtype.kind == "f":
        for name, plane_yx in zip(names, pixels_cyx, strict=True):
            if count := int(plane_yx.size - np.count_nonzero(np.isfinite(plane_yx))):
                raise InputError(
                    "pixels are NaN or infinite",
                    file=file,
                    image=image,
                    channel=name,
                    expected="numbers",
                    found=f"{count} of {plane_yx.size} pixels",
                    do="Write the image again without them, or leave it out",
                )
    if pixels_cyx.dtype.kind in "if":
        below = np.count_nonzero(pixels_cyx < 0, axis=(1, 2))  # type: ignore[operator]
        for name, count in zip(names, below, strict=True):
            if count:
                problems.append(f"{count} pixels of channel {name} are negative.")
    if not pixels_cyx.any():
        problems.append("No channel has any signal: all pixels are zero.")
    return tuple(problems)


_UNITS_UM = {
    "µm": 1.0, "μm": 1.0, "um": 1.0, "micrometer": 1.0, "micrometre": 1.0, "micron": 1.0,
    "microns": 1.0, "nm": 1e-3, "nanometer": 1e-3, "nanometre": 1e-3,
    "mm": 1e3, "millimeter": 1e3, "millimetre": 1e3, "cm": 1e4, "centimeter": 1e4,
    "centimetre": 1e4, "m": 1e6, "meter": 1e6, "metre": 1e6, "pm": 1e-6, "picometer": 1e-6,
    "å": 1e-4, "angstrom": 1e-4, "in": 25400.0, "inch": 25400.0,
}  # fmt: skip


def micrometres(x: object, x_unit: str, y: object, y_unit: str, file: Path) -> float | None:
    """Edge of a square pixel in micrometres; None where a size or a unit of length is missing.

    Raises
    ------
    InputError
        If the numbers make no sense or the pixels are not square.
    """
    sizes = []
    for size, unit in ((x, x_unit), (y, y_unit)):
        factor = _UNITS_UM.get(unit.strip().casefold())
        if size is None or factor is None:
            continue
        try:
            value = float(str(size)) * factor
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value > 0):
            raise InputError("the pixel size makes no sense", file=file, found=f"{size} {unit}")
        sizes.append(value)
    if not sizes:
        return None
    if max(sizes) > 1.01 * min(sizes):
        raise InputError(
            "the pixels are not square",
            file=file,
            found=f"{sizes[0]:g} x {sizes[1]:g} um",
            do="Resample the image to square pixels",
        )
    return sizes[0]
