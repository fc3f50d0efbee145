"""A task made ready for a check: built with its settings, its batches drawn as the engine draws them."""

from __future__ import annotations

import sys
import time
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sweeps import catalog
from sweeps.checking.declaration import TASK_DOCSTRING
from sweeps.checking.places import Sources
from sweeps.checking.tracing import generators
from sweeps.checking.variants import Variant, variants
from sweeps.checking.watching import Event, watched
from sweeps.training import Stream, seed_key

ROWS = 16
SEEDS = (0, 1, 2, 12345)
SURE = 100.0
"""The logit of the right symbol in an output that leaves no doubt, the others being 0."""


class TaskSubject:
    """What the rules for tasks look at."""

    kind = "task"
    docstring_needs = TASK_DOCSTRING
    instead_of_random = (
        "draw from the stream that sample is given, or from np.random.RandomState(seed) with the seed that instance is "
        "given"
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.cls = catalog.find("task", name)
        self.shipped = name in catalog.names("task")
        self.sources = Sources(self.cls)

    @cached_property
    def variants(self) -> list[Variant]:
        return variants(self.cls)

    @cached_property
    def threshold(self) -> tuple[Any, float, list[Event]]:
        """Its value, the seconds of a core that it took, and what it did besides. It may take long, so it is asked for once."""
        task = self.task()
        started = time.process_time()
        with watched(self.sources, snapshot=generators) as seen:
            value = task.threshold()
        return value, time.process_time() - started, seen

    def task(self, variant: Variant | None = None) -> Any:
        """Built anew, with nothing remembered from before."""
        for value in vars(sys.modules[self.cls.__module__]).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()
        return self.cls(variant.config if variant else self.cls.Config())


def is_sequence(task: Any) -> bool:
    """Whether x has a time axis in front: [T, B, ...]."""
    return hasattr(task, "time_steps")


def reads_symbols(task: Any) -> bool:
    """Whether x and target are tuples of whole symbols [B, n], and outputs are tuples of logits [B, n, O]."""
    return bool(getattr(task, "reads_symbols", False))


def handed(task: Any, seed: int) -> dict[str, Tensor]:
    """What `sample` is handed: what varies with the seed, and what lanes share."""
    shared = task.shared() if hasattr(task, "shared") else {}
    return {name: torch.from_numpy(array) for name, array in {**task.instance(seed), **shared}.items()}


def sampled(task: Any, seed: int = 0, batch: int = ROWS, stream: int | None = None) -> tuple[Any, Any]:
    """A training batch of a seed: x and target, each a tensor or, of symbols, a tuple of tensors."""
    drawn = Stream(seed_key(seed if stream is None else stream, "batch"))
    x, target = task.sample(drawn, handed(task, seed), batch)
    return x, target


def as_arrays(x: Any) -> Any:
    """Inputs as an oracle is given them: NumPy arrays, of numbers with a fraction in float64."""
    return pytree.tree_map(lambda t: (t.double() if t.is_floating_point() else t).numpy(), x)


def leaves(value: Any) -> list[Any]:
    """The tensors or arrays of one, or of a tuple of them."""
    found: list[Any] = pytree.tree_leaves(value)
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two tensors or arrays, or two tuples of them, are equal."""
    pairs = leaves(one), leaves(other)
    return len(pairs[0]) == len(pairs[1]) and all(
        np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(*pairs, strict=True)
    )


def exact_output(task: Any, target: Any) -> Any:
    """The output of a model that is right: the target itself, or logits that leave no doubt."""
    if not reads_symbols(task):
        return target
    return pytree.tree_map(lambda t: SURE * torch.nn.functional.one_hot(t, task.num_outputs).float(), target)
