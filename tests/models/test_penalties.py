"""The regularisers, worked by hand in all their shapes, and how networks weigh them."""

from __future__ import annotations

import math

import pytest
import torch
from made_units import context, set_weights, unit

from arith_models import penalties
from arith_models.settings import RampedPenalty
from sweeps.config.registry import find


@pytest.mark.parametrize(
    ("name", "shape", "weights", "by_hand"),
    [
        ("nau_sparsity", "linear", [-1.25, -0.75, 0.25, 0.5], (0.25 + 0.25 + 0.25 + 0.5) / 4),
        ("nau_sparsity", "squared", [-0.5, 0.25, 1.0, 2.0], (1 / 16 + 9 / 256 + 0 + 4) / 4),
        ("nmu_sparsity", "linear", [-0.25, 0.25, 0.875, 1.5], (0.25 + 0.25 + 0.125 + 0.5) / 4),
        ("nmu_sparsity", "squared", [-0.5, 0.25, 1.0, 2.0], (9 / 16 + 9 / 256 + 0 + 4) / 4),
        ("nau_out_of_bound", "linear", [-1.5, -1.0, 0.5, 1.25], 0.75 / 4),
        ("nau_out_of_bound", "squared", [-1.5, -1.0, 0.5, 1.25], (0.25 + 0.0625) / 4),
        ("nmu_out_of_bound", "linear", [-0.5, 0.0, 0.5, 1.25], 0.75 / 4),
        ("nmu_out_of_bound", "squared", [-0.5, 0.0, 0.5, 1.25], (0.25 + 0.0625) / 4),
    ],
)
def test_penalties_of_weights_by_hand(name, shape, weights, by_hand) -> None:
    assert getattr(penalties, name)(torch.tensor([weights]), shape).item() == pytest.approx(by_hand)


def test_the_linear_penalty_of_a_positive_unit_pulls_minus_one_towards_zero_and_not_to_minus_one() -> None:
    minus_one = torch.tensor([[-1.0]])
    assert penalties.nau_sparsity(minus_one).item() == 0.0
    assert penalties.nmu_sparsity(minus_one).item() == 1.0


MEAN = torch.tensor([2.0, -0.5])


def test_r_z_by_hand() -> None:
    """Means 2 and -1/2: (1 - |W|) x̄² for addition, (1 - W) (1 - x̄)² for multiplication, mean over both weights."""
    assert penalties.nau_input(torch.tensor([[-0.5, 0.0]]), MEAN).item() == (0.5 * 4 + 0.25) / 2
    assert penalties.nmu_input(torch.tensor([[0.5, 0.0]]), MEAN).item() == (0.5 * 1 + 2.25) / 2


@pytest.mark.parametrize(("name", "by_hand"), [("nau", (0.5 * 4 + 0.25) / 2), ("nmu", (0.5 * 1 + 2.25) / 2),
                                               ("silly_nmu", (0.5 * 1 + 2.25) / 2)])  # fmt: skip
def test_units_say_their_r_z(name, by_hand) -> None:
    made = set_weights(unit(name, 2), [[0.5, 0.0]])
    assert made.input_penalty(MEAN).item() == by_hand


def test_r_z_of_nac_uses_the_effective_weight() -> None:
    """W = 1 and 1/2: nothing to let pass, and half."""
    made = set_weights(unit("nac", 2), [[1, 0.5]])
    assert made.input_penalty(MEAN).item() == pytest.approx(0.5 * 0.25 / 2)


@pytest.mark.parametrize(
    "name", ["linear_nac", "pos_nac", "mnac", "nalu", "gumbel_nac", "gradient_bandit_nac"]
)
def test_units_without_r_z_have_none(name) -> None:
    assert not hasattr(unit(name, 2), "input_penalty")


