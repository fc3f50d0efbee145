"""y = clip(x Wᵀ + b, 0, 6); W Kaiming uniform. As in the baselines of Madsen and Johansen (2020)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from arith_models.dense import Dense, kaiming


class ReLU6(Dense):
    """y = clip(x Wᵀ + b, 0, 6); W Kaiming uniform. Shapes: x [B, I] -> y [B, O]."""

    def activation(self, x: Tensor) -> Tensor:
        return functional.relu6(x)

    def initial_range(self, num_inputs: int, num_outputs: int) -> float:
        return kaiming(num_inputs)
