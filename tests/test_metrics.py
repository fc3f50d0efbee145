"""Metrics: their values by hand, the order of configurations, scores of a task, and the listing."""

from __future__ import annotations

import csv
import dataclasses
import io
from operator import le
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_sweep import made_sweep

from sweeps.config.space import Constraint, Direction, Objective, Search
from sweeps.config.sweep_file import parse
from sweeps.errors import UserError
from sweeps.results import RankedConfiguration, as_csv, metrics, report
from sweeps.results.metrics import penalised_steps, solved_fraction
from sweeps.results.report import lane_figures
from sweeps.results.statistics import Interval, wilson
from sweeps.results.summary import (
    LOG_OF_NO_ERROR,
    WORST,
    Place,
    Standing,
    Summary,
    objective_value,
    rank,
    standing,
    summarise,
)
from sweeps.store import Store
from sweeps.tracking import rows
from sweeps.training.lane import Curve, LaneResult

SCORE = "relative_error.extrapolation"


def lane(seed: int, outcome: str = "unsolved", extrapolation: float | None = 1.0, **fields: Any) -> LaneResult:
    error = {"interpolation": extrapolation, "extrapolation": extrapolation}
    return LaneResult(
        key=f"lane{seed}", seed=seed, budget=10_000, steps=fields.pop("steps", 10_000), outcome=outcome,
        solved=outcome == "solved", error=error, threshold=fields.pop("threshold", 1e-5), best_step=9000, **fields,
    )  # fmt: skip


def order(summaries: list[Summary], objective: str = "par2", direction: Direction = "minimize") -> list[int]:
    return [place.position for place in rank(summaries, Search(configurations=1, objective=Objective(objective, direction)))]


def solved(seed: int, converged_at: int, sparsity_error: float = 0.4, error: float = 1e-6) -> LaneResult:
    return lane(seed, "solved", error, converged_at=converged_at, sparsity_error=sparsity_error)


def estimate(results: list[LaneResult], metric: str) -> float | None:
    return summarise(results).value(metric).estimate


LANES = [
    solved(0, 3000, 0.1),
    solved(1, 5000, 0.3),
    lane(2, extrapolation=100.0, converged_at=2000, sparsity_error=0.5),  # converged once, not at its best step
    lane(3, "diverged", None, steps=700, reason="a loss that is not finite at step 700"),
    lane(4, "error", None, steps=0, reason="RuntimeError: boom"),
]


def test_counts_and_metrics_by_hand() -> None:
    summary = summarise(LANES)
    assert (summary.seeds, summary.solved, summary.diverged, summary.errors) == (5, 2, 1, 1)
    expected = {"seeds": 5, "solved": 2, "diverged": 1, "errors": 1, "success_rate": 0.4, "converged_at.mean": 4000.0,
                "converged_at.median": 4000.0, "seed_steps": 30_700}  # fmt: skip
    assert {name: estimate(LANES, name) for name in expected} == expected
    assert estimate(LANES, "sparsity_error") == pytest.approx(0.2, rel=1e-2)


def test_the_mean_and_the_median_of_converged_at_are_two_metrics() -> None:
    skewed = [solved(seed, at) for seed, at in enumerate((1000, 2000, 9000))]
    assert (estimate(skewed, "converged_at.mean"), estimate(skewed, "converged_at.median")) == (4000.0, 2000.0)
    assert estimate(skewed, "converged_at") == 4000.0  # the former name
    assert [name for name in summarise(skewed).columns() if name.startswith("converged_at")] == [
        "converged_at.mean", "converged_at.low", "converged_at.high", "converged_at.median", "converged_at.median_low",
        "converged_at.median_high",
    ]  # fmt: skip


def test_par2_counts_an_unsolved_seed_as_twice_the_budget() -> None:
    assert estimate(LANES, "par2") == (3000 + 5000 + 3 * 20_000) / 5
    assert estimate([], "par2") is None
    assert penalised_steps(lane(0, "solved", 0.0)) == 10_000  # a task that defines no converged-at


