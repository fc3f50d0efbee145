"""What a sweep takes before it is run: lanes, packs, seed-steps, bytes, and from a calibration its time and its price.

`count` does without a calibration. It lets a driver begin on a store that is only read, so that what the store has is counted
out, and early stopping, targets and confirmation count as they do in a run. `plan` adds the time: the schedule of packs is
simulated with the costs of `sweeps.runner.calibration`.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import json
import math
import os
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch.utils import _pytree as pytree

from sweeps.config import registry
from sweeps.config.settings import build, structure
from sweeps.config.sweep_file import Sweep
from sweeps.machine import PRICE
from sweeps.results.numbers import steps
from sweeps.runner.calibration import Costs, Sample, StructureCost, calibrate, folder, kept, names_text
from sweeps.runner.driver import CellProgress, ConfigurationProgress, Driver, device_of
from sweeps.search.samplers import chosen
from sweeps.search.stopping import Stage, stages
from sweeps.store import Store
from sweeps.store.records import Configuration, Stopped, SweepRow
from sweeps.tracking.rows import MOST_POINTS
from sweeps.training.lane import LaneResult
from sweeps.training.numerics import NUMERICS
from sweeps.training.state import best_of, state_without_weights

PAGE = 4096
"""Bytes of a page of SQLite; a record that is larger than a quarter of one has pages of its own."""
TENSOR_BYTES = 90
"""Of a tensor's entry in the header of a state."""
CURVE_BYTES = 150
"""Of a curve without its numbers, which hardly compress."""
RECORD_BYTES = 700
"""Of a record besides state and curve: digests, errors, provenance, indices."""
LANE_BYTES = 300
"""Of a lane's entry in its configuration."""
STORE_BYTES, MLFLOW_BYTES = 57_344, 954_368
"""Of the files without a sweep."""
RUN_BYTES, PARAMETER_BYTES, POINT_BYTES = 4400, 200, 300
"""Of a run of MLflow with its tags, of one parameter and of one point of a metric: measured, see docs/scaling.md."""
LANE_METRICS = 8
"""Points of a lane's run besides its curve, about."""
MOST_SIMULATED = 300_000
"""Packs of a simulation; more are counted and timed as an average."""


SURVIVAL = {
    False: {2: 0.28, 5: 0.113, 10: 0.078, 25: 0.058, 50: 0.05},
    True: {2: 0.6, 5: 0.39, 10: 0.25, 25: 0.18, 50: 0.155},
}
"""Share of configurations that are still in a race after so many seeds, in searches of NMU multiplication and NAU addition by
par2: of random ones (recordings of `sweeps bench --search`), and of a sampler that learns, whose later configurations are
better and harder to distinguish. See docs/planning.md."""
SPREAD = math.sqrt(2)
"""Factor between the middle of what is likely and its ends."""
GOLDEN = (math.sqrt(5) - 1) / 2
LEAST_ENDED = 16
"""Configurations of a cell that must have ended before their own shares are used."""


@dataclass(frozen=True)
class Bounds:
    """The least and the most of something."""

    least: float
    most: float

    def __add__(self, other: Bounds) -> Bounds:
        return Bounds(self.least + other.least, self.most + other.most)

    @property
    def is_exact(self) -> bool:
        return self.least == self.most


@dataclass(frozen=True)
class Work:
    """The lanes of one configuration that are to be trained."""

    lanes: int
    steps: int
    """Of each."""
    sample: str
    """Key of the structure."""
    task: str
    """Identity of the task, of which a process computes the threshold once."""
    evaluations: int

    @property
    def seed_steps(self) -> int:
        return self.lanes * self.steps


@dataclass(frozen=True)
class CellWork:
    """The configurations of a cell that are to be trained, in order; one waits for those that its search needs."""

    configurations: tuple[Work, ...]
    parallel: int
    in_groups: bool


