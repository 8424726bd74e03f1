"""The arithmetic of the fused towers: rows of pixels, sixteen views side by side in the lanes.

All maps are arrays of vectors (see `fused_vector`): the features of a pixel lie side by side, then
come the next pixels. Arguments named ``..._at`` count vectors in arrays of vectors and single
numbers in arrays of weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from maskless.encoder.fused_vector import (
    add,
    compiled,
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
Sizes = Any  # constants when the kernels are compiled for an architecture, else whole numbers


@compiled
def normalise_row(
    h: Vectors,
    out: Vectors,
    out_at: int,
    root: Vectors,
    root_at: int,
    count: int,
    features: Sizes,
) -> None:
    """LayerNorm over the features of each pixel of a row; 1 / sigma goes to `root`."""
    share = fill(np.float32(1) / np.float32(features.true))
    epsilon = fill(_EPSILON)
    for p in range(count):
        at = p * features.number
        to = out_at + at
        mean = load(h, at)
        for i in range(1, features.true):
            mean = add(mean, load(h, at + i))
        mean = multiply(mean, share)
        squares = zero()
        for i in range(features.true):
            value = subtract(load(h, at + i), mean)
            squares = fma(value, value, squares)
        inverse = reciprocal_root(fma(squares, share, epsilon))
        store(root, root_at + p, inverse)
        for i in range(features.true):
            store(out, to + i, multiply(subtract(load(h, at + i), mean), inverse))
        for i in range(features.true, features.number):
            store(out, to + i, zero())


@compiled
def normalise_row_back(
    d: Vectors,
    out: Vectors,
    out_at: int,
    normed: Vectors,
    normed_at: int,
    root: Vectors,
    root_at: int,
    count: int,
    features: Sizes,
) -> None:
    """Gradient of the inputs of :func:`normalise_row` from that of its outputs, `d`."""
    share = fill(np.float32(-1) / np.float32(features.true))
    for p in range(count):
        at = p * features.number
        to = out_at + at
        mean, along = zero(), zero()
        for i in range(features.true):
            value = load(d, at + i)
            mean = add(mean, value)
            along = fma(value, load(normed, normed_at + at + i), along)
        mean, along = multiply(mean, share), multiply(along, share)
        inverse = load(root, root_at + p)
        for i in range(features.true):
            value = add(load(d, at + i), mean)
            value = fma(along, load(normed, normed_at + at + i), value)
            store(out, to + i, multiply(value, inverse))
        for i in range(features.true, features.number):
            store(out, to + i, zero())


@compiled
def matrix_tile(
    x: Vectors,
    x_at: int,
    inputs: Sizes,
    weights: Any,
    tile_at: int,
    s0: Any,
    s1: Any,
    s2: Any,
    s3: Any,
) -> Any:
    """Four outputs of a linear layer, added to s0 .. s3."""
    for i in range(inputs.number):
        value = load(x, x_at + i)
        s0 = fma(value, splat(weights, tile_at), s0)
        s1 = fma(value, splat(weights, tile_at + 1), s1)
        s2 = fma(value, splat(weights, tile_at + 2), s2)
        s3 = fma(value, splat(weights, tile_at + 3), s3)
        tile_at += 4
    return s0, s1, s2, s3


@compiled
def multiply_add(
    out: Vectors,
    out_at: int,
    outputs: Sizes,
    x: Vectors,
    x_at: int,
    inputs: Sizes,
    weights: Any,
    weights_at: int,
) -> None:
    """Add a linear layer's result to `out`."""
    for j in range(0, outputs.number, 4):
        to = out_at + j
        s0, s1, s2, s3 = load(out, to), load(out, to + 1), load(out, to + 2), load(out, to + 3)
        tile_at = weights_at + j * inputs.number
        s0, s1, s2, s3 = matrix_tile(x, x_at, inputs, weights, tile_at, s0, s1, s2, s3)
        store(out, to, s0)
        store(out, to + 1, s1)
        store(out, to + 2, s2)
        store(out, to + 3, s3)


@compiled
def fill_row(out: Vectors, out_at: int, weights: Any, bias_at: int, features: Sizes) -> None:
    """Set `out` to biases."""
    for i in range(features.number):
        store(out, out_at + i, splat(weights, bias_at + i))


@compiled
def clear(out: Vectors, out_at: int, count: int) -> None:
    """Set `out` to 0."""
    for i in range(count):
        store(out, out_at + i, zero())


@compiled
def add_scaled(
    out: Vectors, out_at: int, x: Vectors, x_at: int, share: Any, features: Sizes
) -> None:
    """Add `x` times `share`, one number for all."""
    factor = fill(share)
    for i in range(features.number):
        store(out, out_at + i, fma(load(x, x_at + i), factor, load(out, out_at + i)))


@compiled
def _add_gelu(x: Any, out: Vectors, out_at: int, factor: Any) -> None:
    store(out, out_at, fma(gelu(x), factor, load(out, out_at)))


