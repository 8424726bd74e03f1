"""The embedding of a trained encoder, composed anew from its features.

Contrastive training keeps what tells one cell from all others, and how much that is of each marker
is an accident of noise and batch. So the last, linear layer is composed after training:

    embedding = rotation of the features, each marker's scaled to the variance of its level

The level of a marker is its mean in a disc about the centre. What the features of a marker say of a
cell is learned; how much the marker counts is measured. The embedding stays a sum of one
contribution a marker. The rotation spreads all markers evenly over the dimensions, so that
z-scoring them, as many tools do, does not change the distances much.

Axes: N = cells, C = markers, K = features of a marker, E = length of the embedding.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskless.encoder.model import Encoder

LEVEL_RADIUS_UM = 4.0
_STREAM = 0xF05

Array = NDArray[np.float64]


def compose_fusion(encoder: Encoder, views: Iterable[Tensor], seed: int) -> None:
    """Compose the fusion of an encoder from what its features say of plain views.

    Features come to have the mean 0, so contributions and embedding are what parts a cell from the
    average one; the bias is 0. With no more features than dimensions (C K <= E) its
    distances are those of the scaled features, exactly; otherwise but for the directions in which
    the cells vary least.

    Parameters
    ----------
    encoder
        Its fusion and the constants of its features change. Activations are to be fitted after.
    views
        Batches (cells, C, H, W) of plain views, of at least two cells together.
    seed
        Fixes the rotation.
    """
    features_nck, levels_nc = _measured(encoder, views)
    middle_ck = features_nck.mean(0)
    features_nck -= middle_ck
    spread_c = np.sqrt((features_nck**2).sum(2).mean(0))
    # A marker whose features do not vary says nothing, whatever its level does.
    scale_c = np.divide(
        levels_nc.std(0), spread_c, out=np.zeros_like(spread_c), where=spread_c > 1e-12
    )
    scale_f = np.repeat(scale_c, features_nck.shape[2])
    covariance_ff = np.cov(features_nck.reshape(len(features_nck), -1) * scale_f, rowvar=False)
    _, directions_ff = np.linalg.eigh(covariance_ff)  # least first
    length = len(encoder.bias)
    kept_fe = directions_ff[:, -length:]
    fusion_fe = scale_f[:, None] * (kept_fe @ _rotation(length, seed)[: kept_fe.shape[1]])
    size = np.sqrt((levels_nc.std(0) ** 2).sum())
    fusion_fe /= size if size > 0 else 1.0
    with torch.no_grad():
        encoder.feature_bias.sub_(torch.from_numpy(middle_ck).float())
        encoder.fusion_weight.copy_(
            torch.from_numpy(fusion_fe).view_as(encoder.fusion_weight).float()
        )
        encoder.fusion_bias.zero_()


def _measured(encoder: Encoder, views: Iterable[Tensor]) -> tuple[Array, Array]:
    """Features (N, C, K) and disc means (N, C) of views."""
    features, levels = [], []
    with torch.no_grad():
        for batch in views:
            features.append(encoder.features(batch).double().numpy())
            height, length = batch.shape[2:]
            inside = torch.from_numpy(_disc(height, length, LEVEL_RADIUS_UM / encoder.pixel_um))
            levels.append(batch[:, :, inside].mean(2).double().numpy())
    return np.concatenate(features), np.concatenate(levels)


def _disc(height: int, length: int, radius_px: float) -> NDArray[np.bool_]:
    """Pixels of a view whose centres lie in the disc about its centre."""
    y, x = np.ogrid[:height, :length]
    inside = (y - (height - 1) / 2) ** 2 + (x - (length - 1) / 2) ** 2 <= radius_px**2
    return np.asarray(inside | (inside.sum() == 0))


def _rotation(length: int, seed: int) -> Array:
    """A random orthogonal matrix."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, _STREAM)))
    return np.asarray(np.linalg.qr(rng.standard_normal((length, length)))[0])
