"""Source locations of a definition: its classes, methods and parameters, and the line that a fault comes from."""

from __future__ import annotations

import ast
import inspect
import linecache
import os
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import arith_models.base
import tasks.base
from sweeps.config.registry import raised

ENGINE = os.path.realpath(Path(__file__).parent.parent) + os.sep
TORCH = os.path.realpath(Path(torch.__file__).parent) + os.sep
PYTHON = os.path.realpath(Path(os.__file__).parent) + os.sep
CONTRACTS = tuple(os.path.realpath(inspect.getfile(module)) for module in (arith_models.base, tasks.base))


@dataclass(frozen=True, order=True)
class Location:
    """A line of a file."""

    file: str
    line: int

    @property
    def text(self) -> str:
        return linecache.getline(self.file, self.line).strip()

    def __str__(self) -> str:
        path = Path(self.file)
        here = Path.cwd()
        return f"{path.relative_to(here) if path.is_relative_to(here) else path}:{self.line}"


def real_path(file: str) -> str:
    """Return a path without links, which can be compared; code that has no file keeps its name, such as <string>."""
    if file.startswith("<"):
        return file
    return _resolved(file) if os.path.isabs(file) else os.path.realpath(file)


@lru_cache(maxsize=4096)
def _resolved(file: str) -> str:
    return os.path.realpath(file)


def _is_library(path: str) -> bool:
    """Return whether a file belongs to Python, torch, the engine or the contracts, which are never reported."""
    if path.startswith((ENGINE, TORCH, "<")) or path in CONTRACTS:
        return True
    return path.startswith(PYTHON) and "-packages" + os.sep not in path


class Sources:
    """The files that define a class: its own, then those of its base classes, without libraries and contracts."""

    def __init__(self, cls: type[Any]) -> None:
        self.cls = cls
        found = [inspect.getsourcefile(c) for c in cls.__mro__ if c.__module__ != "builtins"]
        own = [real_path(f) for f in found if f and not _is_library(real_path(f))]
        self.files = tuple(dict.fromkeys(own))
        linecache.checkcache()  # a file may have been edited since

    @property
    def own(self) -> str:
        return self.files[0]

    @cached_property
    def trees(self) -> dict[str, ast.Module]:
        # As bytes, of which Python knows the encoding: a file may begin with a byte order mark, or name another than UTF-8.
        return {f: ast.parse(Path(f).read_bytes(), f) for f in self.files}

    @cached_property
    def classes(self) -> list[tuple[str, ast.ClassDef]]:
        """(file, node) of the class, then of its base classes."""
        nodes = [(f, n) for f, tree in self.trees.items() for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
        return [
            (file, node)
            for cls in self.cls.__mro__
            if cls.__module__ != "builtins"
            for file, node in nodes
            if node.name == cls.__name__ and real_path(inspect.getsourcefile(cls) or "") == file
        ]

    def of_class(self) -> Location:
        return next((Location(file, node.lineno) for file, node in self.classes), Location(self.own, 1))

    def of_method(self, name: str) -> Location:
        """Return the location of a method or a nested class; else of the class."""
        for file, node in self.classes:
            for item in node.body:
                if isinstance(item, ast.FunctionDef | ast.ClassDef) and item.name == name:
                    return Location(file, item.lineno)
        return self.of_class()

    def of_class_attribute(self, name: str) -> Location:
        for file, node in self.classes:
            for item in node.body:
                if name in _assigned(item):
                    return Location(file, item.lineno)
        return self.of_class()

    def of_function(self, *names: str) -> Location | None:
        """Return the location of a function or method of the first of these names that the files define."""
        for name in names:
            for file, tree in self.trees.items():
                for node in ast.walk(tree):
                    if isinstance(node, ast.FunctionDef) and node.name == name:
                        return Location(file, node.lineno)
        return None

    def of_parameter(self, name: str) -> Location | None:
        """Return the line that makes `self.name` or, if there is one, a line of the constructor that computes with it."""
        made = None
        for file, tree in self.trees.items():
            for function in ast.walk(tree):
                if not isinstance(function, ast.FunctionDef) or function.name != "__init__":
                    continue
                for item in ast.walk(function):
                    if isinstance(item, ast.Assign) and f"self.{name}" in _reads(item.value):
                        return Location(file, item.lineno)
                    if isinstance(item, ast.Assign) and f"self.{name}" in _assigned(item):
                        made = made or Location(file, item.lineno)
        return made


def _assigned(node: ast.AST) -> list[str]:
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign):
        targets = [node.target]
    return [ast.unparse(target) for target in targets]


def _reads(node: ast.AST) -> set[str]:
    return {ast.unparse(part) for part in ast.walk(node) if isinstance(part, ast.Attribute)}


def location_of_error(error: BaseException, sources: Sources) -> Location | None:
    """Return the innermost line of the definition that an exception passed through."""
    frames = [(f.f_code.co_filename, line) for f, line in traceback.walk_tb(error.__traceback__)]
    return innermost(reversed(frames), sources)


def location_of_stack(frame: FrameType | None, sources: Sources) -> Location | None:
    """Return the innermost line of the definition in a stack."""
    return innermost(((f.f_code.co_filename, f.f_lineno) for f in _outwards(frame)), sources)


def innermost(frames: Iterable[tuple[str, int]], sources: Sources) -> Location | None:
    """Return the first of frames, innermost first, in the definition's own file, else in that of a base class."""
    inherited: Location | None = None
    for file, line in frames:
        path = real_path(file)
        if path == sources.own:
            return Location(path, line)
        if path in sources.files:
            inherited = inherited or Location(path, line)
    return inherited


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


@dataclass(frozen=True)
class Fault:
    """A fault against a rule: what was found, what to do, and where. A warning does not break the rule."""

    found: str
    do: str
    location: Location | None = None
    warning: bool = False


def fault_of_exception(error: BaseException, sources: Sources, do: str = "repair what raises") -> Fault:
    """Return an exception as a fault, at the line of the definition that raised it."""
    if isinstance(error, SystemExit):
        return Fault(raised(error), do, location_of_error(error, sources))
    first = next(iter(str(error).strip().splitlines()), "")
    return Fault(f"{type(error).__name__}: {first}", do, location_of_error(error, sources))
