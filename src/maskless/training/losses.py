"""NT-Xent for several views a cell, exact, without an N x N tensor.

N = views of a batch, D = length of a projection, V = views of one cell.

    loss = mean_i [ log sum_{k != i} exp(s_ik / T) - mean_{p in P(i)} s_ip / T ]

with cosines s, temperature T, and P(i) the V - 1 other views of the cell of view i: NT-Xent of
Chen et al. 2020 (arXiv:2002.05709) for V = 2, the supervised form "out" of Khosla et al. 2020
(arXiv:2004.11362, eq. 2) beyond.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from maskless.errors import InputError

_CHUNK = 256


def nt_xent(
    z_nd: Tensor,
    cells: int,
    temperature: float,
    chunk: int = _CHUNK,
    share: tuple[int, int] = (0, 1),
) -> Tensor:
    """Contrastive loss of the views of a batch.

    Rows are compared in blocks and the gradient is made on the way, so memory grows with
    chunk x N. Where a batch is spread over processes, each gives the rows of all of them and
    takes its share of the comparisons: losses and gradients of the shares add up to those of the
    batch.

    Parameters
    ----------
    z_nd
        Projections, shape (N, D), view by view: row v * cells + b is view v of cell b. They need
        not have unit length.
    cells
        Cells in the batch; N is a multiple of it.
    temperature
        T, above 0.
    chunk
        Rows compared at a time; changes memory and speed only.
    share
        (number, count): this process compares the chunks number, number + count, ...

    Returns
    -------
    Loss, a scalar with a gradient.

    Raises
    ------
    InputError
        If there is one view a cell, or the rows do not fit the number of cells.
    """
    rows = z_nd.shape[0] if z_nd.ndim == 2 else 0
    if cells < 1 or rows % cells or rows < 2 * cells:
        raise InputError(
            "the contrastive loss needs two or more views of each cell, as rows of one matrix",
            expected=f"a multiple of {cells} rows",
            found=f"shape {tuple(z_nd.shape)}",
        )
    if not temperature > 0:
        raise InputError("the temperature is not above 0", found=temperature)
    loss: Tensor = _NTXent.apply(  # type: ignore[no-untyped-call]
        normalize(z_nd, dim=1), cells, temperature, chunk, share
    )
    return loss


class _NTXent(torch.autograd.Function):
    """The loss of rows of unit length, its gradient computed in the forward."""

    @staticmethod
    def forward(
        ctx: Any, z_nd: Tensor, cells: int, temperature: float, chunk: int, share: tuple[int, int]
    ) -> Tensor:
        rows, length = z_nd.shape
        views = rows // cells
        # Positives need no N x N matrix: the other views of a cell are its sum without oneself.
        sum_nd = z_nd.view(views, cells, length).sum(0).repeat(views, 1)
        others_nd = sum_nd - z_nd

        gradient_nd = torch.zeros_like(z_nd)
        total = z_nd.new_zeros(())
        for start in range(share[0] * chunk, rows, share[1] * chunk):
            block_md, others_md = z_nd[start : start + chunk], others_nd[start : start + chunk]
            # Factors go to the small matrices: each pass over the large one costs.
            score_mn = (block_md / temperature) @ z_nd.T
            score_mn.diagonal(start).fill_(-torch.inf)  # a view is not compared with itself
            highest_m1 = score_mn.amax(1, keepdim=True)
            weight_mn = score_mn.sub_(highest_m1).exp_()
            total_m1 = weight_mn.sum(1, keepdim=True)
            positive = (block_md * others_md).sum() / (views - 1)
            total += (total_m1.log() + highest_m1).sum() - positive / temperature
            gradient_md = gradient_nd[start : start + chunk]
            gradient_md.addcdiv_(weight_mn @ z_nd, total_m1)
            gradient_nd.addmm_(weight_mn.T, block_md / total_m1)
            gradient_md.sub_(others_md, alpha=2 / (views - 1))
        ctx.save_for_backward(gradient_nd.div_(rows * temperature))
        return total / rows

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_nd,) = ctx.saved_tensors
        return gradient_nd * upstream, None, None, None, None
