"""Each unit against its paper: exact solutions, initial ranges, clamps and penalties worked by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from made_units import SATURATED, X, context, output, presolved, unit
from torch import Tensor

from arith_models.nac_range import nac_range
from arith_models.settings import RampedPenalty
from sweeps.config.registry import find
from sweeps.training.random import Stream, seed_key

CTX = context()


@pytest.mark.parametrize(("weights", "by_hand"), [([1, 1, 0], [6.0, 1.5]), ([1, 1, 1], [15.0, 3.0])])
def test_nmu_multiplies_exactly_the_inputs_that_it_selects(weights, by_hand) -> None:
    assert [row[0] for row in output(presolved("nmu", [weights]))] == by_hand


def test_nmu_squares_what_two_hidden_values_repeat() -> None:
    a = torch.tensor([[1.5, 1.5], [-3.0, -3.0]])
    assert output(presolved("nmu", [[1, 1]]), a) == [[2.25], [9.0]]


def test_nmu_without_a_selected_input_is_one() -> None:
    assert output(presolved("nmu", [[0, 0, 0]])) == [[1.0], [1.0]]


def test_nmu_between_by_hand() -> None:
    """(0.5 * 1.5 + 0.5) * (0.25 * 4 + 0.75) = 1.25 * 1.75"""
    made = unit("nmu", 2)
    with torch.no_grad():
        made.weight.copy_(torch.tensor([[0.5, 0.25]]))
    assert output(made, X[:1, :2]) == [[2.1875]]


@pytest.mark.parametrize(
    ("weights", "by_hand"),
    [
        ([1, 1, 0], [6.0, 1.5]),  # product
        ([1, -1, 0], [0.375, 6.0]),  # quotient
        ([0.5, 0, 0], [math.sqrt(1.5), math.sqrt(3)]),  # root
    ],
)
def test_nac_mul_multiplies_divides_and_takes_roots(weights, by_hand) -> None:
    assert [row[0] for row in output(presolved("nac_mul", [weights]))] == pytest.approx(by_hand, rel=1e-5)


def test_nac_mul_loses_the_sign() -> None:
    product = presolved("nac_mul", [[1, 1]])
    assert output(product, torch.tensor([[-1.5, 4.0]]))[0] == pytest.approx([6.0], rel=1e-5)


@pytest.mark.parametrize(("gate", "by_hand"), [(SATURATED, 5.5), (-SATURATED, 6.0), (0.0, 5.75)])
def test_nalu_adds_with_an_open_gate_and_multiplies_with_a_closed_one(gate, by_hand) -> None:
    made = presolved("nalu", [[1, 1, 0]])
    with torch.no_grad():
        made.gate.fill_(gate)
    assert output(made)[0] == pytest.approx([by_hand], rel=1e-5)


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
    made = unit(name, 3)
    with torch.no_grad():
        made.weight.copy_(torch.tensor([[1.0, -2.0, 0.0]]))
        made.bias.fill_(-0.5)
    assert output(made, X[:1])[0] == pytest.approx([by_hand], rel=1e-5, abs=1e-8)


def test_relu6_ends_at_six() -> None:
    made = unit("relu6", 3)
    with torch.no_grad():
        made.weight.fill_(1.0)
        made.bias.zero_()
    assert output(made) == [[6.0], [5.5]]


@pytest.mark.parametrize(
    ("inputs", "outputs", "r"),
    [(100, 2, 0.50391), (300, 2, 0.28550), (10, 1, 2.26047), (4, 2, 5.42551), (2, 1, 9.47141),
     (2, 2, 9.47141), (1, 1, 9.47141)],
)  # fmt: skip
def test_the_range_of_nac_is_the_reference_value(inputs, outputs, r) -> None:
    assert nac_range(inputs, outputs) == pytest.approx(r, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "inputs", "outputs", "low", "high"),
    [
        ("nau", 100, 2, -0.24254, 0.24254), ("nau", 2, 1, -0.5, 0.5), ("nmu", 2, 1, 0.25, 0.75),
        ("nac", 100, 2, -0.50391, 0.50391), ("nac_mul", 10, 1, -2.26047, 2.26047),
        ("nalu", 300, 2, -0.28550, 0.28550),
        ("linear", 10, 2, -math.sqrt(1 / 2), math.sqrt(1 / 2)), ("sigmoid", 4, 2, -1.0, 1.0),
        ("tanh", 4, 2, -5 / 3, 5 / 3), ("softsign", 4, 2, -1.0, 1.0), ("relu", 6, 2, -1.0, 1.0),
        ("relu6", 6, 2, -1.0, 1.0), ("elu", 6, 2, -1.0, 1.0), ("selu", 3, 2, -1.0, 1.0),
    ],
)  # fmt: skip
def test_initial_weights_fill_the_published_range(name, inputs, outputs, low, high) -> None:
    made, drawn = unit(name, inputs, outputs), []
    weights = [p for n, p in made.named_parameters() if not n.endswith(("bias", "gate"))]
    for seed in range(300):
        with torch.no_grad():
            made.initialise(Stream(seed_key(seed, "initialise")))
        drawn += [torch.cat([w.flatten() for w in weights])]
    smallest, largest = torch.cat(drawn).min(), torch.cat(drawn).max()
    assert low - 1e-5 <= smallest < low + 0.02 * (high - low)
    assert high - 0.02 * (high - low) < largest <= high + 1e-5


def test_biases_start_at_zero_and_gates_within_their_own_range() -> None:
    dense, nalu = unit("relu", 4, 2), unit("nalu", 4, 2)
    with torch.no_grad():
        dense.initialise(Stream(seed_key(0, "initialise")))
        nalu.initialise(Stream(seed_key(0, "initialise")))
    assert dense.bias.tolist() == [0.0, 0.0]
    assert 0.3 < nalu.gate.abs().max() <= 1.0  # Xavier: sqrt(6 / (4 + 2))
    assert nalu.nac.W_hat.abs().max() > 1.0


OUTSIDE = [[-1.5, -0.25, 0.5, 1.5]]


@pytest.mark.parametrize(
    ("name", "settings", "parameter", "effective"),
    [
        ("nau", {}, [-1.0, -0.25, 0.5, 1.0], [-1.0, -0.25, 0.5, 1.0]),
        ("nau", {"clamp": False}, OUTSIDE[0], [-1.0, -0.25, 0.5, 1.0]),
        ("nmu", {}, [0.0, 0.0, 0.5, 1.0], [0.0, 0.0, 0.5, 1.0]),
        ("nmu", {"lower": 0.125}, [0.125, 0.125, 0.5, 1.0], [0.125, 0.125, 0.5, 1.0]),
        ("nmu", {"clamp": False}, OUTSIDE[0], [0.0, 0.0, 0.5, 1.0]),
    ],
)
def test_clamps(name, settings, parameter, effective) -> None:
    made = unit(name, 4, **settings)
    with torch.no_grad():
        made.weight.copy_(torch.tensor(OUTSIDE))
        made.constrain()
        assert made.weight.tolist() == [parameter]
        assert made.effective_weight().tolist() == [effective]


def test_nau_clamps_in_its_forward_too_so_a_weight_outside_gets_no_gradient() -> None:
    made = unit("nau", 4, clamp=False)
    with torch.no_grad():
        made.weight.copy_(torch.tensor(OUTSIDE))
    made(torch.ones(1, 4), CTX)[0].sum().backward()
    assert made.weight.grad.tolist() == [[0.0, 1.0, 1.0, 0.0]]


@pytest.mark.parametrize(
    ("name", "weights", "by_hand"),
    [
        ("nau", [-1.0, -0.75, 0.0, 0.25, 0.5, 1.0], (0.25 + 0.25 + 0.5) / 6),
        ("nmu", [0.0, 0.25, 0.5, 0.875, 1.0, 1.0], (0.25 + 0.5 + 0.125) / 6),
    ],
)
def test_the_sparsity_penalty_by_hand(name, weights, by_hand) -> None:
    made = unit(name, 6)
    with torch.no_grad():
        made.weight.copy_(torch.tensor([weights]))
    assert made(torch.ones(1, 6), CTX)[1]["sparsity"].item() == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("step", "weight"), [(0, 0), (5000, 0), (27_500, 0.005), (50_000, 0.01), (10**6, 0.01)]
)
def test_the_weight_of_a_penalty_grows_from_start_to_end(step, weight) -> None:
    ramp = RampedPenalty(weight=0.01, start=5_000.0, end=50_000.0)
    assert float(ramp.at(torch.tensor(float(step)))) == pytest.approx(weight)


@pytest.mark.parametrize("schedule", [{"start": 5.0, "end": 5.0}, {"start": -1.0}, {"weight": -0.1}])
def test_an_impossible_ramp_is_refused(schedule) -> None:
    with pytest.raises(ValueError, match="must"):
        RampedPenalty(**schedule)


def test_two_layers_add_their_penalties_and_weigh_them_once() -> None:
    """Mean of (1/4, 1/4) and of (1/2): 3/4, halfway up a ramp to 10."""
    two_layer = find("network", "two_layer")
    config = two_layer.Config(hidden=1, sparsity_penalty=RampedPenalty(weight=10.0, start=0.0, end=10.0))
    made = two_layer(config, [lambda i, o: unit("nau", i, o), lambda i, o: unit("nmu", i, o)], 2, 1)
    with torch.no_grad():
        made.first.weight.copy_(torch.tensor([[0.75, -0.25]]))
        made.second.weight.copy_(torch.tensor([[0.5]]))
    halfway = SimpleNamespace(step=torch.tensor(5.0), dropout=lambda x, rate: x)
    y, penalties = made(torch.tensor([[4.0, 2.0]]), halfway)
    assert y.item() == pytest.approx(0.5 * (3 - 0.5) + 0.5)
    assert {name: p.item() for name, p in penalties.items()} == {"sparsity": pytest.approx(5 * 0.75)}


def test_a_network_without_penalties_reports_none() -> None:
    two_layer = find("network", "two_layer")
    made = two_layer(two_layer.Config(), [lambda i, o: unit("nac", i, o)] * 2, 3, 1)
    with torch.no_grad():
        made.initialise(Stream(seed_key(0, "initialise")))
    assert made(X, CTX)[1] == {}


def test_dropout_stands_between_the_layers() -> None:
    two_layer = find("network", "two_layer")
    made = two_layer(two_layer.Config(dropout=0.25), [lambda i, o: presolved("nau", [[1.0, 1.0]])] * 2, 2, 1)
    made.second = presolved("nau", [[1.0]])
    seen = []

    def dropout(h: Tensor, rate: Any) -> Tensor:
        seen.append((h.tolist(), rate))
        return torch.zeros_like(h)

    ctx = SimpleNamespace(step=torch.tensor(0.0), dropout=dropout)
    assert made(torch.tensor([[1.0, 2.0]]), ctx)[0].tolist() == [[0.0]]
    assert seen == [([[3.0]], 0.25)]
