"""NPU, the neural power unit: y = exp(ln(r) Wrᵀ - k Wiᵀ) * cos(k Wrᵀ + ln(r) Wiᵀ), with complex weights Wr + i Wi.

r = g (|x| + ε) + 1 - g and k = π g where x < 0, else 0: an input as magnitude and angle behind a gate g in [0, 1], which makes
an irrelevant one 1. Heim, Pevný and Šmídl, "Neural Power Units" (NeurIPS 2020), definition of the NPU; settings of Mistry
et al. (2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from arith_models.base import Unit
from arith_models.gated_power import GatedPowerConfig, gate_penalty, polar


class NPU(Unit):
    """Shapes: x [B, I] -> y [B, O]; Wr, Wi [O, I], gate [I].

    The effective weights are Wr and Wi, [2 O, I]; gates do not count towards the sparsity error. Penalties, weighted,
    each times the schedule s(t) of arith_models/gated_power.py: "l1" (the sum of all parameters' magnitudes), "weight"
    (mean |1 - |Wr||, and with clip: wig the sum of |Wi|), "gate".

    Published for multiplication with batches of 128 and train.lr: 5e-3: l1, beta from 1e-7 to 1e-5, which is what
    network one_layer sets; for division beta_start: 1e-9, beta_end: 1e-7. One schedule scales all penalties; the
    original's way to combine several is not documented.
    """

    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config(GatedPowerConfig):
        clip: Literal["none", "w", "g", "wg", "wig"] = "none"
        """what is clamped after every step: w Wr and i Wi to [-1, 1], g the gate to [0, 1] (--npu-clip)"""

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        self.W_real = nn.Parameter(torch.empty(num_outputs, num_inputs))
        self.W_imaginary = nn.Parameter(torch.empty(num_outputs, num_inputs))
        self.gate = nn.Parameter(torch.empty(num_inputs))

    def initialise(self, stream: Any) -> None:
        """Wr ~ U(-r, r), r = sqrt(6 / (I + O)), constrained at most 1/2; Wi = 0; g = 1/2."""
        num_outputs, num_inputs = self.W_real.shape
        r = self.config.initial_range(num_inputs, num_outputs)
        self.W_real.copy_(stream.uniform(self.W_real.shape, -r, r))
        self.W_imaginary.zero_()
        self.gate.fill_(0.5)

    def effective_weight(self) -> Tensor:
        return torch.cat([self.W_real, self.W_imaginary])

    def forward(self, x_BI: Tensor, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        log_r_IB, k_IB = polar(x_BI, self.gate)
        magnitude_OB = torch.exp(self.W_real @ log_r_IB - self.W_imaginary @ k_IB)
        y_OB = magnitude_OB * torch.cos(self.W_real @ k_IB + self.W_imaginary @ log_r_IB)
        return y_OB.T, self._penalties(ctx)

    def _penalties(self, ctx: Any) -> dict[str, Tensor]:
        c = self.config
        scale = c.scale(ctx.step)
        weights = (1.0 - self.W_real.abs()).abs().mean()
        if c.clip == "wig":
            weights = weights + self.W_imaginary.abs().sum()
        penalties = {
            "weight": scale * c.weight_penalty * weights,
            "gate": scale * c.gate_penalty * gate_penalty(self.gate),
        }
        if c.l1:
            penalties["l1"] = scale * torch.stack([p.abs().sum() for p in self.parameters()]).sum()
        return penalties

    def constrain(self) -> None:
        clip = self.config.clip
        if clip in ("w", "wg", "wig"):
            self.W_real.copy_(self.W_real.clamp(-1.0, 1.0))
        if clip == "wig":
            self.W_imaginary.copy_(self.W_imaginary.clamp(-1.0, 1.0))
        if clip in ("g", "wg", "wig"):
            self.gate.copy_(self.gate.clamp(0.0, 1.0))
