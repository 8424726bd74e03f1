"""Alignment: every image, or every batch, brought to the same bright level of each stain.

Axes: C = channels, Y = rows, X = columns.

The level is a high quantile of the area that is stained, so that an image with few positive cells
is compared by those it has. It cannot tell a weaker stain from cells that express less: align where
slides were stained or measured apart, by batch rather than by image where images differ in biology.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from maskless.csv_tables import IMAGE_TABLE, read_image_table
from maskless.errors import InputError, SettingsError
from maskless.images.counts import counts_of
from maskless.images.image import Image, ImageSet, Panel
from maskless.images.otsu import otsu_threshold
from maskless.progress import track

if TYPE_CHECKING:
    from maskless.config import CleanSettings
    from maskless.images.corrections import Correction

BRIGHT_QUANTILE = 0.99
"""Of the stained area. Over 11 spleen regions of one batch the levels of 13 stains spread least
with it: 0.35 (standard deviation of log2), with the median 0.48."""

LARGEST = 3.0
"""Factors are kept within 1/3 and 3: what differs more is not the stain alone."""

_LEAST_AREA_UM2 = 200.0  # stained, about ten cells


@dataclass(frozen=True)
class Alignment:
    """Factors that bring each group of images to the cohort's levels; a correction of counts.

    Attributes
    ----------
    by
        ``"image"`` or the column of images.csv that groups the images.
    channels
        Names, in the order of the planes.
    targets
        Counts that each channel's bright level is brought to; NaN where it is left alone.
    groups
        The group of each image of the cohort.
    factors
        For each group one factor a channel, 1 where it is left alone.
    """

    by: str
    channels: tuple[str, ...]
    targets: tuple[float, ...]
    groups: Mapping[str, str]
    factors: Mapping[str, tuple[float, ...]]

    def __call__(
        self, image: Image, counts_cyx: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], list[str]]:
        """Multiply the counts of an image; what was not possible is told.

        An image of no known group is brought to the levels by itself if images are aligned, and
        left alone if batches are.
        """
        group = self.groups.get(image.name)
        told = []
        if group is not None:
            factors = self.factors[group]
        elif self.by == "image":
            factors = _factors(levels_of(counts_cyx, image.um_per_pixel), self.targets)
        else:
            factors = (1.0,) * len(self.channels)
            told = [f"not aligned: {IMAGE_TABLE} does not tell its {self.by}"]
        far = [
            name
            for name, factor in zip(self.channels, factors, strict=True)
            if not 1.001 / LARGEST < factor < 0.999 * LARGEST
        ]
        if far:
            told.append(
                f"alignment was held back at a factor of {LARGEST:g}: {', '.join(far)} "
                "differ more from the cohort than a stain should"
            )
        return counts_cyx * np.array(factors, dtype=np.float32)[:, None, None], told

    def to_dict(self) -> dict[str, Any]:
        """As plain types for JSON; :meth:`from_dict` gives it back."""
        return {
            "by": self.by,
            "channels": list(self.channels),
            "targets": [t if np.isfinite(t) else None for t in self.targets],
            "groups": dict(self.groups),
            "factors": {group: list(found) for group, found in self.factors.items()},
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Alignment:
        """Read what :meth:`to_dict` wrote.

        Raises
        ------
        InputError
            If it is no stored alignment.
        """
        try:
            return cls(
                str(content["by"]),
                tuple(map(str, content["channels"])),
                tuple(np.nan if t is None else float(t) for t in content["targets"]),
                {str(k): str(v) for k, v in content["groups"].items()},
                {str(k): tuple(map(float, v)) for k, v in content["factors"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError("this is not a stored alignment", found=repr(error)) from None


def prepare_alignment(
    images: ImageSet,
    settings: CleanSettings,
    corrections: Sequence[Correction] = (),
    folder: Path | None = None,
    onto: Alignment | None = None,
) -> Alignment:
    """Measure the levels of a cohort in one pass, one image in memory at a time.

    Parameters
    ----------
    images
        Raw.
    settings
        `align` says by what.
    corrections
        Those that come before.
    folder
        Where images.csv lies; the working folder if None.
    onto
        Alignment of another cohort, whose levels are aimed at instead of this cohort's own.

    Returns
    -------
    alignment
        To be applied after `corrections`.

    Raises
    ------
    InputError
        If images.csv is missing or lacks the column; what loading images raises.
    """
    groups = {name: name for name in images.names}
    if settings.align != "image":
        groups = sample_column((folder or Path()) / IMAGE_TABLE, settings.align, images.names)
    levels_of_group: dict[str, list[NDArray[np.float64]]] = {}
    for image in track(images, "clean (fit alignment)", total=len(images)):
        if image.name not in groups:
            continue
        counts_cyx, _ = counts_of(image, settings, corrections)
        found = levels_of(counts_cyx, image.um_per_pixel, images.panel)
        levels_of_group.setdefault(groups[image.name], []).append(found)
    middle = {group: _middle(np.array(found)) for group, found in levels_of_group.items()}
    targets = tuple(_middle(np.array(list(middle.values()))).tolist())
    if onto is not None:
        if onto.channels != images.panel.names:
            raise SettingsError("the alignment is of other channels than these images have")
        targets = onto.targets
    return Alignment(
        settings.align,
        images.panel.names,
        targets,
        groups,
        {group: _factors(found, targets) for group, found in middle.items()},
    )


def levels_of(
    counts_cyx: NDArray[np.float32], um_per_pixel: float, panel: Panel | None = None
) -> NDArray[np.float64]:
    """Bright level of each channel: a quantile of the stained area; NaN where there is too little.

    Parameters
    ----------
    counts_cyx
        Linear counts, >= 0.
    um_per_pixel
        Edge of a pixel.
    panel
        Channels that it does not use are left alone (NaN); all are measured without it.
    """
    used = range(len(counts_cyx)) if panel is None else panel.used
    levels_c = np.full(len(counts_cyx), np.nan)
    for c in used:
        smooth_yx = ndimage.gaussian_filter(counts_cyx[c], 1.0 / um_per_pixel)
        root_yx = np.sqrt(np.maximum(smooth_yx, 0))
        stained_n = smooth_yx[root_yx > otsu_threshold(root_yx)]
        if stained_n.size * um_per_pixel**2 >= _LEAST_AREA_UM2:
            levels_c[c] = np.quantile(stained_n, BRIGHT_QUANTILE)
    return levels_c


def sample_column(file: Path, column: str, images: Sequence[str]) -> dict[str, str]:
    """What images.csv tells of each image in one column; images without a value are left out.

    Raises
    ------
    InputError
        If the file or the column is missing, no image has a value, or an image stands twice.
    """
    if not file.is_file():
        raise InputError(
            "there is no table of the images to align by",
            file=file,
            expected=f"a CSV with the columns image and {column}",
            do='Make it, or set clean.align to "image" or "none"',
        )
    columns, rows = read_image_table(file)
    if column not in columns:
        raise InputError(
            f"the table of the images has no column {column}",
            file=file,
            found=", ".join(columns),
            do="Correct clean.align in study.toml, or the table",
        )
    told = {name: row[column] for name, row in rows.items()}
    found = {name: told[name] for name in images if told.get(name)}
    if not found:
        raise InputError(
            f"no image has a {column} in the table",
            file=file,
            expected=", ".join(images[:5]),
            found=", ".join(list(told)[:5]),
        )
    return found


def _middle(levels_gc: NDArray[np.float64]) -> NDArray[np.float64]:
    """Geometric middle of each channel over groups, NaN left out."""
    told = [column[np.isfinite(column) & (column > 0)] for column in levels_gc.T]
    return np.array([np.exp(np.median(np.log(t))) if len(t) else np.nan for t in told])


def _factors(levels_c: NDArray[np.float64], targets: Sequence[float]) -> tuple[float, ...]:
    with np.errstate(invalid="ignore", divide="ignore"):
        factors = np.array(targets) / levels_c
    factors[~np.isfinite(factors)] = 1.0
    return tuple(np.clip(factors, 1 / LARGEST, LARGEST).tolist())
