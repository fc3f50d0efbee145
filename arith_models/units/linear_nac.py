"""LinearNAC, a NAC whose weights are free: y = x Wᵀ.

From the code of Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020); no experiment of the paper uses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from arith_models.additive import Additive
from arith_models.dense import xavier


class LinearNAC(Additive):
    """Shapes: x [B, I] -> y [B, O]; W [O, I]. No bias (`linear` has one), no penalty, no clamp, no part in R_z.

    What the authors' code calls RegualizedLinearNAC, this with NAU's sparsity penalty, isn't offered; the nearest is
    `nau` with clamp: false, whose forward clamps.
    """

    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config:
        pass

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(num_outputs, num_inputs))

    def initialise(self, stream: Any) -> None:
        """W Xavier uniform."""
        num_outputs, num_inputs = self.weight.shape
        r = xavier(num_inputs, num_outputs)
        self.weight.copy_(stream.uniform(self.weight.shape, -r, r))

    def effective_weight(self) -> Tensor:
        return self.weight
