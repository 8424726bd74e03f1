"""Which images stand at a path: one file, or a folder with files in one of several customs.

========================================  ========================================================
a folder that ...                         is
========================================  ========================================================
is a Zarr group                           one OME-Zarr image
is a SpatialData store                    an image each of its images
has ``img/`` and ``panel.csv``            a steinbock project
has ``registration/`` and                 a project of MCMICRO
``markers.csv``
has TIFFs of one plane each (two or       one image, a channel in each file, named by the folder
more)
has other TIFFs                           an image each; ``image.ome.tif`` is named by its folder
has ``.mcd`` files                        their acquisitions; ``.txt`` files are their fall-back
has ``.txt`` files of acquisitions        an image each
has folders                               the images in them, in the same way
========================================  ========================================================

Masks and maps of regions (``mask*.tif``, ``region.tif``, ``class*.tif``, ``*_mask.tif``, ... with
one plane of integers) are no images, and neither is what lies in folders of masks or in a study.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from maskless.errors import InputError
from maskless.images.header import Header, guarded
from maskless.images.imc_txt import looks_like_imc, txt_header
from maskless.images.mcd import mcd_headers, txt_files_of
from maskless.images.mcmicro import is_mcmicro, mcmicro_files, mcmicro_headers
from maskless.images.ome_zarr import zarr_headers
from maskless.images.steinbock import IMAGES, image_table, is_steinbock, with_table
from maskless.images.tiff import (
    channel_folder_header,
    is_label_image,
    is_tiff_name,
    stem,
    tiff_headers,
)
from maskless.images.zarr_arrays import is_zarr

Report = Callable[[str, InputError], None]

_DEEPEST = 6
_NOT_IMAGES = re.compile(
    r"[._].*|(masks?|labels?|segmentations?|intensities|regionprops|neighbors|ilastik|cellpose"
    r"|deepcell|figures|probabilities)([_\-. ].*)?",
    re.IGNORECASE,
)
_SAYS_NOTHING = frozenset({"tif", "tifs", "tiff", "tiffs", "channels", "image", "images", IMAGES})
_FORMATS = ".ome.tif, .tif, .tiff, .mcd, .txt (imaging mass cytometry), .zarr, or a folder of them"


def find_headers(path: Path, report: Report) -> list[Header]:
    """Headers of all images at a path, in natural order of their names.

    Parameters
    ----------
    path
        A file or folder.
    report
        Is told of what cannot be read, with the name of the file or image; may raise.
    """
    if not path.exists():
        report(path.name, InputError("no such file or folder", file=path))
        return []
    if path.is_dir():
        found = _in_folder(path, report, 0)
        if not found:
            report(
                path.name,
                InputError("no image was found in the folder", file=path, expected=_FORMATS),
            )
        return [item for item in found if item is not None]
    ending = path.suffix.lower()
    if is_tiff_name(path):
        return list(_tried(lambda: _named_by_folder(tiff_headers(path)), path, report))
    if ending == ".mcd":
        beside = [p for p in path.parent.iterdir() if p.suffix.lower() == ".txt"]
        return list(_mcd(path, beside, report))
    if ending == ".txt":
        return list(_tried(partial(_txt, path), path, report))
    report(
        path.name,
        InputError("this kind of file is not read", file=path, expected=_FORMATS, found=path.name),
    )
    return []


def natural(path: Path) -> tuple[object, ...]:
    """Sort key: ``r2`` before ``r10``."""
    parts = re.split(r"([0-9]+)", path.name.casefold())
    return (*((i % 2, int(p) if i % 2 else p) for i, p in enumerate(parts)), (2, path.name))


def _tried(read: Callable[[], Sequence[Header]], path: Path, report: Report) -> Iterator[Header]:
    try:
        with guarded(path, "the file cannot be read"):
            headers = read()
    except InputError as error:
        report(stem(path), error)
        return
    yield from headers


def _in_folder(folder: Path, report: Report, depth: int) -> list[Header | None]:
    """Headers; None stands for something that was reported, so that the folder is not empty."""
    found: list[Header | None] = []

    def noted(name: str, error: InputError) -> None:
        report(name, error)
        found.append(None)

    if is_zarr(folder) or folder.name.lower().endswith(".zarr"):
        return [*_tried(partial(zarr_headers, folder), folder, noted), *found]
    if is_steinbock(folder):
        found.extend(_steinbock(folder, noted))
        return found
    if is_mcmicro(folder):
        files = sorted(mcmicro_files(folder), key=natural)
        if not files:
            noted(folder.name, InputError("the MCMICRO project has no images", file=folder))
        for path in files:
            found.extend(_tried(partial(mcmicro_headers, path, folder), path, noted))
        return found
    entries = sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=natural)
    files = [p for p in entries if p.is_file()]
    tiffs = [p for p in files if is_tiff_name(p)]
    table_of = folder.parent if folder.name == IMAGES else None
    found.extend(_tiffs(folder, tiffs, table_of, noted))
    texts = [p for p in files if p.suffix.lower() == ".txt"]
    taken: set[Path] = set()
    for path in sorted(
        (p for p in files if p.suffix.lower() == ".mcd"), key=lambda p: -len(p.stem)
    ):
        own = [t for t in texts if t.name.startswith(path.stem + "_") and t not in taken]
        taken.update(own)
        found.extend(_mcd(path, own, noted))
    for path in texts:
        if path not in taken and looks_like_imc(path):
            found.extend(_tried(partial(_txt, path), path, noted))
    if depth < _DEEPEST:
        for inner in entries:
            if inner.is_dir() and not _NOT_IMAGES.fullmatch(inner.name):
                if (inner / "study.toml").is_file():
                    continue
                found.extend(_in_folder(inner, report, depth + 1))
    return found


def _mcd(path: Path, texts: Sequence[Path], report: Report) -> Iterator[Header]:
    try:
        with guarded(path, "the .mcd cannot be read"):
            headers = mcd_headers(path, txt_files_of(path, texts))
    except InputError as error:
        report(path.stem, error)
        return
    for header in headers:
        if isinstance(header, InputError):
            report(header.image or path.stem, header)
        else:
            yield header


def _steinbock(project: Path, report: Report) -> Iterator[Header]:
    folder = project / IMAGES
    tiffs = sorted((p for p in folder.iterdir() if is_tiff_name(p)), key=natural)
    if not tiffs:
        report(project.name, InputError("the steinbock project has no images", file=folder))
    yield from _images(tiffs, project, report)


def _images(tiffs: Sequence[Path], project: Path | None, report: Report) -> Iterator[Header]:
    table = image_table(project) if project else {}
    for path in tiffs:
        yield from _tried(partial(_with_table, path, table, project), path, report)


def _with_table(
    path: Path, table: Mapping[str, Mapping[str, str]], project: Path | None
) -> list[Header]:
    headers = tiff_headers(path)
    return [with_table(h, table, project) for h in headers] if project else headers


def _txt(path: Path) -> list[Header]:
    return [txt_header(path, path.stem)]


def _tiffs(
    folder: Path, tiffs: Sequence[Path], project: Path | None, report: Report
) -> Iterator[Header]:
    wanted: list[Path] = []
    for path in tiffs:
        try:
            if not is_label_image(path):
                wanted.append(path)
        except InputError as error:
            report(stem(path), error)
    if project is not None and (project / "images.csv").is_file():
        yield from _images(wanted, project, report)
        return
    by_file: dict[Path, list[Header]] = {}
    for path in wanted:
        by_file[path] = list(_tried(partial(tiff_headers, path), path, report))
    readable = [headers for headers in by_file.values() if headers]
    single = [len(headers) == 1 and len(headers[0].channels) == 1 for headers in readable]
    if len(single) > 1 and all(single):
        name = folder.name if folder.name.casefold() not in _SAYS_NOTHING else folder.parent.name
        if len(readable) < len(wanted):
            # A channel could not be read and was reported; the rest is not the whole image.
            return
        yield from _tried(lambda: [channel_folder_header(folder, wanted, name)], folder, report)
    elif any(single) and not all(single):
        odd = readable[single.index(True)][0]
        report(
            odd.name,
            InputError(
                "a file with one channel lies among images with several",
                file=odd.source,
                do="Name masks mask*.tif, or move the file elsewhere",
            ),
        )
        for headers in readable:
            if len(headers[0].channels) > 1:
                yield from _named_by_folder(headers)
    else:
        for headers in readable:
            yield from _named_by_folder(headers)


def _named_by_folder(headers: Sequence[Header]) -> list[Header]:
    """``NAME/image.ome.tif`` is called NAME."""
    named = []
    for header in headers:
        path = header.source
        if stem(path).casefold() == "image" and path.absolute().parent.name:
            rest = header.name[len(stem(path)) :]
            header = replace(
                header,
                name=path.absolute().parent.name + rest,
                folder=path.absolute().parent.parent,
            )
        named.append(header)
    return named
