"""Lanes of one structure in stacked tensors, and the programs that train and evaluate them.

A lane holds a place: row k of every tensor. `LaneTrainer` runs lane programs, each lane for its own number of steps;
`LoopedTrainer` makes steps of all places together, for networks that repeat a cell.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sweeps.training.compile import Recorded, in_place
from sweeps.training.lane import Lane
from sweeps.training.lane_program import LaneProgram, Lanes, with_slack
from sweeps.training.looped import LoopedEvaluation, LoopedStep
from sweeps.training.optimizers import DOUBLE, Params
from sweeps.training.random import Stream, seed_key, seed_keys, signed
from sweeps.training.settings import Built, float_leaves
from sweeps.training.state import LaneState, initial_params, initial_state, put, stacked, state_without_weights, tensors_of
from sweeps.training.step import PURPOSES, LaneFunctions, with_params

MOST_UNROLLED = 10
"""Time steps of training that are compiled as one graph; more are looped over, at about half the speed (docs/benchmarks.md)."""
LEAST_SLOTS = 3
"""Of networks that repeat a cell: with 1 or 2 lanes the CPU library takes another matrix routine, which rounds otherwise."""
STEP_ARGUMENTS = ("state", "floats", "keys", "budget", "instance", "shared")
EVALUATION_ARGUMENTS = ("floats", "inputs", "targets", "shared")

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Start:
    """A lane that takes a place."""

    place: int
    lane: Lane
    built: Built
    state: LaneState | None
    """Of its checkpoint; None: its initial state."""


class Trainer(ABC):
    """The stacked tensors of a pack's places, and what trains them.

    `structure` is the text that the lanes have in common, `source` a digest of the code that they are made of ("" where it
    is not known: programs are then recorded in every process).
    """

    together: bool
    """Whether every call of `train` has to train all places, by one number of steps."""

    def __init__(
        self, lanes: Sequence[Lane], built: Built, zero_floats: frozenset[str], structure: str, num_places: int,
        *, device: torch.device, compiled: bool, source: str = "", threads: int = 1,
    ) -> None:  # fmt: skip
        self.num_places, self.built, self.zero_floats, self.structure = num_places, built, zero_floats, structure
        self.device, self.compiled, self.source, self.threads = device, compiled, source, threads
        self.functions = LaneFunctions(built, zero_floats)
        self._task_identity = type(built.task).identity(lanes[0].settings["task"])
        self.tensors: dict[str, Any] = self._empty(lanes)

    def _empty(self, lanes: Sequence[Lane]) -> dict[str, Any]:
        """Tensors with no lane in them: every place has spent its budget."""
        P, task, device = self.num_places, self.built.task, self.device
        floats = float_leaves(lanes[0].settings, task.evaluation_only)
        instance = {n: torch.from_numpy(a).to(device) for n, a in task.instance(lanes[0].seed).items()}
        state = pytree.tree_map(lambda t: _rows(t, P), state_without_weights(self.built, device))
        return {
            "state": state,
            "floats": {
                p: torch.full((P,), v, dtype=torch.float64 if p in DOUBLE else torch.float32, device=device)
                for p, v in floats.items()
                if p not in self.zero_floats
            },
            "keys": {p: torch.zeros(P, 2, dtype=torch.int32, device=device) for p in PURPOSES},
            "budget": torch.zeros(P, dtype=torch.int64, device=device),
            "instance": {n: _rows(a, P) for n, a in instance.items()},
            "shared": pytree.tree_map(with_slack, tensors_of(task.shared(), device)),
        }

    @property
    def state(self) -> LaneState:
        found: LaneState = self.tensors["state"]
        return found

    @property
    @abstractmethod
    def why_uncompiled(self) -> str | None:
        """Why the programs are not compiled, or None."""

    @abstractmethod
    def start(self, starts: Sequence[Start]) -> None:
        """Write lanes into their places. The numbers of a place that raises mean nothing."""

    @abstractmethod
    def prepare(self) -> None:
        """Record and compile what trains and evaluates. The places must have their lanes."""

    @abstractmethod
    def train(self, which: Numbers, steps: Numbers) -> None:
        """Train places, each by its number of steps."""

    @abstractmethod
    def evaluate(self, which: Numbers) -> dict[str, npt.NDArray[Any]]:
        """Return an array of numbers for every figure of an evaluation, in the order of `which`."""

    def free(self, place: int) -> None:
        """Let nothing change at this place any more."""
        self.tensors["budget"][place] = 0

    def redraw(self, place: int, built: Built, seed: int, purpose: str) -> None:
        """Draw new weights for a place."""
        put(self.state["params"], place, initial_params(built, seed, self.device, purpose))

    def _write(self, starts: Sequence[Start]) -> None:
        """The lanes' own numbers: floats, keys, budgets and instances."""
        t, places = self.tensors, torch.tensor([s.place for s in starts], dtype=torch.int64, device=self.device)
        settings = _distinct(starts)
        leaves = [float_leaves(one, self.built.task.evaluation_only) for one in settings.values()]
        number = {key: k for k, key in enumerate(settings)}
        of_lane = torch.tensor([number[id(s.lane.settings)] for s in starts])
        for path, column in t["floats"].items():
            values = torch.tensor([own[path] for own in leaves], dtype=torch.float64)[of_lane]
            column[places] = values.to(column.dtype).to(self.device)
        seeds = np.array([s.lane.seed for s in starts], np.int64)
        for purpose in PURPOSES:
            words = torch.from_numpy(seed_keys(seeds, purpose).view(np.int32))
            t["keys"][purpose][places] = words.to(self.device)
        t["budget"][places] = torch.tensor([s.lane.budget for s in starts], dtype=torch.int64, device=self.device)


