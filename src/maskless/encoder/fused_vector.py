"""Tiles of vectors in Numba: blocks of registers, each a vector of float32 numbers, one a lane.

LLVM turns an operation on a vector into one AVX-512 instruction, one of AVX2 (a vector has 8 lanes
where there is no AVX-512), or two of SSE or NEON. A *tile* is a tuple of vectors; its sums stay in
registers, and nothing hangs on a heuristic of the compiler. Arrays are not checked for bounds.

Arguments named `at` count whole vectors: vector v of a float32 array is elements LANES v and on.
`outputs` and numbers of pixels are written out or constants, known when the code is compiled;
element ``o * pixels + p`` of a tile is output (feature) o of pixel p.
"""

# mypy: disable-error-code="no-untyped-call,unused-ignore,override"

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba import config, extending, njit, types
from numba.core import cgutils
from numba.extending import models, register_model


def _lanes() -> int:
    """Numbers in the widest vector of the processor that Numba compiles for, but 8 at least."""
    features = config.CPU_FEATURES  # type: ignore[attr-defined]
    if features is None and config.CPU_NAME is None:  # type: ignore[attr-defined]
        features = binding.get_host_cpu_features().flatten()
    return 16 if "+avx512f" in (features or "") else 8


LANES = _lanes()

intrinsic: Any = extending.intrinsic(prefer_literal=True)
_options: Any = {"nogil": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
compiled: Any = njit(**_options)
inlined: Any = njit(forceinline=True, **_options)
compiled_and_cached: Any = njit(nogil=True, cache=True)

FLOAT = ir.FloatType()
LLVM_VECTOR = ir.VectorType(FLOAT, LANES)


class VectorType(types.Type):  # type: ignore[misc]
    """Numba's type of a vector; lives inside compiled functions only."""

    def __init__(self) -> None:
        super().__init__(name=f"Float32x{LANES}")


VECTOR = VectorType()


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, numba_type: VectorType) -> None:
        super().__init__(manager, numba_type, LLVM_VECTOR)


class Builder:
    """Writes the code of one intrinsic: LLVM's builder with a few words about vectors."""

    def __init__(self, context: Any, builder: Any, signature: Any) -> None:
        self.context, self.llvm, self.signature = context, builder, signature

    def unpack(self, tile: Any, count: int) -> list[Any]:
        """Vectors of a tile."""
        return [self.llvm.extract_value(tile, i) for i in range(count)]

    def pack(self, vectors: Iterable[Any]) -> Any:
        """The tile of some vectors, as the intrinsic's result."""
        return self.context.make_tuple(self.llvm, self.signature.return_type, list(vectors))

    def place(self, argument: int, array: Any, at: Any, lanes: int = LANES) -> Any:
        """Pointer to float32 number ``lanes * at`` of an array, an argument of the intrinsic."""
        kind = self.signature.args[argument]
        data = self.context.make_array(kind)(self.context, self.llvm, array).data
        return self.llvm.gep(data, [self.llvm.mul(at, self.number(lanes))])

    def load(self, argument: int, array: Any, at: Any) -> Any:
        """Vector `at` of an array."""
        place = self.llvm.bitcast(self.place(argument, array, at), LLVM_VECTOR.as_pointer())
        return self.llvm.load(place, align=4)

    def store(self, argument: int, array: Any, at: Any, vector: Any) -> None:
        """Write vector `at` of an array."""
        place = self.llvm.bitcast(self.place(argument, array, at), LLVM_VECTOR.as_pointer())
        self.llvm.store(vector, place, align=4)

    def splat(self, argument: int, array: Any, at: Any) -> Any:
        """Number `at` of an array in all lanes."""
        return self.fill(self.llvm.load(self.place(argument, array, at, lanes=1), align=4))

    def fill(self, number: Any) -> Any:
        """One number in all lanes."""
        nothing = ir.Constant(LLVM_VECTOR, ir.Undefined)
        one = self.llvm.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
        first = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return self.llvm.shuffle_vector(one, nothing, first)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """``a b + c``, rounded once where the processor can."""
        return self._function("fmuladd", a, b, c)

    def root(self, a: Any) -> Any:
        """Square root."""
        return self._function("sqrt", a)

    def _function(self, name: str, *values: Any) -> Any:
        kind = ir.FunctionType(LLVM_VECTOR, [LLVM_VECTOR] * len(values))
        name = f"llvm.{name}.v{LANES}f32"
        return self.llvm.call(
            cgutils.get_or_insert_function(self.llvm.module, kind, name), list(values)
        )

    def further(self, at: Any, steps: int, step: Any = None) -> Any:
        """``at + steps step``; a step is 1 if not given."""
        by = self.number(steps)
        return self.llvm.add(at, by if step is None else self.llvm.mul(step, by))

    @staticmethod
    def number(value: int) -> ir.Constant:
        """A whole number."""
        return ir.Constant(ir.IntType(64), value)

    @staticmethod
    def constant(value: float) -> ir.Constant:
        """A float32 constant in all lanes."""
        return ir.Constant(LLVM_VECTOR, [ir.Constant(FLOAT, float(np.float32(value)))] * LANES)


