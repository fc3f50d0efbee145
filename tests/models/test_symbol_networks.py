"""What every network that reads symbols keeps to. A new file in arith_models/networks/ is tested by existing."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from symbols import NUM_OUTPUTS, context, examples, logits, network
from torch import Tensor

from sweeps.checking import engine
from sweeps.checking.declaration import declares, draws_nothing_global
from sweeps.checking.models import NetworkSubject as Network
from sweeps.checking.side_effects import generators
from sweeps.checking.source import Fault
from sweeps.config import registry
from sweeps.config.settings import build, resolve
from sweeps.training.lane import Lane
from sweeps.training.pack import Pack

NAMES = [
    n for n in registry.standalone_networks() if getattr(registry.find("network", n), "reads_symbols", False)
]
APART = [n for n in NAMES if getattr(registry.find("network", n), "lanes_apart", False)]
every_network = pytest.mark.parametrize("name", NAMES)
every_network_in_packs = pytest.mark.parametrize("name", [n for n in NAMES if n not in APART])


def settings_of(name: str, **train: Any) -> dict[str, Any]:
    given = {
        "model": name,
        "task": {"name": "algorithm", **engine.SMALL_TASKS["algorithm"]},
        "train": {**engine.SMALL, **train},
    }
    found, faults, _ = resolve(given)
    assert found is not None, faults
    return found


def none(faults: Any) -> None:
    found: list[Fault] = list(faults)
    assert not found, "\n".join(f"{fault.location}: {fault.found}. {fault.do}" for fault in found)


@every_network
def test_version_and_settings_are_declared_and_explained(name: str) -> None:
    none(declares(Network(name)))
    assert "Shapes: " in registry.find("network", name).__doc__


@every_network_in_packs
def test_lanes_never_touch(name: str) -> None:
    """In packs of three, whoever the neighbours are, one that is NaN included."""
    none(engine.records(Network(name)))
    none(engine.trains(Network(name)))


def trained(settings: dict[str, Any], seeds: list[int], steps: int = 3) -> dict[int, dict[str, Tensor]]:
    """Each seed's parameters after a few steps, uncompiled, in the slots of this order."""
    pack = Pack([Lane(str(s), settings, s) for s in seeds], len(seeds), build, compiled=False)
    pack.stepper()(steps)
    params = pack.tensors["state"]["params"]
    return {seed: {name: p[k] for name, p in params.items()} for k, seed in enumerate(seeds)}


@every_network_in_packs
def test_a_lane_equals_itself_at_any_slot(name: str) -> None:
    settings = settings_of(name)
    one, other = trained(settings, [1, 2, 3]), trained(settings, [3, 1, 2])
    for seed, params in one.items():
        for path, value in params.items():
            assert torch.equal(value, other[seed][path]), f"{path} of seed {seed}"


@pytest.mark.parametrize("name", APART)
def test_a_lane_that_is_at_a_length_of_its_own_has_a_pack_of_its_own(name: str) -> None:
    settings = settings_of(name)
    assert Pack([Lane(str(s), settings, s) for s in range(3)], 3, build, compiled=False).num_slots == 1
    one, again = trained(settings, [1]), trained(settings, [1])
    assert all(torch.equal(value, again[1][path]) for path, value in one[1].items())


@every_network
def test_randomness_is_an_argument(name: str) -> None:
    none(draws_nothing_global(Network(name)))
    before = generators()
    one, same, other = network(name), network(name), network(name, seed=2)
    for (path, p), q in zip(one.named_parameters(), same.parameters(), strict=True):
        assert p.isfinite().all(), f"initialise leaves {path} as it was"
        assert torch.equal(p, q), f"{path} differs between two equal streams"
    assert any(not torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))
    (first,), (again,) = (logits(one, examples(), training=True) for _ in range(2))
    assert torch.equal(first, again)
    (calm,), (other_stream,) = (logits(one, examples(), seed=seed) for seed in (1, 2))
    assert torch.equal(calm, other_stream), "evaluation draws"
    assert generators() == before


@every_network
def test_examples_and_bins_do_not_touch_each_other(name: str) -> None:
    model = network(name)
    bins = examples(4, 8), examples(4, 11, seed=4)
    together = logits(model, *bins)
    for x_BN, y_BNO in zip(bins, together, strict=True):
        assert y_BNO.shape == (*x_BN.shape, NUM_OUTPUTS) and y_BNO.isfinite().all()
        for row in range(len(x_BN)):
            (alone,) = logits(model, x_BN[row : row + 1])
            torch.testing.assert_close(y_BNO[row : row + 1], alone, rtol=1e-4, atol=1e-5)


@every_network
def test_outside_of_an_example_the_logits_are_the_same_everywhere(name: str) -> None:
    """A loss over all positions must not be able to tell them apart, nor what stands beside them."""
    x_BN = examples(6, 9)
    (y_BNO,) = logits(network(name), x_BN)
    outside = y_BNO[x_BN < 0]
    assert len(outside) > 3
    torch.testing.assert_close(outside, outside[:1].expand_as(outside))


@every_network
def test_a_gradient_reaches_every_parameter(name: str) -> None:
    model = network(name)
    with torch.enable_grad():
        y, penalties = model((examples(8, 8), examples(8, 11)), context(model, training=True))
        loss = sum((y_BNO.square() * torch.arange(NUM_OUTPUTS)).mean() for y_BNO in y)
        (loss + sum(penalties.values())).backward()
    for path, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), path
        assert parameter.grad.any(), f"no gradient reaches {path}"


@every_network
def test_it_is_shown_as_a_model_with_its_settings_and_listed(name: str) -> None:
    from sweeps.cli.define import about_model, listing

    text = about_model(name)
    assert f"{name} stands for" in text and f"network: {name}" in text and "settings:" in text
    assert name in dict(listing("model"))


@pytest.mark.slow
@pytest.mark.skipif(
    "SWEEPS_TEST_ALL" not in os.environ,
    reason="compiles each network twice: make test-all; above, the same rule is checked uncompiled",
)
@pytest.mark.timeout(900)
@every_network_in_packs
def test_compiled_a_lane_is_itself_alone_and_in_a_pack(name: str) -> None:
    none(engine.compiles(Network(name)))


LEARNERS: dict[str, tuple[str, dict[str, Any], float]] = {
    "lstm_attention": ("reverse", {"layers": 1, "hidden": 32}, 0.01),
    "transformer": (
        "left_shift",
        {"layers": 2, "width": 32, "inner": 64, "farthest": 8, "dropout": 0.0},
        0.005,
    ),
}
"""Operation, settings, learning rate. Reversing is slow to learn for a Transformer, which has no positions of its own."""


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNERS)
def test_two_of_three_seeds_learn_an_operation_of_up_to_eight_symbols(name: str) -> None:
    operation, config, lr = LEARNERS[name]
    task = {
        "name": "algorithm", "operation": operation, "bins": [8], "examples_per_length": 2000, "test_rows": 128,
        "test_length": 8, "extrapolation_rows": 64, "curve_lengths": [8], "bound": 0.1,
    }  # fmt: skip
    train = {"steps": 600, "batch": 32, "lr": lr, "clip_norm": 1.0, "evaluate_every": 50, "stop": "solved"}
    settings, faults, _ = resolve({"model": {"name": name, **config}, "task": task, "train": train})
    assert settings is not None, faults
    pack = Pack([Lane(str(seed), settings, seed) for seed in range(3)], 3, build, compiled=False)
    results = []
    while not pack.done:
        results += pack.advance()
    assert sum(r.converged_at is not None for r in results) >= 2, [r.error for r in results]
