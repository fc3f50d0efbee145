"""GradientBanditNAC: y = x Wᵀ with each weight drawn from 1, -1 and 0 with probabilities π = softmax(s), learnt by REINFORCE.

From the code of Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020); no experiment of the paper uses it. Gradient
bandit: Sutton and Barto (2018), section 2.8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from arith_models.additive import Additive
from arith_models.ternary import drawn, likeliest_weight, mean_weight


class GradientBanditNAC(Additive):
    """Shapes: x [B, I] -> y [B, O]; s [O, I, 3], the logits of 1, -1 and 0, which start at 0. No bias, no part in R_z.

    One draw a forward, the same for all rows; in evaluation the most probable value. Its penalty "score" is the sum of
    the draws' log-probabilities, whose gradient is onehot - π; the engine multiplies it by loss - running mean loss
    (decay 0.9, freed of its start at 0).

    Deviates: the published unit adds 1e-3 (baseline - loss) (onehot - π) to s by itself. Here that goes through the sweep's
    optimiser, whose plain form (train.optimizer: sgd, lr: 1e-3, no momentum) gives the published update, and whose Adam
    scales it. The sparsity error of a weight that is 1, -1 or 0 is 0 always.

    Of equally probable values evaluation takes the first, 1, as an argmax does. All are equal before the first step, so on
    `add` alone the unit counts as solved at step 0, which says nothing about learning.
    """

    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config:
        pass

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        self.logit = nn.Parameter(torch.empty(num_outputs, num_inputs, 3))

    def initialise(self, stream: Any) -> None:
        """s = 0: what differs between seeds is the draws."""
        self.logit.zero_()

    def effective_weight(self) -> Tensor:
        return likeliest_weight(self.logit)

    def weights(self, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        if not ctx.training:
            return self.effective_weight(), {}
        log_probability_OI3 = self.logit.log_softmax(-1)
        onehot_OI3 = drawn(log_probability_OI3.exp(), ctx.stream)
        return mean_weight(onehot_OI3), {"score": (onehot_OI3 * log_probability_OI3).sum()}
