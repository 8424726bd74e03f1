"""Spillover from single stains: made data whose truth is known, and real spots and beads."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import maskless as mx
from maskless.errors import InputError
from maskless.images.single_stains import describe_estimate, estimate_spillover
from maskless.images.spillover_csv import read_spillover
from maskless.images.spillover_estimate import assign_beads, estimate_matrix

CHANNELS = ("Nd144", "Nd145", "Gd160", "Dy161", "Dy162", "Dy163")
TRUTH = np.eye(6)
TRUTH[0, [1, 2]] = 0.015, 0.018
TRUTH[1, [0, 3]] = 0.01, 0.018
TRUTH[3, [2, 4, 5]] = 0.002, 0.03, 0.01
TRUTH[4, [3, 5]] = 0.015, 0.04
TRUTH[5, [3, 4]] = 0.003, 0.012


def beads(metal: int, n: int, seed: int = 0, background: float = 0.0) -> NDArray[np.float64]:
    """Beads of one metal: about 800 ions each, spilled, counted."""
    rng = np.random.default_rng([seed, metal])
    signal_nr = np.zeros((n, 6))
    signal_nr[:, metal] = rng.gamma(8, 100, n)
    return rng.poisson(signal_nr @ TRUTH + background).astype(np.float64)


def write_spot(path: Path, counts_nr: NDArray[np.float64], side: int = 10) -> None:
    names = [f"{c[2:]}{c[:2]}({c}Di)" for c in CHANNELS]
    lines = ["\t".join(["Start_push", "End_push", "Pushes_duration", "X", "Y", "Z", *names])]
    for n, row in enumerate(counts_nr):
        place = [n, n, 1, n % side, n // side, n]
        lines.append("\t".join(map(str, [*place, *row])))
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("background", [0.0, 3.0])
def test_the_truth_is_found_within_its_errors(background: float) -> None:
    stains = {c: beads(i, 600, background=background) for i, c in enumerate(CHANNELS) if i != 2}
    found = estimate_matrix(stains, CHANNELS)
    truth = TRUTH[[0, 1, 3, 4, 5]]
    error = np.abs(found.matrix.shares_er - truth)
    assert (error <= 4 * found.errors_er + 1e-3).all()
    assert found.matrix.emitters == ("Nd144", "Nd145", "Dy161", "Dy162", "Dy163")
    assert found.events == (600,) * 5
    assert 700 < found.brightness[0] < 850


def test_pairs_without_a_reason_stay_0_unless_all_are_asked_for() -> None:
    stains = {c: beads(i, 400) for i, c in enumerate(CHANNELS)}
    stains["Nd144"][:, 4] += 0.05 * stains["Nd144"][:, 0]
    assert estimate_matrix(stains, CHANNELS).matrix.share("Nd144", "Dy162") == 0
    found = estimate_matrix(stains, CHANNELS, "all").matrix
    assert found.share("Nd144", "Dy162") == pytest.approx(0.05, rel=0.1)


def test_beads_are_told_apart_and_doublets_dropped() -> None:
    parts = [beads(i, 200) for i in (0, 3, 4, 5)]
    doublets = beads(3, 40, seed=1) + beads(4, 40, seed=2)
    empty = np.random.default_rng(0).poisson(0.5, (100, 6)).astype(float)
    strays = beads(2, 5)
    order = np.random.default_rng(1).permutation(945)
    counts_nr = np.concatenate([*parts, doublets, empty, strays])[order]
    found, dropped = assign_beads(counts_nr, CHANNELS)
    assert set(found) == {"Nd144", "Dy161", "Dy162", "Dy163"}
    assert all(190 <= len(events) <= 204 for events in found.values())
    assert 135 <= dropped <= 160
    shares = estimate_matrix(found, CHANNELS).matrix
    assert shares.share("Dy162", "Dy163") == pytest.approx(0.04, abs=0.003)
    only, _ = assign_beads(counts_nr, CHANNELS, ["Dy161"])
    assert set(only) == {"Dy161"}


def test_spots_in_files_are_taken_by_their_names(tmp_path: Path) -> None:
    for i in (3, 4, 5):
        write_spot(tmp_path / f"{CHANNELS[i]}.txt", beads(i, 100))
    found = mx.estimate_spillover(tmp_path)
    assert found.matrix.emitters == ("Dy161", "Dy162", "Dy163")
    assert found.matrix.receivers == CHANNELS
    assert found.matrix.share("Dy162", "Dy163") == pytest.approx(0.04, abs=0.004)
    again = estimate_spillover(sorted(tmp_path.glob("*.txt")))
    assert np.array_equal(again.matrix.shares_er, found.matrix.shares_er)
    write_spot(tmp_path / "last.txt", beads(0, 100))
    found = estimate_spillover(tmp_path)
    assert found.matrix.emitters[0] == "Nd144"
    assert "last: taken for Nd144, its brightest channel." in found.notes
    assert "Gd160 1." in describe_estimate(found)


@pytest.mark.parametrize("damage", ["name", "dim", "empty", "mixed", "tissue", "channels"])
def test_spots_that_are_no_single_stains_are_refused(tmp_path: Path, damage: str) -> None:
    write_spot(tmp_path / "Dy161.txt", beads(3, 100))
    counts_nr = beads(4, 100)
    message = {
        "name": r"named for one metal.*image Dy163.*expected Dy163, found Dy162",
        "dim": r"too few events.*Dy162.*at least 20",
        "tissue": r"no single stain.*image tissue",
        "empty": r"this spot is empty.*Dy162\.txt",
        "mixed": r"no single stain.*Dy162",
        "channels": r"other channels.*other\.csv",
    }[damage]
    given: list[Path] = [tmp_path]
    name = {"name": "Dy163.txt", "tissue": "tissue.txt"}.get(damage, "Dy162.txt")
    if damage == "dim":
        counts_nr[15:] = 1
    elif damage == "empty":
        counts_nr[:] = 0
    elif damage == "mixed":
        counts_nr[:, 0] = 0.5 * counts_nr[:, 4]
    elif damage == "tissue":
        counts_nr = np.random.default_rng(0).poisson(30, (100, 6)).astype(float)
    elif damage == "channels":
        (tmp_path / "more").mkdir()
        given.append(tmp_path / "more" / "other.csv")
        given[1].write_text("Dy161,Dy162\n" + "900,20\n" * 30)
    write_spot(tmp_path / name, counts_nr)
    with pytest.raises(InputError, match=message):
        estimate_spillover(given)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("a,b\n1,2\n", "no columns of metals.*found a, b"),
        ("Dy161,Dy162\n", "no rows"),
        ("Dy161,Dy162\n1,x\n", "no finite number"),
        ("Dy161,Dy162\n1,\n", "no finite number.*Dy162"),
        ("Dy161,161Dy\n1,2\n", "two columns.*Dy161"),
        ("Dy161,Dy162\n" + "1,2\n" * 50, "no channel has a population"),
        ("Dy161,Dy162\n1,2,3,4\n1,2,3\n", "cannot be read|no rows|finite|population"),
    ],
)
def test_tables_that_are_damaged(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "beads.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        estimate_spillover(path)
    assert "beads.csv" in str(caught.value)


def test_a_cut_or_missing_table_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file.*beads\.csv"):
        estimate_spillover(tmp_path / "beads.csv")
    whole = gzip.compress(("Dy161,Dy162\n" + "900,20\n" * 3000).encode())
    (tmp_path / "beads.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be read"):
        estimate_spillover(tmp_path / "beads.csv.gz")
    (tmp_path / "beads.csv.gz").write_bytes(whole)
    with pytest.raises(InputError, match=r"no column of this metal.*Er166"):
        estimate_spillover(tmp_path / "beads.csv.gz", ["Er166"])
    with pytest.raises(InputError, match=r"too few beads.*beads\.csv\.gz.*Dy162"):
        estimate_spillover(tmp_path / "beads.csv.gz", ["162Dy"])
    with pytest.raises(InputError, match="no single stains"):
        estimate_spillover([])


def test_real_beads_give_the_published_shares(real_data: Path, tmp_path: Path) -> None:
    """CATALYST's figures for these beads; apart by no more than two standard errors."""
    found = estimate_spillover(real_data / "spillover" / "catalyst_ss_exp.csv.gz")
    assert len(found.matrix.emitters) == 36
    assert not {"Ba138", "Ce140", "Gd157"} & set(found.matrix.emitters)
    for emitter, receiver, published in (
        ("Dy162", "Dy163", 0.0404),
        ("Dy162", "Dy161", 0.0147),
        ("Nd144", "Gd160", 0.0181),
    ):
        row = found.matrix.emitters.index(emitter)
        error = found.errors_er[row, found.matrix.receivers.index(receiver)]
        share = found.matrix.share(emitter, receiver)
        assert error < 0.0007
        assert abs(share - published) < 2 * error
        assert abs(share - published) < 0.0005


