"""`sweeps compare A B`: two configurations by their seeds; cells of a sweep, sweeps, and exported files.

    with Store("results", read_only=True) as store:
        print(compare(select("quickstart:nau", store), select("quickstart:nac", store)).as_markdown())

A *side* is a configuration with the results of its seeds, by default the best of its cell. `select` finds those that a text
names, `side_of_file` that of a best.yaml, `compare` puts them in pairs and computes the differences, second minus first.

Which results count: those on fresh seeds where a configuration is confirmed. The best of many by its results in the search is
too good on average, and a comparison of such results says so. Where budgets differ, both sides count up to the shorter one.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import math
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sweeps.config.diff import leaves
from sweeps.config.faults import SweepFileError, shown
from sweeps.config.registry import nearest
from sweeps.config.space import same
from sweeps.errors import UserError
from sweeps.results import metrics
from sweeps.results.differences import (
    MOST_TABLES,
    POWER,
    boschloo,
    detectable_difference,
    holm,
    log_rank,
    mcnemar,
    mean,
    mean_difference,
    paired_rate_difference,
    rank_test,
)
from sweeps.results.formats import WIDTH, table, title_of
from sweeps.results.numbers import UNKNOWN, number, percent, ranges, steps
from sweeps.results.provenance import of_lanes
from sweeps.results.report import Report, report
from sweeps.results.statistics import Interval, rate_difference, wilson
from sweeps.results.summary import RankedConfiguration, standing
from sweeps.results.verdicts import solved_at_end
from sweeps.store import Store
from sweeps.training.lane import OUTCOMES, Curve, Lane, LaneResult, judge

MOST_DETAILED = 1
"""Pairs of which every figure is in the Markdown; of more there is a line for each."""
MOST_SETTINGS = 12
"""Settings that the Markdown lists."""


# ------------------------------------------------------------------------------------------- sides


@dataclass(frozen=True)
class Seed:
    """What is compared of one seed. `result` is the record, whose curve gives the same at fewer steps."""

    seed: int
    outcome: str
    solved: bool
    solved_at_end: bool | None
    """None where a file does not have it."""
    converged_at: int | None
    error: float | None
    """Extrapolation error at the best step."""
    sparsity_error: float | None
    has_threshold: bool | None
    """None where a file does not have it, and for a seed that was not trained."""
    result: LaneResult | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, result: LaneResult) -> Seed:
        known = (
            None
            if result.outcome == "error"
            else result.threshold is not None or result.converged_at is not None or result.solved
        )
        return cls(
            result.seed, result.outcome, result.solved, solved_at_end(result) if result.curve else None, result.converged_at,
            result.error.get("extrapolation"), result.sparsity_error, known, result,
        )  # fmt: skip

    def up_to(self, budget: int) -> Seed | None:
        """Return the seed as it would be judged with a shorter budget; None without its curve."""
        result = self.result
        if result is None or not (result.curve or result.outcome == "error"):
            return None
        if result.outcome == "error":
            return self
        rows = [i for i, step in enumerate(result.curve["step"]) if step <= budget]
        columns = {
            name: [math.nan if v is None else v for v in map(column.__getitem__, rows)] for name, column in result.curve.items()
        }
        early = result.outcome == "diverged" and result.steps <= budget
        lane = Lane(result.key, {"train": {"steps": budget}}, result.seed)
        judged = judge(
            lane, Curve.of_columns(columns), result.threshold, min(result.steps, budget), result.reason if early else None
        )
        return Seed.of(dataclasses.replace(judged, curve=Curve.of_columns(columns).as_dict()))


@dataclass(frozen=True, kw_only=True)
class Side:
    """One configuration with the results of its seeds."""

    name: str
    """For people: `quickstart:nau#3`, or a file."""
    labels: dict[str, str]
    """Axis -> label of its cell."""
    settings: dict[str, Any]
    """Resolved model, task and train."""
    seeds: tuple[Seed, ...]
    """In order of their numbers."""
    keys: dict[int, str] = field(default_factory=dict)
    """Seed -> lane key; empty for a file."""
    best_of: int | None = None
    """It was chosen as the best of so many configurations. None: it was not, or it is not known of how many."""
    chosen_by_these: bool = False
    """It was chosen as the best by these very results."""
    fresh: bool = False
    """The results are those of the confirmation, on fresh seeds."""
    remark: str = ""
    """On results that are not complete."""
    provenance: dict[str, str] = field(default_factory=dict)

    @property
    def budget(self) -> int:
        """train.steps."""
        return int(self.settings["train"]["steps"])

    @property
    def has_threshold(self) -> bool:
        """Whether success is defined, as far as the seeds show it."""
        known = [seed.has_threshold for seed in self.seeds if seed.has_threshold is not None]
        return any(known) or not known


def is_file(text: str) -> bool:
    """Return whether a text names an exported file, and not a sweep: it ends on .yaml or .yml, or is the path of a file.

    A bare name without such an ending is a sweep, whatever is in the working directory.
    """
    return Path(text).suffix in (".yaml", ".yml") or (Path(text).name != text and Path(text).is_file())


def select(text: str, store: Store | None) -> list[Side]:
    """Return the sides that a text names: `NAME`, `NAME:CELL`, `NAME:CELL#3`, or a file.

    CELL is a cell's key (`model=nau range=U[1,2]`), its labels (`nau U[1,2]`), or some of them, which may fit several cells.
    `#3` is a configuration's number, by default the best. Raises UserError, with the nearest names.
    """
    if is_file(text):
        return [side_of_file(Path(text))]
    if store is None:
        raise UserError(f"{text!r} is a sweep, and there is no store to look it up in: give `store`, or the file of an export")
    return select_stored(text, store)


def select_stored(text: str, store: Store) -> list[Side]:
    """Return the sides of the store that a text names, as `select` does, also where there is a file of that name."""
    name, colon, cell = text.partition(":")
    numbered = re.fullmatch(r"(.*)#(\d+)", cell if colon else name)
    if not colon and numbered:
        name, cell = numbered[1], ""
    found = report(store, name)
    chosen = _cells(found, cell)
    configuration: int | None = None
    if not chosen and numbered is not None:
        chosen, configuration = _cells(found, numbered[1] if colon else ""), int(numbered[2])
    elif numbered is not None and not colon:
        configuration = int(numbered[2])
    if not chosen:
        raise _unknown_cell(found, cell)
    sides = sides_of(found, chosen, configuration)
    if not sides:
        where = f"no configuration of {text!r}" if colon else f"no configuration of sweep {name!r}"
        raise UserError(
            f"{where} is complete yet, so there is nothing to compare. `sweeps status {name}` shows how far it is; "
            f"{name}:CELL#NUMBER compares what a configuration has so far."
        )
    return sides


def sides_of(found: Report, cells: Sequence[str] | None = None, configuration: int | None = None) -> list[Side]:
    """Return the best complete configuration of each cell, by key; or the one of that number, complete or not.

    Cells without a complete configuration are left out. Raises UserError for an unknown number.
    """
    several = len(found.cells()) > 1
    sides: list[Side] = []
    for cell in found.cells():
        key = cell[0].configuration.cell
        if cells is not None and key not in cells:
            continue
        name = found.name + (f":{_labels(cell[0])}" if several else "")
        if configuration is None:
            if cell[0].rank == 1:
                sides.append(_side(found, cell, cell[0], name, best=True))
            continue
        numbers = {one.number: each for each in cell for one in (each.configuration, *each.repeats)}
        if configuration not in numbers:
            near = min(numbers, key=lambda n: abs(n - configuration))
            raise UserError(
                f"{name} has no configuration {configuration}; it has {ranges(numbers)}. The nearest is {name}#{near}."
            )
        one = numbers[configuration]
        if not one.results:
            raise UserError(
                f"{name}#{configuration} has no finished seed yet. `sweeps status {found.name}` shows how far it is."
            )
        sides.append(_side(found, cell, one, name, best=False))
    return sides


def side_of_file(path: Path) -> Side:
    """Return the configuration of an exported file. Raises UserError for a file without sound results.

    The file's settings are complete, so no model or task is looked up, and code that the file has is not executed.
    """
    from sweeps.config.yaml import read
    from sweeps.results.export import require_unedited

    try:
        document = read(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        beside = [each.name for each in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        guess = nearest(path.name, beside)
        hint = f" Did you mean {path.parent / guess}?" if guess else ""
        raise UserError(f"{path}: no such file.{hint} A sweep of the store is compared by its name alone") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if document.faults:
        raise SweepFileError(str(path), document.faults)
    values = document.values if isinstance(document.values, dict) else {}
    if not isinstance(values.get("exported"), dict):
        raise UserError(
            f"{path} has no `exported` section: `sweeps export NAME -o best.yaml` writes one. A sweep is compared by its name"
        )
    settings: dict[str, Any] = {section: values.get(section) for section in ("model", "task", "train")}
    if not all(isinstance(section, dict) for section in settings.values()) or type(settings["train"].get("steps")) is not int:
        raise UserError(
            f"{path}: model, task and train must have all their settings, with a whole number of train.steps, as "
            "`sweeps export` writes them. Was the file edited? `sweeps export NAME -o FILE` writes it again"
        )
    side = exported_side(values["exported"], settings, str(path))  # first, since it names the value that cannot be
    require_unedited(values, values["exported"], str(path))
    return side


def exported_side(expected: Mapping[str, Any], settings: Mapping[str, Any], file: str) -> Side:
    """Return the side that the `exported` section of a file describes. Raises ExportError where it is not sound."""
    from sweeps.results.export import require_results

    require_results(expected, file)
    seeds = tuple(sorted((_seed_of_file(lane, file) for lane in expected["lanes"]), key=lambda one: one.seed))
    if len({one.seed for one in seeds}) < len(seeds):
        twice = next(a.seed for a, b in itertools.pairwise(seeds) if a.seed == b.seed)
        raise UserError(f"{file}: `exported.lanes` has seed {twice} more than once; `sweeps export` writes every seed once")
    fresh = "search_summary" in expected
    cell, chosen = expected.get("cell"), expected.get("parameters")
    return Side(
        name=file, settings=dict(settings),
        labels={str(axis): str(label) for axis, label in cell.items()} if isinstance(cell, Mapping) else {},
        seeds=seeds, chosen_by_these=bool(chosen) and not fresh, fresh=fresh,
        provenance={str(k): str(v) for k, v in (expected.get("provenance") or {}).items()},
    )  # fmt: skip


def side_of_results(name: str, settings: Mapping[str, Any], results: Iterable[LaneResult]) -> Side:
    """Return a side of results that nothing was chosen by."""
    ordered = sorted(results, key=lambda result: result.seed)
    return Side(
        name=name, labels={}, settings=dict(settings), seeds=tuple(map(Seed.of, ordered)), provenance=of_lanes(ordered),
        keys={result.seed: result.key for result in ordered},
    )  # fmt: skip


def _side(found: Report, cell: Sequence[RankedConfiguration], one: RankedConfiguration, name: str, best: bool) -> Side:
    fresh = one.confirmed is not None
    results = one.confirmation if fresh else one.results
    tried = sum(each.state in ("complete", "pruned") for each in cell)
    remark = ""
    if not fresh and one.configuration.stopped is not None:
        remark = f"was stopped early, {one.configuration.stopped.text}"
    elif not fresh and len(results) < len(one.configuration.keys):
        remark = f"has {len(results)} of {len(one.configuration.keys)} seeds so far"
    settings = one.configuration.settings
    if not fresh and one.at_rung and one.configuration.stopped is not None:
        settings = {**settings, "train": {**settings["train"], "steps": one.configuration.stopped.steps}}
    return Side(
        name=f"{name}#{one.configuration.number}", labels=dict(one.configuration.labels), settings=settings,
        seeds=tuple(map(Seed.of, results)), keys={result.seed: result.key for result in results},
        best_of=tried if best and tried > 1 else None, chosen_by_these=best and tried > 1 and not fresh, fresh=fresh,
        remark=remark, provenance=of_lanes(results),
    )  # fmt: skip


def _seed_of_file(lane: Mapping[str, Any], file: str) -> Seed:
    """Return a seed of `exported.lanes`. Raises UserError for a value that no seed can have, as after an edit by hand."""
    error = (lane.get("error") or {}).get("extrapolation")
    outcome = lane.get("outcome", "solved" if lane["solved"] else "unsolved")

    def refuse(key: str, value: Any, allowed: str) -> UserError:
        return UserError(
            f"{file}: in `exported.lanes`, seed {lane['seed']} has {key} {shown(value)}, which must be {allowed}. Was the file "
            "edited? `sweeps export NAME -o FILE` writes it again"
        )

    if outcome not in OUTCOMES or (outcome == "solved") != lane["solved"]:
        raise refuse("outcome", outcome, f"one of {', '.join(OUTCOMES)}, and `solved` exactly where `solved` is true")
    for key in ("converged_at", "steps"):
        value = lane.get(key)
        if value is not None and (type(value) is not int or value < 0):
            raise refuse(key, value, "a whole number of steps, or null")
    for key, value in (("error.extrapolation", error), ("sparsity_error", lane.get("sparsity_error"))):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value)):
            raise refuse(key, value, "a number, or null")
    at_end = lane.get("solved_at_end")
    limit: bool | None = None
    if "threshold" in lane and outcome != "error":
        limit = lane["threshold"] is not None
    return Seed(
        lane["seed"], outcome, lane["solved"], at_end if isinstance(at_end, bool) else None, lane.get("converged_at"),
        error, lane.get("sparsity_error"), limit,
    )  # fmt: skip


def _labels(one: RankedConfiguration) -> str:
    return " ".join(map(str, one.configuration.labels.values())) or "all"


def _cells(found: Report, text: str) -> list[str]:
    """Return the keys of the cells that a text names: all for an empty one, none for an unknown one."""
    labels = {cell[0].configuration.cell: cell[0].configuration.labels for cell in found.cells()}
    if not text:
        return list(labels)
    exact = [key for key in labels if key == text]
    return exact or [key for key, of in labels.items() if text in _names(of)]


def _names(labels: Mapping[str, str]) -> set[str]:
    """Return every text that some of a cell's labels make, with their axes or without."""
    names: set[str] = set()
    for size in range(1, len(labels) + 1):
        for some in itertools.permutations(labels.items(), size) if len(labels) <= 4 else [tuple(labels.items())]:
            names |= {" ".join(f"{axis}={label}" for axis, label in some), " ".join(str(label) for _, label in some)}
    return names


