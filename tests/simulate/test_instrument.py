"""The simulated instrument: spillover, noise, hot pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from maskless.errors import InputError
from maskless.simulate import Instrument, count_ions, spillover_matrix

QUIET = Instrument(point_spread_um=0.0, halo=0.0, hot_pixels=0.0, channel_gain=0.0, image_gain=0.0)


def test_spillover_goes_to_neighbouring_masses_only():
    matrix = spillover_matrix(["Dy161", "Dy162", "Dy163", "Er170", "DAPI", "Nd144", "Gd160"])
    assert np.array_equal(np.diag(matrix), np.ones(7))
    assert matrix[1, 2] == 0.0404
    assert matrix[5, 6] == 0.0181
    assert matrix[0, 1] > 0
    assert not matrix[3, :3].any()
    assert matrix[4].sum() == 1
    assert np.array_equal(spillover_matrix(["Dy161", "Dy162"], scale=0), np.eye(2))


def test_counts_are_poisson_about_signal_background_and_spill():
    signal = np.zeros((2, 200, 200), np.float32)
    signal[0] = 100
    spill = np.array([[1, 0.04], [0, 1]])
    counts = count_ions(signal, np.array([0.0, 1.0]), spill, QUIET, 1.0, np.random.default_rng(0))
    assert counts.dtype == np.uint16
    assert counts[0].mean() == pytest.approx(100, rel=0.01)
    assert counts[0].var() == pytest.approx(100, rel=0.05)
    assert counts[1].mean() == pytest.approx(5, rel=0.02)
    assert not signal[1].any()


def test_hot_pixels_are_single_bright_and_as_many_as_asked_for():
    instrument = replace(QUIET, hot_pixels=1e-3)
    blank = np.zeros((1, 300, 300), np.float32)
    counts = count_ions(blank, np.zeros(1), np.eye(1), instrument, 1.0, np.random.default_rng(1))
    assert 50 < (counts > 0).sum() < 140
    assert counts[counts > 0].min() >= 60


def test_point_spread_keeps_the_signal_and_widens_it():
    signal = np.zeros((1, 101, 101), np.float32)
    signal[0, 50, 50] = 60_000
    instrument = replace(QUIET, point_spread_um=1.0)
    counts = count_ions(signal, np.zeros(1), np.eye(1), instrument, 1.0, np.random.default_rng(2))
    assert counts.sum() == pytest.approx(60_000, rel=0.03)
    y, x = np.mgrid[:101, :101] - 50
    assert (counts[0] * (y**2 + x**2)).sum() / counts.sum() == pytest.approx(2.0, rel=0.1)


def test_shapes_that_do_not_fit_are_told():
    with pytest.raises(InputError, match="does not fit"):
        count_ions(
            np.zeros((2, 4, 4), np.float32),
            np.zeros(3),
            np.eye(2),
            QUIET,
            1.0,
            np.random.default_rng(0),
        )