def test_real_beads_are_clean_after_compensation_with_what_other_beads_told(
    real_data: Path,
) -> None:
    path = real_data / "spillover" / "catalyst_ss_exp.csv.gz"
    with gzip.open(path, "rt") as file:
        channels = tuple(name.strip('"')[:-2] for name in file.readline().strip().split(","))
    table = np.loadtxt(path, delimiter=",", skiprows=1)
    matrix = estimate_matrix(assign_beads(table[::2], channels)[0], channels).matrix
    stains, _ = assign_beads(table[1::2], channels)
    shares = matrix.adapted(channels).shares_cc
    for metal in ("Dy162", "Nd144", "Yb172", "Nd148"):
        own = channels.index(metal)
        clean_nr = mx.compensate(stains[metal].T, shares).T
        before = np.median(stains[metal] / stains[metal][:, [own]], axis=0)
        after = np.median(clean_nr / clean_nr[:, [own]], axis=0)
        leaks = np.flatnonzero((before > 0.005) & (np.arange(len(before)) != own))
        assert len(leaks) >= 2
        assert (after[leaks] < 0.2 * before[leaks]).all()


def test_real_spots(real_data: Path, tmp_path: Path) -> None:
    """Another instrument than the beads': the same order of shares, not the same numbers."""
    folder = real_data / "spillover" / "imcRtools_single_spots"
    command = [sys.executable, "-m", "maskless", "spillover", str(folder), "--out"]
    done = subprocess.run(
        [*command, str(tmp_path / "m.csv")], capture_output=True, text=True, check=True
    )
    assert "4 metals, 4 channels" in done.stdout
    matrix = read_spillover(tmp_path / "m.csv")
    assert matrix.share("Dy162", "Dy163") == pytest.approx(0.049, abs=0.001)
    assert matrix.share("Dy162", "Dy161") == pytest.approx(0.0158, abs=0.0005)
    assert matrix.share("Dy161", "Dy162") == pytest.approx(0.0305, abs=0.001)
