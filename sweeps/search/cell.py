"""The search of one cell: a pure function of its history.

A dimension becomes parameters of Optuna's trials in a way that depends on the sampler. TPE and random search accept
conditional parameters: a dimension with an off value becomes a switch and, where the switch is on, a value, and TPE's
`group=True` models the two separately. The others (gp, qmc, cmaes, nsgaii, nsgaiii) need every parameter in every trial:
there such a dimension is one number in [0, 1] whose lower half means off and whose upper half is the range, low to high.
Either way a random draw is off half of the time.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from sweeps.config.compare import values_at
from sweeps.config.faults import is_number
from sweeps.config.space import Dimension, Search, active, identity, same
from sweeps.search.samplers import MAX_GRID, SAMPLERS, check_sampler, make_sampler

OFF_SHARE = 0.5
"""Share of [0, 1] that means off, where a dimension is one number; a switch has the same odds."""


class Parameter:
    """One dimension as parameters of Optuna's trials."""

    def __init__(self, path: str, dimension: Dimension, conditional: bool) -> None:
        self.path = path
        self.dimension = dimension
        self.choices = list(dimension.choices)
        self.integer = dimension.kind in ("integer", "log_integer")
        self.log = dimension.kind in ("log_uniform", "log_integer")
        self.low = dimension.low or 0.0  # None for a choice
        self.high = dimension.high or 0.0
        can_be_off = dimension.has_off and dimension.kind != "choice"
        self.switch = f"{path} is on" if can_be_off and conditional else None
        self.folded = can_be_off and not conditional

    def distributions(self) -> dict[str, BaseDistribution]:
        """Name -> distribution of every parameter that this dimension may add to a trial."""
        if self.choices:
            # By index, because Optuna compares categories with ==, where 1, 1.0 and True are equal.
            return {self.path: CategoricalDistribution(tuple(range(len(self.choices))))}
        if self.folded:
            return {self.path: FloatDistribution(0.0, 1.0)}
        value: BaseDistribution
        if self.integer:
            value = IntDistribution(int(self.low), int(self.high), log=self.log)
        else:
            value = FloatDistribution(self.low, self.high, log=self.log)
        if self.switch is None:
            return {self.path: value}
        return {self.switch: CategoricalDistribution((True, False)), self.path: value}

    def lowest(self) -> dict[str, Any]:
        """Parameters of a trial at the low end."""
        if self.choices or self.folded:
            return {self.path: 0 if self.choices else 0.0}
        low = {self.path: int(self.low) if self.integer else self.low}
        return low if self.switch is None else {self.switch: True, **low}

    def suggest(self, trial: Trial) -> Any:
        """The value that a trial suggests, a plain Python object."""
        if self.choices:
            return self.choices[trial.suggest_categorical(self.path, tuple(range(len(self.choices))))]
        if self.folded:
            return self._unfold(trial.suggest_float(self.path, 0.0, 1.0))
        if self.switch is not None and not trial.suggest_categorical(self.switch, (True, False)):
            return self.dimension.off
        if self.integer:
            low, high = int(self.low), int(self.high)
            return min(max(int(trial.suggest_int(self.path, low, high, log=self.log)), low), high)
        value = float(trial.suggest_float(self.path, self.low, self.high, log=self.log))
        return min(max(value, self.low), self.high)

    def to_trial(self, value: Any) -> dict[str, Any] | None:
        """Parameters of a trial that has `value`; None if the dimension cannot have it."""
        if self.choices:
            index = next((i for i, choice in enumerate(self.choices) if same(choice, value)), None)
            return None if index is None else {self.path: index}
        if self.dimension.has_off and same(value, self.dimension.off):
            return {self.path: OFF_SHARE / 2} if self.folded else {str(self.switch): False}
        if not is_number(value) or not self.low <= value <= self.high:
            return None
        if self.integer and value != int(value):
            return None
        if self.folded:
            return {self.path: self._fold(float(value))}
        number = int(value) if self.integer else float(value)
        return {self.path: number} if self.switch is None else {self.switch: True, self.path: number}

    def grid(self, points: int | None) -> list[Any]:
        """Its values in a grid: the choices, or off and then `points` values from one end of the range to the other."""
        if self.choices:
            return self.choices
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


# Otherwise Optuna logs "A new study created in memory" at every suggestion.
optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True)
class Finished:
    """A configuration that was suggested before, and its result."""

    parameters: Mapping[str, Any]
    """Dotted path -> value, as suggested; empty for configuration 0."""
    value: float | None
    """The objective. None or NaN: it failed, and the sampler ignores it. Not used while it counts as running."""
    tie_break: float | None = None
    """Smaller is better among equal values, whatever the direction. None and NaN are the worst."""
    stopped_after: int | None = None
    """Number of stages of training after which early stopping stopped it; None: it was not."""


