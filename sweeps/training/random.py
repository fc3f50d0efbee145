"""Counter-based random numbers: Philox-2x32-10 in integer tensor operations.

A lane's numbers are a pure function of (seed, purpose, step, index), so they do not depend on the lane's neighbours,
its slot, the pack's size or a restart. Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as
1, 2, 3" (SC 2011); the published known-answer vectors are in tests/training/test_random.py.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

MULTIPLIER = 0xD256D193
WEYL = 0x9E3779B9
MASK = 0xFFFFFFFF
ROUNDS = 10

Word = Any  # an int, or an int64 tensor that holds values in [0, 2**32)


def philox2x32(counter0: Word, counter1: Word, key: Word) -> tuple[Word, Word]:
    """Two 32-bit words from a 64-bit counter and a 32-bit key. Works on ints and on int64 tensors alike.

    In int64 the 64-bit product may wrap to a negative number; shifting and masking still give its two halves.
    """
    for i in range(ROUNDS):
        product = counter0 * MULTIPLIER
        round_key = (key + i * WEYL) & MASK
        counter0, counter1 = ((product >> 32) & MASK) ^ round_key ^ counter1, product & MASK
    return counter0, counter1


def _unit(word: Tensor) -> Tensor:
    """Upper 24 bits as float32 in [0, 1). Via int32, for which processors have a direct conversion."""
    return (word >> 8).to(torch.int32).to(torch.float32) * 2.0**-24


class Stream:
    """A named source of random numbers at one step; models and tasks know only its methods.

    Successive draws from one stream take successive counters, so two draws never share numbers. `child(name)` is an
    independent stream. 64 bits (key and salt) tell streams apart.
    """

    def __init__(self, key: Word, salt: Word = 0, step: Word = 0, device: torch.device | None = None) -> None:
        self._key, self._salt, self._step, self._device = key, salt, step, device
        self._drawn = 0

    @classmethod
    def of_seed(cls, seed: Word, device: torch.device | None = None) -> Stream:
        """The root stream of a lane. `seed` is an int in [0, 2**32) or a 0-dim int64 tensor."""
        key, salt = philox2x32(seed, 0x53574550, 0x1BD11BDA)
        return cls(key, salt, device=device)

    def child(self, name: str) -> Stream:
        """The stream for one purpose, at the same step."""
        key, salt = philox2x32(zlib.crc32(name.encode()), self._salt, self._key)
        return Stream(key, salt, self._step, self._device)

    def at(self, step: Word) -> Stream:
        """The same stream at another step."""
        return Stream(self._key, self._salt, step, self._device)

    def _words(self, count: int) -> tuple[Tensor, Tensor]:
        """`count` pairs of words."""
        index = torch.arange(self._drawn, self._drawn + count, dtype=torch.int64, device=self._device)
        self._drawn += count
        return philox2x32(index, (self._step ^ self._salt) & MASK, self._key)

    def _paired(self, shape: Sequence[int], make: Any) -> Tensor:
        """`make` turns two arrays of words into two arrays of numbers, which are joined in the given shape."""
        size = math.prod(shape)
        first, second = make(*self._words((size + 1) // 2))
        return torch.cat([first, second])[:size].reshape(tuple(shape))

    def uniform(self, shape: Sequence[int], low: Any = 0.0, high: Any = 1.0) -> Tensor:
        """float32 in [low, high), 24 random bits each. The range is applied before the halves are joined: one write."""
        width = high - low
        return self._paired(shape, lambda a, b: (low + width * _unit(a), low + width * _unit(b)))

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal float32 by Box and Muller; the largest magnitude is sqrt(48 ln 2) = 5.77."""

        def box_muller(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
            radius = torch.sqrt(-2.0 * torch.log(_unit(a) + 2.0**-24))
            angle = (2.0 * math.pi) * _unit(b)
            return radius * torch.cos(angle), radius * torch.sin(angle)

        return self._paired(shape, box_muller)

    def integers(self, shape: Sequence[int], low: int, high: int) -> Tensor:
        """int64 in [low, high). The width must be below 2**31; the bias is at most width / 2**32."""
        if not 0 < high - low < 2**31:
            raise ValueError(f"integers need low < high and a width below 2**31, but got low={low}, high={high}")
        return self._paired(shape, lambda a, b: tuple(low + ((w * (high - low)) >> 32) for w in (a, b)))

    def bernoulli(self, shape: Sequence[int], p: Any) -> Tensor:
        """bool, true with probability p."""
        return self.uniform(shape) < p
