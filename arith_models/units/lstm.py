"""LSTM: h' = o tanh(c'), c' = f c + i g; i, f, o = σ(W x + U h + b), g = tanh(...). Hochreiter and Schmidhuber (1997)."""

from __future__ import annotations

import torch
from torch import Tensor

from arith_models.cells import Cell


class LSTM(Cell):
    """With a forget gate, as torch has it. Shapes: [x, h, c] [B, I + 2H] -> [h, c] [B, 2H]."""

    gates = 4
    state_parts = 2

    def forward(self, both_BS: Tensor, ctx: object) -> tuple[Tensor, dict[str, Tensor]]:
        x_BI, h_BH, c_BH = self.split(both_BS)
        i, f, g, o = (self.from_input(x_BI) + self.from_state(h_BH)).chunk(4, 1)
        c_BH = torch.sigmoid(f) * c_BH + torch.sigmoid(i) * torch.tanh(g)
        return torch.cat([torch.sigmoid(o) * torch.tanh(c_BH), c_BH], 1), {}