def tile_of(count: int) -> types.UniTuple:
    """The type of a tile of `count` vectors."""
    return types.UniTuple(VECTOR, count)


def code(write: Callable[..., Any]) -> Callable[..., Any]:
    """Code of an intrinsic from a function of a :class:`Builder` and the arguments' values."""

    def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        result = write(Builder(context, builder, signature), *values)
        return context.get_dummy_value() if result is None else result

    return make


@intrinsic
def load_tile(typing: Any, array: Any, at: Any, step: Any, outputs: Any, pixels: Any) -> Any:
    """Vectors ``at + o + p step`` of an array."""
    n, m = outputs.literal_value, pixels.literal_value

    @code
    def make(b: Builder, array: Any, at: Any, step: Any, *_: Any) -> Any:
        return b.pack(
            b.load(0, array, b.further(b.further(at, p, step), o))
            for o in range(n)
            for p in range(m)
        )

    return tile_of(n * m)(array, types.intp, types.intp, outputs, pixels), make


@intrinsic
def store_tile(typing: Any, array: Any, at: Any, step: Any, outputs: Any, tile: Any) -> Any:
    """Write the tile that :func:`load_tile` would load."""
    n, m = outputs.literal_value, tile.count // outputs.literal_value

    @code
    def make(b: Builder, array: Any, at: Any, step: Any, outputs: Any, tile: Any) -> None:
        vectors = b.unpack(tile, n * m)
        for p in range(m):
            for o in range(n):
                b.store(0, array, b.further(b.further(at, p, step), o), vectors[o * m + p])

    return types.void(array, types.intp, types.intp, outputs, tile), make


@intrinsic
def splat_tile(typing: Any, weights: Any, at: Any, outputs: Any, pixels: Any) -> Any:
    """Numbers ``at + o`` of an array, each in all lanes."""
    n, m = outputs.literal_value, pixels.literal_value

    @code
    def make(b: Builder, weights: Any, at: Any, *_: Any) -> Any:
        return b.pack(v for o in range(n) for v in [b.splat(0, weights, b.further(at, o))] * m)

    return tile_of(n * m)(weights, types.intp, outputs, pixels), make


@intrinsic
def fill_tile(typing: Any, value: Any, count: Any) -> Any:
    """One float32 number everywhere."""

    @code
    def make(b: Builder, value: Any, _: Any) -> Any:
        return b.pack([b.fill(value)] * count.literal_value)

    return tile_of(count.literal_value)(types.float32, count), make


def _elementwise(arguments: int, write: Callable[..., Any]) -> Any:
    """An operation on each vector of tiles of the same size."""

    def make_for(count: int) -> Callable[..., Any]:
        @code
        def make(b: Builder, *tiles: Any) -> Any:
            columns = zip(*(b.unpack(tile, count) for tile in tiles), strict=True)
            return b.pack(write(b, *vectors) for vectors in columns)

        return make

    if arguments == 1:

        def one(typing: Any, a: Any) -> Any:
            return a(a), make_for(a.count)

        return intrinsic(one)
    if arguments == 2:

        def two(typing: Any, a: Any, b: Any) -> Any:
            return a(a, b), make_for(a.count)

        return intrinsic(two)

    def three(typing: Any, a: Any, b: Any, c: Any) -> Any:
        return a(a, b, c), make_for(a.count)

    return intrinsic(three)


add = _elementwise(2, lambda b, x, y: b.llvm.fadd(x, y))
subtract = _elementwise(2, lambda b, x, y: b.llvm.fsub(x, y))
multiply = _elementwise(2, lambda b, x, y: b.llvm.fmul(x, y))
fma = _elementwise(3, lambda b, x, y, z: b.fma(x, y, z))
reciprocal_root = _elementwise(1, lambda b, x: b.llvm.fdiv(b.constant(1), b.root(x)))


@intrinsic
def products(
    typing: Any, tile: Any, x: Any, at: Any, step: Any, weights: Any, w_at: Any, outputs: Any
) -> Any:
    """Add products: vector ``at + p step`` of `x` times number ``w_at + o`` of `weights`."""
    n, m = outputs.literal_value, tile.count // outputs.literal_value

    @code
    def make(
        b: Builder, tile: Any, x: Any, at: Any, step: Any, weights: Any, w_at: Any, _: Any
    ) -> Any:
        sums = b.unpack(tile, n * m)
        inputs = [b.load(1, x, b.further(at, p, step)) for p in range(m)]
        for o in range(n):
            weight = b.splat(4, weights, b.further(w_at, o))
            for p in range(m):
                sums[o * m + p] = b.fma(inputs[p], weight, sums[o * m + p])
        return b.pack(sums)

    return tile(tile, x, types.intp, types.intp, weights, types.intp, outputs), make


