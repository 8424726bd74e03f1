"""A new study: look at the images, then write study.toml."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from maskless.config import resolve
from maskless.errors import InputError, SettingsError
from maskless.images import ImageSet, Panel, read_images
from maskless.progress import log
from maskless.study import Study


def init_study(
    folder: Path,
    images: Sequence[Path],
    *,
    panel: Path | None = None,
    preset: str = "default",
    um_per_pixel: float | None = None,
    background: tuple[str, ...] = (),
    nuclear: tuple[str, ...] = (),
    masks: str | None = None,
    centres: str | None = None,
    keep_going: bool = False,
) -> str:
    """Read the images' headers, write study.toml and say what was found.

    Parameters
    ----------
    folder
        New or empty folder of the study.
    images
        Image files or folders.
    panel, preset, um_per_pixel, background, nuclear
        As in study.toml.
    masks, centres
        Patterns with ``{image}``; at most one of them.
    keep_going
        Leave out files that cannot be read instead of failing.

    Returns
    -------
    str
        What was found, in plain words.

    Raises
    ------
    MasklessError
        If the images or the panel cannot be used, or `folder` holds something already.
    """
    if masks and centres:
        raise SettingsError("--masks and --centres were both given; choose one")
    detect: dict[str, str] = {}
    if masks or centres:
        detect = {"method": "masks" if masks else "centres", "files": str(masks or centres)}
    config = resolve(
        {
            "preset": preset,
            "images": {
                "paths": [stored_path(path, folder) for path in images],
                "panel": None if panel is None else stored_path(panel, folder),
                "um_per_pixel": um_per_pixel,
                "background": background,
                "nuclear": nuclear,
            },
            "detect": detect,
        },
        "command line",
    )
    left_out: list[str] = []

    def note(name: str, error: InputError) -> None:
        left_out.append(name)
        log(f"left out: {error}")

    found = read_images(
        images,
        panel=panel,
        um_per_pixel=um_per_pixel,
        background=background,
        nuclear=nuclear,
        on_error=note if keep_going else None,
    )
    if not found.panel.nuclear and not detect:
        raise InputError(
            "no channel shows nuclei, so cells cannot be found",
            expected="a channel such as DNA1, DAPI or HistoneH3",
            found=", ".join(found.panel.names),
            do="Name one with --nuclear CHANNEL, or give --masks or --centres",
        )
    study = Study.create(folder, config, {"images": _panel_notes(found.panel)})
    return _summary(study, found, left_out)


def stored_path(path: Path, folder: Path) -> str:
    """Relative to the study where it lies beside it, so that both can be moved together."""
    absolute = path.absolute()
    try:
        relative = os.path.relpath(absolute, folder.absolute())
    except ValueError:  # another drive
        return str(absolute)
    return relative if relative.count("..") <= 2 else str(absolute)


def _kinds(panel: Panel) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for channel in panel.channels:
        kinds.setdefault(channel.kind if channel.used else "left out", []).append(channel.name)
    return kinds


def _panel_notes(panel: Panel) -> str:
    return "\n".join(f"found {kind}: {', '.join(names)}" for kind, names in _kinds(panel).items())


def _summary(study: Study, images: ImageSet, left_out: list[str]) -> str:
    lines = [f"{len(images)} images, {len(images.panel.channels)} channels"]
    if left_out:
        lines[0] += f", {len(left_out)} images left out"
    lines += [f"  {kind}: {', '.join(names)}" for kind, names in _kinds(images.panel).items()]
    lines.append(f"settings are in {study.folder / 'study.toml'}")
    lines.append(f"next: maskless run {study.folder}")
    return "\n".join(lines)
