"""The sign of a product whose magnitude is computed in logarithms."""

from __future__ import annotations

import torch
from torch import Tensor

from arith_models.products import product


def sign_product(x_BI: Tensor, share_OI: Tensor) -> Tensor:
    """prod_i (sign(x_i) share_oi + 1 - share_oi), [B, O]: an input counts as far as its share, in [0, 1], goes."""
    return product(torch.sign(x_BI).unsqueeze(1) * share_OI + (1.0 - share_OI))
