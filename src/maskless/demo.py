"""`maskless demo`: simulated tissue through every stage, and where to look afterwards."""

from __future__ import annotations

from pathlib import Path

from maskless.config import resolve
from maskless.errors import StudyError
from maskless.progress import log
from maskless.running import run_study
from maskless.study import Study


def run_demo(folder: Path) -> str:
    """Make a small simulated study in `folder` and run everything.

    An interrupted demo goes on where it was.

    Returns
    -------
    str
        Where the report is and what it shows.

    Raises
    ------
    StudyError
        If the folder holds something else.
    """
    from maskless.cells_file import read_cells
    from maskless.simulate import simulate

    tissue, study_folder = folder / "tissue", folder / "study"
    if not (study_folder / "study.toml").exists():
        if folder.exists() and any(p.name != "tissue" for p in folder.iterdir()):
            raise StudyError(f"{folder} is not empty. Choose a new folder: maskless demo FOLDER")
        log("simulating tissue ...")
        simulate(tissue, "demo")
        config = resolve(
            {
                "preset": "small",
                "images": {"paths": ["../tissue"], "panel": "../tissue/panel.csv"},
            }
        )
        Study.create(study_folder, config)
    run_study(study_folder)
    study = Study.open(study_folder)
    cells = read_cells(study.cells_file)
    clusters = [c for c in cells.obs["cluster"].cat.categories if c != "-1"]
    return "\n".join(
        [
            f"{cells.n_obs} cells of simulated tissue fell into {len(clusters)} clusters.",
            f"Open {study.report_file} in a browser: heat maps of the clusters, UMAPs, example",
            "cells, tissue maps and how well each marker's activation follows its expression.",
            f"The cells are in {study.cells_file} (AnnData). Next, try:",
            f"  maskless explain {study_folder} --between {clusters[0]} {clusters[-1]}",
            "  maskless init my-study MY_IMAGES",
        ]
    )
