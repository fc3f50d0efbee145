"""Reports of a small sweep whose metrics are known: as an object, in every format; and thresholds from a report."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from commands import call
from made_sweep import BUDGET, DOCUMENT, TUNED, configuration, lane, made_sweep

from sweeps.errors import StoreError, UserError
from sweeps.results import Report, as_csv, as_json, as_markdown, report
from sweeps.results.export import best
from sweeps.results.formats import failed_seeds, parameters, table
from sweeps.results.numbers import number, percent, steps
from sweeps.results.thresholds import thresholds
from sweeps.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def small(store: Store) -> Report:
    made_sweep(store)
    return report(store, "small")


@pytest.fixture
def found(small: Report) -> dict[str, Any]:
    return small.as_dict()


def with_best(small: Report, **changes: Any) -> Report:
    """The report with other results of its first configuration."""
    first, *rest = small.configurations
    return dataclasses.replace(small, configurations=(dataclasses.replace(first, **changes), *rest))


def test_the_object_is_that_of_the_design(found: dict[str, Any]) -> None:
    assert list(found) == ["sweep", "definition", "configurations", "totals"]
    assert found["definition"] == DOCUMENT
    promised = {
        "cell", "rank", "number", "parameters", "state", "seeds", "solved", "diverged", "success_rate",
        "converged_at", "sparsity_error", "par2", "lanes",
    }  # fmt: skip
    entry = found["configurations"][0]
    assert promised <= set(entry)
    ends = {"median", "median_low", "median_high", "interval"}
    assert set(entry["converged_at"]) == {"mean", "low", "high", *ends}
    assert set(entry["sparsity_error"]) == {"estimate", "low", "high", *ends}
    assert set(entry["success_rate"]) == {"estimate", "low", "high"}
    assert {"seed", "solved", "converged_at", "sparsity_error", "steps", "error", "reason"} <= set(entry["lanes"][0])


def test_cells_are_in_order_and_within_them_the_best_is_first(found: dict[str, Any]) -> None:
    order = [(e["cell"]["model"], e["rank"], e["number"]) for e in found["configurations"]]
    assert order == [("nau", 1, 1), ("nau", 2, 0), ("linear", 1, 1), ("linear", 2, 0)]


def test_metrics_of_a_configuration_by_hand(found: dict[str, Any]) -> None:
    tuned, published = found["configurations"][:2]
    assert tuned["parameters"] == TUNED
    assert published["parameters"] == {"model.dropout": 0.0, "train.gradient_noise": 0.0, "train.lr": 1e-3}
    assert (tuned["par2"], published["par2"]) == (5000.0, (5000 + 7000 + 2 * BUDGET) / 3)
    assert (tuned["converged_at"]["mean"], tuned["converged_at"]["median"]) == (5000.0, 4000.0)
    assert published["success_rate"]["estimate"] == pytest.approx(2 / 3)


def test_unsolved_cells_have_nulls_and_reasons(small: Report, found: dict[str, Any]) -> None:
    linear = found["configurations"][3]
    assert linear["converged_at"] == dict.fromkeys(("mean", "low", "high", "median", "median_low", "median_high"))
    assert (linear["diverged"], linear["errors"]) == (1, 1)
    assert [one["outcome"] for one in linear["lanes"]] == ["unsolved", "diverged", "error"]
    assert "not finite at step 700" in linear["lanes"][1]["reason"]
    json.loads(as_json(small), parse_constant=lambda word: pytest.fail(f"{word} in the JSON"))


def test_totals_count_every_lane_once(found: dict[str, Any]) -> None:
    totals = found["totals"]
    counts = [totals[name] for name in ("cells", "configurations", "lanes", "solved", "diverged", "errors")]
    assert counts == [2, 4, 12, 5, 1, 1]
    assert totals["seed_steps"] == 10 * BUDGET + 700
    assert totals["timing"]["lane_seconds"] == 12 * 1.25


def test_the_same_records_give_the_same_bytes_in_any_order_of_arrival(tmp_path: Path) -> None:
    texts = []
    for reverse in (False, True):
        with Store(tmp_path / str(reverse)) as store:
            made_sweep(store, reverse)
            found = report(store, "small")
        found = dataclasses.replace(found, row=dataclasses.replace(found.row, seconds=1.0 + reverse))
        texts.append((as_markdown(found, timing=False), as_json(found, timing=False), as_csv(found)))
    assert texts[0] == texts[1]


def test_a_configuration_that_lacks_a_lane_is_running_and_unranked(store: Store) -> None:
    made_sweep(store)
    store.update_definition("small", "", {**DOCUMENT, "seeds": 4})
    store.add_seeds("small", "model=nau", 1, {3: "a lane that is not there"})
    found = report(store, "small")
    assert [(one.configuration.number, one.rank, one.state) for one in found.configurations[:2]] == [
        (0, 1, "complete"),
        (1, None, "running"),
    ]
    assert "Not complete, so not ranked: #1 (3 of 4 seeds)." in as_markdown(found)
    assert "12 of 13 lanes" in as_markdown(found)


def test_an_empty_sweep_can_be_reported(store: Store) -> None:
    store.begin_sweep("empty", "", {"name": "empty"})
    found = report(store, "empty")
    assert found.as_dict()["configurations"] == []
    assert "No configuration has been tried yet." in as_markdown(found)
    assert as_csv(found).startswith("rank,number,state,repeats,") and as_csv(found).count("\n") == 1


def test_a_sweep_without_a_complete_configuration_says_so_and_shows_what_there_is(store: Store) -> None:
    store.begin_sweep("begun", "", DOCUMENT)
    first, second = configuration("nau", 0), configuration("linear", 0)
    for entry in (first, second):
        store.add_configuration("begun", dataclasses.replace(entry, state="running"))
    store.add_records([lane(first, 0, 5000, 1e-9), lane(first, 1, None, 0.5)])
    text = as_markdown(report(store, "begun"))
    assert "No configuration is complete yet, so none is ranked." in text and "Best of each cell" not in text
    assert "Unsolved seeds of #0: 1 with too few evaluations (seed 1)." in text and "no winner" not in text
    assert "| 0   | 1/2 50% [9, 91] | 1 " in text and "| 0   | – " in text


def test_a_sweep_without_a_search_has_the_parameters_of_its_file(store: Store) -> None:
    store.begin_sweep("plain", "", {"name": "plain", "question": None})
    entry = configuration("nau", 0)
    store.add_configuration("plain", entry)
    store.add_records([lane(entry, seed, 1000, 1e-9) for seed in range(3)])
    text = as_markdown(report(store, "plain"))
    assert "as the file says" in text
    assert "1 cell, 1 configuration, 3 lanes" in text


def test_an_unknown_sweep_is_reported_with_the_nearest_name(store: Store) -> None:
    made_sweep(store)
    with pytest.raises(StoreError, match="Did you mean 'small'"):
        report(store, "smal")


def test_the_markdown_is_aligned_narrow_and_marks_the_best(small: Report) -> None:
    text = as_markdown(small)
    assert max(map(len, text.splitlines())) <= 120
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({len(line) for line in block.splitlines()}) == 1
    assert text.index("## Best of each cell: lowest par2") < text.index("## model=nau") < text.index("## Totals")
    assert "| 1*  | 3/3 100% [44, 100] | 3      | 4k           | " in text
    assert "lr 3.2e-3, dropout off, noise 3.4e-4" in text
    assert "Diverged seeds: 1 in #0." in text


def test_the_longest_usual_row_fits_the_width(small: Report) -> None:
    first = small.configurations[0]
    entry = dataclasses.replace(first.configuration, number=17, keys={seed: f"k{seed}" for seed in range(100)})
    results = [
        dataclasses.replace(first.results[0], key=f"k{seed}", seed=seed, converged_at=17_000 + seed, sparsity_error=4.2e-7)
        for seed in range(99)
    ]
    results.append(dataclasses.replace(lane(first.configuration, 0, None, 0.5), key="k99", seed=99))
    values = {"model.dropout": 1.25e-5, "train.gradient_noise": 0.0034, "train.lr": 0.0032}
    text = as_markdown(with_best(small, configuration=entry, results=tuple(results), parameters=values))
    assert "99/100 99% [95, 99.8]" in text
    assert max(len(line) for line in text.splitlines()) <= 125


def test_an_objective_that_no_column_shows_gets_one(tmp_path: Path) -> None:
    objective = "error.extrapolation.median"
    for name, headers in ((objective, 3), ("converged_at.median", 0)):
        with Store(tmp_path / name) as store:
            made_sweep(store, document=DOCUMENT | {"search": DOCUMENT["search"] | {"objective": name}})
            text = as_markdown(report(store, "small"))
        assert f"## Best of each cell: lowest {name}" in text
        tables = [line for line in text.splitlines() if " par2 " in line and line.startswith("|")]
        assert len(tables) == 3 and sum(f"| {name} | parameters" in line for line in tables) == headers
        assert ("| 1e-9 " in text) == (name == objective)


def test_the_markdown_lists_the_reasons_of_errors(small: Report, found: dict[str, Any]) -> None:
    reason = next(one["reason"] for e in found["configurations"] for one in e["lanes"] if one["outcome"] == "error")
    assert f"Error of 1 seed: {reason}." in as_markdown(small)


def test_the_csv_has_a_row_for_each_configuration(small: Report) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(small))))
    assert len(rows) == 4
    assert list(rows[0])[:4] == ["cell.model", "rank", "number", "state"]
    assert (rows[0]["objective"], rows[0]["converged_at.mean"]) == ("5000.0", "5000.0")
    assert rows[0]["error.extrapolation.median"] == "1e-09"
    assert (rows[0]["parameters.train.lr"], rows[0]["converged_at.median"]) == ("0.0032", "4000.0")
    assert rows[2]["converged_at.median"] == ""


def test_a_former_objective_of_a_stored_sweep_is_its_metric_of_today(store: Store) -> None:
    made_sweep(store, document=DOCUMENT | {"search": DOCUMENT["search"] | {"objective": "converged_at"}})
    found = report(store, "small")
    assert found.search.objective.name == "converged_at.mean"
    assert "lowest converged_at.mean" in as_markdown(found)


def test_a_sweep_that_is_named_twice_is_refused_since_its_seeds_would_count_twice(store: Store, tmp_path: Path) -> None:
    for verb in (["report"], ["figure", "-o", str(tmp_path / "a.svg")]):
        answer = call(*verb, "small", "small", "--store", store.location)
        assert answer.status == 2 and "small is named 2 times: name every sweep once" in answer.err


def test_several_sweeps_are_one_document_in_every_format(store: Store, tmp_path: Path) -> None:
    made_sweep(store)
    reference(store, {"interpolation": 1.0, "length_7": 2.0})

    def printed(*names: str, form: str) -> str:
        answer = call("report", *names, "--format", form, "--no-timing", "--store", str(tmp_path))
        assert answer.status == 0, answer.err
        return answer.out

    both = json.loads(printed("small", "reference", form="json"))
    assert both == [json.loads(printed(name, form="json")) for name in ("small", "reference")]
    rows = list(csv.DictReader(io.StringIO(printed("small", "reference", form="csv"))))
    assert [row["sweep"] for row in rows] == ["small"] * 4 + ["reference"]
    assert rows[4]["error.length_7.median"] == "2.0" and not rows[0]["error.length_7.median"]
    assert rows[0]["parameters.model.dropout"] == "0" and not rows[4]["parameters.model.dropout"]
    alone = list(csv.DictReader(io.StringIO(printed("small", form="csv"))))
    assert alone == [{column: row[column] for column in alone[0]} for row in rows[:4]] and "sweep" not in alone[0]
    assert printed("small", "reference", form="md") == printed("small", form="md") + printed("reference", form="md")


def test_a_suggestion_that_repeats_an_earlier_one_is_no_row_and_no_rank_of_its_own(store: Store) -> None:
    made_sweep(store)
    before = report(store, "small")
    for suggested, values in ((2, TUNED), (3, {"train.lr": 1e-3}), (4, TUNED)):
        store.add_configuration("small", configuration("nau", suggested, values))
    found = report(store, "small")
    entries = found.as_dict()["configurations"]
    assert [(e["number"], e["rank"], e["repeats"]) for e in entries[:2]] == [(1, 1, [2, 4]), (0, 2, [3])]
    assert found.as_dict()["totals"]["configurations"] == 4 and found.as_dict()["totals"]["repeats"] == 3
    text = as_markdown(found, timing=False)
    assert "3 repeated suggestions, with the same lanes: #3 as #0; #2, #4 as #1." in text
    assert text.replace("\n3 repeated suggestions, with the same lanes: #3 as #0; #2, #4 as #1.\n", "") == as_markdown(
        before, timing=False
    )
    assert [row["repeats"] for row in csv.DictReader(io.StringIO(as_csv(found)))] == ["2", "1", "0", "0"]
    again = [(one.configuration.number, one.rank, one.configuration.parameters) for one in found.with_repeats()[:5]]
    assert again == [(1, 1, TUNED), (2, 1, TUNED), (4, 1, TUNED), (0, 2, {}), (3, 2, {"train.lr": 1e-3})]


def test_numbers_are_short() -> None:
    assert [steps(value) for value in (None, 0, 850, 999.7, 4500.0, 17_300, 999_700, 1.521e6, 6.3e9)] == [
        "–", "0", "850", "1k", "4.5k", "17.3k", "1M", "1.52M", "6.3G",
    ]  # fmt: skip
    assert [number(value) for value in (None, 0.0, 0.41, 4.2e-7, 1e-3, 0.0099, 64.0, 2.5e6)] == [
        "–", "0", "0.41", "4.2e-7", "1e-3", "9.9e-3", "64", "2.5e6",
    ]  # fmt: skip
    assert [percent(value) for value in (None, 0.0, 0.002, 0.98, 0.9982, 1.0)] == ["–", "0", "0.2", "98", "99.8", "100"]


def test_parameters_keep_their_path_where_the_last_part_is_not_enough() -> None:
    values = {"model.a.weight": 1, "model.b.weight": 0.5, "train.optimizer": "sgd", "model.clamp": True}
    assert parameters(values, {}) == "clamp true, model.a.weight 1, model.b.weight 0.5, optimizer sgd"


def test_a_pipe_in_a_label_does_not_break_the_table() -> None:
    assert str(table(["a"], [["x|y"]])) == "| a    |\n|------|\n| x\\|y |"


def with_lengths(small: Report, *lanes: dict[str, list[Any]]) -> str:
    first = small.configurations[0].results
    measured = [dataclasses.replace(result, by_length=one) for result, one in zip(first, lanes, strict=False)]
    return as_markdown(with_best(small, results=(*measured, *first[len(lanes) :])), timing=False)


def test_errors_by_length_are_those_of_the_best_configuration(small: Report) -> None:
    rows = {"length": [41, 401], "rows": [1024, 16]}
    text = with_lengths(
        small,
        {**rows, "error": [0.1, 1.0], "symbol_error": [0.01, 0.5], "sequence_error": [0.1, 1.0]},
        {**rows, "error": [0.3, 1.0], "symbol_error": [0.0125, 0.5], "sequence_error": [0.3, 1.0]},
    )
    (section,) = [part for part in text.split("## ") if part.startswith("By length")]
    lines = [line.split(" | ") for line in section.splitlines() if line.startswith("| nau")]
    assert [[field.strip(" |") for field in line] for line in lines] == [
        ["nau", "41", "1024", "2", "1.12 (1 to 1.25)", "20 (10 to 30)"],
        ["nau", "401", "16", "2", "50", "100"],
    ]
    assert "wrong" in section.splitlines()[2]


def test_a_task_without_symbols_has_its_error_by_length(small: Report) -> None:
    text = with_lengths(small, {"length": [1000], "rows": [64], "error": [2.5]})
    assert "| nau   | 1000   | 64        | 1     | 2.5   |" in text


def test_a_sweep_without_lengths_has_no_table_of_them(small: Report) -> None:
    assert "By length" not in as_markdown(small)


# ------------------------------------------------------------------------------------------- thresholds


def reference(store: Store, *errors: dict[str, float | None], configurations: int = 1) -> Report:
    store.begin_sweep("reference", "", {"name": "reference"})
    for i in range(configurations):
        entry = configuration("nau", i, {"train.lr": 0.1 + i}, seeds=len(errors))
        store.add_configuration("reference", entry)
        store.add_records([dataclasses.replace(lane(entry, seed, None, 1.0), error=error) for seed, error in enumerate(errors)])
    return report(store, "reference")


def test_a_threshold_is_the_mean_and_two_point_eight_nine_six_standard_errors_for_nine_runs(store: Store) -> None:
    """t(0.99, 8) = 2.896, as published. Errors 1 to 9: mean 5, sd sqrt(7.5)."""
    runs = ({"interpolation": 9.0, "extrapolation": float(error)} for error in range(1, 10))
    found = thresholds(reference(store, *runs))
    assert found == {"extrapolation": pytest.approx(5 + 2.896 * math.sqrt(7.5) / 3, rel=1e-4)}


def test_runs_without_finite_errors_are_left_out_and_one_run_is_too_few(store: Store) -> None:
    with pytest.raises(UserError, match="has 1 seeds with finite errors; at least 2"):
        thresholds(reference(store, {"extrapolation": 1.0}, {"extrapolation": None}, {}))


def test_several_configurations_are_refused(store: Store) -> None:
    with pytest.raises(UserError, match="has 2 configurations"):
        thresholds(reference(store, {"extrapolation": 1.0}, configurations=2))


# ------------------------------------------------------------------------------------------- constraints, objectives, ties


def searched(store: Store, **search: Any) -> Report:
    """The small sweep with other keys in its search."""
    made_sweep(store, document=DOCUMENT | {"search": DOCUMENT["search"] | search})
    return report(store, "small")


def tied_sweep(store: Store, configurations: int, converged_at: int | None, **search: Any) -> Report:
    """Configurations of three seeds with equal results."""
    store.begin_sweep("tied", "", DOCUMENT | {"search": DOCUMENT["search"] | search})
    for i in range(configurations):
        entry = configuration("nau", i, {"train.lr": 0.1 + i})
        store.add_configuration("tied", entry)
        store.add_records([lane(entry, seed, converged_at, 1e-9 if converged_at else 0.5) for seed in range(3)])
    return report(store, "tied")


def test_a_full_tie_is_decided_by_the_number_and_said_in_one_line(store: Store) -> None:
    text = " ".join(as_markdown(tied_sweep(store, 10, 5000)).split())
    tie = "equal par2 of #0, #1, #2, #3, #4, #5, #6, #7 and 2 more, so by the median error, then by number."
    assert text.count("Decided by the tie-break") == text.count(f"Decided by the tie-break: {tie}") == 1


def test_where_nothing_is_solved_there_is_no_winner_and_the_error_decides(small: Report) -> None:
    """Both configurations of linear have a par2 of twice the budget; those of nau are solved."""
    text = " ".join(as_markdown(small).split())
    assert "Decided by the tie-break" not in text and not small.is_without_winner()
    assert "## Best of each cell: lowest par2" in text
    assert "Nothing is solved in model=linear: there it is the configuration with the lowest error." in text
    section = text[text.index("## model=linear") :]
    assert "| 1* " in text and "| 1 " in section and "* " not in section[: section.index("#1, median")]
    assert "#1, median of seeds: lowest error 0.1, last error 0.1, 7.1e6 and 7.1e6 times the threshold 1.4e-8." in section
    assert "Unsolved seeds of #1: 3 with too few evaluations (seeds 0, 1, 2)." in section
    assert (
        "Nothing is solved, so the order is that of the median error, and #1 is no winner. Try a lower train.evaluate_every, "
        "since seeds have too few evaluations to show a trend"
    ) in section
    assert "Nothing is solved" not in text[text.index("## model=nau") : text.index("## model=linear")]


def test_a_sweep_in_which_nothing_is_solved_names_no_winner_at_all(store: Store) -> None:
    found = tied_sweep(store, 2, None)
    text = " ".join(as_markdown(found).split())
    assert found.is_without_winner()
    assert "## Nothing is solved: the lowest error of each cell" in text and "Best of each cell" not in text
    assert "the order is that of the median error, then by number, and #0 is no winner." in text
    assert "0 solved (0 at the end)" in text


def test_an_objective_that_needs_no_solved_seed_still_decides_where_nothing_is_solved(store: Store) -> None:
    text = as_markdown(tied_sweep(store, 2, None, objective="error.extrapolation.median"))
    assert "## Nothing is solved: the first of each cell by lowest error.extrapolation.median" in text
    assert "Nothing is solved: #0 is no winner." in " ".join(text.split())


def test_constraints_do_not_make_a_winner_where_nothing_is_solved(store: Store) -> None:
    found = tied_sweep(store, 2, None, constraints={"diverged": {"at_most": 0}})
    text = as_markdown(found)
    assert "## Nothing is solved: the first of each cell by the constraints, then lowest par2" in text
    assert "*" not in text and not found.has_winner(found.cells()[0])
    assert "First configuration, nothing being solved, of sweep tied" in best(store, "tied")


def test_what_to_try_follows_from_the_verdicts_and_from_bounds_of_the_search(store: Store) -> None:
    entry = configuration("nau", 1, {"train.lr": 0.1})
    falling = {"step": [1000 * i for i in range(15)], "error.extrapolation": [10.0 ** -(0.2 * i) for i in range(15)]}
    store.begin_sweep("far", "", DOCUMENT)
    store.add_configuration("far", entry)
    store.add_records([
        lane(entry, 0, None, 1.0, curve=falling), lane(entry, 1, None, 2e-8),
        lane(entry, 2, None, None, outcome="diverged", steps=700, reason="diverged at step 700: its loss is not finite"),
    ])  # fmt: skip
    found = report(store, "far")
    text = " ".join(as_markdown(found).split())
    # From 10^-2.8 at step 14,000 the error falls by 10^-0.2 in 1000 steps: 1.4e-8 is another 25,270 steps away.
    assert "1 near (seed 1), 1 on its way (seed 0; would cross near step 39.3k), 1 diverged (seed 2)" in text
    assert "Try more steps, since 1 seed still improved (one would cross near step 39.3k); a learning rate that falls" in text
    assert "a lower learning rate or a gradient clip, since seeds diverged" in text
    assert "a wider range of train.lr, which is 0.1, at its upper bound." in text
    (object_,) = found.as_dict()["configurations"]
    assert [(group["kind"], group["seeds"]) for group in object_["unsolved"]] == [
        ("near", [1]), ("on its way", [0]), ("diverged", [2]),
    ]  # fmt: skip
    assert [one["verdict"]["kind"] for one in object_["lanes"]] == ["on its way", "near", "diverged"]
    assert object_["lanes"][0]["verdict"]["crosses_at"] == pytest.approx(14_000 + 1000 * (math.log10(1 / 1.4e-8) - 2.8) / 0.2)
    (row,) = csv.DictReader(io.StringIO(as_csv(found)))
    assert (row["unsolved.near"], row["unsolved.diverged"], row["threshold"]) == ("1", "1", "1.4e-08")


def test_a_task_without_a_threshold_has_no_success_rate_and_no_par2(store: Store) -> None:
    store.begin_sweep("open", "", DOCUMENT)
    for i, error in enumerate((0.5, 0.25)):
        entry = configuration("nau", i, TUNED if i else {})
        store.add_configuration("open", entry)
        store.add_records([dataclasses.replace(lane(entry, seed, None, error), threshold=None) for seed in range(3)])
    found = report(store, "open")
    text = " ".join(as_markdown(found).split())
    assert [(one.configuration.number, one.rank) for one in found.configurations] == [(1, 1), (0, 2)]
    assert "| 1* | – | – | – | – | – | lr 3.2e-3" in text
    assert "## The task has no threshold: the lowest error of each cell" in text
    assert "Without a threshold par2 is not defined: the order is that of the median error." in text
    assert "not judged without a threshold" in text and "no winner" not in text
    entry_ = found.as_dict()["configurations"][0]
    assert (entry_["success_rate"]["estimate"], entry_["par2"], entry_["objective"]) == (None, None, None)
    assert {one["verdict"]["kind"] for one in entry_["lanes"]} == {"no threshold"}


def test_solved_seeds_that_end_above_their_threshold_are_counted(store: Store) -> None:
    made_sweep(store, curve={"step": [0, 3000, 15_000], "error.extrapolation": [1.0, 1e-9, 1e-3]})
    found = report(store, "small")
    text = " ".join(as_markdown(found).split())
    assert "| 1* | 3/3 100% [44, 100] | 0 | 4k |" in text
    assert "Above the threshold again at the end: 3 of 3 solved seeds." in text
    assert "last error 1e-3, 0.071 and 7.1e4 times the threshold 1.4e-8" in text
    assert {one["verdict"]["kind"] for one in found.as_dict()["configurations"][0]["lanes"]} == {"solved, lost at the end"}
    assert found.as_dict()["totals"]["solved_at_end"] == 2  # those of #0, which have no curve


def test_one_seed_has_estimates_and_no_ends(store: Store) -> None:
    entry = configuration("nau", 0, seeds=1)
    store.begin_sweep("one", "", DOCUMENT)
    store.add_configuration("one", entry)
    store.add_records([lane(entry, 0, 5000, 1e-9)])
    (found,) = report(store, "one").as_dict()["configurations"]
    assert (found["converged_at"]["median"], found["converged_at"]["median_low"], found["converged_at"]["low"]) == (
        5000,
        None,
        None,
    )
    assert (found["restricted_mean"]["estimate"], found["restricted_mean"]["high"]) == (5000, None)
    assert "| 0*  | 1/1 100% [21, 100] | 1      | 5k " in as_markdown(report(store, "one"))


def test_configurations_that_break_a_constraint_are_last_and_the_report_says_which(store: Store) -> None:
    """nau #0 (2 of 3 solved) meets both, #1 (3 of 3) has a success rate above the limit; linear #0 diverged once."""
    found = searched(store, constraints={"success_rate": {"at_most": 0.9}, "diverged": {"at_most": 0}})
    assert [(one.configuration.number, one.rank) for one in found.configurations] == [(0, 1), (1, 2), (1, 1), (0, 2)]
    text = as_markdown(found)
    assert "Ranked last, as success_rate at most 0.9 is broken: #1 (100)." in text
    assert "Ranked last, as diverged at most 0 is broken: #0 (1)." in text
    assert "| diverged | parameters" in text
    entries = found.as_dict()["configurations"]
    assert [e["broken_constraints"] for e in entries] == [[], ["success_rate at most 0.9"], [], ["diverged at most 0"]]
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert [row["broken_constraints"] for row in rows] == ["", "success_rate at most 0.9", "", "diverged at most 0"]


