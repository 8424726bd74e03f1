"""Small quick studies for the tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskless.config import resolve
from maskless.study import Study

QUICK: dict[str, Any] = {
    "preset": "small",
    "encoder": {"width": 2, "blocks": (1,), "embedding": 32},
    "train": {"steps": 8, "cells_per_step": 16, "checkpoint_seconds": 0.001},
    "cluster": {"k": 10, "min_size": 5},
    "umap": {"epochs": 20},
}


def make_study(folder: Path, tissue: Path, **tables: Mapping[str, Any]) -> Study:
    """A quick study of `tissue` (a folder), with some settings of its own."""
    content = {**QUICK, "images": {"paths": [str(tissue)]}}
    for name, table in tables.items():
        content[name] = {**content.get(name, {}), **table}
    return Study.create(folder, resolve(content))
