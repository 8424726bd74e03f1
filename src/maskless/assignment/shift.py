"""Has the staining moved between a study and new images? Marker by marker, in words.

A plain comparison of intensities cannot tell: another piece of tissue holds other cells. So each
cell of an image is compared with the cells of the study that are most like it in all *other*
markers, and the check is how bright the marker is beside what those say. The same is measured for
each image of the study against the rest of the study, which tells how far such ratios usually are
from 1. Where no other marker tells who has a marker (CD20 and B cells), a change of the cells
themselves still shows; then the usual range is wide as well.

q = cells of one image, n = cells that it is compared with, m = markers, i = images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskless.analysis.neighbours import nearest_among
from maskless.progress import log, track

Floats = NDArray[np.floating[Any]]
Levels = Callable[[Floats], Floats]

_K = 10
_MOST_CELLS, _MOST_BESIDE, _MOST_IMAGES = 1000, 10_000, 24
_LEAST_CELLS = 50
_PRIOR_IMAGES = 2.0
"""How many images the spread of all markers together counts for, beside a marker's own."""

SURE = 3.0
"""Standard errors from 1 that are called a shift."""

ODD = 4.0
"""Usual spreads from 1 at which one image alone is named."""

LEAST_RATIO = 1.25
"""A smaller factor is never called a shift."""


@dataclass(frozen=True)
class MarkerShift:
    """How bright a marker is in new images beside the study.

    Attributes
    ----------
    marker
        Its name.
    ratio
        Of its level to that of the study's cells which are alike in all other markers; geometric
        mean over the new images.
    by_image
        The same in each new image; NaN where there are too few cells.
    usual
        What the ratios of single images of the study spread by, as a factor (1.1 = 10 %).
    moved
        Whether the ratio is further from 1 than chance between images explains.
    odd_images
        New images in which it is far from 1 by itself.
    """

    marker: str
    ratio: float
    by_image: dict[str, float]
    usual: float
    moved: bool
    odd_images: tuple[str, ...]

    def sentence(self) -> str:
        """What a person should know."""
        brighter = self.ratio >= 1
        factor = self.ratio if brighter else 1 / max(self.ratio, 1e-3)
        times = f"{factor:.1f} times {'brighter' if brighter else 'dimmer'}"
        if self.moved:
            return (
                f"{self.marker} is {times} than in the study (cells alike in all other markers; "
                f"single images of the study differ by a factor of {self.usual:.2f})"
            )
        told = ", ".join(f"{name} {self.by_image[name]:.2f}" for name in self.odd_images)
        return f"{self.marker} is odd in single images (times the study: {told})"


def usual_ratios(
    counts_nm: Floats, images_n: NDArray[np.str_], to_levels: Levels | None = None, *, seed: int = 0
) -> NDArray[np.float64]:
    """Logarithms of the ratios of each image of a study to the rest of the study.

    Parameters
    ----------
    counts_nm, images_n, to_levels, seed
        See :func:`marker_shifts`.

    Returns
    -------
    array, shape (images, markers)
        Without images of fewer than 50 cells; of more than 24 images, 24 are taken.
    """
    study = _with_enough(images_n)
    if len(study) > _MOST_IMAGES:
        study = [study[i] for i in np.linspace(0, len(study) - 1, _MOST_IMAGES).round().astype(int)]
    compare = _Comparison(counts_nm, to_levels, seed)
    logs = [
        compare.logs(np.flatnonzero(images_n != name), counts_nm[images_n == name])
        for name in track(study, "batch check (images of the study)")
    ]
    return np.array(logs).reshape(len(logs), counts_nm.shape[1])


