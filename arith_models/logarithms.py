"""Products through logarithms: what NAC• and its relatives share, and NALU's multiplicative branch.

The three ways to take the logarithm are those of the code of Madsen and Johansen (2020): normal log(|x| + ε),
safe log(|x - 1| + 1), max_safe log(max(x - 1, 0) + 1). The last two are finite at 0 and equal log x for x >= 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from arith_models.base import Unit

LogMode = Literal["normal", "safe", "max_safe"]


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """The setting of all that takes logarithms."""

    epsilon: float = 1e-7
    """added to |x| before the logarithm"""

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise ValueError(f"epsilon = {self.epsilon} must be positive")


@dataclass(frozen=True, kw_only=True)
class LogUnitConfig(LogConfig):
    """The settings of NAC• and its relatives."""

    log: LogMode = "normal"
    """normal: log(|x| + epsilon), safe: log(|x - 1| + 1), max_safe: log(max(x - 1, 0) + 1) (--nac-mul)"""


def logarithm(x: Tensor, mode: LogMode, epsilon: Any) -> Tensor:
    """The logarithm of each element, in one of the three ways."""
    if mode == "safe":
        return torch.log((x - 1.0).abs() + 1.0)
    if mode == "max_safe":
        return torch.log(torch.relu(x - 1.0) + 1.0)
    return torch.log(x.abs() + epsilon)


class LogUnit(Unit):
    """y = exp(log(|x| + ε) Wᵀ). Abstract: a unit hands over `nac`, the layer whose W it uses.

    Shapes: x [B, I] -> y [B, O]; W [O, I]. The sign of x is lost, as published. Penalties: those of W, and "input", R_z,
    unweighted: it looks at the mean of the logarithms, which is what the weights are given, and with max_safe
    mean max(1 - x, 0) is added, which keeps x where max_safe has a gradient. It comes from the forward and not from
    `input_penalty`, because neither follows from the mean of x; so a network that runs the unit at several time steps
    gets it once a step.
    """

    def __init__(self, config: Any, nac: Any) -> None:
        super().__init__()
        self.config = config
        self.nac = nac

    def initialise(self, stream: Any) -> None:
        self.nac.initialise(stream)

    def effective_weight(self) -> Tensor:
        weight: Tensor = self.nac.effective_weight()
        return weight

    def forward(self, x_BI: Tensor, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        logs_BI = logarithm(x_BI, self.config.log, self.config.epsilon)
        W_OI, penalties = self.nac.weights(ctx)
        pull = []
        own = self.nac.input_penalty(logs_BI.mean(0))
        if own is not None:
            pull.append(own)
        if self.config.log == "max_safe":
            pull.append(torch.relu(1.0 - x_BI).mean())
        if pull:
            penalties = {**penalties, "input": torch.stack(pull).sum()}
        return torch.exp((W_OI @ logs_BI.T).T), penalties

    def constrain(self) -> None:
        self.nac.constrain()
