"""What lies under each mask: place, area and mean intensity of every channel.

Axes: N = masks, C = channels, Y = rows, X = columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Measured:
    """The masks of one image, in the order of their numbers.

    Attributes
    ----------
    label_n
        Number of each in the mask.
    centres_xy
        Centre of mass, pixels, shape (N, 2).
    area_px
        Pixels of each.
    means_nc
        Mean of each channel, float32, shape (N, C).
    """

    label_n: NDArray[np.intp]
    centres_xy: NDArray[np.float64]
    area_px: NDArray[np.intp]
    means_nc: NDArray[np.float32]


def measure_masks(pixels_cyx: NDArray[Any], labels_yx: NDArray[Any]) -> Measured:
    """Measure every mask of an image.

    Parameters
    ----------
    pixels_cyx
        One image.
    labels_yx
        Whole numbers of the same height and width, 0 = none.
    """
    rows, columns = np.nonzero(labels_yx)
    label_n, mask = np.unique(labels_yx[rows, columns], return_inverse=True)
    area = np.bincount(mask, minlength=len(label_n))

    def mean(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.asarray(np.bincount(mask, values, minlength=len(label_n)) / area)

    means_nc = np.zeros((len(label_n), len(pixels_cyx)), dtype=np.float32)
    for channel, plane_yx in enumerate(pixels_cyx):
        means_nc[:, channel] = mean(np.asarray(plane_yx)[rows, columns])
    centres_xy = np.column_stack([mean(columns), mean(rows)])
    return Measured(label_n.astype(np.intp), centres_xy, area.astype(np.intp), means_nc)
