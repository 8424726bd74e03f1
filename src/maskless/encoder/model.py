"""The reference encoder: one tower of NeXt-Channel blocks a marker, then one linear fusion.

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
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from maskless.encoder.pooling import edge_weights
from maskless.errors import InputError, SettingsError

if TYPE_CHECKING:
    from maskless.config import EncoderSettings

Views = Tensor | NDArray[Any]
Pool = Callable[[Tensor], Tensor]

_EPSILON = 1e-5
_SMALLEST_PROMISED = 12


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
        """One block and, if given, the pool behind it.

        `pool` must be an average (linear, weights adding up to 1, the same for all features): then
        pool(x + P h + b) = pool(x) + P pool(h) + b, and projecting after pooling costs less.
        """
        hidden = self.hidden(x)
        if pool is not None:
            x, hidden = pool(x), pool(hidden)
        return x + self.project(hidden)

    def hidden(self, x: Tensor) -> Tensor:
        """The inner layer: (B, C w, H, W) -> (B, C E w, H, W)."""
        markers, width = self.scale.shape
        kernel = self.depthwise_weight.shape[-1]
        h = functional.conv2d(
            x,
            self.depthwise_weight.view(-1, 1, kernel, kernel),
            self.depthwise_bias.view(-1),
            padding=kernel // 2,
            groups=markers * width,
        )
        if self.norm == "marker":
            h = h.view(-1, markers, width, *h.shape[2:])
            h = h - h.mean(2, keepdim=True)
            h = h * torch.rsqrt((h * h).mean(2, keepdim=True) + _EPSILON)
            h = h * self.norm_weight[:, :, None, None] + self.norm_bias[:, :, None, None]
            h = h.flatten(1, 2)
        return functional.gelu(_mix(h, self.expand_weight, self.expand_bias), approximate="tanh")

    def project(self, hidden: Tensor) -> Tensor:
        """The branch's output: (B, C E w, H, W) -> (B, C w, H, W)."""
        weight = self.scale[:, :, None] * self.project_weight
        return _mix(hidden, weight, self.scale * self.project_bias)


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
        if not settings.blocks or min(settings.blocks) < 1:
            raise SettingsError(
                f"encoder.blocks must hold one number of 1 or more a stage, not {settings.blocks}"
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
        reduction = self.settings.stem_stride * 2 ** (len(self.settings.blocks) - 1)
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

    def _features(self, views: Tensor) -> Tensor:
        count, width = self.stem_bias.shape
        height, length = views.shape[2:]
        x = functional.conv2d(
            views,
            self.stem_weight.view(-1, 1, 3, 3),
            self.stem_bias.view(-1),
            stride=self.settings.stem_stride,
            padding=1,
            groups=count,
        )
        for number, stage in enumerate(self.stages, start=1):
            blocks = list(cast(nn.ModuleList, stage))
            pool = self._pool(height, length) if number == len(self.stages) else _halve
            for block in blocks[:-1]:
                x = block(x)
            x = blocks[-1](x, pool)
        pooled = x.view(-1, count, width)
        return torch.baddbmm(
            self.feature_bias[:, None],
            pooled.transpose(0, 1),
            self.feature_weight.transpose(1, 2),
        ).transpose(0, 1)

    def _pool(self, height: int, length: int) -> Pool:
        """The pooling of the last grid to one value a feature, as weights of its cells."""
        settings = self.settings
        centre = settings.pooling == "centre"
        sigma = settings.pooling_radius_um / self.pixel_um if centre else None
        edge = (settings.stem_stride, len(settings.blocks) - 1, sigma)
        weights = np.outer(edge_weights(height, *edge), edge_weights(length, *edge))
        return partial(_pool_all, weights=torch.from_numpy(weights).to(self.stem_weight))

    def _checked_views(self, views: Views) -> Tensor:
        if not isinstance(views, Tensor):
            views = torch.from_numpy(np.ascontiguousarray(views))
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


def _halve(x: Tensor) -> Tensor:
    """2 x 2 average; an incomplete last row or column is the average of what is there."""
    return functional.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)


def _pool_all(x: Tensor, weights: Tensor) -> Tensor:
    """Weighted average over the grid: (B, F, H, W) -> (B, F, 1, 1)."""
    return (x.flatten(2) @ weights.flatten())[:, :, None, None]


def _mix(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """1 x 1 convolution inside each marker; weight (C, out, in), bias (C, out)."""
    return functional.conv2d(
        x, weight.flatten(0, 1)[:, :, None, None], bias.flatten(), groups=weight.shape[0]
    )


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
