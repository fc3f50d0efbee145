"""PosNAC, a NAC whose weights are positive: y = x Wᵀ with W = sigmoid(Ŵ).

Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020), section 4.1: an ablation; under exp and log it is NAC•,σ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from arith_models.additive import Additive


class PosNAC(Additive):
    """Shapes: x [B, I] -> y [B, O]; Ŵ [O, I]. No bias, no penalty, no clamp, no part in R_z, as in the authors' code.

    It adds and cannot subtract.
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
        """Ŵ normal with Xavier's standard deviation sqrt(2 / (I + O))."""
        deviation = math.sqrt(2 / sum(self.W_hat.shape))
        self.W_hat.copy_(deviation * stream.normal(self.W_hat.shape))

    def effective_weight(self) -> Tensor:
        return torch.sigmoid(self.W_hat)
