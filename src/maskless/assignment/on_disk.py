"""`maskless assign`: a study of new images that takes what it knows from a study with names.

The new study is one like any other. Its study.toml names the other study under ``[assign]``, and
then four stages do something else: ``clean`` takes that study's scale, ``train`` its encoder,
``cluster`` its clusters and names, ``umap`` its map. What they rest on is in their fingerprints, so
that new names over there make exactly ``cluster`` and ``report`` stale over here.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskless.errors import InputError, StudyError
from maskless.storage import read_json
from maskless.study import Study, versions

if TYPE_CHECKING:
    from anndata import AnnData

    from maskless.config import Config
    from maskless.images import ImageSet, Panel, Scaling
    from maskless.images.corrections import Correction

Facts = dict[str, Any]

_PANEL = "panel.csv"
_NEEDED = ("embed", "cluster", "umap")


def assign_study(
    folder: Path,
    images: Sequence[Path],
    to: Path,
    *,
    expert: str | None = None,
    um_per_pixel: float | None = None,
    keep_going: bool = False,
    strict: bool = False,
) -> str:
    """Make a study of new images and bring it up to date; the same call goes on after a stop.

    Parameters
    ----------
    folder
        The study that has the names.
    images
        New image files or folders, of the same panel.
    to
        New folder for the study of the new images.
    expert
        Whose names to take, where several people gave some.
    um_per_pixel
        Pixel size, where the files do not say it.
    keep_going, strict
        See :func:`maskless.running.run_study`.

    Returns
    -------
    str
        What was found, in plain words.

    Raises
    ------
    MasklessError
        If the study with the names is not up to date in itself, the new images have other
        channels, or `to` holds something else.
    """
    from maskless.running import run_study

    reference = Study.open(folder)
    check_reference(reference)
    if (to / "study.toml").exists():
        _check_same(Study.open(to), reference, images, expert)
    else:
        _create(reference, images, to, expert, um_per_pixel, keep_going)
    run_study(to, keep_going=keep_going, strict=strict)
    return _summary(Study.open(to))


def reference_of(study: Study) -> Study | None:
    """The study that an assigned one takes its names from; None where it is an ordinary one.

    Raises
    ------
    StudyError
        If it is gone.
    """
    if study.config.assign.study is None:
        return None
    folder = study.resolve(study.config.assign.study)
    if not (folder / "study.toml").exists():
        raise StudyError(
            f"{study.folder} takes its names from the study {folder}, which is not there. Put it "
            "back, or correct study under [assign] in study.toml"
        )
    return Study.open(folder)


def rests_on(study: Study, stage: str) -> object:
    """What a stage of an assigned study takes from the other study, for its fingerprint.

    Returns
    -------
    object
        JSON-able; "" where the stage takes nothing, None where what it takes is not there.
    """
    from maskless.assignment.names import names_of
    from maskless.freshness import stamped

    if stage not in ("clean", "train", "cluster", "umap"):
        return ""
    try:
        reference = reference_of(study)
        if reference is None:
            return ""
        if stage == "clean":
            content = read_json(reference.scaling_file)
            return {key: content[key] for key in content if key != "fingerprint"}
        if stage == "train":
            return read_json(reference.encoder_folder / "encoder.json")["sha256"]
        stamp = stamped(reference, stage)
        if stamp is None or stage == "umap":
            return stamp
        settings = study.config.assign.model_dump(mode="json", exclude={"study"})
        return [stamp, settings, names_of(reference, study.config.assign.expert).fingerprint]
    except (InputError, StudyError, KeyError):
        return None


def check_reference(reference: Study) -> None:
    """Raise a StudyError if a study's names cannot be given to others.

    Its raw images need not be there; what was made from them must fit together.
    """
    from maskless.freshness import expected, stamped

    if reference.config.assign.study is not None:
        raise StudyError(
            f"{reference.folder} has its names from another study "
            f"({reference.config.assign.study}). Name that one"
        )
    stale = [s for s in _NEEDED if stamped(reference, s) != expected(reference, s, stamped)]
    if stale or not reference.scaling_file.exists():
        raise StudyError(
            f"{reference.folder} is not up to date ({', '.join(stale) or 'clean'}), so it cannot "
            f"name other cells. Run: maskless run {reference.folder}"
        )


def reference_scaling(reference: Study) -> Scaling:
    """How the images of a study were scaled."""
    from maskless.images import Scaling

    return Scaling.from_dict(read_json(reference.scaling_file)["scaling"])


def reference_corrections(
    reference: Study, corrections: Sequence[Correction]
) -> tuple[Correction, ...]:
    """The corrections of new images, with the cuts between signal and background of a study."""
    from maskless.images.background import BackgroundRemoval
    from maskless.images.background.automatic import AutomaticSignal, Cut

    cuts = read_json(reference.scaling_file).get("background", {}).get("cuts")
    if cuts is None:
        return tuple(corrections)
    signal = AutomaticSignal({marker: Cut(*values) for marker, values in cuts.items()})
    return tuple(
        replace(c, signal=signal) if isinstance(c, BackgroundRemoval) else c for c in corrections
    )


def copy_encoder(study: Study, reference: Study, fingerprint: str) -> Facts:
    """Put the encoder of a study into another one."""
    from maskless.encoder import load_encoder, save_encoder

    check_reference(reference)
    encoder = load_encoder(reference.encoder_folder)
    extra = {
        **encoder.extra,
        "fingerprint": fingerprint,
        "versions": versions(),
        "taken_from": reference.folder.resolve().name,
    }
    save_encoder(encoder, study.encoder_folder, extra)
    return {"encoder_of": reference.folder.resolve().name}


def assign_cells(study: Study, reference: Study, cells: AnnData) -> Facts:
    """Clusters and names for the cells of a study, and the graph of the cells among themselves."""
    from maskless.analysis import jaccard_graph, nearest_neighbours
    from maskless.assignment.cells import UNLIKE, assign
    from maskless.assignment.names import names_of
    from maskless.pipeline import embeddings
    from maskless.progress import log

    check_reference(reference)
    settings, seed = study.config.assign, study.config.seed
    names = names_of(reference, settings.expert)
    if not names.given:
        log(f"warning: nobody has named the clusters of {reference.folder}: clusters only")
    known = reference_cells(reference)
    known.obs["phenotype"] = _categorical(names.codes_n, names.names)
    assign(
        cells,
        known,
        k=settings.k,
        unknown=settings.unknown,
        scaling=reference_scaling(reference),
        seed=seed,
    )
    cells.uns["maskless"]["assign"] |= {
        "study": reference.folder.resolve().name,
        "names": names.told,
    }
    k = study.config.cluster.k
    if cells.n_obs > k:
        neighbours = nearest_neighbours(embeddings(cells), k, seed=seed)
        cells.obsp["connectivities"] = jaccard_graph(neighbours, study.config.cluster.power)
    found = cells.uns["maskless"]["assign"]
    return {
        "names": names.told,
        "phenotypes": sum(name != UNLIKE for name in cells.obs["phenotype"].unique()),
        "unknown_cells": int((cells.obs["phenotype"] == UNLIKE).sum()),
        "mean_confidence": round(float(cells.obs["confidence"].mean()), 4),
        "warnings": [str(warning) for warning in found["warnings"]],
    }


def place_cells(study: Study, reference: Study, cells: AnnData) -> None:
    """Cells on the map of another study, which stays as it is."""
    from maskless.analysis import nearest_among, place_among
    from maskless.pipeline import embeddings

    known = reference_cells(reference)
    settings = study.config.umap
    k = min(settings.k, known.n_obs)
    among = nearest_among(embeddings(known), embeddings(cells), k, seed=study.config.seed)
    laid_out = np.ascontiguousarray(known.obsm["X_umap"], np.float32)
    cells.obsm["X_umap"] = place_among(laid_out, among, settings.min_dist, seed=study.config.seed)


def reference_cells(reference: Study) -> AnnData:
    """The parts of a study's cells that others are compared with."""
    import h5py
    from anndata import AnnData
    from anndata.io import read_elem

    try:
        with h5py.File(reference.cells_file, "r") as content:
            return AnnData(
                obs=read_elem(content["obs"]),
                var=read_elem(content["var"]),
                layers={"disc_mean": read_elem(content["layers/disc_mean"])},
                obsm={key: read_elem(content[f"obsm/{key}"]) for key in ("X_embedding", "X_umap")},
            )
    except (OSError, KeyError) as error:
        raise InputError(
            "these cells cannot name others",
            file=reference.cells_file,
            found=error,
            do=f"Run: maskless run {reference.folder}",
        ) from error


