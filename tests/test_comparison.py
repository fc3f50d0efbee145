"""`sweeps compare`: what is selected, paired and compared, and that the verdict claims no more than the tests."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from commands import call
from made_sweep import BUDGET, DOCUMENT, TUNED, configuration, lane, made_sweep

from sweeps.config.space import Constraint
from sweeps.config.yaml import dump, read
from sweeps.errors import UserError
from sweeps.results import Report, as_markdown, comparison, report
from sweeps.results.comparison import Seed, Side, _by_chance, best_of_cells, compare, select, side_of_file
from sweeps.results.export import best
from sweeps.results.html import as_html
from sweeps.runner.reproduce import agreement
from sweeps.store import Store
from sweeps.training.lane import LaneResult

SETTINGS: dict[str, Any] = {
    "task": {"name": "static", "operation": "sub"}, "model": {"name": "nau"},
    "train": {"steps": 15_000, "lr": 1e-3, "batch": 128},
}  # fmt: skip


def seed_of(number: int, converged_at: int | None, error: float = 1e-9, **fields: Any) -> Seed:
    solved = converged_at is not None
    outcome = "solved" if solved else "unsolved"
    return Seed(number, outcome, solved, solved, converged_at, error if solved else 0.1, 0.4, True, **fields)


def side(name: str, converged_at: Sequence[int | None], first: int = 0, **fields: Any) -> Side:
    settings = {**SETTINGS, **fields.pop("settings", {})}
    seeds = tuple(seed_of(first + i, at) for i, at in enumerate(converged_at))
    return Side(name=name, labels={}, settings=settings, seeds=seeds, **fields)


def half(solved: int, of: int = 20, at: int = 5000) -> list[int | None]:
    return [at] * solved + [None] * (of - solved)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Nothing is written to it."""
    with Store(tmp_path_factory.mktemp("results")) as opened:
        made_sweep(opened)
        yield opened


def found(one: Side, other: Side, **options: Any) -> comparison.Pair:
    return compare(one, other, **options).pairs[0]


def of(pair: comparison.Pair, name: str) -> comparison.Difference:
    difference = pair.difference(name)
    assert difference is not None
    return difference


# ------------------------------------------------------------------------------------------- selection


def names(sides: Iterable[Side]) -> list[str]:
    return [one.name for one in sides]


def test_a_sweep_gives_the_best_of_each_cell_a_cell_its_best_and_a_number_that_configuration(store: Store) -> None:
    assert names(select("small", store)) == ["small:nau#1", "small:linear#1"]
    assert names(select("small:nau", store)) == names(select("small:model=nau", store)) == ["small:nau#1"]
    assert names(select("small:nau#0", store)) == ["small:nau#0"]
    assert names(select("small#0", store)) == ["small:nau#0", "small:linear#0"]


def test_some_labels_of_a_cell_with_several_axes_select_all_cells_that_have_them(tmp_path: Path) -> None:
    store = two_axes(tmp_path)
    assert names(select("axes:nau", store)) == ["axes:nau U[1,2]#0", "axes:nau U[1,3]#0"]
    assert names(select("axes:range=U[1,2]", store)) == ["axes:nau U[1,2]#0", "axes:linear U[1,2]#0"]
    compared = compare(select("axes:nau", store), select("axes:linear", store))
    assert [(pair.first.name, pair.second.name) for pair in compared.pairs] == [
        ("axes:nau U[1,2]#0", "axes:linear U[1,2]#0"),
        ("axes:nau U[1,3]#0", "axes:linear U[1,3]#0"),
    ]


