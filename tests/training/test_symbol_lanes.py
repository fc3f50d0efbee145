"""Lanes on symbols: what a lane remembers, curricula, bins, and errors by length."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from typing import Any

import pytest
from lanes import assert_same, lanes_of, pack_of, resolved, train

from sweeps.config.settings import resolve
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


def test_a_lane_equals_itself_among_others() -> None:
    among = train(lanes_of(DNGPU, range(3, 6)), 3)["seed 5"]
    assert_same(among, whole(DNGPU), rounding_of_evaluation=True)


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
