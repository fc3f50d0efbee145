"""NAC, the neural accumulator (NAC+): y = x Wᵀ with W = tanh(Ŵ) * sigmoid(M̂).

Trask et al., "Neural Arithmetic Logic Units" (2018), section 3; initial range of Madsen and Johansen (2020).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from arith_models.additive import Additive
from arith_models.nac_range import nac_range
from arith_models.penalties import nau_input


class NAC(Additive):
    """Shapes: x [B, I] -> y [B, O]; Ŵ, M̂ [O, I]. No bias, no penalty, no clamp.

    W is computed anew in every forward, so both hidden weights receive gradients (public versions that compute it once
    in the constructor train nothing). The authors' command: --layer-type NAC.
    """

    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config:
        pass

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        self.W_hat = nn.Parameter(torch.empty(num_outputs, num_inputs))
        self.M_hat = nn.Parameter(torch.empty(num_outputs, num_inputs))

    def initialise(self, stream: Any) -> None:
        """Ŵ, M̂ ~ U(-r, r), r as in `nac_range`."""
        num_outputs, num_inputs = self.W_hat.shape
        r = nac_range(num_inputs, num_outputs)
        self.W_hat.copy_(stream.uniform(self.W_hat.shape, -r, r))
        self.M_hat.copy_(stream.uniform(self.M_hat.shape, -r, r))

    def effective_weight(self) -> Tensor:
        return torch.tanh(self.W_hat) * torch.sigmoid(self.M_hat)

    def input_penalty(self, mean_I: Tensor) -> Tensor:
        return nau_input(self.effective_weight(), mean_I)
