"""Settings of one lane: defaults, the papers' networks, shares, faults, warnings, and the key of a lane."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lanes import PLAIN

from sweeps.config.faults import Fault
from sweeps.config.registry import find, learnable_task, names
from sweeps.config.settings import build, lane_key, merge, resolve, section, settable_paths, structure
from tasks.static import Static

TRAIN = {"steps": 1000}


def resolved(model: Any = "nau", task: Any = "static", train: Any = TRAIN) -> dict[str, Any]:
    found, faults, _ = resolve({"model": model, "task": task, "train": train})
    assert found is not None, [str(f) for f in faults]
    return found


def faults(model: Any = "nau", task: Any = "static", train: Any = TRAIN) -> list[str]:
    settings, found, warnings = resolve({"model": model, "task": task, "train": train})
    assert (settings is None) == bool(found)
    assert not found or not warnings
    return [str(fault) for fault in found]


def fault(**settings: Any) -> str:
    found = faults(**settings)
    assert len(found) == 1, found
    return found[0]


def test_a_misspelt_word_does_not_hide_what_else_is_wrong() -> None:
    model = {"name": "neural_gpu", "maps": 0, "dropout": 1.5, "dropout_scale": "shorter"}
    found = faults(model, "algorithm", {"steps": 0, "lr": -1, "optimizer": "adamx"})
    for words in ("dropout_scale: must be", "maps = 0", "dropout = 1.5", "optimizer: must be", "steps = 0", "lr = -1"):
        assert any(words in fault for fault in found), (words, found)


def test_a_fault_of_only_some_meanings_of_a_misspelt_word_is_not_reported() -> None:
    """Length 3 is enough to add, and too short for the decimal product of which each digit has four symbols."""
    task = {"name": "algorithm", "operation": "multipl", "bins": [8, 12], "curve_lengths": [5]}
    assert "task.operation: must be" in fault(model="dngpu", task=task)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """A Config of a user's, for the ways in which it may raise its faults."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        found = []
        if self.low < 0:
            found.append(f"low = {self.low} must be at least 0; for no bound leave it out")
        if self.high > 1:
            found.append("high must be at most 1")
        if not self.low < self.high:
            found.append("the bounds must be in order")
        if found:
            raise ValueError(*found)


@dataclass(frozen=True, kw_only=True)
class Nested:
    """A Config within a Config."""

    bounds: Bounds = field(default_factory=Bounds)


def test_every_argument_of_a_config_s_error_is_a_fault_of_its_own_setting() -> None:
    _, found = section(Bounds, {"low": -1, "high": 2}, "model", None)
    low = Fault("model.low", "low = -1.0 must be at least 0; for no bound leave it out")
    assert found == [low, Fault("model.high", "high must be at most 1")]
    _, found = section(Nested, {"bounds": {"low": 1}}, "model", None)
    assert found == [Fault("model.bounds", "the bounds must be in order")]


def test_names_alone_get_every_default() -> None:
    found = resolved("linear")
    assert found["model"] == {
        "name": "linear", "network": "two_layer", "units": [{"name": "linear"}, {"name": "linear"}], "hidden": 2,
        "dropout": 0.0, "out_of_bound_penalty": None, "input_penalty": None,
        "sparsity_penalty": {"weight": 0.0, "start": 1e6, "end": 2e6, "schedule": "linear"},
    }  # fmt: skip
    assert found["task"] == {
        "name": "static", "operation": "add", "input_size": 100, "subset_ratio": 0.25, "overlap_ratio": 0.5,
        "num_subsets": 2, "simple": False, "interpolation": [1.0, 2.0], "extrapolation": [2.0, 6.0],
    }  # fmt: skip
    assert found["train"] == {
        "steps": 1000, "batch": 128, "optimizer": "adam", "lr": 1e-3,
        "lr_decay": {"rule": "never", "factor": 0.7, "floor": 0.0, "period": 200},
        "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8,
        "momentum": 0.0, "gradient_noise": 0.0, "clip_norm": 0.0, "clip_value": 0.0,
        "products": "float32", "evaluate_every": 1000, "stop": "never",
    }  # fmt: skip


