"""Recordings of sweeps, which `sweeps bench --search` replays: the learning curve of every lane of one cell, in one file.

A recording is made of a sweep that trained every seed of every configuration with its whole budget (`train.stop: never`), by
`sweeps bench --record NAME -o FILE`. It is a compressed NumPy archive without pickles: what each lane ended with, exactly,
and log10 of its errors at every evaluation, in float16 (three digits).
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sweeps.config.compare import values_at
from sweeps.config.space import Search, restrict
from sweeps.config.sweep_file import stored_search
from sweeps.errors import UserError
from sweeps.results.metrics import PAR2, SeedValue, seed_value
from sweeps.results.report import report
from sweeps.store import Store
from sweeps.training.lane import OUTCOMES, SPARSITY_ERROR, Curve, Lane, LaneResult, judge

FOLDER = Path(__file__).parent / "recordings"
SPLITS = ("interpolation", "extrapolation")
Stop = Literal["never", "solved"]
_FORMAT = 1
_NONE = -1
"""Stands for a converged-at or a best step that a lane does not have."""


@dataclass(frozen=True)
class Recording:
    """The lanes of C configurations of S seeds, evaluated T times."""

    sweep: str
    """Name of the recorded sweep."""
    cell: str
    """Key of its cell."""
    document: dict[str, Any]
    """The sweep file, parsed."""
    settings: dict[str, Any]
    """Resolved settings of configuration 0."""
    numerics: str
    """Numerics of the lanes."""
    parameters: tuple[dict[str, Any], ...]
    """By configuration: searched path -> value. Configuration 0 has the file's own values."""
    seeds: tuple[int, ...]
    steps: tuple[int, ...]
    """Evaluated steps, rising."""
    arrays: Mapping[str, npt.NDArray[Any]] = field(repr=False)
    """[C, S]: `outcome` (its position in OUTCOMES), `updates` (made), `converged_at`, `best_step` (-1: none),
    `sparsity_error`, `threshold`; [2, C, S] `error` by split at the best step; [2, C, S, T] `curve`, log10 of the errors.
    NaN: not computed, or not finite."""
    _results: dict[tuple[int, int, int, Stop], LaneResult] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def budget(self) -> int:
        """train.steps."""
        return int(self.settings["train"]["steps"])

    @cached_property
    def search(self) -> Search:
        """How the recorded sweep searched, with the dimensions that its cell has."""
        found = stored_search(self.document) or Search(configurations=1)
        return replace(found, space=restrict(found.space, lambda path: values_at(self.settings, path)))

    @cached_property
    def seed_value(self) -> SeedValue:
        """What a seed contributes to the objective. Raises UserError for one that is not a mean or a median over seeds."""
        found = seed_value(self.search.objective, self.budget)
        if found is None:
            raise UserError(f"a recording needs an objective that is a mean or a median over all seeds, such as {PAR2.name}")
        return found

    def result(self, configuration: int, seed: int, steps: int | None = None, stop: Stop = "never") -> LaneResult:
        """Return what a lane would have ended with, had its budget been `steps` updates; None: all that were recorded.

        `seed` is a position in `seeds`. The whole budget gives the recorded result. Less gives that of the engine's own
        criteria on the curve so far, of errors with three digits and without a sparsity error. `stop` is `train.stop`; of a
        recorded lane that was judged later than it met the threshold, `solved` gives the result of that evaluation. The
        results have no curves.
        """
        steps = self.budget if steps is None else min(steps, self.budget)
        key = (configuration, seed, steps, stop)
        if key not in self._results:
            self._results[key] = self._result(*key)
        return self._results[key]

    def _result(self, configuration: int, seed: int, steps: int, stop: Stop) -> LaneResult:
        at = configuration, seed
        outcome = OUTCOMES[self.arrays["outcome"][at]]
        made = int(self.arrays["updates"][at])
        converged_at = _step(self.arrays["converged_at"][at])
        threshold = _number(self.arrays["threshold"][at])
        ends = min(steps, made)
        if stop == "solved" and converged_at is not None:
            ends = min(ends, converged_at)
        lane = Lane(f"{configuration}", {"train": {"steps": steps}}, self.seeds[seed])
        if outcome == "error" or (ends == made and steps == self.budget):
            errors = self.arrays["error"][:, *at]
            return LaneResult(
                key=lane.key, seed=lane.seed, budget=steps, steps=ends, outcome=outcome, solved=outcome == "solved",
                converged_at=converged_at, sparsity_error=_number(self.arrays["sparsity_error"][at]),
                error={split: _number(error) for split, error in zip(SPLITS, errors, strict=True)},
                best_step=_step(self.arrays["best_step"][at]), threshold=threshold,
            )  # fmt: skip
        evaluated = sum(step <= ends for step in self.steps)
        with np.errstate(over="ignore"):
            columns = 10.0 ** self.arrays["curve"][:, *at, :evaluated].astype(np.float64)
        curve = Curve(
            step=list(self.steps[:evaluated]),
            error={split: column.tolist() for split, column in zip(SPLITS, columns, strict=True)},
            sparsity_error=[math.nan] * evaluated,
        )
        reason = "as recorded" if outcome == "diverged" and ends == made else None
        return judge(lane, curve, threshold, ends, reason)

    def save(self, file: Path) -> None:
        """Write the recording. Raises OSError."""
        head = {
            "format": _FORMAT, "sweep": self.sweep, "cell": self.cell, "document": self.document, "settings": self.settings,
            "numerics": self.numerics, "parameters": list(self.parameters), "seeds": list(self.seeds),
            "steps": list(self.steps),
        }  # fmt: skip
        with file.open("wb") as opened:
            arrays: dict[str, Any] = dict(self.arrays)
            np.savez_compressed(opened, head=np.array(json.dumps(head)), **arrays)

    @classmethod
    def load(cls, file: Path) -> Recording:
        """Read a recording. Raises UserError for a file that is not one."""
        try:
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            head = json.loads(str(arrays.pop("head")))
            if head.pop("format") != _FORMAT:
                raise ValueError("its format is that of another version")
        except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            raise UserError(f"{file} is not a recording that this version can read: {error}") from error
        head |= {name: tuple(head[name]) for name in ("parameters", "seeds", "steps")}
        return cls(**head, arrays=arrays)


