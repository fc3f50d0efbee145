"""Networks on a line of positions: bins of sequences side by side on one line, so that one matrix product serves all of them.

Legend of suffixes: K slots, N positions of the line, B batch, n positions of a bin, M maps (channels).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, cycle
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor

from arith_models.base import Context, Penalties
from arith_models.looped import Looped

State = dict[str, Tensor]

CALL_COST = {"cpu": 8}
"""What a step of the cell costs besides its positions, in positions, by type of device."""
OTHER_CALL_COST = 128
"""On a GPU: it is not filled by the positions of one lane, so fewer steps on a longer line are quicker. An estimate."""


@dataclass(frozen=True)
class Stretch:
    """Steps of the cell between two changes of the line."""

    steps: int
    places: tuple[tuple[int, int], ...]
    """(bin, its first position on the line) of the bins that are on the line, from left to right"""


class LineNetwork(Looped):
    """A network that updates a line of positions step by step, as many steps as a bin has positions.

    Abstract: a network defines `begin`, `cell` and `finish`, and `step_weights` if the steps differ in their weights. All
    tensors of a state, and of `line`, which is the same in all steps, are [N, B, ...], and 0 has to be right for positions
    outside of all bins. The line of the cell has one length, so that the cell is compiled once: see `stretches_of`.
    """

    pieces: ClassVar[tuple[str, ...]] = ("begin", "cell", "finish")

    @classmethod
    def step_weights(cls, pieces: SimpleNamespace) -> Sequence[tuple[Any, ...]]:
        """Return the last arguments of the cell, for one step after another; the steps cycle through them."""
        return [()]

    @classmethod
    def loop(cls, pieces: SimpleNamespace, x: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], Penalties]:
        lengths = tuple(bin_.shape[-1] for bin_ in x)
        step_weights = cls.step_weights(pieces)
        cost = CALL_COST.get(x[0].device.type, OTHER_CALL_COST)
        width, stretches = stretches_of(lengths, cost, at_once=len(step_weights) > 1)
        state, auxiliary, line = pieces.begin(tuple(x))
        firsts = list(accumulate(lengths, lambda first, length: first + length + 1, initial=1))
        states, lines = (
            [_cut(tensors, first, length) for first, length in zip(firsts, lengths, strict=False)]
            for tensors in (state, {name: t.detach() for name, t in line.items()})
        )
        weights = cycle(step_weights)
        for stretch in stretches:
            state, line = (_placed(of_bins, stretch.places, width) for of_bins in (states, lines))
            for _ in range(stretch.steps):
                state, auxiliary = pieces.cell(state, auxiliary, line, *next(weights))
            for bin_, first in stretch.places:
                states[bin_] = _cut(state, first, lengths[bin_])
        result: tuple[tuple[Tensor, ...], Penalties] = pieces.finish(tuple(states), auxiliary)
        return result

    @abstractmethod
    def begin(self, bins: tuple[Tensor, ...], ctx: Context) -> tuple[State, Tensor, State]:
        """Return the state before the first step, the auxiliary loss [] so far, and the line."""

    @abstractmethod
    def finish(self, ended: tuple[State, ...], auxiliary: Tensor, ctx: Context) -> tuple[tuple[Tensor, ...], Penalties]:
        """Return the logits [B, n, O] of every bin, and the penalties. `ended` are the bins' last states."""


@cache
def stretches_of(lengths: tuple[int, ...], call_cost: int, at_once: bool = False) -> tuple[int, list[Stretch]]:
    """Return the length of the line, and when and where on it each bin is: every bin is there for as many steps as it has
    positions, without a break, and has a free position on both sides.

    A bin may begin when others have ended, in their place: on a line for all bins at once, a third of the positions would
    be free. Of all lengths of the line the one is chosen that costs least, each step costing as much as its positions
    and `call_cost` more. `at_once`: all bins begin at the first step.
    """
    of_longest, of_all = max(lengths) + 2, sum(lengths) + len(lengths) + 1
    widths = [of_all] if at_once else range(of_longest, of_all + 1)
    found = [(width, _fitted(lengths, width)) for width in widths]
    return min(found, key=lambda of: (of[0] + call_cost) * sum(stretch.steps for stretch in of[1]))


def _fitted(lengths: Sequence[int], width: int) -> list[Stretch]:
    """Place the longest bin that fits, in the tightest gap, whenever bins have ended."""
    waiting = sorted(range(len(lengths)), key=lambda bin_: -lengths[bin_])
    present: dict[int, tuple[int, int]] = {}  # bin -> (steps left, first position)
    stretches = []
    while waiting or present:
        for bin_ in list(waiting):
            ends = sorted((first, first + lengths[other]) for other, (_, first) in present.items())
            gaps = zip([0, *(end for _, end in ends)], [*(first for first, _ in ends), width], strict=True)
            fitting = [(end - start, start) for start, end in gaps if end - start >= lengths[bin_] + 2]
            if fitting:
                present[bin_] = (lengths[bin_], min(fitting)[1] + 1)
                waiting.remove(bin_)
        steps = min(left for left, _ in present.values())
        places = sorted(((bin_, first) for bin_, (_, first) in present.items()), key=lambda place: place[1])
        stretches.append(Stretch(steps, tuple(places)))
        present = {bin_: (left - steps, first) for bin_, (left, first) in present.items() if left > steps}
    return stretches


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


def read_out(of_bins: Sequence[Tensor], weight_MO: Tensor, bias_O: Tensor) -> tuple[Tensor, ...]:
    """Return the logits [B, n, O] of the bins' states [n, B, M], all by one product."""
    logits_NBO = linear(torch.cat(list(of_bins)), weight_MO) + bias_O
    return tuple(part.transpose(0, 1) for part in logits_NBO.split([len(s_nBM) for s_nBM in of_bins]))


def contiguous(t: Tensor) -> Tensor:
    """Return a copy whose strides follow from its shape alone, also along axes of size 1."""
    return t.clone(memory_format=torch.contiguous_format)


def _cut(state: State, first: int, length: int) -> State:
    return {name: contiguous(t[..., first : first + length, :, :]) for name, t in state.items()}


def _placed(of_bins: Sequence[State], places: Sequence[tuple[int, int]], width: int) -> State:
    """Return the line of bins at their places, with zeros between them."""

    def joined(name: str) -> Tensor:
        like, parts, end = of_bins[0][name], [], 0

        def zeros(positions: int) -> Tensor:
            return like.new_zeros(*like.shape[:-3], positions, *like.shape[-2:])

        for bin_, first in places:
            parts += [zeros(first - end), of_bins[bin_][name]]
            end = first + parts[-1].shape[-3]
        return torch.cat([*parts, zeros(width - end)], -3)

    return {name: joined(name) for name in of_bins[0]}