def _unknown_cell(found: Report, text: str) -> UserError:
    labels = [cell[0].configuration.labels for cell in found.cells()]
    shown_cells = [" ".join(map(str, of.values())) or "all" for of in labels]
    known = {name for of in labels for name in _names(of)} | set(shown_cells)
    near = nearest(text, sorted(known)) or nearest(re.sub(r"#\d+$", "", text), sorted(known))
    hint = f" Did you mean {found.name + ':' + near!r}?" if near else ""
    listed = ", ".join(repr(f"{found.name}:{cell}") for cell in shown_cells[:10])
    more = f" and {len(shown_cells) - 10} more" if len(shown_cells) > 10 else ""
    if not shown_cells:
        return UserError(f"sweep {found.name!r} has no configuration yet. `sweeps status {found.name}` shows how far it is.")
    return UserError(f"sweep {found.name!r} has no cell {text!r}.{hint} It has: {listed}{more}.")


# ------------------------------------------------------------------------------------------- differences


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One figure of both sides and its difference, second minus first; of errors the ratio, second by first."""

    name: str
    meaning: str
    unit: Literal["share", "steps", "", "ratio"]
    first: Interval
    second: Interval
    difference: Interval
    test: str | None = None
    p_value: float | None = None
    adjusted: float | None = None
    """The p-value by Holm's method, where several pairs are compared."""
    counts: dict[str, int] = field(default_factory=dict)
    """Of rates: successes and seeds of both sides; of pairs: both, only_first, only_second and neither; of steps: seeds that
    converged."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two sides and their differences."""

    first: Side
    second: Side
    budget: int
    """Steps up to which both count."""
    differences: tuple[Difference, ...]
    decisive: str
    """Name of the difference whose test the verdict is about."""
    settings: tuple[tuple[str, Any, Any], ...]
    """Settings that differ: path, value of the first, value of the second. One that a side does not have is None."""
    provenance: tuple[tuple[str, str, str], ...]
    """Versions and devices that differ."""
    remarks: tuple[str, ...]
    """Limits of the comparison, as sentences."""

    def difference(self, name: str) -> Difference | None:
        """Return a difference by name."""
        return next((one for one in self.differences if one.name == name), None)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Pairs of configurations and their differences."""

    pairs: tuple[Pair, ...]
    left_out: tuple[str, ...] = ()
    """Sides without a counterpart."""
    confidence: float = 0.95

    def verdict(self, pair: Pair) -> str:
        """Return what the tests of a pair say, as sentences that claim no more."""
        return _verdict(pair, 1 - self.confidence)

    def as_dict(self) -> dict[str, Any]:
        """Return one JSON-able object."""
        return {
            "confidence": self.confidence,
            "pairs": [
                {
                    "first": _side_dict(pair.first),
                    "second": _side_dict(pair.second),
                    "verdict": self.verdict(pair),
                    "budget": pair.budget,
                    "decisive": pair.decisive,
                    "differences": [_difference_dict(one) for one in pair.differences],
                    "settings": [dict(zip(("setting", "first", "second"), row, strict=True)) for row in pair.settings],
                    "provenance": [dict(zip(("key", "first", "second"), row, strict=True)) for row in pair.provenance],
                    "remarks": [*pair.remarks, *_choice((pair.first, pair.second))],
                }
                for pair in self.pairs
            ],
            "left_out": list(self.left_out),
        }

    def as_json(self) -> str:
        """Return it as indented JSON."""
        return json.dumps(_finite(self.as_dict()), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def as_csv(self) -> str:
        """Return a row for each figure of each pair."""
        text = io.StringIO()
        ends = [f"{which}_{end}" for which in ("first", "second") for end in ("estimate", "low", "high")]
        columns = ["first", "second", "figure", "unit", *ends, "difference", "low", "high", "test", "p_value", "p_value_holm"]
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        for pair in self.pairs:
            for one in pair.differences:
                values = [(each.estimate, each.low, each.high) for each in (one.first, one.second, one.difference)]
                row = [
                    pair.first.name,
                    pair.second.name,
                    one.name,
                    one.unit,
                    *itertools.chain(*values),
                    one.test,
                    one.p_value,
                    one.adjusted,
                ]
                writer.writerow("" if value is None else value for value in row)
        return text.getvalue()

    def as_markdown(self) -> str:
        """Return it as Markdown."""
        return _markdown(self)

    def _repr_markdown_(self) -> str:
        """For notebooks."""
        return self.as_markdown()


def compare(
    first: Sequence[Side] | Side, second: Sequence[Side] | Side | None = None, confidence: float = 0.95, seed: int = 0
) -> Comparison:  # fmt: skip
    """Compare two sides, or several with each other.

    Of several on both sides those are paired whose cells have the same labels (on the axes that are not fixed on a side), or,
    if there are none, the best of each. Without a second argument every two of the first are compared. `seed` is that of the
    bootstrap. Raises UserError where both are the same, and where there is nothing to compare.
    """
    one = [first] if isinstance(first, Side) else list(first)
    left_out: list[str] = []
    if second is None:
        if len(one) < 2:
            where = one[0].name if one else "nothing"
            raise UserError(f"there is only {where} to compare: give a second sweep, cell or file, such as NAME:CELL#NUMBER")
        couples = list(itertools.combinations(one, 2))
    else:
        other = [second] if isinstance(second, Side) else list(second)
        couples, left_out = _couples(one, other)
    pairs = [_pair(a, b, confidence, seed) for a, b in couples if not _identical(a, b)]
    equal = [f"{a.name} and {b.name}" for a, b in couples if _identical(a, b)]
    if not pairs:
        raise UserError(
            f"{equal[0]} are the same lanes, so there is nothing to compare. Name two cells or configurations, such as "
            "NAME:CELL and NAME:CELL#NUMBER, or one sweep, whose cells are compared with each other; `sweeps reproduce FILE` "
            "trains an exported configuration again."
        )
    left_out += [f"{names} are the same lanes" for names in equal]
    return Comparison(pairs=tuple(_adjusted(pairs)), left_out=tuple(left_out), confidence=confidence)


def _couples(one: Sequence[Side], other: Sequence[Side]) -> tuple[list[tuple[Side, Side]], list[str]]:
    """Return the pairs of two lists of sides, and what is left."""
    if len(one) == len(other) == 1:
        return [(one[0], other[0])], []

    def keys(sides: Sequence[Side]) -> dict[frozenset[tuple[str, str]], Side]:
        """By the labels on the axes on which these sides differ."""
        axes = {axis for side in sides for axis in side.labels if len({each.labels.get(axis) for each in sides}) > 1}
        return {frozenset((axis, str(label)) for axis, label in side.labels.items() if axis in axes): side for side in sides}

    a, b = keys(one), keys(other)
    couples = [(side, b[key]) for key, side in a.items() if key and key in b]
    if couples:
        alone = [f"{side.name} has no counterpart" for key, side in (*a.items(), *b.items()) if key not in a or key not in b]
        return couples, alone
    return [(_best(one), _best(other))], [
        f"No two cells have the same labels, so the best of {len(one)} and the best of {len(other)} cells are compared"
    ]


def _best(sides: Sequence[Side]) -> Side:
    """Return the side with most solved seeds, then the lowest par2, then the lowest median error."""

    def order(side: Side) -> tuple[float, ...]:
        n, budget = len(side.seeds), side.budget
        errors = sorted(math.inf if seed.error is None else seed.error for seed in side.seeds)
        return (
            -sum(seed.solved for seed in side.seeds) / n,
            sum(metrics.penalised(seed.solved, seed.converged_at, budget) for seed in side.seeds) / n,
            errors[n // 2],
        )

    best = min(sides, key=order)
    tried = sum(side.best_of or 1 for side in sides)
    return dataclasses.replace(best, best_of=tried, chosen_by_these=best.chosen_by_these or len(sides) > 1)


def _identical(one: Side, other: Side) -> bool:
    if one.keys and other.keys:
        return one.keys == other.keys and one.budget == other.budget
    return one.settings == other.settings and one.seeds == other.seeds


def _pair(one: Side, other: Side, confidence: float, seed: int) -> Pair:
    remarks: list[str] = []
    budget = min(one.budget, other.budget)
    samples = []
    exact = True
    for side in (one, other):
        cut = [each if side.budget == budget else each.up_to(budget) for each in side.seeds]
        exact &= all(each is not None for each in cut)
        samples.append([given if each is None else each for given, each in zip(side.seeds, cut, strict=True)])
    if one.budget != other.budget:
        how = (
            "judged at that step"
            if exact
            else "and a seed counts as solved where it had converged by then, since a file has no curves"
        )
        remarks.append(
            f"The budgets differ ({one.budget:,} and {other.budget:,} steps): both are compared up to {budget:,} steps, {how}."
        )
    if not exact:  # the same rule for both
        samples = [[_by_convergence(each, budget) for each in sample] for sample in samples]
    a, b = samples
    shared_data, common = _common(one, other, a, b)
    paired = bool(common) and len(common) == len(a) == len(b)
    rng = np.random.default_rng(seed)
    with_success = one.has_threshold and other.has_threshold
    found: list[Difference] = []
    if with_success:
        found.append(_rates("success_rate", metrics.SUCCESS_RATE.meaning, a, b, lambda each: each.solved, confidence))
        if common:
            found.append(_of_pairs(a, b, common, confidence))
        if all(each.solved_at_end is not None or each.outcome in ("error", "diverged") for each in (*a, *b)):
            meaning = "share of seeds below the threshold at the last evaluation"
            found.append(_rates("solved_at_end", meaning, a, b, lambda each: bool(each.solved_at_end), confidence))
        found.append(_convergence(a, b, budget, paired, rng, confidence))
        found.append(_par2(a, b, budget, paired, rng, confidence))
        found.append(_sparsity(a, b, rng, confidence))
    found.append(_errors(a, b))
    unsolved = not any(each.solved for each in (*a, *b))
    decisive = "error" if not with_success or unsolved else "success_rate_of_pairs" if paired else "success_rate"
    return Pair(
        first=one, second=other, budget=budget, differences=tuple(found), decisive=decisive,
        settings=_settings(one, other), provenance=_changed(one, other),
        remarks=(*remarks, *_limits(one, other, a, b, common, shared_data, with_success, unsolved)),
    )  # fmt: skip


def _common(one: Side, other: Side, a: Sequence[Seed], b: Sequence[Seed]) -> tuple[bool, list[int]]:
    """Return whether equal seeds of both sides have equal data, and the seeds that both have, none where they do not."""
    batches = [side.settings["train"].get("batch") for side in (one, other)]
    shared_data = same(one.settings["task"], other.settings["task"]) and batches[0] == batches[1]
    return shared_data, sorted({each.seed for each in a} & {each.seed for each in b}) if shared_data else []


def _by_convergence(seed: Seed, budget: int) -> Seed:
    met = seed.converged_at is not None and seed.converged_at <= budget
    outcome = seed.outcome if seed.outcome == "error" else "solved" if met else "unsolved"
    return dataclasses.replace(
        seed, solved=met, outcome=outcome, converged_at=seed.converged_at if met else None, solved_at_end=None, error=None,
        sparsity_error=None, result=None,
    )  # fmt: skip


def _rates(
    name: str, meaning: str, a: Sequence[Seed], b: Sequence[Seed], met: Callable[[Seed], bool], confidence: float
) -> Difference:  # fmt: skip
    first, second = ((sum(map(met, sample)), len(sample)) for sample in (a, b))
    return Difference(
        name=name, meaning=meaning, unit="share", first=wilson(*first, confidence), second=wilson(*second, confidence),
        difference=rate_difference(first, second, confidence),
        test="Boschloo" if (len(a) + 1) * (len(b) + 1) <= MOST_TABLES else "Fisher",
        p_value=boschloo(first, second),
        counts={"first": first[0], "first_seeds": first[1], "second": second[0], "second_seeds": second[1]},
    )  # fmt: skip


def _of_pairs(a: Sequence[Seed], b: Sequence[Seed], common: Sequence[int], confidence: float) -> Difference:
    first, second = ({each.seed: each.solved for each in sample} for sample in (a, b))
    outcomes = [(first[seed], second[seed]) for seed in common]
    both, only_first, only_second, neither = (
        outcomes.count(which) for which in ((True, True), (True, False), (False, True), (False, False))
    )
    n = len(common)
    return Difference(
        name="success_rate_of_pairs", meaning="share of the seeds that both have that are solved", unit="share",
        first=wilson(both + only_first, n, confidence), second=wilson(both + only_second, n, confidence),
        difference=paired_rate_difference(both, only_first, only_second, neither, confidence), test="McNemar",
        p_value=mcnemar(only_first, only_second, n),
        counts={"both": both, "only_first": only_first, "only_second": only_second, "neither": neither},
    )  # fmt: skip


def _convergence(
    a: Sequence[Seed], b: Sequence[Seed], budget: int, paired: bool, rng: np.random.Generator, confidence: float
) -> Difference:
    steps_of = [[None if s.converged_at is None or s.converged_at > budget else s.converged_at for s in of] for of in (a, b)]
    restricted = [[float(budget if at is None else at) for at in sample] for sample in steps_of]
    return Difference(
        name="restricted_mean", unit="steps",
        meaning="mean of converged-at, a seed that does not converge counting the budget (restricted mean)",
        first=_mean(restricted[0]), second=_mean(restricted[1]),
        difference=mean_difference(restricted[0], restricted[1], rng, paired, confidence), test="log-rank",
        p_value=log_rank(steps_of[0], steps_of[1], budget),
        counts=dict(zip(("first", "second"), (sum(at is not None for at in sample) for sample in steps_of), strict=True)),
    )  # fmt: skip


def _par2(
    a: Sequence[Seed], b: Sequence[Seed], budget: int, paired: bool, rng: np.random.Generator, confidence: float
) -> Difference:
    values = [[metrics.penalised(s.solved, s.converged_at, budget) for s in sample] for sample in (a, b)]
    return Difference(
        name=metrics.PAR2.name, meaning=metrics.PAR2.meaning, unit="steps", first=_mean(values[0]), second=_mean(values[1]),
        difference=mean_difference(values[0], values[1], rng, paired, confidence),
    )  # fmt: skip


def _sparsity(a: Sequence[Seed], b: Sequence[Seed], rng: np.random.Generator, confidence: float) -> Difference:
    values = [[s.sparsity_error for s in sample if s.solved and s.sparsity_error is not None] for sample in (a, b)]
    return Difference(
        name=metrics.SPARSITY_ERROR.name, meaning=metrics.MEAN_SPARSITY_ERROR.meaning, unit="", first=_mean(values[0]),
        second=_mean(values[1]), difference=mean_difference(values[0], values[1], rng, False, confidence),
    )  # fmt: skip


def _errors(a: Sequence[Seed], b: Sequence[Seed]) -> Difference:
    values = [[math.inf if s.error is None or math.isnan(s.error) else s.error for s in sample] for sample in (a, b)]
    medians = [
        float(np.median(sample)) if sample and math.isfinite(sorted(sample)[len(sample) // 2]) else None for sample in values
    ]
    known = medians[0] is not None and medians[1] is not None and medians[0] > 0
    ratio = medians[1] / medians[0] if known and medians[0] is not None and medians[1] is not None else None
    measured = any(math.isfinite(value) for sample in values for value in sample)
    return Difference(
        name="error", meaning="median extrapolation error at the best step; the difference is the ratio, second by first",
        unit="ratio", first=Interval(medians[0]), second=Interval(medians[1]), difference=Interval(ratio),
        test="Mann-Whitney", p_value=rank_test(*values) if measured else None,
    )  # fmt: skip


def _mean(values: Sequence[float]) -> Interval:
    return Interval(mean(values)) if values else Interval()


def _settings(one: Side, other: Side) -> tuple[tuple[str, Any, Any], ...]:
    a, b = dict(leaves(one.settings)), dict(leaves(other.settings))
    differing = [path for path in sorted({*a, *b}) if not (path in a and path in b and same(a[path], b[path]))]
    return tuple((path, a.get(path), b.get(path)) for path in differing)


def _changed(one: Side, other: Side) -> tuple[tuple[str, str, str], ...]:
    keys = {*one.provenance} & {*other.provenance}
    if any(one.settings[part].get("name") != other.settings[part].get("name") for part in ("model", "task")):
        keys.discard("source_hash")  # of the model's and the task's code
    return tuple(
        (key, one.provenance[key], other.provenance[key])
        for key in sorted(keys)
        if one.provenance[key] != other.provenance[key]
    )


def _limits(
    one: Side, other: Side, a: Sequence[Seed], b: Sequence[Seed], common: Sequence[int], shared_data: bool, with_success: bool,
    unsolved: bool,
) -> list[str]:  # fmt: skip
    """Return what limits a comparison, as sentences."""
    found = []
    task = sorted(path for path, _, _ in _settings(one, other) if path.startswith("task."))
    if task:
        found.append(
            f"The tasks differ ({', '.join(task)}): the sides solve different problems, and a difference may be that of the "
            "problems."
        )
    for side in (one, other):
        if side.remark:
            found.append(f"{side.name} {side.remark}.")
    if not with_success:
        found.append("The task has no threshold, so no seed is solved or unsolved, and errors are compared.")
    elif unsolved:
        measured = any(seed.error is not None for seed in (*a, *b))
        found.append(f"No seed is solved on either side{', so errors decide' if measured else ''}.")
    if min(len(a), len(b)) < 3:
        found.append(f"There are {len(a)} and {len(b)} seeds: a statement about rates needs more of them.")
    if one.fresh != other.fresh and (one.chosen_by_these or other.chosen_by_these):
        fresh = one if one.fresh else other
        found.append(f"The results of {fresh.name} are of fresh seeds, so the comparison favours the other side.")
    numerics = [side.provenance.get("numerics") for side in (one, other)]
    if None not in numerics and numerics[0] != numerics[1]:
        found.append(
            f"The numerics differ ({numerics[0]}; {numerics[1]}): equal seeds do not give equal numbers, rates can be compared."
        )
    failed = [sum(each.outcome == "error" for each in sample) for sample in (a, b)]
    if any(failed):
        found.append(f"Seeds that ended in an exception count as unsolved: {failed[0]} and {failed[1]}.")
    if not shared_data and not task:
        found.append("The batch sizes differ, so equal seeds do not have equal data, and are not compared as pairs.")
    elif common and len(common) < max(len(a), len(b)) and with_success:
        found.append(f"{len(common)} seeds are common to both; the verdict is about all seeds of each side.")
    return found


def _choice(sides: Iterable[Side]) -> list[str]:
    """Return a sentence on the sides that were chosen as the best by the results that are compared."""
    how = {
        side.name: f"best of {side.best_of}" if side.best_of else "exported as the best"
        for side in sides
        if side.chosen_by_these
    }
    if not how:
        return []
    names = ", ".join(f"{name} ({text})" for name, text in how.items())
    they = "Its figures are" if len(how) == 1 else "Their figures are"
    return [
        f"Chosen by these same results: {names}. {they} too good on average, and p-values do not count the choice; "
        "`confirm:` in the sweep file trains the best on fresh seeds."
    ]


def _adjusted(pairs: Sequence[Pair]) -> list[Pair]:
    """Return pairs with p-values that are adjusted for the number of pairs, each figure by itself."""
    if len(pairs) < 2:
        return list(pairs)
    by_name: dict[str, list[float | None]] = {}
    for name in dict.fromkeys(one.name for pair in pairs for one in pair.differences):
        values = [pair.difference(name) for pair in pairs]
        by_name[name] = holm([None if one is None else one.p_value for one in values])
    deciding = holm([found.p_value if (found := pair.difference(pair.decisive)) else None for pair in pairs])
    return [
        dataclasses.replace(
            pair,
            differences=tuple(
                dataclasses.replace(one, adjusted=deciding[i] if one.name == pair.decisive else by_name[one.name][i])
                for one in pair.differences
            ),
        )
        for i, pair in enumerate(pairs)
    ]


# ------------------------------------------------------------------------------------------- the best of all cells


def best_of_cells(found: Report, confidence: float = 0.95) -> str | None:
    """Return sentences on which cell of a sweep is the best by its objective, and what chance explains of its lead.

    None where there is nothing to say: one cell, several objectives, or a best cell without a winner. Of cells with different
    tasks or budgets, and of those that break constraints, it is said why none is named.
    """
    cells = [cell for cell in found.cells() if cell[0].rank == 1]
    if len(cells) < 2 or found.search.further_objectives or found.is_without_winner():
        return None
    settings = [cell[0].configuration.settings for cell in cells]
    if not all(same(each["task"], settings[0]["task"]) for each in settings):
        return "No cell is named the best of all: they have different tasks."
    if len({cell[0].budget for cell in cells}) > 1:
        return "No cell is named the best of all: they have different budgets (train.steps)."
    meeting = [cell for cell in cells if not found.broken_constraints(cell[0])]
    if not meeting:
        return "No cell is named the best of all: none meets all constraints."
    if len(meeting) == 1:
        of = "" if len(cells) == len(found.cells()) else " of the complete cells"
        return f"Only {title_of(meeting[0])}{of} meets all constraints."
    first, second = sorted(meeting, key=lambda cell: standing(found.judged_by(cell[0]), found.search))[:2]
    if not found.has_winner(first):
        return None
    one, other = (_side(found, cell, cell[0], title_of(cell), best=True) for cell in (first, second))
    if one.fresh != other.fresh:
        return (
            "No cell is named the best of all: of the first two only one is judged by fresh seeds, and the other by those that "
            "chose it, which are too good on average."
        )
    which = "all cells" if len(meeting) == len(found.cells()) else f"{len(meeting)} of {len(found.cells())} cells"
    which += ", those that are complete and meet the constraints" if len(meeting) < len(found.cells()) else ""
    leads = _lead(found, first[0], second[0], which, title_of(first), title_of(second))
    chosen = [side.name for side in (one, other) if side.chosen_by_these]
    reasons = [f"{'each' if len(chosen) == 2 else chosen[0]} was chosen by these results"] if chosen else []
    reasons += [f"the two are the first of {len(meeting)} cells"] if len(meeting) > 2 else []
    unsure = f"The p-values do not count that {', nor that '.join(reasons)}." if reasons else ""
    return " ".join(filter(None, (leads, _by_chance(one, other, 1 - confidence), unsure)))


def _lead(
    found: Report, first: RankedConfiguration, second: RankedConfiguration, which: str, a: str, b: str
) -> str:  # fmt: skip
    objective = found.search.objective
    metric = metrics.find(objective.name, objective.direction)
    values = [found.judged_by(one).value(objective.name, objective.direction).estimate for one in (first, second)]
    name, word = objective.name, "highest" if objective.direction == "maximize" else "lowest"
    texts = [metric.format(value) + (" %" if metric.format is percent and value is not None else "") for value in values]
    if values[0] is None:  # the error decides: see `Report.ranked_by_error`
        name, word = "median error", "lowest"
        values = [found.judged_by(one).value(metrics.error_median("extrapolation").name).estimate for one in (first, second)]
        texts = [number(value) for value in values]
    so_far = "" if found.row.state == "done" else "so far, "
    start = f"{so_far}{word} {name} of {which}: "
    start = start[0].upper() + start[1:]
    of = [f"{title} #{one.configuration.number}" for title, one in ((a, first), (b, second))]
    if values[0] is not None and values[0] == values[1]:
        return f"{start}{of[0]} and {of[1]}, both {texts[0]}."
    return f"{start}{of[0]} with {texts[0]}, then {of[1]} with {texts[1]}."


def _by_chance(one: Side, other: Side, alpha: float) -> str:
    """Return what the tests of `sweeps compare` say about two sides with equal budgets, without intervals of differences."""
    a, b = one.seeds, other.seeds
    judged = one.has_threshold and other.has_threshold

    favoured: set[str] = set()

    def says(p_value: float | None, test: str, for_first: bool) -> str:
        if p_value is None:
            return f"not tested ({test})"
        how = f"{test}, p = {_p_text(p_value)}".replace("= <", "<")
        if p_value >= alpha:
            return f"chance may explain the difference ({how})"
        favoured.add(one.name if for_first else other.name)
        return f"more than chance explains{'' if for_first else f', in favour of {other.name}'} ({how})"

    if not judged or not any(seed.solved for seed in (*a, *b)):
        errors = _errors(a, b)
        mann_whitney = "Mann and Whitney's test"
        middle = errors.first.estimate, errors.second.estimate
        for_first = middle[0] is not None and (middle[1] is None or middle[0] <= middle[1])
        medians = f"{number(middle[0])} and {number(middle[1])}"
        return f"Median errors {medians}: {says(errors.p_value, mann_whitney, for_first)}."
    _, common = _common(one, other, a, b)
    solved = [sum(seed.solved for seed in sample) for sample in (a, b)]
    counts = f"{solved[0]}/{len(a)} and {solved[1]}/{len(b)}"
    if common and len(common) == len(a) == len(b):
        rates = _of_pairs(a, b, common, 1 - alpha)
    else:
        rates = _rates(metrics.SUCCESS_RATE.name, metrics.SUCCESS_RATE.meaning, a, b, lambda seed: seed.solved, 1 - alpha)
    exact, ahead = f"{rates.test}'s exact test", solved[0] * len(b) - solved[1] * len(a)
    text = f"Seeds solved, {counts}: " + (f"{says(rates.p_value, exact, ahead > 0)}." if ahead else "no difference.")
    budget = one.budget
    times = [[seed.converged_at for seed in sample] for sample in (a, b)]
    if any(at is not None for sample in times for at in sample):
        means = [mean([float(budget if at is None else at) for at in sample]) for sample in times]
        said = says(log_rank(times[0], times[1], budget), "log-rank test", means[0] <= means[1])
        text += f" Steps until seeds converge, {steps(means[0])} and {steps(means[1])} on average: {said}."
    if not favoured:
        text += " So it is not shown which of the two is better, nor that they are equal."
    elif favoured == {other.name}:
        text += f" So it is not shown that {one.name} is the better."
    return text


# ------------------------------------------------------------------------------------------- text


def _side_dict(side: Side) -> dict[str, Any]:
    return {
        "name": side.name,
        "cell": side.labels,
        "seeds": [seed.seed for seed in side.seeds],
        "budget": side.budget,
        "best_of": side.best_of,
        "chosen_by_these_results": side.chosen_by_these,
        "fresh_seeds": side.fresh,
        "provenance": side.provenance,
    }


def _difference_dict(one: Difference) -> dict[str, Any]:
    entry = dataclasses.asdict(one)
    for name in ("first", "second", "difference"):
        if not entry[name]["method"]:
            del entry[name]["method"]
    return entry


def _finite(value: Any) -> Any:
    from sweeps.store.curves import finite

    return finite(value)


def _p(one: Difference) -> float | None:
    return one.p_value if one.adjusted is None else one.adjusted


def _p_text(p_value: float | None) -> str:
    if p_value is None:
        return UNKNOWN
    return "< 0.0001" if p_value < 1e-4 else f"{p_value:.2g}"


def _points(interval: Interval) -> str:
    if interval.estimate is None:
        return UNKNOWN
    ends = ""
    if interval.low is not None and interval.high is not None:
        ends = f" [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
    return f"{100 * interval.estimate:+.1f}{ends} points"


def _signed(interval: Interval, text: Callable[[float | None], str]) -> str:
    if interval.estimate is None:
        return UNKNOWN
    parts = [
        ("+" if value > 0 else "") + text(value)
        for value in (interval.estimate, interval.low, interval.high)
        if value is not None
    ]
    return f"{parts[0]} [{parts[1]}, {parts[2]}]" if len(parts) == 3 else parts[0]


def rate_text(solved: int, seeds: int, confidence: float = 0.95) -> str:
    """Return `19/20 = 95 % [76, 99]`."""
    interval = wilson(solved, seeds, confidence)
    return f"{solved}/{seeds}" + (
        f" = {percent(interval.estimate)} % [{percent(interval.low)}, {percent(interval.high)}]" if seeds else ""
    )


def _short(pair: Pair) -> tuple[str, str]:
    """Return the names of both sides, without what is the same in both."""
    a, b = pair.first.name, pair.second.name
    sweep = a.partition(":")[0]
    if ":" in a and ":" in b and sweep == b.partition(":")[0]:
        return a.removeprefix(f"{sweep}:"), b.removeprefix(f"{sweep}:")
    return a, b


def _verdict(pair: Pair, alpha: float) -> str:
    found = pair.difference(pair.decisive)
    assert found is not None
    a, b = _short(pair)
    p_value = _p(found)
    how = f"{found.test}'s test, p = {_p_text(p_value)}".replace("= <", "<") + (
        ", by Holm's method" if found.adjusted is not None else ""
    )
    if pair.decisive == "error":
        return _verdict_on_errors(pair, found, a, b, how, p_value, alpha)
    rates = pair.difference("success_rate")
    assert rates is not None and found.difference.estimate is not None
    counts = rates.counts
    numbers = f"{counts['first']} of {counts['first_seeds']} seeds and {counts['second']} of {counts['second_seeds']}"
    solve, paired = f"{a} and {b} solve {numbers}", pair.decisive == "success_rate_of_pairs"
    if p_value is not None and p_value < alpha:
        more, less = (b, a) if found.difference.estimate > 0 else (a, b)
        text = f"{more} solves more seeds than {less}: {solve}, a difference of {_points(found.difference)} ({how})."
    else:
        text = (
            f"No difference of the success rates was found: {solve}, {_points(found.difference)} ({how}). That does not show "
            f"that they are equal. {_detectable(counts, alpha, paired)}"
        )
    return text + _verdict_on_steps(pair, a, b, alpha)


def _detectable(counts: Mapping[str, int], alpha: float, paired: bool) -> str:
    """Return a sentence on which differences so many seeds can show. The power is that of Boschloo's test, also of pairs."""
    n, m = counts["first_seeds"], counts["second_seeds"]
    least = detectable_difference((counts["first"] + counts["second"]) / (n + m), n, m, 1 - alpha)
    seeds = f"{n} seed{'s' if n != 1 else ''} each" if n == m else f"{n} and {m} seeds"
    power = f"power about {POWER:.0%}, for independent seeds" if paired else f"power {POWER:.0%}"
    if least is None:
        return f"With {seeds} no difference could be shown reliably."
    return f"With {seeds} a difference of less than about {100 * least:.0f} points would often not be seen ({power})."


