"""TIFF files: plain stacks, ImageJ, MIBI, and folders with one file a channel.

OME-TIFF is handed on to :mod:`maskless.images.ome_tiff`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskless.errors import InputError
from maskless.images.header import (
    FileChannel,
    Header,
    Pixels,
    check_dtype,
    check_size,
    guarded,
    micrometres,
)
from maskless.images.names import isotope
from maskless.images.ome_tiff import is_ome, ome_headers
from maskless.images.tiff_pages import check_page, open_tiff, read_planes

TIFF_ENDINGS = (".ome.tif", ".ome.tiff", ".ome.tf8", ".ome.btf", ".tif", ".tiff", ".tf8", ".btf")
_LABEL_FILE = re.compile(
    r"((cell|nuclear|nuclei|nucleus|whole_?cell)[_-]?)?"
    r"(masks?|regions?|class(es)?|labels?|segmentations?)([_\-. ].*)?"
    r"|.*[_\-. ](masks?|labels?|segmentations?)",
    re.IGNORECASE,
)
_CM_PER_PIXEL_PLAUSIBLE_UM = (0.01, 50.0)


def is_tiff_name(path: Path) -> bool:
    """Whether a file name ends as TIFF files do."""
    return path.name.lower().endswith(TIFF_ENDINGS)


def stem(path: Path) -> str:
    """File name without its ending; ``.ome.tif`` is one ending."""
    for ending in TIFF_ENDINGS:
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return path.stem


def is_label_image(path: Path) -> bool:
    """Whether a TIFF is a mask or map of regions beside an image, by its name and one plane."""
    if not _LABEL_FILE.fullmatch(stem(path)):
        return False
    with guarded(path, "the TIFF cannot be read"), open_tiff(path) as opened:
        page: Any = opened.pages[0]
        one_plane = len(opened.pages) == 1 and page.samplesperpixel == 1
        return one_plane and page.dtype is not None and np.dtype(page.dtype).kind in "ui"


def tiff_headers(path: Path) -> list[Header]:
    """Headers of the images in a TIFF file: one, or one for each Image of an OME-TIFF.

    Raises
    ------
    InputError
        If the file is no whole TIFF, or its axes are not those of one image with channels.
    """
    name = stem(path)
    with guarded(path, "the TIFF cannot be read"), open_tiff(path) as opened:
        first: Any = opened.pages[0]
        description = str(first.description)
        if is_ome(description):
            return ome_headers(opened, path, name)
        if mibi := _mibi_channels(opened):
            return [_stack(opened, path, name, *mibi)]
        if opened.is_shaped or opened.is_imagej:
            return [_series(opened, path, name)]
        channels = [FileChannel.from_label(_page_name(page)) for page in opened.pages]
        return [_stack(opened, path, name, list(range(len(opened.pages))), channels)]


def channel_folder_header(folder: Path, files: Sequence[Path], name: str) -> Header:
    """Header of an image that is stored as one single-plane TIFF a channel, named by the file.

    Raises
    ------
    InputError
        If the files differ in size or kind of pixel.
    """
    parts: list[Header] = []
    for file in files:
        found = tiff_headers(file)
        if len(found) != 1 or len(found[0].channels) != 1:
            raise InputError(
                "this file does not fit among files of one channel each",
                file=file,
                expected="one channel",
                found=sum(len(h.channels) for h in found),
                do="Put whole images and single channels into different folders",
            )
        if parts and found[0].shape_yx != parts[0].shape_yx:
            raise InputError(
                "the channels of an image have different sizes",
                file=file,
                image=name,
                channel=stem(file),
                expected=f"{parts[0].shape_yx} rows, columns as in {files[0].name}",
                found=found[0].shape_yx,
            )
        if parts and found[0].um_per_pixel != parts[0].um_per_pixel:
            raise InputError(
                "the channels of an image have different pixel sizes",
                file=file,
                image=name,
                channel=stem(file),
                expected=f"{parts[0].um_per_pixel} um as in {files[0].name}",
                found=found[0].um_per_pixel,
            )
        parts.append(found[0])

    def load(indices: Sequence[int]) -> tuple[Pixels, tuple[str, ...]]:
        planes = [parts[i].load([0])[0][0] for i in indices]
        for i, plane_yx in zip(indices, planes, strict=True):
            if plane_yx.dtype != planes[0].dtype:
                raise InputError(
                    "the channels of an image have different kinds of pixel",
                    file=files[i],
                    image=name,
                    expected=planes[0].dtype,
                    found=plane_yx.dtype,
                )
        return np.stack(planes), ()

    return Header(
        name,
        folder,
        tuple(files),
        tuple(FileChannel.from_label(stem(file)) for file in files),
        parts[0].um_per_pixel,
        load,
        parts[0].shape_yx,
        folder=folder.parent,
    )


def _stack(
    opened: Any, path: Path, name: str, pages: list[int], channels: list[FileChannel]
) -> Header:
    """One page a channel, or one page with interleaved channels."""
    checked = [check_page(opened, index, path) for index in pages]
    shape_yx = (checked[0].imagelength, checked[0].imagewidth)
    samples = checked[0].samplesperpixel
    for index, page in zip(pages, checked, strict=True):
        if (page.imagelength, page.imagewidth) != shape_yx or page.samplesperpixel != samples:
            raise InputError(
                f"page {index + 1} of the TIFF has another size than the first",
                file=path,
                expected=f"{shape_yx[1]} x {shape_yx[0]} pixels",
                found=f"{page.imagewidth} x {page.imagelength}",
                do="Save the image as one page a channel (axes C, Y, X), without thumbnails",
            )
    if samples > 1 and len(pages) > 1:
        raise InputError(
            "the TIFF has several pages with several values a pixel each",
            file=path,
            expected="one page a channel (axes C, Y, X)",
            found=f"{len(pages)} pages with {samples} values a pixel",
        )
    planes: list[tuple[int, int | None]] = [(index, None) for index in pages]
    if samples > 1:
        planes = [(pages[0], sample) for sample in range(samples)]
        channels = [FileChannel()] * samples
    return Header(
        name,
        path,
        (path,),
        tuple(channels),
        _resolution_um(opened, checked[0], path),
        lambda indices: (read_planes(path, [planes[i] for i in indices], shape_yx), ()),
        shape_yx,
    )


def _series(opened: Any, path: Path, name: str) -> Header:
    """Files whose description tells the axes: written by tifffile or ImageJ."""
    if len(opened.series) != 1:
        raise InputError(
            "the TIFF holds several arrays", file=path, expected=1, found=len(opened.series)
        )
    series = opened.series[0]
    axes, shape = str(series.axes), tuple(series.shape)
    check_dtype(np.dtype(series.dtype), path)
    for index in range(len(opened.pages)):
        check_page(opened, index, path)
    end = (series.dataoffset or 0) + (series.nbytes if series.dataoffset is not None else 0)
    if end > opened.filehandle.size:
        raise InputError(
            "the TIFF is cut",
            file=path,
            expected=f"{end} bytes",
            found=f"{opened.filehandle.size} bytes",
            do="The file is incomplete: copy it again from where it came from",
        )
    kept = [i for i, axis in enumerate(axes) if axis in "YX" or shape[i] != 1]
    kept_axes = "".join(axes[i] for i in kept)
    rest = kept_axes.replace("Y", "", 1).replace("X", "", 1)
    if len(kept_axes) != len(rest) + 2 or len(rest) > 1 or rest not in ("", "C", "S", "I", "Q"):
        raise InputError(
            "the axes of the TIFF are not those of one image with channels",
            file=path,
            expected="C, Y, X in any order",
            found=", ".join(f"{a} = {n}" for a, n in zip(axes, shape, strict=True)),
            do="Pick or project one plane, and save the channels along an axis C",
        )
    sizes = {axes[i]: shape[i] for i in kept}
    shape_yx = (sizes["Y"], sizes["X"])
    check_size(shape_yx, path)

    def load(indices: Sequence[int]) -> tuple[Pixels, tuple[str, ...]]:
        with open_tiff(path) as again:
            array: Pixels = again.series[0].asarray()
        if tuple(array.shape) != shape:
            raise InputError("the TIFF changed while it was read", file=path)
        array = array.reshape([shape[i] for i in kept])
        wanted = [kept_axes.index(axis) for axis in (rest + "YX")]
        return array.transpose(wanted).reshape(-1, *shape_yx)[list(indices)], ()

    count = sizes[rest] if rest else 1
    labels = _series_labels(opened, count)
    return Header(
        name,
        path,
        (path,),
        tuple(FileChannel.from_label(label) for label in labels),
        _resolution_um(opened, opened.pages[0], path),
        load,
        shape_yx,
    )


def _series_labels(opened: Any, count: int) -> list[str]:
    """Names of channels in the metadata of tifffile (JSON) or ImageJ, if there is one for each."""
    labels: object = None
    if opened.is_imagej:
        labels = (opened.imagej_metadata or {}).get("Labels")
    else:
        told: Any = opened.shaped_metadata
        described = told[0].get("Channel") if told else None
        labels = described.get("Name") if isinstance(described, dict) else None
    if isinstance(labels, str):
        labels = [labels]
    if isinstance(labels, list | tuple) and len(labels) == count:
        return [str(label) for label in labels]
    return [""] * count


def _mibi_channels(opened: Any) -> tuple[list[int], list[FileChannel]] | None:
    """Pages and channels of a MIBI TIFF: each page carries JSON with its mass and target."""
    pages, channels = [], []
    for index, page in enumerate(opened.pages):
        text = str(page.description) if hasattr(page, "description") else ""
        if not (text.startswith("{") and "channel.target" in text):
            continue
        try:
            told = json.loads(text)
        except ValueError:
            continue
        if isinstance(told, dict) and told.get("image.type", "SIMS") == "SIMS":
            pages.append(index)
            target = str(told.get("channel.target") or "").strip()
            mass = told.get("channel.mass")
            channels.append(FileChannel(target or (str(mass) if mass else ""), isotope(target)))
    return (pages, channels) if pages else None


def _page_name(page: Any) -> str:
    tags = getattr(page, "tags", None)
    return str(tags.valueof(285, "") or "") if tags is not None else ""


def _resolution_um(opened: Any, page: Any, path: Path) -> float | None:
    """Pixel size of ImageJ and of tags in pixels per centimetre.

    Tags in pixels per inch are those of screens and printers, so they are not believed.
    """
    tags = page.tags
    ratios = []
    for code in (282, 283):
        value = tags.valueof(code)
        good = isinstance(value, tuple) and len(value) == 2 and value[0] > 0 and value[1] > 0
        ratios.append(value[1] / value[0] if good else None)
    unit = ""
    if opened.is_imagej:
        unit = str((opened.imagej_metadata or {}).get("unit") or "").replace("\\u00B5", "µ")
    elif int(tags.valueof(296, 1)) == 3 and ratios[0] is not None:
        low, high = _CM_PER_PIXEL_PLAUSIBLE_UM
        unit = "cm" if low <= ratios[0] * 1e4 <= high else ""
    return micrometres(ratios[0], unit, ratios[1], unit, path)
