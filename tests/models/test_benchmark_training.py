"""What the benchmark's units do while they train, against their papers: clips, penalties and starts anew, by hand."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from benchmark_units import MCFCS, penalties, put, unit

from arith_models.growth import grown
from sweeps.config.registry import find
from sweeps.config.settings import resolve

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
def test_what_a_clip_clamps(name, clip, real, imaginary, gate) -> None:
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
    found = penalties(put(unit("npu", **options), **values), step=10_000)
    scale = 1e-4  # 1e-5, grown once
    assert found == {
        "l1": pytest.approx(scale * (1.75 + 1.5 + 1.75)),
        "weight": pytest.approx(scale * 2 * (0.5 + 0.75) / 2),
        "gate": pytest.approx(scale * 4 * (0.25 + 0.5) / 2),
    }
    imaginary_too = penalties(put(unit("npu", clip="wig", **options), **values))["weight"]
    assert imaginary_too == pytest.approx(1e-5 * 2 * (1.25 / 2 + 1.5))
    assert "l1" not in penalties(unit("npu"))


@pytest.mark.parametrize(("shape", "by_hand"), [("W", (0.5 + 0.75) / 2), ("bias", (0.5 + 0.25) / 2)])
def test_the_penalties_of_real_npu_by_hand(shape, by_hand) -> None:
    made = unit(
        "real_npu", weight_shape=shape, l1=True, weight_penalty=1.0, gate_penalty=1.0, schedule="madsen"
    )
    put(made, weight=torch.tensor([[1.5, -0.25]]), gate=torch.tensor([0.25, 1.5]))
    assert set(penalties(made, step=20_000).values()) == {0.0}
    halfway = penalties(made, step=27_500)
    assert halfway["weight"] == pytest.approx(by_hand / 2) and halfway["gate"] == pytest.approx(0.375 / 2)
    assert penalties(made, step=1e6)["l1"] == pytest.approx(1.75 + 1.75)


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
def test_faults_of_a_power_units_settings_are_told(settings, message) -> None:
    with pytest.raises(ValueError, match=rf"\A{re.escape(message)}\Z"):
        find("model", "npu").Config(**settings)


@pytest.mark.parametrize(
    ("step", "last_error", "acts"),
    [
        (10_000, 0.5, False),
        (10_001, 0.5, True),
        (50_000, 0.999, True),
        (50_000, 1.0, False),
        (50_000, math.inf, False),
    ],
)
def test_inalus_penalty_acts_late_and_while_the_last_error_is_below_one(step, last_error, acts) -> None:
    """Five tensors, each of parameters -19 and 25: mean of 1 and 0."""
    made = put(
        unit("inalu"),
        **{n: torch.tensor([-19.0, 25.0]) for n in ("Wa_hat", "Ma_hat", "Wm_hat", "Mm_hat")},
        gate=19.5,
    )
    by_hand = 0.05 * (4 * 0.5 + 0.5) if acts else 0.0
    assert penalties(made, step, last_error) == {"discreteness": pytest.approx(by_hand)}


def test_mc_fcs_penalty_grows_its_parameters_and_is_the_networks_to_weigh() -> None:
    values = {"redistribution": torch.tensor([[1.0, -3.0]]), "gate_weight": 2.0, "gate_bias": 0.5}
    for name in MCFCS:
        assert penalties(put(unit(name), **values))["sparsity"] == pytest.approx(-(5 + 4 + 0.25))


def test_the_gate_of_the_signed_mc_fc_has_a_ramped_penalty() -> None:
    resolved, _, _ = resolve(
        {"model": "mul_mcfc_sign_real_npu", "task": "single_module", "train": {"steps": 50_000}}
    )
    assert resolved is not None
    assert resolved["model"]["units"][0]["gate_penalty"] == {
        "weight": 1.0, "start": 20_000.0, "end": 35_000.0, "schedule": "linear"
    }  # fmt: skip
    made = put(unit("mul_mcfc_sign_real_npu"), gate=torch.tensor([0.25, 0.5]))
    assert penalties(made, step=1e6)["gate"] == 0.0  # off unless a network or a file sets it


def test_the_papers_settings_of_a_unit_give_way_to_a_files() -> None:
    def settings(**model: Any) -> Any:
        found, faults, _ = resolve(
            {"model": {"name": "npu", **model}, "task": "single_module", "train": {"steps": 50_000}}
        )
        assert found is not None, faults
        return found["model"]["units"][0]

    assert (settings()["l1"], settings()["beta_start"], settings()["beta_end"]) == (True, 1e-7, 1e-5)
    division = settings(beta_start=1e-9, beta_end=1e-7)
    assert (division["l1"], division["beta_start"], division["beta_end"]) == (True, 1e-9, 1e-7)
    assert settings(l1=False)["l1"] is False


# ------------------------------------------------------------------------------------------- starting anew


def restarts(errors: list[float], interval: int = 1000, **settings: Any) -> bool:
    cls = find("model", "inalu")
    answer: bool = cls.restarts(cls.Config(**settings), errors, interval)
    return answer


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
def test_inalu_starts_anew_when_the_second_half_is_no_better(errors, by_hand) -> None:
    assert restarts(errors) is by_hand


def test_when_inalu_starts_anew_is_set_by_its_config() -> None:
    stalled = [9.0] * 6
    assert restarts(stalled, interval=900)
    assert not restarts(stalled, interval=800)
    assert not restarts(stalled, reinit=False)
    assert not restarts(stalled, reinit_threshold=9.0)
    assert restarts(stalled[:2], interval=10, reinit_stored=19)
    assert not restarts(stalled[:2], interval=10, reinit_stored=20)
