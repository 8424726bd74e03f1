"""Reading a cohort: find the images, settle the panel, check that everything fits, load lazily."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from maskless.errors import InputError
from maskless.images.folders import Report, find_headers
from maskless.images.header import Header, check_pixels, check_size, guarded
from maskless.images.image import Image, ImageSet, Panel
from maskless.images.match import match_panel
from maskless.images.panel import channels_by_name, panel_of_file, read_panel
from maskless.images.steinbock import IMAGES

PANEL_FILE = "panel.csv"


def read_images(
    paths: str | Path | Sequence[str | Path],
    panel: str | Path | Panel | None = None,
    um_per_pixel: float | None = None,
    background: Sequence[str] = (),
    nuclear: Sequence[str] = (),
    *,
    on_error: Callable[[str, InputError], None] | None = None,
) -> ImageSet:
    """Read the headers of images at once, and their pixels when they are asked for.

    Parameters
    ----------
    paths
        Files or folders: OME-TIFF, TIFF, ``.mcd``, IMC ``.txt``, OME-Zarr, SpatialData, MIBI TIFF,
        steinbock and MCMICRO projects; :mod:`maskless.images.folders` tells how folders are
        understood.
    panel
        A panel or its CSV file. Without one, ``panel.csv`` in a given folder (or beside a given
        file) is taken; without that the files tell the channels, and must all tell the same.
    um_per_pixel
        Edge of a pixel in micrometres, for files that do not tell it; it overrules those that do.
    background, nuclear
        Channels that are no markers, or that show nuclei, beside those the panel tells.
    on_error
        Is told of each image that cannot be used, by name, and the image is left out; without it
        the first such image raises.

    Returns
    -------
    images
        Every image has the panel's channels in the panel's order; pixels keep their dtype.

    Raises
    ------
    InputError
        If an image or the panel cannot be read, or they do not fit; naming file, channel, what was
        expected and what was found.
    """

    def stop(name: str, error: InputError) -> None:
        raise error

    report = on_error or stop
    if um_per_pixel is not None and not (math.isfinite(um_per_pixel) and um_per_pixel > 0):
        raise InputError("the pixel size makes no sense", found=f"um_per_pixel = {um_per_pixel}")
    given = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    if not given:
        raise InputError("no image was given", do="Name files or folders")
    panel_file: Path | None = None
    if not isinstance(panel, Panel):
        panel_file = _panel_file(given) if panel is None else Path(panel)
        panel = read_panel(panel_file) if panel_file else None
    headers = _unique([h for path in given for h in find_headers(path, report)], report)
    if panel is None:
        headers, panel = _common_panel(headers, report)
    if not headers:
        raise InputError("no image can be read", file=given[0])
    panel = panel.with_use(
        background=channels_by_name(panel, background), nuclear=channels_by_name(panel, nuclear)
    )
    loaders: dict[str, Callable[[], Image]] = {}
    sources: dict[str, tuple[Path, ...]] = {}
    for header in headers:
        try:
            loaders[header.name] = _loader(header, panel, um_per_pixel)
        except InputError as error:
            report(header.name, error)
            continue
        sources[header.name] = (*header.files, *([panel_file] if panel_file else []))
    if not loaders:
        raise InputError("no image can be used", file=given[0], do="Each one was reported")
    return ImageSet(panel, loaders, sources)


def source_files(images: ImageSet) -> dict[str, tuple[Path, ...]]:
    """For each image the files that it is read from, the panel's file among them."""
    return {name: images.sources.get(name, ()) for name in images.names}


def _panel_file(given: Sequence[Path]) -> Path | None:
    """The ``panel.csv`` of the given folders, which must be one (or several that say the same)."""
    found: dict[Path, None] = {}
    for path in given:
        folder = path if path.is_dir() else path.parent
        for place in (folder, folder.parent) if folder.name == IMAGES else (folder,):
            if (place / PANEL_FILE).is_file():
                found.setdefault((place / PANEL_FILE).resolve())
                break
    files = list(found)
    panels = [read_panel(file) for file in files]
    for file, other in zip(files[1:], panels[1:], strict=True):
        if other != panels[0]:
            raise InputError(
                "the folders have different panels",
                file=file,
                expected=f"the same channels as {files[0]}",
                do="Give one panel for all images",
            )
    return files[0] if files else None


