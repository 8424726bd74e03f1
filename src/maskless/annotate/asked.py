"""What the page may ask for: the shape of each request, checked before anything is done.

Sets of cells come as bits (one a cell, lowest bit first) in base64: 1.8 million cells fit into
300 kB.
"""

from __future__ import annotations

import base64
import binascii
import unicodedata
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from maskless.errors import InputError

_ALLOWED = {"\n", "\t", "\r"}


def _plain(text: str) -> str:
    """Any text but what files and terminals choke on: control characters, half characters."""
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs") and character not in _ALLOWED:
            raise ValueError(f"the character {ord(character):#06x} cannot be kept in a name")
    return text


Name = Annotated[str, Field(max_length=20_000), AfterValidator(_plain)]
Long = Annotated[str, Field(max_length=200_000), AfterValidator(_plain)]
Who = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_plain)]
GroupId = Annotated[str, Field(min_length=1, max_length=300)]
Bits = Annotated[str, Field(max_length=6 * 2**20)]


class Asked(BaseModel):
    """Base: unknown fields are refused, nothing is converted in silence."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Fields(Asked):
    """Fields of a group to set; those left out stay."""

    name: Name | None = None
    broad: Name | None = None
    notes: Long | None = None
    color: Annotated[str, Field(pattern=r"^(#[0-9a-fA-F]{6})?$")] | None = None
    unsure: bool | None = None


class Write(Asked):
    """Every request that changes labels says whose, and what it knew of them."""

    who: Who
    revision: Annotated[int, Field(ge=0)]


class SetFields(Write):
    """Name groups, or set other fields of theirs; `images` = the name holds in those only."""

    kind: Literal["name"] = "name"
    groups: Annotated[list[GroupId], Field(min_length=1, max_length=5000)]
    fields: Fields
    images: Annotated[list[Name], Field(max_length=20_000)] = []


class Merge(Write):
    """Put the cells of some groups into one of them."""

    groups: Annotated[list[GroupId], Field(min_length=2, max_length=5000)]
    into: GroupId


class Move(Write):
    """Put selected cells into a group; `into` empty = a new one."""

    cells: Bits
    into: Annotated[str, Field(max_length=300)] = ""
    name: Name = ""


class SplitByMarker(Write):
    """Put the cells of a group whose activation lies above a threshold into a new group."""

    group: GroupId
    marker: Name
    above: float


class ApplySplit(Write):
    """Make groups of the parts that a job found."""

    job: Annotated[str, Field(max_length=40)]


class StartSplit(Asked):
    """PhenoGraph inside a group, or inside selected cells."""

    who: Who
    group: GroupId
    cells: Bits | None = None
    k: Annotated[int, Field(ge=5, le=200)] = 30
    resolution: Annotated[float, Field(gt=0, le=100)] = 1.0
    min_size: Annotated[int, Field(ge=1, le=100_000)] = 20


class CancelSplit(Asked):
    """Stop a job."""

    job: Annotated[str, Field(max_length=40)]


class Step(Write):
    """Undo or redo."""

    kind: Literal["undo", "redo"]


class Version(Write):
    """Give the state as it is now a name."""

    name: Annotated[Name, Field(min_length=1)]


class Restore(Write):
    """Bring back the state after an operation."""

    operation: Annotated[int, Field(ge=0)]


class Adopt(Write):
    """Take names over from another expert; without groups, all that have no name yet."""

    source: Who
    groups: list[GroupId] = []


class Import(Write):
    """A table of names as text."""

    text: Annotated[str, Field(max_length=4 * 2**20)]


class Export(Asked):
    """Write an expert's names into cells.h5ad."""

    who: Who


class Setting(Asked):
    """How a person likes the page."""

    who: Who
    key: Annotated[str, Field(pattern=r"^[a-z_]{1,40}$")]
    value: Any


class Chosen(Asked):
    """Cells: of groups, or given as bits."""

    who: Who
    groups: list[GroupId] = []
    cells: Bits | None = None


class AskWhy(Asked):
    """Two sets of cells; without `second`, all others."""

    who: Who
    first: Chosen
    second: Chosen | None = None


class AskGallery(Asked):
    """Example cells."""

    chosen: Chosen
    kind: Literal["typical", "borderline", "random"] = "typical"
    channels: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=6)]
    count: Annotated[int, Field(ge=1, le=96)] = 24
    view_um: Annotated[float, Field(gt=0, le=400)] = 32.0
    seed: Annotated[int, Field(ge=0, le=2**31)] = 0


def rows_of_bits(text: str, cells: int) -> NDArray[np.uint32]:
    """Rows whose bit is set, in growing order.

    Raises
    ------
    InputError
        If these are not the bits of so many cells.
    """
    try:
        packed = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    except (binascii.Error, ValueError):
        raise InputError("the selection is not readable") from None
    if len(packed) != -(-cells // 8):
        raise InputError(
            "the selection is one of other cells", expected=f"{cells} bits", found=8 * len(packed)
        )
    bits = np.unpackbits(packed, bitorder="little")
    if bits[cells:].any():
        raise InputError("the selection is one of other cells")
    return np.flatnonzero(bits[:cells]).astype(np.uint32)
