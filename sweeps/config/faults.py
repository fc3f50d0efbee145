"""Faults of a sweep file or of clusters.yaml: all of them at once, each with its line and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sweeps.config.registry import did_you_mean
from sweeps.errors import UserError


@dataclass(frozen=True)
class Fault:
    """One fault, or one warning, at a dotted path of settings or of a file."""

    path: str
    """Such as `train.lr`, or in a file `search.space.train.lr`; empty for the file as a whole."""
    message: str
    line: int | None = None
    """Counted from 1. None: the path is not in the file (a missing key, an override), or there is no file."""
    override: str | None = None
    """The KEY=VALUE argument that has the fault."""
    unknown_setting: bool = False
    """The path names a setting that does not exist there."""

    def __str__(self) -> str:
        where = f"{self.override!r}: " if self.override else f"line {self.line}: " if self.line else ""
        return f"{where}{self.path}: {self.message}" if self.path else f"{where}{self.message}"


class SweepFileError(UserError):
    """A file that cannot be used. `faults` has everything that is wrong with it, in the order of its lines."""

    def __init__(self, source_name: str, faults: Iterable[Fault]) -> None:
        self.source_name = source_name
        self.faults = tuple(faults)
        if len(self.faults) == 1:
            super().__init__(f"{source_name}: {self.faults[0]}")
        else:
            lines = [f"{source_name}: {len(self.faults)} faults", *(f"  {fault}" for fault in self.faults)]
            super().__init__("\n".join(lines))


class Faults:
    """Collects faults while a file is read; the `take` methods check one value each and add what is wrong.

    A `take` method that finds a fault returns None, so that reading continues and finds the others.

    Parameters
    ----------
    lines
        Dotted path -> line of the file (`Document.lines`).
    overridden
        Dotted path of the file -> the KEY=VALUE argument that set it.
    found
        Faults of the text itself (`Document.faults`).
    """

    def __init__(
        self,
        lines: Mapping[str, int],
        overridden: Mapping[str, str] | None = None,
        found: Iterable[Fault] = (),
    ) -> None:
        self._lines = lines
        self.overridden = dict(overridden or {})
        self._found = dict.fromkeys(found)

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, path: str, message: str) -> None:
        """Add a fault at `path`, with its line; an equal one is kept once."""
        self._found.setdefault(self.locate(path, message))

    def add_line(self, line: int | None, message: str) -> None:
        """Add a fault of a line, or of the file as a whole."""
        self._found.setdefault(Fault("", message, line))

    def locate(self, path: str, message: str) -> Fault:
        """A fault with the line, or the override, of `path` or of the nearest enclosing path that has one."""
        for part in outwards(path):
            if part in self.overridden:
                return Fault(path, message, override=self.overridden[part])
            if part in self._lines:
                return Fault(path, message, self._lines[part])
        return Fault(path, message)

    def raise_any(self, source_name: str) -> None:
        """Raise SweepFileError if there is a fault."""
        if self._found:
            raise SweepFileError(source_name, sorted(self._found, key=lambda fault: (fault.line is None, fault.line or 0)))

    # -------------------------------------------------------------------------------------- values

    def take_mapping(self, value: Any, path: str, known: Iterable[str] | None = None) -> dict[str, Any] | None:
        """`value` if it is a mapping; with `known`, every other key is a fault (and left out)."""
        if not isinstance(value, dict):
            self.add(path, f"must be a mapping (key: value), not {shown(value)}")
            return None
        if known is None:
            return value
        allowed = list(known)
        for key in value:
            if key not in allowed:
                self.add(join(path, key), unknown("key", key, allowed, path.partition(".")[0]))
        return {key: item for key, item in value.items() if key in allowed}

    def take_integer(self, value: Any, path: str, low: int, high: int | None = None, or_else: str | None = None) -> int | None:
        """A whole number from low to high, both allowed; 1e6 is one too. `or_else` is a word that is allowed as well."""
        wanted = f"{f'{or_else}, or ' if or_else else ''}a whole number {_bounds(low, high)}"
        number = whole(value)
        beyond = high is None and number is not None and out_of_range(number, integer=True)
        if beyond:
            self.add(path, beyond)
            return None
        if number is None or number < low or (high is not None and number > high):
            self.add(path, f"must be {wanted}, not {shown(value)}")
            return None
        return number

    def take_number(self, value: Any, path: str, above: float | None = None, low: float | None = None) -> float | None:
        """A number, above `above` or at least `low` where given."""
        fits = is_number(value) and (above is None or value > above) and (low is None or value >= low)
        if not fits:
            bound = f" of at least {low:g}" if low is not None else ""
            bound = f" above {above:g}" if above is not None else bound
            self.add(path, f"must be a number{bound}, not {shown(value)}")
            return None
        beyond = out_of_range(value, integer=False)
        if beyond:
            self.add(path, beyond)
            return None
        return float(value)


def join(*parts: str | int) -> str:
    """A dotted path; empty parts are left out."""
    return ".".join(str(part) for part in parts if part != "")


def outwards(path: str) -> Iterator[str]:
    """`a.b.c`, `a.b`, `a`."""
    while path:
        yield path
        path = path.rpartition(".")[0]


def unknown(kind: str, word: str, known: Iterable[str], section: str | None = None) -> str:
    """The message `unknown key 'stepz'. Did you mean 'steps'? Known: ...`; `section` is that of a sweep file, "" at top."""
    names = list(known)
    hint = did_you_mean(word, names, section)
    return f"unknown {kind} {word!r}.{hint} Known: {', '.join(names)}."


INT64 = 2**63 - 1
"""The largest whole number that the store can keep."""
FLOAT32 = (1.1754943508222875e-38, 3.4028234663852886e38)
"""Smallest and largest magnitude of a normal float32, in which lanes are computed."""


def out_of_range(value: float, integer: bool) -> str | None:
    """The reason why a number cannot be used, with the nearest one that can; None for one that can.

    A whole number is kept as int64. Any other number is computed with as float32, where a smaller one than `FLOAT32[0]` loses
    digits or is 0.
    """
    smallest, largest = (0, INT64) if integer else FLOAT32
    kind = "whole number within int64" if integer else "number within float32"
    if not math.isfinite(value):
        return f"must be a finite number, but got {value}"
    if abs(value) > largest:
        nearest_one = f"the largest is {largest}" if value > 0 else f"the lowest is {-largest}"
        return f"must be a {kind}, but got {value!r}: {nearest_one}"
    if 0 < abs(value) < smallest:
        return f"must be a {kind}, but got {value!r}: write 0, or at least {smallest:.8g}"
    return None


def is_number(value: Any) -> bool:
    """Whether it is an int or a float; true and false are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def whole(value: Any) -> int | None:
    """A whole number as an int, 1e6 included; None for everything else."""
    if not is_number(value) or not math.isfinite(value) or value != int(value):
        return None
    return int(value)


def shown(value: Any) -> str:
    """A value as a person would write it, shortened."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shown(item)}" for key, item in value.items())[:60] + "}"
    if isinstance(value, list):
        return "[" + ", ".join(shown(item) for item in value)[:60] + "]"
    if isinstance(value, str):
        return repr(value[:60])
    return f"{value!r}"


def _bounds(low: int, high: int | None) -> str:
    return f"from {low} to {high}" if high is not None else f"of at least {low}"
