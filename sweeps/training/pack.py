"""The compiled step and evaluation of a structure, kept in the process: the second pack costs nothing."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch.utils import _pytree as pytree

from sweeps.config.settings import Built, build
from sweeps.training.checkpoint import from_bytes, put, slot_of, stacked, to_bytes
from sweeps.training.compile import Recorded, in_place
from sweeps.training.lane import Checkpoint, Curve, Lane, LaneResult, judge
from sweeps.training.looped import LoopedEvaluation, LoopedStep
from sweeps.training.random import seed_key, signed
from sweeps.training.settings import REMOVABLE, float_leaves, structure
from sweeps.training.step import (
    LOSS_NOT_FINITE,
    PURPOSES,
    RUNNING,
    LaneFunctions,
    LaneState,
    initial_params,
    tensors_of,
)


@dataclass(frozen=True)
class Programs:
    """`step.bind` of the step's arguments, in place; `evaluate(params, memory, floats, inputs, targets, shared)`."""

    step: Recorded | LoopedStep
    evaluate: Recorded | LoopedEvaluation

    @property
    def why_uncompiled(self) -> str | None:
        return self.step.why_uncompiled or self.evaluate.why_uncompiled


MOST_UNROLLED = 10
"""Time steps of training that are compiled as one graph; more are looped over, at about half the speed (docs/benchmarks.md)."""
STEP_ARGUMENTS = ("state", "floats", "keys", "budget", "instance", "shared")
_KEPT: dict[tuple[Any, ...], Programs] = {}


def programs_for(
    settings: dict[str, Any], built: Built, zeros: frozenset[str], tensors: dict[str, Any], compiled: bool
) -> Programs:
    """Programs for the stacked `tensors` of a pack: state, floats, keys, budget, instance, shared, inputs, targets.

    What a task shares between lanes ("shared") has no slot axis, nor have evaluation inputs that are the same for all
    lanes ("inputs_shared").
    """
    shapes = tuple(tuple(t.shape) for t in pytree.tree_leaves(tensors) if isinstance(t, torch.Tensor))
    device = str(tensors["budget"].device)
    key = (structure(settings), zeros, shapes, tensors["inputs_shared"], device, compiled)
    if key not in _KEPT:
        _KEPT[key] = _made(LaneFunctions(built, zeros), tensors, compiled)
    return _KEPT[key]


def _made(functions: LaneFunctions, tensors: dict[str, Any], compiled: bool) -> Programs:
    arguments = tuple(tensors[k] for k in STEP_ARGUMENTS)
    looped = bool(functions.built.network.pieces)
    if looped and (functions.built.task.time_steps or math.inf) > MOST_UNROLLED:
        step: Recorded | LoopedStep = LoopedStep(functions, arguments, compiled)
    else:
        step = Recorded(
            in_place(torch.vmap(functions.step, in_dims=(0, 0, 0, 0, 0, None))), arguments, compiled
        )
    if looped:
        return Programs(step, LoopedEvaluation(functions, compiled, tensors["inputs_shared"]))
    evaluate = partial(_evaluate, functions, None if tensors["inputs_shared"] else 0)
    state = tensors["state"]
    seen = (
        state["params"],
        state["memory"],
        *(tensors[k] for k in ("floats", "inputs", "targets", "shared")),
    )
    return Programs(step, Recorded(evaluate, seen, compiled))


def _evaluate(functions: LaneFunctions, inputs_axis: int | None, *arguments: Any) -> Any:
    return torch.vmap(functions.evaluate, in_dims=(0, 0, 0, inputs_axis, 0, None))(*arguments)


def lengths_of(task: Any) -> tuple[int, ...]:
    """Lengths at which a task wants a finished lane to be measured; none for most."""
    return tuple(task.curve_lengths)


