"""The sweep file: what it means, and KEY=VALUE arguments over it."""

from __future__ import annotations

import json

import pytest

from sweeps.config.diff import difference
from sweeps.config.faults import SweepFileError
from sweeps.config.space import Constraint, Dimension, Objective, Search
from sweeps.config.sweep_file import MAX_SEED, Sweep, from_document, parse, stored_search

SMALL = "task: {name: static, operation: add}\nmodel: nau\ntrain: {steps: 1000}\n"

FULL = """\
name: who-learns-multiplication
question: Which unit learns multiplication most surely?
task: {name: static, operation: mul}
train: {steps: 3_000_000, batch: 128, optimizer: adam, lr: 1e-3, evaluate_every: 1000, stop: never}
compare:
  model: [nmu, nalu, {name: nmu, clamp: false, label: NMU without clamp}]
  range:
    - {label: "U[1,2]",   task: {interpolation: [1, 2],   extrapolation: [2, 6]}}
    - {label: "U[10,20]", task: {interpolation: [10, 20], extrapolation: [20, 40]}}
seeds: {first: 0, count: 100}
search:
  sampler: {name: tpe, seed: 3, n_startup_trials: 4}
  configurations: 40
  parallel: 4
  objective: {success_rate: maximize}
  space:
    train.lr: {log_uniform: [1e-4, 1e-1]}
    train.gradient_noise: {log_uniform: [1e-5, 0.1], or: 0}
    model.dropout: {log_uniform: [1e-6, 0.2], or: 0, when: {model.name: nmu}}
resources: {cpus: 1, gpus: 0, memory_gb: 2, slots: auto}
budget: {hours: 12}
"""


def small(*more: str) -> Sweep:
    return parse(SMALL + "\n".join(more), "small.yaml")


def test_the_smallest_file_is_one_cell_with_one_configuration() -> None:
    sweep = small()
    assert (sweep.name, sweep.question, sweep.seeds, sweep.search) == ("small", "", (0,), None)
    assert [cell.key for cell in sweep.cells] == ["all"]
    assert sweep.cells[0].settings == {
        "task": {"name": "static", "operation": "add"},
        "model": {"name": "nau"},
        "train": {"steps": 1000},
    }
    assert sweep.configurations(sweep.cells[0]) == 1
    assert (sweep.resources.cpus, sweep.resources.slots, sweep.budget.hours) == (1, "auto", None)


def test_a_full_file_is_read_as_written() -> None:
    sweep = parse(FULL, "x/some-file.yaml")
    assert sweep.name == "who-learns-multiplication"
    assert [cell.key for cell in sweep.cells] == [
        "model=nmu range=U[1,2]",
        "model=nmu range=U[10,20]",
        "model=nalu range=U[1,2]",
        "model=nalu range=U[10,20]",
        "model=NMU without clamp range=U[1,2]",
        "model=NMU without clamp range=U[10,20]",
    ]
    last = sweep.cells[-1]
    assert last.labels == {"model": "NMU without clamp", "range": "U[10,20]"}
    assert last.settings["model"] == {"name": "nmu", "clamp": False}
    assert last.settings["task"] == {
        "name": "static", "operation": "mul", "interpolation": [10, 20], "extrapolation": [20, 40],
    }  # fmt: skip
    assert sweep.search == Search(
        sampler="tpe", sampler_options={"n_startup_trials": 4}, seed=3, configurations=40, parallel=4,
        objective=Objective("success_rate", "maximize"), space=sweep.search.space if sweep.search else {},
    )  # fmt: skip
    assert sweep.seeds == tuple(range(100))
    assert sweep.resources.memory_gb == 2.0
    assert sweep.warnings == ()
    assert sweep.text == FULL
    json.dumps(sweep.document)


def test_a_dimension_is_dropped_from_the_cells_where_its_condition_does_not_hold() -> None:
    sweep = parse(FULL, "x.yaml")
    assert [sorted(cell.space) for cell in sweep.cells[::2]] == [
        ["model.dropout", "train.gradient_noise", "train.lr"],
        ["train.gradient_noise", "train.lr"],
        ["model.dropout", "train.gradient_noise", "train.lr"],
    ]


