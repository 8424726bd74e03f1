"""Distances of some codes to sixteen others at once, in the processor's integer vectors.

Where the processor multiplies and adds bytes (``vpdpbusd`` of AVX-512 VNNI), four axes of sixteen
candidates are one instruction; elsewhere LLVM turns the sums into multiply-and-add of pairs of
int16 (``vpmaddwd`` of AVX2) or into plain multiplications. Sums are exact, so the result is the
same everywhere. Arrays are not checked for bounds.

Bytes of one side must be without sign there: queries are moved up by 128, which adds 128 times the
sum of a candidate's axes to its product; its norm makes that good (:func:`moved_up`).
"""

# mypy: disable-error-code="no-untyped-call,unused-ignore,override"

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import extending, types
from numba.core import cgutils
from numba.core.registry import cpu_target

LANES = 16
"""Candidates that are compared at once."""

_AXES_A_TURN = 32
"""Codes have a multiple of these."""


def _multiplies_bytes() -> bool:
    """Tell whether what numba compiles for has AVX-512 VNNI (its cache is kept by the same)."""
    return "+avx512vnni" in cpu_target.target_context.codegen().magic_tuple()[2]


BYTES = _multiplies_bytes()
GROUP = 4 if BYTES else 2
"""Axes of a candidate that stand side by side when packed."""

QUERIES = 8 if BYTES else 4
"""Codes that are compared at once: their sums fill the registers."""

WORDS = QUERIES * LANES // 64
MOVED_UP = 128 if BYTES else 0
"""Added to each axis of a query."""

intrinsic: Any = extending.intrinsic

_BYTE, _INT16, _INT32, _INT64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_SUMS = ir.VectorType(_INT32, LANES)


def _vector_at(
    context: Any, builder: Any, array_type: Any, array: Any, element: Any, kind: Any, align: int
) -> Any:
    place = _place(context, builder, array_type, array, element, kind)
    return builder.load(place, align=align)


def _place(context: Any, builder: Any, array_type: Any, array: Any, element: Any, kind: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [element]), kind.as_pointer())


