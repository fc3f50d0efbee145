"""A recurrent cell on images, the network of the sequential-digits tasks, and the image models that it reads them with.

Legend of suffixes: B images, C channels, H height, W width, I image outputs, O outputs, S recurrent state or, in a ResNet,
channels of all normalised layers, T time steps.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from arith_models.base import (
    Context,
    Memory,
    NetworkTerms,
    Observation,
    Penalties,
    Stream,
    Unit,
    UnitFactory,
    check_ranges,
)
from arith_models.looped import Looped, cell_step, over_time
from arith_models.penalties import PenaltyConfig, weighted

SIDE = 28
"""Side of the images that the CNN reads, in pixels."""


def num_channels(num_inputs: int) -> int:
    """Return 1 or 3, the channels of a square image: 784 = 28 x 28 inputs have 1, 3072 = 3 x 32 x 32 have 3."""
    for channels in (1, 3):
        side = math.isqrt(num_inputs // channels)
        if channels * side * side == num_inputs and side >= SIDE:
            return channels
    raise ValueError(
        f"{num_inputs} inputs are not an image: a square image has side x side inputs, or 3 x side x side in colour, with a "
        f"side of at least {SIDE}, such as 784 = 28 x 28 or 3072 = 3 x 32 x 32. Set the task's num_inputs to such a number"
    )


class ImageModel(nn.Module, ABC):
    """A model that maps images to numbers. Shapes: x [B, C, H, W] -> y [B, O]."""

    out: nn.Parameter
    """Weights of the last layer, [O, ...]."""

    @abstractmethod
    def initialise(self, stream: Stream) -> None:
        """Fill every parameter in place, from the stream alone."""

    @abstractmethod
    def forward(self, x_BCHW: Tensor, ctx: Context) -> tuple[Tensor, Memory]:
        """Return the outputs, and the statistics of this batch that `remember` needs."""

    def initial_memory(self) -> Memory:
        """As `Network.initial_memory`."""
        return {}

    def remember(self, memory: Memory, noted_T: Mapping[str, Tensor]) -> Memory:
        """Return the memory after batches of these statistics, each stacked over time steps along the last axis."""
        return memory


def _weight_and_bias(num_outputs: int, *inputs: int) -> tuple[nn.Parameter, nn.Parameter]:
    return nn.Parameter(torch.empty(num_outputs, *inputs)), nn.Parameter(torch.empty(num_outputs))


class DigitCNN(ImageModel):
    """conv C -> 20, 5x5, ReLU, max-pool 2; conv 20 -> 50, 5x5, ReLU, max-pool 2; 800 -> 500, ReLU; 500 -> outputs.

    Shapes: x [B, C, H, W] -> y [B, O]; of larger images the middle 28 x 28 is read. Weights and biases from
    U(-1/√fan_in, 1/√fan_in), torch's default. The image network of Madsen and Johansen, "Neural Arithmetic Units"
    (ICLR 2020), appendix on sequential MNIST, there of one channel.
    """

    def __init__(self, channels: int, num_outputs: int) -> None:
        super().__init__()
        self.conv1, self.bias1 = _weight_and_bias(20, channels, 5, 5)
        self.conv2, self.bias2 = _weight_and_bias(50, 20, 5, 5)
        self.dense, self.dense_bias = _weight_and_bias(500, 800)
        self.out, self.out_bias = _weight_and_bias(num_outputs, 500)

    def initialise(self, stream: Stream) -> None:
        for weight, bias in (
            (self.conv1, self.bias1),
            (self.conv2, self.bias2),
            (self.dense, self.dense_bias),
            (self.out, self.out_bias),
        ):
            r = 1 / math.sqrt(weight[0].numel())
            weight.copy_(stream.uniform(weight.shape, -r, r))
            bias.copy_(stream.uniform(bias.shape, -r, r))

    def forward(self, x_BCHW: Tensor, ctx: Context) -> tuple[Tensor, Memory]:
        top, left = ((size - SIDE) // 2 for size in x_BCHW.shape[2:])
        x = x_BCHW[:, :, top : top + SIDE, left : left + SIDE]
        x = functional.max_pool2d(torch.relu(functional.conv2d(x, self.conv1, self.bias1)), 2)
        x = functional.max_pool2d(torch.relu(functional.conv2d(x, self.conv2, self.bias2)), 2)
        h_BH = torch.relu((self.dense @ x.flatten(1).T).T + self.dense_bias)
        return (self.out @ h_BH.T).T + self.out_bias, {}


BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
"""Number of blocks of each width; those of resnet50 are bottlenecks."""
WIDTHS = (64, 128, 256, 512)
EPSILON, MOMENTUM = 1e-5, 0.1


class Statistics:
    """The mean and variance by which each layer of a ResNet is normalised, in the order in which the layers run.

    They are passed through the forward and never kept in the module. In training they are those of the batch (the variance
    biased), and are kept for `remember` (the variance unbiased); in evaluation they are the running ones, `memory`:
    {"mean": [S], "variance": [S]}, all layers concatenated.
    """

    def __init__(self, memory: Mapping[str, Tensor], training: bool) -> None:
        self._memory, self._training = memory, training
        self._means: list[Tensor] = []
        self._variances: list[Tensor] = []
        self._position = 0

    def of(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and variance [C] of the next layer, whose values before normalisation are x."""
        C = x_BCHW.shape[1]
        if not self._training:
            here = slice(self._position, self._position + C)
            self._position += C
            return self._memory["mean"][here], self._memory["variance"][here]
        count = x_BCHW.numel() // C
        if count < 2:
            raise ValueError(
                "a ResNet normalises by the variance over a batch, and one image has none: train.batch must be at least 2"
            )
        variance, mean = torch.var_mean(x_BCHW, (0, 2, 3), correction=0)
        self._means.append(mean.detach())
        self._variances.append(variance.detach() * (count / (count - 1)))
        return mean, variance

    def noted(self) -> Memory:
        """Return {"mean": [S], "variance": [S]} of this batch; {} in evaluation."""
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

    def initialise(self, stream: Stream) -> None:
        """Kaiming normal with the fan of the outputs, as in torchvision; scale 1, shift 0."""
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

    Where the shape changes, x goes through a 1x1 layer of the same stride. He et al. (2015).
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


