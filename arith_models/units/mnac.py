"""MNAC: y_o = prod_i (W_oi x_i + 1 - W_oi) with W = sigmoid(Ŵ).

From the code of Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020): the NMU of section 2.3 with a sigmoid where that
has a clamp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from arith_models.base import Unit
from arith_models.products import product_with_identity


class MNAC(Unit):
    """Shapes: x [B, I] -> y [B, O]; Ŵ [O, I]. No bias, no penalty, no clamp, no part in R_z.

    A name with two meanings: the benchmark of Mistry et al. (2021) calls NAC• MNAC; that is `nac_mul` here.
    """

    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config:
        pass

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        self.W_hat = nn.Parameter(torch.empty(num_outputs, num_inputs))

    def initialise(self, stream: Any) -> None:
        """Ŵ ~ U(-r, r), r = sqrt(3) / 2: a standard deviation of 1/2."""
        r = math.sqrt(3) / 2
        self.W_hat.copy_(stream.uniform(self.W_hat.shape, -r, r))

    def effective_weight(self) -> Tensor:
        return torch.sigmoid(self.W_hat)

    def forward(self, x_BI: Tensor, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return product_with_identity(self.effective_weight(), x_BI), {}

    def constrain(self) -> None:
        """MNAC's weights are bounded by construction."""