class LengthCurve:
    """A lane that has ended, and its errors by length so far. Call `advance` until `result` is there."""

    def __init__(
        self, ended: LaneResult, built: Built, lane: dict[str, Any], zeros: frozenset[str],
        compiled: bool, device: torch.device,
    ) -> None:  # fmt: skip
        """`lane` has the lane's own `params`, `memory` and `floats`, with a slot axis of one."""
        self.ended, self._built, self._lane, self._device = ended, built, lane, device
        self._evaluation = LoopedEvaluation(LaneFunctions(built, zeros), compiled, inputs_shared=True)
        self._left = deque(lengths_of(built.task))
        self._found: dict[str, list[float]] = {}

    @property
    def result(self) -> LaneResult | None:
        """The lane's result with `by_length`, or None while lengths are left."""
        return None if self._left else replace(self.ended, by_length=self._found)

    def advance(self) -> None:
        """Measures the next length."""
        length = self._left.popleft()
        x = self._built.task.curve_inputs(length)
        target = self._built.task.truth(x, self.ended.seed)
        inputs, targets = tensors_of((x, target), self._device)
        targets = pytree.tree_map(lambda t: t.unsqueeze(0), targets)
        values = self._evaluation(
            self._lane["params"],
            self._lane["memory"],
            self._lane["floats"],
            {"at": inputs},
            {"at": targets},
            {},
        )
        row = {"length": length, "rows": len(x[0])} | {
            name.removesuffix(".at"): v.item() for name, v in values.items() if name != "sparsity_error"
        }
        for name, value in row.items():
            self._found.setdefault(name, []).append(value)


RUN_S = 0.5  # how often training looks at the clock
LEAST_SLOTS = 3  # with 1 or 2 the CPU library takes another matrix routine, whose rounding differs


class Slot:
    """A live lane's place: what the tensors do not hold."""

    def __init__(self, lane: Lane, built: Built, curve: Curve, wall_time_s: float) -> None:
        self.lane, self.built, self.curve, self.wall_time_s = lane, built, curve, wall_time_s

    @cached_property
    def threshold(self) -> float | None:
        """First computed when a lane is judged: that takes a second or two, and training can begin before."""
        found: float | None = self.built.task.threshold()
        return found


