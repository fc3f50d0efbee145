"""Examples that are all different: the tables of training examples, one a bin, and the inputs of the tests.

Tests are equal for all seeds, and contain no trained example unless training uses all examples of a length.

Legend of suffixes: N examples or rows, F free digits, n positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks._algorithms.operations import PAD, Operation, Symbols

Free = NDArray[np.uint8]
Table = NDArray[np.int8]
OUTSIDE = -1
TRAINING_SEED, TEST_SEED, COPY_SEED = 125459, 8689336, 43953907
"""The seed of the Neural GPU's trainer, and the two of the published evaluation inputs of tasks on numbers; each is used
together with the length."""


def training_count(op: Operation, length: int, most: int) -> int:
    """Return the number of training examples of a length."""
    return min(most, op.space(length))


def training(op: Operation, length: int, most: int) -> Free:
    """Return the training examples of a length, as free digits [N, F]."""
    return different(op, length, training_count(op, length, most), TRAINING_SEED)


def is_shared(op: Operation, length: int, most: int) -> bool:
    """Return whether training uses every example of a length, so that its tests repeat trained examples."""
    return op.space(length) <= most


def untrained(op: Operation, length: int, count: int, most: int) -> Free:
    """Return up to `count` test examples of a length; none is trained on, unless all are. `most` is 0 beyond training."""
    taken = None
    if most and not is_shared(op, length, most):
        taken = training(op, length, most)
    return different(op, length, min(count, available(op, length, most)), TEST_SEED, taken)


def available(op: Operation, length: int, most: int) -> int:
    """Return the number of different test examples of a length."""
    space = op.space(length)
    return space if space <= most else space - most


def different(op: Operation, length: int, count: int, seed: int, without: Free | None = None) -> Free:
    """Return `count` different examples, none of them among `without`. The same call gives the same examples."""
    rng = np.random.RandomState([seed, length])
    space, free = op.space(length), op.free(length)
    taken = _codes(without, op.radix) if without is not None else np.zeros(0, np.uint64)
    if space <= 4 * (count + len(taken)):
        codes = rng.permutation(space).astype(np.uint64)
        codes = codes[~np.isin(codes, taken)][:count, np.newaxis]
        return (codes // _powers(op.radix, free) % np.uint64(op.radix)).astype(np.uint8)
    found = np.zeros((0, free), np.uint8)
    while len(found) < count:
        drawn = rng.randint(0, op.radix, (count + count // 4 + 8, free), dtype=np.uint8)
        found = np.concatenate([found, drawn])
        codes = _codes(found, op.radix)
        first = np.sort(np.unique(codes, return_index=True)[1])
        found = found[first[~np.isin(codes[first], taken)]] if len(taken) else found[first]
    return found[:count]


def _powers(radix: int, free: int) -> NDArray[np.uint64]:
    return np.array([pow(radix, i, 2**64) for i in range(free)], np.uint64)


def _codes(free_NF: Free, radix: int) -> NDArray[np.uint64]:
    """Return the number that the digits represent, modulo 2^64: examples with different codes are different.

    Two long examples that differ may have the same code; the second is then left out, which is harmless.
    """
    codes = np.zeros(len(free_NF), np.uint64)
    for digits, power in zip(free_NF.T, _powers(radix, free_NF.shape[1]), strict=True):
        if power:
            codes += digits * power
    return codes


def padded(op: Operation, free_NF: Free, positions: int) -> tuple[Table, Table]:
    """Return input and target symbols [N, n] of examples. Where both are padding the input is OUTSIDE."""
    symbols = op.written(free_NF)
    x, y = (np.full((len(free_NF), positions), PAD, np.int8) for _ in range(2))
    for table, written in zip((x, y), symbols, strict=True):
        table[:, : written.shape[1]] = written
    x[(x == PAD) & (y == PAD)] = OUTSIDE
    return x, y


@lru_cache(maxsize=4)
def tables(op: Operation, bins: tuple[int, ...], most: int, copied_percent: int) -> dict[str, NDArray[Any]]:
    """Return `x_n`, `y_n` int8 [N, n] for every bin n, by length; rows of length l begin at first_n[l] and are count_n[l].

    A length without examples in the bin has those of the next shorter one, or else of the shortest. first_n, count_n int64
    [n + 1].
    """
    made: dict[str, NDArray[Any]] = {}
    own: list[list[tuple[int, Free]]] = []
    for below, n in zip((0, *bins), bins, strict=False):
        examples = [(length, training(op, length, most)) for length in op.lengths(below, n)]
        copies = _copies(own, sum(len(f) for _, f in examples) * copied_percent // 100, n)
        own.append(examples)
        rows = [(length, padded(op, free, n)) for length, free in [*copies, *examples]]
        made[f"x_{n}"], made[f"y_{n}"] = (np.concatenate([pair[i] for _, pair in rows]) for i in (0, 1))
        made[f"first_{n}"], made[f"count_{n}"] = _row_ranges([(length, len(x)) for length, (x, _) in rows], n)
    return made


def _copies(shorter: Sequence[list[tuple[int, Free]]], count: int, n: int) -> list[tuple[int, Free]]:
    """Return `count` examples of shorter bins, by length. The bin of each is drawn first."""
    if not shorter or not count:
        return []
    rng = np.random.RandomState([COPY_SEED, n])
    drawn = np.bincount(rng.randint(0, len(shorter), count), minlength=len(shorter))
    copies = []
    for examples, wanted in zip(shorter, drawn, strict=True):
        ends = np.cumsum([len(free) for _, free in examples])
        rows = rng.randint(0, ends[-1], wanted)
        for (length, free), end in zip(examples, ends, strict=True):
            of_length = rows[(rows < end) & (rows >= end - len(free))] - (end - len(free))
            if len(of_length):
                copies.append((length, free[of_length]))
    return copies


def _row_ranges(counts: Sequence[tuple[int, int]], n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first row of each length 0 ... n, and the number of its rows."""
    lengths = np.array([length for length, _ in counts])
    count = np.array([rows for _, rows in counts])
    used = np.maximum(np.searchsorted(lengths, np.arange(n + 1), side="right") - 1, 0)
    return (np.cumsum(count) - count)[used], count[used]


