"""SillyNMU, an NMU without the identity: y_o = prod_i (W_oi x_i).

From the code of Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020), whose name for it is SillyReRegualizedLinearMNAC:
what is left of the NMU (section 2.3) if an input cannot be left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from arith_models.products import product
from arith_models.units.nmu import NMU


class SillyNMU(NMU):
    """Shapes: x [B, I] -> y [B, O]; W [O, I] in [0, 1]. Initial values, clamp, penalties and settings are NMU's.

    One weight of 0 makes the product 0, so it multiplies all of its inputs or none.
    """

    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config(NMU.Config):
        pass

    def forward(self, x_BI: Tensor, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        W_OI, penalties = self.weights(ctx)
        return product(W_OI * x_BI.unsqueeze(1)), penalties
