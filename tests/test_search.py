"""The search of a cell: what a suggestion may depend on, and that the samplers do their work."""

from __future__ import annotations

import inspect
import itertools
import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.config.space import Constraint, Dimension, Kind, Objective, Search, active, identity, points, same
from sweeps.search import SAMPLERS, CellSearch, Finished, Suggestion, check_sampler, count_different, file_values

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
INSTALLED = [name for name, sampler in SAMPLERS.items() if not sampler.is_grid and not sampler.fixes]


def a_search(sampler: str = "tpe", /, parallel: int = 1, seed: int = 0, **options: Any) -> Search:
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


def fault_of(name: str, options: dict[str, Any], *more: Any) -> str:
    [fault] = check_sampler(name, options, *more)
    return str(fault)


def test_check_sampler_names_what_is_known() -> None:
    assert check_sampler("tpe", {"n_startup_trials": 4, "multivariate": False}) == []
    assert "Did you mean 'tpe'?" in fault_of("tpee", {}) and "random" in fault_of("tpee", {})
    fault = fault_of("tpe", {"n_startup_trial": 4})
    assert "Did you mean 'n_startup_trials'?" in fault and "n_ei_candidates" in fault
    assert "must be of type int, not '4'" in fault_of("tpe", {"n_startup_trials": "4"})
    assert len(check_sampler("random", {"a": 1, "b": 2})) == 2
    assert "greater than or equal to 2" in fault_of("nsgaii", {"population_size": 1})
    assert "points: 5" in fault_of("grid", {}, {"train.lr": LR})
    assert "must be 2 or more, not 1" in fault_of("grid", {"points": 1})
    assert "must be 0 or more, not -1" in fault_of("tpe", {"n_startup_trials": -1})
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


# ------------------------------------------------------------------------------------------- the catalog

LEFT_OUT = {
    "seed", "search_space", "constraints_func",  # given elsewhere in the file
    "warn_independent_sampling", "warn_asynchronous_seeding",  # off
    "x0", "source_trials", "restart_strategy", "inc_popsize",  # deprecated, or trials
    "consider_prior", "prior_weight", "consider_magic_clip", "consider_endpoints", "gamma", "weights",  # deprecated
    "elite_population_selection_strategy", "child_generation_strategy", "after_trial_strategy",  # functions
}  # fmt: skip
"""Arguments of Optuna's constructors that a sweep file does not have: see the docstring of `sweeps.search.samplers`."""
OURS = {"points"}
"""Options that Optuna's constructors do not have."""


def test_every_sampler_that_optuna_ships_has_a_name() -> None:
    shipped = {getattr(optuna.samplers, name) for name in optuna.samplers.__all__}
    concrete = {one for one in shipped if inspect.isclass(one) and not inspect.isabstract(one)}
    assert {sampler.make for sampler in SAMPLERS.values()} == concrete


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_option_of_optunas_constructors_is_an_option_or_left_out_on_purpose(name: str) -> None:
    renamed = {"fixed_params": "fixed", "base_sampler": "sampler"}
    arguments = {renamed.get(one, one) for one in inspect.signature(SAMPLERS[name].make).parameters}
    assert arguments - LEFT_OUT == set(SAMPLERS[name].options) - OURS


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("nsgaii", {"crossover": "blxalpha", "mutation": {"name": "polynomial", "eta": 10.0}}),
        ("nsgaiii", {"crossover": {"name": "undx", "sigma_xi": 0.4}, "reference_points": [[1.0]]}),
        ("qmc", {"independent_sampler": "random", "qmc_type": "halton"}),
        (
            "cmaes",
            {"independent_sampler": {"name": "tpe", "n_startup_trials": 2}, "consider_pruned_trials": True, "sigma0": 0.1},
        ),
        ("gp", {"independent_sampler": "tpe"}),
        ("partial_fixed", {"fixed": {"train.lr": 1e-2}, "sampler": {"name": "nsgaii", "crossover": "sbx"}}),
    ],
)
def test_parts_of_a_sampler_are_given_by_name(name: str, options: dict[str, Any]) -> None:
    assert check_sampler(name, options, {"train.lr": LR, "train.momentum": LR}) == []
    search = CellSearch({"train.lr": LR, "train.momentum": LR}, a_search(name, **options), "all")
    assert search.suggest(1, {0: Finished({}, 1.0)}) is not None