@intrinsic
def outer_products(typing: Any, tile: Any, x: Any, at: Any, d: Any, d_at: Any, outputs: Any) -> Any:
    """Add products: vector ``at + o`` of `x` times vector ``d_at + p`` of `d`."""
    n, m = outputs.literal_value, tile.count // outputs.literal_value

    @code
    def make(b: Builder, tile: Any, x: Any, at: Any, d: Any, d_at: Any, _: Any) -> Any:
        sums = b.unpack(tile, n * m)
        inputs = [b.load(1, x, b.further(at, o)) for o in range(n)]
        for p in range(m):
            slope = b.load(3, d, b.further(d_at, p))
            for o in range(n):
                sums[o * m + p] = b.fma(slope, inputs[o], sums[o * m + p])
        return b.pack(sums)

    return tile(tile, x, types.intp, d, types.intp, outputs), make


@intrinsic
def window_products(
    typing: Any, tile: Any, x: Any, at: Any, row: Any, tap: Any, d: Any, d_at: Any, outputs: Any
) -> Any:
    """Add products: vectors ``at + o tap + p row`` of `x` times vector `d_at` of `d`."""
    n, m = outputs.literal_value, tile.count // outputs.literal_value

    @code
    def make(
        b: Builder, tile: Any, x: Any, at: Any, row: Any, tap: Any, d: Any, d_at: Any, _: Any
    ) -> Any:
        sums = b.unpack(tile, n * m)
        slope = b.load(5, d, d_at)
        for o in range(n):
            for p in range(m):
                vector = b.load(1, x, b.further(b.further(at, p, row), o, tap))
                sums[o * m + p] = b.fma(vector, slope, sums[o * m + p])
        return b.pack(sums)

    whole = types.intp
    return tile(tile, x, whole, whole, whole, d, whole, outputs), make


@intrinsic
def add_scaled(typing: Any, array: Any, at: Any, factor: Any, tile: Any) -> Any:
    """Add a tile, times a number, to the vectors of an array from `at` on."""

    @code
    def make(b: Builder, array: Any, at: Any, factor: Any, vectors: Any) -> None:
        scale = b.fill(factor)
        for o, vector in enumerate(b.unpack(vectors, tile.count)):
            to = b.further(at, o)
            b.store(0, array, to, b.fma(vector, scale, b.load(0, array, to)))

    return types.void(array, types.intp, types.float32, tile), make


@intrinsic
def transpose_four(typing: Any, array: Any, element: Any, step: Any, most: Any) -> Any:
    """A tile of four; lane i of each: four numbers from ``element + min(i, most) step`` on."""

    @code
    def make(b: Builder, array: Any, first: Any, apart: Any, last: Any) -> Any:
        four = ir.VectorType(FLOAT, 4)
        rows = []
        for lane in range(LANES):
            number = b.number(lane)
            number = b.llvm.select(b.llvm.icmp_signed("<", number, last), number, last)
            place = b.place(0, array, b.llvm.add(first, b.llvm.mul(number, apart)), lanes=1)
            rows.append(b.llvm.load(b.llvm.bitcast(place, four.as_pointer()), align=4))
        # Rows i, i + 4, .. side by side; then the usual transpose of 4 x 4 inside each quarter.
        wide = [_side_by_side(b.llvm, rows[i::4]) for i in range(4)]
        low = [_interleave(b.llvm, wide[i], wide[i + 2], 0) for i in (0, 1)]
        high = [_interleave(b.llvm, wide[i], wide[i + 2], 2) for i in (0, 1)]
        return b.pack(_interleave(b.llvm, x, y, at) for x, y in (low, high) for at in (0, 2))

    return tile_of(4)(array, types.intp, types.intp, types.intp), make


def _shuffle(builder: Any, a: Any, b: Any, order: Sequence[int]) -> Any:
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(order)), list(order))
    return builder.shuffle_vector(a, b, mask)


def _side_by_side(builder: Any, parts: Sequence[Any]) -> Any:
    while len(parts) > 1:
        size = parts[0].type.count
        parts = [
            _shuffle(builder, a, b, range(2 * size))
            for a, b in zip(parts[::2], parts[1::2], strict=True)
        ]
    return parts[0]


def _interleave(builder: Any, a: Any, b: Any, first: int) -> Any:
    """Of each four numbers: numbers `first` and ``first + 1`` of a and b, in turns."""
    order = [
        quarter + first + i + side * LANES
        for quarter in range(0, LANES, 4)
        for i in (0, 1)
        for side in (0, 1)
    ]
    return _shuffle(builder, a, b, order)


@intrinsic
def _address(typing: Any, array: Any) -> Any:
    @code
    def make(b: Builder, array: Any) -> Any:
        return b.llvm.ptrtoint(b.place(0, array, b.number(0)), ir.IntType(64))

    return types.int64(array), make


@compiled_and_cached
def vectors(count: int) -> Any:
    """Zeros, float32 ``(LANES count,)``, each vector in a cache line or a half of one."""
    whole = np.zeros(count * LANES + 16, np.float32)
    start = (-_address(whole) // 4) % 16
    return whole[start : start + count * LANES]