def test_every_model_resolves_to_plain_data_that_resolves_to_itself() -> None:
    for model in names("model"):
        found = resolved(model, learnable_task(model))
        assert json.loads(json.dumps(found)) == found, model
        assert resolved(**found) == found, model


@pytest.mark.parametrize(
    ("model", "units", "penalty"),
    [
        ("nau", ["nau", "nau"], {"weight": 0.01, "start": 5e3, "end": 5e4, "schedule": "linear"}),
        ("nmu", ["nau", "nmu"], {"weight": 10.0, "start": 1e6, "end": 2e6, "schedule": "linear"}),
        ("nac_mul", ["nac", "nac_mul"], {"weight": 0.0, "start": 1e6, "end": 2e6, "schedule": "linear"}),
        ("relu", ["relu", "linear"], {"weight": 0.0, "start": 1e6, "end": 2e6, "schedule": "linear"}),
        ("nalu", ["nalu", "nalu"], {"weight": 0.0, "start": 1e6, "end": 2e6, "schedule": "linear"}),
    ],
)
def test_a_models_name_stands_for_the_papers_network_and_schedule(model, units, penalty) -> None:
    found = resolved(model)["model"]
    assert [unit["name"] for unit in found["units"]] == units
    assert found["sparsity_penalty"] == penalty


def test_part_of_a_penalty_leaves_the_rest_as_published() -> None:
    found = resolved({"name": "nmu", "sparsity_penalty": {"weight": 1}})
    assert found["model"]["sparsity_penalty"] == {"weight": 1.0, "start": 1e6, "end": 2e6, "schedule": "linear"}


def test_a_setting_reaches_every_unit_that_has_it() -> None:
    units = resolved({"name": "nmu", "clamp": False, "lower": 0.25})["model"]["units"]
    assert units == [
        {"name": "nau", "clamp": False, "penalty": "linear"},
        {"name": "nmu", "clamp": False, "penalty": "linear", "lower": 0.25},
    ]


def test_units_may_be_given_one_by_one_each_with_its_own_settings() -> None:
    found = resolved({"units": [{"name": "nau", "clamp": False}, "nmu"]})["model"]
    assert found["name"] == "nau+nmu"
    assert found["units"] == [
        {"name": "nau", "clamp": False, "penalty": "linear"},
        {"name": "nmu", "clamp": True, "penalty": "linear", "lower": 0.0},
    ]


