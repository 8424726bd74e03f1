"""Zarr arrays from files that nobody vouches for: nothing is executed, nothing is invented.

Zarr reads chunks that are not stored as their fill value, so they are looked for here. Codecs are
checked before the library sees them, because one of those that exist unpickles.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.images.header import Pixels, check_dtype

_CODECS_V2 = frozenset({"blosc", "zstd", "zlib", "gzip", "lz4", "lzma", "bz2"})
_CODECS_V3 = frozenset(
    {"bytes", "transpose", "blosc", "zstd", "gzip", "crc32c", "sharding_indexed"}
)


def is_zarr(path: Path) -> bool:
    """Whether a folder is a Zarr group or array."""
    return any((path / name).is_file() for name in (".zgroup", ".zattrs", ".zarray", "zarr.json"))


def group_attributes(path: Path) -> dict[str, Any]:
    """Attributes of a Zarr group, format 2 or 3.

    Raises
    ------
    InputError
        If there is no readable group.
    """
    if not path.is_dir():
        raise InputError("no such folder", file=path)
    if (path / "zarr.json").is_file():
        found = _json(path / "zarr.json").get("attributes", {})
    elif (path / ".zattrs").is_file():
        found = _json(path / ".zattrs")
    else:
        raise InputError("this folder is not a Zarr group", file=path)
    if not isinstance(found, dict):
        raise InputError("the attributes of the Zarr group are not readable", file=path)
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError("this is not a readable JSON file", file=path, found=error) from error
    if not isinstance(content, dict):
        raise InputError("this JSON file holds no object", file=path)
    return content


@dataclass(frozen=True)
class CheckedArray:
    """An array whose codecs are harmless, with the chunks that are not stored.

    Attributes
    ----------
    path
        Its folder.
    array
        As zarr opened it.
    missing
        For each chunk that is not stored or empty, the region of the array it covers.
    """

    path: Path
    array: Any
    missing: tuple[tuple[slice, ...], ...]
    n_chunks: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return tuple(self.array.shape)

    def read(self, index: Mapping[int, Sequence[int] | int]) -> Pixels:
        """Read with the given axes reduced to one or some of their positions.

        Axes given as an integer are dropped.
        """
        selection: list[Any] = [slice(None)] * len(self.shape)
        for axis, wanted in index.items():
            selection[axis] = wanted if isinstance(wanted, int) else list(wanted)
        return np.asarray(self.array.oindex[tuple(selection)])


def open_checked(group: Path, inner: str) -> CheckedArray:
    """Open an array inside a group; call it inside ``guarded``.

    Raises
    ------
    InputError
        If its path leaves the group, its codecs are not known to be harmless, or its pixels are
        not plain numbers.
    """
    parts = PurePosixPath(inner).parts
    if not inner or ".." in parts or inner.startswith("/") or "\\" in inner or ":" in inner:
        raise InputError("the OME-Zarr points outside itself", file=group, found=inner)
    path = group.joinpath(*parts)
    outermost = _check_codecs(path)
    array = zarr.open_array(str(path), mode="r")
    check_dtype(np.dtype(array.dtype), path)
    grid = array.shards or array.chunks
    missing = []
    total = 0
    for place, region in _chunks(tuple(array.shape), tuple(grid)):
        total += 1
        file = path / array.metadata.encode_chunk_key(place)
        if not file.is_file() or file.stat().st_size == 0:
            missing.append(region)
        elif outermost == "blosc":
            _check_blosc(file)
    return CheckedArray(path, array, tuple(missing), total)


def _chunks(
    shape: tuple[int, ...], grid: tuple[int, ...]
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    counts = [-(-size // step) for size, step in zip(shape, grid, strict=True)]
    for place in itertools.product(*(range(count) for count in counts)):
        yield (
            place,
            tuple(
                slice(i * step, min((i + 1) * step, size))
                for i, step, size in zip(place, grid, shape, strict=True)
            ),
        )


def _check_blosc(file: Path) -> None:
    """Blosc does not look at how long its input is: it reads beyond the end of a cut chunk."""
    with file.open("rb") as handle:
        start = handle.read(16)
    told = int.from_bytes(start[12:16], "little") if len(start) == 16 else -1
    if told != file.stat().st_size:
        raise InputError(
            "a chunk of the Zarr array is cut or damaged",
            file=file,
            expected=f"{told} bytes" if told >= 0 else "16 bytes or more",
            found=f"{file.stat().st_size} bytes",
            do="Copy the image again from where it came from",
        )


def _check_codecs(path: Path) -> str:
    """Refuse codecs that are not known to be harmless; name the one applied last in writing."""
    if (path / ".zarray").is_file():
        told = _json(path / ".zarray")
        codecs = [*(told.get("filters") or []), told.get("compressor")]
        names = [codec.get("id") for codec in codecs if codec]
        known = _CODECS_V2
    elif (path / "zarr.json").is_file():
        names = list(_codec_names(_json(path / "zarr.json").get("codecs", [])))
        known = _CODECS_V3
    else:
        raise InputError("the OME-Zarr lacks an array that it lists", file=path)
    if unknown := [str(name) for name in names if name not in known]:
        raise InputError(
            "the Zarr array uses a codec that is not read here",
            file=path,
            expected=", ".join(sorted(known)),
            found=", ".join(unknown),
        )
    return "sharding_indexed" if "sharding_indexed" in names else str(names[-1] if names else "")


def _codec_names(codecs: Any) -> Iterator[Any]:
    for codec in codecs:
        if isinstance(codec, str):
            yield codec
            continue
        yield codec.get("name")
        inner = codec.get("configuration") or {}
        for key in ("codecs", "index_codecs"):
            yield from _codec_names(inner.get(key, []))


def missing_plane(
    checked: CheckedArray, axis_y: int, axis_x: int, keep: Mapping[int, Sequence[int]]
) -> NDArray[np.bool_]:
    """Pixels that lie in a chunk that is not stored, shape (rows, columns).

    Parameters
    ----------
    checked
        The array.
    axis_y, axis_x
        Its axes of rows and columns.
    keep
        For other axes the positions that are read; chunks elsewhere do not matter.
    """
    missing_yx = np.zeros((checked.shape[axis_y], checked.shape[axis_x]), dtype=bool)
    for region in checked.missing:
        if all(
            any(region[axis].start <= i < region[axis].stop for i in wanted)
            for axis, wanted in keep.items()
        ):
            missing_yx[region[axis_y], region[axis_x]] = True
    return missing_yx
