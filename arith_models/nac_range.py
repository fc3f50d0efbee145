"""The initial range of NAC's hidden weights."""

from __future__ import annotations

import math


def nac_range(num_inputs: int, num_outputs: int) -> float:
    """r such that tanh(U(-r, r)) * sigmoid(U(-r, r)) has the variance 2 / max(I + O, 5).

    Solves max(I + O, 5) * Var(r) = 2 by bisection on [0, 10], Var(r) = (1 - tanh(r)/r) (r - tanh(r/2)) / (2r)
    (Madsen and Johansen 2020, appendix on initialisation). The floor of 5 binds for tiny layers: r = 9.47 for (2, 1).
    """
    fan = max(num_inputs + num_outputs, 5)
    low, high = 1e-9, 10.0
    for _ in range(200):
        r = (low + high) / 2
        variance = (1 - math.tanh(r) / r) * (r - math.tanh(r / 2)) / (2 * r)
        low, high = (r, high) if fan * variance < 2 else (low, r)
    return (low + high) / 2
