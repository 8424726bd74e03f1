"""Further encoders for the cells of a study: other seeds, untrained ones, the paper's preset.

Each lies in STUDY/compare/NAME, carries the fingerprint of what it was trained from, and is
trained again only if that has changed; training goes on from its checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskless.errors import InputError
from maskless.freshness import training_fingerprint
from maskless.progress import log
from maskless.storage import read_json, remove, remove_leftovers
from maskless.study import Study, versions

if TYPE_CHECKING:
    from anndata import AnnData

    from maskless.config import EncoderSettings, TrainSettings
    from maskless.encoder import Encoder
    from maskless.images import ImageSet


_RANDOM_SEED = 2**31 - 1  # of weights that no training starts from; further ones count down


@dataclass(frozen=True)
class Training:
    """An encoder to be trained beside a study's own.

    Attributes
    ----------
    name
        Of its folder in STUDY/compare.
    encoder, train
        Architecture, and how to train.
    seed
        Of weights, batches and augmentations.
    """

    name: str
    encoder: EncoderSettings
    train: TrainSettings
    seed: int


def other_seeds(study: Study, count: int) -> list[Training]:
    """As the study's own encoder, with the `count` seeds that follow the study's."""
    config = study.config
    seeds = range(config.seed + 1, config.seed + 1 + count)
    return [Training(f"seed-{seed}", config.encoder, config.train, seed) for seed in seeds]


def random_encoders(study: Study, count: int) -> list[Training]:
    """As the study's own encoder, but for the training: `count` of random weights."""
    config = study.config
    untrained = config.train.model_copy(update={"steps": 0})
    seeds = range(_RANDOM_SEED, _RANDOM_SEED - count, -1)
    return [Training(f"random-{seed}", config.encoder, untrained, seed) for seed in seeds]


def paper_preset(study: Study, steps: int | None) -> Training:
    """The encoder and training of Gutwein et al. 2024, with the study's seed.

    Parameters
    ----------
    study
        Whose cells.
    steps
        Optimiser steps; as many as the study's own training has if None.
    """
    from maskless.config import resolve

    paper = resolve({"preset": "paper"})
    train = paper.train.model_copy(update={"steps": steps or study.config.train.steps})
    return Training("paper-preset", paper.encoder, train, study.config.seed)


def trained_encoder(study: Study, images: ImageSet, cells: AnnData, training: Training) -> Encoder:
    """Load the encoder of a training, after training it if it is not there or stale.

    Parameters
    ----------
    study
        Where it lies.
    images, cells
        Of the study.
    training
        What is asked for.

    Raises
    ------
    StudyError
        If another process works on the study.
    TrainingError
        If the loss is not finite.
    """
    from maskless.encoder import load_encoder, save_encoder
    from maskless.pipeline import train_with_history

    folder = study.folder / "compare" / training.name
    now = training_fingerprint(study, training.encoder, training.train, training.seed)
    with study.lock():
        if _stamped(study, training) == now:
            return load_encoder(folder)
        if training.train.steps:
            log(f"training {training.name}, {training.train.steps} steps")
        remove_leftovers(folder)
        checkpoint = folder / "checkpoint"
        encoder, _ = train_with_history(
            images,
            cells,
            training.encoder,
            training.train,
            embed_view_um=study.config.embed.view_um,
            seed=training.seed,
            device=study.config.device,
            checkpoint=checkpoint,
            scratch=folder / "pixels",
        )
        save_encoder(
            encoder, folder, {"fingerprint": now, "seed": training.seed, "versions": versions()}
        )
        remove(checkpoint)
    return encoder


def _stamped(study: Study, training: Training) -> str | None:
    folder = study.folder / "compare" / training.name
    if not (folder / "encoder.safetensors").is_file():
        return None
    try:
        found = read_json(folder / "encoder.json").get("extra", {}).get("fingerprint")
    except InputError:
        return None
    return found if isinstance(found, str) else None
