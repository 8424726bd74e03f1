"""The arithmetic of the fused towers: rows of pixels, sixteen views side by side in the lanes.

All maps are arrays of vectors (see `fused_vector`): the features of a pixel lie side by side, then
come the next pixels. Arguments named ``..._at`` count vectors in arrays of vectors and single numbers
in arrays of weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from maskless.encoder.fused_vector import (
    add,
    fill,
    fma,
    gelu,
    gelu_and_slope,
    load,
    multiply,
    reciprocal_root,
    splat,
    store,
    subtract,
    zero,
)

_EPSILON = np.float32(1e-5)

Vectors = Any  # float32 arrays of vectors


@njit(nogil=True)
def convolve_row(
    out: Vectors,
    out_at: int,
    count: int,
    width: int,
    x: Vectors,
    x_at: int,
    x_steps: tuple[int, int, int, int],
    weights: Any,
    weights_at: int,
    bias_at: int,
    edge: int,
) -> None:
    """Convolve one row, one filter a feature; added to what is in `out` if `bias_at` is negative.

    `x_steps`: vectors between output pixels, rows, taps and features.
    """
    pixel_step, row_step, tap_step, feature_step = x_steps
    for i in range(width):
        p = 0
        while p + 4 <= count:
            to = out_at + p * width + i
            if bias_at < 0:
                sum0, sum1 = load(out, to), load(out, to + width)
                sum2, sum3 = load(out, to + 2 * width), load(out, to + 3 * width)
            else:
                sum0 = splat(weights, bias_at + i)
                sum1 = sum0
                sum2 = sum0
                sum3 = sum0
            tap = weights_at + i * edge * edge
            row = x_at + i * feature_step + p * pixel_step
            for _ in range(edge):
                at = row
                for _ in range(edge):
                    weight = splat(weights, tap)
                    sum0 = fma(load(x, at), weight, sum0)
                    sum1 = fma(load(x, at + pixel_step), weight, sum1)
                    sum2 = fma(load(x, at + 2 * pixel_step), weight, sum2)
                    sum3 = fma(load(x, at + 3 * pixel_step), weight, sum3)
                    at += tap_step
                    tap += 1
                row += row_step
            store(out, to, sum0)
            store(out, to + width, sum1)
            store(out, to + 2 * width, sum2)
            store(out, to + 3 * width, sum3)
            p += 4
        while p < count:
            to = out_at + p * width + i
            sum0 = load(out, to) if bias_at < 0 else splat(weights, bias_at + i)
            tap = weights_at + i * edge * edge
            row = x_at + i * feature_step + p * pixel_step
            for _ in range(edge):
                at = row
                for _ in range(edge):
                    sum0 = fma(load(x, at), splat(weights, tap), sum0)
                    at += tap_step
                    tap += 1
                row += row_step
            store(out, to, sum0)
            p += 1


@njit(nogil=True)
def correlate_row(
    sums: Vectors,
    sums_at: int,
    bias_at: int,
    x: Vectors,
    x_at: int,
    x_steps: tuple[int, int, int, int],
    d: Vectors,
    d_at: int,
    count: int,
    width: int,
    edge: int,
) -> None:
    """Add the gradients of the filters and biases of :func:`convolve_row`, d being its outputs'."""
    pixel_step, row_step, tap_step, feature_step = x_steps
    for i in range(width):
        total = load(sums, bias_at + i)
        for p in range(count):
            total = add(total, load(d, d_at + p * width + i))
        store(sums, bias_at + i, total)
        for ky in range(edge):
            kx = 0
            while kx + 3 <= edge:
                to = sums_at + (i * edge + ky) * edge + kx
                sum0, sum1, sum2 = load(sums, to), load(sums, to + 1), load(sums, to + 2)
                at = x_at + i * feature_step + ky * row_step + kx * tap_step
                for p in range(count):
                    slope = load(d, d_at + p * width + i)
                    sum0 = fma(load(x, at), slope, sum0)
                    sum1 = fma(load(x, at + tap_step), slope, sum1)
                    sum2 = fma(load(x, at + 2 * tap_step), slope, sum2)
                    at += pixel_step
                store(sums, to, sum0)
                store(sums, to + 1, sum1)
                store(sums, to + 2, sum2)
                kx += 3
            while kx < edge:
                to = sums_at + (i * edge + ky) * edge + kx
                sum0 = load(sums, to)
                at = x_at + i * feature_step + ky * row_step + kx * tap_step
                for p in range(count):
                    sum0 = fma(load(x, at), load(d, d_at + p * width + i), sum0)
                    at += pixel_step
                store(sums, to, sum0)
                kx += 1


