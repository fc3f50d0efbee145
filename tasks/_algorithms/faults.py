"""What is wrong with the settings of the task on algorithms, each fault with what to do."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from tasks._algorithms.examples import available
from tasks._algorithms.operations import Operation

LARGEST_BASE, LARGEST_ALPHABET = 100, 100
LEAST = {
    "examples_per_length": 1,
    "copied_percent": 0,
    "test_rows": 1,
    "extrapolation_rows": 1,
}


def alphabet_faults(config: Any) -> Iterator[str]:
    """Faults of what the operation itself is made of."""
    if config.operation in ("add", "multiply") and not 2 <= config.base <= LARGEST_BASE:
        yield (
            f"base = {config.base}: the symbols hold the digits of bases from 2 to {LARGEST_BASE} (digit d is the symbol "
            "d + 1)"
        )
    if not 3 <= config.symbols <= LARGEST_ALPHABET:
        yield (
            f"symbols = {config.symbols} must be from 3 to {LARGEST_ALPHABET}: padding, and at least two that can be told apart"
        )


def cautions(config: Any, shared: int | None) -> Iterator[str]:
    """What is odd about settings that are allowed. `shared`: the tests' length, where all its examples are trained on."""
    digits = ("add", "multiply")
    used = {
        "base": (config.operation in digits, "of add and multiply"),
        "high_zeros": (config.operation in digits, "of add and multiply"),
        "symbols": (
            config.operation not in (*digits, "bcd_multiply"),
            "of operations other than add, multiply, bcd_multiply",
        ),
    }
    for name, (is_used, whose) in used.items():
        if not is_used and getattr(config, name) != getattr(type(config), name):
            yield f"{name} = {getattr(config, name)} changes nothing: it is a setting {whose}, not of {config.operation}"
    if shared is not None:
        yield (
            f"every example of length {shared} is trained on, so the extrapolation split repeats them: make test_length longer "
            f"than {config.test_length}, or examples_per_length smaller than {config.examples_per_length}"
        )


def number_faults(config: Any) -> Iterator[str]:
    for name, least in LEAST.items():
        if getattr(config, name) < least:
            yield f"{name} = {getattr(config, name)} must be at least {least}"
    if not 0 < config.bound <= 1:
        yield f"bound = {config.bound} must lie in (0, 1]: it is a share of sequences, or of symbols"
    first, last = config.curve_rows
    if not first >= last >= 1:
        yield f"curve_rows = {[first, last]} must be at least 1, the second no more than the first"


def length_faults(config: Any, op: Operation, bins: tuple[int, ...], countable: bool = True) -> Iterator[str]:
    """Lengths that an operation does not have, and examples that a length does not have, where these can be counted."""
    told = f"operation {op.name} needs at least {op.least}"
    bad = [n for n in bins if n < op.least]
    if bad:
        yield f"bins = {list(bins)}: {told}, so {', '.join(map(str, bad))} {'is' if len(bad) == 1 else 'are'} too short"
    elif len(set(bins)) < len(bins):
        yield f"bins = {list(bins)} must be different lengths"
    else:
        yield from _empty_bins(op, bins)
        if countable:
            yield from _few_tests(config, op, bins)
    if config.test_length < op.least:
        yield f"test_length = {config.test_length}: {told}"
    short = [n for n in config.curve_lengths if n < op.least]
    if short:
        listed = f"curve_lengths = {list(config.curve_lengths)}"
        yield f"{listed}: {told}, so {', '.join(map(str, short))} {'is' if len(short) == 1 else 'are'} too short"
    if len(set(config.curve_lengths)) < len(config.curve_lengths):
        yield f"curve_lengths = {list(config.curve_lengths)} must be different"


def _empty_bins(op: Operation, bins: tuple[int, ...]) -> Iterator[str]:
    for below, n in pairwise(bins):
        if not op.lengths(below, n):
            after = next(length for length in range(n, n + n + op.least) if op.longest(length) > below)
            yield (
                f"bins = {list(bins)}: operation {op.name} has no length above {below} up to {n}: leave {n} out, or make "
                f"it {after}"
            )


def _few_tests(config: Any, op: Operation, bins: tuple[int, ...]) -> Iterator[str]:
    """Tests have different examples, none of which is trained on (where training does not take them all)."""
    most = config.examples_per_length
    if most < 1:
        return
    lengths = op.lengths(0, bins[-1])
    there = sum(available(op, length, most) for length in lengths)
    if config.test_rows > there:
        yield (
            f"test_rows = {config.test_rows} different examples are asked for, but lengths {lengths[0]} to {lengths[-1]} of "
            f"{op.name} have {there} for tests: ask for fewer, or make examples_per_length smaller or the bins longer"
        )
    elif config.test_rows < len(lengths):
        yield f"test_rows = {config.test_rows} must be at least {len(lengths)}: one for each length"
    length = op.longest(config.test_length)
    if not length:
        return
    there = available(op, length, most if length <= bins[-1] else 0)
    if config.extrapolation_rows > there:
        yield (
            f"extrapolation_rows = {config.extrapolation_rows} different examples of test_length = {config.test_length} are "
            f"asked for, but {op.name} has {there} for tests there: ask for fewer, or make test_length longer"
        )
