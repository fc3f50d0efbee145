"""What the classical recurrent cells share: they are units on [x, state] that a looped network repeats."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from arith_models.base import Unit


class Cell(Unit):
    """Abstract. Shapes: [x, state] [B, I + H * state_parts] -> state [B, H * state_parts].

    A unit is told I + H inputs and H outputs. Weights and biases are drawn from U(-1/√H, 1/√H), torch's default; of the two
    biases that torch keeps for cuDNN's sake, whose sum alone matters, there are two here too, so that the range is torch's.
    W_x alone, what acts on the input, counts towards the sparsity error.
    """

    version = 1
    is_cell = True
    gates = 1
    """blocks of H rows"""
    state_parts = 1

    @dataclass(frozen=True, kw_only=True)
    class Config:
        pass

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        self.hidden, rows = num_outputs, self.gates * num_outputs
        self.W_x = nn.Parameter(torch.empty(rows, num_inputs - num_outputs))
        self.W_h = nn.Parameter(torch.empty(rows, num_outputs))
        self.b_x = nn.Parameter(torch.empty(rows))
        self.b_h = nn.Parameter(torch.empty(rows))

    def initialise(self, stream: Any) -> None:
        r = 1 / math.sqrt(self.hidden)
        for parameter in (self.W_x, self.W_h, self.b_x, self.b_h):
            parameter.copy_(stream.uniform(parameter.shape, -r, r))

    def effective_weight(self) -> Tensor:
        return self.W_x

    def split(self, both_BS: Tensor) -> tuple[Tensor, ...]:
        """x and the parts of the state."""
        return both_BS.split([self.W_x.shape[1]] + [self.hidden] * self.state_parts, dim=1)

    def from_input(self, x_BI: Tensor) -> Tensor:
        return (self.W_x @ x_BI.T).T + self.b_x

    def from_state(self, h_BH: Tensor) -> Tensor:
        return (self.W_h @ h_BH.T).T + self.b_h

    def constrain(self) -> None:
        """A cell's weights are free."""
