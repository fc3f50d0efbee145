"""The driver of a sweep: which configurations are tried, which lanes a free worker trains next, and what is recorded.

It does not depend on a cluster. `sweeps.runner.ray_tune` runs its packs on Ray; tests run them in their own process.
Everything that a worker reports is durable in the store before anything else happens with it, so a sweep can be cut off
at any point and continued.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sweeps.config import registry
from sweeps.config.compare import Cell
from sweeps.config.settings import float_leaves, lane_key, resolve, source_of, structure
from sweeps.config.space import Dimension, EarlyStopping, Objective
from sweeps.config.sweep_file import Resources, Sweep
from sweeps.errors import ClusterError, SweepFailed
from sweeps.results import metrics
from sweeps.results.summary import (
    RankedConfiguration,
    Summary,
    best_of_search,
    excesses,
    log_error,
    meets_target,
    objective_value,
    objective_values,
    summarise,
)
from sweeps.runner.budget import Spending
from sweeps.search import CellSearch, Finished, file_values
from sweeps.search.stopping import Stage, Worse, group, is_stopped_at_rung, race, stages
from sweeps.store import Store
from sweeps.store.records import Configuration, Stopped
from sweeps.tracking import BackgroundTracker, Tracker
from sweeps.training.lane import Checkpoint, Lane, LaneResult
from sweeps.training.numerics import Numerics

MAX_LANES = {"cpu": 100, "cuda": 4096}
"""Lanes of a pack at most, a thread and a GPU, where the sweep file leaves it open: what keeps a device busy for a while, and
what a lost worker costs. The driver may have no GPU: a worker returns what is too much for its own (`PackReport.returned`)."""
MAX_LOSSES = 3
"""A lane whose worker was lost this often without progress is recorded as an error: it may be the cause."""
MAX_FAILED_STARTS = 3
"""Packs that may raise before any worker has reported something: no worker can begin then."""


@dataclass(frozen=True)
class PackRequest:
    """What a worker is sent: lanes of one structure, which it trains together."""

    pack_id: str
    lanes: list[Lane]
    slots: int
    """Lanes that make their steps together, of a network that repeats a cell; all others have a place each."""
    zeros: frozenset[str]
    """Dotted paths of float settings that are 0 in every lane of the sweep."""
    numerics: Numerics
    """The sweep's: a worker that differs trains nothing."""
    source: str
    """Digest of the code that trains the lanes (`source_of`), which the worker's must be equal to."""
    installation: str
    """Folder of the driver's installation, from which workers import where they have it."""
    device: str = "cpu"
    gpus: float = 0.0
    """The worker's part of a GPU."""
    sized_by_worker: bool = False
    """The sweep file leaves the size of packs open: the worker trains as many lanes as fit its part of its GPU."""
    threads: int = 1
    """Threads that take lanes in turn, on a CPU."""
    checkpoint_s: float = 5.0
    """Seconds between two reports of a worker."""


@dataclass(frozen=True)
class PackReport:
    """What a worker sends every few seconds: lanes that have ended, and checkpoints of the others."""

    results: list[LaneResult] = field(default_factory=list)
    checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    """By lane key."""
    seed_steps: int = 0
    """Optimiser updates since the last report, all lanes together."""
    seconds: float = 0.0
    """What they took, with evaluations, without what precedes the pack's first steps."""
    preparing: bool = False
    """The worker compiles or loads the programs of this structure next: nothing else is in the report."""
    returned: list[tuple[str, int]] = field(default_factory=list)
    """Ids of lanes that this worker does not train, since they are more than fit its part of its GPU."""
    refusal: str | None = None
    """Why this worker may not train the lanes: a sentence with the remedy. The sweep stops."""
    note: str | None = None
    """A sentence about the worker's machine, which is printed at the end."""


LaneId = tuple[str, int]
"""(key, budget)."""


@dataclass
class ConfigurationProgress:
    """One configuration of the sweep, or its confirmation, with the results of its lanes so far."""

    configuration: Configuration
    keys: dict[int, str]
    """Seed -> lane key, in the order in which seeds are trained."""
    stages: tuple[Stage, ...]
    """What it trains one after another, as long as early stopping does not stop it."""
    stage: int = 0
    """Index of the present stage."""
    missing: set[LaneId] = field(default_factory=set)
    """Lanes of the present stage without a result."""
    results: dict[LaneId, LaneResult] = field(default_factory=dict)
    reused: set[LaneId] = field(default_factory=set)
    """Lanes whose results the store had."""
    counted: set[LaneId] = field(default_factory=set)
    """Lanes that are counted among those of the run."""
    summary: Summary | None = None
    """Of the last stage that it trained; None until it has ended."""
    confirms: bool = False
    """It is a confirmation."""

    @property
    def budget(self) -> int:
        """train.steps."""
        return int(self.configuration.settings["train"]["steps"])

    @property
    def ended(self) -> bool:
        """Whether it is complete, stopped early or failed."""
        return self.summary is not None

    @property
    def failed(self) -> bool:
        """Whether all its seeds ended in an error."""
        return self.summary is not None and self.summary.errors == self.summary.seeds

    @cached_property
    def structure(self) -> str:
        """What lanes of one pack must have in common. Cached, since it is compared for every queued lane at every pack."""
        return structure(self.configuration.settings)

    def lanes(self, stage: int) -> dict[LaneId, int]:
        """Return the lanes of a stage, with their seeds."""
        seeds, steps = self.stages[stage].seeds, self.stages[stage].steps
        return {(key, steps): seed for seed, key in itertools.islice(self.keys.items(), seeds)}

    def results_of(self, stage: int) -> list[LaneResult]:
        """Return the results of a stage."""
        return [self.results[id_] for id_ in self.lanes(stage) if id_ in self.results]


