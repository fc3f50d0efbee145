"""NALU, the neural arithmetic logic unit: y = g * a + (1 - g) * m.

a = x Wᵀ, m = exp(log(|x| + ε) Wᵀ), g = sigmoid(x Gᵀ). Trask et al., "Neural Arithmetic Logic Units" (2018), section 3;
settings and variants of Madsen and Johansen (2020) and of their code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from arith_models.gates import GateConfig, Gated
from arith_models.gumbel import GumbelConfig
from arith_models.logarithms import LogConfig, logarithm
from arith_models.penalties import added
from arith_models.units.gradient_bandit_nac import GradientBanditNAC
from arith_models.units.gumbel_mnac import GumbelMNAC
from arith_models.units.gumbel_nac import GumbelNAC
from arith_models.units.hard_softmax_nac import HardSoftmaxNAC
from arith_models.units.independent_nac import IndependentNAC
from arith_models.units.linear_nac import LinearNAC
from arith_models.units.mnac import MNAC
from arith_models.units.nac import NAC
from arith_models.units.nau import NAU
from arith_models.units.nmu import NMU
from arith_models.units.pos_nac import PosNAC
from arith_models.units.softmax_nac import SoftmaxNAC

ADDITIVE: dict[str, Any] = {
    "nac": NAC, "pos_nac": PosNAC, "linear_nac": LinearNAC, "softmax_nac": SoftmaxNAC,
    "independent_nac": IndependentNAC, "hard_softmax_nac": HardSoftmaxNAC, "gumbel_nac": GumbelNAC,
    "gradient_bandit_nac": GradientBanditNAC, "nau": NAU,
}  # fmt: skip
MULTIPLICATIVE: dict[str, Any] = {"nac": MNAC, "nau": NMU, "gumbel_nac": GumbelMNAC}
"""What mul: direct puts beside an additive unit."""


class NALU(Gated):
    """Shapes: x [B, I] -> y [B, O]; the NAC's Ŵ, M̂ [O, I] serve both branches; G [O, I], no bias.

    The gate weighs the additive branch. Gates do not count towards the sparsity error; of separate weights both matrices
    do, one above the other [2 O, I]. Weights that are drawn are drawn once for both branches, unless they are separate.
    The units that `nac` names keep their own defaults and bring their penalties along; there is no R_z.

    The authors' command: --layer-type NALU, or PosNALU, LinearNALU and so on where `nac` names another unit.

    Deviates: mul: max_safe works, where the published code raises; the temperature of the gate falls (arith_models/gates.py).
    """

    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config(LogConfig, GateConfig):
        nac: Literal[
            "nac", "pos_nac", "linear_nac", "softmax_nac", "independent_nac", "hard_softmax_nac", "gumbel_nac",
            "gradient_bandit_nac", "nau",
        ] = "nac"  # fmt: skip
        """the unit whose weights are used; pos_nac makes a PosNALU, and so on (--layer-type)"""
        separate_weights: bool = False
        """the multiplicative branch has weights of its own (--nalu-two-nac)"""
        mul: Literal["normal", "safe", "max_safe", "trig", "direct"] = "normal"
        """trig: sinh and log(x + sqrt(x² + 1) + epsilon); direct: MNAC, NMU or GumbelMNAC on x (--nalu-mul, there mnac)"""

        def __post_init__(self) -> None:
            LogConfig.__post_init__(self)
            GateConfig.__post_init__(self)
            if self.mul == "direct" and not self.separate_weights:
                raise ValueError("mul = direct needs weights of its own: set separate_weights: true")
            if self.mul == "direct" and self.nac not in MULTIPLICATIVE:
                raise ValueError(f"mul = direct goes with nac: {' or '.join(MULTIPLICATIVE)}, not {self.nac}")

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__(config, num_inputs, num_outputs)
        self.nac: Any = _made(ADDITIVE[config.nac], config, num_inputs, num_outputs)
        if config.separate_weights:
            kinds = MULTIPLICATIVE if config.mul == "direct" else ADDITIVE
            self.mul_nac: Any = _made(kinds[config.nac], config, num_inputs, num_outputs)

    def initialise(self, stream: Any) -> None:
        """NAC as published; G Xavier uniform with gain 1."""
        self.nac.initialise(stream)
        self.initialise_gates(stream)
        if self.config.separate_weights:
            self.mul_nac.initialise(stream.child("mul_nac"))

    def effective_weight(self) -> Tensor:
        units = [self.nac, self.mul_nac] if self.config.separate_weights else [self.nac]
        return torch.cat([unit.effective_weight() for unit in units])

    def forward(self, x_BI: Tensor, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        W_OI, penalties = self.nac.weights(ctx)
        gate_OB, other_OB, of_gates = self.opened(x_BI, ctx)
        add_OB = W_OI @ x_BI.T
        mul_OB, of_mul = self._multiplied(x_BI, W_OI, ctx)
        return (gate_OB * add_OB + other_OB * mul_OB).T, added(penalties, of_mul, of_gates)

    def _multiplied(self, x_BI: Tensor, W_OI: Tensor, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The multiplicative branch [O, B]. `W_OI` is the additive branch's weight."""
        mul, epsilon, penalties = self.config.mul, self.config.epsilon, {}
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
        """Gates are free; of the units, NAU and NMU clamp their weights."""
        self.nac.constrain()
        if self.config.separate_weights:
            self.mul_nac.constrain()


def _made(unit: Any, config: Any, num_inputs: int, num_outputs: int) -> Any:
    """A unit at its defaults; one with Gumbel noise takes the temperature of this NALU."""
    own = config if issubclass(unit.Config, GumbelConfig) else unit.Config()
    return unit(own, num_inputs, num_outputs)
