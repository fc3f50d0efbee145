"""Formats of a report: Markdown, HTML and LaTeX for people; JSON, CSV and Parquet for programs. Entries of `FORMATS`."""

from __future__ import annotations

import dataclasses
import json
import statistics
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.config.space import Dimension, Search
from sweeps.machine import price_here
from sweeps.results import frames, metrics
from sweeps.results.metrics import Column, ConfigurationMetric
from sweeps.results.numbers import UNKNOWN, counted, number, percent, steps
from sweeps.results.provenance import failures, price_of, provenance
from sweeps.results.report import BY_BUDGET, Report, shrinkage
from sweeps.results.summary import RankedConfiguration, Summary, value_of
from sweeps.results.verdicts import KINDS, Unsolved, solved_at_end, unsolved

SHORT_NAMES = {"train.gradient_noise": "noise", "model.name": "model", "task.name": "task"}
MOST_TIED = 8
"""Configurations of a tie that are listed."""
ON = " is on"
"""After the path of a dimension: the parameter of a search that switches it on or off."""
MOST_PLACES = 6
"""Configurations that are named for one reason of failure."""
MOST_SEEDS = 5
"""Seeds of a verdict that are listed."""
AT_A_BOUND = 0.05
"""Share of a dimension's range, on its own scale, next to a bound."""
MOST_STOPPED = 8
"""Configurations that early stopping stopped which are listed with the reason."""
MOST_REASONS = 3
"""Number of different errors that the remarks on a cell list."""
STOPPED = "†"
"""After the number of a configuration that early stopping stopped."""
FAILED_FORMATS = ("md", "json", "csv")
"""Formats of `sweeps report --failed`."""
FAILED_KINDS = tuple(kind for kind in KINDS[2:] if kind != "no threshold")
"""Verdicts of seeds that failed."""
NOT_SHOWN = f"[{UNKNOWN}]"
"""In place of an interval that is not shown."""
WIDTH = 118
"""Columns that prose is wrapped to, so that it is readable in a terminal."""


def as_markdown(report: Report, timing: bool = True) -> str:
    """Return the whole report as Markdown. Without `timing` the same records give the same bytes."""
    parts: list[Part] = [f"# {report.name}", *overview(report)]
    for cell in report.cells():
        parts.extend(of_cell(report, cell))
    parts.extend(failures_by_reason(report))
    totals = report.totals()
    parts.extend(["## Totals", totals_line(totals, report.is_judged())])
    if timing:
        parts.extend([timing_line(totals), provenance_line(report)])
    parts.append(_wrapped(" ".join(legend(report))))
    return "\n\n".join(map(str, parts)) + "\n"


def overview(report: Report) -> list[Part]:
    """Return what a report for people begins with: the question, and the tables of the best configurations."""
    parts: list[Part] = []
    if report.row.document.get("question"):
        parts.append(question(report))
    if not report.configurations:
        parts.append("No configuration has been tried yet.")
    elif not any(one.rank is not None for one in report.configurations):
        parts.append("No configuration is complete yet, so none is ranked.")
    cells = report.cells()
    return [
        *parts,
        *_best_of_each(report, cells),
        *_pareto_front(report, cells),
        *_confirmation(report, cells),
        *_by_length(report, cells),
    ]


def question(report: Report) -> str:
    """Return the question of the sweep, wrapped; empty where it has none."""
    return _wrapped(str(report.row.document.get("question") or ""))


def legend(report: Report, remarks: bool = True) -> list[str]:
    """Return a sentence on every column of the tables, and with `remarks` on what the remarks below them need."""
    columns = [f"{column.short_header or column.header}: {column.legend}." for _, column in _columns()]
    if not report.is_judged() and report.configurations:
        columns = ["The task has no threshold, so no seed is judged as solved: see the errors."]
    best = "one on the Pareto front of its cell" if report.search.further_objectives else "the best of its cell"
    mark = f", * {best}" if any(map(report.is_marked, report.cells())) else ""
    hides = remarks and any(_hides(report.judged_by(cell[0])) for cell in report.cells())
    if any(one.state == "pruned" for one in report.configurations):
        mark += f", {STOPPED} stopped early, so its figures are of fewer seeds or steps and it has no rank"
    return [*columns, f"#0 is the file's own configuration{mark}.", *([_OF_HIDDEN] if hides else [])]


_OF_HIDDEN = (
    f"{NOT_SHOWN}: the mean has an interval that reaches beyond {metrics.BEYOND:g} times the slowest seed, so it is not shown. "
    "The budget sets its upper end: so few seeds, or equal ones, do not exclude that others need the whole budget. The median "
    "is the better summary; JSON and CSV have the interval."
)


