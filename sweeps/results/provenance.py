"""Where the results of a sweep come from, what they cost, and how seeds failed: what a report holds besides its tables."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sweeps.results.numbers import number, steps
from sweeps.results.report import Report
from sweeps.training.lane import LaneResult

PRIVATE = ("host", "hostname", "pid", "node", "user", "git", "commit", "path")
"""Words in keys of provenance that identify a machine or a user and not the kind of machine: they are left out."""
LABELS = {
    "device": "device", "machine": "machine", "numerics": "numerics", "python": "Python", "torch": "torch",
    "source_hash": "source hash",
}  # fmt: skip
"""Key of a record's provenance -> what people call it."""
_NUMBER = re.compile(r"\b\d[\d_]*(?:\.\d+)?(?:e[+-]?\d+)?\b")


def of_lanes(results: Iterable[LaneResult]) -> dict[str, str]:
    """Return versions, device and source hashes of lanes; several values of one key are separated by commas."""
    found: dict[str, set[str]] = {}
    for result in results:
        for key, value in result.provenance.items():
            if not any(part in PRIVATE for part in key.replace("-", "_").replace(".", "_").split("_")):
                found.setdefault(key, set()).add(str(value))
    return {key: ", ".join(sorted(values)) for key, values in sorted(found.items())}


def lanes_of(report: Report) -> list[LaneResult]:
    """Return every lane of a sweep once: two configurations may share one, and confirmations have lanes of their own."""
    lanes = {result.id: result for one in report.configurations for result in (*one.results, *one.confirmation)}
    return list(lanes.values())


def provenance(report: Report) -> dict[str, str]:
    """Return (what, value) pairs for people: when, on what and from which sources the lanes were trained.

    They may differ between equal sweeps. The digest is the SHA-256 of the sweep file's text.
    """
    row = report.row
    found = {LABELS.get(key, key.replace("_", " ")): value for key, value in of_lanes(lanes_of(report)).items()}
    return {
        "begun": _moment(row.created),
        "last change": _moment(row.updated),
        **found,
        **({"numerics": row.numerics} if row.numerics else {}),
        "sweep file, SHA-256": digest(row.definition),
    }


def digest(definition: str) -> str:
    """Return the SHA-256 of a sweep file's text, in hexadecimal digits."""
    return hashlib.sha256(definition.encode("utf-8", "surrogatepass")).hexdigest()


def file_name(report: Report) -> str:
    """Return the name under which the sweep file is to be saved."""
    return f"{report.name}.yaml"


def commands(report: Report) -> list[tuple[str, str]]:
    """Return (command, what it does) of those that reproduce a sweep and its best configuration."""
    return [
        (f"sweeps run {file_name(report)}", "runs the sweep again, from the sweep file saved under this name"),
        (f"sweeps export {report.name} -o best.yaml", "writes the best configuration, with its results, as a file"),
        ("sweeps reproduce best.yaml", "trains the best configuration again and compares the results"),
    ]


def price_of(seconds: float, price_per_hour: float | None) -> float | None:
    """Return USD for a wall time on one node; None where the price of a node is not known."""
    return None if price_per_hour is None else seconds / 3600 * price_per_hour


def cost(report: Report, totals: Mapping[str, Any], price_per_hour: float | None = None) -> dict[str, str]:
    """Return (what, value) pairs for people: wall time, lane time and steps; also money where a node's price is known.

    `totals` are those of `Report.totals`, with wall times.
    """
    timing = totals["timing"]
    found = {
        "wall time of all runs": duration(timing["sweep_seconds"]),
        "lane time": f"{duration(timing['lane_seconds'])}, the wall times of all lanes added up",
        "seed-steps": steps(totals["seed_steps"]),
    }
    if timing["seed_steps_per_second"] is not None:
        found["seed-steps a second"] = steps(timing["seed_steps_per_second"])
    usd = price_of(timing["sweep_seconds"], price_per_hour)
    if usd is not None:
        found["price"] = f"{usd:.2f} USD a node, at {number(price_per_hour)} USD an hour"
    budget = report.row.document.get("budget")
    if isinstance(budget, dict) and budget:
        found["budget"] = ", ".join(f"{key}: {value}" for key, value in budget.items())
    return found


@dataclass(frozen=True)
class Failure:
    """Seeds that diverged, or ended in an exception, for one reason."""

    outcome: str
    """diverged or error."""
    reason: str
    """Numbers that differ between the seeds are written as the lowest to the highest."""
    seeds: int
    configurations: tuple[str, ...]
    """`cell #number` of those that have such seeds, in the order of the report."""


def failures(report: Report) -> list[Failure]:
    """Return the failures by reason, the most frequent first. Reasons that differ only in numbers are one."""
    counts: Counter[tuple[str, str]] = Counter()
    reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
    where: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for one in report.configurations:
        for result in (*one.results, *one.confirmation):
            if result.outcome in ("diverged", "error"):
                reason = result.reason or "no reason was recorded"
                key = result.outcome, _NUMBER.sub("\0", reason)  # no text of a reason, as "#" may be
                counts[key] += 1
                reasons[key].append(reason)
                cell = f"{one.configuration.cell} " if one.configuration.labels else ""
                where[key][f"{cell}#{one.configuration.number}"] = None
    return [Failure(key[0], _merged(reasons[key]), count, tuple(where[key])) for key, count in counts.most_common()]


def _merged(reasons: list[str]) -> str:
    """Return one text for reasons that differ only in numbers: `not finite at step 700 to 900`."""
    columns = list(zip(*(_NUMBER.findall(reason) for reason in reasons), strict=True))
    texts = iter(
        numbers[0] if len(set(numbers)) == 1 else f"{min(numbers, key=_value)} to {max(numbers, key=_value)}"
        for numbers in columns
    )
    return _NUMBER.sub(lambda _: next(texts), reasons[0])


def _value(text: str) -> float:
    return float(text.replace("_", "") or 0)


def _moment(iso: str) -> str:
    """Return `2026-01-31 12:00:00 UTC` of a time in ISO 8601."""
    return f"{iso[:19].replace('T', ' ')} UTC"


def duration(seconds: float) -> str:
    """Return `12.3 s`, `4 min 5 s` or `3 h 25 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{int(seconds // 60)} min {int(seconds % 60)} s" if seconds < 3600 else f"{minutes // 60} h {minutes % 60} min"
