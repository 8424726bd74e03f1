import pytest
import torch

from maskless.errors import SettingsError
from maskless.training.lars import LARS


def parameter(*values):
    return torch.nn.Parameter(torch.tensor(values, dtype=torch.float64))


def test_two_steps_computed_by_hand():
    # |w| = 5, |g| = 2: ratio = 0.01 * 5 / (2 + 0.1 * 5) = 0.02
    w = parameter(3.0, 4.0)
    optimiser = LARS([w], lr=0.5, momentum=0.9, weight_decay=0.1, trust=0.01)
    w.grad = torch.tensor([2.0, 0.0], dtype=torch.float64)
    optimiser.step()
    first = 0.5 * 0.02 * torch.tensor([2.0 + 0.3, 0.4], dtype=torch.float64)
    expected = torch.tensor([3.0, 4.0], dtype=torch.float64) - first
    torch.testing.assert_close(w.detach(), expected)

    w.grad = torch.tensor([0.0, 1.0], dtype=torch.float64)
    length = expected.norm()
    ratio = 0.01 * length / (1.0 + 0.1 * length)
    second = 0.9 * first + 0.5 * ratio * (w.grad + 0.1 * expected)
    optimiser.step()
    torch.testing.assert_close(w.detach(), expected - second)


def test_biases_have_a_trust_ratio_too():
    # Whatever the size of the gradient, the step is a share of the parameter's own length.
    small, large = parameter(3.0, 4.0), parameter(3.0, 4.0)
    optimiser = LARS([small, large], lr=1.0, momentum=0.0, trust=0.1)
    small.grad = torch.tensor([1e-6, 0.0], dtype=torch.float64)
    large.grad = torch.tensor([1e6, 0.0], dtype=torch.float64)
    optimiser.step()
    torch.testing.assert_close(small.detach(), large.detach())
    torch.testing.assert_close(small.detach()[0].item(), 2.5)


def test_parameters_of_length_zero_use_ratio_one():
    w, still = parameter(0.0, 0.0), parameter(1.0, 2.0)
    optimiser = LARS([w, still], lr=0.5, weight_decay=0.0)
    w.grad = torch.tensor([1.0, -2.0], dtype=torch.float64)
    still.grad = torch.zeros(2, dtype=torch.float64)
    optimiser.step()
    assert w.tolist() == [-0.5, 1.0]
    assert still.tolist() == [1.0, 2.0]


def test_gradients_are_only_read():
    w = parameter(3.0, 4.0)
    w.grad = torch.tensor([2.0, 1.0], dtype=torch.float64)
    LARS([w], lr=0.5, weight_decay=0.1).step()
    assert w.grad.tolist() == [2.0, 1.0]


def test_parameters_without_gradient_stay():
    w = parameter(3.0, 4.0)
    LARS([w], lr=0.5, weight_decay=0.1).step()
    assert w.tolist() == [3.0, 4.0]


def test_a_closure_is_called():
    w = parameter(3.0, 4.0)
    optimiser = LARS([w], lr=0.5)

    def closure():
        optimiser.zero_grad()
        loss = (w**2).sum()
        loss.backward()
        return loss.item()

    assert optimiser.step(closure) == 25.0
    assert w.norm() < 5.0


@pytest.mark.parametrize("wrong", [{"lr": -1.0}, {"momentum": 1.5}, {"trust": 0.0}])
def test_senseless_settings_are_told(wrong):
    with pytest.raises(SettingsError, match="LARS"):
        LARS([parameter(1.0)], **{"lr": 1.0, **wrong})
