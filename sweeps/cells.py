"""The cells of a sweep: every one resolved, and its search tried at every bound before anything runs."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweeps.axes import Axis, Point, cell_key, cross
from sweeps.catalog import nearest
from sweeps.configs import Fault
from sweeps.faults import Faults, shown
from sweeps.settings import resolve, settable_paths
from sweeps.space import Dimension, active, narrowed, same
from sweeps.yaml_source import join


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
