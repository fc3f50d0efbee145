"""The `compare` section: axes are crossed in the order written, and every point is a cell."""

from __future__ import annotations

import copy
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweeps.config.faults import Faults, is_number, shown, unknown, whole
from sweeps.config.registry import nearest
from sweeps.config.settings import Fault, merge, resolve, settable_paths
from sweeps.config.space import Dimension, active, narrowed, same
from sweeps.config.yaml import join, outwards

SECTIONS = ("model", "task", "train")
MAX_CELLS = 10_000
_AXIS_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Layer:
    """Some settings and where in the file they stand."""

    overrides: dict[str, Any]
    inside: str = ""
    """Dotted settings path of what stands at `path`: `model` for an entry of the axis `model`."""
    path: str = ""

    def note_places(self, origins: dict[str, str]) -> None:
        """Note where each stands. A leaf belongs to the last layer that sets it, a mapping to its first."""
        for setting, is_leaf in _paths(self.overrides):
            if not setting.startswith(
                self.inside
            ):  # above what stands here, such as `train` of the axis train.lr
                if "." in setting:
                    origins.setdefault(setting, self.path)
                continue
            place = join(self.path, setting.removeprefix(self.inside).lstrip("."))
            if is_leaf:
                origins[setting] = place
            else:
                origins.setdefault(setting, place)


@dataclass(frozen=True)
class Entry:
    """One point of an axis."""

    label: str
    layer: Layer


@dataclass(frozen=True)
class Axis:
    """One axis of `compare`."""

    name: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Point:
    """One crossing of all axes: a cell before its search."""

    labels: dict[str, str]
    settings: dict[str, Any]
    origins: dict[str, str]
    """Settings path -> file path of what set it."""

    def place(self, setting: str) -> str:
        """Where in the file a setting comes from, or the nearest thing around it that the file sets."""
        for part in outwards(setting):
            if part in self.origins:
                return join(self.origins[part], setting.removeprefix(part).lstrip("."))
        return setting


def cell_key(labels: Mapping[str, str]) -> str:
    """`model=nau range=U[1,2]`, axes by name, so that the order in which they are written cannot matter."""
    return " ".join(f"{axis}={labels[axis]}" for axis in sorted(labels)) or "all"


# ------------------------------------------------------------------------------------------- crossing


def axis_setting(axes: Sequence[Axis], path: str) -> str | None:
    """The axis whose every entry sets the leaf at `path`, if there is one: what the file has there is never used."""
    for axis in axes:
        if axis.entries and all((path, True) in set(_paths(entry.layer.overrides)) for entry in axis.entries):
            return axis.name
    return None


def cross(base: Mapping[str, Any], axes: Sequence[Axis], faults: Faults) -> list[Point]:
    """Every cell, the last axis running fastest. Faults: too many, or two axes that set the same thing."""
    count = math.prod(len(axis.entries) for axis in axes)
    if count > MAX_CELLS:
        faults.add("compare", f"crosses to {count:,} cells; {MAX_CELLS:,} is the most")
        return []
    _check_overlap(axes, faults)
    points = []
    for entries in itertools.product(*(axis.entries for axis in axes)):
        labels = {axis.name: entry.label for axis, entry in zip(axes, entries, strict=True)}
        points.append(_point(base, axes, entries, labels))
    keys = [cell_key(point.labels) for point in points]
    for key in sorted({key for key in keys if keys.count(key) > 1}) if len(set(keys)) < len(keys) else []:
        faults.add("compare", f"two cells would be called {key!r}: change a label")
    return points


def _point(
    base: Mapping[str, Any], axes: Sequence[Axis], entries: Sequence[Entry], labels: dict[str, str]
) -> Point:
    layers = [Layer({section: as_section(base[section], section) for section in SECTIONS if section in base})]
    # Which model and which task come first, whatever the order of the axes: the others are overrides of them.
    ranked = sorted(zip(axes, entries, strict=True), key=lambda pair: pair[0].name not in ("model", "task"))
    layers += [entry.layer for _, entry in ranked]
    settings: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        settings = merge(settings, copy.deepcopy(layer.overrides))
        layer.note_places(origins)
    return Point(labels, settings, origins)