def test_r_z_of_a_log_unit_looks_at_the_mean_of_the_logarithms() -> None:
    """x = 1 and e²: logarithms 0 and 2, mean 1; W = 1/2 in a NAC, 0 in an NMU."""
    x = torch.tensor([[1.0], [math.e**2]])
    nac = set_weights(unit("nac_mul", 1).nac, [[0.5]])
    made = unit("nac_mul", 1)
    made.nac = nac
    assert made(x, context())[1]["input"].item() == pytest.approx(0.5 * 1)
    nmu = unit("nac_mul_nmu", 1)
    set_weights(nmu, [[0.0]])
    assert nmu(x / math.e, context())[1]["input"].item() == pytest.approx(1.0)  # (1 - 0) (1 - 0)²


def test_max_safe_adds_what_lies_below_one() -> None:
    """x = 0.25 and 3: mean of 0.75 and 0. NAC•,σ has no other R_z."""
    made = unit("nac_mul_sigma", 1, log="max_safe")
    set_weights(made, [[1.0]])
    assert made(torch.tensor([[0.25], [3.0]]), context())[1]["input"].item() == 0.375
    normal = unit("nac_mul_sigma", 1)
    set_weights(normal, [[1.0]])
    assert normal(torch.tensor([[0.25], [3.0]]), context())[1] == {}


def test_the_exp_schedule_by_hand() -> None:
    ramp = RampedPenalty(weight=10.0, schedule="exp")
    for step, share in [(0.0, 0.0), (1e5, 1 - 1 / math.e), (1e7, 1.0)]:
        assert ramp.at(torch.tensor(step)).item() == pytest.approx(10 * share)


def test_a_network_weighs_each_penalty_by_its_own_weight_and_leaves_others_alone() -> None:
    """NMU, W = 3/2 and unclamped, mean input 3: sparsity 1/2, out of bound 1/2, R_z 0 for the clamped weight 1."""
    one_layer = find("network", "one_layer")
    config = one_layer.Config(
        sparsity_penalty=RampedPenalty(weight=4.0, start=0.0, end=2.0),
        out_of_bound_penalty=3.0,
        input_penalty=5.0,
    )
    made = one_layer(config, [lambda i, o: unit("nmu", i, o, clamp=False)], 2, 1)
    set_weights(made.unit, [[1.5, 0.5]])
    found = made(torch.tensor([[2.0, 3.0], [4.0, 5.0]]), context(step=1.0))[1]
    assert {k: v.item() for k, v in found.items()} == {
        "sparsity": pytest.approx(2.0 * (0.5 + 0.5) / 2),
        "out_of_bound": pytest.approx(3.0 * 0.5 / 2),
        "input": pytest.approx(5.0 * (0 * 4 + 0.5 * 9) / 2),
    }


def test_penalties_without_a_weight_are_left_out_and_scores_and_gates_pass() -> None:
    config = find("network", "two_layer").Config()
    one = torch.tensor(1.0)
    layers = [
        (None, one, {"score": one, "out_of_bound": one, "input": one}),
        (None, one, {"score": one, "gate": one}),
    ]
    found = penalties.weighed(config, torch.tensor(0.0), layers)
    assert {k: v.item() for k, v in found.items()} == {"score": 2.0, "gate": 1.0}


def test_the_input_penalty_of_a_forward_and_that_of_another_layer_are_summed_and_weighed_once() -> None:
    two_layer = find("network", "two_layer")
    made = two_layer(two_layer.Config(hidden=1, input_penalty=2.0),
                     [lambda i, o: unit("nac", i, o), lambda i, o: unit("nac_mul", i, o)], 1, 1)  # fmt: skip
    set_weights(made.first, [[0.5]])
    set_weights(made.second, [[0.5]])
    e = math.e
    found = made(torch.tensor([[2 * e], [2 * e]]), context())[1]
    assert found["input"].item() == pytest.approx(2.0 * (0.5 * (2 * e) ** 2 + 0.5 * 1), rel=1e-5)


def test_r_z_has_a_gradient_in_the_input() -> None:
    """It is what teaches a network in front of the layer."""
    x = torch.tensor([[2.0], [4.0]], requires_grad=True)
    made = set_weights(unit("nmu", 1), [[0.5]])
    made.input_penalty(x.mean(0)).backward()
    assert x.grad.tolist() == [[-2 * 0.5 * (1 - 3) / 2]] * 2