class Pack:
    """Trains lanes of equal structure. Call `advance` until `done`; it evaluates, then trains to the next evaluation.

    A lane that cannot be built, and a failure of the whole step, come back as results with outcome "error".
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        slots: int,
        zeros: frozenset[str] = frozenset(),
        device: str = "cpu",
        compiled: bool = True,
    ) -> None:
        structures = {structure(lane.settings) for lane in lanes}
        if len(structures) != 1:
            raise ValueError(f"the lanes of a pack must have one structure, but these have {len(structures)}")
        self.waiting = deque(lanes)
        self.device, self.compiled = torch.device(device), compiled
        self.settings = lanes[0].settings
        self.built = build(self.settings)
        self.num_slots = max(slots, self.built.network.min_slots or LEAST_SLOTS)
        if self.built.network.lanes_apart:
            self.num_slots = 1
        self.slots: list[Slot | None] = [None] * self.num_slots
        self.ending: deque[LengthCurve] = deque()
        self.zeros = zeros & REMOVABLE
        self.interval = self.built.train.evaluate_every
        self._steps_left = 0  # to the next evaluation of any lane
        self.tensors = self._empty_tensors(lanes)
        self.programs: Any = None
        self.seed_steps = 0

    @property
    def done(self) -> bool:
        return not self.waiting and not any(self.slots) and not self.ending

    @property
    def why_uncompiled(self) -> str | None:
        return self.programs.why_uncompiled if self.programs else None

    def advance(self, until: float = math.inf) -> list[LaneResult]:
        """Evaluates, frees what is finished and fills slots, where an evaluation is due; then trains up to the next one.

        Training pauses when `time.monotonic()` reaches `until`, after a step at least; the next call goes on from there.
        """
        results: list[LaneResult] = []
        try:
            if self._steps_left == 0:
                results += self._measure()
                results += self._turn_over()
            if any(self.slots):
                self._train(until)
        except (
            Exception
        ) as error:  # whatever a model or task raises inside the step is data about these lanes
            results += self._fail_all(f"{type(error).__name__}: {error}")
        return results

    def _turn_over(self) -> list[LaneResult]:
        """Fills slots, evaluates and frees what is finished, until nothing is; then counts the steps to the next time."""
        results: list[LaneResult] = []
        fresh = True
        while fresh and (self.waiting or any(self.slots)):
            results += self._fill()
            self._evaluate()
            ended = self._free_finished()
            results += ended
            fresh = bool(ended) and bool(self.waiting)
        # Lanes that go on from checkpoints between evaluations keep their own steps of evaluation.
        steps = self.tensors["state"]["step"].tolist()
        left = [self.interval - steps[k] % self.interval for k, slot in enumerate(self.slots) if slot]
        self._steps_left = min(left, default=0)
        return results

    def stepper(self) -> Callable[[int], None]:
        """Fills the slots, and returns what trains them a number of steps without evaluation: for measuring."""
        self._fill()
        self._programs()
        run: Callable[[int], None] = self.programs.step.bind(*(self.tensors[n] for n in STEP_ARGUMENTS))
        return run

    def checkpoints(self) -> dict[str, Checkpoint]:
        """Key -> exact checkpoint of every lane that has no result yet."""
        steps = self.tensors["state"]["step"].tolist()
        ended = {e.ended.key: Checkpoint(e.ended.steps, e.ended.state) for e in self.ending if e.ended.state}
        return ended | {
            s.lane.key: Checkpoint(
                steps[k], to_bytes(slot_of(self.tensors["state"], k), s.curve, s.wall_time_s)
            )
            for k, s in enumerate(self.slots)
            if s is not None
        }

    def _fill(self) -> list[LaneResult]:
        failed = []
        for k in range(self.num_slots):
            while self.waiting and self.slots[k] is None:
                lane = self.waiting.popleft()
                try:
                    self._place(k, lane)
                except Exception as error:  # one lane's settings must not take its neighbours along
                    failed.append(error_result(lane, f"{type(error).__name__}: {error}"))
        return failed

    def _place(self, k: int, lane: Lane) -> None:
        built = build(lane.settings)
        state, curve, wall_time_s = self._start(lane, built)
        t = self.tensors
        for path, value in float_leaves(lane.settings).items():
            if path in t["floats"]:
                t["floats"][path][k] = value
        for purpose in PURPOSES:
            t["keys"][purpose][k] = torch.tensor(
                [signed(w) for w in seed_key(lane.seed, purpose)], dtype=torch.int32
            )
        for name, array in built.task.instance(lane.seed).items():
            t["instance"][name][k] = torch.from_numpy(array)
        for split in built.task.splits:
            x = built.task.evaluation_inputs(split)
            put(t["targets"][split], k, tensors_of(built.task.truth(x, lane.seed)))
            if not t["inputs_shared"]:
                put(t["inputs"][split], k, tensors_of(x))
        put(t["state"], k, state)
        t["budget"][k] = lane.budget
        self.slots[k] = Slot(lane, built, curve, wall_time_s)

    def _start(self, lane: Lane, built: Built) -> tuple[LaneState, Curve, float]:
        """A checkpoint at the end of another budget is of no use where this one has no evaluation: the lane starts anew."""
        fresh = LaneFunctions(self.built, self.zeros).initial(built, lane.seed, self.device)
        if lane.checkpoint is None:
            return fresh, Curve(), 0.0
        state, curve, wall_time_s = from_bytes(lane.checkpoint.state, fresh)
        if curve.step and curve.step[-1] % self.interval:
            return fresh, Curve(), 0.0
        return state, curve, wall_time_s

    def _evaluate(self) -> None:
        self._programs()
        t = self.tensors
        state = t["state"]
        steps, status = state["step"].tolist(), state["status"].tolist()
        due = [
            k
            for k, slot in enumerate(self.slots)
            if slot is not None and self._due(slot, steps[k], status[k])
        ]
        if not due:
            return
        values = self.programs.evaluate(
            state["params"], state["memory"], *(t[name] for name in ("floats", "inputs", "targets", "shared"))
        )
        values |= {
            f"memory.{name}": t["state"]["memory"]["model"][name]
            for name in self.built.network.reported_memory
        }
        columns = {name: v.tolist() for name, v in values.items()}
        for k in due:
            slot = self.slots[k]
            assert slot is not None
            if not self._restarted_here(k, slot, steps[k]):
                slot.curve.add(steps[k], {name: column[k] for name, column in columns.items()})
                guide = columns.get("error.interpolation") or next(iter(columns.values()))
                t["state"]["last_error"][k] = guide[k]
                self._restart(k, slot, steps[k])

    def _due(self, slot: Slot, step: int, status: int) -> bool:
        return status == RUNNING and (step % self.interval == 0 or step >= slot.lane.budget)

    def _restarted_here(self, k: int, slot: Slot, step: int) -> bool:
        """Whether a lane's evaluation at this step has led to new weights: it stands, however often neighbours come."""
        return slot.curve.step[-1:] == [step] and int(self.tensors["state"]["restarted_at"][k]) == step > 0

    def _restart(self, k: int, slot: Slot, step: int) -> None:
        """New weights for a lane whose units ask for them (`restarts`), drawn from its seed and the step.

        The evaluation at this step is that of the old weights, and the first that the next question sees.
        """
        state, errors = self.tensors["state"], slot.curve.error.get("interpolation", [])
        begun = int(state["restarted_at"][k])
        since = [e for s, e in zip(slot.curve.step, errors, strict=False) if s >= begun]
        rules = [(c, unit.restarts) for unit, c in slot.built.units]
        if step == begun or not any(rule(config, since, self.interval) for config, rule in rules):
            return
        params = initial_params(slot.built, slot.lane.seed, self.device, f"restart {step}")
        put(state["params"], k, params)
        state["restarted_at"][k] = step

    def _free_finished(self) -> list[LaneResult]:
        state = self.tensors["state"]
        steps, status = state["step"].tolist(), state["status"].tolist()
        results = []
        for k, slot in enumerate(self.slots):
            if slot is None:
                continue
            goes_on = status[k] == RUNNING and steps[k] < slot.lane.budget
            if goes_on and slot.built.train.stop != "solved":
                continue
            try:
                verdict = judge(slot.curve, slot.threshold, failed=status[k] != RUNNING)
            except Exception as error:  # of its threshold; one lane's must not take its neighbours along
                reason = f"{type(error).__name__}: {error}"
                results.append(error_result(slot.lane, reason))
                self._clear(k)
                continue
            if goes_on and verdict.converged_at is None:
                continue
            outcome = "diverged" if status[k] != RUNNING else "solved" if verdict.solved else "unsolved"
            blob = to_bytes(slot_of(state, k), slot.curve, slot.wall_time_s)
            told = _why_ended(status[k], steps[k], slot.lane.budget)
            result = LaneResult(
                key=slot.lane.key, seed=slot.lane.seed, budget=slot.lane.budget, steps=steps[k], outcome=outcome,
                solved=verdict.solved, converged_at=verdict.converged_at, sparsity_error=verdict.sparsity_error,
                error=verdict.error, best_step=verdict.best_step, threshold=slot.threshold, reason=told,
                curve=slot.curve.as_dict(), wall_time_s=slot.wall_time_s, state=blob,
            )  # fmt: skip
            if status[k] == RUNNING and lengths_of(slot.built.task):
                alone = self._alone(k)
                self.ending.append(
                    LengthCurve(result, slot.built, alone, self.zeros, self.compiled, self.device)
                )
            else:
                results.append(result)
            self._clear(k)
        return results

    def _alone(self, k: int) -> dict[str, Any]:
        """A lane's weights, memory and floats, copied, with a slot axis of one."""
        t = self.tensors
        parts = {"params": t["state"]["params"], "memory": t["state"]["memory"], "floats": t["floats"]}
        alone: dict[str, Any] = pytree.tree_map(lambda x: x[k : k + 1].clone(), parts)
        return alone

    def _measure(self) -> list[LaneResult]:
        """One more length of a lane that has ended."""
        if not self.ending:
            return []
        self.ending[0].advance()
        result = self.ending[0].result
        if result is None:
            return []
        self.ending.popleft()
        return [result]

    def _clear(self, k: int) -> None:
        """An idle slot keeps computing on what it holds (it costs the same) but changes nothing: its budget is spent."""
        self.slots[k] = None
        self.tensors["budget"][k] = 0

    def _train(self, until: float) -> None:
        """Up to `_steps_left` steps, in runs of `RUN_S`, since the clock is looked at between them."""
        started = time.monotonic()
        t = self.tensors
        before, done, run_length = int(t["state"]["step"].sum()), 0, 1
        run = self.programs.step.bind(*(t[n] for n in STEP_ARGUMENTS))
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

    def _programs(self) -> None:
        if self.programs is None:
            self.programs = programs_for(self.settings, self.built, self.zeros, self.tensors, self.compiled)

    def _fail_all(self, reason: str) -> list[LaneResult]:
        lanes = [slot.lane for slot in self.slots if slot is not None] + list(self.waiting)
        failed = [error_result(lane, reason) for lane in lanes]
        failed += [
            replace(e.ended, steps=0, outcome="error", solved=False, reason=reason, curve={}, state=None)
            for e in self.ending
        ]
        self.waiting.clear()
        self.ending.clear()
        self._steps_left = 0
        self.slots = [None] * self.num_slots
        return failed

    def _empty_tensors(self, lanes: Sequence[Lane]) -> dict[str, Any]:
        """Stacked tensors with no lane in them; every slot is idle (budget 0)."""
        K, task, device = self.num_slots, self.built.task, self.device
        state = LaneFunctions(self.built, self.zeros).initial(self.built, 0, device)
        shared = len({str(sorted(lane.settings["task"].items())) for lane in lanes}) == 1
        x = {s: task.evaluation_inputs(s) for s in task.splits}
        inputs = tensors_of(x, device)
        targets = stacked([tensors_of({s: task.truth(x[s], 0) for s in task.splits}, device)] * K)
        data = task.shared()
        instance = {n: torch.from_numpy(a).to(device) for n, a in task.instance(0).items()}
        return {
            "state": stacked([state] * K),
            "floats": {
                p: torch.full((K,), v, device=device)
                for p, v in float_leaves(self.settings).items()
                if p not in self.zeros
            },
            "keys": {p: torch.zeros(K, 2, dtype=torch.int32, device=device) for p in PURPOSES},
            "budget": torch.zeros(K, dtype=torch.int64, device=device),
            "instance": {n: torch.stack([a] * K) for n, a in instance.items()},
            "shared": tensors_of(data, device),
            "inputs": inputs if shared else stacked([inputs] * K),
            "inputs_shared": shared,
            "targets": targets,
        }


def _why_ended(status: int, step: int, budget: int) -> str | None:
    if status != RUNNING:
        what = "the loss" if status == LOSS_NOT_FINITE else "an updated weight"
        return f"diverged at step {step}: {what} is not finite"
    return f"stopped at step {step}: the threshold is met" if step < budget else None


def error_result(lane: Lane, reason: str) -> LaneResult:
    """The result of a lane that could not be trained."""
    return LaneResult(
        key=lane.key,
        seed=lane.seed,
        budget=lane.budget,
        steps=0,
        outcome="error",
        solved=False,
        reason=reason,
    )
