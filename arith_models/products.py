"""Products over the inputs of a unit: what NMU and its relatives share."""

from __future__ import annotations

from torch import Tensor


def product(factors_BOI: Tensor) -> Tensor:
    """The product over the last axis. Few factors are multiplied one by one: the gradient of `prod` takes cumulative
    products in both directions, a good part of a step's time for a hidden layer of 2.
    """
    if factors_BOI.shape[-1] > 8:
        return factors_BOI.prod(-1)
    first_BO, *others = factors_BOI.unbind(-1)
    for factor_BO in others:
        first_BO = first_BO * factor_BO
    return first_BO


def product_with_identity(W_OI: Tensor, x_BI: Tensor) -> Tensor:
    """y_o = prod_i (W_oi x_i + 1 - W_oi), [B, O]: an input whose weight is 0 counts as 1."""
    return product(W_OI * x_BI.unsqueeze(1) + (1.0 - W_OI))
