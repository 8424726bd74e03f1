"""The fused towers, forward and backward: some views of one marker from the stem to the pool.

A tile is as many views as a vector has lanes; a job is a marker and a run of tiles. A tile's maps
stay in the processor's caches. The backward makes the forward once more, keeps what it needs, and
goes back; nothing but the views is kept between the two. Gradients are summed job by job, so
threads change no bit of them.

Numba looks for changes in this file only before it takes compiled functions from its cache. They
therefore have an argument `source` whose type names the text of all files that they come from.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from maskless.encoder.fused_filters import convolve_row, correlate_row
from maskless.encoder.fused_kernels import (
    activate,
    activate_and_keep,
    add_biases,
    add_pixel,
    clear,
    linear,
    multiply_pixel,
    normalise,
    normalise_back,
    outer_pixels,
    set_pixel,
    sum_pixels,
)
from maskless.encoder.fused_plan import KEEP, POOL
from maskless.encoder.fused_vector import (
    LANES,
    compiled,
    compiled_and_cached,
    store_tile,
    transpose_four,
    vectors,
)


@compiled
def _fill_view(view: Any, views_bchw: Any, first: int, marker: int, row: int) -> None:
    """Views, one a lane, in a border of 0; the last view again where there are no more."""
    batch, markers, height, length = views_bchw.shape
    pixels = views_bchw.reshape(-1)
    step = markers * height * length
    most = min(LANES, batch - first) - 1
    for y in range(height):
        at = ((first * markers + marker) * height + y) * length
        to = (y + 1) * row + 1
        if length < 4:
            for lane in range(LANES):
                for x in range(length):
                    view[(to + x) * LANES + lane] = pixels[at + min(lane, most) * step + x]
            continue
        x = 0
        while x < length:
            x = min(x, length - 4)  # the last four overlap those before
            store_tile(view, to + x, 0, 4, transpose_four(pixels, at + x, step, most))
            x += 4


@compiled
def _forward_block(
    number: int, weights: Any, maps: Any, kept: Any, strip: Any, plan: Any, keep: bool
) -> None:
    """Pool the inner features of a block, and its input where cells are more than a pixel."""
    sizes, _, block, cell_of, share_of = plan
    b = block[number]
    features, width, inner = sizes.features, sizes.features.number, sizes.inner.number
    pad, length = sizes.depthwise.edge // 2, b.length
    edge_row = length + 2 * pad
    cells = b.cells_height * b.cells_length
    clear(maps, b.hidden, cells * inner)
    if b.after != KEEP:
        clear(maps, b.pooled, cells * width)
    for first in range(0, b.height, b.strip):
        rows = min(b.strip, b.height - first)
        pixel, count = first * length, rows * length
        normed_at = b.normed + pixel * width if keep else 0
        root_at = b.root + pixel if keep else count * width
        h, h_at = (strip, 0) if sizes.norm else (kept, normed_at)
        for y in range(rows):
            convolve_row(
                h,
                h_at + y * length * width,
                length,
                features,
                maps,
                b.x + (first + y) * edge_row * width,
                edge_row * width,
                sizes.depthwise,
                weights,
                b.depthwise,
                b.depthwise_bias,
            )
        if sizes.norm:
            normalise(strip, 0, kept, normed_at, kept, root_at, count, features)
        u_at = b.slope + pixel * inner if keep else root_at + count
        linear(
            kept, u_at, sizes.inner, kept, normed_at, features, weights, b.expand, b.expand_bias,
            count,
        )  # fmt: skip
        how = (cell_of, share_of, b.pixel + pixel, count)
        if keep:
            activate_and_keep(kept, u_at, maps, b.hidden, sizes.inner, *how)
        else:
            activate(kept, u_at, maps, b.hidden, sizes.inner, *how)
        if b.after != KEEP:
            for y in range(first, first + rows):
                for x in range(length):
                    place = b.pixel + y * length + x
                    to = b.pooled + cell_of[place] * width
                    x_at = b.x + ((y + pad) * edge_row + x + pad) * width
                    add_pixel(maps, to, maps, x_at, share_of[place], features)


@compiled
def _forward_tile(
    view: Any, weights: Any, maps: Any, kept: Any, strip: Any, plan: Any, keep: bool, out: Any
) -> None:
    sizes, tower, block, _, _ = plan
    features, width, pad = sizes.features, sizes.features.number, sizes.depthwise.edge // 2
    first = block[0]
    edge_row = first.length + 2 * pad
    for y in range(first.height):
        convolve_row(
            maps,
            first.x + ((y + pad) * edge_row + pad) * width,
            first.length,
            features,
            view,
            y * tower.stride * tower.view_row,
            tower.view_row,
            sizes.stem,
            weights,
            tower.stem,
            tower.stem_bias,
        )
    for number in range(len(block)):
        b = block[number]
        _forward_block(number, weights, maps, kept, strip, plan, keep)
        for y in range(b.cells_height):
            # The block's output: its input, biases, and the projection of the inner features.
            if b.after == POOL:
                to = b.pooled
            else:
                after = block[number + 1]
                to = after.x + ((y + pad) * (after.length + 2 * pad) + pad) * width
            for x in range(b.cells_length):
                if b.after == KEEP:
                    skip = b.x + ((y + pad) * (b.length + 2 * pad) + x + pad) * width
                else:
                    skip = b.pooled + (y * b.cells_length + x) * width
                add_biases(maps, to + x * width, maps, skip, weights, b.project_bias, features)
            linear(
                maps,
                to,
                features,
                maps,
                b.hidden + y * b.cells_length * sizes.inner.number,
                sizes.inner,
                weights,
                b.project,
                -1,
                b.cells_length,
            )
    last = block[len(block) - 1]
    linear(out, 0, features, maps, last.pooled, features, weights, tower.last, tower.last_bias, 1)


@compiled
def _backward_block(
    number: int, weights: Any, maps: Any, kept: Any, strip: Any, plan: Any, sums: Any
) -> None:
    """Gradients of a block's parameters and of the output of its depthwise filters."""
    sizes, tower, block, cell_of, share_of = plan
    b = block[number]
    features, width, inner = sizes.features, sizes.features.number, sizes.inner.number
    pad, length = sizes.depthwise.edge // 2, b.length
    edge_row = length + 2 * pad
    for first in range(0, b.height, b.strip):
        rows = min(b.strip, b.height - first)
        pixel, count = first * length, rows * length
        slope_at, normed_at = b.slope + pixel * inner, b.normed + pixel * width
        cell = cell_of[b.pixel + pixel]
        if first == 0 or b.after != POOL:
            d_at, hidden_at = b.d_cells + cell * width, b.hidden + cell * inner
            cells = cell_of[b.pixel + pixel + count - 1] + 1 - cell
            outer_pixels(
                sums, b.g_project, kept, d_at, features, maps, hidden_at, sizes.inner, cells
            )
            sum_pixels(sums, b.g_project_bias, kept, d_at, features, cells)
            linear(
                kept,
                b.d_hidden,
                sizes.inner,
                kept,
                d_at,
                features,
                weights,
                b.project_back,
                tower.zeros,
                cells,
            )
        for p in range(count):
            place = b.pixel + pixel + p
            d_hidden = b.d_hidden + (cell_of[place] - cell) * inner
            multiply_pixel(kept, slope_at + p * inner, kept, d_hidden, share_of[place], sizes.inner)
        outer_pixels(
            sums, b.g_expand, kept, slope_at, sizes.inner, kept, normed_at, features, count
        )
        sum_pixels(sums, b.g_expand_bias, kept, slope_at, sizes.inner, count)
        linear(
            strip,
            0,
            features,
            kept,
            slope_at,
            sizes.inner,
            weights,
            b.expand_back,
            tower.zeros,
            count,
        )
        for y in range(rows):
            at = y * length
            d_at = b.d_depthwise + ((first + y + pad) * edge_row + pad) * width
            if sizes.norm:
                normalise_back(
                    strip, at * width, kept, d_at, kept, normed_at + at * width, kept,
                    b.root + pixel + at, length, features,
                )  # fmt: skip
            else:
                for x in range(at, at + length):
                    to = d_at + (x - at) * width
                    set_pixel(kept, to, strip, x * width, np.float32(1), features)
            sum_pixels(sums, b.g_depthwise_bias, kept, d_at, features, length)
            correlate_row(
                sums,
                b.g_depthwise,
                maps,
                b.x + (first + y) * edge_row * width,
                edge_row * width,
                sizes.depthwise,
                kept,
                d_at,
                length,
                features,
            )