class ResNet(ImageModel):
    """A 7x7 layer of stride 2, ReLU, 3x3 max-pool of stride 2; blocks of widths 64, 128, 256 and 512, the first of each width
    but the first with stride 2; the mean over positions; a linear layer.

    Shapes: x [B, C, H, W] -> y [B, O]. He et al., "Deep Residual Learning for Image Recognition" (2015), table 1, as in
    torchvision: in a bottleneck the stride is in the 3x3 convolution, not in the first 1x1. Initial values are torchvision's:
    `Normalised`, and the linear layer from U(-1/√fan_in, 1/√fan_in).
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

    def initialise(self, stream: Stream) -> None:
        for name, module in self.named_modules():
            if isinstance(module, Normalised):
                module.initialise(stream.child(name))
        r, of_out = 1 / math.sqrt(self.out.shape[1]), stream.child("out")
        self.out.copy_(of_out.uniform(self.out.shape, -r, r))
        self.out_bias.copy_(of_out.uniform(self.out_bias.shape, -r, r))

    def forward(self, x_BCHW: Tensor, ctx: Context) -> tuple[Tensor, Memory]:
        statistics = Statistics(ctx.memory, ctx.training)
        x = functional.max_pool2d(torch.relu(self.stem(x_BCHW, statistics)), 3, stride=2, padding=1)
        for block in self.blocks:
            x = block(x, statistics)
        return (self.out @ x.mean((2, 3)).T).T + self.out_bias, statistics.noted()

    def initial_memory(self) -> Memory:
        """Return running means 0 and variances 1, [S]."""
        size = sum(len(module.scale) for module in self.modules() if isinstance(module, Normalised))
        return {"mean": torch.zeros(size), "variance": torch.ones(size)}

    def remember(self, memory: Memory, noted_T: Mapping[str, Tensor]) -> Memory:
        """Return the running statistics after batches of these statistics [S, T], one time step after another."""
        running = dict(memory)
        for name, of_batches in noted_T.items():
            for of_batch in of_batches.unbind(-1):
                running[name] = (1.0 - MOMENTUM) * running[name] + MOMENTUM * of_batch
        return running


_PENALTY = {"weight": 10.0, "start": 10_000.0, "end": 100_000.0}
_PRODUCT = {"initial_state": 1.0}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "nau": {"sparsity_penalty": _PENALTY},
    "nmu": {"sparsity_penalty": _PENALTY, **_PRODUCT},
    "nac_mul": _PRODUCT,
    "nac_mul_sigma": _PRODUCT,
    "nac_mul_nmu": {"sparsity_penalty": _PENALTY, **_PRODUCT},
    "mnac": _PRODUCT,
}
"""The paper's settings by model name. A multiplicative cell begins at 1, any other at 0."""


