"""The benchmark's units against their papers: exact solutions and initial weights."""

from __future__ import annotations

import math

import pytest
import torch
from benchmark_units import MCFCS, SIGNED, ctx, output, put, unit

from arith_models.orthogonal import orthogonal
from sweeps.training.random import Stream, seed_key

BIG = 100.0  # saturates tanh, sigmoid and softmax in float32, also times ln φ
PRODUCTS, QUOTIENTS = [6.0, -1.5, 16.0, -1.25], [0.375, -6.0, 0.25, -5.0]


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
    assert output(put(made, gate=torch.tensor([1.0, 0.0]), **weights)) == pytest.approx(
        [1.5, -3, -2, 2.5], rel=1e-5
    )
    beyond = output(put(made, gate=torch.tensor([3.0, -2.0])))  # gates are clamped in the forward
    assert beyond == pytest.approx([1.5, -3, -2, 2.5], rel=1e-5)


def test_npu_is_the_real_part_of_a_complex_power() -> None:
    """x^(w + i v) of x = -3 is exp((w + i v)(ln 3 + i pi))."""
    made = put(unit("npu", 1), gate=1.0, W_real=0.5, W_imaginary=-0.25)
    by_hand = (complex(math.log(3), math.pi) * complex(0.5, -0.25)).real
    angle = (complex(math.log(3), math.pi) * complex(0.5, -0.25)).imag
    assert output(made, torch.tensor([[-3.0]])) == pytest.approx(
        [math.exp(by_hand) * math.cos(angle)], rel=1e-5
    )


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
    made = put(
        unit("inalu"), gate=0.0, Wa_hat=math.atanh(0.5), Ma_hat=0.0, Wm_hat=math.atanh(0.5), Mm_hat=0.0
    )
    assert made.effective_weight().tolist() == [pytest.approx([0.25, 0.25])] * 2
    assert output(made, torch.tensor([[-4.0, 16.0]])) == pytest.approx(
        [0.5 * 3 + 0.5 * 0.5 * 64**0.25], rel=1e-5
    )


@pytest.mark.parametrize(
    ("gate", "weights", "by_hand"),
    [(BIG, [BIG, BIG], 5.5), (-BIG, [BIG, BIG], 6.0), (BIG, [BIG, -BIG], -2.5), (-BIG, [BIG, -BIG], 0.375)],
)
def test_g_nalu_adds_with_an_open_gate_and_multiplies_with_a_closed_one(gate, weights, by_hand) -> None:
    made = put(unit("g_nalu"), W_hat=torch.tensor([weights]), M_hat=BIG, gate=gate)
    assert output(made, SIGNED[:1]) == pytest.approx([by_hand], rel=1e-5)


def test_g_nalu_is_nalu_to_the_base_of_the_golden_ratio() -> None:
    """Written as the paper writes it, with powers of φ."""
    phi, x, made = (1 + math.sqrt(5)) / 2, SIGNED.double(), unit("g_nalu").double()
    with torch.no_grad():
        W = (phi ** (2 * made.W_hat) - 1) / (phi ** (2 * made.W_hat) + 1) / (1 + phi**-made.M_hat)
        gate = 1 / (1 + phi ** -(x @ made.gate.T))
        mul = phi ** (torch.log(x.abs() + 1e-7) @ W.T / math.log(phi))
        torch.testing.assert_close(made(x, ctx())[0], gate * (x @ W.T) + (1 - gate) * mul)
        torch.testing.assert_close(made.effective_weight(), W)


def test_g_nalu_stays_finite_where_a_power_of_phi_overflows() -> None:
    made = put(unit("g_nalu"), W_hat=1000.0, M_hat=1000.0, gate=0.0)
    assert made.effective_weight().tolist() == [[1.0, 1.0]]


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
        assert made(torch.tensor([[8.0]]), ctx())[0].tolist() == [pytest.approx([3.0, 1.0])]
    assert unit("mcfc", 7, 3).shares().sum(0).tolist() == pytest.approx([1.0] * 7)


def test_the_bias_of_a_multiplicative_mc_fc_is_a_factor() -> None:
    for name in MCFCS[1:]:
        made = put(unit(name), gate_bias=BIG, bias=math.log(2))
        assert output(made, SIGNED[:1]) == pytest.approx([12.0], rel=1e-5)


# ------------------------------------------------------------------------------------------- initial weights


def test_inalus_initial_weights_have_the_published_means_and_deviations() -> None:
    made = unit("inalu", 100, 100)
    for name, mean in (("Wa_hat", 0.88), ("Wm_hat", 0.88), ("Ma_hat", 0.5), ("Mm_hat", 0.5), ("gate", 0.0)):
        drawn = getattr(made, name)
        assert drawn.mean().item() == pytest.approx(mean, abs=5 * 0.2 / drawn.numel() ** 0.5)
        assert drawn.std().item() == pytest.approx(0.2, rel=5 / (2 * drawn.numel()) ** 0.5)
    assert not torch.equal(made.Wa_hat, made.Wm_hat) and not torch.equal(made.Ma_hat, made.Mm_hat)


@pytest.mark.parametrize(
    ("weights", "inputs", "r"),
    [
        ("xavier-uniform", 2, math.sqrt(2)),
        ("xavier-uniform-constrained", 2, 0.5),
        ("xavier-uniform-constrained", 95, 0.25),
    ],
)
@pytest.mark.parametrize("name", ["npu", "real_npu"])
def test_power_units_start_with_half_open_gates_and_weights_in_their_range(name, weights, inputs, r) -> None:
    found = []
    for seed in range(200):
        made = unit(name, inputs, weights=weights)
        with torch.no_grad():
            made.initialise(Stream(seed_key(seed, "initialise")))
        real, *imaginary = made.effective_weight().detach()
        assert all(not v.any() for v in imaginary) and made.gate.tolist() == [0.5] * inputs
        found.append(real)
    drawn = torch.cat(found)
    assert -r <= drawn.min() < -0.97 * r and 0.97 * r < drawn.max() <= r


def test_g_nalu_starts_as_nalu_does() -> None:
    made, hats, gates = unit("g_nalu", 10), [], []
    for seed in range(100):
        with torch.no_grad():
            made.initialise(Stream(seed_key(seed, "initialise")))
        hats += [made.W_hat.detach().clone(), made.M_hat.detach().clone()]
        gates.append(made.gate.detach().clone())
    for drawn, r in ((torch.cat(hats), 2.26047), (torch.cat(gates), math.sqrt(6 / 11))):
        assert -r <= drawn.min() < -0.98 * r and 0.98 * r < drawn.max() <= r


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
    assert not hasattr(wide, "bias") or not wide.bias.any()
    signs = set()
    for seed in range(20):
        made = unit(name)
        with torch.no_grad():
            made.initialise(Stream(seed_key(seed, "initialise")))
        signs.add(round(made.gate_weight.item()))
    assert signs == {-1, 1}
