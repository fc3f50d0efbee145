"""Functions of a pair of numbers.

Trask et al., "Neural Arithmetic Logic Units" (2018), section 4.1, as a public PyTorch version of it draws and scores it:
one hidden layer of 2, Adam at 1e-2, 100,000 steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.base import Stream, Task

Floats = NDArray[np.float64]

BOUND, FACTOR = 0.5, 5.0
INPUTS, FIRST, SECOND = 100, slice(0, 10), slice(60, 100)
MAXIMA_ROWS, EVALUATION_ROWS = 50_000, 5_000
SEEDS = {"maxima": 4_101, "interpolation": 4_102, "extrapolation": 4_103, "baseline": 4_104}
BASELINES = 20


class PairFunctions(Task):
    """An operation on a pair of numbers, which are larger in the test than in training: y = operation(a, b).

    a and b are sums: a = x0 + ... + x9 and b = x60 + ... + x99 of 100 numbers x that are uniform on [0, 1/2).

    The network's input is (a, b), never x. Two examples worked by hand, with a = 2 and b = 8:
        add: y = 2 + 8 = 10
        div: y = 2 / 8 = 0.25
    squared and root use a alone; b is then a distractor.

    Splits, 5,000 rows each, equal for all seeds: "interpolation" is drawn like the training data and keeps the rows whose
    a, b and y are all below the largest of 50,000 training rows; "extrapolation" draws x from [0, 5/2) and keeps the
    rows for which that is not so. As published, but from seeds of ours (NumPy's RandomState): the published code has none.

    The score `relative_error` is 100 RMSE / R, where R is the mean RMSE of 20 untrained networks on the same rows: 2 -> 2
    ReLU -> 1, weights and biases as in torch.nn.Linear, from a fixed seed of ours. 0 is perfect, 100 is an untrained network.

    Deviations: published training has 50,000 fixed rows, all in every step; here every batch is fresh, of `train.batch`
    rows. Published is one network a cell, after its last step, and another for each of the two tests. Its dense networks
    start as in torch.nn.Linear, which is `model: {name: relu6, network: mlp, hidden: 2, depth: 1}` here. The ranges are
    not settings, since the score's R depends on them.
    """

    version = 1
    network = "two_layer"
    splits = ("interpolation", "extrapolation")
    score_names = ("relative_error",)
    num_inputs = 2
    num_outputs = 1

    @dataclass(frozen=True, kw_only=True)
    class Config:
        operation: Literal["add", "sub", "mul", "div", "squared", "root"] = "add"
        """squared and root use a alone"""

    def sample(self, stream: Stream, data: Mapping[str, Tensor], batch: int) -> tuple[Tensor, Tensor]:
        """Return a training batch: x [B, 2] and target [B, 1], float32. The 50 numbers in neither sum are not drawn."""
        first = FIRST.stop - FIRST.start
        x_NB = stream.uniform((first + SECOND.stop - SECOND.start, batch), 0.0, BOUND)
        a_B, b_B = x_NB[:first].sum(0), x_NB[first:].sum(0)
        return torch.stack([a_B, b_B], 1), _combine(self.config.operation, a_B, b_B).unsqueeze(1)

    def evaluation_inputs(self, split: str) -> Floats:
        """Return the pairs [5000, 2] of a split."""
        return _pairs(self.config.operation, split)

    def truth(self, x_BI: Floats, seed: int) -> Floats:
        """Return the exact target [B, 1] in float64: independent of `sample`."""
        return _exact(self.config.operation, x_BI)[:, np.newaxis]

    def loss(self, y_BO: Tensor, target_BO: Tensor) -> Tensor:
        """Return the mean squared error, which is also the error of an evaluation."""
        return (y_BO - target_BO).square().mean()

    def scores(self, split: str, y_BO: Tensor, target_BO: Tensor) -> dict[str, Tensor]:
        rmse = (y_BO - target_BO).square().mean().sqrt()
        return {"relative_error": rmse * (100.0 / random_rmse(self.config.operation, split))}


def _combine(operation: str, a: Tensor, b: Tensor) -> Tensor:
    return {
        "add": lambda: a + b,
        "sub": lambda: a - b,
        "mul": lambda: a * b,
        "div": lambda: a / b,
        "squared": lambda: a * a,
        "root": lambda: torch.sqrt(a),
    }[operation]()


def _exact(operation: str, pairs: Floats) -> Floats:
    """Return the targets in float64: the oracle, which shares no code with `_combine`."""
    a, b = pairs.T
    operations: dict[str, Any] = {
        "add": lambda: pairs.sum(axis=1),
        "sub": lambda: np.subtract(a, b),
        "mul": lambda: pairs.prod(axis=1),
        "div": lambda: np.divide(a, b),
        "squared": lambda: np.square(a),
        "root": lambda: np.sqrt(a),
    }
    result: Floats = operations[operation]()
    return result


def _draws(seed: int, rows: int, bound: float) -> Iterator[Floats]:
    """Yield batches of pairs without end."""
    rng = np.random.RandomState(seed)
    while True:
        x = rng.uniform(0.0, bound, (rows, INPUTS))
        yield np.stack([x[:, FIRST].sum(axis=1), x[:, SECOND].sum(axis=1)], axis=1)


@lru_cache
def _largest(operation: str) -> tuple[float, float, float]:
    """Return the largest a, b and y of 50,000 training rows."""
    pairs = next(_draws(SEEDS["maxima"], MAXIMA_ROWS, BOUND))
    a, b = pairs.max(axis=0).tolist()
    return a, b, float(_exact(operation, pairs).max())


@lru_cache
def _pairs(operation: str, split: str) -> Floats:
    inside = split == "interpolation"
    kept: list[Floats] = []
    for pairs in _draws(SEEDS[split], EVALUATION_ROWS, BOUND if inside else FACTOR * BOUND):
        triples = np.column_stack([pairs, _exact(operation, pairs)])
        kept.append(pairs[(triples < _largest(operation)).all(axis=1) == inside])
        if sum(map(len, kept)) >= EVALUATION_ROWS:
            break
    return np.concatenate(kept)[:EVALUATION_ROWS]


@lru_cache
def random_rmse(operation: str, split: str) -> float:
    """Return the mean RMSE of 20 untrained networks on a split: the same networks for every operation and split."""
    pairs = _pairs(operation, split)
    target = _exact(operation, pairs)
    rng = np.random.RandomState(SEEDS["baseline"])
    r = 1.0 / math.sqrt(2)  # torch.nn.Linear's range for two inputs, which both layers have
    total = 0.0
    for _ in range(BASELINES):
        W1, b1, W2, b2 = (rng.uniform(-r, r, shape) for shape in ((2, 2), 2, 2, ()))
        y = np.maximum(pairs @ W1.T + b1, 0.0) @ W2 + b2
        total += math.sqrt(np.square(y - target).mean())
    return total / BASELINES
