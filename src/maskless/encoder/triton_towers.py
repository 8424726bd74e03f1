"""Towers on a GPU: the same features as the reference module, from a few Triton kernels.

Axes: B = views, C = markers, H, W = pixels, K = w = features of a marker, E w = inner features,
n = parameters of a tower, m = weights of a tower in the kernels' order.

Kept from forward to backward: the views and each block's input. Never run on a GPU: by counts,
arithmetic rather than memory takes the time on an H200.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskless.encoder import triton_backward, triton_kernels
from maskless.encoder.fused import tower_parameters, tower_shape
from maskless.encoder.triton_plan import TritonPlan, make_triton_plan
from maskless.gpu import on_device

if TYPE_CHECKING:
    from maskless.encoder.model import Encoder

Precision = Literal["bfloat16", "float32"]

# Programs of a kernel, all markers together: eight for each of the 132 processors of an H200. The
# number is fixed, not asked of the device, so that it does not change the order of sums.
_PROGRAMS = 1056
_MOST_NUMBERS = 1 << 31  # of a marker's map: the kernels count them in 32 bits
_MAP_BYTES = 256 << 20  # of one map, where nothing is kept for a backward
_TILE_ROWS = 64
_TILE_NUMBERS = 32  # of a tile of inner features, a thread
_FILTER_NUMBERS = 100  # of the sums of the filters' gradients, a thread
_REGISTERS = 168  # a thread: three programs of 128 threads share a processor's 65,536


def triton_features(
    encoder: Encoder,
    views_bchw: Tensor,
    pool_weights_yx: NDArray[np.floating],
    precision: Precision = "bfloat16",
) -> Tensor:
    """Features of each marker, (B, C, K): the encoder's, but for rounding.

    Gradients go to the encoder's parameters, not to the views. All sums have a fixed order: the
    same input gives the same bits.

    Parameters
    ----------
    encoder
        Its parameters are on a CUDA device, or on the CPU for Triton's interpreter.
    views_bchw
        On the same device.
    pool_weights_yx
        Weights of the cells of the last grid.
    precision
        Of the feature maps and of the operands of matrix products, whose sums are float32. Errors
        are about 1 % of the largest feature and 5 % of the largest gradient of a parameter in
        bfloat16, and below 1e-5 and 1e-4 in float32.

    Returns
    -------
    In the type of the views.

    Raises
    ------
    ValueError
        If the views want a gradient.
    """
    if views_bchw.requires_grad and torch.is_grad_enabled():
        raise ValueError("the Triton towers give no gradient to the views")
    height, length = (int(edge) for edge in views_bchw.shape[2:])
    plan = make_triton_plan(tower_shape(encoder), height, length, views_bchw.device)
    parameters_cn = tower_parameters(encoder).float()
    pool = torch.from_numpy(np.array(pool_weights_yx, np.float32)).to(views_bchw.device)
    kind = getattr(torch, precision)
    pooled = [
        _Towers.apply(piece.contiguous(), parameters_cn, pool, plan, kind)  # type: ignore[no-untyped-call]
        for piece in torch.split(views_bchw, _piece(plan, parameters_cn))
    ]
    pooled_cbf = pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=1)
    return _behind_pool(pooled_cbf, parameters_cn, plan).to(views_bchw.dtype)


class _Towers(torch.autograd.Function):
    """Views to (C, B, w + E w): means of the last block's input and of its inner layer."""

    @staticmethod
    def forward(
        ctx: Any,
        views: Tensor,
        parameters_cn: Tensor,
        pool: Tensor,
        plan: TritonPlan,
        kind: torch.dtype,
    ) -> Tensor:
        weights_cm = _with_zero(parameters_cn)[:, plan.weight_of]
        batch, markers = views.shape[:2]
        run = _Run(plan, batch, markers, kind, views.device)
        maps = [run.stem_forward(views, weights_cm)]
        for number in range(len(plan.blocks) - 1):
            maps.append(run.block_forward(number, maps[-1], weights_cm))
            if not ctx.needs_input_grad[1]:
                del maps[0]
        pooled_cbf = run.last_forward(maps[-1], weights_cm, pool)
        if ctx.needs_input_grad[1]:
            ctx.save_for_backward(views, weights_cm, pool, *maps)
            ctx.run = run
        return pooled_cbf

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_pooled_cbf: Tensor) -> tuple[Tensor | None, ...]:
        views, weights_cm, pool, *maps = ctx.saved_tensors
        run: _Run = ctx.run
        sums_pcm = torch.empty(run.programs, *weights_cm.shape, device=views.device)
        d_out = d_pooled_cbf.contiguous()
        for number in reversed(range(len(maps))):
            d_out = run.block_backward(number, maps[number], weights_cm, pool, d_out, sums_pcm)
        run.stem_backward(views, d_out, sums_pcm)
        gradient_cn = _with_zero(sums_pcm.sum(0))[:, run.plan.gradient_of]
        return None, gradient_cn, None, None, None


