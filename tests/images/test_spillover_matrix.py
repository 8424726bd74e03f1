"""Spillover matrices: checks, panels, and the CSV files that people have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskless.errors import InputError
from maskless.images.image import Channel, Panel
from maskless.images.spillover_csv import read_spillover, write_spillover
from maskless.images.spillover_matrix import SpilloverMatrix, cause_of_spill, metal_name

DY = np.array([[1, 0.03, 0.01], [0.015, 1, 0.04]])
CATALYST = '"","Dy161Di","Dy162Di","Dy163Di"\n"Dy161Di",1,0.03,0.01\n"Dy162Di",0.015,1,0.04\n'


def dysprosium() -> SpilloverMatrix:
    return SpilloverMatrix(("Dy161", "Dy162"), ("Dy161", "Dy162", "Dy163"), DY)


@pytest.mark.parametrize(
    ("emitter", "receiver", "cause"),
    [
        ("Dy162", "Dy161", "isotope"),
        ("Nd142", "Nd150", "isotope"),
        ("Dy164", "Ho165", "abundance"),
        ("Ho165", "Dy164", "abundance"),
        ("Nd144", "Gd160", "oxide"),
        ("Gd160", "Nd144", ""),
        ("Dy162", "Dy162", ""),
        ("Dy162", "Er166", ""),
        ("DAPI", "Dy162", ""),
    ],
)
def test_plausible_pairs(emitter: str, receiver: str, cause: str) -> None:
    assert cause_of_spill(emitter, receiver) == cause


@pytest.mark.parametrize("text", ["Dy161", "161Dy", "Dy161Di", " 161-Dy ", "Dy(161)", "161Dy_Di"])
def test_metals_in_any_form(text: str) -> None:
    assert metal_name(text) == "Dy161"
    assert metal_name("FITC") == "FITC"


def test_a_panel_gets_its_metals_in_its_order() -> None:
    panel = Panel(
        (
            Channel("CD3", "Dy163"),
            Channel("DAPI"),
            Channel("CD20", "Dy161"),
            Channel("CD8_Dy162"),
        )
    )
    shares, pairs, problems = dysprosium().adapted(panel)
    expected = np.eye(4)
    expected[2, [0, 3]] = 0.01, 0.03
    expected[3, [0, 2]] = 0.04, 0.015
    assert np.array_equal(shares, expected)
    assert pairs == 4
    assert len(problems) == 1
    assert "2 of the panel's pairs" in problems[0]
    assert "Dy163 into Dy161, Dy163 into Dy162." in problems[0]


def test_what_the_panel_lacks_is_dropped_and_far_masses_need_no_warning() -> None:
    shares, pairs, problems = dysprosium().adapted(["Dy161", "Y89", "Dy162"])
    assert np.array_equal(shares, [[1, 0, 0.03], [0, 1, 0], [0.015, 0, 1]])
    assert (pairs, problems) == (2, ())


def test_neighbours_of_a_column_that_is_missing_are_named() -> None:
    problems = dysprosium().adapted(["Dy162", "Dy164"]).problems
    assert "Dy162 into Dy164, Dy164 into Dy162" in problems[0]
    many = dysprosium().adapted(["Dy161", *(f"Nd{m}" for m in range(142, 149))]).problems
    assert "43 of the panel's pairs" in many[0]
    assert many[0].endswith("and 31 more.")


def test_what_is_spilled_into_channels_that_nobody_looks_at_needs_no_warning() -> None:
    panel = Panel((Channel("A", "Dy161"), Channel("B", "Dy164", "background", used=False)))
    assert dysprosium().adapted(panel).problems[0].endswith("compensated: Dy164 into Dy161.")
    panel = Panel((Channel("A", "Dy161"), Channel("B", "Ho165", "background", used=False)))
    assert dysprosium().adapted(panel).problems == ()


def test_panels_that_cannot_be_meant() -> None:
    with pytest.raises(InputError, match=r"none of the panel's metals.*expected some of A, B"):
        dysprosium().adapted(["A", "B"])
    with pytest.raises(InputError, match=r"same metal.*Dy161"):
        dysprosium().adapted(["Dy161", "161Dy"])


@pytest.mark.parametrize(
    ("emitters", "receivers", "shares", "message"),
    [
        (("Dy161", "161Dy"), ("Dy161", "Dy162"), np.eye(2), "two rows.*same metal.*Dy161"),
        (("Dy161",), ("Dy161", "Dy161Di"), np.ones((1, 2)), "two columns.*same metal"),
        (("Dy161",), ("Dy162",), np.ones((1, 1)), "no column of its own.*Dy161"),
        (("Dy161",), ("Dy161",), np.ones((1, 2)), "does not fit its names"),
        ((), (), np.ones((0, 0)), "empty"),
        (("",), ("",), np.ones((1, 1)), "no name"),
        (("A", "B"), ("A", "B"), [[1, np.nan], [0, 1]], "share of A in B is missing, NaN"),
        (("A", "B"), ("A", "B"), [[1, -0.1], [0, 1]], "share of A in B is negative"),
        (("A", "B"), ("A", "B"), [[100, 4], [1, 100]], "diagonal.*channel A.*percentages"),
        (("A", "B"), ("A", "B"), [[1, 1.5], [0, 1]], "more than it keeps.*channel A"),
    ],
)
def test_damaged_matrices(emitters: tuple, receivers: tuple, shares: list, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(InputError, match=message):
        SpilloverMatrix(emitters, receivers, np.array(shares, dtype=float))


@pytest.mark.parametrize(
    "text",
    [
        CATALYST,
        CATALYST.replace("Di", ""),
        CATALYST.replace('"', "").replace("\n", "\r\n"),
        "\ufeff" + CATALYST,
        CATALYST.replace('"",', ""),  # R's write.table
        CATALYST.replace(",", "\t"),
        CATALYST.replace(",", ";").replace(".", ","),
        CATALYST.replace("Dy161Di", "161Dy").replace("Dy162Di", "162Dy") + "\n\n",
        CATALYST.replace('""', '"emitting"'),
    ],
)
def test_csv_files_that_people_have(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.csv").write_text(text, encoding="utf-8", newline="")
    matrix = read_spillover(tmp_path / "m.csv")
    assert matrix.emitters == ("Dy161", "Dy162")
    assert matrix.receivers == ("Dy161", "Dy162", "Dy163")
    assert np.array_equal(matrix.shares_er, DY)
    assert matrix.share("162Dy", "Dy163Di") == 0.04
    with pytest.raises(InputError, match=r"m\.csv.*Dy163 to Dy161"):
        matrix.share("Dy163", "Dy161")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a spillover matrix"),
        ("a\nb\n", "not a spillover matrix"),
        (CATALYST.replace("0.03", "3%"), "share of Dy161Di in Dy162Di is no number.*percent"),
        (CATALYST.replace("0.03", "NA"), "share of Dy161 in Dy162 is missing"),
        (CATALYST.replace("0.03", ""), "share of Dy161 in Dy162 is missing"),
        (CATALYST.replace("0.03", "-0.03"), "negative.*found -0.03"),
        (CATALYST.replace(",0.04", ""), "row 'Dy162Di'.*another length.*3 shares.*2"),
        (CATALYST.replace("Dy162Di", "Dy161Di"), "same metal"),
    ],
)
def test_csv_files_that_are_damaged(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_spillover(path)
    assert "m.csv" in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file.*x\.csv"):
        read_spillover(tmp_path / "x.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read_spillover(tmp_path)
    (tmp_path / "b.csv").write_bytes(b"\x80\x81\xff")
    with pytest.raises(InputError, match="not UTF-8"):
        read_spillover(tmp_path / "b.csv")


@settings(max_examples=25)
@given(st.data())
def test_what_is_written_is_read_exactly(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    metals = [f"Dy{mass}" for mass in range(156, 165)] + ["FITC", 'a "b", c']
    receivers = data.draw(st.lists(st.sampled_from(metals), min_size=1, unique=True))
    emitters = data.draw(st.lists(st.sampled_from(receivers), min_size=1, unique=True))
    share = st.floats(0, 0.09, allow_subnormal=True)
    shares = np.array([[data.draw(share) for _ in receivers] for _ in emitters])
    for row, metal in enumerate(emitters):
        shares[row, receivers.index(metal)] = 1
    path = tmp_path_factory.getbasetemp() / "round_trip.csv"
    write_spillover(SpilloverMatrix(tuple(emitters), tuple(receivers), shares), path)
    found = read_spillover(path)
    assert (found.emitters, found.receivers) == (tuple(emitters), tuple(receivers))
    assert np.array_equal(found.shares_er, shares)