def recorded(store: Store, name: str) -> Recording:
    """Return the recording of a sweep: of the configurations and seeds of its one cell, all of which must be complete.

    Raises StoreError where the store does not have the sweep, UserError where it cannot be recorded.
    """
    found = report(store, name)
    cells = found.cells()
    if len(cells) != 1:
        raise UserError(f"{name} has {len(cells)} cells, and a recording is of one: leave out `compare`")
    configurations = sorted(cells[0], key=lambda one: one.configuration.number)
    unfinished = sum(one.state != "complete" for one in configurations)
    if unfinished:
        raise UserError(f"{unfinished} configurations of {name} are not complete: `sweeps run {name}` continues it")
    settings = configurations[0].configuration.settings
    if settings["train"]["stop"] != "never":
        raise UserError(f"lanes of {name} ended when they were solved: a recording needs `train.stop: never`")
    lanes = [list(one.results) for one in configurations]
    seeds = tuple(result.seed for result in lanes[0])
    if any(tuple(result.seed for result in row) != seeds for row in lanes):
        raise UserError(f"the configurations of {name} have different seeds, and a recording needs the same ones")
    steps = sorted({step for row in lanes for result in row for step in result.curve.get("step", [])})
    return Recording(
        sweep=name, cell=configurations[0].configuration.cell, document=found.row.document, settings=settings,
        numerics=found.row.numerics or "", parameters=tuple(one.parameters for one in configurations), seeds=seeds,
        steps=tuple(steps), arrays=_arrays(lanes, steps),
    )  # fmt: skip


def _arrays(lanes: Sequence[Sequence[LaneResult]], steps: Sequence[int]) -> dict[str, npt.NDArray[Any]]:
    def of(values: Any, kind: Any) -> npt.NDArray[Any]:
        return np.array([[values(result) for result in row] for row in lanes], dtype=kind)

    position = {step: index for index, step in enumerate(steps)}
    curve = np.full((len(SPLITS), len(lanes), len(lanes[0]), len(steps)), np.nan)
    for c, row in enumerate(lanes):
        for s, result in enumerate(row):
            at = [position[step] for step in result.curve.get("step", [])]
            for k, split in enumerate(SPLITS):
                column = result.curve.get(f"error.{split}", [None] * len(at))
                curve[k, c, s, at] = [math.nan if value is None else value for value in column]
    with np.errstate(divide="ignore"):
        logs = np.log10(curve).astype(np.float16)
    return {
        "outcome": of(lambda result: OUTCOMES.index(result.outcome), np.uint8),
        "updates": of(lambda result: result.steps, np.int32),
        "converged_at": of(lambda result: _NONE if result.converged_at is None else result.converged_at, np.int32),
        "best_step": of(lambda result: _NONE if result.best_step is None else result.best_step, np.int32),
        SPARSITY_ERROR: of(lambda result: result.sparsity_error, np.float32),
        "threshold": of(lambda result: result.threshold, np.float64),
        "error": np.stack([of(lambda result, split=split: result.error.get(split), np.float32) for split in SPLITS]),
        "curve": logs,
    }


def _number(value: np.floating[Any]) -> float | None:
    return float(value) if np.isfinite(value) else None


def _step(value: np.integer[Any]) -> int | None:
    return None if value == _NONE else int(value)
