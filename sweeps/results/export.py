"""best.yaml: a sweep's best configuration as a sweep file that anyone can run again, and what it should give.

The file has the configuration spelled out and, under `exported`, what it reached: `sweeps reproduce` trains
it again and compares, seed by seed (`compare_seeds`) or, with fresh seeds, success rate against success rate
(`compare_rates`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.config.registry import nearest
from sweeps.config.yaml import dump
from sweeps.errors import UserError
from sweeps.results.formats import percent, steps
from sweeps.results.report import Standing, lane_figures, objective_of, standings
from sweeps.results.statistics import Interval, rate_difference, wilson
from sweeps.results.summary import objective_value
from sweeps.store import Store
from sweeps.training.lane import LaneResult

COMPARED = ("outcome", "solved", "converged_at", "sparsity_error", "steps")
"""Figures of a lane that must be equal, besides its errors by split."""
PRIVATE = ("host", "hostname", "pid", "node", "user", "git", "commit", "path")
"""Words in keys of provenance that say where it ran rather than on what; these stay out of the file."""


class ExportError(UserError):
    """There is nothing to export: an unknown cell, or no complete configuration. The message says which."""


@dataclass(frozen=True)
class RateComparison:
    """Whether two success rates agree, and the sentence that says so, beginning with PASS or FAIL."""

    passed: bool
    text: str


def best(store: Store, name: str, cell: str | None = None) -> str:
    """YAML text of the best complete configuration of a cell; of all cells where none is named.

    `cell` is a cell's key, such as `model=nau range=U[1,2]`, or its labels alone. Raises ExportError, and
    StoreError for an unknown sweep.
    """
    row, found = standings(store, name)
    chosen = _best_of(_of_cell(found, cell, name), objective_of(row.document), name)
    seeds = [record.seed for record in chosen.records]
    document: dict[str, Any] = {"name": _file_name(name, chosen, found)}
    if row.document.get("question"):
        document["question"] = " ".join(str(row.document["question"]).split())
    document |= {section: chosen.configuration.settings[section] for section in ("task", "model", "train")}
    document |= {"seeds": seeds, "exported": _exported(name, chosen, row.document)}
    return _header(name, chosen, found, document) + dump(document)


def best_standing(store: Store, name: str, cell: str | None = None) -> Standing:
    """The best complete configuration of a cell, or of all cells. Raises as `best` does."""
    row, found = standings(store, name)
    return _best_of(_of_cell(found, cell, name), objective_of(row.document), name)


def compare_seeds(expected: Mapping[str, Any], records: Iterable[LaneResult]) -> list[str]:
    """Differences between `exported` and the same seeds trained again, in words; none if they are equal.

    On the same kind of machine figures are equal to the last bit, so nothing is rounded. A seed that is
    missing on either side is a difference. Where there are any, a last sentence names what differs in
    provenance.
    """
    again = {record.seed: record for record in records}
    before = {lane["seed"]: lane for lane in expected["lanes"]}
    differences: list[str] = []
    for seed, lane in before.items():
        if seed not in again:
            differences.append(f"seed {seed}: was exported, and was not trained again")
        else:
            differences.extend(
                f"seed {seed}: {words}" for words in _lane_differences(lane, lane_figures(again[seed]))
            )
    differences.extend(
        f"seed {seed}: was trained, and is not in the export" for seed in again if seed not in before
    )
    if differences:
        was, now = expected.get("provenance") or {}, _provenance(again.values())
        changed = [
            f"{key} {was.get(key)} then, {now.get(key)} now"
            for key in sorted({*was, *now})
            if was.get(key) != now.get(key)
        ]
        if changed:
            differences.append(
                f"figures are equal on the same kind of machine and versions only: {'; '.join(changed)}"
            )
    return differences


def compare_rates(
    expected: Mapping[str, Any], records: Sequence[LaneResult], confidence: float = 0.95
) -> RateComparison:
    """Whether fresh seeds agree with the exported success rate.

    PASS if Newcombe's interval of the difference holds 0: at 95 % about one honest repetition in twenty
    fails. A best configuration was chosen for its success, so its exported rate leans upwards where seeds are
    few.
    """
    lanes = expected["lanes"]
    before = (sum(bool(lane["solved"]) for lane in lanes), len(lanes))
    after = (sum(record.solved for record in records), len(records))
    told = f"exported {_rate(before, confidence)}, fresh seeds {_rate(after, confidence)}"
    compared = rate_difference(before, after, confidence)
    if compared is None:
        return RateComparison(False, f"FAIL: there is nothing to compare: {told}.")
    low, high = compared.difference.low, compared.difference.high
    assert low is not None and high is not None and compared.difference.estimate is not None
    passed = low <= 0 <= high
    points = f"{100 * compared.difference.estimate:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] points"
    verdict = "PASS: the rates agree" if passed else "FAIL: the rates differ"
    return RateComparison(
        passed, f"{verdict}: {told}; difference {points}, Fisher's exact p = {compared.p_value:.2g}."
    )


# ------------------------------------------------------------------------------------------- choosing


def _of_cell(found: Sequence[Standing], cell: str | None, name: str) -> list[Standing]:
    if cell is None:
        return list(found)
    keys = list(dict.fromkeys(standing.configuration.cell for standing in found))
    labels = {s.configuration.cell: " ".join(map(str, s.configuration.labels.values())) for s in found}
    matching = [key for key in keys if key == cell] or [key for key in keys if labels[key] == cell]
    if not matching:
        guess = nearest(cell, keys) or next((key for key in keys if nearest(cell, [labels[key]])), None)
        hint = f" Did you mean {guess!r}?" if guess else ""
        raise ExportError(f"sweep {name!r} has no cell {cell!r}.{hint} It has: {', '.join(map(repr, keys))}.")
    return [standing for standing in found if standing.configuration.cell == matching[0]]


def _best_of(candidates: Sequence[Standing], objective: tuple[str, str], name: str) -> Standing:
    winners = [standing for standing in candidates if standing.rank == 1]
    if not winners:
        raise ExportError(
            f"sweep {name!r} has no complete configuration to export yet. "
            f"`sweeps status {name}` shows how far it is; `sweeps run {name}` goes on."
        )
    sign = -1 if objective[1] == "maximize" else 1

    def key(standing: Standing) -> tuple[float, float]:
        value, tie_break = objective_value(standing.summary, *objective)
        return sign * value, tie_break

    return min(winners, key=key)


# ------------------------------------------------------------------------------------------- writing


def _file_name(name: str, chosen: Standing, found: Sequence[Standing]) -> str:
    """A sweep's name for the exported file, of the letters and the length that names may have."""
    several = len({standing.configuration.cell for standing in found}) > 1
    labels = [str(label) for label in chosen.configuration.labels.values()] if several else []
    text = "-".join([name, *labels, "best"])
    plain = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in text
    )
    while "--" in plain:
        plain = plain.replace("--", "-")
    return plain[:100]


