"""y = max(z, 0) + s min(z, 0), z = x Wᵀ + b, the slope s being learned; W and b as in torch.nn.Linear.

One of the activations that public code for Trask et al. (2018), section 1, compares, with torch's defaults.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from arith_models.dense import Dense, TorchDense


class PReLU(TorchDense):
    """y = max(z, 0) + s min(z, 0), z = x Wᵀ + b. Shapes: x [B, I] -> y [B, O]; W [O, I], b [O], s [1].

    s starts at 1/4, one for each layer (the public code shares one among all layers).
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(Dense.Config):
        pass

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__(config, num_inputs, num_outputs)
        self.slope = nn.Parameter(torch.empty(1))

    def activation(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, self.slope * x)

    def initialise_as_torch(self, stream: Any) -> None:
        super().initialise_as_torch(stream)
        self.slope.fill_(0.25)
