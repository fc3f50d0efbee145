"""The single-module task, for one unit alone.

Mistry, Farrahi and Hare, "A Primer for Neural Arithmetic Logic Modules" (2021), section on the experiments with a single
module. Published: batch 128, Adam with a learning rate of 1e-3 (5e-3 for the NPUs), 50,000 steps, evaluation every 1000,
seeds 0 to 24, and nine pairs of ranges for each operation:

    interpolation     extrapolation             interpolation     extrapolation
    [-20, -10]        [-40, -20]                [0.1, 0.2]        [0.2, 2]
    [-2, -1]          [-6, -2]                  [1, 2]            [2, 6]
    [-1.2, -1.1]      [-6.1, -1.2]              [1.1, 1.2]        [1.2, 6]
    [-0.2, -0.1]      [-2, -0.2]                [10, 20]          [20, 40]
    [-2, 2]           [[-6, -2], [2, 6]]
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tasks._arithmetic import Floats, Range, draw, first_draw, intervals, published_inputs, range_faults
from tasks.base import Arrays, Stream, Task

Operation = Literal["add", "sub", "mul", "div"]


class SingleModule(Task):
    """One operation on two neighbours out of the inputs: y = x_k operation x_{k+1}.

    The seed chooses k; the other inputs are distractors.

    The offset k is the first draw of NumPy's RandomState(seed) from 0 to input_size - 2, as published (the generator of
    the static task with two subsets of one element and no overlap). With two inputs k is 0.

    Two examples worked by hand, with three inputs:
        x = 6 1.5 4, operation sub, k = 0: y = 6 - 1.5 = 4.5
        x = 6 1.5 4, operation div, k = 1: y = 1.5 / 4 = 0.375

    Splits: "train" is fresh, from the stream, on the interpolation range; "interpolation" and "extrapolation" are the
    published 10,000 rows each, drawn in float64, equal for all seeds. A union range [[a, b], [c, d]] draws both parts,
    then a fair coin for each element. Training batches differ from the published ones in their generator only. It has
    2^24 values for each range, so on [-2, 2] it can draw 0, which float64 practically never gives, and a quotient would
    be infinite: for div such an input is moved up by half the distance of two neighbouring values.
    """

    version = 1
    network = "one_layer"
    splits = ("interpolation", "extrapolation")
    evaluation_only = ("extrapolation", "epsilon")

    @dataclass(frozen=True, kw_only=True)
    class Config:
        operation: Operation = "mul"
        """operation on the two inputs that are not distractors"""
        input_size: int = 2
        """number of inputs, all but two being distractors; published: 2, 10 and 100 (--input-size)"""
        interpolation: Range = (1.0, 2.0)
        """range of x in training and interpolation: [low, high] or [[low, high], [low, high]]"""
        extrapolation: Range = (2.0, 6.0)
        """range of x in extrapolation"""
        epsilon: float = 1e-5
        """how far a near-perfect solution's weights are off; only the threshold depends on it (see there)"""

        def __post_init__(self) -> None:
            faults = []
            if self.input_size < 2:
                faults.append(f"input_size = {self.input_size} must be at least 2: the operation takes two inputs")
            if not 0 < self.epsilon < 0.5:
                faults.append(f"epsilon = {self.epsilon} must lie in (0, 0.5); published are 1e-5 and 1e-4")
            for split in ("interpolation", "extrapolation"):
                faults += range_faults(split, getattr(self, split))
            if self.operation == "div":
                faults += _zero_faults(self.extrapolation)
            if faults:
                raise ValueError(*faults)

    config: Config
    num_outputs = 1

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.num_inputs = config.input_size

    def instance(self, seed: int) -> Arrays:
        """Return `masks` float32 [2, I], 1 at the first and at the second operand."""
        masks = np.zeros((2, self.num_inputs), np.float32)
        k = self.offset(seed)
        masks[0, k] = masks[1, k + 1] = 1.0
        return {"masks": masks}

    def offset(self, seed: int) -> int:
        """Return the index of the first operand."""
        return first_draw(seed, self.num_inputs - 1)

    def sample(self, stream: Stream, data: Mapping[str, Tensor], batch: int) -> tuple[Tensor, Tensor]:
        """Return a training batch: x [B, I] and target [B, 1], float32."""
        c = self.config
        x_IB = draw(stream, (self.num_inputs, batch), c.interpolation)
        if c.operation == "div":
            low, high = intervals(c.interpolation)[0]
            x_IB = torch.where(x_IB == 0.0, (high - low) * 2.0**-25, x_IB)
        first_B, second_B = (data["masks"] @ x_IB).unbind(0)
        return x_IB.T, _combine(c.operation, first_B, second_B).unsqueeze(1)

    def evaluation_inputs(self, split: str) -> Floats:
        """Return the published x [10000, I] of a split, float64."""
        return published_inputs(getattr(self.config, split), split, self.num_inputs)

    def truth(self, x_BI: Floats, seed: int) -> Floats:
        """Return the exact target [B, 1] in float64, by columns: independent of `sample`."""
        k = self.offset(seed)
        ufunc = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}
        result: Floats = ufunc[self.config.operation](x_BI[:, k : k + 1], x_BI[:, k + 1 : k + 2])
        return result

    def loss(self, y_BO: Tensor, target_BO: Tensor) -> Tensor:
        """Return the mean squared error, which is also the error of an evaluation."""
        return (y_BO - target_BO).square().mean()

    def threshold(self) -> float:
        """Return the extrapolation error of a near-perfect solution.

        It is the expected squared error, on the extrapolation range, of a near-perfect solution (published as a
        simulation; these are its closed forms):
            add, sub: it is off by epsilon * (|x_1| + ... + |x_I|)
            mul:      it is (1 - epsilon)^2 x_k x_{k+1} times (1 - epsilon |x_j|) for each distractor j
            div:      it is (1 - epsilon) / (1 + epsilon) x_k / x_{k+1}, times the same

        The published list of settings has epsilon = 1e-5, as the static task; the default of the script that simulates is
        1e-4, which makes thresholds 100 times as high. It is not documented which of them the published figures use.
        """
        c, n = self.config, self.num_inputs
        square, magnitude, inverse_square = _moments(c.extrapolation)
        if c.operation in ("add", "sub"):
            return c.epsilon**2 * n * (square + (n - 1) * magnitude**2)
        short = 2 * math.log1p(-c.epsilon)
        if c.operation == "div":
            short = math.log1p(-c.epsilon) - math.log1p(c.epsilon)
        result = square * (square if c.operation == "mul" else inverse_square)
        return result * _squared_shortfall(short, n - 2, c.epsilon, square, magnitude)


