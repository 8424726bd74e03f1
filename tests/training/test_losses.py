import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from maskless.errors import InputError
from maskless.training.losses import nt_xent


def naive(z_nd, cells, temperature):
    """The loss written with an N x N mask."""
    z_nd = normalize(z_nd, dim=1)
    rows = len(z_nd)
    cell = torch.arange(cells).repeat(rows // cells)
    oneself = torch.eye(rows, dtype=torch.bool)
    positive = (cell[:, None] == cell) & ~oneself
    score = (z_nd @ z_nd.T / temperature).masked_fill(oneself, -torch.inf)
    log_share = score - torch.logsumexp(score, dim=1, keepdim=True)
    return -(log_share.masked_fill(~positive, 0).sum(1) / positive.sum(1)).mean()


def rows(n, length, seed=0, dtype=torch.float64):
    return torch.randn(n, length, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@settings(deadline=None, max_examples=30)
@given(
    cells=st.integers(1, 7),
    views=st.integers(2, 5),
    temperature=st.sampled_from([0.05, 0.2, 1.0]),
    chunk=st.sampled_from([1, 3, 8, 256]),
    seed=st.integers(0, 99),
)
def test_equal_to_the_masked_form(cells, views, temperature, chunk, seed):
    z = rows(cells * views, 6, seed).requires_grad_()
    loss = nt_xent(z, cells, temperature, chunk)
    expected = naive(z, cells, temperature)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    (gradient,) = torch.autograd.grad(3 * loss, z)
    (expected_gradient,) = torch.autograd.grad(3 * expected, z)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-9, atol=1e-12)


@given(
    cells=st.integers(1, 9),
    views=st.integers(2, 4),
    count=st.integers(1, 5),
    seed=st.integers(0, 9),
)
def test_shares_of_processes_add_up(cells, views, count, seed):
    z = rows(cells * views, 6, seed).requires_grad_()
    whole = nt_xent(z, cells, 0.3, chunk=4)
    parts = [nt_xent(z, cells, 0.3, chunk=4, share=(number, count)) for number in range(count)]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-12, atol=1e-12)
    (expected,) = torch.autograd.grad(whole, z)
    (gradient,) = torch.autograd.grad(sum(parts), z)
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


def test_gradient_by_differences():
    z = rows(12, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: nt_xent(z, 4, 0.5, 5), (z,))


def test_two_views_are_the_loss_of_simclr():
    z = normalize(rows(8, 5), dim=1)
    score = (z @ z.T / 0.3).fill_diagonal_(-torch.inf)
    partner = (torch.arange(8) + 4) % 8
    expected = torch.nn.functional.cross_entropy(score, partner)
    torch.testing.assert_close(nt_xent(z, 4, 0.3), expected)


def test_single_precision_at_a_low_temperature():
    z = rows(300, 32, dtype=torch.float32)
    expected = naive(z.double(), 100, 0.005)
    torch.testing.assert_close(nt_xent(z, 100, 0.005).double(), expected, rtol=1e-4, atol=0)


def test_neither_the_length_of_rows_nor_the_order_of_views_matters():
    z = rows(12, 5)
    expected = nt_xent(z, 4, 0.5)
    torch.testing.assert_close(nt_xent(7 * z, 4, 0.5), expected)
    swapped = torch.cat([z[8:], z[:4], z[4:8]])
    torch.testing.assert_close(nt_xent(swapped, 4, 0.5), expected)


def test_no_gradient_is_asked_for():
    with torch.no_grad():
        assert not nt_xent(rows(8, 5), 4, 0.5).requires_grad


@pytest.mark.parametrize(("n", "cells"), [(4, 4), (7, 3), (0, 1), (4, 0)])
def test_rows_that_do_not_fit_are_told(n, cells):
    with pytest.raises(InputError, match="two or more views"):
        nt_xent(rows(n, 5), cells, 0.5)


def test_a_temperature_of_zero_is_told():
    with pytest.raises(InputError, match="temperature"):
        nt_xent(rows(4, 5), 2, 0.0)
