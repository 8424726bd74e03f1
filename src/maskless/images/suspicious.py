"""What in the quality of a cohort is suspicious, in plain words, and the table that holds it all.

Limits are chosen so that clean images are quiet (spleen IMC, 11 regions; breast MIBI, 20 fields;
pancreas IMC, CODEX) and made damage is named; :mod:`tests <tests.images.test_quality>` do both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskless.images.image import Panel
from maskless.images.quality import NOISE_ONLY, ImageQuality

if TYPE_CHECKING:
    import pandas as pd

SATURATED = 0.001
"""Share of pixels at the ceiling: a thousandth is a cell or two in every hundred."""

DRIFT = {"background": 0.15, "stains": 0.25}
"""Change over the scan. Clean: background metals 0.05 at most, stains 0.17."""

BLURRED_UM, BLURRED_TIMES = 1.6, 1.3
"""Median width of the finest structures, in um and beside the cohort's. Clean images: 0.95 to 1.31
um whatever the technology, 0.93 to 1.08 times the cohort's; blurred by 1.2 um: 1.4 to 1.8 um, by
2 um: 1.9 to 2.2 um."""

MISSING_TIMES = 4.0
"""A marker that is noise in one image is suspicious if it is this many times above noise in the
middle one; rare markers are missing here and there."""

WEAK = 0.25
"""A nuclear stain of this share of the cohort's level."""

MANY_HOT_PIXELS = 0.01
_COHORT = 3  # so many images make one that others are compared with


class Finding(NamedTuple):
    """One suspicion: where, and what, as a sentence without its image."""

    image: str
    channel: str
    what: str

    def __str__(self) -> str:
        return f"image {self.image}: {self.what}" if self.image else self.what


def find_suspicions(qualities: Mapping[str, ImageQuality], panel: Panel) -> list[Finding]:
    """What is suspicious in a cohort.

    A channel that is 0 everywhere is told when the image is read, and not again.

    Parameters
    ----------
    qualities
        Of every image, by its name.
    panel
        Of the cohort; channels that are not used (background, elements) are not judged.

    Returns
    -------
    list of Finding
        Those of whole markers first, with an empty image; then image after image.
    """
    if not qualities:
        return []
    noise_ic = np.array([q.signal_to_noise for q in qualities.values()])
    level_ic = np.array([q.level for q in qualities.values()])
    detail_ic = np.array([q.detail_um for q in qualities.values()])
    middle_c = np.median(noise_ic, axis=0)
    used = [int(c) for c in panel.used]
    found = []
    lost = []
    for c in used:
        if (noise_ic[:, c] < NOISE_ONLY).all():
            lost.append(c)
            name, best = panel.names[c], noise_ic[:, c].max()
            where = "in any image" if len(qualities) > 1 else "in the image"
            found.append(
                Finding(
                    "",
                    name,
                    f"{name} shows no more than noise {where} (signal-to-noise {best:.2f})",
                )
            )
    detail_i = _medians(detail_ic[:, used])
    usual_um = float(np.nanmedian(detail_i)) if np.isfinite(detail_i).any() else float("nan")
    for i, (image, quality) in enumerate(qualities.items()):
        here = [
            *_whole_image(quality, float(detail_i[i]), usual_um, len(qualities)),
            *(
                (panel.names[c], what)
                for c in used
                if c not in lost
                for what in _channel(
                    quality,
                    c,
                    float(middle_c[c]),
                    float(np.median(level_ic[:, c])) if len(qualities) >= _COHORT else None,
                    panel,
                )
            ),
        ]
        found += [Finding(image, channel, what) for channel, what in here]
    return found


