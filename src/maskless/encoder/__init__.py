"""The encoder: an independent tower for each marker, a linear fusion, and what they tell."""

from maskless.encoder.activation import fit_activation, response_curve
from maskless.encoder.explain import (
    Explanation,
    explain_clusters,
    explain_difference,
    marker_shares,
)
from maskless.encoder.model import Encoder
from maskless.encoder.store import check_markers, load_encoder, save_encoder

__all__ = [
    "Encoder",
    "Explanation",
    "check_markers",
    "explain_clusters",
    "explain_difference",
    "fit_activation",
    "load_encoder",
    "marker_shares",
    "response_curve",
    "save_encoder",
]