@pytest.mark.parametrize(("given", "steps"), [("40%", 400.0), (" 12.5% ", 125.0), (250, 250.0), (1e2, 100.0)])
def test_a_schedule_may_be_steps_or_a_share_of_the_budget(given, steps) -> None:
    found = resolved({"name": "nau", "sparsity_penalty": {"start": given, "end": "90%"}})
    assert found["model"]["sparsity_penalty"] == {"weight": 0.01, "start": steps, "end": 900.0, "schedule": "linear"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "nua"}, "model: no model named 'nua'. Did you mean 'nau'?"),
        ({"model": {"name": "nua"}}, "model.name: no model named 'nua'. Did you mean 'nau'?"),
        ({"model": "dngppu", "task": "algorithm"}, "model: no model named 'dngppu'. Did you mean 'dngpu'?"),
        ({"model": "nmu", "task": "algorithm"}, "model: nmu cannot learn task algorithm, where a model is a whole network"),
        ({"model": {"units": ["nau"]}, "task": "algorithm"}, "model.name: a list of units cannot learn task algorithm"),
        ({"model": {"units": ["dngpu", "nau"]}}, "model.units.0: dngpu is a whole network, and no unit that"),
        ({"task": "statics"}, "task: no task named 'statics'. Did you mean 'static'?"),
        ({"model": {"name": "nau", "hiden": 3}}, "model.hiden: is not a setting here. Did you mean 'hidden'? Known: "),
        ({"model": {"name": "nau", "lower": 0}}, "model.lower: is not a setting here."),
        ({"model": {"name": "nmu", "clmap": 0}}, "model.clmap: is not a setting here. Did you mean 'clamp'?"),
        ({"task": {"name": "static", "operations": "mul"}}, "task.operations: is not a setting here. Did you mean "
                                                             "'operation'?"),
        ({"train": {"steps": 9, "learning_rate": 1}}, "train.learning_rate: is not a setting here. Did you mean 'lr'? Known: "),
        ({"train": {"steps": 9, "learning-rate": 1}}, "train.learning-rate: is not a setting here. Did you mean 'lr'?"),
        ({"train": {"steps": 9, "batch_size": 1}}, "train.batch_size: is not a setting here. Did you mean 'batch'?"),
        ({"train": {"steps": 9, "eps": 1}}, "train.eps: is not a setting here. Did you mean 'epsilon'?"),
        ({"train": {"steps": 9, "weight_decay": 1}}, "train.weight_decay: is not a setting here. There is no weight decay;"),
        ({"train": {"steps": 9, "dropout_rate": 1}}, "train.dropout_rate: is not a setting here. Did you mean 'model.d"),
        ({"model": {"name": "nau", "dropout_rate": 1}}, "model.dropout_rate: is not a setting here. Did you mean 'dropout'?"),
        ({"model": {"name": "nau", "lr": 1}}, "model.lr: is not a setting here. Did you mean 'train.lr'?"),
        ({"model": {"units": ["nua", "nmu"]}}, "model.units.0: no model named 'nua'. Did you mean 'nau'?"),
        ({"model": {"name": "nau", "sparsity_penalty": {"strat": 1}}},
         "model.sparsity_penalty.strat: is not a setting here. Did you mean 'start'?"),
        ({"model": {"name": "nmu", "units": ["nau"]}}, "model.units: network two_layer takes 2 units, but got 1"),
        (
            {"model": {"name": "nmu", "network": "dngpu"}},
            "model.network: dngpu is a whole network, which arranges no unit nmu: write `model: dngpu`",
        ),
        ({"model": {"units": [{"name": "nau", "clmp": 1}, "nmu"]}}, "model.units.0.clmp: is not a setting here."),
        ({"train": None}, "train.steps: is missing"),
        ({"train": {"steps": 1.5}}, "train.steps: input should be a valid integer, but got 1.5"),
        ({"train": {"steps": "1000"}}, "train.steps: input should be a valid integer, but got '1000'"),
        ({"train": {"steps": True}}, "train.steps: input should be a valid integer, but got True"),
        ({"train": {"steps": 9, "lr": "fast"}}, "train.lr: input should be a valid number, but got 'fast'"),
        ({"train": {"steps": 9, "optimizer": "adamw"}},
         "train.optimizer: must be 'adam', 'adamax' or 'sgd', but got 'adamw'. Did you mean 'adam'?"),
        ({"train": {"steps": 9, "beta1": 1}}, "train.beta1: beta1 = 1.0 must lie in [0, 1)"),
        ({"train": [1]}, "train: must be a mapping, but got [1]"),
        ({"model": {"name": "nmu", "lower": 2}}, "model.lower: lower = 2.0 must lie in [0, 1)"),
        ({"model": {"name": "nau", "dropout": 1}}, "model.dropout: dropout = 1.0 must lie in [0, 1)"),
        ({"model": {"name": "nau", "dropout": "40%"}}, "model.dropout: input should be a valid number, but got '40%'"),
        ({"model": {"name": "nau", "sparsity_penalty": {"start": "half"}}},
         "model.sparsity_penalty.start: must be steps or a share of train.steps such as 40%, but got 'half'"),
        ({"model": {"name": "nau", "sparsity_penalty": {"start": 9, "end": 3}}},
         "model.sparsity_penalty: 0 <= start < end must hold, but got start = 9.0, end = 3.0"),
        ({"model": {"name": "nau", "sparsity_penalty": {"weight": -1}}},
         "model.sparsity_penalty.weight: weight = -1.0 must be at least 0"),
        ({"model": None}, "model: must be a name or a mapping with `name`, but got None"),
        ({"model": {"name": 3}}, "model.name: must be a name, but got 3"),
        ({"task": {}}, "task.name: must be a name, but got None"),
        ({"task": {"name": "static", "input_size": 3}}, "task.subset_ratio: subset_ratio = 0.25 of input_size = 3 is an empty"),
    ],
)  # fmt: skip
def test_a_fault_has_its_path_and_the_nearest_name(settings, message) -> None:
    assert fault(**settings).startswith(message)


