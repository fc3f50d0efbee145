"""KEY=VALUE arguments: `train.steps=2000 seeds.count=5 model.dropout=0.1`, values read as YAML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sweeps.faults import shown
from sweeps.yaml_source import join, read_value

# A short form stands for its mapping when a part of it is set: `task: static` goes with task.operation=mul.
_SHORT_FORMS = {"model": "name", "task": "name", "search.sampler": "name", "seeds": "count"}
_DOTTED_KEYS = ("compare", "search.space")
"""Mappings whose own keys are dotted paths."""


class OverrideFault(ValueError):
    """An argument that cannot be applied."""


def apply(values: dict[str, Any], argument: str) -> str:
    """Set one KEY=VALUE in a file's values, in place, and return the dotted path that was set.

    A key that is not there yet is made. Raises OverrideFault.
    """
    key, equals, text = argument.partition("=")
    key = key.strip()
    if not equals or not re.fullmatch(r"[^\s.]+(\.[^\s.]+)*", key):
        raise OverrideFault("write KEY=VALUE with a dotted key, such as train.steps=2000")
    try:
        value = read_value(text)
    except ValueError as error:
        raise OverrideFault(str(error)) from error
    return _set(values, "", key.split("."), value)


def _set(node: Any, path: str, rest: Sequence[str], value: Any) -> str:
    if isinstance(node, list):
        return _set_item(node, path, rest, value)
    if not isinstance(node, dict):
        raise OverrideFault(f"{path} is {shown(node)}, which has no {rest[0]!r}: set {path}=... as a whole")
    key = _longest_key(node, path, rest)
    left = rest[key.count(".") + 1 :]
    here = join(path, key)
    if not left:
        node[key] = value
        return here
    if node.get(key) is None:
        node[key] = {}
    elif here in _SHORT_FORMS and not isinstance(node[key], (dict, list)):
        node[key] = {_SHORT_FORMS[here]: node[key]}
    return _set(node[key], here, left, value)


def _set_item(items: list[Any], path: str, rest: Sequence[str], value: Any) -> str:
    if not rest[0].isdigit() or int(rest[0]) >= len(items):
        raise OverrideFault(
            f"{path} is a list of {len(items)}: set {path}=[...] as a whole, or {path}.0 for its first item"
        )
    index = int(rest[0])
    here = join(path, index)
    if len(rest) == 1:
        items[index] = value
        return here
    if path in ("compare.model", "compare.task") and isinstance(items[index], str):
        items[index] = {"name": items[index]}
    return _set(items[index], here, rest[1:], value)


def _longest_key(node: dict[str, Any], path: str, rest: Sequence[str]) -> str:
    """The key that the rest of a path means here: an existing one, dots and all, or else a new one."""
    for length in range(len(rest), 0, -1):
        if ".".join(rest[:length]) in node:
            return ".".join(rest[:length])
    return ".".join(rest) if path in _DOTTED_KEYS else rest[0]
