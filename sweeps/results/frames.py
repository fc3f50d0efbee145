"""The results of sweeps as flat tables: a row for each configuration, for each seed, or for each evaluation of a seed.

The rows are plain Python. CSV, pandas data frames and Parquet are made of them. A column has one type whatever a sweep
found, so that tables of several sweeps can be put one below the other.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sweeps.errors import UserError
from sweeps.results import metrics
from sweeps.results.report import Report
from sweeps.results.summary import RankedConfiguration, summarise
from sweeps.results.verdicts import unsolved, verdict
from sweeps.training.lane import LaneResult

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]
"""Dotted column name -> a number, a text, True, False, or None where it is unknown."""
LEVELS = ("configurations", "seeds", "curves")
"""What a row is about."""
FIRST = ("sweep", "cell.", "rank", "number", "state", "repeats", "phase", "seed", "step", "parameters.")
"""Columns, and groups of columns, that come first, in this order; the others are in order of first appearance."""
WHOLE = (
    "rank", "number", "repeats", "seeds_asked", "seed", "step", "best_step", "budget", "stopped.seeds", "stopped.steps",
)  # fmt: skip
"""And the metrics of the registry that count or are in steps: see `_is_whole`."""
TEXTS = (
    "sweep", "state", "phase", "outcome", "verdict", "reason", "verdict_text", "key", "numerics", "source_hash", "device",
    "broken_constraints", "stopped.reason",
)  # fmt: skip
"""And the cells' labels, and what ends on `INTERVAL`."""
INTERVAL, UNSOLVED = ".interval", "unsolved."
"""End of the names of the kinds of intervals, and beginning of those of unsolved seeds by verdict."""
TRUTHS = ("solved", "solved_at_end")
"""Of a seed. Of a configuration `solved` is a number of seeds."""


def configuration_rows(report: Report) -> list[Row]:
    """Return a row for each configuration, in the order of the report: axes, rank, state, parameters, metrics.

    Columns: `sweep`, `cell.<axis>`, `rank`, `number`, `state`, `repeats`, `parameters.<path>`, `seeds_asked`, every metric of
    the registry with its interval as `<metric>.low` and `<metric>.high`, `objective`, and where there are any
    `unsolved.<kind of verdict>`, `objectives.<name>`, `broken_constraints`, `stopped.<field>` and `confirmation.<metric>`.
    """
    rows = []
    for one in report.configurations:
        row = _identity(report, one) | {"state": one.state, "repeats": len(one.repeats)}
        row |= _parameters(one)
        row |= {"seeds_asked": len(one.configuration.keys)}
        values = report.columns_of(one) | {"objective": report.objective_of(one)}
        row |= {name: values[name] for name in sorted(values, key=lambda name: "." in name)}
        row |= one.summary.methods()
        row |= {f"{UNSOLVED}{group.kind}": len(group.seeds) for group in unsolved(one.results)}
        if report.search.further_objectives:
            row |= {f"objectives.{name}": value for name, value in report.objectives_of(one).items()}
        if report.search.constraints:
            row |= {"broken_constraints": "; ".join(map(str, report.broken_constraints(one)))}
        if (stopped := one.configuration.stopped) is not None:
            row |= {f"stopped.{name}": value for name, value in dataclasses.asdict(stopped).items()}
        if one.confirmed is not None:
            row |= {f"confirmation.{name}": value for name, value in one.confirmed.columns().items()}
        rows.append(row)
    return rows


def seed_rows(report: Report, timing: bool = True) -> list[Row]:
    """Return a row for each finished seed, in the order of the report, then by seed; those of a confirmation last.

    Columns: `sweep`, `cell.<axis>`, `rank` and `number` of the configuration, `phase` (search or confirmation), `seed`,
    `parameters.<path>`, `outcome`, `verdict`, every metric of one lane in the registry, `best_step`, `error.<split>` and the
    task's scores at `best_step`, `reason`, `verdict_text`, `budget`, `key`, `numerics`, `source_hash`, `device`, and
    `wall_time_s` with `timing`.
    """
    return [
        _seed(report, one, phase, result, timing)
        for one in report.configurations
        for phase, results in _phases(one)
        for result in results
    ]