@dataclass(frozen=True)
class Counts:
    """What a sweep consists of, without what the store has already."""

    cells: int
    configurations: Bounds
    lanes: Bounds
    """To be trained."""
    lanes_stored: int
    packs: Bounds
    seed_steps: Bounds
    """Where lanes stop when they are solved, the most that they can be."""
    stops_when_solved: bool
    files: int
    bytes_of_records: float | None
    """Left in the store: records, curves and final states; None where a model cannot be built here."""
    bytes_of_mlflow: float
    bytes_of_checkpoints: float | None
    """While it runs, of lanes that are being trained; they are removed with the record of their lane."""
    notes: tuple[str, ...] = ()
    likely_lanes: Bounds | None = None
    """Where early stopping may end configurations: as in recorded searches, or as in this one so far."""
    work: tuple[tuple[CellWork, ...], tuple[CellWork, ...]] = field(default=((), ()), repr=False)
    """The least and the most that is to be trained."""
    likely: tuple[tuple[CellWork, ...], ...] = field(default=(), repr=False)
    """Two between those, or none."""
    samples: Mapping[str, Sample] = field(default_factory=dict, repr=False)
    slots: int = field(default=1, repr=False)
    slots_are_free: bool = field(default=True, repr=False)
    """The file leaves the size of packs open."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        hidden = ("work", "likely", "samples", "slots", "slots_are_free")
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in hidden}
        return {name: dataclasses.asdict(one) if isinstance(one, Bounds) else one for name, one in found.items()}


@dataclass(frozen=True)
class Estimate:
    """The time of a sweep in seconds, by what it is spent on."""

    start_s: float
    """Command, Ray and workers."""
    programs_s: float
    """Loading programs and computing thresholds, of the worker that does the most of it."""
    training_s: float
    """Steps of all lanes, over all workers."""
    evaluation_s: float
    writing_s: float
    """Records and MLflow, by the driver."""
    end_s: float
    total_s: float
    """Wall time: waiting for each other is in it, and what is done at the same time counts once."""


@dataclass(frozen=True)
class Where:
    """The machines that a plan is for."""

    workers: int
    nodes: int = 1
    cores: int = 0
    """Of this machine, which driver and workers share; 0: the driver has a core of its own."""
    price_per_hour: float | None = None
    """USD for one node."""
    cluster: str | None = None
    device_kind: str | None = None
    """Of the numerics, where it is another than this machine's."""


@dataclass(frozen=True)
class Plan:
    """What a sweep takes."""

    counts: Counts
    where: Where
    expected: Estimate | None
    """None where it is not known: `why_unknown`."""
    worst: Estimate | None
    least: Estimate | None
    """Where early stopping or a target may end configurations."""
    likely: tuple[Estimate, Estimate] | None = None
    """The range to expect where early stopping may end configurations; `expected` is its upper end."""
    why_unknown: str | None = None
    calibration: str = ""
    """Device, and what was measured or estimated."""
    notes: tuple[str, ...] = ()
    expected_from_store: bool = False

    def cost_usd(self, estimate: Estimate | None) -> float | None:
        """Return USD for that time on all nodes; None where time or price is not known."""
        if estimate is None or self.where.price_per_hour is None:
            return None
        return estimate.total_s / 3600 * self.where.nodes * self.where.price_per_hour

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        low, high = self.likely or (None, None)
        times = {
            "expected": self.expected, "worst": self.worst, "least": self.least, "likely_least": low, "likely_most": high,
        }  # fmt: skip
        return {
            **self.counts.as_dict(),
            "workers": self.where.workers, "nodes": self.where.nodes, "cluster": self.where.cluster,
            "price_per_hour": self.where.price_per_hour,
            "time": {name: None if one is None else dataclasses.asdict(one) for name, one in times.items()},
            "cost_usd": {name: self.cost_usd(one) for name, one in times.items()},
            "why_time_is_unknown": self.why_unknown, "calibration": self.calibration,
            "notes": [*self.counts.notes, *self.notes],
        }  # fmt: skip


# ------------------------------------------------------------------------------------------- lanes


def lane_bounds(sweep: Sweep, limit: int, seeds: int, budget: int) -> tuple[list[Stage], list[Stage]]:
    """Return what a cell's configurations train at least and at most: of each its number of seeds, and the steps of a seed.

    A target may end the cell at the first configuration that looks at another's results, and early stopping may stop every
    configuration but one after its first stage.
    """
    whole = Stage(seeds, budget)
    least = limit
    if sweep.budget.target is not None and sweep.search is not None:
        in_groups = sweep.early_stopping.race is not None
        least = next((n for n in range(1, limit) if sweep.search.needs(n, in_groups)), limit)
    first = stages(sweep.early_stopping, seeds, budget)[0] if limit > 1 else whole
    return [whole, *[first] * (least - 1)], [whole] * limit


def likely_shares(sweep: Sweep, stages_: Sequence[Stage], ended: Sequence[Configuration]) -> list[float]:
    """Return which share of a cell's configurations is likely to train each stage, as in recorded searches; of the first, all.

    Once enough of the cell's own have `ended`, theirs are used.
    """
    shares = [1.0]
    assert sweep.search is not None
    table = SURVIVAL[chosen(sweep.search.sampler, sweep.search.sampler_options).sampler.learns]
    halving = sweep.early_stopping.halving
    for before, stage in itertools.pairwise(stages_):
        if len(ended) >= LEAST_ENDED:
            reached = [one.stopped is None or _is_after(one.stopped, before) for one in ended]
            shares.append(sum(reached) / len(reached))
        elif before.steps < stage.steps and halving is not None:
            shares.append(shares[-1] * halving.keep)
        else:
            log_seeds = np.interp(math.log(before.seeds), [math.log(n) for n in table], list(table.values()))
            shares.append(min(shares[-1], float(log_seeds)))
    return shares


def _is_after(stopped: Stopped, stage: Stage) -> bool:
    return stopped.steps > stage.steps or (stopped.steps == stage.steps and stopped.seeds > stage.seeds)


