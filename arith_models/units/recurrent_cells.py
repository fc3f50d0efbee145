"""The classical recurrent cells, in torch's form: units on [x, state] that a network with a loop repeats.

They are the recurrent baselines of Trask et al. (2018) and of Madsen and Johansen (2020).
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from arith_models.base import Context, NoSettings, Penalties, Stream, Unit


class Cell(Unit):
    """Abstract: a cell with weights W, U and two biases. Shapes: [x, state] [B, I + H state_parts] -> [B, H state_parts].

    It is built with I + H inputs and H outputs. Weights and biases are drawn from U(-1/√H, 1/√H), torch's default; torch
    has two biases for cuDNN's sake, of which only the sum matters, and so has this, so that the range of the sum is torch's.
    The sparsity error is that of W, which acts on the input.
    """

    version = 1
    is_cell = True
    gates: ClassVar[int] = 1
    """Number of blocks of H rows in W and U."""

    def __init__(self, config: NoSettings, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.hidden, rows = num_outputs, self.gates * num_outputs
        self.W_x = nn.Parameter(torch.empty(rows, num_inputs - num_outputs))
        self.W_h = nn.Parameter(torch.empty(rows, num_outputs))
        self.b_x = nn.Parameter(torch.empty(rows))
        self.b_h = nn.Parameter(torch.empty(rows))

    def initialise(self, stream: Stream) -> None:
        r = 1 / math.sqrt(self.hidden)
        for parameter in (self.W_x, self.W_h, self.b_x, self.b_h):
            parameter.copy_(stream.uniform(parameter.shape, -r, r))

    def effective_weight(self) -> Tensor:
        return self.W_x

    def split(self, x_and_state_BS: Tensor) -> tuple[Tensor, ...]:
        """Return x [B, I] and the parts of the state [B, H]."""
        return x_and_state_BS.split([self.W_x.shape[1]] + [self.hidden] * self.state_parts, dim=1)

    def from_input(self, x_BI: Tensor) -> Tensor:
        return (self.W_x @ x_BI.T).T + self.b_x

    def from_state(self, h_BH: Tensor) -> Tensor:
        return (self.W_h @ h_BH.T).T + self.b_h


class RNNTanh(Cell):
    """The plain recurrent cell: h' = tanh(W x + U h + b).

    Shapes: [x, h] [B, I + H] -> h' [B, H]. Elman, "Finding Structure in Time" (1990), in torch's form; a baseline of Madsen
    and Johansen (2020).
    """

    def forward(self, x_and_state_BS: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        x_BI, h_BH = self.split(x_and_state_BS)
        return torch.tanh(self.from_input(x_BI) + self.from_state(h_BH)), {}


class RNNReLU(Cell):
    """The plain recurrent cell with a rectifier: h' = relu(W x + U h + b).

    Shapes: [x, h] [B, I + H] -> h' [B, H]. Elman, "Finding Structure in Time" (1990), in torch's form; a baseline of Madsen
    and Johansen (2020).
    """

    def forward(self, x_and_state_BS: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        x_BI, h_BH = self.split(x_and_state_BS)
        return torch.relu(self.from_input(x_BI) + self.from_state(h_BH)), {}


class GRU(Cell):
    """The gated recurrent unit: h' = (1 - z) n + z h.

    r, z = σ(W x + U h + b), n = tanh(W x + b + r (U h + b)). Shapes: [x, h] [B, I + H] -> h' [B, H]. Cho et al., "Learning
    Phrase Representations" (2014), in torch's form; a baseline of Madsen and Johansen (2020).
    """

    gates = 3

    def forward(self, x_and_state_BS: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        x_BI, h_BH = self.split(x_and_state_BS)
        r_x, z_x, n_x = self.from_input(x_BI).chunk(3, 1)
        r_h, z_h, n_h = self.from_state(h_BH).chunk(3, 1)
        r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
        n = torch.tanh(n_x + r * n_h)
        return (1.0 - z) * n + z * h_BH, {}


class LSTM(Cell):
    """Long short-term memory with a forget gate: h' = o tanh(c'), c' = f c + i g.

    i, f, o = σ(W x + U h + b), g = tanh(W x + U h + b). Shapes: [x, h, c] [B, I + 2H] -> [h', c'] [B, 2H]. Hochreiter and
    Schmidhuber, "Long Short-Term Memory" (1997), in torch's form; a baseline of Trask et al. (2018).
    """

    gates = 4
    state_parts = 2

    def forward(self, x_and_state_BS: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        x_BI, h_BH, c_BH = self.split(x_and_state_BS)
        i, f, g, o = (self.from_input(x_BI) + self.from_state(h_BH)).chunk(4, 1)
        c_BH = torch.sigmoid(f) * c_BH + torch.sigmoid(i) * torch.tanh(g)
        return torch.cat([torch.sigmoid(o) * torch.tanh(c_BH), c_BH], 1), {}


UNITS: dict[str, type[Unit]] = {"rnn_tanh": RNNTanh, "rnn_relu": RNNReLU, "gru": GRU, "lstm": LSTM}
