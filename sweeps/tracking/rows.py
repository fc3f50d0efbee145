"""A configuration and its records as MLflow wants them: names, tags, parameters, metrics. Plain data, no mlflow.

A metric's place is (key, timestamp, step), and what stands there twice with one value is one row. So timestamps are
made from the sweep's creation and never from the clock, and writing again changes nothing. Of several values of one
key MLflow shows that of the greatest step, then of the latest timestamp. Figures therefore stand at step `budget`, and
the timestamp rises with what replaces them: more seeds, or a record in place of an error.
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.config.compare import values_at
from sweeps.config.space import Dimension, same
from sweeps.results.summary import Summary
from sweeps.store.records import Configuration
from sweeps.training.lane import LaneResult

MOST_POINTS = 200
"""Of one curve; a longer one is thinned evenly, and its first crossing of the threshold stays."""
NAME_LIMIT = 200
"""Characters of a run's name; MLflow's own limit is 250."""


@dataclass(frozen=True)
class Row:
    """A configuration with all that is known of it."""

    configuration: Configuration
    records: Sequence[LaneResult]
    summary: Summary | None = None
    """None while seeds are missing."""
    rank: int | None = None
    """1 is the best of its cell."""


@dataclass(frozen=True)
class Point:
    """One value of a metric. `age` is milliseconds after the sweep's creation."""

    key: str
    value: float
    step: int
    age: int


# ------------------------------------------------------------------------------------------------- names and tags


def configuration_name(configuration: Configuration, space: Mapping[str, Dimension]) -> str:
    """A name such as `c017 nmu U[1,2] lr=3.2e-3 noise=off`: number, labels, then what the search may change."""
    labels = dict(configuration.labels)
    model = labels.pop("model", None) or str(configuration.settings["model"]["name"])
    parts = [f"c{configuration.number:03d}", model, *labels.values()]
    for path, dimension in space.items():
        values = values_at(configuration.settings, path)
        if values and (configuration.number == 0 or path in configuration.parameters):
            off = dimension.has_off and same(values[0], dimension.off)
            parts.append(f"{short_name(path, space)}={'off' if off else short_value(values[0])}")
    return " ".join(parts)[:NAME_LIMIT]


def seed_name(configuration: Configuration, seed: int) -> str:
    """A name such as `c017 s042`."""
    return f"c{configuration.number:03d} s{seed:03d}"


def short_name(path: str, among: Mapping[str, Any]) -> str:
    """The last word of a dotted path, `noise` of `train.gradient_noise`; more of it where another path ends so too."""

    def forms(full: str) -> list[str]:
        leaf = full.rpartition(".")[2]
        return [leaf.rpartition("_")[2], leaf, full]

    others = [forms(other) for other in among if other != path]
    return next(
        form for i, form in enumerate(forms(path)) if i == 2 or all(form != other[i] for other in others)
    )


def short_value(value: Any) -> str:
    """Two significant digits of a float, `3.2e-3`; anything else as it stands."""
    if not isinstance(value, float):
        return str(value)
    if value == 0 or 0.01 <= abs(value) < 1000:
        return f"{value:.2g}"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def shared_tags(configuration: Configuration) -> dict[str, str]:
    """Tags that a configuration and its seeds have in common."""
    return {
        "cell": configuration.cell,
        "model": configuration.labels.get("model") or str(configuration.settings["model"]["name"]),
        "task": str(configuration.settings["task"]["name"]),
        "configuration": str(configuration.number),
        "budget": str(configuration.settings["train"]["steps"]),
    }


def seed_tags(configuration: Configuration, record: LaneResult) -> dict[str, str]:
    """Tags of a seed's run; its digest is the lane's key in the store."""
    return {
        **shared_tags(configuration),
        "level": "seed",
        "seed": str(record.seed),
        "digest": record.key,
        "outcome": record.outcome,
    }


def configuration_tags(configuration: Configuration) -> dict[str, str]:
    """Tags of a configuration's run. Its digest leaves the budget out, as a lane's key does: more steps go on with it."""
    settings = {**configuration.settings, "train": {**configuration.settings["train"], "steps": None}}
    return {**shared_tags(configuration), "level": "configuration", "digest": digest(settings)}


def configuration_outcome(configuration: Configuration, summary: Summary) -> str:
    """`solved` if every seed is; `error` if it failed; `diverged` if every seed did; else `unsolved`."""
    if configuration.state == "failed":
        return "error"
    if summary.seeds and summary.solved == summary.seeds:
        return "solved"
    return "diverged" if summary.seeds and summary.diverged == summary.seeds else "unsolved"


