"""NAC• (multiplicative NAC): y = exp(log(|x| + ε) Wᵀ) with W = tanh(Ŵ) * sigmoid(M̂).

Trask et al., "Neural Arithmetic Logic Units" (2018), section 3; written NAC• by Madsen and Johansen (2020).
"""

from __future__ import annotations

from dataclasses import dataclass

from arith_models.logarithms import LogUnit, LogUnitConfig
from arith_models.units.nac import NAC


class NACMul(LogUnit):
    """Shapes: x [B, I] -> y [B, O]. The weights are a NAC's; the sign of x is lost, as published.

    The other ways to take the logarithm, and R_z: arith_models/logarithms.py. The authors' command: --layer-type NAC
    --nac-mul normal.
    """

    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config(LogUnitConfig):
        pass

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__(config, NAC(NAC.Config(), num_inputs, num_outputs))
