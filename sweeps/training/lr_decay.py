"""A learning rate that falls when the loss has stopped falling. Functions of one lane, in tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

PERIODS = 4


def start() -> dict[str, Tensor]:
    """`factor` of the learning rate, the loss `sum` of the present period, and the last periods' `means` [4], oldest first."""
    return {
        "factor": torch.ones(()),
        "sum": torch.zeros(()),
        "means": torch.full((PERIODS,), torch.inf),
    }


def after(memory: dict[str, Tensor], loss: Tensor, step: Tensor, decay: Any) -> dict[str, Tensor]:
    """The memory after a step with this loss. `decay` is a `settings.LrDecay`, `step` the number of updates before it."""
    total = memory["sum"] + loss
    ends = (step + 1) % decay.period == 0
    means = torch.cat([memory["means"][1:], (total / decay.period).unsqueeze(0)])
    if decay.rule == "two_worse":
        stalls = means[-2:].amin() > means[-3:].amin()
    else:
        stalls = means[-1] > means[:-1].amax()
    lower = torch.clamp(memory["factor"] * decay.factor, min=decay.floor)
    return {
        "factor": torch.where(ends & stalls, lower, memory["factor"]),
        "sum": torch.where(ends, 0.0, total),
        "means": torch.where(ends, means, memory["means"]),
    }
