"""Verdicts on curves made by hand: why a seed is solved or not."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sweeps.results import verdicts
from sweeps.results.verdicts import KINDS, solved_at_end, threshold_ratio, unsolved, verdict
from sweeps.training.lane import Curve, Lane, LaneResult, error_result, judge

THRESHOLD = 1e-6
EVERY = 1000


def lane(
    errors: Sequence[float],
    guide: Sequence[float] | None = None,
    threshold: float | None = THRESHOLD,
    seed: int = 0,
    **kept: Any,
) -> LaneResult:
    """The result of a lane with these extrapolation errors, one at every thousandth step; its budget ends at the last one."""
    steps = [EVERY * i for i in range(len(errors))]
    columns = {"interpolation": list(guide or errors), "extrapolation": list(errors)}
    curve = Curve(steps, columns, [0.1] * len(steps))
    budget = kept.pop("budget", max(steps, default=EVERY))
    result = judge(Lane("key", {"train": {"steps": budget}}, seed), curve, threshold, steps[-1] if steps else 0, **kept)
    return LaneResult(**{**vars(result), "curve": curve.as_dict()})


def kind(errors: Sequence[float], **options: Any) -> str:
    return verdict(lane(errors, **options)).kind


FALLING = [10.0 ** (-i / 4) for i in range(12)]  # a decade in 4000 steps; 10^-2.75 at step 11,000
FLAT = [0.4, 0.41, 0.39, 0.4, 0.42, 0.4, 0.38, 0.41, 0.4, 0.4, 0.42, 0.41]


def test_a_seed_below_its_threshold_at_the_best_step_and_at_the_end_is_solved() -> None:
    found = verdict(lane([1.0, 1e-3, 5e-7]))
    assert (found.kind, found.solved) == ("solved", True)
    assert found.text == "solved: error 5e-7 at step 2000 is below the threshold 1e-6"


def test_a_solved_seed_that_ends_above_its_threshold_has_lost_it() -> None:
    found = verdict(lane([1.0, 5e-7, 4e-5], guide=[1.0, 0.1, 0.2]))
    assert (found.kind, found.solved) == ("solved, lost at the end", True)
    assert found.text.endswith("but it ends at error 4e-5, 40 times the threshold 1e-6")


def test_a_seed_that_crossed_but_not_at_its_best_step_has_crossed_back() -> None:
    found = verdict(lane([1.0, 5e-7, 4e-5, 2e-5], guide=[1.0, 0.5, 0.1, 0.2]))
    assert found.kind == "crossed back"
    assert found.text == (
        "crossed the threshold 1e-6 at step 1000 and came back above it: lowest error 5e-7, last error 2e-5, 20 times the "
        "threshold 1e-6, error 4e-5 at step 2000, which has the lowest interpolation error"
    )
    below = verdict(lane([1.0, 4e-5, 5e-7], guide=[1.0, 0.1, 0.2]))
    assert below.kind == "crossed back" and "is below it at the end (error 5e-7), but not at step 1000" in below.text


def test_a_falling_error_is_extrapolated_to_its_crossing() -> None:
    """log10 falls by 1/4 each 1000 steps: from -2.75 at step 11,000 it needs 13,000 steps to -6."""
    found = verdict(lane(FALLING))
    assert found.kind == "on its way" and found.crosses_at == pytest.approx(24_000)
    assert found.text == (
        "ends on its way: error 1.8e-3, 1.8e3 times the threshold 1e-6; at its rate it would cross near step 24k"
    )


def test_a_crossing_is_not_extrapolated_beyond_ten_budgets() -> None:
    slow = [10.0 ** (-i / 100) for i in range(12)]
    found = verdict(lane(slow))
    assert (found.kind, found.crosses_at) == ("on its way", None)
    assert found.text.endswith("at its rate it would take more than 10 times the budget")


def test_one_outlier_does_not_hide_a_trend() -> None:
    errors = [10.0 ** (-i / 8) for i in range(40)]
    errors[33] = 50.0
    assert verdict(lane(errors)).crosses_at == pytest.approx(48_000, rel=1e-6)


def test_an_error_that_fell_and_then_stays_is_stalled_since_it_stays() -> None:
    found = verdict(lane([100.0, 10.0, *FLAT]))
    assert found.kind == "stalled"
    assert found.text == ("stalled at error 0.38, 3.8e5 times the threshold 1e-6; not lower by more than 10 % since step 2000")
    ends = verdict(lane([100.0, 0.4, *(10 * error for error in FLAT)]))
    assert ends.text.endswith("since step 1000; it ends at error 4.1")


def test_a_seed_within_a_factor_three_is_near_unless_it_still_falls() -> None:
    assert kind([1.0, *(5e-6 * error for error in FLAT)]) == "near"
    assert verdict(lane([1.0, *(5e-6 * error for error in FLAT)])).text.startswith("near: lowest error 1.9e-6, 1.9 times the")
    assert kind([1.5e-5 * 10 ** (-i / 10) for i in range(11)]) == "on its way"
    assert kind([8e-6 * error for error in FLAT]) == "stalled"  # 3.04 times the threshold


def test_what_failed_comes_before_what_its_curve_shows() -> None:
    """Divergence and exceptions take precedence over a curve that was falling, or below the threshold."""
    diverged = verdict(lane(FALLING, diverged="diverged at step 11500: its loss is not finite"))
    assert diverged.kind == "diverged"
    assert diverged.text == (
        "diverged at step 11500: its loss is not finite; its lowest error before was 1.8e-3, 1.8e3 times the threshold 1e-6"
    )
    assert kind([1.0, 5e-7], diverged="diverged at step 1500: a weight is not finite") == "diverged"
    assert kind(FALLING, threshold=None, diverged="diverged at step 9: its loss is not finite") == "diverged"
    broken = verdict(error_result(Lane("key", {"train": {"steps": 10}}, 0), "RuntimeError: boom"))
    assert (broken.kind, broken.text) == ("error", "ended in an exception: RuntimeError: boom")


def test_without_a_threshold_nothing_is_judged() -> None:
    found = verdict(lane([1.0, 0.5], threshold=None))
    assert (found.kind, found.solved) == ("no threshold", False)
    assert found.text == "the task has no threshold, so nothing is judged; lowest error 0.5, last error 0.5"
    assert solved_at_end(lane([1.0, 0.5], threshold=None)) is None


def test_errors_that_are_not_finite_are_never_solved_and_have_no_trend() -> None:
    found = lane([math.nan] * 6)
    assert (found.solved, solved_at_end(found), threshold_ratio(found)) == (False, False, None)
    assert (verdict(found).kind, verdict(found).text) == ("stalled", "no evaluation has a finite error")
    unguided = lane([1e-9, 1e-9], guide=[math.nan, math.nan])
    assert (unguided.solved, verdict(unguided).kind) == (False, "crossed back")
    assert "no interpolation error is finite, so no evaluation can decide; it is below it at the end" in verdict(unguided).text
    ends = verdict(lane([1.0, 0.5, 0.4, 0.4, 0.4, math.nan]))
    assert (ends.kind, ends.text) == (
        "stalled", "its last evaluation is not finite; lowest error 0.4, 4e5 times the threshold 1e-6"
    )  # fmt: skip


def test_without_interpolation_the_last_evaluation_decides() -> None:
    curve = Curve([0, 1000, 2000], {"extrapolation": [1.0, 5e-7, 4e-5]}, [0.1] * 3)
    result = judge(Lane("key", {"train": {"steps": 2000}}, 0), curve, THRESHOLD, 2000)
    found = verdict(LaneResult(**{**vars(result), "curve": curve.as_dict()}))
    assert found.text == (
        "crossed the threshold 1e-6 at step 1000 and came back above it: lowest error 5e-7, error 4e-5, 40 times the threshold "
        "1e-6 at the last evaluation, which decides"
    )


def test_a_seed_that_was_lower_before_says_so_where_it_falls_again() -> None:
    again = [0.1] * 5 + [2e-6] * 5 + [10.0, 8.0, 6.0, 4.0, 2.0]
    assert verdict(lane(again)).text.endswith("; its lowest error was 2e-6, 2 times the threshold 1e-6")
    a_little = [10.0 ** (-i / 4) for i in range(12)] + [10.0**-2.72]  # within 10 % of the lowest error
    assert verdict(lane(a_little)).kind == "on its way" and "its lowest error" not in verdict(lane(a_little)).text


def test_the_trend_is_that_of_the_last_third() -> None:
    """Of 30 evaluations the last 10 are flat: with those before them the error would fall."""
    assert kind([10.0 ** (-i / 10) for i in range(20)] + [10.0**-2 * (1 + 0.01 * (i % 2)) for i in range(10)]) == "stalled"
    assert kind([1.0] * 20 + [10.0 ** (-i / 10) for i in range(10)]) == "on its way"
    assert kind([10.0 ** (-i / 10) for i in range(25)] + [10.0**-2.4] * 5) == "on its way"  # of the last 5 it would be stalled


def test_an_error_counts_as_reached_within_ten_percent_of_the_lowest() -> None:
    assert "since step 2000" in verdict(lane([100.0, 0.45, 0.41, *FLAT])).text
    assert "since step 1000" in verdict(lane([100.0, 0.417, 0.41, *FLAT])).text


def test_a_trend_of_many_evaluations_is_that_of_thirty_medians_of_neighbours() -> None:
    noise = random.Random(0)
    logs = [-i / 1000 + noise.gauss(0, 0.2) for i in range(900)]
    steps = [EVERY * i for i in range(900)]
    medians = [np.median(np.array(values[600:]).reshape(30, 10), axis=1) for values in (logs, steps)]  # of the last third
    slope = verdicts._trend(steps, [10.0**log for log in logs])[0]
    assert slope == pytest.approx(stats.theilslopes(*medians).slope) and slope < 0


def test_few_evaluations_have_no_trend() -> None:
    assert [kind([10.0**-i for i in range(count)]) for count in (1, 2, 3, 4)] == (["too few evaluations"] * 3 + ["on its way"])
    found = verdict(lane([1.0, 0.5, math.nan, 0.7]))
    assert found.text == (
        "too few evaluations to say: 3 of the 4 that show a trend; lowest error 0.5, 5e5 times the threshold 1e-6; it ends at "
        "error 0.7"
    )
    assert kind([1.0, 0.5, 0.5, 0.5]) == "stalled"


def test_a_record_without_a_curve_is_judged_by_its_best_step() -> None:
    bare = LaneResult(
        key="k", seed=0, budget=100, steps=100, outcome="unsolved", solved=False, error={"extrapolation": 2e-6}, best_step=100,
        threshold=1e-6,
    )  # fmt: skip
    assert (verdict(bare).kind, threshold_ratio(bare)) == ("near", 2.0)


def test_unsolved_seeds_are_grouped_by_kind_the_most_frequent_first() -> None:
    results = [lane(FLAT, seed=seed) for seed in (3, 1)]
    results += [lane([1.0, 1e-7], seed=0), lane(FALLING, seed=7), lane(FALLING, seed=2, diverged="diverged at step 5: why")]
    found = unsolved(results)
    assert [(group.kind, group.seeds) for group in found] == [("stalled", (1, 3)), ("on its way", (7,)), ("diverged", (2,))]
    assert [group.crosses_at for group in found] == [None, pytest.approx(24_000), None]


def test_noise_around_a_level_is_seldom_taken_for_a_trend() -> None:
    """One-sided 5 % by design."""
    noise = random.Random(0)
    kinds = [kind([10 ** noise.gauss(0, 0.3) for _ in range(60)]) for _ in range(400)]
    assert kinds.count("on its way") / len(kinds) < 0.09


@given(
    st.lists(st.floats(min_value=0) | st.sampled_from([math.nan, math.inf]), max_size=80),
    st.sampled_from([None, 0.0, 1e-300, 1e-6, 1e300]),
)
@settings(deadline=None, max_examples=150)
def test_any_curve_has_a_verdict_that_agrees_with_its_record(errors: list[float], threshold: float | None) -> None:
    result = lane(errors, threshold=threshold)
    found = verdict(result)
    assert found.kind in KINDS and found.solved == result.solved and found.text
    assert "nan" not in found.text and "inf" not in found.text.replace("infinite", "").replace("finite", "")
    assert found.crosses_at is None or math.isfinite(found.crosses_at)
