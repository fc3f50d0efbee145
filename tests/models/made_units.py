"""Units with known weights, and contexts, that the tests of models share."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from sweeps.config.registry import find
from sweeps.training.random import Stream, seed_key
from sweeps.training.step import Context

X = torch.tensor([[1.5, 4.0, 2.5], [3.0, 0.5, 2.0]])
SATURATED = 200.0  # tanh and sigmoid are 1, and sigmoid of the negative is 0, in float32


def unit(name: str, inputs: int, outputs: int = 1, **settings: Any) -> Any:
    """Return a unit whose parameters are not initialised."""
    cls = find("model", name)
    return cls(cls.Config(**settings), inputs, outputs)


def initialise(model: Any, seed: int = 0) -> Any:
    """Initialise a model's parameters, which are NaN before, so that the tests see one that is left out."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(math.nan)
        model.initialise(Stream(seed_key(seed, "initialise")))
    return model


def initialised(name: str, inputs: int, outputs: int = 1, seed: int = 0, **settings: Any) -> Any:
    return initialise(unit(name, inputs, outputs, **settings), seed)


def stream(seed: int = 3) -> Stream:
    return Stream(seed_key(seed, "model"))


def context(step: float = 0.0, training: bool = True, seed: int = 3, last_error: float = 1.0, memory: Any = None) -> Context:
    return Context(torch.tensor(step), training, stream(seed), torch.tensor(last_error), memory)


def put(made: nn.Module, **values: Any) -> Any:
    """Set parameters by name: to a tensor, or every element to a number."""
    with torch.no_grad():
        for name, value in values.items():
            parameter = made.get_parameter(name)
            parameter.copy_(torch.as_tensor(value).expand_as(parameter))
    return made


def set_weights(made: nn.Module, weights: list[list[float]]) -> Any:
    """Make the effective weights exactly these: -1, 0, 1, or, of a NAC, 1/2 (of free weights: anything)."""
    wanted, names = torch.tensor(weights), dict(made.named_parameters(recurse=False))
    if "weight" in names:
        return put(made, weight=wanted)
    if "M_hat" in names:  # sigmoid(0) is 1/2
        return put(made, W_hat=SATURATED * wanted.sign(), M_hat=torch.where(wanted.abs() == 0.5, 0.0, SATURATED))
    if "W_hat" in names:
        return put(made, W_hat=SATURATED * (2 * wanted - 1))
    if "logit" in names:
        logit = SATURATED * torch.stack([wanted == 1, wanted == -1, wanted == 0], -1)
        return put(made, logit=logit[..., :2] - logit[..., 2:] if names["logit"].shape[-1] == 2 else logit)
    set_weights(made.get_submodule("nac"), weights)
    return made


def presolved(name: str, weights: list[list[float]], **settings: Any) -> Any:
    """Return a unit with these effective weights."""
    return set_weights(unit(name, len(weights[0]), len(weights), **settings), weights)


def output(made: nn.Module, x: Tensor = X, ctx: Context | None = None) -> list[list[float]]:
    with torch.no_grad():
        return made(x, ctx or context())[0].tolist()


def first_column(made: nn.Module, x: Tensor = X, ctx: Context | None = None) -> list[float]:
    return [row[0] for row in output(made, x, ctx)]


def penalties(made: nn.Module, x: Tensor = X, ctx: Context | None = None) -> dict[str, float]:
    with torch.no_grad():
        return {name: p.item() for name, p in made(x, ctx or context())[1].items()}


def drawn(name: str, inputs: int, outputs: int, seeds: int, *parameters: str, **settings: Any) -> Tensor:
    """Return the initial values of these parameters over many seeds, in one row."""
    made, values = unit(name, inputs, outputs, **settings), []
    for seed in range(seeds):
        initialise(made, seed)
        values += [made.get_parameter(p).detach().flatten().clone() for p in parameters]
    return torch.cat(values)


def assert_fills(values: Tensor, low: float, high: float, missing: float = 0.02) -> None:
    """All values are in the range, and all but a share of its width at each end is reached."""
    slack = missing * (high - low)
    assert low - 1e-5 <= values.min() < low + slack
    assert high - slack < values.max() <= high + 1e-5
