"""The numbers of a figure: which lanes, which columns, grouped how. Nothing here draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
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
from sweeps.results import Standing, standings
from sweeps.results.statistics import Interval, wilson
from sweeps.store import Store
from sweeps.training.lane import LaneResult

SOLVED = "solved_fraction"
"""Fraction of seeds that have converged by a step, with Wilson's interval: the papers' figure."""
ACCURACIES = {f"{what}_accuracy": f"{what}_error" for what in ("symbol", "sequence")}
"""Fractions right instead of wrong. Padding is counted where the error's name ends on `_with_padding`."""
ACCURACIES |= {f"{right}_with_padding": f"{wrong}_with_padding" for right, wrong in ACCURACIES.items()}
FIGURES = ("success_rate", "converged_at", "sparsity_error", "par2")
"""What can stand against an axis of the sweep; so can the median of `error.<split>`."""


class FigureError(UserError):
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


def grouped(standings: Iterable[tuple[str, Standing]]) -> dict[str, list[LaneResult]]:
    """Label -> lanes of all cells of that label, in order of appearance."""
    found: dict[str, list[LaneResult]] = {}
    for label, standing in standings:
        found.setdefault(label, []).extend(standing.records)
    return {label: records for label, records in found.items() if records}


def against_step(label: str, records: Sequence[LaneResult], y: str) -> Group:
    """A column of the learning curve, or `solved_fraction`, against the step."""
    if y == SOLVED:
        return Group(label, len(records), (), _solved(records))
    return _columns(label, records, y, "step", lambda record: record.curve)


def against_length(label: str, records: Sequence[LaneResult], y: str) -> Group:
    """A column of the errors by length, or an accuracy, of every lane's final state."""
    return _columns(label, records, y, "length", lambda record: record.by_length)


def _columns(
    label: str,
    records: Sequence[LaneResult],
    y: str,
    x: str,
    of: Callable[[LaneResult], dict[str, list[Any]]],
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


def _stored_name(
    y: str, of: Callable[[LaneResult], dict[str, list[Any]]], records: Sequence[LaneResult]
) -> str:
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


def _solved(records: Sequence[LaneResult]) -> Line:
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


COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#B2A800",
)  # Okabe and Ito 2008
MARKERS = "osD^vPX*"
DEFAULT_Y = {"step": (SOLVED, "error.extrapolation"), "length": ("symbol_accuracy", "sequence_accuracy")}
WORDS = {
    "success_rate": "seeds solved",
    SOLVED: "seeds solved",
    "converged_at": "converged at (step)",
    "sparsity_error": "sparsity error",
    "symbol_accuracy": "symbols right",
    "sequence_accuracy": "sequences right",
}
DATES: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}
PANEL_WIDTH, PANEL_HEIGHT = 4.6, 3.4  # inches


def draw(
    store: Store, names: Sequence[str], x: str = "step", y: Sequence[str] = (), by: Sequence[str] = ()
) -> Figure:
    """A panel for every `y`, against `x`: "step", "length", an axis of the sweep, or a setting such as "train.lr".

    `by` names the axes that are told apart by colour; all but `x` where none is named. Several sweeps share the panels.
    Raises FigureError for what the records do not have, and StoreError for an unknown sweep.
    """
    found = [(name, standing) for name in names for standing in standings(store, name)[1]]
    check_axes(by, [standing for _, standing in found])
    shown = by or list(dict.fromkeys(a for _, s in found for a in s.configuration.labels if a != x))
    labelled = []
    for name, standing in found:
        label = label_of(standing, shown, "" if len(names) > 1 else name)
        labelled.append((f"{name}: {label}".rstrip(": ") if len(names) > 1 else label, standing))
    with matplotlib.rc_context({"font.size": 9}):
        if x in DEFAULT_Y:
            return _lines(labelled, x, y or DEFAULT_Y[x])
        return _points(labelled, x, y or FIGURES[:3])


def write(figure: Figure, file: Path) -> None:
    """Writes .svg, .png or .pdf: for equal records the same bytes. Raises FigureError for another ending."""
    if file.suffix not in DATES:
        raise FigureError(
            f"a figure is written as .svg, .png or .pdf, but the file asked for is {file.name!r}"
        )
    with matplotlib.rc_context({"font.size": 9, "svg.hashsalt": "sweeps"}):
        figure.savefig(file, dpi=150, metadata=DATES[file.suffix])


def _lines(labelled: Sequence[tuple[str, Standing]], x: str, y: Sequence[str]) -> Figure:
    of: Callable[..., Group] = against_step if x == "step" else against_length
    lanes = grouped((label, s) for label, s in labelled if _is_best(s))
    if not lanes:
        raise FigureError("nothing to draw: no lane of the sweep has ended yet")
    figure, panels = _panels(len(y))
    for panel, name in zip(panels, y, strict=True):
        groups = [of(label, records, name) for label, records in lanes.items()]
        for number, group in enumerate(groups):
            colour = COLOURS[number % len(COLOURS)]
            for line in group.seeds if group.lanes > 1 else ():
                panel.plot(line.x, line.y, color=colour, linewidth=0.7, alpha=0.4)
            seeds = "seed" if group.lanes == 1 else "seeds"
            panel.plot(
                group.middle.x, group.middle.y, color=colour, linewidth=1.8, label=f"{group.label} ({group.lanes} {seeds})",
                drawstyle="steps-post" if name == SOLVED else "default",
                marker=MARKERS[number % len(MARKERS)] if x == "length" else None, markersize=4,
            )  # fmt: skip
            if group.middle.band:
                panel.fill_between(
                    group.middle.x, *group.middle.band, step="post", color=colour, alpha=0.15, linewidth=0
                )
        values = [v for group in groups for line in (*group.seeds, group.middle) for v in line.y]
        _scale(panel, name, values)
        panel.set_xlabel(x)
        if x == "length":
            _lengths(panel, sorted({place for group in groups for place in group.middle.x}))
    note = "95 % interval of the success rate shaded; " if SOLVED in y else ""
    return _finished(figure, panels, note + "thin: seeds, thick: their median")


