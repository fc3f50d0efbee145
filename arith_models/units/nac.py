"""The neural accumulator and its relatives: y = x Wᵀ without a bias, with different forms of W.

NAC is that of Trask et al., "Neural Arithmetic Logic Units" (2018). The others are from the code of Madsen and Johansen,
"Neural Arithmetic Units" (ICLR 2020), which uses them in no experiment of the paper unless a unit names one. None has a
penalty, a clamp or a part in R_z, unless its docstring mentions it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from arith_models.base import Context, NoSettings, Penalties, Stream, Unit, check_ranges
from arith_models.penalties import nau_input
from arith_models.units.activations import xavier


class Additive(Unit):
    """y = x Wᵀ without a bias. Abstract: a unit defines `initialise` and `effective_weight`, and, where they differ, `weights`.

    Shapes: x [B, I] -> y [B, O]; W [O, I]. The product is written (W xᵀ)ᵀ, which is quicker for few outputs.
    """

    version = 1

    def forward(self, x_BI: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        W_OI, penalties = self.weights(ctx)
        return (W_OI @ x_BI.T).T, penalties


def nac_range(num_inputs: int, num_outputs: int) -> float:
    """Return r such that tanh(U(-r, r)) * sigmoid(U(-r, r)) has the variance 2 / max(I + O, 5).

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


class NAC(Additive):
    """NAC, the neural accumulator (NAC+): y = x Wᵀ with W = tanh(Ŵ) * sigmoid(M̂).

    Shapes: x [B, I] -> y [B, O]; Ŵ, M̂ [O, I]. No bias, no penalty, no clamp; R_z of an additive layer. Trask et al.,
    "Neural Arithmetic Logic Units" (2018), section 3; initial range of Madsen and Johansen (2020).

    W is computed anew in every forward, so both hidden weights receive gradients (public versions that compute it once
    in the constructor train nothing). The authors' command: --layer-type NAC.
    """

    def __init__(self, config: NoSettings, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.W_hat = nn.Parameter(torch.empty(num_outputs, num_inputs))
        self.M_hat = nn.Parameter(torch.empty(num_outputs, num_inputs))

    def initialise(self, stream: Stream) -> None:
        """Ŵ, M̂ ~ U(-r, r), r as in `nac_range`."""
        num_outputs, num_inputs = self.W_hat.shape
        r = nac_range(num_inputs, num_outputs)
        self.W_hat.copy_(stream.uniform(self.W_hat.shape, -r, r))
        self.M_hat.copy_(stream.uniform(self.M_hat.shape, -r, r))

    def effective_weight(self) -> Tensor:
        return torch.tanh(self.W_hat) * torch.sigmoid(self.M_hat)

    def input_penalty(self, mean_I: Tensor) -> Tensor:
        return nau_input(self.effective_weight(), mean_I)


class IndependentNAC(NAC):
    """IndependentNAC, a NAC whose factors do not scale each other's gradients: y = x Wᵀ, W = tanh(Ŵ) * sigmoid(M̂).

    Shapes: x [B, I] -> y [B, O]; Ŵ, M̂ [O, I]; initial values and R_z as NAC's. From the code of Madsen and Johansen,
    "Neural Arithmetic Units" (ICLR 2020); no experiment of the paper uses it.

    With t = tanh(Ŵ) and s = sigmoid(M̂), NAC's gradients are dŴ = dW (1 - t²) s and dM̂ = dW t s (1 - s). Here
    independent: dŴ = dW (1 - t²), dM̂ = dW s (1 - s); sign: dŴ as NAC's, dM̂ = 0.1 dW sign(Ŵ) s (1 - s).
    W itself is NAC's exactly: the gradients are those of added differences that are 0.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        gradient: Literal["independent", "sign"] = "independent"
        """independent: no factor of the other hidden weight; sign: a tenth of its sign, for M̂ alone"""

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__(NoSettings(), num_inputs, num_outputs)
        self.config = config

    def weights(self, ctx: Context) -> tuple[Tensor, Penalties]:
        t_OI, s_OI = torch.tanh(self.W_hat), torch.sigmoid(self.M_hat)
        change_of_s = s_OI - s_OI.detach()
        if self.config.gradient == "sign":
            return t_OI * s_OI.detach() + 0.1 * self.W_hat.detach().sign() * change_of_s, {}
        return (t_OI * s_OI).detach() + (t_OI - t_OI.detach()) + change_of_s, {}


class PosNAC(Additive):
    """PosNAC, a NAC whose weights are positive: y = x Wᵀ with W = sigmoid(Ŵ).

    Shapes: x [B, I] -> y [B, O]; Ŵ [O, I]. It adds and cannot subtract. Madsen and Johansen, "Neural Arithmetic Units"
    (ICLR 2020), section 4.1: an ablation; under exp and log it is NAC•,σ.
    """

    def __init__(self, config: NoSettings, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.W_hat = nn.Parameter(torch.empty(num_outputs, num_inputs))

    def initialise(self, stream: Stream) -> None:
        """Ŵ normal with Xavier's standard deviation sqrt(2 / (I + O))."""
        deviation = math.sqrt(2 / sum(self.W_hat.shape))
        self.W_hat.copy_(deviation * stream.normal(self.W_hat.shape))

    def effective_weight(self) -> Tensor:
        return torch.sigmoid(self.W_hat)


class LinearNAC(Additive):
    """LinearNAC, a NAC whose weights are free: y = x Wᵀ.

    Shapes: x [B, I] -> y [B, O]; W [O, I]. Unlike `linear` it has no bias. From the code of Madsen and
    Johansen, "Neural Arithmetic Units" (ICLR 2020); no experiment of the paper uses it.

    The authors' RegualizedLinearNAC, this unit with NAU's sparsity penalty, is not available; the nearest is `nau` with
    clamp: false, whose forward clamps.
    """

    def __init__(self, config: NoSettings, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_outputs, num_inputs))

    def initialise(self, stream: Stream) -> None:
        """W Xavier uniform."""
        num_outputs, num_inputs = self.weight.shape
        r = xavier(num_inputs, num_outputs)
        self.weight.copy_(stream.uniform(self.weight.shape, -r, r))

    def effective_weight(self) -> Tensor:
        return self.weight


