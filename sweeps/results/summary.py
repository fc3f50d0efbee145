"""A configuration with the results of its seeds, and the order of configurations.

A seed whose lane diverged, or ended in an exception, is an unsolved seed and is also counted by its outcome. The metrics of a
configuration are defined in `sweeps.results.metrics`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from sweeps.config.space import Constraint, Direction, Objective, Search
from sweeps.results import metrics
from sweeps.results.statistics import Interval
from sweeps.store.records import Configuration
from sweeps.training.lane import LaneResult

LOG_OF_NO_ERROR = 400.0
"""log10 of an error that is missing or infinite, for medians: finite, and greater than that of any double (308.3). An error of
exactly 0 has minus this."""

WORST = 1e300
"""Replaces an objective that no seed defines, such as the median converged-at of no solved seed. Finite, so that samplers
accept it; worse than any value."""


@dataclass(frozen=True)
class Summary:
    """The metrics of one configuration over its finished seeds, each computed when it is first read."""

    results: tuple[LaneResult, ...]
    """In order of their seeds."""
    _values: dict[tuple[str, Direction | None], Interval] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def seeds(self) -> int:
        """Finished seeds."""
        return len(self.results)

    @property
    def solved(self) -> int:
        """Solved seeds."""
        return self._count(metrics.SOLVED_SEEDS)

    @property
    def diverged(self) -> int:
        """Seeds whose loss or weights became infinite or NaN."""
        return self._count(metrics.DIVERGED)

    @property
    def errors(self) -> int:
        """Seeds that ended in an exception."""
        return self._count(metrics.ERRORS)

    def _count(self, metric: metrics.ConfigurationMetric) -> int:
        return int(self.value(metric.name).estimate or 0)

    @cached_property
    def log_error_median(self) -> float:
        """Median over all seeds of log10 of the extrapolation error. Finite: see `LOG_OF_NO_ERROR`."""
        logs = [log_error(result.error.get("extrapolation")) for result in self.results]
        return float(np.median(logs)) if logs else LOG_OF_NO_ERROR

    def value(self, metric: str, direction: Direction | None = None) -> Interval:
        """Return a configuration metric by name; empty where no seed defines it.

        `direction` matters for a task's score only: see `metrics.score_median`. Raises UserError for an unknown metric.
        """
        if (metric, direction) not in self._values:
            self._values[metric, direction] = metrics.find(metric, direction).value(self.results)
        return self._values[metric, direction]

    def shown(self, metric: str, direction: Direction | None = None) -> Interval:
        """Return a metric as `value` does, for people: see `ConfigurationMetric.shown`."""
        return metrics.find(metric, direction).shown(self.value(metric, direction), self.results)

    def columns(self, estimate: str = ".estimate") -> dict[str, float | None]:
        """Return every metric by its columns, in the order of the registry: see `ConfigurationMetric.columns`."""
        return {
            column: number
            for metric in metrics.configuration_metrics(self.results)
            for column, number in metric.columns(self.value(metric.name), estimate).items()
        }

    def methods(self) -> dict[str, str]:
        """Return, as `<base>.interval`, the kind of every interval that depends on the values, such as gamma or bounded."""
        return {
            f"{metric.name.removesuffix('.mean')}.interval": value.method
            for metric in metrics.configuration_metrics()
            if (value := self.value(metric.name)).method
        }


def summarise(results: Iterable[LaneResult]) -> Summary:
    """Return the summary of one configuration's finished lanes, given in any order."""
    # By seed, so that sums round alike in any order of arrival.
    return Summary(tuple(sorted(results, key=lambda result: result.seed)))


def objective_value(
    summary: Summary, objective: str = Objective.name, direction: Direction = "minimize"
) -> tuple[float, float]:
    """Return (value, tie-break), both finite; the value in the objective's own direction, ties lowest first.

    A value that no seed defines is `WORST`, or minus that where it is maximised. The tie-break is the median log
    extrapolation error: without it most of a search is one flat par2. Raises UserError for an unknown objective.
    """
    value = summary.value(objective, direction).estimate
    if value is None or not math.isfinite(value):
        value = -WORST if direction == "maximize" else WORST
    return value, summary.log_error_median


def value_of(summary: Summary, constraint: Constraint) -> float | None:
    """Return the value of the metric that a constraint limits; None where no seed defines it."""
    return summary.value(constraint.name, "maximize" if constraint.bound == "at_least" else "minimize").estimate


def excesses(summary: Summary, search: Search) -> tuple[float, ...]:
    """Return by how much each constraint of a search is broken: `Constraint.excess`."""
    return tuple(constraint.excess(value_of(summary, constraint)) for constraint in search.constraints)


@dataclass(frozen=True, order=True)
class Standing:
    """What configurations are put in order by, lowest first."""

    violation: float
    """Sum of what is beyond the constraints, each in its own unit; 0 where all are met, infinite where no seed defines one."""
    values: tuple[float, ...]
    """Of the objectives, in the order of the file, each with the sign that makes lower better; infinite where undefined."""
    tie_break: float
    """The median log extrapolation error."""


def objective_values(summary: Summary, search: Search) -> tuple[float, ...]:
    """Return the values of all objectives, in the order of the file; one that no seed defines is infinite, and the worst."""
    values = []
    for objective in search.objectives:
        value = summary.value(objective.name, objective.direction).estimate
        worst = -math.inf if objective.direction == "maximize" else math.inf
        values.append(worst if value is None or not math.isfinite(value) else value)
    return tuple(values)


