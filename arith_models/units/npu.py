"""The neural power units: powers of gated inputs, as magnitude and angle, so that negative inputs have powers too.

Heim, Pevný and Šmídl, "Neural Power Units" (NeurIPS 2020); settings as in the code of Mistry et al. (2021).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from arith_models.base import Context, Penalties, Scalar, Stream, Unit, check_ranges
from arith_models.penalties import Steps, nau_sparsity
from arith_models.units.activations import xavier

EPSILON = 2.0**-23  # float32's machine epsilon, added to |x| before the logarithm


def grown(step: Tensor, start: Scalar, end: Scalar, factor: Scalar, every: Scalar) -> Tensor:
    """Return start * factor^floor(step / every), at most `end`; divided instead, and at least `end`, where start > end.

    `start` and `end` are positive, `factor` is above 1.
    """
    power = factor ** torch.floor(step / every)
    rising = (start * power).clamp(max=end)
    falling = (start / power).clamp(min=end)
    return torch.where(torch.as_tensor(start <= end), rising, falling)


@dataclass(frozen=True, kw_only=True)
class GatedPowerConfig:
    """Settings of NPU and RealNPU. Every penalty is multiplied by one schedule s(t)."""

    weights: Literal["xavier-uniform", "xavier-uniform-constrained"] = "xavier-uniform"
    """initial range of the real weights; constrained is at most 1/2 (--npu-Wr-init)"""
    l1: bool = False
    """penalise the sum of all parameters' magnitudes (--regualizer-l1)"""
    weight_penalty: float = 0.0
    """weight of the weights' own penalty (--regualizer-npu-w)"""
    gate_penalty: float = 0.0
    """weight of mean min(|g|, |1 - g|) (--regualizer-gate)"""
    schedule: Literal["heim", "madsen"] = "heim"
    """s(t): heim is beta, which grows by a factor, madsen rises from 0 to 1 (--reg-scale-type)"""
    beta_start: float = 1e-5
    """heim: first value of beta (--regualizer-beta-start)"""
    beta_end: float = 1e-4
    """heim: last value of beta; below beta_start it shrinks (--regualizer-beta-end)"""
    beta_growth: float = 10.0
    """heim: factor of one growth (--regualizer-beta-growth)"""
    beta_every: Steps = 10_000.0
    """heim: steps between two growths (--regualizer-beta-step)"""
    ramp_start: Steps = 20_000.0
    """madsen: step at which s(t) begins to rise (--regualizer-scaling-start)"""
    ramp_end: Steps = 35_000.0
    """madsen: step at which s(t) is 1 (--regualizer-scaling-end)"""

    def __post_init__(self) -> None:
        faults = []
        if not self.beta_growth > 1:
            faults.append(f"beta_growth = {self.beta_growth} must be above 1; for a constant beta set beta_end = beta_start")
        if not 0 <= self.ramp_start < self.ramp_end:
            faults.append(
                f"0 <= ramp_start < ramp_end must hold, but got ramp_start = {self.ramp_start}, ramp_end = {self.ramp_end}"
            )
        ranges = {
            "be at least 0": ["weight_penalty", "gate_penalty"],
            "be above 0": ["beta_start", "beta_end", "beta_every"],
        }
        check_ranges(self, ranges, *faults)

    def scale(self, step: Tensor) -> Tensor:
        """Return s(t), 0-dim."""
        if self.schedule == "heim":
            return grown(step, self.beta_start, self.beta_end, self.beta_growth, self.beta_every)
        return ((step - self.ramp_start) / (self.ramp_end - self.ramp_start)).clamp(0.0, 1.0)

    def initial_range(self, num_inputs: int, num_outputs: int) -> float:
        """Return the half-width of the uniform range of the real weights."""
        r = xavier(num_inputs, num_outputs)
        return min(0.5, r) if self.weights == "xavier-uniform-constrained" else r


def polar(x_BI: Tensor, gate_I: Tensor) -> tuple[Tensor, Tensor]:
    """Return (ln r [I, B], angle k [I, B]) of gated inputs: an open gate passes x, a closed one makes it 1.

    r = g (|x| + eps) + (1 - g), k = pi g where x < 0 and else 0, with g clamped to [0, 1].
    """
    open_I1 = gate_I.clamp(0.0, 1.0).unsqueeze(1)
    x_IB = x_BI.T
    r_IB = open_I1 * (x_IB.abs() + EPSILON) + (1.0 - open_I1)
    return torch.log(r_IB), torch.where(x_IB < 0, math.pi * open_I1, torch.zeros_like(x_IB))


def gate_penalty(gate_I: Tensor) -> Tensor:
    """Return mean min(|g|, |1 - g|)."""
    return torch.minimum(gate_I.abs(), (1.0 - gate_I).abs()).mean()


