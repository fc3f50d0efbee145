"""How one dimension of a space looks to Optuna.

It depends on the sampler. TPE and random search know conditional parameters: a dimension with an off value becomes a
switch and, where the switch is on, a value, and TPE's `group=True` models the two apart. The others (gp, qmc, cmaes,
nsgaii, nsgaiii) want every parameter in every trial: there such a dimension is one number in [0, 1] whose lower half
means off and whose upper half is the range, low to high. Either way a random draw is off half of the time.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from sweeps.config.compare import values_at
from sweeps.config.space import Dimension, Search, active, same
from sweeps.search.samplers import SAMPLERS, check_sampler, make_sampler

OFF_SHARE = 0.5
"""Share of [0, 1] that means off, where a dimension is one number; a switch has the same odds."""


class Axis:
    """One dimension as Optuna sees it: how to ask a trial for its value, and how a value is written into a trial."""

    def __init__(self, path: str, dimension: Dimension, conditional: bool) -> None:
        self.path = path
        self.dimension = dimension
        choice = dimension.kind == "choice"
        self.options = list(dimension.choices)
        self.integer = dimension.kind in ("integer", "log_integer")
        self.log = dimension.kind in ("log_uniform", "log_integer")
        self.low = float(dimension.low or 0.0)  # None for a choice
        self.high = float(dimension.high or 0.0)
        can_be_off = dimension.has_off and not choice
        self.switch = f"{path} is on" if can_be_off and conditional else None
        self.folded = can_be_off and not conditional

    def distributions(self) -> dict[str, BaseDistribution]:
        """Name -> distribution of everything that this dimension may put into a trial."""
        if self.options:
            # By index: Optuna compares categories with ==, where 1, 1.0 and True are one.
            return {self.path: CategoricalDistribution(tuple(range(len(self.options))))}
        if self.folded:
            return {self.path: FloatDistribution(0.0, 1.0)}
        value: BaseDistribution
        if self.integer:
            value = IntDistribution(int(self.low), int(self.high), log=self.log)
        else:
            value = FloatDistribution(self.low, self.high, log=self.log)
        return (
            {self.path: value}
            if self.switch is None
            else {
                self.switch: CategoricalDistribution((True, False)),
                self.path: value,
            }
        )

    def lowest(self) -> dict[str, Any]:
        """Parameters of a trial at the low end of everything."""
        if self.options or self.folded:
            return {self.path: 0 if self.options else 0.0}
        low = {self.path: int(self.low) if self.integer else self.low}
        return low if self.switch is None else {self.switch: True, **low}

    def ask(self, trial: Trial) -> Any:
        """The value that the trial suggests, a plain Python object."""
        if self.options:
            return self.options[trial.suggest_categorical(self.path, tuple(range(len(self.options))))]
        if self.folded:
            return self._unfold(trial.suggest_float(self.path, 0.0, 1.0))
        if self.switch is not None and not trial.suggest_categorical(self.switch, (True, False)):
            return self.dimension.off
        if self.integer:
            return int(trial.suggest_int(self.path, int(self.low), int(self.high), log=self.log))
        value = float(trial.suggest_float(self.path, self.low, self.high, log=self.log))
        return min(max(value, self.low), self.high)

    def write(self, value: Any) -> dict[str, Any] | None:
        """Parameters of a trial that has `value`; None if the dimension cannot have it."""
        if self.options:
            index = index_of(self.options, value)
            return None if index is None else {self.path: index}
        if self.dimension.has_off and same(value, self.dimension.off):
            return {self.path: OFF_SHARE / 2} if self.folded else {str(self.switch): False}
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not self.low <= value <= self.high
        ):
            return None
        if self.integer and value != int(value):
            return None
        if self.folded:
            return {self.path: self._fold(float(value))}
        number = int(value) if self.integer else float(value)
        return {self.path: number} if self.switch is None else {self.switch: True, self.path: number}

    def grid(self, points: int | None) -> list[Any]:
        """Its values for a grid: choices as they stand, off, then a range from end to end in `points` steps."""
        if self.options:
            return self.options
        ticks = [self._at(i / (points - 1)) for i in range(points)] if points else []
        off = [self.dimension.off] if self.dimension.has_off else []
        return off + sorted(set(ticks))

    def _at(self, share: float) -> int | float:
        """The value at `share` of the way from low to high."""
        if self.log:
            value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + share * (self.high - self.low)
        value = min(max(value, self.low), self.high)
        if share in (0.0, 1.0):
            value = self.high if share else self.low  # the ends exactly, not exp(log(end))
        return round(value) if self.integer else value

    def _unfold(self, u: float) -> Any:
        if u < OFF_SHARE:
            return self.dimension.off
        return self._at((u - OFF_SHARE) / (1 - OFF_SHARE))

    def _fold(self, value: float) -> float:
        if self.high == self.low:
            return 1.0
        if self.log:
            share = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        else:
            share = (value - self.low) / (self.high - self.low)
        return OFF_SHARE + (1 - OFF_SHARE) * min(max(share, 0.0), 1.0)


def index_of(options: Sequence[Any], value: Any) -> int | None:
    return next((i for i, option in enumerate(options) if same(option, value)), None)


optuna.logging.set_verbosity(optuna.logging.WARNING)  # "A new study created in memory" at every suggestion


@dataclass(frozen=True)
class Finished:
    """A configuration that was asked for: what it was and what came of it."""

    parameters: Mapping[str, Any]
    """Dotted path -> value, as suggested; empty for configuration 0."""
    value: float | None
    """The objective. None or NaN: it failed, and the search learns nothing from it. Ignored while it counts as running."""
    tie_break: float | None = None
    """Smaller is better among equal values, whatever the direction. None and NaN are the worst."""


@dataclass(frozen=True)
class Suggestion:
    """What to try, and who thought of it."""

    parameters: dict[str, Any]
    """Dotted path -> plain int, float, text or whatever the file's choices are; empty for configuration 0."""
    origin: Literal["file", "random", "model", "grid"]
    """`random` is the sampler's random start (or all of random search and qmc), `model` came from what was learnt."""


