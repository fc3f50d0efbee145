"""The task of number words: texts by hand, the vocabulary, the split, and a training."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lanes import resolved, train

from sweeps.training.lane import Lane
from sweeps.training.random import Stream, seed_key
from tasks.number_words import (
    ALWAYS_TRAINED,
    END,
    NUMBERS,
    SIZES,
    VOCABULARY,
    NumberWords,
    all_tokens,
    split_numbers,
    tokens,
    words,
)


def test_words_by_hand() -> None:
    by_hand = {
        0: "zero", 7: "seven", 10: "ten", 13: "thirteen", 20: "twenty", 21: "twenty one", 100: "one hundred",
        101: "one hundred and one", 110: "one hundred and ten", 123: "one hundred and twenty three",
        999: "nine hundred and ninety nine",
    }  # fmt: skip
    assert {number: words(number) for number in by_hand} == {n: text.split() for n, text in by_hand.items()}


def test_tokens_are_places_in_the_vocabulary_and_an_end() -> None:
    assert tokens(18) == [20, 0]
    assert tokens(21) == [22, 3, 0]
    assert tokens(123) == [3, 32, 30, 22, 5, 0]


@pytest.mark.parametrize("number", [-1, 1000])
def test_other_numbers_are_refused(number) -> None:
    with pytest.raises(ValueError, match=f"number = {number} must lie in 0 to 999"):
        tokens(number)


def test_the_vocabulary_has_33_entries_of_which_30_words_occur() -> None:
    assert len(VOCABULARY) == len(set(VOCABULARY)) == 33
    used = {VOCABULARY[i] for i in all_tokens().ravel().tolist()}
    assert set(VOCABULARY) - used == {"minus", ","}
    assert len(used - {VOCABULARY[END]}) == 30


@given(st.integers(0, NUMBERS - 1))
def test_a_row_of_the_table_is_a_numbers_tokens_filled_up_with_ends(number) -> None:
    """Read back by arithmetic of our own: hundreds times a hundred, and the rest is added."""
    value = {word: i for i, word in enumerate(VOCABULARY[2:22])}
    value |= {word: 10 * i for i, word in enumerate(VOCABULARY[22:30], start=2)}
    row = all_tokens()[number].tolist()
    text = [VOCABULARY[i] for i in row[: row.index(END)]]
    total = 0
    for word in text:
        total = 100 * total if word == "hundred" else total + value.get(word, 0)
    assert total == number
    assert set(row[len(text) :]) == {END}


def test_every_number_has_a_row_of_its_own_and_nobody_may_change_it() -> None:
    assert all_tokens().shape == (1000, 6)
    assert len({tuple(row) for row in all_tokens().tolist()}) == 1000
    with pytest.raises(ValueError, match="read-only"):
        all_tokens()[0, 0] = 1


@given(st.integers(0, 2**32 - 1))
def test_a_split_has_the_published_sizes_and_every_number_once(seed) -> None:
    found = split_numbers(seed)
    parts = (found.train, found.validation, found.test)
    assert [len(part) for part in parts] == list(SIZES.values()) == [169, 200, 631]
    assert sorted(np.concatenate(parts).tolist()) == list(range(1000))
    assert set(found.train.tolist()) >= ALWAYS_TRAINED


def test_the_numbers_that_are_always_trained_have_every_word() -> None:
    assert len(ALWAYS_TRAINED) == 20 + 9 + 1
    assert {word for number in ALWAYS_TRAINED for word in words(number)} == set(VOCABULARY) - {"", "minus", ","}


def test_the_split_is_the_same_in_every_process() -> None:
    """Written down: a change moves results."""
    found, again = split_numbers(), split_numbers()
    assert np.array_equal(found.test, again.test)
    assert found.validation[:5].tolist() == [22, 23, 27, 29, 54]
    assert not np.array_equal(split_numbers(1).validation, found.validation)


TASK = NumberWords(NumberWords.Config())


def test_the_examples_of_the_docstring() -> None:
    row = [*tokens(21), 0, 0, 0]
    assert row[:3] == [22, 3, 0]
    assert TASK.truth(np.array([row]).T, 0).tolist() == [[21.0]]


def test_a_training_batch_has_the_targets_of_the_oracle_and_training_numbers_only() -> None:
    data = {name: torch.from_numpy(array) for name, array in TASK.instance(0).items()}
    tokens_TB, target = TASK.sample(Stream(seed_key(1, "batch")), data, 200)
    assert tokens_TB.shape == (6, 200) and target.dtype == torch.float32
    assert TASK.truth(tokens_TB.numpy(), 0).tolist() == target.tolist()
    assert set(target[:, 0].tolist()) <= set(data["numbers"].tolist())


def test_the_parts_have_the_published_sizes_and_share_no_number() -> None:
    numbers = [set(TASK.truth(TASK.evaluation_inputs(split), 0)[:, 0]) for split in TASK.splits]
    assert [len(part) for part in numbers] == [200, 631, 169]
    assert len(set.union(*numbers)) == 1000


@pytest.mark.parametrize("model", ["lstm", pytest.param("nalu", marks=pytest.mark.slow)])
def test_training_brings_the_error_down_and_reports_the_published_score(model) -> None:
    found = resolved(model, "number_words", steps=60, batch=30, evaluate_every=30, lr=0.01)
    results = list(train([Lane("a", found, 0)]).values())
    curve = results[0].curve
    assert curve["error.train"][-1] < curve["error.train"][0], results[0].reason
    assert {n for n in curve if "absolute" in n} == {f"mean_absolute_error.{split}" for split in TASK.splits}
