"""Whole numbers that compiled functions know when they are compiled.

An object of `Constants` has a Numba type of its own for each set of values. Loops over such numbers
are unrolled, and functions are compiled (and cached) once for each architecture of a tower.
"""

# mypy: disable-error-code="no-untyped-call,unused-ignore,override"

from __future__ import annotations

from typing import Any

from numba import types
from numba.core.typing.templates import AttributeTemplate
from numba.extending import (
    NativeValue,
    infer_getattr,
    lower_getattr_generic,
    models,
    register_model,
    typeof_impl,
    unbox,
)

Values = tuple[tuple[str, Any], ...]


class Constants:
    """Named whole numbers, or further constants, read as attributes in compiled functions."""

    def __init__(self, **values: int | Constants) -> None:
        self.values: Values = tuple(
            (name, value.values if isinstance(value, Constants) else int(value))
            for name, value in values.items()
        )

    def __getattr__(self, name: str) -> Any:
        """Give a value by name, as in compiled functions."""
        value = dict(object.__getattribute__(self, "values")).get(name)
        if value is None:
            raise AttributeError(name)
        return value


class ConstantsType(types.Type):  # type: ignore[misc]
    """Numba's type of one set of constants."""

    def __init__(self, values: Values) -> None:
        self.values = values
        super().__init__(name=f"Constants{values}")


register_model(ConstantsType)(models.OpaqueModel)


@typeof_impl.register(Constants)
def _type_of(value: Constants, context: Any) -> ConstantsType:
    return ConstantsType(value.values)


@unbox(ConstantsType)
def _unbox(kind: ConstantsType, value: Any, c: Any) -> NativeValue:
    return NativeValue(c.context.get_dummy_value())


@infer_getattr
class _Attributes(AttributeTemplate):  # type: ignore[misc]
    key = ConstantsType

    def generic_resolve(self, kind: ConstantsType, name: str) -> types.Type | None:
        value = dict(kind.values).get(name)
        if value is None:
            return None
        return types.int64 if isinstance(value, int) else ConstantsType(value)


@lower_getattr_generic(ConstantsType)
def _value(context: Any, builder: Any, kind: ConstantsType, value: Any, name: str) -> Any:
    found = dict(kind.values)[name]
    if isinstance(found, int):
        return context.get_constant(types.int64, found)
    return context.get_dummy_value()
