"""Simulated cohorts, in memory or on disk in the layout of the real data.

``OUT/panel.csv`` and for each image ``OUT/NAME/`` with ``image.ome.tif``, ``mask.tif``,
``cells_truth.csv`` and ``levels_truth.csv``; ``OUT/simulation.json`` says what it is.
"""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np

from maskless.errors import SettingsError
from maskless.images.image import Image, ImageSet
from maskless.progress import log, track
from maskless.simulate.model import Preset
from maskless.simulate.presets import get_preset
from maskless.simulate.tissue import Truth, image_name, simulate_image
from maskless.storage import atomic_path, write_json, write_text

Result = TypeVar("Result")

NOTICE = "Simulated tissue made by maskless: no patient, no specimen, no instrument."


@dataclass(frozen=True)
class Simulation:
    """A simulated cohort in memory.

    Attributes
    ----------
    images
        Raw ion counts, uint16.
    truth
        By image name.
    preset
        What it was made from.
    """

    images: ImageSet
    truth: dict[str, Truth]
    preset: Preset


def simulate_images(
    preset: str | Preset = "demo",
    images: int | None = None,
    size_px: int | None = None,
    density: float | str | None = None,
    seed: int = 0,
    workers: int = 1,
) -> Simulation:
    """Simulate a cohort in memory.

    Parameters
    ----------
    preset
        ``"demo"`` (18 channels, 8 types, about 6,400 cells), ``"bone_marrow"`` (36 channels, 7
        types with subtypes), or a preset of one's own.
    images, size_px
        Number of images, and their edge; the preset's if not given.
    density
        Cells on 100 x 100 um, or ``"sparse"``, ``"medium"``, ``"spleen"``, ``"dense"``.
    seed
        Fixes everything; an image does not change when more images are asked for.
    workers
        Processes; their number changes nothing but the time.

    Raises
    ------
    SettingsError
        If an argument makes no sense.
    """
    chosen = get_preset(preset, images=images, size_px=size_px, density=density)
    _check(seed, workers)
    made: list[Image] = []
    truth: dict[str, Truth] = {}
    job = partial(simulate_image, chosen, seed)
    for image, its_truth in _each(job, range(chosen.images), workers):
        made.append(image)
        truth[image.name] = its_truth
    return Simulation(ImageSet.from_images(made, chosen.panel), truth, chosen)


def simulate(
    out: str | Path,
    preset: str | Preset = "demo",
    images: int | None = None,
    size_px: int | None = None,
    density: float | str | None = None,
    seed: int = 0,
    workers: int = 1,
) -> Path:
    """Simulate a cohort into a folder; see :func:`simulate_images` for the arguments.

    Each image's folder appears as a whole or not at all; one that is there from an earlier run
    is written anew.

    Returns
    -------
    Path
        The folder `out`.

    Raises
    ------
    SettingsError
        If an argument makes no sense.
    StudyError
        If the folder cannot be written to.
    """
    out = Path(out)
    chosen = get_preset(preset, images=images, size_px=size_px, density=density)
    _check(seed, workers)
    write_text(out / "panel.csv", _panel_table(chosen))
    about = {
        "simulated": True,
        "notice": NOTICE,
        "preset": chosen.name,
        "seed": seed,
        "images": chosen.images,
        "size_px": chosen.size_px,
        "um_per_pixel": chosen.um_per_pixel,
        "cells_on_100_um_squared": chosen.density,
        "point_spread_um": chosen.instrument.point_spread_um,
        "spillover": chosen.instrument.spillover,
    }
    write_json(out / "simulation.json", about)
    cells = sum(_each(partial(_write_image, out, chosen, seed), range(chosen.images), workers))
    log(f"simulated {cells} cells in {chosen.images} images")
    return out


def _check(seed: int, workers: int) -> None:
    if seed < 0:
        raise SettingsError(f"seed must be 0 or more, not {seed}")
    if workers < 1:
        raise SettingsError(f"workers must be at least 1, not {workers}")


def _each(job: Callable[[int], Result], indices: range, workers: int) -> Iterator[Result]:
    """Results of `job` in order, in this process or in several."""
    if workers == 1 or len(indices) == 1:
        yield from track(map(job, indices), "simulate (images)", total=len(indices))
        return
    # "spawn", because forking a process that runs threads can hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from track(pool.map(job, indices), "simulate (images)", total=len(indices))


def _write_image(out: Path, preset: Preset, seed: int, index: int) -> int:
    """Write one image's folder; gives the number of cells."""
    import tifffile

    image, truth = simulate_image(preset, seed, index)
    with atomic_path(out / image_name(index)) as folder:
        folder.mkdir()
        tifffile.imwrite(
            folder / "image.ome.tif",
            image.pixels_cyx,
            ome=True,
            photometric="minisblack",
            compression="zlib",
            metadata={
                "axes": "CYX",
                "UUID": _uuid(preset, seed, index),
                "Name": image.name,
                "Description": NOTICE,
                "Channel": {"Name": list(image.channels)},
                "PhysicalSizeX": image.um_per_pixel,
                "PhysicalSizeXUnit": "µm",
                "PhysicalSizeY": image.um_per_pixel,
                "PhysicalSizeYUnit": "µm",
            },
        )
        tifffile.imwrite(folder / "mask.tif", truth.mask_yx, compression="zlib", metadata=None)
        (folder / "cells_truth.csv").write_text(_cells_table(truth), encoding="utf-8", newline="\n")
        (folder / "levels_truth.csv").write_text(
            _levels_table(truth, image.channels), encoding="utf-8", newline="\n"
        )
    return len(truth.area_px)


def _uuid(preset: Preset, seed: int, index: int) -> str:
    """The file's identity, from what it was made of: tifffile's own is from host and clock."""
    made_of = f"maskless {preset} {seed} {index}"
    return str(uuid.uuid5(uuid.NAMESPACE_OID, made_of))


def _table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _panel_table(preset: Preset) -> str:
    rows = [(i, m.name, m.metal, m.kind) for i, m in enumerate(preset.markers)]
    return _table(("channel", "name", "metal", "kind"), rows)


def _cells_table(truth: Truth) -> str:
    header = ("cell_id", "y", "x", "area_px", "cell_type", "subtype", "zone", "state", "patient")
    rows = [
        (
            i + 1,
            f"{truth.centres_yx[i, 0]:.2f}",
            f"{truth.centres_yx[i, 1]:.2f}",
            int(truth.area_px[i]),
            truth.cell_type[i],
            truth.subtype[i],
            truth.zone[i],
            f"{truth.state[i]:.3f}",
            truth.patient,
        )
        for i in range(len(truth.area_px))
    ]
    return _table(header, rows)


def _levels_table(truth: Truth, channels: tuple[str, ...]) -> str:
    """Levels of the markers; 0 = truly negative. Channels without any are left out."""
    shown = np.flatnonzero((truth.levels_nm > 0).any(axis=0))
    header = ("cell_id", *(channels[c] for c in shown))
    rows = [
        (i + 1, *(f"{level:.4g}" for level in row))
        for i, row in enumerate(truth.levels_nm[:, shown])
    ]
    return _table(header, rows)
