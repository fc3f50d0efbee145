"""The single-module task: examples worked by hand, where the operands stand, faults, and the published thresholds."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.training.random import Stream, seed_key
from tasks.single_module import SingleModule

THREE = np.array([[6.0, 1.5, 4.0]])
UNION = ((-6.0, -2.0), (2.0, 6.0))
OPERATIONS = ("add", "sub", "mul", "div")
PUBLISHED = [
    ((-20, -10), (-40, -20)), ((-2, -1), (-6, -2)), ((-1.2, -1.1), (-6.1, -1.2)), ((-0.2, -0.1), (-2, -0.2)),
    ((-2, 2), UNION), ((0.1, 0.2), (0.2, 2)), ((1, 2), (2, 6)), ((1.1, 1.2), (1.2, 6)), ((10, 20), (20, 40)),
]  # fmt: skip


def single(**config: Any) -> SingleModule:
    return SingleModule(SingleModule.Config(**config))


def seed_with_offset(offset: int) -> int:
    """The first seed whose first draw from 0 or 1 is this."""
    return next(s for s in range(50) if np.random.RandomState(s).randint(0, 2) == offset)


def drawn(task: SingleModule, seed: int, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    instance = {name: torch.from_numpy(array) for name, array in task.instance(seed).items()}
    return task.sample(Stream(seed_key(seed, "batch")), instance, batch)


@pytest.mark.parametrize(
    ("operation", "offset", "by_hand"),
    [
        ("add", 0, 7.5), ("sub", 0, 4.5), ("mul", 0, 9.0), ("div", 0, 4.0),
        ("add", 1, 5.5), ("sub", 1, -2.5), ("mul", 1, 6.0), ("div", 1, 0.375),
    ],
)  # fmt: skip
def test_operations_by_hand(operation, offset, by_hand) -> None:
    """x = 6 1.5 4: the first two with offset 0, the last two with offset 1."""
    task = single(operation=operation, input_size=3)
    assert task.truth(THREE, seed_with_offset(offset)).tolist() == [[by_hand]]


@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([2, 10, 100]))
def test_the_operands_are_neighbours_that_the_first_draw_of_the_seed_places(seed, size) -> None:
    masks = single(input_size=size).instance(seed)["masks"]
    assert masks.dtype == np.float32 and masks.shape == (2, size) and masks.sum() == 2
    k = np.random.RandomState(seed).randint(0, size - 1)
    assert masks[0, k] == masks[1, k + 1] == 1
    if size == 2:
        assert masks.tolist() == [[1, 0], [0, 1]]


@settings(max_examples=60, deadline=None)
@given(
    operation=st.sampled_from(OPERATIONS),
    ranges=st.sampled_from(PUBLISHED),
    seed=st.integers(0, 1000),
    size=st.sampled_from([2, 10, 100]),
)
def test_a_sampled_batch_has_the_true_targets(operation, ranges, seed, size) -> None:
    """`truth` takes columns in float64, `sample` multiplies by masks in float32."""
    interpolation, extrapolation = ranges
    task = single(operation=operation, input_size=size, interpolation=interpolation, extrapolation=extrapolation)
    x_BI, target_BO = drawn(task, seed, 16)
    assert x_BI.shape == (16, size) and target_BO.shape == (16, 1)
    assert x_BI.dtype == target_BO.dtype == torch.float32
    assert ((x_BI >= interpolation[0]) & (x_BI <= interpolation[1])).all()
    np.testing.assert_allclose(target_BO.numpy(), task.truth(x_BI.double().numpy(), seed), rtol=1e-5, atol=1e-6)


def test_evaluation_sets_are_the_published_ones() -> None:
    task = single(extrapolation=UNION)
    first = np.random.RandomState(43953907).uniform(1, 2, (10_000, 2))
    assert np.array_equal(task.evaluation_inputs("interpolation"), first)
    rng = np.random.RandomState(8689336)
    low, high = rng.uniform(-6, -2, (10_000, 2)), rng.uniform(2, 6, (10_000, 2))
    assert np.array_equal(task.evaluation_inputs("extrapolation"), np.where(rng.randint(2, size=(10_000, 2)), low, high))


class Middle:
    """A stream that always draws the middle of a range."""

    def uniform(self, shape: tuple[int, ...], low: float, high: float) -> torch.Tensor:
        return torch.full(shape, low + (high - low) * 0.5)


def test_a_divisor_of_zero_moves_by_half_the_distance_of_two_draws() -> None:
    instance = {"masks": torch.eye(2)}
    quotient = single(operation="div", interpolation=(-2.0, 2.0), extrapolation=UNION)
    x_BI, target_BO = quotient.sample(Middle(), instance, 1)
    assert x_BI.tolist() == [[4 * 2.0**-25] * 2] and target_BO.tolist() == [[1.0]]
    product = single(operation="mul", interpolation=(-2.0, 2.0), extrapolation=UNION)
    assert product.sample(Middle(), instance, 1)[0].tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"input_size": 1}, "input_size = 1 must be at least 2: the operation takes two inputs"),
        ({"epsilon": 0.0}, "epsilon = 0.0 must lie in (0, 0.5); published are 1e-5 and 1e-4"),
        ({"epsilon": 0.5}, "epsilon = 0.5 must lie in (0, 0.5); published are 1e-5 and 1e-4"),
        ({"interpolation": (2.0, 2.0)}, "interpolation = [2.0, 2.0]: low must be below high"),
        (
            {"extrapolation": ((-6.0, -2.0), (2.0, 7.0))},
            "extrapolation: both ranges of a union must be equally wide, but their widths are [4.0, 5.0]",
        ),
        *(
            (
                {"operation": "div", "extrapolation": bad},
                f"extrapolation = {list(bad)} holds 0, where operation div has no finite threshold: choose a range "
                "without it, or a union such as [[-6, -2], [2, 6]]",
            )
            for bad in ((0.0, 2.0), (-2.0, 0.0), (-1.0, 1.0))
        ),
        (
            {"input_size": 0, "interpolation": (3.0, 1.0)},
            "input_size = 0 must be at least 2: the operation takes two inputs; "
            "interpolation = [3.0, 1.0]: low must be below high",
        ),
    ],
)
def test_every_fault_of_a_config_is_reported(config, message) -> None:
    with pytest.raises(ValueError, match=".") as error:
        SingleModule.Config(**config)
    assert "; ".join(error.value.args) == message


def test_every_published_pair_of_ranges_is_allowed() -> None:
    for operation, (interpolation, extrapolation) in itertools.product(OPERATIONS, PUBLISHED):
        task = single(operation=operation, interpolation=interpolation, extrapolation=extrapolation)
        assert 0 < task.threshold() < 1e-3, (operation, interpolation)


# Extrapolation range -> threshold with epsilon = 1e-4 of add and sub, mul, div.
TWO_INPUTS = {
    (20, 40): (3.667e-5, 3.484e-2, 4.666e-8), (-40, -20): (3.667e-5, 3.484e-2, 4.666e-8),
    (2, 6): (6.667e-7, 1.202e-5, 5.777e-8), (-6, -2): (6.667e-7, 1.202e-5, 5.777e-8),
    UNION: (6.667e-7, 1.202e-5, 5.777e-8), (-6.1, -1.2): (5.729e-7, 9.391e-6, 8.372e-8),
    (0.2, 2): (5.380e-8, 8.761e-8, 1.480e-7), (-2, -0.2): (5.380e-8, 8.761e-8, 1.480e-7),
    (1.2, 6): (5.568e-7, 8.856e-6, 8.265e-8),
}  # fmt: skip
MORE_INPUTS = {
    10: {(2, 6): 1.613e-5, (20, 40): 9.033e-4, (0.2, 2): 1.237e-6},
    100: {(2, 6): 1.601e-3, (20, 40): 9.003e-2, (0.2, 2): 1.213e-4},
}


@pytest.mark.parametrize("values", TWO_INPUTS, ids=str)
def test_thresholds_of_two_inputs_are_the_reference_values(values) -> None:
    add, mul, div = TWO_INPUTS[values]
    for operation, reference in {"add": add, "sub": add, "mul": mul, "div": div}.items():
        for epsilon, factor, rel in ((1e-4, 1.0, 5e-4), (1e-5, 0.01, 6e-4)):
            task = single(operation=operation, extrapolation=values, epsilon=epsilon)
            assert task.threshold() == pytest.approx(factor * reference, rel=rel)


@pytest.mark.parametrize("size", MORE_INPUTS)
def test_thresholds_of_more_inputs_are_the_reference_values(size) -> None:
    for values, reference in MORE_INPUTS[size].items():
        for operation in ("add", "sub"):
            task = single(operation=operation, extrapolation=values, input_size=size, epsilon=1e-4)
            assert task.threshold() == pytest.approx(reference, rel=4e-4)


def test_the_default_epsilon_is_one_hundred_thousandth() -> None:
    assert single().threshold() == single(epsilon=1e-5).threshold() == pytest.approx(1.202e-7, rel=5e-4)


@pytest.mark.parametrize("epsilon", [1e-4, 1e-2, 0.3])
@pytest.mark.parametrize("values", [(2.0, 6.0), (-6.0, -2.0), (-1.0, 3.0), UNION], ids=str)
@pytest.mark.parametrize("size", [2, 5])
def test_thresholds_are_what_a_simulation_gives(values, size, epsilon) -> None:
    parts = values if isinstance(values[0], tuple) else (values, values)
    rng = np.random.RandomState(0)
    shape = (400_000, size)
    x = np.where(rng.randint(2, size=shape), *(rng.uniform(low, high, shape) for low, high in parts))
    others = np.prod(1 - epsilon * np.abs(x[:, 2:]), axis=1)
    product, scale = x[:, 0] * x[:, 1], (1 - epsilon) ** 2 * others
    errors = {"add": epsilon * np.abs(x).sum(axis=1), "mul": product * (1 - scale)}
    if values != (-1.0, 3.0):
        errors["div"] = x[:, 0] / x[:, 1] * (1 - (1 - epsilon) / (1 + epsilon) * others)
    for operation, error in errors.items():
        task = single(operation=operation, extrapolation=values, input_size=size, epsilon=epsilon)
        deviation = np.square(error).std() / math.sqrt(shape[0])
        assert task.threshold() == pytest.approx(np.square(error).mean(), abs=5 * deviation)