def _check_overlap(axes: Sequence[Axis], faults: Faults) -> None:
    """A leaf that two axes set would be the later one's in every cell, and the other's label untrue."""
    owners: dict[str, str] = {}
    for axis in axes:
        if axis.name in ("model", "task"):
            continue
        for setting in sorted({s for entry in axis.entries for s in _leaf_paths(entry.layer.overrides)}):
            if owners.setdefault(setting, axis.name) != axis.name:
                faults.add(
                    join("compare", axis.name), f"sets {setting}, which axis {owners[setting]!r} sets too"
                )


def as_section(value: Any, section: str) -> Any:
    """A section as a mapping: `nau` is {name: nau}."""
    return {"name": value} if isinstance(value, str) and section != "train" else value


def _paths(node: Any, path: str = "") -> Iterator[tuple[str, bool]]:
    """Every dotted path into nested mappings, and whether it is a leaf."""
    if path:
        yield path, not isinstance(node, dict)
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _paths(value, join(path, key))


def _leaf_paths(node: Any, path: str = "") -> Iterator[str]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaf_paths(value, join(path, key))
    else:
        yield path


# ------------------------------------------------------------------------------------------- reading


def read_axes(value: Any, base: Mapping[str, Any], faults: Faults) -> list[Axis]:
    """The axes of a `compare` section, in the order written."""
    axes = []
    for name, entries in (faults.take_mapping(value, "compare") or {}).items():
        path = join("compare", name)
        if not _AXIS_NAME.fullmatch(name) or name == "train":
            faults.add(
                path,
                "an axis is `model`, `task`, a dotted setting such as train.lr, or a free word",
            )
            continue
        if name in ("model", "task") and name in base:
            faults.add(
                path,
                f"{name} stands at top level too: keep one. (A setting of it is compared as {name}.SETTING)",
            )
        if "." in name and name.partition(".")[0] not in SECTIONS:
            faults.add(path, unknown("section", name.partition(".")[0], SECTIONS))
            continue
        if not isinstance(entries, list) or not entries:
            faults.add(path, f"must be a list of at least one entry, not {shown(entries)}")
            continue
        read = [_read_entry(name, entry, join(path, i), faults) for i, entry in enumerate(entries)]
        axis = Axis(name, tuple(entry for entry in read if entry is not None))
        _check_labels(axis, path, faults)
        axes.append(axis)
    return axes


def _check_labels(axis: Axis, path: str, faults: Faults) -> None:
    seen: set[str] = set()
    for entry in axis.entries:
        if entry.label in seen:
            faults.add(
                entry.layer.path or path,
                f"the label {entry.label!r} is used twice on axis {axis.name}: add `label`",
            )
        seen.add(entry.label)


def _read_entry(axis: str, value: Any, path: str, faults: Faults) -> Entry | None:
    if "." in axis:
        overrides: Any = value
        for part in reversed(axis.split(".")):
            overrides = {part: overrides}
        return Entry(written(value), Layer(overrides, axis, path))
    if axis in ("model", "task"):
        return _read_definition(axis, value, path, faults)
    return _read_free(value, path, faults)


def _read_definition(axis: str, value: Any, path: str, faults: Faults) -> Entry | None:
    """An entry of the axis `model` or `task`: a name, or a mapping with `name`, settings, perhaps `label`."""
    if isinstance(value, str):
        return Entry(value, Layer({axis: {"name": value}}, axis, path))
    if not isinstance(value, dict):
        faults.add(
            path, f"must be a {axis}'s name, or a mapping with `name` and settings, not {shown(value)}"
        )
        return None
    settings = {key: item for key, item in value.items() if key != "label"}
    label = _label(value, path, faults) if "label" in value else _derived_label(settings)
    if label == "":
        faults.add(path, "needs a `name` or a `label`")
    return Entry(label or path, Layer({axis: settings}, axis, path))


