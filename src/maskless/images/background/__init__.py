"""What is signal and what is background: ilastik projects, brush labels, or automatic."""

from __future__ import annotations

from maskless.images.background.ilastik_project import ilastik_probabilities

__all__ = ["ilastik_probabilities"]