@pytest.mark.parametrize(
    ("name", "options", "path", "part"),
    [
        ("nsgaii", {"crossover": "sbxx"}, "crossover", "Did you mean 'sbx'? Known: blxalpha, sbx"),
        ("nsgaii", {"crossover": {"name": "sbx", "etta": 1}}, "crossover.etta", "Did you mean 'eta'?"),
        ("nsgaii", {"crossover": 3}, "crossover", "must be a name, or {name: ..., and its options}, not 3"),
        ("nsgaii", {"crossover": {"name": "sbx", "use_child_gene_prob": 0.0}}, "", "must be in the range (0.0, 1.0]"),
        ("nsgaii", {"crossover": "undx", "population_size": 2}, "", "the population size should be greater than or equal to 3"),
        ("nsgaiii", {"reference_points": [[1, 2]]}, "reference_points", "each a list of 1 numbers"),
        ("gp", {"independent_sampler": "qmc"}, "independent_sampler", "Known: random, tpe"),
        ("partial_fixed", {"sampler": "tpe"}, "", "needs `fixed`"),
        ("partial_fixed", {"fixed": 3}, "fixed", "must be a mapping"),
        ("partial_fixed", {"fixed": {"train.lr": 5.0}}, "fixed.train.lr", "cannot be 5.0: the space has 0.0001, 0.1"),
        ("partial_fixed", {"fixed": {"train.lr": 1e-2}, "sampler": "tpee"}, "sampler", "Did you mean 'tpe'?"),
        ("partial_fixed", {"fixed": {"train.lr": 1e-2}, "sampler": {"name": "tpe", "seed": 1}}, "sampler.seed",
         "given next to the name of the whole sampler"),
        ("partial_fixed", {"fixed": {"train.lr": 1e-2, "train.momentum": 0.0}}, "fixed", "leaves nothing to search"),
        ("partial_fixed", {"fixed": {"train.lr": 1e-2}, "sampler": "grid"}, "sampler",
         "cannot enumerate the range of train.momentum"),
        ("brute_force", {}, "", "give choices, or a range of whole numbers"),
    ],
)  # fmt: skip
def test_a_fault_of_a_nested_option_has_its_path(name: str, options: dict[str, Any], path: str, part: str) -> None:
    space = {"train.lr": LR, "train.momentum": SPACE["train.momentum"]}
    [fault] = check_sampler(name, options, space)
    assert fault.path == path and part in fault.message


def test_a_sampler_for_one_objective_names_those_that_take_several() -> None:
    fault = fault_of("cmaes", {}, SPACE, 2)
    assert "takes one objective, not 2. Several are taken by brute_force, gp, grid, nsgaii, nsgaiii, partial_fixed," in fault
    assert "takes one objective" in fault_of("partial_fixed", {"fixed": {"train.lr": 1e-2}, "sampler": "cmaes"}, SPACE, 2)


# ------------------------------------------------------------------------------------------- conditions

NESTED = {
    "a": Dimension("choice", choices=("x", "y")),
    "b": Dimension("integer", 1, 3, off=0, has_off=True, when={"a": ("y",)}),
    "c": Dimension("choice", choices=({"kind": 1}, {"kind": 2}), when={"b": (0, 2)}),
    "d": Dimension("integer", 5, 6, when={"c": ({"kind": 2},), "a": ("y", "z")}),
}
"""Each depends on the one before. Points: x; y with b 1, 3; y with b 0, 2 and c 1; and with c 2 and d 5, 6: 1 + 2 + 2 + 4."""
ALL = [
    ("partial_fixed", {"fixed": {"a": "y"}, "sampler": {"name": "tpe", "n_startup_trials": 3}}),
    ("tpe", {"n_startup_trials": 3}),
    ("gp", {"n_startup_trials": 4}),
    ("cmaes", {"popsize": 4}),
    *((name, {"population_size": 3}) for name in ("nsgaii", "nsgaiii")),
    *((name, {}) for name in ("brute_force", "random", "qmc")),
    ("grid", {"points": 3}),
]
"""Every sampler, with options that let its model begin early."""


def holds(space: Mapping[str, Dimension], values: Mapping[str, Any]) -> bool:
    """Whether the dimensions that are there are those whose conditions hold, and their values are allowed."""
    return all(space[path].may_be(value) for path, value in values.items()) and all(
        (path in values) == all(any(same(values.get(on), one) for one in wanted) for on, wanted in dimension.when.items())
        for path, dimension in space.items()
    )


def test_the_catalog_of_these_tests_has_every_sampler() -> None:
    assert {name for name, _ in ALL} == set(SAMPLERS)


