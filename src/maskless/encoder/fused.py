"""Towers on a processor's vector units: the same features as the reference module, much sooner.

Axes: B = views, C = markers, H, W = pixels, K = features of a marker, n = parameters of a tower.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskless.encoder.fused_plan import Plan, Shape, make_plan
from maskless.encoder.fused_towers import backward_jobs, forward_jobs
from maskless.encoder.fused_vector import LANES

_TILES_FORWARD = 4  # tiles of sixteen views that are one job
_TILES_BACKWARD = 8
_SLICES = 4  # of the jobs, a thread: those that wait less take more


def fused_features(
    views_bchw: Tensor,
    parameters_cn: Tensor,
    shape: Shape,
    pool_weights_yx: NDArray[np.floating],
) -> Tensor:
    """Features of each marker, (B, C, K), float32.

    Gradients go to the parameters, not to the views. A view's features depend on its pixels and
    the parameters alone, not on the batch it is in; gradients depend on the batch, and neither
    depends on the number of threads (torch's), to the last bit.

    Parameters
    ----------
    views_bchw
        float32, on the CPU.
    parameters_cn
        float32; each marker's stem weight and bias, then of each block the depthwise weight and
        bias, the expanding matrix (E w, w) and bias, the projecting matrix (w, E w) and bias, then
        the last matrix (K, w) and bias, K = w. Norms and scales are multiplied into them.
    shape
        Architecture.
    pool_weights_yx
        Weights of the cells of the last grid.

    Raises
    ------
    ValueError
        If the views want a gradient.
    """
    if views_bchw.requires_grad and torch.is_grad_enabled():
        raise ValueError("the fused towers give no gradient to the views")
    pool = np.ascontiguousarray(pool_weights_yx, np.float32).tobytes()
    plan = make_plan(shape, int(views_bchw.shape[2]), int(views_bchw.shape[3]), pool)
    features: Tensor = _Towers.apply(views_bchw, parameters_cn, plan)  # type: ignore[no-untyped-call]
    return features


class _Towers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, views_bchw: Tensor, parameters_cn: Tensor, plan: Plan) -> Tensor:
        views, parameters = views_bchw.contiguous(), parameters_cn.contiguous()
        ctx.save_for_backward(views, parameters)
        ctx.plan = plan
        batch, markers = views.shape[:2]
        features = torch.empty(batch, markers, int(plan.tower["width"]))
        given = (views.detach().numpy(), parameters.detach().numpy(), *_places(plan))
        out = features.numpy()

        def run(first: int, last: int) -> None:
            forward_jobs(first, last, _TILES_FORWARD, *given, out)

        _share(run, markers * -(-batch // (_TILES_FORWARD * LANES)))
        return features

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        views, parameters = ctx.saved_tensors
        plan: Plan = ctx.plan
        d_features = gradients[0].contiguous()
        batch, markers = views.shape[:2]
        runs = -(-batch // (_TILES_BACKWARD * LANES))
        sums = torch.empty(runs, markers, parameters.shape[1])
        given = (views.detach().numpy(), parameters.detach().numpy(), *_places(plan))
        out = sums.flatten(0, 1).numpy()

        def run(first: int, last: int) -> None:
            backward_jobs(
                first, last, _TILES_BACKWARD, *given, d_features.numpy(), plan.gradient_of, out
            )

        _share(run, markers * runs)
        total = sums[0]
        for more in sums[1:]:  # one after the other: always the same sum
            total = total + more
        return None, total, None


def _places(plan: Plan) -> tuple[Any, ...]:
    return plan.weight_of, plan.tower, plan.block, plan.cell_of, plan.share_of


def _share(run: Callable[[int, int], None], jobs: int) -> None:
    """Run all jobs on as many threads as torch may use; they sleep when there is nothing to do."""
    threads = min(torch.get_num_threads(), jobs)
    if threads <= 1:
        run(0, jobs)
        return
    slices = min(jobs, threads * _SLICES)
    bounds = [jobs * i // slices for i in range(slices + 1)]
    with ThreadPoolExecutor(threads) as executor:
        list(executor.map(lambda bound: run(*bound), pairwise(bounds)))