def test_a_missing_error_counts_as_infinite_in_the_medians() -> None:
    assert (estimate(LANES, "error.interpolation.median"), estimate(LANES, "error.extrapolation.median")) == (100, 100)
    assert summarise(LANES).log_error_median == 2.0
    assert estimate(LANES[2:], "error.extrapolation.median") is None
    assert summarise(LANES[2:]).log_error_median == LOG_OF_NO_ERROR


def test_a_configuration_without_solved_seeds_has_nulls_and_no_nan() -> None:
    summary = summarise(LANES[2:])
    assert summary.value("success_rate").estimate == summary.value("success_rate").low == 0.0
    for name in ("converged_at.mean", "converged_at.median", "sparsity_error"):
        assert summary.value(name) == Interval(None, None, None)
    assert summary.value("par2").estimate == 20_000


def test_no_results_make_an_empty_summary() -> None:
    summary = summarise([])
    assert (summary.seeds, summary.value("par2").estimate, summary.value("success_rate").estimate) == (0, None, None)
    assert objective_value(summary) == (WORST, LOG_OF_NO_ERROR)


def test_the_fraction_of_seeds_that_have_converged_never_falls() -> None:
    """Below the threshold from 20 on; below at 60 only, and unsolved; never; from 20 on, then diverged."""
    seeds = [
        lane(0, "solved", converged_at=20), lane(1, converged_at=60), lane(2, threshold=1e-3),
        lane(3, "diverged", converged_at=20),
    ]  # fmt: skip
    assert solved_fraction(seeds) == [(0, wilson(0, 4)), (20, wilson(2, 4)), (60, wilson(3, 4)), (10_000, wilson(3, 4))]
    assert [(step, rate.estimate) for step, rate in solved_fraction(seeds, [19, 20, 59, 9000])] == [
        (19, 0.0), (20, 0.5), (59, 0.5), (9000, 0.75),
    ]  # fmt: skip
    assert solved_fraction([lane(0, threshold=None), lane(1, threshold=None)]) == []  # a task without a threshold


def test_the_share_of_seeds_that_have_converged_takes_budgets_into_account() -> None:
    """Two seeds have 1000 steps and are unsolved, two have 10,000 and converge at 500 and 5000: after 1000, one is at risk."""
    short = [dataclasses.replace(lane(seed), budget=1000, steps=1000) for seed in (0, 1)]
    found = solved_fraction([*short, lane(2, converged_at=500), solved(3, 5000)], [400, 500, 1000, 5000])
    assert [rate.estimate for _, rate in found] == pytest.approx([0, 1 / 4, 1 / 4, 1])


def test_a_seed_that_diverged_is_observed_to_the_end_of_its_budget() -> None:
    """It would never have converged: the share at the end is one half, and not that of the seeds that go on."""
    seeds = [solved(0, 5000), lane(1, "diverged", None, steps=700, reason="diverged at step 700")]
    assert [rate.estimate for _, rate in solved_fraction(seeds)] == [0.0, 0.5, 0.5]


def test_the_restricted_mean_is_the_area_above_the_share_of_seeds_converged() -> None:
    """Of 5 seeds two are solved at 3000 and 5000, one converged at 2000, two never within 10,000."""
    curve = solved_fraction(LANES)
    ends = [step for step, _ in curve[1:]] + [10_000]
    area = sum((end - step) * (1 - (rate.estimate or 0)) for (step, rate), end in zip(curve, ends, strict=True))
    assert estimate(LANES, "restricted_mean") == area == (3000 + 5000 + 2000 + 2 * 10_000) / 5
    value = summarise(LANES).value("restricted_mean")
    assert value.low is not None and value.high is not None and 2000 < value.low < area < value.high <= 10_000
    halved = [dataclasses.replace(lane(9), budget=4000), *LANES]  # restricted to the shortest budget
    assert estimate(halved, "restricted_mean") == (4000 + 3000 + 4000 + 2000 + 2 * 4000) / 6


