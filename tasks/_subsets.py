"""Subsets of the inputs, operations on their sums, and what a nearly right network's error is.

Shared by the tasks on sums of subsets; not a task itself, hence the underscore.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasks._ranges import Floats

EPSILON = 1e-5  # how far a near-perfect solution's first-layer weights are from 0 and 1
THRESHOLD_SEED = 20010516


def chain(config: Any) -> list[tuple[int, int]]:
    """Subsets before the offset."""
    size = math.floor(config.subset_ratio * config.input_size)
    step = size - math.floor(config.overlap_ratio * size)
    return [(k * step, k * step + size) for k in range(config.num_subsets)]


def geometry_faults(config: Any) -> list[str]:
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
    needed = 2 if config.operation in ("sub", "div") else 1
    if config.num_subsets < needed:
        faults.append(
            f"num_subsets = {config.num_subsets}: operation {config.operation} needs at least {needed}"
        )
    if faults:
        return faults
    size, total = math.floor(config.subset_ratio * config.input_size), chain(config)[-1][1]
    if size < 1:
        faults.append(
            f"subset_ratio = {config.subset_ratio} of input_size = {config.input_size} is an empty subset"
        )
    elif total > config.input_size:
        faults.append(
            f"{config.num_subsets} subsets of {size} inputs that overlap by {math.floor(config.overlap_ratio * size)} "
            f"cover {total} inputs, but input_size = {config.input_size}: make it larger, or num_subsets or subset_ratio "
            "smaller, or overlap_ratio larger"
        )
    return faults


def geometry_cautions(operation: str, subsets: Sequence[tuple[int, int]], num_inputs: int) -> list[str]:
    """Why no network can be below the threshold of these subsets, where that is so: equal errors cancel."""
    times = [sum(start <= i < end for start, end in subsets) for i in range(num_inputs)]
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
    """The float64 oracle of `combine`, written apart from it."""
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
    """The mean squared error of a network whose weights on the inputs are off by EPSILON, over all rows of `drawn`.

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
