"""Parts of the arithmetic tasks: ranges of inputs, subsets of the inputs, and operations on the subsets' sums.

Not a task itself: a module whose name begins with an underscore is not registered.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.base import Stream

Interval = tuple[float, float]
Range = Interval | tuple[Interval, Interval]
Floats = NDArray[np.float64]

EVALUATION_SEEDS = {"interpolation": 43953907, "extrapolation": 8689336}  # published
EVALUATION_ROWS = 10_000
EPSILON = 1e-5
"""Distance of a near-perfect solution's first-layer weights from 0 and 1."""
THRESHOLD_SEED = 20010516


class Geometry(Protocol):
    """The settings of a task that choose subsets of the inputs."""

    @property
    def operation(self) -> str: ...
    @property
    def input_size(self) -> int: ...
    @property
    def subset_ratio(self) -> float: ...
    @property
    def overlap_ratio(self) -> float: ...
    @property
    def num_subsets(self) -> int: ...
    @property
    def simple(self) -> bool: ...


def intervals(values: Range) -> tuple[Interval, ...]:
    """Return the parts of a range: one, or two of a union."""
    return values if isinstance(values[0], tuple) else (values,)


def range_faults(split: str, values: Range) -> list[str]:
    """Return the faults of a range that no operation allows."""
    parts = intervals(values)
    faults = [f"{split} = {list(i)}: low must be below high" for i in parts if not i[0] < i[1]]
    widths = [high - low for low, high in parts]
    if not faults and not math.isclose(widths[0], widths[-1], rel_tol=1e-9):
        faults.append(f"{split}: both ranges of a union must be equally wide, but their widths are {widths}")
    if max(widths) > torch.finfo(torch.float32).max:
        faults.append(f"{split} = {[list(i) for i in parts]}: it is wider than the largest float32 number, 3.4e38")
    return faults


def draw(stream: Stream, shape: tuple[int, ...], values: Range) -> Tensor:
    """Return i.i.d. float32 numbers; of a union both parts are drawn, then a fair coin chooses for each element."""
    parts = intervals(values)
    if len(parts) == 1:
        return stream.uniform(shape, *parts[0])
    first, second = (stream.uniform(shape, *interval) for interval in parts)
    return torch.where(stream.bernoulli(shape, 0.5), first, second)


def numpy_draw(rng: np.random.RandomState, shape: tuple[int, int], values: Range) -> Floats:
    """Return numbers of the same distribution in float64, in the published order of draws."""
    parts = [rng.uniform(low, high, shape) for low, high in intervals(values)]
    return parts[0] if len(parts) == 1 else np.where(rng.randint(2, size=shape), *parts)


_generator, _generator_lock = np.random.RandomState(0), threading.Lock()


def first_draw(seed: int, high: int) -> int:
    """Return the first draw from 0 to `high` - 1 of NumPy's RandomState(seed).

    One generator is seeded again and again: a new one takes 30 times as long.
    """
    with _generator_lock:
        _generator.seed(seed)
        return int(_generator.randint(0, high))


@lru_cache(maxsize=16)
def published_inputs(values: Range, split: str, num_inputs: int) -> Floats:
    """Return x [10000, num_inputs] of a split, equal for all seeds."""
    rng = np.random.RandomState(EVALUATION_SEEDS[split])
    return numpy_draw(rng, (EVALUATION_ROWS, num_inputs), values)


MOST_SUBSETS = 1000
"""With more, checking a sweep file would take minutes; published tasks have 2 to 10."""


def chain(config: Geometry) -> list[tuple[int, int]]:
    """Return start and end of each subset, without the seed's offset."""
    size = math.floor(config.subset_ratio * config.input_size)
    step = size - math.floor(config.overlap_ratio * size)
    return [(k * step, k * step + size) for k in range(config.num_subsets)]