def test_parameters_replace_dotted_paths_and_nothing_else() -> None:
    cell = parse(FULL, "x.yaml").cells[0]
    settings = cell.with_parameters({"train.lr": 0.01, "model.sparsity_penalty.weight": 2.0})
    assert settings["train"]["lr"] == 0.01
    assert settings["model"] == {"name": "nmu", "sparsity_penalty": {"weight": 2.0}}
    assert cell.settings["train"]["lr"] == 0.001
    assert cell.with_parameters({}) == cell.settings


def test_a_parameter_whose_condition_does_not_hold_is_left_out() -> None:
    sweep = small(
        "search:", "  configurations: 4", "  space:", "    train.optimizer: [adam, sgd]",
        "    train.momentum: {uniform: [0, 0.9], when: {train.optimizer: sgd}}",
    )  # fmt: skip
    cell = sweep.cells[0]
    assert "momentum" not in cell.with_parameters({"train.optimizer": "adam", "train.momentum": 0.5})["train"]
    assert cell.with_parameters({"train.optimizer": "sgd", "train.momentum": 0.5})["train"]["momentum"] == 0.5


def test_entries_that_set_nothing_may_be_on_several_axes() -> None:
    sweep = small("compare:", "  noise: [{label: without}]", "  clip: [{label: without}]")
    assert [cell.key for cell in sweep.cells] == ["clip=without noise=without"]


def test_the_order_of_axes_does_not_change_what_a_cell_is_called() -> None:
    axes = ["  model: [nau, nac]", "  task.operation: [add, sub]"]
    base = "task: static\ntrain: {steps: 1000}\ncompare:\n"
    one = parse(base + "\n".join(axes), "x.yaml")
    other = parse(base + "\n".join(reversed(axes)), "x.yaml")
    assert {cell.key: cell.settings for cell in one.cells} == {cell.key: cell.settings for cell in other.cells}
    assert [cell.key for cell in one.cells][1] == "model=nau task.operation=sub"
    assert [cell.key for cell in other.cells][1] == "model=nac task.operation=add"


def test_a_label_that_is_not_given_is_the_name_and_what_differs() -> None:
    text = "task: static\ntrain: {steps: 1000}\ncompare:\n  model: [nmu, {name: nmu, hidden: 3, SETTINGS}]"
    text = text.replace("SETTINGS", "sparsity_penalty: {weight: 0}, clamp: false")
    assert [cell.labels["model"] for cell in parse(text, "x.yaml").cells] == [
        "nmu", "nmu clamp=false hidden=3 sparsity_penalty.weight=0",
    ]  # fmt: skip


def test_a_model_override_of_another_axis_is_merged_into_the_model() -> None:
    text = """
task: static
train: {steps: 1000}
compare:
  noise: [{label: off}, {label: on, train: {gradient_noise: 0.1}, model: {sparsity_penalty: {weight: 1}}}]
  model: [{name: nmu, sparsity_penalty: {start: 10, end: 20}}]
"""
    cells = parse(text, "x.yaml").cells
    assert [cell.labels["noise"] for cell in cells] == ["off", "on"]
    assert cells[1].settings["model"] == {"name": "nmu", "sparsity_penalty": {"start": 10, "end": 20, "weight": 1}}
    assert cells[1].settings["train"] == {"steps": 1000, "gradient_noise": 0.1}


def test_values_of_a_dotted_axis_are_its_labels() -> None:
    sweep = small("compare:", "  train.lr: [1e-3, 1e-2]", "  train.batch: [32, 1e2]", "  task.interpolation: [[1, 2], [2, 3]]")
    assert [cell.key for cell in sweep.cells][::4] == [
        "task.interpolation=[1, 2] train.batch=32 train.lr=0.001",
        "task.interpolation=[1, 2] train.batch=32 train.lr=0.01",
    ]
    assert sweep.cells[2].labels["train.batch"] == "100"


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("3", (0, 1, 2)), ("1e1", tuple(range(10))), ("[5, 3]", (5, 3)), ("{count: 2}", (0, 1)),
     ("{first: 7, count: 2}", (7, 8)),
     (f"[{MAX_SEED}]", (MAX_SEED,))],
)  # fmt: skip
def test_seeds_are_a_count_a_range_or_a_list(text: str, seeds: tuple[int, ...]) -> None:
    assert small(f"seeds: {text}").seeds == seeds


