"""Figures: the numbers they show, by hand, and the same bytes for the same results."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_sweep import BUDGET, configuration, made_sweep
from made_sweep import lane as made_lane

from sweeps.results import report
from sweeps.results.figures import FigureError, against_length, against_step, draw, figure_of, position_of, write
from sweeps.store import Store
from sweeps.training.lane import LaneResult


def lane(seed: int, converged_at: int | None = None, **fields: Any) -> LaneResult:
    record = LaneResult(key=f"k{seed}", seed=seed, budget=100, steps=100, outcome="unsolved", solved=False)
    if converged_at is not None:
        record = replace(record, outcome="solved", solved=True, converged_at=converged_at)
    return replace(record, **fields)


@pytest.fixture
def store(tmp_path: Path):
    with Store(tmp_path) as opened:
        made_sweep(opened)
        yield opened


def test_the_fraction_of_seeds_converged_rises_where_seeds_converge_and_has_wilsons_interval() -> None:
    group = against_step("nau", [lane(0, 20), lane(1, 60), lane(2), lane(3, 20)], "solved_fraction")
    assert group.middle.x == [0, 20, 60, 100]
    assert group.middle.y == [0, 0.5, 0.75, 0.75]
    assert group.middle.band is not None
    low, high = group.middle.band
    assert (low[1], high[1]) == (pytest.approx(0.1500, abs=5e-4), pytest.approx(0.8500, abs=5e-4))
    assert low[0] == 0 and group.lanes == 4 and group.seeds == ()


def test_the_median_of_curves_keeps_the_last_value_of_a_lane_that_ended_early() -> None:
    curves = [
        {"step": [0, 10], "error.extrapolation": [9.0, 0.0]},
        {"step": [0, 10, 20], "error.extrapolation": [7.0, 5.0, 3.0]},
        {"step": [0, 10, 20], "error.extrapolation": [8.0, None, 4.0]},
    ]
    group = against_step("nau", [lane(s, curve=c) for s, c in enumerate(curves)], "error.extrapolation")
    assert group.middle.x == [0, 10, 20]
    assert group.middle.y == [8.0, 2.5, 3.0]  # at 20: 0 (kept), 3 and 4
    assert math.isnan(group.seeds[2].y[1])


def test_an_accuracy_is_one_minus_the_error_at_every_length() -> None:
    lengths = {"length": [41, 4001], "symbol_error": [0.0, 0.25], "symbol_error_with_padding": [0.0, 0.125]}
    group = against_length("dngpu", [lane(0, by_length=lengths)], "symbol_accuracy")
    assert (group.middle.x, group.middle.y) == ([41, 4001], [1.0, 0.75])
    padded = against_length("dngpu", [lane(0, by_length=lengths)], "symbol_accuracy_with_padding")
    assert padded.middle.y == [1.0, 0.875]


def test_a_column_that_no_lane_has_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(FigureError, match="names no `curve_lengths`"):
        against_length("nau", [lane(0)], "symbol_accuracy")
    curve = {"step": [0], "error.extrapolation": [1.0]}
    with pytest.raises(FigureError, match=r"Did you mean 'error\.extrapolation'\?"):
        against_step("nau", [lane(0, curve=curve)], "eror.extrapolation")


def test_a_configuration_is_placed_at_its_labels_and_its_settings(store: Store) -> None:
    nau = report(store, "small").configurations[0]
    assert position_of(nau, "model") == "nau"
    assert position_of(nau, "train.lr") == pytest.approx(3.2e-3)
    assert position_of(nau, "task.operation") == "sub"
    assert position_of(nau, "task.interpolation") == "[1.0, 2.0]"
    assert position_of(nau, "train.no_such") is None
    assert figure_of(nau, "success_rate").estimate == 1.0
    assert figure_of(nau, "par2").estimate == 5000
    assert figure_of(nau, "converged_at") == figure_of(nau, "converged_at.mean")
    assert figure_of(nau, "converged_at.median").estimate == 4000
    assert figure_of(nau, "error.extrapolation.median").estimate == 1e-9
    with pytest.raises(FigureError, match="Did you mean 'success_rate'"):
        figure_of(nau, "sucess_rate")


def test_the_best_of_each_cell_is_drawn_against_an_axis_and_all_against_a_setting(store: Store) -> None:
    panel = draw(store, ["small"], x="model", y=["success_rate"]).axes[0]
    assert [text.get_text() for text in panel.get_xticklabels()] == ["nau", "linear"]
    assert [list(c.lines[0].get_ydata()) for c in panel.containers] == [[1.0, 0.0]]
    panel = draw(store, ["small"], x="train.lr", y=["success_rate"]).axes[0]
    by_model = {c.get_label(): sorted(c.lines[0].get_ydata()) for c in panel.containers}
    assert by_model == {"nau": [pytest.approx(2 / 3), 1.0], "linear": [0.0, 0.0]}


def test_every_cell_has_a_line_labelled_with_its_number_of_seeds(store: Store) -> None:
    panel = draw(store, ["small"], y=["solved_fraction"]).axes[0]
    assert [line.get_label() for line in panel.lines] == ["nau (3 seeds)", "linear (3 seeds)"]
    assert list(panel.lines[0].get_xdata()) == [0, 3000, 4000, 8000, BUDGET]


def test_equal_records_give_equal_files_in_any_order_of_arrival(tmp_path: Path) -> None:
    written = []
    for reverse in (False, True):
        with Store(tmp_path / str(reverse)) as opened:
            made_sweep(opened, reverse=reverse)
            file = tmp_path / f"{reverse}.svg"
            write(draw(opened, ["small"], x="model"), file)
            written.append(file.read_bytes())
    assert written[0] == written[1] and b"<svg" in written[0]


def test_an_unknown_axis_is_refused_with_the_axes_of_the_sweep(store: Store) -> None:
    with pytest.raises(FigureError, match="no axis 'modle'; it has model. Did you mean 'model'"):
        draw(store, ["small"], by=["modle"])
    with pytest.raises(FigureError, match="nothing has a value of 'depth'"):
        draw(store, ["small"], x="depth")
    with pytest.raises(FigureError, match=r"\.svg, \.png or \.pdf, but the file requested ends in '\.gif'"):
        write(draw(store, ["small"], x="model"), Path("a.gif"))


@pytest.fixture
def partly(tmp_path: Path):
    """Cells of one configuration of two seeds: trained, ended in errors, diverged at once, not ended; and an empty sweep."""
    curve = {"step": [0, 10], "error.extrapolation": [4.0, 2.0]}
    cells: dict[str, list[dict[str, Any]]] = {
        "linear": [{"curve": curve}, {"curve": curve}],
        "nac": [{"outcome": "error", "reason": "RuntimeError: no driver for $5"}] * 2,
        "relu": [{"outcome": "diverged", "curve": {"step": [0], "error.extrapolation": [None]}}] * 2,
        "nmu": [],
    }
    with Store(tmp_path / "partly") as opened:
        opened.begin_sweep("partly", "", {"name": "partly"})
        for model, lanes in cells.items():
            entry = configuration(model, 0, seeds=2)
            opened.add_configuration("partly", replace(entry, state={"nac": "failed", "nmu": "running"}.get(model, "complete")))
            opened.add_records([made_lane(entry, seed, None, None, **fields) for seed, fields in enumerate(lanes)])
        opened.begin_sweep("empty", "", {"name": "empty"})
        yield opened


def test_what_cannot_be_drawn_is_said_with_the_reason_and_the_others_are_drawn(partly: Store) -> None:
    said: list[str] = []
    figure = draw(partly, ["partly"], y=["error.extrapolation"], on_missing=said.append)
    assert [line.get_label() for line in figure.axes[0].lines if not str(line.get_label()).startswith("_")] == [
        "linear (2 seeds)", "relu (2 seeds)",
    ]  # fmt: skip
    assert said == [
        "not drawn: model=nac: every seed ended in an error, such as RuntimeError: no driver for $5",
        "not drawn: model=nmu: no seed has ended yet",
        "not drawn: relu: error.extrapolation is never finite, every seed diverged",
    ]
    (title,) = [text.get_text() for text in figure.texts if "thick" in text.get_text()]
    assert " ".join(title.replace("\\$", "$").splitlines()[1:]) == " ".join(said)  # the lines of the title are wrapped


@pytest.mark.parametrize("x", ["train.lr", "model"])
def test_points_leave_out_what_ended_in_errors(partly: Store, x: str, tmp_path: Path) -> None:
    said: list[str] = []
    figure = draw(partly, ["partly"], x=x, y=["success_rate", "converged_at.mean"], on_missing=said.append)
    assert [line.partition(": every")[0].partition(": no")[0] for line in said] == [
        "not drawn: model=nac", "not drawn: model=nmu",
    ]  # fmt: skip
    assert [text.get_text() for text in figure.axes[1].texts] == ["no value"]
    write(figure, tmp_path / "figure.png")


def test_a_sweep_without_results_beside_others_is_said_and_alone_is_refused(partly: Store) -> None:
    said: list[str] = []
    draw(partly, ["empty", "partly"], on_missing=said.append)
    assert said[0] == "not drawn: empty: no configuration has been tried yet"
    assert said[1].startswith("not drawn: partly: model=nac: every seed ended in an error")
    with pytest.raises(FigureError, match="nothing to draw: empty: no configuration has been tried yet"):
        draw(partly, ["empty"])


def test_a_column_that_only_some_cells_have_is_drawn_for_these(partly: Store) -> None:
    said: list[str] = []
    entry = configuration("nau", 0, seeds=1)
    partly.add_configuration("partly", entry)
    curve = {"step": [0, 10], "error.extrapolation": [4.0, 2.0], "score": [1.0, 2.0]}
    partly.add_records([made_lane(entry, 0, None, 1.0, curve=curve)])
    figure = draw(partly, ["partly"], y=["score"], on_missing=said.append)
    assert [line.get_label() for line in figure.axes[0].lines] == ["nau (1 seed)"]
    assert any(line.startswith("not drawn: linear: no lane has 'score' against the step") for line in said)
    with pytest.raises(FigureError, match="no lane has 'scoore'"):
        draw(partly, ["partly"], y=["scoore"])
