"""A curriculum over lengths: train on longer examples once the shorter ones are learnt (Kaiser and Sutskever 2016, 3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """Which length the next batch has, and when the longest length of the curriculum grows by one.

    Of `period` steps the sequence errors of batches within the curriculum are averaged; below `bound` it moves on.
    paper: the present length, but with probability 0.2 one from all lengths. code: uniform up to the present length; with
    probability 0.6 the larger of two draws; with 0.25 the larger of it and a draw from all lengths.
    """

    mixing: Literal["paper", "code"] = "paper"
    first: float = 6.0
    """the length at the start"""
    bound: float = 0.1
    """sequence error below which it moves on: the paper's example is 0.1, the code has 0.12 and 0.15"""
    period: int = 200
    """steps between two looks at it, the fewest that a length takes; the code of 2015 has 100, that of 2016 has 200"""

    def __post_init__(self) -> None:
        faults = [] if 0 < self.bound <= 1 else [f"bound = {self.bound} must lie in (0, 1]"]
        faults += [
            f"{name} = {getattr(self, name)} must be at least 1"
            for name in ("first", "period")
            if getattr(self, name) < 1
        ]
        if faults:
            raise ValueError("; ".join(faults))

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
        present = memory["length"].clamp(min=float(shortest), max=float(longest))
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
        self, memory: dict[str, Tensor], error: Tensor, length: Tensor, step: Tensor, shortest: int
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The memory after a step whose batch had this sequence error and length, and whether the curriculum moves on.

        `shortest` is the task's shortest length: a curriculum that begins below it begins there.
        """
        present = memory["length"].clamp(min=float(shortest))
        within = (length <= present).to(torch.float32)
        total, batches = memory["error_sum"] + within * error, memory["batches"] + within
        ends = (step + 1) % self.period == 0
        mean = torch.where(batches > 0, total / batches.clamp(min=1.0), memory["error"])
        moves_on = ends & (mean < self.bound) & (batches > 0)
        return {
            "length": torch.where(moves_on, present + 1.0, present),
            "error_sum": torch.where(ends, 0.0, total),
            "batches": torch.where(ends, 0.0, batches),
            "error": torch.where(ends, mean, memory["error"]),
        }, moves_on
