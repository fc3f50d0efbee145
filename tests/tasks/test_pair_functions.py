"""Functions of a pair: examples by hand, the two test sets, the score's baseline."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.training.random import Stream, seed_key
from tasks.pair_functions import EVALUATION_ROWS, PairFunctions, random_rmse

INTERPOLATION = [2.0061851872437466, 9.814351340657232]
EXTRAPOLATION = [14.8488996967459, 58.37143688689868]
OPERATIONS = ("add", "sub", "mul", "div", "squared", "root")


def task(operation: Any = "add") -> PairFunctions:
    return PairFunctions(PairFunctions.Config(operation=operation))


@pytest.mark.parametrize(
    ("operation", "by_hand"), [("add", 10), ("sub", -6), ("mul", 16), ("div", 0.25), ("squared", 4), ("root", math.sqrt(2))]
)
def test_operations_by_hand(operation, by_hand) -> None:
    """a = 2, b = 8"""
    assert task(operation).truth(np.array([[2.0, 8.0]]), 5).tolist() == [[by_hand]]


@settings(max_examples=40, deadline=None)
@given(operation=st.sampled_from(OPERATIONS), seed=st.integers(0, 1000))
def test_a_sampled_batch_has_the_true_targets(operation, seed) -> None:
    made = task(operation)
    x_BI, target_BO = made.sample(Stream(seed_key(seed, "batch")), {}, 16)
    assert x_BI.shape == (16, 2) and target_BO.shape == (16, 1)
    assert x_BI.dtype == target_BO.dtype == torch.float32
    assert (x_BI > 0).all() and (x_BI[:, 0] < 5).all() and (x_BI[:, 1] < 20).all()
    np.testing.assert_allclose(target_BO.numpy(), made.truth(x_BI.double().numpy(), seed), rtol=1e-5, atol=1e-5)


def test_a_batch_has_the_moments_of_sums_of_10_and_40_uniform_numbers() -> None:
    """Each has mean 1/4 and variance 1/48."""
    rows = 20_000
    x_BI, _ = task().sample(Stream(seed_key(1, "batch")), {}, rows)
    for column, terms in zip(x_BI.T, (10, 40), strict=True):
        deviation = math.sqrt(terms / 48)
        assert column.mean().item() == pytest.approx(terms / 4, abs=4 * deviation / math.sqrt(rows))
        assert column.std().item() == pytest.approx(deviation, rel=0.03)
    assert abs(np.corrcoef(x_BI.T.numpy())[0, 1]) < 4 / math.sqrt(rows)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_interpolation_stays_inside_of_the_training_data_and_extrapolation_does_not(operation) -> None:
    made = task(operation)
    inside, outside = (made.evaluation_inputs(split) for split in made.splits)
    assert inside.shape == outside.shape == (EVALUATION_ROWS, 2)
    # Of 50,000 rows: no sum of ten reaches 5, and the mean of the wider range is five times that of training.
    assert inside[:, 0].max() < 4.5 and inside[:, 1].max() < 14.5
    assert outside[:, 0].mean() == pytest.approx(12.5, abs=0.15)
    assert outside[:, 1].mean() == pytest.approx(50.0, abs=0.3)
    y_in, y_out = made.truth(inside, 0), made.truth(outside, 0)
    exceeds = (outside[:, 0] > inside[:, 0].max()) | (outside[:, 1] > inside[:, 1].max())
    assert (exceeds | (y_out[:, 0] > y_in.max())).all()


def test_the_test_sets_are_the_same_for_every_process_and_seed() -> None:
    """First rows, written down: a change of them needs a new version of the task."""
    first = {split: task().evaluation_inputs(split)[0].tolist() for split in PairFunctions.splits}
    assert first == {
        "interpolation": pytest.approx(INTERPOLATION, rel=1e-12),
        "extrapolation": pytest.approx(EXTRAPOLATION, rel=1e-12),
    }
    assert task().instance(1) == {}


def test_the_score_is_the_rmse_in_percent_of_that_of_untrained_networks() -> None:
    made = task("mul")
    target = torch.zeros(4, 1)
    y = torch.tensor([[3.0], [-3.0], [3.0], [-3.0]])
    score = made.scores("interpolation", y, target)["relative_error"]
    assert score.item() == pytest.approx(300 / random_rmse("mul", "interpolation"))
    assert made.loss(y, target).item() == 9.0
    assert made.threshold() is None


@pytest.mark.parametrize("split", PairFunctions.splits)
def test_the_baseline_is_what_torchs_own_untrained_networks_have(split) -> None:
    """Ours are 20 fixed ones, so their mean lies within the spread of means of 20 of torch's."""
    made = task("add")
    x = made.evaluation_inputs(split)
    target = torch.from_numpy(made.truth(x, 0)).float()
    found = []
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for _ in range(500):
            net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
            found.append((net(torch.from_numpy(x).float()) - target).square().mean().sqrt().item())
    deviation = np.std(found) / math.sqrt(20)
    assert random_rmse("add", split) == pytest.approx(np.mean(found), abs=3 * deviation)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_baseline_is_a_positive_number(operation) -> None:
    assert all(0 < random_rmse(operation, split) < math.inf for split in PairFunctions.splits)