@compiled
def _add_gelu_and_slope(
    x: Any, out: Vectors, out_at: int, factor: Any, slopes: Vectors, slope_at: int
) -> None:
    value, slope = gelu_and_slope(x)
    store(out, out_at, fma(value, factor, load(out, out_at)))
    store(slopes, slope_at, slope)


@compiled
def expand_pixel(
    normed: Vectors,
    at: int,
    hidden: Vectors,
    hidden_at: int,
    weights: Any,
    block: Any,
    sizes: Sizes,
    share: Any,
) -> None:
    """Inner features of a pixel; `share` of them goes to `hidden`."""
    factor = fill(share)
    for j in range(0, sizes.inner.number, 4):
        b = block.expand_bias + j
        u0, u1, u2, u3 = matrix_tile(
            normed,
            at,
            sizes.features,
            weights,
            block.expand + j * sizes.features.number,
            splat(weights, b),
            splat(weights, b + 1),
            splat(weights, b + 2),
            splat(weights, b + 3),
        )
        to = hidden_at + j
        _add_gelu(u0, hidden, to, factor)
        _add_gelu(u1, hidden, to + 1, factor)
        _add_gelu(u2, hidden, to + 2, factor)
        _add_gelu(u3, hidden, to + 3, factor)


@compiled
def expand_pixel_and_slopes(
    normed: Vectors,
    at: int,
    hidden: Vectors,
    hidden_at: int,
    weights: Any,
    block: Any,
    sizes: Sizes,
    share: Any,
    slopes: Vectors,
    slopes_at: int,
) -> None:
    """Like :func:`expand_pixel`; the slopes of GELU are kept for the backward."""
    factor = fill(share)
    for j in range(0, sizes.inner.number, 4):
        b = block.expand_bias + j
        u0, u1, u2, u3 = matrix_tile(
            normed,
            at,
            sizes.features,
            weights,
            block.expand + j * sizes.features.number,
            splat(weights, b),
            splat(weights, b + 1),
            splat(weights, b + 2),
            splat(weights, b + 3),
        )
        to, slope_to = hidden_at + j, slopes_at + j
        _add_gelu_and_slope(u0, hidden, to, factor, slopes, slope_to)
        _add_gelu_and_slope(u1, hidden, to + 1, factor, slopes, slope_to + 1)
        _add_gelu_and_slope(u2, hidden, to + 2, factor, slopes, slope_to + 2)
        _add_gelu_and_slope(u3, hidden, to + 3, factor, slopes, slope_to + 3)


@compiled
def scale_by(out: Vectors, out_at: int, x: Vectors, x_at: int, share: Any, features: Sizes) -> None:
    """Multiply `out` by `x` and by `share`, one number for all."""
    factor = fill(share)
    for i in range(features.number):
        store(out, out_at + i, multiply(load(out, out_at + i), multiply(load(x, x_at + i), factor)))


@compiled
def sum_rows(
    sums: Vectors, sums_at: int, d: Vectors, d_at: int, features: Sizes, count: int
) -> None:
    """Add the gradients of biases: the sum of `d` over `count` pixels."""
    width = features.number
    for i in range(0, width, 4):
        to = sums_at + i
        s0, s1, s2, s3 = load(sums, to), load(sums, to + 1), load(sums, to + 2), load(sums, to + 3)
        at = d_at + i
        for _ in range(count):
            s0, s1 = add(s0, load(d, at)), add(s1, load(d, at + 1))
            s2, s3 = add(s2, load(d, at + 2)), add(s3, load(d, at + 3))
            at += width
        store(sums, to, s0)
        store(sums, to + 1, s1)
        store(sums, to + 2, s2)
        store(sums, to + 3, s3)


@compiled
def outer_rows(
    sums: Vectors,
    sums_at: int,
    d: Vectors,
    d_at: int,
    outputs: Sizes,
    x: Vectors,
    x_at: int,
    inputs: Sizes,
    count: int,
) -> None:
    """Add the gradient of a linear layer: products of `d` and `x`, summed over `count` pixels."""
    rows, columns = outputs.number, inputs.number
    for j in range(0, rows, 2):
        for i in range(0, columns, 2):
            to = sums_at + j * columns + i
            s00, s01 = load(sums, to), load(sums, to + 1)
            s10, s11 = load(sums, to + columns), load(sums, to + columns + 1)
            d_from, x_from = d_at + j, x_at + i
            for _ in range(count):
                d0, d1 = load(d, d_from), load(d, d_from + 1)
                x0, x1 = load(x, x_from), load(x, x_from + 1)
                s00 = fma(d0, x0, s00)
                s01 = fma(d0, x1, s01)
                s10 = fma(d1, x0, s10)
                s11 = fma(d1, x1, s11)
                d_from += rows
                x_from += columns
            store(sums, to, s00)
            store(sums, to + 1, s01)
            store(sums, to + columns, s10)
            store(sums, to + columns + 1, s11)
