"""The spillover matrix of an instrument: checked, named by metals, fitted to a panel.

Axes: E = emitting metals, R = receiving channels, C = channels of a panel.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.images.image import Channel, Panel
from maskless.images.names import SYMBOLS, isotope, isotope_in

Cause = Literal["isotope", "abundance", "oxide", ""]
OXYGEN = 16

_DIAGONAL_TOLERANCE = 1e-6
_LARGEST_ROW = 1.0
_NAMED_PAIRS = 12


def cause_of_spill(emitter: str, receiver: str) -> Cause:
    """Why a metal may be counted in another's channel, as in Chevrier et al. 2018.

    Parameters
    ----------
    emitter, receiver
        Isotopes such as ``"Dy162"``.

    Returns
    -------
    cause
        ``"isotope"``: same element, impurities of the isotope; ``"abundance"``: a mass more or
        less, tails of the peak; ``"oxide"``: 16 masses more; ``""``: none, or not two isotopes.
    """
    one, other = (re.fullmatch(r"([A-Za-z]+)(\d+)", name) for name in (emitter, receiver))
    if one is None or other is None or emitter == receiver:
        return ""
    if not {one[1], other[1]} <= SYMBOLS:  # empty channels, dimers of argon
        return ""
    step = int(other[2]) - int(one[2])
    if one[1] == other[1]:
        return "isotope"
    return "abundance" if abs(step) == 1 else "oxide" if step == OXYGEN else ""


def metal_name(text: str) -> str:
    """``"Dy161"`` for Dy161, 161Dy, Dy161Di and the like; other names as they are."""
    text = " ".join(text.split())
    return isotope(text, any_case=True) or text


class Adapted(NamedTuple):
    """A matrix for the channels of a panel.

    Attributes
    ----------
    shares_cc
        Row = emitting, column = receiving channel; diagonal 1.
    pairs
        Off-diagonal shares above 0.
    problems
        What cannot be compensated, a sentence each.
    """

    shares_cc: NDArray[np.float64]
    pairs: int
    problems: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class SpilloverMatrix:
    """Share of each metal's signal that each channel counts.

    Attributes
    ----------
    emitters, receivers
        Metals of rows and columns, in any accepted spelling; kept as ``"Dy161"``. Every emitter is
        a receiver too.
    shares_er
        >= 0, 1 where emitter and receiver are the same, shape (E, R).
    source
        The file it came from; errors name it.

    Raises
    ------
    InputError
        If a metal stands there twice, a share is NaN, infinite or negative, the diagonal is not 1,
        or a metal spills more than it keeps.
    """

    emitters: tuple[str, ...]
    receivers: tuple[str, ...]
    shares_er: NDArray[np.float64]
    source: Path | None = None

    def __post_init__(self) -> None:
        for key in ("emitters", "receivers"):
            object.__setattr__(self, key, tuple(metal_name(name) for name in getattr(self, key)))
        object.__setattr__(self, "shares_er", np.asarray(self.shares_er, dtype=np.float64))
        self._check_names()
        self._check_shares()

    def share(self, emitter: str, receiver: str) -> float:
        """Share of one metal in one channel; raises InputError where it was not measured."""
        row, column = metal_name(emitter), metal_name(receiver)
        if row not in self.emitters or column not in self.receivers:
            raise InputError(
                "the spillover matrix does not hold this pair",
                file=self.source,
                found=f"{emitter} to {receiver}",
            )
        return float(self.shares_er[self.emitters.index(row), self.receivers.index(column)])

    def adapted(self, panel: Panel | Sequence[str]) -> Adapted:
        """The matrix for the channels of a panel, by metal.

        Channels that the matrix lacks keep their counts (identity); metals that the panel lacks
        are dropped.

        Parameters
        ----------
        panel
            Channels with their metals, or the metals themselves.

        Raises
        ------
        InputError
            If two channels have the same metal, or none has a metal of the matrix.
        """
        channels = panel.channels if isinstance(panel, Panel) else [Channel(m, m) for m in panel]
        metals = [metal_name(c.metal) or isotope_in(c.name) or c.name for c in channels]
        for metal in metals:
            if metals.count(metal) > 1:
                raise InputError("two channels of the panel have the same metal", channel=metal)
        if not set(metals) & set(self.emitters):
            raise InputError(
                "the spillover matrix holds none of the panel's metals",
                file=self.source,
                expected=f"some of {', '.join(metals)}",
                found=", ".join(self.emitters),
                do="Give the panel's metals (column metal of panel.csv), or another matrix",
            )
        shares_cc = np.eye(len(metals))
        place = {metal: position for position, metal in enumerate(metals)}
        rows = [e for e, metal in enumerate(self.emitters) if metal in place]
        columns = [r for r, metal in enumerate(self.receivers) if metal in place]
        shares_cc[
            np.ix_(
                [place[self.emitters[e]] for e in rows], [place[self.receivers[r]] for r in columns]
            )
        ] = self.shares_er[np.ix_(rows, columns)]
        pairs = int(np.count_nonzero(shares_cc)) - len(metals)
        seen = [metal for metal, c in zip(metals, channels, strict=True) if c.used]
        return Adapted(shares_cc, pairs, self._lacking(metals, seen))

    def _lacking(self, metals: Sequence[str], seen: Sequence[str]) -> tuple[str, ...]:
        """Pairs of the panel that may spill and that the matrix says nothing about.

        Receivers are those that the encoder sees.
        """
        unmeasured = [
            f"{emitter} into {receiver}"
            for emitter in metals
            for receiver in seen
            if cause_of_spill(emitter, receiver)
            and (emitter not in self.emitters or receiver not in self.receivers)
        ]
        if not unmeasured:
            return ()
        named = ", ".join(unmeasured[:_NAMED_PAIRS])
        if len(unmeasured) > _NAMED_PAIRS:
            named += f" and {len(unmeasured) - _NAMED_PAIRS} more"
        return (
            f"The spillover matrix lacks {len(unmeasured)} of the panel's pairs of neighbours, "
            f"which are not compensated: {named}.",
        )

    def _check_names(self) -> None:
        if not self.emitters:
            raise InputError("the spillover matrix is empty", file=self.source)
        for what, names in (("rows", self.emitters), ("columns", self.receivers)):
            for name in names:
                if not name:
                    raise InputError(f"one of the {what} has no name", file=self.source)
                if names.count(name) > 1:
                    raise InputError(
                        f"two {what} of the spillover matrix have the same metal",
                        file=self.source,
                        channel=name,
                    )
        if missing := [name for name in self.emitters if name not in self.receivers]:
            raise InputError(
                "a row of the spillover matrix has no column of its own metal",
                file=self.source,
                channel=missing[0],
                expected="rows = emitting metals, columns = receiving channels",
            )
        if self.shares_er.shape != (len(self.emitters), len(self.receivers)):
            raise InputError(
                "the spillover matrix does not fit its names",
                file=self.source,
                expected=f"{len(self.emitters)} x {len(self.receivers)} shares",
                found=f"shape {self.shares_er.shape}",
            )

    def _check_shares(self) -> None:
        for what, bad in (
            ("is missing, NaN or infinite", ~np.isfinite(self.shares_er)),
            ("is negative", ~(self.shares_er >= 0)),
        ):
            if bad.any():
                row, column = np.argwhere(bad)[0]
                raise InputError(
                    f"the share of {self.emitters[row]} in {self.receivers[column]} {what}",
                    file=self.source,
                    expected="a number >= 0",
                    found=self.shares_er[row, column],
                )
        for row, name in enumerate(self.emitters):
            own = self.shares_er[row, self.receivers.index(name)]
            if abs(own - 1) > _DIAGONAL_TOLERANCE:
                raise InputError(
                    "the diagonal of the spillover matrix is not 1",
                    file=self.source,
                    channel=name,
                    expected=1,
                    found=f"{own:g}",
                    do="Divide each row by its metal's own share (percentages by 100)",
                )
            spilled = float(self.shares_er[row].sum() - own)
            if spilled > _LARGEST_ROW:
                raise InputError(
                    "a metal spills more than it keeps",
                    file=self.source,
                    channel=name,
                    expected=f"shares in other channels that add up to {_LARGEST_ROW:g} at most",
                    found=f"{spilled:.3g}",
                )
