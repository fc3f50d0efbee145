"""Packs as plain data: what a worker is sent, what it sends back, and how large packs are."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from sweeps.config import registry
from sweeps.config.compare import Cell
from sweeps.config.settings import lane_key, resolve
from sweeps.config.space import Dimension
from sweeps.config.sweep_file import Sweep
from sweeps.results.summary import RankedConfiguration, Summary, objective_value, summarise
from sweeps.search import CellSearch, Finished, file_values
from sweeps.store import Store
from sweeps.store.records import Configuration
from sweeps.tracking import BackgroundTracker, Tracker
from sweeps.training.lane import Checkpoint, Lane, LaneResult
from sweeps.training.pack import LEAST_SLOTS
from sweeps.training.settings import float_leaves, structure

MOST_SLOTS = 100  # beyond about this many the stacked batch leaves a processor's cache


@dataclass(frozen=True)
class PackOrder:
    """What a worker is sent."""

    pack_id: str
    lanes: list[Lane]
    slots: int
    zeros: frozenset[str]
    device: str = "cpu"
    checkpoint_s: float = 5.0


@dataclass(frozen=True)
class PackResult:
    """What a worker sends now and then: lanes that have ended, checkpoints of the others, seed-steps since the last."""

    results: list[LaneResult] = field(default_factory=list)
    checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    seed_steps: int = 0
    why_uncompiled: str | None = None


def slots_for(sweep: Sweep, limits: Sequence[int], num_workers: int, most_slots: int = MOST_SLOTS) -> int:
    """Slots of every pack of a sweep: fixed, since each number of slots is a compilation. It never changes results.

    `auto`: what is in flight, spread over the workers, in whole configurations, between 3 and `most_slots`, which is less
    where a lane of a network fills a processor by itself.
    """
    if sweep.resources.slots != "auto":
        return sweep.resources.slots
    seeds = len(sweep.seeds)
    parallel = sweep.search.parallel if sweep.search else 1
    waves = [min(parallel, limit) * seeds for limit in limits]
    slots = min(most_slots, max(waves), math.ceil(sum(waves) / max(1, num_workers)))
    if slots > seeds:
        slots -= slots % seeds
    return max(min(LEAST_SLOTS, most_slots), slots)


def most_slots(bases: Sequence[Mapping[str, Any]]) -> int:
    """The most slots that `auto` gives the lanes of these settings: what the tightest of their networks says."""
    networks = {str(base["model"]["network"]) for base in bases}
    classes = [registry.find("network", name) for name in networks]
    return min(1 if c.lanes_apart else c.max_slots or MOST_SLOTS for c in classes)


def never_nonzero(
    bases: Sequence[Mapping[str, Any]], spaces: Sequence[Mapping[str, Dimension]]
) -> frozenset[str]:
    """Float settings that are 0 in every lane that a sweep can have: their terms leave the compiled step."""
    searched = {path.rsplit(".", 1)[-1] for space in spaces for path in space}
    leaves = [float_leaves(base) for base in bases]
    paths = {path for found in leaves for path in found}
    return frozenset(
        path
        for path in paths
        if all(found.get(path, 0.0) == 0.0 for found in leaves) and not searched & set(path.split("."))
    )


LaneId = tuple[str, int]
"""Lane key and budget."""

MAX_LOSSES = 3  # a lane whose worker died this often is recorded as an error: it may be what kills them


@dataclass
class Asked:
    """A configuration in work: its lanes that are still to come, and those that are here."""

    configuration: Configuration
    missing: set[str]
    records: dict[str, LaneResult] = field(default_factory=dict)
    summary: Summary | None = None

    @property
    def budget(self) -> int:
        return int(self.configuration.settings["train"]["steps"])

    @cached_property
    def structure(self) -> str:
        """What lanes that share a pack have in common. Kept: every free worker asks it of every lane that waits."""
        return structure(self.configuration.settings)


@dataclass
class CellWork:
    cell: Cell
    search: CellSearch | None
    limit: int
    asked: dict[int, Asked] = field(default_factory=dict)
    exhausted: bool = False

    @property
    def done(self) -> bool:
        return all(not a.missing for a in self.asked.values()) and (
            self.exhausted or len(self.asked) >= self.limit
        )


@dataclass
class Waiting:
    """A lane that is to be trained, in the order of cell, configuration and seed."""

    place: tuple[int, int, int]
    key: str
    asked: list[Asked]
    """Usually one; cells may have a lane in common, and a search may suggest the same values twice."""
    seed: int
    losses: int = 0
    """How often its worker was lost since it last got farther than ever before: a spot node's loss is not its fault."""
    steps: int = 0

    @property
    def settings(self) -> dict[str, Any]:
        return self.asked[0].configuration.settings

    @property
    def budget(self) -> int:
        return self.asked[0].budget

    @property
    def id(self) -> LaneId:
        return self.key, self.budget


