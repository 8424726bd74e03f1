"""What an ``.mcd`` tells beside its pixels: where and when acquisitions were made, panoramas."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.images.header import guarded
from maskless.images.safe_xml import children, parse_xml, texts

_TOLD = {
    "Description": "description",
    "StartTimeStamp": "started",
    "EndTimeStamp": "ended",
    "AblationPower": "laser power",
    "AblationFrequency": "laser Hz",
}
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM")
_LONGEST_HEADER = 1024  # bytes before the picture; 161 in the files that are known
_NEVER = "0001-01-01"  # the time stamp of what did not happen


@dataclass(frozen=True)
class Panorama:
    """One photograph of the slide.

    Attributes
    ----------
    number, description
        As in the file.
    corners_um
        x and y on the slide of its four corners, shape (4, 2), micrometres.
    pixels_yxc
        uint8, rows x columns x 3 (red, green, blue).
    """

    number: int
    description: str
    corners_um: NDArray[np.float64]
    pixels_yxc: NDArray[np.uint8]


def acquisitions_about(root: Element) -> dict[int, dict[str, str]]:
    """Description, times, laser and panorama of each acquisition, where they are told."""
    panoramas = [told for told in map(texts, children(root, "Panorama")) if _is_photograph(told)]
    points: dict[str, list[tuple[float, float]]] = {}
    for told in map(texts, children(root, "ROIPoint")):
        try:
            place = float(told["SlideXPosUm"]), float(told["SlideYPosUm"])
        except (KeyError, ValueError):
            continue
        points.setdefault(told.get("AcquisitionROIID", ""), []).append(place)
    found: dict[int, dict[str, str]] = {}
    for told in map(texts, children(root, "Acquisition")):
        about = {name: told[key] for key, name in _TOLD.items() if told.get(key)}
        for name in ("started", "ended"):
            if about.get(name, _NEVER).startswith(_NEVER):
                about.pop(name, None)
            else:
                about[name] = about[name][:19]  # to the second
        here = points.get(told.get("AcquisitionROIID", ""))
        names = [p.get("Description") or p.get("ID", "") for p in panoramas if _holds(p, here)]
        if names:
            about["panorama"] = ", ".join(names)
        try:
            found[int(told["ID"])] = about
        except (KeyError, ValueError):
            continue  # the reader of the pixels refuses it
    return found


def read_panoramas(path: str | Path) -> list[Panorama]:
    """The photographs of the slide in an ``.mcd``, which show where acquisitions lie.

    Raises
    ------
    InputError
        If the file has no readable XML, or a photograph is cut.
    """
    from PIL import Image as Picture

    from maskless.images.mcd import mcd_xml

    path = Path(path)
    found = []
    with guarded(path, "the panoramas cannot be read"):
        root = parse_xml(mcd_xml(path), path, "XML of the .mcd")
        for told in map(texts, children(root, "Panorama")):
            if not _is_photograph(told):
                continue
            start, end = int(told["ImageStartOffset"]), int(told["ImageEndOffset"])
            with path.open("rb") as handle:
                handle.seek(start)
                raw = handle.read(max(0, end - start))
            place = min(
                (at for mark in _SIGNATURES if (at := raw.find(mark, 0, _LONGEST_HEADER)) >= 0),
                default=-1,
            )
            if place < 0:
                raise InputError(
                    f"panorama {told.get('ID')} of the .mcd is damaged",
                    file=path,
                    expected="a PNG or JPEG picture",
                    found=f"{len(raw)} bytes",
                )
            picture = Picture.open(io.BytesIO(raw[place:])).convert("RGB")
            found.append(
                Panorama(
                    int(told["ID"]),
                    told.get("Description", ""),
                    _corners_um(told),
                    np.asarray(picture),
                )
            )
    return found


def _holds(panorama: Mapping[str, str], points: list[tuple[float, float]] | None) -> bool:
    """Whether the middle of a region lies on a photograph."""
    if not points:
        return False
    try:
        corners = _corners_um(panorama)
    except (KeyError, ValueError):
        return False
    middle = np.mean(points, axis=0)
    return bool((corners.min(axis=0) <= middle).all() and (middle <= corners.max(axis=0)).all())


def _corners_um(told: Mapping[str, str]) -> NDArray[np.float64]:
    return np.array([[float(told[f"Slide{a}{i}PosUm"]) for a in "XY"] for i in "1234"])


def _is_photograph(told: Mapping[str, Any]) -> bool:
    """The instrument lists an empty panorama, in which regions without a photograph lie."""
    try:
        return int(told.get("ImageEndOffset", 0)) > int(told.get("ImageStartOffset", 0)) > 0
    except ValueError:
        return False
