"""Spillover compensation: what each metal emitted, from what each channel counted.

Axes: C = channels, Y = rows, X = columns, P = pixels.

A channel counts ions of its own metal, and some of its neighbours': the tails of their mass peaks,
impurities, oxides. With S (row = metal that is there, column = channel that counts it) the counts
of a pixel are Sᵀ times the signal; the signal is the best fit that is not negative (Chevrier et al.
2018, doi:10.1016/j.cels.2018.02.010).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from maskless.errors import InputError
from maskless.threads import share_rows

_STRIP_PIXELS = 4096  # of all channels: they fit into a processor's second cache
_TOLERANCE = 1e-13
_FINEST = 1e-15
_MOST_ROUNDS = 300
_LEAST_EIGENVALUE = 0.01
"""Of the Gram matrix with a diagonal of 1. Below, steps say little about the distance to the
solution, and each pixel goes to SciPy's active-set method."""

_SINGULAR = 1e-6


def compensate(
    counts_cyx: NDArray[Any], spillover_cc: NDArray[Any], dtype: DTypeLike = np.float64
) -> NDArray[Any]:
    """Undo spillover by non-negative least squares, each pixel on its own.

    Parameters
    ----------
    counts_cyx
        Linear counts, >= 0 and finite, any number type, shape (C, Y, X); shapes (C,) and (C, P)
        are as good.
    spillover_cc
        Row = emitting channel, column = receiving channel, shape (C, C), >= 0 and finite; the
        diagonal is usually 1.
    dtype
        Of the result; computed in float64.

    Returns
    -------
    signal_cyx
        Same shape, >= 0: for each pixel y the s >= 0 with least ``|Sᵀ s - y|``, as
        ``scipy.optimize.nnls(S.T, y)`` gives it, to 1e-12 of the pixel's largest count. The number
        of threads changes nothing.

    Raises
    ------
    InputError
        If shapes do not fit together, something is negative, NaN or infinite, or the matrix is
        singular.
    """
    counts_cyx = np.asarray(counts_cyx)
    matrix = _checked(np.asarray(spillover_cc), counts_cyx)
    counts_cp = counts_cyx.reshape(len(matrix), -1)
    signal_cp = np.empty(counts_cp.shape, dtype)
    solve = _solver(matrix)

    def work(strips: slice) -> None:
        for strip in range(strips.start, strips.stop):
            columns = slice(strip * _STRIP_PIXELS, (strip + 1) * _STRIP_PIXELS)
            part_cp = counts_cp[:, columns].astype(np.float64, order="C")
            _refuse_strange(part_cp)
            signal_cp[:, columns] = solve(part_cp)

    share_rows(work, -(-counts_cp.shape[1] // _STRIP_PIXELS), least=1)
    return signal_cp.reshape(counts_cyx.shape)


def _solver(matrix: NDArray[np.float64]) -> Any:
    """A function from counts (C, P) to signals (C, P)."""
    squares = (matrix**2).sum(axis=1)
    gram = matrix @ matrix.T
    root = np.sqrt(squares)
    least = float(np.linalg.eigvalsh(gram / np.outer(root, root))[0])
    if least < _LEAST_EIGENVALUE:
        return lambda counts_cp: _by_active_sets(matrix, counts_cp)

    from maskless.images.spillover_kernel import LANES, descend

    direct = _sparse(matrix / squares[:, None])
    np.fill_diagonal(gram, 0)
    others = _sparse(-gram / squares[:, None])
    tolerance = max(_FINEST, _TOLERANCE * least)

    def solve(counts_cp: NDArray[np.float64]) -> NDArray[np.float64]:
        pixels = counts_cp.shape[1]
        if pixels % LANES:  # the last vector is filled up with pixels of 0
            counts_cp = np.pad(counts_cp, ((0, 0), (0, -pixels % LANES)))
        signal_cp = np.empty_like(counts_cp)
        settled_p = np.empty(counts_cp.shape[1], np.bool_)
        descend(counts_cp, *direct, *others, tolerance, _MOST_ROUNDS, settled_p, signal_cp)
        if not settled_p.all():
            signal_cp[:, ~settled_p] = _by_active_sets(matrix, counts_cp[:, ~settled_p])
        return signal_cp[:, :pixels]

    return solve


def _by_active_sets(
    matrix: NDArray[np.float64], counts_cp: NDArray[np.float64]
) -> NDArray[np.float64]:
    from scipy.optimize import nnls

    spread = np.ascontiguousarray(matrix.T)
    signal_cp = np.empty_like(counts_cp)
    for pixel in range(counts_cp.shape[1]):
        signal_cp[:, pixel] = nnls(spread, counts_cp[:, pixel], maxiter=100 * len(matrix))[0]
    return signal_cp


def _sparse(
    matrix: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Starts of rows, columns and values of what is not 0."""
    rows, columns = np.nonzero(matrix)
    starts = np.searchsorted(rows, np.arange(len(matrix) + 1))
    return starts.astype(np.int64), columns.astype(np.int64), matrix[rows, columns]


def _checked(spillover_cc: NDArray[Any], counts_cyx: NDArray[Any]) -> NDArray[np.float64]:
    for what, array in (("counts", counts_cyx), ("shares", spillover_cc)):
        if array.dtype.kind not in "biuf":
            raise InputError(f"the {what} are no real numbers", found=f"type {array.dtype}")
    if spillover_cc.ndim != 2 or spillover_cc.shape[0] != spillover_cc.shape[1]:
        raise InputError(
            "the spillover matrix is not square",
            expected="one row and one column a channel",
            found=f"shape {spillover_cc.shape}",
        )
    channels = len(spillover_cc)
    if channels == 0 or counts_cyx.ndim == 0 or len(counts_cyx) != channels:
        raise InputError(
            "the spillover matrix does not fit the counts",
            expected=f"counts of {channels} channels, channels first",
            found=f"shape {counts_cyx.shape}",
            do="Adapt the matrix to the panel: maskless.read_spillover(FILE).adapted(panel)",
        )
    matrix = spillover_cc.astype(np.float64)
    for what, bad in (
        ("NaN or infinite", ~np.isfinite(matrix)),
        ("negative", ~(matrix >= 0)),
    ):
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise InputError(
                f"a share of the spillover matrix is {what}",
                expected="shares >= 0",
                found=f"{matrix[row, column]} in row {row}, column {column}",
            )
    strengths = np.linalg.svd(matrix, compute_uv=False)
    if strengths[-1] <= _SINGULAR * strengths[0]:
        raise InputError(
            "the spillover matrix is singular: some channels cannot be told apart",
            expected="a diagonal that stands out in every row",
            found=f"singular values from {strengths[-1]:.2g} to {strengths[0]:.2g}",
        )
    return matrix


def _refuse_strange(counts_cp: NDArray[np.float64]) -> None:
    low, high = counts_cp.min(axis=1), counts_cp.max(axis=1)
    for what, bad in (
        ("NaN or infinite", ~(np.isfinite(low) & np.isfinite(high))),
        ("negative", low < 0),
    ):
        if bad.any():
            raise InputError(
                f"some counts are {what}",
                channel=f"at position {int(bad.argmax())}",
                expected="counts >= 0",
                do="Give these pixels a value first",
            )