def _whole_image(
    quality: ImageQuality, detail_um: float, usual_um: float, images: int
) -> list[tuple[str, str]]:
    found = []
    limit = DRIFT.get(quality.drift_of, np.inf)
    if abs(quality.image_drift) > limit:
        verb = "falls" if quality.image_drift < 0 else "rises"
        of = (
            "background metals do, so it is the instrument"
            if quality.drift_of == "background"
            else "nuclei and most other stains do"
        )
        found.append(
            (
                "",
                f"the signal {verb} by {_percent(abs(quality.image_drift))} from the first to the "
                f"last rows ({of})",
            )
        )
    beside = images >= _COHORT and detail_um > BLURRED_TIMES * usual_um
    if detail_um > BLURRED_UM or beside:
        others = f"; {usual_um:.1f} um in the middle image" if images >= _COHORT else ""
        found.append(
            ("", f"out of focus or smeared: the finest structures are {detail_um:.1f} um{others}")
        )
    return found


def _channel(
    quality: ImageQuality, c: int, middle: float, usual_level: float | None, panel: Panel
) -> list[str]:
    name, noise = panel.names[c], quality.signal_to_noise[c]
    found = []
    if 0 < noise < NOISE_ONLY and middle > MISSING_TIMES * NOISE_ONLY:
        found.append(
            f"{name} shows no more than noise (signal-to-noise {noise:.2f}; {middle:.2f} in the "
            "middle image)"
        )
    if quality.saturated_share[c] > SATURATED:
        found.append(f"{name} saturated in {_percent(quality.saturated_share[c])} of pixels")
    if quality.hot_pixels[c] > MANY_HOT_PIXELS:
        found.append(f"{name} has {_percent(quality.hot_pixels[c])} hot pixels")
    nuclear = panel.channels[c].kind == "nuclear"
    if nuclear and usual_level and 0 < quality.level[c] < WEAK * usual_level:
        found.append(
            f"{name} is {usual_level / quality.level[c]:.0f} times weaker than in the middle image"
        )
    return found


def quality_table(qualities: Mapping[str, ImageQuality], panel: Panel) -> pd.DataFrame:
    """One row an image and channel, and before them one for the whole image (channel ``""``).

    Parameters
    ----------
    qualities, panel
        See :func:`find_suspicions`.

    Returns
    -------
    DataFrame
        Columns ``image``, ``channel``, ``signal_to_noise``, ``positive_share``, ``contrast``,
        ``level``, ``saturated_share``, ``detail_um``, ``drift``, ``hot_pixels`` (see
        :class:`maskless.images.quality.ImageQuality`; of a whole image only detail, the median of
        its markers, and drift are told), ``warning``: sentences, empty where nothing is wrong.
    """
    import pandas as pd

    findings = find_suspicions(qualities, panel)
    warnings: dict[tuple[str, str], list[str]] = {}
    for finding in findings:
        images = [finding.image] if finding.image else list(qualities)
        for image in images:
            warnings.setdefault((image, finding.channel), []).append(finding.what)
    numbers = (
        "signal_to_noise",
        "positive_share",
        "contrast",
        "level",
        "saturated_share",
        "detail_um",
        "drift",
        "hot_pixels",
    )
    rows: list[dict[str, object]] = []
    used = [int(c) for c in panel.used]
    for image, quality in qualities.items():
        rows.append(
            {
                "image": image,
                "channel": "",
                "detail_um": float(_medians(np.array([quality.detail_um])[:, used])[0]),
                "drift": quality.image_drift,
            }
        )
        for c, channel in enumerate(quality.channels):
            values = {number: getattr(quality, number)[c] for number in numbers}
            rows.append({"image": image, "channel": channel, **values})
    table = pd.DataFrame(rows, columns=["image", "channel", *numbers])
    table["warning"] = [
        "; ".join(warnings.get((str(image), str(channel)), []))
        for image, channel in zip(table["image"], table["channel"], strict=True)
    ]
    return table


def _medians(values_ic: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row, what is NaN left out; NaN where all is."""
    told = [row[np.isfinite(row)] for row in values_ic]
    return np.array([np.median(row) if len(row) else np.nan for row in told])


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.0f} %" if percent >= 1 else f"{percent:.1g} %"
