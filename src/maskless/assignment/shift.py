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

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskless.analysis.neighbours import nearest_among
from maskless.progress import track

Floats = NDArray[np.floating[Any]]

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


def marker_shifts(
    levels_nm: Floats,
    images_n: NDArray[np.str_],
    new_levels_qm: Floats,
    new_images_q: NDArray[np.str_],
    markers: tuple[str, ...],
    counts_nm: Floats | None = None,
    new_counts_qm: Floats | None = None,
    *,
    seed: int = 0,
) -> list[MarkerShift]:
    """Compare the levels of markers in new images with those in a study.

    Parameters
    ----------
    levels_nm, images_n
        Mean scaled intensities around the study's cells, and the image of each cell.
    new_levels_qm, new_images_q
        The same of the new cells.
    markers
        Names of the columns; 2 or more, else there is nothing to compare by.
    counts_nm, new_counts_qm
        The levels as linear intensities, of which the ratios are taken; None = the levels are.
    seed
        Of the cells that are looked at: 1,000 an image, beside 10,000 of the study.

    Returns
    -------
    list of MarkerShift
        One a marker; empty if there is one image in the study, or one marker, since then nothing
        says what is usual.
    """
    counts_nm = levels_nm if counts_nm is None else counts_nm
    new_counts_qm = new_levels_qm if new_counts_qm is None else new_counts_qm
    rng = np.random.default_rng(seed)
    study = _with_enough(images_n)
    if len(markers) < 2 or len(study) < 2:
        return []
    if len(study) > _MOST_IMAGES:
        study = [study[i] for i in np.linspace(0, len(study) - 1, _MOST_IMAGES).round().astype(int)]
    centre, spread = levels_nm.mean(axis=0), levels_nm.std(axis=0)
    spread = np.where(spread > 1e-9, spread, 1)

    def place(levels: Floats) -> NDArray[np.float32]:
        placed: NDArray[np.float32] = ((levels - centre) / spread).astype(np.float32)
        return placed

    def drawn(rows: NDArray[np.intp], most: int) -> NDArray[np.intp]:
        return np.sort(rng.choice(rows, min(most, len(rows)), replace=False))

    usual = []
    for name in track(study, "batch check (images of the study)"):
        here = drawn(np.flatnonzero(images_n == name), _MOST_CELLS)
        rest = drawn(np.flatnonzero(images_n != name), _MOST_BESIDE)
        usual.append(
            _log_ratios(
                place(levels_nm[here]), place(levels_nm[rest]), counts_nm[here], counts_nm[rest]
            )
        )
    beside = drawn(np.arange(len(levels_nm)), _MOST_BESIDE)
    place_beside, counts_beside = place(levels_nm[beside]), counts_nm[beside]
    found: dict[str, NDArray[np.float64]] = {}
    for name in track(_with_enough(new_images_q), "batch check (new images)"):
        here = drawn(np.flatnonzero(new_images_q == name), _MOST_CELLS)
        found[name] = _log_ratios(
            place(new_levels_qm[here]), place_beside, new_counts_qm[here], counts_beside
        )
    if not found:
        return []
    spread_m = _usual_spread(np.array(usual))
    return [
        _judged(markers[m], m, found, float(spread_m[m]), len(study)) for m in range(len(markers))
    ]


def _judged(
    marker: str, column: int, found: dict[str, NDArray[np.float64]], spread: float, study: int
) -> MarkerShift:
    logs = {name: float(values[column]) for name, values in found.items()}
    mean = float(np.mean(list(logs.values())))
    error = spread * (1 / len(logs) + 1 / study) ** 0.5
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
