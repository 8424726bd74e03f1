"""What is stale: for each stage the fingerprint its result should carry, and the one it carries.

A fingerprint covers the stage's settings, the seed, the version of the stage and the fingerprint of
the stage before; that of the read stage covers the pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskless.errors import InputError, MasklessError
from maskless.storage import read_json
from maskless.study import STAGES, Study, file_hash, fingerprint

if TYPE_CHECKING:
    from maskless.config import ClusterSettings, EmbedSettings, EncoderSettings, TrainSettings
    from maskless.images import Image

# Raised when a stage computes something else from the same input and settings.
_VERSION = {**dict.fromkeys(STAGES, 1), "clean": 2, "cluster": 3, "umap": 3}
_AFTER: dict[str, tuple[str, ...]] = {
    "read": (),
    "clean": ("read",),
    "detect": ("clean",),
    "train": ("detect",),
    "embed": ("train",),
    "cluster": ("embed",),
    "umap": ("embed",),
    "report": ("cluster", "umap"),
}


def stages_before(stage: str) -> tuple[str, ...]:
    """All stages whose results a stage rests on, in the order in which they run."""
    needed = set(_AFTER[stage])
    for before in _AFTER[stage]:
        needed.update(stages_before(before))
    return tuple(name for name in STAGES if name in needed)


def expected(
    study: Study, stage: str, before: Callable[[Study, str], str | None] | None = None
) -> str | None:
    """Fingerprint that the stage's result should carry; None while a stage before is stale.

    With ``before=stamped`` the results of the stages before are taken as they are, so that the
    raw images need not be there.
    """
    if stage == "read":
        from maskless.reading import read_fingerprint

        return read_fingerprint(study)
    stamps = [(before or expected)(study, earlier) for earlier in _AFTER[stage]]
    if None in stamps:
        return None
    config = study.config
    tables: list[object] = [getattr(config, stage)]
    if stage == "train":
        tables = _of_training(config.train, config.encoder, config.embed)
    if stage == "cluster":
        tables = [of_clusters(config.cluster)]
    if stage == "clean" and config.clean.spillover is not None:
        tables.append(_content(study.resolve(config.clean.spillover)))
    if stage == "clean" and config.clean.align not in ("none", "image"):
        tables.append(_samples(study))
    if stage == "clean" and config.clean.background_files is not None:
        tables.append(_background_files(study))
    if stage == "detect":
        tables.append(_given_files(study))
    if config.assign.study is not None:
        from maskless.assignment.on_disk import rests_on

        given = rests_on(study, stage)
        if given is None:
            return None
        tables = [given] if stage == "train" else [*tables, given]
    return fingerprint(stage, _VERSION[stage], tables, config.seed, stamps)


def training_fingerprint(
    study: Study, encoder: EncoderSettings, train: TrainSettings, seed: int
) -> str | None:
    """Fingerprint of an encoder trained on a study's cells; None while a stage before is stale."""
    before = expected(study, "detect")
    if before is None:
        return None
    tables = _of_training(train, encoder, study.config.embed)
    return fingerprint("train", _VERSION["train"], tables, seed, [before])


def of_clusters(settings: ClusterSettings) -> dict[str, Any]:
    """What the clusters follow from; the CPU is not told, as in clusters made before GPUs were."""
    usual = {"device"} if settings.device == "cpu" else set()
    return settings.model_dump(mode="json", exclude=usual)


def _of_training(
    train: TrainSettings, encoder: EncoderSettings, embed: EmbedSettings
) -> list[object]:
    return [train.model_dump(mode="json", exclude={"checkpoint_seconds"}), encoder, embed]


def stamped(study: Study, stage: str) -> str | None:
    """Fingerprint in the result that is there; None where there is none, or part of it is gone."""
    from maskless.cells_file import stage_stamps

    try:
        if stage in ("read", "clean"):
            file = study.inventory_file if stage == "read" else study.scaling_file
            return _text(read_json(file).get("fingerprint")) if file.exists() else None
        if stage == "train":
            file = study.encoder_folder / "encoder.json"
            if not file.exists() or not (study.encoder_folder / "encoder.safetensors").exists():
                return None
            return _text(read_json(file).get("extra", {}).get("fingerprint"))
        if stage == "report":
            file = study.figures_folder / "figures.json"
            there = file.exists() and study.report_file.exists()
            return _text(read_json(file).get("fingerprint")) if there else None
    except InputError:
        return None
    return stage_stamps(study.cells_file).get(stage)


def is_fresh(study: Study, stage: str) -> bool:
    """Whether the stage's result is there and made from what the study asks for now."""
    now = expected(study, stage)
    if now is None or stamped(study, stage) != now:
        return False
    if stage == "clean":
        return all(image_stamp(study, entry["name"]) == now for entry in _inventory(study))
    return True


def _inventory(study: Study) -> list[dict[str, Any]]:
    images: list[dict[str, Any]] = read_json(study.inventory_file)["images"]
    return images


def image_stamp(study: Study, name: str) -> str | None:
    """Fingerprint that a cleaned image carries; None where it is missing or damaged."""
    from maskless.images import zarr_attributes

    try:
        return _text(zarr_attributes(study.image_file(name)).get("fingerprint"))
    except InputError:
        return None


def _given_files(study: Study) -> list[str]:
    """Content of the masks or tables that are given, or of a weights file."""
    settings = study.config.detect
    paths: list[Path] = []
    if settings.method in ("masks", "centres") and settings.files:
        from maskless.cells.given import find_given

        for name, load in _sources(study).items():
            try:
                paths.append(find_given(settings.files, load, study.folder))
            except MasklessError:
                return [f"missing for {name}"]
    if settings.method == "cellpose" and settings.cellpose_model:
        weights = study.resolve(settings.cellpose_model)
        paths += [weights] if weights.is_file() else []
    return [file_hash(path) for path in paths]


def _content(path: Path) -> str:
    """Hash of a file that the settings name; a missing one is the stage's error."""
    return file_hash(path) if path.is_file() else "missing"


def _samples(study: Study) -> dict[str, str] | str:
    """The batch of each image; what is wrong with the table is the stage's error."""
    from maskless.csv_tables import IMAGE_TABLE
    from maskless.images.align import sample_column

    names = [entry["name"] for entry in _inventory(study)]
    try:
        return sample_column(study.folder / IMAGE_TABLE, study.config.clean.align, names)
    except MasklessError as error:
        return str(error)


def _background_files(study: Study) -> list[list[str]]:
    """Name and content of label images, ilastik projects, or exported probabilities."""
    from maskless.images.background import background_files
    from maskless.reading import panel_from

    content = read_json(study.inventory_file)
    names = [entry["name"] for entry in content["images"]]
    panel = panel_from(content["panel"])
    files = background_files(study.config.clean, panel, names, study.folder)
    return [[path.name, _content(path)] for path in files]


def _sources(study: Study) -> dict[str, Image]:
    """Images without pixels: what is needed to find files beside them."""
    import numpy as np

    from maskless.images import Image as Empty

    nothing = np.zeros((0, 0, 0), dtype=np.float32)
    return {
        entry["name"]: Empty(entry["name"], nothing, (), 1.0, Path(entry["source"]))
        for entry in _inventory(study)
    }


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
