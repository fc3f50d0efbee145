"""Which settings are a lane's own numbers, and which are structure.

A float is a lane's number: a tensor with a slot axis. Ints, bools, words and shapes are structure: lanes whose
structure is equal share a compiled step. The floats of `REMOVABLE` may be structure too where they are zero in every lane
of a sweep: their terms, which act on finished gradients element by element, leave the step. That saves time and changes
no bit (tests/training/test_pack_compiled.py). A model's own floats are not among them: without dropout, say, the compiler
would lay out the hidden values otherwise, and the matrix routine would round otherwise.

What a task names in `evaluation_only` is neither: the step never sees it. Such settings may differ even in form (an
extrapolation range of two numbers or, as a union, of four) between lanes that share a step.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from sweeps.config import registry

REMOVABLE = frozenset({"train.gradient_noise", "train.clip_norm", "train.clip_value", "train.momentum"})
NOT_STRUCTURE = ("train.steps", "train.stop", "model.name")


def float_leaves(resolved: Mapping[str, Any]) -> dict[str, float]:
    """Dotted path -> value of every float of explicit settings that the step may see."""
    return {path: value for path, value in _seen(resolved) if isinstance(value, float)}


def structure(resolved: Mapping[str, Any]) -> str:
    """A text that is equal for lanes that may share a pack."""
    leaves = {p: "float" if isinstance(v, float) else v for p, v in _seen(resolved) if p not in NOT_STRUCTURE}
    return json.dumps(leaves, sort_keys=True)


def with_floats(config: Any, floats: Mapping[str, Any], path: str, but: Collection[str] = ()) -> Any:
    """A copy of a config (dataclasses, tuples) whose floats are replaced by those at `path` and below.

    Fields named in `but` stay as they are. The config's own checks are not run again: they have passed, and tensors
    could not pass them.
    """
    if isinstance(config, float):
        return floats[path]
    if isinstance(config, tuple):
        return tuple(with_floats(item, floats, f"{path}.{i}") for i, item in enumerate(config))
    if not dataclasses.is_dataclass(config):
        return config
    names = [field.name for field in dataclasses.fields(config) if field.name not in but]
    return replaced(
        config, **{name: with_floats(getattr(config, name), floats, f"{path}.{name}") for name in names}
    )


def replaced(config: Any, **values: Any) -> Any:
    """A copy of a frozen config with other values, which are not checked."""
    result = copy.copy(config)
    for name, value in values.items():
        object.__setattr__(result, name, value)
    return result


def evaluation_only(task: Any) -> tuple[str, ...]:
    """Settings of a task, by its class or an instance, that its `sample` and `loss` never look at."""
    only: tuple[str, ...] = task.evaluation_only
    return only


def _seen(resolved: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    task = resolved["task"]
    unseen = evaluation_only(registry.find("task", task["name"]))
    return _leaves({**resolved, "task": {k: v for k, v in task.items() if k not in unseen}}, "")


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}" if path else key)
    elif isinstance(node, list | tuple):
        for i, value in enumerate(node):
            yield from _leaves(value, f"{path}.{i}")
    else:
        yield path, node
