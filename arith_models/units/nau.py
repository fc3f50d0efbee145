"""NAU, the neural addition unit: y = x Wᵀ with W in [-1, 1].

Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020), section 2.2, eq. 5 to 7.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


class NAU(nn.Module):
    """Shapes: x [B, I] -> y [B, O]; W [O, I]. No bias.

    The forward clamps W as the authors' code does; `clamp` also clamps the parameter itself after every step, which is
    their default. Penalty "sparsity": mean of min(|W|, |1 - |W||) over W (eq. 7), unweighted.
    """

    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config:
        clamp: bool = True
        """clamp the parameter to [-1, 1] after every step; false is the paper's ablation"""

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(num_outputs, num_inputs))

    def initialise(self, stream: Any) -> None:
        """W ~ U(-r, r), r = min(1/2, sqrt(6 / (I + O)))."""
        num_outputs, num_inputs = self.weight.shape
        r = min(0.5, math.sqrt(6 / (num_inputs + num_outputs)))
        self.weight.copy_(stream.uniform(self.weight.shape, -r, r))

    def effective_weight(self) -> Tensor:
        return self.weight.clamp(-1.0, 1.0)

    def forward(self, x_BI: Tensor, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        magnitude = self.weight.abs()
        penalty = torch.minimum(magnitude, (1.0 - magnitude).abs()).mean()
        return (self.effective_weight() @ x_BI.T).T, {"sparsity": penalty}

    def constrain(self) -> None:
        if self.config.clamp:
            self.weight.copy_(self.weight.clamp(-1.0, 1.0))
