"""Optuna's study of one cell, which is brought up to date with a history before every suggestion.

A suggestion is a function of the history alone. What two suggestions in a row have in common is kept all the same, because
to make thousands of trials again takes longer than to suggest: see `CellStudy`.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

# Otherwise Optuna logs "A new study created in memory" for every cell.
optuna.logging.set_verbosity(optuna.logging.WARNING)


class Outcome(NamedTuple):  # which is made thousands of times, and quicker than a dataclass
    """The result of one configuration, as the sampler gets it."""

    values: tuple[float, ...] | None
    """One for each objective, all minimised. None: it failed."""
    constraints: Mapping[str, float]
    """Name -> by how much it is broken, above 0, or met. Empty for a sampler that takes none."""
    stopped_after: int | None
    """Stages of training after which it was stopped early: a pruned trial."""
    result: object
    """What values and constraints were computed from. They may differ from history to history, since they are ranks, but their
    order does not as long as this is equal."""


class CellStudy:
    """The trials of one cell, and the state that its sampler keeps between them.

    A sampler without state gets the history as trials. One with state (`replay`) has suggested each of them, in the original
    order and with the same seeds, when the state depends on what was known at that time: those trials are kept as long as the
    history begins with what they were made from, and made again otherwise.

    Parameters
    ----------
    make
        The sampler for a suggestion, given its number.
    objectives
        How many.
    ended
        Of a sampler with state: number of a trial -> the trials that had ended when it was suggested, from 0 on. None: the
        sampler keeps no state.
    first
        A trial before all others, if any.
    """

    def __init__(
        self,
        make: Callable[[int], BaseSampler],
        distributions: Mapping[str, BaseDistribution],
        objectives: int,
        ended: Callable[[int], range] | None,
        first: Mapping[str, Any] | None,
    ) -> None:
        self._make, self._distributions, self._ended = make, distributions, ended
        self._storage = _Storage()
        self._study = optuna.create_study(
            storage=self._storage, sampler=make(0), study_name=_Storage.NAME, directions=["minimize"] * objectives
        )
        self._shared: dict[tuple[str, ...], dict[str, BaseDistribution]] = {}
        self._first = [] if first is None else [self._trial(first, TrialState.PRUNED)]
        self._storage.trials = list(self._first)
        self._known: list[dict[str, Any] | None] = []
        """The parameters that `_trials` were made from."""
        self._trials: list[FrozenTrial | None] = []
        self._attrs: list[dict[str, Any]] = []
        """What the sampler keeps in each trial."""
        self._constraints: dict[int, Mapping[str, float]] = {}
        """Those that each trial has, by number."""
        self._results: dict[int, object] = {}
        """Of a sampler with state, by number: results that were known when a later trial was suggested."""

    @contextmanager
    def next_trial(self, history: Sequence[dict[str, Any] | None], outcomes: Mapping[int, Outcome]) -> Iterator[Trial]:
        """Yield a trial that comes after a history; what is suggested with it changes nothing here.

        Parameters
        ----------
        history
            Parameters of every configuration; None: it is no trial. Equal ones are recognised by identity.
        outcomes
            By number, of those that have ended. The others count as running.
        """
        self._bring_up_to_date(history, outcomes)
        attrs = dict(self._storage.study_attrs)
        self._study.sampler = self._make(len(history))
        try:
            yield self._study.ask()
        finally:
            self._storage.trials.pop()
            self._storage.study_attrs = attrs

    def _bring_up_to_date(self, history: Sequence[dict[str, Any] | None], outcomes: Mapping[int, Outcome]) -> None:
        if self._ended is None:
            same = sum(1 for _ in itertools.takewhile(bool, map(_is, self._known, history)))
            for kept in (self._known, self._trials, self._attrs):
                del kept[same:]
            self._constraints = {number: own for number, own in self._constraints.items() if number < same}
            for params in history[same:]:
                self._known.append(params)
                self._trials.append(None if params is None else self._trial(params, TrialState.RUNNING))
                self._attrs.append({})
            self._storage.trials = [*self._first, *(trial for trial in self._trials if trial is not None)]
            for position, trial in enumerate(self._storage.trials):
                trial.number = trial._trial_id = position
            self._tell(outcomes, len(history))
            return
        begins_alike = len(self._known) <= len(history) and all(map(_is, self._known, history))
        if not begins_alike or any(outcomes[number].result != result for number, result in self._results.items()):
            self._known, self._trials, self._attrs, self._constraints, self._results = [], [], [], {}, {}
            self._storage.study_attrs = {}
            self._storage.trials = list(self._first)
        self._tell(outcomes, len(self._results))
        for number in range(len(self._known), len(history)):
            known = len(self._results), self._ended(number).stop
            self._tell(outcomes, known[1], start=known[0])
            self._results |= {ended: outcomes[ended].result for ended in range(*known)}
            self._suggest_again(number, history[number])
        self._tell(outcomes, len(history))

    def _suggest_again(self, number: int, params: dict[str, Any] | None) -> None:
        """Add a trial of the history as it was suggested: with the state that the sampler leaves in it and in the study."""
        self._known.append(params)
        trial = None
        if params is not None:
            self._study.sampler = self._make(number)
            _ = self._study.ask().relative_params
            trial = self._storage.trials[-1]
            trial.params, trial.distributions = params, self._distributions_of(params)
        self._trials.append(trial)
        self._attrs.append({} if trial is None else trial.system_attrs)

    def _tell(self, outcomes: Mapping[int, Outcome], stop: int, start: int = 0) -> None:
        """Set the outcomes of the trials from `start` to before `stop`; the others are as they were."""
        for number in range(start, max(stop, 0)):
            trial = self._trials[number]
            if trial is None:
                continue
            outcome = outcomes.get(number)
            if outcome is None:
                trial.state, trial.values = TrialState.RUNNING, None
            elif outcome.values is None:
                trial.state, trial.values = TrialState.FAIL, None
            else:
                stopped = outcome.stopped_after
                trial.state = TrialState.COMPLETE if stopped is None else TrialState.PRUNED
                trial.values = list(outcome.values)
                trial.intermediate_values = {} if stopped is None else {stopped: outcome.values[0]}
            constraints = {} if outcome is None or outcome.values is None else outcome.constraints
            if self._constraints.get(number, {}) != constraints:
                self._constraints[number] = constraints
                trial.system_attrs = dict(self._attrs[number])
                for name, value in constraints.items():
                    trial.set_constraint(name, value)

    def _trial(self, params: Mapping[str, Any], state: TrialState) -> FrozenTrial:
        return FrozenTrial(
            number=0, trial_id=0, state=state, value=None, datetime_start=None, datetime_complete=None,
            params=dict(params), distributions=self._distributions_of(params), user_attrs={}, system_attrs={},
            intermediate_values={},
        )  # fmt: skip

    def _distributions_of(self, params: Mapping[str, Any]) -> dict[str, BaseDistribution]:
        """The distributions of a trial's parameters: one dict for all trials of the same parameters, as none changes it."""
        names = tuple(params)
        if names not in self._shared:
            self._shared[names] = {name: self._distributions[name] for name in names}
        return self._shared[names]


