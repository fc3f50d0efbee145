"""Lanes that are trained side by side: when each is evaluated, when it ends, and what it has found."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils import _pytree as pytree

from arith_models.base import Unit
from sweeps.training.lane import SPARSITY_ERROR, Checkpoint, Curve, Lane, LaneResult, error_result, exception_text, judge
from sweeps.training.looped import LoopedEvaluation
from sweeps.training.settings import REMOVABLE, Build, Built, structure
from sweeps.training.state import (
    NOT_FINITE,
    RUNNING,
    LaneState,
    best_of,
    from_bytes,
    rows_of,
    stacked,
    state_without_weights,
    tensors_of,
    to_bytes,
)
from sweeps.training.step import LaneFunctions
from sweeps.training.trainers import Numbers, Start, trainer_for

RUN_S = 0.5
"""Seconds of training between two readings of the clock."""
FIRST_RUN = 200
"""Updates before the first reading."""
BATCH = 250
"""Lanes whose checkpoints are made together."""


@dataclass
class Place:
    """The lane at a place: what is not in arrays."""

    lane: Lane
    built: Built
    _threshold: float | None = None
    _has_threshold: bool = False

    @property
    def threshold(self) -> float | None:
        """Computed when it is first needed: it takes a second or two, and training can begin before."""
        if not self._has_threshold:
            self._threshold, self._has_threshold = self.built.task.threshold(), True
        return self._threshold


class Curves:
    """The learning curves of all places, as arrays that grow."""

    def __init__(self, num_places: int) -> None:
        self.length = np.zeros(num_places, np.int64)
        self.last_step = np.full(num_places, -1, np.int64)
        self._step = np.zeros((num_places, 16), np.int64)
        self._columns: dict[str, npt.NDArray[np.float32]] = {}

    def add(self, which: Numbers, step: Numbers, values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Append an evaluation of each of these places."""
        self._reserve(int(self.length[which].max()) + 1, values)
        at = self.length[which]
        self._step[which, at] = step
        for name, value in values.items():
            self._columns[name][which, at] = value
        self.length[which] += 1
        self.last_step[which] = step

    def put(self, place: int, curve: Curve) -> None:
        """Begin a place with a curve; an empty one clears it."""
        n = len(curve.step)
        self.length[place], self.last_step[place] = n, curve.step[-1] if n else -1
        if not n:
            return
        columns = curve.columns()
        del columns["step"]
        self._reserve(n, columns)
        self._step[place, :n] = curve.step
        for name, column in columns.items():
            self._columns[name][place, :n] = column

    def of(self, place: int) -> Curve:
        """A place's curve as plain data."""
        n = int(self.length[place])
        return Curve.of_columns({name: column[0].tolist() for name, column in self.columns(np.array([place]), n).items()})

    def columns(self, which: Numbers, length: int) -> dict[str, npt.NDArray[Any]]:
        """The columns of places whose curves have this length, [places, length]."""
        named = self._columns if length else {}
        return {"step": self._step[which, :length], **{name: column[which, :length] for name, column in named.items()}}

    def _reserve(self, length: int, names: Mapping[str, Any]) -> None:
        if length > self._step.shape[1]:
            more = max(length, 2 * self._step.shape[1]) - self._step.shape[1]
            self._step = np.pad(self._step, ((0, 0), (0, more)))
            self._columns = {name: np.pad(column, ((0, 0), (0, more))) for name, column in self._columns.items()}
        for name in names:
            if name not in self._columns:
                self._columns[name] = np.full(self._step.shape, np.nan, np.float32)


