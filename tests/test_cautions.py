"""Warnings about settings that are sound and yet say what nobody means."""

from __future__ import annotations

from typing import Any

import pytest

from sweeps.config.settings import resolve
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


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"operation": "sort", "base": 10},
            "base = 10 changes nothing: it is a setting of add and multiply, not of sort",
        ),
        ({"operation": "bcd_multiply", "symbols": 9}, "symbols = 9 changes nothing"),
        ({"operation": "increment", "high_zeros": "kept"}, "high_zeros = kept changes nothing"),
        ({"operation": "add", "base": 10, "high_zeros": "kept"}, None),
        ({"operation": "sort", "symbols": 9}, None),
    ],
)
def test_a_setting_that_an_operation_does_not_have_is_warned_of(
    settings: dict[str, Any], told: str | None
) -> None:
    found = warnings({"name": "algorithm", **settings}, "dngpu")
    assert len(found) == (told is not None) and all(str(told) in warning for warning in found)


def test_tests_that_repeat_what_is_trained_on_are_warned_of() -> None:
    # Binary numbers of 6 digits: 4,096 pairs, all of them among at most 10,000 training examples. Of 7 digits: 16,384.
    (told,) = warnings({"name": "algorithm", "operation": "add", "test_length": 13}, "dngpu")
    assert "every example of length 13 is trained on, so the extrapolation split repeats them" in told
    assert warnings({"name": "algorithm", "operation": "add", "test_length": 15}, "dngpu") == []
    fewer = {"operation": "add", "test_length": 13, "examples_per_length": 1000}
    assert warnings({"name": "algorithm", **fewer}, "dngpu") == []
