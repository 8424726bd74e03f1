"""From expected signal to ion counts: point spread, gain, background, spillover, noise.

Axes: C = channels, Y = rows, X = columns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from maskless.errors import InputError
from maskless.simulate.model import Instrument

# Measured on single-stained beads and spots of mass cytometry; others take the typical values.
_MEASURED = {
    ("Dy162", "Dy163"): 0.0404,
    ("Dy162", "Dy161"): 0.0147,
    ("Nd144", "Gd160"): 0.0181,
}
_TYPICAL_BY_STEP = {1: 0.010, -1: 0.006, 16: 0.004}  # heavier, lighter, and the oxide


def spillover_matrix(metals: Sequence[str], scale: float = 1.0) -> NDArray[np.float64]:
    """Share of each metal's ions that is counted in each channel.

    Parameters
    ----------
    metals
        Isotopes such as ``"Dy162"``, one a channel; anything without a mass neither gives nor
        takes.
    scale
        Factor on everything off the diagonal.

    Returns
    -------
    ndarray
        Shape (C, C), float64: row = metal that is there, column = channel that counts it;
        diagonal 1.
    """
    found = [re.fullmatch(r"[A-Za-z]+(\d+)", metal) for metal in metals]
    masses = [int(m.group(1)) if m else None for m in found]
    matrix = np.eye(len(metals))
    for i, mass in enumerate(masses):
        for j, other in enumerate(masses):
            if mass is None or other is None or i == j:
                continue
            share = _TYPICAL_BY_STEP.get(other - mass, 0.0)
            matrix[i, j] = scale * _MEASURED.get((metals[i], metals[j]), share)
    return matrix


def count_ions(
    signal_cyx: NDArray[np.float32],
    background: NDArray[np.float64],
    spillover_cc: NDArray[np.float64],
    instrument: Instrument,
    um_per_pixel: float,
    rng: np.random.Generator,
) -> NDArray[np.uint16]:
    """Ion counts of an image.

    Parameters
    ----------
    signal_cyx
        Expected ions a pixel from the tissue, shape (C, Y, X), float32, not changed.
    background
        Expected ions a pixel of each channel beside the tissue's, shape (C,).
    spillover_cc
        See :func:`spillover_matrix`.
    instrument
        Point spread, gains and hot pixels.
    um_per_pixel
        Edge of a pixel.
    rng
        Gains, Poisson noise and hot pixels come from it.

    Returns
    -------
    ndarray
        Shape (C, Y, X), uint16, counts above its range cut off.

    Raises
    ------
    InputError
        If the shapes do not fit together.
    """
    channels = signal_cyx.shape[0]
    if background.shape != (channels,) or spillover_cc.shape != (channels, channels):
        raise InputError(
            "background or spillover does not fit the signal",
            expected=f"{channels} channels",
            found=f"{background.shape} and {spillover_cc.shape}",
        )
    sigma_px = instrument.point_spread_um / um_per_pixel
    halo_px = instrument.halo_um / um_per_pixel
    gain = np.exp(
        rng.normal(0, instrument.image_gain) + rng.normal(0, instrument.channel_gain, channels)
    )
    expected_cyx = np.empty_like(signal_cyx)
    for c in range(channels):
        blurred = (1 - instrument.halo) * gaussian_filter(signal_cyx[c], sigma_px, mode="nearest")
        if instrument.halo:
            blurred += instrument.halo * gaussian_filter(signal_cyx[c], halo_px, mode="nearest")
        expected_cyx[c] = blurred * gain[c] + background[c]
    counts_cyx = np.empty(signal_cyx.shape, dtype=np.uint16)
    limit = np.iinfo(np.uint16).max
    for c in range(channels):
        seen = np.tensordot(spillover_cc[:, c].astype(np.float32), expected_cyx, axes=1)
        plane = rng.poisson(np.maximum(seen, 0))
        hot = rng.random(plane.shape) < instrument.hot_pixels
        plane[hot] += (60 * (1 + rng.pareto(1.2, int(hot.sum())))).clip(max=limit).astype(np.int64)
        counts_cyx[c] = np.minimum(plane, limit)
    return counts_cyx
