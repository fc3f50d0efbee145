"""Files and lines: where a class, a method or an attribute stands, and which line of a definition is to blame."""

from __future__ import annotations

import ast
import inspect
import linecache
import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from types import FrameType
from typing import Any, Literal

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


State = Literal["kept", "broken", "skipped"]


@dataclass(frozen=True)
class Fault:
    """What was found against a rule, where, and what to do. A warning does not break the rule."""

    found: str
    do: str
    place: Place | None = None
    warning: bool = False


@dataclass(frozen=True)
class Rule:
    """A sentence that a definition must keep to. `check` yields what speaks against it.

    `needs` names rules without which this one cannot be looked at.
    """

    name: str
    check: Callable[[Any], Iterable[Fault]]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """How one rule fared."""

    rule: str
    state: State
    faults: tuple[Fault, ...] = ()
    why_skipped: str = ""

    def lines(self) -> Iterator[str]:
        broken = [f for f in self.faults if not f.warning]
        if self.state == "skipped":
            yield f"-      {self.rule}: not looked at, because of {self.why_skipped!r}"
        elif not broken:
            yield f"ok     {self.rule}"
        else:
            yield f"FAULT  {self.rule}"
        for fault in [*broken, *(f for f in self.faults if f.warning)]:
            told = [f"{fault.place}: {fault.place.text}"] if fault.place else []
            told += [f"found: {fault.found}", f"do: {fault.do}"]
            for first, line in zip([True] + [False] * len(told), told, strict=False):
                yield f"{'warn' if fault.warning and first else '':6} {line}"


@dataclass(frozen=True)
class Report:
    """All rules of one definition."""

    title: str
    outcomes: tuple[Outcome, ...]

    @property
    def broken(self) -> dict[str, tuple[Fault, ...]]:
        """Rule -> its faults, warnings apart."""
        return {
            o.rule: tuple(f for f in o.faults if not f.warning)
            for o in self.outcomes
            if any(not f.warning for f in o.faults)
        }

    @property
    def warnings(self) -> tuple[Fault, ...]:
        return tuple(f for o in self.outcomes for f in o.faults if f.warning)

    @property
    def sound(self) -> bool:
        return not self.broken

    def text(self) -> str:
        lines = [line for outcome in self.outcomes for line in outcome.lines()]
        kept = sum(o.state == "kept" for o in self.outcomes)
        skipped = sum(o.state == "skipped" for o in self.outcomes)
        counts = [f"{kept} rules kept"]
        counts += [f"{len(self.broken)} broken"] if self.broken else []
        counts += [f"{skipped} not looked at"] if skipped else []
        counts += [f"{len(self.warnings)} to be warned of"] if self.warnings else []
        verdict = "is sound" if self.sound else "is not sound"
        return "\n".join([*lines, f"{self.title} {verdict}: {', '.join(counts)}"])


def apply(title: str, rules: Sequence[Rule], subject: Any) -> Report:
    """Looks at each rule in turn; one that needs a broken rule is skipped.

    An exception inside a rule is a fault, at the line of the definition that raised it.
    """
    outcomes: list[Outcome] = []
    exceptions: dict[Fault, str] = {}
    lost: dict[str, str] = {}  # rule that cannot be relied on -> the rule that is to blame
    for rule in rules:
        blamed = next((lost[need] for need in rule.needs if need in lost), None)
        if blamed is not None:
            outcomes.append(Outcome(rule.name, "skipped", why_skipped=blamed))
            lost[rule.name] = blamed
            continue
        faults: list[Fault] = []
        try:
            faults.extend(rule.check(subject))
        except Exception as error:  # whatever a definition raises is what was found
            fault = raised(error, subject)
            if fault in exceptions and not faults:  # told already, and this rule cannot be looked at
                lost[rule.name] = exceptions[fault]
                outcomes.append(Outcome(rule.name, "skipped", why_skipped=exceptions[fault]))
                continue
            exceptions[fault] = rule.name
            faults.append(fault)
        state: State = "broken" if any(not f.warning for f in faults) else "kept"
        outcomes.append(Outcome(rule.name, state, tuple(_told_once(faults))))
        if state == "broken":
            lost[rule.name] = rule.name
    return Report(title, tuple(outcomes))


def raised(error: Exception, subject: Any, do: str = "") -> Fault:
    """The fault that an exception is."""
    first = next(iter(str(error).strip().splitlines()), "")
    found = f"{type(error).__name__}: {first}"
    return Fault(found, do or "repair what raises", place_of_error(error, subject.sources))


def _told_once(faults: Iterable[Fault]) -> Iterator[Fault]:
    """The first fault of a line; settings that vary often meet one fault again and again."""
    seen: set[Any] = set()
    for fault in faults:
        key = (fault.place, fault.warning) if fault.place else (fault.found, fault.warning)
        if key not in seen:
            seen.add(key)
            yield fault
