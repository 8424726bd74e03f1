"""Requests that change labels: each becomes one operation of the history, with a plain sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskless.annotate import asked
from maskless.annotate.history import VERSION, Operation
from maskless.annotate.labels import Change, Labels
from maskless.annotate.session import Session
from maskless.annotate.spreadsheet import from_csv
from maskless.errors import InputError

_SHOWN = 60


def set_fields(session: Session, ask: asked.SetFields) -> Operation:
    """Name groups, or set colours, notes, marks."""
    labels = session.store.history(ask.who).labels
    values = ask.fields.model_dump(exclude_none=True)
    if not values:
        raise InputError("nothing is said of the groups")
    if not ask.images:
        fields = {group: values for group in ask.groups}
    else:
        if set(values) != {"name"}:
            raise InputError("only the name can differ between images")
        known = set(session.cells.clustering.images)
        for image in ask.images:
            if image not in known:
                raise InputError("there is no such image", image=image)
        here = dict.fromkeys(ask.images, values["name"])
        fields = {}
        for group in ask.groups:
            labels.place(group)
            by_image = {**labels.groups[group].by_image, **here}
            fields[group] = {"by_image": {i: n for i, n in by_image.items() if n}}
    what = ", ".join(f"{field} {_short(value)}" for field, value in values.items())
    where = f" in {_listed(ask.images)}" if ask.images else ""
    return _add(session, ask, "name", f"{_listed(ask.groups)}: {what}{where}", Change(fields))


def merge(session: Session, ask: asked.Merge) -> Operation:
    """Put groups together."""
    labels = session.store.history(ask.who).labels
    labels.place(ask.into)
    places = [labels.place(group) for group in ask.groups if group != ask.into]
    rows = np.flatnonzero(np.isin(labels.group_n, places)).astype(np.uint32)
    change = _all_into(ask.into, rows)
    others = [group for group in ask.groups if group != ask.into]
    return _add(session, ask, "merge", f"{_listed(others)} merged into {ask.into}", change)


def move(session: Session, ask: asked.Move) -> Operation:
    """Put selected cells into a group or a new one."""
    labels = session.store.history(ask.who).labels
    rows = asked.rows_of_bits(ask.cells, session.cells.count)
    if not len(rows):
        raise InputError("no cell is selected")
    target = ask.into or labels.free_id("selection")
    if ask.into:
        labels.place(ask.into)
    fields: dict[str, dict[str, Any]] = {}
    if not ask.into:
        fields[target] = {"origin": f"{len(rows)} selected cells"}
    if ask.name:
        fields.setdefault(target, {})["name"] = ask.name
    change = Change(fields, (target,), rows, np.zeros(len(rows), np.uint16))
    return _add(session, ask, "move", f"{len(rows)} cells moved to {target}", change)


def split_by_marker(session: Session, ask: asked.SplitByMarker) -> Operation:
    """Part a group at a threshold of a marker."""
    labels = session.store.history(ask.who).labels
    if ask.marker not in session.cells.markers:
        raise InputError("there is no such marker", channel=ask.marker)
    rows = labels.rows_of(ask.group)
    column = session.cells.markers.index(ask.marker)
    high = rows[session.cells.activations_nm[rows, column] > ask.above]
    if len(high) in (0, len(rows)):
        raise InputError(
            f"the threshold parts nothing: {len(high)} of {len(rows)} cells lie above it",
            channel=ask.marker,
        )
    target = labels.free_id(ask.group)
    origin = f"{ask.group} with {ask.marker} above {ask.above:g}"
    fields = {target: {"origin": origin, "broad": labels.groups[ask.group].broad}}
    change = Change(fields, (target,), high, np.zeros(len(high), np.uint16))
    return _add(session, ask, "split", f"{len(high)} cells: {origin}, now {target}", change)


def apply_split(session: Session, ask: asked.ApplySplit) -> Operation:
    """Make groups of what a job found; cells in parts that are too small stay where they are."""
    job = session.jobs.job(ask.job)
    if job.parts is None:
        raise InputError("this split is not done", found=job.state)
    labels = session.store.history(ask.who).labels.copy()
    inside = job.parts >= 0
    count = int(job.parts.max()) + 1 if inside.any() else 0
    if count < 2:
        raise InputError("the split found one part only: there is nothing to divide")
    targets = []
    for _ in range(count):
        targets.append(labels.free_id(job.group))
        labels.apply(Change({}, (targets[-1],)))
    broad = labels.groups[job.group].broad if job.group in labels.groups else ""
    fields = {name: {"origin": f"split of {job.group}", "broad": broad} for name in targets}
    change = Change(fields, tuple(targets), job.rows[inside], job.parts[inside].astype(np.uint16))
    told = f"{job.group} split into {_listed(targets)}"
    return _add(session, ask, "split", told, change)


def step(session: Session, ask: asked.Step) -> Operation:
    """Undo or redo."""
    history = session.store.history(ask.who)
    last = history.next_undo if ask.kind == "undo" else history.next_redo
    return session.store.add(ask.who, ask.kind, last.why if last else "", revision=ask.revision)


def version(session: Session, ask: asked.Version) -> Operation:
    """Name the state as it is."""
    return session.store.add(ask.who, VERSION, ask.name, revision=ask.revision)


def restore(session: Session, ask: asked.Restore) -> Operation:
    """Go back to the state after an operation; this can be undone as well."""
    now = session.store.state(ask.who)
    then = session.store.state(ask.who, ask.operation)
    change = now.difference_to(then)
    return _add(session, ask, "restore", f"back to operation {ask.operation}", change)


def adopt(session: Session, ask: asked.Adopt) -> Operation:
    """Take another expert's names over."""
    mine = session.store.history(ask.who).labels
    theirs = session.store.history(ask.source).labels
    fields = {}
    for group in ask.groups or mine.ids:
        if group not in mine.groups or group not in theirs.groups:
            continue
        given, own = theirs.groups[group], mine.groups[group]
        if given.name and (ask.groups or not own.name):
            fields[group] = {
                "name": given.name,
                "broad": given.broad,
                "by_image": dict(given.by_image),
            }
    if not fields:
        raise InputError(f"{ask.source} has no names to take over")
    told = f"{len(fields)} names taken over from {ask.source}"
    return _add(session, ask, "name", told, Change(fields))


def import_table(session: Session, ask: asked.Import) -> tuple[Operation, list[str]]:
    """Names from a table; also the clusters of the table that are not there."""
    labels: Labels = session.store.history(ask.who).labels
    fields, unknown = from_csv(ask.text, labels)
    for values in fields.values():
        asked.Fields.model_validate({k: v for k, v in values.items() if k != "by_image"})
    told = f"{len(fields)} groups from a table"
    return _add(session, ask, "import", told, Change(fields)), unknown


def _add(session: Session, ask: asked.Write, kind: str, why: str, change: Change) -> Operation:
    return session.store.add(ask.who, kind, why, change, revision=ask.revision)


def _all_into(target: str, rows: NDArray[np.uint32]) -> Change:
    return Change({}, (target,), rows, np.zeros(len(rows), np.uint16))


def _listed(groups: list[str]) -> str:
    more = f" and {len(groups) - 6} more" if len(groups) > 6 else ""
    return ", ".join(groups[:6]) + more


def _short(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    return "removed" if not text else text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
