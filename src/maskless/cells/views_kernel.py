"""The compiled gather of views (:mod:`maskless.cells.views` says what it computes).

Axes: V = views, C = markers, S = rows and columns of a view, P = its S x S pixels.

A tile is 8 pixels x 8 markers. Pixels are read in place, 8 markers of one pixel at a time, and the
tile is turned in registers, because a view has its markers one after another. LLVM makes the
processor's own vector instructions of it; loops over arrays it leaves half scalar. The last tile
along each edge is moved back so that it is whole: a few numbers are written twice, none beyond.
"""

# mypy: disable-error-code="no-untyped-call,unused-ignore"

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import extending, njit, types
from numba.core import cgutils
from numpy.typing import NDArray

from maskless.prefetch import prefetch

NOISE = 1 << 20
"""Length of the table of normal numbers, whose first numbers are repeated behind it."""

TILE = 8

_intrinsic: Any = extending.intrinsic
_FLOAT, _HALF_BITS = ir.FloatType(), ir.IntType(16)
_INT32, _INT64 = ir.IntType(32), ir.IntType(64)
# Exponent and mantissa of a half, moved to their places in a float32, are too small by 2**112:
# exact, denormal numbers too. The weights make up for it. Numba has no float16 on processors.
_HALF_SHIFT, _HALF_MASK, _HALF_SCALE = 13, -0x70002000, np.float32(2.0**112)


def _place(context: Any, builder: Any, array_type: Any, array: Any, element: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [element])


def _load(context: Any, builder: Any, array_type: Any, array: Any, element: Any, count: int) -> Any:
    """Numbers of an array in a vector of float32; halves come too small by ``_HALF_SCALE``."""
    place = _place(context, builder, array_type, array, element)
    floats = ir.VectorType(_FLOAT, count)
    if array_type.dtype != types.uint16:
        return builder.load(builder.bitcast(place, floats.as_pointer()), align=4)
    halves = ir.VectorType(_HALF_BITS, count)
    bits = builder.load(builder.bitcast(place, halves.as_pointer()), align=2)
    wide = builder.sext(bits, ir.VectorType(_INT32, count))
    moved = builder.shl(wide, ir.Constant(wide.type, [_HALF_SHIFT] * count))
    return builder.bitcast(
        builder.and_(moved, ir.Constant(wide.type, [_HALF_MASK] * count)), floats
    )


def _splat(builder: Any, number: Any, count: int) -> Any:
    nothing = ir.Constant(ir.VectorType(number.type, count), ir.Undefined)
    one = builder.insert_element(nothing, number, ir.Constant(_INT32, 0))
    return _shuffle(builder, one, nothing, [0] * count)


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    name = f"llvm.fmuladd.v{a.type.count}f32"
    kind = ir.FunctionType(a.type, [a.type] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])


def _shuffle(builder: Any, a: Any, b: Any, order: Sequence[int]) -> Any:
    mask = ir.Constant(ir.VectorType(_INT32, len(order)), list(order))
    return builder.shuffle_vector(a, b, mask)


def _turned(builder: Any, rows: list[Any]) -> list[Any]:
    """The transpose of 8 vectors of 8; one vector of 1 is its own."""
    # Three rounds, of partners 1, 2 and 4 rows apart; each order is one instruction of AVX.
    for apart, low, step in (
        (1, (0, 8, 1, 9, 4, 12, 5, 13), 2),
        (2, (0, 1, 8, 9, 4, 5, 12, 13), 2),
        (4, (0, 1, 2, 3, 8, 9, 10, 11), 4),
    ):
        if len(rows) == 1:
            break
        high = [lane + step for lane in low]
        mixed = list(rows)
        for i in range(len(rows)):
            if not i & apart:
                pair = rows[i], rows[i + apart]
                mixed[i] = _shuffle(builder, *pair, low)
                mixed[i + apart] = _shuffle(builder, *pair, high)
        rows = mixed
    # The first two rounds leave the numbers of rows 1 and 2 (5 and 6) in each other's place.
    return [rows[i] for i in (0, 2, 1, 3, 4, 6, 5, 7)] if len(rows) > 1 else rows


class _View(NamedTuple):
    """What the tiles of a view share; numbers of an array are counted from its start."""

    values: Any
    corner_p: Any  # number of the first marker of the upper left one of the four pixels
    right: Any  # numbers from a pixel to the next one
    below: Any
    weight_p4: Any  # of the four pixels, flat
    gain_c: Any
    noise: Any
    noise_start: Any
    noise_mask: Any
    sigma: Any
    views: Any
    start: Any  # number of the first pixel of this view
    n_pixels: Any


