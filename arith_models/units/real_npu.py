"""RealNPU, the neural power unit without imaginary weights: y = exp(ln(r) Wᵀ) * cos(k Wᵀ).

r = g (|x| + ε) + 1 - g and k = π g where x < 0, else 0: an input as magnitude and angle behind a gate g in [0, 1], which makes
an irrelevant one 1. Heim, Pevný and Šmídl, "Neural Power Units" (NeurIPS 2020), definition of the RealNPU; settings of
Mistry et al. (2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from arith_models.base import Unit
from arith_models.gated_power import GatedPowerConfig, gate_penalty, polar
from arith_models.penalties import nau_sparsity


class RealNPU(Unit):
    """Shapes: x [B, I] -> y [B, O]; W [O, I], gate [I]. The gate does not count towards the sparsity error.

    Penalties, weighted, each times the schedule s(t) of arith_models/gated_power.py: "l1" (the sum of all parameters'
    magnitudes), "weight" (see `weight_shape`), "gate". Published settings: see NPU.
    """

    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config(GatedPowerConfig):
        clip: Literal["none", "w", "g", "wg"] = "none"
        """what is clamped after every step: w the weights to [-1, 1], g the gate to [0, 1] (--npu-clip)"""
        weight_shape: Literal["W", "bias"] = "W"
        """the weights' penalty: W is mean |1 - |W||, bias mean min(|W|, |1 - |W||) (--realnpu-reg-type)"""

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(num_outputs, num_inputs))
        self.gate = nn.Parameter(torch.empty(num_inputs))

    def initialise(self, stream: Any) -> None:
        """W ~ U(-r, r), r = sqrt(6 / (I + O)), constrained at most 1/2; g = 1/2."""
        num_outputs, num_inputs = self.weight.shape
        r = self.config.initial_range(num_inputs, num_outputs)
        self.weight.copy_(stream.uniform(self.weight.shape, -r, r))
        self.gate.fill_(0.5)

    def effective_weight(self) -> Tensor:
        return self.weight

    def forward(self, x_BI: Tensor, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        log_r_IB, k_IB = polar(x_BI, self.gate)
        y_OB = torch.exp(self.weight @ log_r_IB) * torch.cos(self.weight @ k_IB)
        return y_OB.T, self._penalties(ctx)

    def _penalties(self, ctx: Any) -> dict[str, Tensor]:
        c = self.config
        scale = c.scale(ctx.step)
        weights = (
            nau_sparsity(self.weight) if c.weight_shape == "bias" else (1.0 - self.weight.abs()).abs().mean()
        )
        penalties = {
            "weight": scale * c.weight_penalty * weights,
            "gate": scale * c.gate_penalty * gate_penalty(self.gate),
        }
        if c.l1:
            penalties["l1"] = scale * (self.weight.abs().sum() + self.gate.abs().sum())
        return penalties

    def constrain(self) -> None:
        if self.config.clip in ("w", "wg"):
            self.weight.copy_(self.weight.clamp(-1.0, 1.0))
        if self.config.clip in ("g", "wg"):
            self.gate.copy_(self.gate.clamp(0.0, 1.0))
