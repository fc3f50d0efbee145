"""The identity task, its network and its scores: by hand, and through a pack."""

from __future__ import annotations

import math
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lanes import resolved, train

from arith_models.networks.mlp import MLP
from sweeps.config.registry import find
from sweeps.config.settings import build
from sweeps.training.lane import Checkpoint, Lane
from sweeps.training.random import Stream, seed_key
from tasks.identity import Identity

CTX: Any = SimpleNamespace(step=torch.tensor(0.0), training=True, dropout=lambda x, rate: x)


def settings(model: Any, **train: Any) -> dict[str, Any]:
    return resolved(model, "identity", **{"steps": 20, "evaluate_every": 10, **train})


def mlp(unit: str, seed: int = 0, **config: Any) -> Any:
    units = [find("model", name) for name in (unit, "linear")]
    made = MLP(MLP.Config(**config), [partial(u, u.Config()) for u in units], 1, 1)
    with torch.no_grad():
        made.initialise(Stream(seed_key(seed, "initialise")))
    return made


def test_the_splits_are_whole_numbers_and_their_own_truth() -> None:
    task = Identity(Identity.Config())
    for split, numbers in {
        "interpolation": range(-5, 6), "extrapolation": range(-20, 21), "leftmost": [-20], "rightmost": [20],
    }.items():  # fmt: skip
        x = task.evaluation_inputs(split)
        assert x.dtype == np.float64 and x[:, 0].tolist() == list(numbers)
        assert task.truth(x, 3).tolist() == x.tolist()
    assert [len(task.evaluation_inputs(s)) for s in task.splits] == [11, 41, 1, 1]


@pytest.mark.parametrize("batch", [1, 11, 128])
def test_every_batch_is_the_whole_training_set(batch) -> None:
    task = Identity(Identity.Config())
    instance = {name: torch.from_numpy(array) for name, array in task.instance(7).items()}
    x_BI, target_BO = task.sample(Stream(seed_key(7, "batch")), instance, batch)
    assert x_BI.dtype == torch.float32 and x_BI.squeeze(1).tolist() == list(range(-5, 6))
    assert torch.equal(x_BI, target_BO)


def test_loss_and_score_by_hand() -> None:
    """Errors of 2 and -1: squares 4 and 1, magnitudes 2 and 1."""
    task = Identity(Identity.Config())
    y, target = torch.tensor([[3.0], [-3.0]]), torch.tensor([[1.0], [-2.0]])
    assert task.loss(y, target).item() == 2.5
    assert {n: s.item() for n, s in task.scores("leftmost", y, target).items()} == {"mean_absolute_error": 1.5}
    assert task.threshold() is None


def test_the_network_is_three_hidden_layers_of_eight_with_an_activation_after_each_but_the_last() -> None:
    built = build(settings("relu6"))
    model = built.model()
    shapes = [tuple(w.shape) for w in model.effective_weights()]
    assert shapes == [(8, 1), (8, 8), (8, 8), (1, 8)]
    assert [type(layer).__name__ for layer in model.layers] == ["ReLU6", "ReLU6", "ReLU6", "Linear"]


def test_a_network_of_one_hidden_value_by_hand() -> None:
    """relu(2 * 3 - 1) = 5, then relu(5 * 1 + 0) = 5, then -1 * 5 + 4 = -1"""
    model = mlp("relu", hidden=1, depth=2)
    with torch.no_grad():
        for layer, (weight, bias) in zip(model.layers, [(2, -1), (1, 0), (-1, 4)], strict=True):
            layer.weight.fill_(weight)
            layer.bias.fill_(bias)
        assert model(torch.tensor([[3.0], [0.0]]), CTX)[0].tolist() == [[-1.0], [4.0]]


def test_layers_start_as_torch_starts_them_unless_set_otherwise() -> None:
    drawn = [mlp("relu", seed, hidden=4).layers for seed in range(200)]
    for place, inputs in enumerate((1, 4, 4, 4)):
        r = 1 / math.sqrt(inputs)
        for name in ("weight", "bias"):
            values = torch.cat([getattr(layers[place], name).flatten() for layers in drawn])
            assert 0.95 * r < values.abs().max() <= r
            assert abs(values.mean().item()) < 4 * r / math.sqrt(3 * len(values))
    own = mlp("relu", hidden=4, init="unit").layers
    assert own[0].bias.tolist() == [0.0] * 4
    assert own[1].weight.abs().max() > 0.7  # Kaiming: sqrt(6 / 4) = 1.22


def test_an_arithmetic_unit_is_used_in_every_layer_and_starts_in_its_own_way() -> None:
    model = build(settings("nau")).model()
    with torch.no_grad():
        model.initialise(Stream(seed_key(0, "initialise")))
    assert [type(layer).__name__ for layer in model.layers] == ["NAU"] * 4
    assert all(layer.weight.abs().max() <= 0.5 for layer in model.layers)


@pytest.mark.parametrize(("field", "value"), [("hidden", 0), ("depth", 0)])
def test_an_empty_network_is_a_fault(field, value) -> None:
    with pytest.raises(ValueError, match=f"{field} = 0 must be at least 1"):
        MLP.Config(**{field: value})


def test_scores_reach_a_lanes_curve_and_its_checkpoint() -> None:
    found = settings("prelu", lr=0.01)
    results = list(train([Lane(f"lane {seed}", found, seed) for seed in range(3)]).values())
    assert {r.outcome for r in results} == {"unsolved"} and results[0].threshold is None
    curve = results[0].curve
    assert curve["step"] == [0, 10, 20]
    for split in Identity.splits:
        assert len(curve[f"mean_absolute_error.{split}"]) == 3
    left = [math.sqrt(error) for error in curve["error.leftmost"]]
    assert curve["mean_absolute_error.leftmost"] == pytest.approx(left, rel=1e-5)
    longer = settings("prelu", lr=0.01, steps=30)
    checkpoint = Checkpoint(results[0].steps, results[0].state)
    resumed = list(train([Lane("lane", longer, results[0].seed, checkpoint)]).values())
    assert resumed[0].curve["mean_absolute_error.extrapolation"][:3] == pytest.approx(
        curve["mean_absolute_error.extrapolation"]
    )
    assert len(resumed[0].curve["mean_absolute_error.extrapolation"]) == 4
