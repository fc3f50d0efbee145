"""The sweep file: read, checked and typed. All faults are reported at once.

`load` reads a file and `parse` a text; both return a Sweep, or raise SweepFileError with every fault, its line and the
nearest known name. `stored_search` reads the `search` section of a begun sweep without its models.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sweeps.config.compare import SECTIONS, Axis, Cell, as_section, read_axes, read_cells
from sweeps.config.faults import Fault, Faults, SweepFileError, is_number, join, shown, unknown
from sweeps.config.registry import find, names, nearest
from sweeps.config.settings import penalty_starts, resolve, task_of
from sweeps.config.space import (
    BOUNDS,
    Confirm,
    Constraint,
    EarlyStopping,
    Halving,
    Objective,
    Race,
    Search,
    duplicates,
    read_space,
)
from sweeps.config.yaml import dump, not_utf8, read, read_value
from sweeps.errors import UserError

KEYS = (
    "name",
    "question",
    "task",
    "model",
    "train",
    "compare",
    "seeds",
    "search",
    "early_stopping",
    "confirm",
    "resources",
    "budget",
    "exported",
)
ANCHORS = "x-"
"""Keys at top level that begin so hold what the file inserts elsewhere (`&name`, `*name`), and mean nothing themselves."""
SEARCH_KEYS = ("sampler", "configurations", "parallel", "objective", "constraints", "space")
BUDGET_KEYS = ("hours", "seed_steps", "cost_usd", "failures", "target")
TARGET_KEYS = ("success_rate",)
RESOURCES_KEYS = ("cpus", "gpus", "memory_gb", "slots", "checkpoint_s")
NOT_BUILT = ("search.order",)
"""Keys that have a meaning and no implementation yet: to ignore them would run another experiment."""
SWEEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What a sweep may be called: safe as the name of a folder, an experiment, a job of Ray or Slurm, and in a shell."""
NAME_RULE = "1 to 100 letters, digits, dots, dashes or underscores, a letter or digit first"
FRACTION = re.compile(r"(\d+) ?/ ?(\d+)")
PERCENTAGE = re.compile(r"(\d+(?:\.\d+)?) ?%")
MAX_SEED = 2**32 - 1
"""The largest seed that NumPy's RandomState takes, which draws a seed's subset offset."""
MAX_SEEDS = 1_000_000
MOST_WORKERS_PER_GPU = 50
"""Each takes some hundred megabytes of the GPU's memory before it trains."""
LEAST_OF_GPU = 0.95
"""What the workers of a GPU have of it together at least: a file may have 0.33 for a third."""
DEFINITIONS = Path(__file__).parent.parent / "definitions"
"""Folder of the sweep files that ship with the package."""


@dataclass(frozen=True)
class Resources:
    """The resources of ONE worker. They never change results."""

    cpus: int = 1
    gpus: float = 0.0
    """0, 1, or a whole part of a GPU (0.5, 0.33, ...): a worker trains on one."""
    memory_gb: float | None = None
    slots: Literal["auto"] | int = "auto"
    """Lanes that a worker trains together. auto: an even share of the lanes, at most what its processor or its part of a GPU
    is kept busy with."""
    checkpoint_s: float = 5.0
    """Interval at which a worker sends checkpoints: the most work that is lost with it. Of very many lanes, or large ones, it
    sends as many as take 2 % of its time, those with the oldest first."""

    @property
    def workers_per_gpu(self) -> int:
        """Workers that share a GPU; 0: they train on CPUs."""
        return round(1 / self.gpus) if self.gpus else 0


@dataclass(frozen=True)
class Budget:
    """When to stop a sweep that is not done."""

    hours: float | None = None
    """Wall time of the driver, all its runs together."""
    failures: int | None = None
    """Lanes of a run that may end in an error."""
    failures_share: float | None = None
    """The same as a share of all lanes of the sweep."""
    seed_steps: int | None = None
    """Optimiser updates, all lanes of all its runs together, those that the store had before included."""
    cost_usd: float | None = None
    """Wall time times nodes times the price of a node, all its runs together."""
    target: float | None = None
    """Success rate: a cell gets no further configuration once the lower end of the 95 % interval of its best one is above."""

    def most_failures(self, lanes: int) -> float:
        """Return how many of so many lanes may end in an error."""
        if self.failures_share is not None:
            return math.floor(self.failures_share * lanes + 1e-9)
        return math.inf if self.failures is None else self.failures


@dataclass(frozen=True)
class Sweep:
    """A sweep file, read and checked."""

    name: str
    question: str
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]
    """In the order of the axes as written, the last axis running fastest."""
    search: Search | None
    resources: Resources
    budget: Budget
    warnings: tuple[str, ...]
    text: str
    """YAML that reads as this sweep. The file's own text or, with overrides, one that has them in it."""
    expected: dict[str, Any] | None
    """The `exported` section of a best.yaml: the results of the configuration when it was exported."""
    document: dict[str, Any]
    """The file's plain values, overrides applied."""
    early_stopping: EarlyStopping = field(default_factory=EarlyStopping)
    """Of every cell that is searched."""
    confirm: Confirm | None = None
    grids: Mapping[str, int] = field(default_factory=dict)
    """By key of a cell that is searched by a grid: the grid's number of different configurations."""

    @property
    def objective(self) -> Objective:
        """The search's; the default one where nothing is searched."""
        return self.search.objective if self.search is not None else Objective()

    @property
    def ranked_by(self) -> Search:
        """The search, whose objectives and constraints put configurations in order; one of defaults where none is searched."""
        return self.search if self.search is not None else Search(configurations=1)

    def configurations(self, cell: Cell) -> int:
        """The most configurations that a cell has, number 0 included; 1 where it has nothing to search."""
        if self.search is None or not cell.space:
            return 1
        return min(self.search.configurations, self.grids.get(cell.key, self.search.configurations))


