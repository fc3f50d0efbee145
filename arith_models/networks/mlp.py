"""Hidden layers of one unit, then a last layer of another. The network of the identity task.

Trask et al., "Neural Arithmetic Logic Units" (2018), section 1: three hidden layers of 8; the list of activations is that
of a public PyTorch version of their experiments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from torch import Tensor, nn

from arith_models.base import Network
from arith_models.penalties import PenaltyConfig, weighed

ACTIVATIONS = (
    "hardtanh", "sigmoid", "relu6", "tanh", "tanhshrink", "hardshrink", "leaky_relu", "softshrink", "softsign", "relu",
    "prelu", "softplus", "elu", "selu",
)  # fmt: skip
PRESETS: dict[str, dict[str, Any]] = {name: {"units": [name, "linear"]} for name in ACTIVATIONS}
"""The last layer has no activation. A unit that is not named here is used in every layer, without a penalty: `linear` is
the network without activations."""


class MLP(Network):
    """Shapes: x [B, I] -> [B, H], `depth` times, -> y [B, O]. Penalties: see arith_models/penalties.py."""

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
            faults = [
                f"{k} = {getattr(self, k)} must be at least 1"
                for k in ("hidden", "depth")
                if getattr(self, k) < 1
            ]
            if faults:
                raise ValueError("; ".join(faults))

    def __init__(
        self,
        config: Config,
        units: Sequence[Callable[[int, int], nn.Module]],
        num_inputs: int,
        num_outputs: int,
    ) -> None:
        super().__init__()
        self.config = config
        inner, last = units
        widths = [num_inputs, *[config.hidden] * config.depth]
        hidden = [inner(i, o) for i, o in pairwise(widths)]
        self.layers: Any = nn.ModuleList([*hidden, last(config.hidden, num_outputs)])

    def initialise(self, stream: Any) -> None:
        for i, layer in enumerate(self.layers):
            own = stream.child(f"layer {i}")
            if self.config.init == "torch":
                layer.initialise_as_torch(own)
            else:
                layer.initialise(own)

    def effective_weights(self) -> list[Tensor]:
        """What the sparsity error looks at."""
        return [layer.effective_weight() for layer in self.layers]

    def forward(self, x_BI: Tensor, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        seen, y = [], x_BI
        for layer in self.layers:
            mean, (y, penalties) = y.mean(0), layer(y, ctx)
            seen.append((layer, mean, penalties))
        return y, weighed(self.config, ctx.step, seen)

    def constrain(self) -> None:
        for layer in self.layers:
            layer.constrain()
