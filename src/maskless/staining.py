"""How good the images of a study are: kept with each cleaned image, told in words and a table."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from maskless.errors import InputError
from maskless.images.quality import ImageQuality, measure_quality
from maskless.images.suspicious import find_suspicions, quality_table
from maskless.reading import panel_from
from maskless.storage import read_json
from maskless.study import Study

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from maskless.config import CleanSettings
    from maskless.images import ImageSet, Panel

KEY = "quality"
"""Of the cleaned image's attributes, and of ``uns["maskless"]`` in cells.h5ad."""

SUSPICIOUS = "suspicious"


def quality(images: ImageSet, settings: CleanSettings | None = None) -> pd.DataFrame:
    """Measure the quality of raw images, one after the other.

    Parameters
    ----------
    images
        Raw, as :func:`maskless.read_images` gives them.
    settings
        Threshold of the hot pixels, which are set aside first.

    Returns
    -------
    DataFrame
        See :func:`maskless.images.suspicious.quality_table`.
    """
    found = {image.name: measure_quality(image, images.panel, settings) for image in images}
    return quality_table(found, images.panel)


def study_quality(study: Study) -> tuple[dict[str, ImageQuality], Panel]:
    """What the clean stage measured in each image; those it has not cleaned are left out."""
    from maskless.images import zarr_attributes

    content = read_json(study.inventory_file)
    found = {}
    for entry in content["images"]:
        try:
            stored = zarr_attributes(study.image_file(entry["name"]))[KEY]
            found[entry["name"]] = ImageQuality.from_dict(stored)
        except (InputError, KeyError, TypeError, AttributeError):
            continue  # not cleaned yet, or by an earlier version
    return found, panel_from(content["panel"])


def store_quality(study: Study, cells: AnnData) -> None:
    """Put the table into ``uns["maskless"]["quality"]``, the sentences beside it as a JSON list."""
    found, panel = study_quality(study)
    table = quality_table(found, panel)
    table.index = table.index.astype(str)
    for column in ("image", "channel", "warning"):
        table[column] = table[column].astype("category")
    record = cells.uns.setdefault("maskless", {})
    record[KEY] = table
    record[SUSPICIOUS] = json.dumps([str(f) for f in find_suspicions(found, panel)])


def image_problems(study: Study) -> dict[str, list[str]]:
    """Problems of every image: those that reading found, then those that cleaning added."""
    from maskless.images.zarr_store import zarr_problems

    content = read_json(study.inventory_file)
    problems = {}
    for entry in content["images"]:
        told = list(entry["problems"])
        with suppress(InputError):  # not cleaned yet: only what reading found is known
            told += [p for p in zarr_problems(study.image_file(entry["name"])) if p not in told]
        problems[entry["name"]] = told
    return problems


def describe_quality(study: Study) -> list[str]:
    """Lines for `maskless info`: the stain of every marker, then what is suspicious."""
    found, panel = study_quality(study)
    if not found:
        return []
    noise_ic = np.array([q.signal_to_noise for q in found.values()])
    share_ic = np.array([q.positive_share for q in found.values()])
    one = len(found) == 1
    lines = [
        f"staining of {len(found)} image{'' if one else 's'} (raw counts; noise only = 0.00)",
        "  marker            signal-to-noise: middle, lowest image        positive area",
    ]
    names = list(found)
    for c in panel.used:
        worst = int(noise_ic[:, c].argmin())
        low, high = share_ic[:, c].min(), share_ic[:, c].max()
        lowest = "" if one else f"{noise_ic[worst, c]:.2f} in {_short(names[worst])}"
        share = f"{low:.0%}" if f"{low:.0%}" == f"{high:.0%}" else f"{low:.0%} to {high:.0%}"
        lines.append(
            f"  {panel.names[c]:<18}{np.median(noise_ic[:, c]):>7.2f}   {lowest:<38}{share}"
        )
    suspicious = find_suspicions(found, panel)
    lines += [f"  suspicious: {finding}" for finding in suspicious]
    if not suspicious:
        lines.append("  nothing suspicious: noise, saturation, drift and focus are in their limits")
    return lines


def _short(name: str, longest: int = 28) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
