"""Figures: the numbers they show, by hand, and the same bytes for the same results."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_sweep import BUDGET, TUNED, configuration, made_sweep
from made_sweep import lane as made_lane
from matplotlib.figure import Figure
from matplotlib.text import Text

from sweeps.results import report
from sweeps.results.drawing import FigureError, Style, label_of, read_style, write
from sweeps.results.figures import (
    Line,
    _budgets,
    _judged_column,
    _note_on_budgets,
    _side_by_side,
    _thinned,
    _until,
    against_length,
    against_step,
    draw,
    draw_reports,
    figure_of,
    position_of,
    setting_of,
    standard_figures,
)
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
        "not drawn: relu: extrapolation error is never finite, every seed diverged",
    ]
    assert " ".join(said) in texts(figure)


def test_configurations_that_are_not_drawn_for_one_reason_are_one_line(store: Store) -> None:
    for number in range(2, 10):
        entry = configuration("nau", number, TUNED | {"train.lr": 1e-3 * number}, seeds=1)
        store.add_configuration("small", entry)
        store.add_records([made_lane(entry, 0, None, None, outcome="error", reason="RuntimeError: boom")])
    said: list[str] = []
    draw(store, ["small"], x="train.lr", on_missing=said.append)
    (line,) = said
    assert line.startswith("not drawn: model=nau #") and line.endswith(
        " and 3 more: every seed ended in an error, such as RuntimeError: boom"
    )


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


# ------------------------------------------------------------------------------------------- what people read


CURVE = {
    "step": [0, 5000, 10_000, BUDGET],
    "error.interpolation": [9.0, 3.0, 1.0, 0.5],
    "error.extrapolation": [8.0, 2.0, 1.0, 0.4],
}


@pytest.fixture
def curved(tmp_path: Path):
    """The store of a sweep whose lanes have learning curves."""
    with Store(tmp_path / "curved") as opened:
        made_sweep(opened, curve=CURVE)
        yield opened


def texts(figure: Figure) -> str:
    """All text of a figure on one line, as it is read."""
    return " ".join(" ".join(text.get_text() for text in figure.findobj(Text)).replace("\\$", "$").split())


def test_the_threshold_is_a_labelled_line_in_the_panel_of_the_errors_that_are_judged(curved: Store) -> None:
    assert _judged_column([lane(0, curve={"step": [0], "error.test": [1.0], "error.dev": [1.0]})]) == "error.test"
    figure = draw(curved, ["small"], y=["error.extrapolation", "error.interpolation"])
    lines = [[line for line in panel.lines if str(line.get_label()).startswith("_threshold")] for panel in figure.axes]
    assert [list(line.get_ydata()) for line in lines[0]] == [[1.4e-8, 1.4e-8]] and lines[1] == []
    assert "threshold 1.4e-8" in [text.get_text() for text in figure.axes[0].texts]
    (seeds,) = [line for line in figure.axes[0].lines if line.get_label() == "_seeds of nau"]  # one artist with gaps
    assert len(seeds.get_xdata()) == 3 * 5 and [math.isnan(y) for y in seeds.get_ydata()] == 3 * [*4 * [False], True]


def test_thresholds_that_differ_are_a_band_with_both_ends(curved: Store) -> None:
    entry = configuration("relu", 0, seeds=2)
    curved.add_configuration("small", entry)
    curved.add_records([replace(made_lane(entry, seed, None, 1.0, curve=CURVE), threshold=2e-8 + seed) for seed in (0, 1)])
    figure = draw(curved, ["small"], y=["error.extrapolation"])
    assert "thresholds 1.4e-8 to 1" in [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("error.extrapolation", "extrapolation error"), ("error.extrapolation.median", "median extrapolation error"),
        ("train.lr", "learning rate"), ("train.gradient_noise", "gradient noise"), ("model.dropout", "dropout"),
        ("model.sparsity_penalty.weight", "sparsity penalty weight"), ("success_rate", "seeds solved"),
        ("step", "training step"), ("relative_error.extrapolation", "relative error, extrapolation"),
        ("sparsity_error", "sparsity error"),
    ],
)  # fmt: skip
def test_axes_have_the_names_that_people_use(name: str, label: str) -> None:
    assert label_of(name) == label


def test_a_figure_says_what_its_lines_and_bars_are(curved: Store) -> None:
    assert "bands: 95 % intervals" in texts(draw(curved, ["small"]))
    against = texts(draw(curved, ["small"], x="train.lr"))
    assert "bars: 95 % intervals over seeds; a point for every configuration, whatever its other settings" in against
    drawn = texts(draw(curved, ["small"], x="model"))
    assert "converged at, median (step)" in drawn
    assert "the best configuration of each cell; where nothing is solved the configuration with the lowest error" in drawn


def test_one_setting_at_a_time_draws_only_what_differs_from_the_best_in_nothing_else(curved: Store) -> None:
    other = configuration("nau", 2, TUNED | {"train.lr": 0.05})
    curved.add_configuration("small", other)
    curved.add_records([made_lane(other, seed, None, 1.0) for seed in range(3)])
    said: list[str] = []
    figure = draw(curved, ["small"], x="train.lr", y=["success_rate"], on_missing=said.append, others="best")
    (points,) = figure.axes[0].containers
    assert sorted(zip(*points.lines[0].get_data(), strict=True)) == [(pytest.approx(3.2e-3), 1.0), (0.05, 0.0)]
    assert "one setting at a time: the others are those of the best configuration (dropout off, noise 3.4e-4)" in texts(figure)
    assert said == [
        "not drawn: model=linear: no other configuration has the best one's values in all settings but train.lr; a grid over "
        "it would, and --others any draws all configurations"
    ]


def test_many_configurations_have_a_line_of_means_instead_of_bars(store: Store) -> None:
    for number in range(2, 28):
        entry = configuration("nau", number, TUNED | {"train.lr": 1e-4 * 1.3**number}, seeds=1)
        store.add_configuration("small", entry)
        store.add_records([made_lane(entry, 0, 1000 if number % 2 else None, 1e-9 if number % 2 else 1.0)])
    figure = draw(store, ["small"], x="train.lr", y=["success_rate"])
    (means,) = [line for line in figure.axes[0].lines if line.get_label() == "_mean"]
    assert len(means.get_xdata()) == 8 and all(0 <= value <= 1 for value in means.get_ydata())
    assert "line: mean of the configurations in 8 bins" in texts(figure)


def test_a_setting_may_have_its_short_name_where_that_is_unambiguous(store: Store) -> None:
    found = [report(store, "small")]
    assert [setting_of(found, x) for x in ("lr", "noise", "dropout", "model", "batch", "clamp")] == [
        "train.lr", "train.gradient_noise", "model.dropout", "model", "train.batch", "model.clamp",
    ]  # fmt: skip
    assert draw(store, ["small"], x="lr").axes[0].get_xlabel() == "learning rate"
    with pytest.raises(FigureError, match=r"'name' is several settings: model\.name, task\.name"):
        setting_of(found, "name")
    with pytest.raises(FigureError, match=r"'lrr': .* an axis of the sweep \(model\), .*Did you mean 'train\.lr'"):
        draw(store, ["small"], x="lrr")


def test_points_that_would_hide_each_other_are_side_by_side_and_others_stay(store: Store) -> None:
    """At lr 1e-3 nau #0 solves 2 of 3 seeds and linear #0 none, whose bars meet; their errors, without bars, do not."""
    panel, errors = draw(store, ["small"], x="train.lr", y=["success_rate", "error.extrapolation.median"]).axes

    def places(of: Any) -> dict[str, list[float]]:
        return {bar.get_label(): sorted(map(float, bar.lines[0].get_xdata())) for bar in of.containers}

    (nau, _), (linear, _) = places(panel)["nau"], places(panel)["linear"]
    assert 8e-4 < nau < 1e-3 < linear < 1.2e-3 and nau + linear == pytest.approx(2e-3)
    assert places(errors)["nau"][0] == 1e-3
    drawn = draw(store, ["small"], x="model", y=["success_rate"])
    assert "points at one place" in texts(draw(store, ["small"], x="train.lr")) and "points at one place" not in texts(drawn)
    assert places(drawn.axes[0]) == {"small": [0.0, 1.0]}


