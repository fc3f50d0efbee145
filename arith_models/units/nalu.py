"""NALU and its relatives: units that gate between an additive and a multiplicative branch, y = g * a + (1 - g) * m.

Trask et al., "Neural Arithmetic Logic Units" (2018), section 3; the variants are those of the code of Madsen and Johansen
(2020).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from arith_models.base import Context, Penalties, Stream, Unit
from arith_models.penalties import Shape, summed
from arith_models.units.activations import xavier
from arith_models.units.nac import (
    NAC,
    GradientBanditNAC,
    GumbelConfig,
    GumbelNAC,
    HardSoftmaxNAC,
    IndependentNAC,
    LinearNAC,
    PosNAC,
    SoftmaxNAC,
    gumbel_noise,
    nac_range,
)
from arith_models.units.nac_products import MNAC, GumbelMNAC, LogConfig, logarithm
from arith_models.units.nau_nmu import NAU, NMU


@dataclass(frozen=True, kw_only=True)
class GateConfig(GumbelConfig):
    """The settings of gates. The temperature is that of gumbel and obs_gumbel."""

    gate: Literal["normal", "regularised", "gumbel", "obs_gumbel"] = "normal"
    """regularised: a penalty on gates between 0 and 1; gumbel, obs_gumbel: noise by output, by row too (--nalu-gate)"""
    gate_bias: bool = False
    """gates have a bias, which starts at 0 (--nalu-bias)"""
    two_gates: bool = False
    """the multiplicative branch has its own gate instead of 1 - g (--nalu-two-gate)"""


class Gated(Unit):
    """y = g * a + (1 - g) * m, g = sigmoid(x Gᵀ), or g₂ * m with g₂ = sigmoid(x G₂ᵀ). Abstract: a unit defines a and m.

    Shapes: x [B, I], a, m [O, B] -> y [B, O]; G [O, I] Xavier uniform with gain 1.

    regularised: the penalty "gate", the sum over rows and outputs of g² (1 - g)², of weight 1 as published (a sum: it grows
    with the batch). gumbel, obs_gumbel: in training g = sigmoid((x Gᵀ + n) / τ), n Gumbel noise by output, or by row and
    output. Here τ falls with the step. In the published code τ never reached the gate and stayed 1:
    `lowest_temperature: 1` does the same.
    """

    version = 1

    def __init__(self, config: GateConfig, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        self.gate = nn.Parameter(torch.empty(num_outputs, num_inputs))
        if config.gate_bias:
            self.gate_bias = nn.Parameter(torch.empty(num_outputs))
        if config.two_gates:
            self.second_gate = nn.Parameter(torch.empty(num_outputs, num_inputs))
            if config.gate_bias:
                self.second_gate_bias = nn.Parameter(torch.empty(num_outputs))

    def initialise_gates(self, stream: Stream) -> None:
        for name, parameter in self.named_parameters(recurse=False):
            if name.endswith("bias"):
                parameter.zero_()
            else:
                num_outputs, num_inputs = parameter.shape
                r = xavier(num_inputs, num_outputs)
                parameter.copy_(stream.uniform(parameter.shape, -r, r))

    def gates(self, x_BI: Tensor, ctx: Context) -> tuple[Tensor, Tensor, Penalties]:
        """Return the gates [O, B] of the additive and of the multiplicative branch, and their penalties."""
        bias = self.config.gate_bias
        gate_OB = self._gate(self.gate, self.gate_bias if bias else None, x_BI, ctx)
        learnt, other_OB = [gate_OB], 1.0 - gate_OB
        if self.config.two_gates:
            other_OB = self._gate(self.second_gate, self.second_gate_bias if bias else None, x_BI, ctx)
            learnt.append(other_OB)
        if self.config.gate != "regularised":
            return gate_OB, other_OB, {}
        undecided = [(g.square() * (1.0 - g).square()).sum() for g in learnt]
        return gate_OB, other_OB, {"gate": torch.stack(undecided).sum()}

    def _gate(self, G_OI: Tensor, bias_O: Tensor | None, x_BI: Tensor, ctx: Context) -> Tensor:
        logit_OB = G_OI @ x_BI.T
        if bias_O is not None:
            logit_OB = logit_OB + bias_O.unsqueeze(1)
        if self.config.gate in ("gumbel", "obs_gumbel") and ctx.training:
            outputs, rows = logit_OB.shape
            noise = gumbel_noise(ctx.stream, (outputs, rows if self.config.gate == "obs_gumbel" else 1))
            logit_OB = (logit_OB + noise) / self.config.temperature(ctx.step)
        return torch.sigmoid(logit_OB)


ADDITIVE: dict[str, type[Unit]] = {
    "nac": NAC,
    "pos_nac": PosNAC,
    "linear_nac": LinearNAC,
    "softmax_nac": SoftmaxNAC,
    "independent_nac": IndependentNAC,
    "hard_softmax_nac": HardSoftmaxNAC,
    "gumbel_nac": GumbelNAC,
    "gradient_bandit_nac": GradientBanditNAC,
    "nau": NAU,
}
"""The units that NALU's setting `nac` names."""
MULTIPLICATIVE: dict[str, type[Unit]] = {"nac": MNAC, "nau": NMU, "gumbel_nac": GumbelMNAC}
"""The unit of the multiplicative branch with mul: direct, by the additive unit's name."""