def marker_shifts(
    counts_nm: Floats,
    images_n: NDArray[np.str_],
    new_counts_qm: Floats,
    new_images_q: NDArray[np.str_],
    markers: tuple[str, ...],
    to_levels: Levels | None = None,
    *,
    usual_im: NDArray[np.float64] | None = None,
    seed: int = 0,
) -> list[MarkerShift]:
    """Compare the levels of markers in new images with those in a study.

    The marker that has moved furthest is taken first; the new cells are compared again with its
    change taken back, since it also spoilt what the cells are most like; and so on until no other
    has moved.

    Parameters
    ----------
    counts_nm, images_n
        Linear intensities around the study's cells, and the image of each cell.
    new_counts_qm, new_images_q
        The same of the new cells.
    markers
        Names of the columns; 2 or more, else there is nothing to compare by.
    to_levels
        Scales intensities as the images were; cells are alike by these. None = not at all.
    usual_im
        From :func:`usual_ratios`, if it was called before.
    seed
        Of the cells that are looked at: 1,000 an image, beside 10,000 of the study.

    Returns
    -------
    list of MarkerShift
        One a marker; empty if there is one image in the study, or one marker, since then nothing
        says what is usual.
    """
    new_images = _with_enough(new_images_q)
    if len(markers) < 2 or len(_with_enough(images_n)) < 2 or not new_images:
        return []
    if usual_im is None:
        usual_im = usual_ratios(counts_nm, images_n, to_levels, seed=seed)
    spread_m = _usual_spread(usual_im)
    error_m = spread_m * (1 / len(new_images) + 1 / len(usual_im)) ** 0.5
    compare = _Comparison(counts_nm, to_levels, seed)
    every = np.arange(len(counts_nm))
    rows = {name: np.flatnonzero(new_images_q == name) for name in new_images}
    taken_m = np.zeros(len(markers))  # logarithms of the changes that were taken back
    log("batch check (new images) ...")
    for _ in range(1 + len(markers) // 2):
        counts = new_counts_qm / np.exp(taken_m)
        found = {name: compare.logs(every, counts[here]) for name, here in rows.items()}
        mean_m = np.mean(list(found.values()), axis=0)
        moved_m = np.abs(mean_m) > np.maximum(np.log(LEAST_RATIO), SURE * error_m)
        moved_m &= taken_m == 0
        if not moved_m.any():
            break
        furthest = int(np.argmax(np.where(moved_m, np.abs(mean_m) / error_m, 0)))
        taken_m[furthest] = mean_m[furthest]
    return [
        _judged(
            marker,
            {name: float(logs[m] + taken_m[m]) for name, logs in found.items()},
            float(spread_m[m]),
            float(error_m[m]),
        )
        for m, marker in enumerate(markers)
    ]


class _Comparison:
    """Compares samples of cells with samples of a study's."""

    def __init__(self, counts_nm: Floats, to_levels: Levels | None, seed: int) -> None:
        self._counts, self._seed = counts_nm, seed
        self._to_levels = to_levels or (lambda counts: counts)
        levels = self._to_levels(counts_nm)
        self._centre, spread = levels.mean(axis=0), levels.std(axis=0)
        self._spread = np.where(spread > 1e-9, spread, 1)

    def logs(self, beside: NDArray[np.intp], counts_qm: Floats) -> NDArray[np.float64]:
        """Log ratios of cells to the study's cells `beside`."""
        rng = np.random.default_rng(self._seed)
        here, beside = (
            np.sort(rng.choice(rows, min(most, len(rows)), replace=False))
            for rows, most in ((np.arange(len(counts_qm)), _MOST_CELLS), (beside, _MOST_BESIDE))
        )
        counts, known = counts_qm[here], self._counts[beside]
        return _log_ratios(self._place(counts), self._place(known), counts, known)

    def _place(self, counts: Floats) -> NDArray[np.float32]:
        return np.asarray((self._to_levels(counts) - self._centre) / self._spread, np.float32)


def _judged(marker: str, logs: dict[str, float], spread: float, error: float) -> MarkerShift:
    mean = float(np.mean(list(logs.values())))
    least = np.log(LEAST_RATIO)
    return MarkerShift(
        marker,
        float(np.exp(mean)),
        {name: float(np.exp(value)) for name, value in logs.items()},
        float(np.exp(spread)),
        bool(abs(mean) > max(least, SURE * error)),
        tuple(name for name, value in logs.items() if abs(value) > max(least, ODD * spread)),
    )


def _log_ratios(
    place_qm: NDArray[np.float32],
    place_nm: NDArray[np.float32],
    counts_qm: Floats,
    counts_nm: Floats,
) -> NDArray[np.float64]:
    """Logarithm of each marker's level over that of the cells alike in all other markers."""
    markers = place_qm.shape[1]
    k = min(_K, len(place_nm))
    logs = np.zeros(markers)
    for marker in range(markers):
        others = np.delete(np.arange(markers), marker)
        alike = nearest_among(place_nm[:, others], place_qm[:, others], k, exact=True)
        told = float(counts_nm[alike.indices_nk, marker].mean(axis=1).sum())
        there = float(counts_qm[:, marker].sum())
        # A marker that is nowhere says nothing; one that is on one side only says all it can.
        tiny = 1e-3 * max(told, there)
        if tiny > 0:
            logs[marker] = np.log(max(there, tiny) / max(told, tiny))
    return logs


def _usual_spread(logs_im: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spread around 1 of each marker, drawn to that of all markers where images are few.

    As variances are moderated in limma (Smyth 2004, doi:10.2202/1544-6115.1027), with a fixed
    weight of the prior.
    """
    own = (logs_im**2).mean(axis=0)
    freedom = len(logs_im) - 1
    common = float(np.mean(own))
    return np.asarray(
        np.sqrt((_PRIOR_IMAGES * common + freedom * own) / (_PRIOR_IMAGES + freedom) + 1e-4)
    )


def _with_enough(images: NDArray[np.str_]) -> list[str]:
    names, counts = np.unique(images, return_counts=True)
    return [str(n) for n, count in zip(names, counts, strict=True) if count >= _LEAST_CELLS]
