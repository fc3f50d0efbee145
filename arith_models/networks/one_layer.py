"""One unit, the network of the single-module task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from arith_models.base import Context, Network, Penalties, Stream, UnitFactory
from arith_models.penalties import PenaltyConfig, weighted

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "nac": {},
    "nac_mul": {},
    "nalu": {},
    "g_nalu": {},
    "nau": {"sparsity_penalty": {"weight": 0.01, "start": 20_000.0, "end": 35_000.0}},
    "nmu": {"sparsity_penalty": {"weight": 10.0, "start": 20_000.0, "end": 35_000.0}},
    # Trained with train.clip_value: 0.1.
    "inalu": {},
    # Trained with train.lr: 5e-3. For division beta_start: 1e-9 and beta_end: 1e-7.
    "npu": {"l1": True, "beta_start": 1e-7, "beta_end": 1e-5},
    "real_npu": {"l1": True, "beta_start": 1e-7, "beta_end": 1e-5},
    "mul_mcfc_sign_inalu": {},
    # When its schedule starts and ends is not documented: NMU's steps.
    "mul_mcfc_sign_real_npu": {"gate_penalty": {"weight": 1.0, "start": 20_000.0, "end": 35_000.0}},
}
"""The paper's settings by model name, of the network and of its unit, for 50,000 steps. With 10 or 100 inputs NAU's penalty
rises from 50,000 to 75,000 of 100,000 steps. A unit that is not listed here has its own defaults and no sparsity penalty.
"""


class OneLayer(Network):
    """One unit: y = unit(x).

    Shapes: x [B, I] -> y [B, O]. Mistry et al., "A Primer for Neural Arithmetic Logic Modules" (2021), section 5.
    Penalties: see arith_models/penalties.py.
    """

    version = 1
    num_units = 1
    presets = PRESETS
    Config = PenaltyConfig

    def __init__(self, config: PenaltyConfig, units: Sequence[UnitFactory], num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        self.unit = units[0](num_inputs, num_outputs)

    def initialise(self, stream: Stream) -> None:
        self.unit.initialise(stream.child("unit"))

    def effective_weights(self) -> list[Tensor]:
        return [self.unit.effective_weight()]

    def forward(self, x_BI: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        y_BO, penalties = self.unit(x_BI, ctx)
        return y_BO, weighted(self.config, ctx.step, [(self.unit, x_BI.mean(0), penalties)])

    def constrain(self) -> None:
        self.unit.constrain()
