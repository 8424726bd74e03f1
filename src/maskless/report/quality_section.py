"""The part of the report that tells how good the images are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


def quality_of(cells: AnnData) -> pd.DataFrame | None:
    """The table of the clean stage, None where there is none."""
    table: Any = cells.uns.get("maskless", {}).get("quality")
    return table if table is not None and len(table) else None


def suspicions_of(cells: AnnData) -> list[str]:
    """The sentences on what is suspicious."""
    try:
        told = json.loads(cells.uns.get("maskless", {}).get("suspicious", "[]"))
    except (TypeError, ValueError):
        return []
    return [str(sentence) for sentence in told] if isinstance(told, list) else []


def marker_rows(cells: AnnData) -> list[list[str]]:
    """Of each marker: name, middle and lowest signal-to-noise, where, positive area, saturation."""
    table = quality_of(cells)
    if table is None:
        return []
    rows = []
    for name in cells.var_names[cells.var["used"].to_numpy(dtype=bool)]:
        own = table[table["channel"].astype(str) == str(name)]
        if not len(own):
            continue
        noise = own["signal_to_noise"].to_numpy(dtype=float)
        share = own["positive_share"].to_numpy(dtype=float)
        rows.append(
            [
                str(name),
                f"{np.median(noise):.2f}",
                f"{noise.min():.2f}",
                str(own["image"].iloc[int(noise.argmin())]),
                f"{share.min():.0%} to {share.max():.0%}",
                f"{own['saturated_share'].max():.2%}",
            ]
        )
    return rows
