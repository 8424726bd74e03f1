"""Filters of the fused towers: rows of pixels, sixteen views side by side in the lanes.

Maps and arguments as in `fused_kernels`.
"""

from __future__ import annotations

from typing import Any

from maskless.encoder.fused_vector import compiled, fma, load, splat, store

Vectors = Any  # float32 arrays of vectors
Sizes = Any  # constants when the kernels are compiled for an architecture, else whole numbers


@compiled
def convolve_row(
    out: Vectors,
    out_at: int,
    count: int,
    features: Sizes,
    x: Vectors,
    x_at: int,
    row_step: int,
    pixel_step: int,
    filters: Sizes,
    weights: Any,
    weights_at: int,
    bias_at: int,
) -> None:
    """Convolve one row, one filter a feature; added to what is in `out` if `bias_at` is negative.

    `x` has `pixel_step` vectors from one output pixel to the next, and the filters tell how many
    there are from tap to tap and from feature to feature.
    """
    width, edge = features.number, filters.edge
    tap_step, feature_step = filters.tap, filters.feature
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


@compiled
def correlate_row(
    sums: Vectors,
    sums_at: int,
    x: Vectors,
    x_at: int,
    row_step: int,
    pixel_step: int,
    filters: Sizes,
    d: Vectors,
    d_at: int,
    count: int,
    features: Sizes,
) -> None:
    """Add the gradient of the filters of :func:`convolve_row`, `d` being that of its outputs."""
    width, edge = features.number, filters.edge
    tap_step, feature_step = filters.tap, filters.feature
    for i in range(width):
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
