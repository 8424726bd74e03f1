"""The table of cells: one row a cell, as AnnData. Files and tables hold (x, y)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maskless.errors import InputError
from maskless.images.image import Panel

if TYPE_CHECKING:
    from anndata import AnnData


def make_cells(
    centres_by_image: Mapping[str, NDArray[np.floating[Any]]],
    panel: Panel,
    um_per_pixel: Mapping[str, float],
) -> AnnData:
    """Make the table of a cohort's cells from their centres.

    Parameters
    ----------
    centres_by_image
        For each image, in the cohort's order, an array of shape (cells, 2): x, y in pixels.
        An image without cells has an array of shape (0, 2).
    panel
        Becomes `var`, all channels.
    um_per_pixel
        Of each image.

    Returns
    -------
    cells
        `obs`: image (categorical, all images, in order), y, x (float32, pixels), named
        ``IMAGE:INDEX``; `var`: name, channel, metal, kind, used; `obsm["spatial"]`: x, y in um;
        ``uns["maskless"]["images_without_cells"]``. There is no `X` before cells are embedded.

    Raises
    ------
    InputError
        If centres are not pairs of finite numbers, or no image has any cell.
    """
    import anndata
    import pandas as pd

    names = list(centres_by_image)
    centres = []
    for name in names:
        centres_xy = np.asarray(centres_by_image[name], dtype=np.float64)
        if centres_xy.ndim != 2 or centres_xy.shape[1] != 2 or not np.isfinite(centres_xy).all():
            raise InputError(
                "centres of cells must be pairs x, y of finite numbers",
                image=name,
                found=f"an array of shape {centres_xy.shape}",
            )
        centres.append(centres_xy)
    counts = [len(centres_xy) for centres_xy in centres]
    if not sum(counts):
        raise InputError(
            f"no cells were found in any of {len(names)} images",
            do="Look at the nuclear channels and the pixel size, or lower detect.peak_threshold "
            "and detect.foreground",
        )
    all_xy = np.concatenate(centres)
    pixel_um = np.repeat([um_per_pixel[name] for name in names], counts)
    obs = pd.DataFrame(
        {
            "image": pd.Categorical.from_codes(
                np.repeat(np.arange(len(names)), counts), categories=pd.Index(names, dtype=object)
            ),
            "y": all_xy[:, 1].astype(np.float32),
            "x": all_xy[:, 0].astype(np.float32),
        },
        index=pd.Index(
            [f"{name}:{i}" for name, count in zip(names, counts, strict=True) for i in range(count)]
        ),
    )
    cells = anndata.AnnData(
        obs=obs, var=_channels(panel), obsm={"spatial": all_xy * pixel_um[:, np.newaxis]}
    )
    without = [name for name, count in zip(names, counts, strict=True) if count == 0]
    cells.uns["maskless"] = {"images_without_cells": np.array(without, dtype=object)}
    return cells


def _channels(panel: Panel) -> Any:
    """One row a channel; text as categories, which every reader of h5ad files understands."""
    import pandas as pd

    return pd.DataFrame(
        {
            "name": pd.Categorical(panel.names),
            "channel": np.arange(len(panel.channels)),
            "metal": pd.Categorical([channel.metal for channel in panel.channels]),
            "kind": pd.Categorical([channel.kind for channel in panel.channels]),
            "used": np.array([channel.used for channel in panel.channels], dtype=bool),
        },
        index=pd.Index(list(panel.names), dtype=object),
    )
