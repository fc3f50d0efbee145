"""The benchmark's units with initial weights, and what the tests of them look at."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch
from made_units import initialised
from torch import Tensor, nn

SIGNED = torch.tensor([[1.5, 4.0], [-3.0, 0.5], [-2.0, -8.0], [2.5, -0.5]])
MCFCS = ("mcfc", "mul_mcfc", "mul_mcfc_sign_inalu", "mul_mcfc_sign_real_npu")


def unit(name: str, inputs: int = 2, outputs: int = 1, **settings: Any) -> Any:
    return initialised(name, inputs, outputs, **settings)


def put(made: nn.Module, **values: Any) -> Any:
    with torch.no_grad():
        for name, value in values.items():
            parameter = getattr(made, name)
            parameter.copy_(torch.as_tensor(value).expand_as(parameter))
    return made


def ctx(step: float = 0.0, last_error: float = math.inf) -> Any:
    return SimpleNamespace(step=torch.tensor(step), training=True, last_error=torch.tensor(last_error))


def output(made: nn.Module, x: Tensor = SIGNED) -> list[float]:
    with torch.no_grad():
        return made(x, ctx())[0][:, 0].tolist()


def penalties(made: nn.Module, step: float = 0.0, last_error: float = math.inf) -> dict[str, float]:
    with torch.no_grad():
        return {name: p.item() for name, p in made(SIGNED, ctx(step, last_error))[1].items()}
