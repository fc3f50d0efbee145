"""Networks on a line of positions: bins of sequences side by side on one line, so that one matrix product serves all of them.

Legend of suffixes: K slots, N positions of the line, B batch, n positions of a bin, M maps (channels).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import cycle
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor

from arith_models.base import Context, Penalties
from arith_models.looped import Looped

State = dict[str, Tensor]


class LineNetwork(Looped):
    """A network that updates a line of positions step by step, as many steps as a bin has positions.

    Abstract: a network defines `begin`, `cell` and `finish`, and `step_weights` if the steps differ in their weights. All
    tensors of a state, and of `line`, which is the same in all steps, are [N, B, ...]. The longest bin comes first; the
    shortest is at the end, and is cut off when its steps are done.
    """

    pieces: ClassVar[tuple[str, ...]] = ("begin", "cell", "finish")

    @classmethod
    def step_weights(cls, pieces: SimpleNamespace) -> Sequence[tuple[Any, ...]]:
        """Return the last arguments of the cell, for one step after another; the steps cycle through them."""
        return [()]

    @classmethod
    def loop(cls, pieces: SimpleNamespace, x: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], Penalties]:
        weights = cycle(cls.step_weights(pieces))
        state, auxiliary, line = pieces.begin(tuple(reversed(x)))
        lengths: list[int] = sorted(bin_.shape[-1] for bin_ in x)
        ended: list[State] = []
        done = 0
        for i, length in enumerate(lengths):
            for _ in range(length - done):
                state, auxiliary = pieces.cell(state, auxiliary, line, *next(weights))
            done, first = length, sum(lengths[i + 1 :]) + len(lengths) - i
            ended.append(_cut(state, first, first + length))
            if lengths[i + 1 :]:
                state, line = _cut(state, 0, first), _cut(line, 0, first)
        result: tuple[tuple[Tensor, ...], Penalties] = pieces.finish(tuple(ended), auxiliary)
        return result

    @abstractmethod
    def begin(self, bins: tuple[Tensor, ...], ctx: Context) -> tuple[State, Tensor, State]:
        """Return the state before the first step, the auxiliary loss [] so far, and the line."""

    @abstractmethod
    def finish(self, ended: tuple[State, ...], auxiliary: Tensor, ctx: Context) -> tuple[tuple[Tensor, ...], Penalties]:
        """Return the logits [B, n, O] of every bin, shortest first, and the penalties. `ended` are the bins' last states."""


def lay_out(bins: Sequence[Tensor], between: int = -1) -> Tensor:
    """Return the line [N, B] of bins [B, n], with a position of `between` before, between and after them."""
    gap = bins[0].new_full((1, len(bins[0])), between)
    return torch.cat([gap, *(part for x_Bn in bins for part in (contiguous(x_Bn.T), gap))])


def one_hot(symbols: Tensor, kinds: int) -> Tensor:
    """Return float32 [..., kinds]; zeros for -1."""
    return (symbols.unsqueeze(-1) == torch.arange(kinds, device=symbols.device)).to(torch.float32)


def neighbours(s_NBM: Tensor) -> tuple[Tensor, Tensor]:
    """Return the values to the left and to the right of every position.

    The first and the last position are zeros that lie outside of all bins, so the roll may wrap around; that is quicker than
    padding with zeros.
    """
    return s_NBM.roll(1, 0), s_NBM.roll(-1, 0)


def linear(x_NBI: Tensor, weight_IO: Tensor) -> Tensor:
    """Return x W as one product of two matrices; with three axes it would become many small ones under vmap."""
    return (x_NBI.flatten(0, 1) @ weight_IO).unflatten(0, x_NBI.shape[:2])


def contiguous(t: Tensor) -> Tensor:
    """Return a copy whose strides follow from its shape alone, also along axes of size 1."""
    return t.clone(memory_format=torch.contiguous_format)


def _cut(state: State, first: int, end: int) -> State:
    return {name: contiguous(t[..., first:end, :, :]) for name, t in state.items()}
