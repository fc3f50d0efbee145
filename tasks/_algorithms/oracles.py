"""The oracles: the target of a row of input symbols by Python's integers and lists. They share no code with the examples.

A row is parsed up to the end of its working space: numbers on both sides of the sign, pairs, or a block. -1 lies outside
of the working space.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Alphabet:
    """The notation of numbers: little-endian, the digit d as the symbol d + 1, `sign` between two numbers."""

    base: int
    sign: int
    zeros_kept: bool
    """Whether results have zeros up to the length of the input; else they have no leading zeros."""


def target(operation: str, alphabet: Alphabet, row: list[int]) -> list[int]:
    """Return the target symbols of an input row, one for each position; padding is 0."""
    inside = [symbol for symbol in row if symbol != -1]
    if operation in _ARITHMETIC:
        result = _ARITHMETIC[operation](alphabet, inside)
    else:
        result = _SEQUENCES[operation](inside)
    return result + [0] * (len(row) - len(result))


def _add(alphabet: Alphabet, row: list[int]) -> list[int]:
    a, b = _numbers(alphabet, row)
    return _written(alphabet, a + b, len(row))


def _multiply(alphabet: Alphabet, row: list[int]) -> list[int]:
    a, b = _numbers(alphabet, row)
    return _written(alphabet, a * b, len(row))


def _numbers(alphabet: Alphabet, row: list[int]) -> tuple[int, int]:
    at = row.index(alphabet.sign)
    a, b = ([symbol - 1 for symbol in part] for part in (row[:at], row[at + 1 :]))
    if len(a) != len(b) or any(not 0 <= digit < alphabet.base for digit in a + b):
        raise ValueError(f"{row} is not two numbers of equally many digits in base {alphabet.base}")
    return _value(a, alphabet.base), _value(b, alphabet.base)


def _value(digits: list[int], base: int) -> int:
    """Return the number of little-endian digits. (Python's int(text, base) refuses more than 4,300 digits.)"""
    if len(digits) <= 32:
        return sum(digit * base**place for place, digit in enumerate(digits))
    half = len(digits) // 2
    return _value(digits[:half], base) + base**half * _value(digits[half:], base)


def _digits(number: int, base: int) -> list[int]:
    found = []
    while number:
        number, digit = divmod(number, base)
        found.append(digit)
    return found or [0]


def _written(alphabet: Alphabet, number: int, length: int) -> list[int]:
    digits = _digits(number, alphabet.base)
    if alphabet.zeros_kept:
        digits += [0] * (length - len(digits))
    return [digit + 1 for digit in digits]


def _bcd_multiply(alphabet: Alphabet, row: list[int]) -> list[int]:
    """Multiply decimal numbers of four bits a digit, lowest bit first; the symbol of a digit's last bit is 2 higher."""
    at = row.index(alphabet.sign)
    a, b = (_value(_bcd_digits(part), 10) for part in (row[:at], row[at + 1 :]))
    digits = _digits(a * b, 10)
    digits += [0] * (2 * at // 4 - len(digits))
    written = []
    for digit in digits:
        eights, fours, twos, ones = (int(bit) for bit in format(digit, "04b"))
        written += [ones + 1, twos + 1, fours + 1, eights + 3]
    return written


def _bcd_digits(symbols: list[int]) -> list[int]:
    ends = [place for place, symbol in enumerate(symbols) if symbol > 2]
    if ends != list(range(3, len(symbols), 4)):
        raise ValueError(f"{symbols} are not digits of four bits")
    weights = {1: 0, 2: 1, 3: 0, 4: 1}
    return [sum(weights[symbols[end - 3 + bit]] << bit for bit in range(4)) for end in ends]


def _increment(alphabet: Alphabet, row: list[int]) -> list[int]:
    """Increment a number without a sign; the largest becomes 0."""
    number = _value([symbol - 1 for symbol in row], alphabet.base) + 1
    digits = _digits(number % alphabet.base ** len(row), alphabet.base)
    return [digit + 1 for digit in digits] + [1] * (len(row) - len(digits))


def _couples(row: list[int]) -> list[tuple[int, int]]:
    return list(zip(row[::2], row[1::2], strict=True))


def _joined(couples: list[tuple[int, int]]) -> list[int]:
    return [symbol for couple in couples for symbol in couple]


def _duplicate(row: list[int]) -> list[int]:
    return [symbol for symbol in row if symbol] * 2


def _search(row: list[int]) -> list[int]:
    *couples, query = row
    return [next((value for key, value in _couples(couples) if key == query), 0)]


_ARITHMETIC: dict[str, Callable[[Alphabet, list[int]], list[int]]] = {
    "add": _add,
    "multiply": _multiply,
    "bcd_multiply": _bcd_multiply,
    "increment": _increment,
}
_SEQUENCES: dict[str, Callable[[list[int]], list[int]]] = {
    "copy": list,
    "reverse": lambda row: list(reversed(row)),
    "reverse_pairs": lambda row: _joined(list(reversed(_couples(row)))),
    "sort": sorted,
    "key_value_sort": lambda row: _joined(sorted(_couples(row), key=lambda couple: couple[0])),
    "duplicate": _duplicate,
    "left": lambda row: row[:1],
    "right": lambda row: row[-1:],
    "left_shift": lambda row: [*row[1:], row[0]],
    "right_shift": lambda row: [row[-1], *row[:-1]],
    "search": _search,
}
