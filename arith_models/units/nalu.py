"""NALU, the neural arithmetic logic unit: y = g * a + (1 - g) * m.

a = x Wᵀ, m = exp(log(|x| + ε) Wᵀ), g = sigmoid(x Gᵀ). Trask et al., "Neural Arithmetic Logic Units" (2018), section 3;
settings of Madsen and Johansen (2020).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from arith_models.units.nac import NAC


class NALU(nn.Module):
    """Shapes: x [B, I] -> y [B, O]; the NAC's Ŵ, M̂ [O, I] serve both branches; G [O, I], no bias.

    The gate weighs the additive branch. Gates do not count towards the sparsity error.
    """

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
        self.gate = nn.Parameter(torch.empty(num_outputs, num_inputs))

    def initialise(self, stream: Any) -> None:
        """NAC as published; G Xavier uniform with gain 1."""
        self.nac.initialise(stream)
        r = math.sqrt(6 / sum(self.gate.shape))
        self.gate.copy_(stream.uniform(self.gate.shape, -r, r))

    def effective_weight(self) -> Tensor:
        return self.nac.effective_weight()

    def forward(self, x_BI: Tensor, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        W_OI = self.effective_weight()
        gate_OB = torch.sigmoid(self.gate @ x_BI.T)
        add_OB = W_OI @ x_BI.T
        mul_OB = torch.exp(W_OI @ torch.log(x_BI.T.abs() + self.config.epsilon))
        return (gate_OB * add_OB + (1.0 - gate_OB) * mul_OB).T, {}

    def constrain(self) -> None:
        """NAC's weights are bounded by construction; the gate is free."""
