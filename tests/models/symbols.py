"""Symbols, and networks that read them, of one seed."""

from __future__ import annotations

from functools import partial
from typing import Any

import made_units
import torch
from made_units import initialise
from torch import Tensor

from sweeps.config import registry
from sweeps.config.settings import validated
from sweeps.training.random import Stream, seed_key
from sweeps.training.step import Context

NUM_INPUTS, NUM_OUTPUTS = 6, 5


def network(name: str, seed: int = 1, **config: Any) -> Any:
    """Return a network of one seed."""
    cls: Any = registry.find("network", name)
    return initialise(cls(validated(cls.Config, config), (), NUM_INPUTS, NUM_OUTPUTS), seed)


def context(model: Any, training: bool = False, seed: int = 1) -> Context:
    return made_units.context(0.0, training, seed, torch.inf, model.initial_memory())


def examples(rows: int = 4, width: int = 8, seed: int = 3, shortest: int = 3) -> Tensor:
    """Return symbols [rows, width], each row from `shortest` to `width` long, then -1."""
    stream = Stream(seed_key(seed, "batch"))
    symbols = stream.integers((rows, width), 0, NUM_INPUTS)
    lengths = stream.integers((rows, 1), shortest, width + 1)
    return torch.where(torch.arange(width) < lengths, symbols, -1)


def logits(model: Any, *bins: Tensor, training: bool = False, seed: int = 1) -> tuple[Tensor, ...]:
    run = partial(model, bins, context(model, training, seed))
    with torch.no_grad():
        found: tuple[Tensor, ...] = run()[0]
    return found
