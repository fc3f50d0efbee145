"""Counter-based random numbers for lanes: streams that are keyed by (seed, purpose, step).

A lane's numbers are a pure function of its seed, their purpose, the step and their index, so they do not depend on the
lane's neighbours, its slot, the pack's size or a restart.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sweeps.training.threefry import PARITY, threefry2x32, threefry_of_ints

Word = Any  # an int in [0, 2**32), or an int32 tensor that holds the same 32 bits


def _tensor(word: Word, device: torch.device | None) -> Tensor:
    """A word as a 0-dim int32 tensor of the same 32 bits."""
    return word if isinstance(word, Tensor) else torch.tensor(signed(word), dtype=torch.int32, device=device)


def signed(word: int) -> int:
    """The int32 that has the same 32 bits as a word."""
    return word - 2**32 if word >= 2**31 else word


def _unit(word: Tensor) -> Tensor:
    """The upper 24 bits as float32 in [0, 1)."""
    return ((word >> 8) & 0xFFFFFF).to(torch.float32) * 2.0**-24


def derived_key(key: tuple[int, int], name: str) -> tuple[int, int]:
    """The key of a named child of a stream, for keys that are ints."""
    return threefry_of_ints(key, (zlib.crc32(name.encode()), 0xFFFFFFFF))


def seed_key(seed: int, purpose: str) -> tuple[int, int]:
    """The key of one purpose ("initialise", "batch", "model", "noise") of a lane's seed in [0, 2**32)."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed = {seed} must lie in [0, 2**32)")
    return derived_key((seed, PARITY), purpose)


class Stream:
    """A named source of random numbers at one step; models and tasks know only its methods.

    `key` and `step` are ints, or int32 tensors that may differ between lanes. Successive draws from one stream take
    successive counters, so two draws never share numbers. `child(name)` is an independent stream.
    """

    def __init__(self, key: tuple[Word, Word], step: Word = 0, device: torch.device | None = None) -> None:
        self._key = (_tensor(key[0], device), _tensor(key[1], device))
        self._step, self._device = _tensor(step, device), device
        self._drawn = 0

    def child(self, name: str) -> Stream:
        """The stream for one purpose, at the same step. Its first counter word is out of reach of any draw's index."""
        word = _tensor(zlib.crc32(name.encode()), self._device)
        return Stream(threefry2x32(*self._key, word, torch.full_like(word, -1)), self._step, self._device)

    def folded(self, number: Word) -> Stream:
        """The stream for one of many uses of the same kind, such as a time step, by its number from 0."""
        word = _tensor(number, self._device)
        return Stream(threefry2x32(*self._key, word, torch.full_like(word, -2)), self._step, self._device)

    @property
    def step(self) -> Tensor:
        """0-dim int32."""
        return self._step

    def at(self, step: Word) -> Stream:
        """The same stream at another step, from its first number."""
        return Stream(self._key, step, self._device)

    def _words(self, count: int) -> tuple[Tensor, Tensor]:
        """`count` pairs of words."""
        index = torch.arange(self._drawn, self._drawn + count, dtype=torch.int32, device=self._device)
        self._drawn += count
        return threefry2x32(*self._key, index, self._step)

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
        """int64 in [low, high). The width must be at most 2**24; the bias is below width / 2**24."""
        if not 0 < high - low <= 2**24:
            raise ValueError(
                f"integers need low < high and a width of at most 2**24, but got low={low}, high={high}"
            )
        return self._paired(
            shape,
            lambda a, b: tuple(
                low + (((w >> 8) & 0xFFFFFF).to(torch.int64) * (high - low) >> 24) for w in (a, b)
            ),
        )

    def bernoulli(self, shape: Sequence[int], p: Any) -> Tensor:
        """bool, true with probability p."""
        return self.uniform(shape) < p