class _ReadStore:
    """What a driver needs of a store to begin, without a change to it. Without a store there is nothing in it."""

    def __init__(self, store: Store | None, row: SweepRow | None) -> None:
        self._store, self._row = store, row
        self._added: dict[tuple[str, int], Configuration] = {}

    def sweep(self, name: str) -> SweepRow | None:
        return self._row

    def configurations(self, name: str) -> list[Configuration]:
        found = self._store.configurations(name) if self._store is not None and self._row is not None else []
        self._added |= {(one.cell, one.number): one for one in found}
        return found

    def records(self, ids: Iterable[tuple[str, int]]) -> dict[tuple[str, int], LaneResult]:
        return {} if self._store is None else self._store.records(ids)

    def add_configuration(self, name: str, configuration: Configuration) -> Configuration:
        return self._added.setdefault((configuration.cell, configuration.number), configuration)

    def add_seeds(self, name: str, cell: str, number: int, keys: Mapping[int, str], reopen: bool = True) -> Configuration:
        old = self._added[cell, number]
        state = "running" if reopen and keys.keys() - old.keys.keys() else old.state
        self._added[cell, number] = dataclasses.replace(old, keys={**old.keys, **keys}, state=state)
        return self._added[cell, number]

    def update_settings(self, name: str, cell: str, number: int, settings: dict[str, Any]) -> Configuration:
        self._added[cell, number] = dataclasses.replace(self._added[cell, number], settings=settings, state="running")
        return self._added[cell, number]

    def set_passed(self, *arguments: Any) -> None:
        """Write nothing."""

    def finish_configuration(self, *arguments: Any, **options: Any) -> None:
        """Write nothing."""


def count(sweep: Sweep, workers: int | None = None, store: Store | None = None) -> Counts:
    """Return what the sweep consists of. `workers`: by default as many as this machine's cores are for.

    With a store, what it has counts out. Raises StoreError, and what a run raises for a sweep that cannot begin.
    """
    workers = workers or workers_here(sweep)
    row = store.sweep(sweep.name) if store is not None else None
    if row is not None and (row.numerics is None or int(row.numerics.split()[0]) < NUMERICS):
        row = None  # it is kept under another name, and trained anew
    unlimited = dataclasses.replace(sweep, budget=dataclasses.replace(sweep.budget, cost_usd=None))
    driver = Driver(unlimited, sweep.name, cast(Store, _ReadStore(store, row)), None, workers)
    driver.begin()
    return _Counter(sweep, driver, workers, store).counts()