class NALU(Gated):
    """NALU, the neural arithmetic logic unit: y = g * a + (1 - g) * m, g = sigmoid(x Gᵀ).

    a = x Wᵀ, m = exp(log(|x| + ε) Wᵀ). Shapes: x [B, I] -> y [B, O]; the NAC's Ŵ, M̂ [O, I] serve both branches; G [O, I], no
    bias. Trask et al., "Neural Arithmetic Logic Units" (2018), section 3; settings and variants of Madsen and Johansen (2020)
    and of their code.

    The gate weights the additive branch. Gates do not count towards the sparsity error; of separate weights both matrices
    do, one above the other [2 O, I]. Weights that are drawn are drawn once for both branches, unless they are separate.
    The units that `nac` names keep their own defaults and penalties; there is no R_z.

    The authors' command: --layer-type NALU, or PosNALU, LinearNALU and so on where `nac` names another unit.

    Deviations: mul: max_safe works, where the published code raises; the temperature of the gate falls (class Gated).
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(LogConfig, GateConfig):
        nac: Literal[
            "nac", "pos_nac", "linear_nac", "softmax_nac", "independent_nac", "hard_softmax_nac", "gumbel_nac",
            "gradient_bandit_nac", "nau",
        ] = "nac"  # fmt: skip
        """the unit whose weights are used; pos_nac makes a PosNALU, and so on (--layer-type)"""
        separate_weights: bool = False
        """the multiplicative branch has its own weights (--nalu-two-nac)"""
        mul: Literal["normal", "safe", "max_safe", "trig", "direct"] = "normal"
        """trig: sinh and log(x + sqrt(x² + 1) + epsilon); direct: MNAC, NMU or GumbelMNAC on x (--nalu-mul, there mnac)"""

        def __post_init__(self) -> None:
            LogConfig.__post_init__(self)
            GateConfig.__post_init__(self)
            if self.mul == "direct" and not self.separate_weights:
                raise ValueError("mul = direct needs separate weights: set separate_weights: true")
            if self.mul == "direct" and self.nac not in MULTIPLICATIVE:
                raise ValueError(f"mul = direct goes with nac: {' or '.join(MULTIPLICATIVE)}, not {self.nac}")

    config: Config

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__(config, num_inputs, num_outputs)
        self.nac = _build(ADDITIVE[config.nac], config, num_inputs, num_outputs)
        if config.separate_weights:
            kinds = MULTIPLICATIVE if config.mul == "direct" else ADDITIVE
            self.mul_nac = _build(kinds[config.nac], config, num_inputs, num_outputs)

    def initialise(self, stream: Stream) -> None:
        """NAC as published; G Xavier uniform with gain 1."""
        self.nac.initialise(stream)
        self.initialise_gates(stream)
        if self.config.separate_weights:
            self.mul_nac.initialise(stream.child("mul_nac"))

    def effective_weight(self) -> Tensor:
        units = [self.nac, self.mul_nac] if self.config.separate_weights else [self.nac]
        return torch.cat([unit.effective_weight() for unit in units])

    def forward(self, x_BI: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        W_OI, penalties = self.nac.weights(ctx)
        gate_OB, other_OB, of_gates = self.gates(x_BI, ctx)
        add_OB = W_OI @ x_BI.T
        mul_OB, of_mul = self._multiply(x_BI, W_OI, ctx)
        return (gate_OB * add_OB + other_OB * mul_OB).T, summed(penalties, of_mul, of_gates)

    def _multiply(self, x_BI: Tensor, W_OI: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        """Return the multiplicative branch [O, B] and its penalties. `W_OI` is the additive branch's weight."""
        mul, epsilon = self.config.mul, self.config.epsilon
        penalties: Penalties = {}
        if mul == "direct":
            y_BO, penalties = self.mul_nac(x_BI, ctx)
            return y_BO.T, penalties
        if self.config.separate_weights:
            W_OI, penalties = self.mul_nac.weights(ctx)
        if mul == "trig":
            logs_IB = torch.log(x_BI.T + torch.sqrt(x_BI.T.square() + 1.0) + epsilon)
            return torch.sinh(W_OI @ logs_IB), penalties
        return torch.exp(W_OI @ logarithm(x_BI.T, mul, epsilon)), penalties

    def constrain(self) -> None:
        """NAU and NMU clamp their weights; gates are free."""
        self.nac.constrain()
        if self.config.separate_weights:
            self.mul_nac.constrain()