def curve_rows(report: Report) -> list[Row]:
    """Return a row for each evaluation of each finished seed, in the order of the seeds, then by step.

    Columns: `sweep`, `cell.<axis>`, `rank` and `number` of the configuration, `phase`, `seed`, `step`, and what was evaluated:
    `error.<split>`, `sparsity_error`, the task's scores.
    """
    rows = []
    for constant, curve in _curves(report):
        names = [name for name in curve if name != "step"]
        for step, *values in zip(curve["step"], *(curve[name] for name in names), strict=True):
            rows.append({**constant, "step": step, **dict(zip(names, values, strict=True))})
    return rows


ROWS: Mapping[str, Callable[[Report], list[Row]]] = {
    "configurations": configuration_rows,
    "seeds": seed_rows,
    "curves": curve_rows,
}
"""Level -> what makes its rows."""


def rows_of(level: str, reports: Iterable[Report], timing: bool = True) -> list[Row]:
    """Return the rows of several reports. Raises UserError for a level that is not one of `LEVELS`."""
    require_level(level)
    if level == "seeds":
        return [row for report in reports for row in seed_rows(report, timing)]
    return [row for report in reports for row in ROWS[level](report)]


def require_level(level: str) -> None:
    """Raise UserError for a level that is not one of `LEVELS`."""
    if level not in LEVELS:
        from sweeps.config.faults import unknown

        raise UserError(unknown("level", level, list(LEVELS)))