def test_low_ends_of_converged_at_are_those_of_the_evaluation_before() -> None:
    curve = {"step": list(range(0, 10_001, 500)), "error.extrapolation": [0.0] * 21}
    seeds = [dataclasses.replace(solved(seed, 1500), curve=curve) for seed in range(20)]
    summary = summarise(seeds)
    assert summary.value("converged_at.median") == Interval(1500.0, 1000.0, 1500.0)
    mean = summary.value("converged_at.mean")
    assert mean.method == "bounded" and mean.low is not None and mean.low < 1000 and mean.high is not None and mean.high > 1500
    first = [dataclasses.replace(solved(seed, 0), curve=curve) for seed in range(20)]
    assert summarise(first).value("converged_at.median") == Interval(0.0, 0.0, 0.0)


def test_the_papers_families_are_used_where_they_fit_and_the_report_says_which() -> None:
    rng = np.random.default_rng(3)
    at, sparsity = rng.gamma(4, 1000, 100), 0.5 * rng.beta(2, 20, 100)
    summary = summarise([solved(seed, int(at[seed]), float(sparsity[seed])) for seed in range(100)])
    assert summary.methods() == {
        "converged_at.interval": "gamma", "sparsity_error.interval": "beta", "restricted_mean.interval": "bounded",
    }  # fmt: skip
    wide = summarise([solved(seed, 1000 + 9000 * (seed % 2), 10.0 ** -(1 + seed % 6)) for seed in range(100)])
    assert (wide.methods()["converged_at.interval"], wide.methods()["sparsity_error.interval"]) == ("bounded", "bounded")
    linear = summarise([solved(seed, 1000 + seed, 0.7 + seed / 100) for seed in range(5)])
    assert linear.methods()["sparsity_error.interval"] == "t"


def test_seeds_solved_at_the_end_are_counted_beside_those_solved() -> None:
    def ending(seed: int, *errors: float) -> LaneResult:
        curve = {"step": list(range(len(errors))), "error.extrapolation": list(errors)}
        return dataclasses.replace(solved(seed, 1), curve=curve)

    seeds = [ending(0, 1.0, 1e-6, 1e-6), ending(1, 1.0, 1e-6, 1e-3), ending(2, 1.0, 1e-6, 2e-5), lane(3)]
    assert (estimate(seeds, "solved"), estimate(seeds, "solved_at_end")) == (3, 1)
    assert summarise(seeds).value("success_rate_at_end") == wilson(1, 4)
    assert estimate(seeds, "threshold") == 1e-5
    assert estimate(seeds, "error_lowest.median") == 1e-6
    assert estimate(seeds, "error_at_end.median") == (2e-5 + 1e-3) / 2
    assert estimate(seeds, "threshold_ratio.median") == pytest.approx(0.1)


def test_without_a_threshold_rates_and_par2_are_undefined_and_exceptions_do_not_hide_it() -> None:
    open_ = [lane(0, threshold=None), lane(1, threshold=None)]
    broken = [lane(seed, "error", None, steps=0, threshold=None) for seed in (2, 3)]
    for seeds in (open_, [*open_, *broken]):
        for name in ("success_rate", "success_rate_at_end", "par2", "restricted_mean"):
            assert summarise(seeds).value(name) == Interval()
    assert estimate(broken, "success_rate") == 0 and estimate(broken, "par2") == 20_000
    assert objective_value(summarise(open_)) == (WORST, 0.0)


@given(st.permutations(LANES))
@settings(max_examples=30, deadline=None)
def test_the_order_of_arrival_changes_nothing(records: list[LaneResult]) -> None:
    assert summarise(records) == summarise(LANES)


