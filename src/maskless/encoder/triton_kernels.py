"""Towers as Triton kernels: a kernel for the stem and one a block; here those of the forward.

Axes: C = markers, B = views, w = features of a pixel, E w = inner features; "wide" sizes are filled
up to tiles of matrix units. Maps are (C, B, H, W, w): what a marker's programs read and write is
theirs alone, so markers cannot meet. Rows of a tile are pixels; a program of a kernel works on one
marker, holds its weights, and takes every n-th tile.

Nothing is summed by atomics: each program writes its own sums of the weights' gradients, so the
same input gives the same bits. Products take their operands in the maps' type (bfloat16 or
float32) and add up in float32; all else is float32.

Never timed: the sizes of tiles and the numbers of warps were chosen by counting registers of code
compiled for sm_90.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from triton.language import constexpr, tensor


@triton.jit
def _tanh(x: tensor, fast: constexpr) -> Any:
    if fast:  # one instruction of Hopper's, error below 1e-3: less than bfloat16's
        return tl.inline_asm_elementwise(
            "tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    return 2 / (1 + tl.exp(-2 * x)) - 1


@triton.jit
def gelu(x: tensor, fast: constexpr) -> Any:
    """GELU in its tanh form, and its slope."""
    square = x * x
    t = _tanh(x * (0.035677408136300125 * square + 0.7978845608028654), fast)
    share = 0.5 * t + 0.5
    slope = share + x * (0.5 - 0.5 * t * t) * (0.10703222440890037 * square + 0.7978845608028654)
    return x * share, slope


@triton.jit
def _normalise(h: tensor, features: tensor, width: constexpr) -> Any:
    """Norm over the features of each row: normalised rows, 1 / sigma."""
    d = tl.where(features[None, :], h - (tl.sum(h, 1) / width)[:, None], 0.0)
    root = tl.math.rsqrt(tl.sum(d * d, 1) / width + 1e-5)
    return d * root[:, None], root


@triton.jit
def dot(a: tensor, b: tensor, fast: constexpr) -> Any:
    """Matrix product, summed in float32."""
    if fast:
        return tl.dot(a, b)
    return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")


@triton.jit
def load_pixels(
    maps: tensor, view: tensor, y: tensor, x: tensor, valid: tensor, height: constexpr,
    length: constexpr, width: constexpr, wide: constexpr,
) -> Any:  # fmt: skip
    """Features of pixels, (rows, wide); 0 beyond the border and where not valid."""
    o = tl.arange(0, wide)
    inside = valid & (y >= 0) & (y < height) & (x >= 0) & (x < length)
    at = ((view * height + y) * length + x) * width
    return tl.load(
        maps + at[:, None] + o[None, :], mask=inside[:, None] & (o < width)[None, :], other=0.0
    )


@triton.jit
def inner_layer(
    maps: tensor, weights: tensor, expand: tensor, expand_bias: tensor,
    view: tensor, y: tensor, x: tensor, valid: tensor,
    height: constexpr, length: constexpr, width: constexpr, wide: constexpr,
    kernel: constexpr, norm: constexpr, fast: constexpr,
) -> Any:  # fmt: skip
    """From the map to the inner layer before GELU.

    Gives the pixels themselves, normalised rows (in the maps' type), 1 / sigma, inner rows.
    """
    o = tl.arange(0, wide)
    here = load_pixels(maps, view, y, x, valid, height, length, width, wide).to(tl.float32)
    centre: constexpr = kernel * kernel // 2
    h = tl.load(weights + kernel * kernel * wide + o)[None, :] + here * tl.load(
        weights + centre * wide + o
    )[None, :]  # fmt: skip
    for tap in tl.static_range(kernel * kernel):
        if tap != centre:
            down, right = tap // kernel - kernel // 2, tap % kernel - kernel // 2
            near = load_pixels(maps, view, y + down, x + right, valid, height, length, width, wide)
            h += near.to(tl.float32) * tl.load(weights + tap * wide + o)[None, :]
    root = tl.sum(h, 1)
    if norm:
        h, root = _normalise(h, o < width, width)
    rows = h.to(maps.dtype.element_ty)
    inner = dot(rows, expand, fast) + expand_bias[None, :]
    return here, h, rows, root, inner


@triton.jit
def columns_under(
    views: tensor, view: tensor, marker: tensor, markers: tensor,
    y: tensor, x: tensor, valid: tensor,
    height: constexpr, length: constexpr, stride: constexpr,
) -> Any:  # fmt: skip
    """The nine pixels under the stem, then 1 for the bias, then zeros: (rows, 16)."""
    tap = tl.arange(0, 16)
    down = (y * stride - 1)[:, None] + (tap // 3)[None, :]
    right = (x * stride - 1)[:, None] + (tap % 3)[None, :]
    inside = (down >= 0) & (down < height) & (right >= 0) & (right < length)
    inside = inside & valid[:, None] & (tap < 9)[None, :]
    image = (view.to(tl.int64) * markers + marker) * (height * length)
    pixels = tl.load(views + image[:, None] + down * length + right, mask=inside, other=0.0)
    return tl.where((tap == 9)[None, :], 1.0, pixels.to(tl.float32))


@triton.jit(do_not_specialize=["batch"])
def stem_forward(
    views: tensor, weights: tensor, out: tensor, n_weights: tensor, batch: tensor,
    height: constexpr, length: constexpr, stride: constexpr, width: constexpr,
    wide: constexpr, fast: constexpr, rows: constexpr,
) -> None:  # fmt: skip
    """Views (B, C, H, W) to the first map."""
    marker, markers = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    grid_length: constexpr = (length + stride - 1) // stride
    sites: constexpr = (height + stride - 1) // stride * grid_length
    o, tap = tl.arange(0, wide), tl.arange(0, 16)
    out += marker * batch * (sites * width)
    weights += marker * n_weights
    stem = tl.load(weights + tap[:, None] * wide + o[None, :]).to(out.dtype.element_ty)
    for tile in range(tl.program_id(1), tl.cdiv(batch * sites, rows), tl.num_programs(1)):
        row = tile * rows + tl.arange(0, rows)
        valid, view, site = row < batch * sites, row // sites, row % sites
        columns = columns_under(
            views, view, marker, markers, site // grid_length, site % grid_length, valid,
            height, length, stride,
        )  # fmt: skip
        x = dot(columns.to(stem.dtype), stem, fast)
        mask = valid[:, None] & (o < width)[None, :]
        tl.store(out + (row * width)[:, None] + o[None, :], x.to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["batch"])
def block_forward(
    maps: tensor, weights: tensor, out: tensor, at: tensor, n_weights: tensor, batch: tensor,
    height: constexpr, length: constexpr, width: constexpr, wide: constexpr,
    inner_wide: constexpr, kernel: constexpr, norm: constexpr, step: constexpr,
    fast: constexpr, rows: constexpr,
) -> None:  # fmt: skip
    """One block, and a 2 x 2 average behind it if `step` is 2; rows are pixels of the result.

    The inner layer is averaged before it is projected: that is a quarter of the work.
    """
    marker = tl.program_id(0).to(tl.int64)
    cells_length: constexpr = (length + step - 1) // step
    cells: constexpr = (height + step - 1) // step * cells_length
    o, j = tl.arange(0, wide), tl.arange(0, inner_wide)
    maps += marker * batch * (height * length * width)
    out += marker * batch * (cells * width)
    weights += marker * n_weights + at
    kind = maps.dtype.element_ty
    behind = weights + (kernel * kernel + 1) * wide
    expand = tl.load(behind + o[:, None] * inner_wide + j[None, :]).to(kind)
    expand_bias = tl.load(behind + wide * inner_wide + j)
    behind += (wide + 1) * inner_wide
    project = tl.load(behind + j[:, None] * wide + o[None, :]).to(kind)
    project_bias = tl.load(behind + inner_wide * wide + o)
    for tile in range(tl.program_id(1), tl.cdiv(batch * cells, rows), tl.num_programs(1)):
        row = tile * rows + tl.arange(0, rows)
        inside, view, cell = row < batch * cells, row // cells, row % cells
        top, left = cell // cells_length * step, cell % cells_length * step
        share = 1.0 / (tl.minimum(height - top, step) * tl.minimum(length - left, step))
        hidden = tl.zeros((rows, inner_wide), tl.float32)
        skip = tl.zeros((rows, wide), tl.float32)
        for phase in range(step * step):
            y, x = top + phase // step, left + phase % step
            valid = inside & (y < height) & (x < length)
            here, _, _, _, inner = inner_layer(
                maps, weights, expand, expand_bias, view, y, x, valid,
                height, length, width, wide, kernel, norm, fast,
            )  # fmt: skip
            value, _ = gelu(inner, fast)
            hidden += tl.where(valid[:, None], value, 0.0)
            skip += here
        hidden = (hidden * share[:, None]).to(kind)
        result = skip * share[:, None] + project_bias[None, :]
        result += dot(hidden, project, fast)
        mask = inside[:, None] & (o < width)[None, :]
        tl.store(out + (row * width)[:, None] + o[None, :], result.to(kind), mask=mask)


@triton.jit(do_not_specialize=["batch"])
def last_forward(
    maps: tensor, weights: tensor, pool: tensor, out: tensor,
    at: tensor, n_weights: tensor, batch: tensor,
    height: constexpr, length: constexpr, width: constexpr, wide: constexpr,
    inner: constexpr, inner_wide: constexpr, kernel: constexpr, norm: constexpr,
    fast: constexpr, rows: constexpr,
) -> None:  # fmt: skip
    """Pool the last block: (C, B, w + E w), weighted means of its input and of its inner layer.

    What projects them is linear and stands behind the pooling. A view is summed by itself and in
    float32, so its numbers do not depend on the views beside it.
    """
    marker = tl.program_id(0).to(tl.int64)
    sites: constexpr = height * length
    o, j = tl.arange(0, wide), tl.arange(0, inner_wide)
    maps += marker * batch * (sites * width)
    weights += marker * n_weights + at
    behind = weights + (kernel * kernel + 1) * wide
    expand = tl.load(behind + o[:, None] * inner_wide + j[None, :]).to(maps.dtype.element_ty)
    expand_bias = tl.load(behind + wide * inner_wide + j)
    for view in range(tl.program_id(1), batch, tl.num_programs(1)):
        hidden = tl.zeros((rows, inner_wide), tl.float32)
        skip = tl.zeros((rows, wide), tl.float32)
        for first in range(0, sites, rows):
            site = first + tl.arange(0, rows)
            valid, share = site < sites, tl.load(pool + site, mask=site < sites, other=0.0)
            here, _, _, _, before = inner_layer(
                maps, weights, expand, expand_bias, view, site // length, site % length, valid,
                height, length, width, wide, kernel, norm, fast,
            )  # fmt: skip
            value, _ = gelu(before, fast)
            hidden += share[:, None] * value
            skip += share[:, None] * here
        to = out + (marker * batch + view) * (width + inner)
        tl.store(to + o, tl.sum(skip, 0), mask=o < width)
        tl.store(to + width + j, tl.sum(hidden, 0), mask=j < inner)