def _verdict_on_steps(pair: Pair, a: str, b: str, alpha: float) -> str:
    found = pair.difference("restricted_mean")
    if found is None or (p_value := _p(found)) is None or found.first.estimate is None or found.second.estimate is None:
        return ""
    if 0 in found.counts.values():
        return ""  # a side that never converges is not slow
    means = f"{steps(found.first.estimate)} and {steps(found.second.estimate)} steps"
    how = f"log-rank p = {_p_text(p_value)}".replace("= <", "<")
    low, high = found.difference.low, found.difference.high
    ends = f" [{steps(low)}, {steps(high)}]" if low is not None and high is not None else ""
    if p_value >= alpha:
        return f" No difference in when seeds converge was found ({means} on average; {how})."
    if low is not None and high is not None and low <= 0 <= high:
        return f" The seeds converge at different steps ({how}), without a clear difference of the mean ({means})."
    earlier, gap = (a, found.second.estimate - found.first.estimate) if found.first.estimate < found.second.estimate else (
        b, found.first.estimate - found.second.estimate
    )  # fmt: skip
    if low is not None and high is not None and earlier == b:
        ends = f" [{steps(-high)}, {steps(-low)}]"
    all_converge = found.counts == {"first": len(pair.first.seeds), "second": len(pair.second.seeds)}
    counted = "" if all_converge else f", a seed that does not converge counting the budget of {steps(pair.budget)}"
    return f" {earlier} converges {steps(gap)}{ends} steps earlier on average{counted} ({means}; {how})."


