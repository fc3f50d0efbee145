"""NAC's multiplicative relatives: products through logarithms, and MNAC: exact solutions, logarithms and R_z by hand."""

from __future__ import annotations

import math

import pytest
import torch
from made_units import (
    X,
    assert_fills,
    context,
    drawn,
    first_column,
    initialised,
    output,
    penalties,
    presolved,
    set_weights,
    unit,
)

MULTIPLICATIVE = ["gumbel_mnac", "mnac", "nmu"]
LOGARITHMIC = ["nac_mul", "nac_mul_nmu", "nac_mul_sigma"]


@pytest.mark.parametrize("training", [True, False])
def test_multiplication_is_exact_at_the_solution_whatever_the_signs(training) -> None:
    for name in MULTIPLICATIVE:
        both = presolved(name, [[1, 1, 0], [0, 0, 0]])
        found = output(both, X * torch.tensor([-1, 1, 1]), context(training=training))
        assert found == [[-6, 1], [-1.5, 1]], name


def test_log_units_multiply() -> None:
    for name in LOGARITHMIC:
        made = presolved(name, [[1, 1, 0], [0, 0, 0]])
        torch.testing.assert_close(torch.tensor(output(made)), torch.tensor([[6.0, 1.0], [1.5, 1.0]]))


@pytest.mark.parametrize(
    ("weights", "by_hand"),
    [
        ([1, 1, 0], [6.0, 1.5]),  # product
        ([1, -1, 0], [0.375, 6.0]),  # quotient
        ([0.5, 0, 0], [math.sqrt(1.5), math.sqrt(3)]),  # root
    ],
)
def test_nac_mul_multiplies_divides_and_takes_roots(weights, by_hand) -> None:
    assert first_column(presolved("nac_mul", [weights])) == pytest.approx(by_hand, rel=1e-5)


def test_nac_mul_loses_the_sign() -> None:
    product = presolved("nac_mul", [[1, 1]])
    assert output(product, torch.tensor([[-1.5, 4.0]]))[0] == pytest.approx([6.0], rel=1e-5)


@pytest.mark.parametrize(
    ("log", "by_hand"),
    [
        ("normal", [6.0, 1.5]),  # 1.5 * 4, 3 * 0.5
        ("safe", [6.0, 4.5]),  # 3 * (|0.5 - 1| + 1)
        ("max_safe", [6.0, 3.0]),  # 3 * (max(0.5 - 1, 0) + 1)
    ],
)
def test_the_three_logarithms_by_hand(log, by_hand) -> None:
    for name in LOGARITHMIC:
        made = presolved(name, [[1, 1, 0]], log=log)
        assert first_column(made) == pytest.approx(by_hand, rel=1e-5), name


@pytest.mark.parametrize("log", ["safe", "max_safe"])
def test_safe_logarithms_are_finite_at_zero_where_the_normal_one_nearly_is_not(log) -> None:
    zero = torch.zeros(1, 1)
    assert output(presolved("nac_mul", [[-1]], log=log), zero)[0][0] <= 1.0
    assert output(presolved("nac_mul", [[-1]]), zero)[0][0] == pytest.approx(1e7, rel=1e-4)


def test_initial_values() -> None:
    r = math.sqrt(3) / 2
    assert_fills(drawn("mnac", 10, 2, 300, "W_hat"), -r, r, missing=0.005)
    assert_fills(drawn("nac_mul", 10, 1, 300, "nac.W_hat", "nac.M_hat"), -2.26047, 2.26047)
    weight = initialised("nac_mul_nmu", 500, 2).effective_weight()
    assert 0.25 <= weight.min() < 0.26 and 0.74 < weight.max() <= 0.75


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


def test_nac_mul_nmu_has_the_limits_of_both_of_its_parts() -> None:
    for wrong in ({"epsilon": 0.0}, {"lower": 1.0}):
        with pytest.raises(ValueError, match="must"):
            unit("nac_mul_nmu", 2, **wrong)


def test_r_z_of_a_log_unit_is_that_of_the_mean_of_the_logarithms() -> None:
    """x = 1 and e²: logarithms 0 and 2, mean 1; W = 1/2 in a NAC, 0 in an NMU."""
    x = torch.tensor([[1.0], [math.e**2]])
    assert penalties(presolved("nac_mul", [[0.5]]), x)["input"] == pytest.approx(0.5 * 1)
    nmu = presolved("nac_mul_nmu", [[0.0]])
    assert penalties(nmu, x / math.e)["input"] == pytest.approx(1.0)  # (1 - 0) (1 - 0)²


def test_max_safe_adds_the_distance_below_one() -> None:
    """x = 0.25 and 3: mean of 0.75 and 0. NAC•,σ has no other R_z."""
    x = torch.tensor([[0.25], [3.0]])
    assert penalties(presolved("nac_mul_sigma", [[1.0]], log="max_safe"), x)["input"] == 0.375
    assert penalties(presolved("nac_mul_sigma", [[1.0]]), x) == {}
