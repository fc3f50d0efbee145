"""Networks that read symbols: rules that hold for each besides those of the checker (test_catalog.py)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from symbols import NUM_OUTPUTS, examples, logits, network
from torch import Tensor

from sweeps.config import registry
from sweeps.config.settings import build, resolve
from sweeps.training.lane import Lane
from sweeps.training.pack import Pack

NAMES = [n for n in registry.names("network") if registry.find("network", n).reads_symbols]
APART = [n for n in NAMES if registry.find("network", n).lanes_apart]
every_network = pytest.mark.parametrize("name", NAMES)
every_network_in_packs = pytest.mark.parametrize("name", [n for n in NAMES if n not in APART])
TASK = {
    "name": "algorithm", "operation": "add", "bins": [8], "examples_per_length": 50, "test_rows": 8, "test_length": 8,
    "extrapolation_rows": 8, "curve_lengths": [8],
}  # fmt: skip


def settings_of(name: str) -> dict[str, Any]:
    train = {"steps": 12, "batch": 4, "evaluate_every": 6}
    found, faults, _ = resolve({"model": name, "task": TASK, "train": train})
    assert found is not None, faults
    return found


def trained(settings: dict[str, Any], seeds: list[int], steps: int = 3) -> dict[int, dict[str, Tensor]]:
    """Return each seed's parameters after a few steps, uncompiled, in the slots of this order."""
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
def test_a_lane_with_a_length_of_its_own_has_a_pack_of_its_own(name: str) -> None:
    settings = settings_of(name)
    assert Pack([Lane(str(s), settings, s) for s in range(3)], 3, build, compiled=False).num_slots == 1
    one, again = trained(settings, [1]), trained(settings, [1])
    assert all(torch.equal(value, again[1][path]) for path, value in one[1].items())


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
    """A loss over all positions must not depend on which they are, nor on what is beside them."""
    x_BN = examples(6, 9)
    (y_BNO,) = logits(network(name), x_BN)
    outside = y_BNO[x_BN < 0]
    assert len(outside) > 3
    torch.testing.assert_close(outside, outside[:1].expand_as(outside))


@every_network
def test_two_forwards_of_one_step_draw_the_same_and_an_evaluation_draws_nothing(name: str) -> None:
    model = network(name)
    (first,), (again,) = (logits(model, examples(), training=True) for _ in range(2))
    assert torch.equal(first, again)
    (one,), (other_stream,) = (logits(model, examples(), seed=seed) for seed in (1, 2))
    assert torch.equal(one, other_stream)


def test_every_network_is_listed_as_a_model_and_printed_with_its_settings() -> None:
    from sweeps.cli.define import about_model, listing

    listed = dict(listing("model"))
    for name in NAMES:
        text = about_model(name)
        assert name in listed and f"network: {name}" in text and "settings:" in text, name


LEARNERS: dict[str, tuple[str, dict[str, Any], float]] = {
    "lstm_attention": ("reverse", {"layers": 1, "hidden": 32}, 0.01),
    "transformer": ("left_shift", {"layers": 2, "width": 32, "inner": 64, "farthest": 8, "dropout": 0.0}, 0.005),
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
