"""The sweeps and configurations of a store, as plain data. Its finished lanes are `sweeps.training.lane.LaneResult`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SWEEP_STATES = ("running", "done", "stopped", "failed")
CONFIGURATION_STATES = ("running", "complete", "pruned", "failed")


@dataclass(frozen=True)
class Stopped:
    """Where early stopping stopped a configuration."""

    seeds: int
    """It has results of its first so many seeds,"""
    steps: int
    """of so many steps."""
    reason: str

    @property
    def text(self) -> str:
        """A phrase for reports."""
        return f"after {self.seeds} seed{'s' if self.seeds != 1 else ''} of {self.steps} steps: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One point of a cell's search space: one Optuna trial, `len(keys)` lanes."""

    cell: str
    """Key of the cell, such as `model=nau range=U[1,2]`, or `all`."""
    labels: dict[str, str]
    """Axis -> label of the cell."""
    number: int
    """0 is the file's own values."""
    parameters: dict[str, Any]
    """Dotted path -> value, as suggested. Empty for configuration 0."""
    settings: dict[str, Any]
    """Resolved model, task and train."""
    keys: dict[int, str]
    """Seed -> lane key."""
    state: str = "running"
    """running, complete, pruned (stopped early) or failed."""
    value: float | None = None
    """The objective's value; None until the configuration is complete, or pruned with its seeds' whole budget."""
    stopped: Stopped | None = None
    """Of a pruned configuration, and of one that failed before its last stage."""
    passed: int = 0
    """Number of stages of training after which early stopping let it go on."""
    origin: str | None = None
    """Where the parameters came from: file, random, model or grid."""

    def __post_init__(self) -> None:
        if self.state not in CONFIGURATION_STATES:
            raise ValueError(f"a configuration's state is {self.state!r}; it must be one of {', '.join(CONFIGURATION_STATES)}")


@dataclass(frozen=True, kw_only=True)
class SweepRow:
    """One sweep of a store."""

    name: str
    definition: str
    """Text of the sweep file as it was last run."""
    document: dict[str, Any]
    """The sweep file, parsed."""
    state: str
    """running, done, stopped or failed. It stays `running` when the driver is killed: see `Store.holder`."""
    created: str
    """UTC, ISO 8601."""
    updated: str
    seconds: float
    """Wall time of its drivers, all runs together."""
    numerics: str | None = None
    """Of all its lanes (`sweeps.training.numerics`); None where it was begun without."""
