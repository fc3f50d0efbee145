"""What the rules for tasks say of tasks on symbols: x, target and outputs are tuples, one entry a width n."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sweeps.checking.findings import Fault
from sweeps.checking.places import Place
from sweeps.checking.task_subject import ROWS

OUTSIDE, PAD = -1, 0


def batch(task: Any, x: Any, target: Any, label: str, place: Place) -> Iterator[Fault]:
    """x and target are tuples of int64 [B, n], one for each of `task.bins` in ascending order, of the task's symbols."""
    for what, value, lowest, highest in (
        ("x", x, OUTSIDE, task.num_inputs - 1),
        ("target", target, PAD, task.num_outputs - 1),
    ):
        wanted = [[ROWS, n] for n in sorted(task.bins)]
        shapes = [list(t.shape) for t in value] if isinstance(value, tuple) else type(value).__name__
        if shapes != wanted:
            found = f"{what} has shapes {shapes} instead of {wanted}{label}"
            yield Fault(
                found, "return a tuple with one tensor [batch, n] for each bin, the smallest first", place
            )
            return
        for n, symbols in zip(sorted(task.bins), value, strict=True):
            if symbols.dtype != torch.int64:
                yield Fault(f"{what} of bin {n} is {symbols.dtype}{label}", "make it int64", place)
            yield from _strange(f"{what} of bin {n}{label}", symbols.numpy(), (lowest, highest), place)
    for n, symbols, answer in zip(sorted(task.bins), x, target, strict=True):
        if ((symbols == OUTSIDE) != ((symbols <= PAD) & (answer == PAD))).any():
            found = f"x of bin {n} is not {OUTSIDE} exactly where x and target are both padding{label}"
            yield Fault(found, f"mark positions outside of the working space by {OUTSIDE}", place)


def inputs(task: Any, found: Any, which: str, place: Place) -> Iterator[Fault]:
    """The inputs of a split: a tuple of whole numbers [rows, n]."""
    if not isinstance(found, tuple) or not found or any(a.ndim != 2 or not a.size for a in found):
        shapes = [list(np.shape(a)) for a in found] if isinstance(found, tuple) else type(found).__name__
        yield Fault(f"{which} has shapes {shapes}", "return a tuple of arrays [rows, n]", place)
        return
    for symbols in found:
        if not np.issubdtype(symbols.dtype, np.integer):
            yield Fault(f"{which} is {symbols.dtype}", "return whole numbers: symbols", place)
        yield from _strange(which, symbols, (OUTSIDE, task.num_inputs - 1), place)


def _strange(what: str, symbols: Any, allowed: tuple[int, int], place: Place) -> Iterator[Fault]:
    low, high = int(symbols.min()), int(symbols.max())
    if low < allowed[0] or high > allowed[1]:
        found = f"{what} has symbols from {low} to {high}, but {allowed[0]} to {allowed[1]} are the task's"
        yield Fault(
            found, "set num_inputs and num_outputs to the numbers of symbols, padding included", place
        )


def wrong_output(exact: Any) -> Any:
    """Logits that are sure of another symbol everywhere."""
    return pytree.tree_map(lambda y: y.roll(1, dims=-1), exact)


def unnoticed(name: str, wrong: Tensor, least: Tensor, label: str, place: Place) -> Iterator[Fault]:
    """Symbols that are all wrong must cost more than those that are all right."""
    if not float(wrong) > float(least):
        found = f"the {name} of wrong symbols is {float(wrong):g}, that of the exact target {float(least):g}{label}"
        yield Fault(found, f"let the {name} grow with wrong symbols", place)