def _is(one: object, other: object) -> bool:
    return one is other


class _Storage(BaseStorage):
    """Trials as they are, without the copies that Optuna's storages make of each. Only what `Study.ask` and samplers use."""

    NAME = "cell"

    def __init__(self) -> None:
        self.trials: list[FrozenTrial] = []
        """A trial's id is its number, its position here."""
        self.study_attrs: dict[str, Any] = {}
        self._directions: list[StudyDirection] = []

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        self._directions = list(directions)
        return 0

    def get_study_id_from_name(self, study_name: str) -> int:
        return 0

    def get_study_name_from_id(self, study_id: int) -> str:
        return self.NAME

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._directions

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return {}

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self.study_attrs

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self.study_attrs[key] = value

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        number = len(self.trials)
        trial = FrozenTrial(
            number=number, trial_id=number, state=TrialState.RUNNING, value=None, datetime_start=None, datetime_complete=None,
            params={}, distributions={}, user_attrs={}, system_attrs={}, intermediate_values={},
        )  # fmt: skip
        self.trials.append(trial)
        return number

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        trial = self.trials[trial_id]
        trial.params[param_name] = distribution.to_external_repr(param_value_internal)
        trial.distributions[param_name] = distribution

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.trials[trial_id].system_attrs[key] = value

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self.trials[trial_id]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        found = [trial for trial in self.trials if states is None or trial.state in states]
        return copy.deepcopy(found) if deepcopy else found

    # ------------------------------------------------------------------------------------------- what nothing here uses

    def delete_study(self, study_id: int) -> None:
        raise NotImplementedError

    def get_all_studies(self) -> list[Any]:
        raise NotImplementedError

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        raise NotImplementedError

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        raise NotImplementedError

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        raise NotImplementedError

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        raise NotImplementedError