def load(source: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep file, with KEY=VALUE overrides applied. Raises SweepFileError, also for a missing file."""
    try:
        text = source.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SweepFileError(str(source), [Fault("", _unreadable(source, error))]) from error
    return parse(text, str(source), overrides)


def parse(text: str, source_name: str, overrides: Sequence[str] = ()) -> Sweep:
    """Read the text of a sweep file. `source_name`, a path or a name, is part of messages; its stem is the default name.

    Raises SweepFileError with every fault.
    """
    document = read(text)
    overridden: dict[str, str] = {}
    if isinstance(document.values, dict):
        document.values = {key: value for key, value in document.values.items() if not key.startswith(ANCHORS)}
        for argument in overrides:
            try:
                overridden[_apply_override(document.values, argument)] = argument
            except _OverrideError as error:
                document.faults.append(Fault("", str(error), override=argument))
    faults = Faults(document.lines, overridden, document.faults)
    if not isinstance(document.values, dict):
        if not faults:
            given = "is empty" if document.values is None else f"has {shown(document.values)}"
            message = f"a sweep file is a mapping (key: value), but this {given}. `sweeps init` writes one"
            faults.add("", message)
        faults.raise_any(source_name)
    sweep = _read(document.values, Path(source_name).stem, faults)
    faults.raise_any(source_name)
    if overrides:
        arguments = " ".join(" ".join(argument.split()) for argument in overrides)
        text = f"# {Path(source_name).name} with {arguments}\n{dump(document.values)}"
    return dataclasses.replace(sweep, text=text)


def from_document(document: Mapping[str, Any], source_name: str = "sweep") -> Sweep:
    """Read plain values, such as `Sweep.document`. Raises SweepFileError."""
    return parse(dump(dict(document)), source_name)


def stored_search(document: Mapping[str, Any]) -> Search | None:
    """The search of a stored `Sweep.document`: sampler, objective and the whole space; None where nothing is searched.

    No model, task or sampler is looked up, since a user's file may be missing on this machine, and no cell is made.
    `configurations` is 0 where a grid is tried in full. Faults are ignored: the document was checked when its sweep began.
    """
    return None if document.get("search") is None else _read_search(document["search"], Faults({}))


def stored_stopping(document: Mapping[str, Any]) -> EarlyStopping:
    """The early stopping of a stored `Sweep.document`; see `stored_search`."""
    given = document.get("early_stopping")
    return EarlyStopping() if given is None else _read_early_stopping(given, Faults({}))


def stored_seeds(document: Mapping[str, Any]) -> tuple[int, ...]:
    """The seeds of the search of a stored `Sweep.document`, empty where it does not have them; see `stored_search`."""
    return _read_seeds(document["seeds"], "seeds", Faults({})) if "seeds" in document else ()


def stored_confirm(document: Mapping[str, Any]) -> Confirm | None:
    """The confirmation of a stored `Sweep.document`; see `stored_search`."""
    return None if document.get("confirm") is None else _read_confirm(document["confirm"], Faults({}))


def stored_target(document: Mapping[str, Any]) -> float | None:
    """The success rate of `budget.target` in a stored `Sweep.document`; None without one."""
    return _read_budget(document.get("budget") or {}, Faults({})).target


def _unreadable(source: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        beside = [path.name for path in source.parent.glob("*.y*ml")] if source.parent.is_dir() else []
        guess = nearest(source.name, beside)
        return "no such file." + (f" Did you mean {source.parent / guess}?" if guess else "")
    if isinstance(error, IsADirectoryError):
        return "is a folder, not a sweep file"
    if isinstance(error, UnicodeDecodeError):
        return not_utf8(error)
    return f"cannot be read: {error}"


def _read(document: dict[str, Any], stem: str, faults: Faults) -> Sweep:
    values = _without_unbuilt(document, faults)
    for key in values:
        if key not in KEYS:
            own = ""
            if isinstance(values[key], dict | list) and not nearest(key, KEYS):
                own = f". A block of your own, for *aliases elsewhere, has a name that begins with x-: {ANCHORS}{key}"
            faults.add(key, unknown("key", key, KEYS, "") + own)
    base = {section: values[section] for section in SECTIONS if values.get(section) is not None}
    base = _sound_sections(base, faults)
    axes = read_axes(values["compare"], base, faults) if values.get("compare") is not None else []
    for path, axis in itertools.product(faults.overridden, axes):
        if axis.always_sets(path):
            message = f"has no effect: axis {axis.name!r} sets it in every cell. Change compare.{axis.name}"
            faults.add(path, message)
    search = _read_search(values["search"], faults) if values.get("search") is not None else None
    seeds = _read_seeds(values["seeds"], "seeds", faults) if "seeds" in values else (0,)
    stopping = EarlyStopping()
    if values.get("early_stopping") is not None:
        stopping = _read_early_stopping(values["early_stopping"], faults)
    confirm = _read_confirm(values["confirm"], faults) if values.get("confirm") is not None else None
    if confirm is not None:
        _check_confirmation_seeds(confirm, seeds, faults)
    resources = _read_resources({} if values.get("resources") is None else values["resources"], faults)
    budget = _read_budget({} if values.get("budget") is None else values["budget"], faults)
    expected = None
    if values.get("exported") is not None:
        expected = faults.take_mapping(values["exported"], "exported")
    question = values.get("question")
    if question is not None and not isinstance(question, str):
        faults.add("question", f"must be text, not {shown(question)}")
    name = values.get("name", stem)
    if not isinstance(name, str) or not SWEEP_NAME.fullmatch(name):
        faults.add("name", f"must be {NAME_RULE}, not {shown(name)}")
    grids: Mapping[str, int] = {}
    cells, warnings = read_cells(base, axes, _sections_given(values), search.space if search else {}, faults)
    if search is not None:
        given = values["search"]
        _check_objectives(given.get("objective"), search.objectives, _figures(base, axes), faults)
        _check_constraints(given.get("constraints"), search.constraints, _figures(base, axes), faults)
        _check_sampler(given, search, cells, faults)
        _check_single_objective(search, stopping, budget, faults)
        grids = {} if faults else _grids(search, cells)
        if not search.configurations:  # a grid without a count is tried in full
            search = dataclasses.replace(search, configurations=max(grids.values(), default=1))
        warnings += [] if faults else _repetitions(search, cells, faults)
    warnings += [] if faults else _without_threshold(search, cells, faults)
    warnings += [] if faults else _evaluated_at_the_ends(cells, faults)
    warnings += _check_early_stopping(
        values.get("early_stopping"), stopping, search, seeds, _figures(base, axes), cells, faults
    )
    sources = expected.get("sources") if faults and expected else None
    if isinstance(sources, dict) and (absent := [file for file in sources if not os.path.exists(str(file))]):
        faults.add(
            "exported.sources",
            f"has the code of {', '.join(map(str, absent))}, which is not here: `sweeps reproduce --trust-code` trains with "
            "it; for anything else copy it from there into files of these names",
        )
    return Sweep(
        name=str(name), question=str(question or "").strip(), seeds=seeds, cells=tuple(cells), search=search,
        resources=resources, budget=budget, warnings=tuple(warnings), text="", expected=expected,
        document=document, early_stopping=stopping, confirm=confirm, grids=grids,
    )  # fmt: skip


def _without_unbuilt(document: Mapping[str, Any], faults: Faults) -> dict[str, Any]:
    """The values without the keys of NOT_BUILT; one that has a value is a fault."""
    values = dict(document)
    for path in NOT_BUILT:
        section, _, key = path.rpartition(".")
        node = values.get(section) if section else values
        if isinstance(node, dict) and key in node:
            if node[key] is not None:
                faults.add(path, "is not built yet: take it out of the file")
            rest = {name: value for name, value in node.items() if name != key}
            values = {**values, section: rest} if section else rest
    return values


def _sound_sections(base: Mapping[str, Any], faults: Faults) -> dict[str, Any]:
    """Those of `model`, `task` and `train` at top level that have the form of a section."""
    sound = {}
    for section, value in base.items():
        if isinstance(as_section(value, section), dict):
            sound[section] = value
        else:
            what = "a mapping" if section == "train" else "a name, or a mapping with `name` and settings"
            faults.add(section, f"must be {what}, not {shown(value)}")
    return sound


def _sections_given(values: Mapping[str, Any]) -> set[str]:
    """Those of `model`, `task` and `train` that the file has, sound or not, or that an axis with a fault may set."""
    compare = values.get("compare")
    axes = SECTIONS if compare is not None and not isinstance(compare, dict) else compare or ()
    return {section for section in SECTIONS if values.get(section) is not None or section in axes}


def _read_seeds(value: Any, path: str, faults: Faults) -> tuple[int, ...]:
    """The seeds of `{first: 0, count: 100}`, a count, or a list."""
    if isinstance(value, list):
        seeds = [faults.take_integer(item, join(path, i), 0, MAX_SEED) for i, item in enumerate(value)]
        known = [seed for seed in seeds if seed is not None]
        if not value:
            faults.add(path, "is an empty list: give at least one seed, or a count")
        for seed in duplicates(known):
            faults.add(path, f"seed {seed} is given twice")
        return tuple(known)
    if not isinstance(value, dict):
        if not is_number(value):
            faults.add(path, f"must be a count, a list, or {{first: 0, count: 100}}, not {shown(value)}")
            return ()
        return _seed_range(0, faults.take_integer(value, path, 1, MAX_SEEDS))
    given = faults.take_mapping(value, path, known=("first", "count")) or {}
    if "count" not in given:
        faults.add(path, "needs a `count`: how many seeds")
        return ()
    first = faults.take_integer(given.get("first", 0), join(path, "first"), 0, MAX_SEED)
    count = faults.take_integer(given["count"], join(path, "count"), 1, MAX_SEEDS)
    if first is not None and count is not None and first + count - 1 > MAX_SEED:
        faults.add(path, f"the last seed would be {first + count - 1}, above the largest, {MAX_SEED}")
    return _seed_range(first or 0, count)


def _seed_range(first: int, count: int | None) -> tuple[int, ...]:
    return tuple(range(first, first + count)) if count is not None else ()


def _read_resources(value: Any, faults: Faults) -> Resources:
    """The `resources` section."""
    given = faults.take_mapping(value, "resources", known=RESOURCES_KEYS) or {}
    cpus = faults.take_integer(given.get("cpus", 1), "resources.cpus", 1)
    gpus = _read_gpus(given.get("gpus", 0), faults)
    memory_gb = None
    if given.get("memory_gb") is not None:
        memory_gb = faults.take_number(given["memory_gb"], "resources.memory_gb", above=0)
    checkpoint_s = faults.take_number(given.get("checkpoint_s", 5.0), "resources.checkpoint_s", above=0)
    slots: Literal["auto"] | int = "auto"
    if given.get("slots", "auto") != "auto":
        slots = faults.take_integer(given["slots"], "resources.slots", 1, or_else="auto") or "auto"
    return Resources(cpus or 1, gpus, memory_gb, slots, checkpoint_s or 5.0)


def _read_gpus(value: Any, faults: Faults) -> float:
    """Return 0, 1, or the whole part of a GPU that a number such as 0.33 stands for."""
    gpus = faults.take_number(value, "resources.gpus", low=0)
    if not gpus or gpus == 1:
        return gpus or 0.0
    if gpus < 0.99 / MOST_WORKERS_PER_GPU:
        faults.add(
            "resources.gpus",
            f"must be 0 or at least {1 / MOST_WORKERS_PER_GPU:g}, not {gpus:g}: at most {MOST_WORKERS_PER_GPU} workers "
            "share a GPU",
        )
        return 0.0
    if gpus > 1:
        faults.add(
            "resources.gpus",
            f"must be at most 1, not {gpus:g}: a worker trains on one GPU, and there are as many workers as the cluster has "
            "GPUs for. `gpus: 1` uses all of them",
        )
        return 0.0
    workers = min(int(1 / gpus + 1e-6), MOST_WORKERS_PER_GPU)
    if not LEAST_OF_GPU <= workers * gpus <= 1 + 1e-6:
        near = [f"{_part_of_gpu(n):g}" for n in (workers, workers + 1) if n <= MOST_WORKERS_PER_GPU]
        faults.add(
            "resources.gpus",
            f"must be 0, 1, or a whole part of a GPU (0.5, 0.33, 0.25 ...), not {gpus:g}, which leaves a part of every GPU "
            f"without a worker. Near it: {' and '.join(near)}",
        )
        return 0.0
    return _part_of_gpu(workers)


def _part_of_gpu(workers: int) -> float:
    """Return 1 / workers in the resolution of Ray's resources, rounded down: all of them fit on a GPU."""
    return 10_000 // workers / 10_000


def _read_budget(value: Any, faults: Faults) -> Budget:
    given = faults.take_mapping(value, "budget", known=BUDGET_KEYS) or {}
    hours, cost_usd = (
        None if given.get(key) is None else faults.take_number(given[key], f"budget.{key}", above=0)
        for key in ("hours", "cost_usd")
    )
    seed_steps = given.get("seed_steps")
    seed_steps = None if seed_steps is None else faults.take_integer(seed_steps, "budget.seed_steps", 1)
    failures, share = _read_failures(given.get("failures"), faults)
    target = _read_target(given.get("target"), faults)
    return Budget(hours, failures, share, seed_steps, cost_usd, target)


def _read_failures(value: Any, faults: Faults) -> tuple[int | None, float | None]:
    """A number of lanes, or a share of all."""
    if value is None:
        return None, None
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value, None
    found = PERCENTAGE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None or float(found[1]) > 100:
        message = f"must be a number of lanes such as 20, or a share of all such as 5%, not {shown(value)}"
        faults.add("budget.failures", message)
        return None, None
    return None, float(found[1]) / 100


def _read_target(value: Any, faults: Faults) -> float | None:
    """The success rate of `{success_rate: 0.9}`, above 0 and below 1."""
    if value is None:
        return None
    if not isinstance(value, dict):
        faults.add("budget.target", f"must be {{success_rate: RATE}}, such as {{success_rate: 0.9}}, not {shown(value)}")
        return None
    given = faults.take_mapping(value, "budget.target", known=TARGET_KEYS) or {}
    if "success_rate" not in given:
        if not value:
            faults.add("budget.target", "needs a `success_rate`, such as 0.9")
        return None
    rate = faults.take_number(given["success_rate"], "budget.target.success_rate", above=0)
    if rate is not None and rate >= 1:
        faults.add("budget.target.success_rate", f"must be below 1, not {rate:g}: no number of seeds has an interval above 1")
        return None
    return rate


# ------------------------------------------------------------------------------------------- early stopping, confirmation


def _read_early_stopping(value: Any, faults: Faults) -> EarlyStopping:
    """Read `{seeds: {race: [10, 25, 50, 100], confidence: 0.95}, steps: {halving: [1000], keep: 1/3, metric: ...}}`."""
    given = faults.take_mapping(value, "early_stopping", known=("seeds", "steps")) or {}
    race = halving = None
    if given.get("seeds") is not None:
        race = _read_race(given["seeds"], "early_stopping.seeds", faults)
    if given.get("steps") is not None:
        halving = _read_halving(given["steps"], "early_stopping.steps", faults)
    if isinstance(value, dict) and given.get("seeds") is None and given.get("steps") is None:
        faults.add("early_stopping", "needs `seeds: {race: [10, 25, 50]}`, or `steps: {halving: [...], metric: ...}`, or both")
    return EarlyStopping(race, halving)


def _read_race(value: Any, path: str, faults: Faults) -> Race | None:
    given = faults.take_mapping(value, path, known=("race", "confidence"))
    if given is None:
        return None
    confidence = faults.take_number(given.get("confidence", Race.confidence), join(path, "confidence"), above=0)
    if confidence is not None and confidence >= 1:
        faults.add(join(path, "confidence"), f"must be below 1, such as 0.95, not {confidence:g}")
        confidence = None
    if "race" not in given:
        faults.add(path, "needs `race`: numbers of seeds after which configurations are compared, such as [10, 25, 50, 100]")
        return None
    levels = _read_rising(given["race"], join(path, "race"), "numbers of seeds", "[10, 25, 50, 100]", faults)
    return Race(levels, confidence or Race.confidence) if levels else None


def _read_halving(value: Any, path: str, faults: Faults) -> Halving | None:
    given = faults.take_mapping(value, path, known=("halving", "keep", "metric"))
    if given is None:
        return None
    keep = _read_keep(given.get("keep", Halving.keep), join(path, "keep"), faults)
    for key, example in (("halving", "steps after which configurations are compared, such as [1000, 2000]"),
                         ("metric", "what they are compared by, such as error.extrapolation.median")):  # fmt: skip
        if key not in given:
            faults.add(path, f"needs `{key}`: {example}")
    rungs: tuple[int, ...] = ()
    if "halving" in given:
        rungs = _read_rising(given["halving"], join(path, "halving"), "steps", "[1000, 2000]", faults)
    metric = _read_objective(given.get("metric", Objective.name), faults, join(path, "metric"))
    return Halving(rungs, metric, keep) if rungs and "metric" in given else None


def _read_rising(value: Any, path: str, what: str, example: str, faults: Faults) -> tuple[int, ...]:
    """Read a list of rising whole numbers above 0; empty where there is a fault."""
    if not isinstance(value, list) or not value:
        faults.add(path, f"must be a list of {what}, such as {example}, not {shown(value)}")
        return ()
    numbers = [faults.take_integer(item, join(path, i), 1) for i, item in enumerate(value)]
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers):
        return ()
    if known != sorted(set(known)):
        faults.add(path, f"must rise: write {sorted(set(known))}")
        return ()
    return tuple(known)


