"""What is signal and what is background: automatic, brush labels, or ilastik's classifiers."""

from __future__ import annotations

from maskless.images.background.ilastik_project import ilastik_probabilities
from maskless.images.background.removal import (
    BackgroundRemoval,
    background_files,
    prepare_background,
)

__all__ = ["BackgroundRemoval", "background_files", "ilastik_probabilities", "prepare_background"]