@pytest.mark.parametrize(
    ("model", "path"),
    [({"network": 3}, "model.network"), ({"network": ["two_layer"]}, "model.network"), ({"units": 3}, "model.units"),
     ({"units": "nau"}, "model.units"), ({"units": {"name": "nau"}}, "model.units")],
)  # fmt: skip
def test_a_network_or_units_of_a_wrong_type_are_a_fault_and_no_exception(model, path) -> None:
    assert fault(model={"name": "nau", **model}).startswith(f"{path}: must be ")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("path", ["train.lr", "train.gradient_noise", "model.sparsity_penalty.end", "task.extrapolation.1"])
def test_a_number_that_is_not_finite_is_a_fault(path, value) -> None:
    settings: dict[str, Any] = {
        "model": {"name": "nau", "sparsity_penalty": {}},
        "task": {"name": "static"},
        "train": dict(TRAIN),
    }
    section, *keys = path.split(".")
    if section == "task":
        settings["task"]["extrapolation"] = [2, value]
    else:
        inner = settings[section]
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
    assert f"{path}: must be a finite number, but got {value}" in faults(**settings)


@pytest.mark.parametrize("given", [[1, 2, 3], [[1, 2]], [[1, 2], [3, 4], [5, 6]], [1, [2, 3]], 1, "a"])
def test_a_range_of_another_form_is_one_fault_with_the_allowed_forms(given) -> None:
    assert fault(task={"name": "static", "interpolation": given}) == (
        f"task.interpolation: must be [number, number] or [[number, number], [number, number]], but got {given!r}"
    )


def test_all_faults_are_returned_at_once() -> None:
    found = faults({"name": "nau", "hiden": 2}, {"name": "static", "operation": "plus"}, {"steps": 5, "lr": "fast", "stepz": 1})
    paths = [f.partition(":")[0] for f in found]
    assert paths == ["train.stepz", "train.lr", "task.operation", "model.hiden"]
    assert faults(train={"steps": 0, "lr": 0}) == [
        "train.steps: steps = 0 must be at least 1",
        "train.lr: lr = 0.0 must be above 0",
    ]


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
anything = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=5
)
PATHS = ("model", "task", "train", "model.network", "model.units", "train.lr", "task.interpolation")


@given(anything, st.sampled_from(PATHS))
def test_no_input_makes_it_raise(value, path) -> None:
    settings: dict[str, Any] = {"model": {"name": "nau"}, "task": {"name": "static"}, "train": dict(TRAIN)}
    section, _, key = path.partition(".")
    settings[section] = {**settings[section], key: value} if key else value
    found, wrong, _ = resolve(settings)
    assert (found is None) == bool(wrong)


@pytest.mark.parametrize(("steps", "warned"), [(5000, True), (5001, False)])
def test_a_penalty_that_starts_after_the_end_is_a_warning(steps, warned) -> None:
    _, _, warnings = resolve({"model": "nau", "task": "static", "train": {"steps": steps}})
    message = "model.sparsity_penalty.start: the penalty starts at step 5k, but training ends at 5k: it never acts. Shares of "
    message += "the steps fit always: model.sparsity_penalty.start=40% model.sparsity_penalty.end=60%"
    assert [str(w) for w in warnings] == ([message] if warned else [])
    model = {"name": "nau", "sparsity_penalty": {"start": "40%", "end": "60%"}}
    assert resolve({"model": model, "task": "static", "train": {"steps": steps}})[2] == []


def test_a_penalty_that_is_off_is_no_warning() -> None:
    assert resolve({"model": "linear", "task": "static", "train": {"steps": 5}})[2] == []


