"""A study as SpatialData: images with their channels, centres as circles, the table of cells.

Every image has a coordinate system of its own name, in micrometres; x stays x and y stays y.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskless.errors import MissingExtraError
from maskless.pipeline import DISC_RADIUS_UM
from maskless.progress import track
from maskless.storage import atomic_path

if TYPE_CHECKING:
    from anndata import AnnData

    from maskless.images import ImageSet


def write_spatialdata(cells: AnnData, images: ImageSet, target: Path) -> None:
    """Write a SpatialData store, atomically.

    Parameters
    ----------
    cells
        As in cells.h5ad.
    images
        Cleaned.
    target
        The new Zarr store. Elements are called ``IMAGE_image`` and ``IMAGE_cells``, the table
        ``cells``; its columns ``region`` and ``instance_id`` tie rows to circles.

    Raises
    ------
    MissingExtraError
        If the package spatialdata is not installed.
    StudyError
        If it cannot be written.
    """
    try:
        import spatialdata
        from spatialdata.models import Image2DModel, ShapesModel, TableModel
        from spatialdata.transformations import Scale
    except ImportError as error:
        raise MissingExtraError("spatialdata", "scverse") from error
    import pandas as pd

    from maskless.report.figures import file_stems

    names = file_stems(images.names)
    of_image = cells.obs["image"].astype(str).to_numpy()
    xy = cells.obs[["x", "y"]].to_numpy(dtype=np.float64)
    elements: dict[str, Any] = {}
    instance = np.zeros(cells.n_obs, np.int64)
    for image in track(images, "export (images)", total=len(images)):
        stem, um = names[image.name], image.um_per_pixel
        to_um = {stem: Scale([um, um], axes=("x", "y"))}
        elements[f"{stem}_image"] = Image2DModel.parse(
            np.asarray(image.pixels_cyx),
            dims=("c", "y", "x"),
            c_coords=list(image.channels),
            transformations=to_um,
        )
        rows = np.flatnonzero(of_image == image.name)
        instance[rows] = np.arange(len(rows))
        if len(rows):
            elements[f"{stem}_cells"] = ShapesModel.parse(
                xy[rows], geometry=0, radius=DISC_RADIUS_UM / um, transformations=to_um
            )
    table = cells.copy()
    regions = [f"{stem}_cells" for stem in names.values() if f"{stem}_cells" in elements]
    table.obs["region"] = pd.Categorical(
        [f"{names[name]}_cells" for name in of_image], categories=regions
    )
    table.obs["instance_id"] = instance
    table.uns = {}
    elements["cells"] = TableModel.parse(
        table, region=regions, region_key="region", instance_key="instance_id"
    )
    with atomic_path(target) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the packages below plan for their next versions
        spatialdata.SpatialData.init_from_elements(elements).write(temporary)
