"""The regularisers of Madsen and Johansen (2020), their schedule, and the weighting of units' penalties by networks.

A unit's `forward` returns penalties by name. "sparsity", "out_of_bound" and "input" come unweighted: a network sums them
over its layers and weights the sums. "score", the log-probability of weights that were sampled, passes unchanged to the
engine (REINFORCE). A unit weights terms of any other name itself. "input" is R_z, a penalty on the mean input of a layer:
most units define it as `input_penalty(mean_I)`, which the network calls.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
from torch import Tensor

from arith_models.base import Penalties, Unit

Steps = Annotated[float, "steps"]
"""A number of training steps. A sweep file may also write it as a share of the budget: 40%."""
Shape = Literal["linear", "squared"]
"""Shapes of the penalties on weights."""


@dataclass(frozen=True, kw_only=True)
class RampedPenalty:
    """A penalty whose weight grows from 0 to `weight`.

    linear: from `start` to `end` (Madsen and Johansen 2020, eq. 8). exp: as 1 - exp(-1e-5 step), which has no start and
    no end (the older schedule of their code).
    """

    weight: float = 0.0
    """of the penalty from `end` on; 0 is off"""
    start: Steps = 1_000_000.0
    """step at which it begins to act"""
    end: Steps = 2_000_000.0
    """step at which it has its whole weight"""
    schedule: Literal["linear", "exp"] = "linear"
    """exp has neither start nor end: weight times 1 - exp(-1e-5 step)"""

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise ValueError(f"weight = {self.weight} must be at least 0")
        if not 0 <= self.start < self.end:
            raise ValueError(f"0 <= start < end must hold, but got start = {self.start}, end = {self.end}")

    def at(self, step: Tensor) -> Tensor:
        """Return the weight at a step, both 0-dim."""
        if self.schedule == "exp":
            return self.weight * (1.0 - (-1e-5 * step).exp())
        return self.weight * ((step - self.start) / (self.end - self.start)).clamp(0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class PenaltyConfig:
    """The settings of every network of units."""

    sparsity_penalty: RampedPenalty = field(default_factory=RampedPenalty)
    """weight and schedule, in steps, of the units' sparsity penalties (--regualizer, --regualizer-scaling)"""
    out_of_bound_penalty: float | None = None
    """weight of what lies outside of a unit's bounds; for units with clamp: false (--regualizer-oob, there 1)"""
    input_penalty: float | None = None
    """weight of R_z, which pulls the mean input towards a value that unused weights let pass (--regualizer-z)"""


def nau_sparsity(W_OI: Tensor, shape: Shape = "linear") -> Tensor:
    """Return the distance of weights from -1, 0 and 1: mean of min(|W|, |1 - |W||), or squared, mean of W² (1 - |W|)²."""
    magnitude = W_OI.abs()
    if shape == "squared":
        return (W_OI.square() * (1.0 - magnitude).square()).mean()
    return torch.minimum(magnitude, (1.0 - magnitude).abs()).mean()


def nmu_sparsity(W_OI: Tensor, shape: Shape = "linear") -> Tensor:
    """Return the distance of weights from 0 and 1: mean of min(|W|, |1 - W|), or squared, mean of W² (1 - W)²."""
    if shape == "squared":
        return (W_OI.square() * (1.0 - W_OI).square()).mean()
    return torch.minimum(W_OI.abs(), (1.0 - W_OI).abs()).mean()


def nau_out_of_bound(W_OI: Tensor, shape: Shape = "linear") -> Tensor:
    """Return the mean of relu(|W| - 1), or of its square."""
    excess = torch.relu(W_OI.abs() - 1.0)
    return (excess.square() if shape == "squared" else excess).mean()


def nmu_out_of_bound(W_OI: Tensor, shape: Shape = "linear") -> Tensor:
    """Return the mean of relu(|W - 1/2| - 1/2), or of its square."""
    excess = torch.relu((W_OI - 0.5).abs() - 0.5)
    return (excess.square() if shape == "squared" else excess).mean()


def nau_input(W_OI: Tensor, mean_I: Tensor) -> Tensor:
    """Return R_z of an additive layer: the mean over o, i of (1 - |W_oi|) (0 - x̄_i)²."""
    return ((1.0 - W_OI.abs()) * mean_I.square()).mean()


def nmu_input(W_OI: Tensor, mean_I: Tensor) -> Tensor:
    """Return R_z of a multiplicative layer: the mean over o, i of (1 - W_oi) (1 - x̄_i)²."""
    return ((1.0 - W_OI) * (1.0 - mean_I).square()).mean()


def summed(*penalties: Penalties) -> Penalties:
    """Return the penalties of several parts, summed by name."""
    totals: Penalties = {}
    for part in penalties:
        for name, value in part.items():
            totals[name] = totals[name] + value if name in totals else value
    return totals


def weighted(config: PenaltyConfig, step: Tensor, layers: Iterable[tuple[Unit, Tensor, Penalties]]) -> Penalties:
    """Return a network's penalties. `layers` holds (unit, mean input [I], penalties) of each layer."""
    parts = []
    for unit, mean_I, penalties in layers:
        parts.append(penalties)
        own = unit.input_penalty(mean_I) if config.input_penalty is not None else None
        if own is not None:
            parts.append({"input": own})
    totals = summed(*parts)
    weights = {"out_of_bound": config.out_of_bound_penalty, "input": config.input_penalty}
    result = {name: value for name, value in totals.items() if name not in ("sparsity", *weights)}
    if "sparsity" in totals:
        result["sparsity"] = config.sparsity_penalty.at(step) * totals["sparsity"]
    for name, weight in weights.items():
        if weight is not None and name in totals:
            result[name] = weight * totals[name]
    return result
