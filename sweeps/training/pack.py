"""Lanes that are trained side by side, by programs that are compiled once a structure and process."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch.utils import _pytree as pytree

from sweeps.training.compile import Recorded, in_place
from sweeps.training.lane import SPARSITY_ERROR, Checkpoint, Curve, Lane, LaneResult, error_result, judge
from sweeps.training.looped import LoopedEvaluation, LoopedStep
from sweeps.training.optimizers import DOUBLE
from sweeps.training.random import seed_key, signed
from sweeps.training.settings import REMOVABLE, Build, Built, float_leaves, structure
from sweeps.training.state import (
    NOT_FINITE,
    RUNNING,
    LaneState,
    from_bytes,
    initial_params,
    initial_state,
    put,
    slot_of,
    stacked,
    tensors_of,
    to_bytes,
)
from sweeps.training.step import PURPOSES, LaneFunctions

RUN_S = 0.5
"""Seconds of training between two readings of the clock."""
LEAST_SLOTS = 3
"""With 1 or 2 the CPU library takes another matrix routine, whose rounding differs."""
MOST_UNROLLED = 10
"""Time steps of training that are compiled as one graph; more are looped over, at about half the speed (docs/benchmarks.md)."""
STEP_ARGUMENTS = ("state", "floats", "keys", "budget", "instance", "shared")


@dataclass(frozen=True)
class Programs:
    """The step and the evaluation of stacked lanes, compiled where that works."""

    step: Recorded | LoopedStep
    """`step.bind(*STEP_ARGUMENTS)` returns what trains these tensors, in place, a number of steps."""
    evaluate: Recorded | LoopedEvaluation
    """(params, memory, floats, inputs, targets, shared) -> {"error.<split>": [K], ...}"""

    @property
    def why_uncompiled(self) -> str | None:
        return self.step.why_uncompiled or self.evaluate.why_uncompiled


_KEPT: dict[tuple[Any, ...], Programs] = {}


def programs_for(structure: str, functions: LaneFunctions, tensors: Mapping[str, Any], compiled: bool) -> Programs:
    """Return the programs for the stacked `tensors` of a pack, from an earlier pack of this process where there was one.

    `tensors` holds state, floats, keys, budget, instance, shared, inputs, targets. What a task shares between lanes
    ("shared") has no slot axis, nor have evaluation inputs that are the same for all lanes ("inputs_shared").
    """
    shapes = tuple(tuple(t.shape) for t in pytree.tree_leaves(tensors) if isinstance(t, torch.Tensor))
    device, inputs_shared = str(tensors["budget"].device), tensors["inputs_shared"]
    key = (structure, functions.zero_floats, shapes, inputs_shared, device, compiled)
    if key in _KEPT:
        return _KEPT[key]

    of_step = tuple(tensors[name] for name in STEP_ARGUMENTS)
    looped = bool(functions.built.network.pieces)
    unrolled = (functions.built.task.time_steps or math.inf) <= MOST_UNROLLED and functions.built.train.products == "float32"
    step: Recorded | LoopedStep
    if looped and not unrolled:
        step = LoopedStep(functions, of_step, compiled)
    else:
        over_slots = torch.vmap(functions.step, in_dims=(0, 0, 0, 0, 0, None))
        step = Recorded(in_place(over_slots), of_step, compiled)

    evaluate: Recorded | LoopedEvaluation
    if looped:
        evaluate = LoopedEvaluation(functions, compiled, inputs_shared)
    else:

        def evaluate_slots(*arguments: Any) -> Any:
            in_dims = (0, 0, 0, None if inputs_shared else 0, 0, None)
            return torch.vmap(functions.evaluate, in_dims=in_dims)(*arguments)

        state = tensors["state"]
        others = (tensors[name] for name in ("floats", "inputs", "targets", "shared"))
        evaluate = Recorded(evaluate_slots, (state["params"], state["memory"], *others), compiled)
    _KEPT[key] = Programs(step, evaluate)
    return _KEPT[key]


@dataclass
class Slot:
    """The lane that a slot trains: what is not in the tensors."""

    lane: Lane
    built: Built
    curve: Curve
    wall_time_s: float

    @cached_property
    def threshold(self) -> float | None:
        """Computed at the lane's first evaluation: it takes a second or two, and training can begin before."""
        return self.built.task.threshold()


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
    """Trains lanes of equal structure in a fixed number of slots; a slot whose lane has ended takes the next lane.

    Call `advance` until `done`: it evaluates, then trains to the next evaluation. `build` makes the objects of a lane's
    settings. `zero_floats` are paths of float settings that are 0 in every lane; those of REMOVABLE are left out of the
    step. A lane that cannot be built, and a failure of the whole step, are returned as results with outcome "error".
    Raises ValueError where the lanes have several structures, and what `build` raises for the first.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        slots: int,
        build: Build,
        zero_floats: frozenset[str] = frozenset(),
        device: str = "cpu",
        compiled: bool = True,
    ) -> None:
        settings = lanes[0].settings
        self.built = build(settings)
        self._evaluation_only = self.built.task.evaluation_only
        structures = {structure(lane.settings, self._evaluation_only) for lane in lanes}
        if len(structures) != 1:
            raise ValueError(f"the lanes of a pack must have one structure, but these have {len(structures)}")
        (self._structure,) = structures
        self._build = build
        self.queued = deque(lanes)
        self.device, self.compiled = torch.device(device), compiled
        network = self.built.network
        self.num_slots = 1 if network.lanes_apart else max(slots, network.min_slots or LEAST_SLOTS)
        self.slots: list[Slot | None] = [None] * self.num_slots
        self.measuring: deque[LengthCurve] = deque()
        """Finished lanes whose errors by length are not all measured."""
        self.zero_floats = zero_floats & REMOVABLE
        self.interval = self.built.train.evaluate_every
        self._steps_left = 0  # to the next evaluation of any lane
        self.tensors = self._idle_tensors(lanes)
        self.programs: Programs | None = None
        self.seed_steps = 0
        self.note: str | None = None
        """What a user should know about a lane that has no error."""

    @property
    def done(self) -> bool:
        return not self.queued and not any(self.slots) and not self.measuring

    @property
    def why_uncompiled(self) -> str | None:
        reasons = (programs.why_uncompiled for programs in (self.programs, *self.measuring) if programs is not None)
        return next((reason for reason in reasons if reason is not None), None)

    def advance(self, until: float = math.inf) -> list[LaneResult]:
        """Evaluate, free the slots of finished lanes and fill them, where an evaluation is due; then train to the next one.

        Training pauses when `time.monotonic()` reaches `until`, after a step at least; the next call continues from there.
        """
        results: list[LaneResult] = []
        try:
            if self._steps_left == 0:
                results += self._measure_next_length()
                results += self._evaluate_and_refill()
            if any(self.slots):
                self._train(until)
        except Exception as error:  # whatever a model or task raises inside the step is data about these lanes
            results += self._fail_all(f"{type(error).__name__}: {error}")
        return results

    def stepper(self) -> Callable[[int], None]:
        """Fill the slots, and return a function that trains them a number of steps without evaluation, for measuring."""
        self._fill()
        return self._ready_programs().step.bind(*(self.tensors[name] for name in STEP_ARGUMENTS))

    def checkpoints(self) -> dict[str, Checkpoint]:
        """Return the exact checkpoint of every lane that has no result yet, by its key."""
        found = {m.finished.key: Checkpoint(m.finished.steps, m.finished.state) for m in self.measuring if m.finished.state}
        steps = self.tensors["state"]["step"].tolist()
        for k, slot in enumerate(self.slots):
            if slot is not None:
                found[slot.lane.key] = Checkpoint(steps[k], self._bytes_of(k, slot))
        return found

    def _evaluate_and_refill(self) -> list[LaneResult]:
        """Fill slots, evaluate and free the slots of finished lanes, until none is; then count the steps to the next time."""
        results: list[LaneResult] = []
        freed = True
        while freed and (self.queued or any(self.slots)):
            results += self._fill()
            self._evaluate()
            finished = self._free_finished()
            results += finished
            freed = bool(finished) and bool(self.queued)
        # Lanes that continue from checkpoints between evaluations keep their own steps of evaluation.
        steps = self.tensors["state"]["step"].tolist()
        left = [
            min(self.interval - steps[k] % self.interval, slot.lane.budget - steps[k])
            for k, slot in enumerate(self.slots)
            if slot
        ]
        self._steps_left = min(left, default=0)
        return results

    def _fill(self) -> list[LaneResult]:
        failed = []
        for k in range(self.num_slots):
            while self.queued and self.slots[k] is None:
                lane = self.queued.popleft()
                try:
                    self._start(k, lane)
                except Exception as error:  # a fault of one lane's settings is no reason to lose the others
                    failed.append(error_result(lane, f"{type(error).__name__}: {error}"))
        return failed

    def _start(self, k: int, lane: Lane) -> None:
        """Write a lane's tensors into a slot."""
        built = self._build(lane.settings)
        task, t = built.task, self.tensors
        state, curve, wall_time_s = self._first_state(lane, built)
        for path, value in float_leaves(lane.settings, self._evaluation_only).items():
            if path in t["floats"]:
                t["floats"][path][k] = value
        for purpose in PURPOSES:
            words = [signed(word) for word in seed_key(lane.seed, purpose)]
            t["keys"][purpose][k] = torch.tensor(words, dtype=torch.int32)
        for name, array in task.instance(lane.seed).items():
            t["instance"][name][k] = torch.from_numpy(array)
        for split in task.splits:
            x = task.evaluation_inputs(split)
            put(t["targets"][split], k, tensors_of(task.truth(x, lane.seed)))
            if not t["inputs_shared"]:
                put(t["inputs"][split], k, tensors_of(x))
        put(t["state"], k, state)
        t["budget"][k] = lane.budget
        self.slots[k] = Slot(lane, built, curve, wall_time_s)

    def _first_state(self, lane: Lane, built: Built) -> tuple[LaneState, Curve, float]:
        """The state of the lane's checkpoint, or its initial state.

        A checkpoint at the end of another budget, where this one has no evaluation, is not continued: the lane starts over.
        So it does, with a note, where the checkpoint is damaged: its numbers are the same, and only time is lost.
        """
        initial = initial_state(built, lane.seed, self.device)
        if lane.checkpoint is None:
            return initial, Curve(), 0.0
        try:
            state, curve, wall_time_s = from_bytes(lane.checkpoint.state, initial)
        except ValueError as error:
            self.note = f"seed {lane.seed} starts over, from step 0: {error}"
            return initial, Curve(), 0.0
        if curve.step and curve.step[-1] % self.interval:
            return initial, Curve(), 0.0
        return state, curve, wall_time_s

    def _evaluate(self) -> None:
        programs = self._ready_programs()
        t = self.tensors
        state = t["state"]
        steps, status = state["step"].tolist(), state["status"].tolist()
        due = [
            (k, slot)
            for k, slot in enumerate(self.slots)
            if slot is not None and status[k] == RUNNING and (steps[k] % self.interval == 0 or steps[k] >= slot.lane.budget)
        ]
        if not due:
            return
        others = (t[name] for name in ("floats", "inputs", "targets", "shared"))
        values = programs.evaluate(state["params"], state["memory"], *others)
        values |= {f"memory.{name}": state["memory"]["model"][name] for name in self.built.network.reported_memory}
        columns = {name: v.tolist() for name, v in values.items()}
        restarted_at = state["restarted_at"].tolist()
        for k, slot in due:
            if slot.curve.step[-1:] == [steps[k]] and restarted_at[k] == steps[k] > 0:
                continue  # its evaluation at this step led to new weights; only neighbours are evaluated again
            slot.curve.add(steps[k], {name: column[k] for name, column in columns.items()})
            guide = columns.get("error.interpolation") or next(iter(columns.values()))
            state["last_error"][k] = guide[k]
            self._restart_if_stalled(k, slot, steps[k], restarted_at[k])

    def _restart_if_stalled(self, k: int, slot: Slot, step: int, restarted_at: int) -> None:
        """Draw new weights, from the seed and the step, where a unit's `restarts` returns True.

        The evaluation at this step is that of the old weights, and the first that the next call of `restarts` is given.
        """
        interpolation = slot.curve.error.get("interpolation", [])
        since = [e for s, e in zip(slot.curve.step, interpolation, strict=False) if s >= restarted_at]
        if step == restarted_at or not any(unit.restarts(config, since, self.interval) for unit, config in slot.built.units):
            return
        params = initial_params(slot.built, slot.lane.seed, self.device, f"restart {step}")
        put(self.tensors["state"]["params"], k, params)
        self.tensors["state"]["restarted_at"][k] = step

    def _free_finished(self) -> list[LaneResult]:
        """The results of lanes that have ended; those with lengths to measure are moved to `measuring`."""
        state = self.tensors["state"]
        steps, status = state["step"].tolist(), state["status"].tolist()
        results = []
        for k, slot in enumerate(self.slots):
            if slot is None:
                continue
            unfinished = status[k] == RUNNING and steps[k] < slot.lane.budget
            if unfinished and slot.built.train.stop != "solved":
                continue
            diverged = None
            if status[k] != RUNNING:
                diverged = f"diverged at step {steps[k]}: {NOT_FINITE[status[k]]} is not finite"
            try:
                result = judge(slot.lane, slot.curve, slot.threshold, steps[k], diverged)
            except Exception as error:  # the threshold of one lane is no reason to lose the others
                results.append(error_result(slot.lane, f"{type(error).__name__}: {error}"))
                self._free(k)
                continue
            if unfinished and result.converged_at is None:
                continue
            result = replace(
                result,
                curve=slot.curve.as_dict(),
                wall_time_s=slot.wall_time_s,
                state=self._bytes_of(k, slot),
            )
            if diverged is None and slot.built.task.curve_lengths:
                tensors = {"params": state["params"], "memory": state["memory"], "floats": self.tensors["floats"]}
                one_lane = pytree.tree_map(lambda x, k=k: x[k : k + 1].clone(), tensors)
                functions = LaneFunctions(slot.built, self.zero_floats)
                self.measuring.append(LengthCurve(result, functions, one_lane, self.compiled))
            else:
                results.append(result)
            self._free(k)
        return results

    def _bytes_of(self, k: int, slot: Slot) -> bytes:
        return to_bytes(slot_of(self.tensors["state"], k), slot.curve, slot.wall_time_s)

    def _free(self, k: int) -> None:
        """An idle slot keeps computing on what it holds (it costs the same) but changes nothing: its budget is spent."""
        self.slots[k] = None
        self.tensors["budget"][k] = 0

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

    def _train(self, until: float) -> None:
        """Train up to `_steps_left` steps, in runs of `RUN_S`: the clock is read between them."""
        started = time.monotonic()
        t = self.tensors
        before, done, run_length = int(t["state"]["step"].sum()), 0, 1
        run = self._ready_programs().step.bind(*(t[name] for name in STEP_ARGUMENTS))
        while self._steps_left:
            count = min(run_length, self._steps_left)
            run(count)
            self._steps_left -= count
            done += count
            now = time.monotonic()
            if now >= until:
                break
            run_length = max(1, int(done / max(now - started, 1e-6) * RUN_S))
        self.seed_steps += int(t["state"]["step"].sum()) - before
        live = [slot for slot in self.slots if slot is not None]
        for slot in live:
            slot.wall_time_s += (time.monotonic() - started) / len(live)

    def _ready_programs(self) -> Programs:
        """The programs, recorded and compiled at the first call."""
        if self.programs is None:
            functions = LaneFunctions(self.built, self.zero_floats)
            self.programs = programs_for(self._structure, functions, self.tensors, self.compiled)
        return self.programs

    def _fail_all(self, reason: str) -> list[LaneResult]:
        lanes = [slot.lane for slot in self.slots if slot is not None] + list(self.queued)
        failed = [error_result(lane, reason) for lane in lanes]
        failed += [
            replace(m.finished, steps=0, outcome="error", solved=False, reason=reason, curve={}, state=None)
            for m in self.measuring
        ]
        self.queued.clear()
        self.measuring.clear()
        self._steps_left = 0
        self.slots = [None] * self.num_slots
        return failed

    def _idle_tensors(self, lanes: Sequence[Lane]) -> dict[str, Any]:
        """Stacked tensors with no lane in them; every slot is idle (budget 0)."""
        K, task, device = self.num_slots, self.built.task, self.device
        floats = float_leaves(lanes[0].settings, self._evaluation_only)
        same_task = len({str(sorted(lane.settings["task"].items())) for lane in lanes}) == 1
        x = {s: task.evaluation_inputs(s) for s in task.splits}
        inputs = tensors_of(x, device)
        instance = {n: torch.from_numpy(a).to(device) for n, a in task.instance(0).items()}
        return {
            "state": stacked([initial_state(self.built, 0, device)] * K),
            "floats": {
                p: torch.full((K,), v, dtype=torch.float64 if p in DOUBLE else torch.float32, device=device)
                for p, v in floats.items()
                if p not in self.zero_floats
            },
            "keys": {p: torch.zeros(K, 2, dtype=torch.int32, device=device) for p in PURPOSES},
            "budget": torch.zeros(K, dtype=torch.int64, device=device),
            "instance": {n: torch.stack([a] * K) for n, a in instance.items()},
            "shared": tensors_of(task.shared(), device),
            "inputs": inputs if same_task else stacked([inputs] * K),
            "inputs_shared": same_task,
            "targets": stacked([tensors_of({s: task.truth(x[s], 0) for s in task.splits}, device)] * K),
        }
