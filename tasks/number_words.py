"""English words to a number: "one hundred and twenty three" is 123.

Trask et al., "Neural Arithmetic Logic Units" (2018), section 4.3, with the vocabulary of a public PyTorch version.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.base import NoSettings, Stream, Task

Ids = NDArray[np.int64]

NUMBERS = 1_000
END = 0
VOCABULARY = (
    "", "minus", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty", "thirty",
    "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "and", ",", "hundred",
)  # fmt: skip
"""33 entries: the end of the sequence, the 30 words that 0 to 999 need, and `minus` and `,`, which never occur but are in
the published vocabulary and so in its embedding."""
ALWAYS_TRAINED = frozenset({*range(20), *range(20, 101, 10), 123})
"""30 numbers that together contain every word."""
SIZES = {"train": 169, "validation": 200, "test": 631}
SPLIT_SEED = 4_301

_IDS = {word: i for i, word in enumerate(VOCABULARY)}


class NumberWords(Task):
    """Read a number in English words: y is the number from 0 to 999 that they name.

    Two examples worked by hand:
        "twenty one", tokens 22 3 0: y = 21
        "one hundred and twenty three": y = 123

    169 numbers are for training (every word is among them), 200 for validation ("interpolation") and 631 for testing
    ("extrapolation"), as published; which numbers is not published, so a fixed seed of ours draws them, the same for every seed
    of a sweep. A batch draws from the 169 with replacement; published are sums of 30 gradients, over epochs in random order.

    The score `mean_absolute_error` is the published one. Published code leaves outputs that are not finite, or above 1e9,
    out of the mean; here they are included.
    """

    version = 1
    network = "tokens"
    splits = ("interpolation", "extrapolation", "train")
    score_names = ("mean_absolute_error",)
    num_inputs = len(VOCABULARY)
    num_outputs = 1

    def __init__(self, config: NoSettings) -> None:
        super().__init__(config)
        self.time_steps = all_tokens().shape[1]

    def instance(self, seed: int) -> dict[str, Ids]:
        """Return `numbers` int64 [169] and `tokens` int64 [1000, 6]: the same for every seed."""
        return {"numbers": split_numbers().train, "tokens": all_tokens().copy()}

    def sample(self, stream: Stream, data: Mapping[str, Tensor], batch: int) -> tuple[Tensor, Tensor]:
        """Return a training batch: tokens int64 [T, B] and target [B, 1], float32."""
        numbers = data["numbers"]
        chosen = numbers[stream.integers((batch,), 0, len(numbers))]
        return data["tokens"][chosen].T, chosen.to(torch.float32).unsqueeze(1)

    def evaluation_inputs(self, split: str) -> Ids:
        """Return tokens int64 [T, rows] of a split, equal for all seeds."""
        parts = split_numbers()
        numbers = {"train": parts.train, "interpolation": parts.validation, "extrapolation": parts.test}[split]
        return np.ascontiguousarray(all_tokens()[numbers].T)

    def truth(self, x: Ids, seed: int) -> NDArray[np.float64]:
        """Return the numbers [rows, 1], looked up by their words: independent of `sample`."""
        number_of = {tuple(row): number for number, row in enumerate(all_tokens().tolist())}
        return np.array([[number_of[tuple(row)]] for row in x.T.tolist()], np.float64)

    def read(self, text: str) -> list[int]:
        """Return the tokens of a number's words, padded with the end token: `twenty one` gives 22 3 0 0 0 0."""
        found = [_IDS.get(word) for word in text.lower().replace("-", " ").split()]
        unknown = [word for word, id_ in zip(text.split(), found, strict=False) if id_ is None]
        if unknown or not found or len(found) >= all_tokens().shape[1]:
            raise ValueError(f"{text!r} is not a number from 0 to {NUMBERS - 1} in words, such as one hundred and twenty three")
        ids = [id_ for id_ in found if id_ is not None]
        return ids + [END] * (all_tokens().shape[1] - len(ids))

    def loss(self, y_BO: Tensor, target_BO: Tensor) -> Tensor:
        """Return the mean squared error, which is also the error of an evaluation."""
        return (y_BO - target_BO).square().mean()

    def scores(self, split: str, y_BO: Tensor, target_BO: Tensor) -> dict[str, Tensor]:
        return {"mean_absolute_error": (y_BO - target_BO).abs().mean()}


@dataclass(frozen=True)
class Split:
    """Numbers of each part, ascending. Together they are 0 to 999, each once."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def words(number: int) -> list[str]:
    """Return the words of a number: 123 gives one hundred and twenty three."""
    from num2words import num2words  # imported here, because nothing else needs it

    text: str = num2words(number, lang="en")
    return text.replace("-", " ").replace(",", " ,").split()


def tokens(number: int) -> list[int]:
    """Return the words' indices in the vocabulary, and the end: 21 gives [22, 3, 0]. Raises ValueError outside of 0 to 999."""
    if not 0 <= number < NUMBERS:
        raise ValueError(f"number = {number} must lie in 0 to {NUMBERS - 1}")
    return [*(_IDS[word] for word in words(number)), END]


@lru_cache(maxsize=1)
def all_tokens() -> NDArray[np.int64]:
    """Return the tokens of each number, padded with the end token, [1000, 6]. Read-only."""
    found = [tokens(number) for number in range(NUMBERS)]
    table = np.full((NUMBERS, max(map(len, found))), END, np.int64)
    for row, ids in zip(table, found, strict=True):
        row[: len(ids)] = ids
    table.flags.writeable = False
    return table


def split_numbers(seed: int = SPLIT_SEED) -> Split:
    """Return 169, 200 and 631 numbers, drawn from a RandomState of this seed."""
    rest = np.array([n for n in range(NUMBERS) if n not in ALWAYS_TRAINED], np.int64)
    drawn = np.random.RandomState(seed).permutation(rest)
    first = SIZES["train"] - len(ALWAYS_TRAINED)
    train = np.concatenate([np.array(sorted(ALWAYS_TRAINED), np.int64), drawn[:first]])
    last = first + SIZES["validation"]
    return Split(np.sort(train), np.sort(drawn[first:last]), np.sort(drawn[last:]))
