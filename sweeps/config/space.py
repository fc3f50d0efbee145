"""The search space, and the settings of a search, as plain data.

A dimension is one dotted path with its values: `{log_uniform: [1e-6, 0.2], or: 0, when: {model.name: nmu}}`. Bounds are
inclusive. `or` is one more value, off, besides the range; `when` limits the dimension to where the condition holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sweeps.config.faults import Faults, is_number, join, shown, unknown, whole
from sweeps.config.registry import did_you_mean

Kind = Literal["uniform", "log_uniform", "integer", "log_integer", "choice"]
KINDS: tuple[Kind, ...] = ("uniform", "log_uniform", "integer", "log_integer", "choice")
Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True)
class Dimension:
    """The values that one setting may take in a search."""

    kind: Kind
    low: float | None = None
    """Smallest value, itself allowed; None for a choice. An int for the integer kinds."""
    high: float | None = None
    choices: tuple[Any, ...] = ()
    off: Any = None
    """The value besides the range (`or`); without meaning unless `has_off`."""
    has_off: bool = False
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Dotted path -> values, one of which it must have. In a cell only paths of its other dimensions are left."""

    def corners(self) -> Iterator[Any]:
        """Yield every choice, or both bounds; then off."""
        yield from self.choices if self.kind == "choice" else (self.low, self.high)
        if self.has_off:
            yield self.off

    def at(self, share: float) -> int | float:
        """The value at `share` of the way from low to high, on the dimension's own scale; the bounds exactly at 0 and 1."""
        assert self.low is not None and self.high is not None
        if share in (0.0, 1.0):
            return self.high if share else self.low  # not exp(log(high))
        if self.kind.startswith("log"):
            value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + share * (self.high - self.low)
        value = min(max(value, self.low), self.high)
        return round(value) if "integer" in self.kind else value

    def share_of(self, value: Any) -> float | None:
        """How far on its way from low to high a value is, the inverse of `at`; None for a choice, off, and equal bounds."""
        if self.low is None or self.high is None or self.low == self.high or not is_number(value):
            return None
        if not self.low <= value <= self.high:
            return None
        if self.kind.startswith("log"):
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return float((value - self.low) / (self.high - self.low))

    def grid(self, points: int | None) -> list[Any]:
        """Its values in a grid: the choices; or off, and then `points` values from one end of the range to the other.

        None: every whole number of the range, or the one value of equal bounds. Raises ValueError for any other range.
        """
        if self.kind == "choice":
            return list(self.choices)
        off = [self.off] if self.has_off else []
        if points is not None:
            return off + sorted({self.at(i / (points - 1)) for i in range(points)})
        if self.low == self.high:
            return [*off, self.low]
        if "integer" not in self.kind:
            raise ValueError("has more values than can be enumerated")
        return [*off, *range(int(self.low or 0), int(self.high or 0) + 1)]

    def may_be(self, value: Any) -> bool:
        """Whether the dimension can have the value."""
        if any(same(value, corner) for corner in self.corners()):
            return True
        if self.kind == "choice" or not is_number(value):
            return False
        assert self.low is not None and self.high is not None
        return self.low <= value <= self.high and ("integer" not in self.kind or whole(value) is not None)


@dataclass(frozen=True)
class Objective:
    """The figure of a configuration that a search optimises."""

    name: str = "par2"
    direction: Direction = "minimize"

    def __str__(self) -> str:
        return f"{self.direction} {self.name}"


Bound = Literal["at_most", "at_least"]
BOUNDS: tuple[Bound, ...] = ("at_most", "at_least")


@dataclass(frozen=True)
class Constraint:
    """A limit of a figure of a configuration. Configurations that break one rank after all that meet them all."""

    name: str
    """Of a configuration metric."""
    bound: Bound
    limit: float

    def excess(self, value: float | None) -> float:
        """Return by how much a value is beyond the limit, in its own unit: above 0 where it breaks the constraint.

        Infinite for a value that no seed defines (None or NaN).
        """
        if value is None or math.isnan(value):
            return math.inf
        return value - self.limit if self.bound == "at_most" else self.limit - value

    def __str__(self) -> str:
        return f"{self.name} {self.bound.replace('_', ' ')} {self.limit:g}"


