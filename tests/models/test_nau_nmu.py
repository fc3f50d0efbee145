"""NAU, NMU and SillyNMU: exact solutions, initial ranges, clamps and penalties worked by hand."""

from __future__ import annotations

import pytest
import torch
from made_units import X, assert_fills, context, drawn, first_column, output, penalties, presolved, unit


@pytest.mark.parametrize(("weights", "by_hand"), [([1, 1, 0], [6.0, 1.5]), ([1, 1, 1], [15.0, 3.0])])
def test_nmu_multiplies_exactly_the_inputs_that_it_selects(weights, by_hand) -> None:
    assert first_column(presolved("nmu", [weights])) == by_hand


def test_nmu_squares_an_input_that_two_hidden_values_repeat() -> None:
    a = torch.tensor([[1.5, 1.5], [-3.0, -3.0]])
    assert output(presolved("nmu", [[1, 1]]), a) == [[2.25], [9.0]]


def test_nmu_without_a_selected_input_is_one() -> None:
    assert output(presolved("nmu", [[0, 0, 0]])) == [[1.0], [1.0]]


def test_nmu_between_by_hand() -> None:
    """(0.5 * 1.5 + 0.5) * (0.25 * 4 + 0.75) = 1.25 * 1.75"""
    assert output(presolved("nmu", [[0.5, 0.25]]), X[:1, :2]) == [[2.1875]]


def test_more_than_eight_factors_multiply_as_few_do() -> None:
    x = torch.arange(1.0, 11.0).unsqueeze(0)
    assert output(presolved("nmu", [[1.0] * 10]), x) == [[3_628_800.0]]
    assert output(presolved("nmu", [[1.0] * 8]), x[:, :8]) == [[40_320.0]]


def test_silly_nmu_multiplies_all_inputs_or_gives_zero() -> None:
    assert output(presolved("silly_nmu", [[1, 1, 1], [1, 1, 0]])) == [[15.0, 0.0], [3.0, 0.0]]


@pytest.mark.parametrize(
    ("name", "inputs", "outputs", "low", "high"),
    [
        ("nau", 100, 2, -0.24254, 0.24254), ("nau", 2, 1, -0.5, 0.5),
        ("nmu", 2, 1, 0.25, 0.75), ("silly_nmu", 2, 1, 0.25, 0.75),
    ],
)  # fmt: skip
def test_initial_weights_fill_the_published_range(name, inputs, outputs, low, high) -> None:
    assert_fills(drawn(name, inputs, outputs, 300, "weight"), low, high)


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
    made = presolved(name, OUTSIDE, **settings)
    with torch.no_grad():
        made.constrain()
        assert made.weight.tolist() == [parameter]
        assert made.effective_weight().tolist() == [effective]


def test_nau_clamps_in_its_forward_too_so_a_weight_outside_has_no_gradient() -> None:
    made = presolved("nau", OUTSIDE, clamp=False)
    made(torch.ones(1, 4), context())[0].sum().backward()
    assert made.weight.grad.tolist() == [[0.0, 1.0, 1.0, 0.0]]


@pytest.mark.parametrize(
    ("name", "weights", "by_hand"),
    [
        ("nau", [-1.0, -0.75, 0.0, 0.25, 0.5, 1.0], (0.25 + 0.25 + 0.5) / 6),
        ("nmu", [0.0, 0.25, 0.5, 0.875, 1.0, 1.0], (0.25 + 0.5 + 0.125) / 6),
    ],
)
def test_the_sparsity_penalty_by_hand(name, weights, by_hand) -> None:
    assert penalties(presolved(name, [weights]), torch.ones(1, 6))["sparsity"] == pytest.approx(by_hand)


MEAN = torch.tensor([2.0, -0.5])


@pytest.mark.parametrize(
    ("name", "by_hand"), [("nau", (0.5 * 4 + 0.25) / 2), ("nmu", (0.5 * 1 + 2.25) / 2), ("silly_nmu", (0.5 * 1 + 2.25) / 2)]
)
def test_r_z_by_hand(name, by_hand) -> None:
    assert presolved(name, [[0.5, 0.0]]).input_penalty(MEAN).item() == by_hand


def test_r_z_has_a_gradient_in_the_input() -> None:
    """It trains a network in front of the layer."""
    x = torch.tensor([[2.0], [4.0]], requires_grad=True)
    presolved("nmu", [[0.5]]).input_penalty(x.mean(0)).backward()
    assert x.grad is not None and x.grad.tolist() == [[-2 * 0.5 * (1 - 3) / 2]] * 2


def test_an_impossible_lower_bound_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"lower = 1.0 must lie in \[0, 1\)"):
        unit("nmu", 2, lower=1.0)
