"""The search space, and the settings of a search, as plain data.

A dimension is one dotted path with its values: `{log_uniform: [1e-6, 0.2], or: 0, when: {model.name: nmu}}`. Bounds are
inclusive. `or` is one more value, off, besides the range; `when` limits the dimension to where the condition holds.
"""

from __future__ import annotations

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
    space: Mapping[str, Dimension] = field(default_factory=dict)
    """Dotted path -> dimension, sorted by path: all of the file. A cell has those whose conditions it meets."""

    def needs(self, number: int, in_groups: bool = False) -> range:
        """Configurations of a cell that must have ended before `number` can be suggested.

        `in_groups`: they race in groups of `parallel`, and a group needs all groups before it.
        """
        parallel = max(1, self.parallel)
        return range(number - number % parallel if in_groups else max(0, number - parallel + 1))


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
    """Add a fault for every condition that the dimension it names cannot meet."""
    for name, dimension in space.items():
        for on, wanted in dimension.when.items():
            if on in space and not any(space[on].may_be(value) for value in wanted):
                faults.add(join(path, name, "when", on), f"never holds: {on} cannot be {shown(list(wanted))}")
