"""The report of a sweep: its configurations by cell, best first, with their metrics, and totals."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sweeps.config.compare import values_at
from sweeps.config.space import Objective, Search
from sweeps.config.sweep_file import stored_search
from sweeps.errors import StoreError
from sweeps.results import metrics
from sweeps.results.summary import RankedConfiguration, rank
from sweeps.store import Store
from sweeps.store.records import Configuration, SweepRow
from sweeps.training.lane import LaneResult


@dataclass(frozen=True, kw_only=True)
class Report:
    """The results of one sweep. The same records give an equal report, except for the row's times."""

    row: SweepRow
    search: Search
    """Of the stored sweep file; the default objective and an empty space if nothing is searched."""
    configurations: tuple[RankedConfiguration, ...]
    """By cell: best first, unranked last. One that was suggested several times is there once, with its `repeats`."""

    @property
    def name(self) -> str:
        """Name of the sweep."""
        return self.row.name

    def with_repeats(self) -> list[RankedConfiguration]:
        """Return every suggestion as a configuration of its own, with the rank of the one that it repeats."""
        return [
            dataclasses.replace(one, configuration=suggested, repeats=())
            for one in self.configurations
            for suggested in (one.configuration, *one.repeats)
        ]

    def cells(self) -> list[list[RankedConfiguration]]:
        """Return the configurations of each cell."""
        return [list(group) for _, group in groupby(self.configurations, key=lambda one: one.configuration.cell)]

    def objective_of(self, one: RankedConfiguration) -> float | None:
        """Return the value of the objective; None where no seed defines it."""
        return one.summary.value(self.search.objective.name, self.search.objective.direction).estimate

    def as_dict(self, timing: bool = True) -> dict[str, Any]:
        """Return one JSON-able object: `sweep`, `definition` (the parsed file), `configurations` and `totals`.

        Without `timing` the same records give the same object.
        """
        return {
            "sweep": self.name,
            "definition": self.row.document,
            "configurations": [self._entry(one) for one in self.configurations],
            "totals": self.totals(timing),
        }

    def _entry(self, one: RankedConfiguration) -> dict[str, Any]:
        return {
            "cell": dict(one.configuration.labels),
            "rank": one.rank,
            "number": one.configuration.number,
            "repeats": [repeated.number for repeated in one.repeats],
            "parameters": one.parameters,
            "state": one.state,
            "seeds_asked": len(one.configuration.keys),
            **self.figures_of(one),
            "lanes": [lane_figures(result) for result in one.results],
        }

    def figures_of(self, one: RankedConfiguration) -> dict[str, Any]:
        """Return the metrics of a configuration as nested mappings, `{success_rate: {estimate: ..., low: ..., high: ...}}`.

        `error` and `scores` hold the medians of what depends on the task.
        """
        values = one.summary.columns()
        scores = {name for result in one.results for name in result.scores}
        medians = {name: {"median": values.pop(metrics.score_median(name).name)} for name in sorted(scores)}
        errors = {name: values.pop(name) for name in list(values) if name.startswith("error.")}
        figures = nested(values) | {"objective": self.objective_of(one), "error": {}} | nested(errors)
        return figures | ({"scores": medians} if medians else {})

    def totals(self, timing: bool = True) -> dict[str, Any]:
        """Return counts over the whole sweep. A lane that two configurations share was trained once."""
        lanes = {result.id: result for one in self.configurations for result in one.results}
        requested = {(key, one.budget) for one in self.configurations for key in one.configuration.keys.values()}
        counts = (metrics.SOLVED_SEEDS, metrics.DIVERGED, metrics.ERRORS, metrics.SEED_STEPS)
        counted = {metric.name: metric.value(list(lanes.values())).estimate for metric in counts}
        totals: dict[str, Any] = {
            "state": self.row.state,
            "cells": len(self.cells()),
            "configurations": len(self.configurations),
            "repeats": sum(len(one.repeats) for one in self.configurations),
            "lanes_asked": len(requested),
            "lanes": len(lanes),
            **counted,
        }
        if timing:
            seconds, seed_steps = self.row.seconds, counted[metrics.SEED_STEPS.name] or 0
            totals["timing"] = {
                "sweep_seconds": seconds,
                "lane_seconds": sum(result.wall_time_s for result in lanes.values()),
                "seed_steps_per_second": seed_steps / seconds if seconds > 0 else None,
            }
        return totals