@compiled
def _backward_tile(
    view: Any, weights: Any, maps: Any, kept: Any, strip: Any, plan: Any, d_out: Any, sums: Any
) -> None:
    sizes, tower, block, cell_of, share_of = plan
    features, width = sizes.features, sizes.features.number
    pad = sizes.depthwise.edge // 2
    last = block[len(block) - 1]
    outer_pixels(sums, tower.g_last, d_out, 0, features, maps, last.pooled, features, 1)
    sum_pixels(sums, tower.g_last_bias, d_out, 0, features, 1)
    linear(
        kept, last.d_cells, features, d_out, 0, features, weights, tower.last_back, tower.zeros, 1
    )
    for number in range(len(block) - 1, -1, -1):
        _backward_block(number, weights, maps, kept, strip, plan, sums)
        b = block[number]
        edge_row = b.length + 2 * pad
        for y in range(b.height):
            d_x_at = b.d_x + y * b.length * width
            for x in range(b.length):
                place = b.pixel + y * b.length + x
                d_cell = b.d_cells + cell_of[place] * width
                set_pixel(kept, d_x_at + x * width, kept, d_cell, share_of[place], features)
            convolve_row(
                kept,
                d_x_at,
                b.length,
                features,
                kept,
                b.d_depthwise + y * edge_row * width,
                edge_row * width,
                sizes.depthwise,
                weights,
                b.depthwise_flipped,
                -1,
            )
    first = block[0]
    for y in range(first.height):
        d_x_at = first.d_x + y * first.length * width
        sum_pixels(sums, tower.g_stem_bias, kept, d_x_at, features, first.length)
        correlate_row(
            sums,
            tower.g_stem,
            view,
            y * tower.stride * tower.view_row,
            tower.view_row,
            sizes.stem,
            kept,
            d_x_at,
            first.length,
            features,
        )


