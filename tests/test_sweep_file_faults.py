"""Every fault of a sweep file, all at once, with its line and the nearest name."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest

from sweeps.config.faults import SweepFileError
from sweeps.config.sweep_file import DEFINITIONS, Sweep, load, parse

SMALL = "task: {name: static, operation: add}\nmodel: nau\ntrain: {steps: 1000}\n"


def small(*more: str) -> Sweep:
    return parse(SMALL + "\n".join(more), "small.yaml")


def faults(text: str) -> str:
    with pytest.raises(SweepFileError) as error:
        parse(text, "bad.yaml")
    return str(error.value)


def test_all_faults_are_reported_at_once_with_their_lines_and_the_nearest_names() -> None:
    found = faults("""\
name: a/b
tsk: {name: static}
task: {name: statc}
model: nua
train: {steps: 1000, btch: 3}
seeds: []
compare: {range: [{label: x, tain: {}}]}
search: {configurations: 0, objective: par3, space: {train.lr: {log_uniform: [0, 1]}}}
resources: {slots: 0, cpu: 1}
budget: {hours: 0}
seeds: 3
""")
    for part in [
        "bad.yaml: 14 faults",
        "line 1: name: must be 1 to 100 letters",
        "line 2: tsk: unknown key 'tsk'. Did you mean 'task'?",
        "line 3: task.name: no task named 'statc'. Did you mean 'static'?",
        "line 4: model.name: no model named 'nua'. Did you mean 'nau'?",
        "line 5: train.btch: is not a setting here. Did you mean 'batch'?",
        "line 6: seeds: is an empty list",
        "line 7: compare.range.0.tain: unknown key 'tain'. Did you mean 'train'?",
        "line 8: search.configurations: must be a whole number of at least 1, not 0",
        "line 8: search.objective: unknown objective 'par3'. Did you mean 'par2'?",
        "line 8: search.space.train.lr.log_uniform: a logarithmic scale has no 0",
        "line 9: resources.slots: must be auto, or a whole number of at least 1, not 0",
        "line 9: resources.cpu: unknown key 'cpu'. Did you mean 'cpus'?",
        "line 10: budget.hours: must be a number above 0, not 0",
        "line 11: seeds is given twice: first on line 6",
    ]:
        assert part in found, found
    lines = [int(line.split()[1].rstrip(":")) for line in found.splitlines()[1:]]
    assert lines == sorted(lines)


@pytest.mark.parametrize(
    ("more", "part"),
    [
        ("seeds: 0", "line 4: seeds: must be a whole number from 1"),
        ("seeds:", "seeds: must be a count, a list, or"),
        ("seeds: [1, 2, 1]", "seed 1 is given twice"),
        ("seeds: [-1]", "from 0 to 4294967295"),
        ("seeds: [4294967296]", "from 0 to 4294967295"),
        ("seeds: {first: 4294967295, count: 2}", "the last seed would be 4294967296"),
        ("seeds: {frist: 1, count: 2}", "Did you mean 'first'?"),
        ("seeds: {first: 1}", "needs a `count`"),
        ("seeds: 1e12", "from 1 to 1000000"),
        ("seeds: 2.5", "must be a whole number"),
        ("seeds: true", "seeds: must be a count"),
        ("resources: {cpus: 0}", "must be a whole number of at least 1"),
        ("resources: {gpus: -1}", "must be a number of at least 0"),
        ("resources: {gpus: 2}", "must be at most 1, not 2: a worker trains on one GPU"),
        ("resources: {gpus: 1.5}", "`gpus: 1` uses all of them"),
        ("resources: {gpus: 0.3}", "must be 0, 1, or a whole part of a GPU (0.5, 0.33, 0.25 ...), not 0.3"),
        ("resources: {gpus: 0.001}", "must be 0 or at least 0.02, not 0.001: at most 50 workers share a GPU"),
        ("resources: {gpus: 0.4}", "leaves a part of every GPU without a worker. Near it: 0.5 and 0.3333"),
        ("resources: {memory_gb: 0}", "must be a number above 0"),
        ("resources: [1]", "must be a mapping"),
        ("budget: {hours: soon}", "must be a number above 0, not 'soon'"),
        ("budget: {cost_usd: -5}", "budget.cost_usd: must be a number above 0, not -5"),
        ("budget: {seed_steps: 0}", "budget.seed_steps: must be a whole number of at least 1, not 0"),
        ("budget: {target: 0.9}", "budget.target: must be {success_rate: RATE}, such as {success_rate: 0.9}, not 0.9"),
        ("budget: {target: {}}", "budget.target: needs a `success_rate`, such as 0.9"),
        ("budget: {target: {success_rate: 1}}", "must be below 1, not 1: no number of seeds has an interval above 1"),
        ("budget: {target: {succes_rate: 0.9}}", "Did you mean 'success_rate'?"),
        ("budget: {max_cost: 3}", "Did you mean 'cost_usd'?"),
        ("budget: {failures: -1}", "must be a number of lanes such as 20, or a share of all such as 5%, not -1"),
        ("budget: {failures: 120%}", "such as 5%, not '120%'"),
        ("budget: {failures: some}", "such as 5%, not 'some'"),
        ("budget: {faillures: 1}", "Did you mean 'failures'?"),
        ("early_stopping: {seeds: {race: [1]}}", "has nothing to stop, since the file searches nothing"),
        ("early_stopping: {}", "needs `seeds: {race: [10, 25, 50]}`, or `steps: {halving: [...], metric: ...}`, or both"),
        ("early_stopping: {seed: {race: [1]}}", "Did you mean 'seeds'?"),
        ("early_stopping: {seeds: {confidence: 0.9}}", "needs `race`: numbers of seeds"),
        ("early_stopping: {seeds: {race: [3, 2]}}", "early_stopping.seeds.race: must rise: write [2, 3]"),
        ("early_stopping: {seeds: {race: 3}}", "must be a list of numbers of seeds, such as [10, 25, 50, 100], not 3"),
        ("early_stopping: {seeds: {race: [0, 2]}}", "early_stopping.seeds.race.0: must be a whole number of at least 1"),
        ("early_stopping: {seeds: {race: [1], confidence: 1}}", "must be below 1, such as 0.95, not 1"),
        ("early_stopping: {steps: {halving: [10]}}", "needs `metric`: what they are compared by"),
        ("early_stopping: {steps: {metric: par2}}", "needs `halving`: steps after which"),
        ("early_stopping: {steps: {halving: [10], keep: 3, metric: par2}}", "must be a share between 0 and 1, such as 1/3"),
        ("early_stopping: {steps: {halving: [10], keep: 1/0, metric: par2}}", "must be a share between 0 and 1"),
        ("early_stopping: {steps: {halving: [10], metric: par3}}", "Did you mean 'par2'?"),
        ("confirm: {top: 1}", "confirm: needs `seeds`: fresh ones"),
        ("confirm: {top: 0, seeds: {first: 9, count: 1}}", "confirm.top: must be a whole number of at least 1, not 0"),
        ("confirm: {seeds: 3}", "confirm.seeds: has seeds of the search (0), which would confirm a choice"),
        ("confirm: {sedes: 3}", "Did you mean 'seeds'?"),
        ("question: [a]", "question: must be text"),
        ("exported: 3", "exported: must be a mapping"),
        ("name: ''", "name: must be 1 to 100 letters"),
        ("name: -x", "name: must be 1 to 100 letters"),
        ("compare: [nau]", "compare: must be a mapping"),
        ("compare: {train: [{label: a}]}", "an axis is `model`, `task`"),
        ("compare: {a b: [{label: a}]}", "an axis is `model`, `task`"),
        ("compare: {model: [nau]}", "model is at top level too: keep one"),
        ("compare: {tsk.operation: [add]}", "unknown section 'tsk'. Did you mean 'task'?"),
        ("compare: {x: []}", "must be a list of at least one entry"),
        ("compare: {x: [add]}", "must be a mapping"),
        ("compare: {x: [{task: {operation: sub}}]}", "needs a `label`"),
        ("compare: {x: [{label: a}, {label: a}]}", "the label 'a' is used twice on axis x"),
        ("compare: {x: [{label: [a]}]}", "compare.x.0.label: must be a short word"),
        ("compare: {train.lr: [1e-3, 0.001]}", "the label '0.001' is used twice"),
        ("compare: {train.lr: [1, 2], x: [{label: a, train: {lr: 3}}]}", "sets train.lr, which axis 'train.lr' sets too"),
        ("compare: {train.lr: [1, -1]}", "line 4: compare.train.lr.1: lr = -1.0 must be above 0 (in cell train.lr=-1)"),
        ("compare: {task.operashun: [add]}", "compare.task.operashun: is not a setting here. Did you mean 'operation'?"),
    ],
)
def test_a_fault_is_reported(more: str, part: str) -> None:
    found = faults(SMALL + more)
    assert part in found, found


@pytest.mark.parametrize(
    ("search", "part"),
    [
        ("5", "search: must be a mapping"),
        ("{configurations: 3}", "needs a `space`"),
        ("{space: {train.lr: [1, 2]}}", "needs `configurations`"),
        ("{configurations: 3, order: arrival, space: {train.lr: [1, 2]}}", "search.order: is not built yet"),
        ("{configurations: 3, smapler: tpe, space: {train.lr: [1, 2]}}", "Did you mean 'sampler'?"),
        ("{configurations: 3, sampler: tpee, space: {train.lr: [1, 2]}}",
         "unknown sampler 'tpee'. Did you mean 'tpe'?"),
        ("{configurations: 3, sampler: {name: tpe, startup: 3}, space: {train.lr: [1, 2]}}",
         "has no option 'startup'"),
        ("{configurations: 3, sampler: {name: tpe, seed: -3}, space: {train.lr: [1, 2]}}",
         "search.sampler.seed"),
        ("{configurations: 3, sampler: grid, space: {train.lr: {uniform: [1, 2]}}}",
         "cannot enumerate the range of train.lr"),
        ("{configurations: 3, parallel: 0, space: {train.lr: [1, 2]}}",
         "search.parallel: must be a whole number of at least 1"),
        ("{configurations: 3, objective: {par2: up}, space: {train.lr: [1, 2]}}", "unknown direction 'up'"),
        ("{configurations: 3, objective: [par2, par2], space: {train.lr: [1, 2]}}",
         "search.objective: the objective par2 is given twice"),
        ("{configurations: 3, objective: [par2, sed_steps], space: {train.lr: [1, 2]}}",
         "search.objective.1: unknown objective 'sed_steps'. Did you mean 'seed_steps'?"),
        ("{configurations: 3, objective: [], space: {train.lr: [1, 2]}}", "is empty: name at least one objective"),
        ("{configurations: 3, objective: [par2, [a]], space: {train.lr: [1, 2]}}",
         "search.objective.1: must be a name such as par2"),
        ("{configurations: 3, sampler: cmaes, objective: [par2, seed_steps], space: {train.lr: [1, 2]}}",
         "search.sampler: sampler 'cmaes' takes one objective, not 2. Several are taken by brute_force, gp, grid,"),
        ("{configurations: 3, constraints: {sparsity_eror: {at_most: 1}}, space: {train.lr: [1, 2]}}",
         "search.constraints.sparsity_eror: unknown metric 'sparsity_eror'. Did you mean 'sparsity_error'?"),
        ("{configurations: 3, constraints: {diverged: {atmost: 1}}, space: {train.lr: [1, 2]}}", "Did you mean 'at_most'?"),
        ("{configurations: 3, constraints: {diverged: {at_most: few}}, space: {train.lr: [1, 2]}}",
         "must be a number, not 'few'"),
        ("{configurations: 3, constraints: {diverged: {}}, space: {train.lr: [1, 2]}}", "needs a limit: `at_most: 0.1`"),
        ("{configurations: 3, constraints: {diverged: 0}, space: {train.lr: [1, 2]}}", "must be a mapping"),
        ("{configurations: 3, sampler: {name: partial_fixed, fixed: {train.rl: 1}}, space: {train.lr: [1, 2]}}",
         "search.sampler.fixed.train.rl: unknown dimension 'train.rl'. Did you mean 'train.lr'?"),
        ("{configurations: 3, sampler: {name: nsgaii, crossover: {name: sbxx}}, space: {train.lr: [1, 2]}}",
         "search.sampler.crossover: option 'crossover' of sampler 'nsgaii': unknown crossover 'sbxx'. Did you mean 'sbx'?"),
        ("{sampler: {name: partial_fixed, fixed: {train.lr: 1}}, space: {train.lr: [1, 2], train.batch: [1, 2]}}",
         "needs `configurations`"),
        ("{configurations: 3, space: {train.lr: {choice: [1, 2], when: {train.batch: 1}}, train.batch: "
         "{choice: [1, 2], when: {train.lr: 1}}}}", "when.train.batch: never holds: train.batch depends on train.lr in turn"),
        ("{configurations: 3, space: {train.lr: {choice: [1, 2], when: {train.batch: 1}}, train.batch: "
         "{choice: [1, 2], when: {train.optimizer: sgd}}, train.optimizer: [adam, sgd], train.momentum: "
         "{choice: [0.1], when: {train.lr: 1, train.optimizer: adam}}}}",
         "search.space.train.momentum.when: never holds: its conditions need different values of train.optimizer"),
        ("{configurations: 3, objective: error.extrapolaton.median, space: {train.lr: [1, 2]}}",
         "Did you mean 'error.extrapolation.median'?"),
        ("{configurations: 3, objective: {accuracy.extrapolation.median: maximize}, space: {train.lr: [1, 2]}}",
         "unknown objective 'accuracy.extrapolation.median'"),
        ("{configurations: 3, space: {train.lr: {log_uniform: [0.1, 0.01]}}}",
         "the bounds are reversed: write [0.01, 0.1]"),
        ("{configurations: 3, space: {train.lr: {uniform: [0, 1]}}}",
         "search.space.train.lr: lr = 0.0 must be above 0"),
        ("{configurations: 3, space: {train.lr: {uniform: [1, 2], or: off}}}", "(with train.lr = 'off')"),
        ("{configurations: 3, space: {train.lrr: [1, 2]}}",
         "search.space.train.lrr: is not a setting here. Did you mean 'lr'?"),
        ("{configurations: 3, space: {train.optimizer: [adam, sdg]}}", "search.space.train.optimizer"),
        ("{configurations: 3, space: {model.dropout: {uniform: [0, 1], when: {model.nam: nau}}}}",
         "no cell has a setting 'model.nam'. Did you mean 'model.name'?"),
    ],
)  # fmt: skip
def test_a_fault_of_the_search_is_reported(search: str, part: str) -> None:
    found = faults(f"{SMALL}search: {search}")
    assert part in found, found


def test_the_name_of_a_searched_task_must_be_a_word() -> None:
    search = "search: {configurations: 2, space: {train.lr: [0.1, 0.2]}}"
    assert "task.name: must be a name" in faults(f"task: {{name: {{a: 1}}}}\nmodel: nau\ntrain: {{steps: 1}}\n{search}\n")


def test_a_setting_that_only_some_cells_have_is_one_fault_with_the_condition_to_add() -> None:
    text = "task: static\ntrain: {steps: 1000}\ncompare: {model: [nau, nac, linear], train.lr: [1e-3, 1e-2]}\n"
    found = faults(text + "search: {configurations: 3, space: {model.clamp: [true, false]}}")
    assert found.count("model.clamp") == 1
    assert "and 1 more" in found and "add when: {model.name: [nau]}" in found


def test_a_setting_of_the_file_that_only_some_cells_have_is_no_advice_about_the_search() -> None:
    text = "task: static\ntrain: {steps: 1000}\ncompare: {model: [nau, linear], x: [{label: a, model: {clamp: true}}]}"
    assert "add when" not in faults(text + "\nsearch: {configurations: 3, space: {train.lr: [1, 2]}}")


def test_a_fault_of_all_cells_is_reported_once() -> None:
    found = faults("task: static\ntrain: {steps: 1000, batch: 0}\ncompare: {model: [nau, nac], train.lr: [1e-3, 1e-2]}")
    assert found == "bad.yaml: line 2: train.batch: batch = 0 must be at least 1"


def test_a_key_that_is_not_built_yet_may_be_there_without_a_value() -> None:
    sweep = small("early_stopping: null", "search: {order: null, configurations: 2, space: {train.lr: [1, 2]}}")
    assert sweep.search is not None and sweep.search.configurations == 2
    assert sweep.document["early_stopping"] is None


def test_a_compared_setting_cannot_be_searched_as_well() -> None:
    search = "\nsearch: {configurations: 3, space: {train.lr: {uniform: [1, 2]}}}"
    assert "is compared on axis 'train.lr' too" in faults(SMALL + "compare: {train.lr: [1, 2]}" + search)
    assert "is compared on axis 'x' too" in faults(SMALL + "compare: {x: [{label: a, train: {lr: 1}}]}" + search)


def test_a_condition_that_holds_nowhere_is_a_warning() -> None:
    sweep = parse(
        SMALL.replace("1000", "6000") + "search: {configurations: 2, space: {train.lr: [1, 2], model.dropout: "
        "{uniform: [0, 0.5], when: {model.name: nmu}}}}",
        "x.yaml",
    )
    assert "holds in no cell, so model.dropout is not searched. Did you mean 'nau'?" in sweep.warnings[0]


def test_the_parts_that_a_file_must_have_are_named() -> None:
    found = faults("question: what?")
    assert all(f"`{part}` is missing" in found for part in ("model", "task", "train"))
    assert "`steps` is missing" in faults("task: static\nmodel: nau\ntrain: {lr: 1}")
    assert "`model` is missing" in faults("task: static\ntrain: {steps: 5}")


def test_a_geometry_larger_than_the_input_is_a_fault() -> None:
    found = faults("task: {name: static, input_size: 10, num_subsets: 9, subset_ratio: 0.5}\nmodel: nau\ntrain: {steps: 10}")
    assert found.startswith("bad.yaml: line 1: task")


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n- b\n", "nau", "a: [1"])
def test_a_text_that_is_no_mapping_is_a_fault(text: str) -> None:
    assert faults(text)


def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "quick.yaml").write_text(SMALL)
    assert load(tmp_path / "quick.yaml").name == "quick"
    with pytest.raises(SweepFileError, match=r"no such file\. Did you mean .*quick\.yaml"):
        load(tmp_path / "quik.yaml")
    with pytest.raises(SweepFileError, match="is a folder"):
        load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"question: \xe9\xff\n")
    with pytest.raises(SweepFileError, match="is not UTF-8"):
        load(tmp_path / "latin.yaml")


WITHIN_INT64 = "must be a whole number within int64"
WITHIN_FLOAT32 = "must be a number within float32"


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("train.steps=1e23", f"train.steps: {WITHIN_INT64}, but got 1e+23: the largest is 9223372036854775807"),
        ("train.batch=99999999999999999999", f"train.batch: {WITHIN_INT64}"),
        ("train.batch=9223372036854775808", f"train.batch: {WITHIN_INT64}"),
        ("task.input_size=1e30", f"task.input_size: {WITHIN_INT64}"),
        ("model={name: nau, hidden: -1e30}", f"model.hidden: {WITHIN_INT64}, but got -1e+30: the lowest is -9"),
        ("task.interpolation=[1e300, 1e301]", f"task.interpolation.1: {WITHIN_FLOAT32}, but got 1e+301: the largest"),
        ("train.lr=1e-60", f"train.lr: {WITHIN_FLOAT32}, but got 1e-60: write 0, or at least 1.1754944e-38"),
        ("train.lr=1e-40", f"train.lr: {WITHIN_FLOAT32}, but got 1e-40"),
        ("model={name: nau, sparsity_penalty: {start: 1e400%}}", "model.sparsity_penalty.start: must be a finite number"),
        ("resources.cpus=1e23", f"resources.cpus: {WITHIN_INT64}"),
        ("resources.slots=1e23", f"resources.slots: {WITHIN_INT64}"),
        ("resources.checkpoint_s=1e300", f"resources.checkpoint_s: {WITHIN_FLOAT32}"),
        ("budget.hours=1e308", f"budget.hours: {WITHIN_FLOAT32}"),
        ("search.parallel=1e23", f"search.parallel: {WITHIN_INT64}"),
        ("search.configurations=1e23", f"search.configurations: {WITHIN_INT64}"),
        ("search.sampler={name: tpe, n_startup_trials: 1e30}", "option 'n_startup_trials' of sampler 'tpe' must be of type"),
        ("search.space={train.lr: {log_uniform: [1e-60, 1]}}", f"search.space.train.lr: {WITHIN_FLOAT32}"),
        ("search.space={train.batch: {integer: [1, 1e23]}}", f"search.space.train.batch: {WITHIN_INT64}"),
        ("search.space={train.clip_norm: {uniform: [1, 2], or: 1e-60}}", f"search.space.train.clip_norm: {WITHIN_FLOAT32}"),
        ("train.beta2=0.99999999999", "train.beta2: beta2 = 0.99999999999 must lie in [0, 1)"),
        ("model={name: nmu, network: two_layer, dropout: 0.99999999999}", "dropout = 0.99999999999 must lie in [0, 1)"),
        ("task.interpolation=[-3e38, 3e38]", "it is wider than the largest float32 number"),
        ("model={name: nau, units: []}", "model.units: network two_layer takes 2 units, but got 0"),
        ("compare={train.batch: [1e23, 1]}", f"compare.train.batch.0: {WITHIN_INT64}"),
    ],
)  # fmt: skip
def test_a_number_that_store_or_lanes_cannot_hold_is_refused_with_the_nearest_that_they_can(
    override: str, allowed: str
) -> None:
    text = SMALL + "search: {configurations: 3, space: {train.gradient_noise: {uniform: [1, 2]}}}\n"
    with pytest.raises(SweepFileError) as error:
        parse(text, "bad.yaml", [override])
    assert allowed in str(error.value)


def test_the_largest_numbers_are_allowed_and_such_a_file_is_checked_at_once() -> None:
    largest = 2**63 - 1
    sweep = parse(
        f"task: {{name: static, operation: add, input_size: {largest}, interpolation: [0, 3.4e38]}}\nmodel: nau\n"
        f"train: {{steps: {largest}, batch: {largest}, evaluate_every: 1e18, lr: 1.2e-38}}\nseeds: [0, {2**32 - 1}]\n"
        f"search: {{configurations: {largest}, parallel: {largest}, space: {{train.clip_norm: {{uniform: [0, 3e38]}}}}}}\n",
        "large.yaml",
    )
    (cell,) = sweep.cells
    assert cell.settings["train"]["steps"] == largest == sweep.configurations(cell)


@pytest.mark.parametrize(
    ("search", "part"),
    [
        ("sampler: {name: tpe, n_ei_candidates: 0}, space: {train.lr: {uniform: [1, 2]}}", "must be 1 or more, not 0"),
        ("sampler: {name: tpe, n_ei_candidates: 1000000}, space: {train.lr: {uniform: [1, 2]}}", "must be 10000 or less"),
        ("sampler: {name: gp}, space: {train.batch: {integer: [1, 1e9]}}", "a range of 1,000,000,000 whole numbers: 1,000,000"),
        ("sampler: {name: grid, points: 1000}, space: {train.lr: {uniform: [1, 2]}, train.clip_norm: {uniform: [1, 2]}}",
         "has 1,000,000 points here; 100,000 is the most"),
    ],
)  # fmt: skip
def test_a_search_that_would_need_more_memory_than_there_is_is_refused(search: str, part: str) -> None:
    found = faults(SMALL + f"search: {{configurations: 3, {search}}}\n")
    assert part in found and "line 4" in found


def test_a_fault_of_the_structure_hides_no_name_inside_task_model_and_train() -> None:
    found = faults("""\
