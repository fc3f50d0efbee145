"""Figures of a sweep: learning curves, errors by length, and metrics against an axis or a setting."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweeps.config.compare import values_at
from sweeps.config.registry import nearest
from sweeps.errors import UserError
from sweeps.results import metrics
from sweeps.results.metrics import ConfigurationMetric, StepMetric
from sweeps.results.report import Report, report
from sweeps.results.statistics import Interval
from sweeps.results.summary import RankedConfiguration
from sweeps.store import Store
from sweeps.training.lane import LaneResult


class FigureError(UserError):
    """There is nothing to draw, or no such column. The message lists the columns that exist."""


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


def label_of(one: RankedConfiguration, by: Sequence[str], sweep: str = "") -> str:
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
    middle = []
    for at in xs:
        values = sorted(value for value in (_last(line, at) for line in lines) if not math.isnan(value))
        half = len(values) // 2
        middle.append(math.nan if not values else values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2)
    return Line(xs, middle)


def _last(line: Line, at: float) -> float:
    before = [value for x, value in zip(line.x, line.y, strict=True) if x <= at]
    return before[-1] if before else math.nan


def figure_of(one: RankedConfiguration, y: str) -> Interval:
    """Return a configuration metric with its interval; empty where no seed defines it. Raises FigureError if unknown."""
    name = metrics.canonical_name(y)
    names = [metric.name for metric in metrics.configuration_metrics(one.results)]
    if name in names:
        return one.summary.value(name)
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


def _hint(word: str, names: Sequence[str]) -> str:
    near = nearest(word, names)
    return f" Did you mean {near!r}?" if near else ""


def _accuracies() -> dict[str, str]:
    """Return name of an accuracy -> name of the error, which is one minus the accuracy."""
    pairs = {share.accuracy: share.name for share in metrics.SYMBOL_ERRORS}
    return pairs | {f"{right}_with_padding": f"{wrong}_with_padding" for right, wrong in pairs.items()}


def _axis(name: str) -> tuple[str, str]:
    """Return (label, unit) of the axis of a metric or a column."""
    drawn: list[StepMetric | ConfigurationMetric] = [*metrics.step_metrics(), *metrics.configuration_metrics()]
    for metric in drawn:
        if metric.name == metrics.canonical_name(name):
            return metric.label or metric.name.replace("_", " "), metric.unit
    for share in metrics.SYMBOL_ERRORS:
        if name == share.accuracy:
            return share.label, "share"
    return name.replace("_", " "), "share" if name.partition(".")[0] in _accuracies() else ""


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B2A800")  # Okabe and Ito 2008
MARKERS = "osD^vPX*"
DEFAULT_Y = {
    "step": (metrics.SOLVED_FRACTION.name, "error.extrapolation"),
    "length": tuple(share.accuracy for share in metrics.SYMBOL_ERRORS),
}
DATES: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}
PANEL_WIDTH, PANEL_HEIGHT = 4.6, 3.4  # inches
LETTERS = 85
"""Of the lines above the panels that are as wide as one panel."""
MOST_LINES = 5
GREY = "#555555"


def draw(
    store: Store, names: Sequence[str], x: str = "step", y: Sequence[str] = (), by: Sequence[str] = (),
    on_missing: Callable[[str], None] = lambda line: None,
) -> Figure:  # fmt: skip
    return draw_reports([report(store, name) for name in names], x, y, by, on_missing)


def standard_figures(found: Report) -> list[tuple[str, str, Figure]]:
    return [("convergence.svg", "Convergence", draw_reports([found]))]


def draw_reports(
    reports: Sequence[Report], x: str = "step", y: Sequence[str] = (), by: Sequence[str] = (),
    on_missing: Callable[[str], None] = lambda line: None,
) -> Figure:  # fmt: skip
    """Draw a panel for every `y` against `x`: "step", "length", an axis of the sweep, or a setting such as "train.lr".

    `by` names the axes that colours distinguish; all but `x` where none is named. Several sweeps share the panels. Each
    cell that cannot be drawn is a line above the panels, with the reason, and is passed to `on_missing`. Raises FigureError
    for what no cell has, and StoreError for an unknown sweep.
    """
    names = [one.name for one in reports]
    found = [(one.name, configuration) for one in reports for configuration in one.configurations]
    check_axes(by, [one for _, one in found])
    shown = by or list(dict.fromkeys(a for _, one in found for a in one.configuration.labels if a != x))
    only_best = x in DEFAULT_Y or any(x in one.configuration.labels for _, one in found)
    missing = [f"{one.name}: no configuration has been tried yet" for one in reports if not one.configurations]
    labelled = []
    for one in reports:
        for cell in one.cells():
            drawn, reasons = _drawable(cell, only_best, x)
            title = cell[0].configuration.cell if cell[0].configuration.labels else one.name
            title = f"{one.name}: {title}" if len(names) > 1 and title != one.name else title
            missing += [f"{title}{reason}" for reason in reasons]
            for configuration in drawn:
                label = label_of(configuration, shown, "" if len(names) > 1 else one.name)
                labelled.append((f"{one.name}: {label}".rstrip(": ") if len(names) > 1 else label, configuration))
    if found and x not in DEFAULT_Y and all(position_of(one, x) is None for _, one in found):
        raise FigureError(
            f"nothing has a value of {x!r}: it is step, length, an axis of the sweep, or a setting such as train.lr"
        )
    if not labelled:
        raise FigureError(f"nothing to draw: {'; '.join(missing)}")
    with matplotlib.rc_context({"font.size": 9}):
        if x in DEFAULT_Y:
            figure = _lines(labelled, x, y or DEFAULT_Y[x], missing)
        else:
            default = [metric.name for metric in metrics.configuration_metrics() if metric.default_figure]
            figure = _points(labelled, x, y or default, missing)
    for line in missing:
        on_missing(f"not drawn: {line}")
    return figure


def _drawable(cell: Sequence[RankedConfiguration], only_best: bool, x: str) -> tuple[list[RankedConfiguration], list[str]]:
    """Return the configurations of a cell that can be drawn, or its best one, and for each that cannot the reason."""
    best = [one for one in cell if _is_best(one)][:1]  # of several objectives the first on the front
    chosen = [one for one in (best if only_best else cell) if one.results and not one.at_rung]
    at_rung = 0 if only_best else sum(one.at_rung for one in cell)
    if not chosen:
        return [], [": no configuration is complete yet" if any(one.results for one in cell) else ": no seed has ended yet"]
    drawn, reasons = [], []
    for one in chosen:
        number = f" #{one.configuration.number}" if len(chosen) > 1 else ""
        if one.summary.errors == one.summary.seeds:
            reasons.append(f"{number}: every seed ended in an error, such as {one.results[0].reason}")
        elif x not in DEFAULT_Y and position_of(one, x) is None:
            reasons.append(f"{number}: it has no {x}")
        else:
            drawn.append(one)
    if reasons and not drawn and all(reason.endswith(f"it has no {x}") for reason in reasons):
        reasons = [f": it has no {x}"]
    if at_rung:
        reasons.append(f": {at_rung} configurations that early stopping stopped at a rung, before their whole budget")
    return drawn, reasons


def write(figure: Figure, file: Path) -> None:
    """Write .svg, .png or .pdf: for equal results the same bytes. Raises FigureError for another ending."""
    if file.suffix not in DATES:
        raise FigureError(f"a figure is written as .svg, .png or .pdf, but the file requested ends in {file.suffix!r}")
    save(figure, file, file.suffix)


def save(figure, file, suffix: str) -> None:
    with matplotlib.rc_context({"font.size": 9, "svg.hashsalt": "sweeps", "svg.fonttype": "none", "pdf.fonttype": 42}):
        figure.savefig(file, dpi=150, metadata=DATES[suffix], format=suffix[1:])


def _lines(labelled: Sequence[tuple[str, RankedConfiguration]], x: str, y: Sequence[str], missing: list[str]) -> Figure:
    """Draw lines against the step or the length; what is drawn in one panel and not in another is added to `missing`."""
    lanes = grouped(labelled)
    shares = {metric.name for metric in metrics.step_metrics()}
    figure, panels = _panels(len(y))
    for panel, name in zip(panels, y, strict=True):
        groups = _groups(lanes, x, name, missing)
        for number, group in groups.items():
            colour = COLOURS[number % len(COLOURS)]
            for line in group.seeds if group.lanes > 1 else ():
                panel.plot(line.x, line.y, color=colour, linewidth=0.7, alpha=0.4)
            seeds = "seed" if group.lanes == 1 else "seeds"
            panel.plot(
                group.middle.x, group.middle.y, color=colour, linewidth=1.8, label=f"{group.label} ({group.lanes} {seeds})",
                drawstyle="steps-post" if name in shares else "default",
                marker=MARKERS[number % len(MARKERS)] if x == "length" else None, markersize=4,
            )  # fmt: skip
            if group.middle.band:
                panel.fill_between(group.middle.x, *group.middle.band, step="post", color=colour, alpha=0.15, linewidth=0)
        _scale(panel, name, [v for group in groups.values() for line in (*group.seeds, group.middle) for v in line.y])
        panel.set_xlabel(x)
        if x == "length":
            _lengths(panel, sorted({length for group in groups.values() for length in group.middle.x}))
    note = "95 % interval of the share of seeds shaded; " if shares & set(y) else ""
    return _finished(figure, panels, note + "thin: seeds, thick: their median", missing)


def _groups(lanes: Mapping[str, list[LaneResult]], x: str, y: str, missing: list[str]) -> dict[int, Group]:
    """Return number of the colour -> group. Raises FigureError where no label has `y` against `x`."""
    of = against_step if x == "step" else against_length
    groups: dict[int, Group] = {}
    errors: list[FigureError] = []
    for number, (label, results) in enumerate(lanes.items()):
        try:
            group = of(label, results, y)
        except FigureError as error:
            errors.append(error)
            missing.append(f"{label}: {error}")
            continue
        if group.middle.y and all(math.isnan(value) for value in group.middle.y):
            diverged = all(result.outcome == "diverged" for result in results)
            missing.append(f"{label}: {y} is never finite" + (", every seed diverged" if diverged else ""))
        groups[number] = group
    if not groups:
        raise errors[0]
    return groups


def _points(labelled: Sequence[tuple[str, RankedConfiguration]], x: str, y: Sequence[str], missing: Sequence[str]) -> Figure:
    """Draw a point with its interval for each configuration."""
    placed = [(label, one, position_of(one, x)) for label, one in labelled]
    ended = [(label, one, position) for label, one, position in placed if position is not None]
    on_axis = any(x in one.configuration.labels for _, one, _ in ended)
    positions = list(dict.fromkeys(position for _, _, position in ended))
    numbers = [position for position in positions if isinstance(position, float)]
    numeric = len(numbers) == len(positions)
    labels = list(dict.fromkeys(label for label, _, _ in ended))
    figure, panels = _panels(len(y))
    for panel, name in zip(panels, y, strict=True):
        for number, label in enumerate(labels):
            own = [(one, position) for other, one, position in ended if other == label]
            shift = 0.0 if numeric else 0.6 * ((number + 0.5) / len(labels) - 0.5)
            xs = [
                position if isinstance(position, float) and numeric else positions.index(position) + shift
                for _, position in own
            ]
            _intervals(panel, xs, [figure_of(one, name) for one, _ in own], number, label)
        _scale(panel, name, [v for _, one, _ in ended if (v := figure_of(one, name).estimate) is not None])
        panel.set_xlabel(x)
        if numeric:
            _numbers(panel, numbers)
        else:
            panel.set_xlim(-0.6, len(positions) - 0.4)
            panel.set_xticks(range(len(positions)), [str(p) for p in positions], rotation=30 if len(positions) > 4 else 0)
    note = "bars: 95 % intervals over seeds" + ("; the best configuration of a cell" if on_axis else "")
    return _finished(figure, panels, note, missing)


def _intervals(panel: Axes, xs: Sequence[float], figures: Sequence[Interval], number: int, label: str) -> None:
    points = [(at, f.estimate, f) for at, f in zip(xs, figures, strict=True) if f.estimate is not None]
    ends = [[value - (f.low if f.low is not None else value) for _, value, f in points],
            [(f.high if f.high is not None else value) - value for _, value, f in points]]  # fmt: skip
    panel.errorbar(
        [at for at, _, _ in points], [value for _, value, _ in points], yerr=ends, label=label,
        fmt=MARKERS[number % len(MARKERS)], color=COLOURS[number % len(COLOURS)], markersize=5, capsize=2, linewidth=1,
    )  # fmt: skip


def _is_best(one: RankedConfiguration) -> bool:
    """Return whether it is the best of its cell or, while none is complete, has the file's own values."""
    return bool(one.results) and (one.rank == 1 or (one.rank is None and one.configuration.number == 0))


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(PANEL_WIDTH * count, PANEL_HEIGHT), layout="constrained")
    return figure, [figure.add_subplot(1, count, index + 1) for index in range(count)]


