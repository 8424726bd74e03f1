"""The fused towers, forward and backward: sixteen views of one marker from the stem to the pool.

A job is a marker and a run of tiles of sixteen views. A tile's maps stay in the processor's caches.
The backward makes the forward once more, keeps what it needs, and goes back; nothing but the views
is kept between the two. Gradients are summed job by job, so threads change no bit of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from maskless.encoder.fused_kernels import (
    add_scaled,
    clear,
    convolve_row,
    correlate_row,
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
from maskless.encoder.fused_vector import LANES, vectors


@njit(nogil=True)
def _fill_view(view: Any, views_bchw: Any, first: int, marker: int, row: int) -> None:
    """Sixteen views from number `first` on, one a lane, inside a border of 0; 0 where none is left."""
    batch, _, height, length = views_bchw.shape
    for lane in range(LANES):
        b = first + lane
        for y in range(height):
            to = ((y + 1) * row + 1) * LANES + lane
            if b < batch:
                for x in range(length):
                    view[to + x * LANES] = views_bchw[b, marker, y, x]
            else:
                for x in range(length):
                    view[to + x * LANES] = np.float32(0)


@njit(nogil=True)
def _forward_tile(
    view: Any, weights: Any, maps: Any, kept: Any, row: Any, plan: Any, keep: bool, out: Any
) -> None:
    tower, block, cell_of, share_of = plan
    width, pad = tower.filled, tower.kernel // 2
    first = block[0]
    edge_row = first.length + 2 * pad
    for y in range(first.height):
        convolve_row(
            maps, first.x + ((y + pad) * edge_row + pad) * width, first.length, width,
            view, y * tower.stride * tower.view_row, (tower.stride, tower.view_row, 1, 0),
            weights, tower.stem, tower.stem_bias, 3,
        )
    for number in range(len(block)):
        b = block[number]
        length = b.length
        edge_row = length + 2 * pad
        cells = b.cells_height * b.cells_length
        clear(maps, b.hidden, cells * tower.inner)
        if b.after != KEEP:
            clear(maps, b.pooled, cells * width)
        for y in range(b.height):
            normed_at = b.normed + y * length * width if keep else 0
            root_at = b.root + y * length if keep else length * width
            h = row if tower.norm else kept
            convolve_row(
                h, 0 if tower.norm else normed_at, length, width,
                maps, b.x + y * edge_row * width, (width, edge_row * width, width, 1),
                weights, b.depthwise, b.depthwise_bias, tower.kernel,
            )
            if tower.norm:
                normalise_row(row, kept, normed_at, kept, root_at, length, tower)
            for x in range(length):
                pixel = y * length + x
                cell, share = cell_of[b.pixel + pixel], share_of[b.pixel + pixel]
                at, hidden_at = normed_at + x * width, b.hidden + cell * tower.inner
                if keep:
                    slopes_at = b.slope + pixel * tower.inner
                    expand_pixel_and_slopes(
                        kept, at, maps, hidden_at, weights, b, tower, share, kept, slopes_at
                    )
                else:
                    expand_pixel(kept, at, maps, hidden_at, weights, b, tower, share)
                if b.after != KEEP:
                    x_at = b.x + ((y + pad) * edge_row + x + pad) * width
                    add_scaled(maps, b.pooled + cell * width, maps, x_at, share, width)
        one = np.float32(1)
        for cell in range(cells):
            hidden_at = b.hidden + cell * tower.inner
            y, x = cell // b.cells_length, cell % b.cells_length
            if b.after == POOL:
                to = b.pooled
                for_bias = row
                fill_row(for_bias, 0, weights, b.project_bias, width)
                add_scaled(maps, to, for_bias, 0, one, width)
            else:
                after = block[number + 1]
                to = after.x + ((y + pad) * (after.length + 2 * pad) + x + pad) * width
                fill_row(maps, to, weights, b.project_bias, width)
                skip = b.pooled + cell * width
                if b.after == KEEP:
                    skip = b.x + ((y + pad) * edge_row + x + pad) * width
                add_scaled(maps, to, maps, skip, one, width)
            multiply_add(
                maps, to, width, maps, hidden_at, tower.inner, weights, b.project
            )
    last = block[len(block) - 1]
    fill_row(out, 0, weights, tower.last_bias, width)
    multiply_add(out, 0, width, maps, last.pooled, width, weights, tower.last)


@njit(nogil=True)
def _backward_tile(
    view: Any, weights: Any, maps: Any, kept: Any, row: Any, plan: Any, d_out: Any, sums: Any
) -> None:
    tower, block, cell_of, share_of = plan
    width, inner, pad = tower.filled, tower.inner, tower.kernel // 2
    last = block[len(block) - 1]
    outer_rows(sums, tower.g_last, d_out, 0, width, maps, last.pooled, width, 1)
    sum_rows(sums, tower.g_last_bias, d_out, 0, width, 1)
    clear(kept, last.d_cells, width)
    multiply_add(kept, last.d_cells, width, d_out, 0, width, weights, tower.last_back)
    for number in range(len(block) - 1, -1, -1):
        b = block[number]
        length = b.length
        edge_row = length + 2 * pad
        steps = (width, edge_row * width, width, 1)
        for y in range(b.cells_height):
            first = y * b.cells_length
            d_at, hidden_at = b.d_cells + first * width, b.hidden + first * inner
            outer_rows(
                sums, b.g_project, kept, d_at, width, maps, hidden_at, inner, b.cells_length
            )
            sum_rows(sums, b.g_project_bias, kept, d_at, width, b.cells_length)
            clear(kept, b.d_hidden + first * inner, b.cells_length * inner)
            for x in range(b.cells_length):
                multiply_add(
                    kept, b.d_hidden + (first + x) * inner, inner,
                    kept, d_at + x * width, width, weights, b.project_back,
                )
        for y in range(b.height):
            pixels = y * length
            slope_at, normed_at = b.slope + pixels * inner, b.normed + pixels * width
            d_h_at = b.d_depthwise + ((y + pad) * edge_row + pad) * width
            d_n, d_n_at = (row, 0) if tower.norm else (kept, d_h_at)
            clear(d_n, d_n_at, length * width)
            for x in range(length):
                at = slope_at + x * inner
                cell, share = cell_of[b.pixel + pixels + x], share_of[b.pixel + pixels + x]
                scale_by(kept, at, kept, b.d_hidden + cell * inner, share, inner)
                multiply_add(
                    d_n, d_n_at + x * width, width, kept, at, inner, weights, b.expand_back
                )
            if tower.norm:
                normalise_row_back(
                    row, kept, d_h_at, kept, normed_at, kept, b.root + pixels, length, tower
                )
            outer_rows(sums, b.g_expand, kept, slope_at, inner, kept, normed_at, width, length)
            sum_rows(sums, b.g_expand_bias, kept, slope_at, inner, length)
            correlate_row(
                sums, b.g_depthwise, b.g_depthwise_bias, maps, b.x + y * edge_row * width, steps,
                kept, d_h_at, length, width, tower.kernel,
            )
        for y in range(b.height):
            d_x_at = b.d_x + y * length * width
            clear(kept, d_x_at, length * width)
            for x in range(length):
                cell = cell_of[b.pixel + y * length + x]
                share = share_of[b.pixel + y * length + x]
                add_scaled(
                    kept, d_x_at + x * width, kept, b.d_cells + cell * width, share, width
                )
            convolve_row(
                kept, d_x_at, length, width, kept, b.d_depthwise + y * edge_row * width, steps,
                weights, b.depthwise_flipped, -1, tower.kernel,
            )
    first_block = block[0]
    for y in range(first_block.height):
        correlate_row(
            sums, tower.g_stem, tower.g_stem_bias, view, y * tower.stride * tower.view_row,
            (tower.stride, tower.view_row, 1, 0),
            kept, first_block.d_x + y * first_block.length * width, first_block.length, width, 3,
        )


@njit(nogil=True)
def _read_weights(parameters: Any, weight_of: Any, weights: Any) -> None:
    for at in range(len(weight_of)):
        weights[at] = parameters[weight_of[at]] if weight_of[at] >= 0 else np.float32(0)


@njit(nogil=True, cache=True)
def forward_jobs(
    first_job: int,
    last_job: int,
    tiles: int,
    views_bchw: Any,
    parameters_cn: Any,
    weight_of: Any,
    tower: Any,
    block: Any,
    cell_of: Any,
    share_of: Any,
    features_bck: Any,
) -> None:
    """Features of the views of some jobs; job j is marker j % C and tiles j // C of `tiles` each."""
    batch, markers = views_bchw.shape[:2]
    plan = (tower, block, cell_of, share_of)
    weights = np.empty(tower.n_weights, np.float32)
    view, maps = vectors(tower.n_view), vectors(tower.n_maps)
    kept, row = vectors(tower.n_rows + tower.n_rows), vectors(tower.n_rows)
    out = vectors(tower.filled)
    for job in range(first_job, last_job):
        marker = job % markers
        _read_weights(parameters_cn[marker], weight_of, weights)
        start = job // markers * tiles * LANES
        for first in range(start, min(start + tiles * LANES, batch), LANES):
            _fill_view(view, views_bchw, first, marker, tower.view_row)
            _forward_tile(view, weights, maps, kept, row, plan, False, out)
            for lane in range(min(LANES, batch - first)):
                for k in range(tower.width):
                    features_bck[first + lane, marker, k] = out[k * LANES + lane]


@njit(nogil=True, cache=True)
def backward_jobs(
    first_job: int,
    last_job: int,
    tiles: int,
    views_bchw: Any,
    parameters_cn: Any,
    weight_of: Any,
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
    plan = (tower, block, cell_of, share_of)
    weights = np.empty(tower.n_weights, np.float32)
    view, maps = vectors(tower.n_view), vectors(tower.n_maps)
    kept, row = vectors(tower.n_maps_kept), vectors(tower.n_rows)
    out, d_out = vectors(tower.filled), vectors(tower.filled)
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
                for k in range(tower.width):
                    d_out[k * LANES + lane] = d_features_bck[first + lane, marker, k]
            _backward_tile(view, weights, maps, kept, row, plan, d_out, sums)
        for n in range(len(gradient_of)):
            total = np.float32(0)
            for lane in range(LANES):
                total += sums[gradient_of[n] * LANES + lane]
            gradients_jn[job, n] = total
