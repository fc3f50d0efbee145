"""Optimisers, and what is done to gradients and the learning rate around them, as pure functions of one lane.

To add an optimiser, write its update and enter it in `OPTIMIZERS`: sweep files then accept its name. Settings are those of
`Train` (sweeps.training.settings), each a float, or inside the engine the lane's own 0-dim tensor: in float64 where it is a
setting of the optimiser, as in torch.optim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import torch
from torch import Tensor

from arith_models.base import Scalar
from sweeps.training.random import Stream

Params = dict[str, Tensor]
Moments = dict[str, Params]
"""Moment name -> parameter name -> tensor."""


def double(value: Scalar) -> Any:
    """Return a lane's number in float64, in which torch.optim computes with learning rates and decays."""
    return value.to(torch.float64) if isinstance(value, Tensor) else value


def single(value: Scalar) -> Any:
    """Return a lane's number in float32, as an operation of torch on float32 tensors takes a Python float."""
    return value.to(torch.float32) if isinstance(value, Tensor) else value


@dataclass(frozen=True)
class Optimizer:
    """An entry of `OPTIMIZERS`."""

    update: Callable[..., tuple[Params, Moments]]
    """`update(params, grads, moments, step, **settings)` -> (params, moments); `step` is the number of updates made
    before this one, 0-dim int64."""
    moments: tuple[str, ...]
    """What it keeps of every parameter from step to step; starts at zero."""
    settings: tuple[str, ...]
    """Fields of `Train` that it uses."""
    guarded: tuple[str, ...] = ()
    """Moments that make a weight stand still for ever once they are infinite: such a lane has diverged."""


def adam(
    params: Params, grads: Params, moments: Moments, step: Tensor,
    *, lr: Scalar, beta1: Scalar, beta2: Scalar, epsilon: Scalar,
) -> tuple[Params, Moments]:  # fmt: skip
    """Kingma and Ba (2015), operation by operation as torch.optim.Adam (foreach=False, capturable=False).

    The order matters: (grad * (1 - beta2)) * grad overflows from 5.8e20 on, as torch's does, and grad * grad * (1 - beta2)
    would from 1.8e19 on. As there, what does not depend on the weights is computed in float64.
    """
    count = step.to(torch.float64) + 1.0
    correction1 = 1.0 - double(beta1) ** count
    correction2 = single((1.0 - double(beta2) ** count).sqrt())
    step_size = single(double(lr) / correction1)
    rest1, rest2 = single(1.0 - double(beta1)), single(1.0 - double(beta2))
    first, second, updated = {}, {}, {}
    for name, grad in grads.items():
        first[name] = torch.lerp(moments["first"][name], grad, rest1)
        second[name] = moments["second"][name] * single(beta2) + rest2 * grad * grad
        scale = second[name].sqrt() / correction2 + single(epsilon)
        updated[name] = params[name] - step_size * first[name] / scale
    return updated, {"first": first, "second": second}


def adamax(
    params: Params, grads: Params, moments: Moments, step: Tensor,
    *, lr: Scalar, beta1: Scalar, beta2: Any, epsilon: Scalar,
) -> tuple[Params, Moments]:  # fmt: skip
    """AdaMax with a clip relative to past gradients (Freivalds and Liepins 2017, and their published code).

    g <- clip(g, ±(1.2 v + 1e-4)); m <- beta1 m + (1 - beta1) g; v <- max(b v, |g|); w <- w - lr m / (v + epsilon), with
    b = min(beta2, 1 - 0.01 0.5^(step / 2000)). Unlike Kingma and Ba's (2015) there is no bias correction: v starts at 0, so
    the first gradients are clipped to ±1e-4, which is a warm-up.
    """
    lr, beta1, beta2, epsilon = map(single, (lr, beta1, beta2, epsilon))
    decay = torch.clamp(1.0 - 0.01 * 0.5 ** (step.to(torch.float32) / 2000.0), max=beta2)
    first, largest, updated = {}, {}, {}
    for name, grad in grads.items():
        bound = 1.2 * moments["largest"][name] + 1e-4
        clipped = torch.minimum(torch.maximum(grad, -bound), bound)
        first[name] = moments["first"][name] + (clipped - moments["first"][name]) * (1.0 - beta1)
        largest[name] = torch.maximum(decay * moments["largest"][name], clipped.abs())
        updated[name] = params[name] - lr * first[name] / (largest[name] + epsilon)
    return updated, {"first": first, "largest": largest}