def test_intervals_have_the_fewest_lanes_in_which_none_meets_another() -> None:
    members = [(0.0, 2.0, 0, 0), (1.0, 3.0, 1, 0), (2.5, 4.0, 0, 1), (9.0, 9.5, 2, 0), (3.5, 3.6, 2, 1)]
    assert _side_by_side(members) == [[[(0, 0), (0, 1)], [(1, 0), (2, 1)]], [[(2, 0)]]]


def test_different_budgets_are_marked_and_listed(curved: Store) -> None:
    curved.begin_sweep("longer", "", {"name": "longer"})
    entry = configuration("nau", 0)
    entry = replace(
        entry, settings={**entry.settings, "train": {**entry.settings["train"], "steps": 2 * BUDGET}},
        keys={seed: f"{seed:064x}" for seed in range(3)},
    )  # fmt: skip
    curved.add_configuration("longer", entry)
    curved.add_records([
        replace(made_lane(entry, seed, 4000, 1e-9, curve=CURVE), budget=2 * BUDGET, steps=2 * BUDGET) for seed in range(3)
    ])  # fmt: skip
    figure = draw(curved, ["small", "longer"], y=["solved_fraction"])
    ends = [line for line in figure.axes[0].lines if str(line.get_label()).startswith("_end of")]
    assert [line.get_xdata()[0] for line in ends] == [BUDGET, BUDGET, 2 * BUDGET]
    assert "budgets differ, in steps: small: nau 15k, small: linear 15k, longer: nau 30k" in texts(figure)
    assert "budgets differ" not in texts(draw(curved, ["small"], y=["solved_fraction"]))


