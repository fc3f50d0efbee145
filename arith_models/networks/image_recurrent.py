"""A cell on numbers that a network reads from images: l_t = network(image_t), h_t = cell([l_t, h_{t-1}]), y_t = h_t.

Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020), section 4.2 and appendix on sequential MNIST.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from arith_models.base import Observation
from arith_models.images import DigitCNN, num_channels
from arith_models.looped import Looped, over_time
from arith_models.penalties import PenaltyConfig, weighed
from arith_models.resnet import ResNet

_PENALTY = {"weight": 10.0, "start": 10_000.0, "end": 100_000.0}
_PRODUCT = {"initial_state": 1.0}
PRESETS: dict[str, dict[str, Any]] = {
    "nau": {"sparsity_penalty": _PENALTY},
    "nmu": {"sparsity_penalty": _PENALTY, **_PRODUCT},
    "nac_mul": _PRODUCT,
    "nac_mul_sigma": _PRODUCT,
    "nac_mul_nmu": {"sparsity_penalty": _PENALTY, **_PRODUCT},
    "mnac": _PRODUCT,
}
"""The paper's settings by model name. A multiplicative cell begins at 1, any other at 0."""


class ImageRecurrent(Looped):
    """Shapes: images [T, B, H, W] or, in colour, [T, B, 3, H, W] -> y [B, T, 1]; l_t [B, image_outputs].

    A ResNet is normalised at every time step by itself, as published: in training by the batch of that step, in evaluation by
    the running mean and variance, which the network remembers. Deviation: the published code evaluates in training mode, so
    by the statistics of the evaluated batch, which also enter the running ones.

    `accumulator` may replace the cell by what it should learn, as in the paper's reference runs. The softmax over digits of
    the original code is left out: there it always raised an error. Penalties: arith_models/penalties.py.
    """

    version = 1
    num_units = 1
    presets = PRESETS
    pieces = ("begin", "read", "cell", "finish")

    @dataclass(frozen=True, kw_only=True)
    class Config(PenaltyConfig):
        images: Literal["cnn", "resnet18", "resnet34", "resnet50"] = "cnn"
        """what reads an image; the paper's SVHN runs have the ResNets (--resnet)"""
        image_outputs: int = 1
        """numbers that are read from an image (--mnist-outputs, --svhn-outputs)"""
        initial_state: float = 0.0
        """h_0; 1 for a product"""
        accumulator: Literal["learnt", "sum", "product", "pass_through"] = "learnt"
        """sum, product: the exact one in place of the cell; pass_through: y_t = l_t (--model-simplification)"""

        def __post_init__(self) -> None:
            if self.image_outputs < 1:
                raise ValueError(f"image_outputs = {self.image_outputs} must be at least 1")
            if self.accumulator != "learnt" and self.image_outputs != 1:
                raise ValueError(
                    f"accumulator = {self.accumulator} needs image_outputs = 1, not {self.image_outputs}"
                )

    def __init__(
        self,
        config: Config,
        units: Sequence[Callable[[int, int], nn.Module]],
        num_inputs: int,
        num_outputs: int,
    ) -> None:
        super().__init__()
        self.config = config
        channels = num_channels(num_inputs)
        if config.images == "cnn":
            self.images: Any = DigitCNN(channels, config.image_outputs)
        else:
            self.images = ResNet(config.images, channels, config.image_outputs)
        self.num_states = num_outputs
        self.unit: Any = units[0](config.image_outputs + num_outputs, num_outputs) if self.learnt else None

    @property
    def learnt(self) -> bool:
        return self.config.accumulator == "learnt"

    def initialise(self, stream: Any) -> None:
        self.images.initialise(stream.child("images"))
        if self.learnt:
            self.unit.initialise(stream.child("cell"))

    def effective_weights(self) -> list[Tensor]:
        """What the sparsity error looks at: the cell's weights. An exact accumulator is sparse."""
        return [self.unit.effective_weight() if self.learnt else torch.ones_like(self.images.out)]

    @staticmethod
    def loop(pieces: Any, x_T: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        state = pieces.begin(x_T[0])
        states, found, seen = [], [], []
        for x in x_T:
            numbers, noted = pieces.read(x)
            state, penalties = pieces.cell(state, numbers)
            states.append(state)
            found.append(penalties)
            seen.append(noted)
        y, terms = pieces.finish(torch.stack(states, -2), over_time(found))
        if seen[0]:
            terms = {**terms, "observed": {n: torch.stack([noted[n] for noted in seen], -1) for n in seen[0]}}
        return y, terms

    def begin(self, x: Tensor, ctx: Any) -> Tensor:
        size = self.num_states * (self.unit.state_parts if self.learnt else 1)
        return torch.zeros(len(x), size, device=x.device) + self.config.initial_state

    def read(self, x: Tensor, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The numbers [B, image_outputs] of images [B, H, W] or [B, C, H, W], and what is to be remembered of these."""
        read: tuple[Tensor, dict[str, Tensor]] = self.images(x if x.dim() == 4 else x.unsqueeze(1), ctx)
        return read

    def cell(self, state_BS: Tensor, l_BI: Tensor, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        if not self.learnt:
            exact = {"sum": state_BS + l_BI, "product": state_BS * l_BI, "pass_through": l_BI}
            return exact[self.config.accumulator], {}
        both = torch.cat([l_BI, state_BS], 1)
        new_BS, penalties = self.unit(both, ctx)
        return new_BS, {**penalties, "mean_input": both.mean(0)} if ctx.training else {}

    def finish(
        self, states_BTS: Tensor, found: dict[str, Tensor], ctx: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        y_BTO = states_BTS[..., : self.num_states].clone()
        if not ctx.training or not self.learnt:
            return y_BTO, {}
        of_cell = {name: value for name, value in found.items() if name != "mean_input"}
        return y_BTO, weighed(self.config, ctx.step, [(self.unit, found["mean_input"], of_cell)])

    def initial_memory(self) -> dict[str, Tensor]:
        """What normalises a ResNet in evaluation; a CNN remembers nothing."""
        memory: dict[str, Tensor] = self.images.initial_memory()
        return memory

    def remember(self, memory: dict[str, Tensor], observed: Observation, step: Tensor) -> dict[str, Tensor]:
        new: dict[str, Tensor] = self.images.remember(memory, observed["noted"])
        return new

    def constrain(self) -> None:
        if self.learnt:
            self.unit.constrain()
