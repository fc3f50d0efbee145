"""Files and lines: where a class, a method or an attribute stands, and which line of a definition is to blame."""

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

ENGINE = os.path.realpath(Path(__file__).parent.parent) + os.sep
TORCH = os.path.realpath(Path(torch.__file__).parent) + os.sep
PYTHON = os.path.realpath(Path(os.__file__).parent) + os.sep


@dataclass(frozen=True, order=True)
class Place:
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


def real(file: str) -> str:
    """A path that can be compared."""
    if file.startswith("<"):
        return file  # no file: code that was made on the spot
    return _resolved(file) if os.path.isabs(file) else os.path.realpath(file)


@lru_cache(maxsize=4096)
def _resolved(file: str) -> str:
    return os.path.realpath(file)


def is_library(path: str) -> bool:
    """Python's, torch's or our own machinery, which is never what a check blames."""
    if path.startswith((ENGINE, TORCH, "<")):
        return True
    return path.startswith(PYTHON) and "-packages" + os.sep not in path


class Sources:
    """The files that define a class: its own, then those of the classes that it inherits from (libraries apart)."""

    def __init__(self, cls: type[Any]) -> None:
        self.cls = cls
        found = [inspect.getsourcefile(c) for c in cls.__mro__ if c.__module__ != "builtins"]
        ours = [real(f) for f in found if f and not is_library(real(f))]
        self.files = tuple(dict.fromkeys(ours))
        linecache.checkcache()  # a file may have been edited since

    @property
    def own(self) -> str:
        return self.files[0]

    @cached_property
    def trees(self) -> dict[str, ast.Module]:
        return {f: ast.parse(Path(f).read_text(encoding="utf-8"), f) for f in self.files}

    def classes(self) -> Iterator[tuple[str, ast.ClassDef]]:
        """(file, node) of the class, then of those that it inherits from."""
        for cls in self.cls.__mro__:
            for file, tree in self.trees.items():
                for node in ast.walk(tree):
                    if (
                        isinstance(node, ast.ClassDef)
                        and node.name == cls.__name__
                        and real(inspect.getsourcefile(cls) or "") == file
                    ):
                        yield file, node

    def of_class(self) -> Place:
        return next((Place(file, node.lineno) for file, node in self.classes()), Place(self.own, 1))

    def of_method(self, name: str) -> Place:
        """Where a method (or a nested class) stands; else the class."""
        for file, node in self.classes():
            for item in node.body:
                if isinstance(item, ast.FunctionDef | ast.ClassDef) and item.name == name:
                    return Place(file, item.lineno)
        return self.of_class()

    def of_class_attribute(self, name: str) -> Place:
        for file, node in self.classes():
            for item in node.body:
                if name in _assigned(item):
                    return Place(file, item.lineno)
        return self.of_class()

    def of_function(self, *names: str) -> Place | None:
        """A function or method of the first of these names that stands anywhere in the files."""
        for name in names:
            for file, tree in self.trees.items():
                for node in ast.walk(tree):
                    if isinstance(node, ast.FunctionDef) and node.name == name:
                        return Place(file, node.lineno)
        return None

    def of_parameter(self, name: str) -> Place | None:
        """Where `self.name` is made, or, if there is one, where the constructor computes something from it."""
        made = None
        for file, tree in self.trees.items():
            for function in ast.walk(tree):
                if not isinstance(function, ast.FunctionDef) or function.name != "__init__":
                    continue
                for item in ast.walk(function):
                    if isinstance(item, ast.Assign) and f"self.{name}" in _reads(item.value):
                        return Place(file, item.lineno)
                    if isinstance(item, ast.Assign) and f"self.{name}" in _assigned(item):
                        made = made or Place(file, item.lineno)
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


def place_of_error(error: BaseException, sources: Sources) -> Place | None:
    """The innermost line of the definition that an exception passed through."""
    frames = [(f.f_code.co_filename, line) for f, line in traceback.walk_tb(error.__traceback__)]
    return innermost(reversed(frames), sources)


def place_of_stack(frame: FrameType | None, sources: Sources) -> Place | None:
    """The innermost line of the definition in a stack."""
    return innermost(((f.f_code.co_filename, f.f_lineno) for f in _outwards(frame)), sources)


def innermost(frames: Iterable[tuple[str, int]], sources: Sources) -> Place | None:
    """Of frames from the inside out: the first in the definition's own file, else in one that it builds upon."""
    inherited: Place | None = None
    for file, line in frames:
        path = real(file)
        if path == sources.own:
            return Place(path, line)
        if path in sources.files:
            inherited = inherited or Place(path, line)
    return inherited


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