class _Run:
    """Starts the kernels for a number of views."""

    def __init__(
        self, plan: TritonPlan, batch: int, markers: int, kind: torch.dtype, device: torch.device
    ) -> None:
        self.plan, self.batch, self.markers, self.kind = plan, batch, markers, kind
        self.device = device
        self.programs = max(1, min(_PROGRAMS // markers, batch))
        self.grid = (markers, self.programs)
        shape = plan.shape
        fast = kind == torch.bfloat16 and device.type == "cuda"
        self.width = {"width": shape.width, "wide": plan.wide}
        self.stem = {
            "height": plan.height,
            "length": plan.length,
            "stride": shape.stem_stride,
            "fast": fast,
            "rows": _TILE_ROWS,
            **self.width,
        }
        self.block = {
            "inner_wide": plan.inner_wide,
            "kernel": shape.kernel,
            "norm": shape.norm,
            "fast": fast,
            **self.width,
        }

    def stem_forward(self, views: Tensor, weights: Tensor) -> Tensor:
        first = self.plan.blocks[0]
        out = self._map(first.height, first.length)
        with on_device(self.device):
            triton_kernels.stem_forward[self.grid](
                views,
                weights,
                out,
                self.plan.n_weights,
                self.batch,
                **self.stem,
                num_warps=4,
                num_stages=1,
            )
        return out

    def block_forward(self, number: int, maps: Tensor, weights: Tensor) -> Tensor:
        place, behind = self.plan.blocks[number], self.plan.blocks[number + 1]
        out = self._map(behind.height, behind.length)
        rows, warps = block_tile(self.plan)
        with on_device(self.device):
            triton_kernels.block_forward[self.grid](
                maps,
                weights,
                out,
                place.weights,
                self.plan.n_weights,
                self.batch,
                height=place.height,
                length=place.length,
                step=place.step,
                rows=rows,
                num_warps=warps,
                num_stages=1,
                **self.block,
            )
        return out

    def last_forward(self, maps: Tensor, weights: Tensor, pool: Tensor) -> Tensor:
        place, shape = self.plan.blocks[-1], self.plan.shape
        pooled = torch.empty(
            self.markers, self.batch, shape.width + shape.inner, device=self.device
        )
        rows, warps = last_tile(self.plan)
        with on_device(self.device):
            triton_kernels.last_forward[self.grid](
                maps,
                weights,
                pool,
                pooled,
                place.weights,
                self.plan.n_weights,
                self.batch,
                height=place.height,
                length=place.length,
                inner=shape.inner,
                rows=rows,
                num_warps=warps,
                num_stages=1,
                **self.block,
            )
        return pooled

    def block_backward(
        self, number: int, maps: Tensor, weights: Tensor, pool: Tensor, d_out: Tensor, sums: Tensor
    ) -> Tensor:
        """Gradient of the block's input; those of its weights go into `sums`."""
        place = self.plan.blocks[number]
        sizes = {
            "height": place.height,
            "length": place.length,
            "inner": self.plan.shape.inner,
            "step": place.step,
        }
        numbers = (place.weights, self.plan.n_weights, self.batch)
        d_filtered, d_maps = torch.empty_like(maps), torch.empty_like(maps)
        rows, warps = block_tile(self.plan)
        with on_device(self.device):
            triton_backward.block_backward[self.grid](
                maps,
                weights,
                pool,
                d_out,
                d_filtered,
                sums,
                *numbers,
                rows=rows,
                num_warps=warps,
                num_stages=1,
                maxnreg=_REGISTERS if warps == 4 else None,
                **sizes,
                **self.block,
            )
            triton_backward.filters_backward[self.grid](
                maps,
                weights,
                pool,
                d_out,
                d_filtered,
                d_maps,
                sums,
                *numbers,
                kernel=self.plan.shape.kernel,
                rows=filter_rows(self.plan),
                num_warps=4,
                num_stages=1,
                **sizes,
                **self.width,
            )
        return d_maps

    def stem_backward(self, views: Tensor, d_maps: Tensor, sums: Tensor) -> None:
        with on_device(self.device):
            triton_backward.stem_backward[self.grid](
                views,
                d_maps,
                sums,
                self.plan.n_weights,
                self.batch,
                **self.stem,
                num_warps=4,
                num_stages=1,
            )

    def _map(self, height: int, length: int) -> Tensor:
        shape = (self.markers, self.batch, height, length, self.plan.shape.width)
        return torch.empty(shape, dtype=self.kind, device=self.device)


def block_tile(plan: TritonPlan) -> tuple[int, int]:
    """Rows of a tile of the blocks' kernels, and warps that share it."""
    warps = 4 if plan.inner_wide <= 64 else 8
    return max(16, min(_TILE_ROWS, _TILE_NUMBERS * 32 * warps // plan.inner_wide)), warps


def last_tile(plan: TritonPlan) -> tuple[int, int]:
    """The same for the last block, where a tile ends with the view: few rows are left over."""
    place = plan.blocks[-1]
    most, warps = block_tile(plan)
    sites = place.height * place.length
    choices = [rows for rows in (64, 32, 16) if rows <= most]
    rows = min(choices, key=lambda rows: -(-sites // rows) * rows)
    return rows, max(1, warps * rows // most)


def filter_rows(plan: TritonPlan) -> int:
    """Rows of a tile of the filters' backward, whose sums stay in the registers of 128 threads."""
    numbers = max(1, _FILTER_NUMBERS // plan.shape.kernel**2)
    power = 1 << (min(numbers, 4).bit_length() - 1)
    return max(1, min(_TILE_ROWS, 128 * power // plan.wide))


def _piece(plan: TritonPlan, parameters_cn: Tensor) -> int:
    """Views that go through the kernels together."""
    first = plan.blocks[0]
    numbers = first.height * first.length * plan.shape.width
    most = (_MOST_NUMBERS - 1) // max(numbers, plan.height * plan.length)
    if not parameters_cn.requires_grad:
        most = min(most, _MAP_BYTES // (2 * numbers * len(parameters_cn)))
    return max(1, most)


def _with_zero(rows_cn: Tensor) -> Tensor:
    return torch.cat([rows_cn, rows_cn.new_zeros(len(rows_cn), 1)], dim=1)


def _behind_pool(pooled_cbf: Tensor, parameters_cn: Tensor, plan: TritonPlan) -> Tensor:
    """Project, and the last linear layer: two matrices, composed, (C, B, w + E w) -> (B, C, K)."""
    width, inner = plan.shape.width, plan.shape.inner
    sizes = [width * inner, width, width * width, width]
    start = parameters_cn.shape[1] - sum(sizes)
    parts = torch.split(parameters_cn[:, start:], sizes, dim=1)
    project, project_bias, last, last_bias = parts
    project, last = project.view(-1, width, inner), last.view(-1, width, width)
    both = torch.cat([last, last @ project], dim=2)
    bias = last_bias[:, None] + (last @ project_bias[:, :, None]).transpose(1, 2)
    return torch.baddbmm(bias, pooled_cbf, both.transpose(1, 2)).transpose(0, 1)
