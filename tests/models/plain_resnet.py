"""ResNet as torch's own modules spell it, to compare ours with: nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.Linear."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from arith_models import resnet


class PlainBlock(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3 and 1x1, around a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        if bottleneck:
            shapes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1)]
        else:
            shapes = [(inputs, width, 3, stride), (width, width, 3, 1)]
        self.layers = nn.ModuleList(conv_norm(*shape) for shape in shapes)
        self.outputs = shapes[-1][1]
        same = stride == 1 and inputs == self.outputs
        self.shortcut = nn.Identity() if same else conv_norm(inputs, self.outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self.layers[:-1]:
            y = nn.functional.relu(layer(y))
        return nn.functional.relu(self.layers[-1](y) + self.shortcut(x))


def conv_norm(inputs: int, outputs: int, size: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def plain(name: str, channels: int, num_outputs: int) -> nn.Sequential:
    """With the widths that ours has at this moment: tests make it narrow."""
    inputs = resnet.WIDTHS[0]
    parts: list[nn.Module] = [conv_norm(channels, inputs, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    for stage, (width, count) in enumerate(zip(resnet.WIDTHS, resnet.BLOCKS[name], strict=True)):
        for i in range(count):
            block = PlainBlock(inputs, width, 2 if stage and i == 0 else 1, name == "resnet50")
            parts.append(block)
            inputs = block.outputs
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, num_outputs))


def given_to(plain_network: nn.Module, params: dict[str, Tensor]) -> None:
    """Copies our parameters, by name, into the plain network: both run their layers in one order."""
    model = resnet_of_names(params)
    convs = [m for m in plain_network.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        for conv, norm, name in zip(convs, norms(plain_network), model, strict=True):
            conv.weight.copy_(params[f"{name}.weight"])
            norm.weight.copy_(params[f"{name}.scale"])
            norm.bias.copy_(params[f"{name}.shift"])
        linear: Any = list(plain_network.modules())[-1]
        linear.weight.copy_(params["out"])
        linear.bias.copy_(params["out_bias"])


def resnet_of_names(params: dict[str, Tensor]) -> list[str]:
    """The normalised layers in the order in which they run: the stem, then by block, in each the shortcut last."""

    def order(name: str) -> tuple[int, int]:
        words = name.split(".")
        block = int(words[1]) if words[0] == "blocks" else -1
        return block, int(words[-1]) if words[-1].isdigit() else 99

    return sorted((n.removesuffix(".scale") for n in params if n.endswith(".scale")), key=order)


def norms(plain_network: nn.Module) -> list[Any]:
    return [m for m in plain_network.modules() if isinstance(m, nn.BatchNorm2d)]


def running(plain_network: nn.Module) -> dict[str, Tensor]:
    """Its running statistics as ours lie: all layers end to end."""
    found = norms(plain_network)
    return {
        "mean": torch.cat([m.running_mean for m in found]),
        "variance": torch.cat([m.running_var for m in found]),
    }