def warnings_of(cells: AnnData) -> list[str]:
    """What a person should know of an assigned study before trusting it."""
    found = cells.uns.get("maskless", {}).get("assign", {})
    return [str(warning) for warning in found.get("warnings", ())]


def _create(
    reference: Study,
    images: Sequence[Path],
    to: Path,
    expert: str | None,
    um_per_pixel: float | None,
    keep_going: bool,
) -> None:
    from maskless.assignment.names import names_of
    from maskless.initialise import stored_path
    from maskless.reading import panel_from

    if reference.config.clean.background_removal == "classifier":
        raise StudyError(
            f"the background of {reference.folder} was removed by a classifier that was trained on "
            "labels of its own images, which cannot be applied to others. Use 'automatic' or an "
            "ilastik project for studies that shall name new images"
        )
    panel = panel_from(read_json(reference.inventory_file)["panel"])
    names_of(reference, expert)  # an unknown expert is told now, not after an hour
    check_panel(images, panel, um_per_pixel, keep_going)
    config = _moved(reference.config, reference, to)
    config = config.model_copy(
        update={
            "images": config.images.model_copy(
                update={
                    "paths": tuple(stored_path(path, to) for path in images),
                    "panel": _PANEL,
                    "um_per_pixel": um_per_pixel or config.images.um_per_pixel,
                    "background": (),
                    "nuclear": (),
                }
            ),
            "assign": config.assign.model_copy(
                update={"study": stored_path(reference.folder, to), "expert": expert}
            ),
        }
    )
    note = (
        f"clean, train, cluster and umap take scale, encoder, names and map of that study;\n"
        f"{_PANEL} is its panel"
    )
    Study.create(to, config, {"assign": note}, {_PANEL: _panel_csv(panel)})


