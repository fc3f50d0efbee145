"""The report of a sweep: its configurations by cell, best first, with their metrics, and totals."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from sweeps.config.compare import values_at
from sweeps.config.space import Constraint, EarlyStopping, Search
from sweeps.config.sweep_file import stored_confirm, stored_search, stored_seeds, stored_stopping, stored_target
from sweeps.errors import StoreError
from sweeps.results import metrics
from sweeps.results.statistics import Interval, rate_difference
from sweeps.results.summary import (
    RankedConfiguration,
    Summary,
    best_of_search,
    excesses,
    meets_target,
    rank,
    standing,
)
from sweeps.results.verdicts import Verdict, unsolved, verdict
from sweeps.store import Store
from sweeps.store.records import Configuration, SweepRow
from sweeps.training.lane import LaneResult

if TYPE_CHECKING:
    from sweeps.search.importance import Importance

BY_BUDGET = (metrics.PAR2.name, metrics.RESTRICTED_MEAN.name)
"""Metrics to which an unsolved seed contributes its budget: not known of one that was stopped before its budget was spent."""
LEAST_COMPLETE = 4
"""Complete configurations of a cell for which the importance of parameters is computed."""


@dataclass(frozen=True, kw_only=True)
class EndedCell:
    """A cell that met `budget.target` before all its configurations were tried."""

    labels: dict[str, str]
    best: int
    """Number of the configuration that met it."""
    success_rate_low: float
    """Lower end of the 95 % interval of its success rate."""
    target: float
    tried: int
    not_tried: int | None
    """None for a grid, of which only the models know the size."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The results of one sweep. The same records give an equal report, except for the row's times."""

    row: SweepRow
    search: Search
    """Of the stored sweep file; the default objective and an empty space if nothing is searched."""
    early_stopping: EarlyStopping = field(default_factory=EarlyStopping)
    """Of the stored sweep file."""
    configurations: tuple[RankedConfiguration, ...]
    """By cell: best first, unranked last. One that was suggested several times is there once, with its `repeats`."""
    ended_by_target: tuple[EndedCell, ...] = ()
    """Cells that will try no further configuration, since they met `budget.target`."""
    _importances: dict[str, Importance | None] = field(default_factory=dict, init=False, repr=False, compare=False)
    """By cell: it takes seconds for thousands of configurations."""
    _verdicts: dict[int, tuple[LaneResult, Verdict]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """By the identity of the result, which is kept with it."""

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

    def judged_by(self, one: RankedConfiguration) -> Summary:
        """Return the results that rank it: on fresh seeds where it is confirmed, unless there are several objectives."""
        return one.summary if one.confirmed is None or self.search.further_objectives else one.confirmed

    def broken_constraints(self, one: RankedConfiguration) -> list[Constraint]:
        """Return the constraints that a complete configuration does not meet."""
        constraints = self.search.constraints if one.state == "complete" else ()
        found = zip(constraints, excesses(self.judged_by(one), self.search), strict=False)
        return [constraint for constraint, excess in found if excess > 0]

    def verdict_of(self, result: LaneResult) -> Verdict:
        """Return the verdict of a result, computed once."""
        if id(result) not in self._verdicts:
            self._verdicts[id(result)] = result, verdict(result)
        return self._verdicts[id(result)][1]

    def is_judged(self) -> bool:
        """Return whether seeds can be solved: the task has a threshold."""
        return metrics.are_judged([result for one in self.configurations for result in one.results])

    def nothing_solved(self, cell: Sequence[RankedConfiguration]) -> bool:
        """Return whether a cell has a best configuration, and not one seed of its complete ones is solved."""
        complete = [one for one in cell if one.state == "complete"]
        return any(one.rank == 1 for one in cell) and not any(
            summary.solved for one in complete for summary in (one.summary, one.confirmed) if summary is not None
        )

    def has_winner(self, cell: Sequence[RankedConfiguration]) -> bool:
        """Return whether the configurations of rank 1 of a cell are named its best.

        They are not where the task has a threshold and nothing is solved, unless they are a Pareto front.
        """
        if not any(one.rank == 1 for one in cell):
            return False
        return bool(self.search.further_objectives) or not self.nothing_solved(cell) or not self.is_judged()

    def is_marked(self, cell: Sequence[RankedConfiguration]) -> bool:
        """Return whether the tables mark those of rank 1 as the best: the cell has a winner that meets all constraints."""
        return self.has_winner(cell) and not self.broken_constraints(cell[0])

    def is_without_winner(self) -> bool:
        """Return whether no cell has a winner, although there are ranked configurations."""
        ranked = [cell for cell in self.cells() if cell[0].rank == 1]
        return bool(ranked) and not any(map(self.has_winner, ranked))

    def ranked_by_error(self, cell: Sequence[RankedConfiguration]) -> bool:
        """Return whether nothing is solved, the objectives say nothing without a solved seed, and so the error decides."""
        found = [metrics.find(objective.name, objective.direction) for objective in self.search.objectives]
        decided = not self.search.constraints and all(metric.needs_solved_seeds for metric in found)
        return decided and self.nothing_solved(cell)

    def tied(self, cell: Sequence[RankedConfiguration]) -> list[RankedConfiguration]:
        """Return the first configurations of a cell that differ in their error only; none where the first one is alone."""
        found: list[RankedConfiguration] = []
        for one in cell:
            if one.rank is None or (one.confirmed is None) != (cell[0].confirmed is None):
                break
            first, own = (standing(self.judged_by(each), self.search) for each in (cell[0], one))
            if (own.violation, own.values) != (first.violation, first.values):
                break
            found.append(one)
        return found if len(found) > 1 else []

    def objectives_of(self, one: RankedConfiguration) -> dict[str, float | None]:
        """Return the value of every objective by name; see `objective_of`."""
        return {
            objective.name: None if one.at_rung else one.summary.value(objective.name, objective.direction).estimate
            for objective in self.search.objectives
        }

    def objective_of(self, one: RankedConfiguration) -> float | None:
        """Return the value of the (first) objective; None where no seed defines it, and for what was stopped at a rung."""
        return None if one.at_rung else one.summary.value(self.search.objective.name, self.search.objective.direction).estimate

    def as_dict(self, timing: bool = True) -> dict[str, Any]:
        """Return one JSON-able object: `sweep`, `definition` (the parsed file), `configurations` and `totals`.

        Without `timing` the same records give the same object.
        """
        ended = [dataclasses.asdict(cell) | {"cell": cell.labels} for cell in self.ended_by_target]
        for cell in ended:
            del cell["labels"]
        return {
            "sweep": self.name,
            "definition": self.row.document,
            "configurations": [self._entry(one) for one in self.configurations],
            **({"ended_by_target": ended} if ended else {}),
            **self._importance(),
            "totals": self.totals(timing),
        }

    def _importance(self) -> dict[str, Any]:
        """Return the importance of the parameters of every cell that has one; nothing if none has."""
        found = [(cell[0].configuration.labels, self.importance_of(cell)) for cell in self.cells()]
        entries = [
            {"cell": dict(labels), **dataclasses.asdict(one), "caution": one.caution}
            for labels, one in found
            if one is not None
        ]
        return {"importance": entries} if entries else {}

    def importance_of(self, cell: Sequence[RankedConfiguration]) -> Importance | None:
        """Return how much each parameter of a cell matters; None for fewer than four complete configurations.

        Those that were stopped early count as worse than all complete ones, the earlier the worse, then by their results.
        Also None where fewer than two parameters vary.
        """
        key = cell[0].configuration.cell if cell else ""
        if key not in self._importances:
            self._importances[key] = self._computed_importance(cell)
        return self._importances[key]

    def _computed_importance(self, cell: Sequence[RankedConfiguration]) -> Importance | None:
        searched = {path for one in cell for path in one.parameters} & set(self.search.space)
        complete = [one for one in cell if one.state == "complete"]
        if len(complete) < LEAST_COMPLETE or not searched:
            return None
        from sweeps.search.importance import importance  # here, because Optuna need not be imported for other reports

        summaries = [one.summary for one in complete]
        if self.search.further_objectives:  # then it is what brings a configuration to the first fronts
            ranks = [place.rank - 1 for place in sorted(rank(summaries, self.search), key=lambda place: place.position)]
        else:
            found = [standing(summary, self.search) for summary in summaries]
            ranks = _dense(found)
        stopped = [one for one in cell if one.state == "pruned"]
        reached = [(-one.results[-1].budget, -len(one.results), standing(one.summary, self.search)) for one in stopped]
        ranks += [len(complete) + place for place in _dense(reached)]
        space = {path: dimension for path, dimension in self.search.space.items() if path in searched}
        compared = [{path: value for path, value in one.parameters.items() if path in space} for one in (*complete, *stopped)]
        return importance(space, compared, ranks)

    def _entry(self, one: RankedConfiguration) -> dict[str, Any]:
        return {
            "cell": dict(one.configuration.labels),
            "rank": one.rank,
            "number": one.configuration.number,
            "repeats": [repeated.number for repeated in one.repeats],
            "parameters": one.parameters,
            "state": one.state,
            **({"broken_constraints": list(map(str, self.broken_constraints(one)))} if self.search.constraints else {}),
            "seeds_asked": len(one.configuration.keys),
            **self.figures_of(one),
            **self._early_end(one),
            "unsolved": self._unsolved(one.results),
            "solved_fraction": [{"step": step, **_ends(share)} for step, share in metrics.solved_fraction(one.results)],
            "lanes": [_lane(result, self.verdict_of(result)) for result in one.results],
        }

    def _unsolved(self, results: Sequence[LaneResult]) -> list[dict[str, Any]]:
        groups = unsolved(results, self.verdict_of)
        return [dataclasses.asdict(group) | {"seeds": list(group.seeds)} for group in groups]

    def _early_end(self, one: RankedConfiguration) -> dict[str, Any]:
        """Return where early stopping stopped a configuration, and its confirmation, as far as there are any."""
        found: dict[str, Any] = {}
        if one.state == "pruned" and one.configuration.stopped is not None:
            found["stopped"] = dataclasses.asdict(one.configuration.stopped)
        if one.seeds_to_confirm:
            found["confirmation"] = {
                "seeds_asked": one.seeds_to_confirm,
                **self.figures_of(dataclasses.replace(one, results=one.confirmation)),
                "shrinkage": shrinkage(one),
                "unsolved": self._unsolved(one.confirmation),
                "lanes": [_lane(result, self.verdict_of(result)) for result in one.confirmation],
            }
        return found

    def columns_of(self, one: RankedConfiguration) -> dict[str, float | None]:
        """Return every metric of a configuration by its columns. One that was stopped at a rung has none of `BY_BUDGET`."""
        hidden = {name: None for name in one.summary.columns() if name.split(".")[0] in BY_BUDGET} if one.at_rung else {}
        return one.summary.columns() | hidden

    def figures_of(self, one: RankedConfiguration) -> dict[str, Any]:
        """Return the metrics of a configuration as nested mappings, `{success_rate: {estimate: ..., low: ..., high: ...}}`.

        `error` and `scores` hold the medians of what depends on the task.
        """
        values: dict[str, Any] = dict(self.columns_of(one))
        scores = {name for result in one.results for name in result.scores}
        medians = {name: {"median": values.pop(metrics.score_median(name).name)} for name in sorted(scores)}
        errors = {name: values.pop(name) for name in list(values) if name.startswith("error.")}
        several = {"objectives": self.objectives_of(one)} if self.search.further_objectives else {}
        figures = (
            nested(values | one.summary.methods())
            | {"objective": self.objective_of(one)}
            | several
            | {"error": {}}
            | nested(errors)
        )
        return figures | ({"scores": medians} if medians else {})

    def totals(self, timing: bool = True) -> dict[str, Any]:
        """Return counts over the whole sweep. A lane that two configurations share was trained once."""
        lanes = {result.id: result for one in self.configurations for result in (*one.results, *one.confirmation)}
        requested = {(key, one.budget) for one in self.configurations for key in one.configuration.keys.values()}
        fresh = len({result.id for one in self.configurations for result in one.confirmation} - requested)
        counts = (metrics.SOLVED_SEEDS, metrics.SOLVED_SEEDS_AT_END, metrics.DIVERGED, metrics.ERRORS, metrics.SEED_STEPS)
        counted = {metric.name: metric.value(list(lanes.values())).estimate for metric in counts}
        totals: dict[str, Any] = {
            "state": self.row.state,
            "cells": len(self.cells()),
            "configurations": len(self.configurations),
            "repeats": sum(len(one.repeats) for one in self.configurations),
            "lanes_asked": len(requested) + max(fresh, sum(one.seeds_to_confirm for one in self.configurations)),
            "lanes": len(lanes),
            **counted,
        }
        if self.early_stopping != EarlyStopping():
            totals["early_stopping"] = self._saved()
        if timing:
            seconds, seed_steps = self.row.seconds, counted[metrics.SEED_STEPS.name] or 0
            totals["timing"] = {
                "sweep_seconds": seconds,
                "lane_seconds": sum(result.wall_time_s for result in lanes.values()),
                "seed_steps_per_second": seed_steps / seconds if seconds > 0 else None,
            }
        return totals

    def _saved(self) -> dict[str, Any]:
        """Return what early stopping saved: configurations, lanes and seed-steps, these at most, since lanes may end early."""
        stopped = [one for one in self.configurations if one.state == "pruned"]
        planned = sum(len(one.configuration.keys) * one.budget for one in self.configurations)
        lanes = sum(len(one.configuration.keys) - len(one.results) for one in stopped)
        cut = sum(result.budget < one.budget for one in stopped for result in one.results)
        done = sum(result.steps for one in stopped for result in one.results)
        saved = sum(len(one.configuration.keys) * one.budget for one in stopped) - done
        return {
            "configurations_stopped": len(stopped),
            "lanes_never_run": lanes,
            "lanes_cut_short": cut,
            "seed_steps_saved": saved,
            "share_saved": saved / planned if planned else 0.0,
        }


def _dense(values: Sequence[Any]) -> list[int]:
    """Return the place of each value among the different ones, the lowest first."""
    places = {value: place for place, value in enumerate(sorted(set(values)))}
    return [places[value] for value in values]


def shrinkage(one: RankedConfiguration) -> dict[str, Any] | None:
    """Return the success rate on fresh seeds minus that of the search, with Newcombe's interval; None while it is not known.

    It is expected to be negative: the best of many was chosen by its results in the search.
    """
    fresh, search = one.confirmed, one.summary
    if fresh is None:
        return None
    compared = rate_difference((search.solved, search.seeds), (fresh.solved, fresh.seeds))
    return None if compared.estimate is None else _ends(compared)


def report(store: Store, name: str) -> Report:
    """Return the report of a sweep. Raises StoreError, with the nearest names, for one that the store does not have."""
    configurations = store.configurations(name)
    row = store.known_sweep(name)
    search = stored_search(row.document) or Search(configurations=1)
    confirm, seeds = stored_confirm(row.document), stored_seeds(row.document)
    fresh = set(confirm.seeds) if confirm is not None else set()
    every = [_Stored.of(entry, seeds, fresh) for entry in configurations]
    records = store.records(id_ for one in every for id_ in (*one.lanes, *one.fresh))
    target, stopping = stored_target(row.document), stored_stopping(row.document)
    found: list[RankedConfiguration] = []
    ended: list[EndedCell] = []
    for _, group in groupby(every, key=lambda one: one.configuration.cell):
        cell = list(group)
        paths = sorted({path for one in cell for path in one.configuration.parameters}) or sorted(search.space)
        entries = [_with_results(one, records, paths) for one in cell]
        if confirm is not None:
            entries = _with_confirmation(entries, cell, records, best_of_search(entries, search, confirm.top))
        if target is not None and (met := _ended_by_target(entries, search, stopping, target)) is not None:
            ended.append(met)
        found.extend(ranked(_once_each(entries), search))
    return Report(row=row, search=search, early_stopping=stopping, configurations=tuple(found), ended_by_target=tuple(ended))


def _ended_by_target(
    cell: Sequence[RankedConfiguration], search: Search, stopping: EarlyStopping, target: float
) -> EndedCell | None:
    """Return how a cell met its target, by the driver's rule: before a configuration is suggested, from those it needs."""
    from sweeps.search import is_grid  # here, because it loads optuna, which other reports can do without

    tried, grid = len(cell), is_grid(search)
    if not any(one.parameters for one in cell) or (not grid and tried >= search.configurations):
        return None  # it has nothing to search, or everything was tried
    needed = [one for one in cell if one.configuration.number in search.needs(tried, stopping.race is not None)]
    complete = [one for one in needed if one.state == "complete"]
    if any(one.state == "running" for one in needed):
        return None
    best = meets_target([one.summary for one in complete], target, search)
    if best is None:
        return None
    low = complete[best].summary.value(metrics.SUCCESS_RATE.name).low
    return EndedCell(
        labels=dict(cell[0].configuration.labels), best=complete[best].configuration.number, success_rate_low=low or 0.0,
        target=target, tried=tried, not_tried=None if grid else search.configurations - tried,
    )  # fmt: skip


@dataclass(frozen=True)
class _Stored:
    """A configuration of the store with the lanes that a report is about, as (key, budget), in order of their seeds."""

    configuration: Configuration
    """Its keys are those of the search's seeds."""
    lanes: list[tuple[str, int]]
    fresh: list[tuple[str, int]]
    """Of the confirmation."""

    @classmethod
    def of(cls, entry: Configuration, seeds: Sequence[int], fresh: Collection[int]) -> _Stored:
        """Sort a configuration's lanes. `seeds` are those of the search in their order, `fresh` those of the confirmation.

        Others may be stored: of an earlier confirmation. Without `seeds` all that are not fresh are of the search.
        """
        keys = {seed: key for seed, key in entry.keys.items() if (seed in set(seeds) if seeds else seed not in fresh)}
        lanes, steps = keys, _budget(entry)
        if entry.stopped is not None:
            first = set([seed for seed in seeds or sorted(keys) if seed in keys][: entry.stopped.seeds])
            lanes, steps = {seed: key for seed, key in keys.items() if seed in first}, entry.stopped.steps
        to_confirm = [(key, _budget(entry)) for seed, key in sorted(entry.keys.items()) if seed in fresh]
        of_search = [(key, steps) for _, key in sorted(lanes.items())]
        return cls(dataclasses.replace(entry, keys=keys), of_search, to_confirm)


def _once_each(cell: Sequence[RankedConfiguration]) -> list[RankedConfiguration]:
    """The configurations of a cell without those that have the lanes of an earlier one, which has them as `repeats`."""
    found: dict[tuple[int, tuple[tuple[int, str], ...]], RankedConfiguration] = {}
    for one in cell:
        lanes = one.budget, tuple(sorted(one.configuration.keys.items()))
        first = found.get(lanes)
        found[lanes] = one if first is None else dataclasses.replace(first, repeats=(*first.repeats, one.configuration))
    return list(found.values())


def ranked(cell: Sequence[RankedConfiguration], search: Search) -> Iterator[RankedConfiguration]:
    """Yield the configurations of one cell with their ranks: best first, those that are not complete last.

    Those that are confirmed come first, by their results on fresh seeds. Of several objectives the ranks are those of the
    search, since a front of a few would have no meaning among the others.
    """
    complete = [one for one in cell if one.state == "complete"]
    first = [one.confirmed is not None and not search.further_objectives for one in complete]
    confirmed = [one for one, by_fresh in zip(complete, first, strict=True) if by_fresh]
    others = [one for one, by_fresh in zip(complete, first, strict=True) if not by_fresh]
    for place in rank([one.confirmed for one in confirmed if one.confirmed is not None], search):
        yield dataclasses.replace(confirmed[place.position], rank=place.rank)
    for place in rank([one.summary for one in others], search):
        yield dataclasses.replace(others[place.position], rank=len(confirmed) + place.rank)
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


def _lane(result: LaneResult, found: Verdict) -> dict[str, Any]:
    return lane_figures(result) | {"verdict": {"kind": found.kind, "text": found.text, "crosses_at": found.crosses_at}}


def _ends(interval: Interval) -> dict[str, float | None]:
    return {"estimate": interval.estimate, "low": interval.low, "high": interval.high}


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


def _with_results(stored: _Stored, records: Mapping[tuple[str, int], LaneResult], paths: Sequence[str]) -> RankedConfiguration:
    entry = stored.configuration
    parameters = dict(entry.parameters)
    if entry.number == 0:  # the file's own values at the searched paths that it has
        found = {path: values_at(entry.settings, path) for path in paths}
        parameters = {path: values[0] for path, values in found.items() if values}
    return RankedConfiguration(
        configuration=entry,
        results=tuple(records[id_] for id_ in stored.lanes if id_ in records),
        parameters=parameters,
    )


def _with_confirmation(
    entries: Sequence[RankedConfiguration], cell: Sequence[_Stored], records: Mapping[tuple[str, int], LaneResult],
    best: Sequence[RankedConfiguration],
) -> list[RankedConfiguration]:  # fmt: skip
    """Return the configurations of a cell; the best of the search, and no others, with their results on fresh seeds."""
    numbers = {one.configuration.number for one in best}
    return [
        one
        if one.configuration.number not in numbers
        else dataclasses.replace(
            one,
            confirmation=tuple(records[id_] for id_ in stored.fresh if id_ in records),
            seeds_to_confirm=len(stored.fresh),
        )
        for one, stored in zip(entries, cell, strict=True)
    ]


def _budget(entry: Configuration) -> int:
    train = entry.settings.get("train")
    steps = train.get("steps") if isinstance(train, dict) else None
    if not isinstance(steps, int):
        raise StoreError(f"configuration {entry.number} of cell {entry.cell!r} is damaged: its train.steps is {steps!r}")
    return steps