def _distinct(starts: Sequence[Start]) -> dict[int, dict[str, Any]]:
    """Settings by their identity: lanes of one configuration share them."""
    return {id(s.lane.settings): s.lane.settings for s in starts}


def _rows(t: Tensor, count: int) -> Tensor:
    return with_slack(t.unsqueeze(0).expand(count, *t.shape))


class LanePrograms:
    """The programs of a structure, each made when it is first needed, once a process."""

    def __init__(self) -> None:
        self.step: LaneProgram | None = None
        self.evaluate: LaneProgram | None = None
        self.initialise: LaneProgram | None = None
        """Draws the initial weights from a key."""
        self.why_not_initialised: str | None = None
        """Why the program that draws them could not be compiled."""
        self.initialises_itself = False
        """A unit draws its weights in another way than in place, which is not recorded."""

    @property
    def why_uncompiled(self) -> str | None:
        made = (program for program in (self.step, self.evaluate) if program is not None)
        reasons = [self.why_not_initialised, *(program.why_uncompiled for program in made)]
        return next((reason for reason in reasons if reason is not None), None)


_LANE_PROGRAMS: dict[tuple[Any, ...], LanePrograms] = {}


class LaneTrainer(Trainer):
    """Places of lanes that are trained by lane programs, each on its own. Every lane has a place from the beginning."""

    together = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._input_row = np.zeros(self.num_places, np.int64)
        self._target_row = np.zeros(self.num_places, np.int64)
        self._programs: LanePrograms | None = None
        self._step_lanes: Lanes | None = None
        self._evaluation_lanes: Lanes | None = None
        self._results: Any = None

    @property
    def why_uncompiled(self) -> str | None:
        return None if self._programs is None else self._programs.why_uncompiled

    def start(self, starts: Sequence[Start]) -> None:
        self._write(starts)
        t = self.tensors
        texts = {id(settings): json.dumps(settings["task"], sort_keys=True) for settings in _distinct(starts).values()}
        instances: dict[tuple[str, int], Any] = {}  # of a task and a seed
        inputs: dict[str, Any] = {}
        targets: dict[tuple[str, bytes], Any] = {}
        rows: dict[tuple[str, int], tuple[int, int, int]] = {}  # of a task and a seed, in these three
        of_lane = [(texts[id(s.lane.settings)], s.lane.seed) for s in starts]
        for s, task_and_seed in zip(starts, of_lane, strict=True):
            if task_and_seed in rows:
                continue
            task, (text, seed) = s.built.task, task_and_seed
            instance = instances[task_and_seed] = task.instance(seed)
            if text not in inputs:
                inputs[text] = {split: task.evaluation_inputs(split) for split in task.splits}
            key = (text, b"".join(array.tobytes() for array in instance.values()))
            if key not in targets:
                x = inputs[text]
                truth = tensors_of({split: task.truth(x[split], seed) for split in task.splits}, self.device)
                targets[key] = (len(targets), truth)
            rows[task_and_seed] = (len(rows), list(inputs).index(text), targets[key][0])
        places = np.array([s.place for s in starts], np.int64)
        instance_row, self._input_row[places], self._target_row[places] = np.array([rows[one] for one in of_lane]).T
        for name, column in t["instance"].items():
            values = np.stack([instance[name] for instance in instances.values()])[instance_row]
            column[torch.from_numpy(places).to(self.device)] = torch.from_numpy(values).to(self.device)
        t["inputs"] = _table([tensors_of(x, self.device) for x in inputs.values()])
        t["targets"] = _table([truth for _, truth in targets.values()])
        self._continue([s for s in starts if s.state is not None])
        new = [s for s in starts if s.state is None]
        self._draw(np.array([s.place for s in new], np.int64), [(s.built, s.lane.seed) for s in new], "initialise")

    def redraw(self, place: int, built: Built, seed: int, purpose: str) -> None:
        self._draw(np.array([place]), [(built, seed)], purpose)

    def _continue(self, starts: Sequence[Start]) -> None:
        """Write the states of checkpoints."""
        if not starts:
            return
        places = torch.tensor([s.place for s in starts], device=self.device)
        leaves = [pytree.tree_leaves(s.state) for s in starts]
        for target, *values in zip(pytree.tree_leaves(self.state), *leaves, strict=True):
            target[places] = torch.stack(values)

    def _draw(self, places: Numbers, lanes: Sequence[tuple[Built, int]], purpose: str) -> None:
        """Draw the weights of lanes, each with its seed, from a purpose."""
        if not lanes:
            return
        initialise = self._initialise_program()
        if initialise is None:
            for place, (built, seed) in zip(places.tolist(), lanes, strict=True):
                put(self.state["params"], place, initial_params(built, seed, self.device, purpose))
            return
        words = seed_keys(np.array([seed for _, seed in lanes]), purpose).view(np.int32)
        keys = torch.from_numpy(words).to(self.device)
        floats = pytree.tree_leaves(self.tensors["floats"])
        params = pytree.tree_leaves(self.state["params"])
        leaves, count = [with_slack(keys), *floats, *params], len(lanes)
        rows = Lanes(leaves, [None, *[places] * len(floats), *[places] * len(params)], count)
        initialise.run(rows, np.arange(count, dtype=np.int64), np.ones(count, np.int64))

    def prepare(self) -> None:
        if self.device.type != "cpu":
            self._step_program(), self._evaluation_program()
            return
        with ThreadPoolExecutor(1) as thread:  # one is recorded while the compiler works on the other
            step = thread.submit(self._step_program)
            self._evaluation_program()
            step.result()

    def train(self, which: Numbers, steps: Numbers) -> None:
        step = self._step_program()
        if self._step_lanes is None:
            self._step_lanes = self._lanes([self.tensors[name] for name in STEP_ARGUMENTS], [])
        step.run(self._step_lanes, which, steps)

    def evaluate(self, which: Numbers) -> dict[str, npt.NDArray[Any]]:
        program, t = self._evaluation_program(), self.tensors
        if self._evaluation_lanes is None:
            self._results = program.new_outputs(self.num_places)
            arguments = [t["state"]["params"], t["state"]["memory"], *(t[name] for name in EVALUATION_ARGUMENTS)]
            self._evaluation_lanes = self._lanes(arguments, pytree.tree_leaves(self._results))
        program.run(self._evaluation_lanes, which, np.ones(len(which), np.int64))
        return {name: column.cpu().numpy()[which] for name, column in self._results.items()}

    def _lanes(self, arguments: Sequence[Any], results: Sequence[Tensor]) -> Lanes:
        leaves: list[Tensor] = []
        rows: list[Numbers | None] = []
        nothing = np.zeros(self.num_places, np.int64)
        for argument in arguments:
            of_this = pytree.tree_leaves(argument)
            if argument is self.tensors["shared"]:
                leaves += [leaf.unsqueeze(0) for leaf in of_this]
                rows += [nothing] * len(of_this)
                continue
            of_table = {id(self.tensors["inputs"]): self._input_row, id(self.tensors["targets"]): self._target_row}
            leaves += of_this
            rows += [of_table.get(id(argument))] * len(of_this)
        return Lanes([*leaves, *results], [*rows, *[None] * len(results)], self.num_places)

    def programs(self) -> LanePrograms:
        """The programs of this structure that have been made so far in this process. The places must have their lanes."""
        if self._programs is None:
            t = self.tensors
            evaluated = [tuple(leaf.shape[1:]) for leaf in pytree.tree_leaves((t["inputs"], t["targets"]))]
            key = (self.structure, self.source, self.zero_floats, str(evaluated), str(self.device), self.compiled, self.threads)
            self._programs = _LANE_PROGRAMS.setdefault(key, LanePrograms())
        return self._programs

    def _program(self, name: str, function: Any, example: tuple[Any, ...], **options: Any) -> LaneProgram:
        identity = None
        if self.source:
            # The task's own identity has what a program may hold as plain numbers: what only evaluation reads, and files.
            made_of = [name, self.structure, self._task_identity, self.source, sorted(self.zero_floats)]
            identity = json.dumps(made_of, sort_keys=True, default=str)
        return LaneProgram(function, example, compiled=self.compiled, identity=identity, threads=self.threads, **options)

    def _of_first(self, name: str) -> Any:
        """The first place's own tensors, which are an example of a lane's."""
        if name == "shared":
            return self.tensors[name]
        return pytree.tree_map(lambda t: t[0].clone(), self.tensors[name])

    def _step_program(self) -> LaneProgram:
        programs = self.programs()
        if programs.step is None:
            rest = [self._of_first(name) for name in STEP_ARGUMENTS[1:]]
            programs.step = self._program(
                "step", self.functions.step, (state_without_weights(self.built, self.device), *rest),
                carried=True, stops="status", trials=lambda: [(state, *rest) for state in self._trial_states()],
            )  # fmt: skip
        return programs.step

    def _evaluation_program(self) -> LaneProgram:
        programs = self.programs()
        if programs.evaluate is None:
            rest = [self._of_first(name) for name in EVALUATION_ARGUMENTS]
            state = state_without_weights(self.built, self.device)
            programs.evaluate = self._program(
                "evaluate", self.functions.evaluate, (state["params"], state["memory"], *rest),
                carried=False, trials=lambda: [(s["params"], s["memory"], *rest) for s in self._trial_states()],
            )  # fmt: skip
        return programs.evaluate

    def _trial_states(self) -> list[LaneState]:
        initial = initial_state(self.built, 0, self.device)
        return [initial, *trial_states(initial)]

    def _initialise_program(self) -> LaneProgram | None:
        """Compared with what a module initialises: a unit may do so in another way than in place, which is not recorded."""
        programs = self.programs()
        if not self.compiled or programs.initialises_itself or programs.initialise is not None:
            return programs.initialise
        shapes = {name: (p.shape, p.dtype) for name, p in sorted(self.built.model().named_parameters())}

        def initial(key: Tensor, floats: Params) -> Params:
            params = {n: torch.zeros(shape, dtype=dtype, device=key.device) for n, (shape, dtype) in shapes.items()}
            stream = Stream((key[0], key[1]), device=key.device)
            with torch.no_grad():
                with_params(self.functions.model(floats), params, lambda module: module.initialise(stream))
            return params

        def key_of(seed: int) -> Tensor:
            words = [signed(word) for word in seed_key(seed, "initialise")]
            return torch.tensor(words, dtype=torch.int32, device=self.device)

        floats = self._of_first("floats")

        def compare() -> None:
            drawn, expected = initial(key_of(0), floats), initial_params(self.built, 0, self.device)
            if not all(torch.allclose(drawn[name], p, rtol=1e-4, atol=1e-6) for name, p in expected.items()):
                raise ValueError("a unit does not initialise its parameters in place")

        programs.initialises_itself = True
        try:
            found = self._program(
                "initialise", initial, (key_of(0), floats), carried=False, lowered_only=True,
                trials=lambda: [(key_of(0), floats), (key_of(1), floats)], before_recording=compare,
            )  # fmt: skip
        except Exception:  # of a module that cannot be initialised on parameters from outside
            return None
        programs.why_not_initialised = found.why_uncompiled
        if found.is_native:
            programs.initialise, programs.initialises_itself = found, False
        return programs.initialise


