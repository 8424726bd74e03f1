"""Figures of cells: AnnData in, matplotlib figures out.

Example
-------
>>> import maskless as mx
>>> figure = mx.plot.heatmap(cells)  # doctest: +SKIP
>>> mx.plot.save(figure, Path("heatmap.svg"))  # doctest: +SKIP
"""

from maskless.report import (
    assignment,
    background,
    bubble,
    detection_overlay,
    explain,
    gallery,
    heatmap,
    response_curves,
    save,
    spillover,
    tissue,
    training_curve,
    umap,
    umap_panels,
)

__all__ = [
    "assignment",
    "background",
    "bubble",
    "detection_overlay",
    "explain",
    "gallery",
    "heatmap",
    "response_curves",
    "save",
    "spillover",
    "tissue",
    "training_curve",
    "umap",
    "umap_panels",
]