@dataclass
class CellProgress:
    """One cell of the sweep, with its configurations so far, by number."""

    cell: Cell
    search: CellSearch | None
    limit: int
    """Configurations that it has in the end."""
    configurations: dict[int, ConfigurationProgress] = field(default_factory=dict)
    exhausted: bool = False
    """The search has no further suggestion."""
    confirmations: dict[int, ConfigurationProgress] | None = None
    """Of the best configurations, by number; None until all configurations have ended."""
    met_target: int | None = None
    """Number of the configuration with which the cell met `budget.target`: no other is tried then, and `limit` is lower."""
    not_tried: int = 0
    """Configurations that are not tried because of that."""

    @property
    def all_suggested(self) -> bool:
        return self.exhausted or len(self.configurations) >= self.limit

    @property
    def searched(self) -> bool:
        return self.all_suggested and all(entry.ended for entry in self.configurations.values())

    @property
    def done(self) -> bool:
        return self.searched and self.confirmations is not None and all(e.ended for e in self.confirmations.values())


@dataclass
class QueuedLane:
    """A lane that waits for a worker or is being trained, with the configurations that need its result."""

    lane: Lane
    position: tuple[int, int, int]
    """Configuration number, index of the cell, seed: lanes are started in this order."""
    configurations: list[ConfigurationProgress]
    """Usually one. Cells may have a lane in common, and a search may suggest the same values twice."""
    begun_at: int = 0
    """Steps of the checkpoint with which its pack began."""
    losses: int = 0
    """How often its worker was lost since the lane last made progress: losing a spot node is not the lane's fault."""
    steps: int = 0
    """Of its furthest checkpoint."""

    @property
    def id(self) -> LaneId:
        return self.lane.key, self.lane.budget


@dataclass(frozen=True)
class Phases:
    """What the packs that were started and have not ended do."""

    starting: int = 0
    """More than there were workers that reported: further workers start."""
    preparing: tuple[str, ...] = ()
    """Models of those whose programs are compiled or loaded, each once."""
    training: int = 0