@njit(nogil=True)
def normalise_row(
    h: Vectors, out: Vectors, out_at: int, root: Vectors, root_at: int, count: int, tower: Any
) -> None:
    """LayerNorm over the features of each pixel of a row; 1 / sigma goes to `root`."""
    share = fill(np.float32(1) / np.float32(tower.width))
    epsilon = fill(_EPSILON)
    for p in range(count):
        at = p * tower.filled
        to = out_at + at
        mean = load(h, at)
        for i in range(1, tower.width):
            mean = add(mean, load(h, at + i))
        mean = multiply(mean, share)
        squares = zero()
        for i in range(tower.width):
            value = subtract(load(h, at + i), mean)
            squares = fma(value, value, squares)
            store(out, to + i, value)
        inverse = reciprocal_root(fma(squares, share, epsilon))
        store(root, root_at + p, inverse)
        for i in range(tower.width):
            store(out, to + i, multiply(load(out, to + i), inverse))
        for i in range(tower.width, tower.filled):
            store(out, to + i, zero())


@njit(nogil=True)
def normalise_row_back(
    d: Vectors,
    out: Vectors,
    out_at: int,
    normed: Vectors,
    normed_at: int,
    root: Vectors,
    root_at: int,
    count: int,
    tower: Any,
) -> None:
    """Gradient of the inputs of :func:`normalise_row` from that of its outputs, `d`."""
    share = fill(np.float32(-1) / np.float32(tower.width))
    for p in range(count):
        at = p * tower.filled
        to = out_at + at
        mean, along = zero(), zero()
        for i in range(tower.width):
            value = load(d, at + i)
            mean = add(mean, value)
            along = fma(value, load(normed, normed_at + at + i), along)
        mean, along = multiply(mean, share), multiply(along, share)
        inverse = load(root, root_at + p)
        for i in range(tower.width):
            value = add(load(d, at + i), mean)
            value = fma(along, load(normed, normed_at + at + i), value)
            store(out, to + i, multiply(value, inverse))
        for i in range(tower.width, tower.filled):
            store(out, to + i, zero())


@njit(nogil=True)
def matrix_tile(
    x: Vectors, x_at: int, inputs: int, weights: Any, tile_at: int, s0: Any, s1: Any, s2: Any, s3: Any
) -> Any:
    """Four outputs of a linear layer, added to s0 .. s3."""
    for i in range(inputs):
        value = load(x, x_at + i)
        s0 = fma(value, splat(weights, tile_at), s0)
        s1 = fma(value, splat(weights, tile_at + 1), s1)
        s2 = fma(value, splat(weights, tile_at + 2), s2)
        s3 = fma(value, splat(weights, tile_at + 3), s3)
        tile_at += 4
    return s0, s1, s2, s3


@njit(nogil=True)
def multiply_add(
    out: Vectors,
    out_at: int,
    outputs: int,
    x: Vectors,
    x_at: int,
    inputs: int,
    weights: Any,
    weights_at: int,
) -> None:
    """Add a linear layer's result to `out`."""
    for j in range(0, outputs, 4):
        to = out_at + j
        s0, s1, s2, s3 = load(out, to), load(out, to + 1), load(out, to + 2), load(out, to + 3)
        tile_at = weights_at + j * inputs
        s0, s1, s2, s3 = matrix_tile(x, x_at, inputs, weights, tile_at, s0, s1, s2, s3)
        store(out, to, s0)
        store(out, to + 1, s1)
        store(out, to + 2, s2)
        store(out, to + 3, s3)


@njit(nogil=True)
def fill_row(out: Vectors, out_at: int, weights: Any, bias_at: int, count: int) -> None:
    """Set `out` to biases."""
    for i in range(count):
        store(out, out_at + i, splat(weights, bias_at + i))


@njit(nogil=True)
def clear(out: Vectors, out_at: int, count: int) -> None:
    """Set `out` to 0."""
    for i in range(count):
        store(out, out_at + i, zero())


@njit(nogil=True)
def add_scaled(out: Vectors, out_at: int, x: Vectors, x_at: int, share: Any, count: int) -> None:
    """Add `x` times `share`, one number for all."""
    factor = fill(share)
    for i in range(count):
        store(out, out_at + i, fma(load(x, x_at + i), factor, load(out, out_at + i)))


