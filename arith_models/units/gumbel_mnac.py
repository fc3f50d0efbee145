"""GumbelMNAC: y_o = prod_i (W_oi x_i + 1 - W_oi) with W = sigmoid((Ŵ + n) / τ), n Gumbel noise.

From the code of Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020); no experiment of the paper uses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from arith_models.base import Unit
from arith_models.gumbel import GumbelConfig, gumbel_noise, temperature
from arith_models.products import product_with_identity


class GumbelMNAC(Unit):
    """Shapes: x [B, I] -> y [B, O]; Ŵ [O, I], 0 at first. No bias, no penalty, no clamp, no part in R_z.

    Noise is drawn once a forward, in training only; the temperature is τ = max(0.5, exp(-1e-5 step)) by default. In
    evaluation W = sigmoid(Ŵ). As published the noise is one Gumbel number a weight, of mean 0.577: a draw of 0 or 1 with
    probability sigmoid(Ŵ) would take the difference of two.
    """

    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config(GumbelConfig):
        pass

    def __init__(self, config: GumbelConfig, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        self.W_hat = nn.Parameter(torch.empty(num_outputs, num_inputs))

    def initialise(self, stream: Any) -> None:
        """Ŵ = 0: what differs between seeds is the noise."""
        self.W_hat.zero_()

    def effective_weight(self) -> Tensor:
        return torch.sigmoid(self.W_hat)

    def forward(self, x_BI: Tensor, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        if not ctx.training:
            return product_with_identity(self.effective_weight(), x_BI), {}
        noisy_OI = self.W_hat + gumbel_noise(ctx.stream, self.W_hat.shape)
        return product_with_identity(torch.sigmoid(noisy_OI / temperature(self.config, ctx.step)), x_BI), {}

    def constrain(self) -> None:
        """GumbelMNAC's weights are bounded by construction."""