def test_a_grid_without_a_count_is_tried_in_full() -> None:
    sweep = small("search: {sampler: grid, space: {train.lr: [1e-3, 1e-2, 1e-1], train.batch: [32, 64]}}")
    assert sweep.search is not None
    assert sweep.search.configurations == 7  # 3 x 2 and the file's own


def test_a_cell_has_at_most_the_different_points_of_its_grid_whatever_count_is_given() -> None:
    """Momentum acts on sgd only: of 2 * 3 points there are 4 different ones, and the file's own is one of them."""
    space = "{train.optimizer: [adam, sgd], train.momentum: {choice: [0.0, 0.5, 0.9], when: {train.optimizer: sgd}}}"
    sweep = small(f"search: {{sampler: grid, configurations: 20, space: {space}}}")
    assert [sweep.configurations(cell) for cell in sweep.cells] == [4] * len(sweep.cells)
    fewer = small(f"search: {{sampler: grid, configurations: 3, space: {space}}}")
    assert [fewer.configurations(cell) for cell in fewer.cells] == [3] * len(fewer.cells)


def test_the_file_s_own_point_is_not_counted_twice_where_the_grid_has_it() -> None:
    sweep = parse(
        "task: static\nmodel: nau\ntrain: {steps: 10, lr: 0.01}\n"
        "search: {sampler: grid, space: {train.lr: [1e-3, 1e-2, 1e-1]}}\n",
        "g.yaml",
    )
    assert sweep.search is not None
    assert sweep.search.configurations == 3


@pytest.mark.parametrize(
    ("space", "different"),
    [
        ("train.lr: [1e-3, 1e-2, 1e-1]", 3),  # the file's own 1e-3 is among them
        ("train.lr: [0.1, 0.2, 0.3]", 4),
        ("train.batch: {integer: [126, 129]}", 4),
        ("train.clip_norm: {uniform: [1, 1], or: 0}", 2),
        ("train.lr: [1e-3, 1e-2], train.optimizer: [adam, sgd]", 4),
        ("train.momentum: {choice: [0, 0.5, 0.9], when: {train.optimizer: sgd}}, train.optimizer: [adam, sgd]", 4),
    ],
)
def test_more_configurations_than_there_are_different_ones_are_a_warning(space: str, different: int) -> None:
    text = f"search: {{sampler: random, configurations: %d, space: {{{space}}}}}"
    message = "line 4: search.configurations: the space has %d different configurations, and 5 are asked for: repeated ones"
    assert any(warning.startswith(message % different) for warning in small(text % 5).warnings)
    assert "different" not in str(small(text % different).warnings)


def test_a_range_and_a_grid_have_no_warning_of_repetitions() -> None:
    assert "different" not in str(
        small("search: {configurations: 90, space: {train.lr: {uniform: [1, 2]}, train.optimizer: [adam]}}").warnings
    )
    assert "different" not in str(small("search: {sampler: grid, configurations: 90, space: {train.lr: [1, 2]}}").warnings)


def test_a_cell_that_has_nothing_to_search_is_one_configuration() -> None:
    sweep = parse(
        "task: static\ntrain: {steps: 6000}\ncompare: {model: [nau, linear]}\n"
        "search: {configurations: 5, space: {model.dropout: {uniform: [0, 0.5], when: {model.name: nau}}}}",
        "x.yaml",
    )
    assert [sweep.configurations(cell) for cell in sweep.cells] == [5, 1]
    message = "has nothing to search here, so the cell is one configuration (in cell model=linear)"
    assert sweep.warnings == (f"line 4: search.space: {message}",)