class Driver:
    """One run of a sweep, from the first configuration or from what the store has.

    The caller holds the sweep's name in the store (`Store.hold`), requests packs with `next_pack`, and passes on what
    workers report (`receive`) until `done`. `num_workers` changes the size of packs only, never a result. `device` is torch's
    name of what workers compute on, by default the one that the sweep's resources are for: with "cpu", workers that have a
    GPU of Ray's compute on the CPU, and their lanes are lanes of a CPU.
    """

    def __init__(
        self, sweep: Sweep, name: str, store: Store, tracker: BackgroundTracker | None, num_workers: int,
        device: str | None = None,
    ) -> None:  # fmt: skip
        self.sweep, self.name, self.store, self.tracker = sweep, name, store, tracker
        self.device = device_of(sweep) if device is None else device
        self.stop_reason: str | None = None
        """Once it is set no pack is started any more."""
        self.how_to_continue = "the same command continues"
        """What a user does about the reason, if anything."""
        self.lanes_done = self.lanes_reused = self.solved = 0
        self.lanes_spared = 0
        """Lanes that are not trained to the end: of configurations that were stopped early, or that need no confirmation."""
        self._errors = 0  # lanes of this run that ended in one
        self.note: str | None = None
        self._queued: dict[LaneId, QueuedLane] = {}
        self._running: dict[str, dict[LaneId, QueuedLane]] = {}  # by pack
        self._steps_of_pack: dict[str, int] = {}  # of its unfinished lanes, in this pack, as of its last report
        self._preparing: set[str] = set()  # packs whose last report said so
        self._heard_of: set[str] = set()  # packs that have reported
        self._workers_heard_of = 0  # most of these at a time: a worker trains one pack after another
        self.worked: dict[str, tuple[float, int]] = {}
        """By structure: seconds that workers have trained, all together, and the updates that they have made."""
        self._reported = False
        self._failed_starts = 0  # packs that raised before anything was reported
        row = store.sweep(name)
        self.spending = Spending(sweep.budget, row.seconds if row else 0.0)
        self.numerics = Numerics.parse(row.numerics) if row and row.numerics else Numerics.here(self.device)
        self.other_sources: set[tuple[str, str]] = set()
        """Digest of the code that trained stored lanes, and that of the code at hand, where they differ."""
        own_settings = [_resolved(cell, {}) for cell in sweep.cells]  # each cell with the file's own values
        self.zeros = _always_zero(own_settings, [cell.space for cell in sweep.cells])
        self._max_slots = _max_slots(own_settings, sweep.resources)
        self._taken: dict[str, int] = {}  # lanes that a worker took of a pack that was too much for its GPU, by structure
        limits = [sweep.configurations(cell) for cell in sweep.cells]
        self.cells: list[CellProgress] = []
        for cell, settings, limit in zip(sweep.cells, own_settings, limits, strict=True):
            search = None
            if sweep.search is not None and cell.space:
                in_groups = sweep.early_stopping.race is not None
                search = CellSearch(cell.space, sweep.search, cell.key, file_values(cell.space, settings), in_groups)
            self.cells.append(CellProgress(cell, search, limit))
        self.lanes_planned = sum(limits) * len(sweep.seeds) + sum(map(self.most_confirmed, self.cells))
        self.set_num_workers(num_workers)

    def set_num_workers(self, num_workers: int) -> None:
        """Set the size of packs for this many workers. Call it before the first pack is requested."""
        limits = [self.sweep.configurations(cell) for cell in self.sweep.cells]
        self.slots = _slots(self.sweep, limits, num_workers, self._max_slots)

    def require_same_lanes(self) -> None:
        """Raise StoreError where a stored seed is another lane now, as after a new version of a model.

        Nothing is changed: call it before the sweep's definition is replaced.
        """
        stored = self._stored()
        for progress in self.cells:
            for configuration in stored.get(progress.cell.key, []):
                settings = _resolved(progress.cell, configuration.parameters)
                self.store.require_same_lanes(self.name, configuration, self._keys(settings))

    def begin(self) -> None:
        """Load the configurations and results that the store has, then request further configurations.

        Raises StoreError where a stored seed is another lane now.
        """
        self.track(lambda tracker: tracker.begin())
        stored = self._stored()
        for index, progress in enumerate(self.cells):
            for configuration in stored.get(progress.cell.key, []):
                self._start_configuration(index, self._extended(progress.cell, configuration))
        self._continue()

    def _stored(self) -> dict[str, list[Configuration]]:
        """Return the configurations that the store has, by cell, with the seeds of the search."""
        stored: dict[str, list[Configuration]] = {}
        seeds = set(self.sweep.seeds)
        for configuration in self.store.configurations(self.name):
            keys = {seed: key for seed, key in configuration.keys.items() if seed in seeds}
            stored.setdefault(configuration.cell, []).append(dataclasses.replace(configuration, keys=keys))
        return stored

    @property
    def done(self) -> bool:
        """Whether every lane of every configuration has a result."""
        return all(progress.done for progress in self.cells)

    @property
    def may_stop_early(self) -> bool:
        """Whether configurations may end before all their lanes are trained."""
        return self.sweep.early_stopping != EarlyStopping()

    @property
    def seed_steps(self) -> int:
        """Optimiser updates of this run, all lanes together."""
        return self.spending.steps_of_run

    @property
    def ended_by_target(self) -> list[str]:
        """A sentence for every cell that met `budget.target` before all its configurations were tried."""
        found = []
        for progress in self.cells:
            if progress.met_target is not None and (summary := progress.configurations[progress.met_target].summary):
                tried = len(progress.configurations)
                found.append(
                    f"cell {progress.cell.key} ended by its target: configuration {progress.met_target} solves "
                    f"{summary.solved} of {summary.seeds} seeds. Not tried: {progress.not_tried} of "
                    f"{tried + progress.not_tried} configurations"
                )
        return found

    @property
    def packs_running(self) -> set[str]:
        """Ids of packs that were started and have not ended."""
        return set(self._running)

    @property
    def phases(self) -> Phases:
        """What the running packs do."""
        preparing = [next(iter(lanes.values())) for pack, lanes in self._running.items() if pack in self._preparing and lanes]
        models = sorted({str(queued.lane.settings["model"]["name"]) for queued in preparing})
        starting = max(0, len(self._running) - self._workers_heard_of)
        return Phases(starting, tuple(models), len(self._running) - starting - len(preparing))

    @property
    def in_flight(self) -> int:
        """Number of configurations, and confirmations, of which a lane is being trained."""
        return len(
            {id(entry) for lanes in self._running.values() for queued in lanes.values() for entry in queued.configurations}
        )

    def unfinished_lanes(self) -> Iterator[tuple[QueuedLane, float]]:
        """Yield the lanes that are queued or being trained, each with about the updates that it has made.

        Those of a pack count as equally far, since workers report what all of them have made together.
        """
        for queued in self._queued.values():
            yield queued, queued.steps
        for pack, lanes in self._running.items():
            made = max(0, self._steps_of_pack.get(pack, 0)) / max(1, len(lanes))
            for queued in lanes.values():
                yield queued, min(float(queued.lane.budget), queued.begun_at + made)

    @property
    def common_error(self) -> str | None:
        """The reason of the first lane, where every lane of the sweep ended in an error; otherwise None."""
        results = [
            result for progress in self.cells for entry in progress.configurations.values() for result in entry.results.values()
        ]
        if not results or any(result.outcome != "error" for result in results):
            return None
        return results[0].reason

    def out_of_budget(self) -> bool:
        """Return whether the sweep's budget, all its runs together, is used up. If so, the sweep stops."""
        stop = self.spending.used_up()
        if stop is not None and self.stop_reason is None:
            self.stop_reason, self.how_to_continue = stop.reason, stop.how_to_continue
        return stop is not None

    def next_pack(self, pack_id: str, num_free: int = 1) -> PackRequest | None:
        """Return lanes for a free worker, of the structure that most queued lanes have; None if there are none now.

        `num_free` workers wait for a pack, this one included: where the file leaves `slots` open they share what is queued,
        such as the last lanes of a sweep.
        """
        if self.stop_reason or self.out_of_budget():
            return None
        by_structure: dict[str, list[QueuedLane]] = {}
        startable = self._startable()
        for queued in sorted(startable, key=lambda queued: queued.position):
            by_structure.setdefault(queued.configurations[0].structure, []).append(queued)
        if not by_structure:
            return None
        most, auto = self.slots, self.sweep.resources.slots == "auto"
        structure, lanes = max(by_structure.items(), key=lambda item: len(item[1]))
        if auto:
            most = min(most, math.ceil(len(startable) / max(1, num_free)), self._taken.get(structure, most))
        chosen = lanes[:most]
        checkpoints: dict[str, Checkpoint] = {}
        for budget, same in itertools.groupby(chosen, key=lambda queued: queued.lane.budget):
            checkpoints |= self.store.checkpoints([queued.lane.key for queued in same], budget)
        for queued in chosen:
            key = queued.lane.key
            queued.begun_at = checkpoints[key].steps if key in checkpoints else 0
            self.spending.begin_lane(key, queued.begun_at)
        self._running[pack_id] = {queued.id: self._queued.pop(queued.id) for queued in chosen}
        return PackRequest(
            pack_id,
            [dataclasses.replace(q.lane, checkpoint=checkpoints.get(q.lane.key)) for q in chosen],
            self.slots,
            self.zeros,
            self.numerics,
            source_of(chosen[0].lane.settings),
            str(Path(registry.__file__).parents[2]),
            device=self.device,
            gpus=self.sweep.resources.gpus,
            sized_by_worker=auto and self.device == "cuda",
            threads=self.sweep.resources.cpus if self.device == "cpu" else 1,
            checkpoint_s=self.sweep.resources.checkpoint_s,
        )

    def receive(self, pack_id: str, report: PackReport) -> None:
        """Write a worker's report to the store, then to MLflow, and request the configurations that it makes possible.

        Raises HeldByAnother where another driver has taken the sweep over, as after a long sleep of this machine,
        StoreError where the store cannot be written, and ClusterError where the worker is not what the sweep needs.
        """
        if report.refusal is not None:
            raise ClusterError(report.refusal)
        self.store.heartbeat(self.name)
        self._heard_of.add(pack_id)
        self._workers_heard_of = max(self._workers_heard_of, len(self._heard_of))
        if report.preparing:
            self._preparing.add(pack_id)
            return
        self._preparing.discard(pack_id)
        self.store.save_checkpoints(report.checkpoints)
        self.store.add_records(report.results)
        running = self._running.get(pack_id, {})
        if running and report.seed_steps:
            structure = next(iter(running.values())).configurations[0].structure
            seconds, steps = self.worked.get(structure, (0.0, 0))
            self.worked[structure] = seconds + report.seconds, steps + report.seed_steps
        self._steps_of_pack[pack_id] = self._steps_of_pack.get(pack_id, 0) + report.seed_steps
        for id_ in report.returned:
            if (queued_again := running.pop(id_, None)) is not None:
                self._queued[id_] = queued_again
                # It is the first report, so the others are those that the worker has taken.
                structure, taken = queued_again.configurations[0].structure, max(1, len(running))
                self._taken[structure] = min(taken, self._taken.get(structure, taken))
        for queued in running.values():
            checkpoint = report.checkpoints.get(queued.lane.key)
            if checkpoint is not None and checkpoint.steps > queued.steps:
                queued.steps, queued.losses = checkpoint.steps, 0
        self.spending.steps_of_run += report.seed_steps
        self._reported = True
        self.note = self.note or report.note
        if self.tracker is not None:
            self.tracker.begin()
        arrived: dict[int, tuple[ConfigurationProgress, list[LaneResult]]] = {}
        for result in report.results:
            ended = running.pop(result.id, None)
            if ended is not None:
                self._steps_of_pack[pack_id] -= max(0, result.steps - ended.begun_at)
            for entry in ended.configurations if ended is not None else ():
                arrived.setdefault(id(entry), (entry, []))[1].append(result)
        for entry, results in arrived.values():
            self._add_results(entry, results)
        if arrived:
            self._continue()

    def pack_ended(self, pack_id: str, reason: str | None = None, raised: bool = False) -> None:
        """Remove a pack. Lanes without a result (their worker was lost, for `reason`) are queued again.

        `raised`: by an exception, which is not the lanes' doing: what a model or task raises is in a report. Raises
        ClusterError where no worker can begin.
        """
        self._failed_starts += raised and not self._reported
        if self._failed_starts >= MAX_FAILED_STARTS:
            raise ClusterError(
                f"workers cannot begin to train; {MAX_FAILED_STARTS} were tried, and the last one ended with {reason}"
            )
        for known in (self._preparing, self._heard_of):
            known.discard(pack_id)
        self._steps_of_pack.pop(pack_id, None)
        for queued in self._running.pop(pack_id, {}).values():
            queued.losses += 1
            if queued.losses < MAX_LOSSES:
                self._queued[queued.id] = queued
                continue
            lost = f"its worker was lost {MAX_LOSSES} times; the last time: {reason or 'no reason given'}"
            result = LaneResult(
                key=queued.lane.key, seed=queued.lane.seed, budget=queued.lane.budget, steps=0, outcome="error",
                solved=False, reason=lost,
            )  # fmt: skip
            self.store.add_records([result])
            for entry in queued.configurations:
                self._add_results(entry, [result])
        self._continue()

    def track(self, write: Callable[[Tracker], object]) -> None:
        """Write something to MLflow in the background, unless the sweep is not tracked; see `BackgroundTracker.write`."""
        if self.tracker is not None:
            self.tracker.write(write)

    def _continue(self) -> None:
        """Take the decisions of early stopping that can be taken now, and queue what they and the searches ask for."""
        for index, progress in enumerate(self.cells):
            while self._decide(index, progress) or self._request_configurations(index, progress):
                pass
            if progress.confirmations is None and progress.searched:
                self._confirm(index, progress)

    def _request_configurations(self, index: int, progress: CellProgress) -> bool:
        """Request from a cell's search the configurations whose predecessors have ended; return whether there were any."""
        search, known = progress.search, progress.configurations
        before = len(known)
        while len(known) < progress.limit and not progress.exhausted:
            number = len(known)
            needed: Iterable[int] = search.needs(number) if search else ()
            if not all(known[predecessor].ended for predecessor in needed):
                break
            if self._meets_target(progress, [known[predecessor] for predecessor in needed]):
                return True
            parameters: dict[str, Any] = {}
            origin = "file"
            if search is not None:
                finished = {n: self._finished(entry) for n, entry in known.items()}
                suggestion = search.suggest(number, finished)
                if suggestion is None:
                    progress.exhausted = True
                    return True
                parameters, origin = suggestion.parameters, suggestion.origin
            settings = _resolved(progress.cell, parameters)
            configuration = Configuration(
                cell=progress.cell.key, labels=progress.cell.labels, number=number, parameters=parameters,
                settings=settings, keys=self._keys(settings), origin=origin,
            )  # fmt: skip
            self._start_configuration(index, self.store.add_configuration(self.name, configuration))
        return len(known) > before

    def _decide(self, index: int, progress: CellProgress) -> bool:
        """Let the configurations that wait at the end of a stage train on, or stop them; return whether there were any.

        Every decision is a function of results that are named by numbers, so it is the same after a restart.
        """
        waiting = {n: e for n, e in progress.configurations.items() if not e.ended and not e.missing}
        decided: dict[int, Stopped | None] = {}
        for number, entry in waiting.items():
            if number in decided:
                continue
            if entry.stages[entry.stage].steps < entry.budget:
                decided |= self._halve(progress, number)
            else:
                decided |= self._race(progress, number)
        on = [number for number, stopped in decided.items() if stopped is None]
        for number in on:
            entry = waiting[number]
            entry.stage += 1
            entry.configuration = dataclasses.replace(entry.configuration, passed=entry.stage)
        self.store.set_passed(self.name, progress.cell.key, {number: waiting[number].stage for number in on})
        for number, stopped in decided.items():
            if stopped is not None:
                self._end(waiting[number], stopped)
            else:
                self._begin_stage(index, waiting[number])
        return bool(decided)

    def _halve(self, progress: CellProgress, number: int) -> dict[int, Stopped | None]:
        """Decide on a configuration at a rung, compared with those that had ended before it was suggested."""
        halving, search = self.sweep.early_stopping.halving, self.sweep.search
        assert halving is not None and search is not None
        entry = progress.configurations[number]
        compared = [progress.configurations[n] for n in range(max(0, number - search.parallel + 1))]
        if not all(other.ended for other in compared):
            return {}
        sign = -1.0 if halving.metric.direction == "maximize" else 1.0

        def metric(results: Iterable[LaneResult]) -> tuple[float, float]:
            value, tie_break = objective_value(summarise(results), halving.metric.name, halving.metric.direction)
            return sign * value, tie_break

        reached = [other for other in compared if other.stage >= entry.stage and not other.failed]
        earlier = [metric(other.results_of(entry.stage)) for other in reached]
        value = metric(entry.results_of(entry.stage))
        if not is_stopped_at_rung(value, earlier, halving.keep):
            return {number: None}
        place = 1 + sum(one < value for one in earlier)
        steps = entry.stages[entry.stage].steps
        reason = f"place {place} of {len(earlier) + 1} at step {steps} by {halving.metric.name}"
        return {number: Stopped(entry.stages[entry.stage].seeds, steps, reason)}

    def _race(self, progress: CellProgress, number: int) -> dict[int, Stopped | None]:
        """Decide on the group of a configuration, once all of it have trained the seeds of this level."""
        rule, search, objective = self.sweep.early_stopping.race, self.sweep.search, self.sweep.objective
        assert rule is not None and search is not None
        stage, known = progress.configurations[number].stage, progress.configurations
        numbers = group(number, search.parallel)
        members = {n: known[n] for n in numbers if n in known and not known[n].failed and known[n].stage >= stage}
        complete = len(members) and (numbers[-1] in known or progress.all_suggested)
        behind = [n for n in numbers if n in known and not known[n].ended and (known[n].stage < stage or known[n].missing)]
        if not complete or behind or not all(known[n].ended for n in range(numbers[0])):
            return {}
        budget = max(entry.budget for entry in known.values())
        seed_value = metrics.seed_value(objective, budget)
        assert seed_value is not None  # checked in the sweep file

        def values(entry: ConfigurationProgress, stage: int) -> dict[int, tuple[float, float]]:
            return {r.seed: (seed_value.of(r), log_error(r.error.get("extrapolation"))) for r in entry.results_of(stage)}

        before = {n: values(known[n], known[n].stage) for n in range(numbers[0]) if known[n].configuration.state == "complete"}
        level = stage - sum(one.steps < known[number].budget for one in known[number].stages)
        at_level = {n: values(entry, stage) for n, entry in members.items()}
        worse = race(rule, level, at_level, before, seed_value)
        decided: dict[int, Stopped | None] = {}
        for n, entry in members.items():
            if entry.ended or entry.stage > stage:
                continue
            decided[n] = None
            if n in worse:
                reason = _reason(worse[n], objective)
                decided[n] = Stopped(entry.stages[stage].seeds, entry.stages[stage].steps, reason)
        return decided

    def most_confirmed(self, progress: CellProgress) -> int:
        """Return the most lanes of a cell's confirmation."""
        confirm = self.sweep.confirm
        return 0 if confirm is None else min(confirm.top, progress.limit) * len(confirm.seeds)

    def _confirm(self, index: int, progress: CellProgress) -> None:
        """Queue the lanes of the best configurations on fresh seeds."""
        confirm = self.sweep.confirm
        progress.confirmations = {}
        if confirm is None:
            return
        found = [self._as_ranked(entry) for entry in progress.configurations.values()]
        for one in best_of_search(found, self.sweep.ranked_by, confirm.top):
            configuration = one.configuration
            keys = {seed: lane_key(configuration.settings, seed, self.numerics) for seed in confirm.seeds}
            self.store.add_seeds(self.name, configuration.cell, configuration.number, keys, reopen=False)
            steps = progress.configurations[configuration.number].budget
            entry = ConfigurationProgress(configuration, keys, (Stage(len(keys), steps),), confirms=True)
            progress.confirmations[configuration.number] = entry
            self._load_and_begin(index, entry)
        spared = self.most_confirmed(progress) - sum(len(e.keys) for e in progress.confirmations.values())
        self.lanes_spared += spared

    def _meets_target(self, progress: CellProgress, ended: Sequence[ConfigurationProgress]) -> bool:
        """Return whether a cell has met `budget.target`, as far as the search may look now: it ends with what it has then."""
        target = self.sweep.budget.target
        if target is None:
            return False
        complete = [e for e in ended if e.configuration.state == "complete" and e.summary is not None]
        best = meets_target([e.summary for e in complete if e.summary], target, self.sweep.ranked_by)
        if best is None:
            return False
        to_confirm = self.most_confirmed(progress)
        progress.met_target = complete[best].configuration.number
        progress.not_tried = progress.limit - len(progress.configurations)
        progress.limit -= progress.not_tried
        self.lanes_planned -= progress.not_tried * len(self.sweep.seeds) + to_confirm - self.most_confirmed(progress)
        return True

    def _extended(self, cell: Cell, configuration: Configuration) -> Configuration:
        """Return a stored configuration with the seeds and settings, such as more steps, that the file has now."""
        settings = _resolved(cell, configuration.parameters)
        keys = self._keys(settings)
        if keys != configuration.keys:  # also where a user's file has changed, which the store refuses
            reopen = configuration.state != "pruned"
            changed = self.store.add_seeds(self.name, cell.key, configuration.number, keys, reopen)
            configuration = dataclasses.replace(changed, keys=keys)
        if settings != configuration.settings:
            configuration = self.store.update_settings(self.name, cell.key, configuration.number, settings)
        return configuration

    def _keys(self, settings: Mapping[str, Any]) -> dict[int, str]:
        return {seed: lane_key(settings, seed, self.numerics) for seed in self.sweep.seeds}

    def _start_configuration(self, cell_index: int, configuration: Configuration) -> None:
        """Add a configuration: the results that the store has, and its other lanes to the queue."""
        keys = {seed: configuration.keys[seed] for seed in self.sweep.seeds}
        steps = int(configuration.settings["train"]["steps"])
        progress = self.cells[cell_index]
        stopping = self.sweep.early_stopping if progress.search is not None else EarlyStopping()
        all_stages = stages(stopping, len(keys), steps)
        if configuration.state == "failed":  # it is trained again
            configuration = dataclasses.replace(configuration, stopped=None)
        if (stopped := configuration.stopped) is not None:
            last = Stage(stopped.seeds, stopped.steps)
            earlier = [one for one in all_stages if (one.steps, one.seeds) < (last.steps, last.seeds)]
            all_stages = (*earlier, last)
        entry = ConfigurationProgress(configuration, keys, all_stages)
        progress.configurations[configuration.number] = entry
        self._load_and_begin(cell_index, entry)

    def _load_and_begin(self, cell_index: int, entry: ConfigurationProgress) -> None:
        """Add the results that the store has, and begin the first stage that it has not passed; if it was stopped, end it.

        Lanes that ended in an error are trained again, unless what they decided is decided.
        """
        configuration, final = entry.configuration, len(entry.stages) - 1
        entry.stage = final if configuration.stopped is not None else min(configuration.passed, final)
        stored = self.store.records(id_ for stage in range(final + 1) for id_ in entry.lanes(stage))
        decided = {id_ for stage in range(entry.stage + (configuration.stopped is not None)) for id_ in entry.lanes(stage)}
        decided -= set() if configuration.stopped is not None else set(entry.lanes(final))
        present = {id_: result for id_, result in stored.items() if result.outcome != "error" or id_ in decided}
        entry.results |= present
        entry.reused = set(present)
        for result in present.values():
            self.spending.count_stored(result.key, result.steps)
        if present:
            here = source_of(configuration.settings)
            sources = {result.provenance.get("source_hash", here) for result in present.values()}
            self.other_sources |= {(then, here) for then in sources - {here}}
        if configuration.stopped is not None:
            self._count(entry, entry.results_of(final))
            self._end(entry, configuration.stopped)
            return
        self._begin_stage(cell_index, entry)

    def _begin_stage(self, cell_index: int, entry: ConfigurationProgress) -> None:
        """Queue the lanes of a stage that have no result."""
        configuration = entry.configuration
        lanes = entry.lanes(entry.stage)
        entry.missing = {id_ for id_ in lanes if id_ not in entry.results}
        steps = entry.stages[entry.stage].steps
        settings = configuration.settings
        if steps != entry.budget:
            settings = {**settings, "train": {**settings["train"], "steps": steps}}
        for id_, seed in lanes.items():
            if id_ not in entry.missing:
                continue
            queued = QueuedLane(Lane(id_[0], settings, seed), (configuration.number, cell_index, seed), [entry])
            # A lane that is queued or running already is trained once, for every configuration that has it.
            same = [queue[id_] for queue in (self._queued, *self._running.values()) if id_ in queue]
            if same:
                same[0].configurations.append(entry)
            else:
                self._queued[id_] = queued
        if entry.missing:
            self.track(lambda tracker: tracker.start(configuration))
        self._add_results(entry, [entry.results[id_] for id_ in lanes if id_ in entry.results])

    def _startable(self) -> list[QueuedLane]:
        """Return the queued lanes, except those that have a shorter budget to come, which they continue."""
        shortest: dict[str, int] = {}
        for lanes in (self._queued, *self._running.values()):
            for key, budget in lanes:
                shortest[key] = min(budget, shortest.get(key, budget))
        running = {key for lanes in self._running.values() for key, _ in lanes}
        return [queued for (key, budget), queued in self._queued.items() if key not in running and budget == shortest[key]]

    def _add_results(self, entry: ConfigurationProgress, results: Sequence[LaneResult]) -> None:
        """Add results of a configuration's lanes; with the last one of its last stage it has ended."""
        for result in results:
            entry.missing.discard(result.id)
            entry.results[result.id] = result
        self._count(entry, results)
        if entry.missing or entry.ended:
            return
        of_stage = entry.results_of(entry.stage)
        if entry.stage == len(entry.stages) - 1 or all(result.outcome == "error" for result in of_stage):
            self._end(entry)

    def _count(self, entry: ConfigurationProgress, results: Sequence[LaneResult]) -> None:
        """Count results, and track those that have the whole budget, each once. Too many errors stop the sweep."""
        new = [result for result in results if result.id not in entry.counted]
        entry.counted |= {result.id for result in new}
        final = [result for result in new if result.budget == entry.budget]
        self.lanes_done += len(final)
        self.lanes_reused += sum(result.id in entry.reused for result in final)
        self.solved += sum(result.solved for result in final)
        if final:
            configuration = entry.configuration
            self.track(lambda tracker: tracker.lanes(configuration, final))
        self._errors += (errors := sum(result.outcome == "error" and result.id not in entry.reused for result in new))
        allowed = self.sweep.budget.most_failures(self.lanes_planned)
        if errors and self._errors > allowed and self.stop_reason is None:
            last = next(result.reason for result in new if result.outcome == "error" and result.id not in entry.reused)
            self.stop_reason = (
                f"{self._errors} of {self.lanes_planned} lanes ended in an error, and `budget.failures` allows {allowed:g}; "
                f"the last one: {last}"
            )
            self.how_to_continue = (
                "once the cause is removed, or `budget.failures` is larger, the same command trains them again, and the others"
            )

    def _end(self, entry: ConfigurationProgress, stopped: Stopped | None = None) -> None:
        """End a configuration, or a confirmation, with the results of its present stage."""
        summary = entry.summary = summarise(entry.results_of(entry.stage))
        self.lanes_spared += len(entry.keys) - sum(budget == entry.budget for _, budget in entry.counted)
        if entry.confirms:
            progress = next(one for one in self.cells if one.cell.key == entry.configuration.cell)
            searched = self._as_ranked(progress.configurations[entry.configuration.number])
            confirmed = dataclasses.replace(searched, confirmation=summary.results, seeds_to_confirm=len(entry.keys))
            self.track(lambda tracker: tracker.complete(confirmed))
            return
        state = "pruned" if stopped is not None else "failed" if summary.errors == summary.seeds else "complete"
        if state == "failed" and entry.stage < len(entry.stages) - 1:
            stage = entry.stages[entry.stage]
            stopped = Stopped(stage.seeds, stage.steps, "every seed ended in an error")
        comparable = state != "failed" and (stopped is None or stopped.steps == entry.budget)
        value = self._objective(summary)[0] if comparable else None
        old = entry.configuration
        entry.configuration = dataclasses.replace(old, state=state, value=value, stopped=stopped)
        if entry.configuration != old:
            self.store.finish_configuration(self.name, old.cell, old.number, state, value, stopped)
        ranked = self._as_ranked(entry)
        self.track(lambda tracker: tracker.complete(ranked))

    def _as_ranked(self, entry: ConfigurationProgress) -> RankedConfiguration:
        return RankedConfiguration(configuration=entry.configuration, results=entry.summary.results if entry.summary else ())

    def _finished(self, entry: ConfigurationProgress) -> Finished:
        """Return a configuration for the search; without a value while it runs and where it failed."""
        if entry.summary is None or entry.failed:
            return Finished(entry.configuration.parameters, None)
        reached = entry.stage + 1 if entry.configuration.state == "pruned" else None
        value, *further = objective_values(entry.summary, self.sweep.ranked_by)
        tie_break = entry.summary.log_error_median
        broken = excesses(entry.summary, self.sweep.ranked_by)
        return Finished(entry.configuration.parameters, value, tie_break, reached, tuple(further), broken)

    def _objective(self, summary: Summary) -> tuple[float, float]:
        """Return the objective's value and the tie-break."""
        return objective_value(summary, self.sweep.objective.name, self.sweep.objective.direction)


