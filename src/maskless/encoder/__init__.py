"""The encoder: independent towers a marker, a linear fusion, and what can be read off it."""

from maskless.encoder.model import Encoder

__all__ = ["Encoder"]
