"""Curves, and the published criteria on curves made by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.training.lane import Curve, Lane, LaneResult, judge

NAN, INF = math.nan, math.inf


def curve(interpolation: list[float], extrapolation: list[float], sparsity: list[float] | None = None) -> Curve:
    steps = [1000 * i for i in range(len(interpolation))]
    errors = {"interpolation": interpolation, "extrapolation": extrapolation}
    return Curve(steps, errors, sparsity or [0.1 * i for i in range(len(steps))])


def judged(curve: Curve, threshold: float | None, steps: int = 4000, diverged: str | None = None) -> LaneResult:
    return judge(Lane("key", {"train": {"steps": 4000}}, 7), curve, threshold, steps, diverged)


def figures(result: LaneResult) -> tuple[Any, ...]:
    return result.solved, result.converged_at, result.best_step, result.sparsity_error, result.error


def test_the_best_step_has_the_lowest_interpolation_error_and_gives_all_figures() -> None:
    result = judged(curve([3.0, 1.0, 2.0], [9.0, 0.5, 0.1], [0.4, 0.2, 0.3]), threshold=1.0)
    assert figures(result) == (True, 1000, 1000, 0.2, {"interpolation": 1.0, "extrapolation": 0.5})


def test_of_equal_minima_the_first_counts() -> None:
    result = judged(curve([3.0, 1.0, 1.0], [9.0, 7.0, 0.1]), threshold=1.0)
    assert (result.best_step, result.solved, result.converged_at) == (1000, False, 2000)


def test_a_lane_may_converge_and_not_be_solved() -> None:
    result = judged(curve([3.0, 2.0, 1.0], [9.0, 0.5, 4.0]), threshold=1.0)
    assert (result.solved, result.converged_at, result.best_step) == (False, 1000, 2000)


def test_converged_at_is_the_first_step_below_the_threshold() -> None:
    result = judged(curve([4.0, 3.0, 2.0, 1.0], [1.0, 0.9, 5.0, 0.2]), threshold=1.0)
    assert (result.solved, result.converged_at) == (True, 1000)


def test_an_error_equal_to_the_threshold_is_not_below_it() -> None:
    result = judged(curve([1.0], [1.0]), threshold=1.0)
    assert (result.solved, result.converged_at) == (False, None)


def test_not_a_number_is_never_best_and_never_solved() -> None:
    result = judged(curve([NAN, 2.0, NAN], [0.1, NAN, 0.1]), threshold=1.0)
    assert (result.best_step, result.solved, result.converged_at) == (1000, False, 0)
    assert result.error == {"interpolation": 2.0, "extrapolation": None}


def test_if_no_interpolation_error_is_a_number_the_first_step_is_the_best() -> None:
    result = judged(curve([NAN, NAN], [NAN, NAN], [NAN, NAN]), threshold=1.0)
    assert figures(result) == (False, None, 0, None, {"interpolation": None, "extrapolation": None})


@pytest.mark.parametrize("guide", [NAN, INF])
def test_without_a_finite_interpolation_error_nothing_is_solved(guide: float) -> None:
    result = judged(curve([guide, guide], [0.1, 0.1]), threshold=1.0)
    assert (result.outcome, result.solved, result.best_step, result.converged_at) == ("unsolved", False, 0, 0)


def test_an_infinite_error_is_none() -> None:
    assert judged(curve([INF], [INF]), threshold=1.0).error == {"interpolation": None, "extrapolation": None}


def test_a_diverged_lane_is_not_solved_but_keeps_its_figures() -> None:
    result = judged(curve([3.0, 1.0], [9.0, 0.5], [0.4, 0.2]), threshold=1.0, diverged="the loss is not finite")
    assert figures(result) == (False, 1000, 1000, 0.2, {"interpolation": 1.0, "extrapolation": 0.5})
    assert (result.outcome, result.reason) == ("diverged", "the loss is not finite")


def test_a_lane_that_converged_before_its_budget_has_the_reason_why_it_ended() -> None:
    solved = curve([3.0, 1.0], [9.0, 0.5])
    early, late = judged(solved, 1.0, steps=1000), judged(solved, 1.0)
    assert (early.key, early.seed, early.budget, early.steps) == ("key", 7, 4000, 1000)
    assert (early.outcome, early.reason) == ("solved", "stopped at step 1000: the threshold is met")
    assert (late.outcome, late.reason, late.threshold) == ("solved", None, 1.0)


def test_without_an_interpolation_split_the_last_evaluation_counts() -> None:
    only = Curve([0, 10, 20], {"extrapolation": [0.1, 9.0, 0.5]}, [0.3, 0.2, 0.1])
    assert figures(judged(only, threshold=1.0)) == (True, 0, 20, 0.1, {"extrapolation": 0.5})


def test_without_a_threshold_nothing_is_solved() -> None:
    result = judged(curve([0.0], [0.0]), threshold=None)
    assert (result.solved, result.converged_at, result.best_step) == (False, None, 0)


def test_without_evaluations_there_are_no_figures() -> None:
    assert figures(judged(Curve(), threshold=1.0)) == (False, None, None, None, {})


def evaluation(value: float) -> dict[str, float]:
    return {"error.interpolation": value, "error.extrapolation": 2 * value, "sparsity_error": value / 10}


def test_evaluations_are_added_to_every_series() -> None:
    made = Curve()
    made.add(0, evaluation(3.0))
    made.add(20, evaluation(1.0))
    assert made == Curve([0, 20], {"interpolation": [3.0, 1.0], "extrapolation": [6.0, 2.0]}, [0.3, 0.1])


def test_after_a_restart_the_same_and_later_steps_are_replaced() -> None:
    made = Curve()
    for step, value in ((0, 5.0), (20, 4.0), (40, 3.0), (60, 2.0)):
        made.add(step, evaluation(value))
    made.add(20, evaluation(1.0))
    assert made == Curve([0, 20], {"interpolation": [5.0, 1.0], "extrapolation": [10.0, 2.0]}, [0.5, 0.1])


@given(st.lists(st.integers(0, 20), min_size=1))
def test_steps_only_grow_and_the_series_stay_equally_long(steps) -> None:
    made = Curve()
    for step in steps:
        made.add(step, evaluation(float(step)))
    assert made.step == sorted(set(made.step)) and made.step[-1] == steps[-1]
    assert made.error["interpolation"] == [float(s) for s in made.step]
    assert {len(series) for series in (made.sparsity_error, *made.error.values())} == {len(made.step)}


def test_plain_data_has_none_where_a_number_is_not_finite() -> None:
    assert curve([1.0, NAN], [INF, 2.0], [0.5, NAN]).as_dict() == {
        "step": [0, 1000],
        "error.interpolation": [1.0, None],
        "error.extrapolation": [None, 2.0],
        "sparsity_error": [0.5, None],
    }
