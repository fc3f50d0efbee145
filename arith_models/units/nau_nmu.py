"""The neural addition unit, the neural multiplication unit, and the products over inputs that other units share.

Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020), sections 2.2 and 2.3. Penalties: arith_models/penalties.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from arith_models.base import Context, Penalties, Stream, Unit
from arith_models.penalties import (
    Shape,
    nau_input,
    nau_out_of_bound,
    nau_sparsity,
    nmu_input,
    nmu_out_of_bound,
    nmu_sparsity,
)
from arith_models.units.nac import Additive


def product(factors_BOI: Tensor) -> Tensor:
    """Return the product over the last axis.

    Up to 8 factors are multiplied one by one: the gradient of `prod` takes cumulative products in both directions, a good
    part of a step's time for a hidden layer of 2.
    """
    if factors_BOI.shape[-1] > 8:
        return factors_BOI.prod(-1)
    first_BO, *others = factors_BOI.unbind(-1)
    for factor_BO in others:
        first_BO = first_BO * factor_BO
    return first_BO


def product_with_identity(W_OI: Tensor, x_BI: Tensor) -> Tensor:
    """Return y_o = prod_i (W_oi x_i + 1 - W_oi), [B, O]: an input whose weight is 0 counts as 1."""
    return product(W_OI * x_BI.unsqueeze(1) + (1.0 - W_OI))


class NAU(Additive):
    """NAU, the neural addition unit: y = x Wᵀ with W in [-1, 1].

    Shapes: x [B, I] -> y [B, O]; W [O, I]. No bias. Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020), section 2.2,
    eq. 5 to 7.

    The forward clamps W as the authors' code does; `clamp` also clamps the parameter itself after every step, which is
    their default. Penalties, unweighted: "sparsity" (eq. 7), "out_of_bound"; R_z of an additive layer. Their older unit
    without any clamp (RegualizedLinearNAC) is not available; the nearest is clamp: false.

    The authors' command: --layer-type ReRegualizedLinearNAC --regualizer 0.01 --regualizer-scaling-start 5000
    --regualizer-scaling-end 50000.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        clamp: bool = True
        """clamp the parameter to [-1, 1] after every step; false is the paper's ablation (--oob-mode)"""
        penalty: Shape = "linear"
        """shape of the penalties (--regualizer-shape)"""

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(num_outputs, num_inputs))

    def initialise(self, stream: Stream) -> None:
        """W ~ U(-r, r), r = min(1/2, sqrt(6 / (I + O)))."""
        num_outputs, num_inputs = self.weight.shape
        r = min(0.5, math.sqrt(6 / (num_inputs + num_outputs)))
        self.weight.copy_(stream.uniform(self.weight.shape, -r, r))

    def effective_weight(self) -> Tensor:
        return self.weight.clamp(-1.0, 1.0)

    def weights(self, ctx: Context) -> tuple[Tensor, Penalties]:
        penalties = {"sparsity": nau_sparsity(self.weight, self.config.penalty)}
        if not self.config.clamp:
            penalties["out_of_bound"] = nau_out_of_bound(self.weight, self.config.penalty)
        return self.effective_weight(), penalties

    def input_penalty(self, mean_I: Tensor) -> Tensor:
        return nau_input(self.effective_weight(), mean_I)

    def constrain(self) -> None:
        if self.config.clamp:
            self.weight.copy_(self.weight.clamp(-1.0, 1.0))


class NMU(Unit):
    """NMU, the neural multiplication unit: y_o = prod_i (W_oi x_i + 1 - W_oi) with W in [0, 1].

    Shapes: x [B, I] -> y [B, O]; W [O, I]. No bias. Madsen and Johansen, "Neural Arithmetic Units" (ICLR 2020), section 2.3,
    eq. 9.

    `clamp` clamps the parameter to [lower, 1] after every step (the authors' default); without it the forward clamps
    instead, as in their ablation. Penalties, unweighted: "sparsity", "out_of_bound"; R_z of a multiplicative layer. Their
    older unit without any clamp (RegualizedLinearMNAC, W ~ U(1/2 - 0.866, 1/2 + 0.866)) is not available; the nearest is
    clamp: false.

    The authors' command: --layer-type ReRegualizedLinearNAC --nac-mul mnac, which makes the first layer a NAU.
    """

    version = 1

    @dataclass(frozen=True, kw_only=True)
    class Config:
        clamp: bool = True
        """clamp the parameter to [lower, 1] after every step; false is the paper's ablation (--oob-mode)"""
        penalty: Shape = "linear"
        """shape of the penalties (--regualizer-shape)"""
        lower: float = 0.0
        """lower bound of W (the original flag --mnac-epsilon)"""

        def __post_init__(self) -> None:
            if not 0 <= self.lower < 1:
                raise ValueError(f"lower = {self.lower} must lie in [0, 1)")

    def __init__(self, config: Config, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(num_outputs, num_inputs))

    def initialise(self, stream: Stream) -> None:
        """W ~ U(1/4, 3/4)."""
        self.weight.copy_(stream.uniform(self.weight.shape, 0.25, 0.75))

    def effective_weight(self) -> Tensor:
        return self.weight if self.config.clamp else self._clamped()

    def weights(self, ctx: Context) -> tuple[Tensor, Penalties]:
        """Return W and its penalties, also for NAC•,NMU."""
        penalties = {"sparsity": nmu_sparsity(self.weight, self.config.penalty)}
        if not self.config.clamp:
            penalties["out_of_bound"] = nmu_out_of_bound(self.weight, self.config.penalty)
        return self.effective_weight(), penalties

    def forward(self, x_BI: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        W_OI, penalties = self.weights(ctx)
        return product_with_identity(W_OI, x_BI), penalties

    def input_penalty(self, mean_I: Tensor) -> Tensor:
        return nmu_input(self.effective_weight(), mean_I)

    def constrain(self) -> None:
        if self.config.clamp:
            self.weight.copy_(self._clamped())

    def _clamped(self) -> Tensor:
        lower = self.config.lower
        return torch.where(self.weight < lower, lower, self.weight).clamp(max=1.0)


class SillyNMU(NMU):
    """SillyNMU, an NMU without the identity: y_o = prod_i (W_oi x_i) with W in [0, 1].

    Shapes: x [B, I] -> y [B, O]; W [O, I]. Initial values, clamp, penalties and settings are NMU's. From the code of Madsen
    and Johansen, "Neural Arithmetic Units" (ICLR 2020), which calls it SillyReRegualizedLinearMNAC: the NMU of section 2.3
    if an input cannot be left out. One weight of 0 makes the product 0, so it multiplies all of its inputs or none.
    """

    def forward(self, x_BI: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
        W_OI, penalties = self.weights(ctx)
        return product(W_OI * x_BI.unsqueeze(1)), penalties


UNITS: dict[str, type[Unit]] = {"nau": NAU, "nmu": NMU, "silly_nmu": SillyNMU}