def test_explicit_settings_build_the_objects_that_they_stand_for() -> None:
    built = build(resolved({"name": "nmu", "lower": 0.125, "hidden": 3}, {"name": "static", "input_size": 10}))
    model = built.model()
    assert [tuple(p.shape) for p in model.parameters()] == [(3, 10), (1, 3)]
    assert built.units[1][1].lower == 0.125
    assert built.task.num_inputs == 10 and built.train.steps == 1000


def reversed_keys(node: Any) -> Any:
    return {k: reversed_keys(v) for k, v in reversed(node.items())} if isinstance(node, Mapping) else node


def test_neither_order_nor_name_nor_budget_changes_a_lanes_key() -> None:
    found = resolved("nmu", train={"steps": 2_000_000})
    key = lane_key(found, 3, PLAIN)
    assert len(key) == 64
    assert lane_key(reversed_keys(found), 3, PLAIN) == key
    assert lane_key(resolved({"units": ["nau", "nmu"], "sparsity_penalty": {"weight": 10}}), 3, PLAIN) == key
    assert lane_key(resolved({"name": "nmu", "label": "ours"}, train={"steps": 5}), 3, PLAIN) == key


@pytest.mark.parametrize(
    "change",
    [
        {"train": {"lr": 0.002}}, {"train": {"batch": 64}}, {"train": {"stop": "solved"}},
        {"task": {"operation": "mul"}}, {"task": {"extrapolation": [2, 7]}}, {"model": {"hidden": 3}},
        {"model": {"clamp": False}}, {"model": {"sparsity_penalty": {"end": 6e4}}},
    ],
)  # fmt: skip
def test_a_setting_that_changes_a_lanes_numbers_changes_its_key(change) -> None:
    plain = {"model": {"name": "nau"}, "task": {"name": "static"}, "train": TRAIN}
    assert lane_key(resolved(**merge(plain, change)), 0, PLAIN) != lane_key(resolved(**plain), 0, PLAIN)


def test_lanes_whose_products_differ_in_precision_have_keys_and_packs_of_their_own() -> None:
    found = [resolved("dngpu", "algorithm", {**TRAIN, "products": products}) for products in ("float32", "tf32", "bf16")]
    assert len({lane_key(one, 0, PLAIN) for one in found}) == len({structure(one) for one in found}) == 3


def test_a_network_that_repeats_no_cell_has_float32_products() -> None:
    assert faults("nau", train={**TRAIN, "products": "tf32"}) == [
        "train.products: must be float32 for network two_layer, which repeats no cell, but got 'tf32'"
    ]


def test_seeds_and_versions_change_a_lanes_key(monkeypatch) -> None:
    found = resolved("nau")
    keys = {lane_key(found, seed, PLAIN) for seed in range(5)}
    for kind, name in (("model", "nau"), ("network", "two_layer"), ("task", "static")):
        with monkeypatch.context() as patch:
            patch.setattr(find(kind, name), "version", 99)  # type: ignore[arg-type]
            keys.add(lane_key(found, 0, PLAIN))
    assert len(keys) == 8


def test_the_engines_version_the_kind_of_device_and_the_compiler_change_a_lanes_key() -> None:
    """A compiled step rounds otherwise, as does another width of the vector registers."""
    numerics = [PLAIN, replace(PLAIN, compiled=True), replace(PLAIN, device="cuda"), replace(PLAIN, version=99)]
    assert len({lane_key(resolved("nau"), 0, one) for one in numerics}) == 4


def test_a_share_of_another_budget_is_another_lane() -> None:
    relative = {"name": "nau", "sparsity_penalty": {"start": "10%", "end": "50%"}}
    short, long = resolved(relative), resolved(relative, train={"steps": 2000})
    assert lane_key(short, 0, PLAIN) != lane_key(long, 0, PLAIN)


def test_the_leaves_that_a_file_may_set_are_named_once() -> None:
    paths = settable_paths(resolved("nmu"))
    assert {"model.clamp", "model.lower", "model.sparsity_penalty.weight", "train.lr", "task.extrapolation"} <= set(paths)
    assert len(paths) == len(set(paths)) and not any("units." in path for path in paths)


