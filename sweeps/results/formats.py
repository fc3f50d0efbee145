"""Figures as short text: 17.3k steps, 4.2e-7, `lr 3.2e-3, noise off`."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from sweeps.results.report import objective_of, off_values
from sweeps.results.summary import OBJECTIVES

UNKNOWN = "–"
SHORT_NAMES = {"gradient_noise": "noise"}


def steps(value: float | None) -> str:
    """Three significant digits with k, M or G: 850, 4.5k, 1.52M. A dash for None."""
    if value is None:
        return UNKNOWN
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        # From 999.5 on it would be written as 1000 of the smaller unit.
        if abs(value) >= 0.9995 * size:
            return _three_digits(value / size) + unit
    return _three_digits(value)


def number(value: float | None, digits: int = 2) -> str:
    """Significant digits, with an exponent as people write it: 0.41, 4.2e-7. A dash for None."""
    if value is None:
        return UNKNOWN
    if not math.isfinite(value):
        return str(value)
    text = f"{value:.{digits}g}"
    if value != 0 and not 1e-2 <= abs(value) < 1e6:
        text = f"{value:.{digits - 1}e}"
    mantissa, e, exponent = text.partition("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(exponent)}" if e else mantissa


def percent(fraction: float | None) -> str:
    """Whole percent, or one decimal where that would say 0 or 100 of what is neither: 98, 99.8, 100."""
    if fraction is None:
        return UNKNOWN
    rounded = round(100 * fraction)
    return str(rounded) if fraction in (0, 1) or 0 < rounded < 100 else f"{100 * fraction:.1f}"


def parameters(values: Mapping[str, Any], off: Mapping[str, Any]) -> str:
    """`lr 3.2e-3, dropout off`. A path is shortened to its last part where that says which it is."""
    if not values:
        return "as the file says"
    last = [path.rpartition(".")[2] for path in values]
    named = []
    for path, value in values.items():
        leaf = path.rpartition(".")[2]
        name = SHORT_NAMES.get(leaf, leaf) if last.count(leaf) == 1 else path
        named.append((name, "off" if path in off and value == off[path] else _shown(value)))
    named.sort(key=lambda item: (item[0] != "lr", item[0]))  # the learning rate first: everybody looks for it
    return ", ".join(f"{name} {value}" for name, value in named)


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return number(value) if isinstance(value, float) else str(value)


def _three_digits(value: float) -> str:
    text = f"{value:.3g}"
    return str(round(value)) if "e" in text else text


Entry = Mapping[str, Any]

MOST_REASONS = 3
"""Different errors that a cell's remarks tell."""
WIDTH = 118
"""Columns that prose is wrapped to, that it reads as well in a terminal."""
LEGEND = (
    "success: seeds solved, their share and its 95 % interval (Wilson). converged at: in steps, over solved "
    "seeds, median, then mean with its 95 % interval (gamma). sparsity: mean sparsity error of solved seeds. "
    "par2: mean converged-at, an unsolved seed counting twice the budget; lower is better. "
    "#0 is the file's own configuration, * the best of its cell."
)
SHARES = {"symbol_error": "% of symbols wrong", "sequence_error": "% of sequences wrong"}
"""What a task on symbols is tested for at other lengths; padding does not count. Of other tasks: the error."""
COLUMNS = ("success", "converged at: median, mean", "sparsity", "par2")


def as_markdown(report: Mapping[str, Any], timing: bool = True) -> str:
    """The whole report. Without `timing` the same records give the same bytes."""
    definition = report["definition"]
    off = off_values(definition)
    parts = [f"# {report['sweep']}"]
    if definition.get("question"):
        parts.append(_wrapped(str(definition["question"])))
    if not report["configurations"]:
        parts.append("No configuration has been tried yet.")
    cells = [list(group) for _, group in groupby(report["configurations"], key=lambda entry: entry["cell"])]
    objective, direction = objective_of(definition)
    parts.extend(_best_of_each(cells, off, objective, direction))
    parts.extend(_by_length(cells))
    for cell in cells:
        parts.extend(_cell(cell, off, objective))
    parts.extend(["## Totals", _totals(report["totals"])])
    if timing:
        parts.append(timing_line(report["totals"]))
    parts.append(_wrapped(LEGEND))
    return "\n\n".join(parts) + "\n"