def _verdict_on_errors(
    pair: Pair, found: Difference, a: str, b: str, how: str, p_value: float | None, alpha: float
) -> str:  # fmt: skip
    if p_value is None and pair.budget < max(pair.first.budget, pair.second.budget) and _without_curves(pair):
        at = f"errors at step {pair.budget:,} are not known, since a file has no curves"
        return f"There is nothing to compare: no seed is solved within the shorter budget, and {at}."
    if p_value is None:
        return f"There is nothing to compare: neither {a} nor {b} has a seed with an error that is a number."
    medians = f"median extrapolation error {number(found.first.estimate, 3)} and {number(found.second.estimate, 3)}"
    if p_value >= alpha:
        equal = "That does not show that they are equal."
        return f"No difference of the errors was found between {a} and {b}: {medians} ({how}). {equal}"
    first, second = (math.inf if one.estimate is None else one.estimate for one in (found.first, found.second))
    if first == second:
        return f"The errors of {a} and {b} differ ({how}), with equal medians: {medians}."
    lower, higher = (a, b) if first < second else (b, a)
    return f"{lower} has lower errors than {higher}: {medians} ({how})."


def _without_curves(pair: Pair) -> bool:
    longer = max(pair.first, pair.second, key=lambda side: side.budget)
    return any(seed.up_to(pair.budget) is None for seed in longer.seeds)


