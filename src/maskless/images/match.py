"""Which channel of a file is which channel of the panel: tolerant of spelling, never a guess.

A channel of the panel is looked for by its name, then by its metal. Names are tried as they are
written, then without case and punctuation, then without isotopes in the label
(``CD11b_Sm149``), then without catalogue numbers (``Laminin_681((851))Sm147``). The first of these
that finds exactly one channel counts; several are an error, and so is a name that points at one
channel while the metal points at another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from maskless.errors import InputError
from maskless.images.header import FileChannel, Header
from maskless.images.image import Channel, Panel
from maskless.images.names import (
    bare_target_spelling,
    isotope,
    isotope_in,
    spelling,
    target_spelling,
)

_PLACEHOLDER = re.compile(r"(channel|chan|ch|c|image|page|plane)?[\s:_#-]*[0-9]+(:[0-9]+)*", re.I)
_SPELLINGS: tuple[Callable[[str], str], ...] = (
    str.strip,
    spelling,
    target_spelling,
    bare_target_spelling,
)


def match_panel(panel: Panel, header: Header) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Positions in the file of the panel's channels, and what was found wrong.

    Raises
    ------
    InputError
        If a channel is missing, ambiguous, or found twice.
    """
    problems: list[str] = []
    if not header.named:
        indices = _by_position(panel, header)
    elif _only_placeholders(header) and not _some_name_fits(panel, header):
        indices = _by_position(panel, header)
        problems.append(
            "The file does not name its channels "
            f"({header.channels[0].text}, ...): the panel's order was taken."
        )
    else:
        indices = tuple(_find(channel, header) for channel in panel.channels)
        for i, index in enumerate(indices):
            if index in indices[:i]:
                raise InputError(
                    "two channels of the panel fit the same channel of the file",
                    file=header.source,
                    image=header.name,
                    channel=panel.names[i],
                    found=f"{header.channels[index].text}, "
                    f"which also fits {panel.names[indices.index(index)]}",
                    do="Tell them apart by name or metal in the panel",
                )
    left_out = [c.text for i, c in enumerate(header.channels) if i not in set(indices)]
    if left_out:
        problems.append(
            f"{len(left_out)} channels of the file are not in the panel and were left out: "
            f"{_listed(left_out)}."
        )
    return indices, tuple(problems)


def _find(wanted: Channel, header: Header) -> int:
    by_name = _name_hits(wanted, header.channels)
    metal = isotope(wanted.metal, any_case=True) or wanted.metal or isotope_in(wanted.name)
    by_metal = [
        i
        for i, c in enumerate(header.channels)
        if metal and (spelling(c.metal) == spelling(metal) or spelling(c.label) == spelling(metal))
    ]
    if len(by_name) > 1 and by_metal:
        by_name = [i for i in by_name if i in by_metal] or by_name
    if len(by_metal) > 1 and by_name:
        by_metal = [i for i in by_metal if i in by_name] or by_metal
    hits = by_name or by_metal
    expected = wanted.name + (f" ({wanted.metal})" if wanted.metal else "")
    if not hits:
        raise InputError(
            "a channel of the panel is not in the file",
            file=header.source,
            image=header.name,
            channel=wanted.name,
            expected=expected,
            found=_listed([c.text for c in header.channels]),
            do="Correct the panel (name or metal as in the file), or leave the image out",
        )
    if len(hits) > 1:
        raise InputError(
            "a channel of the panel fits several channels of the file",
            file=header.source,
            image=header.name,
            channel=wanted.name,
            expected=expected,
            found=", ".join(header.channels[i].text for i in hits),
            do="Write the metal into the panel, or the label exactly as in the file",
        )
    found = header.channels[hits[0]]
    other_metal = (
        isotope(metal, any_case=True) and isotope(found.metal) and not by_metal and found.metal
    )
    if other_metal or (by_metal and hits[0] not in by_metal):
        elsewhere = header.channels[by_metal[0]].text if by_metal else "nowhere"
        raise InputError(
            "name and metal of the panel point at different channels",
            file=header.source,
            image=header.name,
            channel=wanted.name,
            expected=expected,
            found=f"{found.text} by name, {elsewhere} by metal",
            do="Correct the panel",
        )
    return hits[0]


def _name_hits(wanted: Channel, channels: Sequence[FileChannel]) -> list[int]:
    for spell in _SPELLINGS:
        names = {wanted.name.strip() if spell is str.strip else spelling(wanted.name)} - {""}
        hits = [i for i, c in enumerate(channels) if c.label and spell(c.label) in names]
        if hits:
            return hits
    return []


def _by_position(panel: Panel, header: Header) -> tuple[int, ...]:
    count = len(header.channels)
    positions = [channel.position for channel in panel.channels]
    if None in positions:
        if len(panel.channels) != count:
            raise InputError(
                "the file does not name its channels, and the panel has another number of them",
                file=header.source,
                image=header.name,
                expected=f"{len(panel.channels)} channels as in the panel",
                found=f"{count} in the file",
                do="Add a column 'channel' with positions from 0 to the panel, "
                "or check that the file is complete",
            )
        return tuple(range(count))
    for channel in panel.channels:
        if channel.position is not None and channel.position >= count:
            raise InputError(
                "the file has too few channels for the panel",
                file=header.source,
                image=header.name,
                channel=channel.name,
                expected=f"a channel at position {channel.position}",
                found=f"{count} channels, positions 0 to {count - 1}",
                do="Positions in the panel count from 0; is the file complete?",
            )
    return tuple(position for position in positions if position is not None)


def is_placeholder(label: str) -> bool:
    """Whether a label says nothing but a number, as in ``Channel:0:1``."""
    return not label or _PLACEHOLDER.fullmatch(label) is not None


def _only_placeholders(header: Header) -> bool:
    return all(not c.metal and is_placeholder(c.label) for c in header.channels)


def _some_name_fits(panel: Panel, header: Header) -> bool:
    return any(_name_hits(channel, header.channels) for channel in panel.channels)


def _listed(names: Sequence[str], most: int = 60) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
