"""The mass-conserving units: each input's mass is distributed over the outputs, and a gate scales each output.

Hoedt et al., "MC-LSTM: Mass-Conserving LSTM" (ICML 2021); the fully connected forms are those of the code of Mistry et al.,
"A Primer for Neural Arithmetic Logic Modules" (2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from arith_models.base import Context, NoSettings, Penalties, Stream, Unit
from arith_models.penalties import RampedPenalty
from arith_models.units.inalu import sign_product
from arith_models.units.npu import gate_penalty, polar


def orthogonal(stream: Stream, shape: Sequence[int]) -> Tensor:
    """Return a matrix with orthonormal columns, or rows if those are fewer, uniform over all such (Saxe et al. 2014).

    The Q of a QR decomposition of normal numbers, each column with the sign that makes R's diagonal positive.
    """
    rows, columns = shape
    q, r = torch.linalg.qr(stream.normal((max(shape), min(shape))))
    q = q * torch.where(r.diagonal() < 0, -1.0, 1.0)
    return q if rows >= columns else q.T


class MassConserving(Unit):
    """W = o * S, S = softmax of R over the outputs, o = sigmoid(w + b). Abstract: a unit defines `forward`.

    Shapes: R, S, W [O, I]; w, b, o [O]. Every column of S adds up to 1, so with a single output S is 1 throughout, R has no
    influence on it, and all inputs take part in full. R is the identity at first if it is square, and else orthogonal; w
    is a random unit vector (with one output -1 or 1), b = 0. The original's gate is a dense layer on a constant input
    of 1, which is equal to w + b.
    """

    version = 1

    def __init__(self, config: NoSettings | SignedConfig, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.redistribution = nn.Parameter(torch.empty(num_outputs, num_inputs))
        self.gate_weight = nn.Parameter(torch.empty(num_outputs))
        self.gate_bias = nn.Parameter(torch.empty(num_outputs))

    def initialise(self, stream: Stream) -> None:
        num_outputs, num_inputs = self.redistribution.shape
        gate_O1 = orthogonal(stream, (num_outputs, 1))
        if num_outputs == num_inputs:
            nn.init.eye_(self.redistribution)
        else:
            self.redistribution.copy_(orthogonal(stream, (num_outputs, num_inputs)))
        self.gate_weight.copy_(gate_O1.squeeze(1))
        self.gate_bias.zero_()

    def shares(self) -> Tensor:
        """Return S, the share of each input's mass that an output receives."""
        return torch.softmax(self.redistribution, dim=0)

    def effective_weight(self) -> Tensor:
        return torch.sigmoid(self.gate_weight + self.gate_bias).unsqueeze(1) * self.shares()

    def growth_penalty(self) -> Tensor:
        """Return -mean R² - mean w² - mean b², which drives S and o towards 0 and 1. It has no lower bound."""
        parts = [p.square().mean() for p in (self.redistribution, self.gate_weight, self.gate_bias)]
        return -torch.stack(parts).sum()


