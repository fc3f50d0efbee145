"""Draws the numbers of `series` with matplotlib: colours that colour-blind readers can tell, a marker for each group."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sweeps.figures.series import (
    FIGURES,
    SOLVED,
    FigureError,
    Group,
    against_length,
    against_step,
    check_axes,
    figure_of,
    grouped,
    label_of,
    place_of,
)
from sweeps.report import Standing, standings
from sweeps.store import Store

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
