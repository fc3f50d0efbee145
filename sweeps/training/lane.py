"""What a lane's curve says: solved, converged at, sparsity error (Madsen and Johansen 2019; words of docs/metrics)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor
from torch.utils import _pytree as pytree

from sweeps.training.step import LaneState

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


@dataclass(frozen=True)
class Lane:
    """A lane to train: its key (any name that is its own), explicit settings, seed, and where to go on from."""

    key: str
    settings: dict[str, Any]
    seed: int
    checkpoint: bytes | None = None

    @property
    def steps(self) -> int:
        return int(self.settings["train"]["steps"])


@dataclass(frozen=True)
class LaneResult:
    """What came of a lane. `outcome` is solved, unsolved, diverged or error; `reason` says why it ended early."""

    key: str
    seed: int
    steps: int
    outcome: str
    reason: str | None
    verdict: Verdict
    threshold: float | None
    curve: Curve
    wall_time_s: float
    state: bytes | None
    by_length: dict[str, list[float]] = field(default_factory=dict)
    """Columns: `length`, `rows`, and the error and scores there; empty for most tasks."""


def to_bytes(state: LaneState, curve: Curve, wall_time_s: float) -> bytes:
    """An exact checkpoint: weights, moments, step and curve. The step is the whole state of the random streams."""
    flat = {_name(path): leaf.contiguous().cpu() for path, leaf in pytree.tree_flatten_with_path(state)[0]}
    about = {"step": curve.step, "error": curve.error, "sparsity_error": curve.sparsity_error}
    about |= {"scores": curve.scores} if curve.scores else {}
    return save(flat, {"curve": json.dumps(about), "wall_time_s": repr(wall_time_s)})


def from_bytes(blob: bytes, like: LaneState) -> tuple[LaneState, Curve, float]:
    """The state, curve and wall time of a checkpoint. Raises ValueError where its tensors are not those of `like`."""
    tensors = load(blob)
    paths, spec = pytree.tree_flatten_with_path(like)
    names = [_name(path) for path, _ in paths]
    if sorted(names) != sorted(tensors):
        raise ValueError(f"a checkpoint holds {sorted(tensors)}, but this lane needs {sorted(names)}")
    state = pytree.tree_unflatten(
        [tensors[n].to(leaf.device) for n, (_, leaf) in zip(names, paths, strict=True)], spec
    )
    header = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])["__metadata__"]
    return state, Curve(**json.loads(header["curve"])), float(header["wall_time_s"])


def _name(path: Any) -> str:
    return ".".join(str(key.key) for key in path)


def stacked(states: list[LaneState]) -> LaneState:
    """Lanes side by side: every tensor gets a slot axis in front."""
    result: LaneState = pytree.tree_map(lambda *leaves: torch.stack(leaves), *states)
    return result


def slot_of(state: LaneState, slot: int) -> LaneState:
    """One lane of stacked lanes, copied."""
    result: LaneState = pytree.tree_map(lambda t: t[slot].clone(), state)
    return result


def put(state: LaneState, slot: int, lane: LaneState) -> None:
    """Writes a lane into a slot, in place."""

    def write(target: Tensor, value: Tensor) -> None:
        target[slot] = value

    pytree.tree_map(write, state, lane)
