"""Every operation of the task on algorithms: by hand, and the examples' targets against those of the oracle."""

from __future__ import annotations

import itertools
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks._algorithms.examples import different, padded
from tasks.algorithm import Algorithm

OPERATIONS = get_args(get_type_hints(Algorithm.Config)["operation"])
ARITHMETIC = ("add", "multiply", "bcd_multiply")


def task(operation: str, **config: Any) -> Algorithm:
    return Algorithm(Algorithm.Config(operation=operation, **config))


def number(text: str) -> list[int]:
    """The symbols of a number that is written as people do, the highest digit first: 6 in base 2 is "110"."""
    return [int(digit, 36) + 1 for digit in reversed(text)]


BY_HAND: list[tuple[str, dict[str, Any], list[int], list[int]]] = [
    # 6 + 5 = 11, 3 + 1 = 4; high zeros are padding
    ("add", {}, [*number("110"), 11, *number("101")], [*number("1011"), 0, 0, 0]),
    ("add", {}, [*number("011"), 11, *number("001")], [*number("100"), 0, 0, 0, 0]),
    ("add", {}, [*number("00"), 11, *number("00")], [*number("0"), 0, 0, 0, 0]),
    ("add", {"high_zeros": "kept"}, [*number("00"), 11, *number("01")], number("00001")),
    ("add", {"base": 10}, [*number("95"), 11, *number("17")], [*number("112"), 0, 0]),
    ("add", {"base": 4}, [*number("33"), 11, *number("01")], [*number("100"), 0, 0]),
    # base 16 has its own '+', 17, above the digits 1 to 16
    ("add", {"base": 16}, [*number("ff"), 17, *number("01")], [*number("100"), 0, 0]),
    # 6 * 5 = 30 in 7 digits, 1 * 0 = 0
    ("multiply", {}, [*number("110"), 12, *number("101")], number("0011110")),
    ("multiply", {}, [*number("1"), 12, *number("0")], number("000")),
    ("multiply", {"high_zeros": "stripped"}, [*number("110"), 12, *number("101")], [*number("11110"), 0, 0]),
    ("multiply", {"high_zeros": "stripped"}, [*number("00"), 12, *number("11")], [*number("0"), 0, 0, 0, 0]),
    ("multiply", {"base": 10}, [*number("99"), 12, *number("98")], number("09702")),
    ("multiply", {"base": 8}, [*number("7"), 12, *number("7")], number("061")),
    ("multiply", {"base": 16}, [*number("f"), 18, *number("e")], number("0d2")),
    # 7 * 9 = 63: 7 is 1110 from its lowest bit, 9 is 1001; 3 is 1100, 6 is 0110; the fourth bit is 3 or 4
    ("bcd_multiply", {}, [2, 2, 2, 3, 12, 2, 1, 1, 4], [2, 2, 1, 3, 1, 2, 2, 3, 0]),
    # 12 * 25 = 300 as 0300
    ("bcd_multiply", {}, [1, 2, 1, 3, 2, 1, 1, 3, 12, 2, 1, 2, 3, 1, 2, 1, 3],
     [1, 1, 1, 3, 1, 1, 1, 3, 2, 2, 1, 3, 1, 1, 1, 3, 0]),
    ("copy", {}, [3, 1, 2], [3, 1, 2]),
    ("reverse", {}, [3, 1, 2], [2, 1, 3]),
    ("reverse_pairs", {}, [3, 1, 2, 5], [2, 5, 3, 1]),
    ("sort", {}, [3, 1, 2, 1], [1, 1, 2, 3]),
    ("key_value_sort", {}, [3, 1, 2, 5, 3, 4, 2, 1], [2, 5, 2, 1, 3, 1, 3, 4]),
    ("duplicate", {}, [3, 1, 0, 0], [3, 1, 3, 1]),
    # in base 5, whose digits are 1 to 5: 4 + 1 = 10, 44 + 1 = 00
    ("increment", {}, [5, 1], [1, 2]),
    ("increment", {}, [5, 5], [1, 1]),
    ("increment", {}, [1, 3], [2, 3]),
    ("left", {}, [3, 1, 2], [3, 0, 0]),
    ("right", {}, [3, 1, 2], [2, 0, 0]),
    ("left_shift", {}, [3, 1, 2], [1, 2, 3]),
    ("right_shift", {}, [3, 1, 2], [2, 3, 1]),
    # the first of two pairs with the key 2; no pair with the key 4
    ("search", {}, [3, 1, 2, 5, 2, 4, 2], [5, 0, 0, 0, 0, 0, 0]),
    ("search", {}, [3, 4, 4], [0, 0, 0]),
]  # fmt: skip


def test_the_oracle_agrees_with_rows_worked_by_hand() -> None:
    """Of every operation, also with positions outside of the working space behind."""
    assert {operation for operation, *_ in BY_HAND} == set(OPERATIONS)
    for operation, config, x, y in BY_HAND:
        made = task(operation, **config)
        assert made.truth((np.array([x]),), 0)[0].tolist() == [y], (operation, x)
        assert made.truth((np.array([[*x, -1, -1]]),), 0)[0].tolist() == [[*y, 0, 0]], (operation, x)


