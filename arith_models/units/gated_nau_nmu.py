"""Gated NAU/NMU: y = g * a + (1 - g) * m with a of a NAU, m of an NMU, both of x, and NALU's gate g = sigmoid(x Gᵀ).

Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020), appendix: whether a gate can choose between the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from arith_models.gates import GateConfig, Gated
from arith_models.penalties import Shape, added
from arith_models.units.nau import NAU
from arith_models.units.nmu import NMU


class GatedNAUNMU(Gated):
    """Shapes: x [B, I] -> y [B, O]; the NAU's and the NMU's W [O, I] each, G [O, I] Xavier uniform.

    Initial values, clamps, penalties and R_z are those of the two units, whose penalties are summed. Both weights count
    towards the sparsity error, one above the other [2 O, I]; the gate does not.

    The authors' command: --layer-type ReRegualizedLinearNALU --nalu-two-nac --nalu-mul mnac. It is `nalu` with nac: nau,
    separate_weights: true and mul: direct, with the settings of the two units besides.
    """

    version = 1

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

    def initialise(self, stream: Any) -> None:
        self.nau.initialise(stream.child("nau"))
        self.nmu.initialise(stream.child("nmu"))
        self.initialise_gates(stream.child("gate"))

    def effective_weight(self) -> Tensor:
        return torch.cat([self.nau.effective_weight(), self.nmu.effective_weight()])

    def forward(self, x_BI: Tensor, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        gate_OB, other_OB, of_gates = self.opened(x_BI, ctx)
        add_BO, of_nau = self.nau(x_BI, ctx)
        mul_BO, of_nmu = self.nmu(x_BI, ctx)
        return (gate_OB * add_BO.T + other_OB * mul_BO.T).T, added(of_nau, of_nmu, of_gates)

    def input_penalty(self, mean_I: Tensor) -> Tensor:
        return self.nau.input_penalty(mean_I) + self.nmu.input_penalty(mean_I)

    def constrain(self) -> None:
        self.nau.constrain()
        self.nmu.constrain()
