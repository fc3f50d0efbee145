"""The numbers of a figure: which lanes, which columns, grouped how. Nothing here draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.catalog import nearest
from sweeps.cells import values_at
from sweeps.records import Record
from sweeps.report import Standing
from sweeps.statistics import Interval, wilson

SOLVED = "solved_fraction"
"""Fraction of seeds that have converged by a step, with Wilson's interval: the papers' figure."""
ACCURACIES = {f"{what}_accuracy": f"{what}_error" for what in ("symbol", "sequence")}
"""Fractions right instead of wrong. Padding is counted where the error's name ends on `_with_padding`."""
ACCURACIES |= {f"{right}_with_padding": f"{wrong}_with_padding" for right, wrong in ACCURACIES.items()}
FIGURES = ("success_rate", "converged_at", "sparsity_error", "par2")
"""What can stand against an axis of the sweep; so can the median of `error.<split>`."""


class FigureError(ValueError):
    """Nothing to draw, or no such column. The message says what there is."""


@dataclass(frozen=True)
class Line:
    """One line: of a seed, or over the seeds of a group, which then may have a band."""

    x: list[float]
    y: list[float]
    """NaN where there is no figure: the line has a gap."""
    band: tuple[list[float], list[float]] | None = None


@dataclass(frozen=True)
class Group:
    """What is drawn in one colour."""

    label: str
    lanes: int
    seeds: tuple[Line, ...]
    """Thin lines, one a seed; none for a fraction of seeds."""
    middle: Line
    """The median over seeds, or the fraction."""


def label_of(standing: Standing, by: Sequence[str], sweep: str = "") -> str:
    """The cell's labels on the axes `by`; of the sweep itself where it has no axes."""
    labels = standing.configuration.labels
    return ", ".join(labels[axis] for axis in by if axis in labels) or sweep


def check_axes(by: Iterable[str], standings: Sequence[Standing]) -> None:
    """Raises FigureError for an axis that the sweep does not have."""
    axes = list(dict.fromkeys(axis for s in standings for axis in s.configuration.labels))
    for axis in by:
        if axis not in axes:
            has = f"it has {', '.join(axes)}" if axes else "it has none: it compares nothing"
            raise FigureError(f"the sweep has no axis {axis!r}; {has}.{_hint(axis, axes)}")


def grouped(standings: Iterable[tuple[str, Standing]]) -> dict[str, list[Record]]:
    """Label -> lanes of all cells of that label, in order of appearance."""
    found: dict[str, list[Record]] = {}
    for label, standing in standings:
        found.setdefault(label, []).extend(standing.records)
    return {label: records for label, records in found.items() if records}


def against_step(label: str, records: Sequence[Record], y: str) -> Group:
    """A column of the learning curve, or `solved_fraction`, against the step."""
    if y == SOLVED:
        return Group(label, len(records), (), _solved(records))
    return _columns(label, records, y, "step", lambda record: record.curve)


def against_length(label: str, records: Sequence[Record], y: str) -> Group:
    """A column of the errors by length, or an accuracy, of every lane's final state."""
    return _columns(label, records, y, "length", lambda record: record.by_length)


def _columns(
    label: str, records: Sequence[Record], y: str, x: str, of: Callable[[Record], dict[str, list[Any]]]
) -> Group:
    stored = _stored_name(y, of, records)
    lines = []
    for record in records:
        columns = of(record)
        if columns.get(x) and stored in columns:
            values = [math.nan if v is None else float(v) for v in columns[stored]]
            lines.append(
                Line([float(v) for v in columns[x]], [1 - v for v in values] if stored != y else values)
            )
    if not lines:
        raise FigureError(_no_column(y, x, sorted({name for r in records for name in of(r)} - {x})))
    return Group(label, len(records), tuple(lines), _median(lines))


def _stored_name(y: str, of: Callable[[Record], dict[str, list[Any]]], records: Sequence[Record]) -> str:
    """`symbol_accuracy.extrapolation` is read from `symbol_error.extrapolation`."""
    if any(y in of(record) for record in records):
        return y
    name, dot, split = y.partition(".")
    return ACCURACIES.get(name, name) + dot + split


def _no_column(y: str, x: str, names: Sequence[str]) -> str:
    if not names:
        return (
            "no lane of the sweep was measured at several lengths: its task names no `curve_lengths`"
            if x == "length"
            else "no lane of the sweep has ended with a learning curve"
        )
    further = [SOLVED] if x == "step" else []
    return f"no lane has {y!r} against the {x}; there are {', '.join([*further, *names])}.{_hint(y, [*further, *names])}"


def _median(lines: Sequence[Line]) -> Line:
    """Over the lines that have a figure there. Lines that end early, as solved lanes may, keep their last figure."""
    places = sorted({place for line in lines for place in line.x})
    middle = []
    for place in places:
        values = sorted(value for value in (_last(line, place) for line in lines) if not math.isnan(value))
        half = len(values) // 2
        middle.append(
            math.nan
            if not values
            else values[half]
            if len(values) % 2
            else (values[half - 1] + values[half]) / 2
        )
    return Line(places, middle)


def _last(line: Line, place: float) -> float:
    before = [value for x, value in zip(line.x, line.y, strict=True) if x <= place]
    return before[-1] if before else math.nan


def _solved(records: Sequence[Record]) -> Line:
    """Steps up to the longest budget; a seed counts from its converged-at on, if it ended solved."""
    at = sorted(r.converged_at if r.converged_at is not None else r.budget for r in records if r.solved)
    steps = [0, *sorted(set(at) - {0}), max(r.budget for r in records)]
    rates = [wilson(sum(step <= now for step in at), len(records)) for now in steps]
    low, high = ([float(getattr(rate, end) or 0.0) for rate in rates] for end in ("low", "high"))
    return Line([float(step) for step in steps], [float(rate.estimate or 0.0) for rate in rates], (low, high))


def figure_of(standing: Standing, y: str) -> Interval:
    """A configuration's figure with its interval; empty where no seed gives it. Raises FigureError for an unknown one."""
    summary = standing.summary
    if y in ("success_rate", "converged_at", "sparsity_error"):
        found: Interval = getattr(summary, y)
        return found
    if y == "par2":
        return Interval(summary.par2)
    split = y.removeprefix("error.").removesuffix(".median")
    if y.startswith("error.") and split in summary.error_medians:
        return Interval(summary.error_medians[split])
    names = [*FIGURES, *(f"error.{split}" for split in summary.error_medians)]
    raise FigureError(f"no figure {y!r} of a configuration; there are {', '.join(names)}.{_hint(y, names)}")


def place_of(standing: Standing, x: str) -> float | str | None:
    """Where a configuration stands on an axis, or at a setting such as `train.lr`; None if it has no such thing."""
    if x in standing.configuration.labels:
        return standing.configuration.labels[x]
    found = values_at(standing.configuration.settings, x)
    if not found:
        return None
    number = isinstance(found[0], int | float) and not isinstance(found[0], bool)
    return float(found[0]) if number else str(found[0])


def _hint(word: str, known: Sequence[str]) -> str:
    near = nearest(word, known)
    return f" Did you mean {near!r}?" if near else ""
