"""Networks that read symbols: rules that hold for each besides those of the checker (test_catalog.py)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lanes import resolved, train
from symbols import NUM_OUTPUTS, examples, logits, network

from sweeps.config import registry
from sweeps.training.lane import Lane

NAMES = [n for n in registry.names("network") if registry.find("network", n).reads_symbols]
every_network = pytest.mark.parametrize("name", NAMES)


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
    settings = resolved(
        {"name": name, **config}, task,
        steps=600, batch=32, lr=lr, clip_norm=1.0, evaluate_every=50, stop="solved",
    )  # fmt: skip
    results = train([Lane(str(seed), settings, seed) for seed in range(3)]).values()
    assert sum(r.converged_at is not None for r in results) >= 2, [r.error for r in results]
