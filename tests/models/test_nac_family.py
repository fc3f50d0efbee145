"""NAC's relatives against their definitions: exact solutions, initial values, gradients by hand."""

from __future__ import annotations

import math

import pytest
import torch
from made_units import X, context, initialised, output, presolved, set_weights, unit
from torch import Tensor

ADDITIVE = [
    "gradient_bandit_nac", "gumbel_nac", "hard_softmax_nac", "independent_nac", "linear_nac", "nac", "nau", "softmax_nac",
]  # fmt: skip
MULTIPLICATIVE = ["gumbel_mnac", "mnac", "nmu"]
LOGARITHMIC = ["nac_mul", "nac_mul_nmu", "nac_mul_sigma"]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ADDITIVE)
def test_addition_and_subtraction_are_exact_at_the_solution(name, training) -> None:
    both = presolved(name, [[1, 1, 0], [1, -1, 0]])
    assert both.effective_weight().tolist() == [[1, 1, 0], [1, -1, 0]]
    assert output(both, ctx=context(training=training)) == [[5.5, -2.5], [3.5, 2.5]]


def test_pos_nac_adds_exactly() -> None:
    assert output(presolved("pos_nac", [[1, 1, 0], [1, 1, 1]])) == [[5.5, 8.0], [3.5, 5.5]]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", MULTIPLICATIVE)
def test_multiplication_is_exact_at_the_solution_whatever_the_signs(name, training) -> None:
    both = presolved(name, [[1, 1, 0], [0, 0, 0]])
    assert output(both, X * torch.tensor([-1, 1, 1]), context(training=training)) == [[-6, 1], [-1.5, 1]]


def test_silly_nmu_multiplies_all_inputs_or_gives_zero() -> None:
    assert output(presolved("silly_nmu", [[1, 1, 1], [1, 1, 0]])) == [[15.0, 0.0], [3.0, 0.0]]


@pytest.mark.parametrize("name", LOGARITHMIC)
def test_log_units_multiply(name) -> None:
    made = presolved(name, [[1, 1, 0], [0, 0, 0]])
    torch.testing.assert_close(torch.tensor(output(made)), torch.tensor([[6.0, 1.0], [1.5, 1.0]]))


@pytest.mark.parametrize(
    ("log", "by_hand"),
    [
        ("normal", [6.0, 1.5]),  # 1.5 * 4, 3 * 0.5
        ("safe", [6.0, 4.5]),  # 3 * (|0.5 - 1| + 1)
        ("max_safe", [6.0, 3.0]),  # 3 * (max(0.5 - 1, 0) + 1)
    ],
)
@pytest.mark.parametrize("name", LOGARITHMIC)
def test_the_three_logarithms_by_hand(name, log, by_hand) -> None:
    made = presolved(name, [[1, 1, 0]], log=log)
    assert [row[0] for row in output(made)] == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("log", ["safe", "max_safe"])
def test_safe_logarithms_are_finite_at_zero_where_the_normal_one_nearly_is_not(log) -> None:
    zero = torch.zeros(1, 1)
    assert output(presolved("nac_mul", [[-1]], log=log), zero)[0][0] <= 1.0
    assert output(presolved("nac_mul", [[-1]]), zero)[0][0] == pytest.approx(1e7, rel=1e-4)


def initial_values(name: str, inputs: int, outputs: int, parameter: str) -> Tensor:
    draws = [getattr(initialised(name, inputs, outputs, seed), parameter).flatten() for seed in range(300)]
    return torch.cat(draws)


@pytest.mark.parametrize(
    ("name", "inputs", "outputs", "parameter", "r"),
    [
        ("mnac", 10, 2, "W_hat", math.sqrt(3) / 2),
        ("linear_nac", 4, 2, "weight", 1.0),
        ("softmax_nac", 10, 2, "logit", 0.5),  # sqrt(1/2) sqrt(6 / 12)
        ("hard_softmax_nac", 10, 2, "logit", 0.5),
        ("independent_nac", 100, 2, "M_hat", 0.50391),
    ],
)
def test_initial_values_are_uniform_on_the_published_range(name, inputs, outputs, parameter, r) -> None:
    values = initial_values(name, inputs, outputs, parameter)
    assert 0.99 * r < values.max() <= r * (1 + 1e-5) and -r * (1 + 1e-5) <= values.min() < -0.99 * r
    assert values.std().item() == pytest.approx(r / math.sqrt(3), rel=0.03)


