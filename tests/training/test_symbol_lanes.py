"""Lanes on symbols: what a lane remembers, curricula, bins, and errors by length."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from lanes import assert_same, lanes_of, pack_of, resolved, train
from torch.utils._python_dispatch import TorchDispatchMode

from sweeps.config.settings import resolve
from sweeps.training import looped, trainers
from sweeps.training.compile import Recorded
from sweeps.training.lane import LaneResult

TASK = {
    "name": "algorithm", "operation": "copy", "bins": [4, 6], "examples_per_length": 50, "test_rows": 20,
    "test_length": 6, "extrapolation_rows": 10, "curve_lengths": [4, 6], "curve_rows": [10, 4],
}  # fmt: skip
DECAY = {"rule": "two_worse", "factor": 0.5, "period": 2}


def settings_of(model: Any, **train: Any) -> dict[str, Any]:
    given = {"steps": 8, "batch": 4, "evaluate_every": 4, "lr": 0.01, "lr_decay": DECAY, **train}
    return resolved(model, TASK, **given)


DNGPU = settings_of({"name": "dngpu", "maps": 6}, optimizer="adamax", beta2=0.9995)
NEURAL_GPU = settings_of({"name": "neural_gpu", "maps": 3, "relaxation": 2, "curriculum": {"mixing": "code", "first": 3.0}})
BOTH_BINS = {**NEURAL_GPU, "model": {**NEURAL_GPU["model"], "curriculum": {**NEURAL_GPU["model"]["curriculum"], "first": 6.0}}}
ROUNDED = {**DNGPU, "train": {**DNGPU["train"], "products": "bf16"}}


@cache
def trained(settings_json: str, slots: int = 1) -> LaneResult:
    return train(lanes_of(json.loads(settings_json), [5]), slots)["seed 5"]


def whole(settings: dict[str, Any]) -> LaneResult:
    """Seed 5 by itself, trained once for all tests."""
    return trained(json.dumps(settings))


@pytest.mark.parametrize("settings", [DNGPU, NEURAL_GPU], ids=["dngpu", "neural_gpu"])
def test_a_lane_equals_itself_after_an_interruption(settings) -> None:
    """What it remembers is in the checkpoint too, so the second half is the same."""
    pack = pack_of(lanes_of(settings, [5]), 1)
    assert pack.advance() == []
    blob = pack.checkpoints()["seed 5"]
    again = train([dataclasses.replace(lanes_of(settings, [5])[0], checkpoint=blob)], 1)["seed 5"]
    assert_same(again, whole(settings))
    assert again.by_length == whole(settings).by_length


@pytest.mark.parametrize("settings", [DNGPU, ROUNDED], ids=["float32", "bf16"])
def test_a_lane_equals_itself_among_others(settings) -> None:
    among = train(lanes_of(settings, range(3, 6)), 3)["seed 5"]
    assert_same(among, whole(settings), rounding_of_evaluation=True)


def test_at_any_number_of_bins_the_pieces_of_a_step_are_three(monkeypatch: pytest.MonkeyPatch) -> None:
    """Besides the batch, the loss and the update."""
    recorded = []

    class Counted(Recorded):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            recorded.append(self)
            super().__init__(*arguments, **options)

    monkeypatch.setattr(looped, "Recorded", Counted)
    monkeypatch.setattr(trainers, "_STACKED_PROGRAMS", {})
    settings = {**DNGPU, "task": {**DNGPU["task"], "bins": [4, 6, 7, 9, 13, 20]}}
    pack_of(lanes_of(settings, [0]), 1).stepper()(2)
    assert len(recorded) == 6


class Captures:
    """In place of CUDA graphs: a step may not read a value from the device while it is captured."""

    class NoReading(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            assert function is not torch.ops.aten._local_scalar_dense.default, "a value is read"
            return function(*args, **(kwargs or {}))

    def __init__(self) -> None:
        self.captured = self.replayed = 0

    def __call__(self, run: Callable[[], None], run_on_copies: Callable[[], None]) -> Callable[[], None]:
        self.captured += 1
        with self.NoReading():
            run_on_copies()

        def replay() -> None:
            self.replayed += 1
            run()

        return replay


@contextmanager
def captured_by(capture: looped.Capture) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(looped, "CAPTURES", {"cpu": lambda: capture})
        patch.setattr(trainers, "_STACKED_PROGRAMS", {})
        yield


@pytest.mark.parametrize(("settings", "num_bins"), [(DNGPU, 1), (BOTH_BINS, 2)], ids=["all bins at once", "one bin a step"])
def test_a_step_is_captured_once_for_each_bin_and_replayed_after_that(settings, num_bins) -> None:
    captures = Captures()
    with captured_by(captures):
        result = train(lanes_of(settings, [5]), 1)["seed 5"]
    assert_same(result, whole(settings))
    assert (captures.captured, captures.replayed) == (num_bins, 8)


def test_another_pack_s_tensors_are_captured_anew() -> None:
    captures = Captures()
    with captured_by(captures):
        packs = [pack_of(lanes_of(DNGPU, [seed]), 1) for seed in (4, 5)]
        for one in packs:
            one.stepper()(3)
            assert one.tensors["state"]["step"].tolist() == [3]
    assert captures.captured == 2


def test_a_step_that_cannot_be_captured_is_called_as_usual_and_the_reason_is_logged(caplog) -> None:
    def refuse(run: Any, run_on_copies: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    with captured_by(refuse):
        result = train(lanes_of(DNGPU, [5]), 1)["seed 5"]
    assert_same(result, whole(DNGPU))
    assert [r.message for r in caplog.records if "not captured" in r.message] == [
        "steps are not captured, and take longer: RuntimeError: operation not permitted when stream is capturing"
    ]


def test_products_are_rounded_in_training_alone_and_torch_s_own_settings_stay_as_they_are() -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.is_autocast_enabled("cpu")
    rounded, exact = whole(ROUNDED).curve, whole(DNGPU).curve
    assert rounded["loss.extrapolation"][0] == exact["loss.extrapolation"][0], "before the first step"
    assert rounded["loss.extrapolation"][-1] != exact["loss.extrapolation"][-1]
    assert rounded["loss.extrapolation"][-1] == pytest.approx(exact["loss.extrapolation"][-1], rel=0.05)
    after = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.is_autocast_enabled("cpu")
    assert before == after


@pytest.mark.parametrize(("products", "expected"), [("float32", ("highest", False)), ("tf32", ("high", True))])
def test_the_precision_of_a_gpu_s_products_is_set_for_the_duration_of_a_step(products, expected) -> None:
    def current() -> tuple[str, bool]:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    before = current()

    def fail_within() -> None:
        with looped._products(products, torch.device("cuda")):
            assert current() == expected
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_within()
    assert current() == before


def test_lanes_with_curricula_of_their_own_train_apart() -> None:
    pack = pack_of(lanes_of(NEURAL_GPU, range(3)))
    assert pack.num_places == 1


def test_a_finished_lane_is_measured_at_every_length() -> None:
    result = whole(DNGPU)
    assert result.by_length["length"] == [4, 6]
    assert result.by_length["rows"] == [10, 10]
    assert all(0 <= error <= 1 for error in result.by_length["sequence_error"])


def test_errors_by_length_are_those_of_the_final_state() -> None:
    """At the test length, with the test's examples, they are those of the last evaluation."""
    result = whole(DNGPU)
    assert result.by_length["symbol_error"][1] == result.curve["symbol_error.extrapolation"][-1]


