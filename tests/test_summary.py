"""Summaries by hand, and the order of configurations."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.results.statistics import Interval
from sweeps.results.summary import (
    NO_ERROR_FIGURE,
    WORST,
    objective_figure,
    objective_value,
    par2,
    rank,
    summarise,
)
from sweeps.training.lane import LaneResult


def lane(
    seed: int, outcome: str = "unsolved", extrapolation: float | None = 1.0, **fields: Any
) -> LaneResult:
    error = {"interpolation": extrapolation, "extrapolation": extrapolation}
    return LaneResult(
        key=f"lane{seed}", seed=seed, budget=10_000, steps=fields.pop("steps", 10_000), outcome=outcome,
        solved=outcome == "solved", error=error, **fields,
    )  # fmt: skip


def solved(seed: int, converged_at: int, sparsity_error: float = 0.4, error: float = 1e-6) -> LaneResult:
    return lane(seed, "solved", error, converged_at=converged_at, sparsity_error=sparsity_error)


LANES = [
    solved(0, 3000, 0.1),
    solved(1, 5000, 0.3),
    lane(
        2, extrapolation=100.0, converged_at=2000, sparsity_error=0.5
    ),  # converged once, not at its best step
    lane(3, "diverged", None, steps=700, reason="a loss that is not finite at step 700"),
    lane(4, "error", None, steps=0, reason="RuntimeError: boom"),
]


def test_counts_and_figures_by_hand() -> None:
    summary = summarise(LANES, budget=10_000)
    assert (summary.seeds, summary.solved, summary.diverged, summary.errors) == (5, 2, 1, 1)
    assert summary.success_rate.estimate == 0.4
    assert summary.converged_at.estimate == 4000.0
    assert summary.converged_at_median == 4000.0
    assert summary.sparsity_error.estimate == pytest.approx(0.2, rel=1e-2)
    assert summary.seed_steps == 30_700


def test_par2_counts_an_unsolved_seed_as_twice_the_budget() -> None:
    assert par2(LANES, 10_000) == (3000 + 5000 + 3 * 20_000) / 5
    assert par2([], 10_000) is None
    assert par2([lane(0, "solved", 0.0)], 10_000) == 10_000  # a task that defines no converged-at


def test_a_missing_error_counts_as_infinite_in_the_medians() -> None:
    summary = summarise(LANES, budget=10_000)
    assert summary.error_medians == {"interpolation": 100.0, "extrapolation": 100.0}
    assert summary.log_error_median == 2.0
    broken = summarise(LANES[2:], budget=10_000)
    assert broken.error_medians["extrapolation"] is None
    assert broken.log_error_median == NO_ERROR_FIGURE


def test_a_configuration_without_solved_seeds_has_nulls_and_no_nan() -> None:
    summary = summarise(LANES[2:], budget=10_000)
    assert summary.success_rate.estimate == summary.success_rate.low == 0.0
    assert summary.converged_at == summary.sparsity_error == Interval(None, None, None)
    assert summary.converged_at_median is None
    assert summary.par2 == 20_000


def test_no_records_make_an_empty_summary() -> None:
    summary = summarise([], budget=10_000)
    assert (summary.seeds, summary.par2, summary.success_rate.estimate) == (0, None, None)
    assert objective_value(summary) == (WORST, NO_ERROR_FIGURE)


@given(st.permutations(LANES))
@settings(max_examples=30, deadline=None)
def test_the_order_of_arrival_changes_nothing(records: list[LaneResult]) -> None:
    assert summarise(records, 10_000) == summarise(LANES, 10_000)


def test_ties_of_par2_are_broken_by_the_log_extrapolation_error() -> None:
    near, far = (summarise([lane(0, extrapolation=error)], 10_000) for error in (1e-3, 1e3))
    nothing, best = summarise([lane(0, "diverged", None)], 10_000), summarise([solved(0, 5000)], 10_000)
    assert near.par2 == far.par2 == nothing.par2
    assert rank([nothing, far, near, best]) == [3, 2, 1, 0]
    assert objective_value(near) == (20_000.0, -3.0)


def test_full_ties_go_to_the_earlier_configuration() -> None:
    same = summarise([lane(0)], 10_000)
    assert rank([same, same, same]) == [0, 1, 2]


def test_objectives_can_be_maximised_and_named() -> None:
    good, bad = summarise([solved(0, 9000)], 10_000), summarise([lane(0)], 10_000)
    assert rank([bad, good], "success_rate", "maximize") == [1, 0]
    assert rank([bad, good], "converged_at.median") == [1, 0]
    assert objective_figure(good, "error.extrapolation.median") == pytest.approx(1e-6)
    assert objective_value(bad, "converged_at.median") == (WORST, 0.0)
    assert objective_value(bad, "converged_at.median", "maximize")[0] == -WORST


def test_an_unknown_objective_is_told_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="Did you mean 'success_rate'"):
        objective_figure(summarise(LANES, 10_000), "sucess_rate")
