"""Compensation beside SciPy's active-set method, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import nnls

import maskless as mx
from maskless.errors import InputError
from maskless.images import spillover
from maskless.images.spillover import compensate
from maskless.simulate import spillover_matrix

METALS = [
    *("Pr141", "Nd142", "Nd143", "Nd144", "Nd145", "Nd146", "Sm147", "Nd148", "Sm149", "Nd150"),
    *("Eu151", "Sm152", "Eu153", "Sm154", "Gd155", "Gd156", "Gd158", "Tb159", "Gd160", "Dy161"),
    *("Dy162", "Dy163", "Dy164", "Ho165", "Er166"),
]


def by_scipy(counts_cp: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([nnls(matrix.T, y)[0] for y in counts_cp.T], axis=1)


def tissue(seed: int, channels: int, pixels: int, scale: float) -> NDArray[np.float64]:
    """Sparse counts, as of an image, that no signal explains exactly."""
    rng = np.random.default_rng(seed)
    return rng.poisson(rng.gamma(0.3, scale, (channels, pixels))).astype(np.float64)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    channels=st.integers(1, 12),
    pixels=st.integers(1, 40),
    largest=st.sampled_from([0.0, 0.02, 0.1, 0.3, 0.6, 1.0]),
    dense=st.booleans(),
    scale=st.sampled_from([1.0, 100.0, 10_000.0]),
)
def test_it_is_scipys_nnls(
    seed: int, channels: int, pixels: int, largest: float, dense: bool, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.uniform(0, largest, (channels, channels))
    if not dense:
        matrix *= rng.random(matrix.shape) < 0.3
    np.fill_diagonal(matrix, rng.choice([1.0, 1.0, 0.7, 3.0], channels))
    if np.linalg.cond(matrix) > 1e3:
        return
    counts_cp = tissue(seed, channels, pixels, scale)
    found_cp = compensate(counts_cp, matrix)
    np.testing.assert_allclose(found_cp, by_scipy(counts_cp, matrix), rtol=0, atol=1e-8)
    assert (found_cp >= 0).all()


def test_a_panel_of_metals_against_scipy_and_its_optimality() -> None:
    matrix = spillover_matrix(METALS)
    rng = np.random.default_rng(3)
    true_cp = rng.gamma(0.3, 30, (len(METALS), 700)) * (rng.random((len(METALS), 700)) < 0.5)
    counts_cp = rng.poisson(matrix.T @ true_cp).astype(np.float64)
    found_cp = compensate(counts_cp, matrix)
    np.testing.assert_allclose(found_cp, by_scipy(counts_cp, matrix), rtol=0, atol=1e-9)
    assert (found_cp == 0).any(axis=0).all()
    gradient_cp = matrix @ (matrix.T @ found_cp - counts_cp)
    assert (gradient_cp > -1e-9).all()  # no channel could gain
    assert np.abs(gradient_cp[found_cp > 0]).max() < 1e-9


@pytest.mark.parametrize("fallback", ["_LEAST_EIGENVALUE", "_MOST_ROUNDS"])
def test_what_does_not_settle_goes_to_the_active_sets(
    monkeypatch: pytest.MonkeyPatch, fallback: str
) -> None:
    matrix = spillover_matrix(METALS[:6]) + 0.2
    np.fill_diagonal(matrix, 1)
    counts_cp = tissue(1, 6, 50, 50.0)
    usual_cp = compensate(counts_cp, matrix)
    monkeypatch.setattr(spillover, fallback, 1)
    np.testing.assert_allclose(compensate(counts_cp, matrix), usual_cp, rtol=0, atol=1e-9)


def test_identity_changes_nothing_and_counts_without_neighbours_stay() -> None:
    counts_cyx = tissue(0, 5, 6 * 7, 10.0).reshape(5, 6, 7)
    assert np.array_equal(compensate(counts_cyx, np.eye(5)), counts_cyx)
    matrix = np.eye(5)
    matrix[1, 2] = 0.05
    found_cyx = compensate(counts_cyx, matrix)
    assert np.array_equal(found_cyx[[0, 3, 4]], counts_cyx[[0, 3, 4]])


def test_what_was_spilled_comes_back_exactly() -> None:
    matrix = spillover_matrix(METALS)
    true_cyx = tissue(2, len(METALS), 12 * 9, 20.0).reshape(-1, 12, 9)
    counts_cyx = np.tensordot(matrix.T, true_cyx, axes=1)
    np.testing.assert_allclose(compensate(counts_cyx, matrix), true_cyx, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64, bool])
def test_any_number_type_gives_the_same_float64(dtype: type) -> None:
    matrix = spillover_matrix(METALS[:8])
    counts_cyx = (tissue(4, 8, 30, 3.0) % 2).reshape(8, 5, 6)
    given_cyx = counts_cyx.astype(dtype)
    before = given_cyx.copy()
    found_cyx = mx.compensate(given_cyx, matrix)
    assert found_cyx.dtype == np.float64
    assert np.array_equal(found_cyx, compensate(counts_cyx, matrix))
    assert np.array_equal(given_cyx, before)
    assert compensate(given_cyx, matrix, np.float32).dtype == np.float32


def test_shapes_orders_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = spillover_matrix(METALS)
    counts_cp = tissue(5, len(METALS), 9000, 10.0)
    found_cp = compensate(counts_cp, matrix)
    assert np.array_equal(compensate(np.asfortranarray(counts_cp), matrix), found_cp)
    assert np.array_equal(
        compensate(counts_cp.reshape(-1, 90, 100), matrix).reshape(25, -1), found_cp
    )
    np.testing.assert_allclose(compensate(counts_cp[:, 5], matrix), found_cp[:, 5], rtol=1e-11)
    monkeypatch.setattr("maskless.threads.thread_count", lambda: 3)
    assert np.array_equal(compensate(counts_cp, matrix), found_cp)
    assert compensate(np.empty((25, 0, 4)), matrix).shape == (25, 0, 4)


@pytest.mark.parametrize(
    ("matrix", "counts", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), "not square.*found shape"),
        (np.ones(3), np.ones((3, 4)), "not square"),
        (np.eye(2), np.ones((3, 4, 4)), "does not fit the counts.*2 channels"),
        (np.eye(0), np.ones((0, 4, 4)), "does not fit the counts"),
        (np.ones((2, 2)), np.ones((2, 4)), "singular"),
        (np.array([[1, 0], [0, 0]]), np.ones((2, 4)), "singular"),
        (np.array([[1, -0.1], [0, 1]]), np.ones((2, 4)), "negative.*row 0, column 1"),
        (np.array([[1, np.nan], [0, 1]]), np.ones((2, 4)), "NaN or infinite.*row 0, column 1"),
        (np.array([[1, np.inf], [0, 1]]), np.ones((2, 4)), "NaN or infinite"),
        (np.eye(2), np.array([[1.0, 2.0], [3.0, np.nan]]), "NaN or infinite.*position 1"),
        (np.eye(2), np.array([[np.inf, 2.0], [3.0, 1]]), "NaN or infinite.*position 0"),
        (np.eye(2), np.array([[-np.inf, np.inf], [3.0, 1]]), "NaN or infinite.*position 0"),
        (np.eye(2), np.array([[1, 2], [3, -1]]), "negative.*position 1"),
        (np.eye(2), np.ones((2, 4), complex), "no real numbers"),
        (np.array([["a", "b"], ["c", "d"]]), np.ones((2, 4)), "no real numbers"),
    ],
)
def test_what_makes_no_sense_is_one_clear_line(
    matrix: NDArray[np.float64], counts: NDArray[np.float64], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        compensate(counts, matrix)
    assert "\n" not in str(caught.value)