def _exported(name: str, chosen: Standing, document: Mapping[str, Any]) -> dict[str, Any]:
    summary, entry = chosen.summary, chosen.configuration
    objective, direction = objective_of(document)
    figures: dict[str, Any] = {
        "seeds": summary.seeds, "solved": summary.solved, "diverged": summary.diverged,
        "errors": summary.errors,
        "success_rate": _ends(summary.success_rate),
        "converged_at": {**_ends(summary.converged_at), "median": summary.converged_at_median},
        "sparsity_error": _ends(summary.sparsity_error),
        "par2": summary.par2,
    }  # fmt: skip
    return {
        "sweep": name,
        "cell": dict(entry.labels),
        "number": entry.number,
        "parameters": chosen.parameters,
        "objective": {objective: direction},
        "provenance": _provenance(chosen.records),
        "summary": figures,
        "lanes": [lane_figures(record) for record in chosen.records],
    }


def _ends(interval: Interval) -> dict[str, Any]:
    return dataclasses.asdict(interval)


def _provenance(records: Iterable[LaneResult]) -> dict[str, str]:
    """Versions, device and source hashes of the lanes; several values of one key stand beside each other."""
    found: dict[str, set[str]] = {}
    for record in records:
        for key, value in record.provenance.items():
            if not any(part in PRIVATE for part in key.replace("-", "_").replace(".", "_").split("_")):
                found.setdefault(key, set()).add(str(value))
    return {key: ", ".join(sorted(values)) for key, values in sorted(found.items())}


def _header(name: str, chosen: Standing, found: Sequence[Standing], document: Mapping[str, Any]) -> str:
    summary, entry = chosen.summary, chosen.configuration
    cells = list(dict.fromkeys(standing.configuration.cell for standing in found))
    lines = [
        f"Best configuration of sweep {name}: cell {entry.cell}, configuration {entry.number}.",
        f"Solved {_rate((summary.solved, summary.seeds))}; converged at "
        f"{steps(summary.converged_at_median)} steps (median of solved seeds); par2 {steps(summary.par2)}.",
    ]
    if document.get("question"):
        lines.insert(0, f"Question: {document['question']}")
    if len(cells) > 1:
        lines.append(
            f"`sweeps export {name} --cell CELL` gives the best of another of its {len(cells)} cells."
        )
    lines += [
        "",
        "    sweeps reproduce best.yaml                  the same seeds: the same figures? PASS or FAIL",
        "    sweeps reproduce best.yaml --fresh-seeds    other seeds: do the success rates agree?",
        "",
    ]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


# ------------------------------------------------------------------------------------------- comparing


def _lane_differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    words = [f"{key} was {was.get(key)}, is {now[key]}" for key in COMPARED if was.get(key) != now[key]]
    before, after = was.get("error") or {}, now["error"]
    return words + [
        f"error.{split} was {before.get(split)}, is {after.get(split)}"
        for split in sorted({*before, *after})
        if before.get(split) != after.get(split)
    ]


def _rate(counts: tuple[int, int], confidence: float = 0.95) -> str:
    solved, seeds = counts
    interval = wilson(solved, seeds, confidence)
    ends = (
        f" = {percent(interval.estimate)} % [{percent(interval.low)}, {percent(interval.high)}]"
        if seeds
        else ""
    )
    return f"{solved}/{seeds}{ends}"