def failures_by_reason(report: Report) -> list[Part]:
    """Return a table of the seeds that diverged or ended in an exception, by reason; nothing where there are none."""
    rows = []
    for one in failures(report):
        more = f" and {len(one.configurations) - MOST_PLACES} more" if len(one.configurations) > MOST_PLACES else ""
        rows.append([str(one.seeds), one.outcome, one.reason, ", ".join(one.configurations[:MOST_PLACES]) + more])
    return ["## Failures by reason", table(["seeds", "outcome", "reason", "where"], rows)] if rows else []


def provenance_line(report: Report) -> str:
    """Return where the results come from, in one paragraph; it may differ between equal sweeps."""
    return _wrapped(f"Provenance: {'; '.join(f'{what} {value}' for what, value in provenance(report).items())}.")


def as_json(report: Report, timing: bool = True) -> str:
    """Return the whole report as indented JSON. Without `timing` the same records give the same bytes."""
    return json.dumps(_object(report, timing), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _object(report: Report, timing: bool) -> dict[str, Any]:
    """Return the report with failures by reason and, unless it shall be without wall times, its provenance."""
    found = report.as_dict(timing) | {"failures": [dataclasses.asdict(one) for one in failures(report)]}
    if not timing:
        return found
    wall = found["totals"]["timing"]
    wall["cost_usd_per_node"] = price_of(wall["sweep_seconds"], price_here())
    return found | {"provenance": provenance(report)}


def _list_of_json(reports: Sequence[Report], timing: bool) -> str:
    """Return one JSON document: the list of the reports' objects."""
    return json.dumps([_object(report, timing) for report in reports], indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(*reports: Report) -> str:
    """Return a row for each configuration: axes, rank, state, parameters, metrics. Empty fields are unknown.

    Of several reports it is one table of all columns, the first of which names the sweep.
    """
    rows = frames.rows_of("configurations", reports)
    return frames.csv_text("configurations", reports, rows, without="sweep" if len(reports) == 1 else None)


def _html(reports: Sequence[Report], timing: bool) -> str:
    from sweeps.results.html import as_html  # here, because it loads matplotlib

    return as_html(reports, timing)


def _tex(reports: Sequence[Report], timing: bool) -> str:
    from sweeps.results.latex import as_tex  # here, because it imports this module

    return as_tex(reports, timing)


def failed_seeds(reports: Sequence[Report], format: str, timing: bool = True) -> str:
    """Return the seeds that are unsolved, diverged or ended in an error, with their verdicts, as one of `FAILED_FORMATS`.

    In json and csv they are rows of the level `seeds`. Seeds of a task without a threshold are not unsolved.
    """
    every = frames.rows_of("seeds", reports, timing)
    rows = [row for row in every if row["verdict"] in FAILED_KINDS]
    if format == "json":
        return json.dumps(rows, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if format == "csv":
        return frames.csv_text("seeds", reports, rows)
    parts: list[Part] = []
    for report in reports:
        of_sweep = [row for row in rows if row["sweep"] == report.name]
        finished = sum(row["sweep"] == report.name for row in every)
        counts = Counter(row["verdict"] for row in of_sweep)
        kinds = "; ".join(f"{counts[kind]} {kind}" for kind in FAILED_KINDS if counts[kind])
        parts.append(f"# {report.name}: seeds that failed")
        if not of_sweep:
            parts.append(f"None of {counted(finished, 'finished seed')} is unsolved, diverged or ended in an error.")
            continue
        parts.append(_wrapped(f"{len(of_sweep)} of {counted(finished, 'finished seed')}: {kinds}."))
        axes = list(dict.fromkeys(axis for one in report.configurations for axis in one.configuration.labels))
        fresh = any(row["phase"] == "confirmation" for row in of_sweep)
        header = [*axes, "#", *(["phase"] if fresh else []), "seed", "verdict", "why"]
        parts.append(table(header, [
            [
                *(str(row.get(f"cell.{axis}", "")) for axis in axes), str(row["number"]), *([row["phase"]] if fresh else []),
                str(row["seed"]), row["verdict"], " ".join(row["verdict_text"].split()),
            ]
            for row in of_sweep
        ]))  # fmt: skip
    return "\n\n".join(map(str, parts)) + "\n"


@dataclass(frozen=True)
class Format:
    """A format of `sweeps report`."""

    render: Callable[[Report, bool], str | bytes]
    """(report, with wall times) -> text; bytes of a format that only a file can hold."""
    several: Callable[[Sequence[Report], bool], str | bytes] | None = None
    """(reports of several sweeps, with wall times) -> text or bytes; None: one after another."""
    empty_line: bool = False
    """Whether the command prints an empty line after it."""
    levels: Callable[[str, Sequence[Report], bool], str | bytes] | None = None
    """Of a table: (level of `sweeps.results.frames`, reports, with wall times) -> text or bytes."""
    is_binary: bool = False
    """Whether it is bytes."""


FORMATS: dict[str, Format] = {
    "md": Format(as_markdown, empty_line=True),
    "json": Format(as_json, several=_list_of_json, empty_line=True),
    "html": Format(lambda report, timing: _html([report], timing), several=_html),
    "tex": Format(lambda report, timing: _tex([report], timing), several=_tex),
    "csv": Format(
        lambda report, timing: as_csv(report),
        several=lambda reports, timing: as_csv(*reports),
        levels=lambda level, reports, timing: frames.csv_text(level, reports, frames.rows_of(level, reports, timing)),
    ),
    "parquet": Format(
        lambda report, timing: frames.parquet("configurations", [report], timing),
        several=lambda reports, timing: frames.parquet("configurations", reports, timing),
        levels=frames.parquet,
        is_binary=True,
    ),
}
"""Name, as in `sweeps report --format NAME` -> format."""


# ------------------------------------------------------------------------------------------- parts of the Markdown


def parameters(values: Mapping[str, Any], space: Mapping[str, Dimension]) -> str:
    """Return `lr 3.2e-3, dropout off`. A path is shortened to its last part where that is unambiguous.

    `space` defines which values mean off.
    """
    if not values:
        return "as the file says"
    named = [
        (name, shown_value(space, path, value))
        for name, (path, value) in zip(parameter_names(list(values)), values.items(), strict=True)
    ]
    named.sort(key=lambda item: (item[0] != "lr", item[0]))  # the learning rate first
    return ", ".join(f"{name} {value}" for name, value in named)


def parameter_names(paths: Sequence[str]) -> list[str]:
    """Return short names of dotted paths: the last part where that is unambiguous."""
    short = [SHORT_NAMES.get(path, path.rpartition(".")[2]) for path in paths]
    return [name if short.count(name) == 1 else path for path, name in zip(paths, short, strict=True)]


def shown_value(space: Mapping[str, Dimension], path: str, value: Any) -> str:
    """Return a value of a setting for people; `space` defines which values mean off."""
    off = path in space and space[path].has_off and value == space[path].off
    return "off" if off else _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return number(value) if isinstance(value, float) else str(value)


def timing_line(totals: Mapping[str, Any]) -> str:
    """Return wall time, lane time and speed, and the price where that of a node is known; it differs between equal sweeps."""
    timing = totals["timing"]
    rate, usd = timing["seed_steps_per_second"], price_of(timing["sweep_seconds"], price_here())
    parts = [f"{timing['sweep_seconds']:.1f} s of wall time", f"{timing['lane_seconds']:.1f} s of all lanes together"]
    parts += [f"{steps(rate)} seed-steps a second"] if rate is not None else []
    parts += [f"{usd:.2f} USD a node"] if usd is not None else []
    return f"Timing: {', '.join(parts)}."


@dataclass(frozen=True)
class Table:
    """A table of a report for people: a format renders it as it needs; `str` is Markdown."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        """Return Markdown whose columns are aligned in plain text; `|` in a field is escaped."""
        lines = [[field.replace("|", "\\|") for field in row] for row in (self.header, *self.rows)]
        widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(self.header))]

        def drawn(fields: Sequence[str]) -> str:
            padded = (field.ljust(width) for field, width in zip(fields, widths, strict=True))
            return f"| {' | '.join(padded)} |"

        rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
        return "\n".join([drawn(lines[0]), rule, *map(drawn, lines[1:])])


Part = str | Table
"""A part of a report for people: a heading, which begins with `## `, a paragraph, or a table."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table."""
    return Table(tuple(header), tuple(map(tuple, rows)))


def _columns() -> list[tuple[ConfigurationMetric, Column]]:
    return [(metric, metric.column) for metric in metrics.configuration_metrics() if metric.column is not None]


def columns(report: Report) -> list[tuple[str, ConfigurationMetric, Callable[[metrics.Lookup], str]]]:
    """Return (header, metric, text of a field) of the columns of a cell's table."""
    found = [(column.header, metric, column.text or _estimate(metric)) for metric, column in _columns()]
    return [*found, *((name, metric, _estimate(metric)) for name, metric in _own_columns(report.search))]


def _estimate(metric: ConfigurationMetric) -> Callable[[metrics.Lookup], str]:
    return lambda lookup: metric.format(lookup(metric.name).estimate)


def _own_columns(search: Search) -> list[tuple[str, ConfigurationMetric]]:
    """Return (header, metric) of the objectives, and of what constraints limit, that no column shows."""
    shown = {name for metric, column in _columns() for name in (metric.name, *column.shows)}
    wanted = [metrics.find(objective.name, objective.direction) for objective in search.objectives]
    wanted += [metrics.find(constraint.name) for constraint in search.constraints]
    different: dict[str, ConfigurationMetric] = {}
    for metric in wanted:
        different.setdefault(metric.name, metric)
    return [(name, metric) for name, metric in different.items() if name not in shown]


def _aim(search: Search) -> str:
    """Return `lowest par2`, of several objectives all of them."""
    words = {"maximize": "highest", "minimize": "lowest"}
    return ", ".join(f"{words[objective.direction]} {objective.name}" for objective in search.objectives)


def _order(search: Search) -> str:
    """Return what decides the order of configurations."""
    return f"the constraints, then {_aim(search)}" if search.constraints else _aim(search)


def _best_of_each(report: Report, cells: Sequence[Sequence[RankedConfiguration]]) -> list[Part]:
    best = [cell[0] for cell in cells if cell[0].rank == 1]
    if not best:
        return []
    axes = list(dict.fromkeys(axis for one in best for axis in one.configuration.labels))
    own = _own_columns(report.search)
    header = [*axes, "#", *(column.short_header or column.header for _, column in _columns())]
    rows = []
    for one in best:
        lookup = report.judged_by(one).value
        fields = []
        for metric, column in _columns():
            text = column.short_text or column.text
            fields.append(text(lookup) if text else metric.format(lookup(metric.name).estimate))
        labels = [str(one.configuration.labels.get(axis, "")) for axis in axes]
        fields += [metric.format(lookup(name, metric.direction).estimate) for name, metric in own]
        rows.append([*labels, str(one.configuration.number), *fields, parameters(one.parameters, report.search.space)])
    header += [*(name for name, _ in own), "parameters"]
    fresh = sum(report.judged_by(one) is one.confirmed for one in best)
    where = "" if not fresh else ", on fresh seeds" if fresh == len(best) else ", on fresh seeds where there are any"
    by_error = [cell for cell in cells if report.ranked_by_error(cell)]
    if len(by_error) == len(best):
        why = "Nothing is solved" if report.is_judged() else "The task has no threshold"
        return [f"## {why}: the lowest error of each cell{where}", table(header, rows), *_best_of_all(report)]
    if report.is_without_winner():
        return [f"## Nothing is solved: the first of each cell by {_order(report.search)}{where}", table(header, rows)]
    parts: list[Part] = [f"## Best of each cell: {_aim(report.search)}{where}", table(header, rows), *_best_of_all(report)]
    first = [cell for cell in cells if cell[0].rank == 1 and not report.ranked_by_error(cell) and not report.has_winner(cell)]
    for unsolved_cells, which in ((by_error, "with the lowest error"), (first, f"that is first by {_order(report.search)}")):
        if unsolved_cells:
            names = ", ".join(title_of(cell) for cell in unsolved_cells)
            parts.append(_wrapped(f"Nothing is solved in {names}: there it is the configuration {which}."))
    breaking = [title_of(cell) for cell in cells if report.has_winner(cell) and not report.is_marked(cell)]
    if breaking:
        first_by = f"there it is the configuration that is first by {_order(report.search)}"
        parts.append(_wrapped(f"No configuration meets all constraints in {', '.join(breaking)}: {first_by}."))
    return parts


def _best_of_all(report: Report) -> list[str]:
    from sweeps.results.comparison import best_of_cells  # here, because it imports this module

    found = best_of_cells(report)
    return [] if found is None else [_wrapped(found)]


def _pareto_front(report: Report, cells: Sequence[Sequence[RankedConfiguration]]) -> list[Part]:
    """Return the configurations on the Pareto front of each cell, with the objectives; nothing where there is one."""
    best = [one for cell in cells for one in cell if one.rank == 1]
    if not best or not report.search.further_objectives:
        return []
    axes = list(dict.fromkeys(axis for one in best for axis in one.configuration.labels))
    found = [metrics.find(objective.name, objective.direction) for objective in report.search.objectives]
    rows = []
    for one in best:
        values = [metric.format(value) for metric, value in zip(found, report.objectives_of(one).values(), strict=True)]
        labels = [str(one.configuration.labels.get(axis, "")) for axis in axes]
        rows.append([*labels, str(one.configuration.number), *values, parameters(one.parameters, report.search.space)])
    remark = (
        "On the front: no other configuration of the cell is better in one objective and not worse in any. In the order of the "
        "first objective."
    )
    header = [*axes, "#", *(metric.name for metric in found), "parameters"]
    return [f"## Pareto front: {_aim(report.search)}", table(header, rows), _wrapped(remark)]


def _confirmation(report: Report, cells: Sequence[Sequence[RankedConfiguration]]) -> list[Part]:
    """Return the results of the best configurations in the search and on fresh seeds."""
    asked = [one for cell in cells for one in cell if one.seeds_to_confirm]
    if not asked:
        return []
    objective = metrics.find(report.search.objective.name, report.search.objective.direction)
    axes = list(dict.fromkeys(axis for one in asked for axis in one.configuration.labels))
    rows = []
    for one in asked:
        fields = [str(one.configuration.labels.get(axis, "")) for axis in axes]
        fields += [str(one.configuration.number), _success(one.summary.value)]
        if one.confirmed is None:
            fields += [f"{len(one.confirmation)} of {one.seeds_to_confirm} seeds so far", "", ""]
        else:
            difference = shrinkage(one) or {}
            points = [100 * value for value in difference.values() if value is not None]
            ends = "{:+.1f} [{:+.1f}, {:+.1f}]".format(*points) if len(points) == 3 else UNKNOWN
            values = [objective.format(summary.value(objective.name).estimate) for summary in (one.summary, one.confirmed)]
            fields += [_success(one.confirmed.value), ends, " -> ".join(values)]
        rows.append(fields)
    header = [*axes, "#", "success in the search", "success on fresh seeds", "change, points", objective.name]
    if not report.search.space:
        return ["## Confirmation on fresh seeds", table(header, rows)]
    remark = (
        "The best of many was chosen by its results in the search, which are therefore too good on average: the results on "
        "fresh seeds are those to report. Change: with Newcombe's 95 % interval."
    )
    return ["## Confirmation on fresh seeds", table(header, rows), _wrapped(remark)]


def _success(lookup: metrics.Lookup) -> str:
    column = metrics.SUCCESS_RATE.column
    assert column is not None and column.text is not None
    return column.text(lookup)


def title_of(cell: Sequence[RankedConfiguration]) -> str:
    """Return the name of a cell."""
    return " ".join(f"{axis}={label}" for axis, label in cell[0].configuration.labels.items()) or "all"


def of_cell(report: Report, cell: Sequence[RankedConfiguration]) -> list[Part]:
    """Return the table of a cell's configurations, with remarks."""
    title, marked = title_of(cell), report.is_marked(cell)
    own = _own_columns(report.search)
    header = ["#", *(column.header for _, column in _columns()), *(name for name, _ in own), "parameters"]
    rows = []
    for one in cell:
        lookup = one.summary.value
        number = one.configuration.number
        # At a rung it is not known how many steps an unsolved seed would have taken.
        known = {metric.name: not (one.at_rung and metric.name in BY_BUDGET) for metric, _ in _columns()}
        fields = [
            UNKNOWN if not known[metric.name]
            else column.text(lookup) if column.text
            else metric.format(lookup(metric.name).estimate)
            for metric, column in _columns()
        ]  # fmt: skip
        fields += [metric.format(None if one.at_rung else lookup(name, metric.direction).estimate) for name, metric in own]
        mark = f"{number}*" if marked and one.rank == 1 else f"{number}{STOPPED}" if one.state == "pruned" else str(number)
        rows.append([mark, *fields, parameters(one.parameters, report.search.space)])
    return [f"## {title}", table(header, rows), *remarks_on(report, cell)]


def remarks_on(report: Report, cell: Sequence[RankedConfiguration]) -> list[str]:
    """Return the paragraphs below the table of a cell."""
    return [
        *_verdicts(report, cell),
        *_end_by_target(report, cell),
        *_remarks(report, cell),
        *_importance(report, cell),
    ]


def _verdicts(report: Report, cell: Sequence[RankedConfiguration]) -> list[str]:
    """Return sentences on a cell's first configuration: its errors, its unsolved seeds, and what to try if none is solved."""
    one = cell[0]
    summary = report.judged_by(one)
    if not summary.results:
        return []
    lines = [f"{_mark(report, one)}, {_errors(summary)}"]
    if report.is_judged():
        groups = unsolved(summary.results, report.verdict_of)
        if lost := sum(result.solved and solved_at_end(result) is False for result in summary.results):
            lines.append(f"Above the threshold again at the end: {lost} of {counted(summary.solved, 'solved seed')}.")
        if groups:
            lines.append(f"Unsolved seeds of #{one.configuration.number}: {', '.join(map(_group, groups))}.")
        if report.nothing_solved(cell):
            by_error, no_winner = report.ranked_by_error(cell), f"#{one.configuration.number} is no winner"
            order = f", so the order is that of the median error{_by_number(report, cell)}, and " if by_error else ": "
            rest = "" if report.has_winner(cell) else f"{order}{no_winner}"
            lines.append(f"Nothing is solved{rest}. {_advice(report, one, groups)}")
    elif report.ranked_by_error(cell):
        names = " and ".join(objective.name for objective in report.search.objectives)
        lines.append(
            f"Without a threshold {names} is not defined: the order is that of the median error{_by_number(report, cell)}."
        )
    return ["\n".join(map(_wrapped, lines))]


def _mark(report: Report, one: RankedConfiguration) -> str:
    fresh = " on fresh seeds" if one.confirmed is not None and report.judged_by(one) is one.confirmed else ""
    return f"#{one.configuration.number}{fresh}"


def _errors(summary: Summary) -> str:
    """Return the errors of a configuration against its threshold, and its mean steps to convergence."""

    def value(metric: ConfigurationMetric) -> float | None:
        return summary.value(metric.name).estimate

    threshold, lowest, last = map(value, (metrics.THRESHOLD_MEDIAN, metrics.ERROR_LOWEST_MEDIAN, metrics.ERROR_AT_END_MEDIAN))
    text = f"median of seeds: lowest error {number(lowest)}, last error {number(last)}"
    if threshold:
        times = [UNKNOWN if error is None else number(error / threshold) for error in (lowest, last)]
        text += f", {times[0]} and {times[1]} times the threshold {number(threshold)}"
    mean = summary.shown(metrics.RESTRICTED_MEAN.name)
    if mean.estimate is None or not summary.solved:
        return f"{text}."
    ends = f" [{steps(mean.low)}, {steps(mean.high)}]" if mean.low is not None else f" {NOT_SHOWN}" if _hides(summary) else ""
    return f"{text}; mean steps to convergence within the budget {steps(mean.estimate)}{ends}."


def _hides(summary: Summary) -> bool:
    """Return whether the interval of the mean steps to convergence is not shown."""
    name = metrics.RESTRICTED_MEAN.name
    return bool(summary.solved) and summary.value(name).high is not None and summary.shown(name).high is None


def _group(group: Unsolved) -> str:
    """Return `7 stalled (seeds 3, 8, ...)`, `1 with too few evaluations (seed 3)`."""
    listed = ", ".join(map(str, group.seeds[:MOST_SEEDS])) + (", ..." if len(group.seeds) > MOST_SEEDS else "")
    inside = f"{'seed' if len(group.seeds) == 1 else 'seeds'} {listed}"
    if group.crosses_at is not None:
        which = "the first " if len(group.seeds) > 1 else ""
        inside += f"; {which}would cross near step {steps(group.crosses_at)}"
    which = f"with {group.kind}" if group.kind == "too few evaluations" else group.kind
    return f"{len(group.seeds)} {which} ({inside})"


def _advice(report: Report, one: RankedConfiguration, groups: Sequence[Unsolved]) -> str:
    """Return what to try where nothing is solved, from the verdicts of the seeds and the values of the parameters."""
    counts = {group.kind: group for group in groups}
    tries = []
    if (group := counts.get("on its way")) and group.crosses_at is not None:
        still = f"{counted(len(group.seeds), 'seed')} still improved (one would cross near step {steps(group.crosses_at)})"
        tries.append(f"more steps, since {still}")
    if "near" in counts or "crossed back" in counts:
        tries.append("a learning rate that falls, or a lower one, since seeds come near and do not stay")
    if "diverged" in counts:
        tries.append("a lower learning rate or a gradient clip, since seeds diverged")
    if "stalled" in counts:
        tries.append("another learning rate, since seeds stalled")
    if "too few evaluations" in counts:
        tries.append("a lower train.evaluate_every, since seeds have too few evaluations to show a trend")
    for path, value in one.parameters.items():
        dimension = report.search.space.get(path)
        share = dimension.share_of(value) if dimension is not None else None
        if share is not None and (share <= AT_A_BOUND or share >= 1 - AT_A_BOUND):
            end = "lower" if share <= AT_A_BOUND else "upper"
            tries.append(f"a wider range of {path}, which is {_shown(value)}, at its {end} bound")
    if not report.search.space:
        tries.append("a search of train.lr")
    return f"Try {'; '.join(tries)}." if tries else ""


def _importance(report: Report, cell: Sequence[RankedConfiguration]) -> list[str]:
    """Return a sentence on how much each parameter matters."""
    found = report.importance_of(cell)
    if found is None:
        return []
    paths = {name: name.removesuffix(ON) for name in found.shares}
    different = list(dict.fromkeys(paths.values()))
    short = dict(zip(different, parameter_names(different), strict=True))
    listed = []
    for name, share in found.shares.items():
        shown = short[paths[name]]
        both = f"{paths[name]}{ON}" in found.shares
        kind = " on or off" if name != paths[name] else " where on" if both else ""
        listed.append(f"{shown}{kind} {percent(share)} %")
    which = f"what sets the best {found.best} of {found.configurations} configurations apart; PED-ANOVA"
    return [_wrapped(f"Importance of parameters ({which}): {'; '.join(listed)}. {found.caution or ''}")]


def _end_by_target(report: Report, cell: Sequence[RankedConfiguration]) -> list[str]:
    """Return a sentence about a cell that met its target."""
    labels = cell[0].configuration.labels
    return [
        _wrapped(
            f"Ended by its target: #{ended.best} solves at least {percent(ended.success_rate_low)} % of seeds (lower end of "
            f"its interval), above {percent(ended.target)} %. Not tried: configurations from #{ended.tried} on"
            + (f", {ended.not_tried} of {ended.tried + ended.not_tried}." if ended.not_tried is not None else ".")
        )
        for ended in report.ended_by_target
        if ended.labels == labels
    ]


def _by_length(report: Report, cells: Sequence[Sequence[RankedConfiguration]]) -> list[Part]:
    """Return the errors of each cell's best configuration by length."""
    measured = []
    for cell in cells:
        lanes = [result.by_length for result in cell[0].results if result.by_length]
        if cell[0].rank == 1 and lanes:
            measured.append((cell[0].configuration.labels, lanes))
    if not measured:
        return []
    axes = list(dict.fromkeys(axis for labels, _ in measured for axis in labels))
    columns = {
        share.name: share.header
        for share in metrics.SYMBOL_ERRORS
        if all(share.name in lane for _, lanes in measured for lane in lanes)
    }
    unit = 100.0 if columns else 1.0
    columns = columns or {"error": "error"}
    rows = [
        [
            *(str(labels.get(axis, "")) for axis in axes),
            *(str(length), str(lanes[0]["rows"][i]), str(len(lanes))),
            *(_spread([lane[name][i] for lane in lanes], unit) for name in columns),
        ]
        for labels, lanes in measured
        for i, length in enumerate(lanes[0]["length"])
    ]
    header = [*axes, "length", "sequences", "seeds", *columns.values()]
    which = "first" if report.is_without_winner() else "best"
    return [f"## By length, {which} of each cell: median of seeds (lowest to highest)", table(header, rows)]


def _spread(values: Sequence[float], unit: float) -> str:
    low, middle, high = (number(unit * v, 3) for v in (min(values), statistics.median(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def _remarks(report: Report, cell: Sequence[RankedConfiguration]) -> list[str]:
    """Return remarks on ties, constraints, and diverged, failed and incomplete configurations, which no column shows."""
    lines = [*_tie(report, cell), *_broken(report, cell)]
    for text, counts in (
        ("Diverged seeds", [one.summary.diverged for one in cell]),
        ("Seeds that ended in an error", [one.summary.errors for one in cell]),
    ):
        listed = [f"{count} in #{one.configuration.number}" for one, count in zip(cell, counts, strict=True) if count]
        if listed:
            lines.append(f"{text}: {', '.join(listed)}.")
    reasons = Counter(result.reason for one in cell for result in one.results if result.outcome == "error")
    for reason, count in reasons.most_common(MOST_REASONS):
        lines.append(f"Error of {counted(count, 'seed')}: {reason}.")
    if len(reasons) > MOST_REASONS:
        lines.append(f"{len(reasons) - MOST_REASONS} other errors: see `reason` in the JSON report.")
    unfinished = [
        f"#{one.configuration.number} ({len(one.results)} of {len(one.configuration.keys)} seeds)"
        for one in cell
        if one.state == "running"
    ]
    repeated = [
        f"{', '.join(f'#{suggested.number}' for suggested in one.repeats)} as #{one.configuration.number}"
        for one in sorted(cell, key=lambda one: one.configuration.number)
        if one.repeats
    ]
    if repeated:
        count = sum(len(one.repeats) for one in cell)
        lines.append(f"{counted(count, 'repeated suggestion')}, with the same lanes: {'; '.join(repeated)}.")
    stopped = sorted(
        (one.configuration for one in cell if one.configuration.state == "pruned" and one.configuration.stopped is not None),
        key=lambda entry: entry.number,
    )
    if stopped:
        named = [f"#{entry.number} {entry.stopped.text}" for entry in stopped[:MOST_STOPPED] if entry.stopped is not None]
        more = f"; and {len(stopped) - MOST_STOPPED} more, in the JSON report" if len(stopped) > MOST_STOPPED else ""
        lines.append(f"Stopped early, so not ranked: {'; '.join(named)}{more}.")
    if unfinished:
        lines.append(f"Not complete, so not ranked: {', '.join(unfinished)}.")
    failed = [f"#{one.configuration.number}" for one in cell if one.state == "failed"]
    if failed:
        lines.append(f"Failed, so not ranked: {', '.join(failed)}.")
    return ["\n".join(map(_wrapped, lines))] if lines else []


def _tie(report: Report, cell: Sequence[RankedConfiguration]) -> list[str]:
    """Return a line about the first places, if only the error decided them."""
    tied = report.tied(cell)
    if not tied or report.ranked_by_error(cell):
        return []
    numbers = [f"#{one.configuration.number}" for one in tied[:MOST_TIED]]
    more = f" and {len(tied) - MOST_TIED} more" if len(tied) > MOST_TIED else ""
    names = " and ".join(objective.name for objective in report.search.objectives)
    then = _by_number(report, cell)
    return [f"Decided by the tie-break: equal {names} of {', '.join(numbers)}{more}, so by the median error{then}."]


def _by_number(report: Report, cell: Sequence[RankedConfiguration]) -> str:
    """Return `, then by number` where the error does not decide all places of a tie."""
    tied = report.tied(cell)
    errors = {report.judged_by(one).log_error_median for one in tied}
    return ", then by number" if len(errors) < len(tied) else ""


def _broken(report: Report, cell: Sequence[RankedConfiguration]) -> list[str]:
    """Return a line for each constraint, with the configurations that break it."""
    lines = []
    for constraint in report.search.constraints:
        metric = metrics.find(constraint.name)
        listed = [
            f"#{one.configuration.number} ({metric.format(value_of(report.judged_by(one), constraint))})"
            for one in cell
            if constraint in report.broken_constraints(one)
        ]
        if listed:
            lines.append(f"Ranked last, as {constraint} is broken: {', '.join(listed)}.")
    return lines


def totals_line(totals: Mapping[str, Any], judged: bool) -> str:
    """Return a sentence on the whole sweep; without seeds solved where none is `judged`."""
    lanes = counted(totals["lanes"], "lane")
    if totals["lanes"] < totals["lanes_asked"]:
        lanes = f"{totals['lanes']} of {counted(totals['lanes_asked'], 'lane')}"
    at_end = totals[metrics.SOLVED_SEEDS_AT_END.name]
    solved = f"{totals[metrics.SOLVED_SEEDS.name]} solved ({at_end} at the end)" if judged else "not judged without a threshold"
    return _wrapped(
        f"{counted(totals['cells'], 'cell')}, {counted(totals['configurations'], 'configuration')}, {lanes}: "
        f"{solved}, {totals[metrics.DIVERGED.name]} diverged, "
        f"{totals[metrics.ERRORS.name]} ended in an error; {steps(totals[metrics.SEED_STEPS.name])} seed-steps. "
        f"State: {totals['state']}." + _saved(totals.get("early_stopping"))
    )


def _saved(saved: Mapping[str, Any] | None) -> str:
    if saved is None:
        return ""
    if not saved["configurations_stopped"]:
        return " Early stopping stopped no configuration."
    cut = f" and {counted(saved['lanes_cut_short'], 'lane')} cut short" if saved["lanes_cut_short"] else ""
    return (
        f" Early stopping stopped {counted(saved['configurations_stopped'], 'configuration')}: "
        f"{counted(saved['lanes_never_run'], 'lane')} never run{cut}, at most {steps(saved['seed_steps_saved'])} seed-steps "
        f"saved, {percent(saved['share_saved'])} % of those of all configurations."
    )


def _wrapped(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False)
