"""best.yaml: a sweep's best configuration as a sweep file, with its results.

The file holds the resolved configuration and, under `exported`, its results: `sweeps reproduce` trains it again and
compares, seed by seed (`compare_seeds`) or, with fresh seeds, success rate against success rate (`sweeps.results.comparison`).
The code of a user's own units and tasks is in it too (`exported.sources`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsIndex

from sweeps.config.registry import nearest
from sweeps.config.settings import lane_key
from sweeps.config.user_files import OutOfReach, embedded, own_files
from sweeps.config.yaml import dump, read
from sweeps.errors import UserError
from sweeps.results import metrics
from sweeps.results.numbers import number, percent, steps
from sweeps.results.provenance import of_lanes
from sweeps.results.report import Report, lane_figures, report
from sweeps.results.statistics import wilson
from sweeps.results.summary import RankedConfiguration, standing
from sweeps.store import Store
from sweeps.training.lane import LaneResult
from sweeps.training.numerics import Numerics

NOT_TRAINED = ("name", "question", "resources", "budget", "exported")
"""Keys of a sweep file that change no lane."""


class ExportError(UserError):
    """There is nothing to export: an unknown cell, or no complete configuration."""


def best(
    store: Store, name: str, cell: str | None = None, on_note: Callable[[str], object] | None = None, home: Path | None = None
) -> str:
    """Return the YAML text of the best complete configuration of a cell; of all cells where none is named.

    Of a confirmed one the file has the fresh seeds and their results, and in `search_summary` those of the search.

    `cell` is a cell's key, such as `model=nau range=U[1,2]`, or its labels alone. `home` is the folder with the user's own
    files, by default the working directory; `on_note` receives a sentence where the file lacks their code. Raises
    ExportError, and StoreError for an unknown sweep.
    """
    found = report(store, name)
    chosen = _best_of(_of_cell(found, cell), found)
    document: dict[str, Any] = {"name": _file_name(chosen, found)}
    if found.row.document.get("question"):
        document["question"] = " ".join(str(found.row.document["question"]).split())
    document |= {section: chosen.configuration.settings[section] for section in ("task", "model", "train")}
    document |= {"seeds": [result.seed for result in _exported_results(chosen)]}
    exported = _exported(chosen, found)
    exported["digest"] = digest_of(read(dump(document)).values)
    exported["results_digest"] = results_digest(read(dump(exported)).values)
    try:
        if sources := _sources(chosen, found, document, home or Path.cwd()):
            exported["sources"] = sources
    except OutOfReach as reason:
        if on_note is not None:
            on_note(f"the file does not have the code of {', '.join(own_names(document))}, which it needs: {reason}")
    document["exported"] = exported
    return _header(chosen, found, document) + dump(document)


def best_configuration(store: Store, name: str, cell: str | None = None) -> RankedConfiguration:
    """Return the best complete configuration of a cell, or of all cells. Raises as `best` does."""
    found = report(store, name)
    return _best_of(_of_cell(found, cell), found)


def exported_of(found: Report, chosen: RankedConfiguration | None = None) -> str:
    """Return what the exported configuration is, as text without a capital: the best one, or the first one for a reason.

    `chosen` is by default the one of all cells. Raises ExportError where none is complete.
    """
    one = chosen or _best_of(found.configurations, found)
    own = next(cell for cell in found.cells() if cell[0].configuration.cell == one.configuration.cell)
    if found.broken_constraints(one):
        return "first configuration, none meeting all constraints,"
    if found.ranked_by_error(own):
        return f"lowest error, {'nothing being solved' if found.is_judged() else 'the task having no threshold'},"
    return "best configuration" if found.has_winner(own) else "first configuration, nothing being solved,"


def configuration_of(found: Report, cell: str | None = None, number: int | None = None) -> RankedConfiguration:
    """Return a configuration by its number, or the best complete one, of a cell, or of all cells where none is named.

    Raises ExportError for an unknown cell or number, for a number that several cells have, and where none is complete.
    """
    candidates = _of_cell(found, cell)
    if number is None:
        return _best_of(candidates, found)
    if not isinstance(number, SupportsIndex):
        raise ExportError(f"configuration is {number!r}, which must be a whole number")
    having = [one for one in candidates if number in (one.configuration.number, *(again.number for again in one.repeats))]
    if not having:
        numbers = sorted({one.configuration.number for one in candidates})
        listed = f"{numbers[0]} to {numbers[-1]}" if numbers else "none"
        raise ExportError(f"sweep {found.name!r} has no configuration {number}. It has: {listed}")
    if len(having) > 1:
        cells = ", ".join(repr(one.configuration.cell) for one in having)
        raise ExportError(f"configuration {number} of sweep {found.name!r} is in several cells: name one of {cells}")
    return having[0]


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


def digest_of(document: Mapping[str, Any]) -> str:
    """Return a digest of the keys of a sweep file that decide what is trained. Their order and form do not matter."""
    kept = {key: value for key, value in document.items() if key not in NOT_TRAINED}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:32]


def results_digest(expected: Mapping[str, Any]) -> str:
    """Return a digest of an `exported` section without its digests and the code in it, which has hashes of its own."""
    kept = {key: value for key, value in expected.items() if key not in ("digest", "results_digest", "sources")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:32]


def require_unedited(document: Mapping[str, Any], expected: Mapping[str, Any], file: str) -> None:
    """Raise ExportError where an exported file has other settings, seeds or results than when it was written.

    A file of an earlier release, which has no digests, is taken as it is.
    """
    if "digest" in expected and expected["digest"] != digest_of(document):
        raise ExportError(
            f"{file} was edited after the export: its settings or seeds are not those that gave the results in it, so there is "
            f"nothing to compare with. `sweeps run {file} --name NEW` trains it as it is now; `sweeps export` writes it anew"
        )
    if "results_digest" in expected and expected["results_digest"] != results_digest(expected):
        raise ExportError(
            f"{file} was edited after the export: the results in `exported` are not those that were written. "
            f"`sweeps export NAME -o {file}` writes them again"
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
        was, now = expected.get("provenance") or {}, of_lanes(again.values())
        changed = [
            f"{key} {was.get(key)} then, {now.get(key)} now" for key in sorted({*was, *now}) if was.get(key) != now.get(key)
        ]
        if changed:
            differences.append(f"figures are equal on the same kind of machine and versions only: {'; '.join(changed)}")
    return differences


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
            f"sweep {found.name!r} has no complete configuration yet. "
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
        "provenance": of_lanes(results),
        "summary": found.figures_of(dataclasses.replace(chosen, results=results)),
        **of_search,
        "lanes": [lane_figures(result) for result in results],
    }


def own_names(document: Mapping[str, Any]) -> list[str]:
    """Return the user's own files and classes that the settings name."""
    model, task = document["model"], document["task"]
    named = [model["name"], model["network"], *(unit["name"] for unit in model["units"]), task["name"]]
    return list(dict.fromkeys(name for name in named if isinstance(name, str) and (name.endswith(".py") or ":" in name)))