def _build(unit: type[Unit], config: GumbelConfig, num_inputs: int, num_outputs: int) -> Unit:
    """Return a unit at its defaults; one with Gumbel noise has the temperature of this NALU."""
    own = config if issubclass(unit.Config, GumbelConfig) else unit.Config()
    return unit(own, num_inputs, num_outputs)


class GatedNAUNMU(Gated):
    """Gated NAU/NMU: y = g * a + (1 - g) * m with a of a NAU, m of an NMU, both of x, and NALU's gate g = sigmoid(x Gᵀ).

    Shapes: x [B, I] -> y [B, O]; the NAU's and the NMU's W [O, I] each, G [O, I] Xavier uniform. Madsen and Johansen,
    "Neural Arithmetic Units" (ICLR 2020), appendix: whether a gate can choose between the two.

    Initial values, clamps, penalties and R_z are those of the two units, whose penalties are summed. Both weights count
    towards the sparsity error, one above the other [2 O, I]; the gate does not.

    The authors' command: --layer-type ReRegualizedLinearNALU --nalu-two-nac --nalu-mul mnac. It is `nalu` with nac: nau,
    separate_weights: true and mul: direct, with the settings of the two units besides.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config(GateConfig, NAU.Config, NMU.Config):
        clamp: bool = True
        """clamp the parameters of both units to their bounds after every step (--oob-mode)"""
        penalty: Shape = "linear"
        """shape of the penalties of both units (--regualizer-shape)"""

        def __post_init__(self) -> None:
            GateConfig.__post_init__(self)
            NMU.Config.__post_init__(self)

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__(config, num_inputs, num_outputs)
        self.nau = NAU(config, num_inputs, num_outputs)
        self.nmu = NMU(config, num_inputs, num_outputs)

    def initialise(self, stream: Stream) -> None:
        self.nau.initialise(stream.child("nau"))
        self.nmu.initialise(stream.child("nmu"))
        self.initialise_gates(stream.child("gate"))

    def effective_weight(self) -> Tensor:
        return torch.cat([self.nau.effective_weight(), self.nmu.effective_weight()])

    def forward(self, x_BI: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        gate_OB, other_OB, of_gates = self.gates(x_BI, ctx)
        add_BO, of_nau = self.nau(x_BI, ctx)
        mul_BO, of_nmu = self.nmu(x_BI, ctx)
        return (gate_OB * add_BO.T + other_OB * mul_BO.T).T, summed(of_nau, of_nmu, of_gates)

    def input_penalty(self, mean_I: Tensor) -> Tensor:
        return self.nau.input_penalty(mean_I) + self.nmu.input_penalty(mean_I)

    def constrain(self) -> None:
        self.nau.constrain()
        self.nmu.constrain()


LOG_PHI = math.log((1 + math.sqrt(5)) / 2)


class GoldenNALU(Unit):
    """G-NALU, the golden ratio NALU: y = g * a + (1 - g) * m, with φ = (1 + sqrt 5) / 2 in place of e.

    a = x Wᵀ, m = φ^(log_φ(|x| + ε) Wᵀ), g = σφ(x Gᵀ), W = tanhφ(Ŵ) * σφ(M̂), where tanhφ(z) = (φ^2z - 1) / (φ^2z + 1) and
    σφ(z) = 1 / (1 + φ^-z). Shapes: x [B, I] -> y [B, O]; Ŵ, M̂ [O, I] serve both branches; G [O, I], no bias. Rana et al.,
    "Exploring Numerical Calculations with CalcNet" (2019), as in Mistry et al., "A Primer for Neural Arithmetic Logic
    Modules" (2021), section on G-NALU.

    The authors' command: --layer-type NALU --nalu-gate golden-ratio --nalu-mul golden-ratio --nac-weight golden-ratio.
    The gate weights the additive branch and does not count towards the sparsity error. It is computed in base e, which is
    equal: φ^z = exp(z ln φ), so tanhφ(z) = tanh(z ln φ), σφ(z) = sigmoid(z ln φ), and m = exp(log(|x| + ε) Wᵀ) is NALU's.
    The original raises φ to the power 2Ŵ, which overflows beyond Ŵ = 92 and gives inf / inf; tanh does not.
    """

    version = 1
    Config = LogConfig

    def __init__(self, config: LogConfig, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        self.W_hat = nn.Parameter(torch.empty(num_outputs, num_inputs))
        self.M_hat = nn.Parameter(torch.empty(num_outputs, num_inputs))
        self.gate = nn.Parameter(torch.empty(num_outputs, num_inputs))

    def initialise(self, stream: Stream) -> None:
        """As NALU: Ŵ, M̂ ~ U(-r, r) with r as in `nac_range`, G Xavier uniform with gain 1."""
        num_outputs, num_inputs = self.gate.shape
        r = nac_range(num_inputs, num_outputs)
        self.W_hat.copy_(stream.uniform(self.W_hat.shape, -r, r))
        self.M_hat.copy_(stream.uniform(self.M_hat.shape, -r, r))
        r = xavier(num_inputs, num_outputs)
        self.gate.copy_(stream.uniform(self.gate.shape, -r, r))

    def effective_weight(self) -> Tensor:
        return torch.tanh(LOG_PHI * self.W_hat) * torch.sigmoid(LOG_PHI * self.M_hat)

    def forward(self, x_BI: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        W_OI = self.effective_weight()
        gate_OB = torch.sigmoid(LOG_PHI * (self.gate @ x_BI.T))
        add_OB = W_OI @ x_BI.T
        mul_OB = torch.exp(W_OI @ torch.log(x_BI.T.abs() + self.config.epsilon))
        return (gate_OB * add_OB + (1.0 - gate_OB) * mul_OB).T, {}


UNITS: dict[str, type[Unit]] = {"nalu": NALU, "gated_nau_nmu": GatedNAUNMU, "g_nalu": GoldenNALU}
