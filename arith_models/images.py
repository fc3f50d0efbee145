"""What turns an image of a digit into numbers, for networks that calculate with digits they see."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 28


class DigitCNN(nn.Module):
    """conv 1 -> 20, 5x5, ReLU, max-pool 2; conv 20 -> 50, 5x5, ReLU, max-pool 2; 800 -> 500, ReLU; 500 -> outputs.

    Shapes: x [B, 28, 28] -> y [B, O]. Weights and biases from U(-1/√fan_in, 1/√fan_in), torch's default. The image network
    of Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020), appendix on sequential MNIST.
    """

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.conv1, self.bias1 = _parameters(20, 1, 5, 5)
        self.conv2, self.bias2 = _parameters(50, 20, 5, 5)
        self.dense, self.dense_bias = _parameters(500, 800)
        self.out, self.out_bias = _parameters(num_outputs, 500)

    def initialise(self, stream: Any) -> None:
        for name in ("conv1", "conv2", "dense", "out"):
            weight = getattr(self, name)
            r = 1 / math.sqrt(weight[0].numel())
            bias = getattr(self, name.replace("conv", "bias") if "conv" in name else f"{name}_bias")
            weight.copy_(stream.uniform(weight.shape, -r, r))
            bias.copy_(stream.uniform(bias.shape, -r, r))

    def forward(self, x_BHW: Tensor) -> Tensor:
        x = functional.max_pool2d(
            torch.relu(functional.conv2d(x_BHW.unsqueeze(1), self.conv1, self.bias1)), 2
        )
        x = functional.max_pool2d(torch.relu(functional.conv2d(x, self.conv2, self.bias2)), 2)
        h_BH = torch.relu((self.dense @ x.flatten(1).T).T + self.dense_bias)
        return (self.out @ h_BH.T).T + self.out_bias


def _parameters(num_outputs: int, *inputs: int) -> tuple[nn.Parameter, nn.Parameter]:
    return nn.Parameter(torch.empty(num_outputs, *inputs)), nn.Parameter(torch.empty(num_outputs))
