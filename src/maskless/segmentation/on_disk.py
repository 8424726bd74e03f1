"""`maskless segment`: the segmentation benchmark of a study, in STUDY/segmentation.

Each mask file carries the fingerprint of what it was made from, and so do the table and the
figures; what is fresh is not made again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskless.errors import InputError, StudyError
from maskless.freshness import expected, is_fresh, of_clusters
from maskless.images.image import Image, ImageSet
from maskless.progress import log
from maskless.storage import atomic_path, read_json, remove, remove_leftovers, write_json
from maskless.study import Study, file_hash, fingerprint, measure, versions

if TYPE_CHECKING:
    from anndata import AnnData

    from maskless.segmentation.masks import Labels

_VERSION = 1
STAGE = "segment"


@dataclass(frozen=True)
class _Place:
    """STUDY/segmentation."""

    study: Study

    @property
    def folder(self) -> Path:
        return self.study.folder / "segmentation"

    @property
    def masks(self) -> Path:
        return self.folder / "masks"

    @property
    def cells(self) -> Path:
        return self.folder / "cells.h5ad"

    @property
    def figures(self) -> Path:
        return self.folder / "figures"

    def mask(self, name: str) -> Path:
        return self.masks / f"{name}.tiff"


def segment_study(folder: Path) -> str:
    """Bring the segmentation benchmark of a study up to date.

    Writes ``segmentation/masks/NAME.tiff`` (labels, 0 = none), ``segmentation/cells.h5ad`` and
    ``segmentation/figures``. Work that was stopped goes on with the next image.

    Parameters
    ----------
    folder
        Of the study, with cleaned images and centres.

    Returns
    -------
    str
        What was done, in plain words.

    Raises
    ------
    StudyError
        If cleaned images or centres are not up to date, or the study is in use.
    InputError, SettingsError, MissingExtraError
        See :func:`maskless.segmentation.segment`.
    """
    from maskless.cells_file import read_cells, stage_stamps
    from maskless.stages import study_images

    study = Study.open(folder)
    place = _Place(study)
    with study.lock():
        if not is_fresh(study, "detect"):
            raise StudyError(
                f"{folder}: stage detect is not up to date, so segment cannot run. "
                f"Run: maskless run {folder} --until detect"
            )
        for part in (place.folder, place.masks, place.figures):
            remove_leftovers(part)
        images = study_images(study)
        now = _stamp(study, images)
        facts: dict[str, Any] = {}
        with measure() as usage:
            if stage_stamps(place.cells).get(STAGE) != now or not _masks_stand(place, images):
                facts = _make(place, images, now)
            pictured = fingerprint(now, study.config.report)
            if facts or not _figures_stand(place, pictured):
                _draw(place, images, pictured)
                facts["figures"] = len(list(place.figures.glob("*.png")))
        if facts:
            record = {
                "stage": STAGE,
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                "seconds": round(usage.seconds, 2),
                "peak_mib": round(usage.peak_mib),
                "seed": study.config.seed,
                "fingerprint": now,
                **facts,
                "versions": versions(),
            }
            study.add_record(record)
            log(f"segment done in {usage.seconds:.1f} s, peak {usage.peak_mib:.0f} MiB")
    cells = read_cells(place.cells)
    clusters = sum(name != "-1" for name in cells.obs["cluster"].cat.categories)
    state = "" if facts else " (up to date)"
    return (
        f"segmentation benchmark{state}: {cells.n_obs} masks in {clusters} clusters\n"
        f"masks, cells.h5ad and figures are in {place.folder}"
    )


def segmentation_state(study: Study) -> str | None:
    """Tell whether a study's segmentation is "up to date" or "stale"; None where there is none."""
    from maskless.cells_file import stage_stamps
    from maskless.stages import study_images

    stamp = stage_stamps(_Place(study).cells).get(STAGE)
    if stamp is None:
        return None
    fresh = is_fresh(study, "detect") and stamp == _stamp(study, study_images(study))
    return "up to date" if fresh else "stale"


def read_segmentation(study: Study) -> AnnData:
    """The table of a study's segmentation.

    Raises
    ------
    InputError
        If it is not there or unreadable.
    """
    from maskless.cells_file import read_cells

    return read_cells(_Place(study).cells)


