"""The search of a sweep as studies of Optuna, written from its records: for optuna-dashboard.

The search itself keeps no such studies: its own are made anew from the records, with ranks for values (see `cell.py`). Here a
trial has the values that a report has.
"""

from __future__ import annotations

import math
import os
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from sweeps.config.space import Dimension, Objective
from sweeps.errors import UserError
from sweeps.search.cell import Parameter
from sweeps.web import check_port, started

STATES = {
    "running": TrialState.RUNNING, "complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL,
}  # fmt: skip


@dataclass(frozen=True)
class Tried:
    """A configuration as a trial."""

    parameters: Mapping[str, Any]
    """Searched path -> value. A value that is outside of the space is an attribute of the trial."""
    state: str
    """Of the configuration: one of `STATES`."""
    values: Sequence[float | None]
    """One for each objective; None where no seed defines it. Used for complete ones only."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able: other figures."""


def write_study(
    file: Path, name: str, space: Mapping[str, Dimension], objectives: Sequence[Objective], tried: Sequence[Tried]
) -> None:
    """Write a study to a journal file, which may have others. Its trials are in the order given."""
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(file))), study_name=name,
        directions=[objective.direction for objective in objectives],
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names([objective.name for objective in objectives])
    study.add_trials([_trial(space, one) for one in tried])


def serve_dashboard(file: Path, host: str = "127.0.0.1", port: int = 5000) -> subprocess.Popen[bytes]:
    """Start optuna-dashboard on a journal file of Optuna and return when it responds. End it with `stop`.

    Raises UserError where it is not installed or the port is taken, and TrackingError where it does not respond.
    """
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    program = shutil.which("optuna-dashboard", path=beside)
    if program is None:
        raise UserError(f"optuna-dashboard is not installed: {shlex.quote(sys.executable)} -m pip install optuna-dashboard")
    check_port(host, port)
    command = [program, "--storage-class", "JournalFileStorage", "--host", host, "--port", str(port), "--quiet", str(file)]
    return started("optuna-dashboard", command, {**os.environ}, host, port, "/", 60.0)


def _trial(space: Mapping[str, Dimension], one: Tried) -> optuna.trial.FrozenTrial:
    parameters: dict[str, Any] = {}
    distributions: dict[str, BaseDistribution] = {}
    outside: dict[str, Any] = {}
    for path, value in one.parameters.items():
        found = _parameter(path, space[path], value) if path in space else None
        if found is None:
            outside[path] = value
            continue
        parameters |= found[0]
        distributions |= found[1]
    values = [value for value in one.values if value is not None and math.isfinite(value)]
    state = STATES[one.state]
    if state == TrialState.COMPLETE and len(values) != len(one.values):
        state = TrialState.FAIL  # Optuna has no complete trial without a value
    return optuna.trial.create_trial(
        state=state, params=parameters, distributions=distributions, user_attrs={**outside, **one.attributes},
        values=values if state == TrialState.COMPLETE else None,
    )  # fmt: skip


def _parameter(path: str, dimension: Dimension, value: Any) -> tuple[dict[str, Any], dict[str, BaseDistribution]] | None:
    """Return a value as parameters with their distributions; None if it is outside of the dimension."""
    of_search = Parameter(path, dimension, conditional=True)
    found = of_search.to_trial(value)
    if found is None:
        return None
    if of_search.choices:  # by its text, which the search does without
        texts = tuple(dict.fromkeys(str(choice) for choice in of_search.choices))
        return {path: str(value)}, {path: CategoricalDistribution(texts)}
    return found, {name: distribution for name, distribution in of_search.distributions().items() if name in found}
