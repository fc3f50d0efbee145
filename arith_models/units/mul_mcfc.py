"""MulMCFC, MC-FC on logarithms: y = exp(o * (ln(x) Sᵀ) + c), S = softmax of R over the outputs, o = sigmoid(w + b).

The multiplicative form of MC-FC (Hoedt et al., "MC-LSTM", ICML 2021) in the code of Mistry et al., "A Primer for Neural
Arithmetic Logic Modules" (2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from arith_models.mass_conserving import MassConserving


class MulMCFC(MassConserving):
    """Shapes: x [B, I] -> y [B, O]; R, S [O, I]; w, b, o, c [O].

    For positive inputs only, as the original: the logarithm of a negative one is not a number, and a lane that meets
    one ends as diverged. See mul_mcfc_sign_inalu and mul_mcfc_sign_real_npu. It multiplies but does not divide. The
    bias c starts at 0. Penalty, unweighted: "sparsity", as MC-FC's.
    """

    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config:
        pass

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__(config, num_inputs, num_outputs)
        self.bias = nn.Parameter(torch.empty(num_outputs))

    def initialise(self, stream: Any) -> None:
        super().initialise(stream)
        self.bias.zero_()

    def forward(self, x_BI: Tensor, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        exponent_OB = self.effective_weight() @ torch.log(x_BI.T) + self.bias.unsqueeze(1)
        return torch.exp(exponent_OB).T, {"sparsity": self.growth_penalty()}