def test_what_breaks_a_constraint_is_not_marked_as_the_best_of_its_cell(store: Store) -> None:
    """Of nau #0 solves 2 of 3 seeds and #1 all 3; linear meets the limit, and nothing of it is solved."""
    text = " ".join(as_markdown(searched(store, constraints={"success_rate": {"at_most": 0.1}})).split())
    assert "No configuration meets all constraints in model=nau: there it is the configuration that is first by the" in text
    assert "| 0 | 2/3" in text and "0*" not in text and "the best of its cell" not in text


def test_a_search_without_constraints_or_further_objectives_has_no_fields_of_them(small: Report) -> None:
    entry = small.as_dict()["configurations"][0]
    assert "broken_constraints" not in entry and "objectives" not in entry
    assert "broken_constraints" not in as_csv(small) and "objectives." not in as_csv(small)
    assert "Pareto" not in as_markdown(small)


def test_the_pareto_front_is_marked_and_listed_in_the_order_of_the_first_objective(store: Store) -> None:
    """nau: #1 solves 3 of 3, #0 2 of 3, with equal steps. linear: #0 has fewer steps, as it diverged, #1 the lower error."""
    found = searched(store, objective=["error.extrapolation.median", "seed_steps"])
    assert [(one.configuration.number, one.rank) for one in found.configurations] == [(1, 1), (0, 2), (1, 1), (0, 1)]
    text = as_markdown(found)
    aim = "lowest error.extrapolation.median, lowest seed_steps"
    assert f"## Best of each cell: {aim}" in text and "* one on the Pareto front of its cell." in " ".join(text.split())
    front = next(part for part in text.split("\n## ") if part.startswith(f"Pareto front: {aim}"))
    fields = [[field.strip() for field in line.split("|")[1:5]] for line in front.splitlines() if line.startswith("| ")]
    assert fields == [
        ["model", "#", "error.extrapolation.median", "seed_steps"],
        ["nau", "1", "1e-9", "45k"],
        ["linear", "1", "0.1", "45k"],
        ["linear", "0", "–", "15.7k"],
    ]
    assert "| 0*  |" in text[text.index("## model=linear") :]
    entries = found.as_dict()["configurations"]
    assert entries[3]["objectives"] == {"error.extrapolation.median": None, "seed_steps": 15_700}
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert [(row["rank"], row["objectives.seed_steps"]) for row in rows] == [
        ("1", "45000"),
        ("2", "45000"),
        ("1", "45000"),
        ("1", "15700"),
    ]