@dataclass(frozen=True)
class Race:
    """Early stopping over seeds: a configuration gets more seeds as long as it can still be the best of its cell."""

    levels: tuple[int, ...]
    """Numbers of seeds, rising; after each of them but the last, which is all seeds, some configurations are stopped."""
    confidence: float = 0.95
    """That the best configuration of a cell is not stopped, over all levels together; see `sweeps.search.stopping`."""


@dataclass(frozen=True)
class Halving:
    """Early stopping over steps: only a share of the configurations trains on after each rung."""

    rungs: tuple[int, ...]
    """Steps, rising, all below train.steps."""
    metric: Objective
    """What the configurations are compared by, over their seeds at the rung."""
    keep: float = 1 / 3
    """Share that trains on."""


@dataclass(frozen=True)
class EarlyStopping:
    """The `early_stopping` section of a sweep file."""

    race: Race | None = None
    halving: Halving | None = None


@dataclass(frozen=True)
class Confirm:
    """The `confirm` section of a sweep file: the best configurations of a cell are trained again on fresh seeds."""

    seeds: tuple[int, ...]
    """None of them is one of the search's."""
    top: int = 1
    """Configurations of a cell, the best ones."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """The `search` section of a sweep file: how every cell is searched."""

    sampler: str = "tpe"
    sampler_options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    """Of the sampler."""
    configurations: int
    """Of a cell, the file's own (number 0) included."""
    parallel: int = 8
    """Configurations in flight in a cell. Suggestion k depends on it, so it changes results."""
    objective: Objective = field(default_factory=Objective)
    """The first of several. What can use one only refuses a search with `further_objectives`."""
    further_objectives: tuple[Objective, ...] = ()
    """Besides the first, as written. Then the best configurations are those on the Pareto front."""
    constraints: tuple[Constraint, ...] = ()
    """Sorted, so that the order of keys cannot matter."""
    space: Mapping[str, Dimension] = field(default_factory=dict)
    """Dotted path -> dimension, sorted by path: all of the file. A cell has those whose conditions it meets."""

    def needs(self, number: int, in_groups: bool = False) -> range:
        """Configurations of a cell that must have ended before `number` can be suggested.

        `in_groups`: they race in groups of `parallel`, and a group needs all groups before it.
        """
        parallel = max(1, self.parallel)
        return range(number - number % parallel if in_groups else max(0, number - parallel + 1))

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """All objectives, as written; usually one."""
        return (self.objective, *self.further_objectives)


def same(a: Any, b: Any) -> bool:
    """Equal as values of a sweep file: 1 and 1.0 are, [1] and (1,) are, 1 and true are not."""
    return bool(identity(a) == identity(b))


def identity(value: Any) -> Hashable:
    """A value that can be hashed, equal for two that are the `same`."""
    if isinstance(value, (list, tuple)):
        return tuple(map(identity, value))
    if isinstance(value, dict):
        return frozenset((key, identity(item)) for key, item in value.items())
    return isinstance(value, bool), value


def duplicates(values: Iterable[Any]) -> list[Any]:
    """The values that are equal to an earlier one."""
    seen: set[Hashable] = set()
    found: list[Any] = []
    for value in values:
        key = identity(value)
        if key in seen:
            found.append(value)
        seen.add(key)
    return found


# ------------------------------------------------------------------------------------------- conditions


def restrict(space: Mapping[str, Dimension], settings_at: Callable[[str], list[Any]]) -> dict[str, Dimension]:
    """The dimensions that a cell has. Of their conditions only those on other dimensions of the cell are left.

    `settings_at(path)` returns the values of the cell's own settings at a path: several where units share it.
    """
    left = dict(space)
    changed = True
    while changed:
        changed = False
        for path, dimension in list(left.items()):
            undecided = {on: values for on, values in dimension.when.items() if on in left}
            decided = [(settings_at(on), values) for on, values in dimension.when.items() if on not in left]
            if not all(_overlap(found, values) for found, values in decided):
                del left[path]
                changed = True
            else:
                left[path] = replace(dimension, when=undecided)
    return left


