"""Batch shift: marker by marker, whatever cells the tissue holds."""

from __future__ import annotations

import numpy as np
import pytest

from maskless.assignment.shift import MarkerShift, marker_shifts

MARKERS = ("A1", "A2", "B1", "B2", "all")
# Three kinds of cells (one without markers), two markers for each of two kinds.
MEANS = np.array([[20, 30, 1, 1, 10], [1, 1, 15, 25, 10], [1, 1, 1, 1, 10.0]])


def tissue(seed: int, shares: list[float], cells: int = 400) -> np.ndarray:
    rng = np.random.default_rng(seed)
    kinds = rng.choice(3, cells, p=shares)
    return rng.gamma(6, MEANS[kinds] / 6)


@pytest.fixture(scope="module")
def study() -> tuple[np.ndarray, np.ndarray]:
    shares = [[0.5, 0.3, 0.2], [0.3, 0.5, 0.2], [0.2, 0.3, 0.5], [0.4, 0.4, 0.2]]
    levels = np.concatenate([tissue(i, s) for i, s in enumerate(shares)])
    return levels, np.repeat(["s1", "s2", "s3", "s4"], 400)


def compared(study: tuple[np.ndarray, np.ndarray], new: np.ndarray) -> dict[str, MarkerShift]:
    names = np.repeat(["n1", "n2"], len(new) // 2)
    return {shift.marker: shift for shift in marker_shifts(*study, new, names, MARKERS)}


def test_other_shares_of_cells_are_no_shift(study: tuple[np.ndarray, np.ndarray]) -> None:
    new = np.concatenate([tissue(10, [0.05, 0.9, 0.05]), tissue(11, [0.9, 0.05, 0.05])])
    found = compared(study, new)
    assert not [m for m, shift in found.items() if shift.moved or shift.odd_images]
    # The plain means do differ: that is what would have been called a shift.
    assert new[:400, 0].mean() < 0.3 * study[0][:, 0].mean()


@pytest.mark.parametrize("marker", range(5))
@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_one_marker_that_moved_is_named_alone(
    study: tuple[np.ndarray, np.ndarray], marker: int, factor: float
) -> None:
    new = np.concatenate([tissue(20, [0.3, 0.3, 0.4]), tissue(21, [0.5, 0.2, 0.3])])
    new[:, marker] *= factor
    found = compared(study, new)
    assert [m for m, shift in found.items() if shift.moved] == [MARKERS[marker]]
    shift = found[MARKERS[marker]]
    assert shift.ratio == pytest.approx(factor, rel=0.15)
    assert shift.sentence().startswith(f"{MARKERS[marker]} is ")
    assert ("times brighter" if factor > 1 else "times dimmer") in shift.sentence()


def test_one_odd_image_is_named(study: tuple[np.ndarray, np.ndarray]) -> None:
    new = np.concatenate([tissue(30, [0.3, 0.3, 0.4]), tissue(31, [0.5, 0.2, 0.3])])
    new[400:, 2] *= 3
    shift = compared(study, new)["B1"]
    assert shift.odd_images == ("n2",)
    single = MarkerShift("B1", 1.1, {"n1": 1.0, "n2": 1.9}, 1.1, False, ("n2",))
    assert single.sentence() == "B1 is odd in single images (times the study: n2 1.90)"


def test_where_nothing_can_be_said(study: tuple[np.ndarray, np.ndarray]) -> None:
    levels, images = study
    one = np.full(len(levels), "s1")
    assert marker_shifts(levels, one, levels, one, MARKERS) == []
    assert marker_shifts(levels[:, :1], images, levels[:, :1], images, MARKERS[:1]) == []
    assert marker_shifts(levels, images, levels[:20], images[:20], MARKERS) == []
    empty = levels.copy()
    empty[:, 4] = 0
    found = marker_shifts(empty, images, empty, images, MARKERS)
    assert found[4].ratio == 1
    assert not found[4].moved
