"""Contrastive training of an encoder on views of cells (SimCLR, Chen et al. 2020).

Axes: N = cells, V = views of one cell, B = cells of a batch, C = markers, K = features a marker.

Each step draws its cells and augmentations from a generator made of the seed and the number of
the step, so going on after a stop needs only that number and the tensors.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from maskless.cells.atlas import Atlas
from maskless.cells.views import (
    draw_augmentations,
    gather_views,
    view_reach_um,
    view_size_px,
)
from maskless.encoder.model import Encoder
from maskless.errors import InputError, SettingsError, TrainingError
from maskless.progress import log, track
from maskless.training.calibrate import calibrate
from maskless.training.checkpoint import Checkpoint, Record, load_checkpoint, save_checkpoint
from maskless.training.interrupt import deferred_signals, stop_for
from maskless.training.lars import LARS
from maskless.training.losses import nt_xent
from maskless.training.schedule import learning_rate

if TYPE_CHECKING:
    from maskless.config import EncoderSettings, TrainSettings

_PIECE = 256  # views that pass the encoder together: each pass packs the weights once
_GRAPH_BYTES = 2 << 30  # of activations kept from forward to backward
_STREAM = 0x7A1  # keeps the draws apart from those of other stages with the same seed


def train_encoder(
    atlas: Atlas,
    image_index_n: NDArray[np.integer],
    centres_yx: NDArray[np.floating],
    encoder_settings: EncoderSettings,
    settings: TrainSettings,
    seed: int,
    *,
    embed_view_um: float = 16.0,
    checkpoint: Path | None = None,
    on_step: Callable[[Record], None] | None = None,
) -> tuple[Encoder, list[Record]]:
    """Train an encoder for the markers of an atlas.

    The same arguments give the same weights, bit for bit, for a fixed number of torch threads,
    whether or not training was stopped and taken up again on the way.

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
    checkpoint
        File in which the state is kept and from which training goes on. It is written every
        ``settings.checkpoint_seconds``, at the end, and on SIGINT or SIGTERM, which then take
        their course. None = nothing is kept.
    on_step
        Called after each step with its record.

    Returns
    -------
    encoder, history
        In eval mode; and for each step its number (from 1), loss and learning rate.

    Raises
    ------
    InputError
        If there are fewer than two cells.
    SettingsError
        If views or pixels do not fit.
    TrainingError
        If the loss or a gradient is not a finite number. The last checkpoint stays.
    """
    index_n = np.ascontiguousarray(image_index_n, np.int64)
    points_yx = np.ascontiguousarray(centres_yx, np.float64).reshape(-1, 2)
    encoder = Encoder(atlas.markers, encoder_settings, atlas.pixel_um, seed)
    training = _Training(encoder, atlas, index_n, points_yx, settings, seed)
    identity = _identity(encoder_settings, training)
    history: list[Record] = []
    if checkpoint is not None:
        state = load_checkpoint(checkpoint, identity)
        if state is not None:
            training.restore(state.tensors)
            history = state.history
            log(f"training goes on after step {state.steps_done} of {settings.steps}")

    saved_steps, saved_at = len(history), time.monotonic()

    def save() -> None:
        nonlocal saved_steps, saved_at
        if checkpoint is not None and len(history) > saved_steps:
            save_checkpoint(
                checkpoint, identity, Checkpoint(len(history), history, training.tensors())
            )
            saved_steps, saved_at = len(history), time.monotonic()

    stop_signal = None
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
            if interruption or time.monotonic() - saved_at >= settings.checkpoint_seconds:
                save()
            if interruption:
                stop_signal = interruption.signal_number
                break
        save()
    if stop_signal is not None:
        stop_for(stop_signal)
    calibrate(encoder, atlas, index_n, points_yx, embed_view_um, seed)
    return encoder.eval(), history


def needed_margin_um(settings: TrainSettings, embed_view_um: float) -> float:
    """Margin that an atlas needs for training and for calibrating activations, in um."""
    return max(view_reach_um(settings.view_um, settings), view_reach_um([embed_view_um]))


class _Training:
    """Encoder, head and optimiser, and the step that moves them."""

    def __init__(
        self,
        encoder: Encoder,
        atlas: Atlas,
        image_index_n: NDArray[np.int64],
        centres_yx: NDArray[np.float64],
        settings: TrainSettings,
        seed: int,
    ) -> None:
        if len(image_index_n) < 2:
            raise InputError(
                "there are too few cells to train on",
                expected="at least 2",
                found=len(image_index_n),
                do="Look at the detection of nuclei",
            )
        if settings.pixel_um != atlas.pixel_um:
            raise SettingsError(
                f"the atlas has pixels of {atlas.pixel_um} um, training asks for "
                f"{settings.pixel_um} um"
            )
        if len(settings.view_um) < 2:
            raise SettingsError("contrastive training needs two or more views; see train.view_um")
        self.atlas, self.image_index_n, self.centres_yx = atlas, image_index_n, centres_yx
        self.settings, self.seed = settings, seed
        # Views of one size are one batch; the loss does not care which view comes first.
        sizes = Counter(view_size_px(um, settings.pixel_um) for um in settings.view_um)
        self.views_of_size = dict(sorted(sizes.items(), reverse=True))
        self.cells = min(settings.cells_per_step, len(image_index_n))
        if self.cells < settings.cells_per_step:
            log(f"a step takes all {self.cells} cells; {settings.cells_per_step} were asked for")
        self.encoder = encoder.train()
        self.head = _projection_head(encoder.settings.embedding, seed, settings.projection)
        self.parameters = [*encoder.parameters(), *self.head.parameters()]
        self.optimiser: torch.optim.Optimizer
        if settings.optimizer == "lars":
            self.optimiser = LARS(
                self.parameters, settings.learning_rate, settings.momentum, settings.weight_decay
            )
        else:
            self.optimiser = torch.optim.AdamW(
                self.parameters, settings.learning_rate, weight_decay=settings.weight_decay
            )

    def step(self, step: int) -> Record:
        """Take one step (numbered from 0) and tell about it."""
        settings = self.settings
        rate = learning_rate(step, settings.steps, settings.warmup_steps, settings.learning_rate)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        loss = self._backward(self._pieces(step))
        slope = sum(float(p.grad.norm()) for p in self.parameters if p.grad is not None)
        if not np.isfinite(loss + slope):
            what = "gradient" if np.isfinite(loss) else "loss"
            raise TrainingError(
                f"the {what} is not a finite number at step {step + 1} of {settings.steps}. "
                "Lower train.learning_rate or raise train.temperature"
            )
        self.optimiser.step()
        return {"step": step + 1, "loss": loss, "learning_rate": rate}

    def _pieces(self, step: int) -> list[Tensor]:
        """Views of a batch, row v * B + b of all being view v of cell b, in small pieces."""
        rng = np.random.default_rng(np.random.SeedSequence((self.seed, _STREAM, step)))
        cell_b = rng.choice(len(self.image_index_n), self.cells, replace=False)
        pieces: list[Tensor] = []
        for size_px, count in self.views_of_size.items():
            cell_v = np.tile(cell_b, count)
            how = draw_augmentations(rng, len(cell_v), len(self.atlas.markers), self.settings)
            views = gather_views(
                self.atlas, self.image_index_n[cell_v], self.centres_yx[cell_v], size_px, how
            )
            pieces += torch.split(torch.from_numpy(views), _PIECE)
        return pieces

    def _backward(self, pieces: list[Tensor]) -> float:
        """Loss of a batch; gradients are added to the parameters.

        Features of a view depend on that view alone, so they are computed piece by piece and
        cut from their graphs. When their gradient is known, it goes back through each piece;
        graphs that did not fit in memory are made a second time. Both ways give the same bits.
        """
        graphs: list[Tensor | None] = []
        parts: list[Tensor] = []
        saved = _SavedBytes()
        for piece in pieces:
            keep = saved.count < _GRAPH_BYTES
            with torch.set_grad_enabled(keep), saved:
                features_pck = self.encoder.features(piece)
            graphs.append(features_pck if keep else None)
            parts.append(features_pck.detach())
        features_vck = torch.cat(parts).requires_grad_()
        z_vd = self.head(self.encoder.embed_of(features_vck))
        # Processes that share a batch gather z here.
        loss = nt_xent(z_vd, self.cells, self.settings.temperature)
        value = float(loss.detach())
        if not np.isfinite(value):
            return value
        loss.backward()  # type: ignore[no-untyped-call]
        gradient_vck = features_vck.grad
        if gradient_vck is not None:  # always, after backward
            slices = torch.split(gradient_vck, [len(piece) for piece in pieces])
            for index, gradient_pck in enumerate(slices):
                graph, graphs[index] = graphs[index], None
                if graph is None:
                    graph = self.encoder.features(pieces[index])
                graph.backward(gradient_pck)  # type: ignore[no-untyped-call]
        return value

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a later process needs to go on, by name."""
        tensors = {f"encoder.{k}": v for k, v in self.encoder.state_dict().items()}
        tensors |= {f"head.{k}": v for k, v in self.head.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{k}": torch.as_tensor(v) for k, v in state.items()}
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what :meth:`tensors` gave."""
        parts: dict[str, dict[str, Tensor]] = {"encoder": {}, "head": {}, "optimiser": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        self.encoder.load_state_dict(parts["encoder"])
        self.head.load_state_dict(parts["head"])
        states: dict[int, dict[str, Tensor]] = {}
        for name, tensor in parts["optimiser"].items():
            index, _, key = name.partition(".")
            states.setdefault(int(index), {})[key] = tensor
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": states, "param_groups": groups})


class _SavedBytes(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes that graphs made inside keep for their backward."""

    def __init__(self) -> None:
        self.count = 0
        super().__init__(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        self.count += tensor.nbytes
        return tensor


def _projection_head(embedding: int, seed: int, projection: bool) -> nn.Module:
    """256-256-128 between embedding and loss, with weights drawn from a generator of its own."""
    if not projection:
        return nn.Identity()
    generator = torch.Generator().manual_seed(seed + 1)
    layers = []
    for inputs, outputs in ((embedding, 256), (256, 128)):
        layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
        for parameter in (layer.weight, layer.bias):
            nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5, generator=generator)
        layers.append(layer)
    return nn.Sequential(layers[0], nn.BatchNorm1d(256), nn.ReLU(), layers[1])


def _identity(encoder_settings: EncoderSettings, training: _Training) -> dict[str, Any]:
    """What makes a training this one: a checkpoint of any other is not used."""
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
        "train": training.settings.model_dump(mode="json", exclude={"checkpoint_seconds"}),
        "seed": training.seed,
        "cells": digest.hexdigest()[:16],
    }