def test_ties_of_par2_are_broken_by_the_log_extrapolation_error() -> None:
    near, far = (summarise([lane(0, extrapolation=error)]) for error in (1e-3, 1e3))
    nothing, best = summarise([lane(0, "diverged", None)]), summarise([solved(0, 5000)])
    assert len({one.value("par2") for one in (near, far, nothing)}) == 1
    assert order([nothing, far, near, best]) == [3, 2, 1, 0]
    assert objective_value(near) == (20_000.0, -3.0)


def test_full_ties_go_to_the_earlier_configuration() -> None:
    same = summarise([lane(0)])
    assert order([same, same, same]) == [0, 1, 2]


def test_objectives_can_be_maximised_and_named() -> None:
    good, bad = summarise([solved(0, 9000)]), summarise([lane(0)])
    assert order([bad, good], "success_rate", "maximize") == [1, 0]
    assert order([bad, good], "converged_at.median") == [1, 0]
    assert good.value("error.extrapolation.median").estimate == pytest.approx(1e-6)
    assert objective_value(bad, "converged_at.median") == (WORST, 0.0)
    assert objective_value(bad, "converged_at.median", "maximize")[0] == -WORST


BOTH = Search(
    configurations=1, objective=Objective("success_rate", "maximize"), further_objectives=(Objective("seed_steps"),)
)  # fmt: skip


def with_steps(solved_seeds: int, steps: int, error: float = 1.0) -> Summary:
    """Two seeds, of which so many are solved, with so many steps each."""
    return summarise([lane(seed, "solved" if seed < solved_seeds else "unsolved", error, steps=steps) for seed in range(2)])


def test_of_several_objectives_the_rank_is_the_front_and_its_members_are_in_order_of_the_first() -> None:
    """Success and steps: (1, 200) and (0.5, 100) are on the front; (0.5, 200) is dominated by both; (0, 300) by all."""
    cheap, dear, worse, worst = with_steps(1, 100), with_steps(2, 200), with_steps(1, 200), with_steps(0, 300)
    assert rank([worst, cheap, worse, dear], BOTH) == [Place(3, 1), Place(1, 1), Place(2, 2), Place(0, 3)]
    swapped = Search(configurations=1, objective=BOTH.further_objectives[0], further_objectives=(BOTH.objective,))
    assert rank([worst, cheap, worse, dear], swapped) == [Place(1, 1), Place(3, 1), Place(2, 2), Place(0, 3)]


def test_equal_values_of_all_objectives_share_a_front_and_are_in_order_of_the_error() -> None:
    far, near = with_steps(1, 100, 10.0), with_steps(1, 100, 0.1)
    assert rank([far, near], BOTH) == [Place(1, 1), Place(0, 1)]


def test_a_value_that_no_seed_defines_is_the_worst_of_its_objective() -> None:
    search = Search(configurations=1, objective=Objective("converged_at.median"), further_objectives=(Objective("seed_steps"),))
    never = summarise([lane(0, steps=100)])
    assert standing(never, search).values == (float("inf"), 100.0)
    assert rank([never, summarise([solved(0, 5)])], search) == [Place(1, 1), Place(0, 1)]


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6), st.integers(0, 2)), min_size=1, max_size=14))
def test_a_front_is_what_no_other_configuration_of_the_rest_dominates(drawn: list[tuple[int, int, int]]) -> None:
    search = Search(
        configurations=1, objective=Objective("solved", "maximize"), constraints=(Constraint("errors", "at_most", 0),),
        further_objectives=(Objective("seed_steps"), Objective("diverged")),
    )  # fmt: skip
    outcomes = [(["solved"] * solved + ["diverged"] * diverged + ["unsolved"] * 7, steps) for solved, steps, diverged in drawn]
    summaries = [summarise([lane(seed, outcome[seed], steps=steps) for seed in range(7)]) for outcome, steps in outcomes]
    left = {i: standing(summary, search).values for i, summary in enumerate(summaries)}
    found = {place.position: place.rank for place in rank(summaries, search)}
    front = 0
    while left:
        front += 1
        best = {i for i, own in left.items() if not any(all(map(le, one, own)) and one != own for one in left.values())}
        assert best == {i for i, number in found.items() if number == front}
        left = {i: own for i, own in left.items() if i not in best}