class LengthCurve:
    """The errors of a finished lane by length, measured one length a call of `advance` until `result` is set."""

    def __init__(self, finished: LaneResult, functions: LaneFunctions, tensors: dict[str, Any], compiled: bool) -> None:
        """`tensors` has the lane's own `params`, `memory` and `floats`, with a slot axis of one."""
        self.finished = finished
        self._task, self._tensors = functions.built.task, tensors
        self._evaluation = LoopedEvaluation(functions, compiled, inputs_shared=True)
        self._remaining = deque(self._task.curve_lengths)
        self._columns: dict[str, list[float]] = {}

    @property
    def result(self) -> LaneResult | None:
        """The lane's result with `by_length`, or None while lengths are left."""
        return None if self._remaining else replace(self.finished, by_length=self._columns)

    @property
    def why_uncompiled(self) -> str | None:
        """Why a part of its evaluation is not compiled, or None."""
        return self._evaluation.why_uncompiled

    def advance(self) -> None:
        """Measure the next length."""
        length = self._remaining.popleft()
        x = self._task.curve_inputs(length)
        target = self._task.truth(x, self.finished.seed)
        device = next(iter(self._tensors["params"].values())).device
        inputs, targets = tensors_of((x, target), device)
        targets = pytree.tree_map(lambda t: t.unsqueeze(0), targets)
        params, memory, floats = (self._tensors[name] for name in ("params", "memory", "floats"))
        values = self._evaluation(params, memory, floats, {"at": inputs}, {"at": targets}, {})
        row = {"length": length, "rows": len(x[0])} | {
            name.removesuffix(".at"): v.item() for name, v in values.items() if name != SPARSITY_ERROR
        }
        for name, value in row.items():
            self._columns.setdefault(name, []).append(value)


