"""LARS, layer-wise adaptive rate scaling (You, Gitman, Ginsburg 2017, arXiv:1708.03888).

The trust ratio covers every parameter. Leaving out biases and norms, as SimCLR does, lets them
move by the bare learning rate, and the paper's rate of 4.6 then makes the encoder worse than an
untrained one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from maskless.errors import SettingsError


class LARS(Optimizer):
    """Gradient descent with momentum, each parameter's step in proportion to its own length.

    ::

        ratio = trust * |w| / (|g| + weight_decay * |w|)      1 where |w| or |g| is 0
        v     = momentum * v + lr * ratio * (g + weight_decay * w)
        w     = w - v

    Parameters
    ----------
    params
        Parameters to change; their ``.grad`` is only read.
    lr
        Learning rate.
    momentum
        Share of the last step that is kept.
    weight_decay
        Pull towards zero.
    trust
        Step in proportion to the length of a parameter, at lr = 1 and without momentum.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 1e-3,
    ) -> None:
        if not (lr >= 0 and 0 <= momentum <= 1 and weight_decay >= 0 and trust > 0):
            raise SettingsError(
                f"LARS cannot use lr {lr}, momentum {momentum}, weight_decay {weight_decay}, "
                f"trust {trust}"
            )
        super().__init__(
            params,
            {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust},
        )

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step.

        Parameters
        ----------
        closure
            Computes the loss and its gradients anew; its value is returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)
        return loss

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        length, slope = torch.linalg.vector_norm(parameter), torch.linalg.vector_norm(gradient)
        ratio = group["trust"] * length / (slope + group["weight_decay"] * length)
        ratio = torch.where((length > 0) & (slope > 0), ratio, torch.ones_like(ratio))
        change = torch.add(gradient, parameter, alpha=group["weight_decay"])
        change.mul_(ratio * group["lr"])
        state = self.state[parameter]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(parameter)
        velocity = state["velocity"]
        velocity.mul_(group["momentum"]).add_(change)
        parameter.sub_(velocity)
