"""Sixteen float32 numbers that Numba holds in vector registers, and what can be done with them.

LLVM turns each operation into one AVX-512 instruction, two of AVX2, or four of SSE or NEON, for the
processor that the code is compiled on. Unlike loops over arrays, the sums stay in registers and
nothing hangs on a heuristic of the compiler. Arrays are not checked for bounds.

`vector` arguments count whole vectors: vector v of a float32 array is elements 16 v .. 16 v + 15.
"""

# mypy: disable-error-code="no-untyped-call,unused-ignore,override"

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import extending, njit, types
from numba.core import cgutils
from numba.extending import models, register_model

LANES = 16

intrinsic: Any = extending.intrinsic
_options: Any = {"nogil": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
compiled: Any = njit(**_options)
compiled_and_cached: Any = njit(nogil=True, cache=True)

_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)


class VectorType(types.Type):  # type: ignore[misc]
    """Numba's type of 16 float32 numbers; lives inside compiled functions only."""

    def __init__(self) -> None:
        super().__init__(name="Float32x16")


VECTOR = VectorType()


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, numba_type: VectorType) -> None:
        super().__init__(manager, numba_type, _VECTOR)


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_VECTOR, [ir.Constant(_FLOAT, float(np.float32(value)))] * LANES)


def _place(context: Any, builder: Any, array_type: Any, array: Any, element: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [element])


def _vector_place(context: Any, builder: Any, array_type: Any, array: Any, vector: Any) -> Any:
    element = builder.mul(vector, ir.Constant(vector.type, LANES))
    place = _place(context, builder, array_type, array, element)
    return builder.bitcast(place, _VECTOR.as_pointer())


def _splat(builder: Any, scalar: Any) -> Any:
    one = builder.insert_element(
        ir.Constant(_VECTOR, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0)
    )
    mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), mask)


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    name = f"llvm.fmuladd.v{LANES}f32"
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, [a, b, c])


