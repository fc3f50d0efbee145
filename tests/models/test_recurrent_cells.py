"""Recurrent cells against torch's own, with the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lanes import resolved
from made_units import context, initialised
from torch import nn

from arith_models.units.recurrent_cells import UNITS
from sweeps.config.settings import resolve
from sweeps.training.random import Stream, seed_key

INPUTS, HIDDEN, ROWS = 3, 4, 5


def cell(name: str) -> Any:
    return initialised(name, INPUTS + HIDDEN, HIDDEN, seed=1)


def with_weights_of(made: Any, theirs: Any) -> Any:
    with torch.no_grad():
        for name, weight in (("weight_ih", made.W_x), ("weight_hh", made.W_h), ("bias_ih", made.b_x), ("bias_hh", made.b_h)):
            getattr(theirs, name).copy_(weight)
    return theirs


def drawn(*shape: int) -> torch.Tensor:
    return Stream(seed_key(2, "batch")).normal(shape)


@pytest.mark.parametrize(
    ("name", "make"),
    [("gru", nn.GRUCell), ("rnn_tanh", nn.RNNCell), ("rnn_relu", lambda i, h: nn.RNNCell(i, h, nonlinearity="relu"))],
)
def test_the_state_is_that_of_torchs_cell(name, make) -> None:
    made = cell(name)
    theirs = with_weights_of(made, make(INPUTS, HIDDEN))
    both = drawn(ROWS, INPUTS + HIDDEN)
    ours = made(both, context())[0]
    torch.testing.assert_close(ours, theirs(both[:, :INPUTS], both[:, INPUTS:]))


def test_an_lstms_state_and_memory_are_those_of_torchs_cell() -> None:
    made = cell("lstm")
    theirs = with_weights_of(made, nn.LSTMCell(INPUTS, HIDDEN))
    both = drawn(ROWS, INPUTS + 2 * HIDDEN)
    x, h, c = both.split([INPUTS, HIDDEN, HIDDEN], 1)
    torch.testing.assert_close(made(both, context())[0], torch.cat(theirs(x, (h, c)), 1))


def test_weights_fill_torchs_default_range() -> None:
    for name in UNITS:
        values = torch.cat([p.flatten() for p in cell(name).parameters()])
        assert 0.45 < values.abs().max() <= HIDDEN**-0.5, name


@pytest.mark.parametrize(
    ("task", "model", "message"),
    [
        ("static", "gru", "network two_layer repeats nothing: it needs a sequence task"),
        ("recurrent", {"units": ["nau", "gru"]}, "network recurrent repeats its first unit alone"),
        ("number_words", {"units": ["lstm", "rnn_relu"]}, "network tokens repeats its first unit alone"),
    ],
)
def test_a_cell_is_refused_where_nothing_is_repeated(task, model, message) -> None:
    settings, (fault,), _ = resolve({"model": model, "task": task, "train": {"steps": 10}})
    assert settings is None and fault.path.startswith("model") and message in fault.message


@pytest.mark.parametrize("task", ["recurrent", "number_words"])
def test_a_cells_name_stands_for_the_cell_and_a_linear_output(task) -> None:
    for name in UNITS:
        settings = resolved(name, task, steps=10)
        assert [unit["name"] for unit in settings["model"]["units"]] == [name, "linear"]
