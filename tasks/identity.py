"""The identity task.

Trask et al., "Neural Arithmetic Logic Units" (2018), section 1 and figure 1, with the numbers of a public PyTorch version
of it: networks with three hidden layers of 8, Adam at 1e-2, 10,000 steps, mean squared error, 100 networks an activation.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.base import Arrays, Stream, Task

Floats = NDArray[np.float64]

BORDERS = {
    "interpolation": (-5, 5),
    "extrapolation": (-20, 20),
    "leftmost": (-20, -20),
    "rightmost": (20, 20),
}


class Identity(Task):
    """Learn y = x from a few whole numbers, with tests far outside of them.

    Two examples worked by hand:
        x = 3, y = 3
        x = -20, y = -20

    Every training batch is the same 11 points, -5 to 5, regardless of `train.batch`: published is the full batch.
    Splits: "interpolation" is those 11 points again, "extrapolation" the 41 from -20 to 20. "leftmost" and "rightmost" are
    -20 and 20 alone, since the published figure is the mean over networks of |error| at each x.

    The score `mean_absolute_error` is the mean of |y - x| over a split; the published figures are those after the last
    step, ours those of the step with the lowest interpolation error (the curve contains both). A function that is constant
    outside of the training range has an error of 15 at both ends.
    """

    version = 1
    full_batch = True
    network = "mlp"
    splits = ("interpolation", "extrapolation", "leftmost", "rightmost")
    score_names = ("mean_absolute_error",)
    num_inputs = 1
    num_outputs = 1

    def instance(self, seed: int) -> Arrays:
        """Return `points` float32 [11, 1], the same for every seed."""
        return {"points": self.evaluation_inputs("interpolation").astype(np.float32)}

    def sample(self, stream: Stream, data: Mapping[str, Tensor], batch: int) -> tuple[Tensor, Tensor]:
        """Return the 11 points as inputs and as targets."""
        return data["points"], data["points"]

    def evaluation_inputs(self, split: str) -> Floats:
        """Return x [rows, 1] of a split, ascending."""
        first, last = BORDERS[split]
        return np.arange(first, last + 1, dtype=np.float64)[:, np.newaxis]

    def truth(self, x_BI: Floats, seed: int) -> Floats:
        return x_BI.copy()

    def loss(self, y_BO: Tensor, target_BO: Tensor) -> Tensor:
        """Return the mean squared error, which is also the error of an evaluation."""
        return (y_BO - target_BO).square().mean()

    def scores(self, split: str, y_BO: Tensor, target_BO: Tensor) -> dict[str, Tensor]:
        return {"mean_absolute_error": torch.abs(y_BO - target_BO).mean()}
