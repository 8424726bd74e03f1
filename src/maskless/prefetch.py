"""Memory asked for ahead of its use, inside compiled functions."""

# mypy: disable-error-code="no-untyped-call,unused-ignore"

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import extending, types

_intrinsic: Any = extending.intrinsic
_INT32 = ir.IntType(32)


@_intrinsic
def prefetch(typing: Any, values: Any, element: Any) -> Any:
    """Ask for the line of memory of a number of an array, in C order; any place may be named."""

    def make(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        array, number = given
        data = context.make_array(signature.args[0])(context, builder, array).data
        place = builder.bitcast(builder.gep(data, [number]), ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [place.type] + [_INT32] * 3)
        function = builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind)
        read, second_cache, data_cache = (ir.Constant(_INT32, number) for number in (0, 2, 1))
        builder.call(function, [place, read, second_cache, data_cache])
        return context.get_dummy_value()

    return types.void(values, types.int64), make
