"""Sequences of pictures, as Madsen and Johansen (ICLR 2020, appendix "Sequential MNIST") cut them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks._digits.errors import DataError

EVALUATION_SEEDS = {"train": 62379872, "validation": 47430696, "test": 88253339}  # published


def sequences(
    labels: NDArray[Any], allowed_digits: Collection[int], length: int, rng: np.random.RandomState
) -> NDArray[np.int64]:
    """Places of pictures, [N // length, length]: no picture stands twice, and each is of an allowed digit.

    The allowed pictures are permuted once, by one draw from `rng`, and cut into consecutive sequences; what is left over
    is not used. Raises ValueError for digits or lengths that make no sense, DataError where there is not even one sequence.
    """
    wrong = sorted(set(allowed_digits) - set(range(10)))
    if wrong or not allowed_digits:
        raise ValueError(f"allowed_digits = {sorted(allowed_digits)} must be digits 0 to 9, at least one")
    if length < 1:
        raise ValueError(f"length = {length} must be at least 1")
    kept = np.flatnonzero(np.isin(labels, sorted(allowed_digits)))
    count = len(kept) // length
    if count == 0:
        raise DataError(
            f"a sequence of {length} needs as many images of the digits {sorted(allowed_digits)}, but there are "
            f"{len(kept)}. Allow more digits, shorten the sequences, or use a larger set"
        )
    result: NDArray[np.int64] = (
        rng.permutation(kept)[: count * length].reshape(count, length).astype(np.int64)
    )
    return result
