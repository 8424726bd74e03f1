"""Cells for other programs: CSV for spreadsheets and R, FCS for cytometry, SpatialData."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from maskless.errors import InputError, SettingsError, StudyError

if TYPE_CHECKING:
    from anndata import AnnData

    from maskless.study import Study

Format = Literal["csv", "fcs", "spatialdata"]
FORMATS: tuple[str, ...] = get_args(Format)


def export_study(folder: Path, to: str, out: Path) -> str:
    """Write the cells of a study in another format.

    Parameters
    ----------
    folder
        Of the study, with embedded cells.
    to
        "csv" (one file), "fcs" (a folder with a file an image; one file if `out` ends with .fcs) or
        "spatialdata" (a Zarr store with images, centres and table).
    out
        New file or folder. Nothing is written over.

    Returns
    -------
    str
        What was written, in plain words.

    Raises
    ------
    SettingsError
        If there is no such format.
    InputError
        If the study has no embedded cells.
    StudyError
        If `out` is there already, or cannot be written.
    MissingExtraError
        If the package spatialdata is not installed.
    """
    from maskless.study import Study

    if to not in FORMATS:
        raise SettingsError(f"--to is {to!r}; expected one of {', '.join(FORMATS)}")
    if out.exists():
        raise StudyError(f"{out} is there already. Choose another name, or remove it")
    study = Study.open(folder)
    cells = _named_cells(study)
    if to == "csv":
        from maskless.exporting.table import write_csv

        write_csv(cells, out)
        return f"{cells.n_obs} cells are in {out}"
    if to == "fcs":
        from maskless.exporting.fcs import write_fcs

        files = write_fcs(cells, out)
        return f"{cells.n_obs} cells are in {len(files)} FCS files, the first is {files[0]}"
    from maskless.exporting.spatial import write_spatialdata
    from maskless.stages import study_images

    write_spatialdata(cells, study_images(study), out)
    return f"{cells.n_obs} cells and their images are in {out}"


def _named_cells(study: Study) -> AnnData:
    """The study's cells with the names that count now."""
    import pandas as pd

    from maskless.assignment.names import LABELS, names_of
    from maskless.cells_file import read_cells

    cells = read_cells(study.cells_file)
    if cells.X is None:
        raise InputError(
            "the cells have no activations yet",
            file=study.cells_file,
            do=f"Run: maskless run {study.folder}",
        )
    if study.config.assign.study is None and (study.folder / LABELS).exists():
        names = names_of(study)
        cells.obs["phenotype"] = pd.Categorical.from_codes(names.codes_n, list(names.names))
    return cells