def _read_keep(value: Any, path: str, faults: Faults) -> float:
    """Read a share such as 1/3, 0.25 or 30%."""
    text = value.strip() if isinstance(value, str) else ""
    share = float(value) if is_number(value) else None
    if (found := FRACTION.fullmatch(text)) and int(found[2]):
        share = int(found[1]) / int(found[2])
    elif found := PERCENTAGE.fullmatch(text):
        share = float(found[1]) / 100
    if share is None or not 0 < share < 1:
        faults.add(path, f"must be a share between 0 and 1, such as 1/3, of the configurations, not {shown(value)}")
        return Halving.keep
    return share


def _read_confirm(value: Any, faults: Faults) -> Confirm | None:
    """Read `{top: 1, seeds: {first: 1000, count: 100}}`."""
    given = faults.take_mapping(value, "confirm", known=("top", "seeds"))
    if given is None:
        return None
    top = faults.take_integer(given.get("top", Confirm.top), "confirm.top", 1)
    if given.get("seeds") is None:
        faults.add("confirm", "needs `seeds`: fresh ones, such as {first: 1000, count: 100}")
        return None
    seeds = _read_seeds(given["seeds"], "confirm.seeds", faults)
    return Confirm(seeds, top or Confirm.top) if seeds else None


def _check_confirmation_seeds(confirm: Confirm, seeds: Sequence[int], faults: Faults) -> None:
    common = sorted(set(seeds) & set(confirm.seeds))
    if common:
        listed = ", ".join(map(str, common[:5])) + (f" and {len(common) - 5} more" if len(common) > 5 else "")
        faults.add(
            "confirm.seeds",
            f"has seeds of the search ({listed}), which would confirm a choice by the results that led to it: begin with "
            f"{max(seeds) + 1} or later",
        )


