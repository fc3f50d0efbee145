"""Optimisers as pure functions of one lane, with a lane's own learning rate. Adam's and SGD's formulas are torch.optim's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

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
