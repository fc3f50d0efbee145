"""Random numbers of lanes: streams on Threefry-2x32 with 13 rounds, one tensor operation that the compiler lowers whole.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011); 13 rounds is the least that
they found to pass every test of BigCrush. Its published known answers are in tests/training/test_random.py.

Why one operation: written as ninety separate ones, the compiler takes half a minute for it, or writes intermediate
results to memory (docs/benchmarks.md). Philox needs a 32 x 32 -> 64 bit product, which AVX2 has no vector form of that
the compiler would use: 5.8 ns a number against 1.6. Its lowering is in threefry_inductor.py.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from arith_models.base import Scalar

ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
PARITY = 0x1BD11BDA
ROUNDS = 13

Pair = tuple[Any, Any]


def threefry_rounds(x: Pair, key: Pair, count: int, rotate: Callable[[Any, int], Any], wrapped: Callable[[Any], Any]) -> Pair:
    """Return the cipher's words for anything that adds and xors like 32-bit words: ints, int32 tensors, compiler values."""
    keys = (*key, key[0] ^ key[1] ^ PARITY)
    x0, x1 = wrapped(x[0] + keys[0]), wrapped(x[1] + keys[1])
    for i in range(count):
        x0 = wrapped(x0 + x1)
        x1 = rotate(x1, ROTATIONS[i % 8]) ^ x0
        if i % 4 == 3:
            injection = i // 4 + 1
            x0 = wrapped(x0 + keys[injection % 3])
            x1 = wrapped(x1 + wrapped(keys[(injection + 1) % 3] + injection))
    return x0, x1


def threefry_of_ints(key: tuple[int, int], counter: tuple[int, int], rounds: int = ROUNDS) -> tuple[int, int]:
    """Return two 32-bit words from a 64-bit key and a 64-bit counter, all ints in [0, 2**32)."""

    def wrapped(word: int) -> int:
        return word & 0xFFFFFFFF

    return threefry_rounds(counter, key, rounds, lambda w, r: wrapped(w << r) | (w >> (32 - r)), wrapped)


def rotate_left(word: Any, bits: int) -> Any:
    """Rotate to the left. The mask makes the arithmetic right shift of a signed word a logical one."""
    return (word << bits) | ((word >> (32 - bits)) & ((1 << bits) - 1))


@torch.library.custom_op("sweeps::threefry2x32", mutates_args=())
def threefry2x32(key0: Tensor, key1: Tensor, counter0: Tensor, counter1: Tensor) -> tuple[Tensor, Tensor]:
    """Return two words from int32 tensors of shapes that broadcast; int32 arithmetic wraps, as the cipher requires."""
    x0, x1 = threefry_rounds((counter0, counter1), (key0, key1), ROUNDS, rotate_left, lambda w: w)
    shape = torch.broadcast_shapes(x0.shape, x1.shape)
    return x0.expand(shape).contiguous(), x1.expand(shape).contiguous()


@threefry2x32.register_fake
def _(key0: Tensor, key1: Tensor, counter0: Tensor, counter1: Tensor) -> tuple[Tensor, Tensor]:
    shape = torch.broadcast_shapes(key0.shape, key1.shape, counter0.shape, counter1.shape)
    return counter0.new_empty(shape), counter0.new_empty(shape)


