"""A multilayer perceptron of units, the network of the identity task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor, nn

from arith_models.base import Context, Network, Penalties, Stream, Unit, UnitFactory, check_ranges
from arith_models.penalties import PenaltyConfig, weighted

ACTIVATIONS = (
    "hardtanh", "sigmoid", "relu6", "tanh", "tanhshrink", "hardshrink", "leaky_relu", "softshrink", "softsign", "relu",
    "prelu", "softplus", "elu", "selu",
)  # fmt: skip
PRESETS: Mapping[str, Mapping[str, Any]] = {name: {"units": [name, "linear"]} for name in ACTIVATIONS}
"""The last layer has no activation. A unit that is not listed here is used in every layer, without a penalty: `linear` is
the network without activations."""


class MLP(Network):
    """A multilayer perceptron: hidden layers of one unit, then a last layer of another.

    Shapes: x [B, I] -> [B, H], `depth` times, -> y [B, O]. Trask et al., "Neural Arithmetic Logic Units" (2018), section 1:
    three hidden layers of 8; the list of activations is that of a public PyTorch version of their experiments. Penalties:
    see arith_models/penalties.py.
    """

    version = 1
    num_units = 2
    presets = PRESETS

    @dataclass(frozen=True, kw_only=True)
    class Config(PenaltyConfig):
        hidden: int = 8
        """number of hidden values in a layer"""
        depth: int = 3
        """number of hidden layers"""
        init: Literal["torch", "unit"] = "torch"
        """torch: dense layers start as torch.nn.Linear does, as published for this network. unit: as each unit's own paper"""

        def __post_init__(self) -> None:
            check_ranges(self, {"be at least 1": ["hidden", "depth"]})

    def __init__(self, config: Config, units: Sequence[UnitFactory], num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        inner, last = units
        widths = [num_inputs, *[config.hidden] * config.depth]
        hidden = [inner(i, o) for i, o in pairwise(widths)]
        self.layers = nn.ModuleList([*hidden, last(config.hidden, num_outputs)])

    def _units(self) -> Iterator[Unit]:
        for layer in self.layers:
            assert isinstance(layer, Unit)  # a ModuleList's elements have no type of their own
            yield layer

    def initialise(self, stream: Stream) -> None:
        for i, layer in enumerate(self._units()):
            own = stream.child(f"layer {i}")
            if self.config.init == "torch":
                layer.initialise_as_torch(own)
            else:
                layer.initialise(own)

    def effective_weights(self) -> list[Tensor]:
        return [layer.effective_weight() for layer in self._units()]

    def forward(self, x_BI: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        layers, y = [], x_BI
        for layer in self._units():
            mean, (y, penalties) = y.mean(0), layer(y, ctx)
            layers.append((layer, mean, penalties))
        return y, weighted(self.config, ctx.step, layers)

    def constrain(self) -> None:
        for layer in self._units():
            layer.constrain()