# Weights that are 1, -1 or 0 with learnt probabilities. The last axis of an array [O, I, 3] holds the three, in this order.


def mean_weight(probability_OI3: Tensor) -> Tensor:
    """Return the expected weight [O, I]; of a one-hot array: the weight itself."""
    return probability_OI3[..., 0] - probability_OI3[..., 1]


def likeliest_weight(logit_OI3: Tensor) -> Tensor:
    """Return the most probable of 1, -1 and 0, [O, I]. Of equals the first, so equal logits give 1."""
    one, minus_one, zero = logit_OI3.unbind(-1)
    is_one = (one >= minus_one) & (one >= zero)
    is_minus_one = ~is_one & (minus_one >= zero)
    return is_one.to(logit_OI3.dtype) - is_minus_one.to(logit_OI3.dtype)


def sample_one_hot(probability_OI3: Tensor, stream: Stream) -> Tensor:
    """Return a one-hot array [O, I, 3], sampled with one uniform number a weight. It has no gradient."""
    one_OI, minus_one_OI, _ = probability_OI3.detach().unbind(-1)
    u_OI = stream.uniform(one_OI.shape)
    is_one, is_zero = u_OI < one_OI, u_OI >= one_OI + minus_one_OI
    return torch.stack([is_one, ~is_one & ~is_zero, is_zero], -1).to(probability_OI3.dtype)


class SoftmaxNAC(Additive):
    """SoftmaxNAC: y = x Wᵀ with W = p₁ - p₂, where (p₁, p₂, p₃) = softmax(s₁, s₂, 0) for each weight.

    Shapes: x [B, I] -> y [B, O]; s [O, I, 2]. W is the mean of a choice among 1, -1 and 0, whose logits are s and 0. From
    the code of Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020); no experiment of the paper uses it.

    Initial range: that of torch.nn.init.xavier_uniform_ on [O, I, 2] in the authors' code, which takes the last axis for a
    kernel's and counts 2 I inputs and 2 O outputs.
    """

    version = 2

    def __init__(self, config: NoSettings, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.empty(num_outputs, num_inputs, 2))

    def initialise(self, stream: Stream) -> None:
        """s Xavier uniform with gain sqrt(1/2): a range of sqrt(1.5 / (I + O))."""
        num_outputs, num_inputs, choices = self.logit.shape
        r = xavier(choices * num_inputs, choices * num_outputs, gain=0.5**0.5)
        self.logit.copy_(stream.uniform(self.logit.shape, -r, r))

    def logits(self) -> Tensor:
        """Return [O, I, 3], the last of which is fixed at 0."""
        return torch.cat([self.logit, torch.zeros_like(self.logit[..., :1])], -1)

    def effective_weight(self) -> Tensor:
        return mean_weight(self.logits().softmax(-1))


class HardSoftmaxNAC(SoftmaxNAC):
    """HardSoftmaxNAC: y = x Wᵀ with each weight drawn from 1, -1 and 0 with probabilities softmax(s₁, s₂, 0).

    Shapes: x [B, I] -> y [B, O]; s [O, I, 2]. One draw a forward, the same for all rows. From the code of Madsen and
    Johansen, "Neural Arithmetic Units" (ICLR 2020); no experiment of the paper uses it. The gradient is that of
    SoftmaxNAC's W: the straight-through estimator of Bengio et al. (2013).

    Deviation: in evaluation every weight is its most probable value, so that an error is a function of the weights; the
    authors' code draws there too. The sparsity error is therefore always 0. The value in training is the drawn weight
    exactly: the gradient is that of an added difference that is 0.
    """

    def effective_weight(self) -> Tensor:
        return likeliest_weight(self.logits())

    def weights(self, ctx: Context) -> tuple[Tensor, Penalties]:
        if not ctx.training:
            return self.effective_weight(), {}
        probability_OI3 = self.logits().softmax(-1)
        soft_OI = mean_weight(probability_OI3)
        return mean_weight(sample_one_hot(probability_OI3, ctx.stream)) + (soft_OI - soft_OI.detach()), {}


