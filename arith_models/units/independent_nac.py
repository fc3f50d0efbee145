"""IndependentNAC: y = x Wᵀ with NAC's W = tanh(Ŵ) * sigmoid(M̂), whose factors do not weigh each other's gradients.

From the code of Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020); no experiment of the paper uses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from arith_models.units.nac import NAC


class IndependentNAC(NAC):
    """Shapes: x [B, I] -> y [B, O]; Ŵ, M̂ [O, I], initial values as NAC's.

    With t = tanh(Ŵ) and s = sigmoid(M̂), NAC's gradients are dŴ = dW (1 - t²) s and dM̂ = dW t s (1 - s). Here
    independent: dŴ = dW (1 - t²), dM̂ = dW s (1 - s); sign: dŴ as NAC's, dM̂ = 0.1 dW sign(Ŵ) s (1 - s).
    W itself is NAC's exactly: the gradients hang on differences that are 0.
    """

    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config(NAC.Config):
        gradient: Literal["independent", "sign"] = "independent"
        """independent: no factor of the other hidden weight; sign: a tenth of its sign, for M̂ alone"""

    config: Config

    def weights(self, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        t_OI, s_OI = torch.tanh(self.W_hat), torch.sigmoid(self.M_hat)
        change_of_s = s_OI - s_OI.detach()
        if self.config.gradient == "sign":
            return t_OI * s_OI.detach() + 0.1 * self.W_hat.detach().sign() * change_of_s, {}
        return (t_OI * s_OI).detach() + (t_OI - t_OI.detach()) + change_of_s, {}
