"""The recurrent arithmetic task: sums of subsets over time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sweeps.training.random import Stream, seed_key
from tasks.recurrent import Recurrent
from tasks.static import Static


def task(**settings) -> Recurrent:
    return Recurrent(Recurrent.Config(**settings))


@pytest.mark.parametrize(("operation", "by_hand"), [("add", 12.0), ("sub", -2.0)])
def test_the_examples_of_the_docstring(operation, by_hand) -> None:
    made = task(operation=operation, input_size=4, subset_ratio=0.5, overlap_ratio=0.5)
    seed = next(s for s in range(20) if made.subsets(s) == [(0, 2), (1, 3)])
    x_TBI = np.array([[[1.0, 2, 3, 4]], [[1.0, 1, 1, 1]]])
    assert made.truth(x_TBI, seed).tolist() == [[by_hand]]


@pytest.mark.parametrize("operation", ["add", "sub", "mul", "div", "squared", "root"])
def test_a_training_batch_has_the_targets_of_the_oracle(operation) -> None:
    made = task(operation=operation, length=7)
    instance = {name: torch.from_numpy(a) for name, a in made.instance(3).items()}
    x_TBI, target = made.sample(Stream(seed_key(3, "batch")), instance, 16)
    assert x_TBI.shape == (7, 16, 10) and target.shape == (16, 1)
    assert 1.0 <= x_TBI.min() and x_TBI.max() < 2.0
    np.testing.assert_allclose(target.numpy(), made.truth(x_TBI.double().numpy(), 3), rtol=1e-5, atol=1e-5)


def test_extrapolation_is_a_thousand_steps_and_inputs_are_the_same_for_all_seeds() -> None:
    made = task()
    assert made.evaluation_inputs("extrapolation").shape == (1000, 1000, 10)
    assert made.evaluation_inputs("interpolation").shape == (10, 10_000, 10)
    assert made.evaluation_inputs("interpolation") is made.evaluation_inputs("interpolation")


def test_with_one_time_step_the_threshold_is_the_static_tasks() -> None:
    """Within the Monte-Carlo error of 10,000 rows."""
    static = Static(Static.Config(operation="mul", input_size=10, extrapolation=(1.0, 2.0)))
    assert task(operation="mul", extrapolation_length=1).threshold() == pytest.approx(static.threshold(), rel=0.03)


def test_a_length_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="length = 0 must be at least 1"):
        task(length=0)