@threefry2x32.register_vmap
def _(info: Any, in_dims: tuple[int | None, ...], *words: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    """Elementwise: bring every batch axis to the front and pad the rest to one rank."""
    rank = max(w.dim() - (d is not None) for w, d in zip(words, in_dims, strict=True))
    aligned = []
    for word, dim in zip(words, in_dims, strict=True):
        if dim is not None:
            word = word.movedim(dim, 0)
            word = word.reshape(word.shape[0], *(1,) * (rank + 1 - word.dim()), *word.shape[1:])
        aligned.append(word)
    return threefry2x32(*aligned), (0, 0)


Word = int | Tensor
"""An int in [0, 2**32), or an int32 tensor that holds the same 32 bits."""


def _tensor(word: Word, device: torch.device | None) -> Tensor:
    """A word as a 0-dim int32 tensor of the same 32 bits."""
    # Not torch.tensor, which is recorded as a tensor that the program holds, and not as the number.
    return word if isinstance(word, Tensor) else torch.full((), signed(word), dtype=torch.int32, device=device)


def signed(word: int) -> int:
    """Return the int32 that has the same 32 bits as a word."""
    return word - 2**32 if word >= 2**31 else word


def _unit(word: Tensor) -> Tensor:
    """The upper 24 bits as float32 in [0, 1)."""
    return ((word >> 8) & 0xFFFFFF).to(torch.float32) * 2.0**-24


def derived_key(key: tuple[int, int], name: str) -> tuple[int, int]:
    """Return the key of a named child of a stream, for keys that are ints."""
    return threefry_of_ints(key, (zlib.crc32(name.encode()), 0xFFFFFFFF))


def seed_key(seed: int, purpose: str) -> tuple[int, int]:
    """Return the key of one purpose ("initialise", "batch", "model", "noise") of a lane's seed in [0, 2**32)."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed = {seed} must lie in [0, 2**32)")
    return derived_key((seed, PARITY), purpose)


def seed_keys(seeds: npt.NDArray[np.int64], purpose: str) -> npt.NDArray[np.uint32]:
    """Return `seed_key` of many seeds, [n, 2]."""
    if len(seeds) and not 0 <= seeds.min() <= seeds.max() < 2**32:
        raise ValueError(f"seeds from {seeds.min()} to {seeds.max()} must lie in [0, 2**32)")

    def words(number: int) -> npt.NDArray[np.uint32]:
        return np.full(len(seeds), number, np.uint32)

    def rotate(word: npt.NDArray[np.uint32], bits: int) -> npt.NDArray[np.uint32]:
        return (word << np.uint32(bits)) | (word >> np.uint32(32 - bits))

    def wrapped(word: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        return word.astype(np.uint32)

    key, counter = (seeds.astype(np.uint32), words(PARITY)), (words(zlib.crc32(purpose.encode())), words(0xFFFFFFFF))
    return np.stack(threefry_rounds(counter, key, ROUNDS, rotate, wrapped), axis=1)


class Stream:
    """A source of random numbers at one step, see `arith_models.base.Stream` and `tasks.base.Stream`.

    `key` and `step` are ints, or int32 tensors that may differ between lanes. Successive draws from one stream take
    successive counters, so two draws never share numbers. `child(name)` is an independent stream.
    """

    def __init__(self, key: tuple[Word, Word], step: Word = 0, device: torch.device | None = None) -> None:
        self._key = (_tensor(key[0], device), _tensor(key[1], device))
        self._step, self._device = _tensor(step, device), device
        self._drawn = 0

    def child(self, name: str) -> Stream:
        """Return the stream for one purpose, at the same step. Its first counter word is out of reach of any draw's index."""
        word = _tensor(zlib.crc32(name.encode()), self._device)
        return Stream(threefry2x32(*self._key, word, torch.full_like(word, -1)), self._step, self._device)

    def folded(self, number: Word) -> Stream:
        """Return the stream for one of many uses of the same kind, such as a time step, by its number from 0."""
        word = _tensor(number, self._device)
        return Stream(threefry2x32(*self._key, word, torch.full_like(word, -2)), self._step, self._device)

    @property
    def step(self) -> Tensor:
        """0-dim int32."""
        return self._step

    def at(self, step: Word) -> Stream:
        """Return the same stream at another step, from its first number."""
        return Stream(self._key, step, self._device)

    def _words(self, count: int) -> tuple[Tensor, Tensor]:
        """`count` pairs of words."""
        index = torch.arange(self._drawn, self._drawn + count, dtype=torch.int32, device=self._device)
        self._drawn += count
        return threefry2x32(*self._key, index, self._step)

    def _paired(self, shape: Sequence[int], make: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        """Numbers in the given shape: `make` turns two arrays of words into two arrays of numbers, which are joined."""
        size = math.prod(shape)
        first, second = make(*self._words((size + 1) // 2))
        return torch.cat([first, second])[:size].reshape(tuple(shape))

    def uniform(self, shape: Sequence[int], low: Scalar = 0.0, high: Scalar = 1.0) -> Tensor:
        """Return float32 in [low, high), 24 random bits each. The range is applied before the halves are joined: one write."""
        width = high - low
        return self._paired(shape, lambda a, b: (low + width * _unit(a), low + width * _unit(b)))

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Return standard normal float32 by Box and Muller; the largest magnitude is sqrt(48 ln 2) = 5.77."""

        def box_muller(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
            radius = torch.sqrt(-2.0 * torch.log(_unit(a) + 2.0**-24))
            angle = (2.0 * math.pi) * _unit(b)
            return radius * torch.cos(angle), radius * torch.sin(angle)

        return self._paired(shape, box_muller)

    def integers(self, shape: Sequence[int], low: int, high: int) -> Tensor:
        """Return int64 in [low, high). The width must be at most 2**24; the bias is below width / 2**24."""
        if not 0 < high - low <= 2**24:
            raise ValueError(f"integers need low < high and a width of at most 2**24, but got low={low}, high={high}")

        def scaled(word: Tensor) -> Tensor:
            return low + (((word >> 8) & 0xFFFFFF).to(torch.int64) * (high - low) >> 24)

        return self._paired(shape, lambda a, b: (scaled(a), scaled(b)))

    def bernoulli(self, shape: Sequence[int], p: Scalar) -> Tensor:
        """Return bool, true with probability p."""
        return self.uniform(shape) < p
