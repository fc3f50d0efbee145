"""Threefry-2x32 with 13 rounds, as one tensor operation that the compiler can lower in one piece.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011); 13 rounds is the least that
they found to pass every test of BigCrush. Its published known answers are in tests/training/test_random.py.

Why one operation: written as ninety separate ones, the compiler takes half a minute for it, or writes intermediate
results to memory (docs/benchmarks.md). Philox needs a 32 x 32 -> 64 bit product, which AVX2 has no vector form of that
the compiler would use: 5.8 ns a number against 1.6. How the compiler writes it stands in threefry_kernel.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
PARITY = 0x1BD11BDA
ROUNDS = 13

Pair = tuple[Any, Any]


def rounds_of(
    x: Pair, key: Pair, count: int, rotate: Callable[[Any, int], Any], wrapped: Callable[[Any], Any]
) -> Pair:
    """The cipher for anything that adds and xors like 32-bit words: ints, int32 tensors, the compiler's values."""
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
    """Two 32-bit words from a 64-bit key and a 64-bit counter, all ints in [0, 2**32)."""

    def wrapped(word: int) -> int:
        return word & 0xFFFFFFFF

    return rounds_of(counter, key, rounds, lambda w, r: wrapped(w << r) | (w >> (32 - r)), wrapped)


def rotated(word: Any, bits: int) -> Any:
    """Rotation to the left. The mask makes the arithmetic right shift of a signed word a logical one."""
    return (word << bits) | ((word >> (32 - bits)) & ((1 << bits) - 1))


@torch.library.custom_op("sweeps::threefry2x32", mutates_args=())
def threefry2x32(key0: Tensor, key1: Tensor, counter0: Tensor, counter1: Tensor) -> tuple[Tensor, Tensor]:
    """Two words from int32 tensors of shapes that broadcast; int32 arithmetic wraps, which is what is wanted."""
    x0, x1 = rounds_of((counter0, counter1), (key0, key1), ROUNDS, rotated, lambda w: w)
    shape = torch.broadcast_shapes(x0.shape, x1.shape)
    return x0.expand(shape).contiguous(), x1.expand(shape).contiguous()


@threefry2x32.register_fake
def _(key0: Tensor, key1: Tensor, counter0: Tensor, counter1: Tensor) -> tuple[Tensor, Tensor]:
    shape = torch.broadcast_shapes(key0.shape, key1.shape, counter0.shape, counter1.shape)
    return counter0.new_empty(shape), counter0.new_empty(shape)


@threefry2x32.register_vmap
def _(
    info: Any, in_dims: tuple[int | None, ...], *words: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    """Elementwise: bring every batch axis to the front and pad the rest to one rank."""
    rank = max(w.dim() - (d is not None) for w, d in zip(words, in_dims, strict=True))
    aligned = []
    for word, dim in zip(words, in_dims, strict=True):
        if dim is not None:
            word = word.movedim(dim, 0)
            word = word.reshape(word.shape[0], *(1,) * (rank + 1 - word.dim()), *word.shape[1:])
        aligned.append(word)
    return threefry2x32(*aligned), (0, 0)
