"""Undo takes back exactly what was done; phenotypes follow names, images and moves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate.helpers import clustering
from maskless.annotate.history import REDO, UNDO, History, Operation, state_at
from maskless.annotate.labels import Change, Labels
from maskless.errors import InputError

BASE = clustering()


def base() -> Labels:
    return Labels(BASE.ids, BASE.codes_n)


def moved(rows: list[int], targets: tuple[str, ...], parts: list[int]) -> Change:
    return Change({}, targets, np.array(rows, np.uint32), np.array(parts, np.uint16))


names = st.text(max_size=5)
changes = st.one_of(
    st.builds(
        lambda group, name, unsure: Change({group: {"name": name, "unsure": unsure}}),
        st.sampled_from(BASE.ids),
        names,
        st.booleans(),
    ),
    st.builds(
        lambda rows, target: moved(sorted(rows), (target,), [0] * len(rows)),
        st.sets(st.integers(0, 199), max_size=30),
        st.sampled_from([*BASE.ids, "0.1", "new.1", "new.2"]),
    ),
    st.builds(
        lambda rows: moved(sorted(rows), ("1.1", "1.2"), [i % 2 for i in range(len(rows))]),
        st.sets(st.integers(0, 199), max_size=30),
    ),
)
steps = st.lists(st.one_of(changes, st.sampled_from([UNDO, REDO])), max_size=25)


@given(st.lists(changes, max_size=10), changes)
def test_reverting_a_change_gives_the_state_before(earlier: list[Change], last: Change) -> None:
    labels = base()
    for change in earlier:
        labels.apply(change)
    before = labels.copy()
    labels.revert(labels.apply(last))
    assert labels.same_as(before)


@given(steps)
def test_undo_and_redo_equal_a_plain_stack_of_states(done: list[Change | str]) -> None:
    history = History(base())
    states, undone = [base()], []
    for number, step in enumerate(done, start=1):
        if step == UNDO:
            operation = Operation(number, "", "a", UNDO, "")
            if len(states) == 1:
                with pytest.raises(InputError, match="nothing to undo"):
                    history.take(operation)
                continue
            undone.append(states.pop())
        elif step == REDO:
            operation = Operation(number, "", "a", REDO, "")
            if not undone:
                with pytest.raises(InputError, match="nothing to redo"):
                    history.take(operation)
                continue
            states.append(undone.pop())
        else:
            assert isinstance(step, Change)
            operation = Operation(number, "", "a", "name", "", step)
            after = states[-1].copy()
            after.apply(step)
            states.append(after)
            undone.clear()
        history.take(operation)
        assert history.labels.same_as(states[-1])
    assert state_at(base(), history.operations, history.revision).same_as(states[-1])


@given(st.lists(changes, max_size=8), st.lists(changes, max_size=8))
def test_the_difference_of_two_states_brings_one_to_the_other(
    one: list[Change], two: list[Change]
) -> None:
    first, second = base(), base()
    for labels, list_of in ((first, one), (second, two)):
        for change in list_of:
            labels.apply(change)
    first.apply(first.difference_to(second))
    for name in second.ids:
        assert first.groups[name] == second.groups[name]
        assert np.array_equal(first.rows_of(name), second.rows_of(name))
    assert first.counts.sum() == len(first.group_n)


@given(st.lists(changes, max_size=8))
def test_counts_are_those_of_the_cells(done: list[Change]) -> None:
    labels = base()
    for change in done:
        labels.apply(change)
    assert np.array_equal(labels.counts, np.bincount(labels.group_n, minlength=len(labels.ids)))


@pytest.mark.parametrize(
    "bad",
    [
        Change({"99": {"name": "x"}}),
        Change({"0": {"colour": "x"}}),
        moved([0, 200], ("0",), [0, 0]),
        moved([3, 2], ("0",), [0, 0]),
        moved([2, 2], ("0",), [0, 0]),
        moved([2, 3], ("0",), [0, 1]),
        moved([2, 3], ("0",), [0]),
    ],
)
def test_a_change_that_does_not_fit_changes_nothing(bad: Change) -> None:
    labels = base()
    with pytest.raises(InputError):
        labels.apply(bad)
    assert labels.same_as(base())


def test_phenotypes_follow_names_and_images() -> None:
    labels = base()
    labels.apply(Change({"0": {"name": "B", "broad": "lymphocyte"}, "1": {"name": "B"}}))
    labels.apply(Change({"2": {"name": "T", "by_image": {"b": "NK"}}}))
    codes, found = labels.phenotypes(BASE.images_n, BASE.images)
    named = np.array(found)[codes]
    assert set(named[np.isin(BASE.codes_n, [0, 1])]) == {"B"}
    assert set(named[(BASE.codes_n == 2) & (BASE.images_n == 0)]) == {"T"}
    assert set(named[(BASE.codes_n == 2) & (BASE.images_n == 1)]) == {"NK"}
    assert set(named[BASE.codes_n > 2]) == {"unnamed"}
    broad_codes, broad = labels.phenotypes(BASE.images_n, BASE.images, broad=True)
    assert set(np.array(broad)[broad_codes][BASE.codes_n == 0]) == {"lymphocyte"}
    # Names without cells are not among the categories.
    labels.apply(Change({"3": {"name": "gone", "by_image": {"a": "x", "b": "y"}}}))
    assert "gone" not in labels.phenotypes(BASE.images_n, BASE.images)[1]