def _undecided(race: Race, objective: Objective, seeds: int, faults: Faults) -> Iterator[str]:
    """Yield a warning where levels of a race can stop nothing."""
    from sweeps.results import metrics
    from sweeps.search import cannot_decide  # here, because it loads optuna

    seed_value = metrics.seed_value(objective, 1)
    idle = [level for level in cannot_decide(race, seed_value) if level < seeds] if seed_value is not None else []
    if idle:
        why = "a median needs more seeds" if seed_value is not None and seed_value.by_rank else "it needs a lower confidence"
        message = (
            f"the race stops nothing after {', '.join(map(str, idle))} seeds, whatever the results are, at confidence "
            f"{race.confidence:g} by {objective.name}: {why}"
        )
        yield str(faults.locate("early_stopping.seeds.race", message))
    if all(level >= seeds for level in race.levels):
        yield str(faults.locate("early_stopping.seeds.race", f"stops nothing: no level is below the {seeds} seeds of the file"))


def _check_early_stopping(
    given: Any, stopping: EarlyStopping, search: Search | None, seeds: Sequence[int], figures: Iterable[str],
    cells: Sequence[Cell], faults: Faults,
) -> list[str]:  # fmt: skip
    """Check early stopping with the rest of the file. Return warnings."""
    from sweeps.results import metrics

    if given is not None and search is None:
        faults.add("early_stopping", "has nothing to stop, since the file searches nothing: add `search`, or take it out")
    race, halving, sound_objective = stopping.race, stopping.halving, True
    warnings: dict[str, None] = {}
    if race is not None:
        path = "early_stopping.seeds.race"
        if race.levels[-1] > len(seeds):
            sound = [level for level in race.levels if level < len(seeds)] + [len(seeds)]
            faults.add(
                path,
                f"{race.levels[-1]} seeds are more than the {len(seeds)} of the file: write {sound}, or raise `seeds`",
            )
        with contextlib.suppress(UserError):  # an unknown objective is a fault of the search
            sound_objective = search is None or metrics.seed_value(search.objective, 1) is not None
        if not sound_objective and search is not None:
            faults.add(
                path,
                f"cannot compare configurations by {search.objective.name}, which is not a mean or a median over all their "
                "seeds: search.objective can be par2, success_rate, or a median such as error.extrapolation.median",
            )
        elif search is not None and not faults:
            warnings |= dict.fromkeys(_undecided(race, search.objective, len(seeds), faults))
    if halving is None:
        return list(warnings)
    _check_objective(given["steps"].get("metric"), halving.metric, figures, faults, "early_stopping.steps.metric")
    path = "early_stopping.steps.halving"
    for cell in cells:
        resolved = resolve(cell.with_parameters({}))[0] if cell.space else None
        if resolved is None:
            continue
        searched = cell.space.get("train.steps")
        budgets = [resolved["train"]["steps"], *(searched.corners() if searched else ())]
        beyond = [rung for rung in halving.rungs if rung >= min(budgets)]
        if beyond:
            faults.add(
                path,
                f"{', '.join(map(str, beyond))} must be below train.steps, {min(budgets)}"
                f"{f' in cell {cell.key}' if len(cells) > 1 else ''}: a rung is a part of the budget",
            )
            break
        for where, start, weight in penalty_starts(resolved["model"], "model"):
            active = weight or any(name.endswith(".weight") for name in cell.space)
            early = [rung for rung in halving.rungs if rung <= start]
            if active and early:
                warnings.setdefault(
                    str(faults.locate(
                        path,
                        f"{', '.join(map(str, early))} is not after step {start:g}, where the penalty {where} starts: models "
                        "that it makes exact look bad until then, and may be stopped. Put the rung later",
                    ))
                )  # fmt: skip
    return list(warnings)


