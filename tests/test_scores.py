"""What a task reports besides its loss: from the curve to the record, the report and MLflow's metrics."""

from __future__ import annotations

import dataclasses
from typing import Any

from sweeps.results.report import lane_figures
from sweeps.results.summary import WORST, objective_figure, objective_value, rank, summarise
from sweeps.tracking.rows import seed_points
from sweeps.training.lane import Curve, LaneResult

NAME = "relative_error.extrapolation"


def evaluation(value: float) -> dict[str, float]:
    return {"error.extrapolation": value, NAME: 10 * value, "sparsity_error": 0.5}


def curve() -> Curve:
    made = Curve()
    for step, value in ((0, 5.0), (10, 4.0), (20, 3.0)):
        made.add(step, evaluation(value))
    return made


def record(columns: dict[str, list[Any]], best_step: int | None = 10) -> LaneResult:
    return LaneResult(
        key="k", seed=0, budget=20, steps=20, outcome="unsolved", solved=False, best_step=best_step,
        error={"extrapolation": 4.0}, curve=columns,
    )  # fmt: skip


def scored(seed: int, value: float) -> LaneResult:
    return dataclasses.replace(record({"step": [10], NAME: [value]}), seed=seed)


def test_a_score_is_a_column_of_the_curve_beside_the_errors() -> None:
    columns = curve().as_dict()
    assert list(columns) == ["step", "error.extrapolation", "sparsity_error", NAME]
    assert columns[NAME] == [50.0, 40.0, 30.0]


def test_after_a_restart_scores_are_replaced_like_errors() -> None:
    made = curve()
    made.add(10, evaluation(1.0))
    assert made.scores == {NAME: [50.0, 10.0]} and made.error == {"extrapolation": [5.0, 1.0]}


def test_a_record_has_its_scores_at_the_best_step() -> None:
    assert record(curve().as_dict()).scores == {NAME: 40.0}
    assert record(curve().as_dict(), best_step=None).scores == {}
    assert record({}).scores == {}


def test_scores_are_told_in_reports_and_as_metrics_under_their_own_names() -> None:
    made = record(curve().as_dict())
    assert lane_figures(made)["scores"] == {NAME: 40.0}
    points = [(p.key, p.value, p.step) for p in seed_points(made) if NAME in p.key]
    assert points == [
        (NAME, 40.0, 20),
        *((f"curve.{NAME}", v, s) for s, v in ((0, 50.0), (10, 40.0), (20, 30.0))),
    ]


def test_an_objective_may_be_the_median_of_a_score_and_a_missing_one_is_the_worst() -> None:
    lanes = [scored(seed, value) for seed, value in enumerate((0.2, 0.9, 0.5))]
    objective = f"{NAME}.median"
    assert objective_figure(summarise(lanes, 20), objective) == 0.5
    lost = [*lanes, record({}, best_step=None), record({}, best_step=None)]
    assert objective_figure(summarise(lost, 20), objective, "minimize") == 0.9
    assert objective_figure(summarise(lost, 20), objective, "maximize") == 0.2
    assert objective_value(summarise(lost[3:], 20), objective, "maximize")[0] == -WORST
    assert rank([summarise(lanes[:1], 20), summarise(lanes[1:], 20)], objective, "maximize") == [1, 0]


def test_a_lane_without_scores_is_told_as_ever() -> None:
    columns = {name: column for name, column in curve().as_dict().items() if name != NAME}
    assert "scores" not in lane_figures(record(columns))
