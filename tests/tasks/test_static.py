"""The static arithmetic task: examples worked by hand, the published data, faults, and the published thresholds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeps.training.random import Stream, seed_key
from tasks.static import Static

FOUR = {"input_size": 4, "subset_ratio": 0.5, "overlap_ratio": 0.5}  # s = 2, v = 1, offset 0 or 1
X = np.array([[1.0, 2.0, 3.0, 4.0]])
OPERATIONS = ("add", "sub", "mul", "div", "squared", "root")
UNION = {"interpolation": ((-6.0, -2.0), (2.0, 6.0)), "extrapolation": ((-9.0, -6.0), (6.0, 9.0))}


def static(**config: Any) -> Static:
    return Static(Static.Config(**config))


def seed_with_offset(offset: int) -> int:
    """The first seed whose first draw from 0 or 1 is this."""
    return next(s for s in range(50) if np.random.RandomState(s).randint(0, 2) == offset)


def stream(seed: int = 0) -> Stream:
    return Stream(seed_key(seed, "batch"))


@pytest.mark.parametrize(
    ("operation", "offset", "by_hand"),
    [
        ("add", 1, 12), ("sub", 1, -2), ("mul", 1, 35), ("div", 1, 5 / 7), ("squared", 1, 25), ("root", 1, math.sqrt(5)),
        ("add", 0, 8), ("sub", 0, -2), ("mul", 0, 15), ("div", 0, 3 / 5), ("squared", 0, 9), ("root", 0, math.sqrt(3)),
    ],
)  # fmt: skip
def test_operations_by_hand(operation, offset, by_hand) -> None:
    """x = 1 2 3 4; with offset 1 a = 2 + 3 and b = 3 + 4, with offset 0 a = 1 + 2 and b = 2 + 3."""
    assert static(operation=operation, **FOUR).truth(X, seed_with_offset(offset)).tolist() == [[by_hand]]


@pytest.mark.parametrize(("operation", "by_hand"), [("add", 13), ("sub", 7), ("mul", 30)])
def test_the_simple_case_by_hand_whatever_the_seed(operation, by_hand) -> None:
    """a = 1 + 2 + 3 + 4 and b = 1 + 2"""
    task = static(operation=operation, simple=True, input_size=77)
    assert task.num_inputs == 4
    assert {float(task.truth(X, seed)[0, 0]) for seed in range(5)} == {by_hand}


def test_more_subsets_are_added_and_multiplied_all() -> None:
    """1 + 2, 2 + 3 and 3 + 4"""
    three = {**FOUR, "num_subsets": 3}
    assert static(operation="add", **three).truth(X, 0).tolist() == [[15]]
    assert static(operation="mul", **three).truth(X, 0).tolist() == [[105]]


def test_the_default_geometry_is_the_published_one() -> None:
    """Subsets of 25 that overlap by 12 cover 38 of 100 inputs; the offset is the first draw of RandomState(seed)."""
    task = static()
    for seed, offset in enumerate((44, 37, 40, 42, 58, 35)):
        assert task.subsets(seed) == [(offset, offset + 25), (offset + 13, offset + 38)]


@given(seed=st.integers(0, 2**32 - 1))
def test_every_seed_has_its_subsets_inside_of_the_inputs(seed) -> None:
    (start, end), (second, last) = static().subsets(seed)
    assert start == np.random.RandomState(seed).randint(0, 63)
    assert 0 <= start < second < end < last <= 100


def test_the_instance_is_the_mask_of_each_subset() -> None:
    task = static(**FOUR)
    assert task.instance(seed_with_offset(1))["masks"].tolist() == [[0, 1, 1, 0], [0, 0, 1, 1]]
    assert task.instance(seed_with_offset(0))["masks"].dtype == np.float32
    assert static(simple=True).instance(3)["masks"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


@pytest.mark.parametrize(
    ("split", "published_seed", "first", "low", "high"),
    [
        ("interpolation", 43953907, [0.918094871979068, 0.8816526295251338, 0.9913438312197443], 1, 2),
        ("extrapolation", 8689336, [0.5332614197468488, 0.3160512672897229, 0.46971403280448876], 2, 6),
    ],
)
def test_evaluation_sets_are_the_published_ones(split, published_seed, first, low, high) -> None:
    x = static().evaluation_inputs(split)
    assert x.shape == (10_000, 100) and x.dtype == np.float64
    assert x[0, :3].tolist() == pytest.approx([low + (high - low) * u for u in first], rel=1e-15)
    assert np.array_equal(x, np.random.RandomState(published_seed).uniform(low, high, (10_000, 100)))


def test_a_union_range_covers_both_parts_equally_and_nothing_between() -> None:
    task = static(**UNION)
    x_BI, _ = task.sample(stream(), masks(task, 0), 1000)
    for x in (x_BI.double().numpy(), task.evaluation_inputs("interpolation")):
        assert ((np.abs(x) >= 2) & (np.abs(x) <= 6)).all()
        assert (x > 0).mean() == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(x.size))
    assert (np.abs(task.evaluation_inputs("extrapolation")) >= 6).all()


def masks(task: Static, seed: int) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in task.instance(seed).items()}


@settings(max_examples=40, deadline=None)
@given(operation=st.sampled_from(OPERATIONS), seed=st.integers(0, 1000), simple=st.booleans(), size=st.integers(8, 60))
def test_a_sampled_batch_has_the_true_targets(operation, seed, simple, size) -> None:
    """`truth` adds slices in float64, `sample` multiplies by masks in float32."""
    task = static(operation=operation, simple=simple, input_size=size)
    x_BI, target_BO = task.sample(stream(seed), masks(task, seed), 16)
    assert x_BI.shape == (16, task.num_inputs) and target_BO.shape == (16, 1)
    assert x_BI.dtype == target_BO.dtype == torch.float32
    assert ((x_BI >= 1) & (x_BI <= 2)).all()
    exact = task.truth(x_BI.double().numpy(), seed)
    np.testing.assert_allclose(target_BO.numpy(), exact, rtol=1e-5, atol=1e-4)


def test_the_loss_is_the_mean_squared_error() -> None:
    assert static().loss(torch.tensor([[1.0], [4.0]]), torch.tensor([[3.0], [5.0]])).item() == 2.5


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"input_size": 0}, "input_size = 0 must be at least 1"),
        ({"subset_ratio": 0.0}, "subset_ratio = 0.0 must lie in (0, 1]"),
        ({"subset_ratio": 1.5}, "subset_ratio = 1.5 must lie in (0, 1]"),
        ({"overlap_ratio": -0.1}, "overlap_ratio = -0.1 must lie in [0, 1]"),
        ({"overlap_ratio": 1.1}, "overlap_ratio = 1.1 must lie in [0, 1]"),
        ({"num_subsets": 0}, "num_subsets = 0: operation add needs at least 1"),
        ({"num_subsets": 1, "operation": "sub"}, "num_subsets = 1: operation sub needs at least 2"),
        ({"num_subsets": 1, "operation": "div"}, "num_subsets = 1: operation div needs at least 2"),
        ({"input_size": 3}, "subset_ratio = 0.25 of input_size = 3 is an empty subset"),
        (
            {"num_subsets": 9},
            "9 subsets of 25 inputs that overlap by 12 cover 129 inputs, but input_size = 100: make it larger, or "
            "num_subsets or subset_ratio smaller, or overlap_ratio larger",
        ),
        ({"simple": True, "num_subsets": 3}, "num_subsets = 3: the simple case has exactly 2 subsets"),
        ({"interpolation": (2.0, 1.0)}, "interpolation = [2.0, 1.0]: low must be below high"),
        ({"extrapolation": (3.0, 3.0)}, "extrapolation = [3.0, 3.0]: low must be below high"),
        (
            {"interpolation": ((0.0, 1.0), (5.0, 7.0))},
            "interpolation: both ranges of a union must be equally wide, but their widths are [1.0, 2.0]",
        ),
        (
            {"operation": "root", "extrapolation": (-2.0, 1.0)},
            "extrapolation reaches below 0, where operation root has no value",
        ),
        (
            {"input_size": -5, "subset_ratio": 2.0, "interpolation": (2.0, 1.0)},
            "input_size = -5 must be at least 1; subset_ratio = 2.0 must lie in (0, 1]; "
            "interpolation = [2.0, 1.0]: low must be below high",
        ),
    ],
)
def test_every_fault_of_a_config_is_reported(config, message) -> None:
    with pytest.raises(ValueError, match=".") as error:
        Static.Config(**config)
    assert "; ".join(error.value.args) == message


def test_the_smallest_subset_and_the_fullest_chain_are_allowed() -> None:
    assert static(input_size=4).subsets(0)[0][1] <= 4
    exact = static(input_size=8, subset_ratio=0.5, overlap_ratio=0.0)
    assert {tuple(exact.subsets(seed)) for seed in range(20)} == {((0, 4), (4, 8))}


SIMPLE_AND_SMALL = [
    ({"operation": "add", "simple": True}, 2.668e-8),
    ({"operation": "sub", "simple": True}, 2.667e-8),
    ({"operation": "mul", "simple": True}, 2.156e-6),
    ({"operation": "mul", "input_size": 4}, 4.80e-7),
    ({"operation": "mul", "input_size": 10}, 1.528e-5),
]
SIZES = {25: 6.31e-4, 50: 1.004e-2, 75: 5.07e-2, 125: 0.3917, 200: 2.564, 300: 12.97}
RATIOS = {0.05: 2.097e-2, 0.1: 6.595e-2, 0.25: 0.1605, 0.5: 1.067e-3}
OVERLAPS = {0.0: 0.1610, 0.1: 0.1609, 0.25: 0.1608, 0.5: 0.1605, 0.75: 0.1603, 1.0: 0.1600}
# These were published for subsets of one element more, which moves them by about 1 %.
RANGES = {(-6, -2): 0.1600, (1, 5): 0.0508, (0.2, 2): 9.20e-4, (1.2, 6): 0.1053, (20, 40): 505.5}
LONG_LIST = [
    ({"operation": "add"}, 1.604e-5),
    ({"operation": "sub"}, 1.383e-8),
    ({"operation": "mul"}, 0.1605),
    ({"operation": "div"}, 5.84e-12),
    ({"operation": "squared"}, 0.1600),
    ({"operation": "root"}, 1.009e-8),
    *(({"operation": "mul", "input_size": n}, t) for n, t in SIZES.items()),
    *(({"operation": "mul", "subset_ratio": r}, t) for r, t in RATIOS.items()),
    *(({"operation": "mul", "overlap_ratio": o}, t) for o, t in OVERLAPS.items()),
    *(({"operation": "mul", "extrapolation": r}, t) for r, t in RANGES.items()),
]


def label(value: Any) -> str | None:
    return " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else None


@pytest.mark.parametrize(("config", "published"), SIMPLE_AND_SMALL, ids=label)
def test_thresholds_of_small_cases_are_the_published_ones(config, published) -> None:
    assert static(**config).threshold() == pytest.approx(published, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("config", "published"), LONG_LIST, ids=label)
def test_thresholds_are_the_published_ones(config, published) -> None:
    assert static(**config).threshold() == pytest.approx(published, rel=0.03)


def test_the_threshold_of_an_addition_in_closed_form() -> None:
    """Each sum errs by eps * (others - own); over two equal subsets of the first of two inputs that is 2 eps (y - x).

    x and y are uniform on [2, 6], so the mean square of y - x is 2 * 16 / 12.
    """
    task = static(operation="add", input_size=2, subset_ratio=0.5, overlap_ratio=1.0)
    assert task.threshold() == pytest.approx(4e-10 * 2 * 16 / 12, rel=0.01)


def test_a_threshold_is_the_same_for_every_seed_and_process() -> None:
    assert static(simple=True).threshold() == static(simple=True, input_size=9).threshold()
