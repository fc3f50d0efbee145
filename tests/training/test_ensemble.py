"""Outputs of several trained lanes, averaged."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lanes import lanes_of, resolved, train
from test_symbol_lanes import DNGPU, NEURAL_GPU

from sweeps.config.settings import build, float_leaves
from sweeps.training.ensemble import Ensemble


def ensemble_of(settings: dict[str, Any], states: list[Any]) -> Ensemble:
    return Ensemble(build(settings), float_leaves(settings), states, compiled=False)


@pytest.mark.parametrize("settings", [DNGPU, pytest.param(NEURAL_GPU, marks=pytest.mark.slow)], ids=["dngpu", "neural_gpu"])
def test_members_are_judged_as_their_lanes_were(settings) -> None:
    lanes = train(lanes_of(settings, range(2)), 1)
    rows = ensemble_of(settings, [lane.state for lane in lanes.values()]).measure(6)
    assert len(rows) == 3
    for row, lane in zip(rows, lanes.values(), strict=False):
        assert row["sequence_error"] == pytest.approx(lane.by_length["sequence_error"][1])
        assert row["loss"] == pytest.approx(lane.by_length["loss"][1], rel=1e-5)
        assert row["rows"] == lane.by_length["rows"][1]


def test_the_average_is_that_of_softmaxes(monkeypatch) -> None:
    """Symbol 1 has the probability 0.9, 0.2 and 0.2 of three members, symbol 2 the rest: the average 0.433 is less than a
    half, though the mean of the logits would give symbol 1."""
    probabilities = [0.9, 0.2, 0.2]
    state = train(lanes_of(DNGPU, [0]), 1)["seed 0"].state
    ensemble = ensemble_of(DNGPU, [state] * 3)
    symbols = ensemble.task.num_outputs
    members = iter(probabilities)

    def outputs(params, memory, floats, x):
        probability = next(members)
        logits = torch.full((1, *x[0].shape, symbols), -100.0)
        logits[..., 1], logits[..., 2] = torch.tensor(probability).logit(), 0.0
        return (logits,)

    seen = []
    monkeypatch.setattr(ensemble._evaluation, "outputs", outputs)
    monkeypatch.setattr(type(ensemble.task), "error", lambda self, y, target: seen.append(y[0]) or torch.zeros(()))
    ensemble.measure(6)
    assert [bool((y.argmax(-1) == 1).all()) for y in seen] == [True, False, False, False]
    average = seen[-1].softmax(-1)[..., 1]
    assert torch.allclose(average, torch.full_like(average, sum(probabilities) / 3))


def test_a_task_of_numbers_has_nothing_to_average() -> None:
    settings = resolved("nau", steps=10)
    with pytest.raises(ValueError, match="those of Static are numbers"):
        ensemble_of(settings, [])