def _scale(panel: Axes, name: str, values: Sequence[float]) -> None:
    """Set the y axis: fractions from 0 to 100 %, errors on a logarithmic axis, with a linear part if one is 0."""
    label, unit = _axis(name)
    panel.set_ylabel(label)
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        panel.text(0.5, 0.5, "no value", color=GREY, ha="center", va="center", transform=panel.transAxes)
        panel.set_yticks([])
    if unit == "share":
        panel.set_ylim(-0.02, 1.03)
        panel.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0, decimals=0))
    elif finite and min(finite) >= 0 and max(finite) > 30 * min(finite):
        positive = [value for value in finite if value > 0]
        if len(positive) < len(finite) and positive:
            panel.set_yscale("symlog", linthresh=min(positive), linscale=0.5)
        elif positive:
            panel.set_yscale("log")


def _numbers(panel: Axes, positions: Sequence[float]) -> None:
    """Set the x axis, which is the same for all panels, also where a metric is unknown at some positions."""
    positive = [position for position in positions if position > 0]
    if not positive or max(positive) <= 30 * min(positive):
        return
    if len(positive) == len(positions):
        panel.set_xscale("log")
        panel.set_xlim(min(positions) / 1.3, max(positions) * 1.3)
    else:
        panel.set_xscale("symlog", linthresh=min(positive))
    panel.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())


def _lengths(panel: Axes, lengths: Sequence[float]) -> None:
    panel.set_xscale("log")
    panel.set_xticks(lengths, [f"{length:g}" for length in lengths], rotation=45 if len(lengths) > 5 else 0)
    panel.minorticks_off()


def _finished(figure: Figure, panels: Sequence[Axes], note: str, missing: Sequence[str]) -> Figure:
    for panel in panels:
        panel.grid(True, color="#DDDDDD", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    handles: dict[str, Any] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=max(1, min(3, len(handles))), frameon=False
    )
    # Text of users, in which $ would begin a formula.
    lines = [f"not drawn: {line}".replace("$", r"\$") for line in missing[:MOST_LINES]]
    lines += [f"not drawn: {len(missing) - MOST_LINES} more"] if len(missing) > MOST_LINES else []
    wrapped = (textwrap.wrap(line, LETTERS * len(panels)) for line in lines)
    figure.suptitle("\n".join([note, *itertools.chain(*wrapped)]), fontsize=7, color=GREY, x=0.995, ha="right")
    return figure