def two_axes(folder: Path) -> Store:
    store = Store(folder / "axes")
    store.begin_sweep("axes", "", {"name": "axes", "seeds": 3})
    for name in ("nau", "linear"):
        for high in (2, 3):
            entry = configuration(name, 0)
            interval = f"U[1,{high}]"
            entry = dataclasses.replace(
                entry, cell=f"model={name} range={interval}", labels={"model": name, "range": interval},
                keys={seed: f"{name}{high}{seed}" for seed in range(3)},
            )  # fmt: skip
            store.add_configuration("axes", entry)
            store.add_records([lane(entry, seed, 1000 * high + seed, 1e-9) for seed in range(3)])
    return store


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("smal", r"no sweep named 'smal'. Did you mean 'small'\?"),
        ("small:nua", r"no cell 'nua'. Did you mean 'small:nau'\? It has: 'small:nau', 'small:linear'."),
        ("small:nua#1", r"no cell 'nua#1'. Did you mean 'small:nau'\?"),
        ("small:nau#7", r"small:nau has no configuration 7; it has 0 to 1. The nearest is small:nau#1."),
    ],
)
def test_an_unknown_sweep_cell_or_number_is_reported_with_the_nearest(store: Store, text: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        select(text, store)


def test_what_has_no_complete_configuration_is_no_side(tmp_path: Path) -> None:
    store = Store(tmp_path / "running")
    store.begin_sweep("begun", "", DOCUMENT | {"name": "begun"})
    with pytest.raises(UserError, match="no configuration yet"):
        select("begun", store)
    entry = dataclasses.replace(configuration("nau", 0), state="running")
    store.add_configuration("begun", entry)
    store.add_records([lane(entry, 0, 5000, 1e-9)])
    with pytest.raises(UserError, match="complete yet"):
        select("begun", store)
    assert select("begun#0", store)[0].remark == "has 1 of 3 seeds so far"


def test_the_same_lanes_are_not_compared(store: Store) -> None:
    with pytest.raises(UserError, match="are the same lanes"):
        compare(select("small:nau", store), select("small:nau#1", store))
    with pytest.raises(UserError, match="only small:nau#1 to compare"):
        compare(select("small:nau", store))


# ------------------------------------------------------------------------------------------- figures


def test_figures_by_hand(store: Store) -> None:
    """nau #0 solves 2 of 3, at 5,000 and 7,000; #1 solves 3 of 3, at 3,000, 4,000 and 8,000; the budget is 15,000."""
    pair = found(*select("small:nau#0", store), *select("small:nau#1", store))
    assert (of(pair, "success_rate").first.estimate, of(pair, "success_rate").second.estimate) == (2 / 3, 1.0)
    assert of(pair, "success_rate").difference.estimate == pytest.approx(1 / 3)
    assert of(pair, "success_rate_of_pairs").counts == {"both": 2, "only_first": 0, "only_second": 1, "neither": 0}
    assert (of(pair, "restricted_mean").first.estimate, of(pair, "restricted_mean").second.estimate) == (9000, 5000)
    assert (of(pair, "par2").first.estimate, of(pair, "par2").second.estimate) == (14000, 5000)
    assert of(pair, "par2").difference.estimate == -9000
    assert of(pair, "error").difference.estimate == pytest.approx(0.5)
    assert pair.decisive == "success_rate_of_pairs"


def test_settings_that_differ_are_listed_and_those_that_do_not_are_not(store: Store) -> None:
    pair = found(*select("small:nau#0", store), *select("small:nau#1", store))
    assert {path: second for path, _, second in pair.settings} == {
        "train.gradient_noise": TUNED["train.gradient_noise"],
        "train.lr": TUNED["train.lr"],
    }


def test_a_clear_difference_is_one_and_a_small_one_is_not_called_equality() -> None:
    clear = compare(side("a", half(20)), side("b", half(5)))
    assert clear.verdict(clear.pairs[0]).startswith("a solves more seeds than b: a and b solve 20 of 20 seeds and 5 of 20")
    small = compare(side("a", half(20)), side("b", half(18)))
    verdict = small.verdict(small.pairs[0])
    assert verdict.startswith("No difference of the success rates was found")
    assert "does not show that they are equal. With 20 seeds each a difference of less than about 31 points" in verdict
    assert "(power about 80%, for independent seeds)" in verdict  # McNemar's test decides
    apart = compare(side("a", half(20)), side("b", half(18), first=100))
    assert "(power 80%)" in apart.verdict(apart.pairs[0])


def test_equal_rates_may_still_be_reached_sooner() -> None:
    compared = compare(side("a", [3000 + 100 * i for i in range(20)]), side("b", [9000 + 100 * i for i in range(20)]))
    assert "a converges 6k" in compared.verdict(compared.pairs[0])
    assert "log-rank p < 0.0001" in compared.verdict(compared.pairs[0])
    assert "counting the budget" not in compared.verdict(compared.pairs[0])
    equal = compare(side("a", [5000] * 20), side("b", [5000] * 20, first=100))
    assert equal.verdict(equal.pairs[0]).endswith(
        "No difference in when seeds converge was found (5k and 5k steps on average; log-rank p = 1)."
    )


def test_a_mean_that_differs_by_the_rates_says_what_an_unsolved_seed_counts() -> None:
    """10 and 3 of 20 seeds converge, all at the same step."""
    compared = compare(side("a", half(10)), side("b", half(3)))
    assert "steps earlier on average, a seed that does not converge counting the budget of 15k (10k and 13.5k" in (
        compared.verdict(compared.pairs[0])
    )


def test_a_side_that_converges_at_the_last_step_is_slow_and_one_that_never_does_is_not() -> None:
    last, never = (compare(side("a", [5000] * 20), side("b", [at] * 20)) for at in (15_000, None))
    assert "a converges 10k steps earlier on average (5k and 15k steps" in last.verdict(last.pairs[0])
    assert "converge" not in never.verdict(never.pairs[0])


def test_other_seeds_are_compared_as_independent_and_common_ones_as_pairs() -> None:
    apart = found(side("a", half(20)), side("b", half(20), first=100))
    assert (apart.decisive, apart.difference("success_rate_of_pairs")) == ("success_rate", None)
    partly = found(side("a", half(20)), side("b", half(40, of=60)))
    assert partly.decisive == "success_rate"
    assert sum(of(partly, "success_rate_of_pairs").counts.values()) == 20
    assert any("20 seeds are common" in remark for remark in partly.remarks)


def test_another_batch_is_other_data_and_another_task_another_problem() -> None:
    batch = found(side("a", half(20)), side("b", half(10), settings={"train": {**SETTINGS["train"], "batch": 64}}))
    assert batch.decisive == "success_rate"
    assert "do not have equal data" in " ".join(batch.remarks)
    task = found(side("a", half(20)), side("b", half(10), settings={"task": {"name": "static", "operation": "mul"}}))
    assert "The tasks differ (task.operation)" in " ".join(task.remarks)


def test_different_budgets_are_compared_up_to_the_shorter_one(store: Store) -> None:
    """Of a curve that meets the threshold at step 10,000 nothing is known at 5,000."""
    curve = {
        "step": [0, 5000, 10000, 15000], "error.interpolation": [4.0, 3.0, 2.0, 1.0],
        "error.extrapolation": [1.0, 1.0, 1e-9, 1e-9],
        "sparsity_error": [0.5, 0.5, 0.1, 0.1],
    }  # fmt: skip
    entry = configuration("nau", 0)
    longer = tuple(Seed.of(lane(entry, seed, 10000, 1e-9, curve=curve)) for seed in range(3))
    one = Side(name="long", labels={}, settings=entry.settings, seeds=longer)
    shorter = {**entry.settings, "train": {**entry.settings["train"], "steps": 5000}}
    other = Side(name="short", labels={}, settings=shorter, seeds=tuple(seed_of(n, 4000) for n in range(3)))
    pair = found(one, other)
    assert (pair.budget, of(pair, "success_rate").counts["first"], of(pair, "restricted_mean").first.estimate) == (
        5000,
        0,
        5000,
    )
    assert "The budgets differ (15,000 and 5,000 steps)" in pair.remarks[0]
    without = dataclasses.replace(one, seeds=tuple(dataclasses.replace(seed, result=None) for seed in longer))
    assert of(found(without, other), "success_rate").counts["first"] == 0
    assert "a file has no curves" in found(without, other).remarks[0]


def test_errors_of_a_file_with_a_longer_budget_are_not_known(store: Store) -> None:
    longer = {**SETTINGS, "train": {**SETTINGS["train"], "steps": 30_000}}
    compared = compare(side("a", half(0)), side("b", half(0), first=100, settings=longer))
    assert compared.verdict(compared.pairs[0]) == (
        "There is nothing to compare: no seed is solved within the shorter budget, and errors at step 15,000 are not known, "
        "since a file has no curves."
    )
    assert "No seed is solved on either side." in compared.pairs[0].remarks


def test_a_seed_that_diverged_never_converges(store: Store) -> None:
    pair = found(*select("small:linear#0", store), *select("small:nau#1", store))
    assert of(pair, "restricted_mean").first.estimate == BUDGET
    assert "Seeds that ended in an exception count as unsolved: 1 and 0." in pair.remarks


def test_where_nothing_is_solved_errors_decide(store: Store) -> None:
    compared = compare(select("small:linear#0", store), select("small:linear#1", store))
    assert compared.pairs[0].decisive == "error"
    assert "No seed is solved on either side" in " ".join(compared.pairs[0].remarks)
    assert "does not show that they are equal" in compared.verdict(compared.pairs[0])


def test_a_task_without_a_threshold_has_no_rates() -> None:
    def without(name: str, errors: Sequence[float]) -> Side:
        seeds = (Seed(i, "unsolved", False, None, None, error, None, False) for i, error in enumerate(errors))
        return Side(name=name, labels={}, settings=SETTINGS, seeds=tuple(seeds))

    compared = compare(without("a", [1.0, 2, 3, 4, 5, 6]), without("b", [11.0, 12, 13, 14, 15, 16]))
    assert [one.name for one in compared.pairs[0].differences] == ["error"]
    assert compared.verdict(compared.pairs[0]).startswith("a has lower errors than b: median extrapolation error 3.5 and 13.5")
    assert "no threshold" in compared.as_markdown()


def test_one_seed_each_is_compared_and_shows_nothing() -> None:
    compared = compare(side("a", [5000]), side("b", [None]))
    assert "With 1 seed each no difference could be shown" in compared.verdict(compared.pairs[0])
    assert "a statement about rates needs more" in " ".join(compared.pairs[0].remarks)
    assert "of the seed that both have" in compared.as_markdown()
    json.loads(compared.as_json())


def test_the_choice_of_the_best_is_pointed_out_unless_its_seeds_are_fresh(store: Store) -> None:
    text = compare(select("small", store)).as_markdown()
    assert "Chosen by these same results: small:nau#1 (best of 2), small:linear#1 (best of 2)." in " ".join(text.split())
    named = compare(select("small:nau#0", store), select("small:nau#1", store)).as_markdown()
    assert "Chosen by" not in named


def test_of_a_confirmed_configuration_the_fresh_seeds_count(tmp_path: Path) -> None:
    store = Store(tmp_path / "confirmed")
    document = DOCUMENT | {"confirm": {"top": 1, "seeds": {"first": 100, "count": 3}}}
    made_sweep(store, document=document)
    tuned = configuration("nau", 1, TUNED)
    fresh = {seed: f"fresh {seed}" for seed in range(100, 103)}
    store.add_seeds("small", tuned.cell, 1, fresh, reopen=False)
    entry = dataclasses.replace(tuned, keys=fresh)
    store.add_records([lane(entry, seed, None, 0.2) for seed in fresh])
    chosen = select("small:nau", store)[0]
    assert (chosen.fresh, chosen.chosen_by_these, [seed.seed for seed in chosen.seeds]) == (True, False, [100, 101, 102])


def test_several_pairs_are_adjusted_for_their_number() -> None:
    compared = compare([side("a", half(20)), side("b", half(12)), side("c", half(11))])
    deciding = [of(pair, pair.decisive) for pair in compared.pairs]
    assert all(one.adjusted is not None and one.p_value is not None and one.adjusted >= one.p_value for one in deciding)
    smallest = min(deciding, key=lambda one: one.p_value or 0)
    assert smallest.p_value is not None and smallest.adjusted == pytest.approx(min(1, 3 * smallest.p_value))
    assert "| a against b | 20/20" in " ".join(compared.as_markdown().split())
    adjusted = sorted(one.adjusted for one in deciding if one.adjusted is not None)
    p_values = sorted(one.p_value for one in deciding if one.p_value is not None)
    assert adjusted == pytest.approx([3 * p_values[0], 2 * p_values[1], p_values[2]])


def test_what_decides_is_adjusted_as_one_column_also_where_the_tests_are_different_ones() -> None:
    """McNemar's of a and b, Boschloo's of either with c, which has other seeds."""
    compared = compare([side("a", half(20)), side("b", half(12)), side("c", half(6), first=100)])
    deciding = [of(pair, pair.decisive) for pair in compared.pairs]
    assert {one.name for one in deciding} == {"success_rate_of_pairs", "success_rate"}
    p_values = [one.p_value for one in deciding]
    assert [one.adjusted for one in deciding] == pytest.approx(comparison.holm(p_values))


def test_the_best_of_several_cells_has_the_largest_share_solved_then_the_lowest_par2_and_error() -> None:
    """20 of 40 are fewer than 15 of 20, in spite of their number."""

    def best_of(*sides: Side) -> str:
        return comparison._best(sides).name

    assert best_of(side("many", half(20, of=40)), side("few", half(15))) == "few"
    assert best_of(side("late", half(15, at=9000)), side("soon", half(15, at=8000))) == "soon"
    exact = side("exact", half(15))
    exact = dataclasses.replace(exact, seeds=tuple(dataclasses.replace(seed, error=0.0) for seed in exact.seeds))
    assert best_of(side("rough", half(15)), exact) == "exact"
    assert best_of(side("fewer", half(14, at=100)), side("more", half(15, at=14_000))) == "more"


def test_other_versions_and_numerics_are_named() -> None:
    one = side("a", half(20), provenance={"torch": "2.13.0", "numerics": "4 cpu compiled", "source_hash": "1"})
    other = side("b", half(19), provenance={"torch": "2.14.0", "numerics": "4 cuda compiled", "source_hash": "1"})
    pair = found(one, other)
    assert pair.provenance == (("numerics", "4 cpu compiled", "4 cuda compiled"), ("torch", "2.13.0", "2.14.0"))
    assert "The numerics differ" in " ".join(pair.remarks)


def test_a_side_names_no_machine(store: Store) -> None:
    """As `sweeps.results.provenance.of_lanes` does: neither a host nor what identifies a checkout."""
    result = lane(configuration("nau", 0), 0, 5000, 1e-9)
    result = dataclasses.replace(result, provenance={"torch": "2.13.0", "host": "secret", "git_commit": "ab12"})
    assert comparison.side_of_results("own", SETTINGS, [result]).provenance == {"torch": "2.13.0"}


# ------------------------------------------------------------------------------------------- files


def exported(store: Store, folder: Path, cell: str = "nau") -> Path:
    file = folder / f"{cell}.yaml"
    file.write_text(best(store, "small", cell))
    return file


def test_an_exported_file_gives_the_figures_of_its_sweep(store: Store, tmp_path: Path) -> None:
    file = side_of_file(exported(store, tmp_path))
    stored = select("small:nau", store)[0]
    assert [dataclasses.replace(seed, result=None) for seed in file.seeds] == [
        dataclasses.replace(seed, result=None, solved_at_end=one.solved_at_end)
        for seed, one in zip(stored.seeds, file.seeds, strict=True)
    ]
    with pytest.raises(UserError, match="are the same lanes"):
        compare(file, side_of_file(exported(store, tmp_path)))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"converged_at": "soon"}, r"seed 0 has converged_at 'soon', which must be a whole number of steps"),
        ({"converged_at": -1}, "seed 0 has converged_at -1"),
        ({"outcome": "fine"}, "outcome 'fine', which must be one of solved, unsolved"),
        ({"solved": False}, "exactly where `solved` is true"),
        ({"sparsity_error": "low"}, "sparsity_error 'low', which must be a number"),
        ({"error": {"extrapolation": "tiny"}}, "error.extrapolation 'tiny'"),
        ({"seed": 1}, "seed 1 more than once"),
        ({"solved": "yes"}, "must be a list of results, each with `seed` and `solved`"),
        ({"converged_at": 2999}, "edited after the export: the results in `exported` are not those"),
        ({"convergd_at": 3000}, "edited after the export: the results in `exported` are not those"),
    ],
)
def test_a_file_that_was_edited_by_hand_is_refused(store: Store, tmp_path: Path, edit: dict[str, Any], message: str) -> None:
    file = exported(store, tmp_path)
    document: Any = read(file.read_text()).values
    document["exported"]["lanes"][0] |= edit
    file.write_text(dump(document))
    with pytest.raises(UserError, match=message):
        side_of_file(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: [", "expected"),
        ("just text", "has no `exported` section"),
        ("exported: {lanes: [{seed: 0, solved: true}]}\nmodel: nau\ntask: static\ntrain: {steps: 5}\n", "all their settings"),
    ],
)
def test_a_file_that_is_no_export_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=message):
        side_of_file(file)


