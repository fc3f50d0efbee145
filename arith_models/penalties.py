"""The regularisers of Madsen and Johansen (2020), and how a network weighs those of its units.

A unit's `forward` returns penalties by name. "sparsity", "out_of_bound" and "input" come unweighted: a network adds them up
over its layers and weighs the sums. "score", the log-probability of weights that were drawn, is the engine's affair
(REINFORCE). Any other name is the unit's own affair and comes weighted. "input" is R_z, which looks at the mean of what the
layer was given: most units that take part leave it to the network, by having `input_penalty(mean_I)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from arith_models.settings import RampedPenalty

Shape = Literal["linear", "squared"]


@dataclass(frozen=True, kw_only=True)
class PenaltyConfig:
    """The settings that every network of units has."""

    sparsity_penalty: RampedPenalty = field(default_factory=RampedPenalty)
    """weight and schedule, in steps, of the units' sparsity penalties (--regualizer, --regualizer-scaling)"""
    out_of_bound_penalty: float | None = None
    """weight of what lies outside of a unit's bounds; for units with clamp: false (--regualizer-oob, there 1)"""
    input_penalty: float | None = None
    """weight of R_z, which pulls the mean input towards a value that unused weights let pass (--regualizer-z)"""


def nau_sparsity(W_OI: Tensor, shape: Shape = "linear") -> Tensor:
    """How far weights are from -1, 0 and 1: mean of min(|W|, |1 - |W||), or squared, mean of W² (1 - |W|)²."""
    magnitude = W_OI.abs()
    if shape == "squared":
        return (W_OI.square() * (1.0 - magnitude).square()).mean()
    return torch.minimum(magnitude, (1.0 - magnitude).abs()).mean()


def nmu_sparsity(W_OI: Tensor, shape: Shape = "linear") -> Tensor:
    """How far weights are from 0 and 1: mean of min(|W|, |1 - W|), or squared, mean of W² (1 - W)²."""
    if shape == "squared":
        return (W_OI.square() * (1.0 - W_OI).square()).mean()
    return torch.minimum(W_OI.abs(), (1.0 - W_OI).abs()).mean()


def nau_out_of_bound(W_OI: Tensor, shape: Shape = "linear") -> Tensor:
    """mean of relu(|W| - 1), or of its square."""
    excess = torch.relu(W_OI.abs() - 1.0)
    return (excess.square() if shape == "squared" else excess).mean()


def nmu_out_of_bound(W_OI: Tensor, shape: Shape = "linear") -> Tensor:
    """mean of relu(|W - 1/2| - 1/2), or of its square."""
    excess = torch.relu((W_OI - 0.5).abs() - 0.5)
    return (excess.square() if shape == "squared" else excess).mean()


def nau_input(W_OI: Tensor, mean_I: Tensor) -> Tensor:
    """R_z of an additive layer: mean over o, i of (1 - |W_oi|) (0 - x̄_i)²."""
    return ((1.0 - W_OI.abs()) * mean_I.square()).mean()


def nmu_input(W_OI: Tensor, mean_I: Tensor) -> Tensor:
    """R_z of a multiplicative layer: mean over o, i of (1 - W_oi) (1 - x̄_i)²."""
    return ((1.0 - W_OI) * (1.0 - mean_I).square()).mean()


def added(*penalties: dict[str, Tensor]) -> dict[str, Tensor]:
    """Penalties of several parts, summed by name."""
    totals: dict[str, Tensor] = {}
    for part in penalties:
        for name, value in part.items():
            totals[name] = totals[name] + value if name in totals else value
    return totals


def weighed(
    config: PenaltyConfig, step: Any, layers: Sequence[tuple[Any, Tensor, dict[str, Tensor]]]
) -> dict[str, Tensor]:
    """A network's penalties. `layers` holds (unit, mean input [I], penalties) of each layer."""
    found = []
    for unit, mean_I, penalties in layers:
        found.append(penalties)
        own = unit.input_penalty(mean_I) if config.input_penalty is not None else None
        if own is not None:
            found.append({"input": own})
    totals = added(*found)
    weights = {"out_of_bound": config.out_of_bound_penalty, "input": config.input_penalty}
    result = {name: value for name, value in totals.items() if name not in ("sparsity", *weights)}
    if "sparsity" in totals:
        result["sparsity"] = config.sparsity_penalty.at(step) * totals["sparsity"]
    for name, weight in weights.items():
        if weight is not None and name in totals:
            result[name] = weight * totals[name]
    return result
