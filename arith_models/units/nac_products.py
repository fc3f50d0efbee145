"""NAC's multiplicative relatives: products through logarithms (NAC•), and NMU's product with NAC's kinds of weights (MNAC).

NAC• is that of Trask et al., "Neural Arithmetic Logic Units" (2018). The three ways to take the logarithm are those of the
code of Madsen and Johansen (2020): normal log(|x| + ε), safe log(|x - 1| + 1), max_safe log(max(x - 1, 0) + 1). The last two
are finite at 0 and equal log x for x >= 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from arith_models.base import Context, NoSettings, Penalties, Stream, Unit
from arith_models.units.nac import NAC, GumbelConfig, PosNAC, gumbel_noise
from arith_models.units.nau_nmu import NMU, product_with_identity

LogMode = Literal["normal", "safe", "max_safe"]


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """The setting of all units that take logarithms."""

    epsilon: float = 1e-7
    """added to |x| before the logarithm"""

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise ValueError(f"epsilon = {self.epsilon} must be positive")


@dataclass(frozen=True, kw_only=True)
class LogUnitConfig(LogConfig):
    """The settings of NAC• and its relatives."""

    log: LogMode = "normal"
    """normal: log(|x| + epsilon), safe: log(|x - 1| + 1), max_safe: log(max(x - 1, 0) + 1) (--nac-mul)"""


def logarithm(x: Tensor, mode: LogMode, epsilon: float) -> Tensor:
    """Return the logarithm of each element, in one of the three ways."""
    if mode == "safe":
        return torch.log((x - 1.0).abs() + 1.0)
    if mode == "max_safe":
        return torch.log(torch.relu(x - 1.0) + 1.0)
    return torch.log(x.abs() + epsilon)


class LogUnit(Unit):
    """y = exp(log(|x| + ε) Wᵀ). Abstract: a unit passes `nac`, the layer whose W it uses.

    Shapes: x [B, I] -> y [B, O]; W [O, I]. The sign of x is lost, as published. Penalties: those of W, and "input", R_z,
    unweighted: it is that of the mean of the logarithms, which are the input of W, and with max_safe
    mean max(1 - x, 0) is added, which keeps x where max_safe has a gradient. It comes from the forward and not from
    `input_penalty`, because neither follows from the mean of x; so a network that runs the unit at several time steps
    gets it once a step.
    """

    version = 1

    def __init__(self, config: LogUnitConfig, nac: Unit) -> None:
        super().__init__()
        self.config = config
        self.nac = nac

    def initialise(self, stream: Stream) -> None:
        self.nac.initialise(stream)

    def effective_weight(self) -> Tensor:
        return self.nac.effective_weight()

    def forward(self, x_BI: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        logs_BI = logarithm(x_BI, self.config.log, self.config.epsilon)
        W_OI, penalties = self.nac.weights(ctx)
        input_terms = []
        own = self.nac.input_penalty(logs_BI.mean(0))
        if own is not None:
            input_terms.append(own)
        if self.config.log == "max_safe":
            input_terms.append(torch.relu(1.0 - x_BI).mean())
        if input_terms:
            penalties = {**penalties, "input": torch.stack(input_terms).sum()}
        return torch.exp((W_OI @ logs_BI.T).T), penalties

    def constrain(self) -> None:
        self.nac.constrain()


class NACMul(LogUnit):
    """NAC•, the multiplicative NAC: y = exp(log(|x| + ε) Wᵀ) with W = tanh(Ŵ) * sigmoid(M̂).

    Shapes: x [B, I] -> y [B, O]; Ŵ, M̂ [O, I]. The weights are a NAC's; the sign of x is lost, as published. Trask et al.,
    "Neural Arithmetic Logic Units" (2018), section 3; written NAC• by Madsen and Johansen (2020). Other ways to take the
    logarithm, and R_z: class LogUnit. The authors' command: --layer-type NAC --nac-mul normal.
    """

    Config = LogUnitConfig

    def __init__(self, config: LogUnitConfig, num_inputs: int, num_outputs: int) -> None:
        super().__init__(config, NAC(NoSettings(), num_inputs, num_outputs))


class NACMulSigma(LogUnit):
    """NAC•,σ, a NAC• that cannot divide: y = exp(log(|x| + ε) Wᵀ) with W = sigmoid(Ŵ).

    Shapes: x [B, I] -> y [B, O]; Ŵ [O, I], normal with deviation sqrt(2 / (I + O)) at first. The weights are a PosNAC's; the
    sign of x is lost, as published. Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020), section 4.1: an ablation.
    Other ways to take the logarithm: class LogUnit. The authors' command: --layer-type PosNAC --nac-mul normal --first-layer
    NAC.
    """

    Config = LogUnitConfig

    def __init__(self, config: LogUnitConfig, num_inputs: int, num_outputs: int) -> None:
        super().__init__(config, PosNAC(NoSettings(), num_inputs, num_outputs))


class NACMulNMU(LogUnit):
    """NAC•,NMU, a NAC• with NMU's weights: y = exp(log(|x| + ε) Wᵀ) with W in [0, 1].

    Shapes: x [B, I] -> y [B, O]; W [O, I]. Initial values, clamp, penalties and their settings are NMU's; the sign of x is
    lost, as published. Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020), section 4.1: an ablation.

    R_z has NMU's form, as in the authors' code, although 0, not 1, is the logarithm of a factor that changes nothing. Other
    ways to take the logarithm, and R_z: class LogUnit. The authors' command: --layer-type ReRegualizedLinearPosNAC --nac-mul
    normal --first-layer ReRegualizedLinearNAC.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(LogUnitConfig, NMU.Config):
        def __post_init__(self) -> None:
            LogUnitConfig.__post_init__(self)
            NMU.Config.__post_init__(self)

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__(config, NMU(config, num_inputs, num_outputs))


