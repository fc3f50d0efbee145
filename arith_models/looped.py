"""Networks that repeat a cell.

Such a network names its `pieces` and calls them in `loop(pieces, x)`, a class method. The engine calls `loop` with compiled
pieces, whose tensors have a slot axis in front, so the loop itself only passes tensors on, adds and stacks them, and counts
axes from the end.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from arith_models.base import Context, Network, NetworkTerms, Penalties, Unit
from arith_models.penalties import PenaltyConfig, weighted

CONSTANT = ("sparsity", "out_of_bound")
"""Penalties of weights alone, which are the same at every time step."""
AVERAGED = ("mean_input", "input")


class Looped(Network):
    """Abstract: a network defines `pieces`, `loop` and the methods that `pieces` names."""

    @classmethod
    @abstractmethod
    def loop(cls, pieces: SimpleNamespace, x: Sequence[Tensor]) -> tuple[Any, NetworkTerms]: ...

    def forward(self, x: Any, ctx: Context) -> tuple[Any, NetworkTerms]:
        """Run the loop for one seed: x [T, B, I], or a tuple of bins [B, n]."""
        calls = itertools.count()

        def call(piece: Callable[..., Any], *arguments: Any) -> Any:
            return piece(*arguments, ctx.part(next(calls)))

        bound = {name: partial(call, getattr(self, name)) for name in self.pieces}
        return self.loop(SimpleNamespace(**bound), x if isinstance(x, tuple) else x.unbind(0))


def over_time(penalties_T: Sequence[Penalties]) -> Penalties:
    """Return the penalties of all time steps as one: those of weights once, R_z averaged, the others summed.

    "mean_input" [I], which is not a penalty but the mean input of the cell, is averaged as well.
    """
    result: Penalties = {}
    for name, total in penalties_T[0].items():
        if name not in CONSTANT:
            for later in penalties_T[1:]:
                total = total + later[name]
        result[name] = total / len(penalties_T) if name in AVERAGED else total
    return result


def cell_step(unit: Unit, x_BI: Tensor, state_BS: Tensor, ctx: Context) -> tuple[Tensor, Penalties]:
    """Return the new state [B, S] of a cell, and in training its penalties, with "mean_input" [I + S] for R_z."""
    x_and_state_BS = torch.cat([x_BI, state_BS], 1)
    new_BS, penalties = unit(x_and_state_BS, ctx)
    return new_BS, {**penalties, "mean_input": x_and_state_BS.mean(0)} if ctx.training else {}


class CellThenUnit(Looped):
    """A cell over time, then a unit on the first `hidden` values of its last state, with dropout between.

    Abstract: a network defines `begin` and `cell`, and sets the attributes.
    """

    pieces = ("begin", "cell", "finish")
    config: PenaltyConfig
    hidden: int
    dropout: float
    unit: Unit
    """The cell."""
    output: Unit

    @classmethod
    def loop(cls, pieces: SimpleNamespace, x_T: Sequence[Tensor]) -> tuple[Tensor, Penalties]:
        state = pieces.begin(x_T[0])
        penalties_T = []
        for x in x_T:
            state, penalties = pieces.cell(state, x)
            penalties_T.append(penalties)
        result: tuple[Tensor, Penalties] = pieces.finish(state, over_time(penalties_T))
        return result

    def finish(self, state_BS: Tensor, of_cell: Penalties, ctx: Context) -> tuple[Tensor, Penalties]:
        h_BH = ctx.dropout(state_BS[:, : self.hidden], self.dropout)
        y_BO, of_output = self.output(h_BH, ctx)
        if not ctx.training:
            return y_BO, {}
        penalties = {name: value for name, value in of_cell.items() if name != "mean_input"}
        layers = [(self.unit, of_cell["mean_input"], penalties), (self.output, h_BH.mean(0), of_output)]
        return y_BO, weighted(self.config, ctx.step, layers)

    def constrain(self) -> None:
        self.unit.constrain()
        self.output.constrain()