def timing_line(totals: Mapping[str, Any]) -> str:
    """Wall time and speed: the only line of a report that differs between equal sweeps."""
    timing = totals["timing"]
    rate = timing["seed_steps_per_second"]
    speed = f", {steps(rate)} seed-steps a second" if rate is not None else ""
    return f"Timing: {timing['sweep_seconds']:.1f} s of wall time{speed}."


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns are aligned in plain text; `|` in a field is escaped."""
    lines = [[field.replace("|", "\\|") for field in row] for row in (header, *rows)]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(header))]

    def drawn(fields: Sequence[str]) -> str:
        padded = (field.ljust(width) for field, width in zip(fields, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([drawn(lines[0]), rule, *map(drawn, lines[1:])])


def _best_of_each(
    cells: Sequence[Sequence[Entry]], off: Mapping[str, Any], objective: str, direction: str
) -> list[str]:
    best = [cell[0] for cell in cells if cell[0]["rank"] == 1]
    if not best:
        return []
    how = "highest" if direction == "maximize" else "lowest"
    axes = list(dict.fromkeys(axis for entry in best for axis in entry["cell"]))
    own = _own_column(objective)
    header = [*axes, "#", "success", "converged at", "sparsity", "par2", *own, "parameters"]
    rows = [
        [*(str(entry["cell"].get(axis, "")) for axis in axes), *_best_row(entry, off, own)] for entry in best
    ]
    return [f"## Best of each cell: {how} {objective}", table(header, rows)]


def _by_length(cells: Sequence[Sequence[Entry]]) -> list[str]:
    """Errors of each cell's best configuration at the lengths at which its lanes were tested."""
    measured = []
    for cell in cells:
        lanes = [lane["by_length"] for lane in cell[0]["lanes"] if "by_length" in lane]
        if cell[0]["rank"] == 1 and lanes:
            measured.append((cell[0]["cell"], lanes))
    if not measured:
        return []
    axes = list(dict.fromkeys(axis for labels, _ in measured for axis in labels))
    shares = [name for name in SHARES if all(name in lane for _, lanes in measured for lane in lanes)]
    columns = {name: SHARES[name] for name in shares} or {"error": "error"}
    rows = [
        [
            *(str(labels.get(axis, "")) for axis in axes),
            *(str(length), str(lanes[0]["rows"][i]), str(len(lanes))),
            *(_spread([lane[name][i] for lane in lanes], 100.0 if shares else 1.0) for name in columns),
        ]
        for labels, lanes in measured
        for i, length in enumerate(lanes[0]["length"])
    ]
    header = [*axes, "length", "sequences", "seeds", *columns.values()]
    return ["## By length, best of each cell: median of seeds (lowest to highest)", table(header, rows)]


