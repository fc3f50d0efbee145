"""What networks that repeat a cell have in common.

Such a network names its `pieces` and spells the loop over them in `loop(pieces, x_T)`, a static method. The engine calls it
with pieces that have a slot axis and are compiled, so the loop itself only passes tensors on, adds them, and counts axes from
the end. A piece takes tensors (or mappings of tensors) and, last, `ctx`, whose draws are its own at every call.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from arith_models.base import Network
from arith_models.penalties import weighed

CONSTANT = ("sparsity", "out_of_bound")
"""Penalties that look at weights alone, so they are the same at every time."""
AVERAGED = ("mean_input", "input")


class Looped(Network):
    """Abstract: a network supplies `pieces`, `loop` and the methods that `pieces` names."""

    @staticmethod
    @abstractmethod
    def loop(pieces: Any, x: Sequence[Tensor]) -> tuple[Any, dict[str, Tensor]]:
        """y and penalties of a sequence, or of the symbols of several bins."""

    def forward(self, x: Any, ctx: Any) -> tuple[Any, dict[str, Tensor]]:
        """One seed by itself: x [T, B, I], or a tuple of bins [B, n] -> y, penalties."""
        calls = itertools.count()

        def run(piece: Any, *arguments: Any) -> Any:
            return piece(*arguments, ctx.part(next(calls)))

        bound = {name: partial(run, getattr(self, name)) for name in self.pieces}
        return self.loop(SimpleNamespace(**bound), x if isinstance(x, tuple) else x.unbind(0))


def over_time(found: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Penalties of all times as one: those of weights once, those of the mean input averaged, the others summed."""
    result: dict[str, Tensor] = {}
    for name in found[0]:
        total = found[0][name]
        if name not in CONSTANT:
            for later in found[1:]:
                total = total + later[name]
        result[name] = total / len(found) if name in AVERAGED else total
    return result


class CellThenUnit(Looped):
    """A cell over time, then a unit on its last state. Abstract: a network supplies `begin` and `cell`, and has `config` with
    `hidden` and `dropout`, `unit` (the cell) and `output`.
    """

    pieces = ("begin", "cell", "finish")
    config: Any
    unit: Any
    output: Any

    @staticmethod
    def loop(pieces: Any, x_T: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        state = pieces.begin(x_T[0])
        found = []
        for x in x_T:
            state, penalties = pieces.cell(state, x)
            found.append(penalties)
        result: tuple[Tensor, dict[str, Tensor]] = pieces.finish(state, over_time(found))
        return result

    def finish(
        self, state_BS: Tensor, found: dict[str, Tensor], ctx: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        h_BH = ctx.dropout(state_BS[:, : self.config.hidden], self.config.dropout)
        y_BO, of_output = self.output(h_BH, ctx)
        if not ctx.training:
            return y_BO, {}
        of_cell = {name: value for name, value in found.items() if name != "mean_input"}
        layers = [(self.unit, found["mean_input"], of_cell), (self.output, h_BH.mean(0), of_output)]
        return y_BO, weighed(self.config, ctx.step, layers)

    def constrain(self) -> None:
        self.unit.constrain()
        self.output.constrain()
