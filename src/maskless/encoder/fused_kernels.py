"""The arithmetic of the fused towers, over runs of pixels: linear layers, norms, sums.

All maps are arrays of vectors (see `fused_vector`), a view a lane: the features of a pixel lie side
by side, then come the next pixels. Arguments named ``..._at`` count vectors in arrays of vectors
and single numbers in arrays of weights. Functions with a leading underscore are made for a fixed
number of pixels at a time, so that their sums fill the registers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from maskless.encoder.fused_gelu import gelu, gelu_and_slope
from maskless.encoder.fused_vector import (
    add,
    add_scaled,
    compiled,
    fill_tile,
    fma,
    inlined,
    load_tile,
    multiply,
    outer_products,
    products,
    reciprocal_root,
    splat_tile,
    store_tile,
    subtract,
)

_EPSILON = np.float32(1e-5)
_RUN = 32  # pixels whose gradients stay in the first cache while matrices are summed

Vectors = Any  # float32 arrays of vectors
Sizes = Any  # constants when the kernels are compiled for an architecture, else whole numbers


def _normaliser(pixels: int) -> Any:
    @inlined
    def normalise(
        h: Vectors,
        at: int,
        out: Vectors,
        to: int,
        root: Vectors,
        root_at: int,
        features: Sizes,
    ) -> None:
        step, true = features.number, features.true
        share = fill_tile(np.float32(1) / np.float32(true), pixels)
        mean = load_tile(h, at, step, 1, pixels)
        for i in range(1, true):
            mean = add(mean, load_tile(h, at + i, step, 1, pixels))
        mean = multiply(mean, share)
        squares = fill_tile(np.float32(0), pixels)
        for i in range(true):
            value = subtract(load_tile(h, at + i, step, 1, pixels), mean)
            squares = fma(value, value, squares)
        inverse = reciprocal_root(fma(squares, share, fill_tile(_EPSILON, pixels)))
        store_tile(root, root_at, 1, 1, inverse)
        for i in range(true):
            value = subtract(load_tile(h, at + i, step, 1, pixels), mean)
            store_tile(out, to + i, step, 1, multiply(value, inverse))
        for i in range(true, step):
            store_tile(out, to + i, step, 1, fill_tile(np.float32(0), pixels))

    return normalise


_normalise_2, _normalise_1 = _normaliser(2), _normaliser(1)


@compiled
def normalise(
    h: Vectors,
    at: int,
    out: Vectors,
    to: int,
    root: Vectors,
    root_at: int,
    count: int,
    features: Sizes,
) -> None:
    """LayerNorm over the features of each of `count` pixels; 1 / sigma goes to `root`."""
    width = features.number
    p = 0
    while p + 2 <= count:
        _normalise_2(h, at + p * width, out, to + p * width, root, root_at + p, features)
        p += 2
    if p < count:
        _normalise_1(h, at + p * width, out, to + p * width, root, root_at + p, features)


def _normaliser_back(pixels: int) -> Any:
    @inlined
    def normalise_back(
        d: Vectors,
        at: int,
        out: Vectors,
        to: int,
        normed: Vectors,
        normed_at: int,
        root: Vectors,
        root_at: int,
        features: Sizes,
    ) -> None:
        step, true = features.number, features.true
        share = fill_tile(np.float32(-1) / np.float32(true), pixels)
        mean = fill_tile(np.float32(0), pixels)
        along = mean
        for i in range(true):
            value = load_tile(d, at + i, step, 1, pixels)
            mean = add(mean, value)
            along = fma(value, load_tile(normed, normed_at + i, step, 1, pixels), along)
        mean, along = multiply(mean, share), multiply(along, share)
        inverse = load_tile(root, root_at, 1, 1, pixels)
        for i in range(true):
            value = add(load_tile(d, at + i, step, 1, pixels), mean)
            value = fma(along, load_tile(normed, normed_at + i, step, 1, pixels), value)
            store_tile(out, to + i, step, 1, multiply(value, inverse))
        for i in range(true, step):
            store_tile(out, to + i, step, 1, fill_tile(np.float32(0), pixels))

    return normalise_back


_normalise_back_2, _normalise_back_1 = _normaliser_back(2), _normaliser_back(1)


@compiled
def normalise_back(
    d: Vectors,
    at: int,
    out: Vectors,
    to: int,
    normed: Vectors,
    normed_at: int,
    root: Vectors,
    root_at: int,
    count: int,
    features: Sizes,
) -> None:
    """Gradient of the inputs of :func:`normalise` from that of its outputs, `d`."""
    width = features.number
    p = 0
    while p + 2 <= count:
        i = p * width
        _normalise_back_2(
            d, at + i, out, to + i, normed, normed_at + i, root, root_at + p, features
        )
        p += 2
    if p < count:
        i = p * width
        _normalise_back_1(
            d, at + i, out, to + i, normed, normed_at + i, root, root_at + p, features
        )


def _linear_layer(pixels: int) -> Any:
    @inlined
    def linear(
        out: Vectors,
        to: int,
        outputs: Sizes,
        x: Vectors,
        at: int,
        inputs: Sizes,
        weights: Any,
        weights_at: int,
        bias_at: int,
    ) -> None:
        for j in range(0, outputs.number, 4):
            if bias_at < 0:
                tile = load_tile(out, to + j, outputs.number, 4, pixels)
            else:
                tile = splat_tile(weights, bias_at + j, 4, pixels)
            w_at = weights_at + j * inputs.number
            for i in range(inputs.number):
                tile = products(tile, x, at + i, inputs.number, weights, w_at + 4 * i, 4)
            store_tile(out, to + j, outputs.number, 4, tile)

    return linear


_linear_2, _linear_1 = _linear_layer(2), _linear_layer(1)


@compiled
def linear(
    out: Vectors,
    to: int,
    outputs: Sizes,
    x: Vectors,
    at: int,
    inputs: Sizes,
    weights: Any,
    weights_at: int,
    bias_at: int,
    count: int,
) -> None:
    """Give a linear layer of `count` pixels; added to what is in `out` if `bias_at` is negative."""
    n, m = outputs.number, inputs.number
    p = 0
    while p + 2 <= count:
        _linear_2(out, to + p * n, outputs, x, at + p * m, inputs, weights, weights_at, bias_at)
        p += 2
    if p < count:
        _linear_1(out, to + p * n, outputs, x, at + p * m, inputs, weights, weights_at, bias_at)


def _activator(keep: bool) -> Any:
    @compiled
    def activate(
        u: Vectors,
        at: int,
        hidden: Vectors,
        to: int,
        inner: Sizes,
        cell_of: Any,
        share_of: Any,
        pixel: int,
        count: int,
    ) -> None:
        for p in range(count):
            u_at, cell_at = at + p * inner.number, to + cell_of[pixel + p] * inner.number
            share = share_of[pixel + p]
            for j in range(0, inner.number, 4):
                tile = load_tile(u, u_at + j, 0, 4, 1)
                if keep:
                    tile, slope = gelu_and_slope(tile)
                    store_tile(u, u_at + j, 0, 4, slope)
                else:
                    tile = gelu(tile)
                add_scaled(hidden, cell_at + j, share, tile)

    return activate


# GELU of `count` pixels' inner features `u`, times their shares, is added to their cells' in
# `hidden`; the second writes its slopes over `u`.
activate, activate_and_keep = _activator(False), _activator(True)


@inlined
def clear(out: Vectors, to: int, count: int) -> None:
    """Set `count` vectors to 0."""
    for i in range(count):
        store_tile(out, to + i, 0, 1, fill_tile(np.float32(0), 1))


@inlined
def add_pixel(out: Vectors, to: int, x: Vectors, at: int, share: Any, features: Sizes) -> None:
    """Add the features of a pixel, times a number."""
    for i in range(0, features.number, 4):
        add_scaled(out, to + i, share, load_tile(x, at + i, 0, 4, 1))


@inlined
def set_pixel(out: Vectors, to: int, x: Vectors, at: int, share: Any, features: Sizes) -> None:
    """Set the features of a pixel to those of another, times a number."""
    factor = fill_tile(share, 4)
    for i in range(0, features.number, 4):
        store_tile(out, to + i, 0, 4, multiply(load_tile(x, at + i, 0, 4, 1), factor))


@inlined
def multiply_pixel(out: Vectors, to: int, x: Vectors, at: int, share: Any, features: Sizes) -> None:
    """Multiply the features of a pixel by those of another and by one number for all."""
    factor = fill_tile(share, 4)
    for i in range(0, features.number, 4):
        value = multiply(load_tile(x, at + i, 0, 4, 1), factor)
        store_tile(out, to + i, 0, 4, multiply(load_tile(out, to + i, 0, 4, 1), value))


@inlined
def add_biases(
    out: Vectors, to: int, x: Vectors, at: int, weights: Any, bias_at: int, features: Sizes
) -> None:
    """Set the features of a pixel to those of another and biases."""
    for i in range(0, features.number, 4):
        value = add(load_tile(x, at + i, 0, 4, 1), splat_tile(weights, bias_at + i, 4, 1))
        store_tile(out, to + i, 0, 4, value)


@compiled
def sum_pixels(sums: Vectors, to: int, d: Vectors, at: int, features: Sizes, count: int) -> None:
    """Add the gradients of biases: the sum of `d` over `count` pixels."""
    width = features.number
    for i in range(0, width, 4):
        tile = load_tile(sums, to + i, 0, 4, 1)
        for p in range(count):
            tile = add(tile, load_tile(d, at + i + p * width, 0, 4, 1))
        store_tile(sums, to + i, 0, 4, tile)


@compiled
def outer_pixels(
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
    for first in range(0, count, _RUN):
        pixels = min(_RUN, count - first)
        for j in range(0, rows, 4):
            for i in range(0, columns, 2):
                to = sums_at + j * columns + i
                tile = load_tile(sums, to, columns, 2, 4)
                for p in range(first, first + pixels):
                    x_from, d_from = x_at + p * columns + i, d_at + p * rows + j
                    tile = outer_products(tile, x, x_from, d, d_from, 2)
                store_tile(sums, to, columns, 2, tile)
