"""Non-negative least squares of many pixels at once: compiled coordinate descent.

Axes: C = channels, P = pixels, L = lanes: the pixels of one vector.

Each channel's signal in turn is set to its best value that is not negative, the others held. A
spillover matrix lies near the identity, so that some ten rounds settle every number to rounding.
The pixels of a vector go through side by side, each in its own lane, and the sums stay in
registers; LLVM cuts the vectors to what the processor has. (It leaves loops over short arrays in
memory: four times slower.)
"""

# mypy: disable-error-code="no-untyped-call,unused-ignore,override"

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import extending, njit, types
from numba.core import cgutils
from numba.extending import models, register_model
from numpy.typing import NDArray

LANES = 32
_UNCHECKED = 4
"""Rounds before changes are looked at."""

_LINE = 8  # float64 numbers in a line of the cache

_intrinsic: Any = extending.intrinsic
_FLOAT, _INT32 = ir.DoubleType(), ir.IntType(32)
_LLVM_VECTOR = ir.VectorType(_FLOAT, LANES)


class _VectorType(types.Type):  # type: ignore[misc]
    """Numba's type of a vector of float64; lives inside compiled functions only."""

    def __init__(self) -> None:
        super().__init__(name=f"Float64x{LANES}")


_VECTOR = _VectorType()


@register_model(_VectorType)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, numba_type: _VectorType) -> None:
        super().__init__(manager, numba_type, _LLVM_VECTOR)


def _place(context: Any, builder: Any, signature: Any, array: Any, first: Any) -> Any:
    data = context.make_array(signature.args[0])(context, builder, array).data
    return builder.bitcast(builder.gep(data, [first]), _LLVM_VECTOR.as_pointer())


def _call(builder: Any, name: str, *values: Any) -> Any:
    kind = ir.FunctionType(_LLVM_VECTOR, [_LLVM_VECTOR] * len(values))
    name = f"llvm.{name}.v{LANES}f64"
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), list(values))


@_intrinsic
def _load(typing: Any, array: Any, first: Any) -> Any:
    """Numbers of an array, in the order of its memory, from `first` on, as a vector."""

    def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load(_place(context, builder, signature, *values), align=8)

    return _VECTOR(array, types.intp), make


@_intrinsic
def _store(typing: Any, array: Any, first: Any, vector: Any) -> Any:
    """Write what :func:`_load` would load."""

    def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        array, first, vector = values
        builder.store(vector, _place(context, builder, signature, array, first), align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), make


@_intrinsic
def _splat(typing: Any, number: Any) -> Any:
    """One number in all lanes."""

    def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        nothing = ir.Constant(_LLVM_VECTOR, ir.Undefined)
        one = builder.insert_element(nothing, values[0], ir.Constant(_INT32, 0))
        zeros = ir.Constant(ir.VectorType(_INT32, LANES), [0] * LANES)
        return builder.shuffle_vector(one, nothing, zeros)

    return _VECTOR(types.float64), make


@_intrinsic
def _multiply_add(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """``a b + c`` for each lane, rounded once where the processor can."""

    def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _call(builder, "fmuladd", *values)

    return _VECTOR(a, b, c), make


@_intrinsic
def _minus(typing: Any, a: Any, b: Any) -> Any:
    """``a - b`` for each lane."""

    def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.fsub(*values)

    return _VECTOR(a, b), make


@_intrinsic
def _larger(typing: Any, a: Any, b: Any) -> Any:
    """The larger of ``a`` and ``b`` in each lane; there are no NaN."""

    def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *values), *values)

    return _VECTOR(a, b), make


@_intrinsic
def _size(typing: Any, a: Any) -> Any:
    """``|a|`` for each lane."""

    def make(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return _call(builder, "fabs", *values)

    return _VECTOR(a), make


@njit(nogil=True, cache=True)
def _aligned(size: int) -> Any:
    """Room for numbers that starts with a line of the cache: vectors across two cost twice."""
    room = np.empty(size + _LINE)
    start = -(room.ctypes.data // 8) % _LINE
    return room[start : start + size]


@njit(nogil=True, cache=True)
def descend(
    counts_cp: Any,
    starts: NDArray[np.int64],
    columns: NDArray[np.int64],
    values: NDArray[np.float64],
    other_starts: NDArray[np.int64],
    other_columns: NDArray[np.int64],
    other_values: NDArray[np.float64],
    tolerance: float,
    most_rounds: int,
    settled_p: NDArray[np.bool_],
    signal_cp: Any,
) -> None:
    """Find the non-negative signal of each pixel whose spilled counts fit best.

    A matrix here is three arrays (CSR): row i holds ``values[k]`` in column ``columns[k]`` for k
    from ``starts[i]`` to ``starts[i + 1]``. With the spillover matrix S (row = emitting channel)
    and n the sums of squares of its rows:

    Parameters
    ----------
    counts_cp
        Shape (C, P), P a multiple of LANES, >= 0, finite, float64, rows one after the other.
    starts, columns, values
        S / n.
    other_starts, other_columns, other_values
        - S Sᵀ / n without its diagonal.
    tolerance
        Of the last change, as a share of the pixel's largest count.
    most_rounds
        Then a pixel is left as not settled.
    settled_p, signal_cp
        Results: whether each pixel met the tolerance, and its signal.
    """
    channels, pixels = counts_cp.shape
    fit_cl = _aligned(channels * LANES)
    signal_cl = _aligned(channels * LANES)
    change_l = np.empty(LANES)
    most_l = np.empty(LANES)
    zero = _splat(0.0)
    for first in range(0, pixels, LANES):
        most = zero
        for i in range(channels):
            most = _larger(most, _load(counts_cp, i * pixels + first))
            fit = zero
            for k in range(starts[i], starts[i + 1]):
                counts = _load(counts_cp, columns[k] * pixels + first)
                fit = _multiply_add(_splat(values[k]), counts, fit)
            _store(fit_cl, i * LANES, fit)
            _store(signal_cl, i * LANES, fit)
        _store(most_l, 0, most)
        change_l[:] = np.inf
        for turn in range(most_rounds):
            change = zero
            for i in range(channels):
                after = _load(fit_cl, i * LANES)
                for k in range(other_starts[i], other_starts[i + 1]):
                    signal = _load(signal_cl, other_columns[k] * LANES)
                    after = _multiply_add(_splat(other_values[k]), signal, after)
                after = _larger(zero, after)
                if turn >= _UNCHECKED:
                    change = _larger(change, _size(_minus(after, _load(signal_cl, i * LANES))))
                _store(signal_cl, i * LANES, after)
            if turn >= _UNCHECKED:
                _store(change_l, 0, change)
                done = True
                for lane in range(LANES):
                    done &= change_l[lane] <= tolerance * most_l[lane]
                if done:
                    break
        for lane in range(LANES):
            settled_p[first + lane] = change_l[lane] <= tolerance * most_l[lane]
        for i in range(channels):
            _store(signal_cp, i * pixels + first, _load(signal_cl, i * LANES))
