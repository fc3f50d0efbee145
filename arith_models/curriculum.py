"""A curriculum over lengths: train on longer examples once the shorter ones are learnt (Kaiser and Sutskever 2016, 3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

PERIOD = 200


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """Which length the next batch has, and when the longest length of the curriculum grows by one.

    Of 200 steps the sequence errors of batches within the curriculum are averaged; below `bound` it moves on.
    paper: the present length, but with probability 0.2 one from all lengths. code: uniform up to the present length; with
    probability 0.6 the larger of two draws; with 0.25 the larger of it and a draw from all lengths.
    """

    mixing: Literal["paper", "code"] = "paper"
    first: float = 6.0
    """the length at the start"""
    bound: float = 0.1
    """sequence error below which it moves on: the paper's example is 0.1, the code has 0.12 and 0.15"""

    def __post_init__(self) -> None:
        if not 0 < self.bound <= 1:
            raise ValueError(f"bound = {self.bound} must lie in (0, 1]")
        if self.first < 1:
            raise ValueError(f"first = {self.first} must be at least 1")

    def start(self) -> dict[str, Tensor]:
        """`length` of the curriculum, the sum and number of sequence errors in this period, the last period's `error`."""
        return {
            "length": torch.tensor(float(self.first)),
            "error_sum": torch.zeros(()),
            "batches": torch.zeros(()),
            "error": torch.ones(()),
        }

    def drawn(self, memory: dict[str, Tensor], stream: Any, shortest: int, longest: int) -> Tensor:
        """The length of the next batch, float32, a whole number."""
        present = memory["length"].clamp(max=float(longest))
        u = stream.uniform((5,))

        def between(part: Tensor, high: Any) -> Tensor:
            return torch.floor(shortest + part * (high - shortest + 1.0))

        anywhere = between(u[0], longest)
        if self.mixing == "paper":
            return torch.where(u[1] < 0.2, anywhere, present)
        length = between(u[1], present)
        length = torch.where(u[2] < 0.6, torch.maximum(length, between(u[3], present)), length)
        return torch.where(u[4] < 0.25, torch.maximum(length, anywhere), length)

    def after(
        self, memory: dict[str, Tensor], error: Tensor, length: Tensor, step: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The memory after a step whose batch had this sequence error and length, and whether the curriculum moves on."""
        within = (length <= memory["length"]).to(torch.float32)
        total, batches = memory["error_sum"] + within * error, memory["batches"] + within
        ends = (step + 1) % PERIOD == 0
        mean = torch.where(batches > 0, total / batches.clamp(min=1.0), memory["error"])
        moves_on = ends & (mean < self.bound) & (batches > 0)
        return {
            "length": torch.where(moves_on, memory["length"] + 1.0, memory["length"]),
            "error_sum": torch.where(ends, 0.0, total),
            "batches": torch.where(ends, 0.0, batches),
            "error": torch.where(ends, mean, memory["error"]),
        }, moves_on
