"""A spillover matrix from single stains: events that carry one metal each.

Axes: N = events (pixels of a spot, beads), R = channels.

After Chevrier et al. 2018 (doi:10.1016/j.cels.2018.02.010): a metal's share in a channel is the
median of the ratios of their signals above background. Ratios are taken of small groups of events:
single events that hold fewer than one spilled ion would have a median of 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.images.spillover_matrix import SpilloverMatrix, cause_of_spill

Pairs = Literal["plausible", "all"]

LEAST_EVENTS = 20
"""Events that a metal's row needs."""

_LARGEST_SECOND = 0.2  # second brightest channel : brightest; above, an event holds two metals
_LEAST_SIGNAL = 20.0  # counts
_LEAST_BRIGHTNESS = 0.1  # of the population's 95th percentile
_LEAST_POPULATION = 0.1  # of the median population
_GROUP = 10
_GROUPS = 20
_SURE = 2.0  # standard errors


@dataclass(frozen=True)
class SpilloverEstimate:
    """What single stains say.

    Attributes
    ----------
    matrix
        Row = metal of a stain, column = channel.
    errors_er
        Standard error of each share, 0 where none was looked for.
    events
        How many events each row rests on.
    brightness
        Median counts of each metal in its own channel.
    notes
        What is worth knowing, a sentence each.
    """

    matrix: SpilloverMatrix
    errors_er: NDArray[np.float64]
    events: tuple[int, ...]
    brightness: tuple[float, ...]
    notes: tuple[str, ...] = field(default=())


def estimate_matrix(
    stains: Mapping[str, NDArray[Any]],
    channels: Sequence[str],
    pairs: Pairs = "plausible",
    notes: Sequence[str] = (),
) -> SpilloverEstimate:
    """Estimate the matrix from events whose metal is known.

    The background of a channel is the median over stains of their median in it, of those stains
    that cannot spill into it; 0 where there is none. A share that is not two standard errors
    above 0 is 0.

    Parameters
    ----------
    stains
        For each metal its events, counts, shape (N, R).
    channels
        Metal of each channel, as in the keys of `stains`.
    pairs
        ``"plausible"``: impurities, neighbouring masses and oxides; ``"all"``: every pair, for
        instruments that mix signals in other ways.
    notes
        Passed on.

    Raises
    ------
    InputError
        If a stain has no channel, too few events, or is not brightest in its own channel.
    """
    metals = sorted(stains, key=list(channels).index) if set(stains) <= set(channels) else []
    if not metals:
        strange = next((metal for metal in stains if metal not in channels), None)
        raise InputError(
            "no channel counts this stain" if strange else "there are no single stains",
            channel=strange,
            expected=f"one of {', '.join(channels)}",
        )
    medians = np.empty((len(metals), len(channels)))
    for row, metal in enumerate(metals):
        _refuse_poor(metal, stains[metal], channels)
        medians[row] = np.median(stains[metal], axis=0)
    shares = np.zeros((len(metals), len(channels)))
    errors = np.zeros_like(shares)
    background = np.array([_background(r, metals, channels, medians) for r in range(len(channels))])
    for row, metal in enumerate(metals):
        own = list(channels).index(metal)
        signal_nr = stains[metal].astype(np.float64) - background
        for column, channel in enumerate(channels):
            if column != own and (pairs == "all" or cause_of_spill(metal, channel)):
                found, error = _ratio(signal_nr[:, column], signal_nr[:, own])
                errors[row, column] = error
                shares[row, column] = found if found > _SURE * error else 0.0
        shares[row, own] = 1.0
    return SpilloverEstimate(
        SpilloverMatrix(tuple(metals), tuple(channels), shares),
        errors,
        tuple(len(stains[metal]) for metal in metals),
        tuple(float(medians[row, list(channels).index(metal)]) for row, metal in enumerate(metals)),
        tuple(notes),
    )