def sgd(
    params: Params, grads: Params, moments: Moments, step: Tensor, *, lr: Scalar, momentum: Scalar
) -> tuple[Params, Moments]:
    """Stochastic gradient descent with plain momentum, operation by operation as torch.optim.SGD."""
    velocity = {name: moments["velocity"][name] * single(momentum) + grad for name, grad in grads.items()}
    return {name: params[name] - single(lr) * velocity[name] for name in params}, {"velocity": velocity}


OPTIMIZERS = {
    "adam": Optimizer(adam, ("first", "second"), ("lr", "beta1", "beta2", "epsilon"), guarded=("second",)),
    "adamax": Optimizer(adamax, ("first", "largest"), ("lr", "beta1", "beta2", "epsilon"), guarded=("largest",)),
    "sgd": Optimizer(sgd, ("velocity",), ("lr", "momentum")),
}
"""By the name that `train.optimizer` takes."""
DOUBLE = frozenset(f"train.{name}" for optimizer in OPTIMIZERS.values() for name in optimizer.settings)
"""Paths of settings that a lane holds in float64."""


def clip_norm(grads: Params, largest: Scalar) -> Params:
    """Scale a lane's gradient to a norm of at most `largest`; 0 is off."""
    if isinstance(largest, float) and largest == 0.0:
        return grads
    norm = torch.sqrt(reduce(torch.add, (g.square().sum() for g in grads.values())))
    factor = torch.where((largest > 0) & (norm > largest), largest / norm, torch.ones_like(norm))
    return {name: g * factor for name, g in grads.items()}


def clip_value(grads: Params, largest: Any) -> Params:
    """Clip every element to [-largest, largest]; 0 is off."""
    if isinstance(largest, float) and largest == 0.0:
        return grads
    bound = torch.where(largest > 0, largest, torch.inf)
    return {name: torch.minimum(torch.maximum(g, -bound), bound) for name, g in grads.items()}


def annealed_variance(eta: Scalar, step: Tensor) -> Scalar:
    """Return eta / (1 + t)^0.55, t from 0 (Neelakantan et al. 2015, eq. 1); a plain 0.0 stays 0.0."""
    if isinstance(eta, float) and eta == 0.0:
        return eta
    return eta / (1.0 + step.to(torch.float32)) ** 0.55


def add_noise(grads: Params, variance: Any, stream: Stream) -> Params:
    """Add normal noise of this variance to every element; a plain 0.0 is off."""
    if isinstance(variance, float) and variance == 0.0:
        return grads
    deviation = torch.sqrt(variance)
    noise = stream.normal((sum(g.numel() for g in grads.values()),))
    pieces = noise.split([g.numel() for g in grads.values()])
    return {n: g + deviation * z.view(g.shape) for (n, g), z in zip(grads.items(), pieces, strict=True)}


PERIODS = 4
"""Number of periods whose mean losses are kept."""


@dataclass(frozen=True, kw_only=True)
class LrDecay:
    """A learning rate that falls when the task's loss has stopped falling, decided after every `period` steps."""

    rule: Literal["never", "two_worse", "worst_of_four"] = "never"
    """two_worse: the last two periods' mean losses are above the one before (DNGPU); worst_of_four: the last is above
    the three before (Neural GPU)"""
    factor: float = 0.7
    """of the learning rate at every fall"""
    floor: float = 0.0
    """smallest factor of the learning rate"""
    period: int = 200
    """steps whose mean loss is compared"""

    def __post_init__(self) -> None:
        faults = [f"{k} = {getattr(self, k)} must lie in [0, 1]" for k in ("factor", "floor") if not 0 <= getattr(self, k) <= 1]
        if self.period < 1:
            faults.append(f"period = {self.period} must be at least 1")
        if faults:
            raise ValueError(*faults)

    @staticmethod
    def initial_memory() -> Params:
        """`factor` of the learning rate, loss `sum` of the present period, `means` [4] of the last periods, oldest first."""
        return {
            "factor": torch.ones(()),
            "sum": torch.zeros(()),
            "means": torch.full((PERIODS,), torch.inf),
        }

    def remember(self, memory: Params, loss: Tensor, step: Tensor) -> Params:
        """Return the memory after a step with this loss. `step` is the number of updates before it."""
        total = memory["sum"] + loss
        ends = (step + 1) % self.period == 0
        means = torch.cat([memory["means"][1:], (total / self.period).unsqueeze(0)])
        if self.rule == "two_worse":
            stalls = means[-2:].amin() > means[-3:].amin()
        else:
            stalls = means[-1] > means[:-1].amax()
        lower = torch.clamp(memory["factor"] * self.factor, min=self.floor)
        return {
            "factor": torch.where(ends & stalls, lower, memory["factor"]),
            "sum": torch.where(ends, 0.0, total),
            "means": torch.where(ends, means, memory["means"]),
        }
