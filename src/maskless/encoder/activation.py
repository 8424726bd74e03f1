"""Calibrated activation: how strongly a cell expresses a marker, read off that marker's features.

B = views, C = markers, K = features of a marker, M = knots.

The fit, for each marker alone:

1. *Readout.* Ridge regression of the marker's K features onto its centre-weighted intensity, over
   views of cells and the same views with this intensity scaled by 0, 1/4, 1/2, 1 and 2: so it
   follows expression, not only differences between the cells at hand.
2. *Calibration.* Isotonic regression of intensity on readout, kept as a rising piecewise linear
   curve: activations are in units of the cleaned pixels. It goes on with the curve's overall slope
   above the brightest view, and is constant below the darkest.
3. *Background and positive cells*, from the calibrated levels of cells and of positions drawn at
   random over the images. Positions are split by Otsu's threshold; the lower part is background,
   and its median becomes 0, but for 0.00005: from there activations fall evenly to the 0 of an
   empty view, so that dim cells keep their order. The least level of a positive cell:

   - Where Otsu's threshold parts the cells well (it takes more than 0.7 of their variance; a
     Gaussian gives 0.64), that threshold. This also finds few bright cells among many.
   - Else the cells are one population. If 19 of 20 have more than 0.7 of the median level, and this
     is above 0.1 (about 1 = bright pixels), the marker is everywhere: the background is the 1st
     percentile of the positions, the darkest that these images can show, and a positive cell has
     more than half of the cells' median. (A constant haze and no expression looks the same; take
     it away when cleaning.)
   - If 9 of 10 cells lie well above background (by more than 0.15 of what the median cell does),
     the marker is in nearly every cell, but not everywhere in the images, as DNA: a positive cell
     has more than half of the median cell's activation.
   - Else, as for rare or absent markers, 5 robust standard deviations (1.4826 MAD of the lower
     part) above the background. Of Gaussian noise alone, cut in two by Otsu's threshold, about 1 %
     lies above; a threshold that always splits the cells would find half of them positive.

   The background is never below an empty view. A positive cell has at least a tenth of the cells'
   99th percentile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from maskless.encoder.pooling import edge_weights
from maskless.errors import InputError

if TYPE_CHECKING:
    from maskless.encoder.model import Encoder

Array = NDArray[np.float64]

GAINS = (0.0, 0.25, 0.5, 1.0, 2.0)
KNOTS = 33
_BINS = 256
_RIDGE = 1e-4
_PARTED = 0.7
_EVERYWHERE = 0.7
_EVERYWHERE_LEAST = 0.1
_NEARLY_ALL = 0.15
_SPREADS = 5 * 1.4826
_DIM = 5e-5  # activation at the background
_TINY = 1e-12


def as_tensor(views: Tensor | NDArray[Any]) -> Tensor:
    """A tensor of an array; read-only arrays, as of memory-mapped files, are copied."""
    if isinstance(views, Tensor):
        return views
    return torch.from_numpy(np.require(views, requirements=["C", "W"]))


class Activation(nn.Module):
    """The calibration of one encoder, as buffers that are saved with it.

    Parameters
    ----------
    markers, features
        C and K.
    """

    def __init__(self, markers: int, features: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(markers, features))
        self.register_buffer("offset", torch.zeros(markers))
        self.register_buffer("knots_x", torch.arange(float(KNOTS)).repeat(markers, 1))
        self.register_buffer("knots_y", torch.zeros(markers, KNOTS))
        self.register_buffer("empty", torch.zeros(markers))
        self.register_buffer("background", torch.zeros(markers))
        self.register_buffer("positive_above", torch.zeros(markers))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))

    weight: Tensor
    offset: Tensor
    knots_x: Tensor
    knots_y: Tensor
    empty: Tensor
    background: Tensor
    positive_above: Tensor
    fitted: Tensor

    def forward(self, features_bck: Tensor) -> Tensor:
        """Activations (B, C), 0 and more, of features (B, C, K)."""
        if not self.fitted:
            raise InputError(
                "the encoder's activations are not calibrated",
                do="Run maskless.encoder.fit_activation on views of cells first",
            )
        level = self.level(features_bck)
        dim = (level - self.empty) / (self.background - self.empty).clamp(min=_TINY)
        return (level - self.background).clamp(min=0) + _DIM * dim.clamp(0, 1)

    def level(self, features_bck: Tensor) -> Tensor:
        """Activations before the background is taken away, (B, C)."""
        readout = (features_bck * self.weight).sum(2) + self.offset
        x, y = self.knots_x, self.knots_y
        values = readout.T.contiguous()
        right = torch.searchsorted(x, values).clamp(1, KNOTS - 1)
        x_left, x_right = x.gather(1, right - 1), x.gather(1, right)
        y_left, y_right = y.gather(1, right - 1), y.gather(1, right)
        share = ((values - x_left) / (x_right - x_left).clamp(min=_TINY)).clamp(0, 1)
        slope = (y[:, -1:] - y[:, :1]) / (x[:, -1:] - x[:, :1]).clamp(min=_TINY)
        beyond = (values - x[:, -1:]).clamp(min=0) * slope
        return (y_left + share * (y_right - y_left) + beyond).T


def fit_activation(
    encoder: Encoder,
    cell_views: Iterable[Tensor | NDArray[Any]],
    background_views: Iterable[Tensor | NDArray[Any]],
) -> None:
    """Calibrate the encoder's activations and store the calibration in the encoder.

    Parameters
    ----------
    encoder
        Trained or not; only its `activation` changes.
    cell_views
        Batches (B, C, H, W) of unaugmented views of cells, some thousand cells in all, of the size
        that is to be embedded. Features of all are held in memory.
    background_views
        Batches of views at positions drawn at random over the images (not at cells).

    Raises
    ------
    InputError
        If there are no views, or they hold NaN or infinite values.
    """
    features, targets = _features_and_targets(encoder, cell_views, GAINS, "cells")
    ground, _ = _features_and_targets(encoder, background_views, (1.0,), "background")
    curves = [_curve(features[..., m, :], targets[..., m]) for m in range(len(encoder.markers))]
    fit = encoder.activation
    with torch.no_grad():
        for name, values in zip(
            ("weight", "offset", "knots_x", "knots_y"), zip(*curves, strict=True), strict=True
        ):
            getattr(fit, name).copy_(torch.from_numpy(np.stack(values)))
        cells = _as_array(fit.level(_like(fit.weight, features[GAINS.index(1.0)])))
        empty = _as_array(fit.level(_like(fit.weight, features[GAINS.index(0.0), :1])))[0]
        places = _as_array(fit.level(_like(fit.weight, ground[0])))
        background = np.empty(len(empty))
        positive_above = np.empty(len(empty))
        for m in range(len(empty)):
            level, positive = _background_and_positive(cells[:, m], places[:, m])
            # The margin keeps an empty view at 0 whatever the rounding of its batch.
            empty[m] += 1e-6 + 1e-5 * abs(empty[m])
            background[m] = max(level, empty[m])
            brightest = float(np.percentile(cells[:, m], 99)) - background[m]
            positive_above[m] = max(positive - background[m], 0.1 * brightest, 0.0)
            positive_above[m] += _DIM
        fit.empty.copy_(torch.from_numpy(empty))
        fit.background.copy_(torch.from_numpy(background))
        fit.positive_above.copy_(torch.from_numpy(positive_above))
        fit.fitted.fill_(True)


def response_curve(
    encoder: Encoder,
    views_bchw: Tensor | NDArray[Any],
    marker: str | int,
    gains: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0),
) -> Array:
    """Mean activation of a marker over views whose pixels of that marker are scaled.

    Parameters
    ----------
    encoder
        With fitted activations.
    views_bchw
        Views (B, C, H, W) of cells that express the marker, best.
    marker
        Its name or position.
    gains
        Factors on the marker's pixels.

    Returns
    -------
    (gains,).

    Raises
    ------
    InputError
        If the encoder does not know the marker, or its activations are not calibrated.
    """
    if isinstance(marker, str):
        if marker not in encoder.markers:
            raise InputError(
                "the encoder does not know this marker",
                channel=marker,
                expected=f"one of {', '.join(encoder.markers)}",
            )
        marker = encoder.markers.index(marker)
    views = as_tensor(views_bchw).to(encoder.stem_weight, copy=True).detach()
    pixels = views[:, marker].clone()
    curve = []
    with torch.no_grad():
        for gain in gains:
            views[:, marker] = gain * pixels
            curve.append(float(encoder.activations(views)[:, marker].mean()))
    return np.array(curve)


def _features_and_targets(
    encoder: Encoder, batches: Iterable[Tensor | NDArray[Any]], gains: Sequence[float], what: str
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features (G, n, C, K) and centre-weighted intensities (G, n, C) of views scaled by gains."""
    features: list[list[NDArray[np.float32]]] = [[] for _ in gains]
    targets: list[NDArray[np.float32]] = []
    sigma_px = encoder.settings.pooling_radius_um / encoder.pixel_um
    with torch.no_grad():
        for batch in batches:
            views = as_tensor(batch).to(encoder.stem_weight)
            edges = [edge_weights(size, 1, 0, sigma_px) for size in views.shape[2:]]
            weights = [torch.tensor(edge).to(views) for edge in edges]
            targets.append(_as_array(torch.einsum("bchw,h,w->bc", views, *weights)))
            for place, gain in zip(features, gains, strict=True):
                scaled = views * gain if gain else torch.zeros_like(views[:1])
                found = encoder.features(scaled)
                place.append(_as_array(found.expand(len(views), -1, -1)))
    if not sum(map(len, targets)):
        raise InputError(f"there are no views of {what} to calibrate the activations on")
    target = np.concatenate(targets)
    stacked = np.stack([np.concatenate(place) for place in features])
    if not (np.isfinite(target).all() and np.isfinite(stacked).all()):
        raise InputError(f"views of {what} hold NaN or infinite values, or lead to such features")
    return stacked, np.stack([gain * target for gain in gains])


