"""The difference between a sweep that has begun and its file as it is now: nothing, an extension, or a refusal.

Comments, question, resources, budget and the order of keys never matter. More seeds, more configurations, more compare
entries, more confirmation and more steps extend a sweep, and only what is missing runs. Anything else is refused, because the
records of one sweep would then answer two different questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sweeps.config.compare import Cell
from sweeps.config.faults import SweepFileError, join, shown
from sweeps.config.settings import resolve
from sweeps.config.space import Dimension, Race, Search, same
from sweeps.config.sweep_file import Sweep, from_document


@dataclass(frozen=True)
class Change:
    """The difference between a begun sweep and its file as it is now."""

    kind: Literal["nothing", "extension", "refusal"]
    differences: tuple[str, ...] = ()
    """What is refused, or, of an extension, what is added."""

    @property
    def message(self) -> str:
        """For the user; empty where nothing changed."""
        if self.kind == "nothing":
            return ""
        listed = "\n".join(f"  {difference}" for difference in self.differences)
        if self.kind == "extension":
            return f"the file extends the sweep, and only what is missing runs:\n{listed}"
        return (
            f"the file was changed after the sweep began:\n{listed}\n"
            "Undo that, or run it as another sweep with --name NEW: lanes that are the same are found again."
        )


def difference(old: Mapping[str, Any], after: Sweep) -> Change:
    """Compare the `Sweep.document` with which a sweep began with the sweep as its file is now."""
    if old == after.document:
        return Change("nothing")
    try:
        before = from_document(old, "begun-definition")
    except SweepFileError as error:
        return Change("refusal", (f"the file with which the sweep began cannot be read any more: {error}",))
    refused: list[str] = []
    added: list[str] = []
    _compare_seeds(before, after, added, refused)
    _compare_cells(before, after, added, refused)
    _compare_search(before.search, after.search, added, refused)
    _compare_early_stopping(before, after, added, refused)
    if after.confirm is not None and before.confirm != after.confirm:
        added.append(f"confirm: the best {after.confirm.top} of every cell on {len(after.confirm.seeds)} fresh seeds")
    if refused:
        return Change("refusal", tuple(refused))
    return Change("extension", tuple(added)) if added else Change("nothing")


def _compare_seeds(before: Sweep, after: Sweep, added: list[str], refused: list[str]) -> None:
    lost = sorted(set(before.seeds) - set(after.seeds))
    more = set(after.seeds) - set(before.seeds)
    if lost:
        refused.append(f"seeds: {_listed(lost)} left out; seeds can only be added")
    elif before.early_stopping.race is not None and after.seeds[: len(before.seeds)] != before.seeds:
        refused.append("seeds: another order, and the first ones decide in a race; add new ones at the end")
    elif more:
        added.append(f"seeds: {len(before.seeds)} -> {len(after.seeds)}")


def _compare_search(before: Search | None, after: Search | None, added: list[str], refused: list[str]) -> None:
    if before is None or after is None:
        if before is not after:
            refused.append(f"search: {'taken out' if after is None else 'new; the sweep began without one'}")
        return
    fixed: dict[str, tuple[Any, Any]] = {
        "sampler": (before.sampler, after.sampler),
        "sampler_options": (before.sampler_options, after.sampler_options),
        "seed": (before.seed, after.seed),
        "parallel": (before.parallel, after.parallel),
        "objective": (_objective(before), _objective(after)),
        "direction": (before.objective.direction, after.objective.direction),
        "constraints": (_constraints(before), _constraints(after)),
    }
    if before.further_objectives or after.further_objectives:
        del fixed["direction"]
    for name, (old, new) in fixed.items():
        if not same(old, new):
            refused.append(f"search.{name}: {shown(old)} -> {shown(new)} would change what was already suggested")
    if after.configurations < before.configurations:
        refused.append(f"search.configurations: {before.configurations} -> {after.configurations}; it can only grow")
    elif after.configurations > before.configurations:
        added.append(f"search.configurations: {before.configurations} -> {after.configurations} in every cell")


def _compare_early_stopping(before: Sweep, after: Sweep, added: list[str], refused: list[str]) -> None:
    """Add differences of early stopping. Levels of seeds may be added at the end, since earlier decisions stay as they are."""
    old, new = before.early_stopping, after.early_stopping
    for name, was, now in (("seeds", old.race, new.race), ("steps", old.halving, new.halving)):
        path = f"early_stopping.{name}"
        if (was is None) != (now is None):
            refused.append(f"{path}: {'taken out' if now is None else 'new; the sweep began without it'}")
        elif isinstance(was, Race) and isinstance(now, Race):
            # The last level is all seeds, which a file need not write.
            levels = [level for level in was.levels if level < len(before.seeds)]
            more = [level for level in now.levels if level >= len(before.seeds) and level not in was.levels]
            if was.confidence != now.confidence or [n for n in now.levels if n < len(before.seeds)] != levels:
                most = f"levels can only be added, from {len(before.seeds)} seeds on"
                refused.append(f"{path}: {_race(was)} -> {_race(now)}; {most}")
            elif more:
                added.append(f"{path}: further levels of {_listed(more)} seeds")
        elif was != now:
            refused.append(f"{path}: changed; it would decide otherwise on what was stopped already")
    if old.halving is not None and new.halving is not None and _first(before) != _first(after):
        refused.append(
            f"seeds: the rungs compare the first {_first(before)} seeds, and would compare {_first(after)}; with a race they "
            "compare the seeds of its first level"
        )
    stopped = old.race is not None or old.halving is not None
    grown = [text for text in added if text.startswith("train.steps")]
    if stopped and grown:
        first = grown[0].removesuffix(", continued from checkpoints")
        refused.append(f"{first}; with early_stopping the budget cannot grow, since configurations were stopped by it")


def _objective(search: Search) -> Any:
    """The name of the one objective, or all with their directions; their order matters only for how the report lists them."""
    return sorted(map(str, search.objectives)) if search.further_objectives else search.objective.name


def _constraints(search: Search) -> list[str]:
    return [f"{one.name} {one.bound} {one.limit!r}" for one in search.constraints]


def _first(sweep: Sweep) -> int:
    """Return the number of seeds that train to the rungs."""
    levels = sweep.early_stopping.race.levels if sweep.early_stopping.race is not None else ()
    return min([len(sweep.seeds), *levels[:1]])


def _race(race: Race) -> str:
    return f"{list(race.levels)} at {race.confidence:g}"


def _compare_cells(before: Sweep, after: Sweep, added: list[str], refused: list[str]) -> None:
    old_cells = {cell.key: cell for cell in before.cells}
    new_cells = {cell.key: cell for cell in after.cells}
    lost = [key for key in old_cells if key not in new_cells]
    more = [key for key in new_cells if key not in old_cells]
    if lost:
        gone = f"compare: cell{'s' if len(lost) > 1 else ''} {_listed(lost)} left out"
        refused.append(gone + (f", {_listed(more)} new" if more else "") + "; entries can only be added to an axis")
    elif more:
        added.append(f"compare: {len(more)} more cell{'s' if len(more) > 1 else ''}: {_listed(more)}")
    kept = [(cell, new_cells[key]) for key, cell in old_cells.items() if key in new_cells]
    both_search = before.search is not None and after.search is not None  # otherwise `_compare_search` refuses
    cells_added: dict[str, list[str]] = {}
    cells_refused: dict[str, list[str]] = {}
    for old, new in kept:
        extending, refusing = _compare_cell(old, new, both_search)
        for cells, differences in ((cells_added, extending), (cells_refused, refusing)):
            for text in differences:
                cells.setdefault(text, []).append(old.key)
    for target, cells in ((added, cells_added), (refused, cells_refused)):
        target += [text + (f" (in {_listed(keys)})" if len(keys) < len(kept) else "") for text, keys in cells.items()]


def _compare_cell(old: Cell, new: Cell, both_search: bool) -> tuple[list[str], list[str]]:
    """The differences of a cell that both have: those that extend it, and those that are refused."""
    added: list[str] = []
    refused: list[str] = []
    was, now = (_explicit(cell) for cell in (old, new))
    steps_were, steps_are = was.pop("train.steps", 0), now.pop("train.steps", 0)
    shares = _shares(old.settings, "") + [f"search.space.{p}" for p, d in old.space.items() if _shares(list(d.choices), "")]
    if steps_are < steps_were:
        refused.append(f"train.steps: {steps_were:,} -> {steps_are:,}; there can only be more")
    elif steps_are > steps_were and shares:
        grown = f"train.steps: {steps_were:,} -> {steps_are:,}"
        moved = f"would move {_listed(shares)}, a share of the budget, so other lanes would be trained"
        return [], [f"{grown} {moved}; write it as steps to continue"]
    elif steps_are > steps_were:
        added.append(f"train.steps: {steps_were:,} -> {steps_are:,}, continued from checkpoints")
    for path in sorted(was.keys() | now.keys()):
        if path not in was or path not in now or not same(was[path], now[path]):
            refused.append(f"{path}: {_value(was, path)} -> {_value(now, path)}")
    for path in sorted(old.space.keys() | new.space.keys()) if both_search else ():
        one, other = old.space.get(path), new.space.get(path)
        if one is None or other is None or not _same_dimension(one, other):
            refused.append(f"search.space.{path}: {_described(one)} -> {_described(other)}")
    return added, refused


def _explicit(cell: Cell) -> dict[str, Any]:
    """Dotted path -> value of a cell's explicit settings, defaults included."""
    resolved, _, _ = resolve(cell.settings)
    assert resolved is not None  # the sweep was read, so its cells resolve
    return dict(leaves(resolved))


