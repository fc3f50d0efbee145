"""English words to a number: "one hundred and twenty three" is 123.

Trask et al., "Neural Arithmetic Logic Units" (2018), section 4.3, with the vocabulary of a public PyTorch version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks import _number_words as words
from tasks.base import Task

Ids = NDArray[np.int64]


class NumberWords(Task):
    """y is the number from 0 to 999 that the words say.

    Two examples worked by hand:
        "twenty one", tokens 22 3 0: y = 21
        "one hundred and twenty three": y = 123

    169 numbers train (every word is among them), 200 validate ("interpolation") and 631 test ("extrapolation"), as
    published; which ones is not, so a fixed seed of ours draws them, the same for every seed of a sweep. A batch draws from
    the 169 with replacement; published are 30 gradients at a time, summed up over an epoch of another order.

    The score `mean_absolute_error` is the published one. Published code leaves outputs that are not finite, or above 1e9,
    out of the mean; here they are in it.
    """

    version = 1
    network = "tokens"
    splits = ("interpolation", "extrapolation", "train")
    score_names = ("mean_absolute_error",)
    num_inputs = len(words.VOCABULARY)
    num_outputs = 1

    @dataclass(frozen=True, kw_only=True)
    class Config:
        pass

    def __init__(self, config: Config) -> None:
        self.config = config
        self.time_steps = words.all_tokens().shape[1]

    def instance(self, seed: int) -> dict[str, Ids]:
        """`numbers` int64 [169] and `tokens` int64 [1000, 6]: the same for every seed."""
        return {"numbers": words.split().train, "tokens": words.all_tokens().copy()}

    def sample(self, stream: Any, instance: Mapping[str, Tensor], batch: int) -> tuple[Tensor, Tensor]:
        """A training batch: tokens int64 [T, B] and target [B, 1], float32."""
        numbers = instance["numbers"]
        chosen = numbers[stream.integers((batch,), 0, len(numbers))]
        return instance["tokens"][chosen].T, chosen.to(torch.float32).unsqueeze(1)

    def evaluation_inputs(self, split: str) -> Ids:
        """Tokens int64 [T, rows] of a split, equal for all seeds."""
        parts = words.split()
        numbers = {"train": parts.train, "interpolation": parts.validation, "extrapolation": parts.test}[
            split
        ]
        return np.ascontiguousarray(words.all_tokens()[numbers].T)

    def truth(self, tokens_TR: Ids, seed: int) -> NDArray[np.float64]:
        """The numbers [rows, 1], found by their words: independent of `sample`."""
        known = {tuple(row): number for number, row in enumerate(words.all_tokens().tolist())}
        return np.array([[known[tuple(row)]] for row in tokens_TR.T.tolist()], np.float64)

    def loss(self, y_BO: Tensor, target_BO: Tensor) -> Tensor:
        """Mean squared error; also the error that evaluation reports."""
        return (y_BO - target_BO).square().mean()

    def scores(self, split: str, y_BO: Tensor, target_BO: Tensor) -> dict[str, Tensor]:
        return {"mean_absolute_error": (y_BO - target_BO).abs().mean()}