def _reason(worse: Worse, objective: Objective) -> str:
    """Return why a race stopped a configuration."""
    p_value = f"(p = {worse.p_value:.1g})"
    if worse.of_errors:
        return f"all seeds are solved, as those of #{worse.than}, with larger errors {p_value}"
    return f"{objective.name} is worse than that of #{worse.than} {p_value}"


def device_of(sweep: Sweep) -> str:
    """Return torch's name of the device that a sweep's workers train on: cpu or cuda."""
    return "cuda" if sweep.resources.gpus else "cpu"


def _resolved(cell: Cell, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return a cell's settings with these parameters, every default filled in.

    Raises SweepFailed for a fault. The sweep file was checked at the corners of its search space only.
    """
    settings, faults, _ = resolve(cell.with_parameters(parameters))
    if settings is None:
        raise SweepFailed(
            f"cell {cell.key}: the search suggested {parameters}, which is not possible: "
            + "; ".join(map(str, faults))
            + ". Narrow the search space, and run it under another --name"
        )
    return settings


def _slots(sweep: Sweep, limits: Sequence[int], num_workers: int, max_slots: int) -> int:
    """Return the most lanes of every pack of a sweep. It never changes results.

    For `auto`: the lanes that can train at the same time (`limits`: configurations of each cell), spread over the
    workers, rounded down to whole configurations, and at most `max_slots`.
    """
    if sweep.resources.slots != "auto":
        return sweep.resources.slots
    seeds = len(sweep.seeds)
    parallel = sweep.search.parallel if sweep.search else 1
    lanes_at_once = [min(parallel, limit) * seeds for limit in limits]
    slots = min(max_slots, max(lanes_at_once), math.ceil(sum(lanes_at_once) / max(1, num_workers)))
    if slots > seeds:
        slots -= slots % seeds
    return max(1, slots)


def _max_slots(settings: Sequence[Mapping[str, Any]], resources: Resources) -> int:
    """Return the most lanes that `auto` gives packs of these settings: a lane of some networks fills a processor."""
    of_gpu = resources.workers_per_gpu
    most = MAX_LANES["cuda"] // of_gpu if of_gpu else MAX_LANES["cpu"] * resources.cpus
    networks = {str(one["model"]["network"]) for one in settings}
    classes = [registry.find("network", name) for name in networks]
    return min(1 if cls.lanes_apart else cls.max_slots or most for cls in classes)


def _always_zero(settings: Sequence[Mapping[str, Any]], spaces: Sequence[Mapping[str, Dimension]]) -> frozenset[str]:
    """Return paths of float settings that are 0 in every lane of a sweep: their terms leave the compiled step.

    `settings` has each cell's own settings, `spaces` what is searched there.
    """
    searched = {path.rsplit(".", 1)[-1] for space in spaces for path in space}
    leaves = [float_leaves(one) for one in settings]
    paths = {path for found in leaves for path in found}
    return frozenset(
        path for path in paths if all(found.get(path, 0.0) == 0.0 for found in leaves) and not searched & set(path.split("."))
    )
