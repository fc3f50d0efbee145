"""Figures of a sweep.

    lines       learning curves and seeds converged against the step, or errors by length: the best configuration of each cell
    points      metrics against an axis, or against a setting such as train.lr
    parallel    every configuration as a line through its searched settings and its objectives
    importance  how much each searched setting matters
    pareto      two metrics against each other, with the configurations that no other one beats in both

`draw` draws one of them; `standard_figures` returns those that suit a sweep. How they look is in `sweeps.results.drawing`.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
import re
import textwrap
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweeps.config.compare import values_at
from sweeps.config.diff import leaves
from sweeps.config.registry import nearest
from sweeps.config.space import Dimension
from sweeps.results import metrics
from sweeps.results.drawing import (
    COLOURS,
    DASHES,
    GREY,
    HATCHES,
    MARKERS,
    FigureError,
    Style,
    category_axis,
    finished,
    grid,
    label_of,
    length_axis,
    numbers_axis,
    panel_points,
    panel_title,
    panels,
    plain,
    save,
    scale_numbers,
    scale_x,
    scale_y,
    share_axis,
    steps_axis,
    threshold_lines,
    unit_of,
    width_of,
    write,
)
from sweeps.results.formats import ON, SHORT_NAMES, parameters, shown_value
from sweeps.results.metrics import StepMetric
from sweeps.results.numbers import number, percent, steps
from sweeps.results.report import Report, report
from sweeps.results.statistics import Interval
from sweeps.results.summary import RankedConfiguration
from sweeps.store import Store
from sweeps.training.lane import LaneResult

__all__ = ["KINDS", "FigureError", "Style", "draw", "draw_reports", "save", "standard_figures", "write"]

KINDS = ("lines", "points", "parallel", "importance", "pareto")
SECTIONS = ("train", "model", "task")
OTHERS = ("any", "best")
"""What the other searched settings are when a metric is drawn against one: of any value, or those of the best configuration."""
MOST_POINTS = 12_000
"""Points of the thin lines of one panel: of longer curves every n-th evaluation is drawn."""
MARKER, LEAST_APART = 7.0, 5.0
"""Points between the centres of markers that are beside each other, and the least of two or three of them."""
MOST_BARS = 24
"""Configurations of one colour that have bars; more of them have none, and a line of means."""
STYLE = Style()
BINS = 8
FEWEST_BINNED = 9
MOST_BANDS = 5
"""Lines of one panel that have bands; more of them have a bar at the end each."""
MOST_DRAWN = 300
"""Lines of one panel of parallel coordinates: the best third, and others at even distances."""
MOST_MARKED = 2000
"""Points of one colour; of more every n-th is drawn."""
LONGEST_NAME = 28
"""Letters of a line of a setting's name beside its importance."""
MOST_NAMED = 5
"""Configurations that are named for one reason why they are not drawn."""
MOST_PANELS = 6
"""Cells that a parallel or an importance figure has panels for."""


@dataclass(frozen=True)
class Line:
    """One line: of a seed, or over the seeds of a group, which then may have a band."""

    x: list[float]
    y: list[float]
    """NaN where there is no value: the line has a gap."""
    band: tuple[list[float], list[float]] | None = None


@dataclass(frozen=True)
class Group:
    """The lines of one colour."""

    label: str
    lanes: int
    seeds: tuple[Line, ...]
    """Thin lines, one a seed; none for a fraction of seeds."""
    middle: Line
    """The median over seeds, or the fraction."""


def legend_label(one: RankedConfiguration, by: Sequence[str], sweep: str = "") -> str:
    """Return the cell's labels on the axes `by`; the sweep's name where it has no axes."""
    labels = one.configuration.labels
    return ", ".join(labels[axis] for axis in by if axis in labels) or sweep


def check_axes(by: Iterable[str], configurations: Sequence[RankedConfiguration]) -> None:
    """Raise FigureError for an axis that the sweep does not have."""
    axes = list(dict.fromkeys(axis for one in configurations for axis in one.configuration.labels))
    for axis in by:
        if axis not in axes:
            has = f"it has {', '.join(axes)}" if axes else "it has none: it compares nothing"
            raise FigureError(f"the sweep has no axis {axis!r}; {has}.{_hint(axis, axes)}")


def grouped(configurations: Iterable[tuple[str, RankedConfiguration]]) -> dict[str, list[LaneResult]]:
    """Return label -> lanes of all cells of that label, in order of appearance."""
    found: dict[str, list[LaneResult]] = {}
    for label, one in configurations:
        found.setdefault(label, []).extend(one.results)
    return {label: results for label, results in found.items() if results}


def against_step(label: str, results: Sequence[LaneResult], y: str) -> Group:
    """Return a column of the learning curve, or a metric against the step such as `solved_fraction`."""
    for metric in metrics.step_metrics():
        if metric.name == y:
            return Group(label, len(results), (), _share_line(metric, results))
    return _columns(label, results, y, "step", lambda result: result.curve)


def against_length(label: str, results: Sequence[LaneResult], y: str) -> Group:
    """Return a column of the errors by length, or an accuracy, of every lane's final state."""
    return _columns(label, results, y, "length", lambda result: result.by_length)


def _share_line(metric: StepMetric, results: Sequence[LaneResult]) -> Line:
    points = metric.value(results, None)
    band = [rate.low or 0.0 for _, rate in points], [rate.high or 0.0 for _, rate in points]
    return Line([float(step) for step, _ in points], [rate.estimate or 0.0 for _, rate in points], band)


def _columns(
    label: str,
    results: Sequence[LaneResult],
    y: str,
    x: str,
    columns_of: Callable[[LaneResult], dict[str, list[Any]]],
) -> Group:
    stored = y
    if not any(y in columns_of(result) for result in results):
        # `symbol_accuracy.extrapolation` is one minus `symbol_error.extrapolation`.
        name, dot, split = y.partition(".")
        stored = _accuracies().get(name, name) + dot + split
    lines = []
    for result in results:
        columns = columns_of(result)
        if columns.get(x) and stored in columns:
            values = [math.nan if v is None else float(v) for v in columns[stored]]
            lines.append(Line([float(v) for v in columns[x]], [1 - v for v in values] if stored != y else values))
    if not lines:
        raise FigureError(_no_column(y, x, sorted({name for r in results for name in columns_of(r)} - {x})))
    return Group(label, len(results), tuple(lines), _median(lines))


def _no_column(y: str, x: str, names: Sequence[str]) -> str:
    if not names:
        return (
            "no lane of the sweep was measured at several lengths: its task names no `curve_lengths`"
            if x == "length"
            else "no lane of the sweep has ended with a learning curve"
        )
    further = [metric.name for metric in metrics.step_metrics()] if x == "step" else []
    return f"no lane has {y!r} against the {x}; there are {', '.join([*further, *names])}.{_hint(y, [*further, *names])}"


