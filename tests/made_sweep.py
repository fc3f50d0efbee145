"""A store with a small sweep in it whose metrics can be checked by hand. Nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lanes import PLAIN

from sweeps.config.settings import lane_key, resolve
from sweeps.store import Store
from sweeps.store.records import Configuration
from sweeps.training.lane import LaneResult

BUDGET = 15_000
PROVENANCE = {"torch": "2.13.0", "device": "cpu", "host": "secret-node", "model_source": "ab12"}
DOCUMENT: dict[str, Any] = {
    "name": "small",
    "question": "Which unit learns\nsubtraction?",
    "task": {"name": "static", "operation": "sub"},
    "train": {"steps": BUDGET},
    "compare": {"model": ["nau", "linear"]},
    "seeds": 3,
    "search": {
        "configurations": 2,
        "objective": "par2",
        "space": {
            "train.lr": {"log_uniform": [1e-4, 1e-1]},
            "train.gradient_noise": {"log_uniform": [1e-5, 0.1], "or": 0},
            "model.dropout": {"log_uniform": [1e-6, 0.2], "or": 0},
        },
    },
}
TUNED = {"model.dropout": 0, "train.gradient_noise": 3.4e-4, "train.lr": 3.2e-3}


def configuration(model: str, number: int, parameters: dict[str, Any] | None = None, seeds: int = 3) -> Configuration:
    given = {"train": {"steps": BUDGET}, "model": {"name": model}, "task": DOCUMENT["task"]}
    for path, value in (parameters or {}).items():
        section, _, key = path.partition(".")
        given[section] = {**given[section], key: value}
    settings, faults, _ = resolve(given)
    assert settings is not None, faults
    return Configuration(
        cell=f"model={model}", labels={"model": model}, number=number, parameters=parameters or {},
        settings=settings, keys={seed: lane_key(settings, seed, PLAIN) for seed in range(seeds)}, state="complete",
    )  # fmt: skip


def lane(entry: Configuration, seed: int, converged_at: int | None, error: float | None, **fields: Any) -> LaneResult:
    """A solved lane if `converged_at` is given, otherwise `fields` may set its outcome."""
    outcome = fields.pop("outcome", "unsolved" if converged_at is None else "solved")
    return LaneResult(
        key=entry.keys[seed], seed=seed, budget=BUDGET, steps=fields.pop("steps", BUDGET), outcome=outcome,
        solved=outcome == "solved", converged_at=converged_at, sparsity_error=None if error is None else 0.4,
        error={"interpolation": error, "extrapolation": error}, best_step=None if error is None else 14_000,
        threshold=1.4e-8, wall_time_s=fields.pop("wall_time_s", 1.25), provenance=PROVENANCE, **fields,
    )  # fmt: skip


def made_sweep(
    store: Store, reverse: bool = False, document: dict[str, Any] = DOCUMENT, curve: dict[str, Any] | None = None
) -> list[LaneResult]:
    """Two cells of two configurations of three seeds; returns the lanes of nau's best, number 1.

    nau #0 solves 2 of 3, nau #1 all; linear #0 diverges once and fails once, linear #1 solves none but is
    nearer. `reverse` lets lanes arrive the other way round, as they might from another number of workers.
    """
    nau, tuned = configuration("nau", 0), configuration("nau", 1, TUNED)
    linear, nearer = configuration("linear", 0), configuration("linear", 1, TUNED)
    best = [lane(tuned, seed, at, 1e-9, curve=curve or {}) for seed, at in enumerate((3000, 4000, 8000))]
    lanes: Sequence[LaneResult] = [
        lane(nau, 0, 5000, 1e-9), lane(nau, 1, 7000, 2e-9), lane(nau, 2, None, 0.5), *best,
        lane(linear, 0, None, 3.0),
        lane(linear, 1, None, None, outcome="diverged", steps=700, reason="not finite at step 700"),
        lane(linear, 2, None, None, outcome="error", steps=0, reason="RuntimeError: boom"),
        *(lane(nearer, seed, None, 0.1) for seed in range(3)),
    ]  # fmt: skip
    store.begin_sweep("small", "name: small\n", document)
    for entry in (nau, tuned, linear, nearer):
        store.add_configuration("small", entry)
    for record in reversed(lanes) if reverse else lanes:
        store.add_records([record])
    store.set_state("small", "done")
    return best
