"""y = SELU(x Wᵀ + b); W ~ U(-sqrt(3/I), sqrt(3/I)). As in the baselines of Madsen and Johansen (2020)."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional

from arith_models.dense import Dense


class SELU(Dense):
    """y = SELU(x Wᵀ + b); W ~ U(-sqrt(3/I), sqrt(3/I)). Shapes: x [B, I] -> y [B, O]."""

    def activation(self, x: Tensor) -> Tensor:
        return functional.selu(x)

    def initial_range(self, num_inputs: int, num_outputs: int) -> float:
        return math.sqrt(3 / num_inputs)
