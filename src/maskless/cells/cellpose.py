"""Nuclei by Cellpose: an optional, learned detector. Needs the extra ``maskless[cellpose]``.

Any weights that Cellpose 3 loads can be used, by path or by name. Weights trained on nuclei of
imaging mass cytometry (Gutwein et al., MIT licence) come inside a package on PyPI; only its files
are wanted, so it is not installed::

    pip download cellpatchextraction==1.24 --no-deps
    unzip CellPatchExtraction-1.24-py3-none-any.whl 'CellPatchExtraction/.cellpose_model/*'

and in study.toml, with CP_TU (tumour) or CP_BM (bone marrow)::

    [detect]
    method = "cellpose"
    cellpose_model = "CellPatchExtraction/.cellpose_model/CP_TU"

Axes: Y = rows, X = columns.
"""

from __future__ import annotations

import hashlib
import importlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maskless.cells.given import centres_of_labels
from maskless.errors import InputError, MissingExtraError, SettingsError

if TYPE_CHECKING:
    from maskless.config import DetectSettings

NUCLEI_WIDTH = 2.8
"""Diameter told to Cellpose over `nuclear_radius_um`, which is the radius of a nucleus's bright
core. Measured with CP_TU on IMC spleen: 6 to 7 um is best; the size stored in the weights is not
that of nuclei at 1 um a pixel."""


def detect_with_cellpose(
    plane_yx: NDArray[np.floating[Any]],
    um_per_pixel: float,
    settings: DetectSettings,
    base: Path | None = None,
) -> NDArray[np.float64]:
    """Segment nuclei with Cellpose, return the centroids of its masks.

    Parameters
    ----------
    plane_yx
        Nuclear plane, shape (rows, columns).
    um_per_pixel
        Edge of a pixel.
    settings
        `cellpose_model`: a weights file (relative to `base`) or the name of a built-in model;
        `nuclear_radius_um` sets the size that is looked for.
    base
        The study's folder.

    Returns
    -------
    centres_xy
        Shape (nuclei, 2), pixels, sorted by y, then x.

    Raises
    ------
    MissingExtraError
        If Cellpose is not installed.
    SettingsError
        If `cellpose_model` is not set.
    InputError
        If there are no such weights, or Cellpose can not load them.
    """
    return centres_of_labels(masks_with_cellpose(plane_yx, um_per_pixel, settings, base))


def masks_with_cellpose(
    plane_yx: NDArray[np.floating[Any]],
    um_per_pixel: float,
    settings: DetectSettings,
    base: Path | None = None,
) -> NDArray[Any]:
    """Segment nuclei with Cellpose; see :func:`detect_with_cellpose`.

    Returns
    -------
    labels_yx
        Whole numbers, 0 = no nucleus, shape of the plane.
    """
    model = _model(str(_weights(settings, base)))
    diameter_px = NUCLEI_WIDTH * settings.nuclear_radius_um / um_per_pixel
    masks_yx = model.eval(plane_yx.astype(np.float32), channels=[0, 0], diameter=diameter_px)[0]
    return np.asarray(masks_yx).reshape(plane_yx.shape)


def weights_record(settings: DetectSettings, base: Path | None = None) -> dict[str, Any]:
    """Which weights find the cells: ``weights`` as asked for, and the SHA-256 of their file.

    Raises
    ------
    MissingExtraError, SettingsError, InputError
        As :func:`detect_with_cellpose`.
    """
    weights = _weights(settings, base)
    # a name is loaded first: only Cellpose knows where the files of its built-in models are
    path = weights if isinstance(weights, Path) else Path(str(_model(weights).pretrained_model))
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"weights": str(settings.cellpose_model), "weights_sha256": digest}


def _weights(settings: DetectSettings, base: Path | None) -> Path | str:
    """The file, or the name of a built-in model."""
    asked = settings.cellpose_model
    if asked is None:
        raise SettingsError(
            'detect.method = "cellpose" needs detect.cellpose_model, a weights file or model name'
        )
    for path in (Path() if base is None else base) / asked, Path(asked):
        if path.is_file():
            return path.resolve()
    # Cellpose itself would take its default model in place of one it does not know
    models = _cellpose_models()
    known = (*models.MODEL_NAMES, *models.get_user_models())
    if asked not in known:
        raise InputError(
            "there are no such Cellpose weights",
            file=asked,
            expected="a file, or one of " + ", ".join(known),
            do="Correct detect.cellpose_model",
        )
    return asked


@lru_cache(maxsize=1)
def _model(weights: str) -> Any:
    """The network, kept for the next image."""
    models = _cellpose_models()
    try:
        return models.CellposeModel(gpu=False, pretrained_model=weights)
    except Exception as error:  # torch and Cellpose raise many kinds for a file that is no model
        raise InputError(
            "Cellpose cannot load these weights", file=weights, found=repr(error)
        ) from error


def _cellpose_models() -> Any:
    try:
        return importlib.import_module("cellpose.models")
    except ImportError:
        raise MissingExtraError("cellpose", "cellpose") from None
