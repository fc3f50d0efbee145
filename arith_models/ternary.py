"""Weights that are 1, -1 or 0 with learnt probabilities. The last axis of an array [O, I, 3] holds the three, in that order."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def mean_weight(probability_OI3: Tensor) -> Tensor:
    """The expected weight, [O, I]; of a one-hot array: the weight itself."""
    return probability_OI3[..., 0] - probability_OI3[..., 1]


def likeliest_weight(logit_OI3: Tensor) -> Tensor:
    """The most probable of 1, -1 and 0, [O, I]. Of equals the first, so equal logits give 1."""
    one, minus_one, zero = logit_OI3.unbind(-1)
    is_one = (one >= minus_one) & (one >= zero)
    is_minus_one = ~is_one & (minus_one >= zero)
    return is_one.to(logit_OI3.dtype) - is_minus_one.to(logit_OI3.dtype)


def drawn(probability_OI3: Tensor, stream: Any) -> Tensor:
    """A one-hot array [O, I, 3], drawn with one uniform number a weight. It has no gradient."""
    one_OI, minus_one_OI, _ = probability_OI3.detach().unbind(-1)
    u_OI = stream.uniform(one_OI.shape)
    is_one, is_zero = u_OI < one_OI, u_OI >= one_OI + minus_one_OI
    return torch.stack([is_one, ~is_one & ~is_zero, is_zero], -1).to(probability_OI3.dtype)
