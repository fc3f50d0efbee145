"""MC-FC, the mass-conserving fully connected unit: y = o * (x Sᵀ), S = softmax of R over the outputs, o = sigmoid(w + b).

Hoedt et al., "MC-LSTM: Mass-Conserving LSTM" (ICML 2021), section on neural arithmetic; its form here is that of the code of
Mistry et al. (2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from arith_models.mass_conserving import MassConserving


class MCFC(MassConserving):
    """Shapes: x [B, I] -> y [B, O]; R, S [O, I]; w, b, o [O].

    Every input is shared out in full between the outputs, so it adds but cannot subtract, and with a single output it
    cannot leave an input out. Penalty, unweighted: "sparsity", which grows the parameters (it has no lower bound).
    Initial weights, and what the original writes otherwise: arith_models/mass_conserving.py.
    """

    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config:
        pass

    def forward(self, x_BI: Tensor, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        return (self.effective_weight() @ x_BI.T).T, {"sparsity": self.growth_penalty()}
