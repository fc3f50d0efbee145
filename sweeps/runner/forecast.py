"""How long a running sweep takes until its end: as expected from what was seen so far, and at most.

Work is counted in optimiser updates, and a structure's updates cost the worker-seconds that they took so far. What counts:

    lanes that are queued or being trained   the updates that each has still to make
    later stages of early stopping           by the share of configurations that passed such a stage so far
    configurations to be suggested           as many as are possible: of a grid or another finite space no more than it has.
                                             Those that repeat an earlier one, by the share so far, cost nothing
    confirmation                             of the best

A lane may end before its budget (solved, with `stop: solved`, or diverged). How many updates lanes make is estimated by Kaplan
and Meier's method, by cell, in which those that are being trained count as not ended yet: the first lanes that end are the
quick ones. The most is what is left if no lane ends early and nothing is stopped.

Time counts while at least one worker trains: the start of Ray and of workers, and compilation, would make updates look slow.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweeps.runner.driver import CellProgress, ConfigurationProgress, Driver
from sweeps.search import count_different, file_values
from sweeps.search.stopping import Stage, stages

MEMORY_S = 120.0
"""How long the speed of the workers is remembered: cluster nodes come and go."""
FEWEST_REPORTS = 20
"""Reports of workers that are remembered however old they are."""
MOST_SINCE_S = 10.0
"""Seconds after a report that count as training."""
BREAK_S = 2.0
"""Time without training that is not left out: what workers need between two packs."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Left:
    """What is left of a sweep."""

    steps: float
    """Optimiser updates, as expected."""
    most_steps: float
    seconds: float | None
    """As expected; None while no update was made."""
    most_seconds: float | None
    guessed: bool
    """Lanes may end early, or configurations be stopped, and none has so far: what is expected is not known yet."""


class Lengths:
    """How many updates lanes make: the estimate of Kaplan and Meier, from lanes that ended and lanes that have not.

    `ended` has the updates of lanes that ended before their budget, `others` those of the others, so far.
    """

    def __init__(self, ended: Numbers, others: Numbers) -> None:
        every = np.concatenate([ended, others])
        self.at = np.unique(ended)
        at_risk = len(every) - np.searchsorted(np.sort(every), self.at, side="left")
        deaths = np.searchsorted(np.sort(ended), self.at, side="right") - np.searchsorted(np.sort(ended), self.at, side="left")
        share = np.cumprod(1 - deaths / np.maximum(at_risk, 1)) if len(self.at) else np.array([])
        self.share = np.concatenate([[1.0], share])
        """Of lanes that go on, from each of 0 and `at` on."""
        self.area = np.concatenate([[0.0], np.cumsum(np.diff(self.at, prepend=0.0) * self.share[:-1])])
        """Under `share`, from 0 to each of 0 and `at`."""

    def mean(self, steps: float | Numbers) -> Numbers:
        """Return the mean number of updates of lanes that may make so many."""
        x = np.asarray(steps, dtype=np.float64)
        which = np.searchsorted(self.at, x, side="right")
        return np.asarray(self.area[which] + self.share[which] * (x - np.concatenate([[0.0], self.at])[which]))

    def rest(self, made: Numbers, budget: Numbers) -> Numbers:
        """Return the mean number of further updates of lanes that have made so many of their budgets."""
        alive = self.share[np.searchsorted(self.at, made, side="right")]
        left = np.maximum(0.0, budget - made)
        more = np.maximum(0.0, self.mean(np.maximum(budget, made)) - self.mean(made))
        return np.where(alive > 0, np.minimum(left, more / np.maximum(alive, 1e-12)), left)


