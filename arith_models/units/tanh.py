"""y = tanh(x Wᵀ + b); W Xavier uniform with gain 5/3. As in the baselines of Madsen and Johansen (2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from arith_models.dense import Dense, xavier


class Tanh(Dense):
    """y = tanh(x Wᵀ + b); W Xavier uniform with gain 5/3. Shapes: x [B, I] -> y [B, O]."""

    def activation(self, x: Tensor) -> Tensor:
        return torch.tanh(x)

    def initial_range(self, num_inputs: int, num_outputs: int) -> float:
        return xavier(num_inputs, num_outputs, gain=5 / 3)