@pytest.mark.parametrize(
    ("objective", "ending"),
    [
        ("par2", "par2 cannot rank configurations: the median error does. Set search.objective: error.extrapolation.median, or "
                 "task.thresholds, which `sweeps thresholds` computes from a reference sweep"),
        ("[success_rate, par2]", "success_rate and par2 cannot rank configurations: the median error does"),
        ("error.extrapolation.median", "reports have errors and scores only. Set task.thresholds, which"),
    ],
)  # fmt: skip
def test_an_objective_that_needs_a_threshold_is_a_warning_where_the_task_has_none(objective: str, ending: str) -> None:
    text = (
        "model: nac\ntask: sequential_digits\ntrain: {steps: 6000}\n"
        f"search: {{configurations: 2, objective: {objective}, space: {{train.lr: {{uniform: [0.1, 0.2]}}}}}}"
    )
    (warning,) = parse(text, "x.yaml").warnings
    place = "task" if objective.startswith("error") else "search.objective"
    assert f": {place}: task sequential_digits has no threshold, so no seed is judged as solved, and {ending}" in warning
    given = text.replace("sequential_digits", "{name: sequential_digits, test_lengths: [1], thresholds: [0.1]}")
    assert parse(given, "x.yaml").warnings == ()


def test_a_file_without_a_search_has_the_warning_too_with_its_cells() -> None:
    (warning,) = parse("model: linear\ncompare: {task: [identity, static]}\ntrain: {steps: 6000}", "x.yaml").warnings
    assert "task identity has no threshold in cell task=identity, so no seed is judged as solved" in warning


def test_an_interval_of_evaluations_beyond_the_steps_is_a_warning() -> None:
    text = "task: static\nmodel: linear\ntrain: {steps: 1000, evaluate_every: %d}"
    (warning,) = parse(text % 5000, "x.yaml").warnings
    assert warning.startswith(
        "line 3: train.evaluate_every: 5000 is more than train.steps, 1000: a seed is evaluated at its first"
    )
    assert parse(text % 1000, "x.yaml").warnings == ()


def test_success_rate_is_maximised_and_all_else_minimised_unless_the_file_sets_the_direction() -> None:
    for objective, expected in [
        ("par2", Objective("par2", "minimize")),
        ("success_rate", Objective("success_rate", "maximize")),
        ("error.extrapolation.median", Objective("error.extrapolation.median", "minimize")),
        ("{converged_at.median: minimize}", Objective("converged_at.median", "minimize")),
    ]:
        search = small(f"search: {{configurations: 2, objective: {objective}, space: {{train.lr: [1, 2]}}}}").search
        assert search is not None
        assert search.objective == expected


def test_several_objectives_are_a_list_or_a_mapping_in_the_order_written() -> None:
    for objective in ("[success_rate, {seed_steps: minimize}]", "{success_rate: maximize, seed_steps: minimize}",
                      "[{success_rate: maximize}, seed_steps]"):  # fmt: skip
        search = small(f"search: {{configurations: 2, objective: {objective}, space: {{train.lr: [1, 2]}}}}").search
        assert search is not None
        assert search.objectives == (Objective("success_rate", "maximize"), Objective("seed_steps", "minimize"))
    search = small("search: {configurations: 2, objective: [par2], space: {train.lr: [1, 2]}}").search
    assert search is not None and search.objectives == (Objective(),) and not search.further_objectives


def test_constraints_are_sorted_and_former_names_are_those_of_today() -> None:
    text = "search: {configurations: 2, space: {train.lr: [1, 2]}, constraints: CONSTRAINTS}"
    search = small(
        text.replace("CONSTRAINTS", "{success_rate: {at_least: 0.5, at_most: 1}, converged_at: {at_most: 1e4}}")
    ).search
    assert search is not None
    assert search.constraints == (
        Constraint("converged_at.mean", "at_most", 1e4),
        Constraint("success_rate", "at_least", 0.5),
        Constraint("success_rate", "at_most", 1.0),
    )


def test_a_brute_force_search_is_as_long_as_its_space_has_points_that_conditions_leave() -> None:
    """adam; sgd with momentum 0.5, 0.9. With batch 8, 9, 10 or 128, the file's. The file's own point has the default adam."""
    space = """\
search:
  sampler: brute_force
  space:
    train.optimizer: [adam, sgd]
    train.momentum: {choice: [0.5, 0.9], when: {train.optimizer: sgd}}
    train.batch: {integer: [8, 10], or: 128}
"""
    sweep = small(space)
    assert sweep.grids == {"all": 12} and sweep.configurations(sweep.cells[0]) == 12
    sweep = parse(SMALL + space, "x.yaml", ["search.configurations=5"])
    assert sweep.configurations(sweep.cells[0]) == 5 and "different" not in str(sweep.warnings)
    fixed = parse(SMALL + space, "x.yaml", ["search.sampler={name: partial_fixed, sampler: brute_force}",
                                            "search.sampler.fixed.train.optimizer=sgd"])  # fmt: skip
    assert fixed.grids == {"all": 1 + 8}