def test_what_breaks_a_constraint_ranks_after_all_that_meet_it_the_least_broken_first() -> None:
    search = Search(
        configurations=1, constraints=(Constraint("diverged", "at_most", 0), Constraint("success_rate", "at_least", 0.5))
    )
    poor = summarise([solved(0, 9000), lane(1)])
    unsolved = summarise([solved(0, 10), lane(1), lane(2)])
    lost = summarise([solved(0, 10), lane(1, "diverged")])
    assert [standing(one, search).violation for one in (poor, lost, unsolved)] == [0.0, 1.0, pytest.approx(1 / 6)]
    assert rank([lost, unsolved, poor], search) == [Place(2, 1), Place(1, 2), Place(0, 3)]


def test_a_limit_itself_is_met_and_a_metric_that_no_seed_defines_breaks_its_constraint() -> None:
    search = Search(configurations=1, constraints=(Constraint("sparsity_error", "at_most", 0.4),))
    assert standing(summarise([solved(0, 10, 0.4)]), search).violation == 0.0
    assert standing(summarise([lane(0)]), search) == Standing(float("inf"), (20_000.0,), 0.0)
    assert rank([summarise([lane(0)]), summarise([solved(0, 10, 0.5)])], search)[0].position == 1


def test_of_a_score_a_missing_value_is_the_worst_for_either_limit() -> None:
    lanes = [scored(0, 0.9), scored(1, 0.9), with_curve({}, None, 2), with_curve({}, None, 3), with_curve({}, None, 4)]
    for bound, limit in (("at_least", 0.5), ("at_most", 1.0)):
        search = Search(configurations=1, constraints=(Constraint(f"{SCORE}.median", bound, limit),))  # type: ignore[arg-type]
        assert standing(summarise(lanes), search).violation == float("inf")
        assert standing(summarise(lanes[:3]), search).violation == 0.0


def test_broken_constraints_come_after_every_front() -> None:
    search = dataclasses.replace(BOTH, constraints=(Constraint("diverged", "at_most", 0),))
    broken = summarise([solved(0, 10), solved(1, 10), lane(2, "diverged", steps=1)])
    found = rank([broken, with_steps(0, 300), with_steps(2, 200)], search)
    assert found == [Place(2, 1), Place(1, 2), Place(0, 3)]


def test_an_unknown_objective_is_reported_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="Did you mean 'success_rate'"):
        objective_value(summarise(LANES), "succes_rate")


# ------------------------------------------------------------------------------------------- scores of a task


def evaluation(value: float) -> dict[str, float]:
    return {"error.extrapolation": value, SCORE: 10 * value, "sparsity_error": 0.5}


def curve() -> Curve:
    made = Curve()
    for step, value in ((0, 5.0), (10, 4.0), (20, 3.0)):
        made.add(step, evaluation(value))
    return made


def with_curve(columns: dict[str, list[Any]], best_step: int | None = 10, seed: int = 0) -> LaneResult:
    return LaneResult(
        key="k", seed=seed, budget=20, steps=20, outcome="unsolved", solved=False, best_step=best_step,
        error={"extrapolation": 4.0}, curve=columns,
    )  # fmt: skip


def scored(seed: int, value: float) -> LaneResult:
    return with_curve({"step": [10], SCORE: [value]}, seed=seed)


def test_a_score_is_a_column_of_the_curve_besides_the_errors() -> None:
    columns = curve().as_dict()
    assert list(columns) == ["step", "error.extrapolation", "sparsity_error", SCORE]
    assert columns[SCORE] == [50.0, 40.0, 30.0]


def test_after_a_restart_scores_are_replaced_like_errors() -> None:
    made = curve()
    made.add(10, evaluation(1.0))
    assert made.scores == {SCORE: [50.0, 10.0]} and made.error == {"extrapolation": [5.0, 1.0]}


