"""The input and output of the engine: lanes, their learning curves, checkpoints and results.

Plain data without tensors: this module imports the standard library only. The criteria (solved, converged at, sparsity
error) are those of Madsen and Johansen, "Measuring Arithmetic Extrapolation Performance" (2019).
"""

from __future__ import annotations

import math
import sysconfig
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SPARSITY_ERROR = "sparsity_error"
"""Name of the sparsity error in an evaluation, in a learning curve and in reports."""
OUTCOMES = ("solved", "unsolved", "diverged", "error")
"""How a lane ends. `error` is the only one that a later record of the same key and budget may replace."""


@dataclass(frozen=True)
class Checkpoint:
    """A point from which a lane can be continued."""

    steps: int
    """Updates done."""
    state: bytes = field(repr=False)
    """The lane's exact state and its curve so far: see `sweeps.training.state`."""


@dataclass(frozen=True)
class Lane:
    """One lane to train: one seed of one configuration."""

    key: str
    """Content address; any text that is unique in a pack."""
    settings: dict[str, Any]
    """Resolved `model`, `task` and `train`."""
    seed: int
    checkpoint: Checkpoint | None = None
    """Where training starts; None: at the initial weights."""

    @property
    def budget(self) -> int:
        """train.steps."""
        return int(self.settings["train"]["steps"])


@dataclass(frozen=True, kw_only=True)
class LaneResult:
    """One finished lane, as the engine returns it, the worker sends it and the store keeps it (a record).

    Made of numbers, text, dicts and lists, so that it can be pickled, stored and compared with `==`. Steps count optimiser
    updates. A figure that could not be computed, or was not finite, is None, never NaN. Raises ValueError for an outcome
    that is not one of `OUTCOMES`, or one that contradicts `solved`.
    """

    key: str
    """Lane key, sha256 in hex."""
    seed: int
    budget: int
    """train.steps that the lane was allowed."""
    steps: int
    """Updates made; fewer than `budget` when it ended early, for the `reason` given."""
    outcome: str
    solved: bool
    converged_at: int | None = None
    sparsity_error: float | None = None
    """At `best_step`."""
    error: dict[str, float | None] = field(default_factory=dict)
    """By split, at `best_step`."""
    best_step: int | None = None
    """The evaluated step whose errors decide `solved`."""
    threshold: float | None = None
    """Extrapolation error of a near-perfect solution; None where the task has none."""
    reason: str | None = None
    curve: dict[str, list[Any]] = field(default_factory=dict)
    """Columns of one length: `step`, `error.interpolation`, `error.extrapolation`, `sparsity_error`, and by
    `<score>.<split>` what the task reports besides."""
    by_length: dict[str, list[Any]] = field(default_factory=dict)
    """Columns of one length: `length`, `rows`, and the error and the scores there, of the lane's final state. Empty for
    tasks that name no `curve_lengths`."""
    wall_time_s: float = 0.0
    provenance: dict[str, str] = field(default_factory=dict)
    """Device, versions, source hash: what may differ between equal lanes."""
    state: bytes | None = field(default=None, repr=False)
    """Final state of the lane, an opaque safetensors blob. Not read back with the other fields: see `Store.state`."""

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise ValueError(f"a record's outcome is {self.outcome!r}; it must be one of {', '.join(OUTCOMES)}")
        if self.solved != (self.outcome == "solved"):
            raise ValueError(f"a record has solved={self.solved} and outcome={self.outcome!r}: they contradict each other")

    @property
    def id(self) -> tuple[str, int]:
        """(key, budget), by which the store finds it."""
        return self.key, self.budget

    @property
    def scores(self) -> dict[str, float | None]:
        """The task's own scores, such as `relative_error.extrapolation`, at `best_step`. Most tasks have none."""
        steps = self.curve.get("step", [])
        if self.best_step not in steps:
            return {}
        row = steps.index(self.best_step)
        return {
            name: column[row]
            for name, column in sorted(self.curve.items())
            if name not in ("step", SPARSITY_ERROR) and not name.startswith("error.")
        }


