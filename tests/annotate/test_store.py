"""labels.sqlite: saved is saved, stale writes are refused, names survive re-clustering."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from annotate.helpers import clustering
from maskless.annotate.history import REDO, UNDO
from maskless.annotate.labels import Change
from maskless.annotate.places import Clustering, carried_over, matching_rows
from maskless.annotate.store import LabelStore, StaleError
from maskless.errors import InputError, StudyError

AWKWARD = ["<b>bold</b>", "'\"\\", "\u202eright to left", "=1+1", "x" * 10_000, " spaces ", "日本"]


def named(group: str, name: str) -> Change:
    return Change({group: {"name": name}})


def test_everything_comes_back_after_reopening(tmp_path: Path) -> None:
    store = LabelStore(tmp_path / "labels.sqlite", clustering())
    for number, name in enumerate(AWKWARD):
        store.add("ann", "name", "", named(str(number % 6), name), revision=None)
    rows = store.history("ann").labels.rows_of("1")
    store.add(
        "ann", "merge", "", Change({}, ("0",), rows, np.zeros(len(rows), np.uint16)), revision=None
    )
    store.add("ann", UNDO, "", revision=None)
    store.add("ann", REDO, "", revision=None)
    store.add("bob", "name", "", named("0", "T"), revision=0)
    before = store.state("ann")
    store.close()
    again = LabelStore(tmp_path / "labels.sqlite", clustering())
    assert again.state("ann").same_as(before)
    assert again.experts() == ["ann", "bob"]
    assert [o.change.fields for o in again.history("ann").operations[: len(AWKWARD)]] == [
        {str(i % 6): {"name": name}} for i, name in enumerate(AWKWARD)
    ]
    assert again.state("ann", version=1).groups["0"].name == AWKWARD[0]
    assert again.state("ann", version=1).groups["1"].name == ""


def test_a_stale_write_is_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    one = LabelStore(tmp_path / "labels.sqlite", clustering())
    two = LabelStore(tmp_path / "labels.sqlite", clustering())  # another process
    known = one.history("ann").revision
    two.add("ann", "name", "", named("0", "from two"), revision=known)
    with pytest.raises(StaleError, match="changed meanwhile"):
        one.add("ann", "name", "", named("0", "from one"), revision=known)
    assert one.state("ann").groups["0"].name == "from two"
    one.add("ann", "name", "", named("0", "again"), revision=one.history("ann").revision)
    assert two.state("ann").groups["0"].name == "again"
    assert len(two.history("ann").operations) == 2


def test_a_refused_operation_leaves_no_trace(tmp_path: Path) -> None:
    store = LabelStore(tmp_path / "labels.sqlite", clustering())
    with pytest.raises(InputError):
        store.add("ann", "name", "", named("nowhere", "x"), revision=None)
    with pytest.raises(InputError):
        store.add("ann", UNDO, "", revision=None)
    assert store.history("ann").operations == []
    assert sqlite3.connect(store.file).execute("SELECT count(*) FROM operations").fetchone() == (0,)


def test_the_history_cannot_be_changed(tmp_path: Path) -> None:
    store = LabelStore(tmp_path / "labels.sqlite", clustering())
    store.add("ann", "name", "", named("0", "B"), revision=0)
    other = sqlite3.connect(store.file)
    for statement in ("DELETE FROM operations", "UPDATE operations SET who = 'x'"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            other.execute(statement)


def test_the_file_is_written_through(tmp_path: Path) -> None:
    store = LabelStore(tmp_path / "labels.sqlite", clustering())
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


@pytest.mark.parametrize("content", [b"", b"no database at all, just words" * 40])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "labels.sqlite"
    file.write_bytes(content)
    if not content:  # SQLite takes an empty file for a new database
        assert LabelStore(file, clustering()).experts() == []
        return
    with pytest.raises(StudyError, match=r"labels\.sqlite"):
        LabelStore(file, clustering())


def test_a_store_of_another_program_or_time_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "labels.sqlite"
    LabelStore(file, clustering()).close()
    other = sqlite3.connect(file)
    other.execute("UPDATE meta SET format = 99")
    other.commit()
    with pytest.raises(StudyError, match="Update maskless"):
        LabelStore(file, clustering())


_WRITER = """
import sys
from pathlib import Path
from annotate.helpers import clustering
from maskless.annotate.labels import Change
from maskless.annotate.store import LabelStore
store = LabelStore(Path(sys.argv[1]), clustering())
for number in range(100000):
    store.add("ann", "name", "", Change({"0": {"name": f"name {number}"}}), revision=None)
    print(number, flush=True)
