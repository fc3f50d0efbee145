"""Reads a dotted path such as `train.lr` out of resolved settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def value_at(resolved: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path. Raises KeyError where there is none.

    A setting of the units, `model.clamp` say, stands in `model.units` and not in `model`: it is the value of the
    first unit that has it, since a path reaches all of them alike.
    """
    node: Any = resolved
    keys = path.split(".")
    for depth, key in enumerate(keys):
        if not isinstance(node, Mapping):
            raise KeyError(path)
        if key not in node and depth == 1 and keys[0] == "model":
            node = next((unit for unit in node.get("units", ()) if key in unit), {})
        if key not in node:
            raise KeyError(path)
        node = node[key]
    return node


def values_at(resolved: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """Path -> value, for those of the paths that the settings have."""
    found = {}
    for path in paths:
        try:
            found[path] = value_at(resolved, path)
        except KeyError:
            continue
    return found