@dataclass
class Curve:
    """Evaluations of one lane in order of steps: the error of each split, and the sparsity error, before that step's update.

    `scores` has what the task reports besides, by `<score>.<split>`.
    """

    step: list[int] = field(default_factory=list)
    error: dict[str, list[float]] = field(default_factory=dict)
    sparsity_error: list[float] = field(default_factory=list)
    scores: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def of_columns(cls, columns: Mapping[str, list[Any]]) -> Curve:
        """Return the curve of the columns that `columns` returned."""
        curve = cls(step=columns["step"])
        for name, values in columns.items():
            if name == SPARSITY_ERROR:
                curve.sparsity_error = values
            elif name.startswith("error."):
                curve.error[name.removeprefix("error.")] = values
            elif name != "step":
                curve.scores[name] = values
        return curve

    def columns(self) -> dict[str, list[Any]]:
        """Return the columns by name: `step`, `error.<split>`, the sparsity error, and the scores."""
        errors = {f"error.{split}": values for split, values in self.error.items()}
        return {"step": self.step, **errors, SPARSITY_ERROR: self.sparsity_error, **self.scores}

    def add(self, step: int, values: dict[str, float]) -> None:
        """Append an evaluation; one of the same or a later step (from before a restart) is replaced."""
        keep = next((i for i, s in enumerate(self.step) if s >= step), len(self.step))
        del self.step[keep:]
        for column in (self.sparsity_error, *self.error.values(), *self.scores.values()):
            del column[keep:]
        self.step.append(step)
        for name, value in values.items():
            if name == SPARSITY_ERROR:
                self.sparsity_error.append(value)
            elif name.startswith("error."):
                self.error.setdefault(name.removeprefix("error."), []).append(value)
            else:
                self.scores.setdefault(name, []).append(value)

    def as_dict(self) -> dict[str, list[Any]]:
        """Return the columns as plain data; None where a number is not finite."""
        columns = self.columns()
        step = list(columns.pop("step"))
        return {"step": step} | {name: [_finite(value) for value in column] for name, column in columns.items()}


def judge(lane: Lane, curve: Curve, threshold: float | None, steps: int, diverged: str | None = None) -> LaneResult:
    """Return a lane's result by the published criteria, without its curve and state.

    The best step is the first of those with the lowest interpolation error (without that split, the last). A lane that
    diverged (why: `diverged`) is not solved, whatever its best evaluation, and neither is one without a finite
    interpolation error, whose best step is the first. A lane may have converged and not be solved.
    """
    figures: dict[str, Any] = {}
    solved, converged_at = False, None
    if curve.step:
        guide = curve.error.get("interpolation")
        best, guided = len(curve.step) - 1, True
        if guide is not None:
            best = min(range(len(guide)), key=lambda i: (guide[i] if not math.isnan(guide[i]) else math.inf, i))
            guided = math.isfinite(guide[best])
        test = curve.error.get("extrapolation", next(iter(curve.error.values())))
        below = [threshold is not None and value < threshold for value in test]
        solved = below[best] and guided and diverged is None
        converged_at = next((step for step, met in zip(curve.step, below, strict=True) if met), None)
        figures = {
            "best_step": curve.step[best],
            "sparsity_error": _finite(curve.sparsity_error[best]),
            "error": {split: _finite(values[best]) for split, values in curve.error.items()},
        }
    reason = diverged
    if reason is None and converged_at is not None and steps < lane.budget:
        reason = f"stopped at step {steps}: the threshold is met"
    return LaneResult(
        key=lane.key, seed=lane.seed, budget=lane.budget, steps=steps, solved=solved, converged_at=converged_at,
        outcome="diverged" if diverged is not None else "solved" if solved else "unsolved",
        threshold=threshold, reason=reason, **figures,
    )  # fmt: skip


def exception_text(error: BaseException) -> str:
    """Return type and message of an exception, with file and line of the innermost frame in code of the user's own.

    `RuntimeError: boom (my_unit.py:12)`. Code of this project, of Python and of installed packages is not the user's.
    """
    first, *more = f"{type(error).__name__}: {error}".split("\n", 1)
    cause: BaseException | None = error
    seen: list[BaseException] = []
    while cause is not None and cause not in seen:
        seen.append(cause)
        for frame, line in reversed(list(traceback.walk_tb(cause.__traceback__))):
            if _is_own(frame.f_code.co_filename):
                return "\n".join([f"{first} ({Path(frame.f_code.co_filename).name}:{line})", *more])
        cause = cause.__cause__ or cause.__context__
    return "\n".join([first, *more])


def _is_own(file: str) -> bool:
    path = Path(file)
    here = Path(__file__).parents[2]
    others = [*(here / name for name in ("arith_models", "cluster", "sweeps", "tasks")), Path(sysconfig.get_path("stdlib"))]
    return path.is_file() and "site-packages" not in path.parts and not any(path.is_relative_to(one) for one in others)


def error_result(lane: Lane, reason: str) -> LaneResult:
    """Return the result of a lane that could not be trained."""
    return LaneResult(
        key=lane.key,
        seed=lane.seed,
        budget=lane.budget,
        steps=0,
        outcome="error",
        solved=False,
        reason=reason,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