@pytest.mark.parametrize(("name", "options"), ALL)
def test_every_suggestion_of_every_sampler_meets_conditions_on_conditional_dimensions(
    name: str, options: dict[str, Any]
) -> None:
    suggestions = walk(CellSearch(NESTED, a_search(name, parallel=2, **options), "all"), 13, lambda p: float(len(str(p))))
    assert len(suggestions) == (10 if SAMPLERS[name].is_grid else 13)
    for suggestion in suggestions[1:]:
        assert holds(NESTED, suggestion.parameters), suggestion


@st.composite
def nested_spaces(draw: st.DrawFn) -> dict[str, Dimension]:
    """Spaces of discrete dimensions, some of which depend on others, in any order of names."""
    names = draw(st.permutations("abcde"))[: draw(st.integers(1, 5))]
    made: dict[str, Dimension] = {}
    for name in names:
        when = {
            on: tuple(draw(st.lists(st.sampled_from(list(made[on].grid(None))), min_size=1, max_size=2)))
            for on in draw(st.lists(st.sampled_from(list(made)), max_size=2, unique=True) if made else st.just([]))
        }
        if draw(st.booleans()):
            made[name] = Dimension(
                "choice", choices=tuple(draw(st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True))), when=when
            )
        else:
            low = draw(st.integers(-2, 2))
            off = draw(st.sampled_from([None, 0, "off"]))
            made[name] = Dimension("integer", low, low + draw(st.integers(0, 2)), off=off, has_off=off is not None, when=when)
    return {name: made[name] for name in sorted(made)}


def by_hand(space: Mapping[str, Dimension]) -> list[dict[str, Any]]:
    """The different points of a space: of the product of all values those parts that are active, without repetition."""
    found: dict[Any, dict[str, Any]] = {}
    for row in itertools.product(*(dimension.grid(None) for dimension in space.values())):
        point = active(space, dict(zip(space, row, strict=True)))
        found.setdefault(identity(point), point)
    return list(found.values())


@settings(max_examples=60, deadline=None)
@given(space=nested_spaces(), name=st.sampled_from(["tpe", "random", "qmc", "nsgaii", "brute_force"]), seed=st.integers(0, 99))
def test_suggestions_meet_the_conditions_of_any_space(space: dict[str, Dimension], name: str, seed: int) -> None:
    options = {"n_startup_trials": 2} if name == "tpe" else {"population_size": 2} if name == "nsgaii" else {}
    for suggestion in walk(CellSearch(space, a_search(name, seed=seed, **options), "all"), 8, lambda p: float(len(p)))[1:]:
        assert holds(space, suggestion.parameters)


@settings(max_examples=100, deadline=None)
@given(space=nested_spaces(), own=st.integers(0, 10**6))
def test_a_grid_and_brute_force_have_each_different_point_once(space: dict[str, Dimension], own: int) -> None:
    expected = by_hand(space)
    file = expected[own % len(expected)]
    assert points(space, {path: dimension.grid(None) for path, dimension in space.items()}, 10**6) == expected
    search = CellSearch(space, a_search("brute_force"), "all", file)
    got = [s.parameters for s in walk(search, 10**6, lambda p: 0.0)]
    assert search.size == len(got) == len(expected) == count_different(space, file)
    assert {identity(point) for point in (*got[1:], file)} == {identity(point) for point in expected}
    for dimension in space.values():
        if dimension.kind != "choice":
            return
    assert [s.parameters for s in walk(CellSearch(space, a_search("grid"), "all", file), 10**6, lambda p: 0.0)][1:] == [
        point for point in expected if identity(point) != identity(file)
    ]


def test_the_order_of_brute_force_is_that_of_its_seed_and_not_of_the_points() -> None:
    space = {"a": Dimension("integer", 1, 50)}
    one, again, other = (
        [s.parameters["a"] for s in walk(CellSearch(space, a_search("brute_force", seed=seed), "all"), 99, lambda p: 0.0)[1:]]
        for seed in (0, 0, 1)
    )
    assert one == again != other and sorted(one) == sorted(other) == list(range(1, 51)) != one


def test_a_space_whose_product_is_too_large_is_enumerated_where_conditions_leave_few_points() -> None:
    units = tuple(f"unit{i}" for i in range(30))
    space = {"model.name": Dimension("choice", choices=units)}
    space |= {f"model.{unit}": Dimension("integer", 1, 40, when={"model.name": (unit,)}) for unit in units}
    assert check_sampler("brute_force", {}, space) == []
    assert CellSearch(space, a_search("brute_force"), "all").size == 1 + 30 * 40
    assert "points here; 100,000 is the most" in fault_of("brute_force", {}, {"a": Dimension("integer", 1, 100_001)})


