"""HardSoftmaxNAC: y = x Wᵀ with each weight drawn from 1, -1 and 0 with probabilities softmax(s₁, s₂, 0).

From the code of Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020); no experiment of the paper uses it. The
gradient is that of SoftmaxNAC's W: the straight-through estimator of Bengio et al. (2013).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from arith_models.ternary import drawn, likeliest_weight, mean_weight
from arith_models.units.softmax_nac import SoftmaxNAC


class HardSoftmaxNAC(SoftmaxNAC):
    """Shapes: x [B, I] -> y [B, O]; s [O, I, 2]. One draw a forward, the same for all rows.

    Deviates: in evaluation every weight is its most probable value, so that an error is a function of the weights; the
    authors' code draws there too. The sparsity error is therefore 0 always. The value in training is the drawn weight
    exactly: the gradient's part is added as a difference that is 0.
    """

    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config:
        pass

    def effective_weight(self) -> Tensor:
        return likeliest_weight(self.logits())

    def weights(self, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        if not ctx.training:
            return self.effective_weight(), {}
        probability_OI3 = self.logits().softmax(-1)
        soft_OI = mean_weight(probability_OI3)
        return mean_weight(drawn(probability_OI3, ctx.stream)) + (soft_OI - soft_OI.detach()), {}
