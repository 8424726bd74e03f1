"""The encoder and its reference form: a tower of NeXt-Channel blocks a marker, a linear fusion.

B = views, C = markers, H, W = pixels, w = width (features of a marker inside the tower),
K = features of a marker at the interpretability stage (K = w), N = length of the embedding.

Until the fusion every operation is grouped by marker: convolutions, LayerNorm (over one marker's
w features at one pixel) and pooling, so features of marker i cannot depend on pixels of marker j.
The fusion is linear, so the embedding is a sum of one contribution a marker and a bias.

Source: Gutwein et al. 2024, "Interpretable embeddings for segmentation-free single-cell analysis in
multiplex imaging"; ConvNeXt blocks: Liu et al. 2022, arXiv:2201.03545.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from maskless.encoder import paths
from maskless.encoder.activation import Activation, as_tensor
from maskless.encoder.pooling import edge_weights
from maskless.errors import InputError, SettingsError

if TYPE_CHECKING:
    from maskless.config import EncoderSettings

Views = Tensor | NDArray[Any]
Pool = Callable[[Tensor], Tensor]

_EPSILON = 1e-5
_SMALLEST_PROMISED = 12
_MOST_BLOCKS = 64
_CHUNK_BYTES = 8 << 20


class Block(nn.Module):
    """A NeXt-Channel block: the residual block of ConvNeXt with every convolution grouped.

    depthwise k x k -> LayerNorm over a marker's features -> grouped 1 x 1, w -> E w -> GELU (tanh)
    -> grouped 1 x 1, E w -> w -> layer scale -> added to the input.
    """

    def __init__(
        self,
        markers: int,
        width: int,
        expansion: int,
        kernel: int,
        norm: str,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        inner = expansion * width
        self.depthwise_weight = _uniform((markers, width, kernel, kernel), kernel**2, generator)
        self.depthwise_bias = _uniform((markers, width), kernel**2, generator)
        if norm == "marker":
            self.norm_weight = nn.Parameter(torch.ones(markers, width))
            self.norm_bias = nn.Parameter(torch.zeros(markers, width))
        self.norm = norm
        self.expand_weight = _uniform((markers, inner, width), width, generator)
        self.expand_bias = _uniform((markers, inner), width, generator)
        self.project_weight = _uniform((markers, width, inner), inner, generator)
        self.project_bias = _uniform((markers, width), inner, generator)
        self.scale = nn.Parameter(torch.ones(markers, width))

    def forward(self, x: Tensor, pool: Pool | None = None) -> Tensor:
        """One block and, if given, the pool behind it: (B, H, W, C w) -> (B, H', W', C w).

        `pool` must be an average (linear, weights adding up to 1, the same for all features): then
        pool(x + P h + b) = pool(x) + P pool(h) + b, and projecting after pooling costs less.
        """
        hidden = self.hidden(x)
        if pool is not None:
            x = pool(x)
            hidden = pool(hidden.flatten(0, 1)).view(-1, len(x), *x.shape[1:3], hidden.shape[-1])
        return x + self.project(hidden)

    def hidden(self, x: Tensor) -> Tensor:
        """The inner layer: (B, H, W, C w) -> (C, B, H, W, E w)."""
        markers, width = self.scale.shape
        h = _convolve(x.permute(0, 3, 1, 2), self.depthwise_weight, self.depthwise_bias)
        rows = h.reshape(-1, markers, width)
        weight: Tensor = self.expand_weight
        bias: Tensor = self.expand_bias
        if self.norm == "marker":
            # The norm's own weight and bias are linear: they go into the 1 x 1 behind them.
            rows = functional.layer_norm(rows, (width,), eps=_EPSILON)
            bias = bias + (weight @ self.norm_bias[:, :, None])[:, :, 0]
            weight = weight * self.norm_weight[:, None]
        inner = torch.baddbmm(bias[:, None], rows.transpose(0, 1), weight.transpose(1, 2))
        return functional.gelu(inner, approximate="tanh").view(markers, *h.shape[:3], -1)

    def project(self, hidden: Tensor) -> Tensor:
        """The branch's output: (C, B, H, W, E w) -> (B, H, W, C w)."""
        weight = (self.scale[:, :, None] * self.project_weight).transpose(1, 2)
        bias = self.scale * self.project_bias
        out = torch.baddbmm(bias[:, None], hidden.flatten(1, 3), weight)
        return out.view(*hidden.shape[:4], -1).permute(1, 2, 3, 0, 4).flatten(3)