def _read_free(value: Any, path: str, faults: Faults) -> Entry | None:
    """An entry of a free axis: a label and overrides that move together."""
    allowed = ("label", *SECTIONS)
    given = faults.take_mapping(value, path, known=allowed)
    if given is None:
        return None
    if "label" not in given:
        faults.add(
            path,
            "needs a `label`: nothing else says what the entries of this axis are called",
        )
    overrides = {}
    for section in SECTIONS:
        if section in given:
            section_value = as_section(given[section], section)
            if faults.take_mapping(section_value, join(path, section)) is not None:
                overrides[section] = section_value
    label = _label(given, path, faults) if "label" in given else None
    return Entry(label or path, Layer(overrides, "", path))


def _label(entry: Mapping[str, Any], path: str, faults: Faults) -> str | None:
    value = entry["label"]
    label = written(value)
    if (
        isinstance(value, (dict, list))
        or value is None
        or not label.strip()
        or "\n" in label
        or len(label) > 100
    ):
        faults.add(join(path, "label"), f"must be a short word or phrase on one line, not {shown(value)}")
        return None
    return label.strip()


def _derived_label(settings: Mapping[str, Any]) -> str:
    """`nmu clamp=false`: the name and whatever else is set, sorted, so that the order of keys is nothing."""
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
    parts = [f"{path}={written(_leaf(rest, path))}" for path in sorted(_leaf_paths(rest)) if path]
    return " ".join([name, *parts])


def _leaf(node: Any, path: str) -> Any:
    """The value at a dotted path of nested mappings whose own keys may have dots."""
    if not path:
        return node
    for part in outwards(path):
        if isinstance(node, dict) and part in node:
            return _leaf(node[part], path.removeprefix(part).lstrip("."))
    return None


def written(value: Any) -> str:
    """A value as a label: 0.001, true, [1, 2]."""
    if isinstance(value, str):
        return value
    if is_number(value):
        return str(whole(value)) if whole(value) is not None and abs(value) < 1e15 else repr(value)
    return json.dumps(value, separators=(", ", ": "))


