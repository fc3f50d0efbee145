"""The dense layer that `linear` and the activation units share."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from arith_models.base import Unit


class Dense(Unit):
    """y = activation(x Wᵀ + b). Abstract: a unit supplies `activation` and `initial_range`.

    Shapes: x [B, I] -> y [B, O]; W [O, I], b [O]. W ~ U(-r, r) with r from `initial_range`, b = 0, as in the
    authors' code for Madsen and Johansen (2020). W alone counts towards the sparsity error.
    """

    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config:
        pass

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(num_outputs, num_inputs))
        self.bias = nn.Parameter(torch.empty(num_outputs))

    @abstractmethod
    def activation(self, x: Tensor) -> Tensor:
        """Element by element."""

    @abstractmethod
    def initial_range(self, num_inputs: int, num_outputs: int) -> float:
        """r of W ~ U(-r, r)."""

    def initialise(self, stream: Any) -> None:
        num_outputs, num_inputs = self.weight.shape
        r = self.initial_range(num_inputs, num_outputs)
        self.weight.copy_(stream.uniform(self.weight.shape, -r, r))
        self.bias.zero_()

    def initialise_as_torch(self, stream: Any) -> None:
        """As torch.nn.Linear does: W and b ~ U(-r, r), r = 1 / sqrt(inputs)."""
        r = 1.0 / math.sqrt(self.weight.shape[1])
        self.weight.copy_(stream.uniform(self.weight.shape, -r, r))
        self.bias.copy_(stream.uniform(self.bias.shape, -r, r))

    def effective_weight(self) -> Tensor:
        return self.weight

    def forward(self, x_BI: Tensor, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return self.activation(self.weight @ x_BI.T + self.bias.unsqueeze(1)).T, {}

    def constrain(self) -> None:
        """Dense weights are free."""


class TorchDense(Dense):
    """A dense layer that no paper of ours starts in its own way: W and b as in torch.nn.Linear."""

    def initial_range(self, num_inputs: int, num_outputs: int) -> float:
        return 1.0 / math.sqrt(num_inputs)

    def initialise(self, stream: Any) -> None:
        self.initialise_as_torch(stream)


def xavier(num_inputs: int, num_outputs: int, gain: float = 1.0) -> float:
    """Half-width of Glorot and Bengio's uniform range."""
    return gain * math.sqrt(6 / (num_inputs + num_outputs))


def kaiming(num_inputs: int) -> float:
    """Half-width of He's uniform range for rectifiers."""
    return math.sqrt(6 / num_inputs)
