"""The `compare` section: axes are crossed in the order written, and every point is a cell."""

from __future__ import annotations

import copy
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeps.faults import Faults, is_number, shown, unknown, whole
from sweeps.settings import merge
from sweeps.yaml_source import join, outwards

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
