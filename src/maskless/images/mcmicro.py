"""Outputs of MCMICRO: ``markers.csv`` beside ``registration/*.ome.tif`` (or ``dearray/``).

The rows of ``markers.csv`` are the channels of every image, in order; the images themselves do not
name them (Schapiro et al. 2022, doi:10.1038/s41592-021-01308-y). Where a tissue microarray was
parted into cores, these are the images; otherwise the registered slides are.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from maskless.errors import InputError
from maskless.images.header import FileChannel, Header
from maskless.images.match import is_placeholder
from maskless.images.names import spelling
from maskless.images.panel import read_panel
from maskless.images.tiff import is_label_image, is_tiff_name, tiff_headers

MARKERS = "markers.csv"
_FOLDERS = ("dearray", "registration", "registration/ashlar")


def is_mcmicro(folder: Path) -> bool:
    """Whether a folder is a project of MCMICRO whose images are registered."""
    return (folder / MARKERS).is_file() and (folder / "registration").is_dir()


def mcmicro_files(project: Path) -> list[Path]:
    """Its images: cores of a microarray, else registered slides."""
    for inner in _FOLDERS:
        folder = project / inner
        if folder.is_dir():
            found = [p for p in folder.iterdir() if is_tiff_name(p) and not is_label_image(p)]
            if found:
                return found
    return []


def mcmicro_headers(path: Path, project: Path) -> list[Header]:
    """Headers of the images in one file, with the names that ``markers.csv`` gives.

    Raises
    ------
    InputError
        If it has another number of channels than ``markers.csv``.
    """
    panel = read_panel(project / MARKERS)
    headers = []
    for header in tiff_headers(path):
        if len(header.channels) != len(panel.channels):
            raise InputError(
                "the image does not have the channels of markers.csv",
                file=path,
                image=header.name,
                expected=f"{len(panel.channels)}, {', '.join(panel.names)}",
                found=f"{len(header.channels)} channels",
                do="markers.csv has a row for each channel of each cycle, in order",
            )
        other = [
            f"{told.label} is {name}"
            for told, name in zip(header.channels, panel.names, strict=True)
            if not is_placeholder(told.label) and spelling(told.label) != spelling(name)
        ]
        problems = header.problems
        if other:
            problems = (
                *problems,
                f"{len(other)} channels are called otherwise in markers.csv, whose names were "
                f"taken ({'; '.join(other[:5])}).",
            )
        channels = tuple(FileChannel(c.name, c.metal) for c in panel.channels)
        headers.append(
            replace(
                header,
                channels=channels,
                problems=problems,
                files=(*header.files, project / MARKERS),
                folder=project,
            )
        )
    return headers