def _without_threshold(search: Search | None, cells: Sequence[Cell], faults: Faults) -> Iterator[str]:
    """Yield a warning where a task has no threshold, and so no seed is solved."""
    from sweeps.results import metrics

    tasks: dict[tuple[str, bool], list[str]] = {}
    for cell in cells:
        resolved = resolve(cell.with_parameters({}))[0]
        if resolved is not None and not task_of(resolved).has_threshold():
            settable = "thresholds" in resolved["task"]
            tasks.setdefault((resolved["task"]["name"], settable), []).append(cell.key)
    objectives = search.objectives if search is not None else ()
    empty = [one.name for one in objectives if metrics.find(one.name, one.direction).needs_solved_seeds]
    effect = (
        f"{' and '.join(empty)} cannot rank configurations: the median error does"
        if empty
        else "reports have errors and scores only"
    )
    remedies = ["search.objective: error.extrapolation.median"] if empty else []
    for (name, settable), keys in tasks.items():
        where = f" in {len(keys)} cells" if 1 < len(keys) else f" in cell {keys[0]}" if len(cells) > 1 else ""
        reference = ["task.thresholds, which `sweeps thresholds` computes from a reference sweep"] if settable else []
        remedy = f". Set {', or '.join(remedies + reference)}" if remedies + reference else ""
        message = f"task {name} has no threshold{where}, so no seed is judged as solved, and {effect}{remedy}"
        yield str(faults.locate("search.objective" if empty else "task", message))


