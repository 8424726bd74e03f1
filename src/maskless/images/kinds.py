"""What a channel is good for, when the panel has no column ``kind``.

The rules, first match wins. A metal is *bare* when no target is named beside it: the name is
empty, is the metal itself (``"127I"``), or is a word for nothing (``"empty"``).

==============  ==================================================================================
kind            rule
==============  ==================================================================================
``background``  name begins with empty, blank, background, BCKG, unused or autofluorescence
``element``     name is the symbol, or the metal is bare: P, Na, Ca, K, Mg, S (tissue elements)
``background``  name is the symbol, or the metal is bare: Ar (ArAr80), Xe, I, Cs, Ba, Ce140, Y89,
                Os, Au, Hg, Pb, Bi, Ta, C, Si, Al, Fe, BCKG (gas, calibration, glass, substrate)
``nuclear``     DNA, DNA1, dsDNA, DAPI, Hoechst, HH3, H3, HistoneH3, Nuc, Nucleus, Nuclei, Nuclear,
                Intercalator, Iridium, SYTO, DRAQ5; or bare Ir191 or Ir193
``nuclear``     only if the rule above finds none in the whole panel: histone marks such as
                H3K27Ac, H3K9me3, H2AX or H4K16ac
``marker``      everything else; so a background metal that carries an antibody is a marker
==============  ==================================================================================

Symbols are compared with their case: ``Ar`` is argon, ``AR`` the androgen receptor.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from maskless.images.image import Kind
from maskless.images.names import (
    SYMBOLS,
    bare_target_spelling,
    isotope,
    isotope_in,
    spelling,
    target_spelling,
)

_NOTHING = re.compile(r"(empty|blank|background|bckg|bkg|unused|autofluo).*")
_NUCLEAR = re.compile(
    r"(ds)?dna[0-9]?|dapi[0-9]*|hoechst[0-9]*|(h|histone)h?3|hh3|nuc|nucleus|nuclei|nuclear"
    r"|(dna)?intercalator[0-9]*|iridium|syto[0-9]+|draq[0-9]"
)
_HISTONE_MARK = re.compile(r"(histone)?h(2a|2b|2ax|3|4)(x|z)?(k|s|r|t)?[0-9]*(ac|me|ph|p)?[0-9]*")
_ELEMENTS = frozenset({"P", "Na", "Ca", "K", "Mg", "S"})
_BACKGROUND = frozenset(
    {"Ar", "Xe", "I", "Cs", "Ba", "Os", "Au", "Hg", "Pb", "Bi", "Ta", "C", "Si", "Al", "Fe"}
)
_BACKGROUND_ISOTOPES = frozenset({"ArAr80", "Ce140", "Y89"})

_WRITTEN: dict[str, Kind] = {
    "marker": "marker", "protein": "marker", "antibody": "marker", "target": "marker",
    "nuclear": "nuclear", "nucleus": "nuclear", "nuclei": "nuclear", "dna": "nuclear",
    "histone": "nuclear",
    "background": "background", "empty": "background", "backgroundempty": "background",
    "emptybackground": "background", "blank": "background", "control": "background",
    "unused": "background",
    "element": "element", "tissueelement": "element",
}  # fmt: skip


def written_kind(text: str) -> Kind | None:
    """The kind that a cell of the column ``kind`` means, None if it is not understood."""
    return _WRITTEN.get(spelling(text))


def recognise(
    names: Sequence[str], metals: Sequence[str], nuclear_known: bool = False
) -> list[Kind]:
    """The kind of each channel by the rules of this module.

    Parameters
    ----------
    names, metals
        Of the channels of one panel; metals may be empty.
    nuclear_known
        Whether a person marked nuclear channels; histone marks are then markers.
    """
    kinds = [_one(name, metal) for name, metal in zip(names, metals, strict=True)]
    if "nuclear" not in kinds and not nuclear_known:
        kinds = [
            "nuclear" if kind == "marker" and _HISTONE_MARK.fullmatch(_target(name)) else kind
            for kind, name in zip(kinds, names, strict=True)
        ]
    return kinds


def _target(name: str) -> str:
    return bare_target_spelling(name) if isotope_in(name) else spelling(name)


def _one(name: str, metal: str) -> Kind:
    target = target_spelling(name)
    if target and _NOTHING.fullmatch(target):
        return "background"
    found = isotope(metal, any_case=True) or isotope_in(name)
    symbol = name.strip() if name.strip() in SYMBOLS else ""
    if not target or (symbol and (not found or found.startswith(symbol))):
        symbol = symbol or found.rstrip("0123456789")
        if symbol in _ELEMENTS:
            return "element"
        if symbol in _BACKGROUND or found in _BACKGROUND_ISOTOPES or symbol == "BCKG":
            return "background"
        if symbol == "Ir":
            return "nuclear"
    return "nuclear" if _NUCLEAR.fullmatch(_target(name)) else "marker"
