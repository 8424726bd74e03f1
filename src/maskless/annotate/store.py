"""labels.sqlite: every operation of every expert, appended and flushed before it counts as saved.

Tables: ``clusterings`` (what the groups started from, with the cells' places, so that names find
their cells again after re-clustering), ``operations`` (append-only, guarded by triggers) and
``settings`` (how a person likes the page). SQLite runs with a write-ahead log and
``synchronous=FULL``: what was answered with "saved" survives a kill and a power cut.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskless.annotate.history import History, Operation, state_at
from maskless.annotate.labels import NO_PARTS, NO_ROWS, Change, Labels
from maskless.annotate.places import Clustering
from maskless.errors import MasklessError, StudyError

_FORMAT = 1
_SCHEMA = (
    "CREATE TABLE meta (format INTEGER NOT NULL)",
    "CREATE TABLE clusterings (id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE,"
    " at TEXT NOT NULL, ids TEXT NOT NULL, images TEXT NOT NULL, cells BLOB NOT NULL)",
    "CREATE TABLE operations (id INTEGER PRIMARY KEY AUTOINCREMENT, at TEXT NOT NULL,"
    " who TEXT NOT NULL, clustering INTEGER NOT NULL REFERENCES clusterings (id),"
    " kind TEXT NOT NULL, why TEXT NOT NULL, fields TEXT NOT NULL, targets TEXT NOT NULL,"
    " moved BLOB)",
    "CREATE TABLE settings (who TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,"
    " PRIMARY KEY (who, key))",
    "CREATE TRIGGER operations_stay BEFORE UPDATE ON operations"
    " BEGIN SELECT RAISE(ABORT, 'the history is append-only'); END",
    "CREATE TRIGGER operations_remain BEFORE DELETE ON operations"
    " BEGIN SELECT RAISE(ABORT, 'the history is append-only'); END",
)


class StaleError(MasklessError):
    """Somebody, or another tab, has changed the labels since they were looked at."""


class LabelStore:
    """The labels of one study.

    Parameters
    ----------
    file
        labels.sqlite, made if it is not there.
    clustering
        The clusters that the groups start from.

    Raises
    ------
    StudyError
        If the file cannot be opened or is no store of labels.
    """

    def __init__(self, file: Path, clustering: Clustering) -> None:
        self.file = file
        self.clustering = clustering
        self._lock = threading.RLock()
        self._histories: dict[str, History] = {}
        self._seen = 0
        with self._guarded():
            self._db = sqlite3.connect(
                file, isolation_level=None, check_same_thread=False, timeout=10
            )
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA foreign_keys=ON")
            with self._transaction():
                self._prepare()
            self._id = self._clustering_id()
            self._catch_up()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def experts(self) -> list[str]:
        """Everybody who has an operation on these clusters, in order of the first."""
        with self._lock:
            self._catch_up()
            return list(self._histories)

    def history(self, who: str) -> History:
        """Operations and state of an expert, up to date with the file. Not to be changed."""
        with self._lock:
            self._catch_up()
            return self._histories.get(who) or History(self._base())

    def state(self, who: str, version: int | None = None) -> Labels:
        """A copy of an expert's state, now or after operation number `version`."""
        with self._lock:
            history = self.history(who)
            if version is None:
                return history.labels.copy()
            return state_at(self._base(), history.operations, version)

    def add(
        self, who: str, kind: str, why: str, change: Change | None = None, *, revision: int | None
    ) -> Operation:
        """Append an operation; when this returns, it is on the disk.

        Parameters
        ----------
        who, kind, why, change
            See :class:`maskless.annotate.history.Operation`.
        revision
            The expert's last operation that the writer knew of; None = does not matter.

        Raises
        ------
        StaleError
            If `revision` is not the last one.
        InputError
            If the operation does not fit the state.
        StudyError
            If it cannot be written.
        """
        change = change or Change()
        with self._lock, self._guarded(), self._transaction():
            self._catch_up()
            history = self._histories.get(who) or History(self._base())
            if revision is not None and revision != history.revision:
                raise StaleError(
                    f"the labels of {who} have changed meanwhile (operation {history.revision}, "
                    f"this page knew {revision}). Look at them and do it again"
                )
            at = datetime.now(UTC).isoformat(timespec="milliseconds")
            cursor = self._db.execute(
                "INSERT INTO operations (at, who, clustering, kind, why, fields, targets, moved)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (at, who, self._id, kind, why, *_packed(change)),
            )
            operation = Operation(int(cursor.lastrowid or 0), at, who, kind, why, change)
            history.take(operation)
            try:
                self._db.execute("COMMIT")
            except sqlite3.Error:
                self._histories, self._seen = {}, 0  # to be read again from the file
                raise
            self._histories[who] = history
            self._seen = operation.id
            return operation

    def settings(self, who: str) -> dict[str, Any]:
        """How a person likes the page."""
        with self._lock:
            found = self._db.execute("SELECT key, value FROM settings WHERE who = ?", (who,))
            return {key: json.loads(value) for key, value in found}

    def set_setting(self, who: str, key: str, value: Any) -> None:
        """Remember how a person likes the page."""
        with self._lock, self._guarded():
            self._db.execute(
                "INSERT INTO settings VALUES (?, ?, ?)"
                " ON CONFLICT (who, key) DO UPDATE SET value = excluded.value",
                (who, key, json.dumps(value)),
            )

    def earlier(self) -> list[tuple[Clustering, dict[str, Labels]]]:
        """Other clusterings that have names, the one used last first, with everybody's state."""
        with self._lock:
            rows = self._db.execute(
                "SELECT c.id FROM clusterings c JOIN operations o ON o.clustering = c.id"
                " WHERE c.id != ? GROUP BY c.id ORDER BY max(o.id) DESC",
                (self._id,),
            ).fetchall()
            return [self._earlier(number) for (number,) in rows]

    def _earlier(self, number: int) -> tuple[Clustering, dict[str, Labels]]:
        ids, images, cells = self._db.execute(
            "SELECT ids, images, cells FROM clusterings WHERE id = ?", (number,)
        ).fetchone()
        clustering = Clustering.unpacked(json.loads(ids), json.loads(images), cells)
        histories: dict[str, History] = {}
        for operation in self._operations(number, 0):
            _take(histories, operation, clustering)
        return clustering, {who: history.labels for who, history in histories.items()}

    def _base(self) -> Labels:
        return Labels(self.clustering.ids, self.clustering.codes_n)

    def _prepare(self) -> None:
        tables = {row[0] for row in self._db.execute("SELECT name FROM sqlite_master")}
        if not tables:
            for statement in _SCHEMA:
                self._db.execute(statement)
            self._db.execute("INSERT INTO meta VALUES (?)", (_FORMAT,))
            return
        found = self._db.execute("SELECT format FROM meta").fetchone() if "meta" in tables else None
        if found != (_FORMAT,):
            raise StudyError(
                f"{self.file} is not a store of labels that this version of maskless knows. "
                "Update maskless, or move the file away"
            )

    def _clustering_id(self) -> int:
        mine = self.clustering
        with self._transaction():
            found = self._db.execute(
                "SELECT id FROM clusterings WHERE fingerprint = ?", (mine.fingerprint,)
            ).fetchone()
            if found:
                return int(found[0])
            cursor = self._db.execute(
                "INSERT INTO clusterings (fingerprint, at, ids, images, cells)"
                " VALUES (?, ?, ?, ?, ?)",
                (
                    mine.fingerprint,
                    datetime.now(UTC).isoformat(timespec="seconds"),
                    json.dumps(mine.ids),
                    json.dumps(mine.images),
                    mine.packed(),
                ),
            )
            return int(cursor.lastrowid or 0)

    def _catch_up(self) -> None:
        """Take in what other processes have written."""
        for operation in self._operations(self._id, self._seen):
            _take(self._histories, operation, self.clustering)
            self._seen = operation.id

    def _operations(self, clustering: int, after: int) -> list[Operation]:
        found = self._db.execute(
            "SELECT id, at, who, kind, why, fields, targets, moved FROM operations"
            " WHERE clustering = ? AND id > ? ORDER BY id",
            (clustering, after),
        )
        return [
            Operation(number, at, who, kind, why, _unpacked(fields, targets, moved))
            for number, at, who, kind, why, fields, targets, moved in found
        ]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Begin; commit unless it was done or failed."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            if self._db.in_transaction:
                self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StudyError(
                f"{self.file}: the labels cannot be read or written ({error}). Check free space "
                "and permissions; if the file is damaged, move it away"
            ) from error


def _take(histories: dict[str, History], operation: Operation, clustering: Clustering) -> None:
    if operation.who not in histories:
        histories[operation.who] = History(Labels(clustering.ids, clustering.codes_n))
    histories[operation.who].take(operation)


def _packed(change: Change) -> tuple[str, str, bytes | None]:
    moved = None
    if len(change.rows):
        # Steps between rows are small, so they shrink well.
        steps = np.diff(change.rows, prepend=np.uint32(0)).astype("<u4")
        moved = zlib.compress(steps.tobytes() + change.parts.astype("<u2").tobytes(), 1)
    fields: Mapping[str, Any] = change.fields
    return json.dumps(fields), json.dumps(change.targets), moved


def _unpacked(fields: str, targets: str, moved: bytes | None) -> Change:
    rows: NDArray[np.uint32] = NO_ROWS
    parts: NDArray[np.uint16] = NO_PARTS
    if moved is not None:
        content = zlib.decompress(moved)
        count = len(content) // 6
        rows = np.cumsum(np.frombuffer(content, "<u4", count), dtype=np.uint32)
        parts = np.frombuffer(content, "<u2", count, 4 * count).astype(np.uint16)
    return Change(json.loads(fields), tuple(json.loads(targets)), rows, parts)
