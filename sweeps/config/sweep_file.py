"""The sweep file: what to try, typed and checked. Every fault in it is found at once.

`load` reads a file, `parse` a text; both give a Sweep, or raise SweepFileError with all faults, their lines and
the nearest known names. The parts: `yaml_source` (values and lines), `overrides` (KEY=VALUE), `axes`
(compare), `space` (search), `sections` (the rest) and `cells` (everything resolved).
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from sweeps.config.compare import SECTIONS, Axis, Cell, as_section, axis_setting, read_axes, read_cells
from sweeps.config.faults import Faults, SpecFault, SweepFileError, is_number, shown, unknown, whole
from sweeps.config.registry import find, names, nearest
from sweeps.config.space import Dimension, Search, read_space, repeated
from sweeps.config.yaml import Document, dump, join, read, read_value
from sweeps.errors import UserError

__all__ = [
    "Budget",
    "Cell",
    "Dimension",
    "Resources",
    "Search",
    "SpecFault",
    "Sweep",
    "SweepFileError",
    "from_document",
    "load",
    "parse",
]  # fmt: skip

KEYS = (
    "name", "question", "task", "model", "train", "compare", "seeds", "search", "early_stopping", "confirm",
    "resources", "budget", "exported",
)  # fmt: skip


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
    """The `exported` section of a best.yaml: what the configuration reached when it was exported."""
    document: dict[str, Any]
    """The file's plain values, overrides applied."""

    def configurations(self, cell: Cell) -> int:
        """How many configurations a cell has at most, number 0 included: one with nothing to search."""
        return self.search.configurations if self.search is not None and cell.space else 1


def load(source: Path, overrides: Sequence[str] = ()) -> Sweep:
    """The sweep of a file, with KEY=VALUE overrides applied. Raises SweepFileError, also for a missing file."""
    source = Path(source)
    try:
        text = source.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SweepFileError(str(source), [SpecFault("", _unreadable(source, error))]) from error
    return parse(text, str(source), overrides)


def parse(text: str, source_name: str, overrides: Sequence[str] = ()) -> Sweep:
    """The sweep of a text. `source_name` (a path or a name) stands in messages; its stem is the default name.

    Raises SweepFileError with every fault.
    """
    document = read(text)
    overridden, broken = _apply(document, overrides)
    faults = Faults(document, overridden)
    for line, message in document.faults:
        faults.add_line(line, message)
    for argument, message in broken:
        faults.add_line(None, f"{argument!r}: {message}")
    if not isinstance(document.values, dict):
        if not faults:
            given = "is empty" if document.values is None else f"has {shown(document.values)}"
            faults.add_line(
                None,
                f"a sweep file is a mapping (key: value), but this {given}. `sweeps init` writes one",
            )
        faults.raise_any(source_name)
    sweep = _read(document.values, Path(source_name).stem, faults)
    faults.raise_any(source_name)
    return dataclasses.replace(
        sweep, text=_with_overrides(document, source_name, overrides) if overrides else text
    )


def from_document(document: Mapping[str, Any], source_name: str = "sweep") -> Sweep:
    """The sweep of plain values, such as `Sweep.document`. Raises SweepFileError."""
    return parse(dump(dict(document)), source_name)


