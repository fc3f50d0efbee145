"""GRU: h' = (1 - z) n + z h with r, z = σ(W x + U h + b), n = tanh(W x + b + r (U h + b)). Cho et al. (2014), torch's form."""

from __future__ import annotations

import torch
from torch import Tensor

from arith_models.cells import Cell


class GRU(Cell):
    """A baseline of Madsen and Johansen (2020). Shapes: [x, h] [B, I + H] -> h [B, H]."""

    gates = 3

    def forward(self, both_BS: Tensor, ctx: object) -> tuple[Tensor, dict[str, Tensor]]:
        x_BI, h_BH = self.split(both_BS)
        r_x, z_x, n_x = self.from_input(x_BI).chunk(3, 1)
        r_h, z_h, n_h = self.from_state(h_BH).chunk(3, 1)
        r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
        n = torch.tanh(n_x + r * n_h)
        return (1.0 - z) * n + z * h_BH, {}
