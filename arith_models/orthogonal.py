"""Initial weights that are orthogonal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def orthogonal(stream: Any, shape: Sequence[int]) -> Tensor:
    """A matrix with orthonormal columns, or rows if those are fewer, uniform over all such (Saxe et al. 2014).

    The Q of a QR decomposition of normal numbers, each column with the sign that makes R's diagonal positive.
    """
    rows, columns = shape
    q, r = torch.linalg.qr(stream.normal((max(shape), min(shape))))
    q = q * torch.where(r.diagonal() < 0, -1.0, 1.0)
    return q if rows >= columns else q.T
