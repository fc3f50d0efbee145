"""What the power units share: gated inputs as magnitude and angle, their penalties, and the settings of those.

Heim, Pevný and Šmídl, "Neural Power Units" (NeurIPS 2020); settings as in the code of Mistry et al. (2021).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from arith_models.growth import grown
from arith_models.settings import Steps

EPSILON = 2.0**-23  # float32's machine epsilon, added to |x| before the logarithm


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
        faults = [
            f"{name} = {getattr(self, name)} must be at least 0"
            for name in ("weight_penalty", "gate_penalty")
            if getattr(self, name) < 0
        ]
        faults += [
            f"{name} = {getattr(self, name)} must be above 0"
            for name in ("beta_start", "beta_end", "beta_every")
            if not getattr(self, name) > 0
        ]
        if not self.beta_growth > 1:
            faults.append(
                f"beta_growth = {self.beta_growth} must be above 1; for a constant beta set beta_end = beta_start"
            )
        if not 0 <= self.ramp_start < self.ramp_end:
            faults.append(
                f"0 <= ramp_start < ramp_end must hold, but got ramp_start = {self.ramp_start}, ramp_end = {self.ramp_end}"
            )
        if faults:
            raise ValueError("; ".join(faults))

    def scale(self, step: Any) -> Any:
        """s(t)"""
        if self.schedule == "heim":
            return grown(step, self.beta_start, self.beta_end, self.beta_growth, self.beta_every)
        return ((step - self.ramp_start) / (self.ramp_end - self.ramp_start)).clamp(0.0, 1.0)

    def initial_range(self, num_inputs: int, num_outputs: int) -> float:
        """Half-width of the uniform range of the real weights."""
        r = math.sqrt(6 / (num_inputs + num_outputs))
        return min(0.5, r) if self.weights == "xavier-uniform-constrained" else r


def polar(x_BI: Tensor, gate_I: Tensor) -> tuple[Tensor, Tensor]:
    """(ln r [I, B], angle k [I, B]) of gated inputs: an open gate lets x pass, a closed one makes it 1.

    r = g (|x| + eps) + (1 - g), k = pi g where x < 0 and else 0, with g clamped to [0, 1].
    """
    open_I1 = gate_I.clamp(0.0, 1.0).unsqueeze(1)
    x_IB = x_BI.T
    r_IB = open_I1 * (x_IB.abs() + EPSILON) + (1.0 - open_I1)
    return torch.log(r_IB), torch.where(x_IB < 0, math.pi * open_I1, torch.zeros_like(x_IB))


def gate_penalty(gate_I: Tensor) -> Tensor:
    """mean min(|g|, |1 - g|)"""
    return torch.minimum(gate_I.abs(), (1.0 - gate_I).abs()).mean()
