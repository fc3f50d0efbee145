"""Warnings about settings that are sound and yet say what nobody means."""

from __future__ import annotations

from typing import Any

import pytest

from sweeps.settings import resolve
from tasks.static import Static


def warnings(task: Any, model: str = "linear", **train: Any) -> list[str]:
    settings, faults, found = resolve({"model": model, "task": task, "train": {"steps": 1000, **train}})
    assert settings is not None, [str(fault) for fault in faults]
    return [str(warning) for warning in found]


@pytest.mark.parametrize(
    ("task", "model"),
    [
        ("identity", "linear"),
        ("pair_functions", "nalu"),
        ("number_words", "lstm"),
        ("sequential_digits", "nac"),
    ],
)
def test_stopping_at_solved_is_warned_of_where_a_task_has_no_threshold(task, model) -> None:
    (told,) = warnings(task, model, stop="solved")
    assert told.startswith(f"train.stop: task {task} has no threshold") and "no lane is ever solved" in told
    assert warnings(task, model) == []


def test_stopping_at_solved_is_not_warned_of_where_there_is_a_threshold() -> None:
    assert warnings("static", stop="solved") == []
    assert warnings("single_module", stop="solved") == []
    digits = {"name": "sequential_digits", "test_lengths": [1], "thresholds": [0.1]}
    assert warnings(digits, "nac", stop="solved") == []


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"operation": "add", "subset_ratio": 0.5, "overlap_ratio": 0.0},
            "equal errors of all weights cancel",
        ),
        ({"operation": "sub", "overlap_ratio": 1.0}, "sub always gives 0"),
        ({"operation": "div", "overlap_ratio": 1.0}, "div always gives 1"),
        ({"operation": "mul", "subset_ratio": 0.5, "overlap_ratio": 0.0}, None),
        ({"operation": "add", "subset_ratio": 0.5, "overlap_ratio": 0.5}, None),
        ({"operation": "add", "simple": True}, None),
    ],
)
def test_a_threshold_that_nothing_can_reach_is_warned_of_and_no_other(settings, told) -> None:
    task = Static(Static.Config(**settings))
    assert (task.threshold() < 1e-20) == (told is not None)
    for name in ("static", "recurrent"):
        found = warnings({"name": name, **settings})
        assert len(found) == (told is not None) and all(told in warning for warning in found)