def test_a_model_may_be_searched_with_the_settings_of_each_choice_and_a_setting_that_is_a_mapping() -> None:
    text = """\
task: {name: static, operation: mul}
model: nmu
train: {steps: 1000}
search:
  sampler: brute_force
  space:
    model.name: [nmu, nau]
    model.clamp: {choice: [true, false], when: {model.name: nmu}}
    model.sparsity_penalty: {choice: [{weight: 1}, {weight: 10}], when: {model.clamp: false}}
"""
    sweep = parse(text, "x.yaml")
    [cell] = sweep.cells
    assert sweep.grids == {"all": 4}
    settings = cell.with_parameters({"model.name": "nmu", "model.clamp": False, "model.sparsity_penalty": {"weight": 10}})
    assert settings["model"] == {"name": "nmu", "clamp": False, "sparsity_penalty": {"weight": 10}}
    nau = {"model.name": "nau", "model.clamp": False, "model.sparsity_penalty": {"weight": 10}}
    assert cell.with_parameters(nau)["model"] == {"name": "nau"}


def test_a_score_of_the_task_may_be_the_objective() -> None:
    text = "name: s\ntask: sequential_digits\nmodel: nac\ntrain: {steps: 10}\n"
    wanted = "search: {configurations: 2, objective: OBJECTIVE, space: {train.lr: [1, 2]}}"
    search = parse(text + wanted.replace("OBJECTIVE", "{accuracy.extrapolation.median: maximize}"), "s.yaml").search
    assert search is not None
    assert search.objective == Objective("accuracy.extrapolation.median", "maximize")


def test_a_penalty_that_starts_after_the_end_is_a_warning_with_its_line() -> None:
    sweep = parse(
        "task: static\nmodel:\n  name: nau\n  sparsity_penalty: {weight: 1, start: 5e3, end: 6e3}\ntrain: {steps: 1000}",
        "x.yaml",
    )
    assert len(sweep.warnings) == 1
    assert sweep.warnings[0].startswith("line 4: model.sparsity_penalty.start: the penalty starts at step 5k")


def test_an_exported_section_is_what_is_expected() -> None:
    assert small("exported: {number: 3}").expected == {"number": 3}
    assert small().expected is None


def test_a_document_reads_as_the_same_sweep() -> None:
    sweep = parse(FULL, "x.yaml")
    again = from_document(json.loads(json.dumps(sweep.document)))
    assert (again.cells, again.search, again.seeds) == (sweep.cells, sweep.search, sweep.seeds)


ANCHORED = """\
x-common: &common {steps: 400, batch: 32, lr: 1e-3, evaluate_every: 100}
name: merge
task: static
model: nau
train: {<<: *common, steps: 500}
"""


def test_anchors_and_merge_keys_make_the_sweep_of_the_expanded_values() -> None:
    plain = parse(
        "name: merge\ntask: static\nmodel: nau\ntrain: {batch: 32, lr: 1e-3, evaluate_every: 100, steps: 500}\n", "x.yaml"
    )
    merged = parse(ANCHORED, "x.yaml")
    assert merged.document == plain.document and merged.cells == plain.cells
    assert difference(plain.document, merged).kind == "nothing" == difference(merged.document, plain).kind
    assert "x-" not in parse(ANCHORED, "x.yaml", ["train.lr=1"]).text


def test_a_fault_of_a_merged_value_has_the_line_where_the_value_stands() -> None:
    with pytest.raises(SweepFileError) as error:
        parse(ANCHORED.replace("1e-3", "fast"), "x.yaml")
    assert str(error.value).startswith("x.yaml: line 1: train.lr: input should be a valid number, but got 'fast'")


def test_an_override_of_an_anchor_would_have_no_effect_and_is_a_fault() -> None:
    with pytest.raises(SweepFileError, match=r"'x-common.lr=1': x-common.lr holds what is inserted elsewhere already"):
        parse(ANCHORED, "x.yaml", ["x-common.lr=1"])


# ---------------------------------------------------------------------------------------------- stored documents


