"""OME-TIFF: the OME-XML tells channels, pixel size and which page is which plane.

The XML is interpreted here rather than by tifffile, which fills pages that are not there with
zeros. Source: OME Data Model 2016-06 and the OME-TIFF specification.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from maskless.errors import InputError
from maskless.images.header import FileChannel, Header, check_size, micrometres
from maskless.images.safe_xml import children, parse_xml, tag
from maskless.images.tiff_pages import check_page, read_planes

_MOST_PLANES = 100_000


@dataclass(frozen=True)
class _Sizes:
    x: int
    y: int
    c: int
    z: int
    t: int


def is_ome(description: str) -> bool:
    """Whether a page description is OME-XML, be it whole or cut."""
    start = description[:2000]
    return "<OME" in start or "openmicroscopy.org/Schemas/OME" in start


def ome_headers(opened: Any, path: Path, name: str) -> list[Header]:
    """Headers of the images in an OME-TIFF; call it inside ``guarded``.

    Parameters
    ----------
    opened
        The file as opened by ``open_tiff``.
    path, name
        The file, and what its image is called (numbered where there are several).

    Raises
    ------
    InputError
        If the XML is malformed or unsafe, pages are missing, or the image has depth or time.
    """
    root = parse_xml(opened.pages[0].description, path, "OME-XML")
    images = children(root, "Image")
    if tag(root) != "OME" or not images:
        binary_only = bool(children(root, "BinaryOnly"))
        raise InputError(
            "the OME-XML is in another file" if binary_only else "the OME-XML describes no image",
            file=path,
            do="Convert the image to one self-contained OME-TIFF",
        )
    return [
        _header(opened, path, name if len(images) == 1 else f"{name}_{i + 1:03d}", root, image, i)
        for i, image in enumerate(images)
    ]


def _header(
    opened: Any, path: Path, name: str, root: Element, image: Element, number: int
) -> Header:
    found = children(image, "Pixels")
    if len(found) != 1:
        raise InputError("the OME-XML describes no pixels", file=path, image=name)
    pixels = found[0]
    sizes = _sizes(pixels, path, name)
    check_size((sizes.y, sizes.x), path, name)
    for axis, size in (("Z", sizes.z), ("T", sizes.t)):
        if size != 1:
            raise InputError(
                f"the image has an axis {axis}",
                file=path,
                image=name,
                expected="one plane a channel (axes C, Y, X)",
                found=f"Size{axis} = {size}",
                do="Pick or project one plane and save it as C, Y, X",
            )
    channels, samples = _channels(pixels, sizes, path, name)
    # With one Z and one T the order of planes is that of the channels, whatever DimensionOrder.
    order = pixels.get("DimensionOrder", "")
    if sorted(order) != sorted("XYCZT") or not order.startswith("XY"):
        raise InputError(
            "the OME-XML has an impossible DimensionOrder",
            file=path,
            image=name,
            expected="XYCZT or another order of it that begins with XY",
            found=order or "none",
        )
    page_of = _pages(root, pixels, len(samples), number, path, name)
    missing = [c for c in range(len(samples)) if not 0 <= page_of.get(c, -1) < len(opened.pages)]
    if missing:
        raise InputError(
            "the TIFF is cut, or its OME-XML is wrong: pages are missing",
            file=path,
            image=name,
            channel=channels[sum(samples[: missing[0]])].text,
            expected=f"{len(samples)} pages as in the OME-XML",
            found=f"{len(samples) - len(missing)} of them, {len(opened.pages)} pages in the file",
            do="The file is incomplete: copy it again from where it came from",
        )
    planes: list[tuple[int, int | None]] = []
    for c, n_samples in enumerate(samples):
        page = check_page(opened, page_of[c], path)
        shape_yx = (page.imagelength, page.imagewidth)
        if shape_yx != (sizes.y, sizes.x) or page.samplesperpixel != n_samples:
            raise InputError(
                "the pages of the TIFF do not have the size that the OME-XML tells",
                file=path,
                image=name,
                channel=channels[len(planes)].text,
                expected=f"{sizes.x} x {sizes.y} pixels, {n_samples} values each",
                found=f"{shape_yx[1]} x {shape_yx[0]}, {page.samplesperpixel}",
                do="The axes of the file are wrong: save it again as C, Y, X",
            )
        planes += [(page_of[c], s if n_samples > 1 else None) for s in range(n_samples)]
    return Header(
        name,
        path,
        (path,),
        channels,
        micrometres(
            pixels.get("PhysicalSizeX"),
            pixels.get("PhysicalSizeXUnit", "µm"),
            pixels.get("PhysicalSizeY"),
            pixels.get("PhysicalSizeYUnit", "µm"),
            path,
        ),
        lambda indices: (read_planes(path, [planes[i] for i in indices], (sizes.y, sizes.x)), ()),
        (sizes.y, sizes.x),
    )


def _sizes(pixels: Element, path: Path, name: str) -> _Sizes:
    try:
        x, y, c, z, t = (int(pixels.get(f"Size{axis}", "")) for axis in "XYCZT")
    except ValueError:
        raise InputError(
            "the OME-XML does not tell the size of the image",
            file=path,
            image=name,
            expected="whole numbers SizeX, SizeY, SizeC, SizeZ, SizeT",
            found=", ".join(f"{axis} = {pixels.get(f'Size{axis}')}" for axis in "XYCZT"),
        ) from None
    if min(c, z, t) < 1 or c * z * t > _MOST_PLANES:
        raise InputError(
            "the OME-XML tells an impossible number of planes",
            file=path,
            image=name,
            found=f"SizeC = {c}, SizeZ = {z}, SizeT = {t}",
        )
    return _Sizes(x, y, c, z, t)


def _channels(
    pixels: Element, sizes: _Sizes, path: Path, name: str
) -> tuple[tuple[FileChannel, ...], list[int]]:
    """Channels, one for each sample, and the number of samples of each page."""
    described = children(pixels, "Channel")
    if not described:
        return (FileChannel(),) * sizes.c, [1] * sizes.c
    samples = [int(channel.get("SamplesPerPixel", "1")) for channel in described]
    if min(samples) < 1 or sum(samples) != sizes.c:
        raise InputError(
            "the OME-XML contradicts itself about the number of channels",
            file=path,
            image=name,
            expected=f"{sizes.c} as in SizeC",
            found=f"{sum(samples)} in its Channel elements",
        )
    channels: list[FileChannel] = []
    for channel, n_samples in zip(described, samples, strict=True):
        label = channel.get("Name", "")
        channels += [
            FileChannel.from_label(label if n_samples == 1 else "") for _ in range(n_samples)
        ]
    return tuple(channels), samples


def _pages(
    root: Element, pixels: Element, n_planes: int, number: int, path: Path, name: str
) -> dict[int, int]:
    """Page of each plane by the TiffData elements; later ones win, as in Bio-Formats."""
    page_of: dict[int, int] = {}
    blocks = children(pixels, "TiffData")
    if not blocks:
        if number:
            raise InputError(
                "the OME-XML does not tell where the pixels are", file=path, image=name
            )
        return {plane: plane for plane in range(n_planes)}
    own = (root.get("UUID") or "").strip()
    for block in blocks:
        for uuid in children(block, "UUID"):
            if own and (uuid.text or "").strip() not in ("", own):
                raise InputError(
                    "the image is spread over several files",
                    file=path,
                    image=name,
                    found=uuid.get("FileName"),
                    do="Convert the image to one self-contained OME-TIFF",
                )
        page = int(block.get("IFD", "0"))
        default = "1" if "IFD" in block.keys() else str(n_planes)  # noqa: SIM118
        count = int(block.get("PlaneCount", default))
        first = int(block.get("FirstC", "0"))
        if not 0 <= count <= _MOST_PLANES or min(page, first) < 0 or first + count > n_planes:
            raise InputError(
                "the OME-XML places planes outside the image",
                file=path,
                image=name,
                expected=f"{n_planes} planes",
                found=f"TiffData with IFD {page}, FirstC {first}, PlaneCount {count}",
            )
        page_of.update({first + i: page + i for i in range(count)})
    return page_of
