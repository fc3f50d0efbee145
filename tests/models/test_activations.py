"""Dense units and their activations, against torch's own modules and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from made_units import assert_fills, drawn, initialised, output, put
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
