"""The operator's own schemas of ray.io/v1, closed: an unknown key is a fault."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

SCHEMAS = Path(os.environ.get("KUBERAY_SCHEMAS", Path(__file__).parents[3] / "shared" / "data" / "kuberay"))
_CHECKERS: dict[str, jsonschema.Draft7Validator] = {}


class NoSchemas(FileNotFoundError):
    """The schemas are not on this machine."""


@cache
def schema(kind: str) -> dict[str, Any]:
    path = SCHEMAS / f"ray.io_{kind.lower()}s.yaml.gz"
    if not path.is_file():
        raise NoSchemas(f"the operator's schemas are not at {path}: KUBERAY_SCHEMAS names another folder")
    definition = yaml.load(gzip.decompress(path.read_bytes()), yaml.CSafeLoader)
    version = next(v for v in definition["spec"]["versions"] if v["name"] == "v1")
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    found["properties"]["metadata"] = {"type": "object"}
    return _closed(found)


def pod_schema(rayjob: dict[str, Any]) -> dict[str, Any]:
    """Of a plain pod: what the operator takes as a head's."""
    cluster = rayjob["properties"]["spec"]["properties"]["rayClusterSpec"]["properties"]
    found: dict[str, Any] = cluster["headGroupSpec"]["properties"]["template"]["properties"]["spec"]
    return found


def faults(manifest: dict[str, Any]) -> list[str]:
    kind = manifest["kind"]
    if kind not in _CHECKERS:
        _CHECKERS[kind] = jsonschema.Draft7Validator(schema(kind))
    found = [error.message for error in _CHECKERS[kind].iter_errors(manifest)]
    return found + [f"{name} is given twice" for names in _lists_of_names(manifest) for name in _twice(names)]


def _closed(node: Any) -> Any:
    if isinstance(node, dict):
        if "properties" in node and not node.get("x-kubernetes-preserve-unknown-fields"):
            node.setdefault("additionalProperties", False)
        for value in node.values():
            _closed(value)
    elif isinstance(node, list):
        for value in node:
            _closed(value)
    return node


def _lists_of_names(node: Any) -> Iterator[list[str]]:
    """Kubernetes merges these lists by name: variables, volumes, containers."""
    if isinstance(node, dict):
        for value in node.values():
            yield from _lists_of_names(value)
    elif isinstance(node, list):
        yield [item["name"] for item in node if isinstance(item, dict) and "name" in item]
        for item in node:
            yield from _lists_of_names(item)


def _twice(names: list[str]) -> set[str]:
    return {name for name in names if names.count(name) > 1}