def test_a_file_of_a_unit_that_is_not_here_is_compared(store: Store, tmp_path: Path) -> None:
    file = exported(store, tmp_path)
    document: Any = read(file.read_text()).values
    document["model"]["name"] = "./missing.py"
    document["exported"].pop("digest", None)
    file.write_text(dump(document))
    assert side_of_file(file).settings["model"]["name"] == "./missing.py"


def test_a_sweep_file_without_results_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "plain.yaml"
    file.write_text("name: plain\ntask: {name: static, operation: sub}\nmodel: nau\ntrain: {steps: 100}\nseeds: 2\n")
    with pytest.raises(UserError, match="has no `exported` section"):
        side_of_file(file)


# ------------------------------------------------------------------------------------------- reproduce


def lanes_of(outcomes: Sequence[bool]) -> list[LaneResult]:
    return [
        LaneResult(
            key=f"k{seed}", seed=100 + seed, budget=15_000, steps=1, outcome="solved" if good else "unsolved", solved=good,
            threshold=1e-8,
        )
        for seed, good in enumerate(outcomes)
    ]  # fmt: skip


def test_fresh_seeds_pass_where_rates_agree_and_fail_where_they_do_not() -> None:
    before = side("exported", half(20), chosen_by_these=True)

    def against(outcomes: Sequence[bool]) -> tuple[bool, str]:
        return agreement(compare(before, comparison.side_of_results("fresh", SETTINGS, lanes_of(outcomes))))

    passed, text = against([True] * 19 + [False])
    assert passed
    assert text.startswith("PASS: the rates agree: exported 20/20 = 100 % [84, 100], fresh seeds 19/20 = 95 % [76, 99]")
    passed, text = against([True] * 10 + [False] * 10)
    assert not passed
    assert text.startswith("FAIL: the rates differ")
    assert "fresh seeds 10/20 = 50 % [30, 70]; difference -50.0 [" in text
    assert "so it is too good on average" in text


