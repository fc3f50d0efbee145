"""The improved Neural GPU: a convolutional gated recurrent unit with a diagonal gate and hard nonlinearities.

Legend of suffixes: N positions of the line, n of a bin, B batch, M maps (channels), S input symbols, O output symbols.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from arith_models.base import Context, Memory, Observation, Penalties, Scalar, Stream, UnitFactory, check_ranges
from arith_models.lines import LineNetwork, State, lay_out, linear, neighbours, one_hot, read_out

GATE_BIAS, RESET_BIAS = 0.7, 0.5
PERIOD = 200
"""Number of steps after which the weight of the saturation cost changes."""


class DNGPU(LineNetwork):
    """The improved Neural GPU, with a diagonal gate: y = O s_n + b.

    s_0 = hτ(E x); for as many steps as the sequence is long:

        r = hσ(U_r * s + b_r + 0.5), u = hσ(U_u * s + b_u + 0.7), c = hτ(U_c * (r s) + b_c), s <- u shift(s) + (1 - u) c

    and y is a linear map of every position of the last state. * is a convolution over positions of width 3, one set
    of weights for all steps; hσ(x) = clip(x/2 + 1/2, 0, 1), hτ(x) = clip(x, -1, 1). shift (the diagonal gate) leaves a third of
    the maps where they are and moves a third one position to the right and a third to the left. Freivalds and Liepins,
    "Improving the Neural GPU Architecture for Algorithm Learning" (2017), arXiv 1702.08727, as in their published code.

    Shapes: symbols, a tuple of bins [B, n] (0 is padding, -1 lies outside of an example, where the state is kept at 0) ->
    logits, a tuple of [B, n, O]. Bins are side by side on one line, with a position of zeros before, between and after them,
    so one matrix product serves all, and a bin takes the place of one whose steps are done.

    Penalty: the saturation cost, the sum of relu(|v| - 0.9) over all values v that enter hσ or hτ, over n² B, averaged over
    bins; the input's counts n times. Its weight follows the loss: at every 200th step it becomes
    weight · lr · loss / penalty, means over those steps, so that the penalty stays near lr · loss.

    Published training, as the definition dngpu-binary-multiplication has it: `optimizer: adamax, beta2: 0.9995, batch: 32`, lr
    0.01 · 48 / maps, `lr_decay: {rule: two_worse, factor: 0.7, floor: 0.0167, period: 200}`, all bins in every step.

    Deviation: gradient noise is normal, where the code truncates it at two deviations.
    """

    version = 1
    num_units = 0
    reads_symbols = True
    reported_memory = ("saturation_weight",)
    min_slots = max_slots = 1  # a lane fills a processor; on a GPU more may be faster (resources.slots)

    @dataclass(frozen=True, kw_only=True)
    class Config:
        maps: int = 96
        """m: 96 for binary multiplication, 48 for addition and sorting, 192 for base 4 and decimal multiplication"""
        dropout: float = 0.1
        """of the input and of the candidate at every step; the code's keep_prob is 1 minus it (0.5 for addition)"""
        gate: Literal["diagonal", "plain"] = "diagonal"
        """plain: s is not shifted, as in the Neural GPU"""
        nonlinearity: Literal["hard", "soft"] = "hard"
        """soft: sigmoid and tanh, without a saturation cost"""
        saturation_limit: float = 0.9
        """magnitude of a value from which on it is penalised"""
        saturation_weight: float = 1e-3
        """initial weight of the saturation cost, and its maximum"""
        gradient_noise: float = 1e-4
        """standard deviation of the noise on the gradients, as a share of the learning rate"""

        def __post_init__(self) -> None:
            ranges = {
                "lie in [0, 1)": ["dropout"],
                "be at least 0": ["saturation_limit", "saturation_weight", "gradient_noise"],
            }
            few = f"maps = {self.maps} must be at least 3: a third of them moves left, a third right"
            check_ranges(self, ranges, *([few] if self.maps < 3 else []))

    def __init__(self, config: Config, units: Sequence[UnitFactory], num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        M = config.maps
        self.embedding = nn.Parameter(torch.empty(num_inputs, M))
        self.embedding_bias = nn.Parameter(torch.empty(M))
        self.gates = nn.Parameter(torch.empty(3 * M, 2 * M))
        self.gates_bias = nn.Parameter(torch.empty(2 * M))
        self.candidate = nn.Parameter(torch.empty(3 * M, M))
        self.candidate_bias = nn.Parameter(torch.empty(M))
        self.output = nn.Parameter(torch.empty(M, num_outputs))
        self.output_bias = nn.Parameter(torch.empty(num_outputs))

    def initialise(self, stream: Stream) -> None:
        """Glorot uniform with the fans of the convolutions (each gate counts as its own convolution); biases 0."""
        M = self.config.maps
        fans = {
            "embedding": sum(self.embedding.shape),
            "gates": 6 * M,
            "candidate": 6 * M,
            "output": sum(self.output.shape),
        }
        for name, fan in fans.items():
            weight, bound = getattr(self, name), (6.0 / fan) ** 0.5
            weight.data = stream.child(name).uniform(weight.shape, -bound, bound).to(weight.device)
        for name in ("embedding_bias", "gates_bias", "candidate_bias", "output_bias"):
            getattr(self, name).data.zero_()

    def begin(self, bins: tuple[Tensor, ...], ctx: Context) -> tuple[State, Tensor, State]:
        """The line has `mask` [N, B, 1] and `share` [N, 1, 1], the weight of a position in the saturation cost."""
        x_NB = lay_out(bins)
        sizes = [x_Bn.new_full((1, x_Bn.shape[1]), x_Bn.shape[1]) for x_Bn in bins]
        length_N1 = lay_out(sizes, 0).to(torch.float32)
        share_N1 = torch.where(length_N1 > 0, 1.0 / (length_N1.square() * len(bins[0]) * len(bins)), 0.0)
        mask = (x_NB >= 0).unsqueeze(-1).to(torch.float32)
        v_NBM = linear(one_hot(x_NB, len(self.embedding)), self.embedding) + self.embedding_bias
        saturation = self._saturation([v_NBM], (share_N1 * length_N1).unsqueeze(-1), ctx)
        state = ctx.dropout(self._tanh(v_NBM), self.config.dropout) * mask
        return {"s": state}, saturation, {"mask": mask, "share": share_N1.unsqueeze(-1)}

    def cell(self, state: State, saturation: Tensor, line: State, ctx: Context) -> tuple[State, Tensor]:
        M, s_NBM = self.config.maps, state["s"]
        left, right = neighbours(s_NBM)
        gates = linear(torch.cat([left, s_NBM, right], -1), self.gates) + self.gates_bias
        v_r, v_u = gates[..., :M] + RESET_BIAS, gates[..., M:] + GATE_BIAS
        reset = self._sigmoid(v_r) * s_NBM
        reset_left, reset_right = neighbours(reset)
        v_c = linear(torch.cat([reset_left, reset, reset_right], -1), self.candidate) + self.candidate_bias
        u, c = self._sigmoid(v_u), ctx.dropout(self._tanh(v_c), self.config.dropout)
        new = (u * self._shifted(s_NBM, left, right) + (1.0 - u) * c) * line["mask"]
        return {"s": new}, saturation + self._saturation([v_r, v_u, v_c], line["share"], ctx)

    def finish(self, ended: tuple[State, ...], saturation: Tensor, ctx: Context) -> tuple[tuple[Tensor, ...], Penalties]:
        logits = read_out([state["s"] for state in ended], self.output, self.output_bias)
        if not ctx.training or self.config.nonlinearity == "soft":
            return logits, {}
        return logits, {"saturation": ctx.memory["saturation_weight"] * saturation}

    def _shifted(self, s_NBM: Tensor, left: Tensor, right: Tensor) -> Tensor:
        if self.config.gate == "plain":
            return s_NBM
        third = self.config.maps // 3
        stay = self.config.maps - 2 * third
        return torch.cat([s_NBM[..., :stay], left[..., stay : stay + third], right[..., stay + third :]], dim=-1)

    def _sigmoid(self, v: Tensor) -> Tensor:
        return (0.5 * v + 0.5).clamp(0.0, 1.0) if self.config.nonlinearity == "hard" else torch.sigmoid(v)

    def _tanh(self, v: Tensor) -> Tensor:
        return v.clamp(-1.0, 1.0) if self.config.nonlinearity == "hard" else torch.tanh(v)

    def _saturation(self, values: Sequence[Tensor], share: Tensor, ctx: Context) -> Tensor:
        if not ctx.training or self.config.nonlinearity == "soft":
            return torch.zeros((), device=share.device)
        over = sum(torch.relu(v_NBM.abs() - self.config.saturation_limit) for v_NBM in values)
        return (over * share).sum()

    def initial_memory(self) -> Memory:
        return {
            "saturation_weight": torch.tensor(self.config.saturation_weight),
            "loss_sum": torch.zeros(()),
            "saturation_sum": torch.zeros(()),
        }

    def remember(self, memory: Memory, observed: Observation, step: Tensor) -> Memory:
        """Update the weight of the saturation cost after every 200 steps."""
        if self.config.nonlinearity == "soft":
            return memory
        loss = memory["loss_sum"] + observed["loss"]
        saturation = memory["saturation_sum"] + observed["penalties"]["saturation"]
        weight = memory["saturation_weight"]
        ends = (step + 1) % PERIOD == 0
        target = weight * observed["lr"] * loss / (saturation + PERIOD * 1e-20)
        target = torch.minimum(target.clamp(min=1e-20), torch.as_tensor(self.config.saturation_weight))
        return {
            "saturation_weight": torch.where(ends, target, weight),
            "loss_sum": torch.where(ends, 0.0, loss),
            "saturation_sum": torch.where(ends, 0.0, saturation),
        }

    def noise_deviation(self, step: Tensor, memory: Memory, lr: Scalar) -> Tensor:
        return self.config.gradient_noise * torch.as_tensor(lr)
