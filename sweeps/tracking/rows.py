"""A configuration and its results as MLflow's names, tags, parameters and metrics. Plain data, no mlflow.

The primary key of MLflow's metrics is (key, timestamp, step, value), so timestamps are made from the sweep's creation and
never from the clock: writing again changes nothing. Of several values of one key MLflow shows that of the greatest step,
then of the latest timestamp. Metrics are therefore logged at step `budget`, and the timestamp rises with what replaces
them: more seeds, or a result in place of an error.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from sweeps.config.compare import values_at
from sweeps.config.diff import leaves
from sweeps.config.space import Dimension, Objective, Search, same
from sweeps.results import metrics
from sweeps.results.summary import RankedConfiguration, Summary, standing
from sweeps.store.curves import storable
from sweeps.store.records import Configuration
from sweeps.training.lane import LaneResult

MOST_POINTS = 200
"""Most points of one curve; a longer one is thinned evenly, and its first crossing of the threshold is kept."""
_BARE = re.compile(r"true|false|null|[\d.,eE+-]+")
NAME_LIMIT = 200
"""Most characters of a run's name; MLflow's limit is 250."""


class Point(NamedTuple):
    """One value of a metric. `age` is milliseconds after the sweep's creation."""

    key: str
    value: float
    step: int
    age: int


# ------------------------------------------------------------------------------------------------- names and tags


TAGS = frozenset(
    {"budget", "cell", "configuration", "digest", "layout", "level", "logged", "model", "name", "order", "outcome", "phase",
     "rank", "seed", "stopped", "sweep", "task", "verdict", "why"}
)  # fmt: skip
"""Tags with a meaning, apart from those of MLflow."""


def configuration_name(configuration: Configuration, space: Mapping[str, Dimension]) -> str:
    """Return a name such as `c017 nmu U[1,2] lr=3.2e-3 noise=off`: number, cell, then the searched settings."""
    searched = [f"{short_name(path, space)}={text}" for path, text in _searched(configuration, space)]
    return " ".join([_number_and_cell(configuration), *searched])[:NAME_LIMIT]


def _searched(configuration: Configuration, space: Mapping[str, Dimension]) -> Iterator[tuple[str, str]]:
    """Yield the searched settings of a configuration, by path, the learning rate first: `3.2e-3`, or `off`."""
    for path, dimension in sorted(space.items(), key=lambda item: short_name(item[0], space) != "lr"):
        values = values_at(configuration.settings, path)
        if values and (configuration.number == 0 or path in configuration.parameters):
            off = dimension.has_off and same(values[0], dimension.off)
            yield path, "off" if off else short_value(values[0])


def searched_tags(configuration: Configuration, space: Mapping[str, Dimension], names: Mapping[str, str]) -> dict[str, str]:
    """Return the searched settings of a configuration as a person reads them, `lr: 3.2e-3`. Parameters have all digits."""
    return {names[path]: text for path, text in _searched(configuration, space)}


def searched_names(spaces: Iterable[Mapping[str, Dimension]]) -> dict[str, str]:
    """Return the tag of every searched setting, by path, the learning rate first: its short name unless that is taken."""
    paths = {path: dimension for space in spaces for path, dimension in space.items()}
    named = {path: path if (name := short_name(path, paths)) in TAGS else name for path in paths}
    return dict(sorted(named.items(), key=lambda item: item[1] != "lr"))


def seed_name(configuration: Configuration, seed: int, verdict: str) -> str:
    """Return a name such as `c017 nmu U[1,2] s042 diverged`: number, cell, seed and the kind of its verdict."""
    ends = f"s{seed:03d} {verdict}"
    return f"{_number_and_cell(configuration)[: NAME_LIMIT - len(ends) - 1]} {ends}"


