"""y = x Wᵀ + b; W Xavier uniform. As in the baselines of Madsen and Johansen (2020)."""

from __future__ import annotations

from torch import Tensor

from arith_models.dense import Dense, xavier


class Linear(Dense):
    """y = x Wᵀ + b; W Xavier uniform. Shapes: x [B, I] -> y [B, O]."""

    def activation(self, x: Tensor) -> Tensor:
        return x

    def initial_range(self, num_inputs: int, num_outputs: int) -> float:
        return xavier(num_inputs, num_outputs)
