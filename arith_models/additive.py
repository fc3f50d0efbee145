"""The additive layer that NAC, NAU and their relatives share."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor

from arith_models.base import Unit


class Additive(Unit):
    """y = x Wᵀ without a bias. Abstract: a unit supplies `initialise` and `effective_weight`.

    Shapes: x [B, I] -> y [B, O]; W [O, I]. The product is written (W xᵀ)ᵀ, which is quicker for few outputs.
    """

    @abstractmethod
    def initialise(self, stream: Any) -> None:
        """Fill the parameters from the stream."""

    @abstractmethod
    def effective_weight(self) -> Tensor:
        """W [O, I], which the sparsity error looks at."""

    def weights(self, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """W as one forward uses it, and its penalties. Units that draw W, or pass another gradient on, override this.

        NALU and NAC• ask for it, too: one draw then serves both branches of a NALU.
        """
        return self.effective_weight(), {}

    def forward(self, x_BI: Tensor, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        W_OI, penalties = self.weights(ctx)
        return (W_OI @ x_BI.T).T, penalties

    def constrain(self) -> None:
        """Most weights are free, or bounded by construction."""
