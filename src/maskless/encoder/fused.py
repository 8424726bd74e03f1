"""Towers on a processor's vector units: the same features as the reference module, much sooner.

Axes: B = views, C = markers, H, W = pixels, K = features of a marker, n = parameters of a tower.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskless.encoder.fused_plan import SOURCE, Plan, Shape, make_plan
from maskless.encoder.fused_towers import backward_jobs, forward_jobs
from maskless.encoder.fused_vector import LANES

if TYPE_CHECKING:
    from maskless.encoder.model import Block, Encoder

_VIEWS_FORWARD = 64  # of one marker, that are one job
_VIEWS_BACKWARD = 128
_SLICES = 4  # of the jobs, a thread: those that wait less take more


def fused_features(
    encoder: Encoder, views_bchw: Tensor, pool_weights_yx: NDArray[np.floating]
) -> Tensor:
    """Features of each marker, (B, C, K), float32: the encoder's, but for rounding.

    Gradients go to the encoder's parameters, not to the views. A view's features depend on its
    pixels and the parameters alone, not on the batch it is in; gradients depend on the batch. The
    number of threads (torch's) changes no bit of either. Differences from exact arithmetic are
    below 1e-5 of the largest feature and 2e-4 of the largest gradient of a parameter.

    Parameters
    ----------
    encoder
        Its parameters are float32, on the CPU.
    views_bchw
        float32, on the CPU.
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
    height, length = views_bchw.shape[2:]
    plan = make_plan(tower_shape(encoder), int(height), int(length), pool)
    parameters_cn = tower_parameters(encoder)
    features: Tensor = _Towers.apply(views_bchw, parameters_cn, plan)  # type: ignore[no-untyped-call]
    return features


def tower_shape(encoder: Encoder) -> Shape:
    """Give the architecture of an encoder's towers."""
    chosen = encoder.settings
    return Shape(
        width=chosen.width,
        blocks=chosen.blocks,
        kernel=chosen.kernel,
        expansion=chosen.expansion,
        stem_stride=chosen.stem_stride,
        norm=chosen.norm == "marker",
    )


def tower_parameters(encoder: Encoder) -> Tensor:
    """Give the parameters of an encoder's towers in the kernels' order, (C, n).

    Each marker's stem weight and bias; of each block the depthwise weight and bias, the expanding
    matrix (E w, w) and bias, the projecting matrix (w, E w) and bias; the last matrix (K, w) and
    bias, K = w. Norms and scales are multiplied into the matrices.
    """
    parts: list[Tensor] = [encoder.stem_weight, encoder.stem_bias]
    for stage in encoder.stages:
        for block in cast("list[Block]", stage):
            weight: Tensor = block.expand_weight
            bias: Tensor = block.expand_bias
            if block.norm == "marker":
                # LayerNorm's own weight and bias go into the linear layer behind them.
                bias = torch.baddbmm(bias[:, :, None], weight, block.norm_bias[:, :, None])
                weight = weight * block.norm_weight[:, None]
            parts += [block.depthwise_weight, block.depthwise_bias, weight, bias]
            parts += [block.scale[:, :, None] * block.project_weight]
            parts += [block.scale * block.project_bias]
    parts += [encoder.feature_weight, encoder.feature_bias]
    return torch.cat([part.flatten(1) for part in parts], dim=1)


class _Towers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, views_bchw: Tensor, parameters_cn: Tensor, plan: Plan) -> Tensor:
        views, parameters = views_bchw.contiguous(), parameters_cn.contiguous()
        ctx.save_for_backward(views, parameters)
        ctx.plan = plan
        batch, markers = views.shape[:2]
        features = torch.empty(batch, markers, plan.width)
        given = (views.detach().numpy(), parameters.detach().numpy(), *_places(plan))
        out = features.numpy()

        def run(first: int, last: int) -> None:
            forward_jobs(first, last, _VIEWS_FORWARD // LANES, *given, out)

        _share(run, markers * -(-batch // _VIEWS_FORWARD))
        return features

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        views, parameters = ctx.saved_tensors
        plan: Plan = ctx.plan
        d_features = gradients[0].contiguous()
        batch, markers = views.shape[:2]
        runs = -(-batch // _VIEWS_BACKWARD)
        sums = torch.empty(runs, markers, parameters.shape[1])
        given = (views.detach().numpy(), parameters.detach().numpy(), *_places(plan))
        out = sums.flatten(0, 1).numpy()

        def run(first: int, last: int) -> None:
            backward_jobs(
                first,
                last,
                _VIEWS_BACKWARD // LANES,
                *given,
                d_features.numpy(),
                plan.gradient_of,
                out,
            )

        _share(run, markers * runs)
        total = sums[0]
        for more in sums[1:]:  # one after the other: always the same sum
            total = total + more
        return None, total, None


def _places(plan: Plan) -> tuple[Any, ...]:
    return plan.weight_of, SOURCE, plan.sizes, plan.tower, plan.block, plan.cell_of, plan.share_of


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