def test_the_search_of_a_stored_document_is_read_without_its_models() -> None:
    document = {**parse(FULL, "x.yaml").document, "model": "./gone.py", "task": {"name": "gone"}}
    document["search"]["sampler"] = {"name": "no_longer_there"}
    search = stored_search(document)
    assert search is not None
    assert search.objective == Objective("success_rate", "maximize")
    assert list(search.space) == ["model.dropout", "train.gradient_noise", "train.lr"]
    assert search.space["train.gradient_noise"] == Dimension("log_uniform", 1e-5, 0.1, off=0, has_off=True)
    assert stored_search({}) is None and stored_search({"search": None}) is None


def test_a_stored_search_has_the_default_objective_and_direction() -> None:
    for stated, expected in [
        (None, Objective("par2", "minimize")),
        ("success_rate", Objective("success_rate", "maximize")),
        ({"error.extrapolation.median": "minimize"}, Objective("error.extrapolation.median", "minimize")),
    ]:
        search = stored_search({"search": {} if stated is None else {"objective": stated}})
        assert search is not None and search.objective == expected


# ---------------------------------------------------------------------------------------------- KEY=VALUE


def faults(text: str, *overrides: str) -> str:
    with pytest.raises(SweepFileError) as error:
        parse(text, "bad.yaml", overrides)
    return str(error.value)


def test_overrides_set_leaves_and_make_missing_ones() -> None:
    sweep = parse(FULL, "x.yaml", ["train.steps=2000", "seeds.count=5", "search.space.train.lr.or=0.5", "compare.model=[nmu]"])
    assert sweep.seeds == tuple(range(5))
    assert sweep.cells[0].settings["train"]["steps"] == 2000
    assert sweep.cells[0].space["train.lr"].off == 0.5
    assert len(sweep.cells) == 2


def test_an_override_expands_short_forms() -> None:
    text = SMALL.replace("{name: static, operation: add}", "static")
    text += "seeds: 100\nsearch: {sampler: tpe, configurations: 2, space: {train.lr: [1, 2]}}"
    sweep = parse(text, "x.yaml", ["task.operation=sub", "model.clamp=false", "seeds.first=7", "search.sampler.seed=5"])
    assert sweep.cells[0].settings["task"] == {"name": "static", "operation": "sub"}
    assert sweep.cells[0].settings["model"] == {"name": "nau", "clamp": False}
    assert (sweep.seeds[0], len(sweep.seeds)) == (7, 100)
    assert sweep.search is not None and sweep.search.seed == 5


def test_dotted_keys_of_spaces_and_axes_can_be_added() -> None:
    sweep = parse(
        SMALL,
        "x.yaml",
        ["search.configurations=3", "search.space.train.lr={log_uniform: [1e-3, 1]}", "compare.task.operation=[add, sub]"],
    )
    assert [cell.key for cell in sweep.cells] == ["task.operation=add", "task.operation=sub"]
    assert sweep.cells[0].space["train.lr"].high == 1.0


def test_the_text_of_a_sweep_has_its_overrides_in_it() -> None:
    sweep = parse(FULL, "x.yaml", ["train.steps=2000", "search=null"])
    again = parse(sweep.text, "x.yaml")
    assert again.document == sweep.document
    assert again.cells == sweep.cells
    assert sweep.text.startswith("# x.yaml with train.steps=2000 search=null\n")


def test_a_fault_of_an_override_names_the_override() -> None:
    found = faults(SMALL, "train.stepz=3", "seeds.count=0", "nonsense", "train.steps.x=1", "a=[1")
    assert "'train.stepz=3': train.stepz: is not a setting here. Did you mean 'steps'?" in found
    assert "'seeds.count=0': seeds.count: must be a whole number from 1" in found
    assert "'nonsense': write KEY=VALUE" in found
    assert "'train.steps.x=1': train.steps is 1000, which has no 'x'" in found
    assert "'a=[1': not YAML" in found


def test_items_of_lists_are_numbered_from_0() -> None:
    text = "task: static\ntrain: {steps: 1000}\ncompare: {model: [nau, nac]}"
    assert parse(text, "x.yaml", ["compare.model.0.hidden=3"]).cells[0].key == "model=nau hidden=3"
    assert "compare.model is a list of 2" in faults(text, "compare.model.7=nau")
