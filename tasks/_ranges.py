"""Ranges of inputs: an interval, or a union of two; drawing from them, and the published evaluation inputs.

Shared by the tasks on random numbers; not a task itself, hence the underscore.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Interval = tuple[float, float]
Range = Interval | tuple[Interval, Interval]
Floats = NDArray[np.float64]

EVALUATION_SEEDS = {"interpolation": 43953907, "extrapolation": 8689336}  # published
EVALUATION_ROWS = 10_000


def intervals(values: Range) -> tuple[Interval, ...]:
    return values if isinstance(values[0], tuple) else (values,)


def range_faults(split: str, values: Range) -> list[str]:
    """What is wrong with a range, whatever it is for."""
    parts = intervals(values)
    faults = [f"{split} = {list(i)}: low must be below high" for i in parts if not i[0] < i[1]]
    widths = [high - low for low, high in parts]
    if not faults and not math.isclose(widths[0], widths[-1], rel_tol=1e-9):
        faults.append(f"{split}: both ranges of a union must be equally wide, but their widths are {widths}")
    return faults


def draw(stream: Any, shape: tuple[int, ...], values: Range) -> Tensor:
    """float32, i.i.d.; of a union both parts are drawn, then a fair coin for each element decides."""
    parts = intervals(values)
    if len(parts) == 1:
        return stream.uniform(shape, *parts[0])
    first, second = (stream.uniform(shape, *interval) for interval in parts)
    return torch.where(stream.bernoulli(shape, 0.5), first, second)


def numpy_draw(rng: np.random.RandomState, shape: tuple[int, int], values: Range) -> Floats:
    """The same distribution in float64, in the published order of draws."""
    parts = [rng.uniform(low, high, shape) for low, high in intervals(values)]
    return parts[0] if len(parts) == 1 else np.where(rng.randint(2, size=shape), *parts)


@lru_cache(maxsize=16)
def published_inputs(values: Range, split: str, num_inputs: int) -> Floats:
    """x [10000, num_inputs] of a split: equal for all seeds."""
    rng = np.random.RandomState(EVALUATION_SEEDS[split])
    return numpy_draw(rng, (EVALUATION_ROWS, num_inputs), values)
