"""The settings of a lane as the engine takes them: how it is trained, what it consists of, and which of it may differ.

A float is a lane's own number: a tensor with a slot axis. Ints, bools, words and shapes are structure: lanes whose
structure is equal share a compiled step. The floats of `REMOVABLE` may be structure too where they are zero in every lane
of a sweep: their terms, which act on finished gradients element by element, are left out of the step. That saves time and
changes no bit (tests/training/test_pack_compiled.py). A model's own floats are not among them: without dropout, for
instance, the compiler would lay out the hidden values differently, and the matrix routine would round differently.

What a task names in `evaluation_only` is neither: the step never reads it. Such settings may differ even in form (an
extrapolation range of two numbers or, as a union, of four) between lanes that share a step.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from arith_models.base import Network, Unit, float32
from sweeps.training.optimizers import OPTIMIZERS, LrDecay
from tasks.base import Task

if TYPE_CHECKING:
    OptimizerName = str
else:
    OptimizerName = Literal[tuple(OPTIMIZERS)]  # the registry is the one list of names

REMOVABLE = frozenset({"train.gradient_noise", "train.clip_norm", "train.clip_value", "train.momentum"})
NOT_STRUCTURE = ("train.steps", "train.stop", "model.name")


@dataclass(frozen=True, kw_only=True)
class Train:
    """How a lane is trained. A float may differ between lanes that share a pack; the rest is structure."""

    steps: int
    """the budget: number of updates"""
    batch: int = 128
    """examples of one update"""
    optimizer: OptimizerName = "adam"
    """adamax: with the clip relative to past gradients of the improved Neural GPU"""
    lr: float = 1e-3
    """learning rate"""
    lr_decay: LrDecay = field(default_factory=LrDecay)
    """a learning rate that falls when the loss has stopped falling"""
    beta1: float = 0.9
    """Adam, AdaMax"""
    beta2: float = 0.999
    """Adam, AdaMax"""
    epsilon: float = 1e-8
    """Adam, AdaMax"""
    momentum: float = 0.0
    """SGD; plain, not Nesterov's"""
    gradient_noise: float = 0.0
    """eta of Neelakantan et al. (2015): normal noise of variance eta / (1 + t)^0.55 on every gradient"""
    clip_norm: float = 0.0
    """largest norm of a lane's gradient, before noise is added; 0 is off"""
    clip_value: float = 0.0
    """largest magnitude of an element of the gradient, before noise is added; 0 is off"""
    products: Literal["float32", "tf32", "bf16"] = "float32"
    """of matrices and in convolutions, in the steps of networks that repeat a cell; the rest of a step, and evaluation, are
    float32. tf32: factors rounded to 11 bits, on a GPU; on a CPU it is float32. bf16: factors and results rounded to 8 bits
    (bfloat16, by torch.autocast)"""
    evaluate_every: int = 1000
    """steps between evaluations, and so the resolution of converged-at"""
    stop: Literal["never", "solved"] = "never"
    """solved: a lane ends at the first evaluation at which it is solved, as judged by its evaluations so far"""

    def __post_init__(self) -> None:
        bounds = {
            "steps": 1,
            "batch": 1,
            "evaluate_every": 1,
            "gradient_noise": 0,
            "clip_norm": 0,
            "clip_value": 0,
        }
        faults = [f"{k} = {getattr(self, k)} must be at least {low}" for k, low in bounds.items() if getattr(self, k) < low]
        faults += [f"{k} = {getattr(self, k)} must be above 0" for k in ("lr", "epsilon") if not getattr(self, k) > 0]
        faults += [
            f"{k} = {getattr(self, k)} must lie in [0, 1)"
            for k in ("beta1", "beta2", "momentum")
            if not 0 <= float32(getattr(self, k)) < 1
        ]
        if faults:
            raise ValueError(*faults)


@dataclass(frozen=True)
class Built:
    """A lane's settings as objects. A module is made from them with `model`, as often as one is needed."""

    network: type[Network]
    network_config: Any
    units: tuple[tuple[type[Unit], Any], ...]
    """(class, Config) of every unit that the network arranges"""
    task: Task
    train: Train

    def model(self, config: Any = None, unit_configs: tuple[Any, ...] | None = None) -> Network:
        """Return a module for one seed, its parameters not yet initialised; other configs may replace its own."""
        configs = unit_configs or tuple(c for _, c in self.units)
        factories = [partial(cls, c) for (cls, _), c in zip(self.units, configs, strict=True)]
        return self.network(config or self.network_config, factories, self.task.num_inputs, self.task.num_outputs)


Build = Callable[[Mapping[str, Any]], Built]
"""Makes the objects of resolved settings (`model`, `task`, `train` as plain data). Raises ValueError where it cannot."""


def float_leaves(settings: Mapping[str, Any], evaluation_only: Collection[str]) -> dict[str, float]:
    """Return every float that the step may read, by its dotted path. `evaluation_only` is the attribute of the task."""
    return {p: value for p, value in _step_leaves(settings, evaluation_only) if isinstance(value, float)}


def structure(settings: Mapping[str, Any], evaluation_only: Collection[str]) -> str:
    """Return a text that is equal for lanes that may share a pack. `evaluation_only` is the attribute of the task."""
    leaves = {
        path: "float" if isinstance(value, float) else value
        for path, value in _step_leaves(settings, evaluation_only)
        if path not in NOT_STRUCTURE
    }
    return json.dumps(leaves, sort_keys=True)


def _step_leaves(settings: Mapping[str, Any], evaluation_only: Collection[str]) -> Iterator[tuple[str, Any]]:
    def leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
        if isinstance(node, Mapping):
            for key, value in node.items():
                yield from leaves(value, f"{path}.{key}" if path else key)
        elif isinstance(node, list | tuple):
            for i, value in enumerate(node):
                yield from leaves(value, f"{path}.{i}")
        else:
            yield path, node

    task = {key: value for key, value in settings["task"].items() if key not in evaluation_only}
    return leaves({**settings, "task": task}, "")


def with_floats(config: Any, floats: Mapping[str, Any], path: str, except_for: Collection[str] = ()) -> Any:
    """Return a copy of a config (dataclasses, tuples) whose floats are replaced by those at `path` and below.

    Fields named in `except_for` stay as they are. The config's own checks are not run again: they have passed, and
    tensors could not pass them.
    """
    if isinstance(config, float):
        return floats[path]
    if isinstance(config, tuple):
        return tuple(with_floats(item, floats, f"{path}.{i}") for i, item in enumerate(config))
    if not dataclasses.is_dataclass(config):
        return config
    names = [field.name for field in dataclasses.fields(config) if field.name not in except_for]
    return replaced(config, **{name: with_floats(getattr(config, name), floats, f"{path}.{name}") for name in names})


def replaced(config: Any, **values: Any) -> Any:
    """Return a copy of a frozen config with other values, which are not checked."""
    result = copy.copy(config)
    for name, value in values.items():
        object.__setattr__(result, name, value)
    return result