def _median(lines: Sequence[Line]) -> Line:
    """Return the median over the lines with a value at a step. A line that ends early, as of a solved lane, keeps its last."""
    xs = sorted({x for line in lines for x in line.x})
    table = np.full((len(lines), len(xs)), np.nan)
    for row, line in zip(table, lines, strict=True):
        if line.x:
            last = np.searchsorted(line.x, xs, side="right") - 1
            row[:] = np.where(last >= 0, np.array(line.y)[np.maximum(last, 0)], np.nan)
    table.sort(axis=0)  # NaN last
    count = len(lines) - np.isnan(table).sum(axis=0)
    columns = np.arange(len(xs))
    low, high = (table[np.clip(half, 0, len(lines) - 1), columns] for half in ((count - 1) // 2, count // 2))
    middle = np.where(count > 0, low / 2 + high / 2, np.nan)
    return Line(xs, [float(value) for value in middle])


def figure_of(one: RankedConfiguration, y: str) -> Interval:
    """Return a configuration metric as `Summary.shown` does; empty where no seed defines it. Raises FigureError if unknown."""
    name = metrics.canonical_name(y)
    names = [metric.name for metric in metrics.configuration_metrics(one.results)]
    if name in names:
        return one.summary.shown(name)
    raise FigureError(f"no metric {y!r} of a configuration; there are {', '.join(names)}.{_hint(y, names)}")


def position_of(one: RankedConfiguration, x: str) -> float | str | None:
    """Return a configuration's label on an axis, or its value of a setting such as `train.lr`; None if it has neither."""
    if x in one.configuration.labels:
        return one.configuration.labels[x]
    found = values_at(one.configuration.settings, x)
    if not found:
        return None
    is_number = isinstance(found[0], int | float) and not isinstance(found[0], bool)
    return float(found[0]) if is_number else str(found[0])


def setting_of(reports: Sequence[Report], x: str) -> str:
    """Return the axis or the path of a setting that `x` names, which may be short: `lr`, or `noise` as in the tables.

    One that is searched goes before the others. Raises FigureError for what no configuration has, and for a short name of
    several settings.
    """
    found = [one for report in reports for one in report.configurations]
    if not found or any(position_of(one, x) is not None for one in found):
        return x
    axes = list(dict.fromkeys(axis for one in found for axis in one.configuration.labels))
    searched = dict.fromkeys(path for report in reports for path in report.search.space)
    paths = dict.fromkeys(
        re.sub(r"\.units\.\d+\.", ".", path)  # which `values_at` finds where the units share it
        for settings in {id(one.configuration.settings): one.configuration.settings for one in found}.values()
        for section in SECTIONS
        for path, _ in leaves(settings.get(section, {}), section)
    )
    for among in (searched, paths):
        named = [path for path in among if path.endswith(f".{x}") or SHORT_NAMES.get(path) == x]
        if len(named) == 1:
            return named[0]
        if named:
            raise FigureError(f"{x!r} is several settings: {', '.join(sorted(named))}. Name one of them")
    names = [*axes, *LINES, *paths]
    short = {path.rpartition(".")[2]: path for path in paths} | {
        name: path for path, name in SHORT_NAMES.items() if path in paths
    }
    near = nearest(x, names) or short.get(nearest(x, list(short)) or "")
    hint = f" Did you mean {near!r}?" if near else ""
    axis = f"an axis of the sweep ({', '.join(axes)})" if axes else "an axis of a sweep"
    raise FigureError(f"nothing has a value of {x!r}: it is step, length, {axis}, or a setting such as train.lr.{hint}")


def _hint(word: str, names: Sequence[str]) -> str:
    near = nearest(word, names)
    return f" Did you mean {near!r}?" if near else ""


def _accuracies() -> dict[str, str]:
    """Return name of an accuracy -> name of the error, which is one minus the accuracy."""
    pairs = {share.accuracy: share.name for share in metrics.SYMBOL_ERRORS}
    return pairs | {f"{right}_with_padding": f"{wrong}_with_padding" for right, wrong in pairs.items()}


# ------------------------------------------------------------------------------------------- which figure


@dataclass(frozen=True)
class _Wanted:
    """A figure that is requested."""

    reports: Sequence[Report]
    x: str
    y: Sequence[str]
    by: Sequence[str]
    others: str
    style: Style
    missing: list[str] = field(default_factory=list)
    """Lines on what cannot be drawn, with the reason."""


def draw(
    store: Store, names: Sequence[str], x: str | None = None, y: Sequence[str] = (), by: Sequence[str] = (),
    on_missing: Callable[[str], None] = lambda line: None, *, kind: str | None = None, others: str = "any",
    style: Style = STYLE,
) -> Figure:  # fmt: skip
    """Draw sweeps of a store: see `draw_reports`. Raises StoreError for an unknown sweep."""
    return draw_reports([report(store, name) for name in names], x, y, by, on_missing, kind=kind, others=others, style=style)


def draw_reports(
    reports: Sequence[Report], x: str | None = None, y: Sequence[str] = (), by: Sequence[str] = (),
    on_missing: Callable[[str], None] = lambda line: None, *, kind: str | None = None, others: str = "any",
    style: Style = STYLE,
) -> Figure:  # fmt: skip
    """Draw a figure of one of the `KINDS`; without `kind` lines against the step or the length, otherwise points.

    Lines and points have a panel for every `y` against `x`: "step" (the default), "length", an axis of the sweep, or a
    setting such as "train.lr". `by` names the axes that colours distinguish; all but `x` where none is named. Several sweeps
    share the panels. Against a setting the points are all configurations (`others="any"`), or those that have the best one's
    values in all other searched settings (`others="best"`). pareto has the metric `y` against the metric `x`; the objectives
    where they are not named.

    Each cell that cannot be drawn is a line above the panels, with the reason, and is passed to `on_missing`. Raises
    FigureError for what no cell has.
    """
    _require("kind", kind or KINDS[0], KINDS)
    _require("others", others, OTHERS)
    chosen = kind or ("lines" if (x or "step") in LINES else "points")
    if x and x not in LINES and chosen == "points":
        x = setting_of(reports, x)
    wanted = _Wanted(reports, x or "", y, by, others, style)
    if chosen in ("lines", "points"):
        wanted = dataclasses.replace(wanted, x=x or "step")
        if (wanted.x in LINES) != (chosen == "lines"):
            allowed = "`--x step` or `--x length`" if chosen == "lines" else "an axis or a setting as --x, such as train.lr"
            raise FigureError(f"a figure of {chosen} needs {allowed}, not {wanted.x!r}")
    elif chosen != "pareto" and (x or y):
        raise FigureError(f"a figure of kind {chosen} has no --x and no --y: it shows all searched settings")
    if others == "best" and chosen != "points":
        raise FigureError("--others best is for a figure against a setting, such as --x train.lr")
    wanted.missing.extend(f"{one.name}: no configuration has been tried yet" for one in reports if not one.configurations)
    kinds = {"lines": _axis_figure, "points": _axis_figure, "parallel": _parallel, "importance": _importance, "pareto": _pareto}
    with matplotlib.rc_context({"font.size": style.font_size, "hatch.linewidth": 0.5}):
        figure = kinds[chosen](wanted)
    for line in wanted.missing:
        on_missing(f"not drawn: {line}")
    return figure


def _require(what: str, given: str, allowed: Sequence[str]) -> None:
    if given not in allowed:
        raise FigureError(f"no {what} {given!r} of a figure; there are {', '.join(allowed)}.{_hint(given, allowed)}")


def standard_figures(found: Report) -> list[tuple[str, str, Figure]]:
    """Return (file name, title, figure) of the few figures that suit a sweep; none while there is nothing to draw."""
    cells, search = found.cells(), found.search
    every = [result for one in found.configurations for result in one.results]
    judged = bool(every) and found.is_judged()
    axes = list(dict.fromkeys(axis for one in found.configurations for axis in one.configuration.labels))
    widest = max(axes, key=lambda axis: len({one.configuration.labels.get(axis) for one in found.configurations}), default="")
    rate, converged = metrics.SUCCESS_RATE, metrics.SOLVED_FRACTION
    error = metrics.error_median("extrapolation").name if any("extrapolation" in result.error for result in every) else ""
    main = rate.name if judged and any(result.solved for result in every) else error
    requests: list[tuple[str, str, dict[str, Any]]] = []
    if judged:
        requests.append(("convergence.svg", "Seeds converged against the step", {"y": [converged.name]}))
    column = _judged_column(every)
    if column is not None:
        requests.append(("error.svg", f"{label_of(column).capitalize()} against the step", {"y": [column]}))
    if any(result.by_length for result in every):
        requests.append(("length.svg", "Accuracy or error by length", {"x": "length"}))
    if widest and main:
        requests.append((f"{_slug(widest)}.svg", f"{label_of(main).capitalize()} by {widest}", {"x": widest, "y": [main]}))
    if search.space and main:
        path = _most_important(found, cells)
        if path is not None:
            title = f"{label_of(main).capitalize()} against {label_of(path)}"
            requests.append((f"{_slug(path)}.svg", title, {"x": path, "y": [main]}))
        if len(found.configurations) >= FEWEST_BINNED and len(search.space) > 1:
            requests.append(("parallel.svg", "Configurations: searched settings and objective", {"kind": "parallel"}))
        requests.append(("importance.svg", "Importance of the searched settings", {"kind": "importance"}))
    if search.further_objectives:
        requests.append(("pareto.svg", "Objectives against each other", {"kind": "pareto"}))
    figures = []
    for name, title, request in requests:
        try:
            figures.append((name, title, draw_reports([found], style=Style(width=5.4), **request)))
        except FigureError:
            continue  # what the sweep does not have
    return figures


def _slug(name: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name).strip("-") or "axis"


def _most_important(found: Report, cells: Sequence[Sequence[RankedConfiguration]]) -> str | None:
    """Return the numeric setting that matters most in the first cell that defines it; the learning rate where none does."""
    numeric = [path for path, dimension in found.search.space.items() if dimension.kind != "choice"]
    for cell in cells:
        importance = found.importance_of(cell)
        for name in importance.shares if importance is not None else ():
            if name.removesuffix(ON) in numeric:
                return name.removesuffix(ON)
    return "train.lr" if "train.lr" in numeric else next(iter(numeric), None)


# ------------------------------------------------------------------------------------------- lines and points

LINES = ("step", "length")
"""What lines are drawn against."""


def _axis_figure(wanted: _Wanted) -> Figure:
    x, reports, several = wanted.x, wanted.reports, len(wanted.reports) > 1
    found = [configuration for one in reports for configuration in one.configurations]
    check_axes(wanted.by, found)
    shown = wanted.by or list(dict.fromkeys(a for one in found for a in one.configuration.labels if a != x))
    on_axis = any(x in one.configuration.labels for one in found)
    labelled = []
    for one in reports:
        for cell in one.cells():
            drawn, reasons = _drawable(cell, "first" if x in LINES or on_axis else wanted.others, x)
            title = cell[0].configuration.cell if cell[0].configuration.labels else one.name
            title = f"{one.name}: {title}" if several and title != one.name else title
            wanted.missing.extend(f"{title}{reason}" for reason in reasons)
            for configuration in drawn:
                label = legend_label(configuration, shown, "" if several else one.name)
                labelled.append((f"{one.name}: {label}".rstrip(": ") if several else label, configuration))
    if not labelled:
        raise FigureError(f"nothing to draw: {'; '.join(wanted.missing)}")
    results = [result for _, one in labelled for result in one.results]
    if x in LINES:
        return _lines(wanted, labelled, wanted.y or _default_columns(x, results))
    return _points(wanted, labelled, wanted.y or _default_metrics(results), on_axis)


def _default_columns(x: str, results: Sequence[LaneResult]) -> Sequence[str]:
    """Return what is drawn against the step or the length: what the task defines of the defaults, otherwise its error."""
    if x == "length":
        measured = {name for result in results for name in result.by_length}
        return [share.accuracy for share in metrics.SYMBOL_ERRORS if share.name in measured] or ["error"]
    share, error = metrics.SOLVED_FRACTION.name, _judged_column(results) or "error.extrapolation"
    return [share, error] if metrics.are_judged(results) else [error]


def _default_metrics(results: Sequence[LaneResult]) -> list[str]:
    """Return the metrics that are drawn against an axis; where no seed is solved the error in place of what only those have."""
    default = [metric for metric in metrics.configuration_metrics() if metric.default_figure]
    if any(result.solved for result in results):
        return [metric.name for metric in default]
    error = [metrics.error_median("extrapolation").name] if any("extrapolation" in result.error for result in results) else []
    judged = metrics.are_judged(results)
    return [*(metric.name for metric in default if metric.seeds == "all" and judged), *error] or [default[0].name]


def _drawable(cell: Sequence[RankedConfiguration], which: str, x: str) -> tuple[list[RankedConfiguration], list[str]]:
    """Return the configurations of a cell that can be drawn, and for each that cannot the reason.

    `which` is `any`; `first`: the best one; or `best`: those with the best one's values in all searched settings but `x`.
    """
    first = [one for one in cell if _is_best(one)][:1]  # of several objectives the first on the front
    chosen = first if which == "first" else [one for one in cell if one.results and not one.at_rung]
    chosen = [one for one in chosen if one.results and not one.at_rung]
    at_rung = 0 if which == "first" else sum(one.at_rung for one in cell)
    if not chosen:
        return [], [": no configuration is complete yet" if any(one.results for one in cell) else ": no seed has ended yet"]
    if which == "best" and first:
        chosen = [one for one in chosen if _differs_only_in(x, one.parameters, first[0].parameters)]
        if len(chosen) < 2:
            return [], [
                f": no other configuration has the best one's values in all settings but {x}; a grid over it would, "
                "and --others any draws all configurations"
            ]
    drawn: list[RankedConfiguration] = []
    without: dict[str, list[str]] = {}
    for one in chosen:
        if one.summary.errors == one.summary.seeds:
            reason = f"every seed ended in an error, such as {one.results[0].reason}"
        elif x not in LINES and position_of(one, x) is None:
            reason = f"it has no {x}"
        else:
            drawn.append(one)
            continue
        without.setdefault(reason, []).append(f"#{one.configuration.number}")
    reasons = []
    for reason, numbers in without.items():
        more = f" and {len(numbers) - MOST_NAMED} more" if len(numbers) > MOST_NAMED else ""
        named = f" {', '.join(numbers[:MOST_NAMED])}{more}" if len(numbers) < len(chosen) else ""
        reasons.append(f"{named}: {reason}")
    if at_rung:
        reasons.append(f": {at_rung} configurations that early stopping stopped at a rung, before their whole budget")
    return drawn, reasons


def _differs_only_in(x: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one.get(path) == other.get(path) for path in {*one, *other} - {x})


def _is_best(one: RankedConfiguration) -> bool:
    """Return whether it is the best of its cell or, while none is complete, has the file's own values."""
    return bool(one.results) and (one.rank == 1 or (one.rank is None and one.configuration.number == 0))


def _budgets(lanes: Mapping[str, Sequence[LaneResult]]) -> dict[str, list[int]]:
    """Return label -> the different budgets of its lanes."""
    return {label: sorted({result.budget for result in results}) for label, results in lanes.items()}


def _note_on_budgets(budgets: Mapping[str, Sequence[int]], cut: bool) -> list[str]:
    """Return a sentence where lanes of different budgets are in one figure; `cut`: the errors of mixed ones end early."""
    found = []
    if len({tuple(values) for values in budgets.values()}) > 1:
        listed = [f"{label} {' and '.join(map(steps, values))}" for label, values in budgets.items()]
        more = f" and {len(listed) - 6} more" if len(listed) > 6 else ""
        found.append(f"budgets differ, in steps: {', '.join(listed[:6])}{more}")
    for label, values in budgets.items():
        if len(values) > 1 and cut:
            found.append(
                f"{label} has seeds of {' and '.join(map(steps, values))} steps: errors are drawn to {steps(values[0])}"
            )
    return found


def _which(reports: Sequence[Report], cells: int) -> str:
    """Return which configurations are drawn, where one stands for its cell."""
    each = " of each cell" if cells > 1 else ""
    found = [(one, cell) for one in reports for cell in one.cells() if cell[0].rank == 1]
    unsolved = [(one, cell) for one, cell in found if not one.has_winner(cell)]
    by_error = all(one.ranked_by_error(cell) for one, cell in unsolved)
    first = f"the configuration {'with the lowest error' if by_error else 'of rank 1'}"
    if unsolved and len(unsolved) == len(found):
        return f"nothing is solved: {first}{each}"
    return f"the best configuration{each}" + (f"; where nothing is solved {first}" if unsolved else "")


def _lines(wanted: _Wanted, labelled: Sequence[tuple[str, RankedConfiguration]], y: Sequence[str]) -> Figure:
    """Draw lines against the step or the length; what is drawn in one panel and not in another is added to `missing`."""
    x, style = wanted.x, wanted.style
    lanes = grouped(labelled)
    budgets = _budgets(lanes)
    shares = {metric.name for metric in metrics.step_metrics()}
    figure, drawn = panels(len(y), style)
    shown_shares, shown_errors = bool(shares & set(y)), bool(set(y) - shares)
    most_thinned = 1
    for panel, name in zip(drawn, y, strict=True):
        groups = _groups(lanes, x, name, wanted.missing)
        if x == "step" and name not in shares:  # which are Kaplan and Meier's: a seed counts as long as it was observed
            groups = {at: _until(group, min(budgets[group.label])) for at, group in groups.items()}
        points = sum(len(line.x) for group in groups.values() for line in group.seeds)
        every = max(1, math.ceil(points / MOST_POINTS))
        is_share = name in shares
        most_thinned = max(most_thinned, every)
        for at, group in groups.items():
            _group(panel, group, at, len(groups), every, "steps-post" if is_share else "default", x == "length")
            if len({tuple(values) for values in budgets.values()}) > 1 and x == "step" and group.middle.x:
                ends = [max(group.middle.x)], [group.middle.y[-1]]
                panel.plot(
                    *ends, marker="|", markersize=11, markeredgewidth=2, color=_colour(at), label=f"_end of {group.label}"
                )
        values = [v for group in groups.values() for line in (*group.seeds, group.middle) for v in line.y]
        judged = [result for results in lanes.values() for result in results]
        thresholds: list[tuple[str, float]] = []
        if x == "step" and name == _judged_column(judged):
            thresholds = [
                (_colour(at), result.threshold)
                for at, results in enumerate(lanes.values())
                for result in results
                if result.threshold is not None
            ]
        scale_y(panel, name, [*values, *(value for _, value in thresholds)])
        threshold_lines(panel, thresholds, style)
        panel.set_xlabel(label_of(x))
        grid(panel, style)
        if x == "length":
            length_axis(panel, sorted({length for group in groups.values() for length in group.middle.x}))
        else:
            steps_axis(panel.xaxis)
    where = "bands" if len(lanes) <= MOST_BANDS else "bars at the end"
    notes = [f"{where}: 95 % intervals of the share of seeds"] if shown_shares else []
    if shown_errors and any(len(results) > 1 for results in lanes.values()):
        thinned = f", one in {most_thinned} evaluations of the seeds" if most_thinned > 1 else ""
        notes.append(f"thin: seeds{thinned}, thick: their median")
    if any(one.parameters for _, one in labelled):
        notes.append(_which(wanted.reports, len(lanes)))
    if x == "step":
        notes += _note_on_budgets(budgets, cut=True)
    if shown_shares and not any(result.converged_at is not None for results in lanes.values() for result in results):
        notes.append("no seed has converged")
    return finished(figure, drawn, notes, wanted.missing, style)


def _colour(at: int) -> str:
    return COLOURS[at % len(COLOURS)]


def _group(panel: Axes, group: Group, at: int, count: int, every: int, drawstyle: Any, markers: bool) -> None:
    """Draw the lines of one colour. Where lines of several groups coincide, the earlier ones are wider and remain visible."""
    colour, dashes = _colour(at), DASHES[at % len(DASHES)]
    if group.lanes > 1 and group.seeds:  # one artist with gaps: thousands would take minutes
        shown = [_thinned(line, every) for line in group.seeds]
        xs = [x for line in shown for x in (*line.x, math.nan)]
        ys = [y for line in shown for y in (*line.y, math.nan)]
        panel.plot(xs, ys, color=colour, linewidth=0.6, alpha=0.35, label=f"_seeds of {group.label}")
    seeds = "seed" if group.lanes == 1 else "seeds"
    width = 1.8 + (1.6 * (count - 1 - at) / (count - 1) if count > 1 else 0.0)
    panel.plot(
        group.middle.x, group.middle.y, color=colour, linewidth=width, linestyle=dashes, drawstyle=drawstyle,
        label=f"{group.label} ({group.lanes} {seeds})", marker=MARKERS[at % len(MARKERS)] if markers else None, markersize=4,
    )  # fmt: skip
    if group.middle.band and count > MOST_BANDS and group.middle.x:
        (low, high), value = (ends[-1:] for ends in group.middle.band), group.middle.y[-1]
        place = group.middle.x[-1] * (1 + 0.018 * (at + 1))  # beside each other, right of the lines' ends
        panel.errorbar([place], [value], [[value - low[0]], [high[0] - value]], color=colour, capsize=2, linewidth=1, fmt="_")
    elif group.middle.band:
        panel.fill_between(group.middle.x, *group.middle.band, step="post", facecolor=colour, alpha=0.13, linewidth=0)
        panel.fill_between(
            group.middle.x, *group.middle.band, step="post", facecolor="none", edgecolor=colour, alpha=0.55, linewidth=0.8,
            linestyle=dashes, hatch=HATCHES[at % len(HATCHES)] if count > 1 else None,
        )  # fmt: skip


def _thinned(line: Line, every: int) -> Line:
    """Return every n-th point of a line, with its last and its lowest one."""
    if every == 1 or len(line.x) < 3:
        return line
    finite = [index for index, value in enumerate(line.y) if not math.isnan(value)]
    lowest = [min(finite, key=lambda index: line.y[index])] if finite else []
    kept = sorted({*range(0, len(line.x), every), len(line.x) - 1, *lowest})
    return Line([line.x[index] for index in kept], [line.y[index] for index in kept])


def _until(group: Group, step: int) -> Group:
    """Return the part of a group's lines up to a step."""

    def cut(line: Line) -> Line:
        count = bisect_right(line.x, step)
        band = None if line.band is None else (line.band[0][:count], line.band[1][:count])
        return line if count == len(line.x) else Line(line.x[:count], line.y[:count], band)

    return dataclasses.replace(group, seeds=tuple(map(cut, group.seeds)), middle=cut(group.middle))


def _judged_column(results: Sequence[LaneResult]) -> str | None:
    """Return the column of the errors that the threshold is compared with: see `sweeps.training.lane.judge`."""
    names = [name for result in results for name in result.curve if name.startswith("error.")]
    return "error.extrapolation" if "error.extrapolation" in names else next(iter(names), None)


def _groups(lanes: Mapping[str, list[LaneResult]], x: str, y: str, missing: list[str]) -> dict[int, Group]:
    """Return number of the colour -> group. Raises FigureError where no label has `y` against `x`."""
    of = against_step if x == "step" else against_length
    groups: dict[int, Group] = {}
    errors: list[FigureError] = []
    for at, (label, results) in enumerate(lanes.items()):
        try:
            group = of(label, results, y)
        except FigureError as error:
            errors.append(error)
            missing.append(f"{label}: {error}")
            continue
        if group.middle.y and all(math.isnan(value) for value in group.middle.y):
            diverged = all(result.outcome == "diverged" for result in results)
            missing.append(f"{label}: {label_of(y)} is never finite" + (", every seed diverged" if diverged else ""))
        groups[at] = group
    if not groups:
        raise errors[0]
    return groups


def _points(wanted: _Wanted, labelled: Sequence[tuple[str, RankedConfiguration]], y: Sequence[str], on_axis: bool) -> Figure:
    """Draw a point with its interval for each configuration, and of many a line of means."""
    x, style = wanted.x, wanted.style
    placed = [(label, one, position) for label, one in labelled if (position := position_of(one, x)) is not None]
    positions = list(dict.fromkeys(position for _, _, position in placed))
    numbers = [position for position in positions if isinstance(position, float)]
    numeric = len(numbers) == len(positions)
    space = {path: dimension for one in wanted.reports for path, dimension in one.search.space.items()}
    labels = list(dict.fromkeys(label for label, _, _ in placed))
    figure, drawn = panels(len(y), style)
    binned = bars = hidden = aside = False
    key: dict[str, str] = {}
    absent: list[str] = []
    for panel, name in zip(drawn, y, strict=True):
        if without := sum(figure_of(one, name).estimate is None for _, one, _ in placed):
            absent.append(f"{label_of(name)} is not defined for {without} of {len(placed)} points")
        scale_y(panel, name, [v for _, one, _ in placed if (v := figure_of(one, name).estimate) is not None])
        panel.set_xlabel(plain(label_of(x) if not on_axis else x))
        grid(panel, style)
        if not numeric:
            key = category_axis(panel, [str(position) for position in positions], style)
        elif x == "train.steps":
            steps_axis(panel.xaxis)
        else:
            scale_x(panel, numbers, x in space and space[x].has_off and space[x].off == 0)
        groups = []
        for at, label in enumerate(labels):
            own = [(one, position) for other, one, position in placed if other == label]
            shift = 0.0 if numeric else 0.6 * ((at + 0.5) / len(labels) - 0.5)
            xs = [
                position if isinstance(position, float) and numeric else positions.index(position) + shift
                for _, position in own
            ]
            found = [figure_of(one, name) for one, _ in own]
            many = len(own) > MOST_BARS
            values = [one.summary.value(metrics.canonical_name(name)) for one, _ in own]
            hidden = hidden or any(f.low is None and v.low is not None for f, v in zip(found, values, strict=True))
            bars = bars or (any(each.low is not None for each in found) and not many)
            if numeric and not on_axis and wanted.others == "any":
                binned = _means(panel, xs, found, at) or binned
            groups.append((xs, found, [one.state == "pruned" for one, _ in own], many))
        moved = _apart(panel, [(xs, found, many) for xs, found, _, many in groups], None if numeric else 0.54 / len(labels))
        for at, (label, (xs, found, pruned, many), shown) in enumerate(zip(labels, groups, moved, strict=True)):
            aside = aside or shown != list(xs)
            _intervals(panel, shown, found, pruned, at, label, many)
    notes = ["bars: 95 % intervals over seeds"] if bars else []
    notes += [f"no bar where that of a mean reaches beyond {metrics.BEYOND:g} times the highest seed"] if hidden else []
    if on_axis:
        notes.append(_which(wanted.reports, 2))
    elif wanted.others == "best":
        notes.append("one setting at a time: the others are those of the best configuration" + _fixed(placed, x, space))
    elif any(len(one.parameters) > 1 for _, one, _ in placed):
        notes.append("a point for every configuration, whatever its other settings")
    notes += absent
    notes += [f"{letter}: {name}" for letter, name in key.items()]
    if binned:
        notes.append(f"line: mean of the configurations in {BINS} bins or fewer, with equal numbers")
    if any(one.state == "pruned" for _, one, _ in placed):
        notes.append("hollow: stopped early")
    notes += ["points at one place are drawn beside each other"] if aside else []
    most = max(Counter(label for label, _, _ in placed).values())
    if most > MOST_MARKED:
        notes.append(f"one in {math.ceil(most / MOST_MARKED)} of {most} points")
    if x != "train.steps":
        notes += _note_on_budgets(_budgets(grouped((label, one) for label, one, _ in placed)), cut=False)
    return finished(figure, drawn, notes, wanted.missing, style)


def _fixed(placed: Sequence[tuple[str, RankedConfiguration, Any]], x: str, space: Mapping[str, Dimension]) -> str:
    """Return the values of the settings that are the same in one cell's points; empty for several cells."""
    if len({one.configuration.cell for _, one, _ in placed}) > 1:
        return ""
    values = {path: value for path, value in placed[0][1].parameters.items() if path != x}
    return f" ({parameters(values, space)})" if values else ""


def _intervals(
    panel: Axes, xs: Sequence[float], figures: Sequence[Interval], pruned: Sequence[bool], at: int, label: str, many: bool
) -> None:
    """Draw points with bars; of many only points, so that they remain visible."""
    for hollow in (False, True):
        points = [
            (x, f.estimate, f) for x, f, of in zip(xs, figures, pruned, strict=True) if f.estimate is not None and of is hollow
        ]
        if not points and (hollow or all(pruned)):
            continue
        points = points[:: math.ceil(len(points) / MOST_MARKED) or 1]
        ends = [[value - (f.low if f.low is not None else value) for _, value, f in points],
                [(f.high if f.high is not None else value) - value for _, value, f in points]]  # fmt: skip
        panel.errorbar(
            [x for x, _, _ in points], [value for _, value, _ in points], yerr=None if many else ends,
            label=f"_{label}, stopped early" if hollow and not all(pruned) else label,
            fmt=MARKERS[at % len(MARKERS)], color=_colour(at), markersize=4 if many else 5, capsize=2, linewidth=1,
            fillstyle="none" if hollow else "full", alpha=0.6 if many else 1.0,
        )  # fmt: skip


def _apart(
    panel: Axes, groups: Sequence[tuple[Sequence[float], Sequence[Interval], bool]], room: float | None
) -> list[list[float]]:
    """Return where the points of groups (xs, values, without bars) are drawn: those that would hide each other side by side.

    Points hide each other that have the same x, and values or bars that meet. The others stay at their x. The scales of the
    panel are set. `room` is the width in x that the points of one place may take; None: up to the next place.
    """
    across, up = panel.xaxis.get_transform(), panel.yaxis.get_transform()
    xs = [np.array(across.transform(np.array(group, float)), float) for group, _, _ in groups]
    places = np.unique(np.concatenate(xs).round(9))
    if room is None and len(places) == 1 and panel.get_autoscalex_on():  # otherwise the limits would follow what is moved
        wide = 0.1 * abs(places[0]) or 1.0
        panel.set_xlim(*map(float, across.inverted().transform(np.array([places[0] - wide, places[0] + wide]))))
    limits = across.transform(np.array(panel.get_xlim() if not panel.get_autoscalex_on() else (places[0], places[-1]), float))
    point = float(limits[1] - limits[0]) / panel_points(panel)
    ends = [_extent(found, many, up) for _, found, many in groups]
    known = [end for extent in ends for pair in extent if pair is not None for end in pair if math.isfinite(end)]
    height = 0.04 * (max(known) - min(known)) if known else 0.0
    found: dict[float, list[tuple[float, float, int, int]]] = {}
    for at, (group, extent) in enumerate(zip(xs, ends, strict=True)):
        for index, (u, pair) in enumerate(zip(group, extent, strict=True)):
            if pair is not None:
                found.setdefault(round(float(u), 9), []).append((pair[0] - height / 2, pair[1] + height / 2, at, index))
    moved = [list(map(float, group)) for group, _, _ in groups]
    for u, members in found.items():
        gaps = np.abs(places - u)[places != u]
        free = room if room is not None else 0.8 * float(gaps.min(initial=math.inf))
        for lanes in _side_by_side(members):
            least = LEAST_APART * point if len(lanes) <= 3 and room is None else 0.0
            step = min(MARKER * point, max(free / len(lanes), least))
            for lane, inside in enumerate(lanes):
                for at, index in inside:
                    if len(lanes) > 1:
                        place = np.array([u + (lane - (len(lanes) - 1) / 2) * step])
                        moved[at][index] = float(across.inverted().transform(place)[0])
    if not panel.get_autoscalex_on():
        drawn = np.concatenate([across.transform(np.array(group, float)) for group in moved])
        wide = min(limits[0], drawn.min() - MARKER * point), max(limits[1], drawn.max() + MARKER * point)
        panel.set_xlim(*map(float, across.inverted().transform(np.array(wide))))
    return moved


def _extent(found: Sequence[Interval], many: bool, up: Any) -> list[tuple[float, float] | None]:
    """Return the ends of each point with its bar on the scale of the axis; None without a value."""
    extents: list[tuple[float, float] | None] = []
    for one in found:
        if one.estimate is None or not math.isfinite(one.estimate):
            extents.append(None)
            continue
        ends = [one.estimate] if many else [v for v in (one.low, one.estimate, one.high) if v is not None]
        scaled = [float(v) for v in up.transform(np.array(ends, float)) if math.isfinite(v)]
        extents.append((min(scaled), max(scaled)) if scaled else None)
    return extents


def _side_by_side(members: Sequence[tuple[float, float, int, int]]) -> list[list[list[tuple[int, int]]]]:
    """Return for each set of intervals (low, high, group, index) that meet the fewest lanes in which none meets another.

    Lanes are in the order of their first groups.
    """
    sets: list[list[list[tuple[int, int]]]] = []
    free: list[tuple[float, int]] = []  # (end, lane), as a heap
    last = -math.inf
    for low, high, at, index in sorted(members):
        if low > last:
            sets.append([])
            free = []
        if free and free[0][0] < low:
            lane = heapq.heappop(free)[1]
            sets[-1][lane].append((at, index))
        else:
            lane = len(sets[-1])
            sets[-1].append([(at, index)])
        heapq.heappush(free, (high, lane))
        last = max(last, high)
    return [sorted(lanes, key=min) for lanes in sets]


def _means(panel: Axes, xs: Sequence[float], figures: Sequence[Interval], at: int) -> bool:
    """Draw the means of bins of equal numbers of configurations, and return whether there are enough; 0 is not on the line."""
    points = sorted((x, f.estimate) for x, f in zip(xs, figures, strict=True) if f.estimate is not None and x != 0)
    if len(points) < FEWEST_BINNED or len({x for x, _ in points}) < 4:
        return False
    parts = np.array_split(np.array(points), min(BINS, len(points) // 3))
    middle = [float(np.median(part[:, 0])) for part in parts]
    panel.plot(
        middle, [float(part[:, 1].mean()) for part in parts], color=_colour(at), linewidth=2, zorder=1.5,
        linestyle=DASHES[at % len(DASHES)], label="_mean",
    )  # fmt: skip
    return True


# ------------------------------------------------------------------------------------------- parallel coordinates


def _cells(wanted: _Wanted) -> list[tuple[str, Report, list[RankedConfiguration]]]:
    """Return (title, report, configurations with results) of every cell."""
    found = []
    for one in wanted.reports:
        for cell in one.cells():
            title = ", ".join(cell[0].configuration.labels.values()) or ("" if len(wanted.reports) == 1 else one.name)
            title = f"{one.name}: {title}" if len(wanted.reports) > 1 and cell[0].configuration.labels else title
            ended = [each for each in cell if each.results]
            if ended:
                found.append((title, one, ended))
            else:
                wanted.missing.append(f"{title or one.name}: no seed has ended yet")
    return found


def _few(wanted: _Wanted, cells: list[Any]) -> list[Any]:
    if len(cells) > MOST_PANELS:
        wanted.missing.append(f"{len(cells) - MOST_PANELS} more cells: a figure has {MOST_PANELS} at most")
    return cells[:MOST_PANELS]


@dataclass(frozen=True)
class _Coordinate:
    """One vertical axis of parallel coordinates: where each value is on it, from 0 to 1, and its labels."""

    name: str
    at: list[float | None]
    ticks: list[tuple[float, str]]


def _coordinate(path: str, name: str, dimension: Dimension, values: Sequence[Any]) -> _Coordinate:
    """Return the axis of a searched setting; `off` is below the range."""
    if dimension.kind == "choice":
        choices = list(dimension.choices)
        span = max(1, len(choices) - 1)
        at = [choices.index(value) / span if value in choices else None for value in values]
        return _Coordinate(name, at, [(index / span, str(choice)) for index, choice in enumerate(choices)])
    assert dimension.low is not None and dimension.high is not None
    logarithmic = dimension.kind.startswith("log")
    low, high = ((math.log(v) if logarithmic else float(v)) for v in (dimension.low, dimension.high))

    def place(value: Any) -> float | None:
        if value is None or isinstance(value, bool | str):
            return None
        if dimension.has_off and value == dimension.off:
            return -0.12
        if logarithmic and value <= 0:
            return None
        here = math.log(value) if logarithmic else float(value)
        return min(max((here - low) / (high - low), 0.0), 1.0) if high > low else 0.5

    ticks = [(share, number(float(dimension.at(share)))) for share in (0.0, 0.5, 1.0)]
    off = [(-0.12, shown_value({path: dimension}, path, dimension.off))] if dimension.has_off else []
    return _Coordinate(name, [place(value) for value in values], [*off, *ticks])


def _objective_axis(name: str, values: Sequence[float | None]) -> _Coordinate:
    """Return the axis of an objective, logarithmic where its values are far apart."""
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if not finite:
        return _Coordinate(label_of(name), [None] * len(values), [])
    logarithmic = min(finite) > 0 and max(finite) > 30 * min(finite)
    low, high = ((math.log(v) if logarithmic else v) for v in (min(finite), max(finite)))
    metric = metrics.find(name)

    def place(value: float | None) -> float | None:
        if value is None or not math.isfinite(value):
            return None
        return ((math.log(value) if logarithmic else value) - low) / (high - low) if high > low else 0.5

    middle = [low + share * (high - low) for share in ((0.0, 0.5, 1.0) if high > low else (0.0,))]
    ticks = [(float(place(v) or 0.0), v) for v in (math.exp(m) if logarithmic else m for m in middle)]
    return _Coordinate(label_of(name), [place(value) for value in values], [(at, metric.format(v)) for at, v in ticks])


def _parallel(wanted: _Wanted) -> Figure:
    """Draw each configuration of a cell as a line through its searched settings, coloured by its first objective."""
    style = wanted.style
    cells = []
    for title, found, cell in _cells(wanted):
        if {path for one in cell for path in one.parameters} & set(found.search.space):
            cells.append((title, found, cell))
        else:
            wanted.missing.append(f"{title or found.name}: it searches nothing: parallel coordinates need `search.space`")
    if not cells:
        raise FigureError(f"nothing to draw: {'; '.join(wanted.missing)}")
    cells = _few(wanted, cells)
    most = max(len(found.search.space) + len(found.search.objectives) for _, found, _ in cells)
    width = style.width or max(4.6, 1.25 * most)
    figure, drawn = panels(len(cells), dataclasses.replace(style, width=width), shape=0.45)
    if len(cells) > 1:  # below each other, whatever fits
        figure.clear()
        figure.set_size_inches(width, style.height or 2.2 * len(cells))
        drawn = [figure.add_subplot(len(cells), 1, index + 1) for index in range(len(cells))]
    further = 0.0
    for panel, (title, found, cell) in zip(drawn, cells, strict=True):
        shown = _sampled(cell)
        _parallel_panel(panel, found, shown, style)
        further += panel_title(panel, title, style) if title else 0.0
        if len(shown) < len(cell):
            wanted.missing.append(f"{title or found.name}: {len(cell) - len(shown)} of {len(cell)} configurations")
    if style.height is None:
        figure.set_figheight(figure.get_figheight() + further)
    names = {label_of(_deciding(found, cell)[0]) for _, found, cell in cells}
    best = "on the Pareto front" if any(found.search.further_objectives for _, found, _ in cells) else "the best"
    red = f"; red: {best}" if any(found.has_winner(cell) for _, found, cell in cells) else ""
    notes = [f"a line for every configuration; blue: the better by {' or '.join(sorted(names))}, yellow: the worse{red}"]
    if any(one.state == "pruned" for _, _, cell in cells for one in cell):
        notes.append("grey: stopped early")
    return finished(figure, drawn, notes, wanted.missing, style)


def _sampled(cell: Sequence[RankedConfiguration]) -> Sequence[RankedConfiguration]:
    """Return at most `MOST_DRAWN` configurations of a cell, in their order."""
    if len(cell) <= MOST_DRAWN:
        return cell
    first = MOST_DRAWN // 3
    others = np.linspace(first, len(cell) - 1, MOST_DRAWN - first).astype(int)
    return [*cell[:first], *(cell[index] for index in others)]


def _deciding(found: Report, cell: Sequence[RankedConfiguration]) -> list[str]:
    """Return the metrics that rank a cell: its objectives, or the error where nothing is solved and they say nothing."""
    if found.ranked_by_error(cell) and any("extrapolation" in result.error for one in cell for result in one.results):
        return [metrics.error_median("extrapolation").name]
    return [objective.name for objective in found.search.objectives]


def _parallel_panel(panel: Axes, found: Report, cell: Sequence[RankedConfiguration], style: Style) -> None:
    paths = [path for path in found.search.space if any(path in one.parameters for one in cell)]
    paths.sort(key=lambda path: path != "train.lr")
    named = [label_of(path) for path in paths]
    coordinates = [
        _coordinate(path, name, found.search.space[path], [one.parameters.get(path) for one in cell])
        for path, name in zip(paths, named, strict=True)
    ]
    for name in _deciding(found, cell):
        known = [found.objectives_of(one) for one in cell]
        values = [of[name] if name in of else figure_of(one, name).estimate for one, of in zip(cell, known, strict=True)]
        coordinates.append(_objective_axis(name, values))
    winner = found.has_winner(cell)
    ranked = [index for index, one in enumerate(cell) if one.rank is not None]
    order = {index: place / max(1, len(ranked) - 1) for place, index in enumerate(ranked)}
    colours = matplotlib.colormaps["viridis"]
    for index in reversed(range(len(cell))):  # the best on top
        ys = [math.nan if (at := coordinate.at[index]) is None else at for coordinate in coordinates]
        best = winner and cell[index].rank == 1
        colour = "#D62728" if best else colours(0.95 * order[index]) if index in order else "#BBBBBB"
        panel.plot(
            range(len(ys)), ys, color=colour, linewidth=2.2 if best else 0.9, alpha=1.0 if best else 0.65,
            zorder=3 if best else 2 if index in order else 1, label=f"_#{cell[index].configuration.number}",
            marker="o", markersize=3 if best else 1.5,
        )  # fmt: skip
    for at, coordinate in enumerate(coordinates):
        panel.axvline(at, color="#333333", linewidth=0.8, zorder=0)
        for place, text in coordinate.ticks:
            panel.text(
                at + 0.03, place, plain(text), fontsize=style.font_size - 2, va="center", zorder=4,
                bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6},
            )  # fmt: skip
    panel.set_xlim(-0.15, len(coordinates) - 0.55)
    panel.set_ylim(-0.2, 1.08)
    panel.set_yticks([])
    panel.spines[["left", "right", "top", "bottom"]].set_visible(False)
    letters = int(width_of(panel) * 72 / (0.6 * style.font_size) / (len(coordinates) + 0.5)) - 1
    panel.set_xticks(range(len(coordinates)), [plain(textwrap.fill(c.name, max(8, letters))) for c in coordinates])
    panel.tick_params(length=0, labelsize=style.font_size)


# ------------------------------------------------------------------------------------------- importance


def _importance(wanted: _Wanted) -> Figure:
    """Draw the shares of importance of the searched settings, a panel for each cell."""
    style = wanted.style
    cells = []
    for title, found, cell in _cells(wanted):
        importance = found.importance_of(cell)
        if importance is None:
            reason = (
                "it searches nothing"
                if not found.search.space
                else "it takes four complete configurations, and two settings that vary"
            )
            wanted.missing.append(f"{title or found.name}: its importance is not known: {reason}")
        else:
            cells.append((title, importance))
    if not cells:
        raise FigureError(f"nothing to draw: {'; '.join(wanted.missing)}")
    cells = _few(wanted, cells)
    most = max(len(importance.shares) for _, importance in cells)
    highest = max(share for _, importance in cells for share in importance.shares.values())
    width = style.width or min(4.6 * len(cells), 9.0)
    columns = max(1, min(len(cells), int(width / 4.0)))
    rows = math.ceil(len(cells) / columns)
    high = style.height or rows * (0.32 * most + 0.75)
    figure = Figure(figsize=(width, high), layout="constrained")
    drawn = [figure.add_subplot(rows, columns, index + 1) for index in range(len(cells))]
    further = [0.0]
    for panel, (title, importance) in zip(drawn, cells, strict=True):
        names = [_importance_name(name, importance.shares) for name in importance.shares]
        shares = list(importance.shares.values())
        panel.barh(range(len(names)), shares, color=COLOURS[0], height=0.65)
        for at, share in enumerate(shares):
            panel.text(share + 0.015, at, f"{percent(share)} %", va="center", fontsize=style.font_size - 1)
        panel.set_yticks(range(len(names)), [plain(textwrap.fill(name, LONGEST_NAME)) for name in names])
        panel.set_ylim(most - 0.4, -0.6)
        panel.set_xlim(0, 1.15 * highest + 0.05)
        share_axis(panel.xaxis)
        panel.set_xticks([tick for tick in panel.get_xticks() if tick <= 1])
        panel.set_xlabel("importance")
        grid(panel, style)
        panel.grid(False, axis="y")
        if title:
            further.append(panel_title(panel, title, style, min(LONGEST_NAME, max(map(len, names), default=0))))
    if style.height is None:
        figure.set_figheight(high + rows * max(further))
    compared = {f"the best {importance.best} of {importance.configurations}" for _, importance in cells}
    notes = [f"what sets {' or '.join(sorted(compared))} configurations apart (PED-ANOVA)"]
    if any(importance.caution for _, importance in cells):
        notes.append("few configurations for so many settings: another search may give shares that differ by tens of points")
    return finished(figure, drawn, notes, wanted.missing, style)


def _importance_name(name: str, shares: Mapping[str, float]) -> str:
    path = name.removesuffix(ON)
    kind = ": on or off" if name != path else ", where on" if f"{path}{ON}" in shares else ""
    return f"{label_of(path)}{kind}"


# ------------------------------------------------------------------------------------------- Pareto front


def _pareto(wanted: _Wanted) -> Figure:
    """Draw two metrics of every complete configuration against each other, with the front of each cell."""
    style = wanted.style
    found = _cells(wanted)
    search = wanted.reports[0].search
    objectives = [objective.name for objective in search.objectives]
    named = [name for name in (wanted.x, *wanted.y) if name]
    if len(named) not in (0, 2):
        raise FigureError("a Pareto front has two metrics: --x METRIC --y METRIC, such as --x par2 --y sparsity_error")
    if not named and len(objectives) < 2:
        raise FigureError(
            f"the sweep has one objective, {objectives[0]}: name two metrics, such as --x {objectives[0]} --y sparsity_error"
        )
    pairs = [(named[0], named[1])] if named else list(itertools.combinations(objectives, 2))[:MOST_PANELS]
    directions = {objective.name: objective.direction for objective in search.objectives}
    figure, drawn = panels(len(pairs), style, shape=0.8)
    any_point = False
    for panel, pair in zip(drawn, pairs, strict=True):
        signs = [_sign(name, directions) for name in pair]
        values: tuple[list[float], list[float]] = [], []
        for at, (title, _, cell) in enumerate(found):
            known = []
            for one in (each for each in cell if each.state == "complete"):
                a, b = (figure_of(one, name).estimate for name in pair)
                if a is not None and b is not None:
                    known.append((one.configuration.number, float(a), float(b)))
            if not known:
                wanted.missing.append(f"{title or 'the sweep'}: no complete configuration has both {' and '.join(pair)}")
                continue
            any_point = True
            for axis, column in zip(values, list(zip(*known, strict=True))[1:], strict=True):
                axis.extend(column)
            _front(panel, known, signs, at, title or "configurations", style)
        for name, sign, of_axis, set_label, set_scale in (
            (pair[0], signs[0], values[0], panel.set_xlabel, panel.set_xscale),
            (pair[1], signs[1], values[1], panel.set_ylabel, panel.set_yscale),
        ):
            set_label(plain(f"{label_of(name)}, {'lower' if sign > 0 else 'higher'} is better"))
            axis_of = panel.xaxis if set_scale == panel.set_xscale else panel.yaxis
            if unit_of(name) == "share":
                share_axis(axis_of)
            elif of_axis and min(of_axis) >= 0 and max(of_axis) > 30 * min(of_axis):
                scale_numbers(set_scale, of_axis)
            elif unit_of(name) == "steps":
                steps_axis(axis_of)
            else:
                numbers_axis(axis_of)
        grid(panel, style)
    if not any_point:
        raise FigureError(f"nothing to draw: {'; '.join(wanted.missing)}")
    notes = ["a point for every complete configuration; large and joined: on the Pareto front, with their numbers"]
    return finished(figure, drawn, notes, wanted.missing, style)


def _sign(name: str, directions: Mapping[str, str]) -> int:
    """Return 1 for a metric that is better where it is lower, -1 for the others. Raises UserError for an unknown one."""
    direction = directions.get(name) or metrics.find(name).direction
    if direction is None:
        raise FigureError(f"{name} is neither better where it is higher nor where it is lower: name another metric")
    return -1 if direction == "maximize" else 1


def _front(
    panel: Axes, points: Sequence[tuple[int, float, float]], signs: Sequence[int], at: int, title: str, style: Style
) -> None:
    """Draw the points of a cell, and join those that no other one beats in one metric without being worse in the other."""
    colour, marker = _colour(at), MARKERS[at % len(MARKERS)]
    front: list[tuple[int, float, float]] = []
    for point in sorted(points, key=lambda point: (signs[0] * point[1], signs[1] * point[2])):
        if not front or signs[1] * point[2] < signs[1] * front[-1][2]:
            front.append(point)
    on_front = {which for which, _, _ in front}
    rest = [(a, b) for which, a, b in points if which not in on_front]
    if rest:
        panel.plot(
            *zip(*rest, strict=True), linestyle="", marker=marker, color=colour, markersize=3.5, alpha=0.45, label="_rest"
        )
    panel.plot(
        [a for _, a, _ in front], [b for _, _, b in front], color=colour, marker=marker, markersize=6, linewidth=1.4,
        drawstyle="steps-post", label=f"{title} ({len(points)})",
    )  # fmt: skip
    for which, a, b in front[:: max(1, len(front) // 10)]:
        panel.annotate(
            f"#{which}", (a, b), xytext=(4, 4), textcoords="offset points", fontsize=style.font_size - 2, color=GREY
        )  # fmt: skip
