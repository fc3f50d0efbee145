"""The `compare` section: axes are crossed in the order written, and every combination is a cell."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sweeps.config.faults import Fault, Faults, is_number, join, outwards, shown, unknown, whole
from sweeps.config.registry import did_you_mean, nearest
from sweeps.config.settings import leaves, merge, resolve, settable_paths
from sweeps.config.space import Dimension, active, enabling, restrict, same

SECTIONS = ("model", "task", "train")
MAX_CELLS = 10_000
_AXIS_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Entry:
    """One entry of an axis."""

    label: str
    settings: dict[str, Any]
    """What it sets: nested `model`, `task` and `train`."""
    prefix: str = ""
    """Dotted path of the setting whose value is written at `path`: `model` for an entry of the axis `model`."""
    path: str = ""
    """Dotted path in the file, such as `compare.model.2`."""

    def add_origins(self, origins: dict[str, str]) -> None:
        """Add settings path -> file path of everything set here. A leaf belongs to its last entry, a mapping to its first."""
        for setting, is_leaf in _paths(self.settings):
            if not setting.startswith(self.prefix):  # above the prefix, such as `train` of the axis train.lr
                if "." in setting:
                    origins.setdefault(setting, self.path)
                continue
            written_at = join(self.path, setting.removeprefix(self.prefix).lstrip("."))
            if is_leaf:
                origins[setting] = written_at
            else:
                origins.setdefault(setting, written_at)


@dataclass(frozen=True)
class Axis:
    """One axis of `compare`."""

    name: str
    entries: tuple[Entry, ...]

    def always_sets(self, path: str) -> bool:
        """Whether every entry sets the leaf at `path`, so that the file's own value is never used."""
        return bool(self.entries) and all(path in dict(leaves(entry.settings)) for entry in self.entries)