serch: {}
task: {name: static, operation: add, inputs: 10}
model: {units: [nua, {name: nmu}, nmuu], hiden: 3}
train: {learning_rate: 1e-3}
seeds: minus one
compare: {task.operatoin: [add, mul], model: 3}
""")
    for part in [
        "line 1: serch: unknown key 'serch'. Did you mean 'search'?",
        "line 2: task.inputs: is not a setting here. Did you mean 'input_size'?",
        "line 3: model.units.0: no model named 'nua'. Did you mean 'nau'?",
        "line 3: model.units.2: no model named 'nmuu'. Did you mean 'nmu'?",
        "line 4: train.learning_rate: is not a setting here. Did you mean 'lr'?",
        "line 4: train: `steps` is missing",
        "line 5: seeds: must be a count",
        "line 6: compare.task.operatoin: is not a setting here. Did you mean 'operation'?",
        "line 6: compare.model: must be a list",
    ]:
        assert part in found, found


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("task: {name: static, inptu_size: 4}\ntrain: {steps: 9}\n", "task.inptu_size: is not a setting here"),
        ("model: {name: nau, hiden: 4}\ntrain: {steps: 9}\n", "model.hiden: is not a setting of a model. Did you mean '"),
        ("model: nau\ntask: static\ntrain: 9\nsearch: {configurations: 2, space: {task.inptu_size: [4, 5]}}\n",
         "task.inptu_size: is not a setting here"),
        ("model: gru\ntask: {name: recurrent, operaton: add}\ntrain: {steps: 9}\n", "bad.yaml: line 2: task.operaton: is not"),
        ("model: gru\ntask: recurent\ntrain: {steps: 9}\n", "bad.yaml: line 2: task.name: no task named 'recurent'"),
        ("compare: {model.hidden: [1, 2]}\ntask: static\ntrain: {steps: 9}\n", "bad.yaml: `model` is missing: which model"),
        ("model: []\ntask: static\ntrain: {steps: 9}\n", "bad.yaml: line 1: model: must be a name"),
        ("compare: {model: []}\ntask: static\ntrain: {steps: 9}\n", "bad.yaml: line 1: compare.model: must be a list"),
    ],
)  # fmt: skip
def test_a_section_that_is_missing_or_at_fault_hides_no_other_and_is_one_fault(text: str, part: str) -> None:
    assert part in faults(text)


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("lr: 1e-3", "unknown key 'lr'. Did you mean 'train.lr'?"),
        ("batch_size: 1", "unknown key 'batch_size'. Did you mean 'train.batch'?"),
        ("epochs: 1", "unknown key 'epochs'. Did you mean 'train.steps'?"),
        ("base: {steps: 1}", "A block of your own, for *aliases elsewhere, has a name that begins with x-: x-base"),
        ("num_seeds: 1", "unknown key 'num_seeds'. Did you mean 'seeds'?"),
        ("n_trials: 1", "unknown key 'n_trials'. Did you mean 'search.configurations'?"),
        ("metric: par2", "unknown key 'metric'. Did you mean 'search.objective'?"),
        ("num_workers: 1", "unknown key 'num_workers'. The number of workers follows from the cluster"),
        ("search: {num_samples: 1}", "unknown key 'num_samples'. Did you mean 'configurations'?"),
        ("search: {configurations: 2, metric: par2}", "unknown key 'metric'. Did you mean 'objective'?"),
        ("search: {configurations: 2, space: {train.learning_rate: [1, 2]}}", "Did you mean 'lr'?"),
        ("search: {configurations: 2, space: {train.lr: {choice: [1, 2], when: {train.optimiser: sgd}}}}",
         "no cell has a setting 'train.optimiser'. Did you mean 'train.optimizer'?"),
    ],
)  # fmt: skip
def test_a_word_of_other_tools_is_answered_with_the_word_here(line: str, hint: str) -> None:
    assert hint in faults(f"{SMALL}{line}\n")


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("compare: {x: [{label: a, model.dropout: 0.1}]}", "'model.dropout'. Write it nested: `model: {dropout: ...}`."),
        ("train.lr_decay.rate: 1", "'train.lr_decay.rate'. Write it nested: `train: {lr_decay: {rate: ...}}`."),
        ("compare: {x: [{name: a, train: {lr: 1}}]}", "unknown key 'name'. Did you mean 'label'?"),
        ("steps: 1", "Did you mean 'train.steps'?"),
        ("trials: 1", "Did you mean 'search.configurations'?"),
        ("search: {seed: 1}", "unknown key 'seed'. It belongs to the sampler: `sampler: {name: tpe, seed: 0}`."),
        ("search: {scheduler: asha}", "unknown key 'scheduler'. Every configuration trains to its end"),
        ("search: {direction: minimize}", "It is written with the objective: `objective: {success_rate: maximize}`."),
        ("search: {max_trials: 3}", "Did you mean 'configurations'?"),
        ("search: {algo: tpe}", "Did you mean 'sampler'?"),
        ("search: {configurations: 2, space: {lr: [1, 2]}}", "into model, task or train. Did you mean 'train.lr'?"),
        ("search: {configurations: 2, space: {dropout: [0, 0.1]}}", "Did you mean 'model.dropout'?"),
        ("search: {configurations: 2, space: {batch: [1, 2]}}", "Did you mean 'train.batch'?"),
        ("search: {configurations: 2, space: {thing: [1, 2]}}", "into model, task or train. Such as train.lr"),
        ("compare: {lr: [1e-3, 1e-2]}", "bad.yaml: line 4: compare.lr: is an axis of your own, whose entries are {label:"),
        ("compare: {learning_rate: [1e-3]}", "Did you mean 'train.lr'?"),
        ("compare: {models: [linear, nau]}", "Did you mean 'model'?"),
        ("resources: {ram: 2}", "Did you mean 'memory_gb'?"),
        ("resources: {workers: 2}", "The number of workers follows from the cluster"),
        ("resources: {device: cuda}", "A worker computes on a GPU where `resources: {gpus: 1}` gives it one"),
        ("budget: {minutes: 30}", "half an hour is `hours: 0.5`"),
        ("seeds: {start: 1, count: 2}", "Did you mean 'first'?"),
        ("seeds: {n: 1}", "Did you mean 'count'?"),
    ],
)
def test_a_suggestion_knows_the_section_of_a_word(line: str, hint: str) -> None:
    assert hint in faults(f"{SMALL}{line}\n")


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("train.seeds", "Did you mean 'seeds' at top level?"),
        ("train.gradient_clipping", "Did you mean 'clip_norm'?"),
        ("train.learningRate", "Did you mean 'lr'?"),
        ("train.noise", "Did you mean 'gradient_noise'?"),
        ("train.eval_freq", "Did you mean 'evaluate_every'?"),
        ("train.max_epochs", "Did you mean 'steps'?"),
        ("task.batch_size", "Did you mean 'train.batch'?"),
        ("task.num_inputs", "Did you mean 'input_size'?"),
        ("task.size", "Did you mean 'input_size'?"),
        ("task.op", "Did you mean 'operation'?"),
        ("model.type", "The model is given by its `name`"),
    ],
)
def test_a_suggested_setting_knows_the_section_of_a_word(setting: str, hint: str) -> None:
    with pytest.raises(SweepFileError, match=re.escape(hint)):
        parse(SMALL, "bad.yaml", [f"{setting}=1"])


def test_a_message_does_not_list_fifty_models() -> None:
    found = faults("task: static\nmodel: nua\ntrain: {steps: 9}\n")
    assert "Did you mean 'nau'? Similar: " in found and "`sweeps list models` lists all " in found and len(found) < 300


VALUES = (
    "1e23", "-1", "0", "null", "[]", "{}", "[1, [2]]", "{a: b}", "true", "abc", "1e-60", ".nan", "40%", "./x.py", "os:path",
    "[nau, {name: 3}]", "2020-01-01", "*a", "!!python/object x", "{choice: [1, 2], when: {model.name: nau}}", "dngpu", '"\\0"',
)  # fmt: skip


def mutated(text: str, random: Random) -> str:
    """The text with one line left out, doubled or moved, or one word of it replaced."""
    lines = text.splitlines()
    at = random.randrange(len(lines))
    words = list(re.finditer(r"[\w.%-]+", lines[at]))
    word = random.choice(words)
    new = random.choice((*VALUES, word.group() + "z", random.choice(words).group()))
    changes = (
        [],
        [lines[at]] * 2,
        [" " * random.randrange(6) + lines[at].lstrip()],
        *[[lines[at][: word.start()] + new + lines[at][word.end() :]]] * 4,
    )
    return "\n".join([*lines[:at], *random.choice(changes), *lines[at + 1 :]])


def test_a_mutated_file_is_read_or_refused_with_lines_and_raises_nothing_else() -> None:
    definitions = [path.read_text(encoding="utf-8") for path in sorted(DEFINITIONS.glob("*.yaml"))]
    texts = [re.sub(r"(?m)^\s*(#.*)?\n", "", text) for text in definitions]
    sound = 0
    for seed in range(100):
        random = Random(seed)
        text = mutated(random.choice(texts), random)
        try:
            parse(text, "mutated.yaml")
            sound += 1
        except SweepFileError as error:
            for fault in error.faults:
                assert fault.line or "is missing" in fault.message, f"{fault}\n{text}"
    assert 5 < sound < 60


def test_early_stopping_that_could_stop_the_best_of_the_search_is_refused() -> None:
    text = (
        SMALL
        + "seeds: 20\nsearch: {configurations: 3, SEARCH, space: {train.lr: [1, 2]}}\nearly_stopping: {seeds: {race: [10]}}\n"
    )
    found = faults(text.replace("SEARCH", "objective: [par2, seed_steps]"))
    assert "line 6: early_stopping: decides by one objective, and the search has 2, par2 and seed_steps" in found
    found = faults(text.replace("SEARCH", "constraints: {diverged: {at_most: 0}}"))
    assert "line 6: early_stopping.seeds: could stop a configuration that meets search.constraints" in found
    found = faults(
        text.replace("SEARCH", "objective: [par2, seed_steps]").partition("early")[0] + "budget: {target: {success_rate: 0.5}}"
    )
    assert "line 6: budget.target: ends a search by its best configuration, and of several objectives there is not one" in found