def _rows(pair: Pair, confidence: float) -> list[list[str]]:
    rows = []
    for one in pair.differences:
        if one.unit == "share":
            first, second, difference = "", "", _points(one.difference)
            if one.name == "success_rate_of_pairs":
                counts = one.counts
                label = (
                    f"of the {common} seeds that both have"
                    if (common := sum(counts.values())) != 1
                    else "of the seed that both have"
                )
                first, second = (
                    f"only here {counts['only_first']}, both {counts['both']}",
                    f"only here {counts['only_second']}, neither {counts['neither']}",
                )
            else:
                label = {"success_rate": "seeds solved", "solved_at_end": "solved at the end"}[one.name]
                first = rate_text(one.counts["first"], one.counts["first_seeds"], confidence)
                second = rate_text(one.counts["second"], one.counts["second_seeds"], confidence)
        elif one.unit == "steps":
            label = f"converged at, mean up to {steps(pair.budget)}" if one.name == "restricted_mean" else "par2"
            first, second = steps(one.first.estimate), steps(one.second.estimate)
            difference = _signed(one.difference, steps)
        elif one.unit == "ratio":
            label = "extrapolation error, median"
            first, second = number(one.first.estimate, 3), number(one.second.estimate, 3)
            difference = UNKNOWN if one.difference.estimate is None else f"x {number(one.difference.estimate, 3)}"
        else:
            label = "sparsity error of solved seeds"
            first, second = number(one.first.estimate, 3), number(one.second.estimate, 3)
            difference = _signed(one.difference, lambda value: number(value, 2))
        test = "" if one.test is None or one.p_value is None else f"{_p_text(one.p_value)} ({one.test})"
        rows.append([label, first, second, difference, test])
    return rows