class NPU(Unit):
    """NPU, the neural power unit: y = exp(ln(r) Wrᵀ - k Wiᵀ) * cos(k Wrᵀ + ln(r) Wiᵀ), with complex weights Wr + i Wi.

    r = g (|x| + ε) + 1 - g and k = π g where x < 0, else 0: an input as magnitude and angle behind a gate g in [0, 1], which
    makes an irrelevant one 1. Shapes: x [B, I] -> y [B, O]; Wr, Wi [O, I], gate [I]. Heim, Pevný and Šmídl, "Neural Power
    Units" (NeurIPS 2020), definition of the NPU; settings of Mistry et al. (2021).

    The effective weights are Wr and Wi, [2 O, I]; gates do not count towards the sparsity error. Penalties, weighted,
    each times the schedule s(t) of class GatedPowerConfig: "l1" (the sum of all parameters' magnitudes), "weight"
    (mean |1 - |Wr||, and with clip: wig the sum of |Wi|), "gate".

    Published for multiplication with batches of 128 and train.lr: 5e-3: l1, beta from 1e-7 to 1e-5, which is what
    network one_layer sets; for division beta_start: 1e-9, beta_end: 1e-7. One schedule scales all penalties; the
    original's way to combine several is not documented.
    """

    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config(GatedPowerConfig):
        clip: Literal["none", "w", "g", "wg", "wig"] = "none"
        """what is clamped after every step: w Wr and i Wi to [-1, 1], g the gate to [0, 1] (--npu-clip)"""

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        self.W_real = nn.Parameter(torch.empty(num_outputs, num_inputs))
        self.W_imaginary = nn.Parameter(torch.empty(num_outputs, num_inputs))
        self.gate = nn.Parameter(torch.empty(num_inputs))

    def initialise(self, stream: Stream) -> None:
        """Wr ~ U(-r, r), r = sqrt(6 / (I + O)), constrained at most 1/2; Wi = 0; g = 1/2."""
        num_outputs, num_inputs = self.W_real.shape
        r = self.config.initial_range(num_inputs, num_outputs)
        self.W_real.copy_(stream.uniform(self.W_real.shape, -r, r))
        self.W_imaginary.zero_()
        self.gate.fill_(0.5)

    def effective_weight(self) -> Tensor:
        return torch.cat([self.W_real, self.W_imaginary])

    def forward(self, x_BI: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        log_r_IB, k_IB = polar(x_BI, self.gate)
        magnitude_OB = torch.exp(self.W_real @ log_r_IB - self.W_imaginary @ k_IB)
        y_OB = magnitude_OB * torch.cos(self.W_real @ k_IB + self.W_imaginary @ log_r_IB)
        return y_OB.T, self._penalties(ctx)

    def _penalties(self, ctx: Context) -> Penalties:
        c = self.config
        scale = c.scale(ctx.step)
        weights = (1.0 - self.W_real.abs()).abs().mean()
        if c.clip == "wig":
            weights = weights + self.W_imaginary.abs().sum()
        penalties = {
            "weight": scale * c.weight_penalty * weights,
            "gate": scale * c.gate_penalty * gate_penalty(self.gate),
        }
        if c.l1:
            penalties["l1"] = scale * torch.stack([p.abs().sum() for p in self.parameters()]).sum()
        return penalties

    def constrain(self) -> None:
        clip = self.config.clip
        if clip in ("w", "wg", "wig"):
            self.W_real.copy_(self.W_real.clamp(-1.0, 1.0))
        if clip == "wig":
            self.W_imaginary.copy_(self.W_imaginary.clamp(-1.0, 1.0))
        if clip in ("g", "wg", "wig"):
            self.gate.copy_(self.gate.clamp(0.0, 1.0))


class RealNPU(Unit):
    """RealNPU, the neural power unit without imaginary weights: y = exp(ln(r) Wᵀ) * cos(k Wᵀ).

    r = g (|x| + ε) + 1 - g and k = π g where x < 0, else 0: an input as magnitude and angle behind a gate g in [0, 1], which
    makes an irrelevant one 1. Shapes: x [B, I] -> y [B, O]; W [O, I], gate [I]. Heim, Pevný and Šmídl, "Neural Power Units"
    (NeurIPS 2020), definition of the RealNPU; settings of Mistry et al. (2021).

    The gate does not count towards the sparsity error. Penalties, weighted, each times the schedule s(t) of class
    GatedPowerConfig: "l1" (the sum of all parameters' magnitudes), "weight" (see `weight_shape`), "gate". Published settings:
    see NPU.
    """

    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config(GatedPowerConfig):
        clip: Literal["none", "w", "g", "wg"] = "none"
        """what is clamped after every step: w the weights to [-1, 1], g the gate to [0, 1] (--npu-clip)"""
        weight_shape: Literal["W", "bias"] = "W"
        """the weights' penalty: W is mean |1 - |W||, bias mean min(|W|, |1 - |W||) (--realnpu-reg-type)"""

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(num_outputs, num_inputs))
        self.gate = nn.Parameter(torch.empty(num_inputs))

    def initialise(self, stream: Stream) -> None:
        """W ~ U(-r, r), r = sqrt(6 / (I + O)), constrained at most 1/2; g = 1/2."""
        num_outputs, num_inputs = self.weight.shape
        r = self.config.initial_range(num_inputs, num_outputs)
        self.weight.copy_(stream.uniform(self.weight.shape, -r, r))
        self.gate.fill_(0.5)

    def effective_weight(self) -> Tensor:
        return self.weight

    def forward(self, x_BI: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        log_r_IB, k_IB = polar(x_BI, self.gate)
        y_OB = torch.exp(self.weight @ log_r_IB) * torch.cos(self.weight @ k_IB)
        return y_OB.T, self._penalties(ctx)

    def _penalties(self, ctx: Context) -> Penalties:
        c = self.config
        scale = c.scale(ctx.step)
        weights = nau_sparsity(self.weight) if c.weight_shape == "bias" else (1.0 - self.weight.abs()).abs().mean()
        penalties = {
            "weight": scale * c.weight_penalty * weights,
            "gate": scale * c.gate_penalty * gate_penalty(self.gate),
        }
        if c.l1:
            penalties["l1"] = scale * (self.weight.abs().sum() + self.gate.abs().sum())
        return penalties

    def constrain(self) -> None:
        if self.config.clip in ("w", "wg"):
            self.weight.copy_(self.weight.clamp(-1.0, 1.0))
        if self.config.clip in ("g", "wg"):
            self.gate.copy_(self.gate.clamp(0.0, 1.0))


UNITS: dict[str, type[Unit]] = {"npu": NPU, "real_npu": RealNPU}