class ImageRecurrent(Looped):
    """A cell on numbers read from images: l_t = images(image_t), h_t = cell([l_t, h_{t-1}]), y_t = h_t.

    Shapes: images [T, B, H, W] or, in colour, [T, B, 3, H, W] -> y [B, T, 1]; l_t [B, image_outputs]. Madsen and Johansen,
    "Neural Arithmetic Units" (ICLR 2020), section 4.2 and appendix on sequential MNIST.

    A ResNet is normalised at every time step by itself, as published: in training by the batch of that step, in evaluation by
    the running mean and variance, the network's memory. Deviation: the published code evaluates in training mode, so
    by the statistics of the evaluated batch, which also enter the running ones.

    `accumulator` may replace the cell by the operation that it should learn, as in the paper's reference runs. The softmax
    over digits of the original code is left out: there it always raised an error. Penalties: arith_models/penalties.py.
    """

    version = 1
    num_units = 1
    presets = PRESETS
    pieces = ("begin", "read", "cell", "finish")

    @dataclass(frozen=True, kw_only=True)
    class Config(PenaltyConfig):
        images: Literal["cnn", "resnet18", "resnet34", "resnet50"] = "cnn"
        """the model that reads an image; the paper's SVHN runs have the ResNets (--resnet)"""
        image_outputs: int = 1
        """numbers that are read from an image (--mnist-outputs, --svhn-outputs)"""
        initial_state: float = 0.0
        """h_0; 1 for a product"""
        accumulator: Literal["learnt", "sum", "product", "pass_through"] = "learnt"
        """sum, product: the exact one in place of the cell; pass_through: y_t = l_t (--model-simplification)"""

        def __post_init__(self) -> None:
            check_ranges(self, {"be at least 1": ["image_outputs"]})
            if self.accumulator != "learnt" and self.image_outputs != 1:
                raise ValueError(f"accumulator = {self.accumulator} needs image_outputs = 1, not {self.image_outputs}")

    def __init__(self, config: Config, units: Sequence[UnitFactory], num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        channels = num_channels(num_inputs)
        self.images: ImageModel
        if config.images == "cnn":
            self.images = DigitCNN(channels, config.image_outputs)
        else:
            self.images = ResNet(config.images, channels, config.image_outputs)
        self.num_states = num_outputs
        self.unit: Unit | None = None
        if config.accumulator == "learnt":
            self.unit = units[0](config.image_outputs + num_outputs, num_outputs)

    def initialise(self, stream: Stream) -> None:
        self.images.initialise(stream.child("images"))
        if self.unit is not None:
            self.unit.initialise(stream.child("cell"))

    def effective_weights(self) -> list[Tensor]:
        """Return the cell's; an exact accumulator counts as sparse."""
        return [torch.ones_like(self.images.out) if self.unit is None else self.unit.effective_weight()]

    @classmethod
    def loop(cls, pieces: SimpleNamespace, x_T: Sequence[Tensor]) -> tuple[Tensor, NetworkTerms]:
        state = pieces.begin(x_T[0])
        state_T, penalties_T, noted_T = [], [], []
        for x in x_T:
            numbers, noted = pieces.read(x)
            state, penalties = pieces.cell(state, numbers)
            state_T.append(state)
            penalties_T.append(penalties)
            noted_T.append(noted)
        y, terms = pieces.finish(torch.stack(state_T, -2), over_time(penalties_T))
        if noted_T[0]:
            stacked = {n: torch.stack([noted[n] for noted in noted_T], -1) for n in noted_T[0]}
            terms = {**terms, "observed": stacked}
        return y, terms

    def begin(self, x: Tensor, ctx: Context) -> Tensor:
        size = self.num_states * (1 if self.unit is None else self.unit.state_parts)
        return torch.zeros(len(x), size, device=x.device) + self.config.initial_state

    def read(self, x: Tensor, ctx: Context) -> tuple[Tensor, Memory]:
        """Return the numbers [B, image_outputs] of images [B, H, W] or [B, C, H, W], and the statistics to remember."""
        read: tuple[Tensor, Memory] = self.images(x if x.dim() == 4 else x.unsqueeze(1), ctx)
        return read

    def cell(self, state_BS: Tensor, l_BI: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        if self.unit is None:
            exact = {"sum": state_BS + l_BI, "product": state_BS * l_BI, "pass_through": l_BI}
            return exact[self.config.accumulator], {}
        return cell_step(self.unit, l_BI, state_BS, ctx)

    def finish(self, states_BTS: Tensor, of_cell: Penalties, ctx: Context) -> tuple[Tensor, Penalties]:
        y_BTO = states_BTS[..., : self.num_states].clone()
        if not ctx.training or self.unit is None:
            return y_BTO, {}
        penalties = {name: value for name, value in of_cell.items() if name != "mean_input"}
        return y_BTO, weighted(self.config, ctx.step, [(self.unit, of_cell["mean_input"], penalties)])

    def initial_memory(self) -> Memory:
        """Return a ResNet's running mean and variance; of a CNN nothing."""
        return self.images.initial_memory()

    def remember(self, memory: Memory, observed: Observation, step: Tensor) -> Memory:
        return self.images.remember(memory, observed["noted"])

    def constrain(self) -> None:
        if self.unit is not None:
            self.unit.constrain()
