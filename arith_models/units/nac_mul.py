"""NAC• (multiplicative NAC): y = exp(log(|x| + ε) Wᵀ) with W = tanh(Ŵ) * sigmoid(M̂).

Trask et al., "Neural Arithmetic Logic Units" (2018), section 3; written NAC• by Madsen and Johansen (2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from arith_models.units.nac import NAC


class NACMul(nn.Module):
    """Shapes: x [B, I] -> y [B, O]. The weights are a NAC's; the sign of x is lost, as published."""

    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config:
        epsilon: float = 1e-7
        """added to |x| before the logarithm"""

        def __post_init__(self) -> None:
            if not self.epsilon > 0:
                raise ValueError(f"epsilon = {self.epsilon} must be positive")

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        self.nac = NAC(NAC.Config(), num_inputs, num_outputs)

    def initialise(self, stream: Any) -> None:
        self.nac.initialise(stream)

    def effective_weight(self) -> Tensor:
        return self.nac.effective_weight()

    def forward(self, x_BI: Tensor, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        log_y_BO, penalties = self.nac(torch.log(x_BI.abs() + self.config.epsilon), ctx)
        return torch.exp(log_y_BO), penalties

    def constrain(self) -> None:
        """NAC's weights are bounded by construction."""