@dataclass(frozen=True)
class Suggestion:
    """The next configuration, and where its values come from."""

    parameters: dict[str, Any]
    """Dotted path -> plain int, float or text, or one of the file's choices; empty for configuration 0."""
    origin: Literal["file", "random", "model", "grid"]
    """`random`: the sampler's random start, or all of random search and qmc. `model`: suggested from earlier results."""


class CellSearch:
    """The search of one cell.

    Parameters
    ----------
    space
        Dotted path -> dimension, of this cell.
    search
        Of the sweep file.
    cell_key
        Part of the seed, so that cells are searched independently.
    file_values
        Dotted path -> value of configuration 0 (from `file_values`). Without one of them, configuration 0 is left out of
        the sampler's history.
    in_groups
        Configurations are suggested `parallel` at a time, once all before have ended, as racing needs it.

    Raises ValueError with every fault of sampler and options.
    """

    def __init__(
        self,
        space: Mapping[str, Dimension],
        search: Search,
        cell_key: str,
        file_values: Mapping[str, Any] | None = None,
        in_groups: bool = False,
    ) -> None:
        faults = check_sampler(search.sampler, search.sampler_options, space)
        if faults:
            raise ValueError("\n".join(faults))
        self._search = search
        self._cell_key = cell_key
        self._sampler = SAMPLERS[search.sampler]
        self._space = dict(space)
        self._parameters = [Parameter(path, space[path], self._sampler.conditional) for path in _by_dependence(space)]
        self._distributions = {n: d for p in self._parameters for n, d in p.distributions().items()}
        self._file_values = dict(file_values or {})
        self._parallel = max(1, search.parallel)
        self._in_groups = in_groups
        self._grid = self._enumerate() if self._sampler.is_grid else None

    def needs(self, number: int) -> range:
        """Configurations that must have ended before `number` can be suggested."""
        return self._search.needs(number, self._in_groups)

    @property
    def size(self) -> int | None:
        """Number of configurations of a grid, the file's own included; None for every other sampler."""
        return None if self._grid is None else 1 + len(self._grid)

    def suggest(self, number: int, finished: Mapping[int, Finished]) -> Suggestion | None:
        """Configuration `number`, or None where a grid has no more.

        `finished` has at least configurations 0 to number - 1; of those that count as running only the parameters are
        used. Raises ValueError if one is missing.
        """
        if number == 0:
            return Suggestion({}, "file")
        if self._grid is not None:
            return Suggestion(dict(self._grid[number - 1]), "grid") if number <= len(self._grid) else None
        missing = [k for k in range(number) if k not in finished]
        if missing:
            raise ValueError(f"configuration {number} cannot be suggested without the parameters of {missing}")
        history = [self._trial_parameters(k, finished[k].parameters) for k in range(number)]
        ended = {k: finished[k] for k in self.needs(number)}
        trial = self._replayed(history, ended) if self._sampler.replay else self._rebuilt(history, ended)
        parameters = self._suggested(trial)
        from_model = bool(trial.relative_params) and not self._sampler.quasi_random
        return Suggestion(parameters, "model" if from_model else "random")

    def _suggested(self, trial: Trial) -> dict[str, Any]:
        """The values that a trial suggests, without the dimensions whose `when` does not hold.

        Those of a sampler with conditional parameters are not even drawn.
        """
        values: dict[str, Any] = {}
        for parameter in self._parameters:
            path = parameter.path
            if not self._sampler.conditional or path in active(self._space, {**values, path: None}):
                values[path] = parameter.suggest(trial)
        values = active(self._space, values)
        return {path: values[path] for path in self._space if path in values}  # in the file's order

    def _trial_parameters(self, number: int, parameters: Mapping[str, Any]) -> dict[str, Any] | None:
        """Parameters of Optuna's trial for a configuration; None if it is outside of the space.

        Configuration 0 has the file's own values, which may be outside of the bounds. Optuna refuses such a trial, and
        at the nearest bound it would give the sampler a value that was never tried.
        """
        if number == 0:
            parameters = active(self._space, {path: self._file_values.get(path) for path in self._space})
        result: dict[str, Any] = {}
        for parameter in self._parameters:
            part: dict[str, Any] | None
            if parameter.path in parameters:
                part = parameter.to_trial(parameters[parameter.path])
            else:  # its `when` does not hold
                part = {} if self._sampler.conditional else parameter.lowest()
            if part is None:
                return None
            result |= part
        return result

    def _ranks(self, finished: Mapping[int, Finished]) -> dict[int, float]:
        """Rank of every configuration that has a value, 0 the best, equal ones sharing one; without failed ones.

        Ranks, because both the value and the tie-break count, and Optuna takes one number. TPE, CMA-ES and the genetic
        samplers use only the order anyway.
        """
        sign = -1.0 if self._search.objective.direction == "maximize" else 1.0
        keys: dict[int, tuple[float, float]] = {}
        for number, result in finished.items():
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

    def _rebuilt(self, history: list[dict[str, Any] | None], ended: Mapping[int, Finished]) -> Trial:
        """The next trial of a study to which the history was added."""
        study, ranks = self._study(len(history)), self._ranks(ended)
        for number, params in enumerate(history):
            if params is not None:
                stopped_after = ended[number].stopped_after if number in ended else None
                study.add_trial(self._past(params, ranks.get(number), number not in ended, stopped_after))
        return study.ask()

    def _past(self, params: dict[str, Any], rank: float | None, running: bool, stopped_after: int | None) -> FrozenTrial:
        distributions = {name: self._distributions[name] for name in params}
        if running:
            return create_trial(state=TrialState.RUNNING, params=params, distributions=distributions)
        if rank is None:
            return create_trial(state=TrialState.FAIL, params=params, distributions=distributions)
        if stopped_after is not None:
            return create_trial(
                state=TrialState.PRUNED, params=params, distributions=distributions, value=rank,
                intermediate_values={stopped_after: rank},
            )  # fmt: skip
        return create_trial(value=rank, params=params, distributions=distributions)

    def _replayed(self, history: list[dict[str, Any] | None], ended: Mapping[int, Finished]) -> Trial:
        """The next trial of a study in which the history was suggested and ended again, in the original order.

        Ranks are today's and not those of the time; that makes no difference, since the order of any few is the same.
        """
        study, ranks = self._study(0 if self._sampler.quasi_random else len(history)), self._ranks(ended)
        if self._sampler.quasi_random:
            study.add_trial(self._corner())
        trials: dict[int, Trial] = {}
        for number in range(len(history) + 1):
            for before in [n for n in trials if n in self.needs(number)]:
                self._tell(study, trials.pop(before), ranks.get(before), ended[before].stopped_after)
            if number < len(history):
                params = history[number]
                if params is None:
                    continue
                study.enqueue_trial(params)
                trials[number] = study.ask()
                _ = trials[number].relative_params  # updates the sampler's state, fixed parameters or not
                self._suggested(trials[number])
        return study.ask()

    def _tell(self, study: optuna.Study, trial: Trial, rank: float | None, stopped_after: int | None) -> None:
        if rank is None:
            study.tell(trial, None, state=TrialState.FAIL)
        elif stopped_after is None:
            study.tell(trial, rank)
        else:
            trial.report(rank, stopped_after)
            study.tell(trial, state=TrialState.PRUNED)

    def _corner(self) -> FrozenTrial:
        """A pruned trial that gives qmc its space; without one it draws at random until a first result."""
        params = {name: value for p in self._parameters for name, value in p.lowest().items()}
        return create_trial(state=TrialState.PRUNED, params=params, distributions=self._distributions)

    def _enumerate(self) -> list[dict[str, Any]]:
        """The points of the grid, the last path changing fastest, without the file's own, which is configuration 0."""
        ticks = self._search.sampler_options.get("points")
        columns = {parameter.path: parameter.grid(ticks) for parameter in self._parameters}
        own = active(self._space, {path: self._file_values.get(path) for path in self._space})
        points = {identity(own): own}
        for row in itertools.product(*(columns[path] for path in self._space)):
            point = active(self._space, dict(zip(self._space, row, strict=True)))
            points.setdefault(identity(point), point)  # rows that differ only in inactive dimensions are equal
        return list(points.values())[1:]


