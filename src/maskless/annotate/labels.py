"""Which group a cell belongs to and what a person calls the groups: the state of one expert.

n = cells. The state changes only by a `Change`, and every change gives back the `Patch` that takes
it away again, so that undo is exact: the state after ``revert`` equals the state before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskless.errors import InputError

UNNAMED = "unnamed"
OTHER = "other"
NO_ROWS: NDArray[np.uint32] = np.zeros(0, np.uint32)
NO_PARTS: NDArray[np.uint16] = np.zeros(0, np.uint16)


@dataclass(frozen=True)
class Group:
    """What a person says of a group of cells.

    Attributes
    ----------
    name
        Cell type; empty = not named.
    broad
        Broad class, such as "lymphocyte".
    notes
        Free text.
    color
        ``"#rrggbb"``; empty = by position.
    unsure
        Marked to be looked at again.
    by_image
        Names that hold in some images only.
    origin
        Where a group made by hand comes from.
    """

    name: str = ""
    broad: str = ""
    notes: str = ""
    color: str = ""
    unsure: bool = False
    by_image: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""

    def as_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


FIELDS = tuple(Group.__dataclass_fields__)


@dataclass(frozen=True, eq=False)
class Change:
    """Fields of groups to set, and cells to put into groups.

    Attributes
    ----------
    fields
        For each group the fields that change.
    targets
        Groups that receive cells; made if they are new.
    rows, parts
        Cells, and for each the position of its new group in `targets`.
    """

    fields: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    rows: NDArray[np.uint32] = field(default_factory=lambda: NO_ROWS)
    parts: NDArray[np.uint16] = field(default_factory=lambda: NO_PARTS)


@dataclass(frozen=True, eq=False)
class Patch:
    """What takes a change away again."""

    groups: Mapping[str, Group]
    new: int
    rows: NDArray[np.uint32]
    before: NDArray[np.int32]


class Labels:
    """Groups of cells with their names, starting from a clustering.

    Parameters
    ----------
    ids
        Names of the clusters.
    codes_n
        For each cell the position of its cluster in `ids`.
    """

    def __init__(self, ids: Sequence[str], codes_n: NDArray[Any]) -> None:
        self.ids = list(ids)
        self.groups = {name: Group() for name in ids}
        self.group_n = np.array(codes_n, dtype=np.int32)
        self.counts = np.bincount(self.group_n, minlength=len(self.ids)).astype(np.int64)
        self._digest = ""

    def copy(self) -> Labels:
        """A state of its own."""
        twin = Labels([], NO_ROWS)
        twin.ids, twin.groups = list(self.ids), dict(self.groups)
        twin.group_n, twin.counts = self.group_n.copy(), self.counts.copy()
        twin._digest = self._digest
        return twin

    def same_as(self, other: Labels) -> bool:
        """Whether groups, names and cells are all equal."""
        return (
            self.ids == other.ids
            and self.groups == other.groups
            and np.array_equal(self.group_n, other.group_n)
            and np.array_equal(self.counts, other.counts)
        )

    @property
    def cells_digest(self) -> str:
        """Changes when a cell changes its group."""
        if not self._digest:
            self._digest = hashlib.blake2b(self.group_n.data, digest_size=12).hexdigest()
        return self._digest

    def place(self, group: str) -> int:
        """Position of a group; raises InputError where there is none."""
        try:
            return self.ids.index(group)
        except ValueError:
            raise InputError("there is no such group", found=repr(group)[:80]) from None

    def rows_of(self, group: str) -> NDArray[np.uint32]:
        """Cells of a group, in order."""
        return np.flatnonzero(self.group_n == self.place(group)).astype(np.uint32)

    def free_id(self, stem: str) -> str:
        """A name for a new group: ``stem.1``, ``stem.2`` ..."""
        number = 1
        while f"{stem}.{number}" in self.groups:
            number += 1
        return f"{stem}.{number}"

    def apply(self, change: Change) -> Patch:
        """Change the state, and say how to take it back.

        Raises
        ------
        InputError
            If the change names unknown groups, fields or cells; nothing is changed then.
        """
        self._check(change)
        touched = dict.fromkeys([*change.targets, *change.fields])
        new = [name for name in touched if name not in self.groups]
        before = {name: self.groups[name] for name in touched if name in self.groups}
        for name in new:
            self.ids.append(name)
            self.groups[name] = Group()
        self.counts = np.concatenate([self.counts, np.zeros(len(new), np.int64)])
        for name, values in change.fields.items():
            self.groups[name] = replace(self.groups[name], **values)
        rows = change.rows
        codes_before = self.group_n[rows]
        if len(rows):
            places = np.array([self.ids.index(name) for name in change.targets], np.int32)
            self._put(rows, places[change.parts])
        return Patch(before, len(new), rows, codes_before)

    def revert(self, patch: Patch) -> None:
        """Take back the last change that was applied and not yet taken back."""
        if len(patch.rows):
            self._put(patch.rows, patch.before)
        if patch.new:
            for name in self.ids[-patch.new :]:
                del self.groups[name]
            del self.ids[-patch.new :]
            self.counts = self.counts[: -patch.new]
        self.groups.update(patch.groups)

    def phenotypes(self, images_n: NDArray[Any], images: Sequence[str], broad: bool = False) -> Any:
        """Name of each cell as codes and categories.

        Parameters
        ----------
        images_n, images
            For each cell the position of its image, and the images' names: a group may be called
            otherwise in some of them.
        broad
            The broad classes instead of the names.

        Returns
        -------
        codes_n, names
            int32 codes (n,), and the names in order of their first group; "unnamed" where no name
            was given.
        """
        names: dict[str, int] = {}
        groups = [self.groups[name] for name in self.ids]
        firsts = [(g.broad if broad else g.name) or UNNAMED for g in groups]
        used = self.counts > 0
        lookup = np.array(
            [
                names.setdefault(first, len(names)) if there else -1
                for first, there in zip(firsts, used, strict=True)
            ],
            np.int32,
        )
        codes = lookup[self.group_n] if len(lookup) else np.zeros(0, np.int32)
        if not broad:
            place = {image: i for i, image in enumerate(images)}
            for number, group in enumerate(groups):
                for image, name in group.by_image.items():
                    if name and image in place and used[number]:
                        here = (self.group_n == number) & (images_n == place[image])
                        codes[here] = names.setdefault(name, len(names))
        # A name that only stood for cells that an image calls otherwise is left out.
        kept = np.flatnonzero(np.bincount(codes, minlength=len(names)))
        order = np.full(len(names), -1, np.int32)
        order[kept] = np.arange(len(kept))
        every = list(names)
        return order[codes].astype(np.int32), [every[i] for i in kept]

    def difference_to(self, wanted: Labels) -> Change:
        """The change that brings this state to another one of the same cells."""
        fields: dict[str, dict[str, Any]] = {}
        for name in dict.fromkeys([*self.ids, *wanted.ids]):
            now, then = self.groups.get(name, Group()), wanted.groups.get(name, Group())
            changed = {f: getattr(then, f) for f in FIELDS if getattr(then, f) != getattr(now, f)}
            if changed:
                fields[name] = changed
        every = {name: i for i, name in enumerate([*self.ids, *wanted.ids])}
        now_n = np.array([every[n] for n in self.ids], np.int32)[self.group_n]
        then_n = np.array([every[n] for n in wanted.ids], np.int32)[wanted.group_n]
        rows = np.flatnonzero(now_n != then_n).astype(np.uint32)
        places, parts = np.unique(wanted.group_n[rows], return_inverse=True)
        targets = [wanted.ids[i] for i in places]
        targets += [name for name in wanted.ids if name not in self.groups and name not in targets]
        return Change(fields, tuple(targets), rows, parts.astype(np.uint16))

    def _put(self, rows: NDArray[np.uint32], codes: NDArray[np.int32]) -> None:
        size = len(self.ids)
        self.counts = self.counts - np.bincount(self.group_n[rows], minlength=size)
        self.group_n[rows] = codes
        self._digest = ""
        self.counts = self.counts + np.bincount(codes, minlength=size)

    def _check(self, change: Change) -> None:
        for name, values in change.fields.items():
            if name not in self.groups and name not in change.targets:
                raise InputError("there is no such group", found=repr(name)[:80])
            unknown = set(values) - set(FIELDS)
            if unknown:
                raise InputError("a group has no such field", found=", ".join(sorted(unknown))[:80])
        rows, parts = change.rows, change.parts
        if len(rows) != len(parts):
            raise InputError("each cell that is moved needs a target")
        if len(rows) and (
            int(rows[-1]) >= len(self.group_n)
            or (np.diff(rows.astype(np.int64)) <= 0).any()
            or int(parts.max()) >= len(change.targets)
        ):
            raise InputError("the cells to move are not cells of this study, each once, in order")
