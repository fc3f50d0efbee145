"""An LSTM encoder and an LSTM decoder with attention: the Neural GPU paper's baseline.

Legend of suffixes: B examples of all bins, N positions, H hidden values, I inputs of a layer, S input symbols, O output
symbols.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from arith_models.base import Context, Penalties, Stream, UnitFactory, check_ranges
from arith_models.looped import Looped

State = tuple[tuple[Tensor, Tensor], ...]
"""h and c [B, H] of every layer, the lowest first."""
FAR_BELOW = -1e9
"""The score of a masked position."""


class LSTMAttention(Looped):
    """An LSTM encoder and decoder with attention: y = O [d, a] + b at every position.

    Encoder: e_t = LSTM(E x_t) over positions t. Decoder, which starts from the encoder's last state:

        d_t = LSTM([a_(t-1), F p_(t-1)]), u_i = v tanh(W e_i + U d_t), a_t = sum_i softmax(u)_i e_i, y_t = O [d_t, a_t] + b

    where LSTM is `layers` layers (i, f, o = σ(.), g = tanh(.), c' = f c + i g, h' = o tanh(c')), e_t and d_t are the highest
    layer's h, and p_t = softmax(y_t); a and p are 0 before the first position. Kaiser and Sutskever, "Neural GPUs Learn
    Algorithms" (ICLR 2016), section 3 and table 1 (3 layers of 64, about 200,000 parameters), where the attention is that of
    Vinyals et al., "Grammar as a Foreign Language" (2015), section 2.1, after Bahdanau, Cho and Bengio, "Neural Machine
    Translation by Jointly Learning to Align and Translate" (2014).

    Shapes: symbols, a tuple of bins [B, n] (0 is padding, -1 lies outside of an example) -> logits, a tuple of [B, n, O].
    Bins are one batch, padded to the longest. Outside of an example states stay as they are, attention is masked, and the
    logits are b.

    Deviations: output t belongs to input position t, so there is no symbol that ends a sequence. The original is trained with
    teacher forcing: an input of the decoder is the correct previous symbol, to which a network has no access here. The
    network's softmax replaces it, in training and in tests, where the original has its likeliest symbol. (Without any input
    in its place, three seeds were no worse on binary addition of 13 positions after 1000 steps: p is a function of d and a,
    which are inputs of the next position anyway.) The original reads the input in reverse if it is as in Vinyals et al., which
    the Neural GPU paper does not state. A layer has one bias, not the sum of two.
    """

    version = 2
    num_units = 0
    reads_symbols = True
    max_slots = 4  # four lanes on a core take 140 ms a step each, one alone 234 (three bins)
    pieces = ("begin", "encode", "recall", "decode", "finish")

    @dataclass(frozen=True, kw_only=True)
    class Config:
        layers: int = 3
        """number of layers of the encoder, and of the decoder"""
        hidden: int = 64
        """number of values in a layer, and in the embedding of a symbol"""
        dropout: float = 0.0
        """dropout rate of values passed from layer to layer, not from position to position (Zaremba et al. 2014)"""

        def __post_init__(self) -> None:
            check_ranges(self, {"be at least 1": ["layers", "hidden"], "lie in [0, 1)": ["dropout"]})

    def __init__(self, config: Config, units: Sequence[UnitFactory], num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        H, above = config.hidden, [config.hidden] * (config.layers - 1)
        self.embedding = nn.Parameter(torch.empty(num_inputs, H))
        self.output_embedding = nn.Parameter(torch.empty(num_outputs, H))
        self.encoder = nn.ModuleList([LSTMLayer(inputs, H) for inputs in [H, *above]])
        self.decoder = nn.ModuleList([LSTMLayer(inputs, H) for inputs in [2 * H, *above]])
        self.of_memory = nn.Parameter(torch.empty(H, H))
        self.of_decoder = nn.Parameter(torch.empty(H, H))
        self.score = nn.Parameter(torch.empty(H))
        self.output = nn.Parameter(torch.empty(2 * H, num_outputs))
        self.output_bias = nn.Parameter(torch.empty(num_outputs))

    def initialise(self, stream: Stream) -> None:
        """U(-1/√H, 1/√H) as in torch's LSTM and Linear, H being a layer's values or a product's inputs; embeddings N(0, 1)."""
        for name in ("embedding", "output_embedding"):
            weight = getattr(self, name)
            weight.data = stream.child(name).normal(weight.shape).to(weight.device)
        for name in ("of_memory", "of_decoder", "score", "output", "output_bias"):
            weight = getattr(self, name)
            fan_in = len(self.output) if name.startswith("output") else self.config.hidden
            r = 1 / math.sqrt(fan_in)
            weight.data = stream.child(name).uniform(weight.shape, -r, r).to(weight.device)
        for name, layers in (("encoder", self.encoder), ("decoder", self.decoder)):
            for i, layer in enumerate(layers):
                assert isinstance(layer, LSTMLayer)
                layer.initialise(stream.child(f"{name} {i}"))

    @classmethod
    def loop(cls, pieces: SimpleNamespace, x: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], Penalties]:
        """Encode position by position, then decode; only the decoder's memory has a shape that depends on the length."""
        x_BN, state, output = pieces.begin(tuple(x))
        read, logits = [], []
        for symbols_B in x_BN.unbind(-1):
            state = pieces.encode(symbols_B, state)
            read.append(state[-1][0])
        memory = pieces.recall(x_BN, torch.stack(read, -2))
        for symbols_B in x_BN.unbind(-1):
            state, output = pieces.decode(symbols_B, state, output, memory)
            logits.append(output["logits"])
        result: tuple[tuple[Tensor, ...], Penalties] = pieces.finish(tuple(x), torch.stack(logits, -2))
        return result

    def begin(self, bins: tuple[Tensor, ...], ctx: Context) -> tuple[Tensor, State, dict[str, Tensor]]:
        """Return the symbols [B, N] of all bins, the first state, and the decoder's output before the first position."""
        longest = max(x_BN.shape[1] for x_BN in bins)
        x_BN = torch.cat([nn.functional.pad(x, (0, longest - x.shape[1]), value=-1) for x in bins])

        def zeros(width: int) -> Tensor:
            return x_BN.new_zeros((len(x_BN), width), dtype=torch.float32)

        H = self.config.hidden
        state = tuple((zeros(H), zeros(H)) for _ in self.encoder)
        output = {"attended": zeros(H), "symbol": zeros(H), "logits": zeros(len(self.output_bias))}
        return x_BN, state, output

    def encode(self, symbols_B: Tensor, state: State, ctx: Context) -> State:
        kinds = torch.arange(len(self.embedding), device=symbols_B.device)
        one_hot_BS = (symbols_B.unsqueeze(1) == kinds).to(torch.float32)
        return self._step(self.encoder, one_hot_BS @ self.embedding, state, symbols_B >= 0, ctx)

    def recall(self, x_BN: Tensor, e_BNH: Tensor, ctx: Context) -> dict[str, Tensor]:
        """Return the attention's `values` e and `keys` W e [B, N, H], and its mask, `scores` [B, N]."""
        keys = (e_BNH.flatten(0, 1) @ self.of_memory).unflatten(0, e_BNH.shape[:2])
        return {"values": e_BNH, "keys": keys, "scores": torch.where(x_BN >= 0, 0.0, FAR_BELOW)}

    def decode(
        self,
        symbols_B: Tensor,
        state: State,
        output: dict[str, Tensor],
        memory: dict[str, Tensor],
        ctx: Context,
    ) -> tuple[State, dict[str, Tensor]]:
        inside_B = symbols_B >= 0
        before = torch.cat([output["attended"], output["symbol"]], 1)
        state = self._step(self.decoder, before, state, inside_B, ctx)
        d_BH = state[-1][0]
        query_B1H = (d_BH @ self.of_decoder).unsqueeze(1)
        u_BN = (self.score * torch.tanh(memory["keys"] + query_B1H)).sum(2) + memory["scores"]
        a_BH = (torch.softmax(u_BN, 1).unsqueeze(2) * memory["values"]).sum(1)
        seen_BI = torch.where(inside_B.unsqueeze(1), torch.cat([d_BH, a_BH], 1), 0.0)
        logits_BO = seen_BI @ self.output + self.output_bias
        symbol_BH = torch.softmax(logits_BO, 1) @ self.output_embedding
        return state, {"attended": a_BH, "symbol": symbol_BH, "logits": logits_BO}

    def finish(self, bins: tuple[Tensor, ...], y_BNO: Tensor, ctx: Context) -> tuple[tuple[Tensor, ...], Penalties]:
        of_bins = y_BNO.split([len(x) for x in bins])
        return tuple(y[:, : x.shape[1]].clone() for x, y in zip(bins, of_bins, strict=True)), {}

    def _step(self, layers: Iterable[nn.Module], x_BI: Tensor, state: State, inside_B: Tensor, ctx: Context) -> State:
        new: list[tuple[Tensor, Tensor]] = []
        for i, (layer, (h_BH, c_BH)) in enumerate(zip(layers, state, strict=True)):
            x_BI = ctx.dropout(x_BI, self.config.dropout) if i else x_BI
            h_new, c_new = layer(x_BI, h_BH, c_BH)
            x_BI = torch.where(inside_B.unsqueeze(1), h_new, h_BH)
            new.append((x_BI, torch.where(inside_B.unsqueeze(1), c_new, c_BH)))
        return tuple(new)


class LSTMLayer(nn.Module):
    """i, f, g, o = [x, h] W + b in one product. Shapes: x [B, I], h and c [B, H] -> h', c' [B, H]; W [I + H, 4H]."""

    def __init__(self, num_inputs: int, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_inputs + hidden, 4 * hidden))
        self.bias = nn.Parameter(torch.empty(4 * hidden))

    def initialise(self, stream: Stream) -> None:
        r = 2 / math.sqrt(len(self.bias))
        for name in ("weight", "bias"):
            parameter = getattr(self, name)
            parameter.data = stream.child(name).uniform(parameter.shape, -r, r).to(parameter.device)

    def forward(self, x_BI: Tensor, h_BH: Tensor, c_BH: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = (torch.cat([x_BI, h_BH], 1) @ self.weight + self.bias).chunk(4, 1)
        c_BH = torch.sigmoid(f) * c_BH + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c_BH), c_BH