@pytest.mark.parametrize(
    ("exported", "fresh", "enough"), [([False], [False], False), ([True] * 2, [True], False), ([True] * 4, [True] * 4, True)]
)
def test_so_few_fresh_seeds_that_they_could_not_differ_are_no_agreement(
    exported: list[bool], fresh: list[bool], enough: bool
) -> None:
    lanes = lanes_of([*exported, *fresh])
    before = comparison.side_of_results("exported", SETTINGS, lanes[: len(exported)])
    after = comparison.side_of_results("fresh", SETTINGS, lanes[len(exported) :])
    passed, text = agreement(compare(before, after))
    assert passed and ("the rates agree" in text) is enough and ("too few seeds" in text) is not enough


# ------------------------------------------------------------------------------------------- the command


def test_the_command_prints_markdown_json_and_csv(store: Store, tmp_path: Path) -> None:
    given = ("compare", "small:nau#0", "small:linear", "--store", store.location)
    markdown, as_json, as_csv = (call(*given, "--format", form) for form in ("md", "json", "csv"))
    assert (markdown.status, as_json.status, as_csv.status) == (0, 0, 0)
    assert markdown.out.startswith("# small:nau#0 against small:linear#1\n\n")
    assert json.loads(as_json.out)["pairs"][0]["second"]["best_of"] == 2
    rows = {row["figure"]: row for row in csv.DictReader(io.StringIO(as_csv.out))}
    assert set(rows) >= {"success_rate", "par2", "error"}
    for one in json.loads(as_json.out)["pairs"][0]["differences"]:
        row, of_json = rows[one["name"]], [*one["difference"].values(), one["test"], one["p_value"]]
        read = [row[column] for column in ("difference", "low", "high", "test", "p_value")]
        assert read == ["" if value is None else str(value) for value in of_json] and None not in row
    assert call("compare", "small", "--store", store.location).out.startswith("# small:nau#1 against small:linear#1")