def _number_and_cell(configuration: Configuration) -> str:
    """Return a name such as `c017 nmu U[1,2]`. A label that is a number or a truth value has its axis: `hidden=4`."""
    labels = dict(configuration.labels)
    model = labels.pop("model", None) or str(configuration.settings["model"]["name"])
    named = [f"{short_name(axis, labels)}={label}" if _BARE.fullmatch(label) else label for axis, label in labels.items()]
    return " ".join([f"c{configuration.number:03d}", model, *named])


def short_name(path: str, among: Mapping[str, Any]) -> str:
    """Return the last word of a dotted path, `noise` of `train.gradient_noise`; more of it where that is ambiguous."""

    def forms(full: str) -> list[str]:
        leaf = full.rpartition(".")[2]
        return [leaf.rpartition("_")[2], leaf, full]

    others = [forms(other) for other in among if other != path]
    return next(form for i, form in enumerate(forms(path)) if i == 2 or all(form != other[i] for other in others))


def short_value(value: Any) -> str:
    """Return two significant digits of a float, `3.2e-3`; anything else as text."""
    if not isinstance(value, float):
        return str(value)
    if value == 0 or 0.01 <= abs(value) < 99.5:
        return f"{value:.2g}"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def shared_tags(configuration: Configuration) -> dict[str, str]:
    """Return the tags that a configuration and its seeds have in common."""
    return {
        "cell": configuration.cell,
        "model": configuration.labels.get("model") or str(configuration.settings["model"]["name"]),
        "task": str(configuration.settings["task"]["name"]),
        "configuration": str(configuration.number),
        "budget": str(configuration.settings["train"]["steps"]),
    }


def seed_tags(configuration: Configuration, result: LaneResult) -> dict[str, str]:
    """Return the tags of a seed's run; its digest is the lane's key in the store."""
    return {
        **shared_tags(configuration),
        "level": "seed",
        "seed": str(result.seed),
        "digest": result.key,
        "outcome": result.outcome,
        **({} if result.seed in configuration.keys else {"phase": "confirmation"}),
    }


def configuration_tags(configuration: Configuration) -> dict[str, str]:
    """Return the tags of a configuration's run.

    Its digest leaves the budget out, as a lane's key does: more steps continue the run.
    """
    settings = {**configuration.settings, "train": {**configuration.settings["train"], "steps": None}}
    return {**shared_tags(configuration), "level": "configuration", "digest": digest(settings)}


def configuration_outcome(configuration: Configuration, summary: Summary) -> str:
    """Return `pruned` if it was stopped early, `error` if it failed, `solved` if every seed is, `diverged` if every seed did,
    else `unsolved`."""
    if configuration.state in ("failed", "pruned"):
        return {"failed": "error", "pruned": "pruned"}[configuration.state]
    if summary.seeds and summary.solved == summary.seeds:
        return "solved"
    return "diverged" if summary.seeds and summary.diverged == summary.seeds else "unsolved"


def order(one: RankedConfiguration, search: Search) -> str:
    """Return a text by which MLflow sorts configurations as the report does, ties included: `2 c3e0... 000017`.

    First those that are confirmed, then the other complete ones, then the rest. Of several objectives the rank is the second
    word, see `with_rank`. Numbers are 16 hexadecimal digits, and every word has a fixed width, whatever a database's collation.
    """
    number = f"{one.configuration.number:06d}"
    if one.state != "complete":
        return last(one.configuration.number)
    several = bool(search.further_objectives)
    fresh = None if several else one.confirmed
    found = standing(fresh or one.summary, search)
    numbers = [_sortable(value) for value in (found.violation, *found.values, found.tie_break)]
    return " ".join(["1" if fresh else "2", *([_rank_word(one.rank)] if several else []), *numbers, number])


def last(number: int) -> str:
    """Return the text of `order` for a configuration that is not complete."""
    return f"3 {number:06d}"


def with_rank(order: str, rank: int | None) -> str:
    """Return the text of `order` for several objectives, with another rank."""
    first, *rest = order.split(" ")
    return order if first == "3" else " ".join([first, _rank_word(rank), *rest[1:]])