@dataclass(frozen=True)
class Cell:
    """One point of the crossed axes, with its own search."""

    labels: dict[str, str]
    """Axis -> label, in the order written."""
    settings: dict[str, Any]
    """`model`, `task` and `train`, not yet resolved, with the cell's overrides merged."""
    space: dict[str, Dimension] = field(default_factory=dict)
    """Dotted path -> dimension, sorted by path; only those that this cell has."""

    @property
    def key(self) -> str:
        """`model=nau range=U[1,2]`, axes by name, or `all` without axes."""
        return cell_key(self.labels)

    def with_parameters(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of one configuration, not yet resolved.

        Parameters whose condition (`when`) on another parameter does not hold are left out.
        """
        return replaced(self.settings, active(self.space, parameters))


def replaced(settings: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of settings with the values at dotted paths replaced."""
    result: dict[str, Any] = copy.deepcopy(dict(settings))
    for path, value in parameters.items():
        *parents, leaf = path.split(".")
        node = result
        for part in parents:
            if not isinstance(node.get(part), dict):
                node[part] = {"name": node[part]} if isinstance(node.get(part), str) else {}
            node = node[part]
        node[leaf] = copy.deepcopy(value)
    return result


def values_at(settings: Mapping[str, Any], path: str) -> list[Any]:
    """The values of a setting in resolved settings: several where units share it, none if it is unknown."""
    section, _, rest = path.partition(".")
    node = settings.get(section)
    if not isinstance(node, Mapping):
        return []
    units = (
        [unit for unit in node.get("units", []) if isinstance(unit, Mapping)]
        if isinstance(node.get("units"), list)
        else []
    )
    found = list(_walk(node, rest))
    return found if found or rest == "name" else [value for unit in units for value in _walk(unit, rest)]


def _walk(node: Any, path: str) -> Iterator[Any]:
    for part in path.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return
        node = node[part]
    yield node


# ------------------------------------------------------------------------------------------- reading


def read_cells(
    base: Mapping[str, Any], axes: Sequence[Axis], space: Mapping[str, Dimension], faults: Faults
) -> tuple[list[Cell], list[str]]:
    """All cells, and warnings. Every cell is resolved, also with each bound, choice and off value put in."""
    points = cross(base, axes, faults)
    if not _complete(points, faults):
        return [], []
    _check_compared(axes, space, faults)
    told = _Told(faults, [cell_key(point.labels) for point in points])
    resolved = [_resolve_point(point, told) for point in points]
    cells = [
        Cell(point.labels, point.settings, _narrowed(space, point, settings))
        for point, settings in zip(points, resolved, strict=True)
    ]
    _check_conditions(space, points, resolved, faults, told)
    for cell, settings in zip(cells, resolved, strict=True):
        _try_space(cell, settings, space, told)
        if space and not cell.space:
            told.warn(
                "search.space", "has nothing to search here, so the cell is one configuration", cell.key
            )
    told.tell(cells)
    return cells, told.warnings()


def _complete(points: Sequence[Point], faults: Faults) -> bool:
    """Whether every cell has a model, a task and a budget."""
    wants = {
        "model": "which model learns, such as `model: nau`, or an axis `model` under compare",
        "task": "what is learnt, such as `task: {name: static, operation: add}`",
        "train": "how it is trained, at least `train: {steps: 10_000}`",
    }
    missing = [section for section in wants if any(not point.settings.get(section) for point in points)]
    for section in missing:
        faults.add("", f"`{section}` is missing: {wants[section]}")
    if "train" not in missing and any("steps" not in point.settings["train"] for point in points):
        faults.add("train", "`steps` is missing: the budget of every seed, such as `steps: 10_000`")
        return False
    return not missing and bool(points)


def _check_compared(axes: Sequence[Axis], space: Mapping[str, Dimension], faults: Faults) -> None:
    """A search over what an axis sets would make its labels untrue."""
    for axis in axes:
        for path in space:
            parts = path.split(".")
            if axis.name not in ("model", "task") and any(
                list(_walk(e.layer.overrides, path)) for e in axis.entries
            ):
                faults.add(join("search.space", path), f"is compared on axis {axis.name!r} too: keep one")
            if path == f"{axis.name}.name" and len(parts) == 2:
                faults.add(join("search.space", path), f"axis {axis.name!r} compares it already: keep one")


def _resolve_point(point: Point, told: _Told) -> dict[str, Any] | None:
    resolved, found, warnings = resolve(point.settings)
    for fault in _each(found):
        told.fault(point.place(fault.path), fault.message, cell_key(point.labels))
    for warning in warnings:
        told.warn(point.place(warning.path), warning.message, cell_key(point.labels))
    return resolved


def _narrowed(
    space: Mapping[str, Dimension], point: Point, resolved: dict[str, Any] | None
) -> dict[str, Dimension]:
    return narrowed(space, lambda path: values_at(resolved or point.settings, path))


def _check_conditions(
    space: Mapping[str, Dimension], points: Sequence[Point], resolved: Sequence[dict[str, Any] | None],
    faults: Faults, told: _Told,
) -> None:  # fmt: skip
    """A condition must be on something that some cell has; one that no cell meets is warned of."""
    if any(settings is None for settings in resolved):
        return  # what a cell has is not known
    known = [settings for settings in resolved if settings is not None]
    for name, dimension in space.items():
        for on, wanted in dimension.when.items():
            if on in space:
                continue
            place = join("search.space", name, "when", on)
            found = [value for settings in known for value in values_at(settings, on)]
            if not found:
                guess = nearest(on, sorted({path for settings in known for path in settable_paths(settings)}))
                faults.add(
                    place, f"no cell has a setting {on!r}." + (f" Did you mean {guess!r}?" if guess else "")
                )
            elif not any(same(value, other) for value in found for other in wanted):
                guess = nearest(str(wanted[0]), {str(value) for value in found})
                hint = f" Did you mean {guess!r}?" if guess else ""
                told.warn(place, f"holds in no cell, so {name} is not searched.{hint}", None)


def _try_space(cell: Cell, own: dict[str, Any] | None, space: Mapping[str, Dimension], told: _Told) -> None:
    """Resolve the cell with every corner of every dimension put in, one dimension at a time."""
    _, base_faults, base_warnings = resolve(cell.settings)
    before = [*_each(base_faults), *base_warnings]
    for path, dimension in cell.space.items():
        if own is None and space[path].when:
            continue  # whether the cell has this dimension cannot be known before its own faults are mended
        # Where the dimension depends on others, they have the first value that lets it be.
        enabling = {
            on: next((v for v in values if cell.space[on].may_be(v)), None)
            for on, values in dimension.when.items()
        }
        for value in dimension.corners():
            _, found, warnings = resolve(replaced(cell.settings, {**enabling, path: value}))
            place = join("search.space", path)
            for fault in _each(found):
                if fault not in before:
                    told.fault(place, _named(fault, path), cell.key, given=f"{path} = {shown(value)}")
            for warning in warnings:
                if warning not in before:
                    told.warn(place, f"with {path} = {shown(value)}: {_named(warning, path)}", cell.key)


def _each(faults: Sequence[Fault]) -> list[Fault]:
    """Faults of a whole section (`batch = 0 must be at least 1; lr = ...`), each at its own setting."""
    single = []
    for fault in faults:
        for message in fault.message.split("; "):
            own = re.match(r"(\w+) = ", message)
            single.append(
                Fault(join(fault.path, own[1]) if own and "." not in fault.path else fault.path, message)
            )
    return single


def _named(fault: Fault, path: str) -> str:
    return fault.message if fault.path == path else str(fault)


class _Told:
    """Faults and warnings of cells, each told once however many cells and bounds have it."""

    def __init__(self, faults: Faults, keys: Sequence[str]) -> None:
        self._faults = faults
        self._keys = list(keys)
        self._found: dict[tuple[str, str], tuple[list[str], str]] = {}
        self._lacking: dict[str, set[str]] = {}
        """Path -> cells that have no such setting."""
        self._warned: dict[tuple[str, str], list[str]] = {}

    def fault(self, path: str, message: str, key: str, given: str | None = None) -> None:
        lacking = "is not a setting" in message
        told = f"{message} (with {given})" if given and given not in message and not lacking else message
        # What each model would have known instead differs; one of the lists is enough.
        cells, _ = self._found.setdefault((path, message.partition(" Known:")[0]), ([], told))
        if key not in cells:
            cells.append(key)
        if lacking:
            self._lacking.setdefault(path, set()).add(key)

    def warn(self, path: str, message: str, key: str | None) -> None:
        cells = self._warned.setdefault((path, message), [])
        if key is not None and key not in cells:
            cells.append(key)

    def tell(self, cells: Sequence[Cell]) -> None:
        """Hand the faults over."""
        for (path, _), (keys, message) in self._found.items():
            self._faults.add(path, f"{message}{self._where(keys)}{self._hint(path, cells)}")

    def warnings(self) -> list[str]:
        """The warnings, as the file's lines have them."""
        placed = [
            self._faults.place(path, message + self._where(keys))
            for (path, message), keys in self._warned.items()
        ]
        return [str(warning) for warning in placed]

    def _where(self, keys: Sequence[str]) -> str:
        """` (in cells ...)`, where it is not all of them."""
        if not keys or len(keys) == len(self._keys):
            return ""
        listed = "; ".join(keys[:3]) + (f"; and {len(keys) - 3} more" if len(keys) > 3 else "")
        return f" (in cell{'s' if len(keys) > 1 else ''} {listed})"

    def _hint(self, path: str, cells: Sequence[Cell]) -> str:
        """How to search a setting only where there is one."""
        name = path.removeprefix("search.space.")
        lacking = self._lacking.get(path, set())
        searched = [cell for cell in cells if name in cell.space]
        models = [
            {str(c.settings["model"].get("name")) for c in searched if (c.key in lacking) == lacks}
            for lacks in (False, True)
        ]
        having = sorted(models[0] - models[1])
        if path == name or not having or not lacking:
            return ""
        return f" To search it where there is one, add when: {{model.name: [{', '.join(having)}]}}"