def file_values(space: Mapping[str, Dimension], resolved: Mapping[str, Any]) -> dict[str, Any]:
    """The values of configuration 0: those of resolved settings at the paths of a space, where they exist.

    A setting that several units share has the value of the first; a path of the space reaches all of them alike.
    """
    return {path: values[0] for path in space if (values := values_at(resolved, path))}


def count_different(space: Mapping[str, Dimension], own: Mapping[str, Any]) -> int | None:
    """The number of different configurations of a space and `own`, the file's; None for more than can be counted."""
    columns = []
    for dimension in space.values():
        values: list[Any] = list(dimension.choices)
        if dimension.kind != "choice":
            low, high = dimension.low or 0, dimension.high or 0
            if high != low and ("integer" not in dimension.kind or high - low >= MAX_GRID):
                return None
            values = [low] if high == low else list(range(int(low), int(high) + 1))
        columns.append([*values, *([dimension.off] if dimension.has_off else [])])
    if math.prod(map(len, columns)) > MAX_GRID:
        return None
    points = [own, *(dict(zip(space, row, strict=True)) for row in itertools.product(*columns))]
    return len({identity(active(space, {path: point.get(path) for path in space})) for point in points})


def _by_dependence(space: Mapping[str, Dimension]) -> list[str]:
    """The paths, each after those that its `when` depends on, otherwise in the given order; a cycle goes last."""
    ordered: list[str] = []
    while len(ordered) < len(space):
        left = [path for path in space if path not in ordered]
        free = [path for path in left if all(on in ordered or on not in space for on in space[path].when)]
        ordered += free[:1] or left
    return ordered