def leaves(node: Any, path: str = "") -> list[tuple[str, Any]]:
    """Return (dotted path, value) of every leaf of nested mappings. A list is a leaf unless it contains mappings."""
    if isinstance(node, Mapping):
        return [leaf for key, value in node.items() for leaf in leaves(value, join(path, key))]
    if isinstance(node, list | tuple) and any(isinstance(item, Mapping) for item in node):
        return [leaf for i, item in enumerate(node) for leaf in leaves(item, join(path, i))]
    return [(path, node)]


def _shares(node: Any, path: str) -> list[str]:
    """Paths of values such as `40%`."""
    return [p for p, value in leaves(node, path) for v in (value if isinstance(value, list) else [value])
            if isinstance(v, str) and v.strip().endswith("%")]  # fmt: skip


def _same_dimension(one: Dimension, other: Dimension) -> bool:
    parts = [(d.kind, d.low, d.high, d.choices, d.off, d.has_off, dict(d.when)) for d in (one, other)]
    return same(*parts)


def _described(dimension: Dimension | None) -> str:
    if dimension is None:
        return "not searched"
    values = list(dimension.choices) if dimension.kind == "choice" else [dimension.low, dimension.high]
    off = f" or {shown(dimension.off)}" if dimension.has_off else ""
    when = f" when {shown({on: list(v) for on, v in dimension.when.items()})}" if dimension.when else ""
    return f"{dimension.kind} {shown(values)}{off}{when}"


def _value(values: Mapping[str, Any], path: str) -> str:
    return shown(values[path]) if path in values else "absent"


def _listed(items: Sequence[Any], most: int = 5) -> str:
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(str(item) for item in items[:most]) + rest