class Forecast:
    """The forecast of one driver's run. Call `observe` at every event; `clock` returns seconds."""

    def __init__(self, driver: Driver, clock: Callable[[], float] = time.monotonic) -> None:
        self._driver, self._clock = driver, clock
        self._reports: deque[tuple[float, float, int]] = deque()  # when, seconds that the worker trained, its updates
        self._spans: deque[tuple[float, float]] = deque()  # when a worker trained, as far as it is known
        self._counted_s, self._counted_steps = self._worked()
        self._last_s = clock()
        self._different: dict[str, float] = {}

    def observe(self) -> None:
        """Count what a worker has reported since the last call."""
        now, (seconds, steps) = self._clock(), self._worked()
        new_s, new_steps = seconds - self._counted_s, steps - self._counted_steps
        if not new_steps:
            return
        self._counted_s, self._counted_steps = seconds, steps
        began = now - new_s if new_s > 0 else self._last_s  # where workers do not say how long they trained
        self._last_s = now
        self._reports.append((now, new_s, new_steps))
        while self._spans and self._spans[-1][1] >= began - BREAK_S:
            began = min(began, self._spans.pop()[0])
        self._spans.append((began, now))
        while len(self._reports) > FEWEST_REPORTS and self._reports[0][0] < now - MEMORY_S:
            self._reports.popleft()
        while len(self._spans) > 1 and self._spans[0][1] < self._first_s():
            self._spans.popleft()

    def _worked(self) -> tuple[float, int]:
        return sum(seconds for seconds, _ in self._driver.worked.values()), self._driver.seed_steps

    def _first_s(self) -> float:
        """Return the beginning of the first report that is remembered."""
        at, seconds, _ = self._reports[0]
        return at - seconds

    def _trained_s(self) -> float:
        """Return for how long at least one worker trained, as far as it is remembered."""
        return sum(end - max(begin, self._first_s()) for begin, end in self._spans) if self._reports else 0.0

    @property
    def rate(self) -> float:
        """Updates a second while workers train."""
        trained_s = self._trained_s()
        return sum(steps for _, _, steps in self._reports) / trained_s if trained_s > 0 else 0.0

    def left(self) -> Left:
        """Return what is left, as of now."""
        driver = self._driver
        lanes = [(queued.configurations[0], queued.lane.budget, made) for queued, made in driver.unfinished_lanes()]
        lengths = self._lengths(lanes)
        cost = self._costs()
        expected = most = expected_s = most_s = 0.0
        by_kind: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for entry, budget, made in lanes:
            by_kind.setdefault((entry.configuration.cell, entry.structure), []).append((made, budget))
        for (cell, structure), pairs in by_kind.items():
            made, budgets = np.array(pairs, dtype=np.float64).T
            more, all_of_it = float(lengths[cell].rest(made, budgets).sum()), float(np.maximum(0.0, budgets - made).sum())
            expected, most = expected + more, most + all_of_it
            expected_s, most_s = expected_s + more * cost(structure), most_s + all_of_it * cost(structure)
        passing = self._passing()
        for progress in driver.cells:
            of_cell = lengths[progress.cell.key]
            found = next(iter(progress.configurations.values()), None)
            price = cost(found.structure if found else "")
            for more, all_of_it in (
                *self._later_stages(progress, of_cell, passing),
                *self._to_come(progress, of_cell, passing),
            ):
                expected, most = expected + more, most + all_of_it
                expected_s, most_s = expected_s + more * price, most_s + all_of_it * price
        # Workers report every few seconds; until the next report they go on as before.
        since = min(self._clock() - self._last_s, MOST_SINCE_S) if driver.phases.training else 0.0
        guessed, rate, trained_s = self._guessed(lengths, passing), self.rate, self._trained_s()
        if rate == 0:
            return Left(expected, most, None, None, guessed)
        busy = sum(seconds for _, seconds, _ in self._reports) / trained_s  # workers, on average
        if busy == 0:  # workers do not say how long they trained
            expected_s, most_s, busy = expected, most, rate
        # Workers that start or compile will train too; when they do is not known, so at most is what is left without them.
        training = driver.phases.training
        joining = len(driver.packs_running) / training if training else 1.0
        return Left(expected, most, max(0.0, expected_s / busy / joining - since), max(0.0, most_s / busy - since), guessed)

    def _costs(self) -> Callable[[str], float]:
        """Return the worker-seconds that an update of a structure takes; the average for one that has not been trained."""
        worked = {key: (seconds, steps) for key, (seconds, steps) in self._driver.worked.items() if steps and seconds > 0}
        total_s, total = (sum(column) for column in zip(*worked.values(), strict=True)) if worked else (0.0, 0)
        average = total_s / total if total else 1.0

        def cost(structure: str) -> float:
            seconds, steps = worked.get(structure, (0.0, 0))
            return seconds / steps if steps else average

        return cost

    def _lengths(self, unfinished: list[tuple[ConfigurationProgress, int, float]]) -> dict[str, Lengths]:
        """Return the lengths of lanes by cell."""
        others: dict[str, list[float]] = {}
        for entry, _, made in unfinished:
            if made > 0:
                others.setdefault(entry.configuration.cell, []).append(made)
        found = {}
        for progress in self._driver.cells:
            key = progress.cell.key
            longest: dict[str, tuple[int, int]] = {}  # by lane: of stages with more and more steps the last
            for entry in (*progress.configurations.values(), *(progress.confirmations or {}).values()):
                for result in entry.results.values():
                    if result.outcome != "error":
                        longest[result.key] = max(longest.get(result.key, (0, 0)), (result.budget, result.steps))
            ended = [float(steps) for budget, steps in longest.values() if steps < budget]
            full = [float(steps) for budget, steps in longest.values() if steps >= budget]
            found[key] = Lengths(np.array(ended), np.array([*full, *others.get(key, [])]))
        return found

    def _passing(self) -> dict[int, float]:
        """Return the share of configurations that pass each stage, as far as some have been decided on."""
        passed: dict[int, int] = {}
        stopped: dict[int, int] = {}
        for progress in self._driver.cells:
            for entry in progress.configurations.values():
                for stage in range(entry.stage):
                    passed[stage] = passed.get(stage, 0) + 1
                if entry.configuration.state == "pruned":
                    stopped[entry.stage] = stopped.get(entry.stage, 0) + 1
        decided = {stage: passed.get(stage, 0) + stopped.get(stage, 0) for stage in {*passed, *stopped}}
        return {stage: (passed.get(stage, 0) + 0.5) / (n + 1) for stage, n in decided.items()}

    def _later_stages(
        self, progress: CellProgress, lengths: Lengths, passing: dict[int, float]
    ) -> Iterator[tuple[float, float]]:  # fmt: skip
        """Yield the updates, as expected and at most, of the stages that configurations may come to."""
        for entry in progress.configurations.values():
            if not entry.ended:
                yield _cost_of_stages(entry.stages, lengths, passing, entry.stage + 1)

    def _to_come(
        self, progress: CellProgress, lengths: Lengths, passing: dict[int, float]
    ) -> Iterator[tuple[float, float]]:  # fmt: skip
        """Yield the updates, as expected and at most, of configurations that are not suggested yet, and of confirmation."""
        driver, known = self._driver, progress.configurations
        first = next(iter(known.values()), None)
        if first is None:
            return
        if not progress.all_suggested:
            different = len({frozenset(entry.keys.values()) for entry in known.values()})
            count = min(progress.limit - len(known), self._possible(progress) - different)
            stopping = driver.sweep.early_stopping
            expected, most = _cost_of_stages(stages(stopping, len(driver.sweep.seeds), first.budget), lengths, passing, 0)
            yield max(0.0, count) * expected * different / len(known), max(0.0, count) * most
        if progress.confirmations is None:
            count = driver.most_confirmed(progress)
            yield count * float(lengths.mean(float(first.budget))), float(count * first.budget)

    def _possible(self, progress: CellProgress) -> float:
        """Return how many different configurations a cell can have."""
        key = progress.cell.key
        if key not in self._different:
            first = next(iter(progress.configurations.values()))
            own = file_values(progress.cell.space, first.configuration.settings)
            found = count_different(progress.cell.space, own)
            self._different[key] = math.inf if found is None else float(found)
        return self._different[key]

    def _guessed(self, lengths: dict[str, Lengths], passing: dict[int, float]) -> bool:
        driver = self._driver
        if driver.may_stop_early and not passing:
            return True
        lanes_may_end = any(
            entry.configuration.settings["train"].get("stop") == "solved"
            for progress in driver.cells
            for entry in list(progress.configurations.values())[:1]
        )
        return lanes_may_end and not any(len(one.at) for one in lengths.values())


def _cost_of_stages(
    all_stages: tuple[Stage, ...], lengths: Lengths, passing: dict[int, float], first: int
) -> tuple[float, float]:
    """Return the updates of the stages from one on, as expected and at most. A stage continues the lanes of the one before."""
    expected = most = 0.0
    reached = passing.get(first - 1, 1.0) if first else 1.0
    for number in range(first, len(all_stages)):
        stage, before = all_stages[number], all_stages[number - 1] if number else Stage(0, 0)
        mean, mean_before = float(lengths.mean(float(stage.steps))), float(lengths.mean(float(before.steps)))
        continued = min(before.seeds, stage.seeds)
        expected += reached * (continued * (mean - mean_before) + (stage.seeds - continued) * mean)
        most += continued * (stage.steps - before.steps) + (stage.seeds - continued) * stage.steps
        reached *= passing.get(number, 1.0)
    return expected, float(most)
