"""y = max(z, z / 100), z = x Wᵀ + b; W and b as in torch.nn.Linear.

One of the activations that public code for Trask et al. (2018), section 1, compares, with torch's defaults.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from arith_models.dense import TorchDense


class LeakyReLU(TorchDense):
    """y = max(z, z / 100), z = x Wᵀ + b; W and b as in torch.nn.Linear. Shapes: x [B, I] -> y [B, O]."""

    def activation(self, x: Tensor) -> Tensor:
        return functional.leaky_relu(x, 0.01)
