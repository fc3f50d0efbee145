"""MulMCFC with RealNPU's sign: y = exp(o * (ln|x| Sᵀ) + c) * cos(k Sᵀ), k = π g where x < 0, else 0.

S = softmax of R over the outputs, o = sigmoid(w + b), g in [0, 1] a gate for each input. In the code of Mistry et al., "A
Primer for Neural Arithmetic Logic Modules" (2021), after Hoedt et al., "MC-LSTM" (ICML 2021), and Heim et al., "Neural Power
Units" (NeurIPS 2020).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from arith_models.gated_power import gate_penalty, polar
from arith_models.mass_conserving import MassConserving
from arith_models.settings import RampedPenalty


class MulMCFCSignRealNPU(MassConserving):
    """Shapes: x [B, I] -> y [B, O]; R, S [O, I]; w, b, o, c [O]; gate g [I].

    The gate acts on signs alone, not on magnitudes. c starts at 0, g at 1/2. |x| is at least `epsilon`: the draws of a
    range around 0 hold 0 itself, whose logarithm would make the gradient NaN. Penalties: "sparsity" as MC-FC's,
    unweighted; "gate", weighted, mean min(|g|, |1 - g|); network one_layer sets the published weight 1. Gates do not count
    towards the sparsity error.
    """

    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config:
        epsilon: float = 1e-7
        """smallest |x| that the logarithm sees"""
        gate_penalty: RampedPenalty = field(default_factory=RampedPenalty)
        """weight and schedule of the gate's penalty (--regualizer-gate with --reg-scale-type madsen)"""

        def __post_init__(self) -> None:
            if not self.epsilon > 0:
                raise ValueError(f"epsilon = {self.epsilon} must be positive")

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__(config, num_inputs, num_outputs)
        self.bias = nn.Parameter(torch.empty(num_outputs))
        self.gate = nn.Parameter(torch.empty(num_inputs))

    def initialise(self, stream: Any) -> None:
        super().initialise(stream)
        self.bias.zero_()
        self.gate.fill_(0.5)

    def forward(self, x_BI: Tensor, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        log_IB = torch.log(x_BI.T.abs().clamp(min=self.config.epsilon))
        _, k_IB = polar(x_BI, self.gate)
        y_OB = torch.exp(self.effective_weight() @ log_IB + self.bias.unsqueeze(1)) * torch.cos(
            self.shares() @ k_IB
        )
        weight = self.config.gate_penalty.at(ctx.step)
        return y_OB.T, {"sparsity": self.growth_penalty(), "gate": weight * gate_penalty(self.gate)}
