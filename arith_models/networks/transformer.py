"""A small Transformer encoder with relative positions.

Legend of suffixes: B examples, N positions, T symbols of all bins (the sum of B N), D width, A heads, C channels of a head,
R relative positions, Q queries, M distances, S input symbols, O output symbols.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from arith_models.base import Context, Penalties, Stream, UnitFactory, check_ranges
from arith_models.looped import Looped

FAR_BELOW = -1e9
"""The score of a masked position."""
MOST_PAIRS = 2**20
"""Upper bound of the pairs of positions whose scores of one example are in memory at once; queries are taken in parts."""
GAINS = ("gain", "inner_gain")
BIASES = ("shift", "inner_shift", "inner_bias", "outer_bias")


class Transformer(Looped):
    """A Transformer encoder with relative positions: y = P norm(h) + p, h after all layers.

    h = E x; in every layer, norm(h) = g (h - mean) / deviation + s over channels, and

        h <- h + O concat_A softmax(q_i (k_j + r_clip(j - i)) / sqrt(C)) v,    q, k, v = norm(h) W
        h <- h + V relu(U norm(h) + b) + c

    Vaswani et al., "Attention Is All You Need" (2017); the norm is before each part as in Xiong et al., "On Layer
    Normalization in the Transformer Architecture" (2020). r is one vector for each distance j - i from query to key, for all
    heads: Shaw, Uszkoreit and Vaswani, "Self-Attention with Relative Position Representations" (2018), section
    3.2. Beyond `farthest` all distances on a side share one vector, and all vectors are trained on sequences longer than
    that, so nothing in the network is untrained at any length, unlike absolute positions, or the logarithmic ranges of T5.
    (One number for each head and distance, as in T5, is slower to learn: on reversing 8 symbols, two layers of 32
    channels had 98 to 100 % of sequences wrong after 1200 steps, and 75 to 92 % with vectors; three seeds each.)

    Shapes: symbols, a tuple of bins [B, n] (0 is padding, -1 lies outside of an example) -> logits, a tuple of [B, n, O].
    All bins go through one product of two matrices; each attends by itself, long ones in parts, so that two sequences of
    4001 symbols need 164 MB (but 2.1 GB once, while their operations are recorded). Outside of an example attention is
    masked, and the logits are p.

    With `shared`, all layers have the weights of one: a Universal Transformer (Dehghani et al. 2019) of a fixed number
    of steps, without the vectors that it adds for position and step.

    Deviations from Vaswani et al.: an encoder alone, since output t stands for input position t; no dropout of attention.
    """

    version = 2
    num_units = 0
    reads_symbols = True
    min_slots = max_slots = 1  # four lanes on a core take 95 ms a step each, one alone 108 (three bins)
    pieces = ("begin", "layer", "finish")

    @dataclass(frozen=True, kw_only=True)
    class Config:
        layers: int = 4
        """number of layers"""
        width: int = 64
        """channels of a symbol"""
        heads: int = 4
        """heads of the attention; a divisor of the width"""
        inner: int = 256
        """values of the hidden layer between attentions; published: 4 times the width"""
        farthest: int = 16
        """distance beyond which all positions on one side share one vector"""
        shared: bool = False
        """whether all layers have the same weights"""
        dropout: float = 0.1
        """dropout rate of embeddings, and of the outputs of each part of a layer"""

        def __post_init__(self) -> None:
            wrong = []
            if self.width >= 1 and self.heads >= 1 and self.width % self.heads:
                fitting = [n for n in range(1, self.width + 1) if self.width % n == 0]
                wrong = [f"heads = {self.heads} must divide width = {self.width}: one of {fitting}"]
            at_least_1 = ["layers", "width", "heads", "inner", "farthest"]
            check_ranges(self, {"be at least 1": at_least_1, "lie in [0, 1)": ["dropout"]}, *wrong)

    def __init__(self, config: Config, units: Sequence[UnitFactory], num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        D, F = config.width, config.inner
        shapes = {
            "gain": (D,), "shift": (D,), "look": (D, 3 * D), "gather": (D, D),
            "distance": (2 * config.farthest + 1, D // config.heads),
            "inner_gain": (D,), "inner_shift": (D,), "inner": (D, F), "inner_bias": (F,), "outer": (F, D), "outer_bias": (D,),
        }  # fmt: skip
        different = 1 if config.shared else config.layers
        self.layers = nn.ParameterDict({name: nn.Parameter(torch.empty(different, *shape)) for name, shape in shapes.items()})
        self.embedding = nn.Parameter(torch.empty(num_inputs, D))
        self.last_gain, self.last_shift = nn.Parameter(torch.empty(D)), nn.Parameter(torch.empty(D))
        self.output = nn.Parameter(torch.empty(D, num_outputs))
        self.output_bias = nn.Parameter(torch.empty(num_outputs))

    def initialise(self, stream: Stream) -> None:
        """Matrices Glorot uniform (q, k and v are three), embeddings N(0, 1), gains 1, biases 0."""
        self.embedding.data = stream.child("embedding").normal(self.embedding.shape).to(self.embedding.device)
        self.output.data = _glorot(stream.child("output"), self.output, sum(self.output.shape))
        self.last_gain.data.fill_(1.0)
        self.last_shift.data.zero_()
        self.output_bias.data.zero_()
        for name, weights in self.layers.items():
            if name in GAINS:
                weights.data.fill_(1.0)
            elif name in BIASES:
                weights.data.zero_()
            else:
                fans = 2 * self.config.width if name == "look" else sum(weights.shape[1:])
                weights.data = _glorot(stream.child(name), weights, fans)

    @classmethod
    def loop(cls, pieces: SimpleNamespace, x: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], Penalties]:
        """All layers are one piece, compiled once, with the layer's weights as an argument."""
        h_TD, layers = pieces.begin(tuple(x))
        for weights in layers:
            h_TD = pieces.layer(h_TD, tuple(x), weights)
        result: tuple[tuple[Tensor, ...], Penalties] = pieces.finish(h_TD, tuple(x))
        return result

    def begin(self, bins: tuple[Tensor, ...], ctx: Context) -> tuple[Tensor, tuple[dict[str, Tensor], ...]]:
        """Return the embeddings [T, D] of all symbols, bin after bin, and every layer's weights."""
        x_T = torch.cat([x_BN.flatten() for x_BN in bins])
        kinds = torch.arange(len(self.embedding), device=x_T.device)
        one_hot_TS = (x_T.unsqueeze(1) == kinds).to(torch.float32)
        h_TD = ctx.dropout(one_hot_TS @ self.embedding, self.config.dropout)
        weights = [
            {name: w[0 if self.config.shared else i].clone() for name, w in self.layers.items()}
            for i in range(self.config.layers)
        ]
        return h_TD, tuple(weights)

    def layer(self, h_TD: Tensor, bins: tuple[Tensor, ...], weights: dict[str, Tensor], ctx: Context) -> Tensor:
        w, rate, attended, first = weights, self.config.dropout, [], 0
        qkv_TE = _norm(h_TD, w["gain"], w["shift"]) @ w["look"]
        for x_BN in bins:
            of_bin = qkv_TE[first : first + x_BN.numel()].unflatten(0, x_BN.shape)
            attended.append(self._attend(of_bin, x_BN, w["distance"]).flatten(0, 1))
            first += x_BN.numel()
        h_TD = h_TD + ctx.dropout(torch.cat(attended) @ w["gather"], rate)
        inner = torch.relu(_norm(h_TD, w["inner_gain"], w["inner_shift"]) @ w["inner"] + w["inner_bias"])
        return h_TD + ctx.dropout(inner @ w["outer"] + w["outer_bias"], rate)

    def finish(self, h_TD: Tensor, bins: tuple[Tensor, ...], ctx: Context) -> tuple[tuple[Tensor, ...], Penalties]:
        inside_T1 = torch.cat([x_BN.flatten() for x_BN in bins]).unsqueeze(1) >= 0
        normed_TD = torch.where(inside_T1, _norm(h_TD, self.last_gain, self.last_shift), 0.0)
        y_TO = normed_TD @ self.output + self.output_bias
        of_bins = y_TO.split([x_BN.numel() for x_BN in bins])
        return tuple(y.unflatten(0, x.shape).clone() for x, y in zip(bins, of_bins, strict=True)), {}

    def _attend(self, qkv_BNE: Tensor, x_BN: Tensor, distance_RC: Tensor) -> Tensor:
        """Return the attention's output [B, N, D] of a bin; `qkv` holds q, k, v of all heads side by side."""
        length = x_BN.shape[1]
        q, k, v = qkv_BNE.unflatten(2, (3, self.config.heads, -1)).permute(2, 0, 3, 1, 4)
        mask_BN = torch.where(x_BN >= 0, 0.0, FAR_BELOW)[:, None, None, :]
        parts, size = [], max(1, MOST_PAIRS // length)
        for first in range(0, length, size):
            q_BAQC = q[..., first : first + size, :] / k.shape[3] ** 0.5
            scores = q_BAQC @ k.transpose(2, 3) + self._distance_scores(q_BAQC, distance_RC, first, length)
            parts.append(torch.softmax(scores + mask_BN, 3) @ v)
        return torch.cat(parts, 2).transpose(1, 2).flatten(2)

    def _distance_scores(self, q_BAQC: Tensor, distance_RC: Tensor, first: int, length: int) -> Tensor:
        """Return q_i r_clip(j - i) [B, A, Q, N] for the positions i from `first` on.

        The products with each of the M = Q + N distances, in ascending order, are computed first; then the rows [M] are
        concatenated and cut again, each one shorter, so that row i begins i distances earlier. Only products and views: the
        gradient of a lookup by index would take as long as everything else.
        """
        farthest, rows = self.config.farthest, q_BAQC.shape[2]
        distance_M = torch.arange(1 - rows - first, length + 1 - first, device=q_BAQC.device)
        kinds = torch.arange(-farthest, farthest + 1, device=q_BAQC.device)
        one_hot_MR = (distance_M.clamp(-farthest, farthest).unsqueeze(1) == kinds).to(torch.float32)
        all_M = q_BAQC.flatten(0, 2) @ (one_hot_MR @ distance_RC).T
        around = len(distance_M) - 1
        cut = all_M.unflatten(0, q_BAQC.shape[:3]).flatten(2)[..., rows - 1 : rows - 1 + rows * around]
        return cut.unflatten(2, (rows, around))[..., :length]


def _norm(h_TD: Tensor, gain_D: Tensor, shift_D: Tensor) -> Tensor:
    centred = h_TD - h_TD.mean(1, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(1, keepdim=True) + 1e-5) * gain_D + shift_D


def _glorot(stream: Stream, weight: Tensor, fans: int) -> Tensor:
    bound = (6.0 / fans) ** 0.5
    drawn: Tensor = stream.uniform(weight.shape, -bound, bound)
    return drawn.to(weight.device)
