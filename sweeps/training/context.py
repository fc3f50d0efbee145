"""What a model may ask of the engine while it computes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sweeps.training.random import Stream


class Context:
    """`step` (0-dim float32 tensor, 0 before the first update), `training`, `stream`, and `dropout`."""

    def __init__(self, step: Tensor, training: bool, stream: Stream) -> None:
        self.step, self.training, self.stream = step, training, stream

    def dropout(self, x: Tensor, rate: Any) -> Tensor:
        """Inverted dropout with a lane's own rate in [0, 1); the identity in evaluation."""
        if not self.training:
            return x
        kept = self.stream.uniform(x.shape) >= rate
        return torch.where(kept, x / (1.0 - rate), torch.zeros_like(x))
