"""The task of number words; what the words are is tested in test_number_words.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sweeps.config.settings import resolve
from sweeps.training.lane import Lane
from sweeps.training.pack import Pack
from sweeps.training.random import Stream, seed_key
from tasks._number_words import tokens
from tasks.number_words import NumberWords

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


@pytest.mark.parametrize("model", ["lstm", "nalu"])
def test_training_brings_the_error_down_and_reports_the_published_score(model) -> None:
    found, faults, _ = resolve(
        {
            "model": model,
            "task": "number_words",
            "train": {"steps": 60, "batch": 30, "evaluate_every": 30, "lr": 0.01},
        }
    )
    assert found is not None, faults
    pack = Pack([Lane("a", found, 0)], 3, compiled=False)
    results = []
    while not pack.done:
        results += pack.advance()
    curve = results[0].curve
    assert curve.error["train"][-1] < curve.error["train"][0], results[0].reason
    assert set(curve.scores) == {f"mean_absolute_error.{split}" for split in TASK.splits}
