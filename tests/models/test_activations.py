"""Dense units and their activations, against torch's own modules and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from made_units import X, assert_fills, drawn, initialised, output, put, unit
from torch import nn

from arith_models.units.activations import UNITS
from sweeps.training.random import Stream, seed_key

THEIRS: dict[str, nn.Module] = {
    "linear": nn.Identity(), "sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(), "softsign": nn.Softsign(), "relu": nn.ReLU(),
    "relu6": nn.ReLU6(), "elu": nn.ELU(), "selu": nn.SELU(), "hardtanh": nn.Hardtanh(), "tanhshrink": nn.Tanhshrink(),
    "hardshrink": nn.Hardshrink(), "softshrink": nn.Softshrink(), "leaky_relu": nn.LeakyReLU(), "prelu": nn.PReLU(),
    "softplus": nn.Softplus(),
}  # fmt: skip


def test_every_activation_is_that_of_torch_on_a_linear_layer() -> None:
    assert THEIRS.keys() == UNITS.keys()
    x = 4.0 * Stream(seed_key(2, "batch")).normal((40, 3))
    for name, activation in THEIRS.items():
        made, linear = initialised(name, 3, 2), nn.Linear(3, 2)
        put(linear, weight=made.weight, bias=put(made, bias=torch.tensor([0.25, -0.5])).bias)
        with torch.no_grad():
            expected = activation(linear(x))
        torch.testing.assert_close(torch.tensor(output(made, x)), expected, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("linear", -7.0), ("relu", 0.0), ("relu6", 0.0), ("tanh", math.tanh(-7)), ("softsign", -7 / 8),
        ("sigmoid", 1 / (1 + math.exp(7))), ("elu", math.exp(-7) - 1),
        ("selu", 1.0507009873554805 * 1.6732632423543772 * (math.exp(-7) - 1)),
    ],
)  # fmt: skip
def test_dense_units_apply_their_function_to_weights_and_bias(name, by_hand) -> None:
    """1 * 1.5 - 2 * 4 + 0 * 2.5 - 0.5 = -7"""
    made = put(unit(name, 3), weight=torch.tensor([[1.0, -2.0, 0.0]]), bias=-0.5)
    assert output(made, X[:1])[0] == pytest.approx([by_hand], rel=1e-5, abs=1e-8)


def test_relu6_ends_at_six() -> None:
    assert output(put(unit("relu6", 3), weight=1.0, bias=0.0)) == [[6.0], [5.5]]


@pytest.mark.parametrize(
    ("name", "inputs", "r"),
    [
        ("linear", 10, math.sqrt(1 / 2)), ("sigmoid", 4, 1.0), ("tanh", 4, 5 / 3), ("softsign", 4, 1.0),
        ("relu", 6, 1.0), ("relu6", 6, 1.0), ("elu", 6, 1.0), ("selu", 3, 1.0),
    ],
)  # fmt: skip
def test_initial_weights_fill_the_published_range_and_biases_are_zero(name, inputs, r) -> None:
    assert_fills(drawn(name, inputs, 2, 300, "weight"), -r, r)
    assert initialised(name, inputs, 2).bias.tolist() == [0.0, 0.0]


def test_the_other_activations_start_as_torchs_linear_layer_and_prelus_slope_at_a_quarter() -> None:
    for name in ("hardtanh", "tanhshrink", "hardshrink", "softshrink", "leaky_relu", "prelu", "softplus"):
        assert_fills(drawn(name, 4, 2, 300, "weight", "bias"), -0.5, 0.5)
    assert initialised("prelu", 4).slope.tolist() == [0.25]
