"""The search of one cell: a pure function of its history.

A dimension becomes parameters of Optuna's trials in a way that depends on the sampler. TPE and random search accept
conditional parameters: a dimension with an off value becomes a switch and, where the switch is on, a value, and TPE's
`group=True` models the two separately. The others (gp, qmc, cmaes, nsgaii, nsgaiii) need every parameter in every trial:
there such a dimension is one number in [0, 1] whose lower half means off and whose upper half is the range, low to high.
Either way a random draw is off half of the time.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import Trial

from sweeps.config.compare import values_at
from sweeps.config.faults import is_number
from sweeps.config.space import Dimension, Search, active, by_dependence, identity, points, same
from sweeps.search.samplers import MAX_GRID, check_sampler, chosen, make_sampler
from sweeps.search.study import CellStudy, Outcome

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

    def _unfold(self, u: float) -> Any:
        if u < OFF_SHARE:
            return self.dimension.off
        return self.dimension.at((u - OFF_SHARE) / (1 - OFF_SHARE))

    def _fold(self, value: float) -> float:
        if self.high == self.low:
            return 1.0
        if self.log:
            share = (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        else:
            share = (value - self.low) / (self.high - self.low)
        return OFF_SHARE + (1 - OFF_SHARE) * min(max(share, 0.0), 1.0)


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
    further: tuple[float, ...] = ()
    """The values of the search's further objectives, in its order; infinite where no seed defines one."""
    excesses: tuple[float, ...] = ()
    """Of the search's constraints, in its order: `Constraint.excess`."""


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
        faults = check_sampler(search.sampler, search.sampler_options, space, len(search.objectives))
        if faults:
            raise ValueError("\n".join(map(str, faults)))
        self._search = search
        self._cell_key = cell_key
        self._chosen = chosen(search.sampler, search.sampler_options)
        self._sampler = self._chosen.sampler
        self._space = dict(space)
        self._parameters = [Parameter(path, space[path], self._sampler.conditional) for path in by_dependence(space)]
        self._distributions = {n: d for p in self._parameters for n, d in p.distributions().items()}
        self._fixed = {
            name: value
            for p in self._parameters
            if p.path in self._chosen.fixed
            for name, value in (p.to_trial(self._chosen.fixed[p.path]) or {}).items()
        }
        self._file_values = dict(file_values or {})
        self._parallel = max(1, search.parallel)
        self._in_groups = in_groups
        # In an order of their own, so that the order in the file changes nothing but the report.
        self._objectives = sorted(enumerate(search.objectives), key=lambda pair: pair[1].name)
        self._grid = self._enumerate() if self._sampler.is_grid else None
        self._study: CellStudy | None = None
        self._known: list[tuple[Mapping[str, Any], dict[str, Any] | None]] = []

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
        if self._study is None:
            # Without a trial qmc has no space, and would draw at random until a first result.
            corner = {name: value for p in self._parameters for name, value in p.lowest().items()}
            self._study = CellStudy(
                self._make, self._distributions, len(self._objectives), self.needs if self._sampler.replay else None,
                corner if self._sampler.quasi_random else None,
            )  # fmt: skip
        outcomes = self._outcomes({k: finished[k] for k in self.needs(number)})
        with self._study.next_trial(self._history(number, finished), outcomes) as trial:
            parameters = self._suggested(trial)
            from_model = bool(trial.relative_params) and not self._sampler.quasi_random
        return Suggestion(parameters, "model" if from_model else "random")

    def _make(self, number: int) -> BaseSampler:
        return make_sampler(self._chosen, self._seed(0 if self._sampler.quasi_random else number), self._fixed)

    def _history(self, number: int, finished: Mapping[int, Finished]) -> list[dict[str, Any] | None]:
        """Parameters of Optuna's trials of the configurations before `number`; those known before are the same objects."""
        del self._known[number:]
        for k in range(number):
            parameters = finished[k].parameters
            if k == len(self._known):
                self._known.append((dict(parameters), self._trial_parameters(k, parameters)))
            elif self._known[k][0] != parameters:
                self._known[k] = dict(parameters), self._trial_parameters(k, parameters)
        return [trial for _, trial in self._known]

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

    def _outcomes(self, finished: Mapping[int, Finished]) -> dict[int, Outcome]:
        """What the sampler gets of configurations that have ended, by number: values to be minimised, and constraints.

        One objective becomes ranks, 0 the best, equal ones sharing one: because both the value and the tie-break count, and
        Optuna takes one number. TPE, CMA-ES and the genetic samplers use only the order anyway. Where a sampler takes no
        constraints, those that break one have the last ranks, by how much they break them.

        Of several objectives each becomes ranks of its own, without the tie-break, so that who dominates whom stays as it is.
        The genetic samplers get the values, since they compare distances, and ranks would change with every later result.
        """
        signs = [-1.0 if objective.direction == "maximize" else 1.0 for _, objective in self._objectives]
        values: dict[int, list[float]] = {}
        for number, one in finished.items():
            given = () if one.value is None else (one.value, *one.further)
            if given and not any(map(math.isnan, given)):
                values[number] = [sign * given[i] for sign, (i, _) in zip(signs, self._objectives, strict=True)]
        limits = self._search.constraints
        broken = {number: sum(max(0.0, e) for e in finished[number].excesses) if limits else 0.0 for number in values}
        undefined = 1.0 + max((total for total in broken.values() if math.isfinite(total)), default=0.0)
        objectives: dict[int, tuple[float, ...]]
        if len(signs) > 1:
            columns = [{number: own[i] for number, own in values.items()} for i in range(len(signs))]
            columns = columns if self._sampler.replay else [_ranks(column) for column in columns]
            objectives = {number: tuple(column[number] for column in columns) for number in values}
        else:
            first = {number: 0.0 if self._sampler.constraints else broken[number] for number in values}
            ties = {
                number: math.inf if (tie := finished[number].tie_break) is None or math.isnan(tie) else tie for number in values
            }
            ranks = _ranks({number: (first[number], own[0], ties[number]) for number, own in values.items()})
            objectives = {number: (rank,) for number, rank in ranks.items()}
        outcomes = {}
        names = [str(constraint) for constraint in limits] if self._sampler.constraints else []
        for number, one in finished.items():
            named = {name: min(excess, undefined) for name, excess in zip(names, one.excesses, strict=False)} if names else {}
            result = (one.value, one.tie_break, one.stopped_after, one.further, one.excesses)
            outcomes[number] = Outcome(objectives.get(number), named, one.stopped_after, result)
        return outcomes

    def _seed(self, number: int | str) -> int:
        text = f"{self._search.seed}/{self._cell_key}/{number}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")  # what RandomState takes

    def _enumerate(self) -> list[dict[str, Any]]:
        """The points of a grid without the file's own, which is configuration 0: in order, the last path changing fastest.

        Of a shuffled one they are in a random order of the seed; none depends on another or on a result.
        """
        ticks = self._chosen.options.get("points")
        fixed = self._chosen.fixed
        columns = {path: [fixed[path]] if path in fixed else self._space[path].grid(ticks) for path in self._space}
        own = identity(active(self._space, {path: self._file_values.get(path) for path in self._space}))
        found = [point for point in points(self._space, columns, MAX_GRID) if identity(point) != own]
        if not self._sampler.shuffled:
            return found
        return [found[i] for i in np.random.RandomState(self._seed("order")).permutation(len(found))]


def _ranks(keys: Mapping[int, Any]) -> dict[int, float]:
    """The position of every key in order, equal ones sharing one."""
    order = {key: float(rank) for rank, key in enumerate(sorted(set(keys.values())))}
    return {number: order[key] for number, key in keys.items()}


def file_values(space: Mapping[str, Dimension], resolved: Mapping[str, Any]) -> dict[str, Any]:
    """The values of configuration 0: those of resolved settings at the paths of a space, where they exist.

    A setting that several units share has the value of the first; a path of the space reaches all of them alike.
    """
    return {path: values[0] for path in space if (values := values_at(resolved, path))}


def count_different(space: Mapping[str, Dimension], own: Mapping[str, Any]) -> int | None:
    """The number of different configurations of a space and `own`, the file's; None for more than can be counted."""
    for dimension in space.values():
        if dimension.kind != "choice" and (dimension.high or 0) - (dimension.low or 0) >= MAX_GRID:
            return None
    try:
        found = points(space, {path: dimension.grid(None) for path, dimension in space.items()}, MAX_GRID)
    except ValueError:  # a range of numbers, or too many
        return None
    return len({identity(point) for point in (active(space, {path: own.get(path) for path in space}), *found)})