@pytest.mark.parametrize(("inputs", "outputs"), [(10, 2), (2, 1)])
def test_pos_nacs_start_is_normal_with_xaviers_deviation(inputs, outputs) -> None:
    values = initial_values("pos_nac", inputs, outputs, "W_hat")
    assert values.std().item() == pytest.approx(math.sqrt(2 / (inputs + outputs)), rel=0.05)
    assert values.abs().max() > 2.5 * values.std()  # no uniform range


@pytest.mark.parametrize("name", ["silly_nmu", "nac_mul_nmu"])
def test_what_has_nmus_weights_starts_between_a_quarter_and_three(name) -> None:
    weight = initialised(name, 500, 2).effective_weight()
    assert 0.25 <= weight.min() < 0.26 and 0.74 < weight.max() <= 0.75


def test_the_initial_variance_of_nac_is_that_of_xavier() -> None:
    """r solves (I + O) Var = 2, for the product of tanh and sigmoid of uniform numbers."""
    weight = torch.cat([initialised("nac", 100, 2, seed).effective_weight() for seed in range(200)])
    assert weight.var().item() == pytest.approx(2 / 102, rel=0.03)


@pytest.mark.parametrize("name", ["gumbel_nac", "gradient_bandit_nac", "gumbel_mnac"])
def test_units_with_constant_starts_start_at_zero(name) -> None:
    assert all(not p.any() for p in initialised(name, 4, 2).parameters())


@pytest.mark.parametrize(
    "name", ["nac", "pos_nac", "independent_nac", "nac_mul", "nac_mul_sigma", "mnac", "softmax_nac"]
)
def test_a_step_on_the_hidden_weights_moves_the_effective_weight(name) -> None:
    """The fault of public NACs: W computed once, in the constructor, so that nothing is trained."""
    made = initialised(name, 3, 2)
    before = made.effective_weight().detach().clone()
    (made(X, context())[0].square()).sum().backward()
    assert all(p.grad.all() for p in made.parameters())
    first = output(made)
    with torch.no_grad():
        for p in made.parameters():
            p -= 0.1 * p.grad.sign()
    assert (made.effective_weight() != before).all()
    assert output(made) != first


def hidden_gradients(gradient: str | None, W_hat: float, M_hat: float) -> tuple[float, float]:
    """of y = 2 W, so that dW = 2; None is NAC itself."""
    made = unit("nac", 1) if gradient is None else unit("independent_nac", 1, gradient=gradient)
    with torch.no_grad():
        made.W_hat.fill_(W_hat)
        made.M_hat.fill_(M_hat)
    y = made(torch.tensor([[2.0]]), context())[0]
    assert y.item() == 2 * made.effective_weight().item()
    y.sum().backward()
    return made.W_hat.grad.item(), made.M_hat.grad.item()


@pytest.mark.parametrize("W_hat", [0.5, -0.75])
def test_independent_nacs_gradients_by_hand(W_hat) -> None:
    t, s = math.tanh(W_hat), 1 / (1 + math.exp(-0.25))
    ds = s * (1 - s)
    assert hidden_gradients(None, W_hat, 0.25) == pytest.approx((2 * (1 - t * t) * s, 2 * t * ds))
    assert hidden_gradients("independent", W_hat, 0.25) == pytest.approx((2 * (1 - t * t), 2 * ds))
    signed = (2 * (1 - t * t) * s, 0.1 * 2 * math.copysign(1, W_hat) * ds)
    assert hidden_gradients("sign", W_hat, 0.25) == pytest.approx(signed)


def test_nac_mul_nmu_clamps_and_penalises_as_nmu_does() -> None:
    made, nmu = unit("nac_mul_nmu", 2, clamp=False), unit("nmu", 2, clamp=False)
    for part in (made.nac, nmu):
        set_weights(part, [[-0.5, 1.25]])
    penalties, wanted = made(X[:, :2], context())[1], nmu(X[:, :2], context())[1]
    assert {k: penalties[k].item() for k in wanted} == {k: v.item() for k, v in wanted.items()}
    clamped = unit("nac_mul_nmu", 2, lower=0.125)
    with torch.no_grad():
        set_weights(clamped.nac, [[-0.5, 1.25]])
        clamped.constrain()
    assert clamped.effective_weight().tolist() == [[0.125, 1.0]]


def test_nac_mul_nmu_refuses_what_either_of_its_parts_refuses() -> None:
    for wrong in ({"epsilon": 0.0}, {"lower": 1.0}):
        with pytest.raises(ValueError, match="must"):
            unit("nac_mul_nmu", 2, **wrong)