def _zero_faults(values: Range) -> list[str]:
    return [
        f"extrapolation = {list(i)} holds 0, where operation div has no finite threshold: choose a range without it, or a "
        "union such as [[-6, -2], [2, 6]]"
        for i in intervals(values)
        if i[0] <= 0 <= i[1]
    ]


def _combine(operation: Operation, a: Tensor, b: Tensor) -> Tensor:
    if operation in ("add", "sub"):
        return a + b if operation == "add" else a - b
    return a * b if operation == "mul" else a / b


def _moments(values: Range) -> tuple[float, float, float]:
    """Return E x², E |x| and E x⁻² (infinite where the range contains 0), the mean of both parts of a union."""
    found = []
    for low, high in intervals(values):
        width = high - low
        split = low < 0 < high
        magnitude = (low**2 + high**2) / (2 * width) if split else abs(low + high) / 2
        inverse_square = 1 / (low * high) if low * high > 0 else math.inf
        found.append(((high**3 - low**3) / (3 * width), magnitude, inverse_square))
    square, magnitude, inverse_square = (math.fsum(m) / len(found) for m in zip(*found, strict=True))
    return square, magnitude, inverse_square


def _squared_shortfall(log_factor: float, others: int, epsilon: float, square: float, magnitude: float) -> float:
    """Return E (1 - f P)², P being the product of (1 - epsilon |x_j|) over the others, f = exp(log_factor).

    It is (1 - f E P)² + f² Var P, written so that nothing cancels for a small epsilon.
    """
    mean = 1 - epsilon * magnitude
    if mean < 0.5:  # nothing cancels for such a large epsilon, and the logarithm may not exist
        factor, second = math.exp(log_factor), mean**2 + epsilon**2 * (square - magnitude**2)
        return 1 - 2 * factor * mean**others + factor**2 * second**others
    log_product = log_factor + others * math.log1p(-epsilon * magnitude)
    relative_variance = epsilon**2 * (square - magnitude**2) / mean**2
    variance = math.exp(2 * log_product) * math.expm1(others * math.log1p(relative_variance))
    return math.expm1(log_product) ** 2 + variance
