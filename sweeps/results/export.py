"""best.yaml: a sweep's best configuration as a sweep file, with its results.

The file holds the resolved configuration and, under `exported`, its results: `sweeps reproduce` trains it again and
compares, seed by seed (`compare_seeds`) or, with fresh seeds, success rate against success rate (`compare_rates`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.config.registry import nearest
from sweeps.config.yaml import dump
from sweeps.errors import UserError
from sweeps.results import metrics
from sweeps.results.numbers import percent, steps
from sweeps.results.report import Report, lane_figures, report
from sweeps.results.statistics import rate_difference, wilson
from sweeps.results.summary import RankedConfiguration, standing
from sweeps.store import Store
from sweeps.training.lane import LaneResult

PRIVATE = ("host", "hostname", "pid", "node", "user", "git", "commit", "path")
"""Words in keys of provenance that identify a machine or a user and not the kind of machine; the file leaves them out."""


class ExportError(UserError):
    """There is nothing to export: an unknown cell, or no complete configuration."""


@dataclass(frozen=True)
class RateComparison:
    """Whether two success rates agree, and a sentence about it, beginning with PASS or FAIL."""

    passed: bool
    text: str


def best(store: Store, name: str, cell: str | None = None) -> str:
    """Return the YAML text of the best complete configuration of a cell; of all cells where none is named.

    Of a confirmed one the file has the fresh seeds and their results, and in `search_summary` those of the search.

    `cell` is a cell's key, such as `model=nau range=U[1,2]`, or its labels alone. Raises ExportError, and
    StoreError for an unknown sweep.
    """
    found = report(store, name)
    chosen = _best_of(_of_cell(found, cell), found)
    document: dict[str, Any] = {"name": _file_name(chosen, found)}
    if found.row.document.get("question"):
        document["question"] = " ".join(str(found.row.document["question"]).split())
    document |= {section: chosen.configuration.settings[section] for section in ("task", "model", "train")}
    document |= {"seeds": [result.seed for result in _exported_results(chosen)], "exported": _exported(chosen, found)}
    return _header(chosen, found, document) + dump(document)


def best_configuration(store: Store, name: str, cell: str | None = None) -> RankedConfiguration:
    """Return the best complete configuration of a cell, or of all cells. Raises as `best` does."""
    found = report(store, name)
    return _best_of(_of_cell(found, cell), found)


def require_results(expected: Mapping[str, Any], file: str) -> None:
    """Raise ExportError for an `exported` section without the results that `best` writes, as one made by hand may be."""
    lanes, provenance = expected.get("lanes"), expected.get("provenance") or {}
    sound = isinstance(provenance, Mapping) and isinstance(lanes, Sequence) and not isinstance(lanes, str) and bool(lanes)
    sound = sound and all(
        isinstance(lane, Mapping)
        and type(lane.get("seed")) is int
        and isinstance(lane.get("solved"), bool)
        and isinstance(lane.get("error") or {}, Mapping)
        for lane in lanes or []
    )
    if not sound:
        raise ExportError(
            f"{file}: `exported.lanes` must be a list of results, each with `seed` and `solved`, as `sweeps export` writes it"
        )


def compare_seeds(expected: Mapping[str, Any], results: Iterable[LaneResult]) -> list[str]:
    """Return the differences between `exported` and the same seeds trained again, as text; none if they are equal.

    On the same kind of machine figures are equal to the last bit, so nothing is rounded. A seed that is
    missing on either side is a difference. Where there are any, a last sentence lists the differences in provenance.
    """
    again = {result.seed: result for result in results}
    before = {lane["seed"]: lane for lane in expected["lanes"]}
    differences: list[str] = []
    for seed, lane in before.items():
        if seed not in again:
            differences.append(f"seed {seed}: was exported, and was not trained again")
        else:
            differences.extend(f"seed {seed}: {text}" for text in _lane_differences(lane, lane_figures(again[seed])))
    differences.extend(f"seed {seed}: was trained, and is not in the export" for seed in again if seed not in before)
    if differences:
        was, now = expected.get("provenance") or {}, _provenance(again.values())
        changed = [
            f"{key} {was.get(key)} then, {now.get(key)} now" for key in sorted({*was, *now}) if was.get(key) != now.get(key)
        ]
        if changed:
            differences.append(f"figures are equal on the same kind of machine and versions only: {'; '.join(changed)}")
    return differences


def compare_rates(expected: Mapping[str, Any], results: Sequence[LaneResult], confidence: float = 0.95) -> RateComparison:
    """Compare the success rate of fresh seeds with the exported one.

    PASS if Newcombe's interval of the difference contains 0: at 95 % about one correct repetition in twenty
    fails. A best configuration was chosen for its success, so its exported rate is biased upwards where
    seeds are few.
    """
    lanes = expected["lanes"]
    before = (sum(bool(lane["solved"]) for lane in lanes), len(lanes))
    after = (sum(result.solved for result in results), len(results))
    rates = f"exported {_rate(before, confidence)}, fresh seeds {_rate(after, confidence)}"
    compared = rate_difference(before, after, confidence)
    if compared is None:
        return RateComparison(False, f"FAIL: there is nothing to compare: {rates}.")
    low, high = compared.difference.low, compared.difference.high
    assert low is not None and high is not None and compared.difference.estimate is not None
    passed = low <= 0 <= high
    points = f"{100 * compared.difference.estimate:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}] points"
    verdict = "PASS: the rates agree" if passed else "FAIL: the rates differ"
    return RateComparison(passed, f"{verdict}: {rates}; difference {points}, Fisher's exact p = {compared.p_value:.2g}.")


# ------------------------------------------------------------------------------------------- choosing


def _of_cell(found: Report, cell: str | None) -> list[RankedConfiguration]:
    if cell is None:
        return list(found.configurations)
    labels = {one.configuration.cell: " ".join(map(str, one.configuration.labels.values())) for one in found.configurations}
    keys = list(labels)
    matching = [key for key in keys if key == cell] or [key for key in keys if labels[key] == cell]
    if not matching:
        guess = nearest(cell, keys) or next((key for key in keys if nearest(cell, [labels[key]])), None)
        hint = f" Did you mean {guess!r}?" if guess else ""
        raise ExportError(f"sweep {found.name!r} has no cell {cell!r}.{hint} It has: {', '.join(map(repr, keys))}.")
    return [one for one in found.configurations if one.configuration.cell == matching[0]]


def _best_of(candidates: Sequence[RankedConfiguration], found: Report) -> RankedConfiguration:
    winners = [one for one in candidates if one.rank == 1]
    if not winners:
        raise ExportError(
            f"sweep {found.name!r} has no complete configuration to export yet. "
            f"`sweeps status {found.name}` shows how far it is; `sweeps run {found.name}` continues it."
        )
    return min(winners, key=lambda one: standing(found.judged_by(one), found.search))


# ------------------------------------------------------------------------------------------- writing


def _file_name(chosen: RankedConfiguration, found: Report) -> str:
    """Return a valid sweep name for the exported file."""
    labels = [str(label) for label in chosen.configuration.labels.values()] if len(found.cells()) > 1 else []
    text = "-".join([found.name, *labels, "best"])
    plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in text)
    while "--" in plain:
        plain = plain.replace("--", "-")
    return plain[:100]


def _exported_results(chosen: RankedConfiguration) -> tuple[LaneResult, ...]:
    """Return the results on fresh seeds, or those of the search where it is not confirmed."""
    return chosen.confirmation if chosen.confirmed is not None else chosen.results


def _exported(chosen: RankedConfiguration, found: Report) -> dict[str, Any]:
    results = _exported_results(chosen)
    of_search = {} if chosen.confirmed is None else {"search_summary": found.figures_of(chosen)}
    return {
        "sweep": found.name,
        "cell": dict(chosen.configuration.labels),
        "number": chosen.configuration.number,
        "parameters": chosen.parameters,
        "objective": {objective.name: objective.direction for objective in found.search.objectives},
        "provenance": _provenance(results),
        "summary": found.figures_of(dataclasses.replace(chosen, results=results)),
        **of_search,
        "lanes": [lane_figures(result) for result in results],
    }


def _provenance(results: Iterable[LaneResult]) -> dict[str, str]:
    """Return versions, device and source hashes of the lanes; several values of one key are separated by commas."""
    found: dict[str, set[str]] = {}
    for result in results:
        for key, value in result.provenance.items():
            if not any(part in PRIVATE for part in key.replace("-", "_").replace(".", "_").split("_")):
                found.setdefault(key, set()).add(str(value))
    return {key: ", ".join(sorted(values)) for key, values in sorted(found.items())}


def _header(chosen: RankedConfiguration, found: Report, document: Mapping[str, Any]) -> str:
    name, entry, cells = found.name, chosen.configuration, found.cells()
    summary = chosen.confirmed or chosen.summary
    fresh = " on fresh seeds" if chosen.confirmed is not None else ""
    median, par2 = summary.value(metrics.CONVERGED_AT_MEDIAN.name), summary.value(metrics.PAR2.name)
    own = next(cell for cell in cells if cell[0].configuration.cell == entry.cell)
    what = "Lowest error, nothing being solved," if found.ranked_by_error(own) else "Best configuration"
    lines = [
        f"{what} of sweep {name}: cell {entry.cell}, configuration {entry.number}.",
        f"Solved {_rate((summary.solved, summary.seeds))}{fresh}; converged at "
        f"{steps(median.estimate)} steps (median of solved seeds); {metrics.PAR2.name} {steps(par2.estimate)}.",
    ]
    if chosen.confirmed is not None:
        lines.append(f"In the search it solved {_rate((chosen.summary.solved, chosen.summary.seeds))}.")
    others = [
        one for one in found.configurations if one.rank == 1 and one.configuration.cell == entry.cell and one is not chosen
    ]
    if others:
        names = " and ".join(objective.name for objective in found.search.objectives)
        numbers = ", ".join(f"#{one.configuration.number}" for one in others)
        lines.append(f"It is the first on the Pareto front of {names}; others of its cell on it: {numbers}.")
    if broken := found.broken_constraints(chosen):
        lines.append(f"No configuration meets all constraints; this one breaks {', '.join(map(str, broken))}.")
    if document.get("question"):
        lines.insert(0, f"Question: {document['question']}")
    if len(cells) > 1:
        lines.append(f"`sweeps export {name} --cell CELL` gives the best of another of its {len(cells)} cells.")
    lines += [
        "",
        "    sweeps reproduce best.yaml                  the same seeds: the same figures? PASS or FAIL",
        "    sweeps reproduce best.yaml --fresh-seeds    other seeds: do the success rates agree?",
        "",
    ]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


# ------------------------------------------------------------------------------------------- comparing


def _lane_differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the differences in the outcome, in every metric that the file has, and in the errors by split."""
    compared = ["outcome", *(metric.name for metric in metrics.lane_metrics() if metric.name in was)]
    differences = [f"{key} was {was.get(key)}, is {now[key]}" for key in compared if was.get(key) != now[key]]
    before, after = was.get("error") or {}, now["error"]
    return differences + [
        f"error.{split} was {before.get(split)}, is {after.get(split)}"
        for split in sorted({*before, *after})
        if before.get(split) != after.get(split)
    ]


def _rate(counts: tuple[int, int], confidence: float = 0.95) -> str:
    solved, seeds = counts
    interval = wilson(solved, seeds, confidence)
    ends = f" = {percent(interval.estimate)} % [{percent(interval.low)}, {percent(interval.high)}]" if seeds else ""
    return f"{solved}/{seeds}{ends}"