def trial_states(state: LaneState) -> list[LaneState]:
    """Return states to compare a program with the recorded operations on: other weights, moments and steps.

    One has large weights, one a weight that is infinite, and one a weight that is not a number.
    """
    generator = torch.Generator().manual_seed(1)

    def changed(t: Tensor, spread: float) -> Tensor:
        if not t.is_floating_point() or not t.numel():
            return t.clone()
        noise = torch.randn(t.shape, generator=generator).to(t.device)
        new = t * (1.0 + spread * noise) + 0.03 * spread * noise
        return new.abs() if bool((t >= 0).all()) and t.dim() else new  # second moments stay positive

    def at(step: int, spread: float) -> LaneState:
        new: LaneState = pytree.tree_map(lambda t: changed(t, spread), state)
        new["step"] = torch.full_like(state["step"], step)
        new["last_error"] = torch.full_like(state["last_error"], 0.1)
        new["memory"] = pytree.tree_map(torch.clone, state["memory"])
        return new

    ordinary = [at(1, 0.3), at(999, 1.0), at(123_456, 3.0)]
    large, infinite, broken = at(10, 30.0), at(10, 0.3), at(10, 0.3)
    for of_trial, number in ((infinite, torch.inf), (broken, torch.nan)):
        next(iter(of_trial["params"].values())).view(-1)[0] = number
    return [*ordinary, large, infinite, broken]


