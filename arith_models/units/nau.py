"""NAU, the neural addition unit: y = x Wᵀ with W in [-1, 1].

Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020), section 2.2, eq. 5 to 7.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from arith_models.additive import Additive
from arith_models.penalties import Shape, nau_input, nau_out_of_bound, nau_sparsity


class NAU(Additive):
    """Shapes: x [B, I] -> y [B, O]; W [O, I]. No bias.

    The forward clamps W as the authors' code does; `clamp` also clamps the parameter itself after every step, which is
    their default. Penalties, unweighted: "sparsity" (eq. 7), "out_of_bound"; see arith_models/penalties.py. Their older unit
    without any clamp (RegualizedLinearNAC) isn't offered; the nearest is clamp: false.

    The authors' command: --layer-type ReRegualizedLinearNAC --regualizer 0.01 --regualizer-scaling-start 5000
    --regualizer-scaling-end 50000.
    """

    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config:
        clamp: bool = True
        """clamp the parameter to [-1, 1] after every step; false is the paper's ablation (--oob-mode)"""
        penalty: Shape = "linear"
        """shape of the penalties (--regualizer-shape)"""

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(num_outputs, num_inputs))

    def initialise(self, stream: Any) -> None:
        """W ~ U(-r, r), r = min(1/2, sqrt(6 / (I + O)))."""
        num_outputs, num_inputs = self.weight.shape
        r = min(0.5, math.sqrt(6 / (num_inputs + num_outputs)))
        self.weight.copy_(stream.uniform(self.weight.shape, -r, r))

    def effective_weight(self) -> Tensor:
        return self.weight.clamp(-1.0, 1.0)

    def weights(self, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        penalties = {"sparsity": nau_sparsity(self.weight, self.config.penalty)}
        if not self.config.clamp:
            penalties["out_of_bound"] = nau_out_of_bound(self.weight, self.config.penalty)
        return self.effective_weight(), penalties

    def input_penalty(self, mean_I: Tensor) -> Tensor:
        return nau_input(self.effective_weight(), mean_I)

    def constrain(self) -> None:
        if self.config.clamp:
            self.weight.copy_(self.weight.clamp(-1.0, 1.0))