def _markdown(comparison: Comparison) -> str:
    pairs = comparison.pairs
    parts: list[str] = []
    if len(pairs) > MOST_DETAILED:
        parts += _several(comparison)
    else:
        pair = pairs[0]
        a, b = _short(pair)
        parts += [f"# {pair.first.name} against {pair.second.name}", _wrapped(comparison.verdict(pair))]
        parts.append(str(table(["", a, b, "difference, second - first", "p"], _rows(pair, comparison.confidence))))
        remarks = [*pair.remarks, *_choice((pair.first, pair.second))]
        parts += [_wrapped(" ".join(remarks))] if remarks else []
        parts += _differing(pair, a, b)
        parts += [_wrapped(f"{text}.") for text in comparison.left_out]
    parts.append(_legend(comparison))
    return "\n\n".join(parts) + "\n"


def _differing(pair: Pair, a: str, b: str) -> list[str]:
    parts = []
    if pair.settings:
        rows = _settings_rows(pair.settings)
        more = f"\n\n{len(rows) - MOST_SETTINGS} more differ: --format json lists them." if len(rows) > MOST_SETTINGS else ""
        parts.append("## Settings that differ\n\n" + str(table(["", a, b], rows[:MOST_SETTINGS])) + more)
    else:
        parts.append("All settings are equal.")
    if pair.provenance:
        parts.append("## Versions and devices that differ\n\n" + str(table(["", a, b], [list(row) for row in pair.provenance])))
    return parts


