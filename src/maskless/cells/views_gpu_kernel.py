"""The gather of views as a Triton kernel (:mod:`maskless.cells.views_gpu` says what it computes).

Axes: V = views, C = markers, S = rows and columns of a view. A program makes some pixels of one
view, all markers: where they lie is computed once. Never timed on a GPU.
"""

from __future__ import annotations

import triton
import triton.language as tl
from triton.language import constexpr, tensor


@triton.jit
def gather(
    values: tensor, first_v: tensor, bounds_v: tensor, place_v: tensor, gain_vc: tensor,
    noise: tensor, views: tensor,
    markers: constexpr, wide: constexpr, size: constexpr, noise_length: constexpr,
    augmented: constexpr, tile: constexpr, chunk: constexpr,
) -> None:  # fmt: skip
    """Views (V, C, S, S) from pixels (P, wide).

    `first_v` is the pixel that a view's centre lies in, all else is relative to it and small:
    `bounds_v` (V, 6) the columns of the block, its first and last row and column that have a
    neighbour, and the start in the table of noise; `place_v` (V, 8) where in that pixel the centre
    lies, the matrix, and sigma.
    """
    view = tl.program_id(0).to(tl.int64)
    pixel = tl.program_id(1) * tile + tl.arange(0, tile)
    valid = pixel < size * size
    i, j = pixel // size, pixel % size
    down, right = i.to(tl.float32) - (size - 1) / 2, j.to(tl.float32) - (size - 1) / 2
    place, bounds = place_v + view * 8, bounds_v + view * 6
    columns = tl.load(bounds)
    y = tl.load(place) + (tl.load(place + 2) * down + tl.load(place + 3) * right)
    x = tl.load(place + 1) + (tl.load(place + 4) * down + tl.load(place + 5) * right)
    # Rounding must not lead out of the block, where the weight of what is there would be 0.
    top = tl.minimum(tl.maximum(tl.floor(y).to(tl.int32), tl.load(bounds + 1)), tl.load(bounds + 2))
    left = tl.minimum(
        tl.maximum(tl.floor(x).to(tl.int32), tl.load(bounds + 3)), tl.load(bounds + 4)
    )
    below, beside = (y - top)[:, None], (x - left)[:, None]
    corner = values + ((tl.load(first_v + view) + (top * columns + left)) * wide)[:, None]
    for first in tl.static_range(0, wide, chunk):
        c = first + tl.arange(0, chunk)[None, :]
        mask = valid[:, None] & (c < wide)
        row = columns * wide
        upper_left = tl.load(corner + c, mask=mask, other=0.0).to(tl.float32)
        upper_right = tl.load(corner + wide + c, mask=mask, other=0.0).to(tl.float32)
        lower_left = tl.load(corner + row + c, mask=mask, other=0.0).to(tl.float32)
        lower_right = tl.load(corner + row + wide + c, mask=mask, other=0.0).to(tl.float32)
        upper = upper_left * (1 - beside) + upper_right * beside
        lower = lower_left * (1 - beside) + lower_right * beside
        seen = upper * (1 - below) + lower * below
        mask = valid[:, None] & (c < markers)
        if augmented:
            start = tl.load(bounds + 5) + (c * size + i[:, None]) * size
            noise_at = (start & (noise_length - 1)) + j[:, None]
            sigma = tl.load(place + 6)
            gain = tl.load(gain_vc + view * markers + c, mask=c < markers, other=0.0)
            seen = gain * seen + sigma * tl.load(noise + noise_at, mask=mask, other=0.0)
        to = views + view * (markers * size * size) + c * (size * size) + pixel[:, None]
        tl.store(to, seen, mask=mask)
