"""Two layers of units, the network of the static arithmetic task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from arith_models.base import Context, Network, Penalties, Stream, UnitFactory, check_ranges
from arith_models.penalties import PenaltyConfig, weighted

MULTIPLICATION = {"weight": 10.0, "start": 1_000_000.0, "end": 2_000_000.0}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "tanh": {"units": ["tanh", "linear"]},
    "sigmoid": {"units": ["sigmoid", "linear"]},
    "softsign": {"units": ["softsign", "linear"]},
    "relu": {"units": ["relu", "linear"]},
    "relu6": {"units": ["relu6", "linear"]},
    "elu": {"units": ["elu", "linear"]},
    "selu": {"units": ["selu", "linear"]},
    "hardtanh": {"units": ["hardtanh", "linear"]},
    "tanhshrink": {"units": ["tanhshrink", "linear"]},
    "hardshrink": {"units": ["hardshrink", "linear"]},
    "softshrink": {"units": ["softshrink", "linear"]},
    "leaky_relu": {"units": ["leaky_relu", "linear"]},
    "prelu": {"units": ["prelu", "linear"]},
    "softplus": {"units": ["softplus", "linear"]},
    "nac_mul": {"units": ["nac", "nac_mul"]},
    "nac_mul_sigma": {"units": ["nac", "nac_mul_sigma"]},
    "nac_mul_nmu": {"units": ["nau", "nac_mul_nmu"], "sparsity_penalty": MULTIPLICATION},
    "mnac": {"units": ["nac", "mnac"]},
    "gumbel_mnac": {"units": ["gumbel_nac", "gumbel_mnac"]},
    "nau": {"sparsity_penalty": {"weight": 0.01, "start": 5_000.0, "end": 50_000.0}},
    # Both layers share the penalty's weight and schedule, also the first one, a NAU.
    "nmu": {"units": ["nau", "nmu"], "sparsity_penalty": MULTIPLICATION},
    "silly_nmu": {"units": ["nau", "silly_nmu"], "sparsity_penalty": MULTIPLICATION},
    "gated_nau_nmu": {"sparsity_penalty": MULTIPLICATION},
}
"""The papers' networks by name. A unit that is not listed here is used twice, without a penalty."""


class TwoLayer(Network):
    """Two layers of units: h = first(x), y = second(h).

    Shapes: x [B, I] -> y [B, O] through h [B, H]. Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020), section 4.1.

    Units by name are the original's --layer-type and --first-layer; `model: {units: [nac, nmu]}` chooses both layers.
    Dropout (inverted, off in evaluation) acts on h; the papers use none. Penalties: see arith_models/penalties.py.
    """

    version = 1
    num_units = 2
    presets = PRESETS

    @dataclass(frozen=True, kw_only=True)
    class Config(PenaltyConfig):
        hidden: int = 2
        """number of hidden values (--hidden-size)"""
        dropout: float = 0.0
        """probability that a hidden value is set to 0 in training"""

        def __post_init__(self) -> None:
            check_ranges(self, {"be at least 1": ["hidden"], "lie in [0, 1)": ["dropout"]})

    def __init__(self, config: Config, units: Sequence[UnitFactory], num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        first, second = units
        self.first = first(num_inputs, config.hidden)
        self.second = second(config.hidden, num_outputs)

    def initialise(self, stream: Stream) -> None:
        self.first.initialise(stream.child("first"))
        self.second.initialise(stream.child("second"))

    def effective_weights(self) -> list[Tensor]:
        return [self.first.effective_weight(), self.second.effective_weight()]

    def forward(self, x_BI: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        h_BH, first = self.first(x_BI, ctx)
        h_BH = ctx.dropout(h_BH, self.config.dropout)
        y_BO, second = self.second(h_BH, ctx)
        layers = [(self.first, x_BI.mean(0), first), (self.second, h_BH.mean(0), second)]
        return y_BO, weighted(self.config, ctx.step, layers)

    def constrain(self) -> None:
        self.first.constrain()
        self.second.constrain()
