"""Cell types from multiplex tissue images without segmentation masks.

::

    import maskless as mx
    images  = mx.clean(mx.read_images("raw/", panel="panel.csv"))
    cells   = mx.detect(images)
    encoder = mx.train(images, cells)
    cells   = mx.embed(encoder, images, cells)
    mx.cluster(cells); mx.umap(cells); mx.plot.heatmap(cells)

Names are imported when they are first used, so that ``import maskless`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from maskless._version import __version__

if TYPE_CHECKING:
    from maskless import plot
    from maskless.analysis import phenograph
    from maskless.assignment import assign
    from maskless.cells import detect, detect_nuclei
    from maskless.config import (
        CleanSettings,
        ClusterSettings,
        DetectSettings,
        EmbedSettings,
        EncoderSettings,
        SegmentSettings,
        TrainSettings,
        UmapSettings,
    )
    from maskless.encoder import Encoder, load_encoder, save_encoder
    from maskless.errors import MasklessError
    from maskless.images import (
        Image,
        ImageSet,
        Panel,
        SpilloverMatrix,
        clean,
        compensate,
        estimate_spillover,
        ilastik_probabilities,
        read_images,
        read_panel,
        read_spillover,
        write_spillover,
    )
    from maskless.pipeline import cluster, embed, train, umap
    from maskless.segmentation import segment
    from maskless.simulate import simulate
    from maskless.staining import quality
    from maskless.subclusters import subcluster

__all__ = [
    "CleanSettings",
    "ClusterSettings",
    "DetectSettings",
    "EmbedSettings",
    "Encoder",
    "EncoderSettings",
    "Image",
    "ImageSet",
    "MasklessError",
    "Panel",
    "SegmentSettings",
    "SpilloverMatrix",
    "TrainSettings",
    "UmapSettings",
    "__version__",
    "assign",
    "clean",
    "cluster",
    "compensate",
    "detect",
    "detect_nuclei",
    "embed",
    "estimate_spillover",
    "ilastik_probabilities",
    "load_encoder",
    "phenograph",
    "plot",
    "quality",
    "read_images",
    "read_panel",
    "read_spillover",
    "save_encoder",
    "segment",
    "simulate",
    "subcluster",
    "train",
    "umap",
    "write_spillover",
]

_HOME = {
    "CleanSettings": "config",
    "ClusterSettings": "config",
    "DetectSettings": "config",
    "EmbedSettings": "config",
    "Encoder": "encoder",
    "EncoderSettings": "config",
    "Image": "images",
    "ImageSet": "images",
    "MasklessError": "errors",
    "Panel": "images",
    "SegmentSettings": "config",
    "SpilloverMatrix": "images",
    "TrainSettings": "config",
    "UmapSettings": "config",
    "assign": "assignment",
    "clean": "images",
    "cluster": "pipeline",
    "compensate": "images",
    "detect": "cells",
    "detect_nuclei": "cells",
    "embed": "pipeline",
    "estimate_spillover": "images",
    "ilastik_probabilities": "images",
    "load_encoder": "encoder",
    "phenograph": "analysis",
    "quality": "staining",
    "read_images": "images",
    "read_panel": "images",
    "read_spillover": "images",
    "save_encoder": "encoder",
    "segment": "segmentation",
    "simulate": "simulate",
    "subcluster": "subclusters",
    "train": "pipeline",
    "umap": "pipeline",
    "write_spillover": "images",
}


def __getattr__(name: str) -> Any:
    if name == "plot":
        return import_module("maskless.plot")
    if name in _HOME:
        value = getattr(import_module(f"maskless.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'maskless' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