# ------------------------------------------------------------------------------------------- partial_fixed


@pytest.mark.parametrize("base", ["tpe", "cmaes", "nsgaii", "nsgaiii", "qmc", "random", "gp"])
def test_what_is_fixed_has_its_value_in_every_suggestion_and_the_rest_is_searched(base: str) -> None:
    space = {"model.dropout": DROPOUT, "train.lr": LR, "train.momentum": SPACE["train.momentum"]}
    for fixed in ({"train.lr": 1e-2}, {"model.dropout": 0, "train.lr": 1e-1}, {"model.dropout": 0.1}):
        search = CellSearch(space, a_search("partial_fixed", fixed=fixed, sampler=base), "all", FILE)
        suggestions = walk(search, 13 if base != "gp" else 11)[1:]
        for path, value in fixed.items():
            assert {round(s.parameters[path], 12) for s in suggestions} == {value}
        assert len({s.parameters["train.momentum"] for s in suggestions}) == len(suggestions)
        # The genetic samplers have a first generation of 50, and the last two have no model.
        assert (suggestions[-1].origin == "model") == (base in ("tpe", "cmaes", "gp"))


def test_a_fixed_dimension_that_a_cell_lacks_is_ignored_there() -> None:
    search = CellSearch({"train.lr": LR}, a_search("partial_fixed", fixed={"model.dropout": 0.1}, sampler="random"), "all")
    assert search.suggest(1, {0: Finished({}, 1.0)}) == CellSearch({"train.lr": LR}, a_search("random"), "all").suggest(
        1, {0: Finished({}, 1.0)}
    )


def test_a_grid_of_what_is_not_fixed_ends_with_its_last_point() -> None:
    search = CellSearch(NESTED, a_search("partial_fixed", fixed={"a": "y"}, sampler="brute_force"), "all", {"a": "x"})
    assert search.size == 1 + 8  # the file's own, which is not one of those with a = y
    assert {s.parameters["a"] for s in walk(search, 99, lambda p: 0.0)[1:]} == {"y"}
    rest = {"train.lr": LR, "model.hidden": SPACE["model.hidden"]}
    options = {"fixed": {"train.lr": 1e-2}, "sampler": "brute_force"}  # a range that is fixed need not be enumerated
    assert check_sampler("partial_fixed", options, rest) == []
    assert CellSearch(rest, a_search("partial_fixed", **options), "all", FILE).size == 1 + 4


# ------------------------------------------------------------------------------------------- kept between suggestions


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize(("name", "options"), ALL)
def test_a_search_that_goes_on_suggests_what_one_that_is_made_anew_does(
    name: str, options: dict[str, Any], several: bool
) -> None:
    """With failed and pruned configurations, undefined values and constraints, all of which differ from one to the next."""
    if several and not SAMPLERS[name].several_objectives:
        return
    fixed = {"fixed": {"train.lr": 1e-2}} if name == "partial_fixed" else {}
    points = {} if name != "brute_force" else {"only": Dimension("integer", 1, 40)}
    more = (Objective("seed_steps"),) if several else ()
    constraints = (Constraint("diverged", "at_most", 0.0), Constraint("sparsity_error", "at_most", 0.1))
    search = Search(
        sampler=name, sampler_options=options | fixed, configurations=40, parallel=3, further_objectives=more,
        constraints=constraints,
    )  # fmt: skip
    kept, finished = CellSearch(points or SPACE, search, "all", FILE), dict[int, Finished]()
    for number in range(14 if name != "gp" else 6):
        suggestion = kept.suggest(number, finished)
        assert suggestion == CellSearch(points or SPACE, search, "all", FILE).suggest(number, finished)
        assert suggestion == kept.suggest(number, finished)
        assert suggestion is not None
        value = None if number % 5 == 4 else math.inf if number % 7 == 3 else float(number * 7 % 5)
        pruned = 1 if number % 6 == 5 and not several else None
        further = (math.inf if number % 4 == 3 else float(number * 3 % 4),) if several else ()
        excesses = (float(number % 3) - 1, math.inf if number % 5 == 1 else -0.1 * (number % 2))
        finished[number] = Finished(suggestion.parameters, value, float(number % 2), pruned, further, excesses)