def _evaluated_at_the_ends(cells: Sequence[Cell], faults: Faults) -> Iterator[str]:
    """Yield a warning where lanes are evaluated at step 0 and the last step only."""
    for cell in cells:
        resolved = resolve(cell.with_parameters({}))[0]
        if resolved is not None and resolved["train"]["evaluate_every"] > resolved["train"]["steps"]:
            message = (
                f"{resolved['train']['evaluate_every']} is more than train.steps, {resolved['train']['steps']}: a seed is "
                "evaluated at its first and last step only, so `converged at` is the last step or none"
            )
            yield str(faults.locate("train.evaluate_every", message))
            return


# ------------------------------------------------------------------------------------------- search


def _read_search(value: Any, faults: Faults) -> Search | None:
    """Read the `search` section, without the names of samplers and objectives, which the registries check.

    `configurations` is 0 where the section leaves it out.
    """
    given = faults.take_mapping(value, "search", known=SEARCH_KEYS)
    if given is None:
        return None
    sampler = given.get("sampler", Search.sampler)
    sampler = {"name": sampler} if isinstance(sampler, str) else sampler
    options = faults.take_mapping(sampler, "search.sampler") or {}
    seed = faults.take_integer(options.get("seed", 0), "search.sampler.seed", 0, MAX_SEED)
    space = read_space(given["space"], "search.space", faults) if "space" in given else {}
    if "space" not in given:
        example = "train.lr: {log_uniform: [1e-4, 1e-1]}"
        faults.add("search", f"needs a `space`: the settings to search, such as {example}")
    configurations = given.get("configurations")
    if configurations is not None:
        configurations = faults.take_integer(configurations, "search.configurations", 1)
    parallel = faults.take_integer(given.get("parallel", Search.parallel), "search.parallel", 1)
    objective, *further = _read_objectives(given.get("objective", Objective.name), faults)
    return Search(
        sampler=str(options.get("name", Search.sampler)),
        sampler_options={key: item for key, item in options.items() if key not in ("name", "seed")},
        seed=seed or 0,
        configurations=configurations or 0,
        parallel=parallel or Search.parallel,
        objective=objective,
        further_objectives=tuple(further),
        constraints=_read_constraints(given["constraints"], faults) if given.get("constraints") is not None else (),
        space=space,
    )


def _read_objectives(value: Any, faults: Faults) -> list[Objective]:
    """Read one objective, a list of them, or a mapping of names to directions; at least one is returned."""
    path = "search.objective"
    parts = [(path, value)]
    if isinstance(value, list):
        parts = [(join(path, i), item) for i, item in enumerate(value)]
    elif isinstance(value, dict):
        parts = [(path, {name: direction}) for name, direction in value.items()]
    if not parts:
        faults.add(path, "is empty: name at least one objective, such as par2")
        return [Objective()]
    found = [_read_objective(item, faults, where) for where, item in parts]
    for name in duplicates([objective.name for objective in found]):
        faults.add(path, f"the objective {name} is given twice")
    return found


def _read_constraints(value: Any, faults: Faults) -> tuple[Constraint, ...]:
    """Read `{sparsity_error: {at_most: 1e-3}, success_rate: {at_least: 0.5}}`."""
    from sweeps.results import metrics  # here, because it loads scipy

    path = "search.constraints"
    found = []
    for stated, bounds in (faults.take_mapping(value, path) or {}).items():
        given = faults.take_mapping(bounds, join(path, stated), known=BOUNDS) or {}
        if bounds == {}:
            faults.add(join(path, stated), "needs a limit: `at_most: 0.1`, `at_least: 0.1`, or both")
        for bound in (bound for bound in BOUNDS if bound in given):
            limit = faults.take_number(given[bound], join(path, stated, bound))
            if limit is not None:
                found.append(Constraint(metrics.canonical_name(stated), bound, limit))
    return tuple(sorted(found, key=lambda one: (one.name, one.bound)))


