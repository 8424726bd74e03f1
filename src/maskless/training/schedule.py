"""The learning rate over training: a linear warm-up, then half a cosine down to zero."""

from __future__ import annotations

from math import cos, pi


def learning_rate(step: int, steps: int, warmup_steps: int, highest: float) -> float:
    """Learning rate of one step.

    Parameters
    ----------
    step
        Number of the step, from 0.
    steps
        Steps in all.
    warmup_steps
        Steps of the warm-up; the last of them has the highest rate. Training no longer than its
        warm-up only rises.
    highest
        Rate after warm-up.
    """
    if step < warmup_steps:
        return highest * (step + 1) / warmup_steps
    return highest * 0.5 * (1 + cos(pi * (step - warmup_steps) / (steps - warmup_steps)))
