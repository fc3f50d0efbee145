"""Side effects of a definition, each with the line that causes it.

Changes of variables are found by a snapshot at every line of the definition's files, draws and reads of values by torch's
modes for functions and operations, and output by replacing the functions that write it.
"""

from __future__ import annotations

import builtins
import logging
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType, ModuleType, TracebackType
from typing import Any, Literal
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from sweeps.checking.source import Location, Sources, location_of_stack, real_path

Snapshot = Callable[[], Mapping[str, Any]]
GENERATORS = {
    "torch's global generator": lambda: torch.get_rng_state().numpy().tobytes(),
    "NumPy's global generator": lambda: _numpy_state(),
    "Python's random module": random.getstate,
}


def _numpy_state() -> tuple[bytes, Any]:
    # A model must not draw from this generator, which only its state before and after can show.
    state: Any = np.random.get_state(legacy=False)  # noqa: NPY002  nothing newer returns has_gauss
    return state["state"]["key"].tobytes(), (state["state"]["pos"], state["has_gauss"], state["gauss"])


def generators() -> dict[str, Any]:
    """Return the state of every global generator."""
    return {name: state() for name, state in GENERATORS.items()}


def variables(model: nn.Module, sources: Sources) -> dict[str, Any]:
    """Return a mark of every variable that code could change: of a model and its parts, of classes and of modules."""
    found: dict[str, Any] = {}
    for path, part in model.named_modules():
        for name, value in vars(part).items():
            if name not in ("_parameters", "_buffers", "_modules"):
                found[f"attribute {path + '.' if path else ''}{name}"] = _mark(value)
    for cls in sources.cls.__mro__:
        module = sys.modules.get(cls.__module__)
        if module is not None and real_path(getattr(module, "__file__", None) or "") in sources.files:
            found |= {f"class variable {n}": _mark(v) for n, v in vars(cls).items()}
            found |= {f"module variable {n}": _mark(v) for n, v in vars(module).items()}
    return found


def _mark(value: Any) -> Any:
    """Return something that is equal as long as the value is neither changed nor replaced."""
    if isinstance(value, bool | int | float | str | None):
        return repr(value)
    if isinstance(value, Tensor):
        return id(value), value._version
    if isinstance(value, dict):
        return id(value), len(value), tuple(map(id, value.values())) if len(value) < 100 else None
    if isinstance(value, list | set):
        return id(value), len(value), tuple(map(id, value)) if len(value) < 100 else None
    return id(value) if not isinstance(value, ModuleType) else None


class Tracer:
    """A context manager that collects `changes`: (name, line) of every entry of the snapshot that changes."""

    def __init__(self, sources: Sources, snapshot: Snapshot) -> None:
        self.changes: list[tuple[str, Location | None]] = []
        self.busy = False  # whether a snapshot is being taken, which itself reads tensors
        self._files = frozenset(sources.files)
        self._snapshot, self._seen = snapshot, dict(snapshot())
        self._last_line: Location | None = None

    def __enter__(self) -> Tracer:
        self._before = sys.gettrace()
        sys.settrace(self._call)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        sys.settrace(self._before)
        self._compare()

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if real_path(frame.f_code.co_filename) in self._files else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        self._compare()
        self._last_line = Location(real_path(frame.f_code.co_filename), frame.f_lineno)
        caller = frame.f_back
        if event == "return" and caller is not None and real_path(caller.f_code.co_filename) in self._files:
            self._last_line = Location(real_path(caller.f_code.co_filename), caller.f_lineno)
        return self._line

    def _compare(self) -> None:
        self.busy = True
        try:
            now = dict(self._snapshot())
        finally:
            self.busy = False
        for name, value in now.items():
            if self._seen.get(name) != value and name not in [changed for changed, _ in self.changes]:
                self.changes.append((name, self._last_line))
        self._seen = now


Kind = Literal["random", "value", "write", "output", "change"]
VALUE_METHODS = {
    "item", "tolist", "numpy", "__bool__", "__float__", "__int__", "__index__", "__array__", "__complex__", "equal",
    "allclose", "nonzero", "unique",
}  # fmt: skip


@dataclass(frozen=True)
class Event:
    """A side effect: its kind, what it was, and the line of the definition, if it has one."""

    kind: Kind
    what: str
    location: Location | None