def stained_events(
    counts_nr: NDArray[Any], own: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which events carry enough of a metal, and which no other.

    Parameters
    ----------
    counts_nr
        Events of one stain, shape (N, R).
    own
        The metal's channel.

    Returns
    -------
    enough_n
        Whether the own channel holds at least a tenth of the stain's 95th percentile, and 20
        counts.
    alone_n
        Whether every other channel holds at most a fifth of it.
    """
    signal_n = counts_nr[:, own]
    others_n = np.delete(counts_nr, own, axis=1).max(axis=1, initial=0)
    enough = max(_LEAST_SIGNAL, _LEAST_BRIGHTNESS * float(np.percentile(signal_n, 95)))
    return signal_n >= enough, others_n <= _LARGEST_SECOND * signal_n


def assign_beads(
    counts_nr: NDArray[Any], channels: Sequence[str], metals: Sequence[str] | None = None
) -> tuple[dict[str, NDArray[Any]], int]:
    """Tell which metal each bead carries, and drop beads that carry two.

    The brightest channel decides; a bead whose second channel is too bright is a doublet.

    Parameters
    ----------
    counts_nr
        Of all beads, shape (N, R).
    channels
        Metal of each channel.
    metals
        Those that were used for staining; None = those that have a population: 20 beads, and a
        tenth of the median population.

    Returns
    -------
    stains, dropped
        Beads of each metal, and how many beads belong to none.

    Raises
    ------
    InputError
        If no metal has a population, or one of `metals` has none.
    """
    brightest_n = counts_nr.argmax(axis=1)
    stains: dict[str, NDArray[Any]] = {}
    for column, channel in enumerate(channels):
        if metals is not None and channel not in metals:
            continue
        events_nr = counts_nr[brightest_n == column]
        if len(events_nr):
            events_nr = events_nr[np.logical_and(*stained_events(events_nr, column))]
        if len(events_nr) >= LEAST_EVENTS:
            stains[channel] = events_nr
        elif metals is not None:
            raise InputError(
                "too few beads carry this metal",
                channel=channel,
                expected=f"at least {LEAST_EVENTS}",
                found=len(events_nr),
            )
    if not stains:
        raise InputError("no channel has a population of single-stained beads")
    if metals is None:
        least = _LEAST_POPULATION * float(np.median([len(events) for events in stains.values()]))
        stains = {metal: events for metal, events in stains.items() if len(events) >= least}
    return stains, len(counts_nr) - sum(len(events) for events in stains.values())


def _ratio(received_n: NDArray[np.float64], emitted_n: NDArray[np.float64]) -> tuple[float, float]:
    """Median over groups of events of received : emitted, and its standard error."""
    size = max(1, min(_GROUP, len(emitted_n) // _GROUPS))
    starts = np.arange(0, len(emitted_n) - size + 1, size)
    ratios = np.add.reduceat(received_n, starts) / np.add.reduceat(emitted_n, starts)
    found = float(np.median(ratios))
    spread = 1.4826 * float(np.median(np.abs(ratios - found)))
    return found, 1.2533 * spread / np.sqrt(len(ratios))


def _background(
    column: int, metals: Sequence[str], channels: Sequence[str], medians: NDArray[np.float64]
) -> float:
    apart = [
        medians[row, column]
        for row, metal in enumerate(metals)
        if metal != channels[column] and not cause_of_spill(metal, channels[column])
    ]
    return float(np.median(apart)) if apart else 0.0


def _refuse_poor(metal: str, counts_nr: NDArray[Any], channels: Sequence[str]) -> None:
    if counts_nr.ndim != 2 or counts_nr.shape[1] != len(channels):
        raise InputError(
            "the events do not fit the channels",
            channel=metal,
            expected=f"{len(channels)} columns",
            found=f"shape {counts_nr.shape}",
        )
    if not np.isfinite(counts_nr).all():
        raise InputError("counts of a single stain are NaN or infinite", channel=metal)
    if len(counts_nr) < LEAST_EVENTS:
        raise InputError(
            "too few events of this stain are bright and carry one metal alone",
            channel=metal,
            expected=f"at least {LEAST_EVENTS}",
            found=len(counts_nr),
        )
    brightest = channels[int(np.median(counts_nr, axis=0).argmax())]
    if brightest != metal:
        raise InputError(
            "this stain is brightest in another channel", expected=metal, found=brightest
        )
