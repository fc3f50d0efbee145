"""Types of settings that several models share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

Steps = Annotated[float, "steps"]
"""A number of training steps. A sweep file may also write it as a share of the budget: 40%."""


@dataclass(frozen=True, kw_only=True)
class RampedPenalty:
    """A penalty whose weight grows from 0 to `weight`.

    linear: from `start` to `end` (Madsen and Johansen 2020, eq. 8). exp: as 1 - exp(-1e-5 step), which has no start and
    no end (the older schedule of their code).
    """

    weight: float = 0.0
    start: Steps = 1_000_000.0
    end: Steps = 2_000_000.0
    schedule: Literal["linear", "exp"] = "linear"

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise ValueError(f"weight = {self.weight} must be at least 0")
        if not 0 <= self.start < self.end:
            raise ValueError(f"0 <= start < end must hold, but got start = {self.start}, end = {self.end}")

    def at(self, step: Any) -> Any:
        """The weight at a step (a number, or a tensor)."""
        if self.schedule == "exp":
            return self.weight * (1.0 - (-1e-5 * step).exp())
        return self.weight * ((step - self.start) / (self.end - self.start)).clamp(0.0, 1.0)