def standing(summary: Summary, search: Search) -> Standing:
    """Return what puts a configuration in order. The lowest of several is one of the best, also of several objectives."""
    given = zip(search.objectives, objective_values(summary, search), strict=True)
    values = [-value if objective.direction == "maximize" else value for objective, value in given]
    violation = sum(max(0.0, excess) for excess in excesses(summary, search))
    return Standing(violation, tuple(values), summary.log_error_median)


@dataclass(frozen=True)
class Place:
    """The place of one of several configurations."""

    position: int
    """Of it among those given."""
    rank: int
    """1 is the best. Of several objectives all on one front share a rank: 1 is the Pareto front, on which none is worse than
    another in every objective."""


def rank(summaries: Sequence[Summary], search: Search) -> list[Place]:
    """Return the places of configurations, best first: those that meet all constraints, then by how much they break them.

    Ties, and those on one front, are in the order of the first objective, then of the others, then of the error. Full ties
    keep their order: the earlier one wins. Raises UserError for an unknown metric.
    """
    found = [standing(summary, search) for summary in summaries]
    order = sorted(range(len(found)), key=lambda position: found[position])
    if not search.further_objectives:
        return [Place(position, place) for place, position in enumerate(order, start=1)]
    places: list[Place] = []
    for _, group in itertools.groupby(order, key=lambda position: found[position].violation):
        members = list(group)
        behind = places[-1].rank if places else 0
        fronts = _fronts([found[position].values for position in members])
        places += [Place(members[i], behind + 1 + fronts[i]) for i in sorted(range(len(members)), key=fronts.__getitem__)]
    return places


def _fronts(points: Sequence[tuple[float, ...]]) -> list[int]:
    """Return the number of the front of each point, from 0. The points are sorted, so that none dominates an earlier one."""
    fronts: list[list[tuple[float, ...]]] = []
    numbers = []
    for point in points:
        # If a point of a front dominates this one, so does one of every front before.
        low, high = 0, len(fronts)
        while low < high:
            middle = (low + high) // 2
            table = np.array(fronts[middle])
            dominated = bool(np.any(np.all(table <= point, axis=1) & np.any(table < point, axis=1)))
            low, high = (middle + 1, high) if dominated else (low, middle)
        if low == len(fronts):
            fronts.append([])
        fronts[low].append(point)
        numbers.append(low)
    return numbers


def best_of_search(cell: Sequence[RankedConfiguration], search: Search, top: int) -> list[RankedConfiguration]:
    """Return the best complete configurations of a cell by their results in the search, which confirmation trains again.

    A configuration that was suggested again is there once.
    """
    complete: dict[tuple[int, frozenset[str]], RankedConfiguration] = {}
    for one in cell:
        if one.state == "complete":
            complete.setdefault((one.budget, frozenset(one.configuration.keys.values())), one)
    different = list(complete.values())
    return [different[place.position] for place in rank([one.summary for one in different], search)[:top]]


def meets_target(summaries: Sequence[Summary], target: float, search: Search) -> int | None:
    """Return the position of the best summary, if the lower end of its success rate's 95 % interval is above `target`.

    None also where it breaks a constraint.
    """
    if not summaries:
        return None
    best = rank(summaries, search)[0].position
    low = summaries[best].value(metrics.SUCCESS_RATE.name).low
    return best if low is not None and low > target and standing(summaries[best], search).violation == 0 else None


@dataclass(frozen=True, kw_only=True)
class RankedConfiguration:
    """A configuration with the results of its finished lanes and its rank."""

    configuration: Configuration
    results: tuple[LaneResult, ...]
    """In order of their seeds."""
    rank: int | None = None
    """1 is the best of the cell, or of several objectives on its Pareto front, where others may be as well. Only complete
    configurations have one: others may still change."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Searched path -> value. Configuration 0 has the file's own values here."""
    repeats: tuple[Configuration, ...] = ()
    """Later suggestions of the same values, which have the same lanes."""
    confirmation: tuple[LaneResult, ...] = ()
    """Results on fresh seeds, in order of their seeds; empty for a configuration that is not among the best."""
    seeds_to_confirm: int = 0
    """Fresh seeds that were asked for."""

    @cached_property
    def summary(self) -> Summary:
        """Of the finished lanes."""
        return summarise(self.results)

    @cached_property
    def confirmed(self) -> Summary | None:
        """Of the fresh seeds; None while one is missing."""
        return summarise(self.confirmation) if len(self.confirmation) == self.seeds_to_confirm > 0 else None

    @property
    def at_rung(self) -> bool:
        """Whether it was stopped before its seeds had their whole budget."""
        stopped = self.configuration.stopped
        return stopped is not None and stopped.steps < self.budget

    @property
    def state(self) -> str:
        """complete, pruned, failed, or running; running as long as a lane is missing."""
        stopped = self.configuration.stopped
        needed = len(self.configuration.keys) if stopped is None else stopped.seeds
        return self.configuration.state if len(self.results) == needed else "running"

    @property
    def budget(self) -> int:
        """train.steps."""
        return int(self.configuration.settings["train"]["steps"])


def log_error(error: float | None) -> float:
    """Return log10 of an error, finite: see `LOG_OF_NO_ERROR`."""
    if error is None or not math.isfinite(error):
        return LOG_OF_NO_ERROR
    return math.log10(error) if error > 0 else -LOG_OF_NO_ERROR