def test_many_pairs_are_pointed_out_with_how_to_name_two(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ("compare", "small", "--store", store.location)
    assert call(*given).err == ""
    monkeypatch.setattr("sweeps.cli.compare.MANY_PAIRS", 0)
    assert "2 cells make 1 pairs" in call(*given).err
    assert "sweeps compare small:nau#1 small:linear#1" in " ".join(call(*given).err.replace("'", "").split())


def test_of_many_seeds_the_test_is_named_that_is_computed() -> None:
    few, many = (found(side("a", half(3, of=n)), side("b", half(4, of=n), first=1000)) for n in (199, 200))
    assert (of(few, "success_rate").test, of(many, "success_rate").test) == ("Boschloo", "Fisher")


def test_the_command_takes_files_and_another_store(store: Store, tmp_path: Path) -> None:
    file = exported(store, tmp_path, "linear")
    assert call("compare", str(file), "small:nau", "--store", store.location).status == 0
    two_axes(tmp_path)
    other = call("compare", "small:nau", "axes:nau U[1,2]", "--store", store.location, "--other-store", str(tmp_path / "axes"))
    assert other.status == 0, other.err


def test_the_figure_has_both_curves_and_their_difference_at_every_step(store: Store, tmp_path: Path) -> None:
    """nau #0 converges at 5,000 and 7,000, one seed never; #1 at 3,000, 4,000 and 8,000."""
    from sweeps.results.comparison_figure import draw

    curves, gap = draw(compare(select("small:nau#0", store), select("small:nau#1", store))).axes
    at = [0, 3000, 4000, 5000, 7000, 8000, BUDGET]
    assert all(list(line.get_xdata()) == at for line in (*curves.lines, gap.lines[1]))
    assert list(gap.lines[1].get_ydata()) == pytest.approx([0, 1 / 3, 2 / 3, 1 / 3, 0, 1 / 3, 1 / 3])
    file = tmp_path / "pair.svg"
    answer = call("compare", "small:nau#0", "small:nau#1", "--store", store.location, "-o", str(file))
    assert answer.status == 0 and "small:nau#1 (3 seeds)" in file.read_text()
    assert call("compare", "small", "--store", store.location, "-o", str(tmp_path / "pair.txt")).status == 2


def test_the_figure_of_several_pairs_has_a_bar_for_each() -> None:
    from sweeps.results.comparison_figure import draw

    rates, means = draw(compare([side("a", half(20)), side("b", half(12)), side("c", half(11))])).axes
    assert [label.get_text() for label in rates.get_yticklabels()] == ["a against b", "a against c", "b against c"]
    assert len(rates.containers) == len(means.containers) == 3
    long = "a sweep with a long name: NMU without clamp"
    figure = draw(compare([side(f"{long} {n}", half(n)) for n in (20, 12, 11)]))
    figure.draw_without_rendering()
    rates, means = figure.axes
    assert rates.get_position().width > 0.25 and means.get_position().width > 0.25
    assert not rates.xaxis.label.get_window_extent().overlaps(means.xaxis.label.get_window_extent())


def test_wrong_requests_are_refused_before_anything_is_computed(store: Store, tmp_path: Path) -> None:
    refused = [
        call("compare", "small", "smal", "--store", store.location),
        call("compare", "small:nau", "small:nau", "--store", store.location),
        call("compare", "small", "missing.yaml", "--store", store.location),
        call("compare", "small", "--format", "xml", "--store", store.location),
        call("compare", "small", "--confidence", "95", "--store", store.location),
    ]
    assert [answer.status for answer in refused] == [2] * 5
    assert [
        word in answer.err for word, answer in zip(("small", "same lanes", "no such file", "xml", "0.95"), refused, strict=True)
    ]


# ------------------------------------------------------------------------------------------- the best of all cells


def test_the_report_says_which_cell_is_best_and_what_chance_may_explain(store: Store) -> None:
    """nau #1 solves 3 of 3 seeds, linear none of the same 3: by chance once in 8, and as often the other way round."""
    found = report(store, "small")
    said = best_of_cells(found)
    assert said == (
        "Lowest par2 of all cells: model=nau #1 with 5k, then model=linear #1 with 30k. Seeds solved, 3/3 and 0/3: chance may "
        "explain the difference (McNemar's exact test, p = 0.25). Steps until seeds converge, 5k and 15k on average: chance "
        "may explain the difference (log-rank test, p = 0.1). So it is not shown which of the two is better, nor that they "
        "are equal. The p-values do not count that each was chosen by these results."
    )
    assert said in " ".join(as_markdown(found).split()) and said in " ".join(html.unescape(as_html([found])).split())


def test_no_cell_is_the_best_where_tasks_or_budgets_differ_or_nothing_is_solved(store: Store) -> None:
    found = report(store, "small")

    def changed(**sections: dict[str, Any]) -> Report:
        settings = {name: found.configurations[2].configuration.settings[name] | of for name, of in sections.items()}
        linear = [
            dataclasses.replace(one, configuration=dataclasses.replace(
                one.configuration, settings={**one.configuration.settings, **settings}
            ))
            for one in found.configurations[2:]
        ]  # fmt: skip
        return dataclasses.replace(found, configurations=(*found.configurations[:2], *linear))

    assert best_of_cells(changed(task={"operation": "mul"})) == "No cell is named the best of all: they have different tasks."
    assert "different budgets" in str(best_of_cells(changed(train={"steps": 20_000})))
    only_linear = dataclasses.replace(found, configurations=found.configurations[2:])
    assert best_of_cells(only_linear) is None
    limited = dataclasses.replace(found.search, constraints=(Constraint("success_rate", "at_least", 0.9),))
    assert best_of_cells(dataclasses.replace(found, search=limited)) == "Only model=nau meets all constraints."


def test_steps_are_tested_where_one_cell_never_converges_and_a_lead_of_the_second_cell_is_named() -> None:
    never = _by_chance(side("model=nau", [1000, 1100, 1200, 1300, 1400]), side("model=linear", [None] * 5), 0.05)
    assert "5/5 and 0/5: chance may explain the difference (McNemar's exact test, p = 0.062)" in never
    assert "more than chance explains (log-rank test, p = 0.0079)" in never and "not shown" not in never
    slow = _by_chance(side("model=nau", [10_000] * 10), side("model=linear", [500] * 9 + [None]), 0.05)
    assert "more than chance explains, in favour of model=linear (log-rank test" in slow
    assert slow.endswith("So it is not shown that model=nau is the better.")


def test_a_cell_judged_by_fresh_seeds_and_one_judged_by_its_search_are_not_ranked(store: Store) -> None:
    found = report(store, "small")
    first, *others = found.configurations
    confirmed = dataclasses.replace(first, confirmation=first.results, seeds_to_confirm=len(first.results))
    said = best_of_cells(dataclasses.replace(found, configurations=(confirmed, *others)))
    assert said is not None and said.startswith(
        "No cell is named the best of all: of the first two only one is judged by fresh"
    )


def test_equal_cells_are_both_named_and_none_is_shown_to_be_better(store: Store) -> None:
    found = report(store, "small")
    twin = dataclasses.replace(
        found.configurations[0],
        configuration=dataclasses.replace(found.configurations[0].configuration, cell="model=twin", labels={"model": "twin"}),
    )
    said = best_of_cells(dataclasses.replace(found, configurations=(found.configurations[0], twin)))
    assert said == (
        "Lowest par2 of all cells: model=nau #1 and model=twin #1, both 5k. Seeds solved, 3/3 and 3/3: no difference. Steps "
        "until seeds converge, 5k and 5k on average: chance may explain the difference (log-rank test, p = 1). So it is not "
        "shown which of the two is better, nor that they are equal."
    )