class Pack:
    """Trains lanes of equal structure, each to its own next evaluation.

    Call `advance` until `done`: it evaluates, then trains. `build` makes the objects of a lane's settings. `zero_floats`
    are paths of float settings that are 0 in every lane; those of REMOVABLE are left out of the step. `slots`: lanes of a
    network that repeats a cell train so many at once, in steps that they make together; another one takes the place of a
    lane that has ended. All other lanes have a place from the beginning. `threads` take lanes in turn. `source` is a digest
    of the code that the lanes are made of, by which compiled programs are found again. A lane that cannot be built, and a
    failure of the whole step, are returned as results with outcome "error". Raises ValueError where the lanes have several
    structures, and what `build` raises for the first.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        slots: int,
        build: Build,
        zero_floats: frozenset[str] = frozenset(),
        device: str = "cpu",
        compiled: bool = True,
        threads: int = 1,
        source: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.built = build(lanes[0].settings)
        evaluation_only = self.built.task.evaluation_only
        texts = {id(lane.settings): lane.settings for lane in lanes}
        structures = {structure(settings, evaluation_only) for settings in texts.values()}
        if len(structures) != 1:
            raise ValueError(f"the lanes of a pack must have one structure, but these have {len(structures)}")
        self._build, self._built, self._clock = build, {id(lanes[0].settings): self.built}, clock
        self._like: dict[int, LaneState] = {}  # the shapes of a checkpoint, by the identity of what is built
        self.queued = deque(lanes)
        self.device, self.compiled = torch.device(device), compiled
        self.zero_floats = zero_floats & REMOVABLE
        kind, self.num_places = trainer_for(lanes, self.built, slots)
        self.trainer = kind(
            lanes, self.built, self.zero_floats, structures.pop(), self.num_places,
            device=self.device, compiled=compiled, source=source, threads=threads,
        )  # fmt: skip
        self.places: list[Place | None] = [None] * self.num_places
        self.measuring: deque[LengthCurve] = deque()
        """Finished lanes whose errors by length are not all measured."""
        self.interval = self.built.train.evaluate_every
        self.curves = Curves(self.num_places)
        self.seed_steps = 0
        self.began: float | None = None
        """The clock after the first steps: before them programs are compiled or loaded."""
        self.note: str | None = None
        """What a user should know about a lane that has no error."""
        P = self.num_places
        self._restarting = any(unit.restarts is not Unit.restarts for unit, _ in self.built.units)
        self._wall_time_s = np.zeros(P)
        self._best_guide = np.full(P, math.inf)  # lowest interpolation error so far
        self._test_at_best = np.full(P, math.nan)
        self._has_best = np.zeros(P, bool)  # a state is kept that is not the present one
        self._saved_step = np.full(P, -1)  # of the last checkpoint
        self._threshold = np.full(P, math.nan)
        self._stops = np.zeros(P, bool)
        self._best: LaneState | None = None
        self._updates_per_run = 1 if self.trainer.together else FIRST_RUN

    @property
    def done(self) -> bool:
        return not self.queued and not any(self.places) and not self.measuring

    @property
    def tensors(self) -> dict[str, Any]:
        """The stacked tensors of all places."""
        return self.trainer.tensors

    @property
    def why_uncompiled(self) -> str | None:
        reasons = (self.trainer.why_uncompiled, *(curve.why_uncompiled for curve in self.measuring))
        return next((reason for reason in reasons if reason is not None), None)

    def advance(self, until: float = math.inf) -> list[LaneResult]:
        """Evaluate the lanes that are due, end those that have finished, fill places; then train to the next evaluations.

        Training pauses when the clock reaches `until`, after a step at least; the next call continues from there.
        """
        results: list[LaneResult] = []
        try:
            results += self._measure_next_length()
            freed = True
            while freed and (self.queued or any(self.places)):
                results += self._fill()
                self._evaluate()
                finished = self._free_finished()
                results += finished
                freed = bool(finished) and bool(self.queued)
            if any(self.places):
                self._train(until)
        except Exception as error:  # whatever a model or task raises inside the step is data about these lanes
            results += self._fail_all(exception_text(error))
        return results

    def stepper(self) -> Callable[[int], None]:
        """Fill the places, and return a function that trains them a number of steps without evaluation, for measuring."""
        self._fill()
        self.trainer.prepare()
        every = np.arange(self.num_places, dtype=np.int64)

        def run(count: int) -> None:
            self.trainer.train(every, np.full(self.num_places, count, np.int64))

        return run

    def checkpoints(self) -> dict[str, Checkpoint]:
        """Return the exact checkpoint of every lane that has no result yet, by its key."""
        return self._checkpoints(np.flatnonzero(self._taken()), math.inf)

    def next_checkpoints(self, seconds: float) -> dict[str, Checkpoint]:
        """Return checkpoints of lanes that have made steps since their last one, those with the oldest first.

        They are made in batches, one at least, until so many seconds are over.
        """
        which = np.flatnonzero(self._taken() & (self._steps() != self._saved_step))
        return self._checkpoints(which[np.argsort(self._saved_step[which], kind="stable")], seconds)

    def _checkpoints(self, which: Numbers, seconds: float) -> dict[str, Checkpoint]:
        found = {m.finished.key: Checkpoint(m.finished.steps, m.finished.state) for m in self.measuring if m.finished.state}
        until, steps = self._clock() + seconds, self._steps()
        for first in range(0, len(which), BATCH):
            batch = which[first : first + BATCH]
            for k, blob in zip(batch.tolist(), self._bytes_of(batch), strict=True):
                place = self.places[k]
                assert place is not None
                found[place.lane.key] = Checkpoint(int(steps[k]), blob)
            self._saved_step[batch] = steps[batch]
            if self._clock() >= until:
                break
        return found

    # -- the lanes at places

    def _steps(self) -> Numbers:
        found: Numbers = self.trainer.state["step"].cpu().numpy()
        return found

    def _status(self) -> Numbers:
        found: Numbers = self.trainer.state["status"].cpu().numpy()
        return found

    def _budgets(self) -> Numbers:
        found: Numbers = self.tensors["budget"].cpu().numpy()
        return found

    def _taken(self) -> npt.NDArray[np.bool_]:
        return np.array([place is not None for place in self.places])

    def _fill(self) -> list[LaneResult]:
        """Let queued lanes take the free places."""
        failed: list[LaneResult] = []
        free = deque(k for k, place in enumerate(self.places) if place is None) if self.queued else deque()
        starts: list[tuple[Start, Curve, float, LaneState | None]] = []
        while self.queued and free:
            lane = self.queued.popleft()
            try:
                built = self._built.get(id(lane.settings))
                if built is None:
                    built = self._built[id(lane.settings)] = self._build(lane.settings)
                starts.append(self._start_of(free[0], lane, built))
                free.popleft()
            except Exception as error:  # a fault of one lane's settings is no reason to lose the others
                failed.append(error_result(lane, exception_text(error)))
        if not starts:
            return failed
        failed_before = len(failed)
        try:
            self.trainer.start([start for start, *_ in starts])
        except Exception:  # one by one, to find the lanes that cannot be started
            kept, failed_before = [], -1
            for entry in starts:
                try:
                    self.trainer.start([entry[0]])
                    kept.append(entry)
                except Exception as error:
                    self.trainer.free(entry[0].place)
                    failed.append(error_result(entry[0].lane, exception_text(error)))
            starts = kept
        try:
            if failed_before != len(failed) and starts:
                self.trainer.start([start for start, *_ in starts])
            self._take(starts)
        except Exception as error:  # each can be started, but all together cannot: no lane is lost without a result
            for start, *_ in starts:
                self.places[start.place] = None
                self.trainer.free(start.place)
                failed.append(error_result(start.lane, exception_text(error)))
        return failed

    def _start_of(self, place: int, lane: Lane, built: Built) -> tuple[Start, Curve, float, LaneState | None]:
        """A lane with the state of its checkpoint, or without one.

        A checkpoint at the end of another budget, where this one has no evaluation, is not continued: the lane starts over.
        So it does, with a note, where the checkpoint is damaged: its numbers are the same, and only time is lost.
        """
        nothing = (Start(place, lane, built, None), Curve(), 0.0, None)
        if lane.checkpoint is None:
            return nothing
        initial = self._like.get(id(built))
        if initial is None:
            initial = self._like[id(built)] = state_without_weights(built, self.device)
        try:
            state, curve, wall_time_s, best = from_bytes(lane.checkpoint.state, initial)
        except ValueError as error:
            self.note = f"seed {lane.seed} starts over, from step 0: {error}"
            return nothing
        if curve.step and curve.step[-1] % self.interval:
            return nothing
        return Start(place, lane, built, state), curve, wall_time_s, best

    def _take(self, starts: Sequence[tuple[Start, Curve, float, LaneState | None]]) -> None:
        """Let lanes have their places, with what their checkpoints hold besides the state."""
        best_states = {}
        for start, curve, wall_time_s, best in starts:
            self._take_one(start, curve, wall_time_s)
            if start.state is not None and curve.step:
                # Without one of its own the state is that of the best evaluation.
                best_states[start.place] = best_of(start.state) if best is None else best
        if best_states:
            self._keep_best(np.array(list(best_states)), stacked(list(best_states.values())))

    def _take_one(self, start: Start, curve: Curve, wall_time_s: float) -> None:
        k = start.place
        self.places[k] = Place(start.lane, start.built)
        self.curves.put(k, curve)
        self._wall_time_s[k] = wall_time_s
        self._saved_step[k] = -1 if start.state is None else int(start.state["step"])
        self._best_guide[k], self._test_at_best[k], self._has_best[k] = math.inf, math.nan, False
        self._stops[k], self._threshold[k] = start.built.train.stop == "solved", math.nan
        if curve.step:
            guide, test = _guide_and_test(curve.error)
            numbers = [v if not math.isnan(v) else math.inf for v in guide] if guide is not None else None
            row = min(range(len(numbers)), key=numbers.__getitem__) if numbers is not None else len(curve.step) - 1
            self._best_guide[k] = numbers[row] if numbers is not None else math.inf
            # As in `judge`: an evaluation without a finite guide decides nothing.
            self._test_at_best[k] = test[row] if numbers is None or math.isfinite(numbers[row]) else math.nan

    def _keep_best(self, which: Numbers, rows: LaneState) -> None:
        """Keep the states of these places as those at their best evaluations."""
        if self._best is None:
            self._best = pytree.tree_map(torch.zeros_like, best_of(self.trainer.state))
        index = torch.from_numpy(which).to(self.device)
        for target, value in zip(pytree.tree_leaves(self._best), pytree.tree_leaves(rows), strict=True):
            target[index] = value
        self._has_best[which] = True

    # -- evaluation

    def _evaluate(self) -> None:
        steps = self._steps()
        due = self._taken() & (self._status() == RUNNING) & (self.curves.last_step < steps)
        due &= (steps % self.interval == 0) | (steps >= self._budgets())
        which = np.flatnonzero(due)
        if not len(which):
            return
        values = self.trainer.evaluate(which)
        state = self.trainer.state
        index = torch.from_numpy(which).to(self.device)
        for name in self.built.network.reported_memory:
            values[f"memory.{name}"] = state["memory"]["model"][name][index].cpu().numpy()
        self.curves.add(which, steps[which], values)
        guide, test = _guide_and_test({n.removeprefix("error."): v for n, v in values.items() if n.startswith("error.")})
        last = next(iter(values.values())) if guide is None else guide
        state["last_error"][index] = torch.from_numpy(np.asarray(last, np.float32)).to(self.device)
        if guide is None:  # the last evaluation is the best: kept, because a lane may diverge after it
            self._test_at_best[which] = test
            at = torch.from_numpy(which).to(self.device)
            self._keep_best(which, pytree.tree_map(lambda t: t[at], best_of(state)))
        else:
            better = guide < self._best_guide[which]  # the first of equals; NaN is never better
            first = self.curves.length[which] == 1
            improved = which[better | first]
            self._best_guide[improved] = np.where(np.isnan(guide), math.inf, guide)[better | first]
            self._test_at_best[improved] = np.where(np.isfinite(guide), test, math.nan)[better | first]
            if len(improved):
                at = torch.from_numpy(improved).to(self.device)
                self._keep_best(improved, pytree.tree_map(lambda t: t[at], best_of(state)))
        if self._restarting:
            for k in which.tolist():
                self._restart_if_stalled(k, int(steps[k]))

    def _restart_if_stalled(self, k: int, step: int) -> None:
        """Draw new weights, from the seed and the step, where a unit's `restarts` returns True.

        The evaluation at this step is that of the old weights, and the first that the next call of `restarts` is given.
        """
        place, restarted_at = self.places[k], int(self.trainer.state["restarted_at"][k])
        assert place is not None
        curve = self.curves.of(k)
        since = [e for s, e in zip(curve.step, curve.error.get("interpolation", []), strict=False) if s >= restarted_at]
        if step == restarted_at or not any(unit.restarts(config, since, self.interval) for unit, config in place.built.units):
            return
        self.trainer.redraw(k, place.built, place.lane.seed, f"restart {step}")
        self.trainer.state["restarted_at"][k] = step

    def _free_finished(self) -> list[LaneResult]:
        """The results of lanes that have ended; those with lengths to measure are moved to `measuring`."""
        steps, status = self._steps(), self._status()
        taken = self._taken()
        ended = taken & ((status != RUNNING) | (steps >= self._budgets()))
        open_ = taken & ~ended & self._stops & (self.curves.last_step == steps)
        for k in np.flatnonzero(open_ & np.isnan(self._threshold)).tolist():
            with_threshold = self.places[k]
            assert with_threshold is not None
            self._threshold[k] = self._threshold_of(with_threshold)
        ended |= open_ & (self._test_at_best < self._threshold)
        results = []
        which = np.flatnonzero(ended)
        for k, state in zip(which.tolist(), self._bytes_of(which), strict=True):
            place = self.places[k]
            assert place is not None
            diverged = None
            if status[k] != RUNNING:
                diverged = f"diverged at step {steps[k]}: {NOT_FINITE[int(status[k])]} is not finite"
            curve = self.curves.of(k)
            try:
                result = judge(place.lane, curve, place.threshold, int(steps[k]), diverged)
            except Exception as error:  # the threshold of one lane is no reason to lose the others
                results.append(error_result(place.lane, exception_text(error)))
                self._free(k)
                continue
            result = replace(
                result, curve=curve.as_dict(), wall_time_s=float(self._wall_time_s[k]), state=state
            )  # fmt: skip
            if diverged is None and place.built.task.curve_lengths:
                self.measuring.append(self._length_curve(k, place, result))
            else:
                results.append(result)
            self._free(k)
        return results

    def _threshold_of(self, place: Place) -> float:
        try:
            found = place.threshold
        except Exception:  # it is reported when the lane has ended
            return -math.inf
        return -math.inf if found is None else found

    def _length_curve(self, k: int, place: Place, result: LaneResult) -> LengthCurve:
        state = self.trainer.state
        tensors = {"params": state["params"], "memory": state["memory"], "floats": self.tensors["floats"]}
        one_lane = pytree.tree_map(lambda x: x[k : k + 1].clone(), tensors)
        functions = LaneFunctions(place.built, self.zero_floats)
        return LengthCurve(result, functions, one_lane, self.compiled)

    def _bytes_of(self, which: Numbers) -> list[bytes]:
        """The checkpoints of places. Those with curves of one length, and with or without a best state, are made together."""
        apart = self._has_best[which] & ~self._is_best(which)
        kinds = list(zip(self.curves.length[which].tolist(), apart.tolist(), strict=True))
        found = [b""] * len(which)
        for length, has_other in dict.fromkeys(kinds):
            numbers = [n for n, kind in enumerate(kinds) if kind == (length, has_other)]
            some = which[numbers]
            states, best = rows_of(self.trainer.state, some), rows_of(self._best or {}, some) if has_other else None
            blobs = to_bytes(states, self.curves.columns(some, length), self._wall_time_s[some], best)
            for number, blob in zip(numbers, blobs, strict=True):
                found[number] = blob
        return found

    def _is_best(self, which: Numbers) -> npt.NDArray[np.bool_]:
        """Whether the states of places are still those of the best evaluations."""
        at = torch.from_numpy(which).to(self.device)
        if self._best is None:
            return np.ones(len(which), bool)
        same = torch.ones(len(which), dtype=torch.bool, device=self.device)
        for now, best in zip(pytree.tree_leaves(best_of(self.trainer.state)), pytree.tree_leaves(self._best), strict=True):
            same &= (now[at] == best[at]).flatten(1).all(1) if now.dim() > 1 else now[at] == best[at]
        found: npt.NDArray[np.bool_] = same.cpu().numpy()
        return found

    def _free(self, k: int) -> None:
        self.places[k] = None
        self._has_best[k] = False
        self.trainer.free(k)

    def _measure_next_length(self) -> list[LaneResult]:
        """Measure one length of one finished lane; its result, if it was the last."""
        if not self.measuring:
            return []
        self.measuring[0].advance()
        result = self.measuring[0].result
        if result is None:
            return []
        self.measuring.popleft()
        return [result]

    # -- training

    def _train(self, until: float) -> None:
        """Train every lane to its next evaluation, in runs of `RUN_S`: the clock is read between them."""
        steps = self._steps().copy()
        live = np.flatnonzero(self._taken() & (self._status() == RUNNING))
        left = np.minimum(self.interval - steps[live] % self.interval, self._budgets()[live] - steps[live])
        if self.trainer.together and len(live):
            left[:] = left.min()
        # Lanes that are behind come first, so that all have nearly the same number of updates when time is over.
        order = np.lexsort((live, steps[live]))
        live, left = live[order], left[order]
        before = steps[live]
        while left.any():
            which, count = self._next_run(live, left)
            started = self._clock()
            self.trainer.train(live[which], count)
            now = self._clock()
            self.began = now if self.began is None else self.began
            left[which] -= count
            left[which[self._status()[live[which]] != RUNNING]] = 0  # such lanes make no more steps
            reached = self._steps()[live[which]]
            done = int((reached - before[which]).sum())
            before[which] = reached
            self._wall_time_s[live[which]] += (now - started) / len(which)
            if done:
                self._updates_per_run = max(1, min(4 * done, int(done / max(now - started, 1e-6) * RUN_S)))
            if now >= until:
                break
        self.seed_steps += int((self._steps() - steps).sum())

    def _next_run(self, live: Numbers, left: Numbers) -> tuple[Numbers, Numbers]:
        """Which lanes are trained next, and how many steps: about `_updates_per_run` together."""
        budget = self._updates_per_run
        waiting = np.flatnonzero(left)
        if self.trainer.together:
            steps = min(int(left[waiting].max()), max(1, budget // len(live)))
            return np.arange(len(live)), np.full(len(live), steps, np.int64)
        most = max(1, budget // self.trainer.threads)
        count = np.minimum(left[waiting], most)
        chosen = max(1, int(np.searchsorted(np.cumsum(count), budget, side="right")), min(len(waiting), self.trainer.threads))
        return waiting[:chosen], count[:chosen]

    def _fail_all(self, reason: str) -> list[LaneResult]:
        lanes = [place.lane for place in self.places if place is not None] + list(self.queued)
        failed = [error_result(lane, reason) for lane in lanes]
        failed += [
            replace(m.finished, steps=0, outcome="error", solved=False, reason=reason, curve={}, state=None)
            for m in self.measuring
        ]
        self.queued.clear()
        self.measuring.clear()
        self.places = [None] * self.num_places
        return failed


def _guide_and_test(error: Mapping[str, Any]) -> tuple[Any, Any]:
    """The errors that choose the best evaluation (None: the last is the best), and those that decide whether it is solved."""
    return error.get("interpolation"), error.get("extrapolation", next(iter(error.values())))