def _rank_word(rank: int | None) -> str:
    return "999999" if rank is None else f"{rank:06d}"


def _sortable(value: float) -> str:
    """Return 16 hexadecimal digits that are in the order of the numbers."""
    bits = int.from_bytes(struct.pack(">d", value + 0.0), "big")  # + 0.0: there is one zero
    return f"{bits ^ (2**64 - 1 if bits >> 63 else 1 << 63):016x}"


def digest(data: Any) -> str:
    """Return the sha256, in hex, of plain data; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, default=str).encode()).hexdigest()


def parameters(configuration: Configuration) -> dict[str, str]:
    """Return every leaf of the settings by its dotted path, and searched values by the path of the sweep file.

    Without train.steps, which is the tag `budget`: MLflow's parameters cannot change and a budget may grow.
    """
    values = dict(leaves(configuration.settings)) | dict(configuration.parameters)
    values.pop("train.steps", None)
    return {path: _as_text(value) for path, value in values.items()}


def _as_text(value: Any) -> str:
    return storable(value) if isinstance(value, str) else json.dumps(value, default=str)


# ------------------------------------------------------------------------------------------------- metrics


def seed_points(result: LaneResult) -> list[Point]:
    """Return a seed's metrics, and its curves, such as `curve.error.extrapolation`."""
    age = 0 if result.outcome == "error" else 1
    return [
        *_at(metrics.lane_values(result), result.budget, age),
        *_curve_points(result),
        *_length_points(result),
    ]


def configuration_points(one: RankedConfiguration, objective: Objective) -> list[Point]:
    """Return a configuration's metrics, the value of its objective, and its metrics against the step."""
    values = one.summary.columns(estimate="")
    values["objective"] = one.summary.value(objective.name, objective.direction).estimate
    if one.confirmed is not None:
        values |= {f"confirmation.{name}": value for name, value in one.confirmed.columns(estimate="").items()}
    age = 2 * one.summary.seeds - one.summary.errors
    steps = sorted({step for result in one.results for step in result.curve.get("step", ())})
    kept = [steps[i] for i in thinned(len(steps), [])]
    shares = [
        Point(f"{metric.name}{suffix}", value, step, age)
        for metric in metrics.step_metrics()
        for step, share in metric.value(one.results, kept)
        for suffix, value in (("", share.estimate), (".low", share.low), (".high", share.high))
        if value is not None
    ]
    return _at(values, one.budget, age) + shares


def thinned(count: int, keep: Sequence[int], most: int = MOST_POINTS) -> list[int]:
    """Return the positions of at most `most` of `count` points: first, last, those to keep, and others evenly between."""
    if count <= most:
        return list(range(count))
    even = most - len(keep)
    return sorted({round(i * (count - 1) / (even - 1)) for i in range(even)} | set(keep))


def _curve_points(result: LaneResult) -> list[Point]:
    steps = result.curve.get("step", [])
    crossing = [steps.index(result.converged_at)] if result.converged_at in steps else []
    return [
        Point(f"curve.{name}", float(column[i]), steps[i], 0)
        for name, column in result.curve.items()
        if name != "step"
        for i in thinned(len(steps), crossing)
        if i < len(column) and column[i] is not None and math.isfinite(column[i])
    ]


def _length_points(result: LaneResult) -> list[Point]:
    """Return errors by length, such as `by_length.symbol_error`, with the length as MLflow's step."""
    lengths = result.by_length.get("length", [])
    return [
        Point(f"by_length.{name}", float(value), length, 0)
        for name, column in result.by_length.items()
        if name not in ("length", "rows")
        for length, value in zip(lengths, column, strict=True)
        if value is not None and math.isfinite(value)
    ]


def _at(values: Mapping[str, float | None], step: int, age: int) -> list[Point]:
    return [Point(key, float(value), step, age) for key, value in values.items() if value is not None and math.isfinite(value)]
