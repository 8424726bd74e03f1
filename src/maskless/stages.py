"""The eight stages around the functions of :mod:`maskless.pipeline`: files in, files out.

Each takes what the stages before it wrote, stamps what it writes, and gives facts about it for
run.jsonl. :mod:`maskless.running` decides which of them run.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskless.assignment.on_disk import (
    assign_cells,
    copy_encoder,
    place_cells,
    reference_corrections,
    reference_of,
    reference_scaling,
)
from maskless.errors import InputError
from maskless.freshness import expected, image_stamp, stamped
from maskless.progress import log, track
from maskless.storage import read_json, remove, write_json, write_text
from maskless.study import Study, file_hash, versions

if TYPE_CHECKING:
    from anndata import AnnData

    from maskless.encoder import Encoder
    from maskless.images import Image, ImageSet, Scaling
    from maskless.images.align import Alignment
    from maskless.report import BackgroundSample, SpilloverSample
    from maskless.training.checkpoint import Record

Facts = dict[str, Any]

_IN_CELLS = ("detect", "embed", "cluster", "umap")
_OF_CLUSTERS = ["cluster", "phenotype", "subcluster", "confidence", "vote", "unlike"]


@dataclass(frozen=True)
class Options:
    """How a run deals with what is wrong, and with what is there already."""

    keep_going: bool = False
    strict: bool = False
    forced: bool = False


def study_images(study: Study) -> ImageSet:
    """The cleaned images of a study, loaded one at a time."""
    from maskless.images import ImageSet, open_image_zarr
    from maskless.reading import panel_from

    content = read_json(study.inventory_file)

    def loader(entry: dict[str, Any]) -> Callable[[], Image]:
        def load() -> Image:
            image = open_image_zarr(study.image_file(entry["name"]))
            return replace(image, source=Path(entry["source"]))

        return load

    return ImageSet(panel_from(content["panel"]), {e["name"]: loader(e) for e in content["images"]})


def compensation(study: Study) -> dict[str, Any]:
    """What the clean stage compensated spillover with; empty if it did not, or has not run."""
    if not study.scaling_file.exists():
        return {}
    return dict(read_json(study.scaling_file).get("spillover", {}))


def _read(study: Study, options: Options) -> Facts:
    from maskless.reading import read_study_images

    return read_study_images(study, keep_going=options.keep_going, strict=options.strict)


def _clean(study: Study, options: Options) -> Facts:
    from maskless.images import Scaling, clean_image, fit_scaling, write_image_zarr
    from maskless.images.align import Alignment
    from maskless.images.background import BackgroundRemoval
    from maskless.images.corrections import prepare_corrections
    from maskless.images.quality import measure_quality
    from maskless.images.spillover_correction import Compensation
    from maskless.reading import raw_images

    now = expected(study, "clean")
    raw = raw_images(study)
    settings, seed = study.config.clean, study.config.seed
    reference = reference_of(study)
    known = _aligned(reference) if reference is not None else None
    corrections = prepare_corrections(
        raw, settings, study.folder, seed, onto=known[0] if known else None
    )
    if reference is not None:
        corrections = reference_corrections(reference, corrections)
    spilled = next((c for c in corrections if isinstance(c, Compensation)), None)
    removal = next((c for c in corrections if isinstance(c, BackgroundRemoval)), None)
    aligned = next((c for c in corrections if isinstance(c, Alignment)), None)
    for problem in spilled.matrix.problems if spilled else ():
        if options.strict:
            raise InputError(problem.rstrip("."), do="Give a matrix that holds them")
        log(problem)
    if stamped(study, "clean") == now:
        scaling = Scaling.from_dict(read_json(study.scaling_file)["scaling"])
    else:
        if reference is not None:
            scaling = reference_scaling(reference)
        else:
            scaling = fit_scaling(raw, settings, seed, corrections)
        kept = {
            "scaling": scaling.to_dict(),
            **({"spillover": spilled.to_dict()} if spilled else {}),
            **({"background": removal.to_dict()} if removal else {}),
            **({"alignment": aligned.to_dict()} if aligned else {}),
        }
        write_json(study.scaling_file, {"fingerprint": now, **kept})
    todo = [n for n in raw.names if options.forced or image_stamp(study, n) != now]
    for name in track(todo, "clean (images)", total=len(raw), done=len(raw) - len(todo)):
        image = raw[name]
        cleaned = clean_image(image, settings, scaling, corrections)
        quality = measure_quality(image, raw.panel, settings).to_dict()
        attributes = {"fingerprint": now, "quality": quality}
        write_image_zarr(cleaned, raw.panel, study.image_file(name), attributes)
    for path in study.images_folder.glob("*.zarr"):
        if path.name.removesuffix(".zarr") not in raw.names:
            remove(path)
    facts: Facts = {"images": len(raw)}
    if spilled and settings.spillover is not None:
        facts["spillover_pairs"] = spilled.matrix.pairs
        facts["spillover_sha256"] = file_hash(study.resolve(settings.spillover))
    if aligned:
        facts["aligned_by"] = aligned.by
    if removal:
        facts["background_removal"] = removal.way
        facts["background_markers"] = len(removal.markers)
    return facts


def _detect(study: Study, options: Options) -> Facts:
    from maskless.cells import detect
    from maskless.staining import store_quality

    images = study_images(study)
    cells = detect(images, study.config.detect, study.folder)
    store_quality(study, cells)
    found = cells.uns["maskless"]
    if spillover := compensation(study):
        found["spillover"] = json.dumps(spillover, sort_keys=True)
    if background := read_json(study.scaling_file).get("background"):
        found["background"] = json.dumps(background, sort_keys=True)
    without = [str(name) for name in found["images_without_cells"]]
    if without and not options.keep_going:
        raise InputError(
            "no nuclei found",
            image=without[0],
            file=images[without[0]].source,
            expected="at least one",
            found=0,
            do="Check the nuclear channels and [detect] in study.toml, or use --keep-going",
        )
    facts = {"cells": cells.n_obs, "images_without_cells": without, **found["detector"]}
    _save(study, cells, "detect", facts)
    return facts


def train_for(study: Study, options: Options, process: int = 0) -> tuple[Encoder, list[Record]]:
    """Train the encoder of a study, as one of several processes perhaps; writes its checkpoint."""
    from maskless.pipeline import train_with_history

    config = study.config
    checkpoint = study.encoder_folder / "checkpoint"
    if options.forced:
        checkpoint.unlink(missing_ok=True)
    return train_with_history(
        study_images(study),
        _load(study, "detect"),
        config.encoder,
        config.train,
        embed_view_um=config.embed.view_um,
        seed=config.seed,
        device=config.device,
        checkpoint=checkpoint,
        scratch=study.encoder_folder / f"pixels-{process}",
    )


def _train(study: Study, options: Options) -> Facts:
    from maskless.encoder import save_encoder

    reference = reference_of(study)
    if reference is not None:
        return copy_encoder(study, reference, str(expected(study, "train")))
    encoder, history = train_for(study, options)
    lines = [f"{int(r['step'])},{r['loss']!r},{r['learning_rate']!r}" for r in history]
    write_text(
        study.encoder_folder / "history.csv", "\n".join(["step,loss,learning_rate", *lines]) + "\n"
    )
    extra = {
        "fingerprint": expected(study, "train"),
        "seed": study.config.seed,
        "versions": versions(),
    }
    save_encoder(encoder, study.encoder_folder, extra)
    facts: Facts = {
        "steps": len(history),
        "parameters": sum(p.numel() for p in encoder.parameters()),
    }
    if history:
        facts |= {"first_loss": round(history[0]["loss"], 3)}
        facts |= {"last_loss": round(history[-1]["loss"], 3)}
    return facts


def _embed(study: Study, options: Options) -> Facts:
    from maskless.encoder import load_encoder
    from maskless.pipeline import embed

    encoder = load_encoder(study.encoder_folder)
    config = study.config
    scratch = study.encoder_folder / "embedded"
    detected = _load(study, "detect")
    try:
        cells = embed(
            encoder,
            study_images(study),
            detected,
            config.embed,
            device=config.device,
            scratch=scratch,
        )
        facts = {"cells": cells.n_obs, "markers": len(encoder.markers)}
        _save(study, cells, "embed", facts)
    finally:
        remove(scratch)
    return facts


def _cluster(study: Study, options: Options) -> Facts:
    from maskless.pipeline import UNKNOWN, cluster

    cells = _load(study, "embed")
    reference = reference_of(study)
    if reference is not None:
        facts = assign_cells(study, reference, cells)
        _save(study, cells, "cluster", facts)
        return facts
    settings = study.config.cluster
    if cells.n_obs <= settings.k:
        raise InputError(
            "there are fewer cells than neighbours",
            file=study.cells_file,
            expected=f"more than k = {settings.k} cells",
            found=cells.n_obs,
            do="Lower k under [cluster] in study.toml, or add images",
        )
    cluster(
        cells,
        k=settings.k,
        resolution=settings.resolution,
        min_size=settings.min_size,
        power=settings.power,
        device=settings.device,
        seed=study.config.seed,
    )
    labels = cells.obs["cluster"]
    facts = {
        "clusters": sum(category != UNKNOWN for category in labels.cat.categories),
        "unknown_cells": int((labels == UNKNOWN).sum()),
        "modularity": round(cells.uns["maskless"]["modularity"], 4),
        "neighbours": cells.uns["maskless"]["neighbours"],
    }
    _save(study, cells, "cluster", facts)
    return facts


def _umap(study: Study, options: Options) -> Facts:
    from maskless.pipeline import umap

    cells = _load(study, "embed")
    settings = study.config.umap
    reference = reference_of(study)
    if reference is not None:
        place_cells(study, reference, cells)
    else:
        umap(
            cells,
            k=settings.k,
            min_dist=settings.min_dist,
            epochs=settings.epochs,
            max_cells=settings.max_cells,
            seed=study.config.seed,
        )
    facts = {"cells": cells.n_obs}
    _save(study, cells, "umap", facts)
    return facts


def _report(study: Study, options: Options) -> Facts:
    from maskless.report import draw_all
    from maskless.reporting import note_figures, write_page

    cells = _load(study, "cluster", "umap")
    response = cells.uns["maskless"]["response"]
    curves = {
        str(marker): (response["gains"], curve)
        for marker, curve in zip(response["markers"], response["activations"], strict=True)
    }
    figures = draw_all(
        cells,
        study_images(study),
        study.encoder_folder / "history.csv",
        curves,
        study.config.report,
        study.figures_folder,
        seed=study.config.seed,
        spillover=spillover_sample(study),
        background=background_sample(study),
        aligned=_aligned(study),
    )
    write_page(study, cells, figures)
    note_figures(study, figures, expected(study, "report"))
    return {"figures": len(figures)}


def _aligned(study: Study) -> tuple[Alignment, Scaling] | None:
    """Alignment and scaling of the cleaned images; None where they are not aligned."""
    from maskless.images import Scaling
    from maskless.images.align import Alignment

    kept = read_json(study.scaling_file)
    if "alignment" not in kept:
        return None
    return Alignment.from_dict(kept["alignment"]), Scaling.from_dict(kept["scaling"])


def spillover_sample(study: Study) -> SpilloverSample | None:
    """Pixels before and after compensation; None where there was none, or raw images are gone."""
    from maskless.reading import raw_images
    from maskless.report import sample_spillover

    shares = compensation(study).get("shares")
    if shares is None:
        return None
    try:
        return sample_spillover(raw_images(study), shares, study.config.clean, study.config.seed)
    except InputError as error:
        log(f"report: no figure of the spillover: {error}")
        return None


def background_sample(study: Study) -> BackgroundSample | None:
    """An image before and after; None where no background was removed, or raw images are gone."""
    from maskless.reading import raw_images
    from maskless.report import sample_background

    removed = read_json(study.scaling_file).get("background")
    if removed is None:
        return None
    try:
        raw = raw_images(study)
        cleaned = study_images(study)[raw.names[len(raw) // 2]]
        return sample_background(raw, cleaned, removed["markers"], study.config.clean)
    except InputError as error:
        log(f"report: no figure of the background: {error}")
        return None


STAGE_FUNCTIONS: dict[str, Callable[[Study, Options], Facts]] = {
    "read": _read,
    "clean": _clean,
    "detect": _detect,
    "train": _train,
    "embed": _embed,
    "cluster": _cluster,
    "umap": _umap,
    "report": _report,
}


def _load(study: Study, *needed: str) -> AnnData:
    """cells.h5ad with what stages that are stale have left in it taken out."""
    from maskless.cells_file import read_cells

    cells = read_cells(study.cells_file)
    stamps = cells.uns.get("maskless", {}).get("stages", {})
    for stage in _IN_CELLS:
        if stage in needed or stamps.get(stage) == expected(study, stage):
            continue
        stamps.pop(stage, None)
        cells.uns["maskless"].get("facts", {}).pop(stage, None)
        if stage == "cluster":
            cells.obs = cells.obs.drop(columns=_OF_CLUSTERS, errors="ignore")
            cells.obsp.pop("connectivities", None)
            cells.uns["maskless"].pop("assign", None)
        if stage == "umap":
            cells.obsm.pop("X_umap", None)
    return cells


def _save(study: Study, cells: AnnData, stage: str, facts: Facts) -> None:
    from maskless.cells_file import stamp, write_cells

    stamp(
        cells,
        stage,
        str(expected(study, stage)),
        seed=study.config.seed,
        versions=versions(),
        settings=study.config.model_dump(
            mode="json", exclude={"images": {"paths", "panel"}, "assign": {"study"}}
        ),
        facts=facts,
    )
    write_cells(cells, study.cells_file)
