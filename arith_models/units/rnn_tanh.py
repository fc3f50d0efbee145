"""Plain recurrent cell: h' = tanh(W x + U h + b). Elman (1990), in torch's form."""

from __future__ import annotations

import torch
from torch import Tensor

from arith_models.cells import Cell


class RNNTanh(Cell):
    """A baseline of Madsen and Johansen (2020). Shapes: [x, h] [B, I + H] -> h [B, H]."""

    def forward(self, both_BS: Tensor, ctx: object) -> tuple[Tensor, dict[str, Tensor]]:
        x_BI, h_BH = self.split(both_BS)
        return torch.tanh(self.from_input(x_BI) + self.from_state(h_BH)), {}
