"""The backward of the towers as Triton kernels; see :mod:`maskless.encoder.triton_kernels`."""

# mypy: disable-error-code="assignment"

from __future__ import annotations

import triton
import triton.language as tl
from triton.language import constexpr, tensor

from maskless.encoder.triton_kernels import columns_under, dot, gelu, inner_layer, load_pixels


@triton.jit(do_not_specialize=["batch"])
def block_backward(
    maps: tensor, weights: tensor, pool: tensor, d_out: tensor, d_maps: tensor, sums: tensor,
    at: tensor, n_weights: tensor, batch: tensor,
    height: constexpr, length: constexpr, width: constexpr, wide: constexpr,
    inner: constexpr, inner_wide: constexpr, kernel: constexpr, norm: constexpr,
    step: constexpr, fast: constexpr, rows: constexpr,
) -> None:  # fmt: skip
    """Gradients of a block's matrices, and of the result of its depthwise filters, (C, B, H, W, w).

    `d_out` is the gradient of what :func:`block_forward` or (step 0) :func:`last_forward` gave.
    The forward is made once more from the block's input; nothing else was kept.
    """
    marker, markers = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    edge: constexpr = step if step > 0 else 1
    cells_length: constexpr = (length + edge - 1) // edge
    cells: constexpr = (height + edge - 1) // edge * cells_length
    o, j = tl.arange(0, wide), tl.arange(0, inner_wide)
    features = o < width
    maps += marker * batch * (height * length * width)
    d_maps += marker * batch * (height * length * width)
    weights += marker * n_weights + at
    kind = maps.dtype.element_ty
    behind = (kernel * kernel + 1) * wide
    expand = tl.load(weights + behind + o[:, None] * inner_wide + j[None, :]).to(kind)
    expand_bias = tl.load(weights + behind + wide * inner_wide + j)
    expand_back = tl.trans(expand)
    d_expand = tl.zeros((wide, inner_wide), tl.float32)
    d_expand_bias = tl.zeros((rows, inner_wide), tl.float32)
    d_filter_bias = tl.zeros((rows, wide), tl.float32)
    far = behind + (wide + 1) * inner_wide
    if step > 0:
        d_out += marker * batch * (cells * width)
        project_back = tl.load(weights + far + j[None, :] * wide + o[:, None]).to(kind)
        d_project = tl.zeros((inner_wide, wide), tl.float32)
        d_project_bias = tl.zeros((rows, wide), tl.float32)
    else:
        d_out += marker * batch * (width + inner)
    for tile in range(tl.program_id(1), tl.cdiv(batch * cells, rows), tl.num_programs(1)):
        row = tile * rows + tl.arange(0, rows)
        inside, view, cell = row < batch * cells, row // cells, row % cells
        top, left = cell // cells_length * edge, cell % cells_length * edge
        if step > 0:
            share = 1.0 / (tl.minimum(height - top, edge) * tl.minimum(length - left, edge))
            mask = inside[:, None] & features[None, :]
            d_y = tl.load(d_out + (row * width)[:, None] + o[None, :], mask=mask, other=0.0)
            d_project_bias += d_y.to(tl.float32)
            d_hidden = dot(d_y, project_back, fast) * share[:, None]
            hidden = tl.zeros((rows, inner_wide), tl.float32)
        else:
            share = tl.load(pool + cell, mask=inside, other=0.0)
            mask = inside[:, None] & (j < inner)[None, :]
            given = d_out + (view * (width + inner) + width)[:, None] + j[None, :]
            d_hidden = tl.load(given, mask=mask, other=0.0) * share[:, None]
        for phase in range(edge * edge):
            y, x = top + phase // edge, left + phase % edge
            valid = inside & (y < height) & (x < length)
            _, h, normed, root, before = inner_layer(
                maps, weights, expand, expand_bias, view, y, x, valid,
                height, length, width, wide, kernel, norm, fast,
            )  # fmt: skip
            value, slope = gelu(before, fast)
            if step > 0:
                hidden += tl.where(valid[:, None], value, 0.0)
            d_inner = tl.where(valid[:, None], slope * d_hidden, 0.0)
            d_expand_bias += d_inner
            d_rows = d_inner.to(kind)
            d_expand += dot(tl.trans(normed), d_rows, fast)
            d_h = dot(d_rows, expand_back, fast)
            if norm:
                along = (tl.sum(d_h * h, 1) / width)[:, None]
                d_h = root[:, None] * (d_h - (tl.sum(d_h, 1) / width)[:, None] - h * along)
                d_h = tl.where(features[None, :], d_h, 0.0)
            d_filter_bias += d_h
            to = d_maps + (((view * height + y) * length + x) * width)[:, None] + o[None, :]
            tl.store(to, d_h.to(kind), mask=valid[:, None] & features[None, :])
        if step > 0:
            hidden = (hidden * share[:, None]).to(kind)
            d_project += dot(tl.trans(hidden), d_y, fast)
    sums += (tl.program_id(1) * markers + marker) * n_weights + at
    tl.store(sums + kernel * kernel * wide + o, tl.sum(d_filter_bias, 0))
    tl.store(sums + behind + o[:, None] * inner_wide + j[None, :], d_expand)
    tl.store(sums + behind + wide * inner_wide + j, tl.sum(d_expand_bias, 0))
    if step > 0:
        tl.store(sums + far + j[:, None] * wide + o[None, :], d_project)
        tl.store(sums + far + inner_wide * wide + o, tl.sum(d_project_bias, 0))


