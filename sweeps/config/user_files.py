"""The user's own units and tasks that a sweep names: files that must travel to workers on other machines."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sweeps.errors import UserError

OURS = ("arith_models", "cluster", "sweeps", "tasks")
LEFT_OUT = ("__pycache__", "node_modules", "results", "mlruns")  # and whatever begins with a dot


class OutOfReach(UserError):
    """A file that cannot travel; the message says why and what to do."""


def own_files(document: Any, home: Path) -> dict[str, Path]:
    """The user's files that a sweep names (`./my_unit.py`, `my_pkg.units:Mine`), by their path in the parcel."""
    found: dict[str, Path] = {}
    for word in _words(document):
        if word.endswith(".py"):
            found |= _file(word, home)
        elif word.count(":") == 1 and all(part.isidentifier() for part in word.replace(":", ".").split(".")):
            found |= _package(word.partition(":")[0].partition(".")[0], home)
    return found


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _words(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _words(item)


def _file(word: str, home: Path) -> dict[str, Path]:
    path = home / word
    if not path.is_file():
        return {}  # not a file's name; a model of that name was refused when the sweep file was read
    inside = Path(os.path.normpath(word))
    if inside.is_absolute() or inside.parts[0] == "..":
        raise OutOfReach(
            f"{word} lies outside the folder that the sweep is submitted from, and would not be found on the cluster: "
            f"copy it here and write ./{path.name}, or submit from a folder above it"
        )
    return {inside.as_posix(): path}


def _package(name: str, home: Path) -> dict[str, Path]:
    """A package of the user's that lies here; one that is installed must be installed on the cluster too."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None or name in OURS:
        return {}
    origin, home = Path(spec.origin).absolute(), home.absolute()
    if not origin.is_relative_to(home):  # one of the two was reached by a link
        origin, home = origin.resolve(), home.resolve()
    if not origin.is_relative_to(home) or "site-packages" in origin.parts:
        return {}
    if origin.name != "__init__.py":
        return {origin.relative_to(home).as_posix(): origin}
    return {path.relative_to(home).as_posix(): path for path in tree(origin.parent)}


def tree(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in LEFT_OUT and not name.startswith(".")]
        yield from (
            Path(place) / name for name in files if not name.endswith(".pyc") and not name.startswith(".")
        )
