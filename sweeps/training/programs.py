"""The compiled step and evaluation of a structure, kept in the process: the second pack costs nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils import _pytree as pytree

from sweeps.settings import Built
from sweeps.training.compiled import Recorded, in_place
from sweeps.training.lane_floats import structure
from sweeps.training.looped import LoopedEvaluation, LoopedStep
from sweeps.training.step import LaneFunctions


@dataclass(frozen=True)
class Programs:
    """`step.bind` of the step's arguments, in place; `evaluate(params, memory, floats, inputs, targets, shared)`."""

    step: Recorded | LoopedStep
    evaluate: Recorded | LoopedEvaluation

    @property
    def why_uncompiled(self) -> str | None:
        return self.step.why_uncompiled or self.evaluate.why_uncompiled


MOST_UNROLLED = 10
"""Time steps of training that are compiled as one graph; more are looped over, at about half the speed (docs/benchmarks.md)."""
STEP_ARGUMENTS = ("state", "floats", "keys", "budget", "instance", "shared")
_KEPT: dict[tuple[Any, ...], Programs] = {}


def programs_for(
    settings: dict[str, Any], built: Built, zeros: frozenset[str], tensors: dict[str, Any], compiled: bool
) -> Programs:
    """Programs for the stacked `tensors` of a pack: state, floats, keys, budget, instance, shared, inputs, targets.

    What a task shares between lanes ("shared") has no slot axis, nor have evaluation inputs that are the same for all
    lanes ("inputs_shared").
    """
    shapes = tuple(tuple(t.shape) for t in pytree.tree_leaves(tensors) if isinstance(t, torch.Tensor))
    device = str(tensors["budget"].device)
    key = (structure(settings), zeros, shapes, tensors["inputs_shared"], device, compiled)
    if key not in _KEPT:
        _KEPT[key] = _made(LaneFunctions(built, zeros), tensors, compiled)
    return _KEPT[key]


def _made(functions: LaneFunctions, tensors: dict[str, Any], compiled: bool) -> Programs:
    arguments = tuple(tensors[k] for k in STEP_ARGUMENTS)
    looped = getattr(functions.built.network, "looped", False)
    if looped and getattr(functions.built.task, "time_steps", math.inf) > MOST_UNROLLED:
        step: Recorded | LoopedStep = LoopedStep(functions, arguments, compiled)
    else:
        step = Recorded(
            in_place(torch.vmap(functions.step, in_dims=(0, 0, 0, 0, 0, None))), arguments, compiled
        )
    if looped:
        return Programs(step, LoopedEvaluation(functions, compiled, tensors["inputs_shared"]))
    evaluate = partial(_evaluate, functions, None if tensors["inputs_shared"] else 0)
    state = tensors["state"]
    seen = (
        state["params"],
        state["memory"],
        *(tensors[k] for k in ("floats", "inputs", "targets", "shared")),
    )
    return Programs(step, Recorded(evaluate, seen, compiled))


def _evaluate(functions: LaneFunctions, inputs_axis: int | None, *arguments: Any) -> Any:
    return torch.vmap(functions.evaluate, in_dims=(0, 0, 0, inputs_axis, 0, None))(*arguments)
