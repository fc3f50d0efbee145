"""Trained models as plain modules: their outputs are those that the engine evaluated. Nothing is compiled."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import call, train_in_process
from lanes import finish, lanes_of, pack_of, resolved, settings_of, train
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sample_sweeps import UNIT

from sweeps.checking.models import NetworkSubject, UnitSubject
from sweeps.config.registry import clear_cache, names
from sweeps.config.settings import build, float_leaves
from sweeps.config.sweep_file import parse
from sweeps.errors import StoreError, UserError
from sweeps.models import ATS, TrainedModel, evaluate, load_model, read_weights, trained_models
from sweeps.results import report
from sweeps.runner.driver import Driver
from sweeps.store import Store
from sweeps.training.lane import Checkpoint, Lane, LaneResult
from sweeps.training.numerics import Numerics
from sweeps.training.state import LaneState, best_of, from_bytes, initial_state, state_without_weights, tensors_of
from sweeps.training.step import LaneFunctions

CPU = torch.device("cpu")
CATALOG = [*names("model"), *(name for name in names("network") if name != "image_recurrent")]
SWEEP = """
name: small
task: {name: static, operation: add, input_size: 10}
train: {steps: 30, batch: 8, evaluate_every: 10, lr: 0.05}
compare: {model: [nau, linear]}
seeds: 3
search: {configurations: 2, space: {train.lr: {log_uniform: [1e-3, 1e-1]}}, sampler: {name: random, seed: 0}}
"""


def trained(folder: Path, text: str = SWEEP) -> Store:
    store, sweep = Store(folder), parse(text, "small.yaml")
    with store.hold(sweep.name):
        store.begin_sweep(sweep.name, sweep.text, sweep.document, str(Numerics.here("cpu")))
        driver = Driver(sweep, sweep.name, store, None, 1)
        driver.begin()
        train_in_process(driver)
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with trained(tmp_path_factory.mktemp("store")) as opened:
        yield opened


def small_settings(name: str, **training: Any) -> dict[str, Any]:
    """Settings of a small lane of a unit or a network of the catalog."""
    subject = UnitSubject(name) if name in names("model") else NetworkSubject(name)
    settings, faults = subject.resolved()
    assert settings is not None, faults
    return {**settings, "train": {**settings["train"], **training}}


def module_of(settings: dict[str, Any], state: LaneState, seed: int) -> TrainedModel:
    model = TrainedModel(settings, {"seed": seed})
    model.take(best_of(state))
    return model


def best_module(settings: dict[str, Any], result: LaneResult) -> TrainedModel:
    assert result.state is not None
    state, _, _, best = from_bytes(result.state, state_without_weights(build(settings), CPU))
    return module_of(settings, best_of(state) if best is None else best, result.seed)


def assert_found_again(model: TrainedModel, result: LaneResult) -> None:
    found = evaluate(model)
    for split, error in result.error.items():
        assert error is not None and found[f"error.{split}"] == pytest.approx(error, rel=1e-4)
    if result.sparsity_error is not None:
        assert found["sparsity_error"] == pytest.approx(result.sparsity_error, rel=1e-5, abs=1e-7)


# ------------------------------------------------------------------------------------------- the catalog


@pytest.mark.parametrize("name", CATALOG)
def test_a_plain_module_computes_what_the_engine_evaluates(name: str) -> None:
    settings = small_settings(name)
    built = build(settings)
    state = initial_state(built, 7, CPU)
    task = built.task
    x = {split: task.evaluation_inputs(split) for split in task.splits}
    inputs = tensors_of(x, CPU)
    targets = tensors_of({split: task.truth(x[split], 7) for split in task.splits}, CPU)
    floats = {path: torch.tensor(value) for path, value in float_leaves(settings).items()}
    functions, shared = LaneFunctions(built, frozenset()), tensors_of(task.shared(), CPU)
    with torch.no_grad():
        expected = functions.evaluate(state["params"], state["memory"], floats, inputs, targets, shared)
    found = evaluate(module_of(settings, state, 7))
    for measure, value in expected.items():
        assert measure in found or value.isnan()
        if measure in found:
            assert found[measure] == pytest.approx(value.item(), rel=1e-5, nan_ok=True), measure


@pytest.mark.slow
@pytest.mark.parametrize("name", CATALOG)
def test_the_error_in_a_record_is_found_again_from_the_weights_in_it(name: str) -> None:
    settings = small_settings(name, steps=4, evaluate_every=2)
    result = train(lanes_of(settings, [3]))["seed 3"]
    assert result.outcome != "error", result.reason
    assert_found_again(best_module(settings, result), result)


# ------------------------------------------------------------------------------------------- the state at the best evaluation


@pytest.mark.parametrize(
    ("settings", "outcome"),
    [
        (settings_of("nau", steps=40, evaluate_every=10, lr=0.5), "unsolved"),
        (settings_of("linear", steps=30, lr=0.1, optimizer="sgd", evaluate_every=2), "diverged"),
        pytest.param(settings_of("inalu", steps=30, evaluate_every=10), "unsolved", marks=pytest.mark.slow),
    ],
    ids=["far from its best", "diverged", "with restarts"],
)
def test_a_record_holds_the_weights_of_its_best_evaluation(settings: dict[str, Any], outcome: str) -> None:
    for result in train(lanes_of(settings, range(2))).values():
        assert result.outcome == outcome
        assert_found_again(best_module(settings, result), result)


def test_so_does_one_that_was_stopped_when_it_was_solved(monkeypatch) -> None:
    from tasks.static import Static

    monkeypatch.setattr(Static, "threshold", lambda self: 100.0)
    settings = settings_of("nau", steps=200, evaluate_every=10, lr=0.02, stop="solved")
    for result in train(lanes_of(settings, range(2))).values():
        assert result.solved and 0 < result.steps < 200
        assert_found_again(best_module(settings, result), result)


def test_so_does_one_that_was_continued_from_a_checkpoint_and_one_that_was_extended() -> None:
    settings = settings_of("nau", steps=60, evaluate_every=10, lr=0.5)
    pack = pack_of(lanes_of(settings, [0]))
    for _ in range(3):
        assert not pack.advance()
    continued = train([Lane("seed 0", settings, 0, pack.checkpoints()["seed 0"])])["seed 0"]
    assert_found_again(best_module(settings, continued), continued)
    longer = {**settings, "train": {**settings["train"], "steps": 90}}
    assert continued.state is not None
    extended = train([Lane("seed 0", longer, 0, Checkpoint(continued.steps, continued.state))])["seed 0"]
    assert (extended.steps, extended.budget) == (90, 90)
    assert_found_again(best_module(longer, extended), extended)


def test_of_a_task_without_interpolation_it_is_the_last_evaluation_also_where_the_lane_diverges(monkeypatch) -> None:
    from tasks.static import Static

    monkeypatch.setattr(Static, "splits", ("extrapolation",))
    settings = settings_of("linear", steps=30, lr=0.1, optimizer="sgd", evaluate_every=3)
    for result in finish(pack_of(lanes_of(settings, range(2)))).values():
        assert list(result.error) == ["extrapolation"] and result.outcome == "diverged"
        assert_found_again(best_module(settings, result), result)


# ------------------------------------------------------------------------------------------- from a store


def test_every_seed_of_a_sweep_is_a_module_whose_errors_are_those_of_its_record(store: Store) -> None:
    for one in report(store, "small").configurations:
        for result in one.results:
            where = {"store": store.location, "cell": one.configuration.cell, "configuration": one.configuration.number}
            best = load_model("small", seed=result.seed, **where)
            assert best.about["error"] == result.error and best.about["step"] == result.best_step
            assert_found_again(best, result)
            last = load_model("small", seed=result.seed, at="end", **where)
            assert last.about["step"] == result.steps
            for split, error in last.about["error"].items():
                assert result.curve[f"error.{split}"][-1] == error
                assert evaluate(last)[f"error.{split}"] == pytest.approx(error, rel=1e-4)


def test_without_a_seed_it_is_the_best_one_of_the_best_configuration(store: Store) -> None:
    best = report(store, "small").configurations
    ranked = [one for one in best if one.rank == 1]
    model = load_model("small", store=store.location, cell="linear")
    one = next(one for one in ranked if one.configuration.cell == "model=linear")
    lowest = min(one.results, key=lambda result: result.error["extrapolation"])
    assert (model.about["configuration"], model.about["seed"]) == (one.configuration.number, lowest.seed)


def test_a_module_is_one_like_any_other(store: Store, tmp_path: Path) -> None:
    model = load_model("small", store=store.location)
    x = torch.rand(5, 10, requires_grad=True)
    y = model(x)
    assert y.shape == (5, 1) and not model.training
    y.sum().backward()
    assert x.grad is not None and all(parameter.grad is not None for parameter in model.parameters())
    torch.save(model, tmp_path / "whole.pt")
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    whole = torch.load(tmp_path / "whole.pt", weights_only=False)
    again = TrainedModel(model.settings)
    again.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    for other in (whole, again, copy.deepcopy(model)):
        assert torch.equal(other(x), y)
    assert whole.about == model.about
    first = next(model.parameters()).requires_grad_(False)
    assert [parameter.requires_grad for parameter in copy.deepcopy(model).parameters()][:2] == [False, True]
    first.requires_grad_(True)
    double = model.double()
    assert double(x.double()).dtype == torch.float64 and copy.deepcopy(double)(x.double()).dtype == torch.float64


def test_weights_that_two_names_share_are_taken_once() -> None:
    settings = small_settings("nau")
    model = TrainedModel(settings, {"seed": 0})
    model.network.alias = model.network.first  # a network of a user's own may use a layer twice
    assert any("alias" in name for name in model.state_dict())
    state = initial_state(build(settings), 3, CPU)
    model.take(best_of(state))
    assert torch.equal(model.network.alias.weight, state["params"]["first.weight"])


def test_a_parameter_with_two_names_is_one_in_a_copy_too(folder: Path) -> None:
    """A unit of a user's own may have it."""
    own = "\n    def __init__(self, *given):\n        super().__init__(*given)\n        self.also = self.weight\n"
    (folder / "tied.py").write_text(UNIT + own)
    model = TrainedModel(resolved("./tied.py", {"name": "static", "input_size": 10}, steps=10))
    again = copy.deepcopy(model)
    assert len(list(again.parameters())) == len(list(model.parameters())) < len(model.state_dict())


