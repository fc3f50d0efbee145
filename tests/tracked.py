"""A small sweep with finished lanes, for the tests of tracking."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from sweeps.config.settings import resolve
from sweeps.config.sweep_file import Sweep, parse
from sweeps.results import RankedConfiguration
from sweeps.store.records import Configuration
from sweeps.training.lane import LaneResult

FILE = """
name: small
question: Which unit adds?
task: {name: static, operation: add}
train: {steps: 3000, evaluate_every: 1000}
compare: {model: [nau, linear]}
seeds: 3
search:
  sampler: {name: random, seed: 0}
  configurations: 2
  space:
    train.lr: {log_uniform: [1e-4, 1e-1]}
    train.gradient_noise: {log_uniform: [1e-5, 0.1], or: 0}
"""


def small_sweep() -> Sweep:
    return parse(FILE, "small.yaml")


def configuration(
    sweep: Sweep, cell: int = 0, number: int = 1, seeds: Sequence[int] = (0, 1, 2), **changes: Any
) -> Configuration:
    parameters = {} if number == 0 else {"train.lr": 3.2e-3, "train.gradient_noise": 0}
    settings = resolve(sweep.cells[cell].with_parameters(parameters))[0]
    assert settings is not None
    return Configuration(
        cell=sweep.cells[cell].key, labels=sweep.cells[cell].labels, number=number, parameters=parameters,
        settings=settings, keys={seed: f"key-{cell}-{number}-{seed}" for seed in seeds}, **changes,
    )  # fmt: skip


def record(of: Configuration, seed: int, outcome: str = "solved", **changes: Any) -> LaneResult:
    """Solved: below the threshold of 1e-3 from step 2000 on."""
    solved = outcome == "solved"
    errors = [1.0, 0.5, 1e-4, 1e-5] if solved else [1.0, 0.9, 0.8, 0.7]
    usual = LaneResult(
        key=of.keys[seed], seed=seed, budget=3000, steps=3000, outcome=outcome, solved=solved,
        converged_at=2000 if solved else None, sparsity_error=0.01, best_step=3000, threshold=1e-3, wall_time_s=4.0,
        error={"interpolation": errors[-1] / 2, "extrapolation": errors[-1]},
        curve={"step": [0, 1000, 2000, 3000], "error.interpolation": [e / 2 for e in errors],
               "error.extrapolation": errors, "sparsity_error": [0.5, 0.4, None, 0.01]},
    )  # fmt: skip
    return dataclasses.replace(usual, **changes)


def records_of(of: Configuration) -> list[LaneResult]:
    return [record(of, 0), record(of, 1, "unsolved"), record(of, 2, "diverged")]


def ranked(of: Configuration, results: Sequence[LaneResult], rank: int | None = None) -> RankedConfiguration:
    return RankedConfiguration(configuration=of, results=tuple(results), rank=rank)
