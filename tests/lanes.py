"""Settings and lanes for tests, trained in one pack with or without the compiler."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
import torch
from safetensors.torch import load

from sweeps.config.settings import build, resolve
from sweeps.training.lane import Lane, LaneResult
from sweeps.training.numerics import Numerics
from sweeps.training.pack import Pack

# Sums of two inputs out of ten: small enough that three lanes take a second, uncompiled.
TASK = {"name": "static", "input_size": 10}
TRAIN = {"steps": 20, "batch": 8, "evaluate_every": 10}
PLAIN = Numerics("cpu-x86-64-v3", compiled=False)
# Inputs are finite in float32, and so are their sums; the squared error is not.
TOO_LARGE = {"interpolation": [1.0, 3e37]}


def resolved(model: Any, task: Any = "static", **train: Any) -> dict[str, Any]:
    """Return settings with every default filled in."""
    found, faults, _ = resolve({"model": model, "task": task, "train": train})
    assert found is not None, faults
    return found


def settings_of(model: Any = "nau", task: Mapping[str, Any] | None = None, **train: Any) -> dict[str, Any]:
    return resolved(model, {**TASK, **(task or {})}, **{**TRAIN, **train})


def lanes_of(settings: dict[str, Any], seeds: Iterable[int], prefix: str = "seed") -> list[Lane]:
    return [Lane(f"{prefix} {seed}", settings, seed) for seed in seeds]


def train(lanes: list[Lane], slots: int = 3, compiled: bool = False, **options: Any) -> dict[str, LaneResult]:
    return finish(pack_of(lanes, slots, compiled, **options))


def pack_of(lanes: list[Lane], slots: int = 3, compiled: bool = False, **options: Any) -> Pack:
    return Pack(lanes, slots, build, compiled=compiled, **options)


def finish(pack: Pack) -> dict[str, LaneResult]:
    results: dict[str, LaneResult] = {}
    while not pack.done:
        for result in pack.advance():
            assert result.key not in results, f"{result.key} came back twice"
            results[result.key] = result
    return results


def tensors(result: LaneResult) -> dict[str, torch.Tensor]:
    """Return the tensors of a lane's final state, without its curve and wall time."""
    assert result.state is not None, result.reason
    return {name: t for name, t in load(result.state).items() if not name.startswith("curve.") and name != "wall_time_s"}


def assert_same(one: LaneResult, other: LaneResult, rounding_of_evaluation: bool = False) -> None:
    """Bit for bit: weights, moments, step and curve, and what follows from them.

    Uncompiled, lanes of one task share the inputs of evaluation, and lanes of several do not: another matrix routine.
    """
    first, second = tensors(one), tensors(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), f"{name}: {tensor} is not {second[name]}"
    assert (one.outcome, one.reason, one.steps) == (other.outcome, other.reason, other.steps)
    assert one.curve["step"] == other.curve["step"]
    if not rounding_of_evaluation:
        assert repr(one.curve) == repr(other.curve)
        assert (one.solved, one.converged_at, one.best_step, one.sparsity_error, one.error) == (
            other.solved,
            other.converged_at,
            other.best_step,
            other.sparsity_error,
            other.error,
        )
    for name in (n for n in one.curve if n.startswith("error.")):
        assert one.curve[name] == pytest.approx(other.curve[name], rel=1e-4, nan_ok=True)