def report(store: Store, name: str) -> Report:
    """Return the report of a sweep. Raises StoreError, with the nearest names, for one that the store does not have."""
    configurations = store.configurations(name)
    row = store.sweep(name)
    if row is None:  # `configurations` has raised this already, unless it was removed in between
        raise StoreError(f"store {store.location} has no sweep named {name!r}")
    search = stored_search(row.document) or Search(configurations=1)
    wanted = [(key, _budget(entry)) for entry in configurations for key in entry.keys.values()]
    records = store.records(wanted)
    found: list[RankedConfiguration] = []
    for _, group in groupby(configurations, key=lambda entry: entry.cell):
        cell = list(group)
        paths = sorted({path for entry in cell for path in entry.parameters}) or sorted(search.space)
        found.extend(ranked(_once_each([_with_results(entry, records, paths) for entry in cell]), search.objective))
    return Report(row=row, search=search, configurations=tuple(found))


def _once_each(cell: Sequence[RankedConfiguration]) -> list[RankedConfiguration]:
    """The configurations of a cell without those that have the lanes of an earlier one, which has them as `repeats`."""
    found: dict[tuple[int, tuple[tuple[int, str], ...]], RankedConfiguration] = {}
    for one in cell:
        lanes = one.budget, tuple(sorted(one.configuration.keys.items()))
        first = found.get(lanes)
        found[lanes] = one if first is None else dataclasses.replace(first, repeats=(*first.repeats, one.configuration))
    return list(found.values())


def ranked(cell: Sequence[RankedConfiguration], objective: Objective) -> Iterator[RankedConfiguration]:
    """Yield the configurations of one cell with their ranks: best first, those that are not complete last."""
    complete = [one for one in cell if one.state == "complete"]
    order = rank([one.summary for one in complete], objective.name, objective.direction)
    for place, position in enumerate(order, start=1):
        yield dataclasses.replace(complete[position], rank=place)
    yield from (one for one in cell if one.state != "complete")


def lane_figures(result: LaneResult) -> dict[str, Any]:
    """Return what a report holds of one lane: nothing that may differ between equal lanes."""
    figures = {
        "seed": result.seed,
        "outcome": result.outcome,
        **{metric.name: metric.value(result) for metric in metrics.lane_metrics()},
        "error": dict(sorted(result.error.items())),
        "reason": result.reason,
    }
    further = {"scores": result.scores, "by_length": result.by_length}
    return figures | {name: value for name, value in further.items() if value}


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by dotted name as mappings within mappings: `success_rate.low` becomes `{success_rate: {low: ...}}`."""
    root: dict[str, Any] = {}
    for name, value in values.items():
        *groups, last = name.split(".")
        node = root
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = value
    return root


def _with_results(
    entry: Configuration, records: Mapping[tuple[str, int], LaneResult], paths: Sequence[str]
) -> RankedConfiguration:
    budget = _budget(entry)
    parameters = dict(entry.parameters)
    if entry.number == 0:  # the file's own values at the searched paths that it has
        found = {path: values_at(entry.settings, path) for path in paths}
        parameters = {path: values[0] for path, values in found.items() if values}
    return RankedConfiguration(
        configuration=entry,
        results=tuple(records[key, budget] for _, key in sorted(entry.keys.items()) if (key, budget) in records),
        parameters=parameters,
    )


def _budget(entry: Configuration) -> int:
    train = entry.settings.get("train")
    steps = train.get("steps") if isinstance(train, dict) else None
    if not isinstance(steps, int):
        raise StoreError(f"configuration {entry.number} of cell {entry.cell!r} is damaged: its train.steps is {steps!r}")
    return steps
