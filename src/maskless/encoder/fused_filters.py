"""Filters of the fused towers: rows of pixels, a view a lane.

Maps and arguments as in `fused_kernels`.
"""

from __future__ import annotations

from typing import Any

from maskless.encoder.fused_vector import (
    compiled,
    inlined,
    load_tile,
    products,
    splat_tile,
    store_tile,
    window_products,
)

Vectors = Any  # float32 arrays of vectors
Sizes = Any  # constants when the kernels are compiled for an architecture, else whole numbers


def _convolver(pixels: int) -> Any:
    @inlined
    def convolve(
        out: Vectors,
        to: int,
        features: Sizes,
        x: Vectors,
        at: int,
        row_step: int,
        filters: Sizes,
        weights: Any,
        weights_at: int,
        bias_at: int,
    ) -> None:
        width, edge = features.number, filters.edge
        for i in range(width):
            if bias_at < 0:
                tile = load_tile(out, to + i, width, 1, pixels)
            else:
                tile = splat_tile(weights, bias_at + i, 1, pixels)
            tap = weights_at + i * edge * edge
            row = at + i * filters.feature
            for ky in range(edge):
                for kx in range(edge):
                    tap_at = row + ky * row_step + kx * filters.tap
                    tile = products(
                        tile, x, tap_at, filters.pixel, weights, tap + ky * edge + kx, 1
                    )
            store_tile(out, to + i, width, 1, tile)

    return convolve


_convolve_8, _convolve_4, _convolve_2, _convolve_1 = (_convolver(n) for n in (8, 4, 2, 1))


@compiled
def convolve_row(
    out: Vectors,
    to: int,
    count: int,
    features: Sizes,
    x: Vectors,
    at: int,
    row_step: int,
    filters: Sizes,
    weights: Any,
    weights_at: int,
    bias_at: int,
) -> None:
    """Convolve one row, one filter a feature; added to what is in `out` if `bias_at` is negative.

    The filters tell how many vectors there are in `x` from one output pixel to the next, from tap
    to tap and from feature to feature.
    """
    width = features.number
    p = 0
    while p + 8 <= count:
        _convolve_8(
            out, to + p * width, features, x, at + p * filters.pixel,
            row_step, filters, weights, weights_at, bias_at,
        )  # fmt: skip
        p += 8
    if p + 4 <= count:
        _convolve_4(
            out, to + p * width, features, x, at + p * filters.pixel,
            row_step, filters, weights, weights_at, bias_at,
        )  # fmt: skip
        p += 4
    if p + 2 <= count:
        _convolve_2(
            out, to + p * width, features, x, at + p * filters.pixel,
            row_step, filters, weights, weights_at, bias_at,
        )  # fmt: skip
        p += 2
    if p < count:
        _convolve_1(
            out, to + p * width, features, x, at + p * filters.pixel,
            row_step, filters, weights, weights_at, bias_at,
        )  # fmt: skip


def _correlator(rows: int, columns: int) -> Any:
    @inlined
    def correlate(
        sums: Vectors,
        to: int,
        x: Vectors,
        at: int,
        row_step: int,
        filters: Sizes,
        d: Vectors,
        d_at: int,
        features: Sizes,
        count: int,
    ) -> None:
        tile = load_tile(sums, to, filters.edge, columns, rows)
        for p in range(count):
            tap, slope = at + p * filters.pixel, d_at + p * features.number
            tile = window_products(tile, x, tap, row_step, filters.tap, d, slope, columns)
        store_tile(sums, to, filters.edge, columns, tile)

    return correlate


_correlate_33, _correlate_31 = _correlator(3, 3), _correlator(3, 1)
_correlate_13, _correlate_11 = _correlator(1, 3), _correlator(1, 1)


@compiled
def correlate_row(
    sums: Vectors,
    sums_at: int,
    x: Vectors,
    x_at: int,
    row_step: int,
    filters: Sizes,
    d: Vectors,
    d_at: int,
    count: int,
    features: Sizes,
) -> None:
    """Add the gradient of the filters of :func:`convolve_row`, `d` being that of its outputs."""
    edge, tap = filters.edge, filters.tap
    threes = edge // 3 * 3
    for i in range(features.number):
        d_from = d_at + i
        for ky in range(0, threes, 3):
            to = sums_at + (i * edge + ky) * edge
            at = x_at + i * filters.feature + ky * row_step
            for kx in range(0, threes, 3):
                tap_at = at + kx * tap
                _correlate_33(
                    sums, to + kx, x, tap_at, row_step, filters, d, d_from, features, count
                )
            for kx in range(threes, edge):
                tap_at = at + kx * tap
                _correlate_31(
                    sums, to + kx, x, tap_at, row_step, filters, d, d_from, features, count
                )
        for ky in range(threes, edge):
            to = sums_at + (i * edge + ky) * edge
            at = x_at + i * filters.feature + ky * row_step
            for kx in range(0, threes, 3):
                tap_at = at + kx * tap
                _correlate_13(
                    sums, to + kx, x, tap_at, row_step, filters, d, d_from, features, count
                )
            for kx in range(threes, edge):
                tap_at = at + kx * tap
                _correlate_11(
                    sums, to + kx, x, tap_at, row_step, filters, d, d_from, features, count
                )