def workers_here(sweep: Sweep) -> int:
    """Return how many workers `sweeps run` has on this machine."""
    if sweep.resources.workers_per_gpu:
        return max(1, torch.cuda.device_count()) * sweep.resources.workers_per_gpu
    return max(1, (os.cpu_count() or 1) // sweep.resources.cpus)


class _Counter:
    """Counts the work of a driver that has begun."""

    def __init__(self, sweep: Sweep, driver: Driver, workers: int, store: Store | None) -> None:
        self._sweep, self._driver, self._workers, self._store = sweep, driver, workers, store
        self._samples: dict[str, Sample] = {}
        self._sample_of: dict[str, str] = {}  # by structure and task
        self._sizes: dict[str, tuple[int, int] | None] = {}  # of records, by sample and evaluations
        self._notes: list[str] = []

    def counts(self) -> Counts:
        driver = self._driver
        least, most = [], []
        likely: tuple[list[CellWork], list[CellWork]] = ([], [])
        configurations, stored = Bounds(0, 0), 0
        records: float | None = 0.0
        mlflow = 0.0
        for progress in driver.cells:
            of_cell = self._of_cell(progress)
            configurations += Bounds(of_cell[2], of_cell[3])
            least.append(of_cell[0])
            most.append(of_cell[1])
            for works, factor in zip(likely, (1 / SPREAD, SPREAD), strict=True):
                works.append(self._likely(progress, of_cell[1], factor))
            for work, template in zip(of_cell[1].configurations, of_cell[4], strict=True):
                size = self._size(template, work.evaluations)
                records = None if size is None or records is None else records + work.lanes * size[0]
                mlflow += work.lanes * _mlflow_bytes(template, work.evaluations, len(_columns(template)))
                mlflow += (work.lanes > 0) * _mlflow_bytes(template, work.evaluations, 1)
        for progress in driver.cells:
            entries = [*progress.configurations.values(), *(progress.confirmations or {}).values()]
            stored += len({id_ for entry in entries for id_ in entry.results if id_[1] == entry.budget})
        lanes = [sum(w.lanes for cell in works for w in cell.configurations) for works in (least, most)]
        seed_steps = [sum(w.seed_steps for cell in works for w in cell.configurations) for works in (least, most)]
        packs = [Schedule(works, driver.slots, self._workers, self._is_auto).run().packs for works in (least, most)]
        early = driver.may_stop_early and lanes[0] < lanes[1]
        ends = [sum(w.lanes for cell in works for w in cell.configurations) for works in likely]
        sizes = [size for size in self._sizes.values() if size is not None]
        in_training = min(lanes[1], self._workers * driver.slots)
        is_file = self._store is None or "://" not in str(self._store.location)
        return Counts(
            cells=len(driver.cells), configurations=configurations, lanes=Bounds(*lanes), lanes_stored=stored,
            packs=Bounds(*packs), seed_steps=Bounds(*seed_steps),
            stops_when_solved=any(self._template(p)["train"]["stop"] == "solved" for p in driver.cells),
            files=4 if is_file else 2, bytes_of_records=None if records is None else records + STORE_BYTES,
            bytes_of_mlflow=mlflow + MLFLOW_BYTES,
            bytes_of_checkpoints=None if records is None else in_training * max((size[1] for size in sizes), default=0),
            notes=tuple(dict.fromkeys(self._notes)), work=(tuple(least), tuple(most)), samples=self._samples,
            likely=tuple(map(tuple, likely)) if early else (), likely_lanes=Bounds(*ends) if early else None,
            slots=driver.slots, slots_are_free=self._is_auto,
        )  # fmt: skip

    @property
    def _is_auto(self) -> bool:
        return self._sweep.resources.slots == "auto"

    def _template(self, progress: CellProgress) -> dict[str, Any]:
        return next(iter(progress.configurations.values())).configuration.settings

    def _of_cell(self, progress: CellProgress) -> tuple[CellWork, CellWork, int, int, list[dict[str, Any]]]:
        """The least and the most work of a cell, the numbers of configurations, and the settings of the most."""
        sweep, known = self._sweep, progress.configurations
        template, seeds = self._template(progress), len(sweep.seeds)
        budget = int(template["train"]["steps"])
        limit = progress.limit if not progress.exhausted else len(known)
        searched = progress.search is not None
        least_stages, _ = lane_bounds(sweep, limit if searched else 1, seeds, budget)
        number_least = max(len(least_stages), len(known))
        least, most, settings = [], [], []
        for number in range(limit):
            entry = known.get(number)
            if entry is not None:
                a, b = self._of_known(entry)
                least.append(a)
                most.append(b)
                settings.append(entry.configuration.settings)
                continue
            # What the search will suggest is not known: the structure is one of those of the first configurations.
            like = known[number % len(known)].configuration.settings
            whole = self._work(like, seeds, int(like["train"]["steps"]))
            most.append(whole)
            settings.append(like)
            if number < number_least:
                stage = least_stages[min(number, len(least_stages) - 1)]
                least.append(self._work(like, stage.seeds, stage.steps))
        confirmed = self._confirmation(progress, template)
        least += confirmed[0]
        most += confirmed[1]
        settings += [template] * len(confirmed[1])
        parallel = sweep.search.parallel if sweep.search and searched else max(1, limit)
        in_groups = searched and sweep.early_stopping.race is not None
        return (
            CellWork(tuple(least), parallel, in_groups), CellWork(tuple(most), parallel, in_groups), number_least, limit,
            settings,
        )  # fmt: skip

    def _likely(self, progress: CellProgress, most: CellWork, factor: float) -> CellWork:
        """The work of a cell, if `factor` times as many configurations as usual train each stage after the first."""
        sweep, known = self._sweep, progress.configurations
        if progress.search is None or sweep.search is None:
            return most
        ended = [entry.configuration for entry in known.values() if entry.ended and not entry.failed]
        works = []
        for number, work in enumerate(most.configurations):
            entry = known.get(number)
            if number >= progress.limit or (entry is not None and entry.ended):  # a confirmation, or nothing to do
                works.append(work)
                continue
            all_stages = stages(sweep.early_stopping, len(sweep.seeds), work.steps)
            shares = likely_shares(sweep, all_stages, ended)
            place = (0.5 + number * GOLDEN) % 1  # spreads those that go on evenly
            reached = max(i for i, share in enumerate(shares) if i == 0 or place < factor * share)
            if number < sweep.search.parallel and sweep.early_stopping.halving is not None:
                # The first ones have nothing to be compared with at a rung.
                reached = max(reached, sum(stage.steps < work.steps for stage in all_stages))
            stage = all_stages[reached]
            settings = (entry or known[number % len(known)]).configuration.settings
            done = 0 if entry is None else len(entry.keys) - work.lanes
            works.append(self._work(settings, min(work.lanes, max(0, stage.seeds - done)), stage.steps))
        return CellWork(tuple(works), most.parallel, most.in_groups)

    def _confirmation(self, progress: CellProgress, template: dict[str, Any]) -> tuple[list[Work], list[Work]]:
        confirm = self._sweep.confirm
        if confirm is None:
            return [], []
        if progress.confirmations is not None:
            works = [self._of_known(entry)[1] for entry in progress.confirmations.values()]
            return works, works
        one = self._work(template, len(confirm.seeds), int(template["train"]["steps"]))
        return [one], [one] * min(confirm.top, progress.limit)

    def _of_known(self, entry: ConfigurationProgress) -> tuple[Work, Work]:
        """What a configuration trains at least and at most from now on."""
        settings, budget = entry.configuration.settings, entry.budget
        if entry.ended:
            nothing = self._work(settings, 0, budget)
            return nothing, nothing
        missing = [key for key in entry.keys.values() if (key, budget) not in entry.results]
        most = self._work(settings, len(missing), budget, self._made(missing, budget))
        is_last = entry.stage == len(entry.stages) - 1
        if is_last or (entry.configuration.number == 0 and self._sweep.budget.target is None):
            return most, most
        stage = entry.stages[entry.stage]
        return self._work(settings, len(entry.missing), stage.steps), most

    def _made(self, keys: Sequence[str], budget: int) -> float:
        """The mean number of steps that lanes have made already, from checkpoints and shorter budgets."""
        if self._store is None or not keys:
            return 0.0
        return sum(self._store.steps_made(keys, budget).values()) / len(keys)

    def _work(self, settings: dict[str, Any], lanes: int, budget: int, made: float = 0.0) -> Work:
        every = int(settings["train"]["evaluate_every"])
        left = max(0, round(budget - made))
        evaluations = left // every + 1 + bool(left % every)
        task = json.dumps(settings["task"], sort_keys=True)
        return Work(lanes, left, self._sample(settings, task), task, evaluations)

    def _sample(self, settings: dict[str, Any], task: str) -> str:
        of = structure(settings)
        if registry.find("network", settings["model"]["network"]).pieces:
            of += task
        if of not in self._sample_of:
            driver, resources = self._driver, self._sweep.resources
            sample = Sample.of(
                settings, driver.zeros, driver.numerics, driver.slots, device_of(self._sweep),
                resources.cpus if driver.device == "cpu" else 1, resources.gpus,
            )  # fmt: skip
            self._sample_of[of] = sample.key
            self._samples.setdefault(sample.key, sample)
        return self._sample_of[of]

    def _size(self, settings: dict[str, Any], evaluations: int) -> tuple[int, int] | None:
        """Bytes of a lane in the store at its end, and of its checkpoint."""
        key = f"{structure(settings)} {evaluations}"
        if key not in self._sizes:
            try:
                self._sizes[key] = _record_bytes(settings, evaluations)
            except Exception as error:  # a model or task that cannot be made here, such as one whose data are elsewhere
                self._sizes[key] = None
                name = f"{settings['model']['name']} on {settings['task']['name']}"
                self._notes.append(f"bytes are not known: {name} cannot be built here ({type(error).__name__}: {error})")
        return self._sizes[key]


def _columns(settings: Mapping[str, Any]) -> list[str]:
    """Names of a curve's columns besides the step."""
    task = registry.find("task", settings["task"]["name"])
    return [f"{figure}.{split}" for figure in ("error", *task.score_names) for split in task.splits] + ["sparsity_error"]


def _record_bytes(settings: Mapping[str, Any], evaluations: int) -> tuple[int, int]:
    built, columns = build(settings), len(_columns(settings))
    state = state_without_weights(built, torch.device("cpu"))
    leaves = pytree.tree_leaves((state, best_of(state)))
    curve = evaluations * (8 + 4 * columns)
    blob = sum(leaf.numel() * leaf.element_size() + TENSOR_BYTES for leaf in leaves) + curve + columns * TENSOR_BYTES
    of_lengths = len(built.task.curve_lengths) * (len(built.task.score_names) + 3) * 4
    packed = CURVE_BYTES + evaluations * 4 * columns + of_lengths
    size = blob + packed + RECORD_BYTES
    return math.ceil(size / PAGE) * PAGE + LANE_BYTES if size > PAGE / 4 else size + LANE_BYTES, blob


def _mlflow_bytes(settings: Mapping[str, Any], evaluations: int, columns: int) -> float:
    leaves = sum(1 for _ in _leaves(settings))
    points = columns * min(evaluations, MOST_POINTS) + LANE_METRICS
    return RUN_BYTES + leaves * PARAMETER_BYTES + points * POINT_BYTES


def _leaves(node: Any) -> Iterable[Any]:
    if isinstance(node, Mapping):
        for value in node.values():
            yield from _leaves(value)
    elif isinstance(node, list) and any(isinstance(item, Mapping) for item in node):
        for value in node:
            yield from _leaves(value)
    else:
        yield node


# ------------------------------------------------------------------------------------------- the schedule


@dataclass(frozen=True)
class Ended:
    """A simulated schedule."""

    seconds: float
    packs: int
    last_lanes: int
    """Lanes of the last pack."""
    programs_s: float
    """Of the worker that spends the most on loading programs and computing thresholds."""


class Schedule:
    """The packs of a sweep, given to workers in the driver's order. Without costs a lane takes a second a step.

    It is the rule of `Driver.next_pack`: the structure with the most lanes, of these the lowest numbers of configurations.
    """

    def __init__(
        self, cells: Sequence[CellWork], slots: int, workers: int, is_auto: bool,
        costs: Mapping[str, StructureCost] | None = None, pack_s: float = 0.0,
    ) -> None:  # fmt: skip
        self._cells, self._slots, self._workers, self._is_auto = cells, slots, workers, is_auto
        self._costs, self._pack_s = costs, pack_s
        self._next = [0] * len(cells)
        self._open: list[dict[int, int]] = [{} for _ in cells]  # configuration -> lanes that have not ended
        self._ended: list[set[int]] = [set() for _ in cells]
        self._queues: dict[str, list[tuple[int, int, int]]] = {}  # by structure: (number, cell, lanes)
        self._queued: Counter[str] = Counter()

    def run(self) -> Ended:
        total = sum(work.lanes for cell in self._cells for work in cell.configurations)
        if not total:
            return Ended(0.0, 0, 0, 0.0)
        if total / self._slots > MOST_SIMULATED:
            return self._average(total)
        for index in range(len(self._cells)):
            self._request(index)
        free = deque(range(self._workers))
        running: list[tuple[float, int, int, list[tuple[int, int, int]]]] = []
        loaded: list[set[str]] = [set() for _ in range(self._workers)]
        programs_s = [0.0] * self._workers
        now, packs, last = 0.0, 0, 0
        while running or self._queued.total():
            while free and (chosen := self._choose(len(free))):
                worker = free.popleft()
                seconds, of_programs = self._seconds(chosen, loaded[worker])
                programs_s[worker] += of_programs
                packs, last = packs + 1, sum(lanes for _, _, lanes in chosen)
                heapq.heappush(running, (now + seconds, packs, worker, chosen))
            now, _, worker, chosen = heapq.heappop(running)
            free.append(worker)
            for number, index, lanes in chosen:
                self._open[index][number] -= lanes
                if not self._open[index][number]:
                    self._ended[index].add(number)
                    self._request(index)
        return Ended(now, packs, last, max(programs_s))

    def _request(self, index: int) -> None:
        """Queue the configurations of a cell whose predecessors have ended."""
        cell, ended = self._cells[index], self._ended[index]
        while (number := self._next[index]) < len(cell.configurations):
            first = number - number % cell.parallel if cell.in_groups else max(0, number - cell.parallel + 1)
            if not all(n in ended for n in range(first)):
                return
            self._next[index] += 1
            work = cell.configurations[number]
            if not work.lanes:
                ended.add(number)
                continue
            self._open[index][number] = work.lanes
            heapq.heappush(self._queues.setdefault(work.sample, []), (number, index, work.lanes))
            self._queued[work.sample] += work.lanes

    def _choose(self, num_free: int) -> list[tuple[int, int, int]]:
        """The lanes of the next pack: (configuration, cell, lanes)."""
        if not self._queued.total():
            return []
        sample = max(self._queued, key=lambda one: self._queued[one])
        most = self._slots
        if self._is_auto:
            most = min(most, math.ceil(self._queued.total() / max(1, num_free)))
        chosen, queue = [], self._queues[sample]
        while queue and most:
            number, index, lanes = heapq.heappop(queue)
            taken = min(lanes, most)
            chosen.append((number, index, taken))
            most -= taken
            self._queued[sample] -= taken
            if taken < lanes:
                heapq.heappush(queue, (number, index, lanes - taken))
        return chosen

    def _seconds(self, chosen: Sequence[tuple[int, int, int]], loaded: set[str]) -> tuple[float, float]:
        """The time of a pack, and what of it is for programs and thresholds."""
        works = [(self._cells[index].configurations[number], lanes) for number, index, lanes in chosen]
        if self._costs is None:
            return float(sum(work.steps * lanes for work, lanes in works)), 0.0
        programs, seconds = 0.0, self._pack_s
        for work, lanes in works:
            cost = self._costs[work.sample]
            if work.sample not in loaded:
                loaded.add(work.sample)
                programs += cost.load_s
            if work.task not in loaded:
                loaded.add(work.task)
                programs += cost.threshold_s
            seconds += lanes * (work.steps * cost.step_s + work.evaluations * cost.evaluate_s + cost.finish_s)
        seconds += max(self._costs[work.sample].setup_s for work, _ in works)
        return seconds + programs, programs

    def _average(self, total: int) -> Ended:
        packs = math.ceil(total / self._slots)
        seconds, loaded = 0.0, set[str]()
        for index, cell in enumerate(self._cells):
            for number, work in enumerate(cell.configurations):
                seconds += self._seconds([(number, index, work.lanes)], loaded)[0]
        return Ended(seconds / self._workers, packs, self._slots, 0.0)


# ------------------------------------------------------------------------------------------- time


def plan(
    sweep: Sweep, where: Where, store: Store | None = None, again: bool = False, on_progress: Any = lambda _: None
) -> Plan:
    """Return what a sweep takes on these machines. On this one what is not kept is measured, for half a minute at most.

    `again` measures anew. Raises what `count` raises, and SweepsError where lanes cannot be trained.
    """
    counts = count(sweep, where.workers, store)
    notes = list(_budget_notes(sweep, counts))
    wanted = _most_costly(counts)
    device = device_of(sweep)
    here = where.device_kind is None
    if not counts.lanes.most:
        nothing = Estimate(0, 0, 0, 0, 0, 0, 0)
        return Plan(counts, where, nothing, nothing, None, calibration="nothing is left to train", notes=tuple(notes))
    if here and (device == "cpu" or torch.cuda.is_available()):
        costs = calibrate(wanted, device, min(where.workers, workers_here(sweep)), again, on_progress)
    else:
        other = [_of_kind(sample, where.device_kind) for sample in wanted]
        found = kept(other, device, workers_here(sweep), any_machine=True)
        renamed = {
            mine.key: found.structures[o.key] for mine, o in zip(wanted, other, strict=True) if o.key in found.structures
        }
        fixed = found.machine
        if renamed and fixed is None:
            fixed = calibrate([], "cpu", workers_here(sweep), on_progress=on_progress).machine
        costs = dataclasses.replace(found, structures=renamed, machine=fixed)
    if not costs.structures or costs.machine is None:
        return Plan(counts, where, None, None, None, why_unknown=_why_unknown(costs, where, device, here), notes=tuple(notes))
    structures, estimated = _completed(counts, costs)
    expected_share, from_store = _expected_share(sweep, store), True
    if expected_share is None:
        expected_share, from_store = 1.0, False
    worst = _estimate(counts, counts.work[1], structures, costs, where)
    expected = worst
    if counts.stops_when_solved and from_store:
        expected = _estimate(counts, _shortened(counts.work[1], expected_share), structures, costs, where)
        notes.append(f"lanes of this sweep in the store made {expected_share:.0%} of their steps before they were solved")
    least = None if counts.lanes.is_exact and counts.seed_steps.is_exact else (
        _estimate(counts, counts.work[0], structures, costs, where)
    )  # fmt: skip
    likely = None
    if counts.likely:
        share = expected_share if counts.stops_when_solved and from_store else 1.0
        low, high = (_estimate(counts, _shortened(works, share), structures, costs, where) for works in counts.likely)
        likely = (low, high)
        expected = high
        notes.append(
            "with early stopping the time is that of a search in which as many configurations go on as in recorded searches, "
            f"or, once {LEAST_ENDED} of a cell have ended, as in this one so far"
        )
    compile_s = [cost.compile_s for cost in structures.values() if cost.compile_s is not None]
    if where.cluster is not None and compile_s:
        notes.append(f"on nodes that have not compiled its programs yet, compilation takes up to {sum(compile_s):.0f} s more")
    about = costs.device + (f"; measured now, in {costs.seconds:.0f} s: {names_text(costs.measured)}" if costs.measured else "")
    found_plan = Plan(
        counts, where, expected, worst, least, likely, calibration="; ".join([about, *estimated]),
        expected_from_store=from_store, notes=tuple(notes),
    )  # fmt: skip
    return dataclasses.replace(found_plan, notes=(*found_plan.notes, *_limits(sweep, found_plan)))


def _of_kind(sample: Sample, kind: str | None) -> Sample:
    """The same lanes as a machine of another kind of device trains them."""
    request = sample.request
    numerics = dataclasses.replace(request.numerics, device=kind or request.numerics.device)
    return dataclasses.replace(sample, request=dataclasses.replace(request, numerics=numerics))


def _why_unknown(costs: Costs, where: Where, device: str, here: bool) -> str:
    if not here or (device == "cuda" and not torch.cuda.is_available()):
        kind = where.device_kind or device
        place = f"a node of cluster {where.cluster!r}" if where.cluster else "a machine that has one"
        return (
            f"the time is not known for {kind}: no calibration of this sweep on such a device is kept in {folder()}. Run "
            f"`sweeps plan` with the same file and settings on {place}, and copy calibration-*.json from that folder there "
            "(its message names it) into the one here, unless both are the same"
        )
    return (
        "the time is not known: the calibration was not ready in time, since other programs use this machine, or the first "
        f"compilation takes longer. What it compiled and measured is kept in {folder()}: the same command again goes on from "
        "there"
    )


def _most_costly(counts: Counts) -> list[Sample]:
    """The samples, those with the most work first."""
    work: Counter[str] = Counter()
    for cell in counts.work[1]:
        for one in cell.configurations:
            work[one.sample] += one.seed_steps * _weights(counts.samples[one.sample])
    return [counts.samples[key] for key, amount in work.most_common() if amount]


def _weights(sample: Sample) -> int:
    """About how much a step of these lanes computes: numbers that a batch and a model have, by their settings."""
    settings = sample.request.lanes[0].settings
    try:
        model = build(settings).model()
    except Exception:  # it is measured, or not
        return 1
    return max(1, sum(parameter.numel() for parameter in model.parameters())) * int(settings["train"]["batch"])


def _completed(counts: Counts, costs: Costs) -> tuple[dict[str, StructureCost], list[str]]:
    """The costs of every structure; those that were not measured are estimated from the nearest one, which is named."""
    found, notes = dict(costs.structures), []
    measured = {key: _weights(counts.samples[key]) for key in found}
    for key, sample in counts.samples.items():
        if key in found:
            continue
        size = _weights(sample)
        same_task = [k for k in measured if counts.samples[k].name.partition(" on ")[2] == sample.name.partition(" on ")[2]]
        near = min(same_task or measured, key=lambda k: abs(math.log(measured[k] / size)))
        scale = size / measured[near]
        cost = costs.structures[near]
        found[key] = dataclasses.replace(cost, step_s=cost.step_s * scale, evaluate_s=cost.evaluate_s * scale)
        notes.append(
            f"{sample.name} is estimated from {counts.samples[near].name}, with {scale:.2g} times its weights and batch"
            if near != key else sample.name
        )  # fmt: skip
    return found, notes


def _expected_share(sweep: Sweep, store: Store | None) -> float | None:
    """The share of their budgets that this sweep's lanes in the store have used; None where there are too few."""
    if store is None or store.sweep(sweep.name) is None:
        return None
    ids = [(k, int(c.settings["train"]["steps"])) for c in store.configurations(sweep.name) for k in c.keys.values()]
    results = [one for one in store.records(ids).values() if one.outcome != "error"]
    return sum(one.steps for one in results) / sum(one.budget for one in results) if len(results) >= 10 else None


def _shortened(cells: Sequence[CellWork], share: float) -> list[CellWork]:
    def short(work: Work) -> Work:
        return dataclasses.replace(
            work, steps=round(work.steps * share), evaluations=max(2, round(work.evaluations * share))
        )  # fmt: skip

    return [dataclasses.replace(cell, configurations=tuple(map(short, cell.configurations))) for cell in cells]


def _estimate(
    counts: Counts, cells: Sequence[CellWork], structures: Mapping[str, StructureCost], costs: Costs, where: Where
) -> Estimate:
    fixed = costs.machine
    assert fixed is not None
    ended = Schedule(cells, counts.slots, where.workers, counts.slots_are_free, structures, fixed.pack_s).run()
    training = evaluation = writing = 0.0
    lanes = 0
    for work in (work for cell in cells for work in cell.configurations):
        cost, lanes = structures[work.sample], lanes + work.lanes
        training += work.seed_steps * cost.step_s
        evaluation += work.lanes * work.evaluations * cost.evaluate_s
        points = min(work.evaluations, MOST_POINTS) * len(_columns(counts.samples[work.sample].request.lanes[0].settings))
        writing += work.lanes * (fixed.record_s + fixed.mlflow_lane_s + points * fixed.mlflow_point_s)
    tail = writing * ended.last_lanes / max(1, lanes)
    busy = together(ended.seconds, fixed.mlflow_s + writing, tail, where.workers, where.cores)
    start = fixed.start_s + fixed.worker_s
    return Estimate(
        start_s=start, programs_s=ended.programs_s, training_s=training / where.workers,
        evaluation_s=evaluation / where.workers, writing_s=fixed.mlflow_s + writing, end_s=fixed.end_s,
        total_s=start + busy + fixed.end_s,
    )  # fmt: skip


def together(workers_s: float, driver_s: float, tail_s: float, workers: int, cores: int) -> float:
    """Return how long workers that take `workers_s` and a driver that takes `driver_s` take together, in seconds.

    The driver writes what workers have done, the last `tail_s` of it after they have ended. On a machine of so many cores
    (0: the driver has one of its own) it takes time from the workers, since Ray's workers have the lower priority.
    """
    share = min(1.0, (cores - 1) / workers) if cores else 1.0
    during = driver_s - min(tail_s, driver_s)
    """Of the driver's time, what it spends while the workers train."""
    if workers_s >= during * share:
        return workers_s + during * (1 - share) + min(tail_s, driver_s)
    return driver_s


def _budget_notes(sweep: Sweep, counts: Counts) -> Iterable[str]:
    limit = sweep.budget.seed_steps
    if limit is not None and counts.seed_steps.most > limit:
        yield f"budget.seed_steps, {steps(limit)}, may stop it before: it has up to {steps(counts.seed_steps.most)}"


def _limits(sweep: Sweep, found: Plan) -> Iterable[str]:
    if sweep.budget.hours is not None and found.worst is not None and found.worst.total_s > sweep.budget.hours * 3600:
        yield f"budget.hours, {sweep.budget.hours:g}, may stop it before"
    if sweep.budget.cost_usd is None:
        return
    cost = found.cost_usd(found.worst)
    if found.where.price_per_hour is None:
        yield f"budget.cost_usd needs the price of a node: `price_per_hour` in clusters.yaml, or {PRICE}; a run is refused"
    elif cost is not None and cost > sweep.budget.cost_usd:
        yield f"budget.cost_usd, {sweep.budget.cost_usd:g} USD, may stop it before"