def test_a_file_with_the_name_of_a_sweep_is_not_taken_for_it(store: Store, folder: Path) -> None:
    (folder / "small").write_text("no weights")
    assert load_model("small", store=store.location, cell="nau").about["sweep"] == "small"
    with pytest.raises(UserError, match="is no safetensors file"):
        load_model("./small")


def test_a_wrong_number_of_inputs_is_named(store: Store) -> None:
    with pytest.raises(ValueError, match=r"takes \[rows, 10\], but got \[4, 3\]"):
        load_model("small", store=store.location)(torch.rand(4, 3))
    with pytest.raises(TypeError, match=r"takes a tensor, but got a list: model\(torch.as_tensor"):
        load_model("small", store=store.location)([[0.0] * 10])


def test_symbols_may_be_one_tensor_or_several(tmp_path: Path) -> None:
    settings = small_settings("dngpu")
    model = TrainedModel(settings)
    x = torch.ones(2, 8, dtype=torch.int64)
    assert model(x).shape == (2, 8, model.task.num_outputs)
    assert torch.equal(model((x,))[0], model(x))


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"seed": 7}, "configuration . of sweep 'small' has no finished seed 7. It has: 0 to 2"),
        ({"configuration": 5, "cell": "nau"}, "has no configuration 5. It has: 0 to 1"),
        ({"configuration": 0}, "configuration 0 of sweep 'small' is in several cells: name one of 'model=nau', 'model=linear'"),
        ({"cell": "naw"}, "has no cell 'naw'. Did you mean 'model=nau'"),
        ({"at": "last"}, "at is 'last'; it must be best or end"),
        ({"seed": "1"}, "seed is '1', which must be a whole number"),
        ({"configuration": 0.5}, "configuration is 0.5, which must be a whole number"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(store: Store, chosen: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_model("small", store=store.location, **chosen)


def test_a_sweep_without_a_finished_configuration_has_no_model_yet(tmp_path: Path) -> None:
    with Store(tmp_path) as opened:
        sweep = parse(SWEEP, "small.yaml")
        opened.begin_sweep("small", sweep.text, sweep.document)
        with pytest.raises(UserError, match="no complete configuration"):
            trained_models(opened, "small")
        with pytest.raises(StoreError, match="no sweep named 'smal'. Did you mean 'small'"):
            trained_models(opened, "smal")


def test_a_unit_of_the_users_own_is_found_where_the_settings_name_it(folder: Path, monkeypatch) -> None:
    (folder / "my_unit.py").write_text(UNIT)
    text = SWEEP.partition("compare")[0] + "model: ./my_unit.py\nseeds: 1\n"
    with trained(folder / "own", text) as opened:
        result = report(opened, "small").configurations[0].results[0]
    assert_found_again(load_model("small", store=folder / "own", seed=result.seed), result)
    assert call("export", "small", "--store", "own", "--weights", "own.safetensors").err == ""
    (folder / "my_unit.py").write_text(UNIT.replace("return x\n", "return 2 * x\n", 1))
    clear_cache()
    for load in (lambda: load_model("small", store=folder / "own"), lambda: load_model(folder / "own.safetensors")):
        with pytest.warns(UserWarning, match=r"\./my_unit\.py: the code is not what trained these weights"):
            load()
    assert "note: ./my_unit.py: the code is not what" in call("predict", "own.safetensors").err
    (folder / "my_unit.py").write_text(UNIT)
    clear_cache()
    model = load_model("small", store=folder / "own")
    torch.save(model, folder / "own.pt")
    x = torch.ones(1, 10)
    (folder / "saved" / "code").mkdir(parents=True)
    (folder / "my_unit.py").rename(folder / "saved" / "code" / "my_unit.py")
    clear_cache()
    with pytest.raises(UserError, match=r"no file my_unit.py"):
        torch.load(folder / "own.pt", weights_only=False)
    monkeypatch.syspath_prepend(folder / "saved" / "code")  # as MLflow does with the files that it saves beside a model
    assert torch.equal(torch.load(folder / "own.pt", weights_only=False)(x), model(x))


# ------------------------------------------------------------------------------------------- files


def exported(store: Store, file: Path, *options: str) -> Path:
    answer = call("export", "small", "--weights", str(file), "--cell", "nau", *options, "--store", store.location)
    assert answer.status == 0, answer.err
    return file


def test_a_file_has_the_names_of_the_modules_state_dict_and_what_it_is_of(store: Store, tmp_path: Path) -> None:
    file = exported(store, tmp_path / "one.safetensors", "--seed", "1", "--at", "best")
    model = load_model(file)
    plain = TrainedModel(model.settings)
    plain.load_state_dict(load_file(file))  # names without any prefix
    x = torch.rand(3, 10)
    expected = load_model("small", store=store.location, cell="nau", seed=1)
    assert torch.equal(model(x), expected(x)) and torch.equal(plain(x), expected(x))
    assert model.about == expected.about
    with safe_open(file, "pt") as opened:
        about = json.loads(opened.metadata()["sweeps"])
    assert about["settings"]["model"]["name"] == "nau" and about["models"][0]["seed"] == 1
    assert {"outcome", "threshold", "error", "key", "step"} <= about["models"][0].keys()
    assert about["models"][0]["provenance"].keys().isdisjoint({"host", "hostname"})


def test_a_file_of_all_seeds_has_a_prefix_for_each_and_both_states_where_they_differ(store: Store, tmp_path: Path) -> None:
    file = exported(store, tmp_path / "all.safetensors")
    prefixes = {".".join(name.split(".")[:2]) for name in load_file(file)}
    assert {"seed_0.best", "seed_1.best", "seed_2.best"} <= prefixes
    for seed, at in itertools.product(range(3), ATS):
        model = load_model(file, seed=seed, at=at)
        expected = load_model("small", store=store.location, cell="nau", seed=seed, at=at)
        for tensor, same in zip(model.parameters(), expected.parameters(), strict=True):
            assert torch.equal(tensor, same)
        assert (f"seed_{seed}.end" in prefixes) == (len(model.about["at"]) == 1)
    assert load_model(file).about["seed"] == load_model("small", store=store.location, cell="nau").about["seed"]


def changed(file: Path, about: Any = None, tensors: Any = None) -> Path:
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    description = json.loads(metadata["sweeps"])
    if about is not None:
        about(description)
    loaded = load_file(file)
    if tensors is not None:
        tensors(loaded)
    save_file(loaded, file, {"sweeps": json.dumps(description)})
    return file


def at_best_only(entries: list[dict[str, Any]]) -> None:
    entries[:] = [{**entry, "at": ["best"]} for entry in entries if "best" in entry["at"]]


def test_weights_that_are_not_those_of_the_model_are_refused(store: Store, tmp_path: Path) -> None:
    file = exported(store, tmp_path / "one.safetensors", "--seed", "1", "--at", "best")
    linear = resolved("linear", {"name": "static", "input_size": 10}, steps=30)
    changed(file, lambda about: about.update(settings=linear))
    with pytest.raises(UserError, match="its weights are not those of model linear: network.first.bias is missing"):
        load_model(file)
    wider = resolved("nau", {"name": "static", "input_size": 12}, steps=30)
    changed(file, lambda about: about.update(settings=wider))
    with pytest.raises(UserError, match=r"network.first.W is \[2, 10\], and must be \[2, 12\]|is \[2, 10\], and must be"):
        load_model(file)


def test_files_that_are_no_weights_of_ours_are_refused_with_what_to_do(store: Store, tmp_path: Path) -> None:
    file = exported(store, tmp_path / "one.safetensors", "--seed", "1", "--at", "best")
    with pytest.raises(UserError, match="has no finished seed 4. It has: 1"):
        load_model(file, seed=4)
    only_best = changed(exported(store, tmp_path / "best.safetensors"), lambda about: at_best_only(about["models"]))
    with pytest.raises(UserError, match="has seed 0 at best only"):
        load_model(only_best, seed=0, at="end")
    with pytest.raises(UserError, match="holds one configuration"):
        load_model(file, cell="nau")
    newer = changed(exported(store, tmp_path / "newer.safetensors"), lambda about: about.update(format=99))
    with pytest.raises(UserError, match="version 99 of the format"):
        load_model(newer)
    edited = changed(exported(store, tmp_path / "edited.safetensors"), lambda about: about.update(models="none"))
    with pytest.raises(UserError, match="is damaged, or was edited by hand"):
        load_model(edited)
    misspelt = [{"name": "nuu"}] * 2
    unknown = changed(
        exported(store, tmp_path / "unknown.safetensors"), lambda about: about["settings"]["model"].update(units=misspelt)
    )
    with pytest.raises(UserError, match="a model cannot be built of its settings: .*nuu"):
        load_model(unknown)
    save_file({"weight": torch.ones(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(UserError, match="does not say which model its weights belong to"):
        load_model(tmp_path / "foreign.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(UserError, match="is no safetensors file, or it is damaged"):
        load_model(tmp_path / "text.safetensors")
    with pytest.raises(UserError, match=r"there is no file .*onn.safetensors. Did you mean .*one.safetensors"):
        load_model(tmp_path / "onn.safetensors")
    assert read_weights(file).entries[0]["seed"] == 1


def test_the_command_says_what_may_be_chosen(store: Store, tmp_path: Path) -> None:
    where = ("--store", store.location)
    for options, message in (
        (("--weights", str(tmp_path / "a.pt")), "--weights writes a safetensors file: name it"),
        (("--weights", str(tmp_path / "a.safetensors"), "--at", "last"), "--at is best or end, but 'last' is given"),
        (("--seed", "3"), "--seed chooses what --weights FILE.safetensors writes"),
        (("--weights", str(tmp_path / "a.safetensors"), "--seed", "99"), "has no finished seed 99. It has: 0 to 2"),
    ):
        answer = call("export", "small", *options, *where)
        assert answer.status == 2 and message in answer.err, answer.err
    assert not list(tmp_path.iterdir())
