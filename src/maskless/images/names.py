"""Names of channels: isotopes, and spellings that mean the same.

A label such as ``"CD11b_Sm149"`` or ``"152Sm-CD45_152Sm"`` holds a target and an isotope; both
are found here, so that panels and files can be matched without guessing.
"""

from __future__ import annotations

import re
import unicodedata

# Masses that occur as isotope tags, backgrounds or tissue elements. The masses keep "CD45", "P53"
# or "S100" from being taken for isotopes.
_MASSES: dict[str, tuple[int, int]] = {
    "C": (12, 13), "Na": (23, 23), "Mg": (24, 26), "Al": (27, 27), "Si": (28, 30), "P": (31, 31),
    "S": (32, 34), "Cl": (35, 37), "Ar": (36, 40), "ArAr": (80, 80), "K": (39, 41),
    "Ca": (40, 48), "Fe": (54, 58), "Cu": (63, 65), "Zn": (64, 70), "Y": (89, 89),
    "Zr": (90, 96), "Ru": (96, 104), "Rh": (103, 103), "Pd": (102, 110), "Ag": (107, 109),
    "Cd": (106, 116), "In": (113, 115), "Sn": (112, 124), "Te": (120, 130), "I": (127, 127),
    "Xe": (124, 136), "Cs": (133, 133), "Ba": (130, 138), "La": (138, 139), "Ce": (136, 142),
    "Pr": (141, 141), "Nd": (142, 150), "Sm": (144, 154), "Eu": (151, 153), "Gd": (152, 160),
    "Tb": (159, 159), "Dy": (156, 164), "Ho": (165, 165), "Er": (162, 170), "Tm": (169, 169),
    "Yb": (168, 176), "Lu": (175, 176), "Hf": (174, 180), "Ta": (180, 181), "W": (180, 186),
    "Re": (185, 187), "Os": (184, 192), "Ir": (191, 193), "Pt": (190, 198), "Au": (197, 197),
    "Hg": (196, 204), "Tl": (203, 205), "Pb": (204, 208), "Bi": (209, 209), "BCKG": (1, 260),
}  # fmt: skip
_BY_FOLDED = {symbol.casefold(): symbol for symbol in _MASSES}
SYMBOLS = frozenset(_MASSES) - {"ArAr", "BCKG"}

_SYMBOL_FIRST = re.compile(r"\(?([A-Za-z]{1,4})\)?[-_ ]?\(?([0-9]{1,3})\)?(?:[-_]?Di)?")
_MASS_FIRST = re.compile(r"\(?([0-9]{1,3})\)?[-_ ]?\(?([A-Za-z]{1,4}?)\)?(?:[-_]?Di)?")

_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "κ": "kappa",
    "λ": "lambda", "μ": "mu", "ζ": "zeta", "η": "eta", "θ": "theta",
}  # fmt: skip


def isotope(text: str, *, any_case: bool = False) -> str:
    """Canonical isotope such as ``"Sm149"`` if `text` is nothing but one, else ``""``.

    Understood are ``Sm149``, ``149Sm``, ``Sm(149)``, ``Sm-149`` and ``Sm149Di``. Upper and lower
    case tell cadmium from CD markers, so `any_case` is only for texts known to be metals.
    """
    text = text.strip()
    if match := _SYMBOL_FIRST.fullmatch(text):
        symbol, mass = match.group(1), int(match.group(2))
    elif match := _MASS_FIRST.fullmatch(text):
        symbol, mass = match.group(2), int(match.group(1))
    else:
        return ""
    if any_case:
        symbol = _BY_FOLDED.get(symbol.casefold(), "")
    low, high = _MASSES.get(symbol, (1, 0))
    return f"{symbol}{mass}" if low <= mass <= high else ""


def words(label: str) -> list[str]:
    """The runs of letters and digits in a label."""
    return [word for word in re.split(r"[\W_]+", label) if word]


def isotope_in(label: str) -> str:
    """The one isotope that a label names, or ``""`` if it names none or several."""
    found = {isotope(label)} | {isotope(word) for word in words(label)}
    found.discard("")
    return found.pop() if len(found) == 1 else ""


def spelling(text: str) -> str:
    """`text` without case, punctuation and spaces, Greek letters written out."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    folded = "".join(_GREEK.get(letter, letter) for letter in folded)
    return "".join(letter for letter in folded if letter.isalnum()) or folded.strip()


def target_spelling(label: str) -> str:
    """:func:`spelling` of a label without the isotopes in it; may be empty."""
    if isotope(label):
        return ""
    rest = [word for word in words(label) if not isotope(word)]
    return spelling(" ".join(rest)) if rest else ""


def bare_target_spelling(label: str) -> str:
    """:func:`target_spelling` without catalogue numbers, as in ``Laminin_681((851))Sm147``."""
    rest = [word for word in words(label) if not isotope(word) and not word.isdigit()]
    return spelling(" ".join(rest)) if rest and not isotope(label) else ""
