"""NAC•,NMU: y = exp(log(|x| + ε) Wᵀ) with an NMU's W in [0, 1].

Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020), section 4.1: the ablation in which NAC• has NMU's weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from arith_models.logarithms import LogUnit, LogUnitConfig
from arith_models.units.nmu import NMU


class NACMulNMU(LogUnit):
    """Shapes: x [B, I] -> y [B, O]. Initial values, clamp, penalties and their settings are NMU's.

    The sign of x is lost, as published. R_z has NMU's form although 0, not 1, is the logarithm that lets a product be: so
    the authors' code. The other ways to take the logarithm, and R_z: arith_models/logarithms.py. The authors' command:
    --layer-type ReRegualizedLinearPosNAC --nac-mul normal --first-layer ReRegualizedLinearNAC.
    """

    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config(LogUnitConfig, NMU.Config):
        def __post_init__(self) -> None:
            LogUnitConfig.__post_init__(self)
            NMU.Config.__post_init__(self)

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__(config, NMU(config, num_inputs, num_outputs))
