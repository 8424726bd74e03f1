"""Sixteen int32 sums that Numba holds in vector registers: products of one code with sixteen.

LLVM turns `add_products` into the processor's multiply-and-add of pairs of int16 (``vpmaddwd`` of
AVX2, ``vpdpwssd`` of AVX-512 VNNI), four times the numbers an instruction of float32 takes, and
into plain multiplications where there is no such thing. Sums are exact, so the result is the same
everywhere. Arrays are not checked for bounds.
"""

# mypy: disable-error-code="no-untyped-call,unused-ignore,override"

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import extending, types
from numba.extending import models, register_model

LANES = 16
"""Candidates that are compared at once."""

intrinsic: Any = extending.intrinsic

_BYTE, _INT16, _INT32, _INT64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_SUMS = ir.VectorType(_INT32, LANES)
_PAIRS = ir.VectorType(_INT16, 2 * LANES)


class SumsType(types.Type):  # type: ignore[misc]
    """Numba's type of 16 int32; lives inside compiled functions only."""

    def __init__(self) -> None:
        super().__init__(name="Int32x16")


class PairsType(types.Type):  # type: ignore[misc]
    """Numba's type of 16 pairs of int16; lives inside compiled functions only."""

    def __init__(self) -> None:
        super().__init__(name="Int16x2x16")


SUMS, PAIRS = SumsType(), PairsType()


@register_model(SumsType)
class _SumsModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, numba_type: SumsType) -> None:
        super().__init__(manager, numba_type, _SUMS)


@register_model(PairsType)
class _PairsModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, numba_type: PairsType) -> None:
        super().__init__(manager, numba_type, _PAIRS)


def _place(
    context: Any, builder: Any, array_type: Any, array: Any, element: Any, kind: ir.Type
) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [element]), kind.as_pointer())


def _splat(builder: Any, scalar: Any) -> Any:
    one = builder.insert_element(ir.Constant(_SUMS, ir.Undefined), scalar, ir.Constant(_INT32, 0))
    everywhere = ir.Constant(_SUMS, [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(_SUMS, ir.Undefined), everywhere)


@intrinsic
def zeros(typing: Any) -> Any:
    """Sixteen sums of nothing."""

    def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return ir.Constant(_SUMS, [0] * LANES)

    return SUMS(), make


@intrinsic
def load_pairs(typing: Any, packed: Any, element: Any) -> Any:
    """Two axes of sixteen candidates: int8 numbers `element` .. `element` + 31 of an array."""

    def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.VectorType(_BYTE, 2 * LANES)
        place = _place(context, builder, signature.args[0], values[0], values[1], kind)
        return builder.sext(builder.load(place, align=1), _PAIRS)

    return PAIRS(packed, types.intp), make


@intrinsic
def splat_pair(typing: Any, codes: Any, element: Any) -> Any:
    """Two axes of one code, int16 numbers `element` and the next, in all lanes."""

    def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place = _place(context, builder, signature.args[0], values[0], values[1], _INT32)
        return builder.bitcast(_splat(builder, builder.load(place, align=2)), _PAIRS)

    return PAIRS(codes, types.intp), make


@intrinsic
def add_products(typing: Any, sums: Any, one: Any, other: Any) -> Any:
    """Add to each of the sums the two products of its pairs."""

    def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        wide = ir.VectorType(_INT32, 2 * LANES)
        products = builder.mul(builder.sext(values[1], wide), builder.sext(values[2], wide))
        first, second = (
            builder.shuffle_vector(
                products,
                ir.Constant(wide, ir.Undefined),
                ir.Constant(_SUMS, list(range(start, 2 * LANES, 2))),
            )
            for start in (0, 1)
        )
        return builder.add(values[0], builder.add(first, second))

    return SUMS(SUMS, PAIRS, PAIRS), make


@intrinsic
def keep_below(
    typing: Any, sums: Any, norms: Any, first: Any, worst: Any, out: Any, place: Any
) -> Any:
    """Write ``norms[first + lane] - 2 * sums`` to `out` from `place`; tell which are below `worst`.

    The result is an unsigned number of 64 bits; bit `lane` is set where the lane's is below.
    """

    def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        norm_place = _place(context, builder, signature.args[1], values[1], values[2], _SUMS)
        doubled = builder.shl(values[0], ir.Constant(_SUMS, [1] * LANES))
        distances = builder.sub(builder.load(norm_place, align=4), doubled)
        out_place = _place(context, builder, signature.args[4], values[4], values[5], _SUMS)
        builder.store(distances, out_place, align=4)
        below = builder.icmp_signed("<", distances, _splat(builder, values[3]))
        return builder.zext(builder.bitcast(below, ir.IntType(LANES)), _INT64)

    return types.uint64(SUMS, norms, types.intp, types.int32, out, types.intp), make


@intrinsic
def lowest_bit(typing: Any, bits: Any) -> Any:
    """Place of the lowest bit that is set in an unsigned number of 64 bits, not zero."""

    def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.cttz(values[0], ir.Constant(ir.IntType(1), 1))

    return types.intp(types.uint64), make