class MCFC(MassConserving):
    """MC-FC, the mass-conserving fully connected unit: y = o * (x Sᵀ), S = softmax of R over the outputs, o = sigmoid(w + b).

    Shapes: x [B, I] -> y [B, O]; R, S [O, I]; w, b, o [O]. Hoedt et al., "MC-LSTM: Mass-Conserving LSTM" (ICML 2021), section
    on neural arithmetic; its form here is that of the code of Mistry et al. (2021).

    Every input is distributed in full over the outputs, so the unit adds but cannot subtract, and with a single output it
    cannot leave an input out. Penalty, unweighted: "sparsity", which grows the parameters (it has no lower bound).
    Initial weights, and a deviation from the original: class MassConserving.
    """

    def forward(self, x_BI: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        return (self.effective_weight() @ x_BI.T).T, {"sparsity": self.growth_penalty()}


class MassConservingProduct(MassConserving):
    """A mass-conserving unit on logarithms, with a bias c [O] of the exponent that starts at 0. Abstract, as its base."""

    def __init__(self, config: NoSettings | SignedConfig, num_inputs: int, num_outputs: int) -> None:
        super().__init__(config, num_inputs, num_outputs)
        self.bias = nn.Parameter(torch.empty(num_outputs))

    def initialise(self, stream: Stream) -> None:
        super().initialise(stream)
        self.bias.zero_()

    def product(self, log_IB: Tensor) -> Tensor:
        """Return exp(o * (log Sᵀ) + c), [O, B]."""
        return torch.exp(self.effective_weight() @ log_IB + self.bias.unsqueeze(1))


class MulMCFC(MassConservingProduct):
    """MulMCFC, MC-FC on logarithms: y = exp(o * (ln(x) Sᵀ) + c), S = softmax of R over the outputs, o = sigmoid(w + b).

    Shapes: x [B, I] -> y [B, O]; R, S [O, I]; w, b, o, c [O]. The multiplicative form of MC-FC (Hoedt et al., "MC-LSTM",
    ICML 2021) in the code of Mistry et al., "A Primer for Neural Arithmetic Logic Modules" (2021).

    For positive inputs only, as the original: the logarithm of a negative one is not a number, and a lane with
    one ends as diverged (see mul_mcfc_sign_inalu and mul_mcfc_sign_real_npu). It multiplies but does not divide. The
    bias c starts at 0. Penalty, unweighted: "sparsity", as MC-FC's.
    """

    def forward(self, x_BI: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        return self.product(torch.log(x_BI.T)).T, {"sparsity": self.growth_penalty()}


@dataclass(frozen=True, kw_only=True)
class SignedConfig:
    """The setting of products of inputs of either sign."""

    epsilon: float = 1e-7
    """smallest |x| of which the logarithm is taken"""

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise ValueError(f"epsilon = {self.epsilon} must be positive")


class MulMCFCSignINALU(MassConservingProduct):
    """MulMCFC with iNALU's sign: y = exp(o * (ln|x| Sᵀ) + c) * prod_i (sign(x_i) S_oi + 1 - S_oi).

    S = softmax of R over the outputs, o = sigmoid(w + b). Shapes: x [B, I] -> y [B, O]; R, S [O, I]; w, b, o, c [O]. In the
    code of Mistry et al., "A Primer for Neural Arithmetic Logic Modules" (2021), after Hoedt et al., "MC-LSTM" (ICML 2021),
    and Schlör et al., "iNALU" (2020).

    The bias c starts at 0. |x| is at least `epsilon`: the draws of a range around 0 hold 0 itself, whose logarithm
    would make the gradient NaN. Penalty, unweighted: "sparsity", as MC-FC's.
    """

    Config = SignedConfig

    def __init__(self, config: SignedConfig, num_inputs: int, num_outputs: int) -> None:
        super().__init__(config, num_inputs, num_outputs)
        self.config = config

    def forward(self, x_BI: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        magnitude_OB = self.product(torch.log(x_BI.T.abs().clamp(min=self.config.epsilon)))
        return magnitude_OB.T * sign_product(x_BI, self.shares()), {"sparsity": self.growth_penalty()}


class MulMCFCSignRealNPU(MassConservingProduct):
    """MulMCFC with RealNPU's sign: y = exp(o * (ln|x| Sᵀ) + c) * cos(k Sᵀ), k = π g where x < 0, else 0.

    S = softmax of R over the outputs, o = sigmoid(w + b), g in [0, 1] a gate for each input. Shapes: x [B, I] -> y [B, O];
    R, S [O, I]; w, b, o, c [O]; gate g [I]. In the code of Mistry et al., "A Primer for Neural Arithmetic Logic Modules"
    (2021), after Hoedt et al., "MC-LSTM" (ICML 2021), and Heim et al., "Neural Power Units" (NeurIPS 2020).

    The gate acts on signs alone, not on magnitudes. c starts at 0, g at 1/2. |x| is at least `epsilon`: the draws of a
    range around 0 hold 0 itself, whose logarithm would make the gradient NaN. Penalties: "sparsity" as MC-FC's,
    unweighted; "gate", weighted, mean min(|g|, |1 - g|); network one_layer sets the published weight 1. Gates do not count
    towards the sparsity error.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(SignedConfig):
        gate_penalty: RampedPenalty = field(default_factory=RampedPenalty)
        """weight and schedule of the gate's penalty (--regualizer-gate with --reg-scale-type madsen)"""

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__(config, num_inputs, num_outputs)
        self.config = config
        self.gate = nn.Parameter(torch.empty(num_inputs))

    def initialise(self, stream: Stream) -> None:
        super().initialise(stream)
        self.gate.fill_(0.5)

    def forward(self, x_BI: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        log_IB = torch.log(x_BI.T.abs().clamp(min=self.config.epsilon))
        _, k_IB = polar(x_BI, self.gate)
        y_OB = self.product(log_IB) * torch.cos(self.shares() @ k_IB)
        weight = self.config.gate_penalty.at(ctx.step)
        return y_OB.T, {"sparsity": self.growth_penalty(), "gate": weight * gate_penalty(self.gate)}


UNITS: dict[str, type[Unit]] = {
    "mcfc": MCFC,
    "mul_mcfc": MulMCFC,
    "mul_mcfc_sign_inalu": MulMCFCSignINALU,
    "mul_mcfc_sign_real_npu": MulMCFCSignRealNPU,
}
