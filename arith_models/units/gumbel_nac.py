"""GumbelNAC: y = x Wᵀ with W = p₁ - p₂, (p₁, p₂, p₃) = softmax((s + n) / τ), n Gumbel noise.

From the code of Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020); no experiment of the paper uses it. Gumbel
softmax: Jang et al. (2017).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from arith_models.additive import Additive
from arith_models.gumbel import GumbelConfig, gumbel_noise, temperature
from arith_models.ternary import mean_weight


class GumbelNAC(Additive):
    """Shapes: x [B, I] -> y [B, O]; s [O, I, 3], the logits of 1, -1 and 0, all of them learnt and 0 at first.

    Noise is drawn once a forward, in training only; the temperature is τ = max(0.5, exp(-1e-5 step)) by default. In
    evaluation W is the mean p₁ - p₂ without noise at τ = 1. No bias, no penalty, no clamp, no part in R_z.
    """

    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config(GumbelConfig):
        pass

    def __init__(self, config: GumbelConfig, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        self.logit = nn.Parameter(torch.empty(num_outputs, num_inputs, 3))

    def initialise(self, stream: Any) -> None:
        """s = 0, so every weight starts as 0 on average; what differs between seeds is the noise."""
        self.logit.zero_()

    def effective_weight(self) -> Tensor:
        return mean_weight(self.logit.softmax(-1))

    def weights(self, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        if not ctx.training:
            return self.effective_weight(), {}
        noisy_OI3 = self.logit + gumbel_noise(ctx.stream, self.logit.shape)
        return mean_weight((noisy_OI3 / temperature(self.config, ctx.step)).softmax(-1)), {}
