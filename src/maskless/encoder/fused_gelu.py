"""GELU and its slope on tiles of vectors.

GELU (tanh form) is x s(x) with s(x) = 1 / (1 + 2^(-y)), y = x (a + b x^2). The power of 2 is taken
apart as usual: of the whole number nearest to -y, which goes into the exponent, and of the rest, by
a polynomial of degree 4, fitted for the least largest relative error (4e-6). So s errs by 4e-6
s (1 - s), GELU by less than 1e-6 and its slope by less than 3e-6, everywhere.
"""

# mypy: disable-error-code="no-untyped-call,unused-ignore,override"

from __future__ import annotations

from collections.abc import Sequence
from math import log, pi
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types

from maskless.encoder.fused_vector import LANES, LLVM_VECTOR, Builder, code, intrinsic

_EDGE = 9.0  # beyond, s is 0 or 1 to the last bit, and powers of 2 may leave float32's range
_LINEAR, _CUBIC = (2 * (2 / pi) ** 0.5 * c for c in (1.0, 0.044715))
_POWER = (
    0.9999992613991477,
    0.6931218145474339,
    0.24024744864556072,
    0.05591786123137082,
    0.009570101291015553,
)
_ROUND = 1.5 * 2.0**23  # added to a number, its last bits are the nearest whole number
_WHOLE = ir.VectorType(ir.IntType(32), LANES)


def _polynomials(b: Builder, q: Sequence[Any], coefficients: Sequence[float]) -> list[Any]:
    values = [b.constant(coefficients[-1])] * len(q)
    for coefficient in coefficients[-2::-1]:
        values = [b.fma(v, w, b.constant(coefficient)) for v, w in zip(values, q, strict=True)]
    return values


def _gates(b: Builder, x: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """1 / s(x) of GELU, x within the edges, and its square."""
    t = list(x)
    for comparison, edge in (("<", _EDGE), (">", -_EDGE)):
        inside = [b.llvm.fcmp_ordered(comparison, v, b.constant(edge)) for v in t]
        t = [b.llvm.select(i, v, b.constant(edge)) for i, v in zip(inside, t, strict=True)]
    q = [b.llvm.fmul(v, v) for v in t]
    factors = _polynomials(b, q, (-_LINEAR / log(2), -_CUBIC / log(2)))
    rounded = [b.fma(v, f, b.constant(_ROUND)) for v, f in zip(t, factors, strict=True)]
    minus = [b.llvm.fsub(b.constant(_ROUND), v) for v in rounded]
    rest = [b.fma(v, f, m) for v, f, m in zip(t, factors, minus, strict=True)]
    shift = ir.Constant(_WHOLE, [23] * LANES)
    gates = []
    for power, whole in zip(_polynomials(b, rest, _POWER), rounded, strict=True):
        exponent = b.llvm.shl(b.llvm.bitcast(whole, _WHOLE), shift)
        bits = b.llvm.add(exponent, b.llvm.bitcast(power, _WHOLE))
        gates.append(b.llvm.fadd(b.llvm.bitcast(bits, LLVM_VECTOR), b.constant(1)))
    return gates, t, q


@intrinsic
def gelu(typing: Any, tile: Any) -> Any:
    """GELU in its tanh form, within 1e-6."""
    count = tile.count

    @code
    def make(b: Builder, tile: Any) -> Any:
        x = b.unpack(tile, count)
        return b.pack(b.llvm.fdiv(v, s) for v, s in zip(x, _gates(b, x)[0], strict=True))

    return tile(tile), make


@intrinsic
def gelu_and_slope(typing: Any, tile: Any) -> Any:
    """GELU and its derivative, within 3e-6; a tile each."""
    count = tile.count

    @code
    def make(b: Builder, values: Any) -> Any:
        x = b.unpack(values, count)
        gates, t, q = _gates(b, x)
        gates = [b.llvm.fdiv(b.constant(1), s) for s in gates]
        values = [b.llvm.fmul(v, s) for v, s in zip(x, gates, strict=True)]
        slopes = []
        for s, v, w in zip(gates, t, _polynomials(b, q, (_LINEAR, 3 * _CUBIC)), strict=True):
            spread = b.llvm.fmul(s, b.llvm.fsub(b.constant(1), s))
            slopes.append(b.fma(spread, b.llvm.fmul(v, w), s))
        pair = [b.context.make_tuple(b.llvm, tile, half) for half in (values, slopes)]
        return b.pack(pair)

    return types.UniTuple(tile, 2)(tile), make
