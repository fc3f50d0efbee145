"""The improved Neural GPU against the same model written with torch's own convolutions, and its rules by hand."""

from __future__ import annotations

from typing import Any

import made_units
import pytest
import torch
from made_units import initialise
from torch.nn.functional import conv1d

from arith_models.networks.dngpu import DNGPU
from sweeps.bench.dngpu import ConvolutionalDngpu
from sweeps.training.random import Stream, seed_key
from sweeps.training.step import Context

M = 7


def network(**settings: Any) -> DNGPU:
    made: DNGPU = initialise(DNGPU(DNGPU.Config(maps=M, **settings), (), 13, 3), seed=3)
    return made


def context(model: DNGPU, training: bool = False) -> Context:
    return made_units.context(0.0, training, 4, 1.0, model.initial_memory())


def hard_sigmoid(v: torch.Tensor) -> torch.Tensor:
    return torch.clamp(0.5 * v + 0.5, 0, 1)


def convolved(s_BMn: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Our weight [3 M, out], the places left, here, right in turn, as a convolution of width 3."""
    kernel = weight.unflatten(0, (3, M)).permute(2, 1, 0)
    return conv1d(s_BMn, kernel, bias, padding=1)


def by_convolutions(model: DNGPU, x_Bn: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [B, n, O] and the saturation cost of one bin, one convolution after another; all symbols inside."""
    n, over = x_Bn.shape[1], lambda v: torch.relu(v.abs() - 0.9).sum()
    v = (model.embedding[x_Bn] + model.embedding_bias).transpose(1, 2)
    s, cost = v.clamp(-1, 1), n * over(v)
    for _ in range(n):
        v_r = convolved(s, model.gates[:, :M], model.gates_bias[:M]) + 0.5
        v_u = convolved(s, model.gates[:, M:], model.gates_bias[M:]) + 0.7
        v_c = convolved(hard_sigmoid(v_r) * s, model.candidate, model.candidate_bias)
        third, shifted = M // 3, s.clone()
        shifted[:, M - 2 * third : M - third, 1:] = s[:, M - 2 * third : M - third, :-1]
        shifted[:, M - 2 * third : M - third, 0] = 0
        shifted[:, M - third :, :-1] = s[:, M - third :, 1:]
        shifted[:, M - third :, -1] = 0
        u = hard_sigmoid(v_u)
        s = u * shifted + (1 - u) * v_c.clamp(-1, 1)
        cost = cost + over(v_r) + over(v_u) + over(v_c)
    return s.transpose(1, 2) @ model.output + model.output_bias, cost / (n * n * len(x_Bn))


def symbols(rows: int, n: int) -> torch.Tensor:
    return Stream(seed_key(n, "batch")).integers((rows, n), 0, 13)


@pytest.mark.parametrize("lengths", [(5, 8, 9), (9, 10, 21)], ids=["all at once", "in turns"])
def test_logits_and_saturation_cost_are_those_of_convolutions_one_by_one(lengths) -> None:
    model = network(dropout=0.0)
    bins = tuple(symbols(4, n) for n in lengths)
    logits, penalties = model(bins, context(model, training=True))
    expected = [by_convolutions(model, x) for x in bins]
    for ours, (theirs, _) in zip(logits, expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    cost = 1e-3 * sum(cost for _, cost in expected) / 3
    assert penalties["saturation"].item() == pytest.approx(cost.item(), rel=1e-5)


@pytest.mark.parametrize("lengths", [(6,), (9, 10, 21)], ids=["one bin", "in turns"])
def test_gradients_are_those_of_convolutions_one_by_one(lengths) -> None:
    model, bins = network(dropout=0.0), tuple(symbols(4, n) for n in lengths)
    weights = list(model.parameters())
    ours = torch.autograd.grad(sum(y.square().sum() for y in model(bins, context(model))[0]), weights)
    theirs = torch.autograd.grad(sum(by_convolutions(model, x)[0].square().sum() for x in bins), weights)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)


def test_the_model_that_bench_measures_ours_against_is_the_same_model() -> None:
    model, other = network(dropout=0.0), ConvolutionalDngpu(M, 13, 3).eval()
    kernel = [w.unflatten(0, (3, M)).permute(2, 1, 0) for w in (*model.gates.split(M, dim=1), model.candidate)]
    biases = (*model.gates_bias.split(M), model.candidate_bias)
    with torch.no_grad():
        for gate, weight, bias in zip((other.reset, other.update, other.candidate), kernel, biases, strict=True):
            gate.weight.copy_(weight), gate.bias.copy_(bias)
        for layer, weight, bias in (
            (other.embedding, model.embedding, model.embedding_bias),
            (other.output, model.output, model.output_bias),
        ):
            layer.weight.copy_(weight.T.unsqueeze(-1)), layer.bias.copy_(bias)
    x = symbols(4, 9)
    logits, penalties = model((x,), context(model, training=True))
    expected, cost = other(x)
    assert torch.allclose(logits[0], expected, atol=1e-5)
    assert penalties["saturation"].item() == pytest.approx(1e-3 * cost.item(), rel=1e-5)


def test_a_bin_gives_the_same_alone_and_beside_others() -> None:
    model = network()
    bins = (symbols(3, 9), symbols(3, 10), symbols(3, 21))
    together, _ = model(bins, context(model))
    for i, x in enumerate(bins):
        (alone,), _ = model((x,), context(model))
        assert torch.allclose(alone, together[i], atol=1e-6)


def test_positions_outside_of_an_example_stay_at_zero_and_change_nothing() -> None:
    model = network()
    x = symbols(2, 6)
    padded = torch.cat([x, torch.full((2, 3), -1)], 1)
    (longer,), _ = model((padded,), context(model))
    state = longer[:, 6:] - model.output_bias
    assert torch.equal(state, torch.zeros_like(state))
    changed = padded.clone()
    changed[1] = symbols(1, 9)
    (other,), _ = model((changed,), context(model))
    assert torch.equal(other[0], longer[0])


def test_the_paper_s_count_of_weights() -> None:
    """9 m² + 20 m + 3 for 13 input and 3 output symbols: 84,867 at m = 96."""
    model = DNGPU(DNGPU.Config(), (), 13, 3)
    assert sum(p.numel() for p in model.parameters()) == 84_867


def test_the_weight_of_the_saturation_cost_follows_the_loss_after_every_200_steps() -> None:
    """Mean loss 0.5 and mean penalty 0.02 at lr 0.01: 1e-3 * 0.01 * 0.5 / 0.02 = 2.5e-4."""
    model = network()
    memory = model.initial_memory()
    seen = {"loss": torch.tensor(0.5), "penalties": {"saturation": torch.tensor(0.02)}, "lr": torch.tensor(0.01)}
    for step in range(199):
        memory = model.remember(memory, seen, torch.tensor(step))
    assert memory["saturation_weight"].item() == pytest.approx(1e-3)
    memory = model.remember(memory, seen, torch.tensor(199))
    assert memory["saturation_weight"].item() == pytest.approx(2.5e-4, rel=1e-4)
    assert memory["loss_sum"].item() == 0.0


def test_the_weight_of_the_saturation_cost_never_exceeds_its_first() -> None:
    model = network()
    nothing = {"loss": torch.tensor(9.0), "penalties": {"saturation": torch.tensor(0.0)}, "lr": torch.tensor(1.0)}
    memory = model.remember(model.initial_memory(), nothing, torch.tensor(199))
    assert memory["saturation_weight"].item() == pytest.approx(1e-3)


def test_the_plain_gate_does_not_shift_and_soft_nonlinearities_cost_nothing() -> None:
    x = (symbols(2, 5),)
    model = network(gate="plain")
    assert not torch.allclose(network()(x, context(model))[0][0], model(x, context(model))[0][0])
    soft = network(nonlinearity="soft")
    _, penalties = soft(x, context(soft, training=True))
    assert penalties == {}
