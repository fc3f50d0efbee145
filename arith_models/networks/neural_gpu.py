"""The Neural GPU: convolutional gated recurrent units on a mental image, and its curriculum over lengths.

Legend of suffixes: N positions of the line, n of a bin, B batch, H rows of the image (4), M maps (channels), R sets of weights,
S input symbols, O output symbols.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from arith_models.base import Context, Memory, Observation, Penalties, Scalar, Stream, UnitFactory, check_ranges
from arith_models.lines import LineNetwork, State, lay_out, linear, neighbours, one_hot, read_out

HEIGHT = 4
"""Number of rows of the image."""
GATE_BIAS = 1.0
TOLERATED = 0.02
"""Sequence error below which gradients have no noise."""


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """A curriculum over lengths: train on longer examples once the shorter ones are learnt (Kaiser and Sutskever 2016, 3.3).

    It chooses the length of the next batch, and moves on to the next longer length when the mean sequence error of `period`
    steps, of batches within the curriculum, is below `bound`. Mixing, paper: the current length, but with probability 0.2 one
    from all lengths. code: uniform up to the current length; with probability 0.6 the larger of two draws; with 0.25 the
    larger of it and a draw from all lengths.
    """

    mixing: Literal["paper", "code"] = "paper"
    first: float = 6.0
    """the length at the start"""
    bound: float = 0.1
    """sequence error below which it moves on: the paper's example is 0.1, the code has 0.12 and 0.15"""
    period: int = 200
    """steps between two tests of the bound, the fewest that a length takes; the code of 2015 has 100, that of 2016 has 200"""

    def __post_init__(self) -> None:
        outside = [] if 0 < self.bound <= 1 else [f"bound = {self.bound} must lie in (0, 1]"]
        check_ranges(self, {"be at least 1": ["first", "period"]}, *outside)

    def initial_memory(self) -> Memory:
        """Return the curriculum's `length`, the sum and number of sequence errors in this period, the last period's `error`."""
        return {
            "length": torch.tensor(float(self.first)),
            "error_sum": torch.zeros(()),
            "batches": torch.zeros(()),
            "error": torch.ones(()),
        }

    def next_length(self, memory: Memory, stream: Stream, shortest: int, longest: int) -> Tensor:
        """As `Network.next_length`."""
        present = memory["length"].clamp(min=float(shortest), max=float(longest))
        u = stream.uniform((5,))

        def between(part: Tensor, high: Scalar) -> Tensor:
            return torch.floor(shortest + part * (high - shortest + 1.0))

        anywhere = between(u[0], longest)
        if self.mixing == "paper":
            return torch.where(u[1] < 0.2, anywhere, present)
        length = between(u[1], present)
        length = torch.where(u[2] < 0.6, torch.maximum(length, between(u[3], present)), length)
        return torch.where(u[4] < 0.25, torch.maximum(length, anywhere), length)

    def remember(self, memory: Memory, error: Tensor, length: Tensor, step: Tensor, shortest: int) -> tuple[Memory, Tensor]:
        """Return the memory after a step whose batch had this sequence error and length, and whether the curriculum moves on.

        `shortest` is the task's shortest length: a curriculum that begins below it begins there.
        """
        present = memory["length"].clamp(min=float(shortest))
        within = (length <= present).to(torch.float32)
        total, batches = memory["error_sum"] + within * error, memory["batches"] + within
        ends = (step + 1) % self.period == 0
        mean = torch.where(batches > 0, total / batches.clamp(min=1.0), memory["error"])
        moves_on = ends & (mean < self.bound) & (batches > 0)
        return {
            "length": torch.where(moves_on, present + 1.0, present),
            "error_sum": torch.where(ends, 0.0, total),
            "batches": torch.where(ends, 0.0, batches),
            "error": torch.where(ends, mean, memory["error"]),
        }, moves_on


