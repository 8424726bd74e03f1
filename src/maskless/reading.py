"""The read stage: every image once, checked, with what was found kept in images/images.json.

The fingerprint is of the pixels, not of file names or times, so that a copy of a cohort gives the
same study; sizes and times of the files only tell whether to look again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskless.errors import InputError
from maskless.images import Channel, Image, ImageSet, Panel, read_images
from maskless.progress import log, track
from maskless.storage import read_json, write_json
from maskless.study import Study, fingerprint, listing

if TYPE_CHECKING:
    from collections.abc import Callable

_VERSION = 1


def panel_from(channels: Sequence[Mapping[str, Any]]) -> Panel:
    """A panel as images.json keeps it."""
    return Panel(tuple(Channel(**channel) for channel in channels))


def read_fingerprint(study: Study) -> str | None:
    """Fingerprint of what the read stage found, if files and settings are still the same."""
    if not study.inventory_file.exists():
        return None
    try:
        content = read_json(study.inventory_file)
        same = content["asked"] == _asked(study) and content["files"] == listing(_paths(study))
        return str(content["fingerprint"]) if same else None
    except (InputError, KeyError):
        return None


def raw_images(study: Study) -> ImageSet:
    """The images that the read stage accepted, as they came from the instrument."""
    kept = {entry["name"] for entry in read_json(study.inventory_file)["images"]}
    found = _open(study, on_error=lambda name, error: None)
    return ImageSet(found.panel, {n: load for n, load in found.loaders.items() if n in kept})


def read_study_images(study: Study, *, keep_going: bool, strict: bool) -> dict[str, Any]:
    """Load every image once, check it and write images/images.json.

    Parameters
    ----------
    study
        Where images and panel are named.
    keep_going
        Leave out images that cannot be used, and record why.
    strict
        A recorded problem is an error.

    Returns
    -------
    dict
        Facts for run.jsonl.

    Raises
    ------
    InputError
        The first image that cannot be used; nothing is written then.
    """
    files = listing(_paths(study))
    left_out: list[dict[str, str]] = []

    def leave_out(name: str, error: InputError) -> None:
        if not keep_going:
            raise error
        log(f"left out: {error}")
        left_out.append({"name": name, "reason": str(error)})

    images = _open(study, on_error=leave_out if keep_going else None)
    entries: list[dict[str, Any]] = []
    for name in track(images.names, "read (images)"):
        try:
            image = images[name]
            problems = _checked(image, images.panel, study)
            if strict and problems:
                raise InputError(problems[0], image=name, file=image.source)
        except InputError as error:
            leave_out(name, error)
            continue
        entries.append(
            {
                "name": name,
                "source": str(image.source),
                "shape_yx": list(image.pixels_cyx.shape[1:]),
                "um_per_pixel": image.um_per_pixel,
                "sha256": _digest(image),
                "problems": problems,
                "about": dict(image.about),
            }
        )
        for problem in problems:
            log(f"{name}: {problem}")
    if not entries:
        raise InputError("no image can be used", file=_paths(study)[0])
    panel = [asdict(channel) for channel in images.panel.channels]
    kept = [[e["name"], e["shape_yx"], e["um_per_pixel"], e["sha256"]] for e in entries]
    content = {
        "fingerprint": fingerprint("read", _VERSION, panel, kept),
        "panel": panel,
        "images": entries,
        "left_out": left_out,
        "asked": _asked(study),
        "files": files,
    }
    write_json(study.inventory_file, content)
    return {
        "images": len(entries),
        "left_out": len(left_out),
        "channels": len(panel),
        "markers": len(images.panel.markers),
        "problems": sum(len(entry["problems"]) for entry in entries),
    }


def _asked(study: Study) -> dict[str, Any]:
    return {**study.config.images.model_dump(mode="json"), "views_um": _largest_view_um(study)}


def _paths(study: Study) -> list[Path]:
    settings = study.config.images
    named = [*settings.paths, *([settings.panel] if settings.panel else [])]
    paths = [study.resolve(path) for path in named]
    for path in paths:
        if not path.exists():
            raise InputError(
                "no such file or folder", file=path, do="Correct [images] in study.toml"
            )
    return paths


def _open(study: Study, on_error: Callable[[str, InputError], None] | None) -> ImageSet:
    settings = study.config.images
    if not settings.paths:
        raise InputError(
            "the study names no images", file=study.folder / "study.toml", do="Fill [images] paths"
        )
    return read_images(
        [study.resolve(path) for path in settings.paths],
        panel=study.resolve(settings.panel) if settings.panel else None,
        um_per_pixel=settings.um_per_pixel,
        background=settings.background,
        nuclear=settings.nuclear,
        on_error=on_error,
    )


def _largest_view_um(study: Study) -> float:
    return max(*study.config.train.view_um, study.config.embed.view_um)


def _checked(image: Image, panel: Panel, study: Study) -> list[str]:
    """Problems of an image; raises where it cannot be used."""
    pixels_cyx = np.asarray(image.pixels_cyx)
    view_px = _largest_view_um(study) / image.um_per_pixel
    if min(pixels_cyx.shape[1:]) < view_px:
        raise InputError(
            "the image is smaller than the view of a cell",
            file=image.source,
            image=image.name,
            expected=f"at least {int(np.ceil(view_px))} pixels an edge",
            found=f"{pixels_cyx.shape[2]} x {pixels_cyx.shape[1]} pixels",
            do="Leave it out (--keep-going), or use smaller views in study.toml",
        )
    empty = [panel.names[c] for c in panel.used if not pixels_cyx[c].any()]
    if len(empty) == len(panel.used):
        raise InputError(
            "the image is empty: all markers are 0 everywhere",
            file=image.source,
            image=image.name,
            do="Leave it out (--keep-going)",
        )
    return [*image.problems, *(f"channel {name} is 0 everywhere" for name in empty)]


def _digest(image: Image) -> str:
    digest = hashlib.sha256()
    digest.update(str((image.pixels_cyx.dtype, image.channels)).encode())
    for plane_yx in image.pixels_cyx:
        digest.update(np.ascontiguousarray(plane_yx).tobytes())
    return digest.hexdigest()
