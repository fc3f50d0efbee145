"""What a model may ask of the engine while it computes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sweeps.training.random import Stream


class Context:
    """`step` (0-dim float32 tensor, 0 before the first update), `training`, `stream`, `dropout`, and `last_error`.

    `last_error` is the interpolation error at the lane's last evaluation (0-dim float32; infinite before the first).
    `memory` is what the network keeps from step to step besides weights; empty for most.
    """

    def __init__(
        self,
        step: Tensor,
        training: bool,
        stream: Stream,
        last_error: Tensor,
        memory: dict[str, Tensor] | None = None,
    ) -> None:
        self.step, self.training, self.stream, self.last_error = step, training, stream, last_error
        self.memory = memory or {}

    def part(self, number: Any) -> Context:
        """For the part of a computation with this number, from 0: what it draws is its own."""
        return Context(self.step, self.training, self.stream.folded(number), self.last_error, self.memory)

    def dropout(self, x: Tensor, rate: Any) -> Tensor:
        """Inverted dropout with a lane's own rate in [0, 1); the identity in evaluation."""
        if not self.training:
            return x
        kept = self.stream.uniform(x.shape) >= rate
        return torch.where(kept, x / (1.0 - rate), torch.zeros_like(x))
