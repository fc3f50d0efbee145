"""The gates of NALU and its relatives: y = g * a + (1 - g) * m.

Trask et al. (2018), section 3; the variants are those of the code of Madsen and Johansen (2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from arith_models.base import Unit
from arith_models.dense import xavier
from arith_models.gumbel import GumbelConfig, gumbel_noise, temperature

GateKind = Literal["normal", "regularised", "gumbel", "obs_gumbel"]


@dataclass(frozen=True, kw_only=True)
class GateConfig(GumbelConfig):
    """The settings of gates. The temperature is that of gumbel and obs_gumbel."""

    gate: GateKind = "normal"
    """regularised: a penalty on gates between 0 and 1; gumbel, obs_gumbel: noise by output, by row too (--nalu-gate)"""
    gate_bias: bool = False
    """gates have a bias, which starts at 0 (--nalu-bias)"""
    two_gates: bool = False
    """the multiplicative branch has a gate of its own instead of 1 - g (--nalu-two-gate)"""


class Gated(Unit):
    """y = g * a + (1 - g) * m, g = sigmoid(x Gᵀ), or g₂ * m with g₂ = sigmoid(x G₂ᵀ). Abstract: a unit supplies a and m.

    Shapes: x [B, I], a, m [O, B] -> y [B, O]; G [O, I] Xavier uniform with gain 1.

    regularised: the penalty "gate", sum over rows and outputs of g² (1 - g)², weighed 1 as published (a sum: it grows with
    the batch). gumbel, obs_gumbel: in training g = sigmoid((x Gᵀ + n) / τ), n Gumbel noise by output, or by row and
    output. Here τ falls with the step. In the published code τ never reached the gate and stayed 1:
    `lowest_temperature: 1` does the same.
    """

    def __init__(self, config: Any, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config: Any = config
        self.gate = nn.Parameter(torch.empty(num_outputs, num_inputs))
        if config.gate_bias:
            self.gate_bias = nn.Parameter(torch.empty(num_outputs))
        if config.two_gates:
            self.second_gate = nn.Parameter(torch.empty(num_outputs, num_inputs))
            if config.gate_bias:
                self.second_gate_bias = nn.Parameter(torch.empty(num_outputs))

    def initialise_gates(self, stream: Any) -> None:
        for name, parameter in self.named_parameters(recurse=False):
            if name.endswith("bias"):
                parameter.zero_()
            else:
                num_outputs, num_inputs = parameter.shape
                r = xavier(num_inputs, num_outputs)
                parameter.copy_(stream.uniform(parameter.shape, -r, r))

    def opened(self, x_BI: Tensor, ctx: Any) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The gates [O, B] of the additive and of the multiplicative branch, and their penalties."""
        bias = self.config.gate_bias
        gate_OB = self._open(self.gate, self.gate_bias if bias else None, x_BI, ctx)
        learnt, other_OB = [gate_OB], 1.0 - gate_OB
        if self.config.two_gates:
            other_OB = self._open(self.second_gate, self.second_gate_bias if bias else None, x_BI, ctx)
            learnt.append(other_OB)
        if self.config.gate != "regularised":
            return gate_OB, other_OB, {}
        undecided = [(g.square() * (1.0 - g).square()).sum() for g in learnt]
        return gate_OB, other_OB, {"gate": torch.stack(undecided).sum()}

    def _open(self, G_OI: Tensor, bias_O: Tensor | None, x_BI: Tensor, ctx: Any) -> Tensor:
        logit_OB = G_OI @ x_BI.T
        if bias_O is not None:
            logit_OB = logit_OB + bias_O.unsqueeze(1)
        if self.config.gate in ("gumbel", "obs_gumbel") and ctx.training:
            outputs, rows = logit_OB.shape
            noise = gumbel_noise(ctx.stream, (outputs, rows if self.config.gate == "obs_gumbel" else 1))
            logit_OB = (logit_OB + noise) / temperature(self.config, ctx.step)
        return torch.sigmoid(logit_OB)
