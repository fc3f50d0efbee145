"""An embedding of words, a recurrent cell and an output unit, the network of the number-words task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from arith_models.base import Context, Penalties, Stream, UnitFactory, check_ranges
from arith_models.looped import CellThenUnit, cell_step
from arith_models.penalties import PenaltyConfig

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "lstm": {"units": ["lstm", "linear"]},
    "gru": {"units": ["gru", "linear"]},
    "rnn_tanh": {"units": ["rnn_tanh", "linear"]},
    "rnn_relu": {"units": ["rnn_relu", "linear"]},
    "nac": {"units": ["lstm", "nac"]},
    "nalu": {"units": ["lstm", "nalu"]},
    "nau": {"units": ["lstm", "nau"]},
    "nmu": {"units": ["lstm", "nmu"]},
}
"""The papers' networks by name: an LSTM reads the words and the named unit outputs the number; a plain cell replaces the LSTM,
with a linear output. A unit that is not listed here is both cell and output."""


class Tokens(CellThenUnit):
    """Words to a number: h_t = cell([embedding of word t, h_{t-1}]), y = output(h_T).

    Shapes: words int64 [T, B], 0 being the end -> y [B, O]. After the end the state stays as it is. Trask et al., "Neural
    Arithmetic Logic Units" (2018), section 4.3. The embedding is drawn from N(0, 1), torch's default. A public version's
    "LSTM + NALU" has no LSTM; this network has one.
    """

    version = 1
    num_units = 2
    presets = PRESETS

    @dataclass(frozen=True, kw_only=True)
    class Config(PenaltyConfig):
        embedding: int = 32
        """size of a word's embedding"""
        hidden: int = 32
        """number of hidden values"""
        dropout: float = 0.0
        """probability that a value of the last state is set to 0 in training"""

        def __post_init__(self) -> None:
            check_ranges(self, {"be at least 1": ["embedding", "hidden"], "lie in [0, 1)": ["dropout"]})

    def __init__(self, config: Config, units: Sequence[UnitFactory], num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        cell, output = units
        self.embedding = nn.Parameter(torch.empty(num_inputs, config.embedding))
        self.hidden, self.dropout = config.hidden, config.dropout
        self.unit = cell(config.embedding + config.hidden, config.hidden)
        self.output = output(config.hidden, num_outputs)

    def initialise(self, stream: Stream) -> None:
        self.embedding.copy_(stream.child("embedding").normal(self.embedding.shape))
        self.unit.initialise(stream.child("cell"))
        self.output.initialise(stream.child("output"))

    def effective_weights(self) -> list[Tensor]:
        """Return that of the output unit, which produces the number; the cell only reads words."""
        return [self.output.effective_weight()]

    def begin(self, words_B: Tensor, ctx: Context) -> Tensor:
        size = self.hidden * self.unit.state_parts
        return torch.zeros(len(words_B), size, device=self.embedding.device)

    def cell(self, state_BS: Tensor, words_B: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        # A product with one-hot rows, because the gradient of an index adds up in no fixed order on a GPU.
        one_hot_BV = (words_B.unsqueeze(1) == torch.arange(len(self.embedding), device=words_B.device)).float()
        new_BS, penalties = cell_step(self.unit, one_hot_BV @ self.embedding, state_BS, ctx)
        return torch.where((words_B == 0).unsqueeze(1), state_BS, new_BS), penalties