def geometry_faults(config: Geometry) -> list[str]:
    """Return the faults of settings for subsets."""
    if config.simple:
        if config.num_subsets != 2:
            return [f"num_subsets = {config.num_subsets}: the simple case has exactly 2 subsets"]
        return []
    faults = []
    if config.input_size < 1:
        faults.append(f"input_size = {config.input_size} must be at least 1")
    if not 0 < config.subset_ratio <= 1:
        faults.append(f"subset_ratio = {config.subset_ratio} must lie in (0, 1]")
    if not 0 <= config.overlap_ratio <= 1:
        faults.append(f"overlap_ratio = {config.overlap_ratio} must lie in [0, 1]")
    if config.num_subsets > MOST_SUBSETS:
        faults.append(f"num_subsets = {config.num_subsets} must be at most {MOST_SUBSETS}")
    needed = 2 if config.operation in ("sub", "div") else 1
    if config.num_subsets < needed:
        faults.append(f"num_subsets = {config.num_subsets}: operation {config.operation} needs at least {needed}")
    if faults:
        return faults
    size, total = math.floor(config.subset_ratio * config.input_size), chain(config)[-1][1]
    if size < 1:
        faults.append(f"subset_ratio = {config.subset_ratio} of input_size = {config.input_size} is an empty subset")
    elif total > config.input_size:
        faults.append(
            f"{config.num_subsets} subsets of {size} inputs that overlap by {math.floor(config.overlap_ratio * size)} "
            f"cover {total} inputs, but input_size = {config.input_size}: make it larger, or num_subsets or subset_ratio "
            "smaller, or overlap_ratio larger"
        )
    return faults


def geometry_warnings(operation: str, subsets: Sequence[tuple[int, int]], num_inputs: int) -> list[str]:
    """Return warnings about subsets where equal errors cancel, so that no network can be below the threshold."""
    edges = {0, *(edge for subset in subsets for edge in subset if edge < num_inputs)}
    times = [sum(start <= i < end for start, end in subsets) for i in edges]  # it changes nowhere else
    if operation == "add" and all(2 * found == len(subsets) for found in times):
        return [
            f"every input is in half of the {len(subsets)} subsets, so equal errors of all weights cancel in their sum, the "
            "threshold is about 0 and no lane can be solved: make subset_ratio smaller or overlap_ratio larger"
        ]
    if operation in ("sub", "div") and subsets[0] == subsets[1]:
        return [
            f"both subsets are the same inputs, so {operation} always gives {0 if operation == 'sub' else 1}, the threshold is "
            "0 and no lane can be solved: make overlap_ratio smaller"
        ]
    return []


def combine(operation: str, sums: list[Tensor]) -> Tensor:
    """Return the operation of the sums, float32."""
    a = sums[0]
    if operation in ("add", "mul"):
        for other in sums[1:]:
            a = a + other if operation == "add" else a * other
        return a
    return {
        "sub": lambda: a - sums[1],
        "div": lambda: a / sums[1],
        "squared": lambda: a * a,
        "root": lambda: torch.sqrt(a),
    }[operation]()


def exact(operation: str, sums: list[Floats]) -> Floats:
    """Return the operation of the sums in float64: the oracle, which shares no code with `combine`."""
    operations: dict[str, Any] = {
        "add": lambda: np.sum(sums, axis=0),
        "sub": lambda: np.subtract(sums[0], sums[1]),
        "mul": lambda: np.prod(sums, axis=0),
        "div": lambda: np.divide(sums[0], sums[1]),
        "squared": lambda: np.square(sums[0]),
        "root": lambda: np.sqrt(sums[0]),
    }
    result: Floats = operations[operation]()
    return result


def perturbed_error(operation: str, drawn: Iterable[Floats], subsets: Sequence[tuple[int, int]]) -> float:
    """Return the mean squared error of a network whose weights on the inputs are off by EPSILON, over all rows of `drawn`.

    Perturbed sums are a' = (1 - 2 eps) a + eps * total, since selected inputs weigh 1 - eps and others eps. `drawn` has
    x [rows, I]; of a sequence, its sums over time.
    """
    total, rows = 0.0, 0
    for x in drawn:
        sums = [x[:, start:end].sum(axis=1) for start, end in subsets]
        rest = EPSILON * x.sum(axis=1)
        perturbed = [(1 - 2 * EPSILON) * a + rest for a in sums]
        total += float(np.square(exact(operation, perturbed) - exact(operation, sums)).sum())
        rows += len(x)
    return total / rows