class Driver:
    """One execution of a sweep. `num_workers` shapes packs only."""

    def __init__(
        self, sweep: Sweep, name: str, store: Store, tracker: BackgroundTracker | None, num_workers: int
    ) -> None:
        self.sweep, self.name, self.store, self.tracker = sweep, name, store, tracker
        self.stopping: str | None = None
        self.seed_steps, self.lanes_done, self.lanes_reused, self.solved = 0, 0, 0, 0
        self.why_uncompiled: str | None = None
        self._waiting: dict[LaneId, Waiting] = {}
        self._running: dict[str, dict[LaneId, Waiting]] = {}
        self._started = time.monotonic()
        self._spent_before_s = self._seconds_before()
        bases = [_resolved(cell, {}) for cell in sweep.cells]
        self.zeros = never_nonzero(bases, [cell.space for cell in sweep.cells])
        limits = [sweep.configurations(cell) for cell in sweep.cells]
        self._slots_for = partial(slots_for, sweep, limits, most_slots=most_slots(bases))
        self.slots = self._slots_for(num_workers=num_workers)
        self.cells = [self._cell_work(c, b, n) for c, b, n in zip(sweep.cells, bases, limits, strict=True)]
        self.lanes_planned = sum(limits) * len(sweep.seeds)

    def begin(self) -> None:
        """Takes up what the store knows of this sweep, then asks for what can be asked."""
        self.track(lambda t: t.begin())
        known: dict[str, list[Configuration]] = {}
        for configuration in self.store.configurations(self.name):
            known.setdefault(configuration.cell, []).append(configuration)
        for i, work in enumerate(self.cells):
            for configuration in known.get(work.cell.key, []):
                self._take_up(i, work, self._with_all_seeds(configuration))
        self._ask()

    def fit_to(self, num_workers: int) -> None:
        """The number of workers, once it is known; before the first pack."""
        self.slots = self._slots_for(num_workers=num_workers)

    @property
    def done(self) -> bool:
        return all(work.done for work in self.cells)

    @property
    def packs_running(self) -> set[str]:
        """Ids of packs that were handed out and have not ended."""
        return set(self._running)

    @property
    def only_errors(self) -> str | None:
        """The reason of one of them, where every lane of the sweep ended in an error."""
        records = [
            record for work in self.cells for a in work.asked.values() for record in a.records.values()
        ]
        bad = [record for record in records if record.outcome == "error"]
        return bad[0].reason if bad and len(bad) == len(records) else None

    def next_pack(self, pack_id: str) -> PackOrder | None:
        """Lanes of one structure for a free worker: the structure with most lanes waiting. None: nothing now."""
        if self.stopping or self.out_of_time():
            return None
        groups: dict[str, list[Waiting]] = {}
        for waiting in sorted(self._may_start(), key=lambda w: w.place):
            groups.setdefault(waiting.asked[0].structure, []).append(waiting)
        if not groups:
            return None
        chosen = max(groups.values(), key=len)[: self.slots]
        checkpoints: dict[str, Checkpoint] = {}
        for budget, some in itertools.groupby(chosen, key=lambda w: w.budget):
            found = self.store.checkpoints([w.key for w in some], budget)
            checkpoints |= found
        self._running[pack_id] = {w.id: self._waiting.pop(w.id) for w in chosen}
        lanes = [Lane(w.key, w.settings, w.seed, checkpoints.get(w.key)) for w in chosen]
        resources = self.sweep.resources
        device = "cuda" if resources.gpus else "cpu"
        return PackOrder(pack_id, lanes, self.slots, self.zeros, device, resources.checkpoint_s)

    def receive(self, pack_id: str, result: PackResult) -> None:
        """Finished lanes and checkpoints of a running pack: to disk first, then to everyone else.

        Raises HeldByAnother where another driver took the sweep over meanwhile, as after a long sleep of this machine.
        """
        self.store.beat(self.name)
        self.store.save_checkpoints(result.checkpoints)
        self.store.add_records(result.results)
        running = self._running.get(pack_id, {})
        for lane in running.values():
            checkpoint = result.checkpoints.get(lane.key)
            if checkpoint is not None and checkpoint.steps > lane.steps:
                lane.steps, lane.losses = checkpoint.steps, 0
        self.seed_steps += result.seed_steps
        if self.tracker is not None:
            self.tracker.begin()
        self.why_uncompiled = self.why_uncompiled or result.why_uncompiled
        arrived: dict[int, tuple[Asked, list[LaneResult]]] = {}
        for record in result.results:
            waiting = running.pop((record.key, record.budget), None)
            for asked in waiting.asked if waiting is not None else ():
                arrived.setdefault(id(asked), (asked, []))[1].append(record)
        for asked, records in arrived.values():
            self.track(_lanes(asked.configuration, records))
            self._add(asked, records)
        if arrived:
            self._ask()

    def pack_ended(self, pack_id: str, why: str | None = None) -> None:
        """A pack is over. Lanes that did not come back (their worker was lost) are given out again."""
        for waiting in self._running.pop(pack_id, {}).values():
            waiting.losses += 1
            if waiting.losses < MAX_LOSSES:
                self._waiting[waiting.id] = waiting
                continue
            reason = f"its worker was lost {MAX_LOSSES} times; the last time: {why or 'no reason given'}"
            record = LaneResult(key=waiting.key, seed=waiting.seed, budget=waiting.budget, steps=0, outcome="error",
                            solved=False, reason=reason)  # fmt: skip
            self.store.add_records([record])
            for asked in waiting.asked:
                self._add(asked, [record])
        self._ask()

    def out_of_time(self) -> bool:
        """Whether the file's budget of hours, all runs of this sweep together, is used up."""
        hours = self.sweep.budget.hours
        if hours is None or self._spent_before_s + time.monotonic() - self._started < hours * 3600:
            return False
        self.stopping = self.stopping or f"the budget of {hours:g} hours is used up"
        return True

    def _seconds_before(self) -> float:
        row = self.store.sweep(self.name)
        return row.seconds if row else 0.0

    def _cell_work(self, cell: Cell, base: dict[str, Any], limit: int) -> CellWork:
        search = None
        if self.sweep.search is not None and cell.space:
            search = CellSearch(cell.space, self.sweep.search, cell.key, file_values(cell.space, base))
            limit = limit if search.size is None else min(limit, search.size)
        return CellWork(cell, search, limit)

    def _ask(self) -> None:
        """Asks every cell for all configurations whose predecessors have ended."""
        for i, work in enumerate(self.cells):
            while len(work.asked) < work.limit and not work.exhausted and self._may_ask(work):
                number = len(work.asked)
                finished = {n: _finished(a, self.sweep) for n, a in work.asked.items()}
                suggestion = work.search.suggest(number, finished) if work.search else None
                if work.search is not None and suggestion is None:
                    work.exhausted = True
                    continue
                parameters = suggestion.parameters if suggestion else {}
                settings = _resolved(work.cell, parameters)
                keys = {seed: lane_key(settings, seed) for seed in self.sweep.seeds}
                configuration = Configuration(
                    cell=work.cell.key, labels=work.cell.labels, number=number, parameters=parameters, settings=settings,
                    keys=keys, origin=suggestion.origin if suggestion else "file",
                )  # fmt: skip
                self._take_up(i, work, self.store.ask(self.name, configuration))

    def _may_ask(self, work: CellWork) -> bool:
        needed: Iterable[int] = work.search.needs(len(work.asked)) if work.search else ()
        return all(not work.asked[n].missing for n in needed)

    def _with_all_seeds(self, configuration: Configuration) -> Configuration:
        """The file may ask for more seeds, or more steps, than when this configuration was asked."""
        cell = next(c for c in self.sweep.cells if c.key == configuration.cell)
        settings = _resolved(cell, configuration.parameters)
        keys = {seed: lane_key(settings, seed) for seed in self.sweep.seeds if seed not in configuration.keys}
        if keys:
            configuration = self.store.extend_seeds(self.name, configuration.cell, configuration.number, keys)
        if settings != configuration.settings:
            configuration = self.store.change_settings(
                self.name, configuration.cell, configuration.number, settings
            )
        return configuration

    def _take_up(self, cell_index: int, work: CellWork, configuration: Configuration) -> None:
        """Counts the lanes that the store has already; the others wait for a worker."""
        asked = Asked(configuration, set(configuration.keys.values()))
        work.asked[configuration.number] = asked
        found = self.store.records((key, asked.budget) for key in configuration.keys.values())
        present = [r for r in found.values() if r.outcome != "error"]
        for seed, key in configuration.keys.items():
            if not any(r.key == key for r in present):
                self._wait(Waiting((configuration.number, cell_index, seed), key, [asked], seed))
        if self._waiting:
            self.track(lambda t: t.start(configuration))
        self.lanes_reused += len(present)
        self.track(_lanes(configuration, present))
        self._add(asked, present)

    def _wait(self, lane: Waiting) -> None:
        """A lane that is waiting or running already is trained once, for all that asked for it."""
        same = [lanes[lane.id] for lanes in (self._waiting, *self._running.values()) if lane.id in lanes]
        if same:
            same[0].asked += lane.asked
        else:
            self._waiting[lane.id] = lane

    def _may_start(self) -> list[Waiting]:
        """Lanes that wait, but not one whose shorter budget is still to come: it goes on from that."""
        least: dict[str, int] = {}
        for lanes in (self._waiting, *self._running.values()):
            for key, budget in lanes:
                least[key] = min(budget, least.get(key, budget))
        running = {key for lanes in self._running.values() for key, _ in lanes}
        return [w for w in self._waiting.values() if w.key not in running and w.budget == least[w.key]]

    def _add(self, asked: Asked, records: Sequence[LaneResult]) -> None:
        for record in records:
            asked.missing.discard(record.key)
            asked.records[record.key] = record
        self.lanes_done += len(records)
        self.solved += sum(r.solved for r in records)
        if asked.missing or asked.summary is not None:
            return
        ordered = sorted(asked.records.values(), key=lambda r: r.seed)
        summary = asked.summary = summarise(ordered)
        c = asked.configuration
        state = "failed" if summary.errors == summary.seeds else "complete"
        value = _value(summary, self.sweep)[0] if state == "complete" else None
        self.store.finish(self.name, c.cell, c.number, state, value)
        completed = asked.configuration = dataclasses.replace(c, state=state, value=value)
        one = RankedConfiguration(configuration=completed, results=tuple(ordered))
        self.track(lambda t: t.complete(one))

    def track(self, write: Callable[[Tracker], object]) -> None:
        """What MLflow is to be told, if anything is; see `BackgroundTracker.write`."""
        if self.tracker is not None:
            self.tracker.write(write)


def _lanes(configuration: Configuration, records: Sequence[LaneResult]) -> Callable[[Tracker], None]:
    return lambda tracker: tracker.lanes(configuration, records)


def _resolved(cell: Cell, parameters: dict[str, Any]) -> dict[str, Any]:
    settings, faults, _ = resolve(cell.with_parameters(parameters))
    if (
        settings is None
    ):  # the file was checked at the corners of its space; between them something else failed
        raise ValueError(f"cell {cell.key} with {parameters}: " + "; ".join(map(str, faults)))
    return settings


def _value(summary: Summary, sweep: Sweep) -> tuple[float, float]:
    if sweep.search is None:
        return objective_value(summary)
    return objective_value(summary, sweep.search.objective.name, sweep.search.objective.direction)


def _finished(asked: Asked, sweep: Sweep) -> Finished:
    if asked.summary is None or asked.summary.errors == asked.summary.seeds:
        return Finished(asked.configuration.parameters, None)
    return Finished(asked.configuration.parameters, *_value(asked.summary, sweep))
