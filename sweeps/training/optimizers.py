"""Optimisers as pure functions of one lane, with a lane's own learning rate. Adam's and SGD's formulas are torch.optim's."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from sweeps.training.random import Stream

Params = dict[str, Tensor]
Moments = dict[str, Params]  # moment name -> parameter name -> tensor


def adam(params: Params, grads: Params, moments: Moments, step: Tensor, train: Any) -> tuple[Params, Moments]:
    """Kingma and Ba (2015). `step` is the 0-dim int64 number of updates made before this one."""
    count = step.to(torch.float64) + 1.0  # 1 - beta^t loses its digits in float32
    correction1 = (1.0 - _double(train.beta1) ** count).to(torch.float32)
    correction2 = (1.0 - _double(train.beta2) ** count).sqrt().to(torch.float32)
    first, second, updated = {}, {}, {}
    for name, grad in grads.items():
        first[name] = moments["first"][name] + (grad - moments["first"][name]) * (1.0 - train.beta1)
        second[name] = moments["second"][name] * train.beta2 + grad * grad * (1.0 - train.beta2)
        scale = second[name].sqrt() / correction2 + train.epsilon
        updated[name] = params[name] - (train.lr / correction1) * (first[name] / scale)
    return updated, {"first": first, "second": second}


def adamax(
    params: Params, grads: Params, moments: Moments, step: Tensor, train: Any
) -> tuple[Params, Moments]:
    """AdaMax with a clip relative to past gradients (Freivalds and Liepins 2017, and their published code).

    g <- clip(g, ±(1.2 v + 1e-4)); m <- beta1 m + (1 - beta1) g; v <- max(b v, |g|); w <- w - lr m / (v + epsilon), with
    b = min(beta2, 1 - 0.01 0.5^(step / 2000)). Unlike Kingma and Ba's (2015) there is no bias correction: v starts at 0, so
    the first gradients are clipped to ±1e-4, which is a warm-up.
    """
    decay = torch.clamp(1.0 - 0.01 * 0.5 ** (step.to(torch.float32) / 2000.0), max=train.beta2)
    first, largest, updated = {}, {}, {}
    for name, grad in grads.items():
        bound = 1.2 * moments["largest"][name] + 1e-4
        clipped = torch.minimum(torch.maximum(grad, -bound), bound)
        first[name] = moments["first"][name] + (clipped - moments["first"][name]) * (1.0 - train.beta1)
        largest[name] = torch.maximum(decay * moments["largest"][name], clipped.abs())
        updated[name] = params[name] - train.lr * first[name] / (largest[name] + train.epsilon)
    return updated, {"first": first, "largest": largest}


def sgd(params: Params, grads: Params, moments: Moments, step: Tensor, train: Any) -> tuple[Params, Moments]:
    """Stochastic gradient descent with plain momentum."""
    velocity = {name: moments["velocity"][name] * train.momentum + grad for name, grad in grads.items()}
    return {name: params[name] - train.lr * velocity[name] for name in params}, {"velocity": velocity}


def _double(value: Any) -> Any:
    return value.to(torch.float64) if isinstance(value, Tensor) else value


Update = Callable[[Params, Params, Moments, Tensor, Any], tuple[Params, Moments]]
OPTIMIZERS: dict[str, tuple[Update, tuple[str, ...]]] = {
    "adam": (adam, ("first", "second")),
    "adamax": (adamax, ("first", "largest")),
    "sgd": (sgd, ("velocity",)),
}
"""Name -> (update, names of its moments, which start at zero)."""


Grads = dict[str, Tensor]


def clipped(grads: Grads, largest: Any) -> Grads:
    """Scales a lane's gradient to a norm of at most `largest`; 0 is off."""
    if isinstance(largest, float) and largest == 0.0:
        return grads
    norm = torch.sqrt(reduce(torch.add, (g.square().sum() for g in grads.values())))
    factor = torch.where((largest > 0) & (norm > largest), largest / norm, torch.ones_like(norm))
    return {name: g * factor for name, g in grads.items()}


def limited(grads: Grads, largest: Any) -> Grads:
    """Clips every element to [-largest, largest]; 0 is off."""
    if isinstance(largest, float) and largest == 0.0:
        return grads
    bound = torch.where(largest > 0, largest, torch.inf)
    return {name: torch.minimum(torch.maximum(g, -bound), bound) for name, g in grads.items()}


def annealed_variance(eta: Any, step: Tensor) -> Any:
    """eta / (1 + t)^0.55, t from 0 (Neelakantan et al. 2015, eq. 1)."""
    return eta / (1.0 + step.to(torch.float32)) ** 0.55


def with_noise(grads: Grads, variance: Any, stream: Stream) -> Grads:
    """Adds normal noise of this variance to every element; 0.0 is off."""
    if isinstance(variance, float) and variance == 0.0:
        return grads
    deviation = torch.sqrt(variance)
    noise = stream.normal((sum(g.numel() for g in grads.values()),))
    pieces = noise.split([g.numel() for g in grads.values()])
    return {n: g + deviation * z.view(g.shape) for (n, g), z in zip(grads.items(), pieces, strict=True)}


PERIODS = 4


def lr_decay_start() -> dict[str, Tensor]:
    """`factor` of the learning rate, the loss `sum` of the present period, and the last periods' `means` [4], oldest first."""
    return {
        "factor": torch.ones(()),
        "sum": torch.zeros(()),
        "means": torch.full((PERIODS,), torch.inf),
    }


def lr_decay_after(memory: dict[str, Tensor], loss: Tensor, step: Tensor, decay: Any) -> dict[str, Tensor]:
    """The memory after a step with this loss. `decay` is a `settings.LrDecay`, `step` the number of updates before it."""
    total = memory["sum"] + loss
    ends = (step + 1) % decay.period == 0
    means = torch.cat([memory["means"][1:], (total / decay.period).unsqueeze(0)])
    if decay.rule == "two_worse":
        stalls = means[-2:].amin() > means[-3:].amin()
    else:
        stalls = means[-1] > means[:-1].amax()
    lower = torch.clamp(memory["factor"] * decay.factor, min=decay.floor)
    return {
        "factor": torch.where(ends & stalls, lower, memory["factor"]),
        "sum": torch.where(ends, 0.0, total),
        "means": torch.where(ends, means, memory["means"]),
    }