@contextmanager
def watched(
    sources: Sources, given: dict[str, Tensor] | None = None, snapshot: Snapshot | None = None
) -> Iterator[list[Event]]:
    """Collect side effects. `given` names tensors that must not be written into, `snapshot` is compared line by line."""
    events: list[Event] = []
    tracer = Tracer(sources, snapshot or dict)

    def note(kind: Kind, what: str) -> None:
        if tracer.busy:
            return
        event = Event(kind, what, location_of_stack(sys._getframe(1), sources))
        if event.location is not None and event not in events:
            events.append(event)

    with ExitStack() as stack:
        stack.enter_context(_output_noted(note))
        stack.enter_context(_Operations(note, given or {}))
        stack.enter_context(_ValueMethods(note))
        with tracer:
            yield events
    events += [Event("change", name, location) for name, location in tracer.changes]


Note = Callable[[Kind, str], None]


class _ValueMethods(TorchFunctionMode):
    """Reports methods that turn a tensor's value into a Python object; some of them run no operation."""

    def __init__(self, note: Note) -> None:
        super().__init__()
        self.note = note

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in VALUE_METHODS:
            self.note("value", _described(name))
        return func(*args, **(kwargs or {}))


class _Operations(TorchDispatchMode):
    """Reports operations that draw, depend on values or write in place, by torch's tags."""

    def __init__(self, note: Note, given: dict[str, Tensor]) -> None:
        super().__init__()
        self.note = note
        self.given = {t.untyped_storage().data_ptr(): name for name, t in given.items()}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.note("random", f"torch's {name}")
        if torch.Tag.data_dependent_output in func.tags and name != "_local_scalar_dense":
            self.note("value", f"{name}()")
        if torch.Tag.dynamic_output_shape in func.tags and (name != "index" or _masks(args)):
            self.note("value", "an index by a mask" if name == "index" else f"{name}()")
        if func._schema.is_mutable:
            for argument, spec in zip(args, func._schema.arguments, strict=False):
                if isinstance(argument, Tensor) and spec.alias_info is not None and spec.alias_info.is_write:
                    written = self.given.get(argument.untyped_storage().data_ptr())
                    if written is not None:
                        self.note("write", written)
        return func(*args, **(kwargs or {}))


def _masks(args: Any) -> bool:
    indices = args[1] if len(args) > 1 else ()
    return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in indices)


def _described(name: str) -> str:
    words = {"__bool__": "a branch on (or bool() of)", "__float__": "float() of", "__int__": "int() of",
             "__index__": "an index by", "__array__": "a NumPy array of", "__complex__": "complex() of"}  # fmt: skip
    return f"{words[name]} a tensor" if name in words else f".{name}()"


class _Output:
    """A replacement of standard output and error."""

    def __init__(self, note: Note) -> None:
        self.note = note

    def write(self, text: str) -> int:
        self.note("output", "print")
        return len(text)

    def flush(self) -> None: ...


@contextmanager
def _output_noted(note: Note) -> Iterator[None]:
    """Report what is printed, logged, warned of, read or opened; torch's own warnings and files are left out."""
    opened = builtins.open

    def opens(file: Any, *rest: Any, **options: Any) -> Any:
        if _from_definition():
            note("output", "open")
        return opened(file, *rest, **options)

    def logs(self: Any, record: Any) -> None:
        note("output", "logging")

    def warns(*_: Any, **__: Any) -> None:
        if _from_definition():
            note("output", "warnings.warn")

    def reads(*_: Any) -> str:
        note("output", "input")
        return ""

    with ExitStack() as stack:
        output = _Output(note)
        for target, name, value in (
            (sys, "stdout", output), (sys, "stderr", output), (builtins, "open", opens), (builtins, "input", reads),
            (logging.Logger, "handle", logs), (warnings, "warn", warns),
        ):  # fmt: skip
            stack.enter_context(mock.patch.object(target, name, value))
        yield


def _from_definition() -> bool:
    """Return whether the caller of a replacement is neither torch nor Python's import system."""
    caller = sys._getframe(2).f_code.co_filename
    return "torch" not in caller.split("/") and not caller.startswith("<frozen")
