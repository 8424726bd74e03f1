"""The fused towers, forward and backward: sixteen views of one marker from the stem to the pool.

A job is a marker and a run of tiles of sixteen views. A tile's maps stay in the processor's caches.
The backward makes the forward once more, keeps what it needs, and goes back; nothing but the views
is kept between the two. Gradients are summed job by job, so threads change no bit of them.

Numba looks for changes in this file only before it takes compiled functions from its cache. They
therefore have an argument `source` whose type names the text of all files that they come from.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from maskless.encoder.fused_filters import convolve_row, correlate_row
from maskless.encoder.fused_kernels import (
    add_scaled,
    clear,
    expand_pixel,
    expand_pixel_and_slopes,
    fill_row,
    multiply_add,
    normalise_row,
    normalise_row_back,
    outer_rows,
    scale_by,
    sum_rows,
)
from maskless.encoder.fused_plan import KEEP, POOL
from maskless.encoder.fused_vector import (
    LANES,
    compiled,
    compiled_and_cached,
    store,
    transpose_four,
    vectors,
)


@compiled
def _fill_view(view: Any, views_bchw: Any, first: int, marker: int, row: int) -> None:
    """Sixteen views, one a lane, in a border of 0; the last view again where there are no more."""
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
            v0, v1, v2, v3 = transpose_four(pixels, at + x, step, most)
            store(view, to + x, v0)
            store(view, to + x + 1, v1)
            store(view, to + x + 2, v2)
            store(view, to + x + 3, v3)
            x += 4


@compiled
def _forward_tile(
    view: Any, weights: Any, maps: Any, kept: Any, row: Any, plan: Any, keep: bool, out: Any
) -> None:
    sizes, tower, block, cell_of, share_of = plan
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
            tower.stride,
            sizes.stem,
            weights,
            tower.stem,
            tower.stem_bias,
        )
    for number in range(len(block)):
        b = block[number]
        length = b.length
        edge_row = length + 2 * pad
        cells = b.cells_height * b.cells_length
        clear(maps, b.hidden, cells * sizes.inner.number)
        if b.after != KEEP:
            clear(maps, b.pooled, cells * width)
        for y in range(b.height):
            normed_at = b.normed + y * length * width if keep else 0
            root_at = b.root + y * length if keep else length * width
            h = row if sizes.norm else kept
            convolve_row(
                h,
                0 if sizes.norm else normed_at,
                length,
                features,
                maps,
                b.x + y * edge_row * width,
                edge_row * width,
                width,
                sizes.depthwise,
                weights,
                b.depthwise,
                b.depthwise_bias,
            )
            if sizes.norm:
                normalise_row(row, kept, normed_at, kept, root_at, length, features)
            for x in range(length):
                pixel = y * length + x
                cell, share = cell_of[b.pixel + pixel], share_of[b.pixel + pixel]
                at, hidden_at = normed_at + x * width, b.hidden + cell * sizes.inner.number
                if keep:
                    slopes_at = b.slope + pixel * sizes.inner.number
                    expand_pixel_and_slopes(
                        kept, at, maps, hidden_at, weights, b, sizes, share, kept, slopes_at
                    )
                else:
                    expand_pixel(kept, at, maps, hidden_at, weights, b, sizes, share)
                if b.after != KEEP:
                    x_at = b.x + ((y + pad) * edge_row + x + pad) * width
                    add_scaled(maps, b.pooled + cell * width, maps, x_at, share, features)
        one = np.float32(1)
        for cell in range(cells):
            hidden_at = b.hidden + cell * sizes.inner.number
            y, x = cell // b.cells_length, cell % b.cells_length
            if b.after == POOL:
                to = b.pooled
                for_bias = row
                fill_row(for_bias, 0, weights, b.project_bias, features)
                add_scaled(maps, to, for_bias, 0, one, features)
            else:
                after = block[number + 1]
                to = after.x + ((y + pad) * (after.length + 2 * pad) + x + pad) * width
                fill_row(maps, to, weights, b.project_bias, features)
                skip = b.pooled + cell * width
                if b.after == KEEP:
                    skip = b.x + ((y + pad) * edge_row + x + pad) * width
                add_scaled(maps, to, maps, skip, one, features)
            multiply_add(maps, to, features, maps, hidden_at, sizes.inner, weights, b.project)
    last = block[len(block) - 1]
    fill_row(out, 0, weights, tower.last_bias, features)
    multiply_add(out, 0, features, maps, last.pooled, features, weights, tower.last)


@compiled
def _project_back(
    weights: Any, maps: Any, kept: Any, sizes: Any, block: Any, first: int, sums: Any
) -> None:
    """Gradients of the projection of a row of cells, and of its inputs."""
    features, inner, length = sizes.features, sizes.inner, block.cells_length
    d_at, hidden_at = block.d_cells + first * features.number, block.hidden + first * inner.number
    outer_rows(sums, block.g_project, kept, d_at, features, maps, hidden_at, inner, length)
    sum_rows(sums, block.g_project_bias, kept, d_at, features, length)
    clear(kept, block.d_hidden, length * inner.number)
    for x in range(length):
        to = block.d_hidden + x * inner.number
        at = d_at + x * features.number
        multiply_add(kept, to, inner, kept, at, features, weights, block.project_back)


@compiled
def _backward_tile(
    view: Any, weights: Any, maps: Any, kept: Any, row: Any, plan: Any, d_out: Any, sums: Any
) -> None:
    sizes, tower, block, cell_of, share_of = plan
    features, width, inner = sizes.features, sizes.features.number, sizes.inner.number
    pad = sizes.depthwise.edge // 2
    last = block[len(block) - 1]
    outer_rows(sums, tower.g_last, d_out, 0, features, maps, last.pooled, features, 1)
    sum_rows(sums, tower.g_last_bias, d_out, 0, features, 1)
    clear(kept, last.d_cells, width)
    multiply_add(kept, last.d_cells, features, d_out, 0, features, weights, tower.last_back)
    for number in range(len(block) - 1, -1, -1):
        b = block[number]
        length = b.length
        edge_row = length + 2 * pad
        for y in range(b.height):
            pixels = y * length
            slope_at, normed_at = b.slope + pixels * inner, b.normed + pixels * width
            d_h_at = b.d_depthwise + ((y + pad) * edge_row + pad) * width
            first_cell = cell_of[b.pixel + pixels]
            if y == 0 or first_cell != cell_of[b.pixel + pixels - length]:
                _project_back(weights, maps, kept, sizes, b, first_cell, sums)
            d_n, d_n_at = (row, 0) if sizes.norm else (kept, d_h_at)
            clear(d_n, d_n_at, length * width)
            for x in range(length):
                at = slope_at + x * inner
                cell, share = cell_of[b.pixel + pixels + x], share_of[b.pixel + pixels + x]
                d_hidden_at = b.d_hidden + (cell - first_cell) * inner
                scale_by(kept, at, kept, d_hidden_at, share, sizes.inner)
                multiply_add(
                    d_n, d_n_at + x * width, features, kept, at, sizes.inner, weights, b.expand_back
                )
            if sizes.norm:
                normalise_row_back(
                    row, kept, d_h_at, kept, normed_at, kept, b.root + pixels, length, features
                )
            outer_rows(
                sums, b.g_expand, kept, slope_at, sizes.inner, kept, normed_at, features, length
            )
            sum_rows(sums, b.g_expand_bias, kept, slope_at, sizes.inner, length)
            sum_rows(sums, b.g_depthwise_bias, kept, d_h_at, features, length)
            correlate_row(
                sums,
                b.g_depthwise,
                maps,
                b.x + y * edge_row * width,
                edge_row * width,
                width,
                sizes.depthwise,
                kept,
                d_h_at,
                length,
                features,
            )
        for y in range(b.height):
            d_x_at = b.d_x + y * length * width
            clear(kept, d_x_at, length * width)
            for x in range(length):
                cell = cell_of[b.pixel + y * length + x]
                share = share_of[b.pixel + y * length + x]
                add_scaled(
                    kept, d_x_at + x * width, kept, b.d_cells + cell * width, share, features
                )
            convolve_row(
                kept,
                d_x_at,
                length,
                features,
                kept,
                b.d_depthwise + y * edge_row * width,
                edge_row * width,
                width,
                sizes.depthwise,
                weights,
                b.depthwise_flipped,
                -1,
            )
    first_block = block[0]
    for y in range(first_block.height):
        d_x_at = first_block.d_x + y * first_block.length * width
        sum_rows(sums, tower.g_stem_bias, kept, d_x_at, features, first_block.length)
        correlate_row(
            sums,
            tower.g_stem,
            view,
            y * tower.stride * tower.view_row,
            tower.view_row,
            tower.stride,
            sizes.stem,
            kept,
            d_x_at,
            first_block.length,
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
    kept, row = vectors(tower.n_rows + tower.n_rows), vectors(tower.n_rows)
    out = vectors(sizes.features.number)
    for job in range(first_job, last_job):
        marker = job % markers
        _read_weights(parameters_cn[marker], weight_of, weights)
        start = job // markers * tiles * LANES
        for first in range(start, min(start + tiles * LANES, batch), LANES):
            _fill_view(view, views_bchw, first, marker, tower.view_row)
            _forward_tile(view, weights, maps, kept, row, plan, False, out)
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
    kept, row = vectors(tower.n_maps_kept), vectors(tower.n_rows)
    out, d_out = vectors(sizes.features.number), vectors(sizes.features.number)
    sums = vectors(tower.n_gradients)
    for job in range(first_job, last_job):
        marker = job % markers
        _read_weights(parameters_cn[marker], weight_of, weights)
        sums[:] = np.float32(0)
        start = job // markers * tiles * LANES
        for first in range(start, min(start + tiles * LANES, batch), LANES):
            _fill_view(view, views_bchw, first, marker, tower.view_row)
            _forward_tile(view, weights, maps, kept, row, plan, True, out)
            d_out[:] = np.float32(0)
            for lane in range(min(LANES, batch - first)):
                for k in range(sizes.features.true):
                    d_out[k * LANES + lane] = d_features_bck[first + lane, marker, k]
            _backward_tile(view, weights, maps, kept, row, plan, d_out, sums)
        for n in range(len(gradient_of)):
            total = np.float32(0)
            for lane in range(LANES):
                total += sums[gradient_of[n] * LANES + lane]
            gradients_jn[job, n] = total
