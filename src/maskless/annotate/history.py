"""One expert's operations in order, folded into a state: do, undo, redo.

Undo and redo are operations like any other, so the history only grows. An undo takes back the last
operation that is in force; a redo brings back the last one taken back, until something new is done.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from maskless.annotate.labels import Change, Labels, Patch
from maskless.errors import InputError

UNDO, REDO, VERSION = "undo", "redo", "version"


@dataclass(frozen=True, eq=False)
class Operation:
    """One line of the history.

    Attributes
    ----------
    id
        Grows with every operation of the study.
    at
        When, ISO 8601 in UTC.
    who
        The expert.
    kind
        "name", "merge", "move", "split", "import", "carry", "restore", "undo", "redo", "version".
    why
        A sentence for people.
    change
        What it does; nothing for undo, redo and version.
    """

    id: int
    at: str
    who: str
    kind: str
    why: str
    change: Change = field(default_factory=Change)


@dataclass
class History:
    """Operations of one expert on one clustering, and the state they lead to.

    Attributes
    ----------
    labels
        The state after all of them.
    operations
        All of them, in order.
    """

    labels: Labels
    operations: list[Operation] = field(default_factory=list)
    _done: list[tuple[Operation, Patch]] = field(default_factory=list)
    _undone: list[Operation] = field(default_factory=list)

    @property
    def revision(self) -> int:
        """Number of the last operation; 0 before the first."""
        return self.operations[-1].id if self.operations else 0

    @property
    def in_force(self) -> set[int]:
        """Numbers of the operations that are not taken back."""
        return {operation.id for operation, _ in self._done}

    @property
    def next_undo(self) -> Operation | None:
        """What undo would take back."""
        return self._done[-1][0] if self._done else None

    @property
    def next_redo(self) -> Operation | None:
        """What redo would bring back."""
        return self._undone[-1] if self._undone else None

    def take(self, operation: Operation) -> None:
        """Add an operation and bring the state up to date.

        Raises
        ------
        InputError
            If it does not fit the state; nothing is changed then.
        """
        if operation.kind == UNDO:
            if not self._done:
                raise InputError("there is nothing to undo")
            last, patch = self._done.pop()
            self.labels.revert(patch)
            self._undone.append(last)
        elif operation.kind == REDO:
            if not self._undone:
                raise InputError("there is nothing to redo")
            again = self._undone[-1]
            self._done.append((again, self.labels.apply(again.change)))
            self._undone.pop()
        elif operation.kind != VERSION:
            self._done.append((operation, self.labels.apply(operation.change)))
            self._undone.clear()
        self.operations.append(operation)


def state_at(base: Labels, operations: Iterable[Operation], last: int) -> Labels:
    """The state after operation number `last`."""
    history = History(base.copy())
    for operation in operations:
        if operation.id > last:
            break
        history.take(operation)
    return history.labels
