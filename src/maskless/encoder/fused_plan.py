"""Where everything lies in the memory of the fused towers: weights, gradients, feature maps.

Axes: w = features, E w = inner features, k = kernel, K = features out. Features are filled up to
multiples of 4 with weights of 0, so that the kernels know one size of tile only.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskless.encoder.fused_constants import Constants

TILE = 4
_STRIP = 32  # pixels that are worked on together, about: so many stay in the first cache
KEEP, HALVE, POOL = 0, 1, 2  # what is behind a block: nothing, a 2 x 2 average, the last pooling

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Shape:
    """What fixes the architecture of a tower."""

    width: int
    blocks: tuple[int, ...]
    kernel: int
    expansion: int
    stem_stride: int
    norm: bool

    @property
    def inner(self) -> int:
        """Features of the inner layer of a block."""
        return self.expansion * self.width


_USUAL = (4, 8, 16)  # widths that kernels are compiled for


def _checksum() -> int:
    """A number that changes with the text of the fused towers."""
    files = sorted(Path(__file__).parent.glob("fused*.py"))
    return zlib.crc32(b"".join(file.read_bytes() for file in files))


SOURCE = Constants(checksum=_checksum())


class Features(NamedTuple):
    """Features of a pixel: with those that fill up the last tile, and without."""

    number: int
    true: int


class Inner(NamedTuple):
    """Features of the inner layer."""

    number: int


class Filters(NamedTuple):
    """Edge of filters, and vectors of their input between taps, features, and output pixels."""

    edge: int
    tap: int
    feature: int
    pixel: int


class Sizes(NamedTuple):
    """Sizes that the kernels' loops depend on; constants where they are compiled for them."""

    features: Features | Constants
    inner: Inner | Constants
    stem: Filters | Constants
    depthwise: Filters | Constants
    norm: bool


_BLOCK_FIELDS = (
    # The grid that the block sees, the grid behind it, and what makes the one from the other.
    *("height", "length", "cells_height", "cells_length", "after", "pixel"),
    # Rows that are worked on together: an even number, so that pooled cells lie in one strip.
    "strip",
    # Vectors, in the order of the forward: padded input, normalised, 1 / sigma, slope of GELU,
    # pooled inner features, pooled input.
    *("x", "normed", "root", "slope", "hidden", "pooled"),
    # Gradients of depthwise output (padded), input, a strip's pooled inner features, output.
    *("d_depthwise", "d_x", "d_hidden", "d_cells"),
    # Weights, plain and as the backward wants them; and their gradients.
    *("depthwise", "depthwise_bias", "expand", "expand_bias", "project", "project_bias"),
    *("depthwise_flipped", "expand_back", "project_back"),
    *("g_depthwise", "g_depthwise_bias", "g_expand", "g_expand_bias"),
    *("g_project", "g_project_bias"),
)
_TOWER_FIELDS = (
    # Places of the stem's and the last layer's weights, and their gradients.
    *("stem", "stem_bias", "last", "last_bias", "last_back", "zeros"),
    *("g_stem", "g_stem_bias", "g_last", "g_last_bias"),
    # Stride of the stem, vectors in a row of the padded view, and the memory of each kind.
    *(
        "stride",
        "view_row",
        "n_weights",
        "n_gradients",
        "n_view",
        "n_maps",
        "n_maps_kept",
        "n_strip",
        "n_strip_kept",
    ),
)

BLOCK = np.dtype([(name, np.int64) for name in _BLOCK_FIELDS])
TOWER = np.dtype([(name, np.int64) for name in _TOWER_FIELDS])


@dataclass(frozen=True)
class Plan:
    """A tower for views of one size, as the kernels want to see it.

    Attributes
    ----------
    sizes
        What the kernels are compiled for.
    width
        Features of a marker.
    tower, block
        Records of :data:`TOWER` (one) and :data:`BLOCK` (one a block).
    weight_of
        For each weight in the kernels' order, which parameter it is, or -1 for 0.
    gradient_of
        For each parameter, where its gradient stands.
    cell_of, share_of
        For each pixel of each block's grid, the cell it is pooled into, and its weight there.
    """

    sizes: Sizes
    width: int
    tower: Any
    block: Any
    weight_of: Integers
    gradient_of: Integers
    cell_of: Integers
    share_of: NDArray[np.float32]


