"""The redistribution that the MC-FC units share: each input's mass is spread over the outputs, and a gate lets some out.

Hoedt et al., "MC-LSTM: Mass-Conserving LSTM" (ICML 2021); the fully connected form of Mistry et al. (2021).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from arith_models.base import Unit
from arith_models.orthogonal import orthogonal


class MassConserving(Unit):
    """W = o * S, S = softmax of R over the outputs, o = sigmoid(w + b). Abstract: a unit supplies `forward`.

    Shapes: R, S, W [O, I]; w, b, o [O]. Every column of S adds up to 1, so with a single output S is 1 throughout, R has no
    influence on it, and all inputs take part in full. R is the identity at first if it is square, and else orthogonal; w
    is a random unit vector (with one output -1 or 1), b = 0. The original's gate is a dense layer on a constant input
    of 1, which is what w + b is.
    """

    def __init__(self, config: Any, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        self.redistribution = nn.Parameter(torch.empty(num_outputs, num_inputs))
        self.gate_weight = nn.Parameter(torch.empty(num_outputs))
        self.gate_bias = nn.Parameter(torch.empty(num_outputs))

    def initialise(self, stream: Any) -> None:
        num_outputs, num_inputs = self.redistribution.shape
        gate_O1 = orthogonal(stream, (num_outputs, 1))
        if num_outputs == num_inputs:
            nn.init.eye_(self.redistribution)
        else:
            self.redistribution.copy_(orthogonal(stream, (num_outputs, num_inputs)))
        self.gate_weight.copy_(gate_O1.squeeze(1))
        self.gate_bias.zero_()

    def shares(self) -> Tensor:
        """S: the share of each input's mass that an output receives."""
        return torch.softmax(self.redistribution, dim=0)

    def effective_weight(self) -> Tensor:
        return torch.sigmoid(self.gate_weight + self.gate_bias).unsqueeze(1) * self.shares()

    def growth_penalty(self) -> Tensor:
        """-mean R² - mean w² - mean b², which drives S and o towards 0 and 1. It has no lower bound."""
        parts = [p.square().mean() for p in (self.redistribution, self.gate_weight, self.gate_bias)]
        return -torch.stack(parts).sum()

    def constrain(self) -> None:
        """Shares and gates are bounded by construction."""
