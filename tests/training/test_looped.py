"""Networks that repeat a cell: looped or unrolled, stacked or alone, the numbers are the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lanes import assert_same, lanes_of, pack_of, resolved, train
from torch import Tensor

from sweeps.config.settings import build
from sweeps.training import trainers
from sweeps.training.compile import Recorded
from sweeps.training.lane import Lane
from sweeps.training.random import Stream, seed_key
from sweeps.training.step import Context

TASK = {"name": "recurrent", "operation": "add", "input_size": 4, "length": 3, "extrapolation_length": 20}


def settings_of(model: Any, **train: Any) -> dict[str, Any]:
    given = {"steps": 10, "batch": 8, "evaluate_every": 5, "lr": 0.01, **train}
    return resolved(model, TASK, **given)


EVERYTHING = settings_of({"name": "nau", "dropout": 0.1, "input_penalty": 0.1}, gradient_noise=1e-4, clip_norm=1.0)


def looped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainers, "MOST_UNROLLED", 0)
    monkeypatch.setattr(trainers, "_STACKED_PROGRAMS", {})


@pytest.mark.parametrize(
    "model", ["nau", "nalu", "lstm", "rnn_tanh", "gumbel_nac", {"name": "nau", "dropout": 0.2, "input_penalty": 1.0}]
)
def test_training_is_the_same_looped_and_unrolled(model, monkeypatch) -> None:
    """What is drawn too: weights that are drawn at every time, and dropout."""
    settings = settings_of(model)
    unrolled = train(lanes_of(settings, range(3)))
    looped(monkeypatch)
    for key, result in train(lanes_of(settings, range(3))).items():
        assert result.outcome == "unsolved", result.reason
        expected = unrolled[key].curve["error.extrapolation"]
        assert result.curve["error.extrapolation"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("loops", [False, True])
def test_a_lane_equals_itself_in_packs_of_other_sizes_and_after_an_interruption(loops, monkeypatch) -> None:
    if loops:
        looped(monkeypatch)
    alone = train(lanes_of(EVERYTHING, [5]))["seed 5"]
    among = train([*lanes_of(EVERYTHING, range(100, 104), "other"), *lanes_of(EVERYTHING, [5])], 7)["seed 5"]
    assert_same(among, alone, rounding_of_evaluation=True)
    pack = pack_of(lanes_of(EVERYTHING, [5]))
    assert pack.advance() == []
    blob = pack.checkpoints()["seed 5"]
    again = train([Lane("seed 5", EVERYTHING, 5, blob)])["seed 5"]
    assert_same(again, alone, rounding_of_evaluation=True)


def test_a_lane_that_diverges_leaves_its_neighbours_alone(monkeypatch) -> None:
    looped(monkeypatch)
    settings = settings_of("nau")
    wild = settings_of("nau", lr=1e38)
    results = train([*lanes_of(settings, [1]), Lane("wild", wild, 2)])
    assert results["wild"].outcome == "diverged"
    assert_same(results["seed 1"], train(lanes_of(settings, [1]))["seed 1"], rounding_of_evaluation=True)


def test_the_whole_network_of_one_seed_is_the_loop_over_its_pieces_by_hand() -> None:
    """A NAU that adds the first input to its state, over three steps, and an output that takes it as it is."""
    built = build(settings_of({"name": "nau", "hidden": 1}))
    model = built.model()
    with torch.no_grad():
        model.initialise(Stream(seed_key(0, "initialise")))
        model.unit.weight.copy_(torch.tensor([[1.0, 0.0, 0.0, -1.0, 1.0]]))
        model.output.weight.fill_(1.0)
        x_TBI = torch.tensor([[[1.0, 2, 3, 4]], [[5.0, 6, 7, 8]], [[9.0, 10, 11, 12]]])
        ctx = Context(torch.tensor(0.0), True, Stream((0, 0)), torch.tensor(0.0))
        y_BO, penalties = model(x_TBI, ctx)
    assert y_BO.tolist() == [[(1 - 4) + (5 - 8) + (9 - 12)]]
    assert penalties["sparsity"].item() == 0.0


def test_a_compiled_function_never_loses_the_gradient_of_its_uncompiled_form() -> None:
    """torch (2.13) makes one output of `loss + 0` and the detached loss: neither had a gradient, and nothing was trained."""

    def total(x: Tensor) -> tuple[Tensor, Tensor]:
        loss = x.square().mean()
        return loss + sum([]), loss.detach()

    x_KB = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    loss_K, _ = Recorded(torch.vmap(total), (x_KB,), compiled=True, differentiable=True)(x_KB)
    (gradient,) = torch.autograd.grad(loss_K.sum(), [x_KB])
    torch.testing.assert_close(gradient, x_KB.detach())