def _table(rows: Sequence[Any]) -> Any:
    """Containers of tensors side by side, in memory that programs may read."""
    return pytree.tree_map(lambda *leaves: with_slack(torch.stack(leaves)), *rows)


# ---- networks that repeat a cell --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StackedPrograms:
    """The step and the evaluation of all places together, compiled where that works."""

    step: Recorded | LoopedStep
    """`step.bind(*STEP_ARGUMENTS)` returns what trains these tensors, in place, a number of steps."""
    evaluate: LoopedEvaluation
    """(params, memory, floats, inputs, targets, shared) -> {"error.<split>": [K], ...}"""

    @property
    def why_uncompiled(self) -> str | None:
        return self.step.why_uncompiled or self.evaluate.why_uncompiled


_STACKED_PROGRAMS: dict[tuple[Any, ...], StackedPrograms] = {}


class LoopedTrainer(Trainer):
    """Places that make their steps together: what the pieces of a network compute for one place, they compute for all."""

    together = True

    def __init__(self, lanes: Sequence[Lane], *arguments: Any, **options: Any) -> None:
        super().__init__(lanes, *arguments, **options)
        P, task = self.num_places, self.built.task
        x = {s: task.evaluation_inputs(s) for s in task.splits}
        inputs = tensors_of(x, self.device)
        same_task = len({json.dumps(lane.settings["task"], sort_keys=True) for lane in lanes}) == 1
        self.tensors["inputs"] = inputs if same_task else stacked([inputs] * P)
        self.tensors["inputs_shared"] = same_task
        self.tensors["targets"] = stacked([tensors_of({s: task.truth(x[s], 0) for s in task.splits}, self.device)] * P)
        self._programs: StackedPrograms | None = None

    @property
    def why_uncompiled(self) -> str | None:
        return None if self._programs is None else self._programs.why_uncompiled

    def start(self, starts: Sequence[Start]) -> None:
        if not starts:
            return
        self._write(starts)
        t = self.tensors
        for s in starts:
            task = s.built.task
            put(self.state, s.place, s.state or initial_state(s.built, s.lane.seed, self.device))
            for name, array in task.instance(s.lane.seed).items():
                t["instance"][name][s.place] = torch.from_numpy(array)
            for split in task.splits:
                x = task.evaluation_inputs(split)
                put(t["targets"][split], s.place, tensors_of(task.truth(x, s.lane.seed)))
                if not t["inputs_shared"]:
                    put(t["inputs"][split], s.place, tensors_of(x))

    def prepare(self) -> None:
        self.programs()

    def train(self, which: Numbers, steps: Numbers) -> None:
        run = self.programs().step.bind(*(self.tensors[name] for name in STEP_ARGUMENTS))
        run(int(steps[0]))

    def evaluate(self, which: Numbers) -> dict[str, npt.NDArray[Any]]:
        t = self.tensors
        others = (t[name] for name in EVALUATION_ARGUMENTS)
        values = self.programs().evaluate(self.state["params"], self.state["memory"], *others)
        return {name: column.cpu().numpy()[which] for name, column in values.items()}

    def programs(self) -> StackedPrograms:
        """The programs, recorded and compiled at the first call, from an earlier pack of this process where there was one."""
        if self._programs is None:
            shapes = tuple(tuple(t.shape) for t in pytree.tree_leaves(self.tensors) if isinstance(t, Tensor))
            inputs_shared = self.tensors["inputs_shared"]
            key = (self.structure, self.zero_floats, shapes, inputs_shared, str(self.device), self.compiled)
            if key not in _STACKED_PROGRAMS:
                _STACKED_PROGRAMS[key] = self._made()
            self._programs = _STACKED_PROGRAMS[key]
        return self._programs

    def _made(self) -> StackedPrograms:
        functions = self.functions
        of_step = tuple(self.tensors[name] for name in STEP_ARGUMENTS)
        step: Recorded | LoopedStep
        long = (functions.built.task.time_steps or math.inf) > MOST_UNROLLED
        if long or functions.built.train.products != "float32":
            step = LoopedStep(functions, of_step, self.compiled)
        else:
            over_places = torch.vmap(functions.step, in_dims=(0, 0, 0, 0, 0, None))
            step = Recorded(in_place(over_places), of_step, self.compiled)
        return StackedPrograms(step, LoopedEvaluation(functions, self.compiled, self.tensors["inputs_shared"]))


def forget_programs() -> None:
    """Let the next pack of this process load its programs again, for measuring. Lanes must not be trained any more."""
    _LANE_PROGRAMS.clear()
    _STACKED_PROGRAMS.clear()


def trainer_for(lanes: Sequence[Lane], built: Built, slots: int, **rest: Any) -> tuple[type[Trainer], int]:
    """Return the kind of trainer of a structure, and its number of places."""
    network = built.network
    if not network.pieces:
        return LaneTrainer, len(lanes)
    return LoopedTrainer, 1 if network.lanes_apart else max(slots, network.min_slots or LEAST_SLOTS)
