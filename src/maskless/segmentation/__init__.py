"""The segmentation benchmark: masks, mean intensities over them, PhenoGraph.

What mask-free cells are measured against (Windhager et al. 2023, doi:10.1038/s41596-023-00881-0):
it is not a step towards them.
"""

from maskless.segmentation.masks import expand_labels, nuclear_masks, watershed
from maskless.segmentation.measure import Measured, measure_masks
from maskless.segmentation.on_disk import read_segmentation, segment_study, segmentation_state
from maskless.segmentation.table import segment, segment_image

__all__ = [
    "Measured",
    "expand_labels",
    "measure_masks",
    "nuclear_masks",
    "read_segmentation",
    "segment",
    "segment_image",
    "segment_study",
    "segmentation_state",
    "watershed",
]
