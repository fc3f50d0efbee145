"""What networks that repeat a cell have in common.

Such a network names its `pieces` and spells the loop over them in `loop(pieces, x_T)`, a static method. The engine calls it
with pieces that have a slot axis and are compiled, so the loop itself only passes tensors on, adds them, and counts axes from
the end. A piece takes tensors (or mappings of tensors) and, last, `ctx`, whose draws are its own at every call.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

CONSTANT = ("sparsity", "out_of_bound")
"""Penalties that look at weights alone, so they are the same at every time."""
AVERAGED = ("mean_input", "input")


class Looped(nn.Module):
    """Abstract: a network supplies `pieces`, `loop` and the methods that `pieces` names."""

    looped = True
    pieces: tuple[str, ...]

    @staticmethod
    def loop(pieces: Any, x_T: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        raise NotImplementedError("a looped network must define loop(pieces, x_T)")

    def forward(self, x_TBI: Tensor, ctx: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """One seed by itself: x [T, B, I] -> y, penalties."""
        calls = itertools.count()

        def run(piece: Any, *arguments: Any) -> Any:
            return piece(*arguments, ctx.part(next(calls)))

        bound = {name: partial(run, getattr(self, name)) for name in self.pieces}
        return self.loop(SimpleNamespace(**bound), x_TBI.unbind(0))


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
