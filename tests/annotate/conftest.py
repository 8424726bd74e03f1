"""A tiny simulated study, run to the UMAP once for all tests of the page."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from maskless.running import run_study
from maskless.simulate import simulate
from studies import make_study


@pytest.fixture(scope="session")
def finished_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images of 160 x 160 pixels, about 660 cells. Not to be changed: copy it."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return _made(tmp_path_factory.mktemp("annotate"))
    shared = tmp_path_factory.getbasetemp().parent / "annotate"
    with FileLock(f"{shared}.lock"):
        if not (shared / "study" / "cells.h5ad").exists():
            shutil.rmtree(shared, ignore_errors=True)
            _made(shared)
    return shared / "study"


@pytest.fixture(scope="module")
def study_folder(finished_study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the study for the tests of one module."""
    return _copied(finished_study, tmp_path_factory.mktemp("copy") / "study")


@pytest.fixture
def fresh_folder(finished_study: Path, tmp_path: Path) -> Path:
    """A copy of the study for one test."""
    return _copied(finished_study, tmp_path / "study")


def _copied(study: Path, to: Path) -> Path:
    shutil.copytree(study, to)
    return to


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    simulate(folder / "tissue", "demo", images=2, size_px=160)
    study = make_study(folder / "study", folder / "tissue")
    run_study(study.folder, last="umap")
    return study.folder
