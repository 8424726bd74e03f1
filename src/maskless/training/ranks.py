"""Processes that train one encoder together, started by torchrun or by the caller.

Each process computes its part of every batch; sums over all processes make the step the same as
that of one process, but for rounding. Without a process group there is one rank, and nothing is
sent.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from maskless.errors import SettingsError


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is.

    Attributes
    ----------
    number
        From 0; the process 0 writes files and shows progress.
    count
        Processes that train together.
    """

    number: int = 0
    count: int = 1

    @classmethod
    def current(cls) -> Ranks:
        """Give those of torch's default process group, or a single one if there is none."""
        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size())
        return cls()

    @property
    def device(self) -> torch.device:
        """Where messages live: NCCL sends what is on a GPU, gloo what is in memory."""
        nccl = self.count > 1 and distributed.get_backend() == "nccl"
        return torch.device("cuda" if nccl else "cpu")

    def sum_(self, *tensors: Tensor) -> None:
        """Replace each tensor by its sum over all processes; equal bits in all of them.

        The tensors travel as one message, so they share a dtype and a device.
        """
        if self.count == 1 or not tensors:
            return
        message = torch.cat([tensor.detach().flatten() for tensor in tensors])
        distributed.all_reduce(message)
        sizes = [tensor.numel() for tensor in tensors]
        for tensor, part in zip(tensors, torch.split(message, sizes), strict=True):
            tensor.detach().copy_(part.view_as(tensor))

    def any(self, flag: bool) -> bool:
        """Tell whether any process says yes."""
        said = torch.tensor([float(flag)], device=self.device)
        self.sum_(said)
        return bool(said.item())

    def first_decides(self, decide: Callable[[], bool]) -> bool:
        """Let process 0 decide for all; if deciding fails there, the others hear "no"."""
        if self.count == 1:
            return decide()
        decided = torch.zeros(1, device=self.device)
        try:
            if self.number == 0 and decide():
                decided.fill_(1)
        finally:
            distributed.broadcast(decided, 0)
        return bool(decided.item())


@contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Join the processes that torchrun started with this one, if it did.

    torchrun says so by WORLD_SIZE; processes on GPUs take those that LOCAL_RANK names.

    Raises
    ------
    SettingsError
        If torchrun's environment is incomplete, or the processes do not find each other.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        yield Ranks.current()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    try:
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    except (ValueError, RuntimeError) as error:
        raise SettingsError(
            f"the processes that torchrun started do not find each other ({error}). "
            "Start them with: torchrun --nproc-per-node N -m maskless train STUDY"
        ) from error
    try:
        yield Ranks.current()
    finally:
        distributed.destroy_process_group()