@njit(nogil=True)
def expand_pixel(
    normed: Vectors, at: int, hidden: Vectors, hidden_at: int, weights: Any, block: Any, tower: Any,
    share: Any,
) -> None:
    """Inner features of a pixel; `share` of them goes to `hidden`."""
    factor = fill(share)
    for j in range(0, tower.inner, 4):
        b = block.expand_bias + j
        u0, u1, u2, u3 = matrix_tile(
            normed, at, tower.filled, weights, block.expand + j * tower.filled,
            splat(weights, b), splat(weights, b + 1), splat(weights, b + 2), splat(weights, b + 3),
        )
        to = hidden_at + j
        store(hidden, to, fma(gelu(u0), factor, load(hidden, to)))
        store(hidden, to + 1, fma(gelu(u1), factor, load(hidden, to + 1)))
        store(hidden, to + 2, fma(gelu(u2), factor, load(hidden, to + 2)))
        store(hidden, to + 3, fma(gelu(u3), factor, load(hidden, to + 3)))


@njit(nogil=True)
def expand_pixel_and_slopes(
    normed: Vectors, at: int, hidden: Vectors, hidden_at: int, weights: Any, block: Any, tower: Any,
    share: Any, slopes: Vectors, slopes_at: int,
) -> None:
    """Like :func:`expand_pixel`; the slopes of GELU are kept for the backward."""
    factor = fill(share)
    for j in range(0, tower.inner, 4):
        b = block.expand_bias + j
        u0, u1, u2, u3 = matrix_tile(
            normed, at, tower.filled, weights, block.expand + j * tower.filled,
            splat(weights, b), splat(weights, b + 1), splat(weights, b + 2), splat(weights, b + 3),
        )
        to, slope_to = hidden_at + j, slopes_at + j
        value, slope = gelu_and_slope(u0)
        store(hidden, to, fma(value, factor, load(hidden, to)))
        store(slopes, slope_to, slope)
        value, slope = gelu_and_slope(u1)
        store(hidden, to + 1, fma(value, factor, load(hidden, to + 1)))
        store(slopes, slope_to + 1, slope)
        value, slope = gelu_and_slope(u2)
        store(hidden, to + 2, fma(value, factor, load(hidden, to + 2)))
        store(slopes, slope_to + 2, slope)
        value, slope = gelu_and_slope(u3)
        store(hidden, to + 3, fma(value, factor, load(hidden, to + 3)))
        store(slopes, slope_to + 3, slope)


@njit(nogil=True)
def scale_by(out: Vectors, out_at: int, x: Vectors, x_at: int, share: Any, count: int) -> None:
    """Multiply `out` by `x` and by `share`, one number for all."""
    factor = fill(share)
    for i in range(count):
        store(
            out, out_at + i, multiply(load(out, out_at + i), multiply(load(x, x_at + i), factor))
        )


@njit(nogil=True)
def sum_rows(sums: Vectors, sums_at: int, d: Vectors, d_at: int, width: int, count: int) -> None:
    """Add the gradients of biases: the sum of `d` over `count` pixels."""
    for i in range(width):
        total = load(sums, sums_at + i)
        for p in range(count):
            total = add(total, load(d, d_at + p * width + i))
        store(sums, sums_at + i, total)


@njit(nogil=True)
def outer_rows(
    sums: Vectors,
    sums_at: int,
    d: Vectors,
    d_at: int,
    outputs: int,
    x: Vectors,
    x_at: int,
    inputs: int,
    count: int,
) -> None:
    """Add the gradient of a linear layer: products of `d` and `x`, summed over `count` pixels."""
    for j in range(0, outputs, 2):
        for i in range(0, inputs, 2):
            to = sums_at + j * inputs + i
            s00, s01 = load(sums, to), load(sums, to + 1)
            s10, s11 = load(sums, to + inputs), load(sums, to + inputs + 1)
            d_from, x_from = d_at + j, x_at + i
            for _ in range(count):
                d0, d1 = load(d, d_from), load(d, d_from + 1)
                x0, x1 = load(x, x_from), load(x, x_from + 1)
                s00 = fma(d0, x0, s00)
                s01 = fma(d0, x1, s01)
                s10 = fma(d1, x0, s10)
                s11 = fma(d1, x1, s11)
                d_from += outputs
                x_from += inputs
            store(sums, to, s00)
            store(sums, to + 1, s01)
            store(sums, to + inputs, s10)
            store(sums, to + inputs + 1, s11)
