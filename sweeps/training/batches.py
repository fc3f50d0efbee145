"""The batches of stacked lanes for networks that are looped: of all lengths at once, or of one that a curriculum chooses.

Legend of suffixes: K slots, T time, B batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from sweeps.training.compiled import Recorded
from sweeps.training.step import LaneFunctions


class Batches:
    """Called with state, floats, keys, instance, shared: (x, target, what else is known of the batch).

    x is [T, K, B, ...], or a tuple of bins [K, B, n].
    """

    def __init__(self, functions: LaneFunctions, arguments: tuple[Any, ...], compiled: bool) -> None:
        self._sample = Recorded(_stacked(functions.sample), arguments, compiled)

    @property
    def recorded(self) -> Sequence[Recorded]:
        return [self._sample]

    def __call__(self, *arguments: Any) -> tuple[Any, Any, dict[str, Any]]:
        return *self._sample(*arguments), {}


class LengthBatches(Batches):
    """Batches of one length, in the task's bin for it. Each bin is compiled when it is first met.

    Raises ValueError where lanes are at different bins: such lanes must train apart.
    """

    def __init__(self, functions: LaneFunctions, arguments: tuple[Any, ...], compiled: bool) -> None:
        self._functions, self._compiled = functions, compiled
        state, floats, keys, *_ = arguments
        self._length = Recorded(torch.vmap(functions.length), (state, floats, keys), compiled)
        self._by_bin: dict[int, Recorded] = {}

    @property
    def recorded(self) -> Sequence[Recorded]:
        return [self._length, *self._by_bin.values()]

    def __call__(self, *arguments: Any) -> tuple[Any, Any, dict[str, Any]]:
        state, floats, keys, *_ = arguments
        length_K = self._length(state, floats, keys)
        bins = {self._functions.built.task.bin_of(length) for length in length_K.tolist()}
        if len(bins) > 1:
            raise ValueError(f"lanes of one pack are at lengths of the bins {sorted(bins)}: train them apart")
        bin_ = bins.pop()
        if bin_ not in self._by_bin:
            sample = _stacked(partial(_of_bin, self._functions, bin_), 1)
            self._by_bin[bin_] = Recorded(sample, (length_K, *arguments), self._compiled)
        return *self._by_bin[bin_](length_K, *arguments), {"length": length_K}


def _of_bin(
    functions: LaneFunctions, bin_: int, length: Any, state: Any, floats: Any, keys: Any, data: Any
) -> Any:
    return functions.sample_length(length, bin_, state, floats, keys, data)


def _stacked(sample: Callable[..., Any], leading: int = 0) -> Callable[..., Any]:
    """`sample(..., instance and shared)` of one lane, over slots; the last two arguments are instance and shared."""

    def lane(*arguments: Any) -> Any:
        *before, instance, shared = arguments
        return sample(*before, {**instance, **shared})

    def over_slots(*arguments: Any) -> Any:
        x, target = torch.vmap(lane, in_dims=(0,) * (leading + 4) + (None,))(*arguments)
        return (x if isinstance(x, tuple) else x.movedim(1, 0).contiguous()), target

    return over_slots
