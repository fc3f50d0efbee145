"""The report as plain data: configurations by cell, best first, with their figures, and totals."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sweeps.config.compare import values_at
from sweeps.errors import StoreError
from sweeps.results.summary import Summary, objective_figure, rank, summarise
from sweeps.store import Store
from sweeps.store.records import Configuration, SweepRow
from sweeps.training.lane import LaneResult


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One configuration with what came of it, and where that puts it in its cell."""

    configuration: Configuration
    records: tuple[LaneResult, ...]
    """Its finished lanes, by seed."""
    summary: Summary
    """Of those lanes."""
    state: str
    """complete, failed, or running, which it is as long as a lane is missing."""
    rank: int | None
    """1 is the best of the cell. Only complete configurations have one: others may still change."""
    parameters: dict[str, Any]
    """Searched path -> value. Configuration 0 has the file's own values here."""


def report(store: Store, name: str) -> dict[str, Any]:
    """One JSON-able object: `sweep`, `definition` (the parsed file), `configurations` and `totals`.

    Raises StoreError, with the nearest names, for a sweep that the store does not have.
    """
    row, found = standings(store, name)
    return {
        "sweep": row.name,
        "definition": row.document,
        "configurations": [_entry(standing, *objective_of(row.document)) for standing in found],
        "totals": _totals(row, found),
    }


def standings(store: Store, name: str) -> tuple[SweepRow, list[Standing]]:
    """The sweep's row, and its configurations by cell: best first, unranked last. Raises StoreError."""
    configurations = store.configurations(name)
    row = store.sweep(name)
    if row is None:  # `configurations` has said so already, unless it was removed in between
        raise StoreError(f"store {store.location} has no sweep named {name!r}")
    wanted = [(key, _budget(entry)) for entry in configurations for key in entry.keys.values()]
    records = store.records(wanted)
    found: list[Standing] = []
    for _, group in groupby(configurations, key=lambda entry: entry.cell):
        cell = list(group)
        paths = _searched_paths(row.document, cell)
        placed = [_standing(entry, records, paths) for entry in cell]
        found.extend(_ranked(placed, *objective_of(row.document)))
    return row, found


def objective_of(document: Mapping[str, Any]) -> tuple[str, str]:
    """(objective, direction) of a parsed sweep file; par2, minimised, where nothing is searched."""
    stated = (document.get("search") or {}).get("objective", "par2")
    if isinstance(stated, Mapping):
        name, direction = next(iter(stated.items()))
        return str(name), str(direction)
    return str(stated), "maximize" if stated == "success_rate" else "minimize"


def off_values(document: Mapping[str, Any]) -> dict[str, Any]:
    """Searched path -> the value that means off (its `or`), for those that can be off."""
    space = (document.get("search") or {}).get("space") or {}
    return {
        path: entry["or"] for path, entry in space.items() if isinstance(entry, Mapping) and "or" in entry
    }


def _standing(
    entry: Configuration, records: Mapping[tuple[str, int], LaneResult], paths: Sequence[str]
) -> Standing:
    budget = _budget(entry)
    present = [records[key, budget] for _, key in sorted(entry.keys.items()) if (key, budget) in records]
    return Standing(
        configuration=entry,
        records=tuple(present),
        summary=summarise(present, budget),
        state=entry.state if len(present) == len(entry.keys) else "running",
        rank=None,
        parameters=_own_values(entry, paths) if entry.number == 0 else dict(entry.parameters),
    )


def _ranked(placed: list[Standing], objective: str, direction: str) -> Iterator[Standing]:
    complete = [standing for standing in placed if standing.state == "complete"]
    for place, position in enumerate(rank([s.summary for s in complete], objective, direction), start=1):
        yield dataclasses.replace(complete[position], rank=place)
    yield from (standing for standing in placed if standing.state != "complete")


def _searched_paths(document: Mapping[str, Any], cell: Sequence[Configuration]) -> list[str]:
    """What this cell's configurations set, or, before any but the file's own is asked for, what they may."""
    used = sorted({path for entry in cell for path in entry.parameters})
    return used or sorted((document.get("search") or {}).get("space") or {})


def _own_values(entry: Configuration, paths: Sequence[str]) -> dict[str, Any]:
    """The values that the file's own configuration has at the searched paths, of those that it has."""
    found = {path: values_at(entry.settings, path) for path in paths}
    return {path: values[0] for path, values in found.items() if values}


def _budget(entry: Configuration) -> int:
    return int(entry.settings["train"]["steps"])


def _entry(standing: Standing, objective: str, direction: str) -> dict[str, Any]:
    summary, entry = standing.summary, standing.configuration
    return {
        "cell": dict(entry.labels),
        "rank": standing.rank,
        "number": entry.number,
        "parameters": standing.parameters,
        "state": standing.state,
        "seeds_asked": len(entry.keys),
        "seeds": summary.seeds,
        "solved": summary.solved,
        "diverged": summary.diverged,
        "errors": summary.errors,
        "success_rate": dataclasses.asdict(summary.success_rate),
        "converged_at": {**dataclasses.asdict(summary.converged_at), "median": summary.converged_at_median},
        "sparsity_error": dataclasses.asdict(summary.sparsity_error),
        "par2": summary.par2,
        "objective": objective_figure(summary, objective, direction),
        "error": {split: {"median": median} for split, median in summary.error_medians.items()},
        "lanes": [lane_figures(record) for record in standing.records],
    }


def lane_figures(record: LaneResult) -> dict[str, Any]:
    """What a report says of one lane: nothing that may differ between equal lanes."""
    figures = {
        "seed": record.seed,
        "outcome": record.outcome,
        "solved": record.solved,
        "converged_at": record.converged_at,
        "sparsity_error": record.sparsity_error,
        "steps": record.steps,
        "error": dict(sorted(record.error.items())),
        "reason": record.reason,
    }
    further = {"scores": record.scores, "by_length": record.by_length}
    return figures | {name: value for name, value in further.items() if value}


def _totals(row: SweepRow, found: Sequence[Standing]) -> dict[str, Any]:
    # A lane that two configurations share was trained once.
    lanes = {record.id: record for standing in found for record in standing.records}
    asked = {(key, _budget(s.configuration)) for s in found for key in s.configuration.keys.values()}
    seed_steps = sum(record.steps for record in lanes.values())
    return {
        "state": row.state,
        "cells": len({standing.configuration.cell for standing in found}),
        "configurations": len(found),
        "lanes_asked": len(asked),
        "lanes": len(lanes),
        "solved": sum(record.solved for record in lanes.values()),
        "diverged": sum(record.outcome == "diverged" for record in lanes.values()),
        "errors": sum(record.outcome == "error" for record in lanes.values()),
        "seed_steps": seed_steps,
        "timing": {
            "sweep_seconds": row.seconds,
            "lane_seconds": sum(record.wall_time_s for record in lanes.values()),
            "seed_steps_per_second": seed_steps / row.seconds if row.seconds > 0 else None,
        },
    }
