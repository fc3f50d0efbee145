"""y = z / (1 + |z|), z = x Wᵀ + b; W Xavier uniform. As in the baselines of Madsen and Johansen (2020)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from arith_models.dense import Dense, xavier


class Softsign(Dense):
    """y = z / (1 + |z|), z = x Wᵀ + b; W Xavier uniform. Shapes: x [B, I] -> y [B, O]."""

    def activation(self, x: Tensor) -> Tensor:
        return functional.softsign(x)

    def initial_range(self, num_inputs: int, num_outputs: int) -> float:
        return xavier(num_inputs, num_outputs)
