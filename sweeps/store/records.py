"""What a finished lane is, and what was asked for: plain data that travels from a worker to the store.

Everything here is made of numbers, text, dicts and lists, so a record can be pickled through Ray, written to a
database, read in a notebook and compared with `==`. Nothing here opens a file; `sweeps.store` keeps these.

A record is found by its content: `key` is the digest of the resolved model, task and train settings without
`steps`, the seed, the versions of model and task and the engine's numerics. Together with `budget` it names a
record, so restarting a sweep, growing its seeds and sharing lanes between sweeps are one lookup.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

OUTCOMES = ("solved", "unsolved", "diverged", "error")
"""How a lane ends. `error` is the only one that a later record of the same key and budget may replace."""

SWEEP_STATES = ("running", "done", "stopped", "failed")
CONFIGURATION_STATES = ("running", "complete", "failed")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One finished lane.

    Steps count optimiser updates. A figure that could not be computed, or was not finite, is None, never NaN.
    Raises ValueError for an outcome that is not one of `OUTCOMES`, or one that contradicts `solved`.
    """

    key: str
    """Lane key, sha256 in hex."""
    seed: int
    budget: int
    """train.steps that the lane was allowed."""
    steps: int
    """Steps it took; fewer than `budget` when it ended early, and then `reason` says why."""
    outcome: str
    solved: bool
    converged_at: int | None = None
    sparsity_error: float | None = None
    """At `best_step`."""
    error: dict[str, float | None] = field(default_factory=dict)
    """By split, at `best_step`."""
    best_step: int | None = None
    """The evaluated step that `solved` looks at."""
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
    """Final state of the lane, an opaque safetensors blob. Not read back with the record: `Store.state` has it."""

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise ValueError(
                f"a record's outcome is {self.outcome!r}; it must be one of {', '.join(OUTCOMES)}"
            )
        if self.solved != (self.outcome == "solved"):
            raise ValueError(
                f"a record says solved={self.solved} and outcome={self.outcome!r}: they contradict each other"
            )

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
        place = steps.index(self.best_step)
        return {
            name: column[place]
            for name, column in sorted(self.curve.items())
            if name not in ("step", "sparsity_error") and not name.startswith("error.")
        }


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One point of a cell's search space, as it was asked for: one Optuna trial, `len(keys)` lanes."""

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
    """running, complete or failed."""
    value: float | None = None
    """What the objective gave; None until it is complete."""
    origin: str | None = None
    """Where the parameters came from: file, random, model or grid."""

    def __post_init__(self) -> None:
        if self.state not in CONFIGURATION_STATES:
            raise ValueError(
                f"a configuration's state is {self.state!r}; it must be one of {', '.join(CONFIGURATION_STATES)}"
            )


@dataclass(frozen=True, kw_only=True)
class SweepRow:
    """One sweep as the store knows it."""

    name: str
    definition: str
    """Text of the sweep file, as it was last run."""
    document: dict[str, Any]
    """The same, parsed."""
    state: str
    """running, done, stopped or failed. A killed driver leaves `running` behind; `Store.holder` tells."""
    created: str
    """UTC, ISO 8601."""
    updated: str
    seconds: float
    """Wall time that drivers have spent on it, all runs together."""


@dataclass(frozen=True)
class Checkpoint:
    """From where a lane can go on: `steps` done, the lane's state, and its curve so far as JSON text."""

    steps: int
    blob: bytes = field(repr=False)
    curve_json: str = field(default="{}", repr=False)