def test_one_line_of_different_budgets_ends_at_the_smallest(store: Store) -> None:
    results = [lane(0, 20), replace(lane(1, 160), budget=200, steps=200)]
    group = _until(against_step("nau", results, "solved_fraction"), 100)
    assert (group.middle.x, group.middle.y) == ([0, 20], [0, 0.5])
    assert _note_on_budgets(_budgets({"nau": results}), cut=True) == [
        "nau has seeds of 100 and 200 steps: errors are drawn to 100",
    ]  # fmt: skip


def test_where_nothing_is_solved_the_error_is_drawn_in_place_of_converged_at(store: Store, tmp_path: Path) -> None:
    with Store(tmp_path / "unsolved") as opened:
        opened.begin_sweep("unsolved", "", {"name": "unsolved"})
        entry = configuration("nau", 0, seeds=1)
        opened.add_configuration("unsolved", entry)
        opened.add_records([made_lane(entry, 0, None, 0.5, curve=CURVE)])
        figure = draw(opened, ["unsolved"], x="train.lr")
        assert [panel.get_ylabel() for panel in figure.axes] == ["seeds solved", "median extrapolation error"]
        assert "no seed has converged" in texts(draw(opened, ["unsolved"]))


def test_long_curves_are_thinned_and_keep_their_lowest_and_last_value() -> None:
    line = _thinned(Line([float(x) for x in range(10)], [9, 8, 7, 0.5, 5, 4, 3, 2, 1, 6]), every=4)
    assert (line.x, line.y) == ([0, 3, 4, 8, 9], [9, 0.5, 5, 1, 6])


def test_a_task_without_symbols_has_its_error_by_length(store: Store) -> None:
    entry = configuration("nac", 0, seeds=1)
    store.add_configuration("small", entry)
    store.add_records([made_lane(entry, 0, None, 1.0, by_length={"length": [5, 10], "rows": [1, 1], "error": [0.5, 2.0]})])
    (panel,) = draw(store, ["small"], x="length").axes
    assert (panel.get_ylabel(), list(panel.lines[0].get_ydata())) == ("error", [0.5, 2.0])


# ------------------------------------------------------------------------------------------- kinds