def _unique(headers: Sequence[Header], report: Report) -> list[Header]:
    """Each image once, and names that occur twice with their folder before them."""
    once: dict[tuple[Path, str], Header] = {}
    for header in headers:
        once.setdefault((header.source.resolve(), header.name), header)
    kept = list(once.values())
    for _ in range(2):
        names = [header.name.casefold() for header in kept]  # some file systems ignore the case
        kept = [
            replace(
                header, name=f"{_folder(header).name}_{header.name}", folder=_folder(header).parent
            )
            if names.count(header.name.casefold()) > 1
            else header
            for header in kept
        ]
    unique: dict[str, Header] = {}
    for header in kept:
        if header.name.casefold() in unique:
            report(
                header.name,
                InputError(
                    "two images have the same name",
                    file=header.source,
                    image=header.name,
                    found=f"the other is {unique[header.name.casefold()].source}",
                    do="Rename one of the files",
                ),
            )
            continue
        unique[header.name.casefold()] = header
    return list(unique.values())


def _folder(header: Header) -> Path:
    return header.folder or header.source.absolute().parent


def _common_panel(headers: Sequence[Header], report: Report) -> tuple[list[Header], Panel]:
    """The panel that all files tell, and those images that have it."""
    kept: list[Header] = []
    common: Panel | None = None
    for header in headers:
        try:
            told = panel_of_file(
                [c.label for c in header.channels],
                [c.metal for c in header.channels],
                header.source,
            )
            if common is None:
                common = told
            _agree(common, told, kept[0] if kept else header, header)
        except InputError as error:
            report(header.name, error)
            continue
        kept.append(header)
    if common is None:
        raise InputError("no image can be read", do="Give images, or a panel")
    return kept, common


def _agree(common: Panel, told: Panel, first: Header, header: Header) -> None:
    for names, others, what in (
        (common.names, told.names, "lacks a channel of"),
        (told.names, common.names, "has a channel more than"),
    ):
        for name in names:
            if name not in others:
                raise InputError(
                    f"the image {what} the first image, {first.name}",
                    file=header.source,
                    image=header.name,
                    channel=name,
                    expected=", ".join(common.names),
                    found=", ".join(told.names),
                    do="Give a panel with the channels that all images have",
                )


def _loader(header: Header, panel: Panel, um_per_pixel: float | None) -> Callable[[], Image]:
    """A function that loads the image; what can be checked now is checked now."""
    if header.shape_yx is not None:
        check_size(header.shape_yx, header.source, header.name)
    indices, found = match_panel(panel, header)
    size_um = um_per_pixel or header.um_per_pixel
    if size_um is None:
        raise InputError(
            "the file does not tell the size of a pixel",
            file=header.source,
            image=header.name,
            do="Set it with um_per_pixel=... or on the command line with --um-per-pixel",
        )
    problems = [*header.problems, *found]
    if (
        um_per_pixel
        and header.um_per_pixel
        and not math.isclose(um_per_pixel, header.um_per_pixel, rel_tol=1e-3)
    ):
        problems.append(
            f"The file tells pixels of {header.um_per_pixel:g} um; {um_per_pixel:g} um was given "
            "and is used."
        )

    def load() -> Image:
        with guarded(header.source, "the image cannot be read", header.name):
            pixels_cyx, seen = header.load(indices)
            if pixels_cyx.shape[0] != len(indices) or header.shape_yx not in (
                None,
                pixels_cyx.shape[1:],
            ):
                raise InputError(
                    "the file changed since it was opened", file=header.source, image=header.name
                )
            check_size((pixels_cyx.shape[1], pixels_cyx.shape[2]), header.source, header.name)
            pixels_cyx = np.ascontiguousarray(pixels_cyx)
            if not pixels_cyx.dtype.isnative:
                pixels_cyx = pixels_cyx.astype(pixels_cyx.dtype.newbyteorder("="))
            checked = check_pixels(pixels_cyx, panel.names, header.source, header.name)
        return Image(
            header.name,
            pixels_cyx,
            panel.names,
            float(size_um),
            header.source,
            (*problems, *seen, *checked),
            header.about,
        )

    return load