def test_examples_are_written_as_by_hand() -> None:
    """The same rows from their free digits, which are the input's without sign and padding."""
    for operation, config, x, y in BY_HAND:
        op = task(operation, **config).operation
        symbols = [s for s in x if s and not (operation in ARITHMETIC and s > op.num_inputs - 3)]
        free = [s - 1 for s in symbols]
        if operation == "bcd_multiply":
            bits = [(s - 1) % 2 for s in symbols]
            free = [sum(bits[i + j] << j for j in range(4)) for i in range(0, len(bits), 4)]
        x_1n, y_1n = padded(op, np.array([free], np.uint8), len(x) + 2)
        assert x_1n.tolist() == [[*x, -1, -1]] and y_1n.tolist() == [[*y, 0, 0]], (operation, x)


@pytest.mark.parametrize("operation", OPERATIONS)
@given(data=st.data())
@settings(max_examples=30, deadline=None)
def test_examples_of_any_length_have_the_targets_of_the_oracle(operation, data) -> None:
    config: dict[str, Any] = {"high_zeros": data.draw(st.sampled_from(["published", "kept", "stripped"]))}
    config["base"] = data.draw(st.sampled_from([2, 3, 4, 5, 8, 10, 11, 16, 100]))
    config["symbols"] = data.draw(st.sampled_from([3, 4, 6, 14, 33]))
    made = task(operation, **config, test_rows=64)
    length = data.draw(st.sampled_from(made.operation.lengths(0, 200)))
    seed = data.draw(st.integers(0, 2**31))
    rows = min(5, made.operation.space(length))
    x, y = padded(made.operation, different(made.operation, length, rows, seed), length + 3)
    assert len(x) == rows and made.truth((x,), 0)[0].tolist() == y.tolist()
    assert ((x >= 0).sum(axis=1) == length).all()
    assert x.max() < made.num_inputs and 0 <= y.min() and y.max() < made.num_outputs


def test_targets_are_right_at_a_hundred_times_the_training_length() -> None:
    """The product of two numbers of 2,000 decimal digits, say, which Python's int() would refuse to read from longer text."""
    for operation, base in itertools.product(OPERATIONS, (2, 10)):
        made = task(operation, base=base)
        length = made.operation.longest(4001)
        assert length in (4000, 4001)
        x, y = padded(made.operation, different(made.operation, length, 2, 0), 4001)
        assert (made.truth((x,), 0)[0] == y).all(), (operation, base)


def test_the_largest_numbers_carry_through_every_place() -> None:
    """99...9 + 99...9 and 99...9 * 99...9 in several bases."""
    for base in (2, 10, 16, 100):
        for name in ("add", "multiply"):
            made = task(name, base=base)
            x, y = padded(made.operation, np.full((1, 4000), base - 1, np.uint8), 4001)
            assert (made.truth((x,), 0)[0] == y).all(), (base, name)


def test_the_oracle_refuses_a_row_that_is_no_example() -> None:
    with pytest.raises(ValueError, match="not two numbers of equally many digits in base 2"):
        task("add").truth((np.array([[1, 2, 11, 1]]),), 0)
    with pytest.raises(ValueError, match="not digits of four bits"):
        task("bcd_multiply").truth((np.array([[1, 1, 1, 1, 12, 1, 1, 1, 3]]),), 0)


@pytest.mark.parametrize(
    ("operation", "config", "inputs", "outputs", "lengths"),
    [
        ("multiply", {}, 13, 3, [3, 5, 7, 9, 11, 13]),
        ("multiply", {"base": 4}, 13, 5, [3, 5, 7, 9, 11, 13]),
        ("add", {"base": 10}, 13, 11, [3, 5, 7, 9, 11, 13]),
        ("add", {"base": 11}, 14, 12, [3, 5, 7, 9, 11, 13]),
        ("multiply", {"base": 16}, 19, 17, [3, 5, 7, 9, 11, 13]),
        ("bcd_multiply", {}, 13, 5, [9]),
        ("sort", {}, 6, 6, list(range(1, 14))),
        ("sort", {"symbols": 33}, 33, 33, list(range(1, 14))),
        ("key_value_sort", {}, 6, 6, [2, 4, 6, 8, 10, 12]),
        ("search", {}, 6, 6, [3, 5, 7, 9, 11, 13]),
    ],
)
def test_the_numbers_of_symbols_and_the_lengths_are_the_published_ones(operation, config, inputs, outputs, lengths) -> None:
    made = task(operation, **config)
    assert (made.num_inputs, made.num_outputs) == (inputs, outputs)
    assert made.operation.lengths(0, 13) == lengths
    assert [made.operation.longest(n) for n in lengths] == lengths
