"""The search of a cell: what a suggestion may depend on, and that the samplers do their work."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.config.space import Dimension, Kind, Objective, Search
from sweeps.search import SAMPLERS, CellSearch, Finished, Suggestion, check_sampler, file_values

LR = Dimension(kind="log_uniform", low=1e-4, high=1e-1)
DROPOUT = Dimension(kind="log_uniform", low=1e-6, high=0.2, off=0, has_off=True)
SPACE = {
    "train.lr": LR,
    "model.dropout": DROPOUT,
    "train.momentum": Dimension(kind="uniform", low=0.0, high=0.9),
    "model.hidden": Dimension(kind="integer", low=1, high=4),
    "train.optimizer": Dimension(kind="choice", choices=("adam", "sgd")),
}
FILE = {"train.lr": 1e-3, "model.dropout": 0.0, "train.momentum": 0.5, "model.hidden": 2, "train.optimizer": "adam"}
INSTALLED = [name for name, sampler in SAMPLERS.items() if not check_sampler(name, {}) and not sampler.is_grid]


def a_search(sampler: str = "tpe", parallel: int = 1, seed: int = 0, **options: Any) -> Search:
    return Search(sampler=sampler, sampler_options=options, seed=seed, configurations=40, parallel=parallel)


def loss(parameters: dict[str, Any]) -> float:
    """Least at lr = 1e-2 with dropout off: 0."""
    return abs(math.log10(parameters["train.lr"]) + 2) + (1.0 if parameters.get("model.dropout", 0) > 0 else 0.0)


def origin(suggestion: Suggestion | None) -> str:
    assert suggestion is not None  # a search without a grid never ends
    return suggestion.origin


def walk(search: CellSearch, count: int, objective: Callable[[dict[str, Any]], float | None] = loss) -> list[Suggestion]:
    """The suggestions of a whole search in which every configuration ends before the next is requested."""
    finished: dict[int, Finished] = {}
    suggestions = []
    for number in range(count):
        suggestion = search.suggest(number, finished)
        if suggestion is None:
            break
        suggestions.append(suggestion)
        finished[number] = Finished(suggestion.parameters, objective(suggestion.parameters or FILE))
    return suggestions


def history_of(suggestions: list[Suggestion]) -> dict[int, Finished]:
    return {k: Finished(s.parameters, loss(s.parameters or FILE)) for k, s in enumerate(suggestions)}


def test_configuration_0_is_the_files_own_values() -> None:
    assert CellSearch(SPACE, a_search(), "all", FILE).suggest(0, {}) == Suggestion({}, "file")


def test_the_same_history_gives_the_same_suggestion_in_whatever_order_it_arrived() -> None:
    search = CellSearch(SPACE, a_search(parallel=4, n_startup_trials=4), "all", FILE)
    history = history_of(walk(search, 14))
    first = search.suggest(14, history)
    shuffled = list(history.items())
    for seed in range(3):
        random.Random(seed).shuffle(shuffled)
        assert CellSearch(SPACE, a_search(parallel=4, n_startup_trials=4), "all", FILE).suggest(14, dict(shuffled)) == first


def test_results_of_configurations_that_count_as_running_make_no_difference() -> None:
    search = CellSearch(SPACE, a_search(parallel=4, n_startup_trials=4), "all", FILE)
    early = history_of(walk(search, 14))
    late = {k: Finished(f.parameters, None if k > 10 else f.value) for k, f in early.items()}
    assert search.needs(14) == range(11)
    assert search.suggest(14, late) == search.suggest(14, early)
    best = min(range(11), key=lambda k: early[k].value or 0.0)
    differently = {**early, best: Finished(early[best].parameters, 99.0)}
    assert search.suggest(14, differently) != search.suggest(14, early)


def test_later_configurations_make_no_difference() -> None:
    search = CellSearch(SPACE, a_search(n_startup_trials=3), "all", FILE)
    suggestions = walk(search, 12)
    assert search.suggest(8, history_of(suggestions)) == suggestions[8]


def test_another_process_with_another_hash_seed_suggests_the_same() -> None:
    program = (
        "import json, tests.test_search as t\n"
        "s = t.CellSearch(t.SPACE, t.a_search(n_startup_trials=3), 'all', t.FILE)\n"
        "print(json.dumps([x.parameters for x in t.walk(s, 9)]))"
    )
    here = [s.parameters for s in walk(CellSearch(SPACE, a_search(n_startup_trials=3), "all", FILE), 9)]
    env = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join([".", *sys.path])}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == here


def test_cells_and_seeds_have_searches_of_their_own() -> None:
    ways = [
        CellSearch(SPACE, a_search(seed=seed), cell, FILE).suggest(1, {0: Finished({}, 1.0)})
        for seed, cell in ((0, "model=nau"), (0, "model=nac"), (1, "model=nau"))
    ]
    assert len({json.dumps(s.parameters) for s in ways if s}) == 3


def test_the_random_start_ends_when_enough_have_finished() -> None:
    origins = [s.origin for s in walk(CellSearch(SPACE, a_search(n_startup_trials=4), "all", FILE), 7)]
    assert origins == ["file", "random", "random", "random", "model", "model", "model"]


def test_the_random_start_is_longer_by_what_runs_in_parallel() -> None:
    search = CellSearch(SPACE, a_search(parallel=3, n_startup_trials=4), "all", FILE)
    assert [s.origin for s in walk(search, 8)] == ["file"] + ["random"] * 5 + ["model"] * 2


@pytest.mark.parametrize("bad", [None, float("nan")])
@pytest.mark.parametrize("sampler", ["tpe", "qmc", "nsgaii"])
def test_a_failed_configuration_does_not_stop_the_search(sampler: str, bad: float | None) -> None:
    fails = iter(range(100))
    search = CellSearch(SPACE, a_search(sampler, parallel=2), "all", FILE)
    suggestions = walk(search, 15, lambda p: bad if next(fails) % 3 else loss(p))
    assert len(suggestions) == 15


def test_a_search_where_everything_failed_goes_on_at_random() -> None:
    search = CellSearch(SPACE, a_search(n_startup_trials=2), "all", FILE)
    assert {s.origin for s in walk(search, 8, lambda p: None)[1:]} == {"random"}


def test_infinite_objectives_are_the_worst_and_no_error() -> None:
    search = CellSearch(SPACE, a_search(n_startup_trials=2), "all", FILE)
    assert walk(search, 6, lambda p: math.inf)[-1].origin == "model"


def test_equal_values_are_ordered_by_the_tie_break() -> None:
    search = CellSearch({"train.lr": LR}, a_search(n_startup_trials=3), "all", FILE)
    plain = walk(search, 12)

    def after(tie: Callable[[float], float]) -> Any:
        finished = {k: Finished(s.parameters, 7.0, tie(loss(s.parameters or FILE))) for k, s in enumerate(plain)}
        return search.suggest(12, finished)

    best_last = search.suggest(12, history_of(plain))
    assert after(lambda x: x) == best_last  # the order is the same, so the suggestion is
    assert after(lambda x: -x) != best_last


def test_maximising_is_minimising_the_negative() -> None:
    up = Search(
        sampler="tpe", sampler_options={"n_startup_trials": 3}, seed=0, configurations=40, parallel=1,
        objective=Objective("success_rate", "maximize"),
    )  # fmt: skip
    down = walk(CellSearch(SPACE, a_search(n_startup_trials=3), "all", FILE), 8)
    assert walk(CellSearch(SPACE, up, "all", FILE), 8, lambda p: -loss(p)) == down


def test_the_files_own_values_are_found_in_resolved_settings_those_of_units_too() -> None:
    resolved = {"model": {"dropout": 0.0, "units": [{"name": "nau", "clamp": True}]}, "train": {"lr": 1e-3}}
    space = dict.fromkeys(("train.lr", "model.dropout", "model.clamp", "model.nothing"), LR)
    assert file_values(space, resolved) == {"train.lr": 1e-3, "model.dropout": 0.0, "model.clamp": True}


def test_a_file_value_outside_the_bounds_is_left_out_of_the_model() -> None:
    outside = CellSearch({"train.lr": LR}, a_search(n_startup_trials=1), "all", {"train.lr": 5.0})
    inside = CellSearch({"train.lr": LR}, a_search(n_startup_trials=1), "all", {"train.lr": 1e-3})
    finished = {0: Finished({}, 0.0)}
    assert origin(outside.suggest(1, finished)) == "random"
    assert origin(inside.suggest(1, finished)) == "model"


def test_a_missing_configuration_is_named() -> None:
    search = CellSearch(SPACE, a_search(), "all", FILE)
    with pytest.raises(ValueError, match=r"configuration 3 .* \[1, 2\]"):
        search.suggest(3, {0: Finished({}, 1.0)})


@pytest.mark.parametrize("sampler", [name for name in INSTALLED if name != "gp"])
def test_off_and_on_are_both_reached(sampler: str) -> None:
    options = {"population_size": 4} if sampler.startswith("nsga") else {}
    suggestions = walk(CellSearch({"model.dropout": DROPOUT, "train.lr": LR}, a_search(sampler, **options), "all", FILE), 14)
    off = [s.parameters["model.dropout"] == 0 for s in suggestions[1:]]
    assert any(off) and not all(off)


@pytest.mark.parametrize("sampler", [name for name in INSTALLED if name != "gp"])
def test_no_continuous_value_is_suggested_twice(sampler: str) -> None:
    options: dict[str, Any] = {"population_size": 4, "crossover_prob": 0.0} if sampler.startswith("nsga") else {}
    suggestions = walk(CellSearch({"train.lr": LR}, a_search(sampler, **options), "all", FILE), 5)
    assert len({s.parameters["train.lr"] for s in suggestions[1:]}) == 4


def test_tpe_learns_that_off_is_best() -> None:
    suggestions = walk(CellSearch({"model.dropout": DROPOUT, "train.lr": LR}, a_search(), "all", FILE), 40)
    by_model = [s.parameters["model.dropout"] == 0 for s in suggestions if s.origin == "model"]
    assert sum(by_model) / len(by_model) > 0.7


def test_tpe_beats_random_search_on_average() -> None:
    def best(sampler: str, seed: int) -> float:
        space = {"train.lr": LR, "model.dropout": DROPOUT}
        return min(loss(s.parameters or FILE) for s in walk(CellSearch(space, a_search(sampler, seed=seed), "all", FILE), 30))

    assert sum(best("tpe", s) for s in range(5)) < sum(best("random", s) for s in range(5))


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_both_ends_of_a_range_of_integers_are_reached(sampler: str) -> None:
    space = {"model.hidden": Dimension(kind="integer", low=2, high=4)}
    got = {s.parameters["model.hidden"] for s in walk(CellSearch(space, a_search(sampler), "all"), 25, lambda p: 0.0)[1:]}
    assert got == {2, 3, 4}


def test_a_choice_keeps_its_type() -> None:
    choices = (True, 1, 1.0, "1", (1, 2))
    space = {"x": Dimension(kind="choice", choices=choices)}
    suggestions = walk(CellSearch(space, a_search(n_startup_trials=3), "all"), 30, lambda p: 0.0)[1:]
    assert {type(s.parameters["x"]) for s in suggestions} == {bool, int, float, str, tuple}


BOUNDS = st.tuples(st.floats(1e-9, 1e9), st.floats(1e-9, 1e9)).map(lambda pair: (min(pair), max(pair)))


@settings(max_examples=40, deadline=None)
@given(
    bounds=BOUNDS,
    kind=st.sampled_from(["uniform", "log_uniform", "integer", "log_integer"]),
    off=st.booleans(),
    sampler=st.sampled_from(["tpe", "random", "qmc", "nsgaii"]),
    seed=st.integers(0, 2**40),
)
def test_suggestions_lie_inside_the_bounds_and_are_plain(
    bounds: tuple[float, float], kind: Kind, off: bool, sampler: str, seed: int
) -> None:
    low, high = bounds
    if "integer" in kind:
        low, high = max(1, int(low)), max(1, int(high))
    dimension = Dimension(kind=kind, low=low, high=high, off=0 if off else None, has_off=off)
    options = {"n_startup_trials": 2} if sampler == "tpe" else {}
    search = CellSearch({"x": dimension}, a_search(sampler, seed=seed, **options), "all")
    for suggestion in walk(search, 6, lambda p: float(p.get("x", 0)))[1:]:
        value = suggestion.parameters["x"]
        assert (off and value == 0) or low <= value <= high
        assert type(value) is (int if "integer" in kind or value == 0 else float)


def test_a_grid_is_walked_in_order_without_the_files_own_point_and_then_ends() -> None:
    space = {
        "train.optimizer": Dimension(kind="choice", choices=("adam", "sgd")),
        "model.dropout": Dimension(kind="choice", choices=(0.0, 0.1)),
    }
    search = CellSearch(space, a_search("grid"), "all", {"train.optimizer": "adam", "model.dropout": 0.0})
    got = [
        (s.parameters.get("train.optimizer"), s.parameters.get("model.dropout"), s.origin)
        for s in walk(search, 9, lambda p: 0.0)
    ]
    assert got == [(None, None, "file"), ("adam", 0.1, "grid"), ("sgd", 0.0, "grid"), ("sgd", 0.1, "grid")]
    assert search.size == 4 and search.suggest(4, {}) is None


def test_a_grid_over_a_range_has_its_ends_and_its_off_value() -> None:
    space = {"train.lr": LR, "model.dropout": DROPOUT}
    suggestions = walk(CellSearch(space, a_search("grid", points=4), "all", FILE), 99)
    lrs = sorted({s.parameters["train.lr"] for s in suggestions[1:]})
    assert lrs == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1]) and (lrs[0], lrs[-1]) == (1e-4, 1e-1)
    assert {s.parameters["model.dropout"] for s in suggestions[1:]} >= {0, 1e-6, 0.2}
    assert len(suggestions) in (4 * 5, 4 * 5 + 1)  # 1e-3 off the log grid by rounding may or may not be the file's


def test_check_sampler_names_what_is_known() -> None:
    assert check_sampler("tpe", {"n_startup_trials": 4, "multivariate": False}) == []
    [fault] = check_sampler("tpee", {})
    assert "Did you mean 'tpe'?" in fault and "random" in fault
    [fault] = check_sampler("tpe", {"n_startup_trial": 4})
    assert "Did you mean 'n_startup_trials'?" in fault and "n_ei_candidates" in fault
    [fault] = check_sampler("tpe", {"n_startup_trials": "4"})
    assert "must be of type int, not '4'" in fault
    assert len(check_sampler("random", {"a": 1, "b": 2})) == 2
    assert "greater than or equal to 2" in check_sampler("nsgaii", {"population_size": 1})[0]
    assert "points: 5" in check_sampler("grid", {}, {"train.lr": LR})[0]
    assert "must be 2 or more, not 1" in check_sampler("grid", {"points": 1})[0]
    assert "must be 0 or more, not -1" in check_sampler("tpe", {"n_startup_trials": -1})[0]
    assert list(SAMPLERS) == sorted(SAMPLERS)


def test_a_faulty_sampler_is_refused_when_the_search_is_made() -> None:
    with pytest.raises(ValueError, match="no option 'candidates'"):
        CellSearch(SPACE, a_search(candidates=3), "all")


def test_two_hundred_configurations_are_suggested_quickly() -> None:
    """At 40 ms each a search costs a hundredth of what it searches; the limit is generous for a busy machine."""
    import time

    search = CellSearch(SPACE, a_search(), "all", FILE)
    history = {0: Finished({}, 1.0)} | {k: Finished({**FILE, "train.lr": 1e-4 * 1.03**k}, float(k)) for k in range(1, 200)}
    start = time.perf_counter()
    assert origin(search.suggest(200, history)) == "model"
    assert time.perf_counter() - start < 2.0


MOMENTUM_OF_SGD = {
    "train.momentum": Dimension(kind="uniform", low=0.1, high=0.9, when={"train.optimizer": ("sgd",)}),
    "train.optimizer": Dimension(kind="choice", choices=("adam", "sgd")),
}


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "nsgaii"])
def test_a_dimension_with_a_condition_is_there_only_where_it_holds(sampler: str) -> None:
    options = {"n_startup_trials": 3} if sampler == "tpe" else {}
    file = {"train.momentum": 0.0, "train.optimizer": "adam"}
    suggestions = walk(CellSearch(MOMENTUM_OF_SGD, a_search(sampler, **options), "all", file), 16, lambda p: len(p))
    for suggestion in suggestions[1:]:
        assert ("train.momentum" in suggestion.parameters) == (suggestion.parameters["train.optimizer"] == "sgd")
    assert len({len(s.parameters) for s in suggestions[1:]}) == 2


def test_a_grid_counts_points_that_differ_in_an_inactive_dimension_once() -> None:
    suggestions = walk(CellSearch(MOMENTUM_OF_SGD, a_search("grid", points=3), "all"), 99, lambda p: 0.0)
    assert len(suggestions) == 1 + 1 + 3