@dataclass(frozen=True)
class Cell:
    """One combination of entries, one from each axis, with its own search."""

    labels: dict[str, str]
    """Axis -> label, in the order written."""
    settings: dict[str, Any]
    """`model`, `task` and `train`, not yet resolved, with the cell's overrides merged."""
    space: dict[str, Dimension] = field(default_factory=dict)
    """Dotted path -> dimension, sorted by path; only those that this cell has."""
    origins: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    """Settings path -> file path of what set it."""

    @property
    def key(self) -> str:
        """`model=nau range=U[1,2]`, axes by name, so that the order of axes cannot matter; `all` without axes."""
        return " ".join(f"{axis}={self.labels[axis]}" for axis in sorted(self.labels)) or "all"

    def location(self, setting: str) -> str:
        """The file path that a setting comes from, or that of the nearest enclosing setting in the file."""
        for part in outwards(setting):
            if part in self.origins:
                return join(self.origins[part], setting.removeprefix(part).lstrip("."))
        return setting

    def with_parameters(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of one configuration, not yet resolved.

        Parameters whose condition (`when`) on another parameter does not hold are left out.
        """
        return replace_paths(self.settings, active(self.space, parameters))


def replace_paths(settings: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of settings with the values at dotted paths replaced."""
    result: dict[str, Any] = copy.deepcopy(dict(settings))
    for path, value in values.items():
        *parents, leaf = path.split(".")
        node = result
        for part in parents:
            if not isinstance(node.get(part), dict):
                node[part] = {"name": node[part]} if isinstance(node.get(part), str) else {}
            node = node[part]
        node[leaf] = copy.deepcopy(value)
    return result


def values_at(settings: Mapping[str, Any], path: str) -> list[Any]:
    """The values of a setting in resolved settings: several where units share it, none if it does not exist."""
    section, _, rest = path.partition(".")
    node = settings.get(section)
    if not isinstance(node, Mapping):
        return []
    found = list(_value_at(node, rest))
    if found or rest == "name" or not isinstance(node.get("units"), list):
        return found
    return [value for unit in node["units"] if isinstance(unit, Mapping) for value in _value_at(unit, rest)]


def _value_at(node: Any, path: str) -> Iterator[Any]:
    """Yield the value at a dotted path, if there is one; it may be None."""
    for part in path.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return
        node = node[part]
    yield node


def as_section(value: Any, section: str) -> Any:
    """A section as a mapping: `nau` is {name: nau}."""
    return {"name": value} if isinstance(value, str) and section != "train" else value


def _paths(node: Any, path: str = "") -> Iterator[tuple[str, bool]]:
    """Yield every dotted path into nested mappings, and whether it is a leaf."""
    if path:
        yield path, not isinstance(node, dict)
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _paths(value, join(path, key))


# ------------------------------------------------------------------------------------------- axes


def read_axes(value: Any, base: Mapping[str, Any], faults: Faults) -> list[Axis]:
    """Read the axes of a `compare` section, in the order written."""
    axes = []
    for name, entries in (faults.take_mapping(value, "compare") or {}).items():
        path = join("compare", name)
        if not _AXIS_NAME.fullmatch(name) or name == "train":
            faults.add(path, "an axis is `model`, `task`, a dotted setting such as train.lr, or a free word")
            continue
        if name in ("model", "task") and name in base:
            faults.add(
                path,
                f"{name} is at top level too: keep one. (A setting of it is compared as {name}.SETTING; on the command line "
                f"compare.{name}=[...] replaces these entries)",
            )
        if "." in name and name.partition(".")[0] not in SECTIONS:
            faults.add(path, unknown("section", name.partition(".")[0], SECTIONS))
            continue
        if not isinstance(entries, list) or not entries:
            faults.add(path, f"must be a list of at least one entry, not {shown(entries)}")
            continue
        hint = did_you_mean(name, ("model", "task"), "compare") if "." not in name and name not in ("model", "task") else ""
        if hint and not any(isinstance(entry, dict) for entry in entries):
            message = f"is an axis of your own, whose entries are {{label: ..., train: ...}}, not {shown(entries[0])}"
            faults.add(path, f"{message}.{hint}")
            continue
        read = [_read_entry(name, entry, join(path, i), faults) for i, entry in enumerate(entries)]
        axis = Axis(name, tuple(entry for entry in read if entry is not None))
        _check_labels(axis, faults)
        axes.append(axis)
    return axes


def _check_labels(axis: Axis, faults: Faults) -> None:
    seen: set[str] = set()
    for entry in axis.entries:
        if entry.label in seen:
            faults.add(entry.path, f"the label {entry.label!r} is used twice on axis {axis.name}: add `label`")
        seen.add(entry.label)


def _read_entry(axis: str, value: Any, path: str, faults: Faults) -> Entry | None:
    if "." in axis:
        return Entry(_as_label(value), replace_paths({}, {axis: value}), axis, path)
    if axis in ("model", "task"):
        return _read_definition(axis, value, path, faults)
    return _read_free(value, path, faults)


def _read_definition(axis: str, value: Any, path: str, faults: Faults) -> Entry | None:
    """An entry of the axis `model` or `task`: a name, or a mapping with `name`, settings, perhaps `label`."""
    if isinstance(value, str):
        return Entry(value, {axis: {"name": value}}, axis, path)
    if not isinstance(value, dict):
        faults.add(path, f"must be a {axis}'s name, or a mapping with `name` and settings, not {shown(value)}")
        return None
    settings = {key: item for key, item in value.items() if key != "label"}
    label = _label(value, path, faults) if "label" in value else _derived_label(settings)
    if label == "":
        faults.add(path, "needs a `name` or a `label`")
    return Entry(label or path, {axis: settings}, axis, path)


def _read_free(value: Any, path: str, faults: Faults) -> Entry | None:
    """An entry of a free axis: a label, and settings that change together."""
    allowed = ("label", *SECTIONS)
    given = faults.take_mapping(value, path, known=allowed)
    if given is None:
        return None
    if "label" not in given:
        faults.add(path, "needs a `label`: nothing else names the entries of this axis")
    overrides = {}
    for section in SECTIONS:
        if section in given:
            section_value = as_section(given[section], section)
            if faults.take_mapping(section_value, join(path, section)) is not None:
                overrides[section] = section_value
    label = _label(given, path, faults) if "label" in given else None
    return Entry(label or path, overrides, "", path)


def _label(entry: Mapping[str, Any], path: str, faults: Faults) -> str | None:
    value = entry["label"]
    label = _as_label(value)
    if isinstance(value, (dict, list)) or value is None or not label.strip() or "\n" in label or len(label) > 100:
        faults.add(join(path, "label"), f"must be a short word or phrase on one line, not {shown(value)}")
        return None
    return label.strip()


def _derived_label(settings: Mapping[str, Any]) -> str:
    """`nmu clamp=false`: the name and everything else that is set, sorted, so that the order of keys cannot matter."""
    units = settings.get("units")
    name = settings.get("name")
    rest = {key: value for key, value in settings.items() if key != "name"}
    if name is None and isinstance(units, list):
        names = [unit.get("name") if isinstance(unit, dict) else unit for unit in units]
        name = "+".join(str(unit) for unit in names)
        if all(isinstance(unit, str) for unit in units):
            rest.pop("units")
    if not isinstance(name, str):
        return ""
    values = dict(leaves(rest))
    return " ".join([name, *(f"{path}={_as_label(values[path])}" for path in sorted(values))])


def _as_label(value: Any) -> str:
    """A value as a label: 0.001, true, [1, 2]."""
    if isinstance(value, str):
        return value
    if is_number(value):
        return str(whole(value)) if whole(value) is not None and abs(value) < 1e15 else repr(value)
    return json.dumps(value, separators=(", ", ": "))


# ------------------------------------------------------------------------------------------- cells


def cross(base: Mapping[str, Any], axes: Sequence[Axis], faults: Faults) -> list[Cell]:
    """Every combination of entries, the last axis changing fastest, without a search space yet.

    Faults: too many cells, two axes that set the same leaf, two cells of the same key.
    """
    count = math.prod(len(axis.entries) for axis in axes)
    if count > MAX_CELLS:
        faults.add("compare", f"crosses to {count:,} cells; {MAX_CELLS:,} is the most")
        return []
    _check_overlap(axes, faults)
    sections = {section: as_section(base[section], section) for section in SECTIONS if section in base}
    cells = []
    for entries in itertools.product(*(axis.entries for axis in axes)):
        labels = {axis.name: entry.label for axis, entry in zip(axes, entries, strict=True)}
        # The axes of models and tasks come first, whatever the order in the file: the others override their settings.
        ranked = sorted(zip(axes, entries, strict=True), key=lambda pair: pair[0].name not in ("model", "task"))
        settings: dict[str, Any] = {}
        origins: dict[str, str] = {}
        for entry in (Entry("", sections), *(entry for _, entry in ranked)):
            settings = merge(settings, copy.deepcopy(entry.settings))
            entry.add_origins(origins)
        cells.append(Cell(labels, settings, origins=origins))
    keys = Counter(cell.key for cell in cells)
    for key in sorted(key for key, times in keys.items() if times > 1):
        faults.add("compare", f"two cells would be called {key!r}: change a label")
    return cells


def _check_overlap(axes: Sequence[Axis], faults: Faults) -> None:
    """Add a fault for every leaf that two axes set: the later axis would win, and the other's labels be untrue."""
    owners: dict[str, str] = {}
    for axis in axes:
        if axis.name in ("model", "task"):
            continue
        for setting in sorted({path for entry in axis.entries for path, _ in leaves(entry.settings)}):
            owner = owners.setdefault(setting, axis.name)
            if owner != axis.name:
                faults.add(join("compare", axis.name), f"sets {setting}, which axis {owner!r} sets too")


def read_cells(
    base: Mapping[str, Any], axes: Sequence[Axis], given: Collection[str], space: Mapping[str, Dimension], faults: Faults
) -> tuple[list[Cell], list[str]]:
    """All cells, and warnings. Every cell is resolved, also with each bound, choice and off value in its settings.

    `given` names the sections that the file has, which may be missing in `base` and `axes` where they have a fault.
    """
    cells = cross(base, axes, faults)
    missing = _missing(cells, given, faults)
    _check_searched_axes(axes, space, faults)
    findings = _Findings(len(cells))
    resolutions = [resolve(cell.settings) for cell in cells]
    for cell, (_, found, warnings) in zip(cells, resolutions, strict=True):
        for fault in (fault for fault in found if fault.path not in missing):
            path = cell.location(fault.path)
            if fault.unknown_setting and path.rpartition(".")[2].isdigit():
                path = path.rpartition(".")[0]  # an axis of a setting that does not exist is one fault, not one for each value
            findings.add_fault(dataclasses.replace(fault, path=path), cell)
        for warning in warnings:
            findings.add_warning(cell.location(warning.path), warning.message, cell)
    cells = [
        dataclasses.replace(cell, space=restrict(space, partial(values_at, resolved or cell.settings)))
        for cell, (resolved, _, _) in zip(cells, resolutions, strict=True)
    ]
    _check_conditions(space, [resolved for resolved, _, _ in resolutions], faults, findings)
    for cell, (resolved, found, warnings) in zip(cells, resolutions, strict=True):
        # Without resolved settings it is not known whether the cell has a dimension with conditions.
        tried = [path for path in cell.space if resolved is not None or not space[path].when]
        _try_corners(cell, tried, [*found, *warnings], findings)
        if space and not cell.space:
            message = "has nothing to search here, so the cell is one configuration"
            findings.add_warning("search.space", message, cell)
    findings.report_faults(cells, faults)
    return cells, findings.warnings(faults)


def _missing(cells: Sequence[Cell], given: Collection[str], faults: Faults) -> set[str]:
    """Paths of what a cell lacks of a model, a task and a budget: a fault each, unless it is `given`, and has another."""
    required = {
        "model": "which model learns, such as `model: nau`, or an axis `model` under compare",
        "task": "what is learnt, such as `task: {name: static, operation: add}`",
        "train": "how it is trained, at least `train: {steps: 10_000}`",
    }

    def lacks(cell: Cell, section: str) -> bool:
        found = cell.settings.get(section)
        # A setting of it alone, from an axis such as model.hidden, is no model.
        return not found or (section != "train" and section not in given and not {"name", "units"} & set(found))

    missing = {section for section in required if any(lacks(cell, section) for cell in cells)}
    for section in (section for section in required if section in missing and section not in given):
        faults.add("", f"`{section}` is missing: {required[section]}")
    if "train" in missing:
        missing.add("train.steps")
    elif any("steps" not in cell.settings["train"] for cell in cells):
        faults.add("train", "`steps` is missing: the budget of every seed, such as `steps: 10_000`")
        missing.add("train.steps")
    return missing | {f"{section}.name" for section in missing}


def _check_searched_axes(axes: Sequence[Axis], space: Mapping[str, Dimension], faults: Faults) -> None:
    """Add a fault for every dimension that an axis sets: a search over it would make the axis's labels untrue."""
    for axis, path in itertools.product(axes, space):
        if axis.name not in ("model", "task") and any(list(_value_at(entry.settings, path)) for entry in axis.entries):
            faults.add(join("search.space", path), f"is compared on axis {axis.name!r} too: keep one")
        if path in ("model.name", "task.name") and path == f"{axis.name}.name":
            faults.add(join("search.space", path), f"axis {axis.name!r} compares it already: keep one")


def _check_conditions(
    space: Mapping[str, Dimension],
    resolved: Sequence[dict[str, Any] | None],
    faults: Faults,
    findings: _Findings,
) -> None:
    """Check conditions on settings: a fault for one that no cell has, a warning for a value that no cell has."""
    known = [settings for settings in resolved if settings is not None]
    if len(known) < len(resolved):
        return
    for name, dimension in space.items():
        for on, wanted in dimension.when.items():
            if on in space:
                continue
            path = join("search.space", name, "when", on)
            found = [value for settings in known for value in values_at(settings, on)]
            if not found:
                guess = nearest(on, sorted({p for settings in known for p in settable_paths(settings)}))
                hint = f" Did you mean {guess!r}?" if guess else ""
                faults.add(path, f"no cell has a setting {on!r}.{hint}")
            elif not any(same(value, other) for value in found for other in wanted):
                guess = nearest(str(wanted[0]), {str(value) for value in found})
                hint = f" Did you mean {guess!r}?" if guess else ""
                findings.add_warning(path, f"holds in no cell, so {name} is not searched.{hint}")


def _try_corners(cell: Cell, paths: Sequence[str], known: Sequence[Fault], findings: _Findings) -> None:
    """Resolve a cell with every corner of the dimensions at `paths`, one at a time; `known` are the cell's own faults."""
    for path in paths:
        conditions = enabling(cell.space, path)  # the dimensions that this one depends on are as it needs them
        for value in cell.space[path].corners():
            _, found, warnings = resolve(replace_paths(cell.settings, {**conditions, path: value}))
            given = f"{path} = {shown(value)}"
            for fault in (fault for fault in found if fault not in known):
                message = fault.message if fault.path == path else str(fault)
                searched = dataclasses.replace(fault, path=join("search.space", path), message=message)
                findings.add_fault(searched, cell, given)
            for warning in (warning for warning in warnings if warning not in known):
                message = warning.message if warning.path == path else str(warning)
                findings.add_warning(join("search.space", path), f"with {given}: {message}", cell)


class _Findings:
    """Faults and warnings of cells, each kept once, with the keys of all cells that have it."""

    def __init__(self, num_cells: int) -> None:
        self._num_cells = num_cells
        self._faults: dict[tuple[str, str], tuple[Fault, list[str]]] = {}
        self._warnings: dict[tuple[str, str], list[str]] = {}

    def add_fault(self, fault: Fault, cell: Cell, given: str | None = None) -> None:
        """Add a fault of a cell, its path being one of the file; `given` is the searched value that it comes with."""
        # The settings that exist instead differ between models; the list of one of them is enough.
        key = (fault.path, "" if fault.unknown_setting else fault.message)
        if given is not None and not fault.unknown_setting:
            fault = dataclasses.replace(fault, message=f"{fault.message} (with {given})")
        _, cells = self._faults.setdefault(key, (fault, []))
        if cell.key not in cells:
            cells.append(cell.key)

    def add_warning(self, path: str, message: str, cell: Cell | None = None) -> None:
        """Add a warning of a cell, or of all of them."""
        cells = self._warnings.setdefault((path, message), [])
        if cell is not None and cell.key not in cells:
            cells.append(cell.key)

    def report_faults(self, cells: Sequence[Cell], faults: Faults) -> None:
        """Add every fault to those of the file."""
        for fault, keys in self._faults.values():
            searched = fault.unknown_setting and fault.path.startswith("search.space.")
            hint = _hint(fault, keys, cells) if searched else ""
            faults.add(fault.path, f"{fault.message}{self._where(keys)}{hint}")

    def warnings(self, faults: Faults) -> list[str]:
        """The warnings, with their lines."""
        found = self._warnings.items()
        return [str(faults.locate(path, message + self._where(keys))) for (path, message), keys in found]

    def _where(self, keys: Sequence[str]) -> str:
        """` (in cells ...)`, unless it is all of them."""
        if not keys or len(keys) == self._num_cells:
            return ""
        listed = "; ".join(keys[:3]) + (f"; and {len(keys) - 3} more" if len(keys) > 3 else "")
        return f" (in cell{'s' if len(keys) > 1 else ''} {listed})"


def _hint(fault: Fault, lacking: Sequence[str], cells: Sequence[Cell]) -> str:
    """The condition to add to a dimension that only the models of some cells have; `lacking` are the keys of the others."""
    name = fault.path.removeprefix("search.space.")
    models: tuple[set[str], set[str]] = (set(), set())
    for cell in cells:
        if name in cell.space:
            models[cell.key in lacking].add(str(cell.settings["model"].get("name")))
    having = sorted(models[False] - models[True])
    return f" To search it where there is one, add when: {{model.name: [{', '.join(having)}]}}" if having else ""