def _read_objective(value: Any, faults: Faults, path: str = "search.objective") -> Objective:
    """Read `par2` or `{success_rate: maximize}`."""
    from sweeps.results import metrics  # here, because it loads scipy

    name, direction = next(iter(value.items())) if isinstance(value, dict) and len(value) == 1 else (value, None)
    if not isinstance(name, str):
        example = "a name such as par2, or one name and direction such as {success_rate: maximize}"
        faults.add(path, f"must be {example}, not {shown(value)}")
        return Objective()
    stated, name = name, metrics.canonical_name(name)
    if direction is None and not isinstance(value, dict):
        return Objective(name, metrics.default_directions().get(name, "minimize"))
    if direction == "maximize" or direction == "minimize":
        return Objective(name, direction)
    faults.add(join(path, stated), unknown("direction", str(direction), ("minimize", "maximize")))
    return Objective(name)


def _check_objective(
    given: Any, objective: Objective, figures: Iterable[str], faults: Faults, path: str = "search.objective"
) -> None:
    """Add a fault for an objective that the tasks do not have, and for a score without a direction.

    Besides the objectives of every task these are the medians `<figure>.median`, such as `error.extrapolation.median`.
    """
    from sweeps.results import metrics

    always = metrics.default_directions()
    known = [*always, *(f"{figure}.median" for figure in sorted(figures))]
    name = objective.name
    if name not in known:
        faults.add(path, unknown("objective", name, known))
    elif not isinstance(given, dict) and name not in always and not name.startswith("error."):
        message = f"{name} is a score: write which is better, {{{name}: maximize}} or {{{name}: minimize}}"
        faults.add(path, message)


def _check_objectives(given: Any, objectives: Sequence[Objective], figures: Iterable[str], faults: Faults) -> None:
    """Check every objective of a search; see `_check_objective`."""
    figures = list(figures)
    for i, objective in enumerate(objectives):
        stated, path = (
            (given[i], join("search.objective", i)) if isinstance(given, list) and given else (given, "search.objective")
        )
        _check_objective(stated, objective, figures, faults, path)


def _check_constraints(given: Any, constraints: Sequence[Constraint], figures: Iterable[str], faults: Faults) -> None:
    """Add a fault for every constraint on a figure that configurations do not have."""
    from sweeps.results import metrics

    known = [metric.name for metric in metrics.configuration_metrics()]
    known += [f"{figure}.median" for figure in sorted(figures)]
    stated = {metrics.canonical_name(name): name for name in given or ()}
    for constraint in constraints:
        if constraint.name not in known:
            path = join("search.constraints", stated.get(constraint.name, constraint.name))
            faults.add(path, unknown("metric", constraint.name, known))


def _check_single_objective(search: Search, stopping: EarlyStopping, budget: Budget, faults: Faults) -> None:
    """Add a fault for what decides by one objective where that could stop the best configurations of a search."""
    if search.further_objectives and budget.target is not None:
        message = (
            "ends a search by its best configuration, and of several objectives there is not one: keep one, or take it out"
        )
        faults.add("budget.target", message)
    if search.further_objectives and stopping != EarlyStopping():
        names = " and ".join(objective.name for objective in search.objectives)
        message = f"decides by one objective, and the search has {len(search.objectives)}, {names}: keep one, or take it out"
        faults.add("early_stopping", message)
    if search.constraints and stopping.race is not None:
        message = (
            "could stop a configuration that meets search.constraints in favour of one that breaks them: keep one of the two"
        )
        faults.add("early_stopping.seeds", message)


def _check_sampler(given: Mapping[str, Any], search: Search, cells: Sequence[Cell], faults: Faults) -> None:
    """Check the sampler's name and options with every cell's space."""
    from sweeps.search import SAMPLERS, check_sampler, is_grid  # here, because it loads optuna

    if search.sampler not in SAMPLERS:
        named = isinstance(given.get("sampler"), dict) and "name" in given["sampler"]
        path = "search.sampler.name" if named else "search.sampler"
        faults.add(path, unknown("sampler", search.sampler, SAMPLERS))
        return
    if given.get("configurations") is None and not is_grid(search):
        message = "needs `configurations`: how many to try in every cell, the file's own values included"
        faults.add("search", message)
    for space in [cell.space for cell in cells] or [{}]:
        for fault in check_sampler(search.sampler, search.sampler_options, space, len(search.objectives)):
            faults.add(join("search.sampler", fault.path), fault.message)
    fixed = search.sampler_options.get("fixed") if SAMPLERS[search.sampler].fixes else None
    for path in fixed if isinstance(fixed, dict) else ():
        if path not in search.space:
            faults.add(join("search.sampler.fixed", path), unknown("dimension", path, search.space))


def _grids(search: Search, cells: Sequence[Cell]) -> dict[str, int]:
    """The number of configurations of every cell's grid, by the cell's key; empty for other samplers."""
    from sweeps.search import CellSearch, file_values, is_grid

    sizes: dict[str, int] = {}
    for cell in cells if is_grid(search) else ():
        if cell.space:
            resolved, _, _ = resolve(cell.with_parameters({}))
            assert resolved is not None  # otherwise the file has a fault
            size = CellSearch(cell.space, search, cell.key, file_values(cell.space, resolved)).size
            assert size is not None
            sizes[cell.key] = size
    return sizes


def _repetitions(search: Search, cells: Sequence[Cell], faults: Faults) -> list[str]:
    """A warning where more configurations are to be tried than there are different ones. A grid ends by itself."""
    from sweeps.search import count_different, file_values, is_grid

    keys: dict[int, list[str]] = {}
    for cell in cells if not is_grid(search) else ():
        resolved, _, _ = resolve(cell.with_parameters({})) if cell.space else (None, [], [])
        count = count_different(cell.space, file_values(cell.space, resolved)) if resolved else None
        if count is not None and count < search.configurations:
            keys.setdefault(count, []).append(cell.key)
    return [
        str(
            faults.locate(
                "search.configurations",
                f"the space has {count} different configurations{f' in {len(found)} cells' if len(cells) > 1 else ''}, and "
                f"{search.configurations} are asked for: repeated ones reuse their lanes and add nothing",
            )
        )
        for count, found in keys.items()
    ]


