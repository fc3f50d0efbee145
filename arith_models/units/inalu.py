"""iNALU: a NALU with signs, separate weights, a gate that does not depend on the input, and restarts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from arith_models.base import Context, Penalties, Stream, Unit, check_ranges
from arith_models.penalties import Steps
from arith_models.units.nau_nmu import product


def sign_product(x_BI: Tensor, share_OI: Tensor) -> Tensor:
    """Return prod_i (sign(x_i) share_oi + 1 - share_oi), [B, O], the sign of a product of powers of x.

    A share in [0, 1] is the degree to which an input counts.
    """
    return product(torch.sign(x_BI).unsqueeze(1) * share_OI + (1.0 - share_OI))


class INALU(Unit):
    """iNALU, the improved NALU: y = g * a + (1 - g) * m * s.

    a = x Waᵀ, m = exp(min(log(max(|x|, ε)) Wmᵀ, 20)), s_o = prod_i (sign(x_i) |Wm_oi| + 1 - |Wm_oi|), g = sigmoid of a vector
    that does not depend on x, W = tanh(Ŵ) * sigmoid(M̂) for each branch. Shapes: x [B, I] -> y [B, O]; Ŵ and M̂ of both
    branches [O, I], gate [O]. Schlör, Ring and Hotho, "iNALU: Improved Neural Arithmetic Logic Unit" (2020), section on the
    improvements; settings of Mistry et al. (2021).

    The effective weights are those of both branches, [2 O, I], and the sparsity error is the larger one (the original
    logs their mean). Penalty "discreteness", weighted: c times the sum over the five parameters p of
    mean max(reach - |p|, 0), while the error is below `penalty_below` and the step above `penalty_start`.

    Two more of the paper's improvements: clipping every element of the gradient to [-0.1, 0.1] is a setting of training,
    train.clip_value: 0.1; starting again when learning stalls is `restarts`.

    Deviation: the original considers a restart at every tenth step, here it is at every evaluation.
    """

    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config:
        epsilon: float = 1e-7
        """smallest |x| of which the logarithm is taken"""
        largest_exponent: float = 20.0
        """upper bound of the exponent of the multiplicative branch"""
        penalty: float = 0.05
        """weight c of the penalty that drives weights and gates towards saturation"""
        penalty_reach: float = 20.0
        """magnitude of a parameter beyond which it is not penalised"""
        penalty_below: float = 1.0
        """the penalty acts while the interpolation error of the last evaluation is below this"""
        penalty_start: Steps = 10_000.0
        """the penalty acts after this step"""
        reinit: bool = True
        """start again with other weights when learning stalls (--reinit)"""
        reinit_stored: int = 5000
        """steps since the last start before a new one is considered"""
        reinit_threshold: float = 1.0
        """mean error above which a stalled lane starts again"""

        def __post_init__(self) -> None:
            ranges = {
                "be above 0": ["epsilon", "largest_exponent", "penalty_reach"],
                "be at least 0": ["penalty", "penalty_start", "reinit_stored"],
            }
            check_ranges(self, ranges)

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        shape = num_outputs, num_inputs
        self.Wa_hat, self.Ma_hat = nn.Parameter(torch.empty(shape)), nn.Parameter(torch.empty(shape))
        self.Wm_hat, self.Mm_hat = nn.Parameter(torch.empty(shape)), nn.Parameter(torch.empty(shape))
        self.gate = nn.Parameter(torch.empty(num_outputs))

    def initialise(self, stream: Stream) -> None:
        """Ŵ ~ N(0.88, 0.2), M̂ ~ N(0.5, 0.2), gate ~ N(0, 0.2), given as mean and standard deviation."""
        for hats, mean in (
            ((self.Wa_hat, self.Wm_hat), 0.88),
            ((self.Ma_hat, self.Mm_hat), 0.5),
            ((self.gate,), 0.0),
        ):
            for hat in hats:
                hat.copy_(mean + 0.2 * stream.normal(hat.shape))

    def _weights(self) -> tuple[Tensor, Tensor]:
        add_OI = torch.tanh(self.Wa_hat) * torch.sigmoid(self.Ma_hat)
        return add_OI, torch.tanh(self.Wm_hat) * torch.sigmoid(self.Mm_hat)

    def effective_weight(self) -> Tensor:
        return torch.cat(self._weights())

    def forward(self, x_BI: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        c, x_IB = self.config, x_BI.T
        Wa_OI, Wm_OI = self._weights()
        exponent_OB = Wm_OI @ torch.log(x_IB.abs().clamp(min=c.epsilon))
        mul_OB = torch.exp(exponent_OB.clamp(max=c.largest_exponent)) * sign_product(x_BI, Wm_OI.abs()).T
        gate_O1 = torch.sigmoid(self.gate).unsqueeze(1)
        y_OB = gate_O1 * (Wa_OI @ x_IB) + (1.0 - gate_O1) * mul_OB
        return y_OB.T, {"discreteness": self._discreteness(ctx)}

    def _discreteness(self, ctx: Context) -> Tensor:
        c = self.config
        acts = (ctx.last_error < c.penalty_below) & (ctx.step > c.penalty_start)
        parts = [torch.relu(c.penalty_reach - p.abs()).mean() for p in self.parameters()]
        value = c.penalty * torch.stack(parts).sum()
        return torch.where(acts, value, torch.zeros_like(value))

    @staticmethod
    def restarts(config: Config, errors: Sequence[float], interval: int) -> bool:
        """Return whether learning stalls: the mean error in the first half of the steps since the last start is at most the
        mean in the second half plus one standard deviation, and the latter mean is above `reinit_threshold`.

        The original stores the latest evaluated error at every step and tests at every tenth, once more than 5000 are
        stored. Here every evaluation counts as `interval` stored values.
        """
        if not config.reinit or len(errors) * interval <= config.reinit_stored:
            return False
        stored = [error for error in errors for _ in range(2)]  # so that an odd number has two equal halves
        first, second = stored[: len(errors)], stored[len(errors) :]
        before, now = _mean(first), _mean(second)
        deviation = math.sqrt(_mean([(error - now) ** 2 for error in second]))
        return now > config.reinit_threshold and before <= now + deviation


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
