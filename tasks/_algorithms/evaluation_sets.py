"""Inputs of the tests: equal for all seeds, and none of them trained on where a length has more examples than training takes.

Legend of suffixes: N rows, n positions.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tasks._algorithms.examples import available, padded, untrained
from tasks._algorithms.operations import Operation

Inputs = NDArray[np.int64]


@lru_cache(maxsize=8)
def of_bins(op: Operation, bins: tuple[int, ...], rows: int, most: int) -> tuple[Inputs, ...]:
    """Input symbols [N, n], one array a bin; in all `rows` different examples, spread evenly over the lengths.

    Where a length has fewer, the longer ones have the more.
    """
    lengths = op.lengths(0, bins[-1])
    wanted = dict(zip(lengths, _spread(rows, [available(op, n, most) for n in lengths]), strict=True))
    return tuple(
        np.concatenate([_inputs(op, length, wanted[length], most, n) for length in op.lengths(below, n)])
        for below, n in zip((0, *bins), bins, strict=False)
    )


@lru_cache(maxsize=8)
def of_length(op: Operation, positions: int, rows: int, most: int) -> Inputs:
    """Input symbols [N, n] of the longest length that n positions have room for; `most` is 0 if none is trained on."""
    return _inputs(op, op.longest(positions), rows, most, positions)


def _inputs(op: Operation, length: int, rows: int, most: int, positions: int) -> Inputs:
    x_Nn, _ = padded(op, untrained(op, length, rows, most), positions)
    return x_Nn.astype(np.int64)


def _spread(rows: int, there: list[int]) -> list[int]:
    """Equal shares of the rows, none above what is there."""
    shares = [0] * len(there)
    by_size = sorted(range(len(there)), key=lambda i: there[i])
    for done, i in enumerate(by_size):
        shares[i] = min(there[i], (rows - sum(shares)) // (len(there) - done))
    return shares
