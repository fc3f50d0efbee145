"""A recurrent cell and an output unit, the network of the recurrent arithmetic task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from arith_models.base import Context, Penalties, Stream, UnitFactory, check_ranges
from arith_models.looped import CellThenUnit, cell_step
from arith_models.penalties import PenaltyConfig

_PENALTY = {"weight": 0.1, "schedule": "exp"}
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "lstm": {"units": ["lstm", "linear"]},
    "gru": {"units": ["gru", "linear"]},
    "rnn_tanh": {"units": ["rnn_tanh", "linear"]},
    "rnn_relu": {"units": ["rnn_relu", "linear"]},
    "nac_mul": {"units": ["nac", "nac_mul"]},
    "nau": {"sparsity_penalty": _PENALTY},
    "nmu": {"units": ["nau", "nmu"], "sparsity_penalty": _PENALTY},
}
"""The papers' networks by name: an additive cell sums over time, the output layer computes the operation. A unit that is
not listed here is both; `linear` as a cell is the RNN-linear of their code."""


class Recurrent(CellThenUnit):
    """A recurrent cell of any unit, and an output unit: h_t = cell([x_t, h_{t-1}]), y = output(h_T).

    Shapes: x [T, B, I] -> y [B, O] through h [B, H] (for an LSTM the state is [B, 2H], h and c). Trask et al., "Neural
    Arithmetic Logic Units" (2018), section 4.1, recurrent form; settings of Madsen and Johansen (2020), whose script for it
    no longer runs.

    The initial state is learnt, and starts at 0. Dropout (inverted, off in evaluation) acts on h_T; the papers use none.
    The input of R_z is [x_t, h_{t-1}] averaged over all times, as published. Penalties: arith_models/penalties.py.
    """

    version = 1
    num_units = 2
    presets = PRESETS

    @dataclass(frozen=True, kw_only=True)
    class Config(PenaltyConfig):
        hidden: int = 2
        """number of hidden values"""
        dropout: float = 0.0
        """probability that a value of the last state is set to 0 in training"""

        def __post_init__(self) -> None:
            check_ranges(self, {"be at least 1": ["hidden"], "lie in [0, 1)": ["dropout"]})

    def __init__(self, config: Config, units: Sequence[UnitFactory], num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        cell, output = units
        self.hidden, self.dropout = config.hidden, config.dropout
        self.unit = cell(num_inputs + config.hidden, config.hidden)
        self.output = output(config.hidden, num_outputs)
        self.initial_state = nn.Parameter(torch.empty(config.hidden * self.unit.state_parts))

    def initialise(self, stream: Stream) -> None:
        self.unit.initialise(stream.child("cell"))
        self.output.initialise(stream.child("output"))
        self.initial_state.zero_()

    def effective_weights(self) -> list[Tensor]:
        return [self.unit.effective_weight(), self.output.effective_weight()]

    def begin(self, x_BI: Tensor, ctx: Context) -> Tensor:
        return self.initial_state.expand(len(x_BI), -1).clone()

    def cell(self, state_BS: Tensor, x_BI: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        return cell_step(self.unit, x_BI, state_BS, ctx)
