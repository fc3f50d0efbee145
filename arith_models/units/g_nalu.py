"""G-NALU, the golden ratio NALU: y = g * a + (1 - g) * m, with φ = (1 + sqrt 5) / 2 in the place of e.

a = x Wᵀ, m = φ^(log_φ(|x| + ε) Wᵀ), g = σφ(x Gᵀ), W = tanhφ(Ŵ) * σφ(M̂), where tanhφ(z) = (φ^2z - 1) / (φ^2z + 1) and
σφ(z) = 1 / (1 + φ^-z). Rana et al., "Exploring Numerical Calculations with CalcNet" (2019), as in Mistry et al., "A Primer
for Neural Arithmetic Logic Modules" (2021), section on G-NALU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from arith_models.base import Unit
from arith_models.nac_range import nac_range

LOG_PHI = math.log((1 + math.sqrt(5)) / 2)


class GoldenNALU(Unit):
    """Shapes: x [B, I] -> y [B, O]; Ŵ, M̂ [O, I] serve both branches; G [O, I], no bias.

    The authors' command: --layer-type NALU --nalu-gate golden-ratio --nalu-mul golden-ratio --nac-weight golden-ratio.
    The gate weighs the additive branch and does not count towards the sparsity error. Computed in base e, which is
    the same: φ^z = exp(z ln φ), so tanhφ(z) = tanh(z ln φ), σφ(z) = sigmoid(z ln φ), and m = exp(log(|x| + ε) Wᵀ) is NALU's.
    The original raises φ to the power 2Ŵ, which overflows beyond Ŵ = 92 and gives inf / inf; tanh does not.
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
        self.W_hat = nn.Parameter(torch.empty(num_outputs, num_inputs))
        self.M_hat = nn.Parameter(torch.empty(num_outputs, num_inputs))
        self.gate = nn.Parameter(torch.empty(num_outputs, num_inputs))

    def initialise(self, stream: Any) -> None:
        """As NALU: Ŵ, M̂ ~ U(-r, r) with r as in `nac_range`, G Xavier uniform with gain 1."""
        num_outputs, num_inputs = self.gate.shape
        r = nac_range(num_inputs, num_outputs)
        self.W_hat.copy_(stream.uniform(self.W_hat.shape, -r, r))
        self.M_hat.copy_(stream.uniform(self.M_hat.shape, -r, r))
        r = math.sqrt(6 / (num_inputs + num_outputs))
        self.gate.copy_(stream.uniform(self.gate.shape, -r, r))

    def effective_weight(self) -> Tensor:
        return torch.tanh(LOG_PHI * self.W_hat) * torch.sigmoid(LOG_PHI * self.M_hat)

    def forward(self, x_BI: Tensor, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        W_OI = self.effective_weight()
        gate_OB = torch.sigmoid(LOG_PHI * (self.gate @ x_BI.T))
        add_OB = W_OI @ x_BI.T
        mul_OB = torch.exp(W_OI @ torch.log(x_BI.T.abs() + self.config.epsilon))
        return (gate_OB * add_OB + (1.0 - gate_OB) * mul_OB).T, {}

    def constrain(self) -> None:
        """Weights are bounded by construction; the gate is free."""
