"""Contrastive training of an encoder on views of cells (SimCLR, Chen et al. 2020).

The loop around the step: checkpoints, signals, progress. N = cells.
"""

from __future__ import annotations

import hashlib
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from maskless.cells.atlas import Atlas
from maskless.cells.views import view_reach_um
from maskless.encoder.model import Encoder
from maskless.errors import TrainingError
from maskless.gpu import choose_device
from maskless.progress import log, track
from maskless.training.calibrate import calibrate
from maskless.training.checkpoint import Checkpoint, Record, load_checkpoint, save_checkpoint
from maskless.training.interrupt import deferred_signals, stop_for
from maskless.training.ranks import Ranks
from maskless.training.step import Training

if TYPE_CHECKING:
    from maskless.config import EncoderSettings, TrainSettings


def train_encoder(
    atlas: Atlas,
    image_index_n: NDArray[np.integer],
    centres_yx: NDArray[np.floating],
    encoder_settings: EncoderSettings,
    settings: TrainSettings,
    seed: int,
    *,
    embed_view_um: float = 16.0,
    device: str = "auto",
    checkpoint: Path | None = None,
    on_step: Callable[[Record], None] | None = None,
) -> tuple[Encoder, list[Record]]:
    """Train an encoder for the markers of an atlas.

    The same arguments give the same weights, bit for bit, for a fixed device, number of torch
    threads and number of processes, whether or not training was stopped and taken up again on the
    way. In each process of a torch process group, training is shared out among them, and every
    one returns the same encoder; process 0 alone writes the checkpoint.

    Parameters
    ----------
    atlas
        Images, with a margin of at least :func:`needed_margin_um`.
    image_index_n, centres_yx
        Image of each cell, and its centre in pixels of that image, shape (N, 2).
    encoder_settings, settings
        Architecture, and how to train.
    seed
        Fixes weights, batches and augmentations.
    embed_view_um
        Edge of the views that are to be embedded; activations are calibrated on such views.
    device
        Where to compute; see :func:`maskless.gpu.choose_device`.
    checkpoint
        File in which the state is kept and from which training goes on. It is written every
        ``settings.checkpoint_seconds``, at the end, and on SIGINT or SIGTERM, which then take
        their course. None = nothing is kept.
    on_step
        Called after each step with its record.

    Returns
    -------
    encoder, history
        On the CPU, in eval mode; and for each step its number (from 1), loss and learning rate.

    Raises
    ------
    InputError
        If there are fewer than two cells.
    SettingsError
        If views or pixels do not fit, or there is no such device.
    TrainingError
        If the loss or a gradient is not a finite number, or processes that train together read
        different checkpoints. The last checkpoint stays.
    """
    index_n = np.ascontiguousarray(image_index_n, np.int64)
    points_yx = np.ascontiguousarray(centres_yx, np.float64).reshape(-1, 2)
    encoder = Encoder(atlas.markers, encoder_settings, atlas.pixel_um, seed)
    ranks = Ranks.current()
    training = Training(
        encoder.to(choose_device(device)), atlas, index_n, points_yx, settings, seed, ranks
    )
    identity = _identity(encoder_settings, training)
    history: list[Record] = []
    if checkpoint is not None:
        state = load_checkpoint(checkpoint, identity)
        if state is not None:
            training.restore(state.tensors)
            history = state.history
            log(f"training goes on after step {state.steps_done} of {settings.steps}")
    _check_agreement(ranks, len(history))

    saved_steps, saved_at = len(history), time.monotonic()

    def save() -> None:
        nonlocal saved_steps, saved_at
        if checkpoint is not None and ranks.number == 0 and len(history) > saved_steps:
            save_checkpoint(
                checkpoint, identity, Checkpoint(len(history), history, training.tensors())
            )
            saved_steps, saved_at = len(history), time.monotonic()

    stopped = False
    steps = range(len(history), settings.steps)
    with deferred_signals() as interruption:
        for step in track(steps, "train (steps)", total=settings.steps, done=len(history)):
            history.append(training.step(step))
            try:
                if on_step is not None:
                    on_step(dict(history[-1]))
            except BaseException:
                save()
                raise
            stopped = ranks.any(bool(interruption))  # together, or the others would wait
            if stopped or time.monotonic() - saved_at >= settings.checkpoint_seconds:
                save()
            if stopped:
                break
        save()
    if stopped:
        stop_for(interruption.signal_number or signal.SIGINT)
    encoder.cpu()
    calibrate(encoder, atlas, index_n, points_yx, embed_view_um, seed, settings.fusion)
    return encoder.eval(), history


def needed_margin_um(settings: TrainSettings, embed_view_um: float) -> float:
    """Margin that an atlas needs for training and for calibrating activations, in um."""
    return max(view_reach_um(settings.view_um, settings), view_reach_um([embed_view_um]))


def _check_agreement(ranks: Ranks, steps_done: int) -> None:
    """All processes go on from the same step, or none does."""
    everyone = torch.zeros(ranks.count, dtype=torch.float64, device=ranks.device)
    everyone[ranks.number] = steps_done
    ranks.sum_(everyone)
    if (everyone != steps_done).any():
        raise TrainingError(
            "the processes that train together read different checkpoints (after step "
            f"{', '.join(str(int(step)) for step in everyone)}). "
            "Keep the study on a disk that all of them share"
        )


def _identity(encoder_settings: EncoderSettings, training: Training) -> dict[str, Any]:
    """What makes a training this one: a checkpoint of any other is not used.

    The embedding is composed after it.
    """
    not_trained = {"checkpoint_seconds", "fusion"}
    atlas = training.atlas
    digest = hashlib.sha256()
    every = max(1, atlas.values.size >> 20)  # a million pixels tell one cohort from another
    for array in (
        training.image_index_n,
        training.centres_yx,
        atlas.rows_i,
        atlas.columns_i,
        atlas.um_per_pixel_i,
        atlas.values[::every],
    ):
        digest.update(np.ascontiguousarray(array).tobytes())
    return {
        "markers": list(atlas.markers),
        "images": list(atlas.image_names),
        "encoder": encoder_settings.model_dump(mode="json"),
        "train": training.settings.model_dump(mode="json", exclude=not_trained),
        "seed": training.seed,
        "cells": digest.hexdigest()[:16],
    }
