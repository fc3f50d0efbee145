"""MulMCFC with iNALU's sign: y = exp(o * (ln|x| Sᵀ) + c) * prod_i (sign(x_i) S_oi + 1 - S_oi).

S = softmax of R over the outputs, o = sigmoid(w + b). In the code of Mistry et al., "A Primer for Neural Arithmetic Logic
Modules" (2021), after Hoedt et al., "MC-LSTM" (ICML 2021), and Schlör et al., "iNALU" (2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from arith_models.mass_conserving import MassConserving
from arith_models.signs import sign_product


class MulMCFCSignINALU(MassConserving):
    """Shapes: x [B, I] -> y [B, O]; R, S [O, I]; w, b, o, c [O].

    The bias c starts at 0. |x| is at least `epsilon`: the draws of a range around 0 hold 0 itself, whose logarithm
    would make the gradient NaN. Penalty, unweighted: "sparsity", as MC-FC's.
    """

    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config:
        epsilon: float = 1e-7
        """smallest |x| that the logarithm sees"""

        def __post_init__(self) -> None:
            if not self.epsilon > 0:
                raise ValueError(f"epsilon = {self.epsilon} must be positive")

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__(config, num_inputs, num_outputs)
        self.bias = nn.Parameter(torch.empty(num_outputs))

    def initialise(self, stream: Any) -> None:
        super().initialise(stream)
        self.bias.zero_()

    def forward(self, x_BI: Tensor, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        log_IB = torch.log(x_BI.T.abs().clamp(min=self.config.epsilon))
        magnitude_OB = torch.exp(self.effective_weight() @ log_IB + self.bias.unsqueeze(1))
        return magnitude_OB.T * sign_product(x_BI, self.shares()), {"sparsity": self.growth_penalty()}
