"""Why two groups of cells lie apart: shares of the markers in the distance of their embeddings.

n = cells, C = markers, K = features of a marker, N = length of the embedding.

The fusion is linear, so the difference of two mean embeddings is a sum over markers:
d = sum_m c_m, with c_m the difference of marker m's mean contributions. So |d|^2 is the sum of the
<c_m, d>, and <c_m, d> / |d|^2 is marker m's share: the shares add up to 1, nothing is approximated.
A share is negative where a marker makes the groups look more alike than the others say they are.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from maskless.errors import InputError

if TYPE_CHECKING:
    from maskless.encoder.model import Encoder

Array = NDArray[np.float64]
Features = Tensor | NDArray[Any]

_SAME = 1e-9


@dataclass(frozen=True, eq=False)
class Explanation:
    """The distance of two groups' mean embeddings, split over markers.

    Attributes
    ----------
    markers
        C names.
    shares
        (C,) of the squared distance, adding up to 1; may be negative.
    mean_a, mean_b
        Mean embeddings of the groups, (N,).
    distance
        Euclidean distance of the two.
    """

    markers: tuple[str, ...]
    shares: Array
    mean_a: Array
    mean_b: Array
    distance: float

    def ranked(self) -> list[tuple[str, float]]:
        """Markers and their shares, largest share first."""
        order = np.argsort(-self.shares, kind="stable")
        return [(self.markers[m], float(self.shares[m])) for m in order]


def explain_difference(
    encoder: Encoder, features_a_nck: Features, features_b_nck: Features
) -> Explanation:
    """Split the distance of two groups' mean embeddings over markers.

    Parameters
    ----------
    encoder
        The encoder that the features come from.
    features_a_nck, features_b_nck
        Features of the groups' cells, (n, C, K) or (n, C K) as in ``obsm["X_features"]``. One cell
        is a group as well.

    Raises
    ------
    InputError
        If a group has no cells, features do not fit the encoder or are not finite, or the groups'
        mean embeddings are the same.
    """
    mean_a, mean_b = (_mean(encoder, group) for group in (features_a_nck, features_b_nck))
    return _explain(encoder, mean_a, mean_b)


def marker_shares(encoder: Encoder, features_a_nck: Features, features_b_nck: Features) -> Array:
    """Shares (C,) of the markers in the distance of two groups; see `explain_difference`."""
    return explain_difference(encoder, features_a_nck, features_b_nck).shares


def explain_clusters(
    encoder: Encoder, features_nck: Features, labels: Sequence[Hashable] | NDArray[Any]
) -> dict[Any, Explanation]:
    """Each cluster against the rest of the cells.

    Parameters
    ----------
    encoder
        The encoder that the features come from.
    features_nck
        (n, C, K) or (n, C K).
    labels
        A label a cell, (n,).

    Returns
    -------
    One explanation a label, in sorted order of the labels; group a is the cluster.

    Raises
    ------
    InputError
        As `explain_difference`; also if there is one label only, or not one label a cell.
    """
    features = _checked(encoder, features_nck)
    names, numbers = np.unique(np.asarray(labels), return_inverse=True)
    if len(numbers) != len(features):
        raise InputError(
            "there is not one label a cell", expected=len(features), found=len(numbers)
        )
    if len(names) < 2:
        raise InputError("a cluster needs others to differ from", found=f"{len(names)} cluster")
    counts = np.bincount(numbers).astype(np.float64)[:, None, None]
    sums = np.stack([features[numbers == n].sum(0, dtype=np.float64) for n in range(len(names))])
    rest = (sums.sum(0) - sums) / (len(features) - counts)
    means = sums / counts
    return {
        name.item() if isinstance(name, np.generic) else name: _explain(encoder, mean, others)
        for name, mean, others in zip(names, means, rest, strict=True)
    }


def _explain(encoder: Encoder, features_a_ck: Array, features_b_ck: Array) -> Explanation:
    """The split of the distance between two mean feature vectors; means pass a linear fusion."""
    weight = encoder.fusion_weight.detach().double().cpu().numpy()
    bias = encoder.bias.double().cpu().numpy()
    mean_a, mean_b = (
        bias + np.einsum("ck,ckn->n", features, weight)
        for features in (features_a_ck, features_b_ck)
    )
    parts = np.einsum("ck,ckn->cn", features_a_ck - features_b_ck, weight)
    difference = parts.sum(0)
    distance = float(np.linalg.norm(difference))
    if distance <= _SAME * float(np.linalg.norm(mean_a) + np.linalg.norm(mean_b)):
        raise InputError(
            "the two groups have the same mean embedding: there is no distance to explain",
            do="Compare groups of different cells",
        )
    products = parts @ difference
    return Explanation(encoder.markers, products / products.sum(), mean_a, mean_b, distance)


def _mean(encoder: Encoder, features: Features) -> Array:
    array = _checked(encoder, features)
    if not len(array):
        raise InputError("a group to compare has no cells")
    mean: Array = array.mean(0, dtype=np.float64)
    return mean


def _checked(encoder: Encoder, features: Features) -> NDArray[Any]:
    """Features as an array (n, C, K)."""
    array = features.detach().cpu().numpy() if isinstance(features, Tensor) else features
    count, width = len(encoder.markers), encoder.features_per_marker
    if array.shape[1:] not in ((count, width), (count * width,)):
        raise InputError(
            "features do not fit the encoder",
            expected=f"(cells, {count} markers, {width} features)",
            found=f"({', '.join(str(n) for n in array.shape)})",
        )
    if not np.isfinite(array).all():
        raise InputError("features hold NaN or infinite values")
    return array.reshape(-1, count, width)
