import pytest

from maskless.training.schedule import learning_rate


def test_rises_to_the_highest_and_falls_towards_zero():
    rates = [learning_rate(step, 100, 10, 4.6) for step in range(100)]
    assert rates[0] == pytest.approx(0.46)
    assert rates[9] == rates[10] == pytest.approx(4.6)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(2.3)
    assert 0 < rates[99] < 0.01


def test_without_warm_up():
    assert learning_rate(0, 10, 0, 2.0) == 2.0


def test_training_shorter_than_its_warm_up_only_rises():
    assert [learning_rate(step, 3, 10, 1.0) for step in range(3)] == pytest.approx([0.1, 0.2, 0.3])