def _as_array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.float().cpu().numpy()
    return array


def _like(tensor: Tensor, array: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(array).to(tensor)


def _curve(
    features: NDArray[np.float32], target: NDArray[np.float32]
) -> tuple[Array, Array, Array, Array]:
    """One marker's readout and calibration: weight (K,), offset (), knots' x and y (M,).

    `features` (G, n, K), `target` (G, n).
    """
    x = features.reshape(-1, features.shape[-1]).astype(np.float64)
    y = target.ravel().astype(np.float64)
    centred = x - x.mean(0)
    squares = centred.T @ centred
    ridge = _RIDGE * np.trace(squares) / len(squares) + np.finfo(np.float64).tiny
    weight = np.linalg.solve(squares + ridge * np.eye(len(squares)), centred.T @ (y - y.mean()))
    offset = y.mean() - x.mean(0) @ weight
    return weight, np.array(offset), *_isotonic_knots(x @ weight + offset, y)


def _isotonic_knots(x: Array, y: Array) -> tuple[Array, Array]:
    """Rising piecewise linear curve of y over x, through the means of pooled blocks: (M,), (M,).

    Of more than M blocks, evenly spread ones are kept; of fewer, the last is repeated.
    """
    order = np.argsort(x, kind="stable")
    bounds = np.unique(np.linspace(0, len(x), _BINS + 1).astype(np.intp))[:-1]
    weights = np.diff(np.append(bounds, len(x))).astype(np.float64)
    blocks: list[tuple[float, float, float]] = []  # weight, sum of x, sum of y
    for block in zip(
        weights,
        np.add.reduceat(x[order], bounds),
        np.add.reduceat(y[order], bounds),
        strict=True,
    ):
        # Pool adjacent violators; bins of one and the same readout are pooled as well.
        while blocks and not _rises(blocks[-1], block):
            before = blocks.pop()
            block = (before[0] + block[0], before[1] + block[1], before[2] + block[2])
        blocks.append(block)
    table = np.array(blocks)
    if len(table) > KNOTS:
        table = table[np.linspace(0, len(table) - 1, KNOTS).round().astype(np.intp)]
    kept = table[np.minimum(np.arange(KNOTS), len(table) - 1)]
    return kept[:, 1] / kept[:, 0], kept[:, 2] / kept[:, 0]


def _rises(before: tuple[float, float, float], block: tuple[float, float, float]) -> bool:
    """Whether both means of a block are above those of the block before it."""
    x_before, y_before = before[1] / before[0], before[2] / before[0]
    x, y = block[1] / block[0], block[2] / block[0]
    return x > x_before + 1e-6 * max(1.0, abs(x_before)) and y > y_before


def _background_and_positive(
    cells: NDArray[np.float32], places: NDArray[np.float32]
) -> tuple[float, float]:
    """A marker's background level, and the least level of a positive cell; see the module."""
    dark = places[places <= _otsu(places)[0]]
    background = float(np.median(dark))
    threshold, parted = _otsu(cells)
    low, middle = (float(value) for value in np.percentile(cells, (5, 50)))
    if parted > _PARTED:
        return background, threshold
    if low > _EVERYWHERE * middle and middle > _EVERYWHERE_LEAST:
        return float(np.percentile(places, 1)), middle / 2
    if np.percentile(cells, 10) - background > _NEARLY_ALL * (middle - background) > 0:
        return background, (background + middle) / 2
    return background, background + _SPREADS * float(np.median(np.abs(dark - background)))


def _otsu(values: NDArray[np.float32]) -> tuple[float, float]:
    """Otsu's threshold of a sample, and the share of the variance that lies between its parts."""
    ordered = np.sort(values.astype(np.float64))
    total = len(ordered)
    centred = ordered - ordered.mean()
    variance = float((centred**2).mean())
    if variance <= 1e-12 * max(1.0, float(np.abs(ordered).max())) ** 2:
        return float(ordered[-1]), 0.0
    count = np.arange(1, total)
    between = np.cumsum(centred)[:-1] ** 2 / (count * (total - count))
    best = int(np.argmax(between))
    return float(ordered[best]), float(between[best]) / variance
