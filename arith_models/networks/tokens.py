"""Words to a number: an embedding, a recurrent cell over the words, a unit on the last state.

Trask et al., "Neural Arithmetic Logic Units" (2018), section 4.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from arith_models.looped import CellThenUnit
from arith_models.penalties import PenaltyConfig

PRESETS: dict[str, dict[str, Any]] = {
    "lstm": {"units": ["lstm", "linear"]},
    "gru": {"units": ["gru", "linear"]},
    "rnn_tanh": {"units": ["rnn_tanh", "linear"]},
    "rnn_relu": {"units": ["rnn_relu", "linear"]},
    "nac": {"units": ["lstm", "nac"]},
    "nalu": {"units": ["lstm", "nalu"]},
    "nau": {"units": ["lstm", "nau"]},
    "nmu": {"units": ["lstm", "nmu"]},
}
"""The networks of the paper by name: an LSTM reads, the named unit makes the number; the plain cells read in its place. A unit
that is not named here is both."""


class Tokens(CellThenUnit):
    """Shapes: words int64 [T, B], 0 being the end -> y [B, O]. After the end the state stays as it is.

    The embedding is drawn from N(0, 1), torch's default. A public version's "LSTM + NALU" has no LSTM; this has.
    """

    version = 1
    num_units = 2
    presets = PRESETS

    @dataclass(frozen=True, kw_only=True)
    class Config(PenaltyConfig):
        embedding: int = 32
        """numbers that stand for a word"""
        hidden: int = 32
        """number of hidden values"""
        dropout: float = 0.0
        """probability that a value of the last state is set to 0 in training"""

        def __post_init__(self) -> None:
            for name in ("embedding", "hidden"):
                if getattr(self, name) < 1:
                    raise ValueError(f"{name} = {getattr(self, name)} must be at least 1")
            if not 0 <= self.dropout < 1:
                raise ValueError(f"dropout = {self.dropout} must lie in [0, 1)")

    def __init__(
        self,
        config: Config,
        units: Sequence[Callable[[int, int], nn.Module]],
        num_inputs: int,
        num_outputs: int,
    ) -> None:
        super().__init__()
        self.config = config
        cell, output = units
        self.embedding = nn.Parameter(torch.empty(num_inputs, config.embedding))
        self.unit: Any = cell(config.embedding + config.hidden, config.hidden)
        self.output: Any = output(config.hidden, num_outputs)

    def initialise(self, stream: Any) -> None:
        self.embedding.copy_(stream.child("embedding").normal(self.embedding.shape))
        self.unit.initialise(stream.child("cell"))
        self.output.initialise(stream.child("output"))

    def effective_weights(self) -> list[Tensor]:
        """What the sparsity error looks at: the unit that makes the number."""
        return [self.output.effective_weight()]

    def begin(self, words_B: Tensor, ctx: Any) -> Tensor:
        size = self.config.hidden * self.unit.state_parts
        return torch.zeros(len(words_B), size, device=self.embedding.device)

    def cell(self, state_BS: Tensor, words_B: Tensor, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        # By a product: the gradient of picking rows adds up in an order that is not fixed on a GPU.
        one_hot_BV = (
            words_B.unsqueeze(1) == torch.arange(len(self.embedding), device=words_B.device)
        ).float()
        both = torch.cat([one_hot_BV @ self.embedding, state_BS], 1)
        new_BS, penalties = self.unit(both, ctx)
        kept_BS = torch.where((words_B == 0).unsqueeze(1), state_BS, new_BS)
        return kept_BS, {**penalties, "mean_input": both.mean(0)} if ctx.training else {}
