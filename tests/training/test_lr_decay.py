"""The learning rate falls when the loss has stopped falling, by the two published rules."""

from __future__ import annotations

import pytest
import torch

from sweeps.config.settings import LrDecay
from sweeps.training import optimizers


def factors(decay: LrDecay, means: list[float]) -> list[float]:
    """The factor after each period of two steps whose losses have these means."""
    memory, found = optimizers.lr_decay_start(), []
    for i, mean in enumerate(means):
        for step in (2 * i, 2 * i + 1):
            memory = optimizers.lr_decay_after(memory, torch.tensor(mean), torch.tensor(step), decay)
        found.append(memory["factor"].item())
    return found


def test_two_worse_looks_for_a_best_that_is_two_periods_old() -> None:
    decay = LrDecay(rule="two_worse", factor=0.5, period=2)
    assert factors(decay, [3.0, 2.0, 2.5, 2.1, 1.0, 1.5]) == [1, 1, 1, 0.5, 0.5, 0.5]


def test_two_worse_never_acts_within_the_first_two_periods() -> None:
    assert factors(LrDecay(rule="two_worse", factor=0.5, period=2), [1.0, 5.0]) == [1, 1]


def test_worst_of_four_looks_for_a_loss_above_the_three_before() -> None:
    decay = LrDecay(rule="worst_of_four", factor=0.5, period=2)
    assert factors(decay, [1.0, 2.0, 3.0, 2.5, 3.1, 3.0]) == [1, 1, 1, 1, 0.5, 0.5]


def test_the_factor_stops_at_the_floor() -> None:
    decay = LrDecay(rule="two_worse", factor=0.1, floor=0.3, period=2)
    assert factors(decay, [1.0, 2.0, 3.0])[-1] == pytest.approx(0.3)


def test_bad_settings_are_told_together() -> None:
    with pytest.raises(ValueError, match=r"factor = 2.*must lie in \[0, 1\].*period = 0 must be at least 1"):
        LrDecay(factor=2.0, period=0)