class MNAC(Unit):
    """MNAC, an NMU with a sigmoid in place of the clamp: y_o = prod_i (W_oi x_i + 1 - W_oi) with W = sigmoid(Ŵ).

    Shapes: x [B, I] -> y [B, O]; Ŵ [O, I]. No bias, no penalty, no part in R_z. From the code of Madsen and Johansen,
    "Neural Arithmetic Units" (ICLR 2020); NMU: section 2.3.

    The benchmark of Mistry et al. (2021) uses the name MNAC for NAC•, which is `nac_mul` here.
    """

    version = 1

    def __init__(self, config: NoSettings, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.W_hat = nn.Parameter(torch.empty(num_outputs, num_inputs))

    def initialise(self, stream: Stream) -> None:
        """Ŵ ~ U(-r, r), r = sqrt(3) / 2: a standard deviation of 1/2."""
        r = math.sqrt(3) / 2
        self.W_hat.copy_(stream.uniform(self.W_hat.shape, -r, r))

    def effective_weight(self) -> Tensor:
        return torch.sigmoid(self.W_hat)

    def forward(self, x_BI: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        return product_with_identity(self.effective_weight(), x_BI), {}


class GumbelMNAC(Unit):
    """GumbelMNAC: y_o = prod_i (W_oi x_i + 1 - W_oi) with W = sigmoid((Ŵ + n) / τ), n Gumbel noise.

    Shapes: x [B, I] -> y [B, O]; Ŵ [O, I], 0 at first. No bias, no penalty, no part in R_z. From the code of Madsen and
    Johansen, "Neural Arithmetic Units" (ICLR 2020); no experiment of the paper uses it.

    Noise is drawn once a forward, in training only; the temperature is τ = max(0.5, exp(-1e-5 step)) by default. In
    evaluation W = sigmoid(Ŵ). As published the noise is one Gumbel number a weight, of mean 0.577: a draw of 0 or 1 with
    probability sigmoid(Ŵ) would take the difference of two.
    """

    version = 1
    Config = GumbelConfig

    def __init__(self, config: GumbelConfig, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        self.W_hat = nn.Parameter(torch.empty(num_outputs, num_inputs))

    def initialise(self, stream: Stream) -> None:
        """Ŵ = 0: seeds differ in the noise."""
        self.W_hat.zero_()

    def effective_weight(self) -> Tensor:
        return torch.sigmoid(self.W_hat)

    def forward(self, x_BI: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        if not ctx.training:
            return product_with_identity(self.effective_weight(), x_BI), {}
        noisy_OI = self.W_hat + gumbel_noise(ctx.stream, self.W_hat.shape)
        return product_with_identity(torch.sigmoid(noisy_OI / self.config.temperature(ctx.step)), x_BI), {}


UNITS: dict[str, type[Unit]] = {
    "nac_mul": NACMul,
    "nac_mul_sigma": NACMulSigma,
    "nac_mul_nmu": NACMulNMU,
    "mnac": MNAC,
    "gumbel_mnac": GumbelMNAC,
}