def _make(place: _Place, images: ImageSet, now: str) -> dict[str, Any]:
    """Masks and table."""
    from maskless.cells_file import read_cells, stamp, write_cells
    from maskless.segmentation import table

    config = place.study.config
    centres = read_cells(place.study.cells_file)

    def labels_of(image: Image) -> Labels:
        wanted = _mask_stamp(place.study, image.name)
        path = place.mask(image.name)
        labels_yx = _read_mask(path, image) if _stamped(path) == wanted else None
        if labels_yx is None:
            labels_yx = table.segment_image(
                image,
                images.panel,
                config.segment,
                config.detect,
                table.centres_in(centres, image.name),
                place.study.folder,
            )
            _write_mask(path, labels_yx, image, wanted)
        return labels_yx

    cells = table.measure_cohort(images, labels_of)
    for path in place.masks.glob("*.tiff"):
        if path.stem not in images.names:
            remove(path)
    table.group(cells, config.cluster, config.umap, config.seed)
    facts = {
        "masks": cells.n_obs,
        "clusters": sum(name != "-1" for name in cells.obs["cluster"].cat.categories),
        "method": config.segment.method,
        "expand_um": config.segment.expand_um,
        "median_area_px": float(np.median(cells.obs["area"])),
    }
    stamp(
        cells,
        STAGE,
        now,
        seed=config.seed,
        versions=versions(),
        settings=config.model_dump(mode="json", include={"segment", "detect", "cluster", "umap"}),
        facts=facts,
    )
    write_cells(cells, place.cells)
    return facts


def _draw(place: _Place, images: ImageSet, now: str) -> None:
    from maskless.cells_file import read_cells
    from maskless.segmentation.figures import draw_segmentation

    def labels_of(image: Image) -> Labels:
        labels_yx = _read_mask(place.mask(image.name), image)
        if labels_yx is None:
            raise StudyError(
                f"cannot read {place.mask(image.name)}. Run again: maskless segment "
                f"{place.study.folder}"
            )
        return labels_yx

    config = place.study.config
    titles = draw_segmentation(
        read_cells(place.cells), images, labels_of, config.report, place.figures, seed=config.seed
    )
    for path in place.figures.glob("*.*"):
        if path.suffix in (".png", ".svg") and path.stem not in titles:
            remove(path)
    write_json(place.figures / "figures.json", {"fingerprint": now, "figures": titles})


def _stamp(study: Study, images: ImageSet) -> str:
    """Fingerprint that the table should carry."""
    config = study.config
    given = [_given_hash(study, name) for name in images.names]
    tables = [config.segment, of_clusters(config.cluster), config.umap]
    return fingerprint(STAGE, _VERSION, tables, config.seed, given, expected(study, "detect"))


def _mask_stamp(study: Study, name: str) -> str:
    """Fingerprint that the masks of an image should carry."""
    given = _given_hash(study, name)
    return fingerprint(STAGE, _VERSION, study.config.segment, given, expected(study, "detect"))


def _given_hash(study: Study, name: str) -> str | None:
    """Content of the mask that was given for an image, or of the weights."""
    from maskless.cells.given import find_given

    config = study.config
    if config.segment.method == "masks" and config.segment.files:
        source = next(
            Path(entry["source"])
            for entry in read_json(study.inventory_file)["images"]
            if entry["name"] == name
        )
        without_pixels = Image(name, np.zeros((0, 0, 0), np.float32), (), 1.0, source)
        return file_hash(
            find_given(config.segment.files, without_pixels, study.folder, "segment.files")
        )
    model = config.segment.cellpose_model or config.detect.cellpose_model
    if config.segment.method == "cellpose" and model:
        weights = study.resolve(model)
        return file_hash(weights) if weights.is_file() else None
    return None


def _masks_stand(place: _Place, images: ImageSet) -> bool:
    return all(
        _stamped(place.mask(name)) == _mask_stamp(place.study, name) for name in images.names
    )


def _figures_stand(place: _Place, now: str) -> bool:
    try:
        content = read_json(place.figures / "figures.json")
    except InputError:
        return False
    drawn = [place.figures / f"{stem}.png" for stem in content.get("figures", {})]
    return content.get("fingerprint") == now and all(path.is_file() for path in drawn)


def _write_mask(path: Path, labels_yx: Labels, image: Image, stamp: str) -> None:
    import tifffile

    small = labels_yx.max(initial=0) <= np.iinfo(np.uint16).max  # what steinbock expects
    per_cm = 1e4 / image.um_per_pixel
    about = {"fingerprint": stamp, "image": image.name, "um_per_pixel": image.um_per_pixel}
    with atomic_path(path) as temporary:
        tifffile.imwrite(
            temporary,
            labels_yx.astype(np.uint16 if small else np.uint32),
            compression="zlib",
            resolution=(per_cm, per_cm),
            resolutionunit="CENTIMETER",
            description=json.dumps(about),
            metadata=None,
        )


def _stamped(path: Path) -> str | None:
    """Fingerprint in a mask file; None where there is none, or part of the file is gone."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            ends = (o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True))
            content = json.loads(page.description) if max(ends) <= path.stat().st_size else None
    except Exception:  # a damaged TIFF raises nearly anything
        return None
    found = content.get("fingerprint") if isinstance(content, dict) else None
    return found if isinstance(found, str) else None


def _read_mask(path: Path, image: Image) -> Labels | None:
    """Masks on disk; None where they are damaged."""
    from maskless.cells.given import read_mask

    try:
        return read_mask(path, image).astype(np.int32)
    except InputError:
        return None
