"""Units and contexts that the tests of models share."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from sweeps.config.registry import find
from sweeps.training.random import Stream, seed_key

X = torch.tensor([[1.5, 4.0, 2.5], [3.0, 0.5, 2.0]])
SATURATED = 200.0  # tanh and sigmoid are 1, and sigmoid of the negative is 0, in float32


def unit(name: str, inputs: int, outputs: int = 1, **settings: Any) -> Any:
    cls = find("model", name)
    return cls(cls.Config(**settings), inputs, outputs)


def initialised(name: str, inputs: int, outputs: int = 1, seed: int = 0, **settings: Any) -> Any:
    made = unit(name, inputs, outputs, **settings)
    with torch.no_grad():
        made.initialise(Stream(seed_key(seed, "initialise")))
    return made


def stream(seed: int = 3) -> Stream:
    return Stream(seed_key(seed, "model"))


def context(step: float = 0.0, training: bool = True, seed: int = 3) -> Any:
    return SimpleNamespace(
        step=torch.tensor(step), training=training, stream=stream(seed), last_error=torch.tensor(1.0),
        dropout=lambda x, rate: x,
    )  # fmt: skip


def set_weights(made: nn.Module, weights: list[list[float]]) -> Any:
    """Makes the effective weights exactly these: -1, 0, 1, or, of a NAC, 1/2 (of free weights: anything)."""
    wanted = torch.tensor(weights)
    with torch.no_grad():
        if hasattr(made, "weight"):
            made.weight.copy_(wanted)
        elif hasattr(made, "M_hat"):
            made.W_hat.copy_(SATURATED * wanted.sign())
            made.M_hat.copy_(torch.where(wanted.abs() == 0.5, 0.0, SATURATED))  # sigmoid(0) is 1/2
        elif hasattr(made, "W_hat"):
            made.W_hat.copy_(SATURATED * (2 * wanted - 1))
        elif hasattr(made, "logit"):
            likely = torch.stack([wanted == 1, wanted == -1, wanted == 0], -1)
            logit = SATURATED * likely
            made.logit.copy_(logit[..., :2] - logit[..., 2:] if made.logit.shape[-1] == 2 else logit)
        else:
            return set_weights(made.nac, weights)
    return made


def presolved(name: str, weights: list[list[float]], **settings: Any) -> Any:
    """A unit with these effective weights."""
    made = unit(name, len(weights[0]), len(weights), **settings)
    set_weights(made, weights)
    return made


def output(made: nn.Module, x: Tensor = X, ctx: Any = None) -> list[list[float]]:
    with torch.no_grad():
        return made(x, ctx or context())[0].tolist()
