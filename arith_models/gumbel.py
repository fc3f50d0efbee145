"""Gumbel noise and its falling temperature: differentiable draws, Jang et al. (2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class GumbelConfig:
    """The settings of all that draws with Gumbel noise."""

    cooling: float = 1e-5
    """rate, per step, at which the temperature exp(-cooling step) falls"""
    lowest_temperature: float = 0.5
    """where the temperature stops falling; 1 keeps it at 1"""

    def __post_init__(self) -> None:
        if self.cooling < 0:
            raise ValueError(f"cooling = {self.cooling} must be at least 0")
        if not 0 < self.lowest_temperature <= 1:
            raise ValueError(f"lowest_temperature = {self.lowest_temperature} must lie in (0, 1]")


def temperature(config: GumbelConfig, step: Tensor) -> Tensor:
    """max(lowest, exp(-cooling step))."""
    falling = torch.exp(-config.cooling * step)
    return torch.where(falling > config.lowest_temperature, falling, config.lowest_temperature)


def gumbel_noise(stream: Any, shape: Sequence[int]) -> Tensor:
    """-log(1e-8 - log(U + 1e-8)) with U uniform on [0, 1): mean 0.577, variance 1.645; always finite."""
    noise: Tensor = -torch.log(1e-8 - torch.log(stream.uniform(shape) + 1e-8))
    return noise