"""


@pytest.mark.parametrize("after", [1, 7, 30])
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, after: int) -> None:
    file = tmp_path / "labels.sqlite"
    tests = str(Path(__file__).resolve().parents[1])
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(file)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": tests},
    )
    assert process.stdout is not None
    said = -1
    for line in process.stdout:
        said = int(line)
        if said >= after:
            break
    os.kill(process.pid, signal.SIGKILL)
    said = max([said, *(int(line) for line in process.stdout.read().split())])
    process.wait()
    process.stdout.close()
    history = LabelStore(file, clustering()).history("ann")
    assert len(history.operations) in (said + 1, said + 2)  # at most one was not told yet
    assert history.labels.groups["0"].name == f"name {len(history.operations) - 1}"


def test_settings_are_remembered_for_each_person(tmp_path: Path) -> None:
    store = LabelStore(tmp_path / "labels.sqlite", clustering())
    store.set_setting("ann", "order", ["2", "1"])
    store.set_setting("ann", "order", ["1", "2"])
    assert store.settings("ann") == {"order": ["1", "2"]}
    assert store.settings("bob") == {}


def test_going_back_to_an_earlier_clustering_finds_its_names(tmp_path: Path) -> None:
    file = tmp_path / "labels.sqlite"
    first = LabelStore(file, clustering(0))
    first.add("ann", "name", "", named("0", "B"), revision=0)
    first.close()
    second = LabelStore(file, clustering(1))
    assert second.experts() == []
    ((old, states),) = second.earlier()
    assert old.fingerprint == clustering(0).fingerprint
    assert states["ann"].groups["0"].name == "B"
    second.close()
    assert LabelStore(file, clustering(0)).state("ann").groups["0"].name == "B"


def _two_clusterings() -> tuple[Clustering, Clustering]:
    """The second splits cluster 0, shuffles the cells, joins 1 and 2 unequally, has an odd one."""
    rng = np.random.default_rng(3)
    yx = rng.permutation(40_000)[:400].astype(np.float32)
    places = np.column_stack([yx // 200 * 10, yx % 200 * 10])
    codes = np.repeat([0, 1, 2, 3], 100).astype(np.int32)
    images = np.zeros(400, np.int32)
    old = Clustering(tuple("0123"), codes, ("a",), images, places)
    new_codes = np.repeat([5, 0, 1, 1, 2, 3, 4], [60, 40, 100, 40, 60, 50, 50]).astype(np.int32)
    mixed = rng.permutation(400)
    jitter = rng.uniform(-1, 1, (400, 2)).astype(np.float32)
    new = Clustering(tuple("012345"), new_codes[mixed], ("a",), images, (places + jitter)[mixed])
    return old, new


def test_names_are_carried_over_by_overlap_and_doubtful_ones_are_flagged(tmp_path: Path) -> None:
    old, new = _two_clusterings()
    file = tmp_path / "labels.sqlite"
    store = LabelStore(file, old)
    change = Change({"0": {"name": "B", "broad": "L"}, "1": {"name": "T"}, "2": {"name": "NK"}})
    store.add("ann", "name", "", change, revision=0)
    carried = carried_over(old, store.state("ann"), new)
    fields = json.loads(json.dumps(carried.fields))
    assert fields["0"]["name"] == fields["5"]["name"] == "B"
    assert fields["0"]["broad"] == "L"
    assert not fields["0"]["unsure"]
    assert fields["1"]["name"] == "T"  # 100 of 140 cells
    assert fields["1"]["unsure"]
    assert "T 71%, NK 29%" in fields["1"]["notes"]
    assert fields["2"]["name"] == "NK"
    assert "3" not in fields  # nobody had named these
    assert "4" not in fields


def test_cells_are_found_again_by_place_only_in_their_image() -> None:
    old, new = _two_clusterings()
    rows = matching_rows(old, new)
    assert np.linalg.norm(old.yx_n2[rows] - new.yx_n2, axis=1).max() < 2
    assert (matching_rows(old, old) == np.arange(400)).all()
    elsewhere = Clustering(new.ids, new.codes_n, ("b",), new.images_n, new.yx_n2)
    assert (matching_rows(old, elsewhere) == -1).all()
    assert carried_over(old, LabelStore(Path(":memory:"), old).state("x"), elsewhere).fields == {}
