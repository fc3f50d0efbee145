"""SoftmaxNAC: y = x Wᵀ with W = p₁ - p₂, where (p₁, p₂, p₃) = softmax(s₁, s₂, 0) for each weight.

From the code of Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020); no experiment of the paper uses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from arith_models.additive import Additive
from arith_models.dense import xavier
from arith_models.ternary import mean_weight


class SoftmaxNAC(Additive):
    """Shapes: x [B, I] -> y [B, O]; s [O, I, 2]. W is the mean of a choice among 1, -1 and 0, whose logits are s and 0.

    No bias, no penalty, no clamp, no part in R_z. Initial range: I and O are counted as for W [O, I]; how the authors' code
    counts them for its array of logits was not settled, and if it took the last axis as a kernel's, its range is smaller by
    sqrt(1/2).
    """

    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config:
        pass

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        self.logit = nn.Parameter(torch.empty(num_outputs, num_inputs, 2))

    def initialise(self, stream: Any) -> None:
        """s Xavier uniform with gain sqrt(1/2): a range of sqrt(3 / (I + O))."""
        num_outputs, num_inputs, _ = self.logit.shape
        r = xavier(num_inputs, num_outputs, gain=0.5**0.5)
        self.logit.copy_(stream.uniform(self.logit.shape, -r, r))

    def logits(self) -> Tensor:
        """[O, I, 3], the last of which is fixed at 0."""
        return torch.cat([self.logit, torch.zeros_like(self.logit[..., :1])], -1)

    def effective_weight(self) -> Tensor:
        return mean_weight(self.logits().softmax(-1))