def test_merging_is_deep_and_leaves_its_arguments_alone() -> None:
    base = {"a": {"b": 1, "c": 2}, "d": 3}
    before = copy.deepcopy(base)
    assert merge(base, {"a": {"b": 9}, "d": {"e": 4}}) == {"a": {"b": 9, "c": 2}, "d": {"e": 4}}
    assert base == before


# ---------------------------------------------------------------------------------------------- warnings


def warnings(task: Any, model: str = "linear", **train: Any) -> list[str]:
    settings, faults, found = resolve({"model": model, "task": task, "train": {"steps": 1000, **train}})
    assert settings is not None, [str(fault) for fault in faults]
    return [str(warning) for warning in found]


@pytest.mark.parametrize(
    ("task", "model"),
    [("identity", "linear"), ("pair_functions", "nalu"), ("number_words", "lstm"), ("sequential_digits", "nac")],
)
def test_stopping_at_solved_is_a_warning_where_a_task_has_no_threshold(task, model) -> None:
    (warning,) = warnings(task, model, stop="solved")
    assert warning.startswith(f"train.stop: task {task} has no threshold") and "no lane is ever solved" in warning
    assert warnings(task, model) == []


def test_stopping_at_solved_is_no_warning_where_there_is_a_threshold() -> None:
    assert warnings("static", stop="solved") == []
    assert warnings("single_module", stop="solved") == []
    digits = {"name": "sequential_digits", "test_lengths": [1], "thresholds": [0.1]}
    assert warnings(digits, "nac", stop="solved") == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"operation": "add", "subset_ratio": 0.5, "overlap_ratio": 0.0}, "equal errors of all weights cancel"),
        ({"operation": "sub", "overlap_ratio": 1.0}, "sub always gives 0"),
        ({"operation": "div", "overlap_ratio": 1.0}, "div always gives 1"),
        ({"operation": "mul", "subset_ratio": 0.5, "overlap_ratio": 0.0}, None),
        ({"operation": "add", "subset_ratio": 0.5, "overlap_ratio": 0.5}, None),
        ({"operation": "add", "simple": True}, None),
    ],
)
def test_a_threshold_that_nothing_can_reach_is_a_warning_and_no_other(settings, message) -> None:
    task = Static(Static.Config(**settings))
    assert (task.threshold() < 1e-20) == (message is not None)
    for name in ("static", "recurrent"):
        found = warnings({"name": name, **settings})
        assert len(found) == (message is not None) and all(message in warning for warning in found)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"operation": "sort", "base": 10}, "base = 10 changes nothing: it is a setting of add and multiply, not of sort"),
        ({"operation": "bcd_multiply", "symbols": 9}, "symbols = 9 changes nothing"),
        ({"operation": "increment", "high_zeros": "kept"}, "high_zeros = kept changes nothing"),
        ({"operation": "add", "base": 10, "high_zeros": "kept"}, None),
        ({"operation": "sort", "symbols": 9}, None),
    ],
)
def test_a_setting_that_an_operation_does_not_have_is_a_warning(settings: dict[str, Any], message: str | None) -> None:
    found = warnings({"name": "algorithm", **settings}, "dngpu")
    assert len(found) == (message is not None) and all(str(message) in warning for warning in found)


def test_tests_that_repeat_training_examples_are_a_warning() -> None:
    # Binary numbers of 6 digits: 4,096 pairs, all of them among at most 10,000 training examples. Of 7 digits: 16,384.
    (warning,) = warnings({"name": "algorithm", "operation": "add", "test_length": 13}, "dngpu")
    assert "every example of length 13 is trained on, so the extrapolation split repeats them" in warning
    assert warnings({"name": "algorithm", "operation": "add", "test_length": 15}, "dngpu") == []
    fewer = {"operation": "add", "test_length": 13, "examples_per_length": 1000}
    assert warnings({"name": "algorithm", **fewer}, "dngpu") == []
