"""Inductor lowering of the threefry2x32 operation: one loop over its elements, in registers.

Separate from the operation, because it imports torch's compiler, which takes seconds.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch._inductor import ir, lowering
from torch._inductor.virtualized import ops

from sweeps.training.random import ROUNDS, rotate_left, threefry_rounds


class _Word:
    """A value inside a kernel that is being generated, with the operators that `threefry_rounds` uses."""

    def __init__(self, value: Any) -> None:
        self.value = value

    @staticmethod
    def _of(other: Any) -> Any:
        return other.value if isinstance(other, _Word) else ops.constant(other, torch.int32)

    def __add__(self, other: Any) -> _Word:
        return _Word(ops.add(self.value, self._of(other)))

    def __xor__(self, other: Any) -> _Word:
        return _Word(ops.bitwise_xor(self.value, self._of(other)))

    def __or__(self, other: Any) -> _Word:
        return _Word(ops.bitwise_or(self.value, self._of(other)))

    def __and__(self, other: Any) -> _Word:
        return _Word(ops.bitwise_and(self.value, self._of(other)))

    def __lshift__(self, bits: int) -> _Word:
        return _Word(ops.bitwise_left_shift(self.value, self._of(bits)))

    def __rshift__(self, bits: int) -> _Word:
        return _Word(ops.bitwise_right_shift(self.value, self._of(bits)))


def _lowered(*boxes: Any) -> tuple[Any, Any]:
    loaders = [box.make_loader() for box in boxes]

    def word(which: int) -> Any:
        def inner(index: Any) -> Any:
            key0, key1, x0, x1 = (_Word(load(index)) for load in loaders)
            return threefry_rounds((x0, x1), (key0, key1), ROUNDS, rotate_left, lambda w: w)[which].value

        return ir.Pointwise.create(device=boxes[0].get_device(), dtype=torch.int32, inner_fn=inner, ranges=boxes[0].get_size())

    return word(0), word(1)


@functools.cache
def register() -> None:
    """Register the lowering with the compiler, once a process."""
    operation = torch.ops.sweeps.threefry2x32.default
    lowering.register_lowering(operation, broadcast=True, type_promotion_kind=None)(_lowered)