def csv_text(level: str, reports: Sequence[Report], rows: Sequence[Row], without: str | None = None) -> str:
    """Return rows of a level as CSV, `without` a column. An empty field is unknown.

    Where there are no rows it has the columns that every task has.
    """
    columns = columns_of(rows) if rows else _fixed(level, reports)
    text = io.StringIO()
    writer = csv.DictWriter(text, [name for name in columns if name != without], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def frame(level: str, reports: Sequence[Report], timing: bool = True) -> pd.DataFrame:
    """Return a pandas data frame, with the columns of `rows_of` and one type for each column.

    Steps and numbers of seeds are Int64 and `solved` is boolean, both with pd.NA for what is unknown; other numbers are
    float64 with NaN; labels, states and outcomes are texts (str); a parameter is Int64, boolean, float64 or a text, by its
    values. Without rows it has the columns that do not depend on the task. Raises UserError for an unknown level.
    """
    require_level(level)
    if level == "curves":
        return _frame_of_curves(reports)
    rows = rows_of(level, reports, timing)
    return _typed(level, rows, columns_of(rows) if rows else _fixed(level, reports, timing))


def parquet(level: str, reports: Sequence[Report], timing: bool = True) -> bytes:
    """Return the frame as a Parquet file. Raises UserError for an unknown level."""
    buffer = io.BytesIO()
    frame(level, reports, timing).to_parquet(buffer, engine="pyarrow", index=False)
    return buffer.getvalue()


def columns_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of all columns: `FIRST`, then the others."""

    def group(column: str) -> int:
        prefix = column.partition(".")[0] + "." if "." in column else column
        return FIRST.index(prefix) if prefix in FIRST else len(FIRST)

    return sorted(dict.fromkeys(column for row in rows for column in row), key=group)


# ------------------------------------------------------------------------------------------- rows


def _identity(report: Report, one: RankedConfiguration) -> Row:
    labels = {f"cell.{axis}": label for axis, label in one.configuration.labels.items()}
    return {"sweep": report.name, **labels, "rank": one.rank, "number": one.configuration.number}


def _parameters(one: RankedConfiguration) -> Row:
    return {f"parameters.{path}": value for path, value in one.parameters.items()}


def _phases(one: RankedConfiguration) -> Iterator[tuple[str, tuple[LaneResult, ...]]]:
    yield "search", one.results
    yield "confirmation", one.confirmation


def _seed(report: Report, one: RankedConfiguration, phase: str, result: LaneResult, timing: bool) -> Row:
    return {**_identity(report, one), "phase": phase, "seed": result.seed, **_parameters(one)} | _of_seed(result, timing)


def _of_seed(result: LaneResult, timing: bool) -> Row:
    of_lane, found = {metric.name: metric.value(result) for metric in metrics.lane_metrics()}, verdict(result)
    row = {
        "outcome": result.outcome, "verdict": found.kind, **of_lane,
        "best_step": result.best_step,
        **{f"error.{split}": value for split, value in sorted(result.error.items())},
        **result.scores,
        "reason": result.reason, "verdict_text": found.text, "budget": result.budget, "key": result.key,
        **{name: result.provenance.get(name) for name in ("numerics", "source_hash", "device")},
    }  # fmt: skip
    return row | ({"wall_time_s": result.wall_time_s} if timing else {})


def _curves(report: Report) -> Iterator[tuple[Row, Mapping[str, Sequence[Any]]]]:
    """Yield what is the same in all rows of a seed, and the columns of its curve."""
    for one in report.configurations:
        for phase, results in _phases(one):
            for result in results:
                if result.curve.get("step"):
                    yield {**_identity(report, one), "phase": phase, "seed": result.seed}, result.curve


# ------------------------------------------------------------------------------------------- pandas


def _frame_of_curves(reports: Sequence[Report]) -> pd.DataFrame:
    """As `_typed` of the rows, made by columns: there may be ten million rows."""
    import numpy as np

    found = [pair for report in reports for pair in _curves(report)]
    if not found:
        return _typed("curves", [], _fixed("curves", reports))
    rows = [constant for constant, _ in found]
    constants, lengths = _typed("curves", rows, columns_of(rows)), [len(curve["step"]) for _, curve in found]
    result = constants.iloc[np.repeat(np.arange(len(found)), lengths)].reset_index(drop=True)
    for name in dict.fromkeys(name for _, curve in found for name in curve):
        # As floats None, which is what was not finite, is NaN.
        parts = [np.array(curve.get(name, [None] * n), float) for (_, curve), n in zip(found, lengths, strict=True)]
        result[name] = np.concatenate(parts)
    return result.astype({"step": "Int64"})


def _fixed(level: str, reports: Sequence[Report], timing: bool = True) -> list[str]:
    """Return the columns of a frame without rows: those that every sweep has, and the axes of its cells."""
    axes = {f"cell.{axis}": None for report in reports for one in report.configurations for axis in one.configuration.labels}
    lane = LaneResult(key="", seed=0, budget=0, steps=0, outcome="unsolved", solved=False)
    identity = ["sweep", *axes, "rank", "number"]
    if level == "curves":
        return [*identity, "phase", "seed", "step"]
    if level == "seeds":
        return [*identity, "phase", "seed", *_of_seed(lane, timing)]
    return [*identity, "state", "repeats", "seeds_asked", *summarise([]).columns(), "objective"]


def _typed(level: str, rows: Sequence[Row], names: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame({name: _series(level, name, [row.get(name) for row in rows]) for name in names}, columns=list(names))


def _series(level: str, name: str, values: list[Any]) -> pd.Series[Any]:
    """Return a column in the type of its name."""
    import pandas as pd

    if name in TEXTS or name.startswith("cell.") or name.endswith(INTERVAL):
        return pd.Series(list(map(_writable, values)), dtype="str")
    if name in WHOLE or name.startswith(UNSOLVED) or _is_whole(level, name):
        return pd.Series(values, dtype="Int64")
    if level == "seeds" and name in TRUTHS:
        return pd.Series([None if value is None else bool(value) for value in values], dtype="boolean")
    if name.startswith("parameters."):
        return _parameter(values)
    return pd.Series([float("nan") if value is None else value for value in values], dtype="float64")


def _is_whole(level: str, name: str) -> bool:
    """Whether a column is a metric in whole numbers: of a seed one in steps, of a configuration a count or a sum of steps."""
    if level == "seeds":
        return any(metric.name == name and metric.unit == "steps" for metric in metrics.lane_metrics())
    plain = name.removeprefix("confirmation.")
    counts = (metric for metric in metrics.configuration_metrics() if metric.aggregation is metrics.SUM)
    return level == "configurations" and any(metric.name == plain for metric in counts)


def _parameter(values: list[Any]) -> pd.Series[Any]:
    """Return a parameter's column: whole numbers, truth values, numbers, or else texts."""
    import pandas as pd

    kinds = {type(value) for value in values if value is not None}
    if kinds and kinds <= {bool}:
        return pd.Series(values, dtype="boolean")
    if kinds and kinds <= {int}:
        return pd.Series(values, dtype="Int64")
    if kinds <= {int, float}:
        return pd.Series([float("nan") if value is None else float(value) for value in values], dtype="float64")
    texts = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    return pd.Series(list(map(_writable, texts)), dtype="str")


def _writable(text: str | None) -> str | None:
    """Return a text with lone surrogates, which UTF-8 does not have, as `\\ud800`."""
    return text if text is None else text.encode("utf-8", "backslashreplace").decode()
