"""Networks on a line of positions: bins of sequences laid end to end, so that one matrix product serves all of them.

Legend of suffixes: K slots, N positions of the line, B batch, n positions of a bin, M maps (channels).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import cycle
from typing import Any, ClassVar

import torch
from torch import Tensor

from arith_models.looped import Looped

State = dict[str, Tensor]


class OnLine(Looped):
    """A network that changes a line of positions step by step, as many steps as a bin has positions.

    Abstract: a network supplies `begin(bins, ctx) -> state, tally, line`, `cell(state, tally, line, ctx, *weights)` and
    `finish(states of the bins, tally, ctx)`. All tensors of a state and of `line`, which stays, are [N, B, ...]; the tally is
    one number. The longest bin comes first; the shortest is at the end, and is cut off when its steps are done.
    """

    pieces: ClassVar[tuple[str, ...]] = ("begin", "cell", "finish")

    @classmethod
    def weights(cls, pieces: Any) -> Sequence[tuple[Any, ...]]:
        """What the cell is given besides, at one step after another; the steps go round these."""
        return [()]

    @classmethod
    def loop(cls, pieces: Any, x: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        given = cycle(cls.weights(pieces))
        state, tally, line = pieces.begin(tuple(reversed(x)))
        lengths: list[int] = sorted(bin_.shape[-1] for bin_ in x)
        ended: list[State] = []
        done = 0
        for i, length in enumerate(lengths):
            for _ in range(length - done):
                state, tally = pieces.cell(state, tally, line, *next(given))
            done, first = length, sum(lengths[i + 1 :]) + len(lengths) - i
            ended.append(_cut(state, first, first + length))
            if lengths[i + 1 :]:
                state, line = _cut(state, 0, first), _cut(line, 0, first)
        result: tuple[tuple[Tensor, ...], dict[str, Tensor]] = pieces.finish(tuple(ended), tally)
        return result

    @abstractmethod
    def begin(self, bins: tuple[Tensor, ...], ctx: Any) -> tuple[State, Tensor, State]:
        """The state before the first step, the tally, and what stays."""


def laid_out(bins: Sequence[Tensor], between: Any = -1) -> Tensor:
    """[N, B] from bins [B, n], with a position of `between` before, between and after them."""
    gap = bins[0].new_full((1, len(bins[0])), between)
    return torch.cat([gap, *(part for x_Bn in bins for part in (contiguous(x_Bn.T), gap))])


def one_hot(symbols: Tensor, kinds: int) -> Tensor:
    """float32 [..., kinds]; nothing for -1."""
    return (symbols.unsqueeze(-1) == torch.arange(kinds, device=symbols.device)).to(torch.float32)


def neighbours(s_NBM: Tensor) -> tuple[Tensor, Tensor]:
    """What stands to the left and to the right of every position. The first and the last position are zeros that lie outside
    of all bins, so it may go round; that is quicker than to fill up with zeros.
    """
    return s_NBM.roll(1, 0), s_NBM.roll(-1, 0)


def product(x_NBI: Tensor, weight_IO: Tensor) -> Tensor:
    """One product of two matrices; with three axes it would become many small ones under vmap."""
    return (x_NBI.flatten(0, 1) @ weight_IO).unflatten(0, x_NBI.shape[:2])


def contiguous(t: Tensor) -> Tensor:
    """A copy whose strides follow from its shape alone, also along axes of size 1."""
    return t.clone(memory_format=torch.contiguous_format)


def _cut(state: State, first: int, end: int) -> State:
    return {name: contiguous(t[..., first:end, :, :]) for name, t in state.items()}
