"""A sweep's search as a study that Optuna itself opens."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import optuna
import pytest
from commands import call
from made_sweep import made_sweep
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from sweeps.config.space import Dimension, Objective
from sweeps.search.dashboard import Tried, write_study
from sweeps.store import Store

SPACE = {
    "train.lr": Dimension("log_uniform", 1e-4, 1e-1),
    "train.gradient_noise": Dimension("log_uniform", 1e-5, 0.1, off=0, has_off=True),
    "train.optimizer": Dimension("choice", choices=("adam", "sgd", 1, True)),
}


def opened(file: Path, name: str) -> optuna.Study:
    return optuna.load_study(study_name=name, storage=JournalStorage(JournalFileBackend(str(file))))


def test_trials_have_the_values_of_the_report_and_the_choices_by_their_names(tmp_path: Path) -> None:
    tried = [
        Tried({"train.lr": 1e-3, "train.gradient_noise": 0, "train.optimizer": "sgd"}, "complete", [1500.0], {"seeds": 3}),
        Tried({"train.lr": 1e-2, "train.gradient_noise": 1e-3, "train.optimizer": True}, "complete", [900.0]),
        Tried({"train.lr": 5.0, "train.gradient_noise": 0, "train.optimizer": "adam"}, "complete", [2000.0]),
        Tried({"train.lr": 1e-2, "train.gradient_noise": 1e-3, "train.optimizer": 1}, "pruned", [None]),
        Tried({"train.lr": 1e-2, "train.gradient_noise": 1e-3, "train.optimizer": 1}, "complete", [float("inf")]),
        Tried({"train.lr": 1e-2, "train.gradient_noise": 1e-3, "train.optimizer": 1}, "running", [None]),
    ]
    write_study(tmp_path / "journal", "small", SPACE, [Objective("par2", "minimize")], tried)
    study = opened(tmp_path / "journal", "small")
    first, second, outside, *others = study.trials
    assert first.params == {"train.lr": 1e-3, "train.gradient_noise is on": False, "train.optimizer": "sgd"}
    assert second.params == {
        "train.lr": 1e-2, "train.gradient_noise is on": True, "train.gradient_noise": 1e-3, "train.optimizer": "True"
    }  # fmt: skip
    assert outside.user_attrs == {"train.lr": 5.0} and "train.lr" not in outside.params
    assert [trial.state.name for trial in others] == ["PRUNED", "FAIL", "RUNNING"]
    assert (study.best_trial.number, study.best_value, first.user_attrs) == (1, 900.0, {"seeds": 3})
    assert study.metric_names == ["par2"]


def test_several_objectives_and_cells_are_studies_of_one_file(tmp_path: Path) -> None:
    two = [Objective("success_rate", "maximize"), Objective("par2", "minimize")]
    for name in ("a", "b"):
        write_study(tmp_path / "journal", name, SPACE, two, [Tried({"train.lr": 1e-3}, "complete", [0.5, 1000.0])])
    found = [opened(tmp_path / "journal", name) for name in ("a", "b")]
    assert all([direction.name for direction in one.directions] == ["MAXIMIZE", "MINIMIZE"] for one in found)


@pytest.mark.skipif(importlib.util.find_spec("optuna_dashboard") is not None, reason="optuna-dashboard is installed")
def test_without_optuna_dashboard_the_command_that_installs_it_is_named(folder: Path) -> None:
    with Store("results") as store:
        made_sweep(store)
    answer = call("ui", "small", "--optuna")
    assert answer.status == 2 and "pip install optuna-dashboard" in answer.err


def test_the_dashboard_is_of_one_sweep(folder: Path) -> None:
    with Store("results") as store:
        made_sweep(store)
    answer = call("ui", "--optuna")
    assert answer.status == 2 and "sweeps ui NAME --optuna" in answer.err