def test_parallel_coordinates_have_a_line_for_every_configuration_and_the_best_on_top(store: Store) -> None:
    figure = draw(store, ["small"], kind="parallel")
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["nau", "linear"]
    lines = [line for line in figure.axes[0].lines if str(line.get_label()).startswith("_#")]
    best = max(lines, key=lambda line: line.get_zorder())
    assert {line.get_label() for line in lines} == {"_#0", "_#1"} and best.get_label() == "_#1"
    names = [text.get_text().replace("\n", " ") for text in figure.axes[0].get_xticklabels()]
    assert names == ["learning rate", "dropout", "gradient noise", "par2 (steps)"]
    unsolved = [text.get_text().replace("\n", " ") for text in figure.axes[1].get_xticklabels()]
    assert unsolved[-1] == "median extrapolation error"  # linear solves nothing: par2 is the same for all
    assert best.get_color() == "#D62728" not in [line.get_color() for line in figure.axes[1].lines]
    # lr 3.2e-3 in [1e-4, 1e-1] and noise 3.4e-4 in [1e-5, 0.1], logarithmic; dropout off, below; the lower of two par2.
    assert list(best.get_ydata()) == [pytest.approx(0.5017, abs=1e-4), -0.12, pytest.approx(0.3829, abs=1e-4), 0.0]


def test_importances_are_bars_with_their_shares(store: Store) -> None:
    with pytest.raises(FigureError, match="importance is not known: it takes four complete configurations"):
        draw(store, ["small"], kind="importance")
    for number in range(2, 9):
        entry = configuration("nau", number, TUNED | {"train.lr": 1e-3 * number}, seeds=1)
        entry = replace(entry, parameters=entry.parameters | {"train.gradient_noise": 1e-3 / number})
        store.add_configuration("small", entry)
        store.add_records([made_lane(entry, 0, 1000 * number, 1e-9)])
    found = report(store, "small")
    shares = found.importance_of(found.cells()[0])
    figure = draw(store, ["small"], kind="importance")
    assert shares is not None
    assert [bar.get_width() for bar in figure.axes[0].patches] == list(shares.shares.values())


def test_the_front_of_two_metrics_joins_what_no_other_configuration_beats(store: Store) -> None:
    for number, (at, sparsity) in enumerate([(2000, 0.3), (3000, 0.1), (3500, 0.2), (9000, 0.05)], start=2):
        entry = configuration("nau", number, TUNED | {"train.lr": 1e-3 * number}, seeds=1)
        store.add_configuration("small", entry)
        store.add_records([replace(made_lane(entry, 0, at, 1e-9), sparsity_error=sparsity)])
    figure = draw(store, ["small"], x="par2", y=["sparsity_error"], kind="pareto")
    (front,) = [line for line in figure.axes[0].lines if line.get_label() == "nau (6)"]
    assert list(zip(*front.get_data(), strict=True)) == [(2000, 0.3), (3000, 0.1), (9000, 0.05)]
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == (
        "par2 (steps), lower is better", "sparsity error, lower is better",
    )  # fmt: skip
    higher = draw(store, ["small"], x="par2", y=["success_rate"], kind="pareto").axes[0]
    assert higher.get_ylabel() == "seeds solved, higher is better"


def test_what_a_kind_needs_is_said(store: Store) -> None:
    with pytest.raises(FigureError, match="one objective, par2: name two metrics, such as --x par2 --y sparsity_error"):
        draw(store, ["small"], kind="pareto")
    with pytest.raises(FigureError, match="no kind 'parralel' of a figure; there are lines.*Did you mean 'parallel'"):
        draw(store, ["small"], kind="parralel")
    with pytest.raises(FigureError, match="parallel has no --x and no --y"):
        draw(store, ["small"], x="train.lr", kind="parallel")
    with pytest.raises(FigureError, match="lines needs `--x step` or `--x length`, not 'train.lr'"):
        draw(store, ["small"], x="train.lr", kind="lines")


def test_a_report_has_the_figures_that_suit_it(curved: Store, partly: Store) -> None:
    names = [name for name, _, _ in standard_figures(report(curved, "small"))]
    assert names == ["convergence.svg", "error.svg", "model.svg", "train-lr.svg"]
    assert standard_figures(report(partly, "empty")) == []


