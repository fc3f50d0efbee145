"""The sweep file: what to try, typed and checked. Every fault in it is found at once.

`load` reads a file, `parse` a text; both give a Sweep, or raise SpecError with all faults, their lines and
the nearest known names. The parts: `yaml_source` (values and lines), `overrides` (KEY=VALUE), `axes`
(compare), `space` (search), `sections` (the rest) and `cells` (everything resolved).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps import overrides as override
from sweeps.axes import SECTIONS, Axis, as_section, axis_setting, read_axes
from sweeps.catalog import find, names, nearest
from sweeps.cells import Cell, read_cells
from sweeps.faults import Faults, SpecError, SpecFault, shown, unknown
from sweeps.sections import (
    Budget,
    Resources,
    check_name,
    read_budget,
    read_resources,
    read_search,
    read_seeds,
    refuse_unbuilt,
)
from sweeps.space import Dimension, Search
from sweeps.yaml_source import Document, dump, read

__all__ = [
    "Budget", "Cell", "Dimension", "Resources", "Search", "SpecError", "SpecFault", "Sweep",
    "from_document", "load", "parse",
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
    """The sweep of a file, with KEY=VALUE overrides applied. Raises SpecError, also for a missing file."""
    source = Path(source)
    try:
        text = source.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(str(source), [SpecFault("", _unreadable(source, error))]) from error
    return parse(text, str(source), overrides)


def parse(text: str, source_name: str, overrides: Sequence[str] = ()) -> Sweep:
    """The sweep of a text. `source_name` (a path or a name) stands in messages; its stem is the default name.

    Raises SpecError with every fault.
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
    """The sweep of plain values, such as `Sweep.document`. Raises SpecError."""
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
            overridden[override.apply(document.values, argument)] = argument
        except override.OverrideFault as error:
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
    return {
        f"{name}.{split}" for name in ("error", *getattr(task, "score_names", ())) for split in task.splits
    }


def _check_search(search: Search, cells: Sequence[Cell], faults: Faults) -> Search:
    """Check sampler, options and each cell's space together; a grid without a count is tried in full."""
    from sweeps.search import CellSearch, check_sampler, file_values  # here, because it loads optuna
    from sweeps.settings import resolve

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