def _sources(
    chosen: RankedConfiguration, found: Report, document: Mapping[str, Any], home: Path
) -> dict[str, dict[str, str]] | None:
    """Return the code of the user's own files, None where the settings name none. Raises OutOfReach with the reason."""
    names = own_names(document)
    if not names:
        return None
    files = own_files(names, home)
    for name in names:
        top = os.path.normpath(name) if name.endswith(".py") else name.partition(":")[0].partition(".")[0]
        if not any(file in (top, f"{top}.py") or file.startswith(f"{top}/") for file in files):
            raise OutOfReach(f"{name} is not in {home}")
    entry, numerics = chosen.configuration, found.row.numerics
    seed, key = next(iter(entry.keys.items()))
    try:
        changed = numerics is not None and lane_key(entry.settings, seed, Numerics.parse(numerics)) != key
    except (UserError, ValueError) as error:
        raise OutOfReach(str(error)) from error
    if changed:
        raise OutOfReach(f"{', '.join(files)}: the code is not what trained it any more, or this is another release of sweeps")
    return embedded(files)


def _header(chosen: RankedConfiguration, found: Report, document: Mapping[str, Any]) -> str:
    name, entry, cells = found.name, chosen.configuration, found.cells()
    summary = chosen.confirmed or chosen.summary
    fresh = " on fresh seeds" if chosen.confirmed is not None else ""
    median, par2 = summary.value(metrics.CONVERGED_AT_MEDIAN.name), summary.value(metrics.PAR2.name)
    what = exported_of(found, chosen)
    lines = [f"{what[0].upper()}{what[1:]} of sweep {name}: cell {entry.cell}, configuration {entry.number}."]
    if found.is_judged():
        lines.append(
            f"Solved {_rate((summary.solved, summary.seeds))}{fresh}; converged at "
            f"{steps(median.estimate)} steps (median of solved seeds); {metrics.PAR2.name} {steps(par2.estimate)}."
        )
    else:
        error = summary.value(metrics.ERROR_LOWEST_MEDIAN.name).estimate
        lines.append(f"Lowest error {number(error)} (median of {summary.seeds} seeds{fresh}); the task has no threshold.")
    if chosen.confirmed is not None and found.is_judged():
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
    if sources := document["exported"].get("sources"):
        lines.append(f"It has the code of {', '.join(sources)}, which `sweeps reproduce --trust-code` executes.")
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