def _figures(base: Mapping[str, Any], axes: Sequence[Axis]) -> set[str]:
    """The figures that the file's tasks report of each lane: `error.<split>`, and `<score>.<split>` of their scores."""
    sections = [base.get("task"), *(entry.settings.get("task") for axis in axes for entry in axis.entries)]
    given = [as_section(section, "task").get("name") for section in sections if isinstance(section, (str, dict))]
    found: set[str] = set()
    for task in {name for name in given if isinstance(name, str)}:
        with contextlib.suppress(UserError):  # a task that does not exist is a fault of the cells
            found |= _reported(find("task", task))
    return found or {figure for task in names("task") for figure in _reported(find("task", task))}


def _reported(task: type[Any]) -> set[str]:
    return {f"{name}.{split}" for name in ("error", *task.score_names) for split in task.splits}


# ------------------------------------------------------------------------------------------- KEY=VALUE

# A short form becomes its mapping when a part of it is set: `task: static` and task.operation=mul.
_SHORT_FORMS = {"model": "name", "task": "name", "search.sampler": "name", "search.sampler.sampler": "name", "seeds": "count"}
_DOTTED_KEYS = ("compare", "search.space", "search.constraints", "search.sampler.fixed")
"""Mappings whose own keys are dotted paths."""


class _OverrideError(ValueError):
    """A KEY=VALUE argument that cannot be applied."""


def _apply_override(values: dict[str, Any], argument: str) -> str:
    """Set one KEY=VALUE in a file's values, in place, and return the dotted path that was set.

    A key that does not exist yet is added. Raises _OverrideError.
    """
    key, equals, text = argument.partition("=")
    key = key.strip()
    if not equals or not re.fullmatch(r"[^\s.]+(\.[^\s.]+)*", key):
        raise _OverrideError("write KEY=VALUE with a dotted key, such as train.steps=2000")
    if key.startswith(ANCHORS):
        raise _OverrideError(f"{key} holds what is inserted elsewhere already: set it there")
    try:
        value = read_value(text)
    except ValueError as error:
        raise _OverrideError(str(error)) from error
    return _set(values, "", key.split("."), value)


def _set(node: Any, path: str, rest: Sequence[str], value: Any) -> str:
    if isinstance(node, list):
        return _set_item(node, path, rest, value)
    if not isinstance(node, dict):
        raise _OverrideError(f"{path} is {shown(node)}, which has no {rest[0]!r}: set {path}=... as a whole")
    key = _longest_key(node, path, rest)
    left = rest[key.count(".") + 1 :]
    here = join(path, key)
    if not left:
        node[key] = value
        return here
    if node.get(key) is None:
        node[key] = {}
    elif here in _SHORT_FORMS and not isinstance(node[key], (dict, list)):
        node[key] = {_SHORT_FORMS[here]: node[key]}
    return _set(node[key], here, left, value)


def _set_item(items: list[Any], path: str, rest: Sequence[str], value: Any) -> str:
    if not rest[0].isdigit() or int(rest[0]) >= len(items):
        raise _OverrideError(f"{path} is a list of {len(items)}: set {path}=[...] as a whole, or {path}.0 for its first item")
    index = int(rest[0])
    here = join(path, index)
    if len(rest) == 1:
        items[index] = value
        return here
    if path in ("compare.model", "compare.task") and isinstance(items[index], str):
        items[index] = {"name": items[index]}
    return _set(items[index], here, rest[1:], value)


def _longest_key(node: dict[str, Any], path: str, rest: Sequence[str]) -> str:
    """The key of `node` that a path begins with: the longest existing one, dots included, or else a new one."""
    for length in range(len(rest), 0, -1):
        if ".".join(rest[:length]) in node:
            return ".".join(rest[:length])
    return ".".join(rest) if path in _DOTTED_KEYS else rest[0]


# ------------------------------------------------------------------------------------------- definitions


class NoSuchFile(UserError):
    """Neither a file nor a definition; the message names the nearest definition."""


def definitions() -> list[str]:
    """Names of the sweep files that ship with the package."""
    return sorted(path.stem for path in DEFINITIONS.glob("*.yaml"))


def find_definition(name: str) -> str:
    """Return the name of a definition. Raises NoSuchFile, with the nearest one."""
    if name in definitions():
        return name
    near = nearest(name, definitions())
    guess = f" Did you mean {near!r}?" if near else ""
    raise NoSuchFile(f"no definition named {name!r}.{guess} Definitions: {', '.join(definitions())}.")


def find_file(given: str) -> Path:
    """The path of a FILE: a path, or the name of a definition. Raises NoSuchFile."""
    path = Path(given)
    if path.is_file():
        return path
    if given in definitions():
        return DEFINITIONS / f"{given}.yaml"
    if path.is_dir():
        inside = sorted(str(file) for file in path.glob("*.y*ml"))[:10]
        raise NoSuchFile(
            f"{given!r} is a folder, and a sweep file is expected."
            + (f" It has {', '.join(inside)}." if inside else " It has no sweep file: `sweeps list definitions` lists others.")
        )
    folder = path.parent
    files = sorted(str(folder / file.name) for file in folder.glob("*.y*ml")) if folder.is_dir() else []
    near = nearest(given, [*files, *definitions(), *(Path(file).stem for file in files)])
    near = next((file for file in files if near == Path(file).stem and near not in definitions()), near)
    raise NoSuchFile(
        f"no sweep file {given!r}, and no definition of that name."
        + (f" Did you mean {near!r}?" if near else "")
        + f" Definitions: {', '.join(definitions())}. `sweeps init {path.stem}.yaml` writes a file to start from."
    )


def question_of(name: str) -> str:
    """The `question` of a definition."""
    for line in (DEFINITIONS / f"{name}.yaml").read_text(encoding="utf-8").splitlines():
        if line.startswith("question:"):
            return line.removeprefix("question:").strip()
    return ""