def check_panel(
    images: Sequence[Path], panel: Panel, um_per_pixel: float | None, keep_going: bool
) -> None:
    """Raise an InputError that tells the difference if new images do not have a study's channels.

    Channels that the files name are found by name, in any order, and further ones are left out.
    Files that do not name them must come with the study's panel, in its order.
    """
    from maskless.images import read_images
    from maskless.images.folders import find_headers

    def leave(name: str, error: InputError) -> None:
        pass

    told: ImageSet | None = None
    with suppress(InputError):
        told = read_images(images, um_per_pixel=um_per_pixel, on_error=leave)
    nameless = any(not h.named for path in images for h in find_headers(Path(path), leave))
    if told is not None and nameless and told.panel.names != panel.names:
        raise InputError(
            "the files do not name their channels, and their panel is not that of the study",
            file=images[0],
            expected=", ".join(panel.names),
            found=", ".join(told.panel.names),
        )
    try:
        read_images(images, panel, um_per_pixel, on_error=leave if keep_going else None)
    except InputError as error:
        from maskless.assignment.cells import panel_difference

        if told is None or not panel_difference(list(panel.names), list(told.panel.names)):
            raise
        raise InputError(
            "the new images have another panel than the study",
            file=error.file or images[0],
            image=error.image,
            found="images " + panel_difference(list(panel.names), list(told.panel.names)),
            do="Use images of the same panel, or make a panel.csv whose names are the study's",
        ) from error


def _moved(config: Config, reference: Study, to: Path) -> Config:
    """Settings of a study for one that lies elsewhere: files they name are found from there."""
    from maskless.initialise import stored_path

    changed: dict[str, Any] = {}
    for table in ("clean", "detect", "segment"):
        settings = getattr(config, table)
        paths = {
            key: stored_path(reference.resolve(value), to)
            for key, value in settings.model_dump().items()
            if isinstance(value, str) and value and reference.resolve(value).is_file()
        }
        if paths:
            changed[table] = settings.model_copy(update=paths)
    return config.model_copy(update=changed)


def _check_same(study: Study, reference: Study, images: Sequence[Path], expert: str | None) -> None:
    other = reference_of(study)
    wanted = sorted(path.resolve() for path in images)
    there = sorted(study.resolve(path) for path in study.config.images.paths)
    if other is None or other.folder.resolve() != reference.folder.resolve() or wanted != there:
        raise StudyError(
            f"{study.folder} holds another study already (of other images, or not named by "
            f"{reference.folder}). Choose another folder with --to"
        )
    if expert is not None and expert != study.config.assign.expert:
        raise StudyError(
            f"{study.folder} takes the names of {study.config.assign.expert or 'the only expert'}. "
            "Change expert under [assign] in its study.toml"
        )


def _panel_csv(panel: Panel) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["channel", "name", "metal", "kind", "used"])
    for channel in panel.channels:
        row: Mapping[str, Any] = asdict(channel)
        position = "" if row["position"] is None else row["position"]
        writer.writerow([position, row["name"], row["metal"], row["kind"], int(row["used"])])
    return out.getvalue()


def _categorical(codes: Any, names: Sequence[str]) -> Any:
    import pandas as pd

    return pd.Categorical.from_codes(codes, list(names))


def _summary(study: Study) -> str:
    from maskless.cells_file import read_cells

    cells = read_cells(study.cells_file)
    counts = cells.obs["phenotype"].value_counts()
    lines = [f"{cells.n_obs} cells in {cells.obs['image'].nunique()} images"]
    for name in [name for name in counts.index if counts[name]]:
        mine = cells.obs["phenotype"] == name
        confidence = float(cells.obs["confidence"][mine].mean())
        lines.append(
            f"  {name:<24}{counts[name]:>8} {counts[name] / cells.n_obs:>7.1%}"
            f"   mean confidence {confidence:.2f}"
        )
    lines += [f"warning: {warning}" for warning in warnings_of(cells)]
    lines.append(f"the report is {study.report_file}")
    return "\n".join(lines)
