"""OME-Zarr 0.4 and 0.5: the image at full resolution, with its channel names and pixel size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from maskless.errors import InputError
from maskless.images.header import (
    FileChannel,
    Header,
    Pixels,
    check_size,
    guarded,
    micrometres,
)
from maskless.images.zarr_arrays import (
    CheckedArray,
    group_attributes,
    is_zarr,
    missing_plane,
    open_checked,
)

_SPATIALDATA = "spatialdata_attrs"
OWN = "maskless"  # key under which this package keeps what OME-Zarr has no place for


@dataclass(frozen=True)
class ZarrImage:
    """What the metadata of one OME-Zarr image tell.

    Attributes
    ----------
    path
        Its group.
    pixels
        The array at full resolution.
    axes
        One letter an axis, such as ``"cyx"``.
    labels
        Of the channels; empty where not told.
    um_per_pixel
        None where not told.
    own
        What maskless wrote beside it; empty for files of other programs.
    """

    path: Path
    pixels: CheckedArray
    axes: str
    labels: tuple[str, ...]
    um_per_pixel: float | None
    own: dict[str, Any]

    @property
    def shape_yx(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = (self.pixels.shape[self.axes.index(axis)] for axis in "yx")
        return rows, columns

    def read(self, indices: Sequence[int]) -> tuple[Pixels, tuple[str, ...]]:
        """Planes of channels, shape (len(indices), rows, columns), and what is missing."""
        checked, axes = self.pixels, self.axes
        wanted: dict[int, Sequence[int] | int] = {
            i: 0 for i, axis in enumerate(axes) if axis not in "cyx"
        }
        if "c" in axes:
            wanted[axes.index("c")] = list(indices)
        missing_yx = missing_plane(
            checked,
            axes.index("y"),
            axes.index("x"),
            {i: [w] if isinstance(w, int) else w for i, w in wanted.items()},
        )
        problems: tuple[str, ...] = ()
        if count := int(missing_yx.sum()):
            told = f"{len(checked.missing)} of {checked.n_chunks} chunks are not stored"
            if self.own:
                raise InputError(
                    told,
                    file=self.path,
                    found=f"{count} pixels missing",
                    do="The image is damaged: delete it and run its stage again",
                )
            problems = (
                f"{told}, so {count} of {missing_yx.size} pixels are missing in some channel and "
                f"were taken as {checked.array.fill_value}, the file's fill value.",
            )
        pixels = checked.read(wanted)
        rest = [axis for axis in axes if axis in "cyx"]
        if "c" not in rest:
            pixels, rest = pixels[None], ["c", *rest]
            pixels = pixels[[0] * len(indices)]
        return pixels.transpose([rest.index(axis) for axis in "cyx"]), problems


def read_metadata(path: Path) -> ZarrImage:
    """Read and check the metadata of one image; call it inside ``guarded``.

    Raises
    ------
    InputError
        If they are not those of an OME-Zarr image with one plane a channel.
    """
    attributes = group_attributes(path)
    ome = attributes.get("ome", attributes)
    multiscales = ome.get("multiscales") if isinstance(ome, dict) else None
    if not isinstance(multiscales, list) or not multiscales:
        raise InputError(
            "this Zarr group is not an OME-Zarr image (it has no multiscales)", file=path
        )
    scales = multiscales[0]
    axes = "".join(
        str(axis["name"] if isinstance(axis, dict) else axis) for axis in scales.get("axes", [])
    )
    dataset = scales["datasets"][0]
    pixels = open_checked(path, str(dataset["path"]))
    if (
        len(axes) != len(pixels.shape)
        or len(set(axes)) != len(axes)
        or not {"y", "x"} <= set(axes) <= set("tczyx")
        or any(size != 1 for axis, size in zip(axes, pixels.shape, strict=True) if axis in "tz")
    ):
        raise InputError(
            "the axes of the OME-Zarr are not those of one image with channels",
            file=path,
            expected="c, y, x in any order",
            found=f"{', '.join(axes) or 'none'} with shape {pixels.shape}",
            do="Pick or project one plane and save it with axes c, y, x",
        )
    check_size((pixels.shape[axes.index("y")], pixels.shape[axes.index("x")]), path)
    count = pixels.shape[axes.index("c")] if "c" in axes else 1
    if count < 1:
        raise InputError("the image has no channels", file=path)
    listed = (ome.get("omero") or attributes.get("omero") or {}).get("channels", [])
    labels = [str(channel.get("label") or "") for channel in listed]
    if labels and len(labels) != count:
        raise InputError(
            "the OME-Zarr contradicts itself about the number of channels",
            file=path,
            expected=f"{count} as in the array",
            found=f"{len(labels)} labels",
        )
    own = attributes.get(OWN)
    return ZarrImage(
        path,
        pixels,
        axes,
        tuple(labels or [""] * count),
        _um_per_pixel(scales, dataset, axes, path),
        own if isinstance(own, dict) else {},
    )


def _um_per_pixel(scales: Any, dataset: Any, axes: str, path: Path) -> float | None:
    factors = [1.0] * len(axes)
    found = False
    for told in (dataset, scales):
        for transformation in told.get("coordinateTransformations", []):
            if transformation.get("type") == "scale" and "scale" in transformation:
                scale = [float(value) for value in transformation["scale"]]
                factors = [a * b for a, b in zip(factors, scale, strict=True)]
                found = True
    if not found:
        return None
    units = [
        str(axis.get("unit") or "") if isinstance(axis, dict) else ""
        for axis in scales.get("axes", [])
    ]
    y, x = axes.index("y"), axes.index("x")
    return micrometres(factors[x], units[x], factors[y], units[y], path)


def zarr_headers(path: Path) -> list[Header]:
    """Headers of the image in an OME-Zarr, of each series that bioformats2raw wrote, or of each
    image in a SpatialData store.

    Raises
    ------
    InputError
        If it is no readable OME-Zarr image.
    """
    name = path.name.removesuffix(".zarr").removesuffix(".ome") or path.name
    with guarded(path, "the OME-Zarr cannot be read"):
        attributes = group_attributes(path)
        ome = attributes.get("ome", attributes)
        if "bioformats2raw.layout" in ome and "multiscales" not in ome:
            inner = sorted(
                (p for p in path.iterdir() if p.name.isdigit()), key=lambda p: int(p.name)
            )
            if len(inner) == 1:
                return [_header(inner[0], name, path)]
            return [_header(p, f"{name}_{int(p.name) + 1:03d}", path) for p in inner]
        if _SPATIALDATA in attributes and "multiscales" not in ome:
            return [replace(_header(p, p.name, p), folder=path) for p in _elements(path)]
        return [_header(path, name, path)]


def _elements(store: Path) -> list[Path]:
    """Groups of the images in a SpatialData store."""
    folder = store / "images"
    found = sorted(p for p in folder.iterdir() if is_zarr(p)) if folder.is_dir() else []
    if not found:
        raise InputError(
            "the SpatialData store has no images",
            file=store,
            do="Was it written to its end? It holds them in the folder images",
        )
    return found


def _header(path: Path, name: str, source: Path) -> Header:
    image = read_metadata(path)

    def load(indices: Sequence[int]) -> tuple[Pixels, tuple[str, ...]]:
        with guarded(source, "the OME-Zarr cannot be read", name):
            return read_metadata(path).read(indices)

    return Header(
        name,
        source,
        tuple(sorted(p for p in path.rglob("*") if p.is_file())),
        tuple(FileChannel.from_label(label) for label in image.labels),
        image.um_per_pixel,
        load,
        image.shape_yx,
        folder=source.parent,
    )
