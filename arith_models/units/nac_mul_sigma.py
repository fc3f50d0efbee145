"""NAC•,σ: y = exp(log(|x| + ε) Wᵀ) with W = sigmoid(Ŵ).

Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020), section 4.1: the ablation in which NAC• cannot divide.
"""

from __future__ import annotations

from dataclasses import dataclass

from arith_models.logarithms import LogUnit, LogUnitConfig
from arith_models.units.pos_nac import PosNAC


class NACMulSigma(LogUnit):
    """Shapes: x [B, I] -> y [B, O]. The weights are a PosNAC's, Ŵ normal with deviation sqrt(2 / (I + O)) at first.

    The sign of x is lost, as published. The other ways to take the logarithm: arith_models/logarithms.py. The authors'
    command: --layer-type PosNAC --nac-mul normal --first-layer NAC.
    """

    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config(LogUnitConfig):
        pass

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__(config, PosNAC(PosNAC.Config(), num_inputs, num_outputs))
