"""NALU with all of its variants, the gated NAU/NMU and G-NALU: by hand, and through the engine's transformations."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from lanes import resolved
from made_units import (
    SATURATED,
    X,
    assert_fills,
    context,
    drawn,
    first_column,
    initialised,
    output,
    penalties,
    put,
    set_weights,
    stream,
    unit,
)
from torch import Tensor
from torch.func import functional_call, grad, stack_module_state
from torch.fx.experimental.proxy_tensor import make_fx

from arith_models.units.nac import gumbel_noise
from arith_models.units.nalu import ADDITIVE, MULTIPLICATIVE
from sweeps.config.registry import find, names

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *(("nalu", {"nac": nac}) for nac in ADDITIVE),
    *(("nalu", {"nac": nac, "separate_weights": True}) for nac in ADDITIVE),
    *(("nalu", {"nac": nac, "separate_weights": True, "mul": "direct"}) for nac in MULTIPLICATIVE),
    *(("nalu", {"mul": mul}) for mul in ("safe", "max_safe", "trig")),
    *(("nalu", {"gate": gate, "two_gates": True}) for gate in ("normal", "regularised", "gumbel", "obs_gumbel")),
    ("nalu", {"gate_bias": True}),
    ("nalu", {"gate_bias": True, "two_gates": True}),
    ("gated_nau_nmu", {}),
    ("gated_nau_nmu", {"gate": "obs_gumbel", "gate_bias": True, "two_gates": True, "clamp": False}),
]


def solved(opening: float, name: str = "nalu", **settings: Any) -> Any:
    """[1, 1, 0] in every weight matrix; every gate is sigmoid(opening * sum of x)."""
    made = unit(name, 3, **settings)
    parts = [made.nau, made.nmu] if name == "gated_nau_nmu" else [made.nac]
    for part in [*parts, *([made.mul_nac] if settings.get("separate_weights") else [])]:
        set_weights(part, [[1, 1, 0]])
    gates = [n for n, _ in made.named_parameters(recurse=False)]
    return put(made, **{n: 0.0 if n.endswith("bias") else opening for n in gates})


@pytest.mark.parametrize(("gate", "by_hand"), [(SATURATED, [5.5, 3.5]), (-SATURATED, [6.0, 1.5]), (0.0, [5.75, 2.5])])
def test_every_nalu_adds_with_an_open_gate_and_multiplies_with_a_closed_one(gate, by_hand) -> None:
    for nac in ADDITIVE:
        for separate in (False, True):
            made = solved(gate, nac=nac, separate_weights=separate)
            assert first_column(made) == pytest.approx(by_hand, rel=1e-5), (nac, separate)


@pytest.mark.parametrize(
    ("mul", "by_hand"),
    [
        ("normal", [6.0, 1.5]),
        ("safe", [6.0, 4.5]),  # 3 * (|0.5 - 1| + 1)
        ("max_safe", [6.0, 3.0]),  # 3 * (max(0.5 - 1, 0) + 1)
        # sinh(asinh a + asinh b) = a sqrt(b² + 1) + b sqrt(a² + 1)
        ("trig", [1.5 * math.sqrt(17) + 4 * math.sqrt(3.25), 3 * math.sqrt(1.25) + 0.5 * math.sqrt(10)]),
    ],
)
def test_the_multiplicative_branches_by_hand(mul, by_hand) -> None:
    assert first_column(solved(-SATURATED, mul=mul)) == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("gated_nau_nmu", {}), *(("nalu", {"nac": n, "separate_weights": True, "mul": "direct"}) for n in MULTIPLICATIVE)],
)
def test_direct_products_are_exact_whatever_the_signs(name, settings) -> None:
    x = torch.tensor([[-1.5, 4.0, 2.5], [3.0, 0.5, -2.0]])
    assert first_column(solved(SATURATED, name, **settings), x) == [2.5, 3.5]
    assert first_column(solved(-SATURATED, name, **settings), x) == [-6.0, 1.5]


def test_two_gates_open_each_branch_by_itself() -> None:
    made = solved(SATURATED, two_gates=True)
    assert first_column(made) == pytest.approx([11.5, 5.0], rel=1e-5)  # both branches
    put(made, gate=-SATURATED)
    assert first_column(made) == pytest.approx([6.0, 1.5], rel=1e-5)


def test_the_bias_shifts_the_gate_and_starts_at_zero() -> None:
    made = put(solved(0.0, gate_bias=True), gate_bias=math.log(3))  # g = 3/4
    assert first_column(made) == pytest.approx([0.75 * 5.5 + 0.25 * 6, 0.75 * 3.5 + 0.25 * 1.5], rel=1e-5)
    fresh = initialised("nalu", 3, 2, gate_bias=True, two_gates=True)
    assert not fresh.gate_bias.any() and not fresh.second_gate_bias.any()
    assert not torch.equal(fresh.gate, fresh.second_gate)
    r = math.sqrt(6 / 5)
    assert all(0.3 * r < g.abs().max() <= r for g in (fresh.gate, fresh.second_gate))


def test_the_gates_penalty_by_hand() -> None:
    """g = 1/2 in 2 rows: 2 * (1/2)² (1/2)², and as much for a second gate."""
    assert penalties(solved(0.0, gate="regularised"))["gate"] == 0.125
    assert penalties(solved(0.0, gate="regularised", two_gates=True))["gate"] == 0.25
    assert penalties(solved(SATURATED, gate="regularised"))["gate"] == 0.0


@pytest.mark.parametrize(("step", "tau"), [(0.0, 1.0), (50_000.0, math.exp(-0.5)), (1e6, 0.5)])
@pytest.mark.parametrize(("gate", "rows"), [("gumbel", 1), ("obs_gumbel", 2)])
def test_gumbel_gates_by_hand(gate, rows, step, tau) -> None:
    """Weights of -1/4 each: g = sigmoid((n - sum of x / 4) / tau), one n for all rows, or one each."""
    made = solved(-0.25, gate=gate)
    noise = gumbel_noise(stream(), (1, rows))[0].expand(2)
    g = torch.sigmoid((-0.25 * X.sum(1) + noise) / tau)
    wanted = g * torch.tensor([5.5, 3.5]) + (1 - g) * torch.tensor([6.0, 1.5])
    assert first_column(made, ctx=context(step)) == pytest.approx(wanted.tolist(), rel=1e-5)
    g = torch.sigmoid(-0.25 * X.sum(1))
    wanted = g * torch.tensor([5.5, 3.5]) + (1 - g) * torch.tensor([6.0, 1.5])
    assert first_column(made, ctx=context(step, training=False)) == pytest.approx(wanted.tolist(), rel=1e-5)


def test_the_published_gate_whose_temperature_stayed_at_one_is_a_setting() -> None:
    made = solved(-0.25, gate="gumbel", lowest_temperature=1.0)
    assert first_column(made, ctx=context(1e6)) == first_column(made, ctx=context(0.0))


@pytest.mark.parametrize(
    "settings", [{"mul": "direct"}, {"mul": "direct", "nac": "pos_nac", "separate_weights": True}, {"epsilon": 0.0},
                 {"lowest_temperature": 0.0}]
)  # fmt: skip
def test_impossible_settings_are_errors(settings) -> None:
    with pytest.raises(ValueError, match="separate_weights|nac or nau|epsilon|lowest_temperature"):
        unit("nalu", 3, **settings)


@pytest.mark.parametrize("nac", ["hard_softmax_nac", "gradient_bandit_nac", "gumbel_nac"])
def test_shared_weights_are_drawn_once_for_both_branches(nac) -> None:
    """Inputs of e: the additive branch is e times the sum of the weights, the other exp of that sum."""
    made = initialised("nalu", 4, 3, nac=nac)
    x, branches = torch.full((1, 4), math.e), []
    for gate in (SATURATED, -SATURATED):
        put(made, gate=gate)
        branches.append(torch.tensor(output(made, x)))
    torch.testing.assert_close(branches[1], torch.exp(branches[0] / math.e))


def test_the_temperature_reaches_gumbel_units_inside() -> None:
    made = initialised("nalu", 2, nac="gumbel_nac", separate_weights=True, mul="direct", lowest_temperature=0.75)
    assert made.nac.config.lowest_temperature == made.mul_nac.config.lowest_temperature == 0.75


def test_separate_weights_count_one_above_the_other() -> None:
    made = unit("nalu", 2, nac="linear_nac", separate_weights=True)
    set_weights(made.nac, [[0.25, 0.5]])
    set_weights(made.mul_nac, [[0.75, 1.5]])
    assert made.effective_weight().tolist() == [[0.25, 0.5], [0.75, 1.5]]


def test_the_additive_units_of_nalu_are_all_that_the_choices_name() -> None:
    assert set(ADDITIVE) <= set(names("model")) and set(MULTIPLICATIVE) <= set(ADDITIVE)
    for nac in ADDITIVE:
        assert type(unit("nalu", 2, nac=nac).nac) is find("model", nac)


def test_gated_nau_nmu_is_a_nalu_of_separate_nau_and_nmu() -> None:
    gated = initialised("gated_nau_nmu", 3, 2)
    nalu = unit("nalu", 3, 2, nac="nau", separate_weights=True, mul="direct")
    put(nalu, gate=gated.gate, **{"nac.weight": gated.nau.weight, "mul_nac.weight": gated.nmu.weight})
    (y, penalties), (wanted, wanted_penalties) = gated(X, context()), nalu(X, context())
    assert torch.equal(y, wanted) and torch.equal(penalties["sparsity"], wanted_penalties["sparsity"])
    assert torch.equal(gated.effective_weight(), nalu.effective_weight())


def test_gated_nau_nmu_has_the_clamps_penalties_and_r_z_of_both() -> None:
    made = unit("gated_nau_nmu", 2, lower=0.125)
    set_weights(made.nau, [[-1.5, -0.75]])
    set_weights(made.nmu, [[-1.5, 0.25]])
    put(made, gate=3.0)
    with torch.no_grad():
        made.constrain()
    assert made.effective_weight().tolist() == [[-1.0, -0.75], [0.125, 0.25]]
    assert made.gate.tolist() == [[3.0, 3.0]]
    assert penalties(made, X[:, :2])["sparsity"] == 0.25 / 2 + (0.125 + 0.25) / 2
    mean = torch.tensor([1.0, 2.0])
    assert made.input_penalty(mean).item() == 0.25 * 4 / 2 + 0.75 * 1 / 2
    free = unit("gated_nau_nmu", 2, clamp=False)
    set_weights(free.nau, [[-1.5, 0.0]])
    set_weights(free.nmu, [[-0.25, 0.0]])
    assert penalties(free, X[:, :2])["out_of_bound"] == 0.5 / 2 + 0.25 / 2


def loss_of(made: Any, params: dict[str, Tensor], seed: int = 3) -> Tensor:
    """Squared error, penalties, and the score as REINFORCE would weigh it with a loss above the mean by 1."""
    y_BO, penalties = functional_call(made, params, (X, context(step=1e4, seed=seed)))
    return (y_BO - 3).square().mean() + sum(penalties.values())


def untrained_weights(made: Any) -> list[str]:
    """Return the parameters that no gradient reaches, or that do not move the output."""
    params = {n: p.detach().clone() for n, p in made.named_parameters()}
    before = functional_call(made, params, (X, context()))[0]
    untrained = []
    for n, g in grad(lambda p: loss_of(made, p))(params).items():
        moved = {**params, n: params[n] + 3.0 * stream(8).normal(g.shape)}
        still = torch.equal(functional_call(made, moved, (X, context()))[0], before)
        if still or not (g.isfinite().all() and g.any()):
            untrained.append(n)
    return untrained


def changed_by_recording(lanes: list[Any]) -> list[str]:
    """Return the parameters whose gradients in vmap of grad, recorded, differ from those of each lane alone."""
    stacked, _ = stack_module_state(lanes)
    params = {n: p.detach() for n, p in stacked.items()}
    recorded = make_fx(torch.vmap(grad(lambda p: loss_of(lanes[0], p))))(params)(params)
    changed = []
    for k, lane in enumerate(lanes):
        alone = grad(lambda p, lane=lane: loss_of(lane, p))({n: p[k] for n, p in params.items()})
        changed += [n for n, g in alone.items() if not torch.allclose(recorded[n][k], g, rtol=1e-4, atol=1e-5)]
    return changed


def test_every_weight_of_every_variant_is_trained_alone_and_in_lanes_side_by_side() -> None:
    faults = []
    for name, settings in VARIANTS:
        lanes = [initialised(name, 3, 2, seed=seed, **settings) for seed in range(3)]
        faults += [f"{name} {settings}: {n} is not trained" for n in untrained_weights(lanes[0])]
        faults += [f"{name} {settings}: {n} differs side by side" for n in changed_by_recording(lanes)]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("name", "units", "weight"),
    [
        ("nac_mul_sigma", ["nac", "nac_mul_sigma"], 0.0), ("nac_mul_nmu", ["nau", "nac_mul_nmu"], 10.0),
        ("mnac", ["nac", "mnac"], 0.0), ("gumbel_mnac", ["gumbel_nac", "gumbel_mnac"], 0.0),
        ("gated_nau_nmu", ["gated_nau_nmu"] * 2, 10.0), ("silly_nmu", ["nau", "silly_nmu"], 10.0),
        ("hard_softmax_nac", ["hard_softmax_nac"] * 2, 0.0),
    ],
)  # fmt: skip
def test_a_models_name_stands_for_the_papers_network(name, units, weight) -> None:
    found = resolved(name, steps=5_000_000)["model"]
    assert [unit["name"] for unit in found["units"]] == units
    assert found["sparsity_penalty"] == {"weight": weight, "start": 1e6, "end": 2e6, "schedule": "linear"}


# ------------------------------------------------------------------------------------------- G-NALU

SIGNED = torch.tensor([[1.5, 4.0], [-3.0, 0.5], [-2.0, -8.0], [2.5, -0.5]])
BIG = 100.0  # saturates tanh and sigmoid in float32, also times ln φ


@pytest.mark.parametrize(
    ("gate", "weights", "by_hand"),
    [(BIG, [BIG, BIG], 5.5), (-BIG, [BIG, BIG], 6.0), (BIG, [BIG, -BIG], -2.5), (-BIG, [BIG, -BIG], 0.375)],
)
def test_g_nalu_adds_with_an_open_gate_and_multiplies_with_a_closed_one(gate, weights, by_hand) -> None:
    made = put(initialised("g_nalu", 2), W_hat=torch.tensor([weights]), M_hat=BIG, gate=gate)
    assert first_column(made, SIGNED[:1]) == pytest.approx([by_hand], rel=1e-5)


def test_g_nalu_is_nalu_to_the_base_of_the_golden_ratio() -> None:
    """Written as the paper writes it, with powers of φ."""
    phi, x, made = (1 + math.sqrt(5)) / 2, SIGNED.double(), initialised("g_nalu", 2).double()
    with torch.no_grad():
        W = (phi ** (2 * made.W_hat) - 1) / (phi ** (2 * made.W_hat) + 1) / (1 + phi**-made.M_hat)
        gate = 1 / (1 + phi ** -(x @ made.gate.T))
        mul = phi ** (torch.log(x.abs() + 1e-7) @ W.T / math.log(phi))
        torch.testing.assert_close(made(x, context())[0], gate * (x @ W.T) + (1 - gate) * mul)
        torch.testing.assert_close(made.effective_weight(), W)


def test_g_nalu_stays_finite_where_a_power_of_phi_overflows() -> None:
    made = put(initialised("g_nalu", 2), W_hat=1000.0, M_hat=1000.0, gate=0.0)
    assert made.effective_weight().tolist() == [[1.0, 1.0]]


def test_nalu_and_g_nalu_start_in_the_published_ranges() -> None:
    assert_fills(drawn("nalu", 300, 2, 100, "nac.W_hat", "nac.M_hat"), -0.28550, 0.28550)
    assert_fills(drawn("g_nalu", 10, 1, 100, "W_hat", "M_hat"), -2.26047, 2.26047)
    for name in ("nalu", "g_nalu"):  # Xavier
        assert_fills(drawn(name, 10, 1, 100, "gate"), -math.sqrt(6 / 11), math.sqrt(6 / 11))