class Encoder(nn.Module):
    """Independent towers, one a marker, and a linear fusion: views in, readable embeddings out.

    Parameters
    ----------
    markers
        Names of the C markers, in the order of the views' channels.
    settings
        Architecture.
    pixel_um
        Pixel size of the views, um; the pooling radius is given in um.
    seed
        Fixes the initial weights. torch's global random state is neither read nor changed.

    Attributes
    ----------
    activation
        The calibration behind :meth:`activations`; see :func:`maskless.encoder.fit_activation`.
    extra
        What was saved with the encoder beside weights and settings (scaling, for example).

    Raises
    ------
    SettingsError
        If there are no markers, a name stands twice, or the settings make no encoder.
    """

    def __init__(
        self,
        markers: Sequence[str],
        settings: EncoderSettings,
        pixel_um: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.markers = _checked_markers(markers)
        self.settings = settings
        self.pixel_um = float(pixel_um)
        if not (self.pixel_um > 0 and math.isfinite(self.pixel_um)):
            raise SettingsError(f"the pixel size must be above 0 um, not {pixel_um}")
        if not settings.blocks or min(settings.blocks) < 1 or sum(settings.blocks) > _MOST_BLOCKS:
            raise SettingsError(
                "encoder.blocks must hold one number of 1 or more a stage, "
                f"{_MOST_BLOCKS} together at most, not {settings.blocks}"
            )
        count, width = len(self.markers), settings.width
        generator = torch.Generator().manual_seed(seed)
        self.stem_weight = _uniform((count, width, 3, 3), 9, generator)
        self.stem_bias = _uniform((count, width), 9, generator)
        self.stages = nn.ModuleList(
            nn.ModuleList(
                Block(count, width, settings.expansion, settings.kernel, settings.norm, generator)
                for _ in range(blocks)
            )
            for blocks in settings.blocks
        )
        self.feature_weight = _uniform((count, width, width), width, generator)
        self.feature_bias = _uniform((count, width), width, generator)
        self.fusion_weight = _uniform((count, width, settings.embedding), count * width, generator)
        self.fusion_bias = _uniform((settings.embedding,), count * width, generator)
        self.activation = Activation(count, width)
        self.extra: dict[str, Any] = {}
        self.path = os.environ.get(paths.VARIABLE, "auto")

    @property
    def path(self) -> paths.Path:
        """What computes the features, "fused", "triton" or "reference": see :mod:`.paths`.

        Set it, or the environment variable ``MASKLESS_ENCODER``, to ask for one; "auto" is the
        fastest. Views that want a gradient themselves always take the reference.
        """
        return paths.path_of(self, self._asked)

    @path.setter
    def path(self, path: str) -> None:
        self._asked = paths.checked_path(path)

    @property
    def bias(self) -> Tensor:
        """The embedding of a view that no marker contributes to: (N,), detached."""
        return self.fusion_bias.detach()

    @property
    def features_per_marker(self) -> int:
        """K, the number of features of a marker at the interpretability stage."""
        return int(self.feature_weight.shape[1])

    @property
    def smallest_view_px(self) -> int:
        """The least edge of a view, pixels: three cells of the last feature grid, at most 12."""
        reduction = self.settings.stem_stride << (len(self.settings.blocks) - 1)
        return min(_SMALLEST_PROMISED, 3 * reduction)

    def forward(self, views_bchw: Views) -> Tensor:
        """Same as :meth:`embed`."""
        return self.embed(views_bchw)

    def features(self, views_bchw: Views) -> Tensor:
        """Features at the interpretability stage; those of a marker come from its pixels alone.

        Parameters
        ----------
        views_bchw
            Cleaned pixels, a float tensor or array (B, C, H, W). An array gives a result that
            carries no gradient.

        Returns
        -------
        (B, C, K).

        Raises
        ------
        InputError
            If the views have another shape, another number of markers, or are too small.
        """
        with _gradient(views_bchw):
            return self._features(self._checked_views(views_bchw))

    def embed(self, views_bchw: Views) -> Tensor:
        """Embeddings (B, N); see :meth:`features` for the views."""
        with _gradient(views_bchw):
            return self.embed_of(self.features(views_bchw))

    def contributions(self, views_bchw: Views) -> Tensor:
        """What each marker adds to the embedding, (B, C, N); see :meth:`contributions_of`."""
        with _gradient(views_bchw):
            return self.contributions_of(self.features(views_bchw))

    def embed_of(self, features_bck: Tensor) -> Tensor:
        """Embeddings (B, N) of features (B, C, K)."""
        features = self._checked_features(features_bck)
        return torch.addmm(self.fusion_bias, features.flatten(1), self.fusion_weight.flatten(0, 1))

    def contributions_of(self, features_bck: Tensor) -> Tensor:
        """What each marker adds to the embedding: (B, C, K) -> (B, C, N).

        Their sum over markers plus :attr:`bias` is the embedding, exactly but for rounding.
        """
        features = self._checked_features(features_bck)
        return torch.bmm(features.transpose(0, 1), self.fusion_weight).transpose(0, 1)

    def activations(self, views_bchw: Views) -> Tensor:
        """Calibrated activation of each marker, (B, C); see :meth:`activations_of`."""
        with _gradient(views_bchw):
            return self.activations_of(self.features(views_bchw))

    def activations_of(self, features_bck: Tensor) -> Tensor:
        """Calibrated activations: (B, C, K) -> (B, C), each from its marker's features alone.

        In units of the cleaned pixels: 0 = no more than background, rising with expression.

        Raises
        ------
        InputError
            If :func:`maskless.encoder.fit_activation` was not run for this encoder.
        """
        activations: Tensor = self.activation(self._checked_features(features_bck))
        return activations

    def _features(self, views: Tensor) -> Tensor:
        if not len(views):
            return views.new_zeros(0, *self.feature_bias.shape)
        path = paths.path_for(self, self._asked, views)
        if path != "reference":
            return paths.fast_features(self, path, views)
        if views.device.type != "cpu":
            return self._features_of_some(views)
        # Feature maps that stay in the caches and in reused memory halve the time on a CPU.
        map_bytes = 4 * self.stem_bias.numel() * views[0, 0].numel() // self.settings.stem_stride**2
        chunk = max(1, _CHUNK_BYTES // map_bytes)
        return torch.cat([self._features_of_some(some) for some in torch.split(views, chunk)])

    def _features_of_some(self, views: Tensor) -> Tensor:
        x = _convolve(views, self.stem_weight, self.stem_bias, self.settings.stem_stride)
        for number, stage in enumerate(self.stages, start=1):
            blocks = list(cast(nn.ModuleList, stage))
            for block in blocks[:-1]:
                x = block(x)
            last = number == len(self.stages)
            x = blocks[-1](x, self._pool(*views.shape[2:]) if last else _halve)
        pooled = x.view(len(views), *self.feature_bias.shape).transpose(0, 1)
        return torch.baddbmm(
            self.feature_bias[:, None], pooled, self.feature_weight.transpose(1, 2)
        ).transpose(0, 1)

    def _pool(self, height: int, length: int) -> Pool:
        weights = torch.from_numpy(self._pool_weights(height, length)).to(self.stem_weight)
        return partial(_pool_all, weights=weights)

    def _pool_weights(self, height: int, length: int) -> NDArray[np.float64]:
        """The pooling of the last grid to one value a feature, as weights of its cells."""
        chosen = self.settings
        sigma = chosen.pooling_radius_um / self.pixel_um if chosen.pooling == "centre" else None
        edge = (chosen.stem_stride, len(chosen.blocks) - 1, sigma)
        return np.outer(edge_weights(height, *edge), edge_weights(length, *edge))

    def _checked_views(self, views: Views) -> Tensor:
        # Arrays come from outside; searching tensors would cost in every step of training.
        if not isinstance(views, Tensor) and not np.isfinite(views).all():
            raise InputError("the views hold NaN or infinite pixels")
        views = as_tensor(views)
        expected = f"(views, {len(self.markers)} markers, height, width)"
        if views.ndim != 4:
            raise InputError("views have another shape", expected=expected, found=_shape(views))
        if views.shape[1] != len(self.markers):
            raise InputError(
                "the views have another number of markers than the encoder",
                expected=f"{len(self.markers)} markers ({', '.join(self.markers)})",
                found=f"{views.shape[1]}",
                do="Give the used channels in the encoder's order",
            )
        if min(views.shape[2:]) < self.smallest_view_px:
            raise InputError(
                "the views are too small for this encoder",
                expected=f"at least {self.smallest_view_px} pixels an edge",
                found=f"{views.shape[2]} x {views.shape[3]}",
                do="Take larger views (view_um) or smaller pixels (pixel_um)",
            )
        return views.to(self.stem_weight)

    def _checked_features(self, features: Tensor) -> Tensor:
        expected = self.feature_bias.shape
        if features.ndim != 3 or features.shape[1:] != expected:
            raise InputError(
                "features have another shape",
                expected=f"(cells, {expected[0]} markers, {expected[1]} features)",
                found=_shape(features),
            )
        return features


def _gradient(views: Views) -> torch.set_grad_enabled:
    """Gradients as they are for tensors, none for arrays."""
    return torch.set_grad_enabled(torch.is_grad_enabled() and isinstance(views, Tensor))


def _convolve(x: Tensor, weight: Tensor, bias: Tensor, stride: int = 1) -> Tensor:
    """Convolve k x k with zero borders, each input channel its own filters.

    x (B, C, H, W), weight (C, w, k, k) or, one filter a feature, (C / w, w, k, k) with x's channels
    being features -> (B, H', W', C w), contiguous: features of a pixel lie side by side.
    """
    kernel = weight.shape[-1]
    out = functional.conv2d(
        x.contiguous(memory_format=torch.channels_last),
        weight.view(-1, 1, kernel, kernel),
        bias.view(-1),
        stride=stride,
        padding=kernel // 2,
        groups=x.shape[1],
    )
    return out.permute(0, 2, 3, 1).contiguous()


def _halve(x: Tensor) -> Tensor:
    """2 x 2 average; an incomplete last row or column is the average of what is there.

    (B, H, W, F) -> (B, ceil(H / 2), ceil(W / 2), F).
    """
    halved = functional.avg_pool2d(
        x.permute(0, 3, 1, 2), 2, ceil_mode=True, count_include_pad=False
    )
    return halved.permute(0, 2, 3, 1).contiguous()


def _pool_all(x: Tensor, weights: Tensor) -> Tensor:
    """Weighted average over the grid: (B, H, W, F) -> (B, 1, 1, F)."""
    return (weights.flatten() @ x.flatten(1, 2))[:, None, None]


def _uniform(shape: Sequence[int], fan_in: int, generator: torch.Generator) -> nn.Parameter:
    """Torch's usual start of convolutions and linear layers: uniform, +- 1 / sqrt(fan_in)."""
    bound = fan_in**-0.5
    return nn.Parameter((torch.rand(tuple(shape), generator=generator) * 2 - 1) * bound)


def _checked_markers(markers: Sequence[str]) -> tuple[str, ...]:
    names = tuple(str(name) for name in markers)
    if isinstance(markers, str) or not names:
        raise SettingsError("an encoder needs a list of at least one marker")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SettingsError(f"markers stand twice in the encoder's list: {', '.join(twice)}")
    return names


def _shape(tensor: Tensor) -> str:
    return f"({', '.join(str(n) for n in tensor.shape)})"
