"""Names for new images, from a study whose clusters people have named."""

from maskless.assignment.cells import assign

__all__ = ["assign"]