def _spread(values: Sequence[float], unit: float) -> str:
    low, middle, high = (number(unit * v, 3) for v in (min(values), statistics.median(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def _own_column(objective: str) -> list[str]:
    """The objective's column, where it is none of those that every report has."""
    return [] if objective in OBJECTIVES else [objective]


def _best_row(entry: Entry, off: Mapping[str, Any], own: Sequence[str]) -> list[str]:
    return [
        str(entry["number"]),
        _success(entry),
        steps(entry["converged_at"]["median"]),
        number(entry["sparsity_error"]["estimate"]),
        steps(entry["par2"]),
        *(number(entry["objective"]) for _ in own),
        parameters(entry["parameters"], off),
    ]


def _cell(cell: Sequence[Entry], off: Mapping[str, Any], objective: str) -> list[str]:
    title = " ".join(f"{axis}={label}" for axis, label in cell[0]["cell"].items()) or "all"
    own = _own_column(objective)
    rows = [
        [
            f"{entry['number']}*" if entry["rank"] == 1 else str(entry["number"]),
            _success(entry),
            _converged(entry["converged_at"]),
            number(entry["sparsity_error"]["estimate"]),
            steps(entry["par2"]),
            *(number(entry["objective"]) for _ in own),
            parameters(entry["parameters"], off),
        ]
        for entry in cell
    ]
    return [f"## {title}", table(["#", *COLUMNS, *own, "parameters"], rows), *_remarks(cell)]


def _remarks(cell: Sequence[Entry]) -> list[str]:
    """What the table has no column for, where there is anything to say."""
    said = []
    for figure, words in (("diverged", "Diverged seeds"), ("errors", "Seeds that ended in an error")):
        having = [f"{entry[figure]} in #{entry['number']}" for entry in cell if entry[figure]]
        if having:
            said.append(f"{words}: {', '.join(having)}.")
    reasons = Counter(lane["reason"] for e in cell for lane in e["lanes"] if lane["outcome"] == "error")
    for reason, count in reasons.most_common(MOST_REASONS):
        said.append(f"Error of {_counted(count, 'seed')}: {reason}.")
    if len(reasons) > MOST_REASONS:
        said.append(f"{len(reasons) - MOST_REASONS} other errors: see `reason` in the JSON report.")
    unfinished = [
        f"#{entry['number']} ({entry['seeds']} of {entry['seeds_asked']} seeds)"
        for entry in cell
        if entry["state"] == "running"
    ]
    if unfinished:
        said.append(f"Not complete, so not ranked: {', '.join(unfinished)}.")
    failed = [f"#{entry['number']}" for entry in cell if entry["state"] == "failed"]
    if failed:
        said.append(f"Failed, so not ranked: {', '.join(failed)}.")
    return ["\n".join(map(_wrapped, said))] if said else []


def _success(entry: Entry) -> str:
    rate = entry["success_rate"]
    if rate["estimate"] is None:
        return UNKNOWN
    ends = f"[{percent(rate['low'])}, {percent(rate['high'])}]"
    return f"{entry['solved']}/{entry['seeds']} {percent(rate['estimate'])}% {ends}"


def _converged(figures: Mapping[str, Any]) -> str:
    if figures["median"] is None:
        return UNKNOWN
    ends = f" [{steps(figures['low'])}, {steps(figures['high'])}]" if figures["low"] is not None else ""
    return f"{steps(figures['median'])}, {steps(figures['estimate'])}{ends}"


def _totals(totals: Mapping[str, Any]) -> str:
    lanes = _counted(totals["lanes"], "lane")
    if totals["lanes"] < totals["lanes_asked"]:
        lanes = f"{totals['lanes']} of {_counted(totals['lanes_asked'], 'lane')}"
    return _wrapped(
        f"{_counted(totals['cells'], 'cell')}, {_counted(totals['configurations'], 'configuration')}, "
        f"{lanes}: "
        f"{totals['solved']} solved, {totals['diverged']} diverged, {totals['errors']} ended in an error; "
        f"{steps(totals['seed_steps'])} seed-steps. State: {totals['state']}."
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _wrapped(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), WIDTH, break_long_words=False, break_on_hyphens=False)


def as_json(report: Mapping[str, Any], timing: bool = True) -> str:
    """The whole object, indented. Without `timing` the same records give the same bytes."""
    return json.dumps(_timed(report, timing), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_csv(report: Mapping[str, Any]) -> str:
    """A row for each configuration: axes, rank, state, parameters, figures. Empty fields are unknown."""
    rows = [_row(entry) for entry in report["configurations"]]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    # Groups keep their order, and within each the order of first appearance.
    columns.sort(
        key=lambda column: ("cell.", "rank", "number", "state", "parameters.", "").index(_group(column))
    )
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _row(entry: Mapping[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {f"cell.{axis}": label for axis, label in entry["cell"].items()}
    row |= {name: entry[name] for name in ("rank", "number", "state")}
    row |= {f"parameters.{path}": value for path, value in entry["parameters"].items()}
    row |= {name: entry[name] for name in ("seeds_asked", "seeds", "solved", "diverged", "errors", "par2")}
    for figure in ("success_rate", "converged_at", "sparsity_error"):
        row |= {f"{figure}.{name}": value for name, value in entry[figure].items()}
    return row | {f"error.{split}.median": figures["median"] for split, figures in entry["error"].items()}


def _group(column: str) -> str:
    if column in ("rank", "number", "state"):
        return column
    return next((prefix for prefix in ("cell.", "parameters.") if column.startswith(prefix)), "")


def _timed(report: Mapping[str, Any], timing: bool) -> dict[str, Any]:
    if timing:
        return dict(report)
    totals = {name: value for name, value in report["totals"].items() if name != "timing"}
    return {**report, "totals": totals}