@triton.jit(do_not_specialize=["batch"])
def filters_backward(
    maps: tensor, weights: tensor, pool: tensor, d_out: tensor, d_filtered: tensor,
    d_maps: tensor, sums: tensor, at: tensor, n_weights: tensor, batch: tensor,
    height: constexpr, length: constexpr, width: constexpr, wide: constexpr,
    inner: constexpr, kernel: constexpr, step: constexpr, rows: constexpr,
) -> None:  # fmt: skip
    """Gradients of a block's depthwise filters and of its input.

    Both need the same neighbours of `d_filtered`, what :func:`block_backward` gave in `d_maps`.
    """
    marker, markers = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    sites: constexpr = height * length
    edge: constexpr = step if step > 0 else 1
    cells_length: constexpr = (length + edge - 1) // edge
    cells: constexpr = (height + edge - 1) // edge * cells_length
    o = tl.arange(0, wide)
    features = o < width
    maps += marker * batch * (sites * width)
    d_maps += marker * batch * (sites * width)
    d_filtered += marker * batch * (sites * width)
    weights += marker * n_weights + at
    if step > 0:
        d_out += marker * batch * (cells * width)
    else:
        d_out += marker * batch * (width + inner)
    d_filter = ()  # sums of each tap
    for _ in tl.static_range(kernel * kernel):
        d_filter = d_filter + (tl.zeros((rows, wide), tl.float32),)  # noqa: RUF005
    for tile in range(tl.program_id(1), tl.cdiv(batch * sites, rows), tl.num_programs(1)):
        row = tile * rows + tl.arange(0, rows)
        valid, view, site = row < batch * sites, row // sites, row % sites
        y, x = site // length, site % length
        mask = valid[:, None] & features[None, :]
        if step > 0:
            high, low = tl.minimum(height - y // edge * edge, edge), x // edge * edge
            share = 1.0 / (high * tl.minimum(length - low, edge))
            given = (view * cells + y // edge * cells_length + x // edge) * width
        else:
            share = tl.load(pool + site, mask=valid, other=0.0)
            given = view * (width + inner)
        d_x = tl.load(d_out + given[:, None] + o[None, :], mask=mask, other=0.0)
        d_x = d_x.to(tl.float32) * share[:, None]
        here = tl.load(maps + (row * width)[:, None] + o[None, :], mask=mask, other=0.0)
        here = here.to(tl.float32)
        added = ()
        for tap in tl.static_range(kernel * kernel):
            up, left = kernel // 2 - tap // kernel, kernel // 2 - tap % kernel
            near = load_pixels(
                d_filtered, view, y + up, x + left, valid, height, length, width, wide
            ).to(tl.float32)
            d_x += near * tl.load(weights + tap * wide + o)[None, :]
            added = added + (d_filter[tap] + here * near,)  # noqa: RUF005
        d_filter = added
        to = d_maps + (row * width)[:, None] + o[None, :]
        tl.store(to, d_x.to(maps.dtype.element_ty), mask=mask)
    sums += (tl.program_id(1) * markers + marker) * n_weights + at
    for tap in tl.static_range(kernel * kernel):
        tl.store(sums + tap * wide + o, tl.sum(d_filter[tap], 0))


@triton.jit(do_not_specialize=["batch"])
def stem_backward(
    views: tensor, d_maps: tensor, sums: tensor, n_weights: tensor, batch: tensor,
    height: constexpr, length: constexpr, stride: constexpr, width: constexpr,
    wide: constexpr, fast: constexpr, rows: constexpr,
) -> None:  # fmt: skip
    """Gradients of the stem's filters and bias."""
    marker, markers = tl.program_id(0).to(tl.int64), tl.num_programs(0)
    grid_length: constexpr = (length + stride - 1) // stride
    sites: constexpr = (height + stride - 1) // stride * grid_length
    o, tap = tl.arange(0, wide), tl.arange(0, 16)
    d_maps += marker * batch * (sites * width)
    d_stem = tl.zeros((16, wide), tl.float32)
    for tile in range(tl.program_id(1), tl.cdiv(batch * sites, rows), tl.num_programs(1)):
        row = tile * rows + tl.arange(0, rows)
        valid, view, site = row < batch * sites, row // sites, row % sites
        columns = columns_under(
            views, view, marker, markers, site // grid_length, site % grid_length, valid,
            height, length, stride,
        )  # fmt: skip
        mask = valid[:, None] & (o < width)[None, :]
        d_x = tl.load(d_maps + (row * width)[:, None] + o[None, :], mask=mask, other=0.0)
        d_stem += dot(tl.trans(columns.to(d_x.dtype)), d_x, fast)
    sums += (tl.program_id(1) * markers + marker) * n_weights
    tl.store(sums + tap[:, None] * wide + o[None, :], d_stem)
