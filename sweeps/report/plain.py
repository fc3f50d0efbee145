"""The report for other programs: JSON as it is, and a CSV row for each configuration."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import Any


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