@compiled
def _read_weights(parameters: Any, weight_of: Any, weights: Any) -> None:
    for at in range(len(weight_of)):
        weights[at] = parameters[weight_of[at]] if weight_of[at] >= 0 else np.float32(0)


@compiled_and_cached
def forward_jobs(
    first_job: int,
    last_job: int,
    tiles: int,
    views_bchw: Any,
    parameters_cn: Any,
    weight_of: Any,
    source: Any,
    sizes: Any,
    tower: Any,
    block: Any,
    cell_of: Any,
    share_of: Any,
    features_bck: Any,
) -> None:
    """Features of some jobs' views; job j is marker j % C and run j // C of `tiles` tiles."""
    batch, markers = views_bchw.shape[:2]
    plan = (sizes, tower, block, cell_of, share_of)
    weights = np.empty(tower.n_weights, np.float32)
    view, maps = vectors(tower.n_view), vectors(tower.n_maps)
    kept, strip = vectors(tower.n_strip_kept), vectors(tower.n_strip)
    out = vectors(sizes.features.number)
    for job in range(first_job, last_job):
        marker = job % markers
        _read_weights(parameters_cn[marker], weight_of, weights)
        start = job // markers * tiles * LANES
        for first in range(start, min(start + tiles * LANES, batch), LANES):
            _fill_view(view, views_bchw, first, marker, tower.view_row)
            _forward_tile(view, weights, maps, kept, strip, plan, False, out)
            for lane in range(min(LANES, batch - first)):
                for k in range(sizes.features.true):
                    features_bck[first + lane, marker, k] = out[k * LANES + lane]


@compiled_and_cached
def backward_jobs(
    first_job: int,
    last_job: int,
    tiles: int,
    views_bchw: Any,
    parameters_cn: Any,
    weight_of: Any,
    source: Any,
    sizes: Any,
    tower: Any,
    block: Any,
    cell_of: Any,
    share_of: Any,
    d_features_bck: Any,
    gradient_of: Any,
    gradients_jn: Any,
) -> None:
    """Gradients of the parameters, one row a job; jobs as in :func:`forward_jobs`."""
    batch, markers = views_bchw.shape[:2]
    plan = (sizes, tower, block, cell_of, share_of)
    weights = np.empty(tower.n_weights, np.float32)
    view, maps = vectors(tower.n_view), vectors(tower.n_maps)
    kept, strip = vectors(tower.n_maps_kept), vectors(tower.n_strip)
    out, d_out = vectors(sizes.features.number), vectors(sizes.features.number)
    sums = vectors(tower.n_gradients)
    for job in range(first_job, last_job):
        marker = job % markers
        _read_weights(parameters_cn[marker], weight_of, weights)
        sums[:] = np.float32(0)
        start = job // markers * tiles * LANES
        for first in range(start, min(start + tiles * LANES, batch), LANES):
            _fill_view(view, views_bchw, first, marker, tower.view_row)
            _forward_tile(view, weights, maps, kept, strip, plan, True, out)
            d_out[:] = np.float32(0)
            for lane in range(min(LANES, batch - first)):
                for k in range(sizes.features.true):
                    d_out[k * LANES + lane] = d_features_bck[first + lane, marker, k]
            _backward_tile(view, weights, maps, kept, strip, plan, d_out, sums)
        for n in range(len(gradient_of)):
            total = np.float32(0)
            for lane in range(LANES):
                total += sums[gradient_of[n] * LANES + lane]
            gradients_jn[job, n] = total