def _unreadable(source: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        beside = [path.name for path in source.parent.glob("*.y*ml")] if source.parent.is_dir() else []
        guess = nearest(source.name, beside)
        return "no such file." + (f" Did you mean {source.parent / guess}?" if guess else "")
    if isinstance(error, IsADirectoryError):
        return "is a folder, not a sweep file"
    if isinstance(error, UnicodeDecodeError):
        return "is not UTF-8 text"
    return f"cannot be read: {error}"


def _apply(document: Document, overrides: Sequence[str]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """(file path -> argument that set it, [(argument, fault)])."""
    overridden: dict[str, str] = {}
    broken: list[tuple[str, str]] = []
    for argument in overrides if isinstance(document.values, dict) else ():
        try:
            overridden[apply_override(document.values, argument)] = argument
        except OverrideFault as error:
            broken.append((argument, str(error)))
    return overridden, broken


def _with_overrides(document: Document, source_name: str, overrides: Sequence[str]) -> str:
    arguments = " ".join(" ".join(argument.split()) for argument in overrides)
    return f"# {Path(source_name).name} with {arguments}\n{dump(document.values)}"


def _read(values: dict[str, Any], stem: str, faults: Faults) -> Sweep:
    for key in values:
        if key not in KEYS:
            faults.add(key, unknown("key", key, KEYS))
    base = {section: values[section] for section in SECTIONS if values.get(section) is not None}
    base_is_sound = _check_base(base, faults)
    axes = read_axes(values["compare"], base, faults) if values.get("compare") is not None else []
    for path in faults.overridden:
        axis = axis_setting(axes, path)
        if axis is not None:
            faults.add(path, f"has no effect: axis {axis!r} sets it in every cell. Change compare.{axis}")
    search: Search | None = None
    space: dict[str, Dimension] = {}
    if values.get("search") is not None:
        search, space = read_search(values["search"], _figures(base, axes), faults)
    seeds = read_seeds(values["seeds"], faults) if "seeds" in values else (0,)
    resources = read_resources({} if values.get("resources") is None else values["resources"], faults)
    budget = read_budget({} if values.get("budget") is None else values["budget"], faults)
    refuse_unbuilt(values, faults)
    expected = (
        faults.take_mapping(values["exported"], "exported") if values.get("exported") is not None else None
    )
    question = values.get("question")
    if question is not None and not isinstance(question, str):
        faults.add("question", f"must be text, not {shown(question)}")
    name = check_name(values.get("name", stem), faults)
    cells, warnings = read_cells(base, axes, space, faults) if base_is_sound else ([], [])
    if search is not None:
        search = _check_search(search, cells, faults)
    return Sweep(
        name=name, question=str(question or "").strip(), seeds=seeds, cells=tuple(cells), search=search,
        resources=resources, budget=budget, warnings=tuple(warnings), text="", expected=expected,
        document=values,
    )  # fmt: skip


def _check_base(base: Mapping[str, Any], faults: Faults) -> bool:
    sound = True
    for section, value in base.items():
        if not isinstance(as_section(value, section), dict):
            what = "a mapping" if section == "train" else "a name, or a mapping with `name` and settings"
            faults.add(section, f"must be {what}, not {shown(value)}")
            sound = False
    return sound


def _figures(base: Mapping[str, Any], axes: Sequence[Axis]) -> set[str]:
    """What the tasks of the file report of each lane: `error.<split>`, and `<score>.<split>` of their scores."""
    sections = [
        base.get("task"),
        *(entry.layer.overrides.get("task") for axis in axes for entry in axis.entries),
    ]
    tasks = {
        as_section(section, "task").get("name") for section in sections if isinstance(section, (str, dict))
    }
    found: set[str] = set()
    for task in sorted(task for task in tasks if isinstance(task, str)):
        with contextlib.suppress(ValueError):  # told where the cells are resolved
            found |= _reported(find("task", task))
    return found or {figure for task in names("task") for figure in _reported(find("task", task))}


def _reported(task: type[Any]) -> set[str]:
    return {f"{name}.{split}" for name in ("error", *task.score_names) for split in task.splits}


def _check_search(search: Search, cells: Sequence[Cell], faults: Faults) -> Search:
    """Check sampler, options and each cell's space together; a grid without a count is tried in full."""
    from sweeps.config.settings import resolve
    from sweeps.search import CellSearch, check_sampler, file_values  # here, because it loads optuna

    for cell in cells:
        for message in check_sampler(search.sampler, search.sampler_options, cell.space):
            faults.add("search.sampler", message)
    if search.configurations or faults:
        return search
    search = dataclasses.replace(search, configurations=1)
    most = []
    for cell in (cell for cell in cells if cell.space):
        settings, _, _ = resolve(cell.with_parameters({}))  # faults of these are told elsewhere
        most.append(CellSearch(cell.space, search, cell.key, file_values(cell.space, settings or {})).most)
    return dataclasses.replace(search, configurations=max((number or 1 for number in most), default=1))


MAX_SEED = 2**32 - 1
"""The largest seed that NumPy's RandomState takes, which draws a seed's subset offset."""
MAX_SEEDS = 1_000_000
PARALLEL = 8
SWEEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""What a sweep may be called: safe as the name of a folder, an experiment, a job of Ray or Slurm, and in a shell."""
_NOT_BUILT = "is not built yet: take it out of the file"
_SAMPLER_KEYS = ("name", "seed")


@dataclass(frozen=True)
class Resources:
    """What ONE worker gets. Never changes results."""

    cpus: int = 1
    gpus: float = 0.0
    memory_gb: float | None = None
    slots: Literal["auto"] | int = "auto"
    """Lanes that a worker trains together; at least 3, since packs of 1 and 2 round differently."""
    checkpoint_s: float = 5.0
    """How often a worker sends checkpoints, and how much work is lost with it at most."""


@dataclass(frozen=True)
class Budget:
    """When to stop a sweep that is not done."""

    hours: float | None = None
    """Wall time of the driver, all its runs together."""


def read_seeds(value: Any, faults: Faults) -> tuple[int, ...]:
    """`{first: 0, count: 100}`, a count, or a list, as the seeds themselves."""
    if isinstance(value, list):
        seeds = [faults.take_integer(item, f"seeds.{i}", 0, MAX_SEED) for i, item in enumerate(value)]
        known = [seed for seed in seeds if seed is not None]
        if not value:
            faults.add("seeds", "is an empty list: give at least one seed, or a count")
        for again in repeated(known):
            faults.add("seeds", f"seed {again} is given twice")
        return tuple(known)
    if not isinstance(value, dict):
        if not is_number(value):
            faults.add("seeds", f"must be a count, a list, or {{first: 0, count: 100}}, not {shown(value)}")
            return ()
        return _seed_range(0, faults.take_integer(value, "seeds", 1, MAX_SEEDS))
    given = faults.take_mapping(value, "seeds", known=("first", "count")) or {}
    if "count" not in given:
        faults.add("seeds", "needs a `count`: how many seeds")
        return ()
    first = faults.take_integer(given.get("first", 0), "seeds.first", 0, MAX_SEED)
    count = faults.take_integer(given["count"], "seeds.count", 1, MAX_SEEDS)
    if first is not None and count is not None and first + count - 1 > MAX_SEED:
        faults.add("seeds", f"the last seed would be {first + count - 1}, above the largest, {MAX_SEED}")
    return _seed_range(first or 0, count)


def _seed_range(first: int, count: int | None) -> tuple[int, ...]:
    return tuple(range(first, first + count)) if count is not None else ()


RESOURCES_KEYS = ("cpus", "gpus", "memory_gb", "slots", "checkpoint_s")


def read_resources(value: Any, faults: Faults) -> Resources:
    """The `resources` section."""
    given = faults.take_mapping(value, "resources", known=RESOURCES_KEYS) or {}
    cpus = faults.take_integer(given.get("cpus", 1), "resources.cpus", 1)
    gpus = faults.take_number(given.get("gpus", 0), "resources.gpus", low=0)
    memory_gb = None
    if given.get("memory_gb") is not None:
        memory_gb = faults.take_number(given["memory_gb"], "resources.memory_gb", above=0)
    checkpoint_s = faults.take_number(given.get("checkpoint_s", 5.0), "resources.checkpoint_s", above=0)
    slots: Literal["auto"] | int = "auto"
    if given.get("slots", "auto") != "auto":
        number = whole(given["slots"])
        if number is None or number < 3:
            faults.add(
                "resources.slots",
                f"must be auto, or a whole number of at least 3, not {shown(given['slots'])}",
            )
        else:
            slots = number
    return Resources(cpus or 1, gpus or 0.0, memory_gb, slots, checkpoint_s or 5.0)


def read_budget(value: Any, faults: Faults) -> Budget:
    """The `budget` section."""
    given = faults.take_mapping(value, "budget", known=("hours", "cost_usd", "failures")) or {}
    for key in ("cost_usd", "failures"):
        if key in given:
            faults.add(f"budget.{key}", _NOT_BUILT)
    hours = given.get("hours")
    return Budget(None if hours is None else faults.take_number(hours, "budget.hours", above=0))


def refuse_unbuilt(document: Mapping[str, Any], faults: Faults) -> None:
    """Sections that nothing carries out yet; to skip them in silence would be another experiment."""
    for key in ("early_stopping", "confirm"):
        if document.get(key) is not None and faults.take_mapping(document[key], key) is not None:
            faults.add(key, _NOT_BUILT)


# ------------------------------------------------------------------------------------------- search

SEARCH_KEYS = ("sampler", "configurations", "parallel", "objective", "space", "order")


def read_search(value: Any, figures: set[str], faults: Faults) -> tuple[Search | None, dict[str, Dimension]]:
    """The `search` section and its whole space, before any cell has narrowed it.

    `figures` are what an objective `<figure>.median` may name, such as `error.extrapolation`. `configurations` is 0
    where a grid leaves it out, to be set from the size of the grid.
    """
    given = faults.take_mapping(value, "search", known=SEARCH_KEYS)
    if given is None:
        return None, {}
    if "order" in given:
        faults.add("search.order", _NOT_BUILT)
    sampler, seed, options = _read_sampler(given.get("sampler", "tpe"), faults)
    space: dict[str, Dimension] = {}
    if "space" in given:
        space = read_space(given["space"], "search.space", faults)
    else:
        faults.add(
            "search", "needs a `space`: the settings to search, such as train.lr: {log_uniform: [1e-4, 1e-1]}"
        )
    configurations = 0
    if given.get("configurations") is not None:
        configurations = faults.take_integer(given["configurations"], "search.configurations", 1) or 0
    elif sampler != "grid":
        faults.add(
            "search", "needs `configurations`: how many to try in every cell, the file's own values included"
        )
    parallel = faults.take_integer(given.get("parallel", PARALLEL), "search.parallel", 1)
    objective, direction = _read_objective(given.get("objective", "par2"), figures, faults)
    search = Search(
        sampler=sampler, sampler_options=options, seed=seed, configurations=configurations,
        parallel=parallel or PARALLEL, objective=objective, direction=direction,
    )  # fmt: skip
    return search, space


def _read_sampler(value: Any, faults: Faults) -> tuple[str, int, dict[str, Any]]:
    """(name, seed, options). Whether the options suit the sampler is checked later, with the space."""
    from sweeps.search import sampler_names  # here, because it loads optuna

    path = "search.sampler"
    given = {"name": value} if isinstance(value, str) else faults.take_mapping(value, path)
    if given is None:
        return "tpe", 0, {}
    name = given.get("name", "tpe")
    if name not in sampler_names():
        faults.add(
            "search.sampler.name" if "name" in given else path, unknown("sampler", str(name), sampler_names())
        )
        name = "tpe"
        given = {key: item for key, item in given.items() if key in _SAMPLER_KEYS}  # whose options are they?
    seed = faults.take_integer(given.get("seed", 0), "search.sampler.seed", 0, MAX_SEED)
    return name, seed or 0, {key: item for key, item in given.items() if key not in _SAMPLER_KEYS}


def _read_objective(
    value: Any, figures: set[str], faults: Faults
) -> tuple[str, Literal["minimize", "maximize"]]:
    from sweeps.results import metrics  # here, because it loads scipy

    path = "search.objective"
    always = metrics.default_directions()
    known = [*always, *(f"{figure}.median" for figure in sorted(figures))]
    if isinstance(value, dict) and len(value) == 1:
        name, direction = next(iter(value.items()))
    else:
        name, direction = value, None
    if not isinstance(name, str):
        faults.add(
            path,
            "must be a name such as par2, or one name and direction such as {success_rate: maximize}, "
            f"not {shown(value)}",
        )
        return "par2", "minimize"
    stated, name = name, metrics.canonical_name(name)
    if name not in known:
        faults.add(path, unknown("objective", name, known))
    elif not isinstance(value, dict) and name not in always and not name.startswith("error."):
        faults.add(
            path, f"{name} is a score: say which is better, {{{name}: maximize}} or {{{name}: minimize}}"
        )
    if direction is None and not isinstance(value, dict):
        direction = always.get(name, "minimize")
    if direction not in ("minimize", "maximize"):
        faults.add(f"{path}.{stated}", unknown("direction", str(direction), ("minimize", "maximize")))
        direction = "minimize"
    return name, cast(Literal["minimize", "maximize"], direction)


def check_name(value: Any, faults: Faults) -> str:
    """A sweep's name: it becomes the name of folders, experiments and jobs."""
    if not isinstance(value, str) or not SWEEP_NAME.fullmatch(value):
        faults.add(
            "name",
            "must be 1 to 100 letters, digits, dots, dashes or underscores, a letter or digit first, "
            f"not {shown(value)}",
        )
    return str(value)


# A short form stands for its mapping when a part of it is set: `task: static` goes with task.operation=mul.
_SHORT_FORMS = {"model": "name", "task": "name", "search.sampler": "name", "seeds": "count"}
_DOTTED_KEYS = ("compare", "search.space")
"""Mappings whose own keys are dotted paths."""


class OverrideFault(ValueError):
    """An argument that cannot be applied."""


def apply_override(values: dict[str, Any], argument: str) -> str:
    """Set one KEY=VALUE in a file's values, in place, and return the dotted path that was set.

    A key that is not there yet is made. Raises OverrideFault.
    """
    key, equals, text = argument.partition("=")
    key = key.strip()
    if not equals or not re.fullmatch(r"[^\s.]+(\.[^\s.]+)*", key):
        raise OverrideFault("write KEY=VALUE with a dotted key, such as train.steps=2000")
    try:
        value = read_value(text)
    except ValueError as error:
        raise OverrideFault(str(error)) from error
    return _set(values, "", key.split("."), value)


def _set(node: Any, path: str, rest: Sequence[str], value: Any) -> str:
    if isinstance(node, list):
        return _set_item(node, path, rest, value)
    if not isinstance(node, dict):
        raise OverrideFault(f"{path} is {shown(node)}, which has no {rest[0]!r}: set {path}=... as a whole")
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
        raise OverrideFault(
            f"{path} is a list of {len(items)}: set {path}=[...] as a whole, or {path}.0 for its first item"
        )
    index = int(rest[0])
    here = join(path, index)
    if len(rest) == 1:
        items[index] = value
        return here
    if path in ("compare.model", "compare.task") and isinstance(items[index], str):
        items[index] = {"name": items[index]}
    return _set(items[index], here, rest[1:], value)


def _longest_key(node: dict[str, Any], path: str, rest: Sequence[str]) -> str:
    """The key that the rest of a path means here: an existing one, dots and all, or else a new one."""
    for length in range(len(rest), 0, -1):
        if ".".join(rest[:length]) in node:
            return ".".join(rest[:length])
    return ".".join(rest) if path in _DOTTED_KEYS else rest[0]


SHELF = Path(__file__).parent.parent / "definitions"


class NoSuchFile(UserError):
    """Neither a file nor a definition; the message names the nearest definition."""


def definitions() -> list[str]:
    """Names of the sweep files that ship with us."""
    return sorted(path.stem for path in SHELF.glob("*.yaml"))


def find_file(given: str) -> Path:
    """The path of a FILE: a path, or the name of a definition. Raises NoSuchFile."""
    path = Path(given)
    if path.is_file():
        return path
    if given in definitions():
        return SHELF / f"{given}.yaml"
    near = nearest(given, definitions())
    raise NoSuchFile(
        f"no sweep file {given!r}, and no definition of that name."
        + (f" Did you mean {near!r}?" if near else "")
        + f" Definitions: {', '.join(definitions())}. `sweeps init {path.stem}.yaml` writes a file to start from."
    )


def question_of(name: str) -> str:
    """The question that a definition asks."""
    for line in (SHELF / f"{name}.yaml").read_text(encoding="utf-8").splitlines():
        if line.startswith("question:"):
            return line.removeprefix("question:").strip()
    return ""
