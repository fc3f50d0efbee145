"""The regularisers, worked by hand in all their shapes, and the weighting of them by networks; networks of two layers."""

from __future__ import annotations

import math

import pytest
import torch
from made_units import X, context, initialise, presolved, put, set_weights, unit

from arith_models import penalties
from arith_models.networks.one_layer import OneLayer
from arith_models.networks.two_layer import TwoLayer
from arith_models.penalties import PenaltyConfig, RampedPenalty


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


def test_units_without_r_z_have_none() -> None:
    for name in ("linear_nac", "pos_nac", "mnac", "nalu", "gumbel_nac", "gradient_bandit_nac"):
        assert unit(name, 2).input_penalty(MEAN) is None, name


def test_the_exp_schedule_by_hand() -> None:
    ramp = RampedPenalty(weight=10.0, schedule="exp")
    for step, share in [(0.0, 0.0), (1e5, 1 - 1 / math.e), (1e7, 1.0)]:
        assert ramp.at(torch.tensor(step)).item() == pytest.approx(10 * share)


def test_a_network_weights_each_penalty_by_its_own_weight_and_leaves_others_alone() -> None:
    """NMU, W = 3/2 and unclamped, mean input 3: sparsity 1/2, out of bound 1/2, R_z 0 for the clamped weight 1."""
    config = PenaltyConfig(
        sparsity_penalty=RampedPenalty(weight=4.0, start=0.0, end=2.0), out_of_bound_penalty=3.0, input_penalty=5.0
    )
    made = OneLayer(config, [lambda i, o: unit("nmu", i, o, clamp=False)], 2, 1)
    set_weights(made.unit, [[1.5, 0.5]])
    found = made(torch.tensor([[2.0, 3.0], [4.0, 5.0]]), context(step=1.0))[1]
    assert {k: v.item() for k, v in found.items()} == {
        "sparsity": pytest.approx(2.0 * (0.5 + 0.5) / 2),
        "out_of_bound": pytest.approx(3.0 * 0.5 / 2),
        "input": pytest.approx(5.0 * (0 * 4 + 0.5 * 9) / 2),
    }


def test_penalties_without_a_weight_are_left_out_and_scores_and_gates_pass() -> None:
    config = PenaltyConfig()
    any_unit = unit("nac", 1)
    one = torch.tensor(1.0)
    layers = [(any_unit, one, {"score": one, "out_of_bound": one, "input": one}), (any_unit, one, {"score": one, "gate": one})]
    found = penalties.weighted(config, torch.tensor(0.0), layers)
    assert {k: v.item() for k, v in found.items()} == {"score": 2.0, "gate": 1.0}


def test_the_input_penalty_of_a_forward_and_that_of_another_layer_are_summed_and_weighted_once() -> None:
    made = TwoLayer(TwoLayer.Config(hidden=1, input_penalty=2.0),
                    [lambda i, o: unit("nac", i, o), lambda i, o: unit("nac_mul", i, o)], 1, 1)  # fmt: skip
    set_weights(made.first, [[0.5]])
    set_weights(made.second, [[0.5]])
    e = math.e
    found = made(torch.tensor([[2 * e], [2 * e]]), context())[1]
    assert found["input"].item() == pytest.approx(2.0 * (0.5 * (2 * e) ** 2 + 0.5 * 1), rel=1e-5)


# ------------------------------------------------------------------------------------------- schedules, two layers


@pytest.mark.parametrize(("step", "weight"), [(0, 0), (5000, 0), (27_500, 0.005), (50_000, 0.01), (10**6, 0.01)])
def test_the_weight_of_a_penalty_grows_from_start_to_end(step, weight) -> None:
    ramp = RampedPenalty(weight=0.01, start=5_000.0, end=50_000.0)
    assert float(ramp.at(torch.tensor(float(step)))) == pytest.approx(weight)


@pytest.mark.parametrize("schedule", [{"start": 5.0, "end": 5.0}, {"start": -1.0}, {"weight": -0.1}])
def test_an_impossible_ramp_is_an_error(schedule) -> None:
    with pytest.raises(ValueError, match="must"):
        RampedPenalty(**schedule)


def test_two_layers_add_their_penalties_and_weight_them_once() -> None:
    """Mean of (1/4, 1/4) and of (1/2): 3/4, halfway up a ramp to 10."""
    config = TwoLayer.Config(hidden=1, sparsity_penalty=RampedPenalty(weight=10.0, start=0.0, end=10.0))
    made = TwoLayer(config, [lambda i, o: unit("nau", i, o), lambda i, o: unit("nmu", i, o)], 2, 1)
    put(made, **{"first.weight": torch.tensor([[0.75, -0.25]]), "second.weight": 0.5})
    y, terms = made(torch.tensor([[4.0, 2.0]]), context(step=5.0))
    assert y.item() == pytest.approx(0.5 * (3 - 0.5) + 0.5)
    assert {name: p.item() for name, p in terms.items()} == {"sparsity": pytest.approx(5 * 0.75)}


def test_a_network_without_penalties_reports_none() -> None:
    made = initialise(TwoLayer(TwoLayer.Config(), [lambda i, o: unit("nac", i, o)] * 2, 3, 1))
    assert made(X, context())[1] == {}


def test_dropout_is_between_the_layers() -> None:
    """h = 1 + 2 for each of 1000 rows: 0 with probability 1/4, else 3 / (3/4)."""
    config = TwoLayer.Config(hidden=1, dropout=0.25)
    layers = iter([presolved("nau", [[1.0, 1.0]]), presolved("nau", [[1.0]])])
    made, x = TwoLayer(config, [lambda i, o: next(layers)] * 2, 2, 1), torch.tensor([[1.0, 2.0]])
    y = made(x.expand(1000, 2), context())[0]
    assert y.unique().tolist() == [0.0, 4.0] and y.mean().item() == pytest.approx(3.0, abs=0.2)
    assert made(x, context(training=False))[0].tolist() == [[3.0]]