@dataclass(frozen=True, kw_only=True)
class GumbelConfig:
    """The temperature of Gumbel noise: differentiable draws, Jang et al. (2017)."""

    cooling: float = 1e-5
    """rate, per step, at which the temperature exp(-cooling step) falls"""
    lowest_temperature: float = 0.5
    """where the temperature stops falling; 1 keeps it at 1"""

    def __post_init__(self) -> None:
        lowest = self.lowest_temperature
        outside = [] if 0 < lowest <= 1 else [f"lowest_temperature = {lowest} must lie in (0, 1]"]
        check_ranges(self, {"be at least 0": ["cooling"]}, *outside)

    def temperature(self, step: Tensor) -> Tensor:
        """Return max(lowest_temperature, exp(-cooling step))."""
        falling = torch.exp(-self.cooling * step)
        return torch.where(falling > self.lowest_temperature, falling, self.lowest_temperature)


def gumbel_noise(stream: Stream, shape: Sequence[int]) -> Tensor:
    """Return -log(1e-8 - log(U + 1e-8)) with U uniform on [0, 1): mean 0.577, variance 1.645; always finite."""
    return -torch.log(1e-8 - torch.log(stream.uniform(shape) + 1e-8))


class GumbelNAC(Additive):
    """GumbelNAC: y = x Wᵀ with W = p₁ - p₂, (p₁, p₂, p₃) = softmax((s + n) / τ), n Gumbel noise.

    Shapes: x [B, I] -> y [B, O]; s [O, I, 3], the logits of 1, -1 and 0, all of them learnt and 0 at first. From the code of
    Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020); no experiment of the paper uses it. Gumbel softmax: Jang et
    al. (2017).

    Noise is drawn once a forward, in training only; the temperature is τ = max(0.5, exp(-1e-5 step)) by default. In
    evaluation W is the mean p₁ - p₂ without noise at τ = 1.
    """

    Config = GumbelConfig

    def __init__(self, config: GumbelConfig, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        self.logit = nn.Parameter(torch.empty(num_outputs, num_inputs, 3))

    def initialise(self, stream: Stream) -> None:
        """s = 0, so every weight starts as 0 on average; seeds differ in the noise."""
        self.logit.zero_()

    def effective_weight(self) -> Tensor:
        return mean_weight(self.logit.softmax(-1))

    def weights(self, ctx: Context) -> tuple[Tensor, Penalties]:
        if not ctx.training:
            return self.effective_weight(), {}
        noisy_OI3 = self.logit + gumbel_noise(ctx.stream, self.logit.shape)
        return mean_weight((noisy_OI3 / self.config.temperature(ctx.step)).softmax(-1)), {}


class GradientBanditNAC(Additive):
    """GradientBanditNAC: y = x Wᵀ, each weight drawn from 1, -1 and 0 with probabilities π = softmax(s), learnt by REINFORCE.

    Shapes: x [B, I] -> y [B, O]; s [O, I, 3], the logits of 1, -1 and 0, which start at 0. From the code of Madsen and
    Johansen, "Neural Arithmetic Units" (ICLR 2020); no experiment of the paper uses it. Gradient bandit: Sutton and Barto
    (2018), section 2.8.

    One draw a forward, the same for all rows; in evaluation the most probable value. Its penalty "score" is the sum of
    the draws' log-probabilities, whose gradient is onehot - π; the engine multiplies it by loss - running mean loss
    (decay 0.9, corrected for its start at 0).

    Deviation: the published unit itself adds 1e-3 (baseline - loss) (onehot - π) to s. Here the update goes through the sweep's
    optimiser, whose plain form (train.optimizer: sgd, lr: 1e-3, no momentum) gives the published update, and whose Adam
    scales it. The sparsity error of a weight that is 1, -1 or 0 is always 0.

    Of equally probable values evaluation takes the first, 1, as an argmax does. All are equal before the first step, so on
    `add` alone the unit counts as solved at step 0, which shows nothing about learning.
    """

    def __init__(self, config: NoSettings, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.logit = nn.Parameter(torch.empty(num_outputs, num_inputs, 3))

    def initialise(self, stream: Stream) -> None:
        """s = 0: seeds differ in the draws."""
        self.logit.zero_()

    def effective_weight(self) -> Tensor:
        return likeliest_weight(self.logit)

    def weights(self, ctx: Context) -> tuple[Tensor, Penalties]:
        if not ctx.training:
            return self.effective_weight(), {}
        log_probability_OI3 = self.logit.log_softmax(-1)
        onehot_OI3 = sample_one_hot(log_probability_OI3.exp(), ctx.stream)
        return mean_weight(onehot_OI3), {"score": (onehot_OI3 * log_probability_OI3).sum()}


UNITS: dict[str, type[Unit]] = {
    "nac": NAC,
    "independent_nac": IndependentNAC,
    "pos_nac": PosNAC,
    "linear_nac": LinearNAC,
    "softmax_nac": SoftmaxNAC,
    "hard_softmax_nac": HardSoftmaxNAC,
    "gumbel_nac": GumbelNAC,
    "gradient_bandit_nac": GradientBanditNAC,
}
