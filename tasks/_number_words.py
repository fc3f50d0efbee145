"""Numbers from 0 to 999 as English words, for the language-to-number task.

Trask et al., "Neural Arithmetic Logic Units" (2018), section 4.3; the vocabulary is that of a public PyTorch version.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

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
"""30 numbers that have every word between them."""
SIZES = {"train": 169, "validation": 200, "test": 631}
SPLIT_SEED = 4_301

_IDS = {word: i for i, word in enumerate(VOCABULARY)}


@dataclass(frozen=True)
class Split:
    """Numbers of each part, ascending. Together they are 0 to 999, each once."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def words(number: int) -> list[str]:
    """123 -> one hundred and twenty three"""
    from num2words import num2words  # here, because nothing else needs it

    text: str = num2words(number, lang="en")
    return text.replace("-", " ").replace(",", " ,").split()


def tokens(number: int) -> list[int]:
    """The words' places in the vocabulary, and the end. 21 -> [22, 3, 0]. Raises ValueError outside of 0 to 999."""
    if not 0 <= number < NUMBERS:
        raise ValueError(f"number = {number} must lie in 0 to {NUMBERS - 1}")
    return [*(_IDS[word] for word in words(number)), END]


@lru_cache(maxsize=1)
def all_tokens() -> NDArray[np.int64]:
    """[1000, 6]: the tokens of each number, filled up with the end token. Read-only."""
    found = [tokens(number) for number in range(NUMBERS)]
    table = np.full((NUMBERS, max(map(len, found))), END, np.int64)
    for row, ids in zip(table, found, strict=True):
        row[: len(ids)] = ids
    table.flags.writeable = False
    return table


def split(seed: int = SPLIT_SEED) -> Split:
    """169, 200 and 631 numbers, as published; which ones is not, so a fixed seed of ours (RandomState) draws them."""
    rest = np.array([n for n in range(NUMBERS) if n not in ALWAYS_TRAINED], np.int64)
    drawn = np.random.RandomState(seed).permutation(rest)
    first = SIZES["train"] - len(ALWAYS_TRAINED)
    train = np.concatenate([np.array(sorted(ALWAYS_TRAINED), np.int64), drawn[:first]])
    last = first + SIZES["validation"]
    return Split(np.sort(train), np.sort(drawn[first:last]), np.sort(drawn[last:]))