@_intrinsic(prefer_literal=True)
def _tile(typing: Any, size: Any, view: Any, pixel: Any, marker: Any) -> Any:
    """Write `size` pixels x `size` markers of a view. Nothing is checked for bounds."""
    count = size.literal_value
    kind = dict(zip(view.fields, view.types, strict=True))

    def make(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        _, packed, first_pixel, first_marker = given
        value = {
            name: builder.extract_value(packed, number) for number, name in enumerate(view.fields)
        }

        def whole(number: int) -> Any:
            return ir.Constant(_INT64, number)

        def place(name: str, element: Any) -> Any:
            return _place(context, builder, kind[name], value[name], element)

        def load(name: str, element: Any) -> Any:
            return _load(context, builder, kind[name], value[name], element, count)

        gain = load("gain_c", first_marker)
        rows = []
        for number in range(count):
            pixel = builder.add(first_pixel, whole(number))
            upper = builder.add(builder.load(place("corner_p", pixel)), first_marker)
            lower = builder.add(upper, value["below"])
            taps = [at for row in (upper, lower) for at in (row, builder.add(row, value["right"]))]
            total = ir.Constant(gain.type, [0.0] * count)
            for tap, at in enumerate(taps):
                weight = place("weight_p4", builder.add(builder.mul(pixel, whole(4)), whole(tap)))
                weights = _splat(builder, builder.load(weight), count)
                total = _multiply_add(builder, load("values", at), weights, total)
            rows.append(builder.fmul(total, gain))
        sigma = _splat(builder, value["sigma"], count)
        for number, column in enumerate(_turned(builder, rows)):
            plane = builder.mul(builder.add(first_marker, whole(number)), value["n_pixels"])
            at = builder.add(plane, first_pixel)
            drawn = builder.and_(builder.add(value["noise_start"], at), value["noise_mask"])
            noisy = _multiply_add(builder, sigma, load("noise", drawn), column)
            target = place("views", builder.add(value["start"], at))
            builder.store(noisy, builder.bitcast(target, noisy.type.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(size, view, types.int64, types.int64), make


@njit(nogil=True, cache=True)
def _find_pixels(  # type: ignore[no-untyped-def]
    position_2: NDArray[np.float64],
    matrix_22: NDArray[np.float64],
    size: int,
    offset: int,
    columns: int,
    n_markers: int,
    scale: np.float32,
    corner_p: NDArray[np.int64],
    weight_p4: NDArray[np.float32],
):
    """Find the four pixels of the atlas around each pixel of a view, and weigh them."""
    half, one = (size - 1) / 2, np.float32(1)
    for i in range(size):
        for j in range(size):
            y = position_2[0] + (matrix_22[0, 0] * (i - half) + matrix_22[0, 1] * (j - half))
            x = position_2[1] + (matrix_22[1, 0] * (i - half) + matrix_22[1, 1] * (j - half))
            top, left = floor(y), floor(x)
            down, right = np.float32(y - top), np.float32(x - left)
            pixel = i * size + j
            # Whole numbers of 64 bits: a large atlas has more values than float32 can count.
            corner_p[pixel] = offset + (top * columns + left) * n_markers
            upper, lower = scale * (one - down), scale * down
            weight_p4[4 * pixel] = upper * (one - right)
            weight_p4[4 * pixel + 1] = upper * right
            weight_p4[4 * pixel + 2] = lower * (one - right)
            weight_p4[4 * pixel + 3] = lower * right


@njit(nogil=True, cache=True)
def _write_tiles(  # type: ignore[no-untyped-def]
    view: _View, n_markers: int, next_corner_p: NDArray[np.int64], next_below: int
):
    """Write a view; meanwhile the pixels of the next one come from memory, a few a tile."""
    n_pixels = view.n_pixels
    line = 64 // view.values.itemsize
    n_tiles = -(-n_markers // TILE) * -(-n_pixels // TILE)
    share, asked = -(-n_pixels // n_tiles), 0
    # Marker after marker, and not pixel after pixel: views are written and noise is read in their
    # order in memory, while the pixels stay in the processor's cache.
    for marker in range(0, n_markers, TILE):
        for pixel in range(0, n_pixels, TILE):
            for corner in next_corner_p[asked : asked + share]:
                for number in range(corner, corner + n_markers, line):
                    prefetch(view.values, number)
                    prefetch(view.values, number + next_below)
            asked += share
            _tile(TILE, view, min(pixel, n_pixels - TILE), min(marker, n_markers - TILE))


@njit(nogil=True, cache=True)
def write_views(  # type: ignore[no-untyped-def]
    values: NDArray[Any],
    offset_v: NDArray[np.int64],
    columns_v: NDArray[np.int64],
    position_v2: NDArray[np.float64],
    matrices_v22: NDArray[np.float64],
    gain_vc: NDArray[np.float32],
    sigma_v: NDArray[np.float32],
    start_v: NDArray[np.int64],
    noise: NDArray[np.float32],
    size: int,
    views: NDArray[np.float32],
):
    """Write views of `size` pixels into a flat array (V x C x P); nothing is checked for bounds.

    `values` are float32, or halves as uint16; `offset_v` and `columns_v` say where the block of
    each view's image starts among them and how wide it is.
    """
    n_views, n_markers = gain_vc.shape
    n_pixels = size * size
    corner_p, next_corner_p = np.empty(n_pixels, np.int64), np.empty(n_pixels, np.int64)
    weight_p4 = np.empty(4 * n_pixels, np.float32)
    next_weight_p4 = np.empty(4 * n_pixels, np.float32)
    scale = _HALF_SCALE if values.itemsize == 2 else np.float32(1)
    for coming in range(n_views + 1):
        if coming < n_views:
            _find_pixels(
                position_v2[coming], matrices_v22[coming], size, offset_v[coming],
                columns_v[coming], n_markers, scale, next_corner_p, next_weight_p4,
            )  # fmt: skip
        v = coming - 1
        if v >= 0:
            view = _View(
                values, corner_p, n_markers, n_markers * columns_v[v], weight_p4, gain_vc[v],
                # Without noise the same few numbers are read and counted 0 times.
                noise, start_v[v], NOISE - 1 if sigma_v[v] > 0 else 0, sigma_v[v],
                views, v * n_markers * n_pixels, n_pixels,
            )  # fmt: skip
            if n_markers >= TILE and n_pixels >= TILE:
                next_below = n_markers * columns_v[min(coming, n_views - 1)]
                _write_tiles(view, n_markers, next_corner_p, next_below)
            else:
                for marker in range(n_markers):
                    for pixel in range(n_pixels):
                        _tile(1, view, pixel, marker)
        corner_p, next_corner_p = next_corner_p, corner_p
        weight_p4, next_weight_p4 = next_weight_p4, weight_p4
