"""What happens to a lane's gradients before the optimiser sees them. Functions of one lane."""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
from torch import Tensor

from sweeps.training.random import Stream

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