def _settings_rows(settings: Sequence[tuple[str, Any, Any]]) -> list[list[str]]:
    """Return rows of a table; what all units of a model have alike is in one row, `model.units.*.clamp`."""
    rows: dict[tuple[str, str, str], str] = {}
    for path, *values in settings:
        fields = [
            UNKNOWN if v is None else number(v, 3) if isinstance(v, float) else v if isinstance(v, str) else shown(v)
            for v in values
        ]
        key = re.sub(r"\.units\.\d+\.", ".units.*.", path), fields[0], fields[1]
        rows[key] = path if key not in rows else key[0]
    return [[path, key[1], key[2]] for key, path in rows.items()]


def _several(comparison: Comparison) -> list[str]:
    pairs = comparison.pairs
    rows = []
    for pair in pairs:
        found, rates, reach = (pair.difference(name) for name in (pair.decisive, "success_rate", "restricted_mean"))
        assert found is not None
        rate = [
            rate_text(rates.counts[w], rates.counts[f"{w}_seeds"], comparison.confidence) if rates else UNKNOWN
            for w in ("first", "second")
        ]
        gap = _points(found.difference) if found.unit == "share" else UNKNOWN if found.difference.estimate is None else (
            f"error x {number(found.difference.estimate, 3)}"
        )  # fmt: skip
        rows.append([
            f"{pair.first.name} against {pair.second.name}", *rate, gap, f"{_p_text(_p(found))} ({found.test})",
            _signed(reach.difference, steps) if reach else UNKNOWN, _p_text(_p(reach)) if reach else UNKNOWN,
        ])  # fmt: skip
    parts = [
        f"# {len(pairs)} comparisons",
        str(
            table(
                [
                    "first against second",
                    "first solves",
                    "second solves",
                    "difference",
                    "p (Holm)",
                    "converged at, mean",
                    "p (Holm)",
                ],
                rows,
            )
        ),
        "\n".join(f"- {_wrapped(comparison.verdict(pair), indent='  ')}" for pair in pairs),
    ]
    remarks = [*dict.fromkeys(remark for pair in pairs for remark in pair.remarks)]
    remarks += _choice(side for pair in pairs for side in (pair.first, pair.second))
    parts += [_wrapped(" ".join(remarks))] if remarks else []
    parts += [_wrapped("; ".join(comparison.left_out) + ".")] if comparison.left_out else []
    parts.append(_wrapped(
        "Every pair in full, with the settings that differ: `sweeps compare A B` of that pair, or --format json."
    ))  # fmt: skip
    return parts


def _legend(comparison: Comparison) -> str:
    level = f"{100 * comparison.confidence:g} %"
    text = (
        f"Differences are second minus first with {level} intervals: of rates Newcombe's, of means bootstrapped. p: Boschloo's "
        "exact test (of more than about 200 seeds each Fisher's); on the seeds that both have McNemar's exact unconditional "
        "test, which decides where both have the same seeds; the log-rank test of when seeds converge; Mann and Whitney's test "
        "of the errors."
    )
    if len(comparison.pairs) > 1:
        text += " Holm: adjusted for the number of pairs, so that any false alarm in a column is as rare as of one test."
    return _wrapped(text)


def _wrapped(text: str, indent: str = "") -> str:
    flat = " ".join(text.split())
    return textwrap.fill(flat, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