def _polynomial(builder: Any, q: Any, coefficients: Sequence[float]) -> Any:
    value = _constant(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = _fma(builder, value, q, _constant(coefficient))
    return value


@intrinsic
def load(typing: Any, array: Any, vector: Any) -> Any:
    """Vector number `vector` of an array."""

    def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load(_vector_place(context, builder, signature.args[0], *values), align=4)

    return VECTOR(array, types.intp), make


@intrinsic
def store(typing: Any, array: Any, vector: Any, value: Any) -> Any:
    """Write vector number `vector` of an array."""

    def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place = _vector_place(context, builder, signature.args[0], *values[:2])
        builder.store(values[2], place, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, VECTOR), make


@intrinsic
def splat(typing: Any, array: Any, element: Any) -> Any:
    """Element number `element` of an array in all lanes."""

    def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place = _place(context, builder, signature.args[0], *values)
        return _splat(builder, builder.load(place, align=4))

    return VECTOR(array, types.intp), make


@intrinsic
def fill(typing: Any, value: Any) -> Any:
    """One float32 number in all lanes."""

    def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _splat(builder, values[0])

    return VECTOR(types.float32), make


@intrinsic
def zero(typing: Any) -> Any:
    """0 in all lanes."""

    def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _constant(0)

    return VECTOR(), make


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Product and sum, ``a b + c``, rounded once where the processor can."""

    def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _fma(builder, *values)

    return VECTOR(VECTOR, VECTOR, VECTOR), make


def _binary(operation: str) -> Any:
    def typed(typing: Any, a: Any, b: Any) -> Any:
        def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return getattr(builder, operation)(*values)

        return VECTOR(VECTOR, VECTOR), make

    typed.__name__ = operation
    return intrinsic(typed)


add = _binary("fadd")
subtract = _binary("fsub")
multiply = _binary("fmul")


@intrinsic
def reciprocal_root(typing: Any, a: Any) -> Any:
    """``1 / sqrt(a)``, both correctly rounded."""

    def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(_VECTOR, [_VECTOR])
        name = f"llvm.sqrt.v{LANES}f32"
        root = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.fdiv(_constant(1), builder.call(root, values))

    return VECTOR(VECTOR), make


# GELU (tanh form) is x s(x); s(x) - 1/2 is odd. Up to |x| = 5.2 it is x P(x^2) / Q(x^2) here,
# fitted for the least largest error: |x s - GELU| <= 1e-6 max(1, |x|). Beyond, s stays as it is.
_EDGE = 5.2
_P = (
    0.39894704103106743,
    0.0078093878096433195,
    0.002046893317332019,
    -7.502587871553662e-05,
    2.0789489601454392e-06,
    -3.3294400834679066e-08,
    2.3189024367260005e-10,
)
_Q = (1.0, 0.1871195784511968, 0.010831590636927855)
_SLOPE = (2 * (2 / np.pi) ** 0.5, 6 * 0.044715 * (2 / np.pi) ** 0.5)


def _gate(builder: Any, x: Any) -> tuple[Any, Any, Any]:
    """s(x) of GELU, x within the edges, and its square."""
    t = x
    for comparison, edge in ((">", _EDGE), ("<", -_EDGE)):
        beyond = builder.fcmp_ordered(comparison, t, _constant(edge))
        t = builder.select(beyond, _constant(edge), t)
    q = builder.fmul(t, t)
    ratio = builder.fdiv(builder.fmul(t, _polynomial(builder, q, _P)), _polynomial(builder, q, _Q))
    return builder.fadd(ratio, _constant(0.5)), t, q


@intrinsic
def gelu(typing: Any, x: Any) -> Any:
    """GELU in its tanh form, within 1e-6 max(1, |x|)."""

    def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.fmul(values[0], _gate(builder, values[0])[0])

    return VECTOR(VECTOR), make


@intrinsic
def gelu_and_slope(typing: Any, x: Any) -> Any:
    """GELU and its derivative, within 2e-5."""

    def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        s, t, q = _gate(builder, values[0])
        spread = builder.fmul(s, builder.fsub(_constant(1), s))
        steep = builder.fmul(t, _polynomial(builder, q, _SLOPE))
        slope = _fma(builder, spread, steep, s)
        pair = [builder.fmul(values[0], s), slope]
        return context.make_tuple(builder, signature.return_type, pair)

    return types.UniTuple(VECTOR, 2)(VECTOR), make


@intrinsic
def transpose_four(typing: Any, array: Any, element: Any, step: Any, most: Any) -> Any:
    """Four vectors; lane i of each: four numbers from ``element + min(i, most) step`` on."""

    def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        given, first, apart, last = values
        four = ir.VectorType(_FLOAT, 4)
        rows = []
        for lane in range(LANES):
            number = ir.Constant(last.type, lane)
            number = builder.select(builder.icmp_signed("<", number, last), number, last)
            element = builder.add(first, builder.mul(number, apart))
            place = _place(context, builder, signature.args[0], given, element)
            rows.append(builder.load(builder.bitcast(place, four.as_pointer()), align=4))
        # Rows i, i + 4, .. side by side; then the usual transpose of 4 x 4 inside each quarter.
        wide = [_side_by_side(builder, rows[i::4]) for i in range(4)]
        low = [_interleave(builder, wide[i], wide[i + 2], 0) for i in (0, 1)]
        high = [_interleave(builder, wide[i], wide[i + 2], 2) for i in (0, 1)]
        columns = [_interleave(builder, a, b, at) for a, b in (low, high) for at in (0, 2)]
        return context.make_tuple(builder, signature.return_type, columns)

    return types.UniTuple(VECTOR, 4)(array, types.intp, types.intp, types.intp), make


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
    """Of each quarter: numbers `first` and ``first + 1`` of a and b, in turns."""
    order = [
        quarter + first + i + side * LANES
        for quarter in range(0, LANES, 4)
        for i in (0, 1)
        for side in (0, 1)
    ]
    return _shuffle(builder, a, b, order)


@intrinsic
def _address(typing: Any, array: Any) -> Any:
    def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        return builder.ptrtoint(data, ir.IntType(64))

    return types.int64(array), make


@compiled_and_cached
def vectors(count: int) -> Any:
    """Zeros, float32 ``(16 count,)``, each vector in a cache line of its own."""
    whole = np.zeros((count + 1) * LANES, np.float32)
    start = (-_address(whole) // 4) % LANES
    return whole[start : start + count * LANES]