def digest(data: Any) -> str:
    """sha256, in hex, of plain data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()


def parameters(configuration: Configuration) -> dict[str, str]:
    """Every leaf of the settings by its dotted path, and what the search changed by the path of the sweep file.

    Without train.steps, which is the tag `budget`: MLflow's parameters cannot change and a budget may grow.
    """
    leaves = dict(_leaves(configuration.settings)) | dict(configuration.parameters)
    leaves.pop("train.steps", None)
    return {path: _as_text(value) for path, value in leaves.items()}


def _leaves(node: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(node, Mapping):
        return [
            leaf
            for key, value in node.items()
            for leaf in _leaves(value, f"{path}.{key}" if path else str(key))
        ]
    if isinstance(node, (list, tuple)) and any(isinstance(item, Mapping) for item in node):
        return [leaf for i, item in enumerate(node) for leaf in _leaves(item, f"{path}.{i}")]
    return [(path, node)]


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


# ------------------------------------------------------------------------------------------------- metrics


def seed_points(record: LaneResult) -> list[Point]:
    """A seed's figures, and its curves under names of their own, `curve.error.extrapolation` say."""
    figures: dict[str, float | None] = {
        "solved": float(record.solved),
        "converged_at": record.converged_at,
        "sparsity_error": record.sparsity_error,
        "steps": record.steps,
        **{f"error.{split}": value for split, value in record.error.items()},
        **record.scores,
    }
    age = 0 if record.outcome == "error" else 1
    return _at(figures, record.budget, age) + _curve_points(record) + _length_points(record)


def configuration_points(summary: Summary, records: Sequence[LaneResult], budget: int) -> list[Point]:
    """A configuration's figures, and `solved_fraction` against the step."""
    rate = summary.success_rate
    figures: dict[str, float | None] = {
        "success_rate": rate.estimate,
        "success_rate.low": rate.low,
        "success_rate.high": rate.high,
        "par2": summary.par2,
        "converged_at": summary.converged_at_median,
        "sparsity_error": summary.sparsity_error.estimate,
        "diverged": summary.diverged,
        "seed_steps": summary.seed_steps,
    }
    age = 2 * summary.seeds - summary.errors
    fractions = [Point("solved_fraction", value, step, age) for step, value in solved_fraction(records)]
    return _at(figures, budget, age) + fractions


def solved_fraction(records: Sequence[LaneResult]) -> list[tuple[int, float]]:
    """(step, fraction of seeds whose extrapolation error at that step is below the threshold), over all seeds.

    The fraction at the step, not of those that were ever below by then: a solution that is lost again shows. A seed
    that ended early keeps its last value, one that diverged or failed counts as unsolved from there on. Empty where
    the task has no threshold.
    """
    if not any(record.threshold is not None for record in records):
        return []
    steps = sorted({step for record in records for step in record.curve.get("step", ())})
    kept = [steps[i] for i in thinned(len(steps), [])]
    return [(step, sum(_is_below(record, step) for record in records) / len(records)) for step in kept]


def _is_below(record: LaneResult, step: int) -> bool:
    """Whether a seed's extrapolation error, as last evaluated at or before `step`, is below its threshold."""
    steps, errors = record.curve.get("step", []), record.curve.get("error.extrapolation", [])
    place = bisect_right(steps, step) - 1
    if place < 0 or place >= len(errors) or record.threshold is None:
        return False
    if record.outcome in ("diverged", "error") and step > steps[-1]:
        return False
    return errors[place] is not None and errors[place] < record.threshold


def thinned(count: int, keep: Sequence[int], most: int = MOST_POINTS) -> list[int]:
    """Positions of at most `most` of `count` points: first, last, those to keep, and others evenly between."""
    if count <= most:
        return list(range(count))
    room = most - len(keep)
    return sorted({round(i * (count - 1) / (room - 1)) for i in range(room)} | set(keep))


def _curve_points(record: LaneResult) -> list[Point]:
    steps = record.curve.get("step", [])
    crossing = [steps.index(record.converged_at)] if record.converged_at in steps else []
    return [
        Point(f"curve.{name}", float(column[i]), steps[i], 0)
        for name, column in record.curve.items()
        if name != "step"
        for i in thinned(len(steps), crossing)
        if i < len(column) and column[i] is not None and math.isfinite(column[i])
    ]


def _length_points(record: LaneResult) -> list[Point]:
    """Errors by length, `by_length.symbol_error` say, with the length where MLflow has the step."""
    lengths = record.by_length.get("length", [])
    return [
        Point(f"by_length.{name}", float(value), length, 0)
        for name, column in record.by_length.items()
        if name not in ("length", "rows")
        for length, value in zip(lengths, column, strict=True)
        if value is not None and math.isfinite(value)
    ]


def _at(figures: Mapping[str, float | None], step: int, age: int) -> list[Point]:
    return [
        Point(key, float(value), step, age)
        for key, value in figures.items()
        if value is not None and math.isfinite(value)
    ]
