"""Single stains from files: spots of one metal (images) and beads or cells (tables)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.images.image import Image, Panel
from maskless.images.names import isotope, isotope_in
from maskless.images.read import read_images
from maskless.images.spillover_estimate import (
    Pairs,
    SpilloverEstimate,
    assign_beads,
    estimate_matrix,
    stained_events,
)
from maskless.images.spillover_matrix import cause_of_spill, metal_name

_LEAST_ALONE = 0.5  # of a spot's pixels that hold enough of its metal

_Stains = dict[str, list[NDArray[Any]]]


def estimate_spillover(
    paths: str | Path | Sequence[str | Path],
    metals: Sequence[str] | None = None,
    pairs: Pairs = "plausible",
) -> SpilloverEstimate:
    """Estimate a spillover matrix from single stains.

    Parameters
    ----------
    paths
        Images, or folders of them, each of one spot with one metal (``.txt``, ``.mcd``, ...): the
        metal is the one in the image's name (``Dy161.txt``), else the brightest channel. Tables
        (``.csv``, ``.csv.gz``) of single-stained beads or cells, one row each, one column a
        channel: the brightest channel of a row tells its metal.
    metals
        Metals that were used for staining, where only these shall be taken from tables.
    pairs
        ``"plausible"`` or ``"all"``, see :func:`estimate_matrix`.

    Returns
    -------
    SpilloverEstimate
        Its ``matrix`` goes to :func:`maskless.write_spillover` and :func:`maskless.clean`.

    Raises
    ------
    InputError
        If a file cannot be read, holds no single stain, or its metal is not the brightest channel.
    """
    given = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    if not given:
        raise InputError("no single stains were given", do="Name files or folders of spots")
    wanted = None if metals is None else [metal_name(metal) for metal in metals]
    channels: tuple[str, ...] | None = None
    stains: _Stains = {}
    notes: list[str] = []
    for path in given:
        is_table = path.name.casefold().endswith((".csv", ".csv.gz")) and not path.is_dir()
        found = _beads(path, wanted, stains, notes) if is_table else _spots(path, stains, notes)
        if channels is not None and found != channels:
            raise InputError(
                "these single stains have other channels than those before",
                file=path,
                expected=", ".join(channels),
                found=", ".join(found),
            )
        channels = found
    assert channels is not None
    joined = {metal: np.concatenate(events) for metal, events in stains.items()}
    return estimate_matrix(joined, channels, pairs, notes)


def describe_estimate(estimate: SpilloverEstimate) -> str:
    """Tell in plain words what was found: each metal, its largest shares, and what to know."""
    matrix = estimate.matrix
    metals = len(matrix.emitters)
    lines = [f"{metals} metal{'s' * (metals > 1)}, {len(matrix.receivers)} channels"]
    lines.append("  metal    events   counts  spills into (%, +- standard error)")
    for row, metal in enumerate(matrix.emitters):
        shares = matrix.shares_er[row]
        order = [r for r in np.argsort(-shares) if shares[r] > 0 and matrix.receivers[r] != metal]
        told = ", ".join(
            f"{matrix.receivers[r]} {100 * shares[r]:.2f} +- {100 * estimate.errors_er[row, r]:.2f}"
            + (" (oxide)" if cause_of_spill(metal, matrix.receivers[r]) == "oxide" else "")
            for r in order[:4]
        )
        more = f" and {len(order) - 4} more" if len(order) > 4 else ""
        lines.append(
            f"  {metal:<8}{estimate.events[row]:>7}{estimate.brightness[row]:>9.0f}  "
            f"{told or 'nothing that is sure'}{more}"
        )
    return "\n".join([*lines, *estimate.notes])


def _spots(path: Path, stains: _Stains, notes: list[str]) -> tuple[str, ...]:
    images = read_images(path)
    channels, places = _metals_of(images.panel, path)
    for image in images:
        counts_nr = np.asarray(image.pixels_cyx)[places].reshape(len(places), -1).T
        # Pixels that were not acquired are 0 in every channel.
        counts_nr = counts_nr[counts_nr.any(axis=1)]
        if not len(counts_nr):
            raise InputError("this spot is empty", file=image.source, image=image.name)
        metal = _metal_of(image, counts_nr, channels, notes)
        enough_n, alone_n = stained_events(counts_nr, channels.index(metal))
        kept_n = enough_n & alone_n
        if kept_n.sum() <= _LEAST_ALONE * enough_n.sum():
            raise InputError(
                "this image is no single stain",
                file=image.source,
                image=image.name,
                channel=metal,
                expected="pixels that carry one metal alone",
                found=f"{kept_n.sum()} of the {enough_n.sum()} with at least 20 counts of {metal}",
                do="Give spots of one metal each",
            )
        stains.setdefault(metal, []).append(counts_nr[kept_n])
        if not kept_n.all():
            notes.append(
                f"{image.name}: {int((~kept_n).sum())} of {len(kept_n)} pixels were left out (dim, "
                "or bright in a second channel)."
            )
    return channels


def _metals_of(panel: Panel, path: Path) -> tuple[tuple[str, ...], list[int]]:
    """Metals of the channels that have one, and where these channels are."""
    named = [isotope(c.metal, any_case=True) or isotope_in(c.name) for c in panel.channels]
    places = [place for place, metal in enumerate(named) if metal]
    if not places:
        raise InputError(
            "the channels of these images have no metals",
            file=path,
            found=", ".join(panel.names),
            do="Give a panel.csv with the column metal beside them",
        )
    return tuple(named[place] for place in places), places


def _metal_of(
    image: Image, counts_nr: NDArray[Any], channels: tuple[str, ...], notes: list[str]
) -> str:
    brightest = channels[int(counts_nr.mean(axis=0).argmax())]
    named = isotope_in(image.name)
    if not named:
        notes.append(f"{image.name}: taken for {brightest}, its brightest channel.")
        return brightest
    if named != brightest:
        raise InputError(
            "this spot is named for one metal and brightest in another",
            file=image.source,
            image=image.name,
            expected=named,
            found=brightest,
            do="Leave this spot out, or correct its name",
        )
    return named


def _beads(
    path: Path, metals: Sequence[str] | None, stains: _Stains, notes: list[str]
) -> tuple[str, ...]:
    counts_nr, channels = _table(path)
    if metals is not None and (strange := [m for m in metals if m not in channels]):
        raise InputError(
            "the table has no column of this metal",
            file=path,
            channel=strange[0],
            expected=f"one of {', '.join(channels)}",
        )
    try:
        found, dropped = assign_beads(counts_nr, channels, metals)
    except InputError as error:
        raise InputError(
            error.what, file=path, channel=error.channel, do="Check the table, or name --metal"
        ) from None
    for metal, events in found.items():
        stains.setdefault(metal, []).append(events)
    notes.append(
        f"{path.name}: {dropped} of {len(counts_nr)} events were left out (dim, two metals, or of "
        "no population)."
    )
    without = [channel for channel in channels if channel not in found]
    if without and metals is None:
        notes.append(f"{path.name}: no population in {', '.join(without)}.")
    return channels


def _table(path: Path) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Columns of a table that are metals; others, such as the time, are passed over."""
    import pandas as pd

    try:
        table = pd.read_csv(path)
    except FileNotFoundError:
        raise InputError("no such file", file=path) from None
    except (OSError, EOFError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise InputError("this table cannot be read", file=path, found=error) from error
    names = [isotope(str(column), any_case=True) or isotope_in(str(column)) for column in table]
    places = [place for place, name in enumerate(names) if name]
    if len(places) < 2:
        raise InputError(
            "the table has no columns of metals",
            file=path,
            expected="a first line such as Dy161Di,Dy162Di",
            found=", ".join(map(str, table.columns[:8])),
        )
    channels = tuple(names[place] for place in places)
    for channel in channels:
        if channels.count(channel) > 1:
            raise InputError("two columns have the same metal", file=path, channel=channel)
    part = table.iloc[:, places]
    if len(part) == 0:
        raise InputError("the table has no rows", file=path)
    for channel, column in zip(channels, part, strict=True):
        if part[column].dtype.kind not in "iuf" or not np.isfinite(part[column]).all():
            raise InputError(
                "a column of the table holds what is no finite number", file=path, channel=channel
            )
    return part.to_numpy(dtype=np.float64), channels