class NeuralGPU(LineNetwork):
    """The Neural GPU: y = O s_n + b, where the image s is as wide, and the number of steps n as large, as the input is long.

    The first row of s_0 is the embedded input, the other three are 0. For as many steps as there are positions, and in each
    for every layer:

        u = σ'(U_u * s + b_u + 1), r = σ'(U_r * s + b_r + 1), s <- u s + (1 - u) tanh(U_c * (r s) + b_c)

    * is a 3 x 3 convolution over positions and rows, σ'(x) = clip(1.2 σ(x) - 0.1, 0, 1). After as many steps as the example
    is long, the logits y are a linear map of the first row. Kaiser and Sutskever, "Neural GPUs Learn Algorithms" (ICLR 2016),
    arXiv 1511.08228, sections 2 and 3.3; what the paper leaves open is as in the published code of 2016.

    Shapes: symbols, a tuple of bins [B, n] (0 is padding, -1 lies outside of an example, where the state is kept at 0) ->
    logits, a tuple of [B, n, O]. The four rows of a position are one vector of 4 M numbers, and a convolution is a product
    with a matrix of blocks, in which rows that do not touch have zeros: a third more arithmetic, in products twice as fast.

    Relaxation: step t uses set t mod R of R sets of weights. Penalty: `pull` times the squared distance of the sets from
    their mean. Curriculum: when it moves on, the pull grows by a factor, or, once it is at
    `most_pull`, all sets become their mean.

    Published training (the code of 2016), as the definition neural-gpu-binary-addition has it: Adam, `lr: 1e-3, epsilon: 1e-4,
    clip_norm: 1.0, batch: 32, lr_decay: {rule: worst_of_four, factor: 0.98, period: 200}`.

    Deviations: gradient noise is normal, where the code truncates it (and, by a slip, drops it); with 3 x 3 kernels only.
    """

    version = 2
    num_units = 0
    reads_symbols = True
    has_curriculum = True
    lanes_apart = True  # every lane has its own length
    reported_memory = ("length", "pull")
    pieces = ("sets", "begin", "cell", "finish")

    @dataclass(frozen=True, kw_only=True)
    class Config:
        maps: int = 24
        """m; the code of 2016 has 128"""
        layers: int = 2
        """convolutional gated recurrent units of a step (nconvs)"""
        cutoff: float = 1.2
        """of the gates' sigmoid; 1 is the usual one"""
        dropout: float = 0.09
        """of the image, at the start and after every step; the paper tried 0.06, 0.09 and 0.135"""
        dropout_scale: Literal["constant", "shorter_more"] = "constant"
        """shorter_more: the rate is dropout 8 / n, as in the code, whose shortest n is 8; never more than dropout"""
        relaxation: int = 6
        """R, sets of weights (rx_step); 1 is off"""
        pull: float = 0.0005
        """initial weight of the sets' distance from their mean"""
        pull_factor: float = 1.2
        """factor by which `pull` grows when the curriculum moves on"""
        most_pull: float = 0.1
        """value of `pull` from which on the sets are averaged instead"""
        averaged_lr_factor: float = 1.0
        """factor of the learning rate when sets are averaged at under a third of the curriculum's bound; the code: 0.98"""
        init_scale: float = 1.0
        """factor of the weights' initial range"""
        gradient_noise: float = 0.0
        """scale; the standard deviation is scale sqrt(t^-0.55 e), e the last sequence error above 0.02. The code of 2015 has
        1.0 at gradients clipped to 0.05 and another optimiser's scale, that of 2016, whose rate and clip the definitions
        use, 0; the paper tried three and does not report which. With gradients clipped to 1 the noise of scale 1 is far
        larger than the gradient: 0.001 is a tenth of the gradient's norm"""
        curriculum: Curriculum = field(default_factory=Curriculum)
        """from short to long sequences"""

        def __post_init__(self) -> None:
            ranges = {
                "be at least 1": ["maps", "layers", "relaxation", "cutoff", "pull_factor"],
                "be at least 0": ["pull", "most_pull", "init_scale", "gradient_noise"],
                "lie in [0, 1)": ["dropout"],
            }
            factor = self.averaged_lr_factor
            outside = [] if 0 < factor <= 1 else [f"averaged_lr_factor = {factor} must lie in (0, 1]"]
            check_ranges(self, ranges, *outside)

    def __init__(self, config: Config, units: Sequence[UnitFactory], num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        R, L, M = config.relaxation, config.layers, config.maps
        self.embedding = nn.Parameter(torch.empty(num_inputs, M))
        self.input = nn.Parameter(torch.empty(M, M))
        self.input_bias = nn.Parameter(torch.empty(M))
        self.gates = nn.Parameter(torch.empty(R, L, 3, 3, M, 2 * M))  # [.., row, position, in, out]
        self.gates_bias = nn.Parameter(torch.empty(R, L, 2 * M))
        self.candidate = nn.Parameter(torch.empty(R, L, 3, 3, M, M))
        self.candidate_bias = nn.Parameter(torch.empty(R, L, M))
        self.output = nn.Parameter(torch.empty(M, num_outputs))
        self.output_bias = nn.Parameter(torch.empty(num_outputs))

    def initialise(self, stream: Stream) -> None:
        """Embedding U(-1.7, 1.7); weights U(±1.8 init_scale sqrt(3 / fan_in)); biases 0. The sets start apart."""
        M = self.config.maps
        bounds = {"embedding": 1.7} | {
            name: 1.8 * float(self.config.init_scale) * (3.0 / fan) ** 0.5
            for name, fan in {"input": M, "gates": 9 * M, "candidate": 9 * M, "output": M}.items()
        }
        for name, bound in bounds.items():
            weight = getattr(self, name)
            weight.data = stream.child(name).uniform(weight.shape, -bound, bound).to(weight.device)
        for name in ("input_bias", "gates_bias", "candidate_bias", "output_bias"):
            getattr(self, name).data.zero_()

    @classmethod
    def step_weights(cls, pieces: SimpleNamespace) -> Sequence[tuple[Any, ...]]:
        return [(layers,) for layers in pieces.sets()]

    def sets(self, ctx: Context) -> list[list[dict[str, Tensor]]]:
        """Return for every set and layer the matrices of blocks, [3 H M, 2 H M] and [3 H M, H M], and their biases."""
        stacked = {
            "gates": _blocks(self.gates, 2),
            "gates_bias": _rows(self.gates_bias, 2),
            "candidate": _blocks(self.candidate, 1),
            "candidate_bias": _rows(self.candidate_bias, 1),
        }
        R, L = range(self.config.relaxation), range(self.config.layers)
        return [[{name: w[r, layer] for name, w in stacked.items()} for layer in L] for r in R]

    def begin(self, bins: tuple[Tensor, ...], ctx: Context) -> tuple[State, Tensor, State]:
        """The state has `s` and `out`, its value after an example's last step, both [N, B, H M], and
        `left`, the number of steps left.

        The line has `mask` [N, B, 1] and `rate` [N, B, 1], the dropout rate of a position.
        """
        x_NB = lay_out(bins)
        mask = (x_NB >= 0).unsqueeze(-1).to(torch.float32)
        lengths = [(x_Bn >= 0).sum(1, keepdim=True).expand_as(x_Bn) for x_Bn in bins]
        left = lay_out(lengths, 0).unsqueeze(-1).to(torch.float32)
        rate = self.config.dropout * torch.ones_like(mask)
        if self.config.dropout_scale == "shorter_more":
            sizes = [torch.full_like(x_Bn, x_Bn.shape[1]) for x_Bn in bins]
            rate = rate * (8.0 / lay_out(sizes, 8).unsqueeze(-1)).clamp(max=1.0)
        is_symbol = torch.arange(len(self.embedding), device=x_NB.device) > 0
        embedded = torch.tanh(linear(one_hot(x_NB, len(self.embedding)), self.embedding * is_symbol[:, None]))
        first = linear(embedded, self.input) + self.input_bias
        s = torch.cat([first, torch.zeros_like(first).repeat(1, 1, HEIGHT - 1)], -1)
        s = _dropout(s, rate, ctx) * mask
        return (  # `s` itself as `out` would have other strides than the cell's later ones
            {"s": s, "out": torch.zeros_like(s), "left": left},
            torch.zeros((), device=s.device),
            {"mask": mask, "rate": rate},
        )

    def cell(
        self, state: State, auxiliary: Tensor, line: State, layers: list[dict[str, Tensor]], ctx: Context
    ) -> tuple[State, Tensor]:
        s = state["s"]
        for weights in layers:
            gates = linear(_with_neighbours(s), weights["gates"]) + weights["gates_bias"]
            u, r = (self._gate(v) for v in gates.split(s.shape[-1], dim=-1))
            reset = r * s
            v = linear(_with_neighbours(reset), weights["candidate"])
            s = (u * s + (1.0 - u) * torch.tanh(v + weights["candidate_bias"])) * line["mask"]
        left = state["left"] - 1.0
        out = torch.where(left == 0.0, s, state["out"])
        s = _dropout(s, line["rate"], ctx) * line["mask"]
        return {"s": s, "out": out, "left": left}, auxiliary

    def finish(self, ended: tuple[State, ...], auxiliary: Tensor, ctx: Context) -> tuple[tuple[Tensor, ...], Penalties]:
        first_rows = [state["out"][..., : self.config.maps] for state in ended]
        logits = read_out(first_rows, self.output, self.output_bias)
        if not ctx.training or self.config.relaxation == 1:
            return logits, {}
        distance = sum((w - w.mean(0)).square().sum() for w in self._relaxed())
        return logits, {"pull": ctx.memory["pull"] * distance}

    def _relaxed(self) -> list[Tensor]:
        """Return the parameters that have R sets."""
        return [self.gates, self.gates_bias, self.candidate, self.candidate_bias]

    def _gate(self, v: Tensor) -> Tensor:
        c = self.config.cutoff
        return (c * torch.sigmoid(v + GATE_BIAS) - (c - 1.0) / 2.0).clamp(0.0, 1.0)

    def initial_memory(self) -> Memory:
        return {
            "pull": torch.tensor(self.config.pull),
            "averages": torch.zeros(()),
            "lr_factor": torch.ones(()),
            **self.config.curriculum.initial_memory(),
        }

    def remember(self, memory: Memory, observed: Observation, step: Tensor) -> Memory:
        """Update the curriculum, the pull, the learning rate's factor, and whether this step ends with averaged sets."""
        error = observed["scores"]["sequence_error"]
        curriculum, moves_on = self.config.curriculum.remember(memory, error, observed["length"], step, observed["shortest"])
        grows = memory["pull"] < self.config.most_pull
        pull = torch.where(moves_on & grows, memory["pull"] * self.config.pull_factor, memory["pull"])
        averages = moves_on & ~grows
        slows = averages & (curriculum["error"] < self.config.curriculum.bound / 3.0)
        lr_factor = memory["lr_factor"] * torch.where(slows, self.config.averaged_lr_factor, 1.0)
        return {**curriculum, "pull": pull, "averages": averages.to(torch.float32), "lr_factor": lr_factor}

    def lr_factor(self, memory: Memory) -> Tensor:
        return memory["lr_factor"]

    def next_length(self, memory: Memory, stream: Stream, shortest: int, longest: int) -> Tensor:
        return self.config.curriculum.next_length(memory, stream, shortest, longest)

    def settle(self, memory: Memory) -> None:
        """Set all sets to their mean where the curriculum moves on at the largest pull."""
        for w in self._relaxed():
            w.copy_(torch.where(memory["averages"] > 0, w.mean(0, keepdim=True), w))

    def noise_deviation(self, step: Tensor, memory: Memory, lr: Scalar) -> Tensor:
        excess = (memory["error"] - TOLERATED).clamp(min=0.0)
        return self.config.gradient_noise * torch.sqrt((step.to(torch.float32) + 1.0) ** -0.55 * excess)


def _with_neighbours(s_NBM: Tensor) -> Tensor:
    left, right = neighbours(s_NBM)
    return torch.cat([left, s_NBM, right], -1)


def _dropout(s_NBM: Tensor, rate_NB1: Tensor, ctx: Context) -> Tensor:
    return ctx.dropout(s_NBM, rate_NB1) if ctx.training else s_NBM


def _rows(bias_RL: Tensor, parts: int) -> Tensor:
    """Return the bias of every image row: [R, L, parts M] -> [R, L, parts H M]."""
    return bias_RL.unflatten(-1, (parts, 1, -1)).expand(-1, -1, -1, HEIGHT, -1).flatten(2)


def _blocks(kernel: Tensor, parts: int) -> Tensor:
    """Return 3 x 3 kernels [R, L, 3 rows, 3 positions, M, parts M] as matrices [R, L, 3 H M, parts H M].

    Rows of a matrix: the position to the left, the one itself, the one to the right; in each the H image rows of M maps.
    Columns: parts (such as update and reset), in each the H image rows. The block from image row i to row o is the kernel's row
    i - o + 1, or zeros; it is picked by a product with zeros and ones, whose gradient is a product too.
    """
    i = torch.arange(HEIGHT, device=kernel.device)
    offset = (i[:, None] - i[None, :] + 1).flatten()
    picked = (offset[:, None] == torch.arange(3, device=kernel.device)).to(kernel.dtype)  # [H H, 3]
    of_rows = kernel.movedim(2, 0)  # [3, R, L, 3, M, parts M]
    blocks = (picked @ of_rows.flatten(1)).unflatten(1, of_rows.shape[1:]).unflatten(0, (HEIGHT, HEIGHT))
    by_part = blocks.unflatten(-1, (parts, -1))  # [H in, H out, R, L, 3, M, parts, M]
    return by_part.permute(2, 3, 4, 0, 5, 6, 1, 7).flatten(5).flatten(2, 4)