def _points(labelled: Sequence[tuple[str, Standing]], x: str, y: Sequence[str]) -> Figure:
    """One point with its interval for the best configuration of a cell; for all of them against a searched setting."""
    ended = [(label, s, place_of(s, x)) for label, s in labelled if s.records]
    ended = [(label, s, place) for label, s, place in ended if place is not None]
    if not ended:
        raise FigureError(
            f"nothing stands against {x!r}: it is step, length, an axis of the sweep, or a setting such as train.lr"
        )
    on_axis = any(x in s.configuration.labels for _, s, _ in ended)
    if on_axis:
        ended = [entry for entry in ended if _is_best(entry[1])]
    places = list(dict.fromkeys(place for _, _, place in ended))
    numbers = [place for place in places if isinstance(place, float)]
    numeric = len(numbers) == len(places)
    labels = list(dict.fromkeys(label for label, _, _ in ended))
    figure, panels = _panels(len(y))
    for panel, name in zip(panels, y, strict=True):
        for number, label in enumerate(labels):
            mine = [(s, place) for other, s, place in ended if other == label]
            shift = 0.0 if numeric else 0.6 * ((number + 0.5) / len(labels) - 0.5)
            xs = [
                place if isinstance(place, float) and numeric else places.index(place) + shift
                for _, place in mine
            ]
            _intervals(panel, xs, [figure_of(s, name) for s, _ in mine], number, label)
        _scale(panel, name, [v for _, s, _ in ended if (v := figure_of(s, name).estimate) is not None])
        panel.set_xlabel(x)
        if numeric:
            _numbers(panel, numbers)
        else:
            panel.set_xlim(-0.6, len(places) - 0.4)
            panel.set_xticks(
                range(len(places)), [str(p) for p in places], rotation=30 if len(places) > 4 else 0
            )
    return _finished(
        figure,
        panels,
        "bars: 95 % intervals over seeds" + ("; the best configuration of a cell" if on_axis else ""),
    )


def _intervals(panel: Axes, xs: Sequence[float], figures: Sequence[Any], number: int, label: str) -> None:
    known = [(place, f) for place, f in zip(xs, figures, strict=True) if f.estimate is not None]
    ends = [[f.estimate - (f.low if f.low is not None else f.estimate) for _, f in known],
            [(f.high if f.high is not None else f.estimate) - f.estimate for _, f in known]]  # fmt: skip
    panel.errorbar(
        [place for place, _ in known], [f.estimate for _, f in known], yerr=ends, label=label,
        fmt=MARKERS[number % len(MARKERS)], color=COLOURS[number % len(COLOURS)], markersize=5, capsize=2, linewidth=1,
    )  # fmt: skip


def _is_best(standing: Standing) -> bool:
    """The best of its cell, or, while none is complete, the file's own values."""
    return bool(standing.records) and (
        standing.rank == 1 or (standing.rank is None and standing.configuration.number == 0)
    )


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(PANEL_WIDTH * count, PANEL_HEIGHT), layout="constrained")
    return figure, [figure.add_subplot(1, count, place + 1) for place in range(count)]


def _scale(panel: Axes, name: str, values: Sequence[float]) -> None:
    """Fractions from 0 to 100 %; errors on a log axis that has a place for 0."""
    panel.set_ylabel(WORDS.get(name, name.replace("_", " ")))
    finite = [value for value in values if math.isfinite(value)]
    if name in ("success_rate", SOLVED) or "accuracy" in name:
        panel.set_ylim(-0.02, 1.03)
        panel.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0, decimals=0))
    elif finite and min(finite) >= 0 and max(finite) > 30 * min(finite):
        positive = [value for value in finite if value > 0]
        if len(positive) < len(finite) and positive:
            panel.set_yscale("symlog", linthresh=min(positive), linscale=0.5)
        elif positive:
            panel.set_yscale("log")


def _numbers(panel: Axes, places: Sequence[float]) -> None:
    """The same axis for all panels, also where a figure is unknown at some places."""
    positive = [place for place in places if place > 0]
    if not positive or max(positive) <= 30 * min(positive):
        return
    if len(positive) == len(places):
        panel.set_xscale("log")
        panel.set_xlim(min(places) / 1.3, max(places) * 1.3)
    else:
        panel.set_xscale("symlog", linthresh=min(positive))
    panel.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())


def _lengths(panel: Axes, lengths: Sequence[float]) -> None:
    panel.set_xscale("log")
    panel.set_xticks(lengths, [f"{length:g}" for length in lengths], rotation=45 if len(lengths) > 5 else 0)
    panel.minorticks_off()


def _finished(figure: Figure, panels: Sequence[Axes], note: str) -> Figure:
    for panel in panels:
        panel.grid(True, color="#DDDDDD", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)), frameon=False)
    figure.suptitle(note, fontsize=7, color="#555555", x=0.995, ha="right")
    return figure