def test_the_seeds_that_failed_are_listed_alone_with_their_verdicts(store: Store) -> None:
    made_sweep(store)
    answer = call("report", "small", "--failed", "--store", store.location)
    assert "# small: seeds that failed" in answer.out
    assert "7 of 12 finished seeds: 5 too few evaluations; 1 diverged; 1 error." in answer.out
    fields = [[field.strip() for field in line.strip("| ").split("|")] for line in answer.out.splitlines() if line[:2] == "| "]
    assert fields[0] == ["model", "#", "seed", "verdict", "why"]
    assert [row[:3] for row in fields[1:]] == [
        ["nau", "0", "2"], ["linear", "1", "0"], ["linear", "1", "1"], ["linear", "1", "2"], ["linear", "0", "0"],
        ["linear", "0", "1"], ["linear", "0", "2"],
    ]  # fmt: skip
    assert fields[-1][3:] == ["error", "ended in an exception: RuntimeError: boom"]
    rows = [failed_seeds([report(store, "small")], format) for format in ("json", "csv")]
    assert [row["verdict"] for row in json.loads(rows[0])] == [row["verdict"] for row in csv.DictReader(io.StringIO(rows[1]))]
    assert "--failed lists seeds" in call("report", "small", "--failed", "--format", "tex", "--store", store.location).err
    store.begin_sweep("empty", "", DOCUMENT)
    assert "None of 0 finished seeds" in failed_seeds([report(store, "empty")], "md")


def test_an_interval_of_the_mean_that_only_the_budget_decides_is_not_shown_but_explained(store: Store) -> None:
    """Five seeds that all converge at step 500 of 15,000 do not exclude a slow one: [0, 5.9k] says little about them."""
    made_sweep(store)
    entry = configuration("nau", 0, {"train.lr": 0.02}, seeds=5)
    store.begin_sweep("equal", "", DOCUMENT)
    store.add_configuration("equal", entry)
    store.add_records([lane(entry, seed, 500, 1e-9) for seed in range(5)])
    found = report(store, "equal")
    text = " ".join(as_markdown(found).split())
    assert "mean steps to convergence within the budget 500 [–]." in text
    assert "[–]: the mean has an interval that reaches beyond 2 times the slowest seed" in text
    assert found.as_dict()["configurations"][0]["restricted_mean"]["high"] > 1000
    assert "[–]" not in as_markdown(report(store, "small"))
