"""What a lane's curve says: solved, converged at, sparsity error (Madsen and Johansen 2019; words of docs/metrics)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Errors = list[float]


@dataclass
class Curve:
    """Evaluations of one lane in order of steps: the error of each split, and the sparsity error, before that step's update.

    `scores` has what the task reports besides, by `<score>.<split>`.
    """

    step: list[int] = field(default_factory=list)
    error: dict[str, Errors] = field(default_factory=dict)
    sparsity_error: Errors = field(default_factory=list)
    scores: dict[str, Errors] = field(default_factory=dict)

    def add(self, step: int, values: dict[str, float]) -> None:
        """Appends an evaluation; one of the same or a later step (from before a restart) is replaced."""
        keep = next((i for i, s in enumerate(self.step) if s >= step), len(self.step))
        series: list[list[Any]] = [
            self.step,
            self.sparsity_error,
            *self.error.values(),
            *self.scores.values(),
        ]
        for values_so_far in series:
            del values_so_far[keep:]
        self.step.append(step)
        for name, value in values.items():
            if name == "sparsity_error":
                self.sparsity_error.append(value)
            elif name.startswith("error."):
                self.error.setdefault(name.removeprefix("error."), []).append(value)
            else:
                self.scores.setdefault(name, []).append(value)

    def as_dict(self) -> dict[str, list[Any]]:
        """Plain data; None where a number is not finite."""
        series: dict[str, Sequence[float]] = {
            f"error.{split}": values for split, values in self.error.items()
        }
        series["sparsity_error"] = self.sparsity_error
        series |= self.scores
        return {"step": list(self.step)} | {
            k: [v if math.isfinite(v) else None for v in s] for k, s in series.items()
        }


@dataclass(frozen=True)
class Verdict:
    """`best_step` is the step that `solved` and the sparsity error look at; None without evaluations."""

    solved: bool
    converged_at: int | None
    best_step: int | None
    sparsity_error: float | None
    error: dict[str, float | None]


def judge(curve: Curve, threshold: float | None, failed: bool = False) -> Verdict:
    """The published criteria, with the words of design section 1.

    The best step is the first of those with the lowest interpolation error (without that split, the last). A lane that
    failed is not solved, whatever its best evaluation; a lane may have converged and not be solved.
    """
    if not curve.step:
        return Verdict(False, None, None, None, {})
    guide = curve.error.get("interpolation")
    best = len(curve.step) - 1
    if guide is not None:
        best = min(range(len(guide)), key=lambda i: (guide[i] if not math.isnan(guide[i]) else math.inf, i))
    test = curve.error.get("extrapolation", next(iter(curve.error.values())))
    met = [threshold is not None and value < threshold for value in test]
    return Verdict(
        solved=met[best] and not failed,
        converged_at=next((step for step, good in zip(curve.step, met, strict=True) if good), None),
        best_step=curve.step[best],
        sparsity_error=_finite(curve.sparsity_error[best]),
        error={split: _finite(values[best]) for split, values in curve.error.items()},
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
