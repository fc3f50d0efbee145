"""YAML 1.2: which words are numbers, where a value stands, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.config.faults import Fault, Faults
from sweeps.config.yaml import dump, read, read_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("3_000_000", 3_000_000),
        ("1_0.5", 10.5),
        (".5", 0.5),
        ("-1.5e+2", -150.0),
        ("+3", 3),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("~", None),
        ("40%", "40%"),
        ("1/3", "1/3"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ('"12"', "12"),
        ("'1e-3'", "1e-3"),
        ("-_", "-_"),
        ("", None),
    ],
)
def test_a_word_has_the_type_of_yaml_1_2(text: str, value: object) -> None:
    assert read_value(text) == value
    assert type(read_value(text)) is type(value)


def test_every_value_has_the_line_it_stands_on() -> None:
    document = read("task:\n  name: static\ncompare:\n  model:\n    - nmu\n    - {name: nau,\n       clamp: false}\n")
    assert document.lines["task.name"] == 2
    assert document.lines["compare.model.1"] == 6
    faults = Faults(document.lines)
    assert faults.locate("compare.model.1.clamp", "").line == 7
    assert faults.locate("compare.model.1.hidden", "").line == 6  # not there: the nearest path around it
    assert faults.locate("seeds", "").line is None


def test_a_key_given_twice_is_a_fault_with_both_lines() -> None:
    document = read("a: 1\nb: 2\na: 3\nc: {d: 1, d: 2}\n")
    assert document.faults == [
        Fault("", "a is given twice: first on line 1", 3),
        Fault("", "c.d is given twice: first on line 4", 4),
    ]
    assert document.values["b"] == 2


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("a: 1\nb: [1\n", 2, "not YAML"),
        ("a: 1\nb: c: d\n", 2, "mapping values are not allowed"),
        ("a: 1\n---\nb: 2\n", 2, "document"),
        ("a: 1\nb: *nothing\n", 2, "undefined alias"),
        ("a: 1\nb: !!python/object/apply:os.system [ls]\n", 2, "tag"),
        ("a: !!python/name:os.system x\n", 1, "tag"),
        ("a: &x [1, *x]\n", 1, "contains itself"),
        ("a: .nan\n", 1, "finite"),
        ("a: -.inf\n", 1, "finite"),
        ("a: 1e999\n", 1, "too large"),
        ("a: " + "9" * 5000, 1, "too large"),
        ("a: 0x" + "f" * 5000, 1, "too large"),
        ("a: 0x" + "f" * 300, 1, "too large"),
        ("a: -0b" + "1" * 1025, 1, "too large"),
        ("? [1, 2]\n: 3\n", 1, "a key must be a word"),
        ("a: 1\n'': 3\n", 2, "a key must be a word"),
        ("%YAML 1.1\n---\na: no\n", 1, "YAML 1.2"),
        ("a: 1\nb: \x00\n", 2, "not YAML"),
        ("a: 1\nb: {<<: 3}\n", 2, "<< takes a mapping"),
        ("a: &a {x: 1}\nb: {<<: [*a, 3]}\n", 2, "<< takes a mapping"),
        ("a: &a {x: 1}\nb: {<<: *a, <<: *a}\n", 2, "b.<< is given twice"),
        ("a: &a\n  <<: *a\n", 1, "contains itself"),
    ],
)
def test_unreadable_yaml_is_a_fault_with_its_line(text: str, line: int | None, part: str) -> None:
    faults = read(text).faults
    assert [fault for fault in faults if fault.line == line and part in fault.message], faults


def test_merged_mappings_that_multiply_are_refused_at_once() -> None:
    keys = "".join(f"  k{i}: 1\n" for i in range(20_000))
    document = read(f"x-a: &a\n{keys}b:\n  <<: [{', '.join(['*a'] * 4000)}]\n")
    assert "more than 100,000 values" in document.faults[0].message


def test_an_anchor_given_twice_is_the_last_one_before_its_alias(recwarn: pytest.WarningsRecorder) -> None:
    assert read("x: &a 1\ny: *a\nz: &a 2\nw: *a\n").values == {"x": 1, "y": 1, "z": 2, "w": 2}
    assert not recwarn.list


def test_aliases_that_multiply_are_refused() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    assert "more than" in read("\n".join(lines)).faults[0].message


def test_a_merge_key_adds_what_the_mapping_itself_does_not_have_with_the_lines_where_the_values_stand() -> None:
    document = read(
        "base: &base {steps: 400, lr: 1e-3, decay: {rule: never, floor: 1}}\n"
        "fast: &fast {<<: *base, lr: 1e-1}\n"
        "train:\n  seed: 1\n  <<: *fast\n  steps: 500\n  decay: {rule: cosine}\n"
        "list: {<<: [*fast, *base, {batch: 8}], steps: 1}\n"
        "word: {'<<': 3}\n"
    )
    assert not document.faults
    assert document.values["fast"] == {"steps": 400, "decay": {"rule": "never", "floor": 1}, "lr": 0.1}
    assert list(document.values["train"].items()) == [
        ("seed", 1), ("lr", 0.1), ("steps", 500), ("decay", {"rule": "cosine"}),
    ]  # fmt: skip
    assert document.values["list"] == {"steps": 1, "lr": 0.1, "decay": {"rule": "never", "floor": 1}, "batch": 8}
    assert document.values["word"] == {"<<": 3}
    lines = document.lines
    assert (lines["train.lr"], lines["train.steps"], lines["train.decay.rule"], lines["list.decay.floor"]) == (2, 6, 7, 1)
    assert read(dump(document.values)).values == document.values


def test_merge_keys_that_multiply_are_refused() -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 9)]
    assert "more than" in read("\n".join(lines)).faults[0].message


def test_deep_nesting_is_a_fault_and_no_crash() -> None:
    assert read("[" * 5000).faults


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.from_regex(r"[a-z][a-z_.]{0,5}", fullmatch=True), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(PLAIN)
def test_dumped_yaml_reads_back_the_same(values: object) -> None:
    document = read(dump({"x": values}))
    assert document.faults == []
    assert document.values == {"x": values}


@pytest.mark.parametrize("word", ["no", "yes", "1e-3", "3_000_000", "null", "~", "true", "40%", "0x1F", "1:30", "<<", "=", ""])
def test_a_word_that_looks_like_something_else_stays_a_word(word: str) -> None:
    assert read(dump({"x": word})).values == {"x": word}