@pytest.mark.parametrize("name", ["tpe", "nsgaii"])
def test_a_result_that_changes_afterwards_changes_what_is_suggested(name: str) -> None:
    search = CellSearch(SPACE, a_search(name, **dict(ALL)[name]), "all", FILE)
    history = history_of(walk(search, 12))
    changed = {k: Finished(one.parameters, -(one.value or 0.0)) for k, one in history.items()}
    again = CellSearch(SPACE, a_search(name, **dict(ALL)[name]), "all", FILE).suggest(12, changed)
    assert search.suggest(12, history) != search.suggest(12, changed) == again
    assert search.suggest(5, history) == CellSearch(SPACE, a_search(name, **dict(ALL)[name]), "all", FILE).suggest(5, history)


# ------------------------------------------------------------------------------------------- constraints, objectives


@pytest.mark.parametrize(
    ("name", "options"),
    [("tpe", {}), ("nsgaii", {"population_size": 8}), ("cmaes", {}), pytest.param("gp", {}, marks=pytest.mark.slow)],
)
def test_a_model_turns_to_configurations_that_meet_the_constraint_though_their_objective_is_worse(
    name: str, options: dict[str, Any]
) -> None:
    """The objective falls with x, and x above 0.5 breaks the constraint by as much."""
    space = {"x": Dimension("uniform", 0.0, 1.0), "y": Dimension("uniform", 0.0, 1.0)}
    search = Search(
        sampler=name,
        sampler_options=options,
        configurations=40,
        parallel=1,
        constraints=(Constraint("diverged", "at_most", 0.5),),
    )
    cell, finished = CellSearch(space, search, "all"), dict[int, Finished]()
    count = 60 if name != "gp" else 18
    for number in range(count):
        suggestion = cell.suggest(number, finished)
        assert suggestion is not None
        x = suggestion.parameters.get("x", 0.0)
        finished[number] = Finished(suggestion.parameters, -x, excesses=(x - 0.5,))
    last = [finished[number].parameters["x"] for number in range(count * 2 // 3, count)]
    assert sum(x <= 0.55 for x in last) > len(last) / 2
    assert max(x for x in last if x <= 0.5) > 0.35


@pytest.mark.parametrize(
    ("name", "options"), [("tpe", {}), ("nsgaii", {"population_size": 10}), ("nsgaiii", {"population_size": 10})]
)
def test_of_two_objectives_the_whole_front_is_searched(name: str, options: dict[str, Any]) -> None:
    """Of x² + z² and (x - 1)² + z² the front is z = 0, x from 0 to 1. The first is maximised as its negative."""
    space = {"x": Dimension("uniform", -2.0, 2.0), "z": Dimension("uniform", -2.0, 2.0)}
    search = Search(
        sampler=name, sampler_options=options, configurations=99, parallel=1, objective=Objective("success_rate", "maximize"),
        further_objectives=(Objective("seed_steps"),),
    )  # fmt: skip
    cell, finished = CellSearch(space, search, "all"), dict[int, Finished]()
    for number in range(100):
        suggestion = cell.suggest(number, finished)
        assert suggestion is not None
        x, z = (suggestion.parameters.get(path, 2.0) for path in "xz")
        finished[number] = Finished(suggestion.parameters, -(x**2 + z**2), further=((x - 1) ** 2 + z**2,))
    late = [finished[number].parameters for number in range(60, 100)]
    near = [p["x"] for p in late if -0.4 < p["x"] < 1.4 and abs(p["z"]) < 0.5]
    assert len(near) > len(late) / 3  # at random: 0.11
    assert max(near) - min(near) > 0.5


def test_the_order_of_objectives_in_the_file_does_not_change_what_is_suggested() -> None:
    objectives = (Objective("par2"), Objective("seed_steps"))
    got = []
    for first, second, swapped in ((*objectives, False), (*reversed(objectives), True)):
        search = Search(
            sampler_options={"n_startup_trials": 3}, configurations=9, parallel=1, objective=first, further_objectives=(second,)
        )
        history = {}
        for number in range(8):
            values = (float(number % 3), float(number * 5 % 7))
            one, other = reversed(values) if swapped else values
            history[number] = Finished({} if not number else {**FILE, "train.lr": 1e-3 * (number + 1)}, one, further=(other,))
        got.append(CellSearch(SPACE, search, "all", FILE).suggest(8, history))
    assert got[0] == got[1] and origin(got[0]) == "model"