def active(space: Mapping[str, Dimension], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters whose conditions on other parameters hold; a condition on an inactive one does not."""
    left = dict(parameters)
    while True:
        inactive = [
            path
            for path in left
            if path in space and not all(_overlap([left[on]] if on in left else [], v) for on, v in space[path].when.items())
        ]
        if not inactive:
            return left
        left = {path: value for path, value in left.items() if path not in inactive}


def by_dependence(space: Mapping[str, Dimension]) -> list[str]:
    """The paths, each after those that its `when` depends on, otherwise in the given order; without those in a circle."""
    ordered: dict[str, None] = {}
    while True:
        free = next(
            (p for p in space if p not in ordered and all(on in ordered or on not in space for on in space[p].when)), None
        )
        if free is None:
            return list(ordered)
        ordered[free] = None


def enabling(space: Mapping[str, Dimension], path: str) -> dict[str, Any]:
    """Values of the dimensions that the one at `path` depends on, directly or through others, with which it is there.

    Of each the first value that all conditions on it allow; without one where there is none.
    """
    needed: dict[str, list[Any]] = {}
    for dependent in (path, *_needed_by(space, path)):
        for on, wanted in space[dependent].when.items():
            if on in space:
                needed[on] = [v for v in needed.get(on, wanted) if space[on].may_be(v) and _overlap([v], wanted)]
    return {on: values[0] for on, values in needed.items() if values}


def _needed_by(space: Mapping[str, Dimension], path: str) -> list[str]:
    """The dimensions that the one at `path` depends on, directly or through others."""
    found: dict[str, None] = {}
    left = [path]
    while left:
        dimension = space.get(left.pop())
        reached = [on for on in dimension.when if on in space and on not in found] if dimension else []
        found |= dict.fromkeys(reached)
        left += reached
    return list(found)


def points(space: Mapping[str, Dimension], values: Mapping[str, Sequence[Any]], most: int) -> list[dict[str, Any]]:
    """Return the different points of a space in which every dimension has one of its `values`, the last changing fastest.

    A point has the dimensions whose conditions hold. Raises ValueError for more than `most`.
    """
    found: list[tuple[dict[str, Any], dict[str, int]]] = [({}, {})]
    for path in by_dependence(space):
        different: dict[Hashable, tuple[int, Any]] = {}
        for position, value in enumerate(values[path]):
            different.setdefault(identity(value), (position, value))
        grown: list[tuple[dict[str, Any], dict[str, int]]] = []
        for point, at in found:
            if all(on in point and _overlap([point[on]], wanted) for on, wanted in space[path].when.items()):
                grown += [({**point, path: value}, {**at, path: position}) for position, value in different.values()]
            else:
                grown.append((point, at))
            if len(grown) > most:
                raise ValueError(f"there are more than {most:,} points")
        found = grown
    # As if the dimensions that are not there had their first value.
    found.sort(key=lambda pair: [pair[1].get(path, 0) for path in space])
    return [{path: point[path] for path in space if path in point} for point, _ in found]


def _overlap(values: Iterable[Any], others: Sequence[Any]) -> bool:
    return any(same(value, other) for value in values for other in others)


# ------------------------------------------------------------------------------------------- reading


def read_space(value: Any, path: str, faults: Faults) -> dict[str, Dimension]:
    """Read the `search.space` section. The result is sorted by path, so the order of keys cannot matter."""
    given = faults.take_mapping(value, path)
    if given is None:
        return {}
    if not given:
        faults.add(path, "has nothing to search: name a setting, such as train.lr: {log_uniform: [1e-4, 1e-1]}")
    space: dict[str, Dimension] = {}
    for name in sorted(given):
        dimension = read_dimension(given[name], join(path, name), name, faults)
        if name.partition(".")[0] not in ("model", "task", "train") or "." not in name:
            hint = did_you_mean(name, (), "search.space") or " Such as train.lr"
            faults.add(join(path, name), f"must be a dotted path into model, task or train.{hint}")
        elif dimension is not None:
            space[name] = dimension
    _check_conditions(space, path, faults)
    return space


def read_dimension(value: Any, path: str, name: str, faults: Faults) -> Dimension | None:
    """Read one dimension: a mapping of one kind, or a plain list of choices. None where there is a fault."""
    if isinstance(value, list):
        value = {"choice": value}
    if not isinstance(value, dict):
        faults.add(
            path,
            f"must be a range such as {{log_uniform: [low, high]}}, or a list of choices, not {shown(value)}. "
            f"A fixed value belongs in the section {name.partition('.')[0]}",
        )
        return None
    kinds: list[Kind] = [kind for kind in KINDS if kind in value]
    for key in value:
        if key not in (*KINDS, "or", "when"):
            faults.add(join(path, key), unknown("key", key, [*KINDS, "or", "when"]))
    if len(kinds) != 1:
        faults.add(path, f"has {' and '.join(kinds)}: keep one" if kinds else f"needs one of {', '.join(KINDS)}")
        return None
    kind = kinds[0]
    when = _read_when(value["when"], join(path, "when"), name, faults) if "when" in value else {}
    if kind == "choice":
        if "or" in value:
            faults.add(join(path, "or"), "is for ranges: add the value to the choices")
        return _read_choices(value["choice"], join(path, "choice"), path, when, faults)
    bounds = _read_bounds(kind, value[kind], join(path, kind), faults)
    if bounds is None:
        return None
    low, high = bounds
    return Dimension(kind, low, high, off=value.get("or"), has_off="or" in value, when=when)


def _read_bounds(kind: Kind, value: Any, path: str, faults: Faults) -> tuple[float, float] | None:
    if not isinstance(value, list) or len(value) != 2 or not all(map(is_number, value)):
        faults.add(path, f"must be [low, high], two numbers, not {shown(value)}")
        return None
    low, high = value
    if "integer" in kind:
        if whole(low) is None or whole(high) is None:
            faults.add(path, f"bounds must be whole numbers, not {shown(value)}")
            return None
        low, high = int(low), int(high)
    else:
        low, high = float(low), float(high)
    if low > high:
        faults.add(path, f"the bounds are reversed: write [{high!r}, {low!r}]")
        return None
    if kind.startswith("log") and low <= 0:
        hint = " To try off as well, start above 0 and add `or: 0`" if low == 0 else ""
        faults.add(path, f"a logarithmic scale has no {value[0]!r}: both bounds must be above 0.{hint}")
        return None
    return low, high


def _read_choices(value: Any, path: str, parent: str, when: dict[str, tuple[Any, ...]], faults: Faults) -> Dimension | None:
    if not isinstance(value, list) or not value:
        faults.add(path, f"must be a list of at least one value, not {shown(value)}")
        return None
    repeated = duplicates(value)
    if repeated:
        faults.add(parent, f"the choice {shown(repeated[0])} is given twice")  # a plain list has no key `choice`
        return None
    return Dimension("choice", choices=tuple(value), when=when)


def _read_when(value: Any, path: str, name: str, faults: Faults) -> dict[str, tuple[Any, ...]]:
    conditions: dict[str, tuple[Any, ...]] = {}
    for on, wanted in (faults.take_mapping(value, path) or {}).items():
        if on == name:
            faults.add(join(path, on), "a dimension cannot depend on itself")
        elif wanted == []:
            faults.add(join(path, on), "is an empty list, so it never holds")
        else:
            conditions[on] = tuple(wanted) if isinstance(wanted, list) else (wanted,)
    return conditions


def _check_conditions(space: Mapping[str, Dimension], path: str, faults: Faults) -> None:
    """Add a fault for every condition that never holds: its dimension cannot have the values, or it is part of a circle."""
    for name, dimension in space.items():
        for on in dimension.when:
            if name in _needed_by(space, on):
                faults.add(
                    join(path, name, "when", on), f"never holds: {on} depends on {name} in turn. Take out one of the two"
                )
        possible = enabling(space, name)
        for on in _needed_by(space, name):
            direct = any(space[on].may_be(value) for value in dimension.when.get(on, ()))
            if on not in possible and (direct or on not in dimension.when):
                faults.add(join(path, name, "when"), f"never holds: its conditions need different values of {on}")
        for on, wanted in dimension.when.items():
            if on in space and not any(space[on].may_be(value) for value in wanted):
                faults.add(join(path, name, "when", on), f"never holds: {on} cannot be {shown(list(wanted))}")