def test_a_result_has_its_scores_at_the_best_step() -> None:
    assert with_curve(curve().as_dict()).scores == {SCORE: 40.0}
    assert with_curve(curve().as_dict(), best_step=None).scores == {}
    assert with_curve({}).scores == {}


def test_reports_and_mlflow_hold_scores_under_their_own_names() -> None:
    made = with_curve(curve().as_dict())
    assert lane_figures(made)["scores"] == {SCORE: 40.0}
    assert "scores" not in lane_figures(with_curve({}))
    points = [(p.key, p.value, p.step) for p in rows.seed_points(made) if SCORE in p.key]
    assert points == [(SCORE, 40.0, 20), *((f"curve.{SCORE}", v, s) for s, v in ((0, 50.0), (10, 40.0), (20, 30.0)))]


def test_a_report_holds_the_median_of_a_score(tmp_path: Path) -> None:
    columns = {"step": [14_000], SCORE: [0.25], "errors.extrapolation": [2.0]}
    with Store(tmp_path) as store:
        made_sweep(store, curve=columns)
        found = report(store, "small")
    entries = found.as_dict()["configurations"]
    assert entries[0]["scores"] == {"errors.extrapolation": {"median": 2.0}, SCORE: {"median": 0.25}}
    assert "scores" not in entries[1]
    assert next(csv.DictReader(io.StringIO(as_csv(found))))[f"{SCORE}.median"] == "0.25"


def test_an_objective_may_be_the_median_of_a_score_and_a_missing_one_is_the_worst() -> None:
    lanes = [scored(seed, value) for seed, value in enumerate((0.2, 0.9, 0.5))]
    objective = f"{SCORE}.median"
    assert estimate(lanes, objective) == summarise(lanes).columns()[objective] == 0.5
    lost = [*lanes, with_curve({}, None, 3), with_curve({}, None, 4)]
    assert summarise(lost).value(objective, "minimize").estimate == 0.9
    assert summarise(lost).value(objective, "maximize").estimate == 0.2
    assert objective_value(summarise(lost[3:]), objective, "maximize")[0] == -WORST
    assert order([summarise(lanes[:1]), summarise(lanes[1:])], objective, "maximize") == [1, 0]


# ------------------------------------------------------------------------------------------- the registry


def search_for(objective: str) -> str:
    return f"search: {{configurations: 2, objective: {objective}, space: {{train.lr: {{uniform: [0.1, 0.2]}}}}}}\n"


def test_a_sweep_file_may_still_name_the_former_objective() -> None:
    sweep = parse("task: static\nmodel: nau\ntrain: {steps: 10}\n" + search_for("converged_at"), "old.yaml")
    assert sweep.search is not None and sweep.search.objective == Objective("converged_at.mean", "minimize")


def test_a_metric_is_found_as_long_as_it_is_registered() -> None:
    further = dataclasses.replace(metrics.PAR2, name="further")
    with metrics.registered(further):
        assert metrics.find("further") is further
    with pytest.raises(UserError, match="no objective named 'further'"):
        metrics.find("further")


def test_every_metric_is_listed_with_its_kind() -> None:
    listed = metrics.listing()
    names = [name for name, _ in listed]
    assert {"converged_at", "converged_at.mean", "solved_fraction", "par2", "error.<split>.median"} <= set(names)
    assert all(text.partition(":")[0].startswith(("lane", "configuration")) for _, text in listed)
    assert dict(listed)["success_rate"].startswith("configuration: share of seeds solved; 95 % interval: Wilson")


def test_a_ranked_configuration_is_running_as_long_as_a_lane_is_missing(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        made_sweep(store)
        one = report(store, "small").configurations[0]
    assert isinstance(one, RankedConfiguration)
    assert (one.state, one.rank, one.summary.seeds, one.budget) == ("complete", 1, 3, 15_000)
    assert dataclasses.replace(one, results=one.results[:2]).state == "running"
