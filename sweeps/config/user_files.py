"""The user's own units and tasks that a sweep names: files that have to be sent to workers on other machines."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sweeps.config.source import imported_files
from sweeps.errors import UserError

PACKAGES = ("arith_models", "cluster", "sweeps", "tasks")
"""The packages of this project."""
_LEFT_OUT = ("__pycache__", "node_modules", "results", "mlruns")  # and names that begin with a dot


class OutOfReach(UserError):
    """A file that cannot be sent; the message contains the reason and what to do."""


def own_files(document: Any, home: Path) -> dict[str, Path]:
    """Return the user's files that a sweep names (`./my_unit.py`, `my_pkg.units:Mine`), and those that they import.

    The keys are paths below `home`, the folder that the sweep is submitted from; a package of the user's is sent as a
    whole, and of what a file imports the modules in `home`. Raises OutOfReach for a named file outside of `home`.
    """
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
        return {}  # not the name of a file; as a model it was refused when the sweep file was read
    inside = Path(os.path.normpath(word))
    if inside.is_absolute() or inside.parts[0] == "..":
        raise OutOfReach(
            f"{word} is outside the folder that the sweep is submitted from, and would not be found on the cluster: "
            f"copy it here and write ./{path.name}, or submit from a folder above it"
        )
    # Imports find modules in `home`, where the command runs, and not in the folder of the file that imports.
    modules = imported_files(path.stem, path, {**dict.fromkeys(PACKAGES, ()), "": (home,)})
    helpers = {module.relative_to(home).as_posix(): module for module in modules.values() if module != path}
    return {inside.as_posix(): path, **helpers}


def _package(name: str, home: Path) -> dict[str, Path]:
    """Return a package of the user's that is in `home`; one that is installed must be installed on the cluster too."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None or name in PACKAGES:
        return {}
    origin, home = Path(spec.origin).absolute(), home.absolute()
    if not origin.is_relative_to(home):  # one of the two was reached by a link
        origin, home = origin.resolve(), home.resolve()
    if not origin.is_relative_to(home) or "site-packages" in origin.parts:
        return {}
    if origin.name != "__init__.py":
        return {origin.relative_to(home).as_posix(): origin}
    return {path.relative_to(home).as_posix(): path for path in files_below(origin.parent)}


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder and its folders, without hidden ones, and without caches and results unless they are code."""
    for parent, folders, files in os.walk(folder):
        packages = {name for name in folders if (Path(parent) / name / "__init__.py").is_file()}
        folders[:] = [name for name in folders if (name in packages or name not in _LEFT_OUT) and not name.startswith(".")]
        yield from (Path(parent) / name for name in files if not name.endswith(".pyc") and not name.startswith("."))
