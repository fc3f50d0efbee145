"""The static arithmetic task.

Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020), section 4.1, and "Measuring Arithmetic Extrapolation
Performance" (2019), as their code draws it (the paper's Algorithm 1 has slips).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from torch import Tensor

from tasks._arithmetic import (
    THRESHOLD_SEED,
    Floats,
    Range,
    chain,
    combine,
    draw,
    exact,
    first_draw,
    geometry_faults,
    geometry_warnings,
    intervals,
    numpy_draw,
    perturbed_error,
    published_inputs,
    range_faults,
)
from tasks.base import Arrays, Stream, Task

THRESHOLD_ROWS, THRESHOLD_CHUNK = 1_000_000, 50_000


class Static(Task):
    """Find two overlapping subsets of the inputs, sum each, and combine the sums.

    y = operation(sums of subsets of x), x i.i.d. uniform.

    Subsets are contiguous and chained: each has s = floor(subset_ratio * n) inputs, the next starts
    v = floor(overlap_ratio * s) before the end of the last, and all are moved by an offset that the seed draws
    (the first draw of NumPy's RandomState(seed), as published).

    Two examples worked by hand, with n = 4, s = 2, v = 1 and offset 1 (so a = x1 + x2, b = x2 + x3):
        x = 1 2 3 4, operation add: a = 2 + 3 = 5, b = 3 + 4 = 7, y = 12
        x = 1 2 3 4, operation sub: y = 5 - 7 = -2
    With `simple` n = 4, a = x0 + x1 + x2 + x3 and b = x0 + x1 for every seed.

    Splits: "train" is fresh, from the stream, on the interpolation range; "interpolation" and "extrapolation" are the
    published 10,000 rows each, drawn in float64, equal for all seeds. A union range [[a, b], [c, d]] draws both parts,
    then a fair coin for each element; both parts must be equally wide. Training batches differ from the published ones
    in their generator only.
    """

    version = 1
    network = "two_layer"
    splits = ("interpolation", "extrapolation")
    evaluation_only = ("extrapolation",)

    @dataclass(frozen=True, kw_only=True)
    class Config:
        operation: Literal["add", "sub", "mul", "div", "squared", "root"] = "add"
        """add and mul combine all subsets, sub and div the first two, squared and root use the first (--operation)"""
        input_size: int = 100
        """number of inputs (--input-size)"""
        subset_ratio: float = 0.25
        """size of a subset as a share of the inputs (--subset-ratio)"""
        overlap_ratio: float = 0.5
        """overlap of neighbouring subsets as a share of a subset (--overlap-ratio)"""
        num_subsets: int = 2
        """number of subsets that are summed (--num-subsets)"""
        simple: bool = False
        """the paper's 4-input case with fixed subsets; the geometry settings above are not used (--simple)"""
        interpolation: Range = (1.0, 2.0)
        """range of x in training and interpolation: [low, high] or [[low, high], [low, high]] (--interpolation-range)"""
        extrapolation: Range = (2.0, 6.0)
        """range of x in extrapolation (--extrapolation-range)"""

        def __post_init__(self) -> None:
            faults = geometry_faults(self)
            for split in ("interpolation", "extrapolation"):
                faults += _range_faults(split, getattr(self, split), self.operation)
            if faults:
                raise ValueError(*faults)

    config: Config
    num_outputs = 1

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.num_inputs = 4 if config.simple else config.input_size

    def instance(self, seed: int) -> Arrays:
        """Return `masks` float32 [S, I], 1 where an input belongs to a subset."""
        subsets = self.subsets(seed)
        masks = np.zeros((len(subsets), self.num_inputs), np.float32)
        for mask, (start, end) in zip(masks, subsets, strict=True):
            mask[start:end] = 1.0
        return {"masks": masks}

    @property
    def geometry(self) -> tuple[tuple[int, int], ...]:
        """Start and end of each subset, without the seed's offset."""
        return ((0, 4), (0, 2)) if self.config.simple else tuple(chain(self.config))

    def subsets(self, seed: int) -> list[tuple[int, int]]:
        """Return start and end of each subset."""
        if self.config.simple:
            return list(self.geometry)
        offset = first_draw(seed, self.num_inputs - self.geometry[-1][1] + 1)
        return [(start + offset, end + offset) for start, end in self.geometry]

    def sample(self, stream: Stream, data: Mapping[str, Tensor], batch: int) -> tuple[Tensor, Tensor]:
        """Return a training batch: x [B, I] and target [B, 1], float32."""
        x_IB = draw(stream, (self.num_inputs, batch), self.config.interpolation)
        sums_SB = data["masks"] @ x_IB
        return x_IB.T, combine(self.config.operation, list(sums_SB.unbind(0))).unsqueeze(1)

    def evaluation_inputs(self, split: str) -> Floats:
        """Return the published x [10000, I] of a split, float64."""
        return published_inputs(getattr(self.config, split), split, self.num_inputs)

    def truth(self, x_BI: Floats, seed: int) -> Floats:
        """Return the exact target [B, 1] in float64, by slices: independent of `sample`."""
        sums = [x_BI[:, start:end].sum(axis=1) for start, end in self.subsets(seed)]
        result: Floats = exact(self.config.operation, sums)[:, np.newaxis]
        return result

    def loss(self, y_BO: Tensor, target_BO: Tensor) -> Tensor:
        """Return the mean squared error, which is also the error of an evaluation."""
        return (y_BO - target_BO).square().mean()

    def threshold(self) -> float:
        """Return the extrapolation error of a near-perfect solution.

        It is the mean squared error, over a million fixed rows of the extrapolation range, of a network whose first
        layer has the right weights, each off by epsilon = 1e-5 (selected 1 - epsilon, others epsilon), and whose second
        layer is exact (Madsen and Johansen 2020, section 4.1.1). The subsets are exact; the published script's have one
        element too many each (inclusive slices in R), which moves its thresholds by about 1 % at the default geometry.
        """
        c = self.config
        return _threshold(c.operation, c.extrapolation, self.num_inputs, self.geometry)

    def warnings(self) -> list[str]:
        """Return sentences about settings with which no lane can be solved."""
        return geometry_warnings(self.config.operation, self.geometry, self.num_inputs)


def _range_faults(split: str, values: Range, operation: str) -> list[str]:
    faults = range_faults(split, values)
    if operation == "root" and any(low < 0 for low, _ in intervals(values)):
        faults.append(f"{split} reaches below 0, where operation root has no value")
    return faults


@lru_cache(maxsize=256)
def _threshold(operation: str, values: Range, num_inputs: int, subsets: tuple[tuple[int, int], ...]) -> float:
    rng = np.random.RandomState(THRESHOLD_SEED)
    chunks = range(THRESHOLD_ROWS // THRESHOLD_CHUNK)
    drawn = (numpy_draw(rng, (THRESHOLD_CHUNK, num_inputs), values) for _ in chunks)
    return perturbed_error(operation, drawn, subsets)
