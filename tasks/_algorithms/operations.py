"""The operations: the lengths of their examples, and the input and target of a row of free digits.

An example of length l has l input symbols. Its content is a row of free digits, each from 0 to radix - 1, so the number of
different examples of a length is radix to the power of the free digits.

Legend of suffixes: N examples, F free digits, K digits of a number, L symbols.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Digits = NDArray[np.int64]
"""int64 [N numbers, K digits], the lowest digit first."""
Symbols = NDArray[np.int64]
Pair = tuple[Symbols, Symbols]
PAD = 0
MOST_DIGITS = 10
"""Largest base of the published alphabet: 13 symbols, of which 11 is '+' and 12 is '*'."""


@dataclass(frozen=True)
class Operation:
    """One operation on one alphabet: the lengths step j + rest for j = 1, 2, ..., and how its examples are written."""

    name: str
    radix: int
    """Number of values of a free digit."""
    num_inputs: int
    num_outputs: int
    keep_zeros: bool
    """Whether a result is padded with zero digits to the length of the input."""

    @property
    def least(self) -> int:
        """The shortest length."""
        return sum(_FORMS[self.name][:2])

    def longest(self, limit: int) -> int:
        """Return the largest length up to `limit`; 0 if there is none."""
        step, rest, _, _ = _FORMS[self.name]
        return (limit - rest) // step * step + rest if limit >= self.least else 0

    def lengths(self, above: int, limit: int) -> list[int]:
        """Return the lengths in (above, limit]."""
        step = _FORMS[self.name][0]
        return [n for n in range(self.least, limit + 1, step) if n > above]

    def free(self, length: int) -> int:
        """Return the number of free digits of an example."""
        return _FORMS[self.name][2](length)

    def space(self, length: int) -> int:
        """Return the number of different examples of a length."""
        return self.radix ** self.free(length)

    def written(self, free_NF: NDArray[Any]) -> Pair:
        """Return input symbols [N, L] and target symbols [N, up to L] of examples that are given by their free digits."""
        return _FORMS[self.name][3](self, free_NF.astype(np.int64))


def operation(name: str, base: int, symbols: int, keep_zeros: bool) -> Operation:
    """Return the operation of a name; it uses those of the other settings that apply to it."""
    if name in ("add", "multiply"):
        return Operation(name, base, max(base, MOST_DIGITS) + 3, base + 1, keep_zeros)
    if name == "bcd_multiply":
        return Operation(name, 10, MOST_DIGITS + 3, 5, True)
    return Operation(name, symbols - 1, symbols, symbols, False)


def sign(op: Operation) -> int:
    """Return the symbol between two numbers: '+' and '*' follow the digits directly."""
    return op.num_inputs - (2 if op.name == "add" else 1)


def _carried(values_ND: Digits, base: int) -> Digits:
    """Return the digits after all carries; a carry out of the last digit is lost."""
    digits_DN = np.ascontiguousarray(values_ND.T)
    carry = np.zeros_like(digits_DN[0])
    for digit in digits_DN:
        digit += carry
        np.floor_divide(digit, base, out=carry)
        digit -= carry * base
    return digits_DN.T


def _added(a_NK: Digits, b_NK: Digits, base: int) -> Digits:
    """Return the K + 1 digits of a + b."""
    return _carried(np.pad(a_NK + b_NK, ((0, 0), (0, 1))), base)


def _multiplied(a_NK: Digits, b_NK: Digits, base: int) -> Digits:
    """Return the 2 K digits of a b by long multiplication: shifted multiples of b, added up."""
    N, K = a_NK.shape
    sums_DN = np.zeros((2 * K, N), np.int64)
    a_KN, b_KN = np.ascontiguousarray(a_NK.T), np.ascontiguousarray(b_NK.T)
    for i, a_N in enumerate(a_KN):
        sums_DN[i : i + K] += a_N * b_KN
    return _carried(sums_DN.T, base)


def _incremented(a_NK: Digits, base: int) -> Digits:
    """Return the K digits of a + 1; the largest number becomes 0."""
    plus = a_NK.copy()
    plus[:, 0] += 1
    return _carried(plus, base)


def _two_numbers(combine: Callable[[Digits, Digits, int], Digits]) -> Callable[[Operation, Digits], Pair]:
    def written(op: Operation, free_NF: Digits) -> Pair:
        a_NK, b_NK = np.split(free_NF, 2, axis=1)
        between = np.full((len(a_NK), 1), sign(op))
        result = combine(a_NK, b_NK, op.radix)
        return np.hstack([a_NK + 1, between, b_NK + 1]), _number(op, result, free_NF.shape[1] + 1)

    return written


def _number(op: Operation, digits: Digits, length: int) -> Symbols:
    """Return a result as symbols: with zeros up to `length`, or without leading zeros."""
    if op.keep_zeros:
        return np.pad(digits, ((0, 0), (0, length - digits.shape[1]))) + 1
    counts = np.maximum.accumulate((digits != 0)[:, ::-1], axis=1)[:, ::-1]
    counts[:, 0] = True
    return np.where(counts, digits + 1, PAD)


def _bcd_multiply(op: Operation, free_NF: Digits) -> Pair:
    a_NK, b_NK = np.split(free_NF, 2, axis=1)
    between = np.full((len(a_NK), 1), sign(op))
    return np.hstack([_nibbles(a_NK), between, _nibbles(b_NK)]), _nibbles(_multiplied(a_NK, b_NK, op.radix))


def _nibbles(digits_NK: Digits) -> Symbols:
    """Return four symbols a digit, lowest bit first: 1 and 2 are the bits 0 and 1; 3 and 4 the same for the highest bit."""
    bits = digits_NK[:, :, np.newaxis] >> np.arange(4) & 1
    return (bits + np.array([1, 1, 1, 3])).reshape(len(digits_NK), -1)


def _pairs(sequence_NL: Symbols) -> Symbols:
    return sequence_NL.reshape(len(sequence_NL), -1, 2)


def _reverse_pairs(op: Operation, free_NF: Digits) -> Pair:
    return free_NF + 1, _pairs(free_NF + 1)[:, ::-1].reshape(free_NF.shape)


def _key_value_sort(op: Operation, free_NF: Digits) -> Pair:
    pairs = _pairs(free_NF + 1)
    order = np.argsort(pairs[:, :, 0], axis=1, kind="stable")[:, :, np.newaxis]
    return free_NF + 1, np.take_along_axis(pairs, order, axis=1).reshape(free_NF.shape)


def _duplicate(op: Operation, free_NF: Digits) -> Pair:
    block = free_NF + 1
    return np.hstack([block, np.full_like(block, PAD)]), np.hstack([block, block])


def _search(op: Operation, free_NF: Digits) -> Pair:
    x_NL = free_NF + 1
    pairs, query = _pairs(x_NL[:, :-1]), x_NL[:, -1:]
    found = pairs[:, :, 0] == query
    value = np.take_along_axis(pairs[:, :, 1], found.argmax(axis=1)[:, np.newaxis], axis=1)
    return x_NL, np.where(found.any(axis=1, keepdims=True), value, PAD)


def _sequence(change: Callable[[Symbols], Symbols]) -> Callable[[Operation, Digits], Pair]:
    return lambda op, free_NF: (free_NF + 1, change(free_NF + 1))


def _all(length: int) -> int:
    return length


_FORMS: dict[str, tuple[int, int, Callable[[int], int], Callable[[Operation, Digits], Pair]]] = {
    # name: step, rest, free digits of a length, function that writes examples
    "add": (2, 1, lambda length: length - 1, _two_numbers(_added)),
    "multiply": (2, 1, lambda length: length - 1, _two_numbers(_multiplied)),
    "bcd_multiply": (8, 1, lambda length: (length - 1) // 4, _bcd_multiply),
    "copy": (1, 0, _all, _sequence(lambda x_NL: x_NL)),
    "reverse": (1, 0, _all, _sequence(lambda x_NL: x_NL[:, ::-1])),
    "reverse_pairs": (2, 0, _all, _reverse_pairs),
    "sort": (1, 0, _all, _sequence(lambda x_NL: np.sort(x_NL, axis=1))),
    "key_value_sort": (2, 0, _all, _key_value_sort),
    "duplicate": (2, 0, lambda length: length // 2, _duplicate),
    "increment": (1, 0, _all, lambda op, free: (free + 1, _incremented(free, op.radix) + 1)),
    "left": (1, 0, _all, _sequence(lambda x_NL: x_NL[:, :1])),
    "right": (1, 0, _all, _sequence(lambda x_NL: x_NL[:, -1:])),
    "left_shift": (1, 0, _all, _sequence(lambda x_NL: np.roll(x_NL, -1, axis=1))),
    "right_shift": (1, 0, _all, _sequence(lambda x_NL: np.roll(x_NL, 1, axis=1))),
    "search": (2, 1, _all, _search),
}