class CellSearch:
    """The search of one cell.

    `space` maps dotted paths to dimensions; `file_values` (from `file_values`) maps the same paths to where
    configuration 0 lies; one that is missing leaves configuration 0 out of the model.
    Raises ValueError with every fault of sampler and options.
    """

    def __init__(
        self,
        space: Mapping[str, Dimension],
        search: Search,
        cell_key: str,
        file_values: Mapping[str, Any] | None = None,
    ) -> None:
        faults = check_sampler(search.sampler, search.sampler_options, space)
        if faults:
            raise ValueError("\n".join(faults))
        self._search = search
        self._cell_key = cell_key
        self._kind = SAMPLERS.get(search.sampler)
        self._conditional = self._kind is not None and self._kind.conditional
        self._space = dict(space)
        self._axes = [Axis(path, space[path], self._conditional) for path in _by_dependence(space)]
        self._distributions = {n: d for axis in self._axes for n, d in axis.distributions().items()}
        self._file_values = dict(file_values or {})
        self._parallel = max(1, search.parallel)
        self._grid = self._enumerate() if search.sampler == "grid" else []

    def needs(self, number: int) -> range:
        """Configurations that must have ended before `number` can be suggested."""
        return range(max(0, number - self._parallel + 1))

    @property
    def most(self) -> int | None:
        """How many configurations there are at all, the file's own among them; None where there is no end."""
        return 1 + len(self._grid) if self._search.sampler == "grid" else None

    def suggest(self, number: int, finished: Mapping[int, Finished]) -> Suggestion | None:
        """Configuration `number`, or None where a grid has no more.

        `finished` holds at least configurations 0 to number - 1; of those that count as running only the
        parameters are looked at. Raises ValueError if one is missing.
        """
        if number == 0:
            return Suggestion({}, "file")
        if self._search.sampler == "grid":
            return Suggestion(dict(self._grid[number - 1]), "grid") if number <= len(self._grid) else None
        missing = [k for k in range(number) if k not in finished]
        if missing:
            raise ValueError(
                f"configuration {number} cannot be suggested without the parameters of {missing}"
            )
        history = [self._written(k, finished[k].parameters) for k in range(number)]
        scores = self._scores({k: finished[k] for k in self.needs(number)})
        assert self._kind is not None
        trial = self._replayed(history, scores) if self._kind.replay else self._rebuilt(history, scores)
        parameters = self._asked(trial)
        learnt = bool(trial.relative_params) and self._search.sampler != "qmc"
        return Suggestion(parameters, "model" if learnt else "random")

    def _asked(self, trial: Trial) -> dict[str, Any]:
        """What the trial suggests, without the dimensions whose `when` does not hold.

        A sampler that knows conditional parameters is not even asked for those.
        """
        values: dict[str, Any] = {}
        for axis in self._axes:
            if not self._conditional or axis.path in active(self._space, {**values, axis.path: None}):
                values[axis.path] = axis.ask(trial)
        values = active(self._space, values)
        return {path: values[path] for path in self._space if path in values}  # in the file's order

    def _written(self, number: int, parameters: Mapping[str, Any]) -> dict[str, Any] | None:
        """Parameters of Optuna's trial for a configuration; None if it does not lie in the space.

        Configuration 0 is the file's own values, which may lie outside the bounds to be searched. Optuna refuses
        such a trial, and moving it to the nearest bound would teach the model a value that was never tried.
        """
        if number == 0:
            parameters = active(self._space, {path: self._file_values.get(path) for path in self._space})
        written: dict[str, Any] = {}
        for axis in self._axes:
            part: dict[str, Any] | None
            if axis.path in parameters:
                part = axis.write(parameters[axis.path])
            else:  # its `when` does not hold, which only some samplers can be told
                part = {} if self._conditional else axis.lowest()
            if part is None:
                return None
            written |= part
        return written

    def _scores(self, told: Mapping[int, Finished]) -> dict[int, float]:
        """Rank of every configuration that has a value, 0 the best and equals sharing one; a failed one is not in it.

        Ranks, because two things count, the value and the tie break behind it, and Optuna takes one number. TPE,
        CMA-ES and the genetic samplers use nothing but the order anyway.
        """
        sign = -1.0 if self._search.direction == "maximize" else 1.0
        keys: dict[int, tuple[float, float]] = {}
        for number, result in told.items():
            if result.value is None or math.isnan(result.value):
                continue
            tie = result.tie_break
            keys[number] = (sign * result.value, math.inf if tie is None or math.isnan(tie) else tie)
        order = {key: float(rank) for rank, key in enumerate(sorted(set(keys.values())))}
        return {number: order[key] for number, key in keys.items()}

    def _seed(self, number: int) -> int:
        text = f"{self._search.seed}/{self._cell_key}/{number}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")  # what RandomState takes

    def _study(self, number: int) -> optuna.Study:
        sampler = make_sampler(self._search.sampler, self._search.sampler_options, self._seed(number))
        return optuna.create_study(sampler=sampler, study_name="cell", direction="minimize")

    def _rebuilt(self, history: list[dict[str, Any] | None], scores: Mapping[int, float]) -> Trial:
        """A fresh trial of a study to which history was added as it stands."""
        study = self._study(len(history))
        running = len(history) - self._parallel
        for number, params in enumerate(history):
            if params is not None:
                study.add_trial(self._past(params, scores.get(number), running=number > running))
        return study.ask()

    def _past(self, params: dict[str, Any], score: float | None, running: bool) -> FrozenTrial:
        distributions = {name: self._distributions[name] for name in params}
        if running:
            return create_trial(state=TrialState.RUNNING, params=params, distributions=distributions)
        if score is None:
            return create_trial(state=TrialState.FAIL, params=params, distributions=distributions)
        return create_trial(value=score, params=params, distributions=distributions)

    def _replayed(self, history: list[dict[str, Any] | None], scores: Mapping[int, float]) -> Trial:
        """A fresh trial of a study in which history was asked and told again, in the order of the first time.

        That `scores` are the ranks of today and not of the time does no harm: the order among any few is the same.
        """
        quasi_random = self._search.sampler == "qmc"
        study = self._study(
            0 if quasi_random else len(history)
        )  # a scrambled sequence must stay the same sequence
        if quasi_random:
            study.add_trial(self._corner())
        trials: dict[int, Trial] = {}
        for number in range(len(history) + 1):
            ended = trials.pop(number - self._parallel, None)
            if ended is not None:
                score = scores.get(number - self._parallel)
                study.tell(ended, score, state=TrialState.FAIL if score is None else TrialState.COMPLETE)
            if number < len(history):
                params = history[number]
                if params is None:
                    continue
                study.enqueue_trial(params)
                trials[number] = study.ask()
                _ = trials[
                    number
                ].relative_params  # the sampler makes its notes here, fixed parameters or not
                self._asked(trials[number])
        return study.ask()

    def _corner(self) -> FrozenTrial:
        """A pruned trial from which qmc learns the space; without one it draws at random until a first result."""
        params = {name: value for axis in self._axes for name, value in axis.lowest().items()}
        return create_trial(state=TrialState.PRUNED, params=params, distributions=self._distributions)

    def _enumerate(self) -> list[dict[str, Any]]:
        """The grid, the last path running fastest, without the file's own point, which is configuration 0."""
        points = self._search.sampler_options.get("points")
        columns = {axis.path: axis.grid(points) for axis in self._axes}
        seen = [active(self._space, {path: self._file_values.get(path) for path in self._space})]
        for row in itertools.product(*(columns[path] for path in self._space)):
            point = active(self._space, dict(zip(self._space, row, strict=True)))
            if not any(same(point, other) for other in seen):  # rows that differ in what is inactive are one
                seen.append(point)
        return seen[1:]


def file_values(space: Mapping[str, Dimension], resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Where configuration 0 lies: the values that resolved settings have at the paths of a space, if they have any.

    A setting that several units share has the value of the first; a path of the space reaches all of them alike.
    """
    return {path: values[0] for path in space if (values := values_at(resolved, path))}


def _by_dependence(space: Mapping[str, Dimension]) -> list[str]:
    """The paths, each after those that its `when` looks at, otherwise in the given order; a circle goes last."""
    ordered: list[str] = []
    while len(ordered) < len(space):
        left = [path for path in space if path not in ordered]
        free = [path for path in left if all(on in ordered or on not in space for on in space[path].when)]
        ordered += free[:1] or left
    return ordered
