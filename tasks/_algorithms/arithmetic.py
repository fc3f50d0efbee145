"""Arithmetic on many little-endian numbers at once, digit by digit. All arrays are int64 [N numbers, D digits]."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Digits = NDArray[np.int64]


def carried(values_ND: Digits, base: int) -> Digits:
    """The digits of numbers whose places hold more than a digit; what overflows the last place is lost."""
    places_DN = np.ascontiguousarray(values_ND.T)
    carry = np.zeros_like(places_DN[0])
    for place in places_DN:
        place += carry
        np.floor_divide(place, base, out=carry)
        place -= carry * base
    return places_DN.T


def added(a_NK: Digits, b_NK: Digits, base: int) -> Digits:
    """The K + 1 digits of a + b."""
    return carried(np.pad(a_NK + b_NK, ((0, 0), (0, 1))), base)


def multiplied(a_NK: Digits, b_NK: Digits, base: int) -> Digits:
    """The 2 K digits of a b, as it is done by hand: shifted multiples of b, added up."""
    N, K = a_NK.shape
    sums_DN = np.zeros((2 * K, N), np.int64)
    a_KN, b_KN = np.ascontiguousarray(a_NK.T), np.ascontiguousarray(b_NK.T)
    for i, a_N in enumerate(a_KN):
        sums_DN[i : i + K] += a_N * b_KN
    return carried(sums_DN.T, base)


def incremented(a_NK: Digits, base: int) -> Digits:
    """The K digits of a + 1; the largest number becomes 0."""
    plus = a_NK.copy()
    plus[:, 0] += 1
    return carried(plus, base)
