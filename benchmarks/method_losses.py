"""Other losses than NT-Xent, for the study of methods only: VICReg and BYOL.

V = views of one cell, B = cells of a batch, D = length of a projection; row v * B + b is view v of
cell b.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from maskless.training import loop, step
from maskless.training.checkpoint import Record

_MOMENTUM = 0.99  # of BYOL's target; its own .996 is for runs a thousand times as long


@contextmanager
def training_with(loss: str) -> Iterator[None]:
    """Let maskless train with another loss; views, schedule and optimiser stay as they are."""
    usual_loss, usual_training = step.nt_xent, loop.Training
    try:
        if loss == "vicreg":
            step.nt_xent = vicreg  # type: ignore[assignment]
        elif loss == "byol":
            loop.Training = Byol  # type: ignore[misc]
        yield
    finally:
        step.nt_xent, loop.Training = usual_loss, usual_training  # type: ignore[misc]


def vicreg(z_vd: Tensor, cells: int, temperature: float, share: tuple[int, int]) -> Tensor:
    """VICReg (Bardes 2022, arXiv:2105.04906) over all pairs of views, its weights 25, 25, 1."""
    views = z_vd.view(-1, cells, z_vd.shape[1])
    middle = views.mean(0, keepdim=True)
    apart = ((views - middle) ** 2).mean() * 2 * len(views) / max(len(views) - 1, 1)
    centred = views - views.mean(1, keepdim=True)
    spread = torch.sqrt(centred.var(1) + 1e-4)
    covariance = torch.einsum("vbi,vbj->vij", centred, centred) / (cells - 1)
    square = (covariance**2).sum((1, 2)) - (torch.diagonal(covariance, 0, 1, 2) ** 2).sum(1)
    return 25 * apart + 25 * functional.relu(1 - spread).mean() + (square / z_vd.shape[1]).mean()


class Byol(step.Training):
    """BYOL (Grill 2020, arXiv:2006.07733): each view predicts the projections of the others.

    The projections come from a target, whose encoder and head follow those in training as an
    exponential moving average and get no gradient; a predictor of the head's form stands between.
    """

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.target = deepcopy(nn.ModuleDict({"encoder": self.encoder, "head": self.head}))
        self.target.requires_grad_(False)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed + 2)
            predictor = nn.Sequential(
                nn.Linear(128, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 128)
            ).to(self.device)
        self.head = nn.Sequential(self.head, predictor)
        self.parameters += predictor.parameters()
        self.optimiser.add_param_group({"params": [*predictor.parameters()]})

    def step(self, step: int) -> Record:
        record = super().step(step)
        trained = nn.ModuleDict({"encoder": self.encoder, "head": self.head[0]})
        with torch.no_grad():
            for mean, now in zip(self.target.parameters(), trained.parameters(), strict=True):
                mean.lerp_(now, 1 - _MOMENTUM)
        return record

    def _backward(self, pieces: list[Tensor], rows: list[slice]) -> float:
        encoder, head = self.target["encoder"], self.target["head"]
        with torch.no_grad():
            features_vck = torch.cat([encoder.features(piece) for piece in pieces])
            sought_vd = head(encoder.embed_of(features_vck))

        def loss(z_vd: Tensor, cells: int, *_: Any, **__: Any) -> Tensor:
            views_vbd = functional.normalize(z_vd, dim=1).view(-1, cells, z_vd.shape[1])
            sought_vbd = functional.normalize(sought_vd, dim=1).view(views_vbd.shape)
            others_vbd = (sought_vbd.sum(0) - sought_vbd) / (len(sought_vbd) - 1)
            return 2 - 2 * (views_vbd * others_vbd).sum(-1).mean()

        usual, step.nt_xent = step.nt_xent, loss  # type: ignore[assignment]
        try:
            return super()._backward(pieces, rows)
        finally:
            step.nt_xent = usual