class _Memory:
    """Hands out places one after the other."""

    def __init__(self) -> None:
        self.used = 0

    def take(self, count: int) -> int:
        start, self.used = self.used, self.used + count
        return start


class _Weights:
    """Orders of the parameters: as they come, as the kernels read them, and of the gradients."""

    def __init__(self) -> None:
        self.parameters = _Memory()
        self.weights = _Memory()
        self.gradients = _Memory()
        self.read: list[Integers] = []
        self.written: list[Integers] = []

    def matrix(self, outputs: int, inputs: int) -> tuple[int, int, int]:
        """A linear layer: places of the matrix, its transpose and its gradient."""
        plain = self._next(outputs, inputs)
        return self._tiled(plain), self._tiled(plain.T), self._gradient(plain)

    def filters(self, outputs: int, edge: int) -> tuple[int, int, int]:
        """Filters, one a feature: places as they are, turned by 180 degrees, of the gradient."""
        plain = self._next(outputs, edge * edge, fill_inputs=False)
        return self._weight(plain), self._weight(plain[:, ::-1]), self._gradient(plain)

    def vector(self, outputs: int) -> tuple[int, int]:
        """Biases: their place, and their gradients'."""
        plain = self._next(outputs, 1, fill_inputs=False)
        return self._weight(plain), self._gradient(plain)

    def zeros(self, count: int) -> int:
        """Weights of 0: their place."""
        return self._weight(np.full(count, -1, np.int64))

    def _next(self, outputs: int, inputs: int, fill_inputs: bool = True) -> Integers:
        start = self.parameters.take(outputs * inputs)
        filled = np.full(
            (_filled(outputs), _filled(inputs) if fill_inputs else inputs), -1, np.int64
        )
        filled[:outputs, :inputs] = start + np.arange(outputs * inputs).reshape(outputs, inputs)
        return filled

    def _tiled(self, plain: Integers) -> int:
        tiles = plain.reshape(len(plain) // TILE, TILE, -1)
        return self._weight(tiles.transpose(0, 2, 1))

    def _weight(self, order: Integers) -> int:
        self.read.append(order.ravel())
        return self.weights.take(order.size)

    def _gradient(self, order: Integers) -> int:
        self.written.append(order.ravel())
        return self.gradients.take(order.size)


def _filled(count: int) -> int:
    return -(-count // TILE) * TILE


@lru_cache(maxsize=64)
def make_plan(shape: Shape, height: int, length: int, pool_weights: bytes) -> Plan:
    """Plan a tower for views of H x W pixels.

    Parameters
    ----------
    shape
        Of the tower.
    height, length
        Of the views, pixels.
    pool_weights
        Weights of the last grid's cells, row by row, as the bytes of float32.
    """
    width, inner = _filled(shape.width), _filled(shape.inner)
    pad = shape.kernel // 2
    weights, maps, kept = _Weights(), _Memory(), _Memory()
    cells: list[Integers] = []
    shares: list[NDArray[np.float32]] = []
    tower = np.zeros((), TOWER)
    tower["stem"], _, tower["g_stem"] = weights.filters(shape.width, 3)
    tower["stem_bias"], tower["g_stem_bias"] = weights.vector(shape.width)
    behind = [
        how
        for stage, blocks in enumerate(shape.blocks, start=1)
        for how in [KEEP] * (blocks - 1) + [POOL if stage == len(shape.blocks) else HALVE]
    ]
    block = np.zeros(len(behind), BLOCK)
    grid = (-(-height // shape.stem_stride), -(-length // shape.stem_stride))
    pixel = 0
    d_depthwise: dict[tuple[int, int], int] = {}
    for b, how in zip(block, behind, strict=True):
        pixels = grid[0] * grid[1]
        padded = (grid[0] + 2 * pad) * (grid[1] + 2 * pad)
        b["height"], b["length"], b["after"], b["pixel"] = *grid, how, pixel
        b["strip"] = max(2, _STRIP // grid[1] // 2 * 2)
        cell_of, share_of, behind_grid = _pooling(grid, how, pool_weights)
        cells.append(cell_of)
        shares.append(share_of)
        b["cells_height"], b["cells_length"] = behind_grid
        n_cells = behind_grid[0] * behind_grid[1]
        b["x"] = maps.take(padded * width)
        b["pooled"] = maps.take(n_cells * width)
        b["hidden"] = maps.take(n_cells * inner)
        b["normed"], b["root"] = kept.take(pixels * width), kept.take(pixels)
        b["slope"] = kept.take(pixels * inner)
        # What is used by one block after the other is in the same place: it stays in the caches.
        # Maps with borders share it only where the borders are the same, for these are never
        # written.
        if grid not in d_depthwise:
            d_depthwise[grid] = kept.take(padded * width)
        b["d_depthwise"] = d_depthwise[grid]
        place = weights.filters(shape.width, shape.kernel)
        b["depthwise"], b["depthwise_flipped"], b["g_depthwise"] = place
        b["depthwise_bias"], b["g_depthwise_bias"] = weights.vector(shape.width)
        b["expand"], b["expand_back"], b["g_expand"] = weights.matrix(shape.inner, shape.width)
        b["expand_bias"], b["g_expand_bias"] = weights.vector(shape.inner)
        b["project"], b["project_back"], b["g_project"] = weights.matrix(shape.width, shape.inner)
        b["project_bias"], b["g_project_bias"] = weights.vector(shape.width)
        grid, pixel = behind_grid, pixel + pixels
    d_x = [kept.take(max(block["height"] * block["length"]) * width) for _ in range(2)]
    block["d_x"] = [d_x[number % 2] for number in range(len(block))]
    block["d_cells"] = [*block["d_x"][1:], kept.take(width)]
    strip = int(max(block["strip"] * block["length"]))  # pixels, and cells at most
    block["d_hidden"] = kept.take(strip * inner)
    tower["last"], tower["last_back"], tower["g_last"] = weights.matrix(shape.width, shape.width)
    tower["last_bias"], tower["g_last_bias"] = weights.vector(shape.width)
    tower["zeros"] = weights.zeros(max(width, inner))
    tower["stride"] = shape.stem_stride
    tower["view_row"] = length + 2
    tower["n_weights"], tower["n_gradients"] = weights.weights.used, weights.gradients.used
    tower["n_view"], tower["n_maps"] = (height + 2) * (length + 2), maps.used
    tower["n_maps_kept"] = kept.used
    tower["n_strip"], tower["n_strip_kept"] = strip * width, strip * (width + 1 + inner)
    written = np.concatenate(weights.written)
    gradient_of = np.empty(weights.parameters.used, np.int64)
    places = np.flatnonzero(written >= 0)
    gradient_of[written[places]] = places
    return Plan(
        sizes=_sizes(shape),
        width=shape.width,
        tower=tower[()],
        block=block,
        weight_of=np.concatenate(weights.read),
        gradient_of=gradient_of,
        cell_of=np.concatenate(cells),
        share_of=np.concatenate(shares),
    )


def _sizes(shape: Shape) -> Sizes:
    """Sizes that the kernels are compiled with: constants for the usual towers, else variables."""
    width, inner = _filled(shape.width), _filled(shape.inner)
    usual = shape.kernel == 3 and shape.norm and shape.expansion == 2 and shape.width in _USUAL
    features = {"number": width, "true": shape.width}
    stem = {"edge": 3, "tap": 1, "feature": 0, "pixel": shape.stem_stride}
    depthwise = {"edge": shape.kernel, "tap": width, "feature": 1, "pixel": width}
    return Sizes(
        features=Constants(**features) if usual else Features(**features),
        inner=Constants(number=inner) if usual else Inner(inner),
        stem=Constants(**stem) if usual else Filters(**stem),
        depthwise=Constants(**depthwise) if usual else Filters(**depthwise),
        norm=shape.norm,
    )


def _pooling(
    grid: tuple[int, int], how: int, pool_weights: bytes
) -> tuple[Integers, NDArray[np.float32], tuple[int, int]]:
    """Cell and share of each pixel, and the grid of the cells."""
    pixels = grid[0] * grid[1]
    if how == POOL:
        share = np.frombuffer(pool_weights, np.float32)
        return np.zeros(pixels, np.int64), share, (1, 1)
    if how == KEEP:
        return np.arange(pixels), np.ones(pixels, np.float32), grid
    halves = (-(-grid[0] // 2), -(-grid[1] // 2))
    rows, columns = np.divmod(np.arange(pixels), grid[1])
    cell = rows // 2 * halves[1] + columns // 2
    return cell, (1 / np.bincount(cell))[cell].astype(np.float32), halves
