"""The task on algorithms.

Kaiser and Sutskever, "Neural GPUs Learn Algorithms" (ICLR 2016), and Freivalds and Liepins, "Improving the Neural GPU
Architecture for Algorithm Learning" (2017): their tasks as their programs draw them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tasks._algorithms import oracles
from tasks._algorithms.examples import (
    available,
    inputs_of_bins,
    inputs_of_length,
    is_shared,
    tables,
)
from tasks._algorithms.operations import MOST_DIGITS, Operation, operation, sign
from tasks.base import Arrays, Stream, Task

Symbols = tuple[NDArray[np.int64], ...]
Batch = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]

PUBLISHED_BINS = (8, 12, 16, 20, 25, 28, 31, 36, 41)
PUBLISHED_BCD_BINS = (9, 17, 25, 33, 41)
BITS = 24
"""Bits of the integers that are drawn: the most that a stream can draw."""

LARGEST_BASE, LARGEST_ALPHABET = 100, 100
LEAST = {"examples_per_length": 1, "copied_percent": 0, "test_rows": 1, "extrapolation_rows": 1}


class Algorithm(Task):
    """Algorithms on sequences of symbols: arithmetic on long numbers, and sorting, copying, shifting and searching.

    The target is an operation of the input symbols. Symbol 0 is padding, the digit d is d + 1, numbers are little-endian.

    An example of length l has l input symbols; the target is at the first positions, then padding:
        add: x '+' y -> x + y, numbers of (l - 1) / 2 digits in `base`; l is odd
        multiply: x '*' y -> x y, likewise
        bcd_multiply: decimal x '*' y -> x y, each digit four bits, lowest first, the last bit's symbol being 3 or 4 in place
            of 1 or 2; numbers of (l - 1) / 8 digits, the product of twice as many
        copy, reverse, sort: the same symbols, from the last to the first, in ascending order
        reverse_pairs, key_value_sort: of l / 2 pairs, the last pair first, or by the pairs' first symbols (equal ones stay in
            order)
        duplicate: l / 2 symbols and as many of padding -> the symbols twice
        increment: a number in base `symbols` - 1, without a sign -> the next number; after the largest comes 0
        left, right: one symbol, the first or the last
        left_shift, right_shift: every symbol moves by one position, the last one to the other end
        search: (l - 1) / 2 pairs of key and value, then a key -> the value of its first pair, or padding if there is none

    Two examples worked by hand, of length 7 in base 2:
        multiply: 6 * 5 = 30: 0 1 1 * 1 0 1 -> 0 1 1 1 1 0 0, in symbols 1 2 2 12 2 1 2 -> 1 2 2 2 2 1 1
        add: 6 + 5 = 11: 1 2 2 11 2 1 2 -> 1 1 0 1, in symbols 2 2 1 2 0 0 0
    And 3 1 2 1 sorted is 1 1 2 3; key_value_sort turns the pairs 3 1, 2 1 into 2 1, 3 1.

    Bases up to 10 share the published alphabet of 13 symbols, where 11 is '+' and 12 is '*'; in larger bases these are
    base + 1 and base + 2. All inputs are [rows, n], one array for every bin n; an input of -1 lies outside of the working
    space, where input and target are both padding.

    Training has up to `examples_per_length` different examples for every length of the operation up to the largest bin, fixed
    and equal for all seeds (NumPy's RandomState([125459, length]), 125459 being the Neural GPU's own seed); a length goes
    into the next larger bin. Splits: "interpolation" has test examples of the training lengths, "extrapolation" of
    `test_length` (or the nearest length below that the operation has), both from RandomState([8689336, length]). No test
    example is trained on, except at lengths where training uses every example: `shared_lengths` returns these (in binary
    addition, which has 4 examples of length 3, those up to 13).

    Deviations: the seeds of the examples are ours, and tests leave out trained examples. Even lengths of add and multiply,
    and odd ones of pairs, have no examples (published, they are shorter ones under another name, or missing). search has as
    many pairs as fit into its length, where the original, by the precedence of - and /, has about twice as many. The
    published left-shift moves symbols to the right, and its right-shift reads past the end. `loss_over: unpadded` leaves out
    every position whose target is padding; the Neural GPU's mask leaves out those where the input is padding too.
    """

    version = 1
    network = "dngpu"
    reads_symbols = True
    splits = ("interpolation", "extrapolation")
    score_names = (
        "symbol_error", "sequence_error", "symbol_error_with_padding", "sequence_error_with_padding", "loss",
    )  # fmt: skip
    evaluation_only = ("bound", "curve_lengths", "curve_rows")
    small: ClassVar[dict[str, Any]] = {
        "bins": (9, 17), "examples_per_length": 200, "test_rows": 32, "test_length": 25, "extrapolation_rows": 8,
        "curve_lengths": (9,),
    }  # fmt: skip

    @dataclass(frozen=True, kw_only=True)
    class Config:
        operation: Literal[
            "add", "multiply", "bcd_multiply", "copy", "reverse", "reverse_pairs", "sort", "key_value_sort", "duplicate",
            "increment", "left", "right", "left_shift", "right_shift", "search",
        ] = "multiply"  # fmt: skip
        """the operation that maps the input to the target"""
        base: int = 2
        """base of add and multiply: 2 to 100"""
        symbols: int = 6
        """size of the alphabet of the other operations but bcd_multiply, padding included (published: 6 for sort)"""
        high_zeros: Literal["published", "kept", "stripped"] = "published"
        """whether a result of add or multiply has zeros up to the input's length; published: kept in multiply (as in DNGPU),
        stripped in add"""
        bins: tuple[int, ...] = ()
        """positions of the training batches; empty: the published 8, 12, 16, 20, 25, 28, 31, 36, 41, or for bcd_multiply
        9, 17, 25, 33, 41"""
        examples_per_length: int = 10_000
        """most training examples of a length"""
        copied_percent: int = 5
        """additional examples of a bin, from shorter bins, in percent of the bin's own"""
        test_rows: int = 1024
        """examples of the interpolation split, spread over all training lengths"""
        test_length: int = 401
        """positions of the extrapolation split"""
        extrapolation_rows: int = 32
        """examples of the extrapolation split"""
        curve_lengths: tuple[int, ...] = (9, 12, 16, 21, 28, 37, 49, 65, 86, 114, 152, 202, 269, 358, 401)
        """lengths at which a finished lane is tested; published: from 7 by a factor of 4/3 up to 4001"""
        curve_rows: tuple[int, int] = (1024, 16)
        """examples at each of `curve_lengths`: the first number up to the largest bin, then fewer in inverse proportion to the
        square of the length (equal work), at least the second number; never more than exist"""
        judged_by: Literal["sequence_error", "symbol_error"] = "sequence_error"
        """the error of a lane: the share of sequences with a wrong symbol, or of wrong symbols"""
        padding_counts: bool = True
        """whether the error counts wrong symbols where the target is padding, as in DNGPU and not in the Neural GPU"""
        bound: float = 0.01
        """a lane is solved by an extrapolation error below this"""
        loss_over: Literal["all", "unpadded"] = "all"
        """positions whose cross-entropy is averaged: all, as in DNGPU, or those whose target is no padding"""

        def __post_init__(self) -> None:
            found = list(_alphabet_faults(self))
            # The lengths of examples depend on the operation alone, their number on its alphabet as well.
            op = operation(self.operation, 2, 13, False) if found else _operation(self)
            found += _length_faults(self, op, _bins(self), countable=not found)
            found += _number_faults(self)
            if found:
                raise ValueError(*found)

    config: Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.operation = _operation(config)
        self.bins = _bins(config)
        self.curve_lengths = config.curve_lengths
        self.num_inputs, self.num_outputs = self.operation.num_inputs, self.operation.num_outputs
        self.lengths = tuple(self.operation.lengths(0, self.bins[-1]))

    def shared_lengths(self) -> tuple[int, ...]:
        """Return the lengths at which every example is trained on, so that tests repeat trained examples."""
        most = self.config.examples_per_length
        return tuple(n for n in self.lengths if is_shared(self.operation, n, most))

    def warnings(self) -> list[str]:
        """Return sentences about settings that are allowed and unusual."""
        tested = self.operation.longest(self.config.test_length)
        return list(_warnings(self.config, tested if tested in self.shared_lengths() else None))

    def bin_of(self, length: int) -> int:
        """Return the bin that examples of a length are in."""
        return next(n for n in self.bins if n >= length)

    def shared(self) -> Arrays:
        """Return for every bin n `x_n`, `y_n` int8 [rows, n] by length, and each length's rows, `first_n`, `count_n` int64."""
        c = self.config
        return dict(tables(self.operation, self.bins, c.examples_per_length, c.copied_percent))

    def sample(self, stream: Stream, data: Mapping[str, Tensor], batch: int) -> Batch:
        """Return a batch of every bin, the smallest first: x and y int64 [batch, n], 0 and -1 as in the class."""
        # One draw for all bins: with one for each the compiler takes twice as long (22 s against 11 for nine bins).
        drawn = stream.integers((len(self.bins), batch), 0, 2**BITS).unbind(0)
        parts = [self._rows(data, n, of_B, 0, len(data[f"x_{n}"])) for n, of_B in zip(self.bins, drawn, strict=True)]
        return tuple(x for (x,), _ in parts), tuple(y for _, (y,) in parts)

    def sample_exact(self, stream: Stream, data: Mapping[str, Tensor], batch: int, n: int, length: Tensor) -> Batch:
        """Return a batch of the bin n with examples of one length, a 0-dim int64 tensor.

        If the bin has no examples of this length: those of the next shorter length that it has, or of its shortest.
        """
        first, count = (data[f"{name}_{n}"][length.reshape(1)] for name in ("first", "count"))
        return self._rows(data, n, stream.integers((batch,), 0, 2**BITS), first, count)

    def _rows(self, data: Mapping[str, Tensor], n: int, drawn_B: Tensor, first: Tensor | int, count: Tensor | int) -> Batch:
        """Return rows of a table: numbers drawn from [0, 2^BITS) are scaled to [first, first + count)."""
        rows_B = first + (drawn_B * count >> BITS)
        x_Bn, y_Bn = (data[f"{name}_{n}"][rows_B].to(torch.int64) for name in ("x", "y"))
        return (x_Bn,), (y_Bn,)

    def evaluation_inputs(self, split: str) -> Symbols:
        """Return input symbols int64 [rows, n]: of every bin, the smallest first, or of `test_length` alone."""
        c = self.config
        if split == "interpolation":
            return inputs_of_bins(self.operation, self.bins, c.test_rows, c.examples_per_length)
        return self._of_length(c.test_length, c.extrapolation_rows)

    def curve_inputs(self, length: int) -> Symbols:
        """Return input symbols int64 [rows, length], also for lengths that are not in `curve_lengths`.

        Raises ValueError for a length that is too short.
        """
        most, least = self.config.curve_rows
        share = (self.bins[-1] / max(length, self.bins[-1])) ** 2
        return self._of_length(length, max(least, int(most * share)))

    def _of_length(self, positions: int, rows: int) -> Symbols:
        if positions < self.operation.least:
            raise ValueError(
                f"operation {self.operation.name} needs at least {self.operation.least} positions, not {positions}"
            )
        trained = self.operation.longest(positions) <= self.bins[-1]
        most = self.config.examples_per_length if trained else 0
        return (inputs_of_length(self.operation, positions, rows, most),)

    def truth(self, x: Symbols, seed: int) -> Symbols:
        """Return the targets int64 [rows, n] by Python's integers and lists, row by row: independent of `sample`."""
        alphabet = oracles.Alphabet(self.operation.radix, sign(self.operation), self.operation.keep_zeros)
        name = self.operation.name
        return tuple(np.array([oracles.target(name, alphabet, row) for row in x_Bn.tolist()], np.int64) for x_Bn in x)

    def read(self, text: str) -> list[int]:
        """Return the symbols of a sum or product as people write it: `110*101` in base 2 gives 1 2 2 12 2 1 2.

        Only for add and multiply in bases up to 10. The shorter number is filled up with zeros.
        """
        c, sign_text = self.config, {"add": "+", "multiply": "*"}.get(self.config.operation, "")
        numbers = [part.strip() for part in text.split(sign_text)] if sign_text else []
        digits = [[int(digit) for digit in reversed(number) if digit.isdecimal()] for number in numbers]
        sound = all(len(d) == len(number) > 0 and max(d) < c.base for d, number in zip(digits, numbers, strict=True))
        if len(numbers) != 2 or not sound or c.base > MOST_DIGITS:
            written = f", or {'1' * 3}{sign_text}{'1' * 2}" if sign_text and c.base <= MOST_DIGITS else ""
            raise ValueError(f"{text!r} is no example of {c.operation}: write its symbols as whole numbers{written}")
        size = max(map(len, digits))
        first, second = ([digit + 1 for digit in d] + [1] * (size - len(d)) for d in digits)
        return [*first, sign(self.operation), *second]

    def write(self, symbols: Sequence[int]) -> str:
        """Return the number that output symbols are, highest digit first; `?` for what is no digit."""
        if self.config.operation not in ("add", "multiply") or self.config.base > MOST_DIGITS:
            return super().write(symbols)
        end = max((k + 1 for k, symbol in enumerate(symbols) if symbol), default=0)
        digits = [str(symbol - 1) if 1 <= symbol <= self.config.base else "?" for symbol in reversed(symbols[:end])]
        return "".join(digits).lstrip("0") or "0"

    def loss(self, y: tuple[Tensor, ...], target: tuple[Tensor, ...]) -> Tensor:
        """Return the cross-entropy of logits [rows, n, num_outputs], the mean of the bins' means."""
        logits_NS, target_N = torch.cat([one.flatten(0, 1) for one in y]), torch.cat([one.flatten() for one in target])
        each_N = F.cross_entropy(logits_NS, target_N, reduction="none")
        sizes = [one.numel() for one in target]
        if self.config.loss_over == "all":
            return torch.stack([each.mean() for each in each_N.split(sizes)]).mean()
        counts_N = (target_N > 0).to(each_N.dtype)
        bins = zip((each_N * counts_N).split(sizes), counts_N.split(sizes), strict=True)
        return torch.stack([each.sum() / counts.sum().clamp(min=1.0) for each, counts in bins]).mean()

    def error(self, y: tuple[Tensor, ...], target: tuple[Tensor, ...]) -> Tensor:
        """Return the error chosen by `judged_by`, over all rows of all bins."""
        measure = _sequence_error if self.config.judged_by == "sequence_error" else _symbol_error
        return measure(y, target, self.config.padding_counts)

    def scores(self, split: str, y: tuple[Tensor, ...], target: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Return both errors, without and with padding, and the loss."""
        return {
            "symbol_error": _symbol_error(y, target, False),
            "sequence_error": _sequence_error(y, target, False),
            "symbol_error_with_padding": _symbol_error(y, target, True),
            "sequence_error_with_padding": _sequence_error(y, target, True),
            "loss": self.loss(y, target),
        }

    def threshold(self) -> float:
        """Return `bound`."""
        return self.config.bound


def _operation(config: Algorithm.Config) -> Operation:
    c = config
    keep_zeros = c.high_zeros == "kept" or (c.high_zeros == "published" and c.operation == "multiply")
    return operation(c.operation, c.base, c.symbols, keep_zeros)


def _bins(config: Algorithm.Config) -> tuple[int, ...]:
    published = PUBLISHED_BCD_BINS if config.operation == "bcd_multiply" else PUBLISHED_BINS
    return tuple(sorted(config.bins or published))


def _alphabet_faults(config: Algorithm.Config) -> Iterator[str]:
    """Yield the faults of the settings that define an operation's alphabet."""
    if config.operation in ("add", "multiply") and not 2 <= config.base <= LARGEST_BASE:
        yield f"base = {config.base} must be from 2 to {LARGEST_BASE} (digit d is the symbol d + 1)"
    if not 3 <= config.symbols <= LARGEST_ALPHABET:
        yield f"symbols = {config.symbols} must be from 3 to {LARGEST_ALPHABET}: padding, and at least two others"


def _warnings(config: Algorithm.Config, shared: int | None) -> Iterator[str]:
    """Yield warnings. `shared` is the length of the extrapolation split, if all its examples are trained on."""
    digits = ("add", "multiply")
    used = {
        "base": (config.operation in digits, "of add and multiply"),
        "high_zeros": (config.operation in digits, "of add and multiply"),
        "symbols": (config.operation not in (*digits, "bcd_multiply"), "of operations other than add, multiply, bcd_multiply"),
    }
    for name, (is_used, whose) in used.items():
        if not is_used and getattr(config, name) != getattr(type(config), name):
            yield f"{name} = {getattr(config, name)} changes nothing: it is a setting {whose}, not of {config.operation}"
    if shared is not None:
        yield (
            f"every example of length {shared} is trained on, so the extrapolation split repeats them: make test_length longer "
            f"than {config.test_length}, or examples_per_length smaller than {config.examples_per_length}"
        )


def _number_faults(config: Algorithm.Config) -> Iterator[str]:
    for name, least in LEAST.items():
        if getattr(config, name) < least:
            yield f"{name} = {getattr(config, name)} must be at least {least}"
    if not 0 < config.bound <= 1:
        yield f"bound = {config.bound} must lie in (0, 1]: it is a share of sequences, or of symbols"
    first, last = config.curve_rows
    if not first >= last >= 1:
        yield f"curve_rows = {[first, last]} must be at least 1, the second no more than the first"


def _length_faults(config: Algorithm.Config, op: Operation, bins: tuple[int, ...], countable: bool = True) -> Iterator[str]:
    """Yield faults of lengths that the operation does not have, and, if `countable`, of too few examples."""
    needs = f"operation {op.name} needs at least {op.least}"
    bad = [n for n in bins if n < op.least]
    if bad:
        yield f"bins = {list(bins)}: {needs}, so {', '.join(map(str, bad))} {'is' if len(bad) == 1 else 'are'} too short"
    elif len(set(bins)) < len(bins):
        yield f"bins = {list(bins)} must be different lengths"
    else:
        yield from _empty_bins(op, bins)
        if countable:
            yield from _few_tests(config, op, bins)
    if config.test_length < op.least:
        yield f"test_length = {config.test_length}: {needs}"
    short = [n for n in config.curve_lengths if n < op.least]
    if short:
        listed = f"curve_lengths = {list(config.curve_lengths)}"
        yield f"{listed}: {needs}, so {', '.join(map(str, short))} {'is' if len(short) == 1 else 'are'} too short"
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


def _few_tests(config: Algorithm.Config, op: Operation, bins: tuple[int, ...]) -> Iterator[str]:
    """Yield faults of splits that need more examples than there are: test examples differ, and none is trained on."""
    most = config.examples_per_length
    if most < 1:
        return
    lengths = op.lengths(0, bins[-1])
    there = sum(available(op, length, most) for length in lengths)
    if config.test_rows > there:
        yield (
            f"test_rows = {config.test_rows} different examples are requested, but lengths {lengths[0]} to {lengths[-1]} of "
            f"{op.name} have {there} for tests: request fewer, or make examples_per_length smaller or the bins longer"
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
            f"requested, but {op.name} has {there} for tests there: request fewer, or make test_length longer"
        )


def _symbol_error(logits: Sequence[Tensor], targets: Sequence[Tensor], padding: bool) -> Tensor:
    """Return the share of wrong symbols over all rows of all bins, with or without padding."""
    wrong_N, counted_N = _wrong(logits, targets, padding)
    return wrong_N.sum().to(torch.float32) / counted_N.sum().clamp(min=1).to(torch.float32)


def _sequence_error(logits: Sequence[Tensor], targets: Sequence[Tensor], padding: bool) -> Tensor:
    """Return the share of rows with a wrong symbol, with or without padding."""
    of_bins = _wrong(logits, targets, padding)[0].split([t.numel() for t in targets])
    wrong = [part.view(t.shape).any(dim=1) for part, t in zip(of_bins, targets, strict=True)]
    return torch.cat(wrong).to(torch.float32).mean()


def _wrong(logits: Sequence[Tensor], targets: Sequence[Tensor], padding: bool) -> tuple[Tensor, Tensor]:
    """Return which positions of all bins, one after another, are wrong, and which are counted, bool [N]."""
    # All bins at once: one bin after another the compiler takes three times as long.
    predicted_N = torch.cat([y.flatten(0, 1) for y in logits]).argmax(dim=-1)
    target_N = torch.cat([t.flatten() for t in targets])
    counted_N = torch.ones_like(target_N, dtype=torch.bool) if padding else target_N > 0
    return (predicted_N != target_N) & counted_N, counted_N