@lru_cache(maxsize=8)
def inputs_of_bins(op: Operation, bins: tuple[int, ...], rows: int, most: int) -> tuple[Symbols, ...]:
    """Return input symbols [N, n], one array a bin: in total `rows` different examples, spread evenly over the lengths.

    Where a length has too few, longer lengths have more.
    """
    lengths = op.lengths(0, bins[-1])
    wanted = dict(zip(lengths, _shares(rows, [available(op, n, most) for n in lengths]), strict=True))
    return tuple(
        np.concatenate([_inputs(op, length, wanted[length], most, n) for length in op.lengths(below, n)])
        for below, n in zip((0, *bins), bins, strict=False)
    )


@lru_cache(maxsize=8)
def inputs_of_length(op: Operation, positions: int, rows: int, most: int) -> Symbols:
    """Return input symbols [N, n] of the longest length that fits into n positions; `most` is 0 if none is trained on."""
    return _inputs(op, op.longest(positions), rows, most, positions)


def _inputs(op: Operation, length: int, rows: int, most: int, positions: int) -> Symbols:
    x_Nn, _ = padded(op, untrained(op, length, rows, most), positions)
    return x_Nn.astype(np.int64)


def _shares(rows: int, available_rows: list[int]) -> list[int]:
    """Return equal shares of the rows, none above the rows that are available."""
    shares = [0] * len(available_rows)
    by_size = sorted(range(len(available_rows)), key=lambda i: available_rows[i])
    for done, i in enumerate(by_size):
        shares[i] = min(available_rows[i], (rows - sum(shares)) // (len(available_rows) - done))
    return shares
