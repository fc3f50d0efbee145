"""What turns an image of a digit into numbers, for networks that calculate with digits they see."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = 28
"""Of the pictures that the CNN reads."""


def num_channels(num_inputs: int) -> int:
    """Of square pictures, grey or in three colours, that have so many numbers: 784 = 28 x 28 is 1, 3072 = 3 x 32 x 32 is 3."""
    for channels in (1, 3):
        side = math.isqrt(num_inputs // channels)
        if channels * side * side == num_inputs and side >= SIDE:
            return channels
    raise ValueError(
        f"{num_inputs} inputs are no picture: a square one has side x side of them, or 3 x side x side in colour, the side "
        f"being {SIDE} or more: 784 = 28 x 28, say, or 3072 = 3 x 32 x 32. Set the task's num_inputs to what a picture has"
    )


class DigitCNN(nn.Module):
    """conv C -> 20, 5x5, ReLU, max-pool 2; conv 20 -> 50, 5x5, ReLU, max-pool 2; 800 -> 500, ReLU; 500 -> outputs.

    Shapes: x [B, C, H, W] -> y [B, O]; of larger pictures the middle 28 x 28 is read. Weights and biases from
    U(-1/√fan_in, 1/√fan_in), torch's default. The image network of Madsen and Johansen, "Neural Arithmetic Units"
    (ICLR 2020), appendix on sequential MNIST, there of one channel.
    """

    def __init__(self, channels: int, num_outputs: int) -> None:
        super().__init__()
        self.conv1, self.bias1 = _parameters(20, channels, 5, 5)
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

    def forward(self, x_BCHW: Tensor, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The outputs, and what it wants to remember of this batch: nothing."""
        top, left = ((size - SIDE) // 2 for size in x_BCHW.shape[2:])
        x = x_BCHW[:, :, top : top + SIDE, left : left + SIDE]
        x = functional.max_pool2d(torch.relu(functional.conv2d(x, self.conv1, self.bias1)), 2)
        x = functional.max_pool2d(torch.relu(functional.conv2d(x, self.conv2, self.bias2)), 2)
        h_BH = torch.relu((self.dense @ x.flatten(1).T).T + self.dense_bias)
        return (self.out @ h_BH.T).T + self.out_bias, {}

    def initial_memory(self) -> dict[str, Tensor]:
        return {}


def _parameters(num_outputs: int, *inputs: int) -> tuple[nn.Parameter, nn.Parameter]:
    return nn.Parameter(torch.empty(num_outputs, *inputs)), nn.Parameter(torch.empty(num_outputs))