def test_a_lane_that_waits_to_be_measured_has_a_checkpoint() -> None:
    pack = pack_of(lanes_of(DNGPU, [0]), 1)
    while not pack.measuring:
        assert pack.advance() == []
    assert pack.checkpoints()["seed 0"].steps == 8
    assert not pack.done


def test_the_curriculum_shows_in_the_curve() -> None:
    result = whole(NEURAL_GPU)
    assert result.curve["memory.length"][0] == 3.0
    assert result.curve["memory.pull"][0] == pytest.approx(0.0005)


def test_a_model_on_symbols_has_no_sparsity_error() -> None:
    result = whole(DNGPU)
    assert result.sparsity_error is None


@pytest.mark.parametrize(
    ("model", "task", "message"),
    [
        ("dngpu", "static", "network dngpu reads symbols, but task static gives numbers"),
        ({"name": "nau", "network": "two_layer"}, TASK, "network two_layer reads numbers, but task algorithm gives symbols"),
        ("nau", TASK, "nau cannot learn task algorithm, where a model is a whole network: dngpu"),
    ],
)  # fmt: skip
def test_models_that_cannot_read_a_task_are_refused(model, task, message) -> None:
    _, faults, _ = resolve({"model": model, "task": task, "train": {"steps": 2}})
    assert any(message in str(fault) for fault in faults), faults
