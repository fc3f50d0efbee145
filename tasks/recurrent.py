"""The recurrent arithmetic task.

Trask et al., "Neural Arithmetic Logic Units" (2018), section 4.1, recurrent form, with the subsets of Madsen and Johansen
(2020), whose script for it no longer runs: choices that it leaves open are marked as ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from torch import Tensor

from tasks._arithmetic import (
    EVALUATION_SEEDS,
    THRESHOLD_SEED,
    Floats,
    Range,
    combine,
    draw,
    numpy_draw,
    perturbed_error,
)
from tasks.base import Stream
from tasks.static import Static

EVALUATION_ROWS = {
    "interpolation": 10_000,
    "extrapolation": 1_000,
}  # ours: a row of length 1000 is 10,000 numbers
THRESHOLD_ROWS, THRESHOLD_CHUNK = 10_000, 250


class Recurrent(Static):
    """Sum two subsets of the inputs over time, and combine the sums.

    y = operation(sums over time of subsets of x_t), x i.i.d. uniform, given one time step after another. Subsets are those of
    the static task: contiguous, chained, moved by an offset that the seed draws.

    Two examples worked by hand, with 4 inputs, subsets {0, 1} and {1, 2} and length 2:
        x_1 = 1 2 3 4, x_2 = 1 1 1 1, operation add: a = (1 + 2) + (1 + 1) = 5, b = (2 + 3) + (1 + 1) = 7, y = 12
        the same x, operation sub: y = 5 - 7 = -2

    Splits: "train" and "interpolation" have `length` steps, "extrapolation" `extrapolation_length`; the range of x is the
    same, since it is the length that is extrapolated (another may be given).
    """

    version = 1
    network = "recurrent"
    splits = ("interpolation", "extrapolation")

    @dataclass(frozen=True, kw_only=True)
    class Config(Static.Config):
        input_size: int = 10
        """number of inputs at each time step"""
        length: int = 10
        """time steps in training and interpolation"""
        extrapolation_length: int = 1_000
        """time steps in extrapolation"""
        extrapolation: Range = (1.0, 2.0)
        """range of x in extrapolation"""

        def __post_init__(self) -> None:
            super().__post_init__()
            lengths = {"length": self.length, "extrapolation_length": self.extrapolation_length}
            faults = [f"{name} = {length} must be at least 1" for name, length in lengths.items() if length < 1]
            if faults:
                raise ValueError(*faults)

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.time_steps = config.length

    def sample(self, stream: Stream, data: Mapping[str, Tensor], batch: int) -> tuple[Tensor, Tensor]:
        """Return a training batch: x [T, B, I] and target [B, 1], float32."""
        x_TIB = draw(stream, (self.config.length, self.num_inputs, batch), self.config.interpolation)
        sums_SB = data["masks"] @ x_TIB.sum(0)
        return x_TIB.transpose(1, 2), combine(self.config.operation, list(sums_SB.unbind(0))).unsqueeze(1)

    def evaluation_inputs(self, split: str) -> Floats:
        """Return x [T, rows, I] of a split, float64, equal for all seeds."""
        length = self.config.length if split == "interpolation" else self.config.extrapolation_length
        return _inputs(getattr(self.config, split), split, length, self.num_inputs)

    def truth(self, x_TBI: Floats, seed: int) -> Floats:
        """Return the exact target [B, 1] in float64."""
        return super().truth(x_TBI.sum(axis=0), seed)

    def threshold(self) -> float:
        """Return the extrapolation error of a network whose weights are each off by 1e-5.

        As the static task's threshold, over 10,000 rows in place of a million: within about 1 %. Nothing is published.
        """
        c = self.config
        return _threshold(c.operation, c.extrapolation, c.extrapolation_length, self.num_inputs, self.geometry)


@lru_cache(maxsize=8)
def _inputs(values: Range, split: str, length: int, num_inputs: int) -> Floats:
    rng = np.random.RandomState(EVALUATION_SEEDS[split])
    rows = EVALUATION_ROWS[split]
    return numpy_draw(rng, (length * rows, num_inputs), values).reshape(length, rows, num_inputs)


@lru_cache(maxsize=64)
def _threshold(operation: str, values: Range, length: int, num_inputs: int, subsets: tuple[tuple[int, int], ...]) -> float:
    rng = np.random.RandomState(THRESHOLD_SEED)
    drawn = (
        numpy_draw(rng, (THRESHOLD_CHUNK * length, num_inputs), values).reshape(THRESHOLD_CHUNK, length, num_inputs).sum(axis=1)
        for _ in range(THRESHOLD_ROWS // THRESHOLD_CHUNK)
    )
    return perturbed_error(operation, drawn, subsets)
