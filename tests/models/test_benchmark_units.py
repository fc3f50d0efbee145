"""iNALU, the power units and the mass-conserving units against their papers: solutions, initial weights, penalties."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from lanes import resolved
from made_units import assert_fills, context, drawn, first_column, initialise, initialised, penalties, put
from torch import Tensor, nn

from arith_models.units.inalu import INALU
from arith_models.units.mcfc import orthogonal
from arith_models.units.npu import grown
from sweeps.config.registry import find
from sweeps.training.random import Stream, seed_key

SIGNED = torch.tensor([[1.5, 4.0], [-3.0, 0.5], [-2.0, -8.0], [2.5, -0.5]])
MCFCS = ("mcfc", "mul_mcfc", "mul_mcfc_sign_inalu", "mul_mcfc_sign_real_npu")
BIG = 100.0  # saturates tanh, sigmoid and softmax in float32
PRODUCTS, QUOTIENTS = [6.0, -1.5, 16.0, -1.25], [0.375, -6.0, 0.25, -5.0]


def unit(name: str, inputs: int = 2, outputs: int = 1, **settings: Any) -> Any:
    return initialised(name, inputs, outputs, **settings)


def output(made: nn.Module, x: Tensor = SIGNED) -> list[float]:
    return first_column(made, x)


def terms(made: nn.Module, step: float = 0.0, last_error: float = math.inf) -> dict[str, float]:
    return penalties(made, SIGNED, context(step, last_error=last_error))


# ------------------------------------------------------------------------------------------- solutions


@pytest.mark.parametrize(("second", "by_hand"), [(1.0, PRODUCTS), (-1.0, QUOTIENTS)])
@pytest.mark.parametrize("name", ["npu", "real_npu"])
def test_power_units_multiply_and_divide_negative_inputs_too(name, second, by_hand) -> None:
    weights = torch.tensor([[1.0, second]])
    made = unit(name)
    made = put(made, gate=1.0, **{"weight" if name == "real_npu" else "W_real": weights})
    assert output(made) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("name", ["npu", "real_npu"])
def test_a_closed_gate_makes_an_input_one(name) -> None:
    made = unit(name)
    weights = {"weight" if name == "real_npu" else "W_real": 1.0}
    assert output(put(made, gate=torch.tensor([1.0, 0.0]), **weights)) == pytest.approx([1.5, -3, -2, 2.5], rel=1e-5)
    beyond = output(put(made, gate=torch.tensor([3.0, -2.0])))  # gates are clamped in the forward
    assert beyond == pytest.approx([1.5, -3, -2, 2.5], rel=1e-5)


def test_npu_is_the_real_part_of_a_complex_power() -> None:
    """x^(w + i v) of x = -3 is exp((w + i v)(ln 3 + i pi))."""
    made = put(unit("npu", 1), gate=1.0, W_real=0.5, W_imaginary=-0.25)
    by_hand = (complex(math.log(3), math.pi) * complex(0.5, -0.25)).real
    angle = (complex(math.log(3), math.pi) * complex(0.5, -0.25)).imag
    assert output(made, torch.tensor([[-3.0]])) == pytest.approx([math.exp(by_hand) * math.cos(angle)], rel=1e-5)


INALU_CASES = {
    "add": ({"gate": BIG, "Wa_hat": BIG, "Ma_hat": BIG}, [5.5, -2.5, -10.0, 2.0]),
    "sub": ({"gate": BIG, "Wa_hat": torch.tensor([[BIG, -BIG]]), "Ma_hat": BIG}, [-2.5, -3.5, 6.0, 3.0]),
    "mul": ({"gate": -BIG, "Wm_hat": BIG, "Mm_hat": BIG}, PRODUCTS),
    "div": ({"gate": -BIG, "Wm_hat": torch.tensor([[BIG, -BIG]]), "Mm_hat": BIG}, QUOTIENTS),
}


@pytest.mark.parametrize("case", INALU_CASES)
def test_inalu_does_all_four_operations_with_signs(case) -> None:
    values, by_hand = INALU_CASES[case]
    assert output(put(unit("inalu"), **values)) == pytest.approx(by_hand, rel=1e-5)


def test_inalus_exponent_ends_at_twenty_and_its_logarithm_begins_at_1e_7() -> None:
    product = put(unit("inalu"), gate=-BIG, Wm_hat=BIG, Mm_hat=BIG)
    found = output(product, torch.tensor([[1e9, 1e9], [-1e9, 1e9]]))
    assert found == pytest.approx([math.exp(20), -math.exp(20)], rel=1e-5)
    quotient = put(product, Wm_hat=torch.tensor([[BIG, -BIG]]))
    assert output(quotient, torch.tensor([[1e-5, 1e-9]])) == pytest.approx([100.0], rel=1e-4)


def test_inalu_halfway_by_hand() -> None:
    """tanh(atanh 1/2) sigmoid(0) = 1/4 each; m = 4^(1/4) 16^(1/4), s = (1 - 1/2) * 1, a = (-4 + 16)/4, gate 1/2."""
    made = put(unit("inalu"), gate=0.0, Wa_hat=math.atanh(0.5), Ma_hat=0.0, Wm_hat=math.atanh(0.5), Mm_hat=0.0)
    assert made.effective_weight().tolist() == [pytest.approx([0.25, 0.25])] * 2
    assert output(made, torch.tensor([[-4.0, 16.0]])) == pytest.approx([0.5 * 3 + 0.5 * 0.5 * 64**0.25], rel=1e-5)


def test_mc_fc_adds_and_its_products_multiply_with_an_open_gate() -> None:
    """One output: every share is 1 whatever R is."""
    x = SIGNED.abs()
    assert output(put(unit("mcfc"), gate_bias=BIG), x) == pytest.approx([5.5, 3.5, 10.0, 3.0])
    for name in MCFCS[1:]:
        assert output(put(unit(name), gate_bias=BIG), x) == pytest.approx([6.0, 1.5, 16.0, 1.25], rel=1e-5)


@pytest.mark.parametrize("name", ["mul_mcfc_sign_inalu", "mul_mcfc_sign_real_npu"])
def test_signed_mc_fc_multiplies_negative_inputs_too(name) -> None:
    open_gate = {"gate": 1.0} if name == "mul_mcfc_sign_real_npu" else {}
    assert output(put(unit(name), gate_bias=BIG, **open_gate)) == pytest.approx(PRODUCTS, rel=1e-5)
    assert all(math.isfinite(y) for y in output(unit(name), torch.zeros(1, 2)))


def test_unsigned_mc_fc_has_no_value_for_negative_inputs() -> None:
    assert [math.isnan(y) for y in output(unit("mul_mcfc"))] == [False, True, True, True]


def test_mc_fc_shares_every_input_out_between_its_outputs() -> None:
    """softmax over outputs of (ln 3, 0) is (3/4, 1/4); both gates are sigmoid(0) = 1/2."""
    made = put(unit("mcfc", 1, 2), redistribution=torch.tensor([[math.log(3)], [0.0]]), gate_weight=0.0)
    with torch.no_grad():
        assert made(torch.tensor([[8.0]]), context())[0].tolist() == [pytest.approx([3.0, 1.0])]
    assert unit("mcfc", 7, 3).shares().sum(0).tolist() == pytest.approx([1.0] * 7)


def test_the_bias_of_a_multiplicative_mc_fc_is_a_factor() -> None:
    for name in MCFCS[1:]:
        made = put(unit(name), gate_bias=BIG, bias=math.log(2))
        assert output(made, SIGNED[:1]) == pytest.approx([12.0], rel=1e-5)


# ------------------------------------------------------------------------------------------- initial weights


def test_inalus_initial_weights_have_the_published_means_and_deviations() -> None:
    made = unit("inalu", 100, 100)
    for name, mean in (("Wa_hat", 0.88), ("Wm_hat", 0.88), ("Ma_hat", 0.5), ("Mm_hat", 0.5), ("gate", 0.0)):
        values = made.get_parameter(name)
        assert values.mean().item() == pytest.approx(mean, abs=5 * 0.2 / values.numel() ** 0.5)
        assert values.std().item() == pytest.approx(0.2, rel=5 / (2 * values.numel()) ** 0.5)
    assert not torch.equal(made.Wa_hat, made.Wm_hat) and not torch.equal(made.Ma_hat, made.Mm_hat)


@pytest.mark.parametrize(
    ("weights", "inputs", "r"),
    [("xavier-uniform", 2, math.sqrt(2)), ("xavier-uniform-constrained", 2, 0.5), ("xavier-uniform-constrained", 95, 0.25)],
)
@pytest.mark.parametrize("name", ["npu", "real_npu"])
def test_power_units_start_with_half_open_gates_and_weights_in_their_range(name, weights, inputs, r) -> None:
    made = unit(name, inputs, weights=weights)
    _, *imaginary = made.effective_weight()
    assert all(not v.any() for v in imaginary) and made.gate.tolist() == [0.5] * inputs
    parameter = "weight" if name == "real_npu" else "W_real"
    assert_fills(drawn(name, inputs, 1, 200, parameter, weights=weights), -r, r, missing=0.015)


@pytest.mark.parametrize(("shape", "gram"), [((5, 3), 3), ((3, 5), 3), ((4, 4), 4), ((1, 1), 1)])
def test_orthogonal_weights_are_orthonormal(shape, gram) -> None:
    W = orthogonal(Stream(seed_key(0, "initialise")), shape)
    assert W.shape == shape
    torch.testing.assert_close(W.T @ W if shape[0] >= shape[1] else W @ W.T, torch.eye(gram))


@pytest.mark.parametrize("name", MCFCS)
def test_mc_fc_starts_orthogonal_or_as_the_identity_without_a_bias(name) -> None:
    wide, square = unit(name, 5, 3), unit(name, 3, 3)
    torch.testing.assert_close(wide.redistribution @ wide.redistribution.T, torch.eye(3))
    assert torch.equal(square.redistribution, torch.eye(3))
    assert wide.gate_weight.norm().item() == pytest.approx(1.0) and not wide.gate_bias.any()
    assert name == "mcfc" or not wide.bias.any()
    made = unit(name)
    assert {round(initialise(made, seed).gate_weight.item()) for seed in range(20)} == {-1, 1}


# ------------------------------------------------------------------------------------------- clips and penalties


@pytest.mark.parametrize(
    ("name", "clip", "real", "imaginary", "gate"),
    [
        ("npu", "none", 1.5, -1.5, 1.25), ("npu", "w", 1.0, -1.5, 1.25), ("npu", "g", 1.5, -1.5, 1.0),
        ("npu", "wg", 1.0, -1.5, 1.0), ("npu", "wig", 1.0, -1.0, 1.0),
        ("real_npu", "none", 1.5, None, 1.25), ("real_npu", "w", 1.0, None, 1.25),
        ("real_npu", "g", 1.5, None, 1.0), ("real_npu", "wg", 1.0, None, 1.0),
    ],
)  # fmt: skip
def test_a_clip_clamps_the_parameters_that_it_names(name, clip, real, imaginary, gate) -> None:
    made = put(unit(name, clip=clip), gate=1.25)
    made = put(made, W_real=1.5, W_imaginary=-1.5) if name == "npu" else put(made, weight=1.5)
    with torch.no_grad():
        made.constrain()
    rows = [[real, real]] + ([[imaginary, imaginary]] if name == "npu" else [])
    assert made.effective_weight().tolist() == rows and made.gate.tolist() == [gate, gate]


@pytest.mark.parametrize(
    ("step", "rising", "falling"),
    [(0, 1e-7, 1e-3), (9_999, 1e-7, 1e-3), (10_000, 1e-6, 1e-4), (20_000, 1e-5, 1e-5), (50_000, 1e-5, 1e-5),
     (5_000_000, 1e-5, 1e-5)],
)  # fmt: skip
def test_beta_grows_by_its_factor_every_ten_thousand_steps_until_its_end(step, rising, falling) -> None:
    step = torch.tensor(float(step))
    assert grown(step, 1e-7, 1e-5, 10.0, 10_000.0).item() == pytest.approx(rising)
    assert grown(step, 1e-3, 1e-5, 10.0, 10_000.0).item() == pytest.approx(falling)
    lanes = [torch.tensor([a, b]) for a, b in ((1e-7, 1e-3), (1e-5, 1e-5), (10.0, 10.0), (1e4, 1e4))]
    assert torch.vmap(grown)(step.expand(2), *lanes).tolist() == pytest.approx([rising, falling])


def test_the_penalties_of_npu_by_hand() -> None:
    values = {
        "W_real": torch.tensor([[1.5, -0.25]]),
        "W_imaginary": torch.tensor([[0.5, -1.0]]),
        "gate": torch.tensor([0.25, 1.5]),
    }
    options: dict[str, Any] = {"l1": True, "weight_penalty": 2.0, "gate_penalty": 4.0}
    found = terms(put(unit("npu", **options), **values), step=10_000)
    scale = 1e-4  # 1e-5, grown once
    assert found == {
        "l1": pytest.approx(scale * (1.75 + 1.5 + 1.75)),
        "weight": pytest.approx(scale * 2 * (0.5 + 0.75) / 2),
        "gate": pytest.approx(scale * 4 * (0.25 + 0.5) / 2),
    }
    imaginary_too = terms(put(unit("npu", clip="wig", **options), **values))["weight"]
    assert imaginary_too == pytest.approx(1e-5 * 2 * (1.25 / 2 + 1.5))
    assert "l1" not in terms(unit("npu"))


@pytest.mark.parametrize(("shape", "by_hand"), [("W", (0.5 + 0.75) / 2), ("bias", (0.5 + 0.25) / 2)])
def test_the_penalties_of_real_npu_by_hand(shape, by_hand) -> None:
    made = unit("real_npu", weight_shape=shape, l1=True, weight_penalty=1.0, gate_penalty=1.0, schedule="madsen")
    put(made, weight=torch.tensor([[1.5, -0.25]]), gate=torch.tensor([0.25, 1.5]))
    assert set(terms(made, step=20_000).values()) == {0.0}
    halfway = terms(made, step=27_500)
    assert halfway["weight"] == pytest.approx(by_hand / 2) and halfway["gate"] == pytest.approx(0.375 / 2)
    assert terms(made, step=1e6)["l1"] == pytest.approx(1.75 + 1.75)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta_start": 0.0}, "beta_start = 0.0 must be above 0"),
        ({"beta_growth": 1.0}, "beta_growth = 1.0 must be above 1; for a constant beta set beta_end = beta_start"),
        ({"gate_penalty": -1.0}, "gate_penalty = -1.0 must be at least 0"),
        ({"ramp_start": 5.0, "ramp_end": 5.0},
         "0 <= ramp_start < ramp_end must hold, but got ramp_start = 5.0, ramp_end = 5.0"),
    ],
)  # fmt: skip
def test_faults_of_a_power_units_settings(settings, message) -> None:
    with pytest.raises(ValueError, match=rf"\A{re.escape(message)}\Z"):
        find("model", "npu").Config(**settings)


@pytest.mark.parametrize(
    ("step", "last_error", "acts"),
    [(10_000, 0.5, False), (10_001, 0.5, True), (50_000, 0.999, True), (50_000, 1.0, False), (50_000, math.inf, False)],
)
def test_inalus_penalty_acts_late_and_while_the_last_error_is_below_one(step, last_error, acts) -> None:
    """Five tensors, each of parameters -19 and 25: mean of 1 and 0."""
    made = put(unit("inalu"), **{n: torch.tensor([-19.0, 25.0]) for n in ("Wa_hat", "Ma_hat", "Wm_hat", "Mm_hat")}, gate=19.5)
    by_hand = 0.05 * (4 * 0.5 + 0.5) if acts else 0.0
    assert terms(made, step, last_error) == {"discreteness": pytest.approx(by_hand)}


def test_mc_fcs_penalty_grows_its_parameters_and_is_the_networks_to_weigh() -> None:
    values = {"redistribution": torch.tensor([[1.0, -3.0]]), "gate_weight": 2.0, "gate_bias": 0.5}
    for name in MCFCS:
        assert terms(put(unit(name), **values))["sparsity"] == pytest.approx(-(5 + 4 + 0.25))


def test_the_gate_of_the_signed_mc_fc_has_a_ramped_penalty() -> None:
    found = resolved("mul_mcfc_sign_real_npu", "single_module", steps=50_000)
    assert found["model"]["units"][0]["gate_penalty"] == {
        "weight": 1.0, "start": 20_000.0, "end": 35_000.0, "schedule": "linear"
    }  # fmt: skip
    made = put(unit("mul_mcfc_sign_real_npu"), gate=torch.tensor([0.25, 0.5]))
    assert terms(made, step=1e6)["gate"] == 0.0  # off unless a network or a file sets it


def test_the_papers_settings_of_a_unit_yield_to_a_files() -> None:
    def settings(**model: Any) -> Any:
        found = resolved({"name": "npu", **model}, "single_module", steps=50_000)
        return found["model"]["units"][0]

    assert (settings()["l1"], settings()["beta_start"], settings()["beta_end"]) == (True, 1e-7, 1e-5)
    division = settings(beta_start=1e-9, beta_end=1e-7)
    assert (division["l1"], division["beta_start"], division["beta_end"]) == (True, 1e-9, 1e-7)
    assert settings(l1=False)["l1"] is False


# ------------------------------------------------------------------------------------------- restarts


def restarts(errors: list[float], interval: int = 1000, **settings: Any) -> bool:
    return INALU.restarts(INALU.Config(**settings), errors, interval)


@pytest.mark.parametrize(
    ("errors", "by_hand"),
    [
        ([9.0] * 5, False),  # 5000 steps are not more than 5000
        ([9.0] * 6, True),  # 9 <= 9 + 0, and 9 > 1
        ([1.0] * 6, False),  # stalled, but not above 1
        ([9.0] * 3 + [5.0] * 3, False),  # 9 > 5 + 0: it learns
        ([5.0] * 3 + [9.0] * 3, True),  # it grows worse
        ([6.0] * 3 + [2.0, 5.0, 8.0], True),  # 6 <= 5 + sqrt(6)
        ([8.0] * 3 + [2.0, 5.0, 8.0], False),  # 8 > 5 + sqrt(6)
        ([4.0] * 3 + [9.0] + [4.0] * 3, True),  # the middle one counts half in each: both means are 33 / 7
        ([9.0, 9.0, 9.0, 9.0, 3.0, 3.0, 3.0], False),  # 9 against (4.5 + 9) / 3.5 = 3.857, deviation 2.1
        ([math.nan] * 6, False),
        ([math.inf] * 6, False),
    ],
)
def test_inalu_restarts_when_the_second_half_is_no_better(errors, by_hand) -> None:
    assert restarts(errors) is by_hand


def test_when_inalu_restarts_is_set_by_its_config() -> None:
    stalled = [9.0] * 6
    assert restarts(stalled, interval=900)
    assert not restarts(stalled, interval=800)
    assert not restarts(stalled, reinit=False)
    assert not restarts(stalled, reinit_threshold=9.0)
    assert restarts(stalled[:2], interval=10, reinit_stored=19)
    assert not restarts(stalled[:2], interval=10, reinit_stored=20)
