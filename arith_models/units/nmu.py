"""NMU, the neural multiplication unit: y_o = prod_i (W_oi x_i + 1 - W_oi) with W in [0, 1].

Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020), section 2.3, eq. 9.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from arith_models.base import Unit
from arith_models.penalties import Shape, nmu_input, nmu_out_of_bound, nmu_sparsity
from arith_models.products import product_with_identity


class NMU(Unit):
    """Shapes: x [B, I] -> y [B, O]; W [O, I]. No bias.

    `clamp` clamps the parameter to [lower, 1] after every step (the authors' default); without it the forward clamps
    instead, as in their ablation. Penalties, unweighted: "sparsity", "out_of_bound"; see arith_models/penalties.py. Their
    older unit without any clamp (RegualizedLinearMNAC, W ~ U(1/2 - 0.866, 1/2 + 0.866)) isn't offered; the nearest is
    clamp: false.

    The authors' command: --layer-type ReRegualizedLinearNAC --nac-mul mnac, which makes the first layer a NAU.
    """

    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config:
        clamp: bool = True
        """clamp the parameter to [lower, 1] after every step; false is the paper's ablation (--oob-mode)"""
        penalty: Shape = "linear"
        """shape of the penalties (--regualizer-shape)"""
        lower: float = 0.0
        """lower bound of W (the original flag --mnac-epsilon)"""

        def __post_init__(self) -> None:
            if not 0 <= self.lower < 1:
                raise ValueError(f"lower = {self.lower} must lie in [0, 1)")

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(num_outputs, num_inputs))

    def initialise(self, stream: Any) -> None:
        """W ~ U(1/4, 3/4)."""
        self.weight.copy_(stream.uniform(self.weight.shape, 0.25, 0.75))

    def effective_weight(self) -> Tensor:
        return self.weight if self.config.clamp else self._clamped()

    def weights(self, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """W and its penalties, which NAC•,NMU uses too."""
        penalties = {"sparsity": nmu_sparsity(self.weight, self.config.penalty)}
        if not self.config.clamp:
            penalties["out_of_bound"] = nmu_out_of_bound(self.weight, self.config.penalty)
        return self.effective_weight(), penalties

    def forward(self, x_BI: Tensor, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        W_OI, penalties = self.weights(ctx)
        return product_with_identity(W_OI, x_BI), penalties

    def input_penalty(self, mean_I: Tensor) -> Tensor:
        return nmu_input(self.effective_weight(), mean_I)

    def constrain(self) -> None:
        if self.config.clamp:
            self.weight.copy_(self._clamped())

    def _clamped(self) -> Tensor:
        lower = self.config.lower
        return torch.where(self.weight < lower, lower, self.weight).clamp(max=1.0)