def _splat(builder: Any, scalar: Any) -> Any:
    one = builder.insert_element(ir.Constant(_SUMS, ir.Undefined), scalar, ir.Constant(_INT32, 0))
    everywhere = ir.Constant(_SUMS, [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(_SUMS, ir.Undefined), everywhere)


def _add_products(builder: Any, sums: Any, query: Any, candidates: Any) -> Any:
    """Add to each sum the products of a group of axes."""
    if BYTES:
        kind = ir.FunctionType(_SUMS, [_SUMS, _SUMS, _SUMS])
        name = "llvm.x86.avx512.vpdpbusd.512"
        function = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(function, [sums, query, candidates])
    wide = ir.VectorType(_INT32, 2 * LANES)
    pairs = ir.VectorType(_INT16, 2 * LANES)
    products = builder.mul(
        builder.sext(builder.bitcast(query, pairs), wide), builder.sext(candidates, wide)
    )
    first, second = (
        builder.shuffle_vector(
            products,
            ir.Constant(wide, ir.Undefined),
            ir.Constant(_SUMS, list(range(start, 2 * LANES, 2))),
        )
        for start in (0, 1)
    )
    return builder.add(sums, builder.add(first, second))


@intrinsic
def compare_block(
    typing: Any,
    packed: Any,
    norms: Any,
    block: Any,
    queries: Any,
    dimensions: Any,
    farthest: Any,
    distances: Any,
    near: Any,
) -> Any:
    """Compare QUERIES codes with the LANES candidates of a block.

    Parameters
    ----------
    packed, norms, block
        As :func:`maskless.analysis.candidates.pack` makes them; which block.
    queries, dimensions
        QUERIES codes one after the other, moved up: uint8 where GROUP is 4, int16 where it is 2.
    farthest
        int32 (QUERIES,): what a distance must be below.
    distances
        int32 (QUERIES * LANES,): norms less twice the products are written here.
    near
        uint64 (WORDS,): bit ``row * LANES + lane`` is set where the distance is below.
    """

    def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        packed, norms, block, queries, dimensions, farthest, distances, near = values
        (packed_type, norms_type, _, queries_type, _, farthest_type, distances_type, near_type) = (
            signature.args
        )
        number = _INT64
        sums = [cgutils.alloca_once(builder, _SUMS) for _ in range(QUERIES)]
        for place in sums:
            builder.store(ir.Constant(_SUMS, [0] * LANES), place)
        first = builder.mul(builder.mul(block, dimensions), number(LANES))
        with cgutils.for_range_slice(
            builder, number(0), dimensions, number(_AXES_A_TURN), number
        ) as (start, _):
            held = [builder.load(place) for place in sums]
            for step in range(0, _AXES_A_TURN, GROUP):
                axis = builder.add(start, number(step))
                element = builder.add(first, builder.mul(axis, number(LANES)))
                kind = ir.VectorType(_BYTE, GROUP * LANES)
                candidates = _vector_at(
                    context, builder, packed_type, packed, element, kind, align=1
                )
                if BYTES:
                    candidates = builder.bitcast(candidates, _SUMS)
                else:
                    candidates = builder.sext(candidates, ir.VectorType(_INT16, GROUP * LANES))
                for row in range(QUERIES):
                    element = builder.add(axis, builder.mul(dimensions, number(row)))
                    query = _vector_at(
                        context, builder, queries_type, queries, element, _INT32, align=1
                    )
                    query = _splat(builder, query)
                    held[row] = _add_products(builder, held[row], query, candidates)
            for place, value in zip(sums, held, strict=True):
                builder.store(value, place)
        slot = builder.mul(block, number(LANES))
        norm = _vector_at(context, builder, norms_type, norms, slot, _SUMS, align=4)
        rows_a_word = 64 // LANES
        for word in range(WORDS):
            bits = number(0)
            for r in range(rows_a_word):
                row = word * rows_a_word + r
                doubled = builder.shl(builder.load(sums[row]), ir.Constant(_SUMS, [1] * LANES))
                distance = builder.sub(norm, doubled)
                out = _place(
                    context, builder, distances_type, distances, number(row * LANES), _SUMS
                )
                builder.store(distance, out, align=4)
                bound = _vector_at(
                    context, builder, farthest_type, farthest, number(row), _INT32, align=4
                )
                below = builder.icmp_signed("<", distance, _splat(builder, bound))
                below = builder.zext(builder.bitcast(below, ir.IntType(LANES)), number)
                bits = builder.or_(bits, builder.shl(below, number(r * LANES)))
            out = _place(context, builder, near_type, near, number(word), number)
            builder.store(bits, out)
        return context.get_dummy_value()

    numbers = (packed, norms, types.intp, queries, types.intp, farthest, distances, near)
    return types.void(*numbers), make


@intrinsic
def push_eight(typing: Any, pool: Any, start: Any, key: Any) -> Any:
    """Let places `start` to `start` + 7 of a rising row take in a key; the place before them stays.

    Each takes the middle one of its own key, that of the place before it and the new one. So a
    whole row takes a key in without a branch, from the end to the beginning.
    """

    def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pool, start, key = values
        kind = ir.VectorType(_INT64, 8)
        here = _place(context, builder, signature.args[0], pool, start, kind)
        own = builder.load(here, align=8)
        last = builder.sub(start, _INT64(1))
        last = _vector_at(context, builder, signature.args[0], pool, last, _INT64, align=8)
        # Read as they were written: eight together, and one within what was written before.
        order = ir.Constant(ir.VectorType(_INT32, 8), [0, *range(7)])
        before = builder.shuffle_vector(own, ir.Constant(kind, ir.Undefined), order)
        before = builder.insert_element(before, last, _INT32(0))
        new = builder.insert_element(ir.Constant(kind, ir.Undefined), key, _INT32(0))
        zeros = ir.Constant(ir.VectorType(_INT32, 8), [0] * 8)
        new = builder.shuffle_vector(new, ir.Constant(kind, ir.Undefined), zeros)
        lower = builder.select(builder.icmp_signed("<", own, new), own, new)
        middle = builder.select(builder.icmp_signed(">", before, lower), before, lower)
        builder.store(middle, here, align=8)
        return context.get_dummy_value()

    return types.void(pool, types.intp, types.int64), make


@intrinsic
def move_eight(typing: Any, keys: Any, start: Any, place: Any, highest: Any) -> Any:
    """Move those of eight keys from `start` that are not above `highest` down to `place`, in order.

    What stands behind them, to the eighth place, is lost. Gives how many there are.
    """

    def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        keys, start, place, highest = values
        kind = ir.VectorType(_INT64, 8)
        own = _vector_at(context, builder, signature.args[0], keys, start, kind, align=8)
        out = _place(context, builder, signature.args[0], keys, place, kind)
        bound = builder.insert_element(ir.Constant(kind, ir.Undefined), highest, _INT32(0))
        zeros = ir.Constant(ir.VectorType(_INT32, 8), [0] * 8)
        bound = builder.shuffle_vector(bound, ir.Constant(kind, ir.Undefined), zeros)
        keep = builder.icmp_signed("<=", own, bound)
        if BYTES:
            function = ir.FunctionType(kind, [kind, kind, keep.type])
            name = "llvm.x86.avx512.mask.compress.v8i64"
            compress = cgutils.get_or_insert_function(builder.module, function, name)
            builder.store(builder.call(compress, [own, own, keep]), out, align=8)
            bits = builder.zext(builder.bitcast(keep, ir.IntType(8)), _INT64)
            return builder.ctpop(bits)
        count = _INT64(0)
        data = context.make_array(signature.args[0])(context, builder, keys).data
        for lane in range(8):
            key = builder.extract_element(own, _INT32(lane))
            builder.store(key, builder.gep(data, [builder.add(place, count)]))
            kept = builder.zext(builder.extract_element(keep, _INT32(lane)), _INT64)
            count = builder.add(count, kept)
        return count

    return types.intp(keys, types.intp, types.intp, types.int64), make


@intrinsic
def lowest_bit(typing: Any, bits: Any) -> Any:
    """Place of the lowest bit that is set in an unsigned number of 64 bits, not zero."""

    def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.cttz(values[0], ir.Constant(ir.IntType(1), 1))

    return types.intp(types.uint64), make
