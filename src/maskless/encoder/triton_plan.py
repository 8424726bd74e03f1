"""Where the weights of a tower lie for the Triton kernels, and the grids that its blocks see.

Axes: C = markers, n = parameters of a tower, w = features, E w = inner features, k = kernel.

The kernels read matrices with the features of the output last, filled up with zeros to powers of
two of 16 or more, as matrix units want them. Both orders are one gather apart: see
:attr:`TritonPlan.weight_of`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskless.encoder.fused_plan import Shape

KEEP, HALVE, POOL = 1, 2, 0  # what is behind a block: edge of its average, 0 = the last pooling
STEM_ROWS = 16  # nine taps, the bias, and zeros
_LEAST = 16  # edge of the smallest tile of a matrix unit

Integers = NDArray[np.int64]


class Place(NamedTuple):
    """A block: the grid that it sees, what is behind it, and where its weights start."""

    height: int
    length: int
    step: int
    weights: int


@dataclass(frozen=True)
class TritonPlan:
    """A tower for views of one size.

    Attributes
    ----------
    shape
        Of the tower.
    height, length
        Of the views, pixels.
    wide, inner_wide
        Features of a pixel and of the inner layer, filled up.
    blocks
        Grid and place of each block.
    n_weights
        Weights of a tower in the kernels' order, with those that fill up.
    weight_of
        For each of them, which parameter it is; n, one beyond the last, stands for 0.
    gradient_of
        For each parameter, which of them it is; n_weights stands for none: the matrices behind the
        pooling are not the kernels'.
    """

    shape: Shape
    height: int
    length: int
    wide: int
    inner_wide: int
    blocks: tuple[Place, ...]
    n_weights: int
    weight_of: Tensor
    gradient_of: Tensor


class _Order:
    """Takes parameters one after the other and lays them out for the kernels."""

    def __init__(self) -> None:
        self.parameters = self.weights = 0
        self.laid: list[Integers] = []

    def take(self, *shape: int) -> Integers:
        """Numbers of the next parameters."""
        start, count = self.parameters, int(np.prod(shape))
        self.parameters += count
        return start + np.arange(count).reshape(shape)

    def lay(self, numbers: Integers, rows: int, columns: int) -> None:
        """Place a matrix of parameters, filled up to rows x columns."""
        filled = np.full((rows, columns), -1, np.int64)
        filled[: numbers.shape[0], : numbers.shape[1]] = numbers
        self.laid.append(filled.ravel())
        self.weights += filled.size


def filled(count: int) -> int:
    """Give the next power of two, at least 16."""
    return max(_LEAST, 1 << (count - 1).bit_length())


@lru_cache(maxsize=64)
def make_triton_plan(shape: Shape, height: int, length: int, device: torch.device) -> TritonPlan:
    """Plan a tower for views of H x W pixels; its tables lie on `device`.

    The order of the parameters is that of :func:`maskless.encoder.fused.tower_parameters`.
    """
    width, inner = shape.width, shape.inner
    wide, inner_wide = filled(width), filled(inner)
    order = _Order()
    stem = order.take(width, 9).T
    order.lay(np.vstack([stem, order.take(1, width)]), STEM_ROWS, wide)
    behind = [
        step
        for stage, blocks in enumerate(shape.blocks, start=1)
        for step in [KEEP] * (blocks - 1) + [POOL if stage == len(shape.blocks) else HALVE]
    ]
    grid = (-(-height // shape.stem_stride), -(-length // shape.stem_stride))
    blocks = []
    for step in behind:
        blocks.append(Place(*grid, step, order.weights))
        taps = shape.kernel**2
        order.lay(order.take(width, taps).T, taps, wide)
        order.lay(order.take(1, width), 1, wide)
        order.lay(order.take(inner, width).T, wide, inner_wide)
        order.lay(order.take(1, inner), 1, inner_wide)
        project, bias = order.take(width, inner).T, order.take(1, width)
        if step != POOL:
            order.lay(project, inner_wide, wide)
            order.lay(bias, 1, wide)
            grid = (-(-grid[0] // step), -(-grid[1] // step))
    order.take(width, width + 1)
    weight_of = np.concatenate(order.laid)
    gradient_of = np.full(order.parameters, order.weights, np.int64)
    places = np.flatnonzero(weight_of >= 0)
    gradient_of[weight_of[places]] = places
    weight_of[weight_of < 0] = order.parameters
    return TritonPlan(
        shape=shape,
        height=height,
        length=length,
        wide=wide,
        inner_wide=inner_wide,
        blocks=tuple(blocks),
        n_weights=order.weights,
        weight_of=torch.from_numpy(weight_of).to(device),
        gradient_of=torch.from_numpy(gradient_of).to(device),
    )
