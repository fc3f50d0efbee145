"""ResNet, written for one seed: what normalises its channels is passed in and handed back, never kept in the module.

He et al., "Deep Residual Learning for Image Recognition" (2015), table 1, as torchvision has it: in a bottleneck the stride is
in the 3x3 convolution, not in the first 1x1.

Legend of suffixes: B pictures, C channels, H height, W width, O outputs, S channels of all normalised layers, T time steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
"""How many blocks have each width; those of resnet50 are bottlenecks."""
WIDTHS = (64, 128, 256, 512)
EPSILON, MOMENTUM = 1e-5, 0.1


class Statistics:
    """The mean and variance by which each layer is normalised, in the order in which the layers ask.

    In training they are those of the batch (the variance biased), and are noted for `remember` (the variance unbiased); in
    evaluation the running ones, `memory`: {"mean": [S], "variance": [S]}, all layers end to end.
    """

    def __init__(self, memory: Mapping[str, Tensor], training: bool) -> None:
        self._memory, self._training = memory, training
        self._means: list[Tensor] = []
        self._variances: list[Tensor] = []
        self._asked = 0

    def of(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance [C]."""
        C = x_BCHW.shape[1]
        if not self._training:
            here = slice(self._asked, self._asked + C)
            self._asked += C
            return self._memory["mean"][here], self._memory["variance"][here]
        count = x_BCHW.numel() // C
        if count < 2:
            raise ValueError(
                "a ResNet normalises by the variance over a batch, and one picture has none: train.batch must be at least 2"
            )
        variance, mean = torch.var_mean(x_BCHW, (0, 2, 3), correction=0)
        self._means.append(mean.detach())
        self._variances.append(variance.detach() * (count / (count - 1)))
        return mean, variance

    def noted(self) -> dict[str, Tensor]:
        """{"mean": [S], "variance": [S]} of this batch; nothing in evaluation."""
        if not self._training:
            return {}
        return {"mean": torch.cat(self._means), "variance": torch.cat(self._variances)}


class Normalised(nn.Module):
    """y = (W * x - mean) / √(variance + 1e-5) scale + shift, without a bias. Shapes: x [B, I, H, W] -> y [B, O, H', W']."""

    def __init__(self, num_inputs: int, num_outputs: int, size: int, stride: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_outputs, num_inputs, size, size))
        self.scale = nn.Parameter(torch.empty(num_outputs))
        self.shift = nn.Parameter(torch.empty(num_outputs))
        self.stride, self.padding = stride, size // 2

    def initialise(self, stream: Any) -> None:
        """Kaiming normal with the fan of the outputs, as torchvision has it; scale 1, shift 0."""
        fan_out = self.weight[:, 0].numel()
        self.weight.copy_(math.sqrt(2.0 / fan_out) * stream.normal(self.weight.shape))
        self.scale.fill_(1.0)
        self.shift.zero_()

    def forward(self, x_BIHW: Tensor, statistics: Statistics) -> Tensor:
        x = functional.conv2d(x_BIHW, self.weight, stride=self.stride, padding=self.padding)
        mean, variance = statistics.of(x)
        factor = self.scale / torch.sqrt(variance + EPSILON)
        return (x - mean[:, None, None]) * factor[:, None, None] + self.shift[:, None, None]


class Block(nn.Module):
    """y = relu(F(x) + x), F two 3x3 layers, or, as a bottleneck, 1x1, 3x3 and 1x1 to four times the width.

    Where the shape changes, x goes through a 1x1 layer of the same stride.
    """

    def __init__(self, num_inputs: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        self.num_outputs = 4 * width if bottleneck else width
        layers = [
            Normalised(num_inputs, width, 1 if bottleneck else 3, 1 if bottleneck else stride),
            Normalised(width, width, 3, stride if bottleneck else 1),
            *([Normalised(width, self.num_outputs, 1)] if bottleneck else []),
        ]
        self.layers = nn.ModuleList(layers)
        changes = stride > 1 or num_inputs != self.num_outputs
        self.shortcut = Normalised(num_inputs, self.num_outputs, 1, stride) if changes else None

    def forward(self, x_BCHW: Tensor, statistics: Statistics) -> Tensor:
        x = x_BCHW
        for i, layer in enumerate(self.layers):
            x = layer(torch.relu(x) if i else x, statistics)
        return torch.relu(x + (x_BCHW if self.shortcut is None else self.shortcut(x_BCHW, statistics)))


class ResNet(nn.Module):
    """A 7x7 layer of stride 2, ReLU, 3x3 max-pool of stride 2; blocks of widths 64, 128, 256 and 512, the first of each width
    but the first with stride 2; the mean over places; a linear layer.

    Shapes: x [B, C, H, W] -> y [B, O]. Initial values are torchvision's: `Normalised`, and the linear layer from
    U(-1/√fan_in, 1/√fan_in).
    """

    def __init__(self, name: str, num_channels: int, num_outputs: int) -> None:
        super().__init__()
        self.stem = Normalised(num_channels, WIDTHS[0], 7, stride=2)
        blocks, inputs = [], WIDTHS[0]
        for width, count in zip(WIDTHS, BLOCKS[name], strict=True):
            for i in range(count):
                stride = 2 if i == 0 and width > WIDTHS[0] else 1
                blocks.append(Block(inputs, width, stride, bottleneck=name == "resnet50"))
                inputs = blocks[-1].num_outputs
        self.blocks = nn.ModuleList(blocks)
        self.out = nn.Parameter(torch.empty(num_outputs, inputs))
        self.out_bias = nn.Parameter(torch.empty(num_outputs))

    def initialise(self, stream: Any) -> None:
        for name, module in self.named_modules():
            if isinstance(module, Normalised):
                module.initialise(stream.child(name))
        r, of_out = 1 / math.sqrt(self.out.shape[1]), stream.child("out")
        self.out.copy_(of_out.uniform(self.out.shape, -r, r))
        self.out_bias.copy_(of_out.uniform(self.out_bias.shape, -r, r))

    def forward(self, x_BCHW: Tensor, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The outputs, and what `remember` wants to know of this batch."""
        statistics = Statistics(ctx.memory, ctx.training)
        x = functional.max_pool2d(torch.relu(self.stem(x_BCHW, statistics)), 3, stride=2, padding=1)
        for block in self.blocks:
            x = block(x, statistics)
        return (self.out @ x.mean((2, 3)).T).T + self.out_bias, statistics.noted()

    def initial_memory(self) -> dict[str, Tensor]:
        """Running means 0 and variances 1, [S]."""
        size = sum(len(module.scale) for module in self.modules() if isinstance(module, Normalised))
        return {"mean": torch.zeros(size), "variance": torch.ones(size)}

    def remember(self, memory: Mapping[str, Tensor], noted: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The running statistics after batches with these noted ones [S, T], one time step after another."""
        running = dict(memory)
        for name, of_batches in noted.items():
            for of_batch in of_batches.unbind(-1):
                running[name] = (1.0 - MOMENTUM) * running[name] + MOMENTUM * of_batch
        return running