# ------------------------------------------------------------------------------------------- sizes and files


def test_sizes_are_inches_or_widths_of_a_paper() -> None:
    assert read_style(size="6x4") == Style(6, 4, 9)
    assert (read_style(width="column").width, read_style(width="column").font_size) == (3.35, 8)
    assert read_style(width="5.5", font_size=7).font_size == 7
    for options, message in (
        ({"size": "6by4"}, "such as 6x4"), ({"width": "wide"}, "column or page"), ({"size": "0x4"}, "each 1 to 60"),
        ({"size": "6x4", "width": "page"}, "not both"), ({"dpi": 5}, "36 to 1200"), ({"font_size": 90.0}, "4 to 40"),
    ):  # fmt: skip
        with pytest.raises(FigureError, match=message):
            read_style(**options)


def test_panels_that_would_be_narrow_are_below_each_other_and_text_has_its_size(curved: Store) -> None:
    wide, narrow = (draw(curved, ["small"], style=read_style(width=width)) for width in ("page", "column"))
    assert [panel.get_subplotspec().get_gridspec().ncols for panel in (wide.axes[0], narrow.axes[0])] == [2, 1]
    assert narrow.get_figwidth() == pytest.approx(3.35) and narrow.axes[0].xaxis.label.get_size() == 8
    fixed = draw(curved, ["small"], style=read_style(size="6x4", title="Of $5 & <b>"))
    assert list(fixed.get_size_inches()) == [6, 4] and "Of $5 & <b>" in texts(fixed)


def test_a_figure_that_is_too_small_for_its_text_is_refused(curved: Store, tmp_path: Path) -> None:
    with pytest.raises(FigureError, match="2 x 2 inches has no room for its text: give a larger --size"):
        write(draw(curved, ["small"], style=read_style(size="2x2")), tmp_path / "figure.svg")


def test_text_stays_text_in_svg_and_pdf_embeds_truetype_fonts(curved: Store, tmp_path: Path) -> None:
    figure = draw(curved, ["small"], y=["error.extrapolation"], style=Style(title="extrapolation of NAU"))
    for name in ("figure.svg", "figure.pdf", "figure.png"):
        write(figure, tmp_path / name)
    assert ">extrapolation of NAU</text>" in (tmp_path / "figure.svg").read_text()
    assert b"/CIDFontType2" in (tmp_path / "figure.pdf").read_bytes()


def test_names_of_any_length_and_any_characters_are_drawn(curved: Store, tmp_path: Path) -> None:
    label = "a long label, with <tags> & $x^2$ \x1b, that no axis has room for, " * 2
    found = report(curved, "small")
    renamed = replace(found, configurations=tuple(
        replace(one, configuration=replace(one.configuration, labels={"model": f"{one.configuration.labels['model']} {label}"}))
        for one in found.configurations
    ))  # fmt: skip
    figure = draw_reports([renamed], x="model")
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["A", "B"]
    assert "A: nau a long label, with <tags> & $x^2$ \\x1b, that no axis" in texts(figure)
    write(figure, tmp_path / "figure.svg")
    write(draw_reports([renamed], style=read_style(width="column")), tmp_path / "column.svg")


def inside(figure: Figure, *texts: Text) -> bool:
    """Return whether these texts end before the right edge of the figure."""
    figure.draw_without_rendering()
    return all(text.get_window_extent().x1 <= figure.bbox.x1 for text in texts)


def test_titles_of_figures_and_panels_are_wrapped_to_their_width(store: Store) -> None:
    long = " number MMM WWW somewhere mammals swim" * 3
    for label in ("", long):
        found = report(store, "small")
        renamed = replace(found, configurations=tuple(
            replace(one, configuration=replace(one.configuration, labels={"model": one.configuration.labels["model"] + label}))
            for one in found.configurations
        ))  # fmt: skip
        figure = draw_reports([renamed], kind="parallel", style=replace(read_style(width="column"), title=long))
        assert inside(figure, *figure.texts, *(text for panel in figure.axes for text in panel.findobj(Text)
                                               if text.get_text().startswith(("nau", "linear"))))  # fmt: skip
